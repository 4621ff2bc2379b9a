"""Training of a scenario's agents: what a person who waits is told, on whom it is valued, how it goes on.

Sabotaged once, each seen red: a full disk taken for a failure of the agent, whether it comes itself or another error
was raised from it; generators left where the trials of a damaged file had them; trials of other points taken over.
"""

from __future__ import annotations

import errno
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from agents.base import AgentError, AgentLimitError
from agents.checkpoints import STAGE, Checkpoint
from agents.loading import Trained, resolve_kind, train
from agents.settings import AgentSettings
from scenarios.stages.flying import _judge
from scenarios.stages.training import (
    TRIALS,
    MakeTrainEnv,
    Searched,
    _apart,
    _search,
    _train,
    _Valuation,
    failed_by_limit,
)
from scenarios.stages.worlds import Data
from simulator.behaviour.heads import Head
from simulator.behaviour.own import OwnBehaviour
from simulator.cache import StageCache
from simulator.engine import Engine, Task
from simulator.errors import full_disk
from simulator.log import WORLD_A, split_users
from simulator.world import World
from tests.agents.taught_world import observed, taught_world, training_in


def test_progress_runs_from_nothing_to_the_end_where_an_agent_trains_for_its_own_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.bandits.DEFAULT_STEPS", 3_200)
    world, log = taught_world()
    spec = resolve_kind(AgentSettings(name="a", kind="linucb"), tmp_path)
    told: list[float] = []
    cache = StageCache(tmp_path / "cache")
    _train(
        spec, training_in(world, log), tmp_path, tmp_path / "a.log", cache, "k",
        report=lambda share, _: told.append(share),
    )  # fmt: skip
    assert told[0] == 0
    assert len(set(told)) == len(told) > 3
    assert told == sorted(told)
    assert told[-1] == 0.99


def test_progress_goes_by_the_clock_where_that_ends_the_training_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr("scenarios.stages.training.time.monotonic", lambda: float(next(clock)))
    monkeypatch.setattr("agents.bandits.DEFAULT_STEPS", 3_200)
    world, log = taught_world()
    entry = {"name": "a", "kind": "linucb", "train": {"seconds": 4.0}}
    spec = resolve_kind(AgentSettings.model_validate(entry), tmp_path)
    told: list[float] = []
    cache = StageCache(tmp_path / "cache")
    _train(
        spec, training_in(world, log), tmp_path, tmp_path / "a.log", cache, "k",
        report=lambda share, _: told.append(share),
    )  # fmt: skip
    assert told[:4] == [0.25, 0.5, 0.75, 0.99]  # by the steps it would be 0, 1/8, 2/8, 3/8


def test_a_search_is_kept_unless_one_of_its_trials_came_up_against_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, log = taught_world()
    entry = {"name": "a", "kind": "epsilon_greedy", "tune": {"trials": 3, "space": {"epsilon": [0.1, 0.2, 0.05]}}}
    spec = resolve_kind(AgentSettings.model_validate(entry), tmp_path)
    outcomes: list[Exception | None] = []

    def train(*_: object, **__: object) -> Trained:
        outcome = outcomes.pop(0)
        if outcome is not None:
            raise outcome
        return Trained(None, (), None, None, steps=0, seconds=0.0, reproducible=True)  # type: ignore[arg-type]

    def search(*planned: Exception | None) -> Searched:
        outcomes[:] = planned
        where = tmp_path, tmp_path / "a.log", 3, StageCache(tmp_path / "cache"), f"{planned}"
        return _search(spec, training_in(world, log), lambda *_: 1.0, *where, report=lambda *_: None)  # type: ignore[arg-type]

    monkeypatch.setattr("agents.loading.train", train)
    assert not failed_by_limit(search(None, None, None))
    assert not failed_by_limit(search(None, AgentError("wrong shape"), None))
    assert failed_by_limit(search(None, AgentLimitError("fit took more than 600 s"), None))
    nothing = search(*[AgentLimitError("fit took more than 600 s")] * 3)
    assert "all 3 trials of the search failed; the first: fit took" in str(nothing.found)
    assert failed_by_limit(nothing)


def test_an_error_that_was_raised_over_itself_is_looked_through_once_for_a_full_disk() -> None:
    """An error in a thread that is raised again while it is handled closes such a circle: a run then hung."""
    first, second = FileNotFoundError("gone"), AgentError("cannot train")
    second.__cause__, first.__context__ = first, second
    assert full_disk(second) is None
    first.__context__, first.__cause__ = None, OSError(errno.ENOSPC, "full")
    assert full_disk(second) is first.__cause__


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("told", ["plainly", "by an agent", "by torch"])
def test_a_full_disk_is_no_failure_of_an_agent_that_is_stored_for_the_next_run(
    number: int,
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object, **__: object) -> Trained:
        error = OSError(number, "full")
        if told == "by an agent":
            raise AgentError("cannot train") from error
        if told == "by torch":
            raise RuntimeError("[enforce fail at inline_container.cc] PytorchStreamWriter failed writing file data/0")
        raise error

    world, log = taught_world()
    entry = {
        "name": "a",
        "kind": "epsilon_greedy",
        "train": {"steps": 320},
        "tune": {"trials": 2, "space": {"epsilon": [0.1, 0.2]}},
    }
    spec = resolve_kind(AgentSettings.model_validate(entry), tmp_path)
    cache = StageCache(tmp_path / "cache")
    training, log_file = training_in(world, log), tmp_path / "a.log"
    tasks = [
        Task("train", "a", _train, (spec, training, tmp_path, log_file, cache, "k"), (), ()),
        Task(
            "tune", "a", _search, (spec, training, _Valuation(world, 4, 1), tmp_path, log_file, 3, cache, "k"), (), ()
        ),
        Task("fly", "a", _judge, (SimpleNamespace(agent=None), None, "a", 0, None), (), ()),
    ]
    monkeypatch.setattr("agents.loading.train", full)
    monkeypatch.setattr("evaluators.judging.fly_course", full)
    for task in tasks:
        with pytest.raises(OSError, match=r"full|could not write"):
            Engine(cache, workers=1).map([task])
    assert cache.contents() == []
    monkeypatch.undo()
    [done] = Engine(cache, workers=1).map(tasks[:1])
    assert isinstance(done.result, Trained)


def test_a_search_that_was_killed_goes_on_after_the_trials_that_it_had_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trials draw one after another, so the generators must be where they were; the third trial failed."""
    world, log = taught_world()
    tune = {"trials": 5, "space": {"epsilon": {"low": 0.0, "high": 0.9}}}
    settings = AgentSettings.model_validate(
        {"name": "a", "kind": "epsilon_greedy", "train": {"steps": 320}, "tune": tune}
    )
    spec = resolve_kind(settings, tmp_path)
    trainings: list[int] = []

    def searched(cache: Path, *, killed_in: int = 0) -> Searched:
        trainings.clear()

        def counted(*inputs: Any, **more: Any) -> Trained:
            trainings.append(1)
            if len(trainings) == killed_in:
                raise KeyboardInterrupt
            if inputs[0].params.epsilon == third:
                raise AgentError("wrong shape")
            return train(*inputs, **more)

        monkeypatch.setattr("agents.loading.train", counted)
        where = tmp_path, tmp_path / "a.log", 3, StageCache(cache), "k"
        return _search(spec, training_in(world, log), _Valuation(world, 4, 1), *where, report=lambda *_: None)

    third = -1.0
    found: Any = searched(tmp_path / "plain").found
    third = found.trials[2].params["epsilon"]
    whole: Any = searched(tmp_path / "whole")
    assert [trial.why for trial in whole.found.trials] == ["", "", "wrong shape", "", ""]
    with pytest.raises(KeyboardInterrupt):
        searched(tmp_path / "killed", killed_in=4)
    assert searched(tmp_path / "killed") == whole
    assert len(trainings) == 2
    cache = StageCache(tmp_path / "killed")
    made, (states, everyone) = cache.load(TRIALS, "k")
    other = (made[0], replace(made[1], params={"epsilon": 0.5}), *made[2:])
    for content in (
        (made, (states, replace(everyone, python=(3, "no state", None)))),
        (other, (states, everyone)),
    ):
        cache.store(TRIALS, "k", content)
        assert searched(cache.folder) == whole
        assert len(trainings) == 5
    cache.path(TRIALS, "k").write_bytes(b"half a pick")
    assert searched(cache.folder) == whole
    assert len(trainings) == 5


def test_what_is_valued_in_the_validation_world_has_no_row_of_its_users() -> None:
    world, log = taught_world()
    split = split_users(log, np.random.SeedSequence(3))
    again = replace(world, shown_again=True)
    worlds: Any = SimpleNamespace(a_without_tuning=again, validation=replace(world, name="validation"))
    spec = resolve_kind(AgentSettings(name="a", kind="linucb"), Path())
    training, _ = _apart(spec, Data(log, split, "digest"), worlds, np.random.SeedSequence(1), "train", "a", 0)
    taught = set(training.log.user.tolist())
    assert taught == set(split.users(WORLD_A, tuning=False).tolist()) & set(log.user.tolist())
    assert taught.isdisjoint(split.users(WORLD_A, tuning=True).tolist())
    assert training.validation._world.name == "validation"  # type: ignore[union-attr]
    assert training.make_env._world is again  # type: ignore[attr-defined]
    assert training.shown_again


def test_a_training_task_that_was_killed_goes_on_from_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.checkpoints.Checkpoint", partial(Checkpoint, seconds_apart=0.0))
    world, log = taught_world()
    settings = AgentSettings.model_validate({"name": "a", "kind": "epsilon_greedy", "train": {"steps": 1_280}})
    spec = resolve_kind(settings, tmp_path)
    told: list[str] = []

    def trained(cache: Path, *, points: int) -> Any:
        told.clear()

        def report(share: float, words: str) -> None:
            told.append(words)
            if len(told) > points:
                raise KeyboardInterrupt

        where = tmp_path, tmp_path / "a.log", StageCache(cache), "k"
        return _train(spec, training_in(world, log), *where, report=report)

    whole = trained(tmp_path / "one", points=99)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "two", points=5)
    assert StageCache(tmp_path / "two").has(STAGE, "k")
    again = trained(tmp_path / "two", points=99)
    assert again.curve == whole.curve
    assert again.seconds > 0


PATIENT = """
import numpy as np
from simulator.behaviour.own import Acts


class Patient:
    def begin(self, user):
        return {"empty": np.zeros(len(user), int)}

    def act(self, moment):
        clicks = moment.uniforms("click") < 1 / (1 + np.exp(-moment.appeal))
        moment.state["empty"] += ~clicks.any(axis=1)
        return Acts(clicks, moment.state["empty"] >= 2)
"""


def parted(world: World, parts: str, folder: Path) -> World:
    """The world with parts whose state a checkpoint must hold, too."""
    if parts == "own":
        (folder / "users.py").write_text(PATIENT)
        return replace(world, own=OwnBehaviour.find("users.py:Patient", {}, folder))
    if parts == "heads":
        return replace(world, heads=(Head("purchase", "p", -0.2, 0.7, 0.1, 0.1),), reward="purchases")
    return world


@pytest.mark.parametrize("kind", ["linucb", pytest.param("a2c", marks=pytest.mark.slow)])
@pytest.mark.parametrize("parts", ["none", "own", "heads"])
def test_a_training_in_the_worlds_of_a_run_goes_on_from_a_checkpoint_that_holds_none_of_them(
    parts: str, kind: str, tmp_path: Path
) -> None:
    plain, log = taught_world()
    world = parted(plain, parts, tmp_path)
    validation = replace(world, name="validation")
    stops = {"steps": 640, "early_stopping": {"patience": 8, "points": 8}}
    spec = resolve_kind(AgentSettings.model_validate({"name": "a", "kind": kind, "train": stops}), tmp_path)
    cache = StageCache(tmp_path)
    content = log.catalogue.content
    assert content is not None

    def trained(points: int, checkpoint: Checkpoint | None) -> Any:
        told: list[int] = []

        def valued(steps: int, value: float) -> None:
            told.append(steps)
            if len(told) > points:
                raise KeyboardInterrupt

        training = replace(
            training_in(world, log),
            make_env=MakeTrainEnv(world, content),
            validation=MakeTrainEnv(validation, content),
            valued=valued,
            checkpoint=checkpoint,
        )
        return train(spec, training, tmp_path)

    whole = trained(99, None)
    with pytest.raises(KeyboardInterrupt):
        trained(len(whole.valued) - 2, Checkpoint(cache, "k", seconds_apart=0.0))
    held = cache.path(STAGE, "k").read_bytes()
    for given in (content, world.item_vectors, world.starts.vector):
        assert given.tobytes() not in held
    again = trained(99, Checkpoint(cache, "k", seconds_apart=0.0))
    assert (again.curve, again.valued, again.judged_at) == (whole.curve, whole.valued, whole.judged_at)
    slates = [one.agent.act(observed(world), np.random.default_rng(0)) for one in (whole, again)]
    assert np.array_equal(*slates)


def test_what_environments_are_made_of_is_named_in_a_checkpoint(tmp_path: Path) -> None:
    world, log = taught_world()
    content, other = np.ones((50, 20), np.float32), replace(world, name="validation")
    training = replace(
        training_in(world, log), make_env=MakeTrainEnv(world, content), validation=MakeTrainEnv(other, None)
    )
    cache = StageCache(tmp_path)
    Checkpoint(cache, "k").keep(training, [world, other, content])
    assert content.tobytes() not in cache.path(STAGE, "k").read_bytes()
    found = Checkpoint(cache, "k").found(training)
    assert found is not None
    assert all(one is given for one, given in zip(found[1], (world, other, content), strict=True))
