"""Learning curves as TensorBoard reads them, and as Weights & Biases and MLflow get them.

Sabotaged once, each seen red: no purge; one folder for all seeds; every point at step 0; a folder taken for a package;
schemes without `//` taken for folders; keys without curves; runs that broke off taken for whole; a store opened early.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import cli
import pipeline
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
        assert Trackers(tensorboard=tmp_path).send("films", "digest", trained) == [
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

calls, whole, keys = [], [], {}


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

    def search_runs(self, experiment_ids, filter_string, max_results):
        return [key for key in whole if filter_string == f"attributes.status = 'FINISHED' and tags.curve = '{key}'"]

    def create_run(self, experiment_id, run_name, tags):
        calls.append(("run", experiment_id, run_name))
        keys[run_name] = tags["curve"]
        return SimpleNamespace(info=SimpleNamespace(run_id=run_name))

    def log_metric(self, run, tag, value, step):
        calls.append((run, tag, value, step))

    def set_terminated(self, run, status):
        calls.append(("end", run, status))
        if status == "FINISHED":
            whole.append(keys[run])
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
    (said,) = Trackers(wandb="project").send("films", "digest", LEARNED)
    assert said == "2 learning curves in project (--wandb)"
    keys = [call[1].pop("id") for call in calls if call[0] == "init"]
    assert len(set(keys)) == 2
    run = {"project": "project", "group": "films", "resume": "allow"}
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


def test_a_run_that_is_repeated_names_its_curves_alike_and_other_curves_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = calls_of("wandb", WANDB, tmp_path, monkeypatch)
    other = {"dqn": [SimpleNamespace(curve=((0, 2.5),))]}
    for digest, trained in (("run", LEARNED), ("run", LEARNED), ("another", LEARNED), ("run", other)):
        Trackers(wandb="project").send("films", digest, trained)
    linucb, dqn, *again = [call[1]["id"] for call in calls if call[0] == "init"]
    assert again[:2] == [linucb, dqn]
    assert len({linucb, dqn, *again[2:]}) == 5


def test_mlflow_gets_a_run_for_each_curve_in_one_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = calls_of("mlflow", MLFLOW, tmp_path, monkeypatch)
    Trackers(mlflow=str(tmp_path / "store")).send("films", "digest", LEARNED)
    there = ("client", f"sqlite:///{tmp_path}/store/mlflow.db")
    assert calls == [
        there,
        ("experiment", "films"),
        ("run", "7", "linucb/seed-0"),
        ("linucb/seed-0", TAG, 1.0, 0),
        ("linucb/seed-0", VALIDATION_TAG, 1.5, 0),
        ("linucb/seed-0", TAG, 2.5, 500),
        ("linucb/seed-0", VALIDATION_TAG, 1.25, 500),
        ("end", "linucb/seed-0", "FINISHED"),
        there,
        ("run", "7", "dqn/seed-0"),
        ("dqn/seed-0", TAG, 2.0, 0),
        ("end", "dqn/seed-0", "FINISHED"),
    ]
    calls.clear()
    Trackers(mlflow=str(tmp_path / "store")).send("films", "digest", LEARNED)  # again: nothing that is there twice
    assert not [call for call in calls if call[0] == "run"]
    for uri in ("sqlite:///runs.db", "databricks", "databricks://mine", "file:./mlruns"):
        Trackers(mlflow=uri).send("films", uri, LEARNED)
        assert ("client", uri) in calls
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} - {"__pycache__"} == {"store"}
    with pytest.raises(InputError, match=r"--mlflow: 'http://no such host' cannot be opened \(cannot be reached\)"):
        Trackers(mlflow="http://no such host").open()


def test_a_curve_that_broke_off_is_sent_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = MLFLOW.replace(
        "        calls.append((run, tag", "        if not step: raise OSError('gone')\n        calls.append((run, tag"
    )
    calls = calls_of("mlflow", broken, tmp_path, monkeypatch)
    for _ in range(2):
        (said,) = Trackers(mlflow=str(tmp_path / "store")).send("films", "digest", LEARNED)
        assert said.endswith("gone")
    assert [call for call in calls if call[0] == "end"] == 2 * [("end", "linucb/seed-0", "FAILED")]


def test_a_folder_of_the_packages_name_is_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wandb").mkdir()  # where W&B keeps its runs
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    if (found := find_spec("wandb")) is not None and found.origin is not None:
        pytest.skip("wandb is installed, and hides the folder")
    with pytest.raises(InputError, match="needs a package that is not installed"):
        Trackers(wandb="project")


def test_no_store_is_made_for_a_scenario_that_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls_of("mlflow", MLFLOW, tmp_path, monkeypatch)
    with pytest.raises(InputError, match="is not there"):
        pipeline.run(tmp_path / "nowhere.yaml", out=tmp_path, mlflow=str(tmp_path / "store"))
    assert not (tmp_path / "store").exists()


def test_a_tracker_that_fails_costs_its_curves_and_not_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls_of("wandb", "calls = []\ndef init(**options):\n    raise RuntimeError('no key')", tmp_path, monkeypatch)
    (said,) = Trackers(wandb="project").send("films", "digest", LEARNED)
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
