"""Learning curves for those who watch trainings elsewhere: TensorBoard, Weights & Biases, MLflow."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulator.cache import digest_of
from simulator.errors import InputError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from agents.loading import Trained
    from scenarios.stages.training import Failure

TAG, VALIDATION_TAG = "train world/reward a session", "validation world/reward a session"

Point = Callable[[str, float, int], None]
"""Takes a point of a curve: its tag, its value, the steps."""
_Open = Callable[[str, int, str], "AbstractContextManager[Point]"]
"""Opens the run of an agent's training seed under a key of its curves."""


@dataclass(frozen=True, slots=True)
class Trackers:
    """Where the learning curve of every agent and training seed is sent, as a run of its own.

    Attributes:
        tensorboard: folder, or None.
        wandb: project of Weights & Biases, or None; where its runs go is its own affair (WANDB_MODE, WANDB_DIR).
        mlflow: folder or tracking URI of MLflow, or None.

    Raises:
        InputError: the package of one that is asked for is not installed.
    """

    tensorboard: Path | None = None
    wandb: str | None = None
    mlflow: str | None = None

    def __post_init__(self) -> None:
        for option, asked in (("wandb", self.wandb), ("mlflow", self.mlflow)):
            if asked is not None and not _installed(option):
                raise InputError(
                    f"--{option}: '{asked}' needs a package that is not installed; `pip install {option}`, or leave "
                    f"--{option} out"
                )

    def open(self) -> None:
        """Ask MLflow for its store, which is made where it is a folder: not before the scenario is known to be right.

        Raises:
            InputError: the store cannot be opened.
        """
        if self.mlflow is not None:
            try:
                _mlflow_client(self.mlflow).search_experiments(max_results=1)
            except Exception as error:
                raise InputError(
                    f"--mlflow: '{self.mlflow}' cannot be opened ({_in_one_line(error)}); "
                    "give a folder or a tracking URI"
                ) from error

    def send(self, scenario: str, digest: str, trained: Mapping[str, Sequence[Trained | Failure]]) -> list[str]:
        """Send all curves; agents that have none, because they learn nothing or failed, have no run.

        Args:
            scenario: name of the scenario, by which runs are grouped.
            digest: of the run; where it is repeated to the same curves, these are there once.
            trained: every agent's trainings.

        Returns:
            What was sent where, in words. A tracker that fails costs its curves, not the run.
        """
        openers: list[tuple[str, str | None, _Open]] = [
            (
                "tensorboard",
                None if self.tensorboard is None else str(self.tensorboard),
                lambda name, seed, _: _tensorboard(Path(str(self.tensorboard)) / name / f"seed-{seed}"),
            ),
            ("wandb", self.wandb, lambda name, seed, key: _wandb(str(self.wandb), scenario, name, seed, key)),
            ("mlflow", self.mlflow, lambda name, seed, key: _mlflow(str(self.mlflow), scenario, name, seed, key)),
        ]
        said = []
        for option, where, run in openers:
            if where is None:
                continue
            try:
                said.append(f"{_send(run, digest, trained)} learning curves in {where} (--{option})")
            except Exception as error:  # noqa: BLE001  see above
                said.append(f"--{option}: not all learning curves were sent to {where}; {_in_one_line(error)}")
        return said


def _send(run: _Open, digest: str, trained: Mapping[str, Sequence[Trained | Failure]]) -> int:
    """Every curve as a run of its own; returns how many there were."""
    sent = 0
    for name, seeds in trained.items():
        for number, one in enumerate(seeds):
            curves = {TAG: getattr(one, "curve", ()), VALIDATION_TAG: getattr(one, "valued", ())}
            points = sorted((steps, tag, value) for tag, curve in curves.items() for steps, value in curve)
            if points:
                with run(name, number, digest_of(digest, name, number, points)[:32]) as point:
                    for steps, tag, value in points:
                        point(tag, value, steps)
                sent += 1
    return sent


def _installed(package: str) -> bool:
    """Whether it can be imported: a mere folder of its name, such as the `wandb/` that W&B writes to, is none."""
    found = find_spec(package)
    return found is not None and found.origin is not None


@contextmanager
def _tensorboard(folder: Path) -> Iterator[Point]:
    """Curves written there before are hidden, so that a run that is repeated shows each of its curves once."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder), purge_step=0) as writer:
        yield writer.add_scalar


@contextmanager
def _wandb(project: str, scenario: str, agent: str, seed: int, key: str) -> Iterator[Point]:
    wandb: Any = import_module("wandb")
    named = {"group": scenario, "job_type": agent, "name": f"{agent}/seed-{seed}"}
    run = wandb.init(project=project, id=key, resume="allow", **named)  # steps that are there already are ignored
    try:
        yield lambda tag, value, steps: run.log({tag: value}, step=steps)
    finally:
        run.finish()


@contextmanager
def _mlflow(where: str, scenario: str, agent: str, seed: int, key: str) -> Iterator[Point]:
    client = _mlflow_client(where)
    experiment = client.get_experiment_by_name(scenario)
    number = client.create_experiment(scenario) if experiment is None else experiment.experiment_id
    whole = f"attributes.status = 'FINISHED' and tags.curve = '{key}'"
    if client.search_runs([number], filter_string=whole, max_results=1):
        yield lambda *_: None
        return
    run = client.create_run(number, run_name=f"{agent}/seed-{seed}", tags={"agent": agent, "curve": key}).info.run_id
    try:
        yield lambda tag, value, steps: client.log_metric(run, tag, value, step=steps)
    except BaseException:
        client.set_terminated(run, "FAILED")
        raise
    client.set_terminated(run, "FINISHED")


def _mlflow_client(where: str) -> Any:
    """MLflow at a tracking URI; in a folder its store is a file of SQLite, as it takes no plain files any more."""
    if not re.match(r"file:|databricks(-uc)?(:|$)|.*://", where):
        folder = Path(where).expanduser().resolve()
        folder.mkdir(parents=True, exist_ok=True)
        where = f"sqlite:///{folder}/mlflow.db"
    return import_module("mlflow").MlflowClient(tracking_uri=where)


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
