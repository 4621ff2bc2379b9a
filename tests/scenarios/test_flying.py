"""Where agents are flown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agents.loading import resolve_kind
from agents.settings import AgentSettings
from scenarios.stages.flying import learned_clicks, sweeps_of
from simulator.behaviour import SimulatorSettings, assumptions_of


def test_nothing_is_flown_again_for_what_acts_between_sessions_where_users_have_one() -> None:
    on = {"returning": {}, "popularity": {"strength": 0.5}, "boredom": {"depth": 2.0}}
    rows = assumptions_of(SimulatorSettings.model_validate(on), 0.1, 0.01)
    alone, following = sweeps_of(rows, 1), sweeps_of(rows, 2)
    assert {part for part, _, _ in alone} == {"examination", "satiation", "boredom", "drift", "leave"}
    assert ("boredom", "depth", 4.0) in alone
    further = set(following) - set(alone)
    assert {part for part, _, _ in further} == {"returning", "popularity"}
    assert len(further) == 8


def test_who_learned_from_clicks_and_is_judged_by_something_else_has_a_note() -> None:
    kinds: dict[str, dict[str, Any]] = {
        "popularity": {}, "linucb": {}, "q_learning": {}, "mmr": {"agent": "ppo"}, "rerank:recent": {},
    }  # fmt: skip
    entries = [AgentSettings(name=kind.partition(":")[0], kind=kind, params=given) for kind, given in kinds.items()]
    specs = [resolve_kind(entry, Path()) for entry in entries]
    assert learned_clicks("clicks", specs) == {}
    assert learned_clicks("purchases", specs) == {
        "linucb": ("learned from clicks, not from the reward that it is judged by (purchases)",),
        "mmr": ("is made of ppo, which learned from clicks, not from the reward that it is judged by (purchases)",),
    }
