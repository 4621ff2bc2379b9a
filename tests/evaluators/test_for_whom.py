"""Sections of an agent by group, by item, by path and as an effect, from real flights in a small world.

Sabotaged once, each seen red: the flip not shown to the agent, the price taken against the baseline, intersections
left out of the groups.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from agents.base import Observation
from agents.slates import top_slates
from evaluators import judging
from evaluators.evidence import GroupGaps
from evaluators.fairness import ShiftValues, flips_of
from evaluators.flights import gather
from evaluators.for_whom import ForWhom, Population, crossed_groups
from evaluators.judging import Course, Flipped, Judged, fly_course
from evaluators.metrics import Reference
from evaluators.rollout import fly
from evaluators.settings import EvaluateSettings
from simulator.behaviour import SimulatorSettings
from simulator.log import split_users
from simulator.world import World
from tests.simulator.small_world import TruePreference, small_log

USERS, ITEMS = 120, 130

Flown = tuple[Course, Mapping[str, list[Judged]], Population]


class Showing:
    """Shows the same items to everyone; `reads`: turned round for users whose first feature is set."""

    def __init__(self, scores: NDArray[np.floating], *, reads: bool = False) -> None:
        self.scores, self.reads, self.asked = scores, reads, 0

    def account(self) -> str:
        return f"{self.asked} questions" if self.reads else ""

    def act(self, observation: Observation, rng: np.random.Generator) -> NDArray[np.int64]:
        self.asked += 1
        sign = (
            np.where(observation.user_features[:, :1] > 0, -1.0, 1.0) if self.reads else np.ones((len(observation), 1))
        )
        return top_slates((sign * self.scores[None, :]).astype(np.float32), observation)


@pytest.fixture(scope="module")
def flown() -> Flown:
    rng, root = np.random.default_rng(3), np.random.SeedSequence(3)
    log = small_log(rng, users=USERS)
    gender = rng.integers(0, 2, USERS)
    features = np.eye(2, dtype=np.float32)[gender]
    names = ("gender=F", "gender=M")
    log = replace(log, catalogue=replace(log.catalogue, user_features=features, user_feature_names=names))
    model = TruePreference(
        (rng.standard_normal((ITEMS, 8)) / 3).astype(np.float32), np.linspace(-2, 1, ITEMS).astype(np.float32)
    )
    settings = SimulatorSettings(slate_size=4, horizon=6)
    worlds = [World.build(model, log, split_users(log, root), np.arange(USERS), settings, name=n) for n in "ab"]
    flips = flips_of(worlds[0], model, features, names, "gender", rng)
    assert [flip.shift for flip in flips] == [ShiftValues((0, 1))]
    course = Course(
        worlds=tuple(worlds),
        claimed=worlds[0],
        sweeps=(),
        seeds=(4,),
        sessions=1,
        metrics=("reward", "click_rate"),
        reference=Reference(np.ones(ITEMS, np.int64), np.ones(ITEMS, bool)),
        held_out=None,
        flips={"gender": flips},
    )
    bias = model.item_bias.astype(np.float64)
    agents = {
        "popularity": Showing(-np.abs(bias)), "blind": Showing(bias), "reads": Showing(bias, reads=True),
        "fair": Showing(bias + 0.5),
    }  # fmt: skip
    judged = {
        name: [fly_course(agent, course, name=name, training_seed=0, root=root, report=lambda share, words: None)]
        for name, agent in agents.items()
    }
    population = Population(
        features=np.column_stack([features, rng.random(USERS), rng.random(USERS)]).astype(np.float64),
        feature_names=("gender=F", "gender=M", "history_length", "like_share"),
        groups={"gender": np.where(gender == 0, "F", "M"), "age": np.where(rng.random(USERS) < 0.5, "old", "young")},
        world=worlds[0],
        likes=np.bincount(log.item, log.primary, ITEMS).astype(np.float64),
        categories=log.catalogue.item_categories,
    )
    return course, judged, population


def sections(flown: Flown, **fairness: Any) -> dict[str, dict[str, Any]]:
    _, judged, population = flown
    evaluate = EvaluateSettings.model_validate(
        {"baseline": "popularity", "metrics": ["reward", "click_rate"],
         "fairness": {"attributes": ["gender"], "metric": "click_rate", **fairness}}
    )  # fmt: skip
    flights = gather([f for many in judged.values() for one in many for f in one.flights], evaluate.metrics)
    gaps = GroupGaps(crossed_groups(population.groups, evaluate.fairness.crossed))
    kinds = {name: f"file.py:{name}" for name in judged} | {"fair": "rerank:file.py:blind"}
    whom = ForWhom(population, judged, flights, evaluate, "popularity", gaps, kinds, np.random.SeedSequence(1))
    return {name: whom.section(name) for name in judged}


def test_what_an_agent_says_that_its_answers_took_is_kept_with_its_flights(flown: Flown) -> None:
    _, judged, _ = flown
    said = judged["reads"][0].account
    assert re.fullmatch(r"\d+ questions", said)
    assert int(said.split()[0]) >= 2 * 6  # two worlds, six slates in each
    assert judged["blind"][0].account == ""


def test_a_flip_flies_no_session_but_the_one_that_it_is_held_against(
    flown: Flown, monkeypatch: pytest.MonkeyPatch
) -> None:
    course, _, _ = flown
    flights: list[int] = []

    def counted(*args: Any, **which: Any) -> Any:
        flights.append(which.get("session", 0))
        return fly(*args, **which)

    monkeypatch.setattr(judging, "fly", counted)
    again = fly_course(
        Showing(-np.arange(ITEMS, dtype=np.float64), reads=True), replace(course, sessions=3), name="reads",
        training_seed=0, root=np.random.SeedSequence(3), report=lambda share, words: None,
    )  # fmt: skip
    (one,) = again.flipped["gender"]
    assert len(one.flights) == 4
    assert flights == [0, 1, 2] * 3 + [0] * 5  # two judge worlds and the train world, nobody leaving, four flips


@pytest.fixture(scope="module")
def found(flown: Flown) -> dict[str, dict[str, Any]]:
    return sections(flown)


def test_a_flip_moves_the_agent_that_reads_the_attribute_and_no_other(
    found: dict[str, dict[str, Any]],
) -> None:
    for name, moved in (("blind", False), ("reads", True)):
        fairness = found[name]["fairness"]
        agent = fairness["flip(click_rate, gender) in agent"]
        assert (agent.low == agent.high == agent.value == 0.0) is not moved
        assert fairness["flip(click_rate, gender) in world"].value == 0.0  # this world reads no feature
        for case in ("both", "total"):
            assert fairness[f"flip(click_rate, gender) in {case}"].value == agent.value


def test_flips_of_three_values_are_said_of_each_group_and_value_that_it_takes(flown: Flown) -> None:
    """Gender's one flip stands for that by one place, no change for that by two; a group too small is withheld."""
    course, judged, population = flown
    group = np.arange(USERS) % 3
    group[: USERS - 5] %= 2
    (one,) = judged["reads"][0].flipped["gender"]
    values = ("F", "M", "X")
    still = judged["reads"][0].flights[0]
    both = (Flipped(values, 1, one.flights), Flipped(values, 2, (still,) * 4))
    changed = replace(
        population,
        features=np.column_stack([np.eye(3)[group], population.features[:, 2:]]),
        feature_names=tuple(f"gender={value}" for value in values) + population.feature_names[2:],
    )
    many = {name: [replace(all_[0], flipped={"gender": both})] for name, all_ in judged.items()}
    fairness = sections((course, many, changed))["reads"]["fairness"]
    names = [name for name in fairness if name.startswith("flip(") and name.endswith("in total")]
    assert len(names) == 6
    moved = one.flights[3].values["click_rate"] - still.values["click_rate"]
    assert fairness["flip(click_rate, gender: F to M) in total"].value == pytest.approx(moved[group == 0].mean())
    assert fairness["flip(click_rate, gender: F to X) in total"].value == 0.0
    assert fairness["flip(click_rate, gender: M to X) in total"].n == int((group == 1).sum())
    assert "needs 30" in fairness["flip(click_rate, gender: X to F) in total"].withheld


def test_an_attribute_that_no_feature_carries_is_flipped_to_exactly_nothing(
    flown: Flown,
) -> None:
    found = sections(flown, attributes=["age"])["reads"]["fairness"]["flip(click_rate, age)"]
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)
    assert "nothing reads it" in found.method


def test_declared_intersections_are_groups_and_the_graph_gives_the_parts_of_the_gap(
    flown: Flown, found: dict[str, dict[str, Any]]
) -> None:
    plain = found["reads"]
    assert not any("x age" in key or "direct" in key for key in plain["fairness"])
    graph = {"confounders": ["age"], "mediators": ["like_share"]}
    stated = sections(flown, intersections=[["gender", "age"]], **graph)["reads"]
    names = {row.group for row in stated["groups"] if row.attribute == "gender x age"}
    assert names == {"F x old", "F x young", "M x old", "M x young"}
    parts = [
        stated["fairness"][f"{part} of gender on click_rate"] for part in ("total", "direct", "indirect", "spurious")
    ]
    total, direct, indirect, spurious = (part.value for part in parts)
    assert total == pytest.approx(direct - indirect - spurious)
    assert parts[1].low > 0 or parts[1].high < 0  # the agent serves by gender, directly
    assert "graph: confounders age, mediators like_share" in parts[1].method


def test_what_a_wrapper_costs_is_its_difference_to_the_agent_inside_by_group_as_well(
    found: dict[str, dict[str, Any]],
) -> None:
    assert all("price" not in found[name] for name in ("popularity", "blind", "reads"))
    price = {row.what: row for row in found["fair"]["price"]}
    assert set(price) >= {"reward", "click_rate", "reward, gender = F", "reward, gender = M"}
    assert {row.of for row in price.values()} == {"blind"}
    assert price["reward"].estimate.value == 0.0  # the same slates: this constraint costs nothing


def test_paths_methods_and_items_come_with_every_agent_that_has_a_baseline(
    flown: Flown, found: dict[str, dict[str, Any]]
) -> None:
    assert "paths" not in found["popularity"]
    blind = found["blind"]
    values = [part.value for part in blind["paths"].values()]
    assert values[0] == pytest.approx(sum(values[1:]))
    assert {one.method for one in blind["effect_methods"]} >= {"difference of means", "x", "doubly robust"}
    assert set(blind["drivers"]) <= {"gender=F", "gender=M", "history_length", "like_share"}
    assert "simultaneous over 4 features" in blind["drivers"]["like_share"].method
    assert blind["effect_methods"][0].exact == pytest.approx(blind["causal_exact"]["all"].value)
    assert blind["fairness"]["exposure_share(head)"].value is not None
    # Same as judge world 1, where each is flown once more.
    _, judged, _ = flown
    total = judged["blind"][0].flights[0].values["reward"] - judged["popularity"][0].flights[0].values["reward"]
    assert values[0] == pytest.approx(total.mean())


@pytest.mark.parametrize("users", [1, 3, 40])
def test_a_handful_of_users_gives_reasons_and_no_traceback(flown: Flown, users: int) -> None:
    """The same flights, cut to the first users, as a small run would have them."""
    _, judged, population = flown

    def cut(one: Judged) -> Judged:
        flights = tuple(
            replace(f, user=f.user[:users], values={k: v[:users] for k, v in f.values.items()}, clicks=f.clicks[:users])
            for f in one.flights
        )
        slate, clicks = one.first.slate[:users], one.first.clicks[:users]
        first = replace(
            one.first, user=one.first.user[:users], slate=slate, clicks=clicks, length=one.first.length[:users],
            left=one.first.left[:users], reward=None,
        )  # fmt: skip
        return replace(one, flights=flights, first=first, flipped={})

    starts = population.world.starts
    end = starts.seen.start[users]
    fewer = replace(
        starts, user=starts.user[:users], vector=starts.vector[:users], bias=starts.bias[:users],
        seen=replace(starts.seen, start=starts.seen.start[: users + 1], item=starts.seen.item[:end]),
    )  # fmt: skip
    few = replace(population, features=population.features[:users], world=replace(population.world, starts=fewer))
    made = sections((flown[0], {name: [cut(one) for one in many] for name, many in judged.items()}, few))
    blind = made["blind"]
    assert "paths" not in blind
    assert blind["fairness"]["gap(click_rate, gender)"].value is None
    assert all(one.estimate.value is None for one in blind["effect_methods"])
