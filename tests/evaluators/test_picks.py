"""The picks check and the value that it corrects."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from evaluators.estimate import Estimate
from evaluators.picks import (
    CHOSE_TO_RATE,
    PickedRows,
    ShiftedFlights,
    corrected,
    corrected_difference,
    held_out_observation,
    item_exposure,
    logit_shift,
    picks_difference,
    picks_from_rows,
    picks_of,
    said_of,
    times_picked,
)
from simulator.log import HELD_OUT, split_users
from tests.simulator.small_world import small_log


def picked(rng: np.random.Generator, *, n: int = 600, bias: float = 0.0) -> PickedRows:
    """Rows whose true probability is `bias` logits above what the world says."""
    p = rng.uniform(0.1, 0.6, n)
    truth = 1 / (1 + np.exp(-(np.log(p / (1 - p)) + bias)))
    y = (rng.random(n) < truth).astype(float)
    return PickedRows(p, y, np.repeat(np.arange(n // 4), 4), rng.uniform(0.5, 2, n))


def test_an_agent_sees_held_out_users_after_their_early_rows_only(
    rng: np.random.Generator, root: np.random.SeedSequence
) -> None:
    log = small_log(rng)
    split = split_users(log, root)
    users = split.users(HELD_OUT)
    seen = held_out_observation(log, split, users, feature_names=["gender=F"], history_length=5, slate_size=4)
    early = split.rows(log, users[:1], late=False)
    assert seen.history_items[0, -1] == log.item[early][-1]
    assert not seen.candidates[0, log.item[early]].any()
    assert seen.candidates[0].sum() == log.catalogue.n_items - len(early)
    assert seen.user_features[:, 0].tolist() == log.catalogue.user_features[users, 1].tolist()
    assert seen.slate_size == 10  # picks are the top 10, or the slate where that is longer
    again = held_out_observation(
        log, split, users, feature_names=["gender=F"], history_length=5, slate_size=4, shown_again=True
    )
    assert again.candidates.all()


def test_rows_are_picked_for_their_own_user_and_averaged_over_training_seeds(rng: np.random.Generator) -> None:
    log = small_log(rng)
    users = np.array([2, 5])
    rows = np.flatnonzero(np.isin(log.user, users))
    mine = log.item[rows[log.user[rows] == 5]]
    first = np.array([[0, 1], [mine[0], mine[1]]])
    second = np.array([[mine[0], mine[1]], [mine[0], -1]])
    share = times_picked([first, second], users, log, rows)
    of_five = share[log.user[rows] == 5]
    assert of_five[:2].tolist() == [1.0, 0.5]
    assert of_five[2:].sum() == 0
    own = log.item[rows[log.user[rows] == 2]]
    expected = np.isin(own, [0, 1]) * 0.5 + np.isin(own, mine[:2]) * 0.5
    assert share[log.user[rows] == 2].tolist() == expected.tolist()


def test_picked_rows_are_weighted_by_one_over_item_exposure(rng: np.random.Generator) -> None:
    log = replace(small_log(rng, users=300, items=60), self_selected=False)
    users = np.arange(300)
    rows = np.arange(len(log))
    slates = np.tile(np.arange(10), (300, 1))
    p = np.full(len(log), 0.5)
    found = picks_of([slates], users, log, rows, p)
    mine = log.item < 10
    weight = 1 / item_exposure(log)[log.item[mine]]
    expected = (weight * log.primary[mine]).sum() / (weight * 0.5).sum()
    assert found.estimate.value == pytest.approx(expected)
    assert found.events == log.primary[mine].sum()
    assert "chose to rate" not in found.estimate.method
    rated = picks_of([slates], users, replace(log, self_selected=True), rows, p)
    assert "given that the user chose to rate" in rated.estimate.method
    unlogged = replace(log, self_selected=True, exposure="unlogged policy")
    assert said_of(unlogged) == "given what an unlogged policy chose to show"
    assert said_of(replace(unlogged, self_selected=False, exposure="uniformly random")) == ""


def test_picks_under_25_events_are_withheld(rng: np.random.Generator) -> None:
    rows = picked(rng, n=40)
    found = picks_from_rows(rows)
    assert found.events < 25
    assert found.estimate.value is None
    assert found.shift is None
    assert found.check.passed is None
    assert "25" in found.estimate.withheld


def test_the_shift_makes_the_picks_right(rng: np.random.Generator) -> None:
    rows = picked(rng, n=4000, bias=0.7)
    found = picks_from_rows(rows)
    assert found.check.verdict == "fail"
    assert found.shift_low < found.shift < found.shift_high
    assert found.shift == pytest.approx(0.7, abs=0.15)
    shifted = 1 / (1 + np.exp(-(np.log(rows.p / (1 - rows.p)) + found.shift)))
    again = picks_from_rows(replace(rows, p=shifted))
    assert again.estimate.value == pytest.approx(1.0)
    assert again.shift == pytest.approx(0.0, abs=1e-9)


def test_no_shift_reaches_more_events_than_rows() -> None:
    p, weight = np.array([0.8, 0.9]), np.ones(2)
    assert logit_shift(p, weight, 1.2) is None
    assert logit_shift(p, weight, -0.1) is None
    assert logit_shift(p, weight, 1.0) == pytest.approx(0.0, abs=1e-9)


def test_two_agents_with_one_set_of_picks_are_flattered_alike(rng: np.random.Generator) -> None:
    first = picks_from_rows(picked(rng, bias=0.4))
    same = picks_difference(first, first)
    assert same.value == 0
    assert same.high == pytest.approx(0.0, abs=1e-12)
    other = picks_from_rows(picked(rng, n=3000, bias=-0.4))
    gap = picks_difference(first, other)
    expected = np.log(first.estimate.value) - np.log(other.estimate.value)
    assert gap.value == pytest.approx(expected)
    assert gap.low > 0
    withheld = picks_from_rows(picked(rng, n=40))
    assert picks_difference(first, withheld).value is None


def test_the_corrected_value_is_the_shifted_flight_with_both_half_widths_in_squares(rng: np.random.Generator) -> None:
    found = picks_from_rows(picked(rng, bias=0.4))
    simulated = Estimate(2.0, 1.7, 2.3, 0.95, 100, "simulated")
    value = corrected(simulated, found, 2.6, 2.2, 3.0)
    assert value.value == 2.6
    assert value.high - value.value == pytest.approx(np.hypot(0.4, 0.3))
    assert "no gate" not in value.method
    assert corrected(simulated, found, 2.6, 2.2, None).withheld is not None
    assert corrected(Estimate.withhold("simulated", "failed"), found, 2.6, 2.2, 3.0).withheld == "failed"
    rated = corrected(simulated, replace(found, given=CHOSE_TO_RATE), 2.6, 2.2, 3.0)
    assert "decides no gate" in rated.method
    gap = corrected_difference(
        Estimate(0.5, 0.4, 0.6, 0.95, 100, "d"),
        found,
        found,
        ShiftedFlights(2.6, 2.2, 3.0),
        ShiftedFlights(2.0, 1.7, 2.3),
    )
    assert gap.value == pytest.approx(0.6)
    assert gap.high - gap.value == pytest.approx(np.sqrt(0.4**2 + 0.3**2 + 0.1**2))
