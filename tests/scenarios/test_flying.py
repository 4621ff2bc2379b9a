"""Where agents are flown."""

from __future__ import annotations

from scenarios.schema import Scenario
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
    kinds = ["popularity", "linucb", "q_learning", "mine.py:Mine"]
    said = {
        "name": "rewards",
        "data": {"source": "log.csv", "positive": "liked", "behaviours": ["bought"]},
        "agents": [{"name": kind.partition(".")[0], "kind": kind} for kind in kinds],
    }
    assert learned_clicks(Scenario.model_validate(said)) == {}
    bought = {"reward": "purchases", "behaviours": {"bought": "purchase"}}
    [(name, [note])] = learned_clicks(Scenario.model_validate(said | {"simulator": bought})).items()
    assert name == "linucb"
    assert "(purchases)" in note
