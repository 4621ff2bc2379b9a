"""What only a flight shows: how long sessions last, and whether a slate keeps users at a given step and clicks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from evaluators.fidelity import SessionTable, flown_sessions, leaving_given_clicks, session_checks
from simulator.behaviour import Assumption
from simulator.log import JUDGE, Histories, InteractionLog, Split
from simulator.users import SimulatedUsers
from simulator.world import World
from tests.simulator.small_world import small_log, small_world

USERS, SESSIONS = 150, 4
LEAVE = {"base_rate": 0.2, "satisfaction": 0.0, "repetition": 0.0}


def logged_by(world: World) -> tuple[InteractionLog, Split]:
    """Sessions of random slates in this world; the last two of each user are late rows."""
    rng, parts, shown_so_far = np.random.default_rng(5), [], 0
    for session in range(SESSIONS):
        users = SimulatedUsers(world, USERS, seed=99)
        users.start(np.arange(USERS), session)
        active = np.ones(USERS, bool)
        for step in range(world.horizon):
            slates = np.argsort(rng.random((USERS, world.n_items)), axis=1)[:, : world.slate_size]
            outcome = users.step(slates)
            row, place = np.nonzero((outcome.shown >= 0) & active[:, None])
            parts.append((row, outcome.shown[row, place], outcome.clicks[row, place], shown_so_far + row,
                          np.full(len(row), session), session * 1e6 + 60.0 * step + place))  # fmt: skip
            shown_so_far += USERS
            active &= ~outcome.done
    user, item, clicks, impression, session, time = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((time, user))
    catalogue = small_log(np.random.default_rng(0), users=USERS).catalogue
    log = InteractionLog(
        user[order], item[order].astype(np.int64), time[order], clicks[order].astype(np.float32), catalogue, "flown",
        impression=impression[order], session=(user * SESSIONS + session)[order],
    )  # fmt: skip
    late = (session[order] >= 2).astype(bool)
    return log, Split(np.full(USERS, JUDGE, np.int8), np.zeros(USERS, bool), late)


@pytest.fixture(scope="module")
def world() -> World:
    return small_world(1, users=USERS, horizon=12, leave=LEAVE, slate_size=5)


@pytest.fixture(scope="module")
def logged(world: World) -> tuple[InteractionLog, Split]:
    return logged_by(world)


def flown(world: World, logged: tuple[InteractionLog, Split]) -> tuple[SessionTable, SessionTable] | str:
    return flown_sessions(world, *logged, np.arange(USERS), np.random.default_rng(1), seed=7)


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


def test_late_rows_that_begin_within_a_session_do_not_make_sessions_short(
    world: World, logged: tuple[InteractionLog, Split]
) -> None:
    """The last fifth of each user's rows. Sessions wholly in it are half as long, those that reach into it are not."""
    log, split = logged
    place = np.arange(len(log)) - np.repeat(log.row_starts()[:-1], np.diff(log.row_starts()))
    late = place >= 0.8 * np.diff(log.row_starts())[log.user]
    found = flown(world, (log, replace(split, late=late)))
    assert not isinstance(found, str)
    lengths = [table.features["length"].mean() for table in found]
    assert lengths[0] == pytest.approx(lengths[1], rel=0.12)
    inside = [k for k in np.unique(log.session[late]) if late[log.session == k].all()]
    assert np.mean([len(np.unique(log.impression[log.session == k])) for k in inside]) < 0.7 * lengths[1]


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
    from simulator.users import Outcome

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
