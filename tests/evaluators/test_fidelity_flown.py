"""What only a flight shows: how long sessions last, and whether a slate keeps users at a given step and clicks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from evaluators.fidelity import SessionTable, flown_sessions, leaving_given_clicks, session_checks
from simulator.behaviour import Assumption
from simulator.behaviour.leaving import session_numbers
from simulator.log import JUDGE, Histories, InteractionLog, Split, split_users
from simulator.users import Outcome, SimulatedUsers
from simulator.world import World
from tests.simulator.small_world import small_log, small_world

USERS, SESSIONS = 150, 4
DAY = 86_400.0
LEAVE = {"base_rate": 0.2, "satisfaction": 0.0, "repetition": 0.0}


def logged_by(world: World, seed: int = 5, *, days: float = 10.0) -> tuple[InteractionLog, Split]:
    """Sessions of random slates in this world; the last two of each user are late rows.

    Where its users come back, the log ends after so many days for everybody, and rows are split as in a run.
    """
    rng, parts, shown_so_far = np.random.default_rng(seed), [], 0
    begins = np.zeros(USERS)
    session = 0
    while begins.min() < days * DAY if world.returns else session < SESSIONS:
        users = SimulatedUsers(world, USERS, seed=94 + seed)
        users.start(np.arange(USERS), session)
        active = begins < days * DAY if world.returns else np.ones(USERS, bool)
        for step in range(world.horizon):
            slates = rng.permuted(np.tile(np.arange(world.n_items), (USERS, 1)), axis=1)[:, : world.slate_size]
            outcome = users.step(slates)
            row, place = np.nonzero((outcome.shown >= 0) & active[:, None])
            parts.append((row, outcome.shown[row, place], outcome.clicks[row, place], shown_so_far + row,
                          np.full(len(row), session), begins[row] + 60.0 * step + place))  # fmt: skip
            shown_so_far += USERS
            active &= ~outcome.done
        begins += DAY * users.gap_days() + 60.0 * world.horizon if world.returns else 1e6
        session += 1
    user, item, clicks, impression, number, time = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((time, user))
    if world.returns:
        order = order[time[order] < days * DAY]
    catalogue = replace(
        small_log(np.random.default_rng(0), users=USERS).catalogue, item_categories=world.item_categories
    )
    log = InteractionLog(
        user[order], item[order].astype(np.int64), time[order], clicks[order].astype(np.float32), catalogue, "flown",
        impression=impression[order], session=(user * session + number)[order],
    )  # fmt: skip
    if world.returns:
        return log, split_users(log, np.random.SeedSequence(seed), world_a=0.02, judge=0.97, tuning=0.01)
    return log, Split(np.full(USERS, JUDGE, np.int8), np.zeros(USERS, bool), number[order] >= 2)


@pytest.fixture(scope="module")
def world() -> World:
    return small_world(1, users=USERS, horizon=12, leave=LEAVE, slate_size=5)


@pytest.fixture(scope="module")
def logged(world: World) -> tuple[InteractionLog, Split]:
    return logged_by(world)


def flown(
    world: World, logged: tuple[InteractionLog, Split], feature: str = "length"
) -> tuple[SessionTable, SessionTable] | str:
    users = logged[1].users(JUDGE, tuning=False)
    return flown_sessions(world, *logged, users, np.random.default_rng(1), seed=7)[feature]


def verdict(world: World, logged: tuple[InteractionLog, Split], feature: str) -> str:
    found = flown(world, logged, feature)
    assert not isinstance(found, str), found
    return session_checks(*found, np.random.default_rng(2), permutations=60)[0].verdict


def test_sessions_of_the_world_that_wrote_the_log_are_as_long_and_those_of_a_hastier_one_are_not(
    world: World, logged: tuple[InteractionLog, Split]
) -> None:
    right = flown(world, logged)
    assert not isinstance(right, str)
    assert len(right[0].user) == 2 * USERS
    assert set(right[0].features) == {"length"}
    assert session_checks(*right, np.random.default_rng(2))[0].passed
    hasty = flown(world.with_parameter("leave", "base_rate", 0.32), logged)
    assert not isinstance(hasty, str)
    assert session_checks(*hasty, np.random.default_rng(2))[0].verdict == "fail"


def test_late_rows_that_begin_within_a_session_do_not_make_sessions_short(world: World) -> None:
    """The last fifth of each user's rows. Sessions wholly in it are half as long, those that reach into it are not."""
    lengths, inside = [], []
    for seed in range(5, 8):
        log, split = logged_by(world, seed)
        place = np.arange(len(log)) - np.repeat(log.row_starts()[:-1], np.diff(log.row_starts()))
        late = place >= 0.8 * np.diff(log.row_starts())[log.user]
        found = flown(world, (log, replace(split, late=late)))
        assert not isinstance(found, str)
        lengths.append([table.features["length"].mean() for table in found])
        wholly = [k for k in np.unique(log.session[late]) if late[log.session == k].all()]
        inside.append(np.mean([len(np.unique(log.impression[log.session == k])) for k in wholly]))
    real, simulated = np.mean(lengths, axis=0)
    assert real == pytest.approx(simulated, rel=0.12)
    assert np.mean(inside) < 0.7 * simulated


def test_logged_lengths_are_counted_by_hand(world: World, logged: tuple[InteractionLog, Split]) -> None:
    log, split = logged
    found = flown(world, logged)
    assert not isinstance(found, str)
    real, simulated = found
    assert np.array_equal(real.user, simulated.user)
    at = 17
    mine = [k for k in np.unique(log.session[split.late]) if log.user[log.session == k][0] == real.user[at]]
    lengths = [len(np.unique(log.impression[log.session == k])) for k in mine]
    assert real.features["length"][real.user == real.user[at]].tolist() == lengths


def test_items_met_before_are_shown_again_and_a_session_that_may_go_on_is_left_out(
    world: World, logged: tuple[InteractionLog, Split]
) -> None:
    """Users leave the sooner the less they click, so places left empty would shorten sessions."""
    log, split = logged
    keen = replace(world, assumptions=with_effect(6.0).assumptions)
    everything = np.arange(world.n_items)
    met = Histories(
        np.arange(USERS + 1) * world.n_items, np.tile(everything, USERS), np.zeros(USERS * world.n_items, np.float32)
    )
    sated = replace(keen, starts=replace(keen.starts, seen=met))
    one, other = flown(keen, logged), flown(sated, logged)
    assert not isinstance(one, str)
    assert not isinstance(other, str)
    assert np.array_equal(one[1].features["length"], other[1].features["length"])
    by_time = flown(world, (replace(log, session=None), split))
    assert not isinstance(by_time, str)
    assert len(by_time[0].user) == USERS  # the last sessions of all end within half an hour of the log's end


def test_without_slates_or_whole_sessions_nothing_is_flown_and_the_reason_is_said(
    world: World, logged: tuple[InteractionLog, Split]
) -> None:
    log, split = logged
    assert "data.columns.impression" in str(flown(world, (replace(log, impression=None), split)))
    assert "needs 30 users" in str(flown(world, (log, replace(split, late=np.zeros(len(log), bool)))))
    assert "not identifiable" in str(flown(world, (replace(log, session=None, time=np.floor(log.time / 1e5)), split)))


def with_effect(effect: float, *, source: str = "fitted") -> World:
    world = small_world(2, users=400, horizon=12, slate_size=5, leave={**LEAVE, "satisfaction": 0.0})
    kept = tuple(a for a in world.assumptions if (a.part, a.parameter) != ("leave", "satisfaction"))
    se = 0.2 if source == "fitted" else None
    return replace(world, assumptions=(*kept, Assumption("leave", "satisfaction", effect, source, se)))


def test_a_slate_that_keeps_users_is_found_at_a_given_step_and_clicks_and_one_that_does_not_is_no_pass() -> None:
    found = leaving_given_clicks(with_effect(4.0), seed=3)
    assert found.passed
    assert found.estimate.value is not None
    assert found.estimate.value < -0.1
    assert leaving_given_clicks(with_effect(4.0), seed=3, longer_is_better=False).verdict == "fail"
    assert leaving_given_clicks(with_effect(4.0, source="assumed"), seed=3).verdict == "not made"
    assert leaving_given_clicks(with_effect(0.0), seed=3).passed is None
    assert "no effect" in leaving_given_clicks(with_effect(0.0), seed=3).reason


def test_leaving_that_listens_to_earlier_slates_alone_is_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Users leave the sooner the less they clicked before; the slate before them changes nothing."""
    step = SimulatedUsers.step
    tired: dict[int, np.ndarray] = {}

    def deaf(self: SimulatedUsers, slate: np.ndarray) -> Outcome:
        before = tired.setdefault(id(self), np.zeros(self.n))
        outcome = step(self, slate)
        going = ~outcome.done
        leaves = np.random.default_rng(int(before.sum())).random(self.n) < 0.4 / (1 + before)
        outcome.left[:] |= going & leaves
        outcome.done[:] |= going & leaves
        tired[id(self)] = before + outcome.clicks.sum(1)
        return outcome

    world = replace(with_effect(4.0), horizon=10).with_parameter("leave", "base_rate", 1e-6)
    kept = tuple(a for a in world.assumptions if (a.part, a.parameter) != ("leave", "satisfaction"))
    world = replace(world, assumptions=(*kept, Assumption("leave", "satisfaction", 1e-9, "fitted", 1e-12)))
    monkeypatch.setattr(SimulatedUsers, "step", deaf)
    found = [leaving_given_clicks(world, seed=s) for s in range(4)]
    assert sum(check.passed is True for check in found) <= 1


def test_users_who_stay_for_what_they_clicked_before_are_not_kept_by_the_slate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who likes everything clicks more and stays: without clicks held fixed, better slates would seem to keep users."""
    step = SimulatedUsers.step

    def loyal(self: SimulatedUsers, slate: np.ndarray) -> Outcome:
        clicks = vars(self).setdefault("clicked_before", np.zeros(self.n))
        going = ~self.outcome.done.copy()
        outcome = step(self, slate)
        chance = 1 / (1 + np.exp(0.5 + 0.3 * clicks))
        leaves = going & (np.random.default_rng(int(clicks.sum())).random(self.n) < chance)
        outcome.left[:] |= leaves
        outcome.done[:] |= leaves
        clicks += outcome.clicks.sum(1) * going
        return outcome

    world = with_effect(1e-9).with_parameter("leave", "base_rate", 1e-6)
    effect = Assumption("leave", "satisfaction", 1e-9, "fitted", 1e-12)
    kept = tuple(a for a in world.assumptions if (a.part, a.parameter) != ("leave", "satisfaction"))
    bias = np.random.default_rng(0).normal(0, 2, len(world.starts)).astype(np.float32)
    world = replace(world, assumptions=(*kept, effect), starts=replace(world.starts, bias=bias))
    monkeypatch.setattr(SimulatedUsers, "step", loyal)
    found = [leaving_given_clicks(world, seed=s) for s in range(4)]
    assert sum(check.passed is True for check in found) <= 1
    assert all(check.estimate.value is not None for check in found)


def test_what_a_session_shows_again_is_left_out_of_both_sides(
    world: World, logged: tuple[InteractionLog, Split]
) -> None:
    """A log that repeats each slate at once, clicks and all, and the same log without."""
    log, split = logged
    twice = np.repeat(np.arange(len(log)), 2)
    again = np.tile([False, True], len(log))
    order = np.lexsort((np.arange(len(twice)), again, log.impression[twice], log.session[twice], log.user[twice]))
    twice, again = twice[order], again[order]
    names = ("user", "item", "time", "primary", "session")
    fields = {name: getattr(log, name)[twice] for name in names}
    impression = 2 * log.impression[twice] + again
    repeating = replace(log, **fields, impression=impression)
    for feature in ("length", "diversity"):
        one, other = (
            flown(world, logged, feature),
            flown(world, (repeating, replace(split, late=split.late[twice])), feature),
        )
        assert not isinstance(one, str)
        assert not isinstance(other, str)
        for plain, repeated in zip(one, other, strict=True):
            assert np.array_equal(plain.features[feature], repeated.features[feature])


def test_where_not_all_sessions_are_flown_they_are_taken_from_all_users(
    world: World, logged: tuple[InteractionLog, Split], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evaluators.fidelity.sessions.MOST_FLOWN", 40)
    found = flown(world, logged)
    assert not isinstance(found, str)
    users = np.unique(found[0].user)
    assert len(found[0].user) == 40
    assert users.min() < 0.05 * USERS
    assert users.max() > 0.95 * USERS


RETURNING = {"median_gap": 2.0, "spread": 0.7, "satisfaction": 0.5, "window": 30.0}


@pytest.fixture(scope="module")
def visited() -> tuple[World, tuple[InteractionLog, Split]]:
    """A world whose users come back, with one category an item, and its log."""
    world = small_world(3, users=USERS, horizon=12, slate_size=5, item_bias=0.8, leave=LEAVE, returning=RETURNING)
    world = replace(world, item_categories=np.eye(4, dtype=np.float32)[np.arange(world.n_items) % 4])
    return world, logged_by(world)


@pytest.mark.parametrize(
    ("days", "returning"),
    [
        (10.0, RETURNING),
        (7.0, {**RETURNING, "median_gap": 1.0, "spread": 1.0}),
        (200.0, {**RETURNING, "median_gap": 17.0, "spread": 2.0, "window": 1000.0}),
    ],
)
def test_gaps_of_the_right_world_pass_where_late_rows_are_the_last_fifth_of_each_user(
    days: float, returning: dict[str, float]
) -> None:
    """To be late is to be followed by little: gaps behind late rows are longer than gaps."""
    world = small_world(3, users=USERS, horizon=4, slate_size=5, leave=LEAVE, returning=returning)
    log, split = logged = logged_by(world, days=days)
    assert verdict(world, logged, "gap") == "pass"
    assert (
        verdict(world.with_parameter("returning", "median_gap", 2 * returning["median_gap"]), logged, "gap") != "pass"
    )
    found = flown(world, logged, "gap")
    assert not isinstance(found, str)
    rows = np.flatnonzero(np.isin(log.user, split.users(JUDGE, tuning=False)))
    left = (log.time.max() - log.time[rows][np.diff(log.session[rows], append=-1) != 0]) / DAY > 0
    reaches = (np.bincount(session_numbers(log, rows), split.late[rows]) > 0)[left]
    logged_mean, flown_mean = (table.features["gap"][reaches].mean() for table in found)
    assert logged_mean > 1.1 * flown_mean


def test_gaps_of_the_world_that_wrote_the_log_pass_and_gaps_twice_as_long_do_not(
    visited: tuple[World, tuple[InteractionLog, Split]],
) -> None:
    world, logged = visited
    assert verdict(world, logged, "gap") == "pass"
    assert verdict(world.with_parameter("returning", "median_gap", 4.0), logged, "gap") == "fail"


def test_gaps_are_cut_where_the_log_ends_and_where_users_count_as_gone(
    visited: tuple[World, tuple[InteractionLog, Split]],
) -> None:
    world, (log, split) = visited
    found = flown(world, (log, split), "gap")
    assert not isinstance(found, str)
    real, simulated = found
    user = int(real.user[len(real.user) // 2])
    rows = np.flatnonzero(log.user == user)
    begins = rows[np.flatnonzero(np.diff(log.session[rows], prepend=-1))]
    ends = np.append(begins[1:] - 1, rows[-1])
    following = np.append(log.time[begins[1:]], log.time.max())  # after the last session nothing is seen
    mine = (following - log.time[ends]) / DAY
    assert real.features["gap"][real.user == user] == pytest.approx(mine)
    left = (log.time.max() - log.time[ends]) / DAY
    assert (simulated.features["gap"][simulated.user == user] <= left + 1e-9).all()
    short = flown(world.with_parameter("returning", "window", 1.0), (log, split), "gap")
    assert not isinstance(short, str)
    assert max(table.features["gap"].max() for table in short) == 1.0
    assert "simulator.returning" in str(flown(replace(world, returns=False), (log, split), "gap"))


def test_what_is_clicked_together_is_as_diverse_and_clicks_in_one_category_are_found(
    visited: tuple[World, tuple[InteractionLog, Split]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The faulty users click in one category alone, each in another."""
    world, logged = visited
    assert verdict(world, logged, "diversity") == "pass"
    step = SimulatedUsers.step

    def narrow(self: SimulatedUsers, slate: np.ndarray) -> Outcome:
        outcome = step(self, slate)
        kind = self.world.item_categories[np.maximum(outcome.shown, 0)].argmax(axis=2)
        outcome.clicks[:] *= kind == self.rows[:, None] % world.item_categories.shape[1]
        return outcome

    with monkeypatch.context() as patched:
        patched.setattr(SimulatedUsers, "step", narrow)
        assert verdict(world, logged, "diversity") == "fail"
    log, split = logged
    bare = replace(log, catalogue=replace(log.catalogue, item_categories=np.zeros((world.n_items, 0), np.float32)))
    assert "data.item_categories" in str(flown(world, (bare, split), "diversity"))


def test_diversity_is_the_mean_distance_of_two_clicks(
    visited: tuple[World, tuple[InteractionLog, Split]],
) -> None:
    world, (log, split) = visited
    found = flown(world, (log, split), "diversity")
    assert not isinstance(found, str)
    at = 40
    expected = []
    for k in np.unique(log.session[split.late & (log.user == found[0].user[at])]):
        item = log.item[(log.session == k) & (log.primary > 0)]
        if len(item) < 2:
            continue
        unit = log.catalogue.item_categories[item]
        unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
        cosine = unit @ unit.T
        expected.append(1 - (cosine.sum() - len(item)) / (len(item) * (len(item) - 1)))
    assert found[0].features["diversity"][found[0].user == found[0].user[at]] == pytest.approx(expected)
