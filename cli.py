"""The command line: a command parses, calls one function, prints. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from evaluators.report import Report

# One thread a process, set before numpy can be imported: equal sums on any machine, and no more cores than `--workers`.
for _library in ("OMP", "OPENBLAS", "MKL"):
    os.environ[f"{_library}_NUM_THREADS"] = "1"

INPUT_ERROR, UNDECIDED, FAULT, INTERRUPTED = 2, 3, 70, 130

app = typer.Typer(
    name="windtunnel",
    help="Offline simulation and evaluation testbed for recommendation and search policies.",
    epilog="Example: windtunnel run scenarios/movielens.yaml",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data_app = typer.Typer(
    help="Datasets known by name.", no_args_is_help=True, epilog="Example: windtunnel data check ml-100k"
)
app.add_typer(data_app, name="data")
cache_app = typer.Typer(
    help="Stored results of stages, by which the same command answers at once.",
    no_args_is_help=True,
    epilog="Example: windtunnel cache list",
)
app.add_typer(cache_app, name="cache")

Scenario = Annotated[Path, typer.Argument(metavar="SCENARIO", help="Scenario file.", show_default=False)]
Out = Annotated[Path, typer.Option("--out", help="Folder for results: OUT/<name>/<digest12>/.")]
Seed = Annotated[int | None, typer.Option("--seed", min=0, help="Replaces the scenario's own seed.")]
Workers = Annotated[int | None, typer.Option("--workers", min=1, help="Processes at once; default: one a core.")]
EngineName = Annotated[str, typer.Option("--engine", help="local, dask, or dask:tcp://scheduler:8786.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="key.path=value", help="Replace a value; may be given often.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the resolved scenario with every default, and stop.")]
TensorBoard = Annotated[
    Path | None, typer.Option("--tensorboard", metavar="DIR", help="Write learning curves for TensorBoard to DIR.")
]
Wandb = Annotated[
    str | None, typer.Option("--wandb", metavar="PROJECT", help="Send learning curves to Weights & Biases.")
]
MLflow = Annotated[str | None, typer.Option("--mlflow", metavar="DIR|URI", help="Send learning curves to MLflow.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else there.")]
Log = Annotated[Path, typer.Argument(metavar="LOG", show_default=False)]


class Listed(StrEnum):
    """What `list` takes; the same words as `scenarios.listing.LISTS`."""

    agents = "agents"
    estimators = "estimators"
    metrics = "metrics"
    rewards = "rewards"
    datasets = "datasets"
    scenarios = "scenarios"
    encoders = "encoders"


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import PackageNotFoundError, version

        try:
            typer.echo(f"windtunnel {version('windtunnel')}")
        except PackageNotFoundError:
            typer.echo("windtunnel, run from a folder where it is not installed")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Offline simulation and evaluation testbed for recommendation and search policies."""


@app.command(epilog="Example: windtunnel run scenarios/movielens.yaml --set evaluate.users=200")
def run(
    scenario: Scenario,
    out: Out = Path("runs"),
    seed: Seed = None,
    workers: Workers = None,
    engine: EngineName = "local",
    overrides: Overrides = None,
    tensorboard: TensorBoard = None,
    wandb: Wandb = None,
    mlflow: MLflow = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Train, simulate and evaluate every agent of a scenario. Exit: 0 pass, 1 fail, 2 bad input, 3 undecided."""
    if dry_run:
        _print_resolved(scenario, overrides, seed, as_json)
        return
    _check_places(out, tensorboard)
    with _stdout_is_for_the_result() as result:
        import pipeline

        report = pipeline.run(
            scenario,
            out=out,
            seed=seed,
            workers=workers,
            engine=engine,
            overrides=overrides or (),
            progress=_progress(),
            tensorboard=tensorboard,
            wandb=wandb,
            mlflow=mlflow,
        )
        _print_report(report, out, as_json, result)
    raise typer.Exit(report.exit_code)


@app.command(
    epilog="Example: windtunnel vet scenarios/movielens.yaml --policy my_agent.py:MyAgent --trained-on nothing"
)
def vet(
    scenario: Scenario,
    policy: Annotated[str, typer.Option("--policy", metavar="SPEC", help="The policy, as an agent's `kind`.")],
    baseline: Annotated[str | None, typer.Option("--baseline", help="Agent to compare with, by name.")] = None,
    trained_on: Annotated[
        str | None, typer.Option("--trained-on", metavar="WHAT", help="What it has seen: nothing, or 'before TIME'.")
    ] = None,
    out: Out = Path("runs"),
    seed: Seed = None,
    workers: Workers = None,
    engine: EngineName = "local",
    overrides: Overrides = None,
    tensorboard: TensorBoard = None,
    wandb: Wandb = None,
    mlflow: MLflow = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Fly your own policy as `candidate` and answer the scenario's gates for it alone."""
    if dry_run:
        _print_resolved(scenario, overrides, seed, as_json, policy=policy, baseline=baseline, trained_on=trained_on)
        return
    _check_places(out, tensorboard)
    with _stdout_is_for_the_result() as result:
        import pipeline

        report = pipeline.vet(
            scenario,
            policy=policy,
            baseline=baseline,
            trained_on=trained_on,
            out=out,
            seed=seed,
            workers=workers,
            engine=engine,
            overrides=overrides or (),
            progress=_progress(),
            tensorboard=tensorboard,
            wandb=wandb,
            mlflow=mlflow,
        )
        _print_report(report, out, as_json, result)
    raise typer.Exit(report.exit_code)


@app.command(epilog="Example: windtunnel fidelity scenarios/movielens.yaml")
def fidelity(
    scenario: Scenario,
    out: Out = Path("runs"),
    seed: Seed = None,
    workers: Workers = None,
    engine: EngineName = "local",
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """May the simulator be believed? Data, preference model and fidelity only. Exit: 0 trusted, 3 not."""
    _check_places(out)
    with _stdout_is_for_the_result() as result:
        import pipeline

        report = pipeline.fidelity(
            scenario,
            out=out,
            seed=seed,
            workers=workers,
            engine=engine,
            overrides=overrides or (),
            progress=_progress(),
        )
        _print_report(report, out, as_json, result, "fidelity.html")
    raise typer.Exit(0 if report.fidelity.trusted else UNDECIDED)


@app.command(epilog="Example: windtunnel ablation scenarios/ablation_preference.yaml")
def ablation(
    scenario: Scenario,
    seed: Seed = None,
    workers: Workers = None,
    engine: EngineName = "local",
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """What does each preference model buy? One table for every combination of the scenario's `ablation:`."""
    with _stdout_is_for_the_result() as result:
        import pipeline

        found = pipeline.ablation(
            scenario, seed=seed, workers=workers, engine=engine, overrides=overrides or (), progress=_progress()
        )
        _print_result(found, as_json, result)


@app.command(epilog="Example: windtunnel explain scenarios/movielens.yaml --user 196 --item 242")
def explain(
    scenario: Scenario,
    user: Annotated[
        list[str], typer.Option("--user", metavar="ID", help="A user's id in the log; may be given often.")
    ],
    item: Annotated[list[str], typer.Option("--item", metavar="ID", help="An item; may be given often.")],
    seed: Seed = None,
    workers: Workers = None,
    engine: EngineName = "local",
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Which items of a user's history, and which words of an item, moved its score? Models come from a run's cache."""
    with _stdout_is_for_the_result() as result:
        import pipeline

        found = pipeline.explain(
            scenario,
            users=user,
            items=item,
            seed=seed,
            workers=workers,
            engine=engine,
            overrides=overrides or (),
            progress=_progress(),
        )
        _print_result(found, as_json, result)


@app.command(epilog="Example: windtunnel validate scenarios/*.yaml")
def validate(
    scenarios: Annotated[list[Path], typer.Argument(metavar="SCENARIO...", help="Scenario files.", show_default=False)],
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Name all mistakes of scenarios and of the logs they read, one line each; nothing is trained."""
    from scenarios.checking import check_scenario
    from scenarios.planning import planning_lines

    with _stdout_is_for_the_result():
        mistakes = {path: check_scenario(path, overrides=overrides or ()) for path in scenarios}
        right = [path for path, lines in mistakes.items() if not lines]
        advice = {path: planning_lines(path, overrides=overrides or ()) for path in right}
    if as_json:
        _print_json(
            [
                {"scenario": str(path), "mistakes": lines, "advice": advice.get(path, [])}
                for path, lines in mistakes.items()
            ]
        )
    for path, lines in mistakes.items():
        prefix = f"{path}: " if len(scenarios) > 1 else ""
        for line in lines:
            typer.echo(f"{prefix}{line}", err=True)
        if not lines and not as_json:
            typer.echo("\n  ".join([f"{path}: ok", *advice[path]]))
    if any(mistakes.values()):
        raise typer.Exit(INPUT_ERROR)


@app.command(epilog="Example: windtunnel schema > scenario.schema.json")
def schema(as_json: AsJson = True) -> None:
    """Print the JSON Schema of a scenario, for editors."""
    from scenarios.schema import Scenario as Model

    _print_json(Model.model_json_schema())


@app.command("list", epilog="Example: windtunnel list agents")
def list_(
    what: Annotated[Listed, typer.Argument(help="What to list.", show_default=False)], as_json: AsJson = False
) -> None:
    """List what a scenario can name, one line each."""
    from scenarios.listing import LISTS

    entries = list(LISTS[what.value]())
    if as_json:
        _print_json([{"name": entry.name, "about": entry.about, **entry.more} for entry in entries])
        return
    width = max((len(entry.name) for entry in entries), default=0)
    for entry in entries:
        typer.echo(f"{entry.name:<{width}}  {entry.line or entry.about}".rstrip())


@app.command(epilog="Example: windtunnel ope rounds.npz --policy policy.npz --estimator snips --estimator dr")
def ope(
    log: Log,
    policy: Annotated[Path | None, typer.Option("--policy", help=".npz or .npy with pi_e [n, n_actions].")] = None,
    estimator: Annotated[list[str] | None, typer.Option("--estimator", help="`windtunnel list estimators`.")] = None,
    reward_range: Annotated[
        str | None, typer.Option("--reward-range", metavar="LO,HI", help="Least and greatest possible reward.")
    ] = None,
    gamma: Annotated[float | None, typer.Option("--gamma", min=0, max=1, help="Discount of trajectories.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Show withheld values, with the warning beside them.")] = False,
    against: Annotated[
        str | None, typer.Option("--against", metavar="FILE|logged", help="Adds the difference to this policy.")
    ] = None,
    interval: Annotated[
        str,
        typer.Option("--interval", metavar="default|bernstein|betting", help="Limits of ips; betting: a growing log."),
    ] = "default",
    reward_model: Annotated[
        str | None, typer.Option("--reward-model", metavar="NAME", help="A scikit-learn regressor for q_hat.")
    ] = None,
    q_weights: Annotated[
        str | None,
        typer.Option("--q-weights", metavar="importance|mrdr", help="Weights the rows that q_hat is fitted on."),
    ] = None,
    bandwidth: Annotated[
        float | None, typer.Option("--bandwidth", help="The action is a number: blur the policy this far, its unit.")
    ] = None,
    choose: Annotated[bool, typer.Option("--select", help="Also the value by the estimator that is chosen.")] = False,
    select_by: Annotated[
        str,
        typer.Option("--select-by", metavar="cross_validation|importance_fitting", help="How --select chooses."),
    ] = "cross_validation",
    as_json: AsJson = False,
) -> None:
    """Value of a policy from logged rounds, slates or trajectories (.npz, .parquet). Exit: 3 if all is withheld."""
    with _stdout_is_for_the_result() as result:
        from evaluators.off_policy.command import run_ope

        limits = _reward_range(reward_range)
        found = run_ope(
            log, policy, estimator, limits, gamma, force, against, interval=interval, reward_model=reward_model,
            q_weights=q_weights,
            bandwidth=bandwidth,
            choose=select_by if choose else None,
        )  # fmt: skip
        _print_result(found, as_json, result)
    raise typer.Exit(UNDECIDED if found.withheld else 0)


@app.command(epilog="Example: windtunnel effect hillstrom.csv.gz --treatment segment --outcome visit")
def effect(
    log: Log,
    treatment: Annotated[str, typer.Option("--treatment", metavar="COL", help="Which arm a row was in.")],
    outcome: Annotated[str, typer.Option("--outcome", metavar="COL", help="Number measured after the treatment.")],
    control: Annotated[str | None, typer.Option("--control", metavar="VALUE", help="Value of the control arm.")] = None,
    by: Annotated[
        list[str] | None, typer.Option("--by", metavar="COL", help="Effect by groups of this column.")
    ] = None,
    propensity: Annotated[
        str | None, typer.Option("--propensity", metavar="COL|VALUE", help="Known chance of the treatment.")
    ] = None,
    user: Annotated[str | None, typer.Option("--user", metavar="COL", help="Column of the user: the cluster.")] = None,
    ignore: Annotated[
        list[str] | None, typer.Option("--ignore", metavar="COL", help="Column that is no covariate.")
    ] = None,
    mediator: Annotated[
        list[str] | None, typer.Option("--mediator", metavar="COL", help="Column by way of which it may act.")
    ] = None,
    negative_control: Annotated[
        str | None, typer.Option("--negative-control", metavar="COL", help="Outcome from before the treatment.")
    ] = None,
    learner: Annotated[
        list[str] | None, typer.Option("--learner", help="causalml learner to compare; default all.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Causal effect of a logged treatment (.csv, .csv.gz, .parquet). Exit: 3 if it is withheld."""
    with _stdout_is_for_the_result() as result:
        from evaluators.causal import run_effect

        found = run_effect(
            log,
            treatment=treatment,
            outcome=outcome,
            control=control,
            by=by or (),
            propensity=propensity,
            user=user,
            ignore=ignore or (),
            mediators=mediator or (),
            negative_control=negative_control,
            learners=learner or None,
        )
        _print_result(found, as_json, result)
    raise typer.Exit(UNDECIDED if found.withheld else 0)


@app.command(epilog="Example: windtunnel leaderboard runs --html board.html")
def leaderboard(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="Folder with runs.")] = Path("runs"),
    html: Annotated[Path | None, typer.Option("--html", help="Write a page, too.")] = None,
    metric: Annotated[str | None, typer.Option("--metric", help="Rank by this one; default: the primary one.")] = None,
    family: Annotated[
        list[str] | None, typer.Option("--family", help="Show agents of this family alone; may be given often.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare every report under a folder, grouped by what makes runs comparable."""
    if html is not None:
        _refuse_no_folder("--html", html.parent)
    with _stdout_is_for_the_result() as result:
        import pipeline

        _print_result(pipeline.leaderboard(folder, html=html, metric=metric, families=family or ()), as_json, result)


@app.command("report", epilog="Example: windtunnel report runs/movielens/0a1b2c3d4e5f")
def report_(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Render report.html again from what is on disk."""
    with _stdout_is_for_the_result() as result:
        import pipeline

        page = str(pipeline.report_again(run_folder))
        if as_json:
            _print_json({"html": page}, result)
        else:
            result.write(page + "\n")


@app.command(epilog="Example: windtunnel bench --json")
def bench(as_json: AsJson = False) -> None:
    """Measure user-steps and rounds per second, and seconds per stage."""
    with _stdout_is_for_the_result() as result:
        import pipeline

        _print_result(pipeline.bench(), as_json, result)


@data_app.command("list", epilog="Example: windtunnel data list")
def data_list(as_json: AsJson = False) -> None:
    """Datasets known, where each is looked for, and whether it is whole."""
    _print_datasets(None, as_json)


@data_app.command("check", epilog="Example: windtunnel data check ml-100k")
def data_check(
    name: Annotated[str | None, typer.Argument(help="Dataset; all where left out.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """Compare files with their published sha256. Exit: 2 if one is missing or changed."""
    if not _print_datasets(name, as_json):
        raise typer.Exit(INPUT_ERROR)


@data_app.command("fetch", epilog="Example: windtunnel data fetch ml-100k")
def data_fetch(
    name: Annotated[str, typer.Argument(help="Dataset.", show_default=False)], as_json: AsJson = False
) -> None:
    """Say where a dataset lies, or where its publisher offers it; nothing is downloaded or installed."""
    from simulator.datasets import check_dataset
    from simulator.datasets.sources import dataset

    known, state = dataset(name, "NAME"), check_dataset(name)
    if as_json:
        folder = str(state.folder) if state.whole else None
        _print_json({"name": name, "folder": folder, "offered": list(known.fetch), "files": dict(known.files)})
    elif state.whole:
        typer.echo(f"{name}: whole, in {state.folder}")
    else:
        for line in known.fetch:
            typer.echo(f"{name}: {line}")
        typer.echo(f"{name}: {known.layout(name)}")


@cache_app.command("list", epilog="Example: windtunnel cache list")
def cache_list(as_json: AsJson = False) -> None:
    """What is stored, by stage, and where."""
    from datetime import UTC, datetime

    from simulator.cache import StageCache, default_cache_folder

    cache = StageCache(default_cache_folder())
    holdings = cache.contents()
    used = [datetime.fromtimestamp(one.last_used, UTC).isoformat(timespec="seconds") for one in holdings]
    if as_json:
        rows = [
            {"stage": one.stage, "results": one.count, "bytes": one.size, "last_used": when}
            for one, when in zip(holdings, used, strict=True)
        ]
        _print_json({"folder": str(cache.folder), "stages": rows})
        return
    for one, when in zip(holdings, used, strict=True):
        typer.echo(f"{one.stage:<20} {one.count:>6,} results {one.size / 1e6:>10,.1f} MB  last used {when}")
    typer.echo(f"{sum(one.size for one in holdings) / 1e6:,.1f} MB in {cache.folder}")


@cache_app.command("prune", epilog="Example: windtunnel cache prune --days 7")
def cache_prune(
    days: Annotated[float, typer.Option("--days", min=0, help="Not read or written for this many days.")] = 30.0,
    stage: Annotated[str | None, typer.Option("--stage", help="Of this stage alone, as `cache list` names it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Remove stored results that have not been of use lately; the next run computes what it needs again."""
    from simulator.cache import StageCache, default_cache_folder

    removed = StageCache(default_cache_folder()).prune(days=days, stage=stage)
    if as_json:
        _print_json({"removed": removed.count, "bytes": removed.size})
    else:
        typer.echo(f"removed {removed.count:,} results, {removed.size / 1e6:,.1f} MB")


def _print_datasets(name: str | None, as_json: bool) -> bool:
    """Print the state of one or all datasets; True if each is whole."""
    from simulator.datasets import DATASETS, check_dataset
    from simulator.datasets.sources import dataset

    if name is not None:
        dataset(name, "NAME")
    states = [check_dataset(each) for each in ([name] if name is not None else DATASETS)]
    if as_json:
        rows = [
            {
                "name": state.name,
                "about": DATASETS[state.name].about,
                "looked_in": [str(folder) for folder in state.looked_in],
                "folder": None if state.folder is None else str(state.folder),
                "whole": state.whole,
                "damaged": list(state.damaged),
            }
            for state in states
        ]
        _print_json(rows)
    for state in () if as_json else states:
        if state.whole:
            typer.echo(f"{state.name}: whole, in {state.folder}")
        elif state.folder is not None:
            typer.echo(f"{state.name}: {', '.join(state.damaged)} missing or changed, in {state.folder}")
        else:
            looked = ", ".join(str(folder) for folder in state.looked_in) or "nowhere: WINDTUNNEL_DATA is not set"
            typer.echo(f"{state.name}: not found, looked in {looked}; {DATASETS[state.name].missing}")
    return all(state.whole for state in states)


def _print_resolved(
    scenario: Path, overrides: Sequence[str] | None, seed: int | None, as_json: bool, **vetted: Any
) -> None:
    from scenarios.checking import prepare_scenario
    from scenarios.loading import Candidate, resolved

    candidate = Candidate(**vetted) if vetted else None
    prepared = prepare_scenario(scenario, overrides=overrides or (), seed=seed, candidate=candidate)
    if as_json:
        _print_json(prepared.scenario.model_dump(mode="json"))
    else:
        typer.echo(resolved(prepared.scenario), nl=False)


def _print_report(report: Report, out: Path, as_json: bool, result: IO[str], page_name: str = "report.html") -> None:
    if as_json:
        result.write(report.to_json_text() + "\n")
        return
    page = out / report.name / report.digest[:12] / page_name
    shown = str(page) if page.exists() else None
    if result.isatty():
        from rich.console import Console

        Console(file=result, highlight=False).print(report.renderable(html=shown))
    else:
        result.write(report.as_text(html=shown, width=100) + "\n")


def _print_result(found: Any, as_json: bool, result: IO[str]) -> None:
    """Print what has `to_json` and `as_text`."""
    if as_json:
        _print_json(found.to_json(), result)
    else:
        result.write(found.as_text() + "\n")


def _print_json(document: Any, result: IO[str] | None = None) -> None:
    (result or sys.stdout).write(json.dumps(document, ensure_ascii=False, allow_nan=False, indent=1) + "\n")


def _progress() -> Any:
    from simulator.progress import Progress

    return Progress(sys.stderr)


def _check_places(out: Path, tensorboard: Path | None = None) -> None:
    """Refuse an --out, --tensorboard or WINDTUNNEL_CACHE that cannot take the run's files."""
    from simulator.cache import default_cache_folder

    _refuse_no_folder("--out", out)
    if tensorboard is not None:
        _refuse_no_folder("--tensorboard", tensorboard)
    _refuse_no_folder("WINDTUNNEL_CACHE", default_cache_folder())


def _refuse_no_folder(option: str, folder: Path) -> None:
    """Raise InputError unless results can be written under the folder: said before an hour of work, not after."""
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    try:
        TemporaryDirectory(dir=there).cleanup()  # some folders that one may write to hold no files, such as /proc
    except OSError as error:
        from simulator.errors import InputError

        what = "cannot be written to" if there.is_dir() else "is no folder"
        raise InputError(f"{option}: '{there}' {what}; give a folder that can be written to") from error


def _reward_range(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        low, high = 1.0, 0.0
    from simulator.errors import InputError

    if not -float("inf") < low < high < float("inf"):
        raise InputError(f"--reward-range: '{text}' is no range; write the least and the greatest reward, e.g. 0,1")
    return low, high


@contextlib.contextmanager
def _stdout_is_for_the_result() -> Iterator[IO[str]]:
    """Send to stderr what libraries print on stdout, in C and in child processes too; yields the real stdout."""
    real = sys.stdout
    real.flush()
    try:
        result = os.fdopen(os.dup(real.fileno()), "w", encoding=real.encoding, errors=real.errors)
        saved = os.dup(1)
    except (OSError, ValueError, AttributeError):  # no file behind it, e.g. in a notebook: Python's prints alone move
        with contextlib.redirect_stdout(sys.stderr):
            yield real
        return
    with result:
        os.dup2(2, 1)
        try:
            with contextlib.redirect_stdout(sys.stderr):
                yield result
        finally:
            os.dup2(saved, 1)
            os.close(saved)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code. What the user can mend goes to stderr as lines, without a traceback."""
    try:
        code = app(args=None if arguments is None else list(arguments), standalone_mode=False)
    except typer.Abort:
        code = INTERRUPTED
    except Exception as error:  # noqa: BLE001  told apart below
        # The package registers environments on import, so not for `--help`.
        from simulator.errors import InputError, full_disk

        if isinstance(error, InputError):
            typer.echo(str(error), err=True)
            return INPUT_ERROR
        full = full_disk(error)
        if full is not None:
            places = "runs (--out), stages (WINDTUNNEL_CACHE) and temporary files"
            mend = f"free some where {places} go, and the same command goes on where it stopped"
            typer.echo(f"disk: {full.strerror}; {mend}", err=True)
            return INPUT_ERROR
        show = getattr(error, "show", None)  # a usage error of the command line itself
        if show is None:
            traceback.print_exception(error)
            typer.echo("this is a fault of Windtunnel's own; the same command goes on where it stopped", err=True)
            return FAULT
        # pydantic's words for a choice that there is not
        error.message = error.message.removeprefix("Value error, ")  # type: ignore[attr-defined]
        show()
        return INPUT_ERROR
    if code == INTERRUPTED:  # typer's own code for Ctrl-C
        typer.echo("interrupted; the same command goes on where it stopped", err=True)
    return code if isinstance(code, int) else 0


if __name__ == "__main__":
    sys.exit(main())
