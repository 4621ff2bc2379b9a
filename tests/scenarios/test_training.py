"""Training of a scenario's agents: what a person who waits is told, on whom it is valued, how it goes on."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from agents.base import AgentError, AgentLimitError
from agents.checkpoints import STAGE, Checkpoint
from agents.loading import Trained, resolve_kind
from agents.settings import AgentSettings
from scenarios.stages.training import Searched, _apart, _search, _train, failed_by_limit
from scenarios.stages.worlds import Data
from simulator.cache import StageCache
from simulator.log import WORLD_A, split_users
from tests.agents.taught_world import taught_world, training_in


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
        where = tmp_path, tmp_path / "a.log"
        return _search(spec, training_in(world, log), lambda *_: 1.0, *where, 3, report=lambda *_: None)  # type: ignore[arg-type]

    monkeypatch.setattr("agents.loading.train", train)
    assert not failed_by_limit(search(None, None, None))
    assert not failed_by_limit(search(None, AgentError("wrong shape"), None))
    assert failed_by_limit(search(None, AgentLimitError("fit took more than 600 s"), None))
    nothing = search(*[AgentLimitError("fit took more than 600 s")] * 3)
    assert "all 3 trials of the search failed; the first: fit took" in str(nothing.found)
    assert failed_by_limit(nothing)


def test_what_is_valued_in_the_validation_world_has_no_row_of_its_users() -> None:
    world, log = taught_world()
    split = split_users(log, np.random.SeedSequence(3))
    worlds: Any = SimpleNamespace(a_without_tuning=world, validation=replace(world, name="validation"))
    spec = resolve_kind(AgentSettings(name="a", kind="linucb"), Path())
    training, _ = _apart(spec, Data(log, split, "digest"), worlds, np.random.SeedSequence(1), "train", "a", 0)
    taught = set(training.log.user.tolist())
    assert taught == set(split.users(WORLD_A, tuning=False).tolist()) & set(log.user.tolist())
    assert taught.isdisjoint(split.users(WORLD_A, tuning=True).tolist())
    assert training.validation.world.name == "validation"  # type: ignore[union-attr]
    assert training.make_env.world is world  # type: ignore[attr-defined]


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
