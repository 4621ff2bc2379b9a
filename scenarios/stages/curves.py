"""Learning curves for those who watch trainings elsewhere: TensorBoard, Weights & Biases, MLflow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulator.errors import InputError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from agents.loading import Trained
    from scenarios.stages.training import Failure

TAG, VALIDATION_TAG = "train world/reward a session", "validation world/reward a session"

Point = Callable[[str, float, int], None]
"""Takes a point of a curve: its tag, its value, the steps."""


@dataclass(frozen=True, slots=True)
class Trackers:
    """Where the learning curve of every agent and training seed is sent, as a run of its own.

    Attributes:
        tensorboard: folder, or None.
        wandb: project of Weights & Biases, or None; where its runs go is its own affair (WANDB_MODE, WANDB_DIR).
        mlflow: folder or tracking URI of MLflow, or None.

    Raises:
        InputError: the package of one that is asked for is not installed, or MLflow's store cannot be opened.
    """

    tensorboard: Path | None = None
    wandb: str | None = None
    mlflow: str | None = None

    def __post_init__(self) -> None:
        for option, asked in (("wandb", self.wandb), ("mlflow", self.mlflow)):
            if asked is not None and find_spec(option) is None:
                raise InputError(
                    f"--{option}: '{asked}' needs a package that is not installed; `pip install {option}`, or leave "
                    f"--{option} out"
                )
        if self.mlflow is not None:
            try:
                _mlflow_client(self.mlflow).search_experiments(max_results=1)
            except Exception as error:
                raise InputError(
                    f"--mlflow: '{self.mlflow}' cannot be opened ({_in_one_line(error)}); "
                    "give a folder or a tracking URI"
                ) from error

    def send(self, scenario: str, trained: Mapping[str, Sequence[Trained | Failure]]) -> list[str]:
        """Send all curves; agents that have none, because they learn nothing or failed, have no run.

        Args:
            scenario: name of the scenario, by which runs are grouped.
            trained: every agent's trainings.

        Returns:
            What was sent where, in words. A tracker that fails costs its curves, not the run.
        """
        openers: list[tuple[str, str | None, Callable[[str, int], AbstractContextManager[Point]]]] = [
            (
                "tensorboard",
                None if self.tensorboard is None else str(self.tensorboard),
                lambda name, seed: _tensorboard(Path(str(self.tensorboard)) / name / f"seed-{seed}"),
            ),
            ("wandb", self.wandb, lambda name, seed: _wandb(str(self.wandb), scenario, name, seed)),
            ("mlflow", self.mlflow, lambda name, seed: _mlflow(str(self.mlflow), scenario, name, seed)),
        ]
        said = []
        for option, where, run in openers:
            if where is None:
                continue
            try:
                said.append(f"{_send(run, trained)} learning curves in {where} (--{option})")
            except Exception as error:  # noqa: BLE001  see above
                said.append(f"--{option}: not all learning curves were sent to {where}; {_in_one_line(error)}")
        return said


def _send(
    run: Callable[[str, int], AbstractContextManager[Point]], trained: Mapping[str, Sequence[Trained | Failure]]
) -> int:
    """Every curve as a run of its own; returns how many there were."""
    sent = 0
    for name, seeds in trained.items():
        for number, one in enumerate(seeds):
            curves = {TAG: getattr(one, "curve", ()), VALIDATION_TAG: getattr(one, "valued", ())}
            points = sorted((steps, tag, value) for tag, curve in curves.items() for steps, value in curve)
            if points:
                with run(name, number) as point:
                    for steps, tag, value in points:
                        point(tag, value, steps)
                sent += 1
    return sent


@contextmanager
def _tensorboard(folder: Path) -> Iterator[Point]:
    """Curves written there before are hidden, so that a run that is repeated shows each of its curves once."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder), purge_step=0) as writer:
        yield writer.add_scalar


@contextmanager
def _wandb(project: str, scenario: str, agent: str, seed: int) -> Iterator[Point]:
    wandb: Any = import_module("wandb")
    run = wandb.init(project=project, group=scenario, job_type=agent, name=f"{agent}/seed-{seed}")
    try:
        yield lambda tag, value, steps: run.log({tag: value}, step=steps)
    finally:
        run.finish()


@contextmanager
def _mlflow(where: str, scenario: str, agent: str, seed: int) -> Iterator[Point]:
    client = _mlflow_client(where)
    experiment = client.get_experiment_by_name(scenario)
    number = client.create_experiment(scenario) if experiment is None else experiment.experiment_id
    run = client.create_run(number, run_name=f"{agent}/seed-{seed}", tags={"agent": agent}).info.run_id
    try:
        yield lambda tag, value, steps: client.log_metric(run, tag, value, step=steps)
    finally:
        client.set_terminated(run)


def _mlflow_client(where: str) -> Any:
    """MLflow at a tracking URI; in a folder its store is a file of SQLite, as it takes no plain files any more."""
    if "://" not in where:
        folder = Path(where).expanduser().resolve()
        folder.mkdir(parents=True, exist_ok=True)
        where = f"sqlite:///{folder}/mlflow.db"
    return import_module("mlflow").MlflowClient(tracking_uri=where)


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
