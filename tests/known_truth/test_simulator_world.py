"""Known-truth tests 22, 26 and 32 of EVALUATION.md, section 8, as far as the simulated users decide them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from simulator.users import SimulatedUsers
from simulator.world import World
from tests.simulator.small_world import small_world

Chooser = Callable[[SimulatedUsers], NDArray[np.int64]]


def best(users: SimulatedUsers) -> NDArray[np.int64]:
    """The oracle's slate: the ten candidates of highest appeal."""
    return np.argsort(np.where(users.candidates(), -users.appeal(), np.inf), axis=1)[:, :10]


def worst(users: SimulatedUsers) -> NDArray[np.int64]:
    return np.argsort(np.where(users.candidates(), users.appeal(), np.inf), axis=1)[:, :10]


def lengths(world: World, choose: Chooser, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Slates shown to each user, and clicks."""
    users = SimulatedUsers(world, len(world.starts), seed=seed)
    users.start(np.arange(users.n))
    clicks = np.zeros(users.n, np.int64)
    while not users.outcome.done.all():
        clicks += users.step(choose(users)).clicks.sum(axis=1, dtype=np.int64)
    return users.observe().step.copy(), clicks


@pytest.fixture(scope="module")
def world() -> World:
    return small_world(7, users=300, items=400, horizon=20, satiation={"strength": 0}, leave={"repetition": 0})


def test_22_the_same_slates_give_exactly_the_same_session(world: World) -> None:
    for seed in range(3):
        one, two = lengths(world, best, seed), lengths(world, best, seed)
        assert np.array_equal(one[0], two[0])
        assert np.array_equal(one[1], two[1])


def test_22_luck_does_not_depend_on_who_chooses(world: World) -> None:
    """Items that nobody can tell apart get the same clicks whichever of them is shown: the noise knows no agent."""
    flat = replace(world, item_vectors=np.zeros_like(world.item_vectors), item_bias=np.zeros_like(world.item_bias))
    first = lengths(flat, lambda users: np.argsort(~users.candidates(), axis=1, kind="stable")[:, :10], 1)
    other = lengths(flat, lambda users: np.argsort(users.candidates(), axis=1, kind="stable")[:, :-11:-1].copy(), 1)
    assert np.array_equal(first[0], other[0])
    assert np.array_equal(first[1], other[1])


@pytest.mark.parametrize("seed", range(5))
def test_26_leaving_answers_to_what_was_shown_when_that_is_declared(world: World, seed: int) -> None:
    """Common noise: without the effect, best and worst slates give *equal* lengths for each user; with it not."""
    none = world.with_parameter("leave", "satisfaction", 0.0)
    good, bad = lengths(none, best, seed), lengths(none, worst, seed)
    assert np.array_equal(good[0], bad[0])
    assert good[1].sum() > bad[1].sum()
    longer = lengths(world, best, seed)[0] - lengths(world, worst, seed)[0]
    assert longer.min() >= 0, "the same noise and a lower hazard cannot shorten a session"
    assert longer.mean() > 0.5


def test_26_repetition_makes_users_leave_sooner_when_declared(world: World) -> None:
    """All shows one category, or all categories in turn; clicks are equal, so only repetition differs."""
    categories = np.zeros((400, 4), np.float32)
    categories[np.arange(400), np.arange(400) % 4] = 1
    flat = replace(
        world,
        item_vectors=np.zeros_like(world.item_vectors),
        item_bias=np.zeros_like(world.item_bias),
        item_categories=categories,
        horizon=6,  # a category has items for six slates
    )

    def one_category(users: SimulatedUsers) -> NDArray[np.int64]:
        own = users.candidates() & (categories[:, 0] > 0)
        return np.argsort(~own, axis=1, kind="stable")[:, :10]

    def mixed(users: SimulatedUsers) -> NDArray[np.int64]:
        return np.argsort(~users.candidates(), axis=1, kind="stable")[:, :10]

    assert np.array_equal(lengths(flat, one_category, 0)[0], lengths(flat, mixed, 0)[0])
    declared = flat.with_parameter("leave", "repetition", 3.0)
    assert lengths(declared, one_category, 0)[0].mean() < lengths(declared, mixed, 0)[0].mean() - 0.2


def test_32_a_flip_of_an_attribute_that_no_one_reads_changes_no_bit(world: World) -> None:
    """User features are shown to agents; the world's draws and states do not depend on them."""
    flipped = replace(world, starts=replace(world.starts, user_features=-world.starts.user_features))
    for choose in (best, worst):
        one, two = lengths(world, choose, 4), lengths(flipped, choose, 4)
        assert np.array_equal(one[0], two[0])
        assert np.array_equal(one[1], two[1])
