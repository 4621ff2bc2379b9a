"""From everything that was found to the findings and the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scenarios.loading import digest, kind_without_folder, resolved, without_folders, world_digest
from scenarios.schema import Scenario
from scenarios.stages.flying import Flown, where_of
from scenarios.stages.setting import Setting
from scenarios.stages.training import Failure, save_agents
from scenarios.stages.worlds import Data, Worlds, save_models
from simulator.cache import PROJECT, library_versions
from simulator.engine import Engine, Task
from simulator.log import HELD_OUT, JUDGE, WORLD_A, InteractionLog, Split

if TYPE_CHECKING:
    from agents.loading import AgentSpec, Trained
    from agents.tuning import Tuned
    from evaluators.fidelity import Fidelity
    from evaluators.findings import AgentFacts, Evidences
    from evaluators.for_whom import ForWhom
    from evaluators.report import AdaptationSection, EstimateModel, ForgettingRow, Report
    from simulator.preference.continual import Forgetting
    from simulator.preference.fitting import TextTower


def evaluate(
    setting: Setting,
    data: Data,
    worlds: Worlds,
    fidelity_found: Fidelity,
    specs: Sequence[AgentSpec],
    trained: Mapping[str, list[Trained | Failure]],
    flown: Flown,
    keys: Mapping[str, Any],
    tuned: Mapping[str, Tuned | str],
) -> Any:
    """Compare, rank, correct, check for fairness and effect, and decide the gates."""
    from evaluators.findings import find

    scenario = setting.scenario
    facts = facts_of(data, specs, trained, flown, tuned)
    code = ("simulator", "agents", "evaluators")
    depends = (where_of(setting, data, worlds), keys, [(one.name, one.failed, one.barred, one.learns) for one in facts])

    def served(whom: ForWhom, names: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        # In this process: what they share, every agent's flights, is too large to be handed to others.
        tasks = [Task("for whom", name, _section, (whom, name), (depends, name), code) for name in names]
        done = Engine(setting.engine.cache, 1).map(tasks, show)
        new = [(task, one) for task, one in zip(tasks, done, strict=True) if not one.cached]
        setting.cpu.update({f"evaluate/{task.name} (cpu)": one.cpu_seconds for task, one in new})
        return dict(zip(names, (one.result for one in done), strict=True))

    with setting.progress.stage("evaluate") as show:
        return find(
            facts,
            evidences_of(data, worlds, flown),
            evaluate=scenario.evaluate,
            gates=scenario.gates,
            assumptions=worlds.judges[0].assumptions,
            served=served,
            fidelity=fidelity_found,
            root=setting.root,
        )


def facts_of(
    data: Data,
    specs: Sequence[AgentSpec],
    trained: Mapping[str, Sequence[Trained | Failure]],
    flown: Flown,
    tuned: Mapping[str, Tuned | str] = MappingProxyType({}),
) -> list[AgentFacts]:
    """What findings need to know of agents beside their flights; of one that was not trained, why (`flown.failed`)."""
    from evaluators.findings import AgentFacts

    facts = []
    for spec in specs:
        name = spec.settings.name
        ready = [one for one in trained.get(name, ()) if not isinstance(one, Failure)]
        curves = tuple((k, one.curve, one.prior_value) for k, one in enumerate(ready) if one.curve)
        facts.append(
            AgentFacts(
                name=name,
                kind=kind_without_folder(spec.settings.kind),
                trained_on=_trained_on(spec),
                learns=spec.learns,
                bound=spec.privileged,
                curves=curves,
                steps=ready[0].steps if curves else None,
                reproducible=all(one.reproducible for one in ready),
                judged_at=tuple(one.judged_at for one in ready if one.judged_at is not None),
                failed=flown.failed.get(name),
                notes=flown.notes.get(name, ()),
                tuned=tuned.get(name),
                barred=None if name in flown.failed else _may_have_seen(spec, data.log, data.split),
            )
        )
    return facts


def evidences_of(data: Data, worlds: Worlds, flown: Flown) -> Evidences:
    """What was measured of the agents, and of whom they served."""
    from evaluators.findings import Evidences
    from evaluators.for_whom import Population
    from evaluators.picks import said_of

    log = data.log
    users = worlds.judges[0].starts.user
    starts = worlds.judges[0].starts
    train_rows = np.isin(log.user, data.split.users(WORLD_A))
    rows = np.diff(starts.seen.start)
    liked = np.add.reduceat(np.append(starts.seen.primary, 0.0), starts.seen.start[:-1]) * (rows > 0)
    features = np.column_stack([log.catalogue.user_features[users], np.log1p(rows), liked / np.maximum(rows, 1)])
    return Evidences(
        judged=flown.judged,
        picks=flown.picks,
        shifted=flown.shifted,
        logged=flown.logged,
        population=Population(
            features=features.astype(np.float64),
            feature_names=(*log.catalogue.user_feature_names, "history_length", "like_share"),
            groups=dict(log.catalogue.user_attributes),
            world=worlds.judges[0],
            likes=np.bincount(log.item[train_rows], log.primary[train_rows], minlength=log.catalogue.n_items).astype(
                np.float64
            ),
            categories=log.catalogue.item_categories,
        ),
        given=said_of(log),
        on_log=flown.on_log,
        source=log.source,
    )


def _section(whom: ForWhom, name: str, *, report: Callable[[float, str], None]) -> dict[str, Any]:
    return whom.section(name)


def _trained_on(spec: AgentSpec) -> str:
    """What the report says that an agent has learned from."""
    if spec.fits:
        return "this run"
    return "nothing" if spec.fitted_here else spec.settings.trained_on or "unsaid"


def _may_have_seen(spec: AgentSpec, log: InteractionLog, split: Split) -> str | None:
    """Why a policy that this run did not fit may have seen the rows that judge it, or None."""
    said = spec.settings.trained_on
    if spec.fitted_here or said == "nothing":
        return None
    if said is None:
        return (
            "policy may have seen these rows: it has no fit, so it was trained elsewhere; say trained_on: nothing, or "
            "before TIME"
        )
    if not log.has_time:
        return f"policy may have seen these rows: it was trained {said}, and the log has no times"
    limit = np.datetime64(said.removeprefix("before ").strip(), "s").astype(np.int64)
    judging = ~np.isin(log.user, split.users(WORLD_A))
    earlier = float(np.mean(log.time[judging] < limit))
    if earlier > 0:
        return (
            f"policy may have seen these rows: it was trained {said}, and {earlier:.0%} of the judging rows are "
            "earlier; give a log of later rows"
        )
    return None


def assemble(
    setting: Setting,
    data: Data,
    worlds: Worlds,
    fidelity_found: Fidelity,
    findings: Any = None,
    adapted: Sequence[AdaptationSection] = (),
) -> Report:
    """The report of a run, or of the fidelity stages alone."""
    from evaluators.data_card import data_card
    from evaluators.report import DataCardModel, DataSection, FidelitySection, PreferenceSection, Report

    log, split, scenario = data.log, data.split, setting.scenario
    base = float(log.primary.mean())
    parts = {"world A": WORLD_A, "judge worlds": JUDGE, "held out": HELD_OUT}
    splits: dict[str, Any] = {
        name: {
            "users": len(split.users(role)),
            "rows": int(np.isin(log.user, split.users(role)).sum()),
            "late rows": len(split.rows(log, split.users(role), late=True)),
        }
        for name, role in parts.items()
    }
    holds = data_card(log)
    card: dict[str, Any] = {
        "primary behaviour": scenario.data.positive,
        "base rate": round(base, 4),
        "sha256": data.digest,
        "time": "yes" if log.has_time else "no: the order within a user is drawn at random",
        "positions": "yes" if log.position is not None else "no: examination is assumed and swept",
        "propensities": "yes" if log.propensity is not None else "no: no off-policy estimate on the log's own rows",
        "exposure": holds.exposure,
        "notes": [*log.notes, *worlds.judges[0].notes],
    }
    block = (fidelity_found if findings is None else findings.fidelity).to_json()
    block["reliability"] = [{"bin": k, **one} for k, one in enumerate(block["reliability"], 1)]
    versions = {**library_versions(), "windtunnel": _own_version()}
    of_stages = {f"{stage} (cpu)": cpu for stage, cpu in setting.progress.cpu_seconds.items()}
    of_towers = tower_seconds({"world A": worlds.tower_a, "judge worlds": worlds.tower_judge})
    seconds = {**setting.progress.seconds, **of_stages, **setting.cpu, **of_towers}
    return Report(
        name=scenario.name,
        digest=digest(scenario, data.run_digest),
        world_digest=world_digest(scenario, data.digest, versions),
        seed=scenario.seed,
        versions=versions,
        seconds={name: round(value, 3) for name, value in seconds.items()},
        data=DataSection(
            source=Path(scenario.data.source).name,
            n_users=log.catalogue.n_users,
            n_items=log.catalogue.n_items,
            n_interactions=len(log),
            splits=splits,
            card=card,
            holds=DataCardModel.model_validate(holds.to_json()),
        ),
        fidelity=FidelitySection.model_validate(block),
        preference=PreferenceSection.model_validate(_preference(setting, worlds, block)),
        scenario=without_folders(scenario),
        metrics=list(scenario.evaluate.metrics),
        adaptation=list(adapted),
        **({"verdict": "undecided"} if findings is None else findings.sections()),
    )


def _own_version() -> str:
    """Version of the installed package; of pyproject.toml where the code is run from a folder without installing it."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("windtunnel")
    except PackageNotFoundError:
        import tomllib

        return str(tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"])


def forgetting_row(world: str, lost: Forgetting) -> ForgettingRow:
    """Loss of older rows before an update, after it, and the difference, each with its interval."""
    from evaluators.fidelity import ratio_by_user
    from evaluators.report import EstimateModel, ForgettingRow

    def mean(loss: NDArray[np.float64], what: str) -> EstimateModel:
        method = f"log-loss a row {what}, older rows that neither model saw, user-cluster t"
        return EstimateModel.of(ratio_by_user(loss, np.ones(len(loss)), lost.user, method=method))

    return ForgettingRow(
        world=world,
        before=mean(lost.before, "before the update"),
        after=mean(lost.after, "after the update"),
        difference=mean(lost.after - lost.before, "after the update minus before it"),
    )


def tower_seconds(towers: Mapping[str, TextTower]) -> dict[str, float]:
    """Processor seconds of each part of fine-tuning, by the encoder's role, as a report's `seconds` names them."""
    return {
        f"fine-tune/encoder of {role}, {part} (cpu)": cpu
        for role, tower in towers.items()
        for part, cpu in tower.seconds.items()
    }


def _preference(setting: Setting, worlds: Worlds, fidelity_block: Mapping[str, Any]) -> dict[str, Any]:
    """The report's section on the preference model."""
    from evaluators.fidelity import ratio_by_user
    from evaluators.report import EstimateModel

    tower = worlds.tower_judge
    gain = None
    if tower.gain is not None:
        rows = tower.gain.rows.astype(np.float64)
        found = ratio_by_user(
            tower.gain.difference, rows, np.arange(len(rows)),
            method="log-loss a row, frozen control minus fine-tuned, tuning users, user-cluster t",
        )  # fmt: skip
        gain = EstimateModel.of(found)
    more: dict[str, Any] = {}
    if worlds.explained:
        more["examples"] = list(worlds.explained)
    comparisons = []
    for name, estimate in fidelity_block["comparisons"].items():
        reference, _, rows_of = name.partition(", ")
        comparisons.append({"reference": reference, "rows": rows_of, "estimate": estimate})
    return {
        "encoder": setting.scenario.preference.encoder,
        "adaptation": setting.scenario.preference.adaptation,
        "chosen": tower.chosen,
        "gain": gain,
        "comparisons": comparisons,
        "forgetting": [forgetting_row(world, lost) for world, lost in worlds.forgotten.items()],
        "reliability": fidelity_block["reliability"],
        "summary": {
            "judge world 1": worlds.judge_models[0].summary(),
            "world A": {"chosen": worlds.tower_a.chosen, **worlds.model_a.summary()},
            "tuning loss by pass": list(tower.curve),
            "fine-tuning": {"trained parameters": tower.trained_parameters},
            "calibration floor": fidelity_block["calibration_floor"],
            **more,
        },
    }


def write(
    report: Report,
    out: Path,
    flown: Flown,
    data: Data,
    worlds: Worlds,
    specs: Sequence[AgentSpec],
    trained: Mapping[str, Sequence[Trained | Failure]],
) -> Path:
    """Write the run's folder, `out/<name>/<digest12>/`, preference models and agents with it, and return it."""
    from evaluators.run_folder import write_ids, write_run

    def beside(place: Path) -> None:
        write_ids(place, data.log.catalogue.user_ids, data.log.catalogue.item_ids)
        save_models(place / "preference", data, worlds)
        save_agents(place / "agents", data, specs, trained)

    folder = out / report.name / report.digest[:12]
    write_run(
        folder, report, flown.judged, scenario_text=resolved(Scenario.model_validate(report.scenario)),
        beside=beside,
    )  # fmt: skip
    return folder
