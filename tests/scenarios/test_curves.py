"""Learning curves as TensorBoard reads them. Sabotaged once, seen red: no purge; one folder for all seeds."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from scenarios.stages.curves import TAG, write_tensorboard
from scenarios.stages.training import Failure


def points(folder: Path) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder))
    read.Reload()
    return [(event.step, event.value) for event in read.Scalars(TAG)]


def test_every_training_seed_has_its_curve_and_a_repeated_run_shows_it_once(tmp_path: Path) -> None:
    curves = [((0, 1.0), (500, 2.5)), ((0, 1.5), (500, 3.0), (1000, 3.5))]
    trained: dict[str, Any] = {
        "linucb": [SimpleNamespace(curve=curve) for curve in curves],
        "random": [SimpleNamespace(curve=())],
        "mine": [Failure("it raised")],
    }
    for _ in range(2):
        assert write_tensorboard(tmp_path, trained) == 2
    assert [points(tmp_path / "linucb" / f"seed-{number}") for number in (0, 1)] == [list(curve) for curve in curves]
    assert {path.name for path in tmp_path.iterdir()} == {"linucb"}
