"""Search of parameters: where it starts, what it finds, and spaces that make no sense.

Sabotaged once, each seen red: the first trial drawn like the rest, the lowest value chosen, a seed that changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from agents.loading import AgentSettings, own_params, resolve_kind, with_params
from agents.settings import TuneSettings
from agents.tuning import Tuned, search
from simulator.errors import InputError


def hill(params: Mapping[str, Any]) -> float:
    """Highest at x = 3 and colour red; fails at whole numbers above 8."""
    if params["k"] > 8:
        raise ValueError("too many")
    return -((params["x"] - 3) ** 2) - 5 * (params["colour"] != "red") + 0.01 * params["k"]


TUNE = TuneSettings.model_validate(
    {"trials": 40, "space": {"x": {"low": -10.0, "high": 10.0}, "k": {"low": 1, "high": 10}, "colour": ["blue", "red"]}}
)
OWN = {"x": -9.0, "k": 2, "colour": "blue"}


def found(seed: int = 1, own: Mapping[str, Any] = OWN) -> Tuned | str:
    return search(TUNE, own, hill, seed=seed, failure=str, report=lambda done, words: None)


def test_a_search_starts_at_the_agent_s_own_parameters_and_finds_the_top() -> None:
    one = found()
    assert isinstance(one, Tuned)
    assert (len(one.trials), one.trials[0].params, one.trials[0].value) == (40, OWN, hill(OWN))
    assert one.params["colour"] == "red"
    assert abs(one.params["x"] - 3) < 1.5
    assert isinstance(one.params["k"], int)
    assert one.trials[one.best].value == max(t.value for t in one.trials if t.value is not None)
    assert {t.why for t in one.trials if t.value is None} == {"too many"}


def test_equal_seeds_search_alike() -> None:
    assert found() == found()
    assert found() != found(seed=2)


def test_a_search_whose_trials_all_fail_says_why() -> None:
    def fails(params: Mapping[str, Any]) -> float:
        raise ValueError("no such file")

    said = search(TUNE, OWN, fails, seed=1, failure=str, report=lambda done, words: None)
    assert said == "all 40 trials of the search failed; the first: no such file"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"alpha": {"low": 2, "high": 1}}, "low 2 is not below high 1"),
        ({"alpha": {"low": 0.0, "high": 1.0, "log": True}}, "must be above 0"),
        ({"alpha": [0.5, 0.5]}, "fewer than two values"),
        ({}, "at least 1"),
    ],
)
def test_a_space_that_makes_no_sense_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        TuneSettings.model_validate({"space": wrong})


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({"alhpa": {"low": 0.1, "high": 1.0}}, "unknown parameter; did you mean 'alpha'"),
        ({"alpha": {"low": 1.0, "high": 2.0}}, "1.0 to 2.0 leaves out the agent's own 0.5"),
        ({"reg": {"low": -1.0, "high": 2.0}}, "params.reg: -1.0 cannot be used"),
    ],
)
def test_a_space_is_held_against_the_agent_s_parameters(space: dict[str, Any], said: str) -> None:
    settings = AgentSettings.model_validate({"name": "one", "kind": "linucb", "tune": {"space": space}})
    with pytest.raises(InputError, match=said.replace("(", r"\(")):
        resolve_kind(settings, Path())


@pytest.mark.parametrize(
    ("kind", "space", "said"),
    [
        ("multimodal", {"fusion": ["gated", "gatted", "transformer"]}, "params.fusion: 'gatted' cannot be used"),
        ("mmr", {"agent": ["popularity", "linuxb", "linucb"]}, "'linuxb' is not an agent; did you mean 'linucb'"),
        ("recbole:EASE", {"model": ["EASE", "ItemKNN"]}, "params.model: 'EASE' is given twice; the kind"),
    ],
)
def test_every_value_of_a_list_is_held_against_the_agent_s_parameters(
    kind: str, space: dict[str, Any], said: str
) -> None:
    settings = AgentSettings.model_validate({"name": "one", "kind": kind, "tune": {"space": space}})
    with pytest.raises(InputError, match=said):
        resolve_kind(settings, Path())


def test_what_was_chosen_takes_the_place_of_the_agent_s_own() -> None:
    spec = resolve_kind(AgentSettings(name="one", kind="linucb", params={"reg": 2.0}), Path())
    assert own_params(spec)["alpha"] == 0.5
    chosen = own_params(with_params(spec, {"alpha": 0.7}, Path()))
    assert (chosen["alpha"], chosen["reg"]) == (0.7, 2.0)
