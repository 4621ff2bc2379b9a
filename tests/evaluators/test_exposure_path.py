"""By which path a policy acts in the simulator, and how far estimates from a log agree with the exact effect.

Sabotaged once, each seen red: lengths of the two agents swapped, items of another class put in, the world without
leaving given another click model, propensities left at one half, merit turned round.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from agents.base import Observation
from agents.slates import top_slates
from evaluators.causal.exposure_path import (
    Flown,
    ItemClasses,
    exposure_paths,
    paths_from_a_log,
    replay,
    same_class,
)
from evaluators.causal.methods import METHODS, methods_beside_the_truth, targeted
from evaluators.fairness.items import item_fairness, item_groups, merit_of
from evaluators.rollout import fly
from evaluators.sessions import Sessions
from simulator.users import SimulatedUsers
from simulator.world import World
from tests.agents.taught_world import ITEMS, USERS, taught_world


class Showing:
    """Shows the candidates of highest score, the same for all."""

    def __init__(self, scores: NDArray[np.floating]) -> None:
        self.scores = scores

    def act(self, observation: Observation, rng: np.random.Generator) -> NDArray[np.int64]:
        return top_slates(self.scores, observation)


@pytest.fixture(scope="module")
def world() -> World:
    return taught_world(horizon=8)[0]


def sessions(agent: Showing, world: World) -> Sessions:
    return fly(agent, world, name="a", world_number=1, seed=5, training_seed=0)


def flown(agent: Showing, world: World) -> Flown:
    return Flown(sessions(agent, world).length, sessions(agent, world.without_leaving()))


def test_where_nobody_leaves_everyone_clicks_as_before_until_they_would_have_left(world: World) -> None:
    agent = Showing(world.item_bias)
    left, stayed = sessions(agent, world), sessions(agent, world.without_leaving())
    assert (stayed.length == world.horizon).all()
    assert (left.length < world.horizon).any()
    for u in range(USERS):
        assert np.array_equal(left.slate[u, : left.length[u]], stayed.slate[u, : left.length[u]])
        assert np.array_equal(left.clicks[u, : left.length[u]], stayed.clicks[u, : left.length[u]])


def test_a_replay_of_an_agents_own_slates_gives_its_own_reward(world: World) -> None:
    stayed = sessions(Showing(world.item_bias), world.without_leaving())
    assert np.array_equal(replay(world.without_leaving(), stayed.slate, seed=5), stayed.reward)


def test_an_item_is_replaced_by_an_unseen_one_of_its_class_and_none_comes_twice(rng: np.random.Generator) -> None:
    classes = rng.integers(0, 5, 200)
    seen = rng.random((7, 200)) < 0.2
    slates = np.stack([rng.permutation(np.flatnonzero(~s))[:24].reshape(6, 4) for s in seen])
    slates[0, 2, 1] = -1
    found = same_class(slates, classes, seen, rng)
    for u in range(7):
        shown = found[u][found[u] >= 0]
        assert len(set(shown)) == len(shown)
        assert not seen[u, shown].any()
    there = slates >= 0
    assert np.array_equal(there, found >= 0)
    assert np.array_equal(classes[found[there]], classes[slates[there]])
    assert (found != slates).mean() > 0.5


def test_classes_are_tenths_of_the_likes_and_the_rarest_category() -> None:
    likes = np.array([50.0, 30.0, 11.0, 9.0, 0.0])
    categories = np.array([[1, 0], [1, 1], [1, 0], [0, 0], [1, 0]], np.float32)
    classes = ItemClasses.of(likes, categories)
    assert classes.popularity.tolist() == [0, 5, 8, 9, 10]
    assert (classes.mix - 3 * classes.popularity).tolist() == [1, 2, 1, 0, 1]


def test_the_paths_add_up_to_the_difference_and_name_what_differs(world: World, root: np.random.SeedSequence) -> None:
    likes = np.random.default_rng(1).permutation(np.arange(ITEMS)).astype(float)  # popularity says nothing of quality
    classes = ItemClasses.of(likes, world.item_categories)
    good, bad = flown(Showing(world.item_bias), world), flown(Showing(-world.item_bias), world)
    parts = exposure_paths(good, bad, world.without_leaving(), classes, root)
    values = [part.value for part in parts.values()]
    assert values[0] == pytest.approx(sum(values[1:]))
    real = sessions(Showing(world.item_bias), world), sessions(Showing(-world.item_bias), world)
    assert values[0] == pytest.approx(float(real[0].clicks.sum() - real[1].clicks.sum()) / USERS)
    assert parts["what: which of these items"].low > 0  # quality is what differs, and popularity does not tell it
    assert abs(parts["what: popularity of the items"].value) < 0.3 * values[0]
    # The same slates, cut shorter: all of the difference is in how often.
    short = replace(good, length=np.maximum(1, good.length // 2))
    shorter = exposure_paths(good, short, world.without_leaving(), classes, root)
    assert shorter["how often: number of slates"].value == pytest.approx(shorter["agent - baseline"].value)
    assert shorter["what: popularity of the items"].value == 0
    same = exposure_paths(good, good, world.without_leaving(), classes, root)
    assert all(part.value == 0 for part in same.values())


def test_the_plug_in_from_a_log_stands_beside_the_exact_direct_effect(
    world: World, root: np.random.SeedSequence
) -> None:
    good, bad = flown(Showing(world.item_bias), world), flown(Showing(-world.item_bias), world)
    x = np.random.default_rng(0).standard_normal((USERS, 2))
    logged, exact = paths_from_a_log(good, bad, x, root)
    assert exact > 0
    assert logged.value == pytest.approx(exact, rel=0.7)


def test_methods_that_adjust_find_the_effect_that_a_difference_of_means_misses(
    rng: np.random.Generator, root: np.random.SeedSequence
) -> None:
    n = 1500
    x = rng.standard_normal((n, 3))
    baseline = 5 + 2 * x[:, 0] + rng.standard_normal(n)
    agent = baseline + 1 + 0.5 * x[:, 1]
    user = np.arange(n)
    assignment = targeted(x, x[:, 0], user, root)
    found = methods_beside_the_truth(agent, baseline, x, user, assignment, root, metric="reward")
    truth = float((agent - baseline).mean())
    assert tuple(found) == METHODS
    assert found["difference of means"].low > truth + 0.5
    assert found["doubly robust"].low < truth < found["doubly robust"].high
    assert found["inverse propensity"].value == pytest.approx(truth, abs=0.6)
    for name in ("t", "x", "r", "dr"):
        assert found[name].value == pytest.approx(truth, abs=0.2), name
        assert found[name].low is None
    few = methods_beside_the_truth(
        agent[:40], baseline[:40], x[:40], user[:40], targeted(x[:40], x[:40, 0], user[:40], root), root, metric="m"
    )
    assert all(one.value is None for one in few.values())


def test_items_are_judged_by_the_worlds_merit_and_not_by_what_the_agent_thinks(
    world: World, root: np.random.SeedSequence
) -> None:
    likes = np.exp(world.item_bias.astype(np.float64))
    groups = item_groups(likes)
    assert likes[groups == "head"].sum() >= 0.5 * likes.sum() > likes[groups == "head"].sum() - likes.max()
    merit = merit_of(world)
    seen = np.zeros_like(merit, bool)
    histories = world.starts.seen
    seen[np.repeat(np.arange(USERS), np.diff(histories.start)), histories.item] = True
    assert (merit[seen] == 0).all()
    users = SimulatedUsers(world, USERS, seed=1)
    users.start(np.arange(USERS))
    assert merit[~seen] == pytest.approx(1 / (1 + np.exp(-users.appeal()[~seen].astype(np.float64))), rel=1e-4)
    popular = item_fairness(sessions(Showing(likes), world), merit, groups, root)
    turned = item_fairness(sessions(Showing(np.random.default_rng(0).random(ITEMS)), world), merit, groups, root)
    assert popular["exposure_share(head)"].low > turned["exposure_share(head)"].high
    assert turned["exposure_per_merit(tail / head)"].value > popular["exposure_per_merit(tail / head)"].value
    assert popular["exposure_gini"].value is not None
    assert popular["attention_unfairness"].low > 0
