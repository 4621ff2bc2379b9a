"""Friends' influence: recovered where it is there, not identified where it is not."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from evaluators.fairness import merit_of
from simulator.behaviour import SimulatorSettings
from simulator.behaviour.friends import FriendsFit, fit_friends
from simulator.log import JUDGE, Histories, InteractionLog, Split
from simulator.users import SimulatedUsers
from simulator.world import World
from tests.simulator.small_world import TrueStates, bare_catalogue


def fitted(seed: int, strength: float) -> FriendsFit:
    """80 users of 25 rows, of which three tenths have an item that a friend liked; placebos are the same at random."""
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(80), 25)
    offset = rng.normal(-1, 1, len(user))
    liked = rng.random(len(user)) < 0.3
    own = 0.4 * rng.standard_normal(80)[user]
    y = (rng.random(len(user)) < 1 / (1 + np.exp(-(offset - 0.3 * strength + own + strength * liked)))).astype(float)
    return fit_friends(y, offset, liked, user, rng.random((20, len(user))) < 0.3, rng)


def test_an_influence_is_found_with_its_level_and_the_loss_of_users_left_out_falls() -> None:
    found = [fitted(seed, 1.0) for seed in range(30)]
    error = [(fit.strength - 1.0) / fit.se for fit in found]
    assert np.mean(np.abs(error) < 2) >= 0.85
    assert abs(np.mean([fit.strength for fit in found]) - 1.0) < 0.1  # levels of users that are not known flatten it
    assert np.mean([fit.level for fit in found]) == pytest.approx(-0.3, abs=0.1)
    assert np.mean([fit.identified for fit in found]) >= 0.95
    assert found[0].assumptions()[0].source == "fitted"
    assert "log-loss of users left out falls by" in found[0].why


def test_no_influence_is_seldom_identified_and_then_nothing_is_taken_from_the_fit() -> None:
    found = [fitted(seed, 0.0) for seed in range(60)]
    assert np.mean([fit.identified for fit in found]) <= 0.05
    assert found[0].assumptions() == ()
    assert found[0].why.startswith("assumed; not identified")


def test_what_strangers_say_as_well_is_no_influence() -> None:
    """What everybody likes is liked by friends and strangers: the placebos see it too."""
    rng = np.random.default_rng(1)
    user = np.repeat(np.arange(80), 25)
    popular = rng.random(len(user)) < 0.3
    y = (rng.random(len(user)) < 1 / (1 + np.exp(1 - popular))).astype(float)
    noisy = popular[None] ^ (rng.random((101, len(user))) < 0.1)
    found = fit_friends(y, np.full(len(user), -0.8), noisy[0], user, noisy[1:], rng)
    assert found.z > 1.96
    assert found.gain > 1.96 * found.gain_se
    assert not found.identified


def test_too_few_rows_of_either_kind_are_no_fit() -> None:
    rng = np.random.default_rng(0)
    y, user = (rng.random(200) < 0.5).astype(float), np.repeat(np.arange(20), 10)
    with pytest.raises(ValueError, match="49 of 200 rows have an item that a friend liked; 50 of each kind"):
        fit_friends(y, np.zeros(200), np.arange(200) < 49, user, np.zeros((0, 200), bool), rng)


PAIRS, ITEMS, ROWS = 120, 100, 40
STRENGTH, TOO_HIGH = 1.0, 0.4


@dataclass(frozen=True)
class Popularity:
    """Items as such, and nothing of any user."""

    item_bias: NDArray[np.float32]

    @property
    def item_vectors(self) -> NDArray[np.float32]:
        return np.zeros((ITEMS, 1), np.float32)

    def user_states(self, histories: Histories, user_features: NDArray[np.float32]) -> TrueStates:
        return TrueStates(np.zeros((len(histories), 1), np.float32), np.zeros(len(histories), np.float32))


BIAS = np.random.default_rng(3).normal(-1, 0.7, ITEMS).astype(np.float32)


def pairs_log(*, copied: bool) -> tuple[InteractionLog, Split, NDArray[np.int64]]:
    """Users and a friend of each. Who comes later likes more what the other liked: the user, or, copied, the friend."""
    rng = np.random.default_rng(0)
    appeal = 1 / (1 + np.exp(-BIAS.astype(float)))
    lifted = 1 / (1 + np.exp(-(BIAS.astype(float) + STRENGTH * (3 if copied else 1))))
    item = np.stack([rng.permutation(ITEMS)[:ROWS] for _ in range(2 * PAIRS)])
    y = rng.random(item.shape) < appeal[item]
    leads = np.arange(PAIRS) + (0 if copied else PAIRS)
    follows = np.arange(PAIRS) + (PAIRS if copied else 0)
    for one, other in zip(leads, follows, strict=True):
        first = item[one][: int(0.8 * ROWS)][y[one][: int(0.8 * ROWS)]] if not copied else item[one][y[one]]
        chance = np.where(np.isin(item[other], first), lifted[item[other]], appeal[item[other]])
        y[other] = rng.random(ROWS) < chance
    time = np.arange(2 * PAIRS * ROWS, dtype=float).reshape(item.shape)
    time[leads] -= 1e6
    user = np.repeat(np.arange(2 * PAIRS), ROWS)
    tuning = np.arange(2 * PAIRS) < PAIRS
    late = np.tile(np.arange(ROWS), 2 * PAIRS) >= np.where(tuning, 0.5, 0.8)[user] * ROWS
    catalogue = bare_catalogue(2 * PAIRS, np.zeros((ITEMS, 1), np.float32))
    log = InteractionLog(user, item.ravel(), time.ravel(), y.ravel().astype(np.float32), catalogue, "pairs")
    split = Split(np.full(2 * PAIRS, JUDGE, np.int8), tuning, late)
    return log, split, np.column_stack([np.arange(PAIRS), np.arange(PAIRS) + PAIRS])


def built(log: InteractionLog, split: Split, pairs: NDArray[np.int64], strength: float = 0.3) -> World:
    settings = SimulatorSettings.model_validate({"friends": {"strength": strength}, "shown_again": True})
    users = np.arange(log.catalogue.n_users)
    return World.build(Popularity(BIAS + np.float32(TOO_HIGH)), log, split, users, settings, name="w", friends=pairs)


def strength_of(world: World) -> tuple[float, str]:
    found = next(a for a in world.assumptions if a.part == "friends")
    return found.value, found.source


def note_of(world: World) -> str:
    return next(note for note in world.notes if note.startswith("friends: "))


@pytest.fixture(scope="module")
def influenced() -> tuple[InteractionLog, Split, NDArray[np.int64]]:
    return pairs_log(copied=False)


@pytest.fixture(scope="module")
def world(influenced: tuple[InteractionLog, Split, NDArray[np.int64]]) -> World:
    return built(*influenced)


def test_a_worlds_friends_and_level_are_those_that_wrote_the_log(world: World) -> None:
    strength, source = strength_of(world)
    assert source == "fitted"
    assert strength == pytest.approx(STRENGTH, abs=0.3)
    assert world.item_bias - BIAS == pytest.approx(0.0, abs=0.15)
    assert "log has no times" not in note_of(world)


def test_a_friend_who_copies_the_user_is_no_influence_where_the_log_has_times() -> None:
    log, split, pairs = pairs_log(copied=True)
    assert strength_of(built(log, split, pairs)) == (0.3, "assumed")
    untimed = built(replace(log, time=np.full(len(log), np.nan)), split, pairs)
    assert strength_of(untimed)[1] == "fitted"
    assert note_of(untimed).endswith("who followed whom is not known")


def test_the_level_goes_with_the_strength_and_no_strength_is_no_part(
    world: World, influenced: tuple[InteractionLog, Split, NDArray[np.int64]]
) -> None:
    off = world.with_parameter("friends", "strength", 0.0)
    assert off.item_bias == pytest.approx(BIAS + TOO_HIGH, abs=1e-5)
    back = off.with_parameter("friends", "strength", strength_of(world)[0])
    assert back.item_bias == pytest.approx(world.item_bias, abs=1e-5)
    never = built(*influenced, strength=0.0)
    assert never.friends is None
    assert never.item_bias == pytest.approx(BIAS + TOO_HIGH)


def test_what_an_item_is_worth_to_a_user_knows_the_users_friends(world: World) -> None:
    users = SimulatedUsers(world, 20, seed=1)
    users.start(np.arange(20))
    appeal = users.appeal().astype(float)
    assert merit_of(world)[:20] == pytest.approx(1 / (1 + np.exp(-appeal)), abs=1e-5)
    items = np.random.default_rng(0).integers(0, ITEMS, (20, 7))
    lift = np.take_along_axis(appeal - world.item_bias, items, axis=1)
    assert world.friends_lift(np.arange(20), items) == pytest.approx(lift, abs=1e-5)
    assert 0 < (lift > 0.5).mean() < 1
