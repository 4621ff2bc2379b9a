"""Learning curves as TensorBoard reads them, and as Weights & Biases and MLflow get them.

Sabotaged once, each seen red: no purge; one folder for all seeds; every point at step 0.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import cli
from scenarios.stages.curves import TAG, VALIDATION_TAG, Trackers
from scenarios.stages.training import Failure
from simulator.errors import InputError


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
        assert Trackers(tensorboard=tmp_path).send("films", trained) == [
            f"2 learning curves in {tmp_path} (--tensorboard)"
        ]
    assert [points(tmp_path / "linucb" / f"seed-{number}") for number in (0, 1)] == [list(curve) for curve in curves]
    assert {path.name for path in tmp_path.iterdir()} == {"linucb"}


WANDB = """
calls = []


class Run:
    def log(self, values, step):
        calls.append(("log", values, step))

    def finish(self):
        calls.append(("finish",))


def init(**options):
    calls.append(("init", options))
    return Run()
"""

MLFLOW = """
from types import SimpleNamespace

calls = []


class MlflowClient:
    def __init__(self, tracking_uri):
        calls.append(("client", tracking_uri))

    def search_experiments(self, max_results):
        if "no such host" in calls[-1][1]:
            raise OSError("cannot be\\nreached")
        calls.clear()

    def get_experiment_by_name(self, name):
        return next((SimpleNamespace(experiment_id="7") for call in calls if call == ("experiment", name)), None)

    def create_experiment(self, name):
        calls.append(("experiment", name))
        return "7"

    def create_run(self, experiment_id, run_name, tags):
        calls.append(("run", experiment_id, run_name))
        return SimpleNamespace(info=SimpleNamespace(run_id=run_name))

    def log_metric(self, run, tag, value, step):
        calls.append((run, tag, value, step))

    def set_terminated(self, run):
        calls.append(("end", run))
"""

LEARNED: dict[str, Any] = {
    "linucb": [SimpleNamespace(curve=((0, 1.0), (500, 2.5)), valued=((0, 1.5), (500, 1.25)))],
    "dqn": [SimpleNamespace(curve=((0, 2.0),)), Failure("it raised")],
}


def calls_of(module: str, text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What a package of this name, which only takes notes, is asked for from now on."""
    (folder / f"{module}.py").write_text(text)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, module, raising=False)
    calls: list[Any] = import_module(module).calls
    return calls


def test_weights_and_biases_gets_a_run_for_each_curve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = calls_of("wandb", WANDB, tmp_path, monkeypatch)
    (said,) = Trackers(wandb="project").send("films", LEARNED)
    assert said == "2 learning curves in project (--wandb)"
    run = {"project": "project", "group": "films"}
    assert calls == [
        ("init", {**run, "job_type": "linucb", "name": "linucb/seed-0"}),
        ("log", {TAG: 1.0}, 0),
        ("log", {VALIDATION_TAG: 1.5}, 0),
        ("log", {TAG: 2.5}, 500),
        ("log", {VALIDATION_TAG: 1.25}, 500),
        ("finish",),
        ("init", {**run, "job_type": "dqn", "name": "dqn/seed-0"}),
        ("log", {TAG: 2.0}, 0),
        ("finish",),
    ]


def test_mlflow_gets_a_run_for_each_curve_in_one_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = calls_of("mlflow", MLFLOW, tmp_path, monkeypatch)
    Trackers(mlflow=str(tmp_path / "store")).send("films", LEARNED)
    there = ("client", f"sqlite:///{tmp_path}/store/mlflow.db")
    assert calls == [
        there,
        ("experiment", "films"),
        ("run", "7", "linucb/seed-0"),
        ("linucb/seed-0", TAG, 1.0, 0),
        ("linucb/seed-0", VALIDATION_TAG, 1.5, 0),
        ("linucb/seed-0", TAG, 2.5, 500),
        ("linucb/seed-0", VALIDATION_TAG, 1.25, 500),
        ("end", "linucb/seed-0"),
        there,
        ("run", "7", "dqn/seed-0"),
        ("dqn/seed-0", TAG, 2.0, 0),
        ("end", "dqn/seed-0"),
    ]
    Trackers(mlflow="sqlite:///runs.db").send("films", LEARNED)
    assert ("client", "sqlite:///runs.db") in calls
    with pytest.raises(InputError, match=r"--mlflow: 'http://no such host' cannot be opened \(cannot be reached\)"):
        Trackers(mlflow="http://no such host")


def test_a_tracker_that_fails_costs_its_curves_and_not_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls_of("wandb", "calls = []\ndef init(**options):\n    raise RuntimeError('no key')", tmp_path, monkeypatch)
    (said,) = Trackers(wandb="project").send("films", LEARNED)
    assert said == "--wandb: not all learning curves were sent to project; no key"


@pytest.mark.parametrize("option", ["wandb", "mlflow"])
def test_a_tracker_that_is_not_installed_is_one_line_before_anything_trains(
    option: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("scenarios.stages.curves.find_spec", lambda name: None)
    with pytest.raises(InputError, match=rf"--{option}: 'x' needs a package .* `pip install {option}`"):
        Trackers(**{option: "x"})
    monkeypatch.setattr("scenarios.checking.prepare_scenario", lambda *_, **__: pytest.fail("it went on"))
    assert cli.main(["run", "scenarios/smoke.yaml", "--out", str(tmp_path), f"--{option}", "x"]) == 2
    said = capfd.readouterr().err.strip()
    assert f"pip install {option}" in said
    assert "\n" not in said
