"""The wiring: a scenario goes through the stages load, fit, check, train, fly, evaluate, decide, report.

Each stage reads frozen results of those before it. The expensive ones (fine-tuning, fitting, training, flying) are
tasks whose results are stored by what they depend on (`simulator.cache`), so an interrupted run goes on where it
stopped and a changed gate re-runs nothing but the gate.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scenarios.loading import CANDIDATE, Candidate, digest, load_scenario
from scenarios.schema import Scenario
from scenarios.stages.adapting import measure_adaptation, references
from scenarios.stages.believing import check_fidelity, check_known, scored_users
from scenarios.stages.curves import Trackers
from scenarios.stages.domains import open_domains
from scenarios.stages.flying import check_flights, fly_users
from scenarios.stages.reporting import assemble, evaluate, write
from scenarios.stages.setting import open_setting
from scenarios.stages.training import keys_of, train_agents, tune_agents
from scenarios.stages.worlds import (
    FITTING,
    explain_scores,
    fit_train_world,
    fit_worlds,
    load,
    preference_files,
    read_log,
)
from simulator.cache import PROJECT
from simulator.engine import Task
from simulator.errors import InputError, did_you_mean
from simulator.log import JUDGE, InteractionLog, Split
from simulator.progress import Progress
from simulator.streams import stream

if TYPE_CHECKING:
    from evaluators.ablation import Ablation
    from evaluators.report import Report
    from evaluators.speed import Speed
    from simulator.preference.explaining import Explanations
    from simulator.world import World


def run(
    scenario: Path,
    *,
    out: Path = Path("runs"),
    seed: int | None = None,
    workers: int | None = None,
    engine: str = "local",
    overrides: Sequence[str] = (),
    progress: Progress | None = None,
    candidate: Candidate | None = None,
    tensorboard: Path | None = None,
    wandb: str | None = None,
    mlflow: str | None = None,
) -> Report:
    """Everything in a scenario; the report and its page are written to `out/<name>/<digest12>/`.

    Args:
        scenario: the YAML file.
        out: folder of runs.
        seed: replaces the scenario's own seed.
        workers: processes; default one a core.
        engine: "local", "dask" or "dask:ADDRESS".
        overrides: `key.path=value` texts of `--set`.
        progress: where stages are shown; default standard error.
        candidate: a policy to vet.
        tensorboard: folder for the learning curves of every agent and training seed; None writes none.
        wandb: project of Weights & Biases that gets them, likewise.
        mlflow: folder or tracking URI of MLflow that gets them, likewise.

    Raises:
        InputError: something the user gave cannot be used.
    """
    from scenarios.checking import prepare_scenario

    trackers = Trackers(tensorboard, wandb, mlflow)  # what cannot be sent is known before anything trains
    prepared = prepare_scenario(scenario, overrides=overrides, seed=seed, candidate=candidate)
    with open_setting(
        prepared.scenario, prepared.folder, progress or Progress(), workers=workers, engine=engine
    ) as setting:
        began = time.monotonic()
        data = load(setting, prepared.specs, vetted=candidate is not None)
        data = open_domains(setting, data, prepared.specs)
        trackers.open()
        worlds = fit_worlds(setting, data)
        believed = check_fidelity(setting, data, worlds)
        specs, tuned = tune_agents(setting, data, worlds, prepared.specs)
        beside = references(setting, specs)
        trained = train_agents(setting, data, worlds, [*specs, *beside])
        for line in trackers.send(prepared.scenario.name, digest(prepared.scenario, data.run_digest), trained):
            setting.progress.say(line)
        keys = keys_of(data, worlds, [*specs, *beside])
        adapted = measure_adaptation(setting, data, worlds, [*specs, *beside], trained, keys)
        trained = {spec.settings.name: trained[spec.settings.name] for spec in specs}
        worlds, judged, failed = fly_users(setting, data, worlds, specs, trained, keys)
        flown = check_flights(setting, data, worlds, specs, trained, keys, judged, failed)
        if candidate is not None and CANDIDATE in flown.failed:
            raise InputError(f"--policy: '{candidate.policy}' failed: {flown.failed[CANDIDATE]}")
        findings = evaluate(setting, data, worlds, believed, specs, trained, flown, keys, tuned)
        setting.progress.seconds["total"] = time.monotonic() - began
        report = assemble(setting, data, worlds, believed, findings, adapted)
        with setting.progress.stage("report"):
            write(report, out, flown, data, worlds, specs, trained)
        setting.progress.say(
            f"{sum(setting.progress.cpu_seconds.values()):.0f} processor seconds, by task in report.json"
        )
        return report


def vet(
    scenario: Path, *, policy: str, baseline: str | None = None, trained_on: str | None = None, **options: Any
) -> Report:
    """Add a user's own policy as `candidate` and answer the scenario's gates for it alone.

    Raises:
        InputError: the policy cannot be loaded, or fails.
    """
    return run(scenario, candidate=Candidate(policy, baseline, trained_on), **options)


def fidelity(
    scenario: Path,
    *,
    out: Path = Path("runs"),
    seed: int | None = None,
    workers: int | None = None,
    engine: str = "local",
    overrides: Sequence[str] = (),
    progress: Progress | None = None,
) -> Report:
    """Data, preference model and fidelity only; fidelity.json and its page go to `out/<name>/<digest12>/`.

    No agent flies but those of `evaluate.known` that need no training.
    """
    from evaluators.run_folder import write_fidelity
    from scenarios.checking import prepare_scenario

    prepared = prepare_scenario(scenario, overrides=overrides, seed=seed)
    with open_setting(
        prepared.scenario, prepared.folder, progress or Progress(), workers=workers, engine=engine
    ) as setting:
        data = load(setting)
        worlds = fit_worlds(setting, data)
        believed = check_known(setting, data, worlds, prepared.specs, check_fidelity(setting, data, worlds))
        report = assemble(setting, data, worlds, believed)
        with setting.progress.stage("report"):
            write_fidelity(out / report.name / report.digest[:12], report)
    return report


def _ablate(
    log: InteractionLog,
    split: Split,
    settings: Any,
    root: Any,
    folder: Path,
    vectors: Path,
    rows: NDArray[np.int64],
    *,
    report: Callable[[float, str], None],
) -> Any:
    from evaluators.ablation import fit_variant

    return fit_variant(log, split, JUDGE, settings, root, rows, cache=vectors, folder=folder, progress=report)


def ablation(
    scenario: Path,
    *,
    seed: int | None = None,
    workers: int | None = None,
    engine: str = "local",
    overrides: Sequence[str] = (),
    progress: Progress | None = None,
) -> Ablation:
    """Fit the preference model once for every combination of `ablation:`, and score all on the same unseen rows.

    Raises:
        InputError: the scenario has no `ablation:`, or one of its combinations is no preference model.
    """
    from evaluators.ablation import scored_rows, tabulate, variants
    from scenarios.checking import prepare_scenario

    prepared = prepare_scenario(scenario, overrides=overrides, seed=seed)
    chosen = variants(prepared.scenario.preference, prepared.scenario.ablation)
    with open_setting(
        prepared.scenario, prepared.folder, progress or Progress(), workers=workers, engine=engine
    ) as setting:
        data = load(setting)
        log = replace(data.log, catalogue=replace(data.log.catalogue, content=None))
        rows = scored_rows(log, data.split, np.concatenate(scored_users(data.split)), stream(setting.root, "ablation"))
        vectors = setting.engine.cache.folder / "vectors"
        tasks = [
            Task("ablation", label, _ablate, (log, data.split, one, setting.root, setting.folder, vectors, rows),
                 (data.digest, setting.scenario.seed, one, preference_files(one, setting.folder)),
                 (*FITTING, "evaluators/ablation.py"))
            for label, one in chosen.items()
        ]  # fmt: skip
        fitted = dict(zip(chosen, setting.map("ablation", tasks), strict=True))
        return tabulate(setting.scenario.name, log, rows, fitted, setting.root)


def explain(
    scenario: Path,
    *,
    users: Sequence[str],
    items: Sequence[str],
    seed: int | None = None,
    workers: int | None = None,
    engine: str = "local",
    overrides: Sequence[str] = (),
    progress: Progress | None = None,
) -> Explanations:
    """Which of a user's history and which words of an item moved its score: every user with every item, by ids.

    Raises:
        InputError: the scenario or an id is wrong.
    """
    from scenarios.checking import prepare_scenario

    prepared = prepare_scenario(scenario, overrides=overrides, seed=seed)
    with open_setting(
        prepared.scenario, prepared.folder, progress or Progress(), workers=workers, engine=engine
    ) as setting:
        return explain_scores(setting, read_log(setting), users, items)


def report_again(folder: Path) -> Path:
    """Render report.html again from the report.json on disk; returns the page's path."""
    from evaluators.run_folder import render_again

    return render_again(folder)


def leaderboard(
    folder: Path, *, html: Path | None = None, metric: str | None = None, families: Sequence[str] = ()
) -> Any:
    """Every report under a folder, grouped by what makes runs comparable.

    Args:
        folder: of runs.
        html: where to write the page; None writes none.
        metric: by which agents are ranked; default the primary one.
        families: of agents that are shown, `user` being those that are no built-in kind; default all.

    Raises:
        InputError: no report can be read, or the metric or a family is unknown.
    """
    from agents.kinds import family_of, known_families
    from evaluators.leaderboard import leaderboard as rank_runs

    for family in families:
        if family not in known_families():
            hint = did_you_mean(family, known_families())
            raise InputError(
                f"--family: '{family}' is no family of agents{hint}; there are {', '.join(known_families())}"
            )
    shown = (lambda kind: family_of(kind) in families) if families else None
    return rank_runs(folder, html, metric=metric, shown=shown)


def bench(*, seconds: float = 1.0) -> Speed:
    """Measure the simulator, the off-policy estimators and the smoke scenario, nothing cached, on this machine.

    Args:
        seconds: how long each number of users and each estimator is measured.
    """
    import tempfile

    from evaluators.speed import measure_speed

    smoke = PROJECT / "scenarios" / "smoke.yaml"
    before = os.environ.get("WINDTUNNEL_CACHE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["WINDTUNNEL_CACHE"] = folder
        try:
            report = run(smoke, out=Path(folder) / "runs", progress=Progress())
            world, _ = _train_world(smoke)
        finally:
            if before is None:
                del os.environ["WINDTUNNEL_CACHE"]
            else:
                os.environ["WINDTUNNEL_CACHE"] = before
    return measure_speed(world, seconds, stages=report.seconds)


# ------------------------------------------------------------------------------------------- Gymnasium's entry points


def _train_world(scenario: str | Path | Scenario) -> tuple[World, NDArray[np.float32] | None]:
    """World A of a scenario with the items' content vectors; fitted on first use, then read from the cache."""
    if isinstance(scenario, Scenario):
        chosen, folder = scenario, Path()
    else:
        chosen, folder = load_scenario(Path(scenario)), Path(scenario).parent
    with open_setting(chosen, folder, Progress(None), workers=1) as setting:
        data = load(setting)
        return fit_train_world(setting, data), data.log.catalogue.content


def make_env(scenario: str | Path | Scenario, *, action: str = "slate", seed: int = 0, render_mode: None = None) -> Any:
    """One simulated user in world A of a scenario: what `gymnasium.make("windtunnel/Recommend-v0", ...)` returns."""
    from simulator.env import WindtunnelEnv

    world, content = _train_world(scenario)
    return WindtunnelEnv(world, action=action, seed=seed, content=content)


def make_vector_env(
    num_envs: int = 1,
    *,
    scenario: str | Path | Scenario,
    action: str = "slate",
    seed: int = 0,
    copy: bool = True,
    autoreset_mode: str = "same_step",
    render_mode: None = None,
) -> Any:
    """Many simulated users at once: what `gymnasium.make_vec(..., vectorization_mode="vector_entry_point")` returns."""
    from simulator.env import WindtunnelVectorEnv

    world, content = _train_world(scenario)
    return WindtunnelVectorEnv(
        world, num_envs, action=action, seed=seed, content=content, copy=copy, autoreset_mode=autoreset_mode
    )
