"""The world's clicks on the log's slates against the log's own, and its chances against its model's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from evaluators.fidelity import Check, flown_click_checks, flown_clicks, fly_logged_slates, world_against_model
from simulator.log import JUDGE, InteractionLog, Split
from simulator.users import SimulatedUsers
from simulator.world import World
from tests.simulator.small_world import small_parts, small_world

USERS, SLATES = 250, 20
STILL = {"satiation": {"strength": 0}, "drift": {"rate": 0}}


def logged_by(world: World, seed: int = 3, *, size: int = 5) -> tuple[InteractionLog, Split]:
    """Slates of random items as this world's users answer them, each at the start of a session; half of them late."""
    rng, n = np.random.default_rng(seed), USERS * SLATES
    user = np.repeat(np.arange(USERS), SLATES)
    users = SimulatedUsers(replace(world, shown_again=True), n, seed=50 + seed, slate_size=size)
    users.start(user, np.arange(n))
    outcome = users.step(np.argsort(rng.random((n, world.n_items)), axis=1)[:, :size])
    row, place = np.nonzero(outcome.shown >= 0)
    catalogue = small_parts(1, users=USERS)[0].catalogue
    log = InteractionLog(
        user[row], outcome.shown[row, place].astype(np.int64), 3600.0 * row + place,
        outcome.clicks[row, place].astype(np.float32), catalogue, "flown", impression=row, position=place,
    )  # fmt: skip
    return log, Split(np.full(USERS, JUDGE, np.int8), np.zeros(USERS, bool), row % 2 == 0)


def checks(world: World, logged: tuple[InteractionLog, Split]) -> dict[str, Check]:
    return {one.name: one for one in flown_click_checks(fly_logged_slates(world, *logged, np.arange(USERS), seed=9))}


def verdicts(world: World, logged: tuple[InteractionLog, Split]) -> list[str]:
    return [check.verdict for check in checks(world, logged).values()]


def world_of(**settings: Any) -> World:
    return small_world(1, users=USERS, slate_size=5, **{**STILL, **settings})


BEHAVIOURS: list[dict[str, Any]] = [
    {"examination": {"decay": 0.8}},
    {"examination": {"model": "cascade", "decay": 0.9, "continuation": 0.6}},
    {"examination": {"model": "user_browsing", "decay": 0.9, "continuation": 0.6}},
    {"examination": {"decay": 1.0}, "choice": {"model": "logit", "no_choice": 0.0}},
    {"examination": {"decay": 1.0}, "choice": {"model": "nested", "no_choice": 0.0}},
]


def name_of(behaviour: dict[str, Any]) -> str:
    return "-".join(part.get("model", "position") for part in behaviour.values())


@pytest.mark.parametrize("behaviour", BEHAVIOURS, ids=name_of)
def test_the_world_that_wrote_the_log_passes_and_one_that_clicks_too_little_does_not(
    behaviour: dict[str, Any],
) -> None:
    world = world_of(**behaviour)
    logged = logged_by(world)
    found = checks(world, logged)
    assert [check.verdict for check in found.values()] == ["pass", "pass"]
    assert found["flown clicks"].estimate.n == USERS
    lower = checks(world.with_appeal_shift(-0.8), logged)
    assert lower["flown clicks"].verdict == "fail"
    assert lower["flown clicks"].estimate.value > 1.15


def test_clicks_are_held_against_those_of_the_same_user() -> None:
    """With the users turned round the two sums by user correlate by .17 here, and so do the log's with any user's."""
    world = world_of(examination={"decay": 0.8})
    found = fly_logged_slates(world, *logged_by(world), np.arange(USERS), seed=9)
    assert not isinstance(found, str)
    by_user = [np.bincount(found.user, clicks) for clicks in (found.observed, found.expected)]
    assert np.corrcoef(*by_user)[0, 1] > 0.25


def test_as_many_clicks_at_the_wrong_places_are_found_by_place() -> None:
    logged = logged_by(world_of(examination={"decay": 0.7}))
    level = world_of(examination={"decay": 1.0}).with_appeal_shift(-1.0)
    found = checks(level, logged)
    assert found["flown clicks"].verdict == "pass"
    assert found["flown clicks by place"].verdict == "fail"
    assert "4: 0." in found["flown clicks by place"].reason  # at the bottom the log has fewer


def test_what_the_world_does_as_a_session_goes_on_is_left_out() -> None:
    """Satiation and drift are assumed: no log tells them from taste, and the model's rates hold them already."""
    logged = logged_by(world_of())
    assert verdicts(world_of(satiation={"strength": 3.0}, drift={"rate": 0.5}), logged) == ["pass", "pass"]


def test_places_below_the_worlds_own_are_left_out_where_items_do_not_compete() -> None:
    """The world shows three places, the log five: what it would do at the others, nobody asks."""
    deep = world_of(examination={"decay": 0.9})
    log, split = logged_by(deep)
    short = replace(world_of(examination={"decay": 0.9}), slate_size=3)
    found = fly_logged_slates(short, log, split, np.arange(USERS), seed=9)
    assert not isinstance(found, str)
    assert found.place is not None
    assert found.place.max() == 2
    late = split.late & (log.position < 3)
    assert len(found.observed) == late.sum()
    assert found.observed.sum() == log.primary[late].sum()
    competing = fly_logged_slates(replace(short, choice="logit"), log, split, np.arange(USERS), seed=9)
    assert competing == "items compete on 5 places of the log's slates, and the world knows 3"
    everywhere = replace(world_of(examination={"decay": 1.0}), slate_size=3, choice="logit")
    whole = fly_logged_slates(everywhere, log, split, np.arange(USERS), seed=9)
    assert not isinstance(whole, str)
    assert len(whole.observed) == split.late.sum()


def test_slates_are_flown_until_clicks_are_told_closely_or_none_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of 500 slates never tells places; where all tell it, or the first two parts do, that is enough."""
    world = world_of(examination={"decay": 0.8})
    logged = logged_by(world)
    whole = fly_logged_slates(world, *logged, np.arange(USERS), seed=9)
    monkeypatch.setattr(flown_clicks, "SLATES_AT_ONCE", 470)  # six parts, the last lanes of some left empty
    monkeypatch.setattr(flown_clicks, "CLOSE", 0.0)
    parts = fly_logged_slates(world, *logged, np.arange(USERS), seed=9)
    assert not isinstance(whole, str)
    assert not isinstance(parts, str)
    assert len(parts.observed) == logged[1].late.sum()
    for ours, theirs in ((parts.observed, whole.observed), (parts.expected, whole.expected)):
        by_cell = [np.bincount(found.user * 5 + found.place, clicks)  # type: ignore[operator]
                   for found, clicks in ((parts, ours), (whole, theirs))]  # fmt: skip
        assert np.allclose(*by_cell)  # a slate meets the same luck in any part
    monkeypatch.setattr(flown_clicks, "CLOSE", 0.2)
    monkeypatch.setattr(flown_clicks, "CLOSE_BY_PLACE", 0.3)
    few = fly_logged_slates(world, *logged, np.arange(USERS), seed=9)
    assert not isinstance(few, str)
    assert len(few.observed) < 0.5 * len(whole.observed)
    assert len(np.unique(few.user)) > 0.7 * USERS  # evenly from all


def test_what_the_most_slates_do_not_tell_blocks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    world = world_of(examination={"decay": 0.8})
    logged = logged_by(world)
    monkeypatch.setattr(flown_clicks, "MOST_SLATES", 60)
    for check in checks(world, logged).values():
        assert check.verdict == "not made"
        assert "60 slates are flown at most" in check.reason
    assert checks(world.with_appeal_shift(-3.0), logged)["flown clicks"].verdict == "fail"


def test_slates_of_which_a_fit_has_seen_a_row_are_not_flown() -> None:
    log, split = logged_by(world_of())
    late = split.late.copy()
    late[np.flatnonzero(log.impression == log.impression[late][0])[0]] = False
    found = fly_logged_slates(world_of(), log, replace(split, late=late), np.arange(USERS), seed=9)
    assert not isinstance(found, str)
    assert len(found.observed) == late.sum() - 4


def test_where_nothing_can_be_flown_the_reason_is_said() -> None:
    world = world_of(examination={"decay": 0.8})
    log, split = logged_by(world)

    def why(world: World, log: InteractionLog, split: Split = split) -> str:
        (check,) = flown_click_checks(fly_logged_slates(world, log, split, np.arange(USERS), seed=9))
        assert check.verdict == "not made"
        return check.reason

    assert "data.columns.impression" in why(world, replace(log, impression=None))
    unplaced = replace(log, position=None)
    assert "data.columns.position" in why(world, unplaced)
    assert "data.columns.position" in why(world_of(examination={"model": "cascade", "decay": 1.0}), unplaced)
    assert "needs 30 users" in why(world, log, replace(split, late=split.late & (log.user < 20)))
    everything = world_of(examination={"decay": 1.0})
    placed, unplaced_check = flown_click_checks(
        fly_logged_slates(everything, replace(logged_by(everything)[0], position=None), split, np.arange(USERS), seed=9)
    )
    assert placed.passed
    assert unplaced_check.verdict == "not made"


def test_a_declared_shift_and_friends_belong_to_what_the_model_says() -> None:
    log, split, preference = small_parts(1, users=USERS)
    log = replace(log, friends=np.array([[0, 1], [1, 2]]))
    world = small_world(1, users=USERS)
    rows = np.flatnonzero(split.late)
    states = preference.user_states(split.histories(log, np.arange(USERS)), log.catalogue.user_features)
    user, item = log.user[rows], log.item[rows]
    z = np.sum(states.vector[user] * preference.item_vectors[item], axis=1) + states.bias[user]
    p = 1 / (1 + np.exp(-(z + preference.item_bias[item]).astype(float)))
    assert world_against_model(world, log, rows, p).passed
    shifted = replace(world, item_bias=world.item_bias + np.float32(0.7))
    assert world_against_model(shifted, log, rows, p).verdict == "fail"
    assert world_against_model(replace(shifted, fitted_shift=0.7), log, rows, p).passed
    lost = replace(world, item_bias=world.item_bias * np.float32(np.nan))
    assert world_against_model(lost, log, rows, p).verdict == "fail"
    few = replace(world, starts=replace(world.starts, user=world.starts.user + USERS))
    assert world_against_model(few, log, rows, p).verdict == "not made"
