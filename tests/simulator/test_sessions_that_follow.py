"""Late feedback, late items, strangers, users who come back, and popularity that feeds back between sessions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import ndtri

from agents.base import Observation
from evaluators.metrics import Reference, user_metric, why_undefined
from evaluators.rollout import fly, fly_visits
from simulator.behaviour.heads import Head
from simulator.env import WindtunnelEnv, WindtunnelVectorEnv
from simulator.late import folded, hashed
from simulator.users import SimulatedUsers
from simulator.world import World, friends_of
from tests.simulator.plain_users import fold, high, mix64
from tests.simulator.small_world import small_log, small_world

WHERE = {"name": "a", "world_number": 1, "seed": 3, "training_seed": 0}
REFERENCE = Reference(np.ones(130, np.int64), np.ones(130, bool))


class FirstCandidates:
    def act(self, observation: Observation, rng: np.random.Generator) -> NDArray[np.int64]:
        assert observation.candidates is not None
        return np.argsort(~observation.candidates, axis=1, kind="stable")[:, : observation.slate_size]


def slates(n: int, steps: int, items: int = 130) -> NDArray[np.int64]:
    return np.random.default_rng(0).integers(0, items, (steps, n, 10))


@pytest.mark.parametrize("delay", [1, 3])
def test_delayed_answers_are_hidden_for_so_many_slates_and_rewards_are_paid_as_late(delay: int) -> None:
    plain, late = small_world(1, horizon=8), small_world(1, horizon=8, delay={"steps": delay})
    now, then = SimulatedUsers(plain, 40, seed=2), SimulatedUsers(late, 40, seed=2)
    now.start(np.arange(40))
    then.start(np.arange(40))
    rewards, feedback, counts = [], [], []
    for slate in slates(40, 8):
        here = ~now.outcome.done.copy()
        one, other = now.step(slate), then.step(slate)
        assert np.array_equal(one.clicks, other.clicks)
        rewards.append((one.reward.copy(), other.reward.copy(), here, one.done.copy()))
        counts.append((one.shown >= 0).sum(axis=1))
        truth, seen = now.observe().history_feedback, then.observe().history_feedback
        hidden = np.sum(counts[-delay:], axis=0)
        for u in np.flatnonzero(~one.done):
            h = int(hidden[u])
            feedback.append(truth[u, -h:].any())
            assert not seen[u, -h:].any()
            assert np.array_equal(seen[u, :-h], truth[u, :-h])
    assert any(feedback)
    total = np.sum([r[0] for r in rewards], axis=0), np.sum([r[1] for r in rewards], axis=0)
    assert np.array_equal(*total), "what is due is paid at the end"
    going = ~rewards[delay][3]
    assert np.array_equal(rewards[delay][1][going], rewards[0][0][going])


def test_a_delay_in_the_environment_is_that_of_each_lanes_own_session() -> None:
    """Lanes restart inside the step: nothing of the last session may hide or pay in the next."""
    plain, late = (
        WindtunnelVectorEnv(small_world(1, horizon=3, delay={"steps": steps}), 16, seed=0) for steps in (0, 2)
    )
    plain.reset(seed=4)
    late.reset(seed=4)
    paid = [0.0, 0.0]
    for slate in slates(16, 12):
        one, other = plain.step(slate), late.step(slate)
        for name in ("history_items", "step"):
            assert np.array_equal(one[0][name], other[0][name])
        fresh = one[0]["step"] == 0
        assert np.array_equal(one[0]["history_feedback"][fresh], other[0]["history_feedback"][fresh])
        assert not other[0]["history_feedback"][one[0]["step"] == 1][:, -1].any()
        paid[0] += one[1].sum()
        paid[1] += other[1].sum()
        if (one[2] | one[3]).all():
            assert paid[0] == pytest.approx(paid[1])


def test_new_items_may_be_shown_only_once_they_are_there() -> None:
    world = small_world(1, horizon=6, arrivals={"items": 0.4, "step": 2})
    assert world.entry is not None
    new = world.entry > 0
    assert 0.2 < new.mean() < 0.6
    users = SimulatedUsers(world, 40, seed=2)
    users.start(np.arange(40))
    for step, slate in enumerate(slates(40, 6)):
        there = users.candidates()
        assert there[:, new].any() == (step >= 2)
        shown = users.step(slate).shown
        if step < 2:
            assert not np.isin(shown, np.flatnonzero(new)).any()
    session = small_world(1, horizon=4, arrivals={"items": 0.4, "session": 1}, returning={})
    users = SimulatedUsers(session, 40, seed=2)
    users.start(np.arange(40))
    assert not users.candidates()[:, new].any()
    users.come_back(1, np.ones(40, bool))
    assert users.candidates()[:, new].any()


def test_strangers_have_no_history_but_the_same_taste() -> None:
    known, strange = small_world(1), small_world(1, arrivals={"users": 0.5})
    blank = (strange.starts.history_items == -1).all(axis=1)
    assert 0.2 < blank.mean() < 0.8
    assert np.array_equal(strange.starts.vector, known.starts.vector)
    assert np.array_equal(strange.starts.history_items[~blank], known.starts.history_items[~blank])
    assert (np.diff(strange.starts.seen.start)[blank] == 0).all()
    assert strange.digest != known.digest


def returning_world(**settings: object) -> World:
    returning = {"median_gap": 5.0, "spread": 1.0, "satisfaction": 1.5, "window": 10.0, "fit": False}
    return small_world(1, users=200, horizon=5, returning=returning, **settings)


def test_gaps_are_one_uniform_of_user_and_session_through_the_lognormal() -> None:
    world = returning_world()
    users = SimulatedUsers(world, 200, seed=9)
    users.start(np.arange(200), 4)
    users.step(slates(200, 1)[0])
    days = users.gap_days()
    for u in range(0, 200, 17):
        key = fold(fold(mix64((9 + 0x9E3779B97F4A7C15) % 2**64), int(world.starts.user[u])), 4)
        deviation = ndtri(high(mix64(key ^ 5)) + 2**-25)
        satisfaction = float(users._mood[u, 1])
        assert days[u] == pytest.approx(np.exp(np.log(5) - 1.5 * (satisfaction - 0.5) + deviation), rel=1e-5)


def test_users_who_come_back_go_on_from_where_they_were_and_meet_new_luck() -> None:
    world = returning_world()
    users = SimulatedUsers(world, 200, seed=9)
    users.start(np.arange(200))
    for slate in slates(200, 5):
        users.step(slate)
    before, taste = users.observe().history_items.copy(), users._state[:, : users.width].copy()
    exposure, days = users._state[:, users.width :].copy(), users.gap_days()
    back = users.come_back(1, np.ones(200, bool))
    assert np.array_equal(back, days <= 10)
    assert 0.1 < back.mean() < 0.95
    observed = users.observe()
    assert np.array_equal(observed.history_items, before)
    assert (observed.step == 0).all()
    assert np.array_equal(users._state[:, : users.width], taste)
    assert np.allclose(users._state[:, users.width :], exposure * np.exp(-days / 7)[:, None], atol=1e-6)
    assert np.array_equal(users.outcome.done, ~back)
    first = SimulatedUsers(world, 200, seed=9)
    first.start(np.arange(200))
    clicks = first.step(slates(200, 1)[0]).clicks.copy()
    assert (users.step(slates(200, 1)[0]).clicks[back] != clicks[back]).any()


def test_satisfied_users_come_back_more_often_when_that_is_declared() -> None:
    """Same luck, higher appeal: nobody's gap grows. With no effect declared, it is the same user by user."""
    rates = {}
    for effect in (0.0, 1.5):
        world = returning_world().with_parameter("returning", "satisfaction", effect)
        pair = [
            fly_visits(FirstCandidates(), one, sessions=3, **WHERE) for one in (world, world.with_appeal_shift(2.0))
        ]
        rates[effect] = [float(user_metric("return_rate", flown, REFERENCE).mean()) for flown in pair]
    assert rates[1.5][1] > rates[1.5][0] + 0.02
    assert rates[0.0][0] == rates[0.0][1]


def test_sessions_that_follow_are_one_flight_with_a_row_each() -> None:
    world = returning_world()
    flown = fly_visits(FirstCandidates(), world, sessions=3, **WHERE)
    assert len(flown) > 200
    rows = np.bincount(flown.user, minlength=200)
    assert rows.min() == 1
    assert rows.max() == 3
    assert flown.followed is not None
    assert flown.could_follow is not None
    assert np.array_equal(np.bincount(flown.user, flown.followed), rows - 1)
    expected = (rows - 1) / np.minimum(rows, 2)
    assert np.allclose(user_metric("return_rate", flown, REFERENCE), expected)
    alone = fly(FirstCandidates(), world, **WHERE)
    first = flown.first_rows(200)
    for name in ("user", "slate", "clicks", "length", "left", "reward"):
        assert np.array_equal(getattr(alone, name), getattr(first, name)), name
    assert "simulator.returning" in str(why_undefined("return_rate", alone, REFERENCE))


def test_what_was_clicked_gains_appeal_in_the_next_session_only() -> None:
    world = small_world(1, horizon=5, popularity={"strength": 0.7})
    assert world.item_clicks is not None
    users = SimulatedUsers(world, 40, seed=1)
    users.start(np.arange(40))
    before = users.appeal().copy()
    clicks = world.item_clicks.copy()
    clicks[7] += 500
    users.come_back(1, np.ones(40, bool), clicks)
    lifted = users.appeal() - before
    shares = [(counts + 1) / (counts + 1).mean() for counts in (clicks, world.item_clicks)]
    expected = 0.7 * (np.log(shares[0]) - np.log(shares[1]))
    assert np.allclose(lifted, expected[None, :], atol=1e-4)
    assert lifted[0, 7] > 1
    whole = fly_visits(FirstCandidates(), world, sessions=2, **WHERE)
    plain = fly(FirstCandidates(), world, **WHERE)
    assert np.array_equal(whole.clicks[:40], plain.clicks), "the first session starts from the log's popularity"
    assert whole.followed is None


def test_friends_lift_what_they_liked_in_the_log() -> None:
    log = small_log(np.random.default_rng(0))
    rows = np.flatnonzero(log.primary >= 0)
    users = np.array([4, 9, 2])
    friends = friends_of(log, users, rows, np.array([[4, 9], [2, 4], [9, 9], [30, 31]]))
    liked = {u: set(log.item[(log.user == u) & (log.primary > 0)].tolist()) for u in (2, 4, 9)}
    found = [set(friends.item[friends.start[k] : friends.start[k + 1]].tolist()) for k in range(3)]
    assert found == [liked[9] | liked[2], liked[4], liked[4]]


def test_metrics_of_what_follows_a_click_are_those_of_the_columns_and_withheld_without_them() -> None:
    heads = (
        Head("like", "l", 0.3, 0.0, 0.1, 0.1),
        Head("dwell", "d", 3.0, 0.0, 0.1, 0.1, levels=tuple(np.linspace(-1, 1, 256))),
    )
    world = small_world(1, users=200, horizon=6)
    flown = fly(FirstCandidates(), replace(world, heads=heads, reward="dwell"), **WHERE)
    plain = fly(FirstCandidates(), world, **WHERE)
    assert np.array_equal(flown.clicks, plain.clicks), "what follows a click changes no click"
    assert not flown.after["like"][flown.clicks == 0].any()
    likes, clicks = flown.after["like"].sum(), flown.clicks.sum()
    rate = user_metric("like_rate", flown, REFERENCE).mean()
    assert rate == pytest.approx(likes / clicks)
    by_user = flown.after["like"].sum(axis=(1, 2)), flown.clicks.sum(axis=(1, 2), dtype=float)
    left_out = (likes - by_user[0]) / (clicks - by_user[1])  # the rate without each user in turn
    jackknife = np.sqrt(199 * np.mean((left_out - left_out.mean()) ** 2))
    assert user_metric("like_rate", flown, REFERENCE).std(ddof=1) / np.sqrt(200) == pytest.approx(jackknife, rel=0.02)
    assert abs(rate - 1 / (1 + np.exp(-0.3))) < 4 * np.sqrt(0.25 / clicks)
    seconds = user_metric("dwell", flown, REFERENCE)
    assert seconds == pytest.approx(user_metric("reward", flown, REFERENCE), rel=1e-5)
    spread = np.exp(np.asarray(heads[1].levels))
    assert abs(seconds.sum() / clicks - np.exp(3) * spread.mean()) < 4 * np.exp(3) * spread.std() / np.sqrt(clicks)
    for metric in ("like_rate", "dwell"):
        assert "simulator.behaviours" in str(why_undefined(metric, plain, REFERENCE))
        assert np.isnan(user_metric(metric, plain, REFERENCE)).all()


def test_the_hash_in_numpy_is_the_kernels() -> None:
    numbers = np.random.default_rng(0).integers(0, 2**63, 50).astype(np.uint64)
    assert hashed(numbers).tolist() == [mix64(int(x)) for x in numbers]
    assert folded(numbers, numbers[::-1]).tolist() == [
        fold(int(a), int(b)) for a, b in zip(numbers, numbers[::-1], strict=True)
    ]


def test_a_lane_with_every_further_part_is_the_single_environment() -> None:
    """The vector environment starts sessions inside its step: boredom of the last user must not reach the next."""
    world = small_world(
        5, horizon=4, boredom={"depth": 3.0, "threshold": 0.5, "memory": 0.9}, examination={"model": "user_browsing"},
        arrivals={"items": 0.3, "step": 1},
    )  # fmt: skip
    heads = (Head("dwell", "d", 3.0, 0.2, 0.1, 0.1, levels=tuple(np.linspace(-1, 1, 256))),)
    world = replace(world, heads=heads, reward="dwell")
    many, one = WindtunnelVectorEnv(world, 3, seed=0), WindtunnelEnv(world, seed=0)
    many.reset(seed=3)
    one.reset(seed=3)
    ended = 0
    for slate in np.random.default_rng(1).integers(0, world.n_items, (40, 3, 10)):
        _, reward, terminated, truncated, _ = many.step(slate)
        _, own_reward, left, over, _ = one.step(slate[0])
        assert own_reward == reward[0]
        assert (left, over) == (terminated[0], truncated[0])
        if left or over:
            ended += 1
            one.reset()
        assert np.array_equal(many.candidates()[0], one.candidates())
        assert np.array_equal(many.users.appeal()[0], one.users.appeal()[0])
    assert ended >= 5
