"""Training of a scenario's agents: what a person who waits is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from agents.base import AgentError, AgentLimitError
from agents.loading import Trained, resolve_kind
from agents.settings import AgentSettings
from scenarios.stages.training import Searched, _search, _train, failed_by_limit
from tests.agents.taught_world import taught_world, training_in


def test_progress_runs_from_nothing_to_the_end_where_an_agent_trains_for_its_own_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.bandits.DEFAULT_STEPS", 3_200)
    world, log = taught_world()
    spec = resolve_kind(AgentSettings(name="a", kind="linucb"), tmp_path)
    told: list[float] = []
    _train(spec, training_in(world, log), tmp_path, tmp_path / "a.log", report=lambda share, _: told.append(share))
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
    _train(spec, training_in(world, log), tmp_path, tmp_path / "a.log", report=lambda share, _: told.append(share))
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
