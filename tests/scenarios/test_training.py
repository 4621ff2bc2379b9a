"""Training of a scenario's agents: what a person who waits is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from agents.loading import resolve_kind
from agents.settings import AgentSettings
from scenarios.stages.training import _train
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
