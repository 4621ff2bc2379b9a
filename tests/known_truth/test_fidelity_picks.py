"""Known truth 29 (EVALUATION, section 8): an agent that is the argmax of its training world.

Process: 300 items of unequal exposure, a logistic model of 5 user features an item, 600 users fit world A, 600 others
world B, 400 users are held out of both, 40 rows each; worlds are penalised logistic regressions an item. The agent
shows the 10 items that world A likes best. Truth: the mean true probability of its choices for the held-out users.
World A claims more than is true, world B (shrunk, and chosen against) less, and only the picks show it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from evaluators.comparison import AgentValues, optimism
from evaluators.estimate import Estimate
from evaluators.fidelity import observed_over_expected, ratio_by_user
from evaluators.picks import PickedRows, corrected, picks_from_rows

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ITEMS, FEATURES, TOP = 300, 5, 10


def sigmoid(z: Floats) -> Floats:
    return 1 / (1 + np.exp(-z))


def fit_world(x: Floats, user: Ints, item: Ints, y: Floats) -> Floats:
    """[I, 1 + d] penalised logistic regression of each item on the users' features, Newton from the mean."""
    design = np.column_stack([np.ones(len(x)), x])[user]
    rate = y.mean()
    prior = np.zeros(FEATURES + 1)
    prior[0] = np.log(rate / (1 - rate))
    penalty = np.diag([2.0] + [4.0] * FEATURES)
    theta = np.tile(prior, (ITEMS, 1))
    order = np.argsort(item, kind="stable")
    design, y, item = design[order], y[order], item[order]
    starts = np.searchsorted(item, np.arange(ITEMS))
    outer = design[:, :, None] * design[:, None, :]
    there = np.bincount(item, minlength=ITEMS) > 0
    for _ in range(8):
        p = sigmoid((design * theta[item]).sum(1))
        zero = np.zeros((1, FEATURES + 1))
        gradient = np.add.reduceat(np.vstack([design * (y - p)[:, None], zero]), starts)
        hessian = np.add.reduceat(np.concatenate([outer * (p * (1 - p))[:, None, None], outer[:1] * 0]), starts)
        gradient, hessian = gradient * there[:, None], hessian * there[:, None, None]
        gradient -= (theta - prior) @ penalty
        theta = theta + np.linalg.solve(hessian + penalty, gradient[:, :, None])[:, :, 0]
    return theta


@dataclass(frozen=True)
class Flown:
    """What one replication found, by the name of what it would be replaced with."""

    truth: float
    claimed: Floats
    judged: Floats
    rows: PickedRows
    all_rows: Estimate
    logit_picks: Floats


def replicate(seed: int, *, users: int = 600, held_out: int = 400, rows: int = 40) -> Flown:
    rng = np.random.default_rng(seed)
    theta = np.column_stack([rng.normal(-1.6, 0.6, ITEMS), rng.normal(0, 0.5, (ITEMS, FEATURES))])
    exposure = 1 / (3.0 + rng.permutation(ITEMS)) ** 0.8
    n = 2 * users + held_out
    x = rng.standard_normal((n, FEATURES))
    key = np.log(rng.random((n, ITEMS))) / exposure  # exponential races: draws without repeats by exposure
    item = np.argpartition(-key, rows, axis=1)[:, :rows]
    truth = sigmoid(np.column_stack([np.ones(n), x]) @ theta.T)  # [n, I]
    y = (rng.random(item.shape) < np.take_along_axis(truth, item, 1)).astype(float)

    def world(who: Ints) -> Floats:
        return fit_world(x[who], np.repeat(np.arange(len(who)), rows), item[who].ravel(), y[who].ravel())

    a, b = world(np.arange(users)), world(np.arange(users, 2 * users))
    held = np.arange(2 * users, n)
    design = np.column_stack([np.ones(held_out), x[held]])
    logit_a, logit_b = design @ a.T, design @ b.T
    picks = np.argpartition(-logit_a, TOP, axis=1)[:, :TOP]
    of_row = item[held]
    picked = (of_row[:, :, None] == picks[:, None, :]).any(2)
    p_row = sigmoid(np.take_along_axis(logit_b, of_row, 1))
    count = np.bincount(item.ravel(), minlength=ITEMS)
    user = np.broadcast_to(np.arange(held_out)[:, None], of_row.shape)
    found = PickedRows(p_row[picked], y[held][picked], user[picked], 1 / count[of_row[picked]])
    return Flown(
        float(np.take_along_axis(truth[held], picks, 1).mean()),
        sigmoid(np.take_along_axis(logit_a, picks, 1)).mean(1),
        sigmoid(np.take_along_axis(logit_b, picks, 1)).mean(1),
        found,
        observed_over_expected(p_row.ravel(), y[held].ravel(), user.ravel()),
        np.take_along_axis(logit_b, picks, 1),
    )


def corrected_value(flown: Flown, rows: PickedRows) -> Estimate:
    """One flight with the appeal shifted, as the product makes it, from the given picked rows."""
    check = picks_from_rows(rows)
    simulated = ratio_by_user(flown.judged, np.ones(len(flown.judged)), np.arange(len(flown.judged)), method="judged")
    at = [
        None if s is None else float(sigmoid(flown.logit_picks + s).mean())
        for s in (check.shift, check.shift_low, check.shift_high)
    ]
    assert at[0] is not None
    return corrected(simulated, check, at[0], at[1], at[2])


def one_world(values: Floats) -> AgentValues:
    return AgentValues(values[None, None, :])


def summary(seeds: range) -> dict[str, float]:
    found: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        found.setdefault(name, []).append(float(value))

    for seed in seeds:
        flown = replicate(seed)
        note("claims too much", flown.claimed.mean() / flown.truth)
        note("undersells", flown.judged.mean() / flown.truth)
        note("optimism > 0", optimism(one_world(flown.claimed), one_world(flown.judged)).low > 0)
        note("optimism of A against itself", optimism(one_world(flown.claimed), one_world(flown.claimed)).low > 0)
        check = picks_from_rows(flown.rows)
        note("O/E on picks", check.estimate.value)
        note("detected", check.estimate.low > 1)
        note("O/E on all rows", flown.all_rows.value)
        for name, rows in (
            ("covers", flown.rows),
            ("covers unweighted", PickedRows(flown.rows.p, flown.rows.y, flown.rows.user, np.ones(len(flown.rows.p)))),
        ):
            value = corrected_value(flown, rows)
            note(name, value.low <= flown.truth <= value.high)
            note(f"{name}: half-width", (value.high - value.low) / 2 / flown.truth)
            note(f"{name}: bias", value.value / flown.truth - 1)
        half = 1.96 * flown.judged.std() / np.sqrt(len(flown.judged))
        note("covers uncorrected", abs(flown.judged.mean() - flown.truth) <= half)
    return {name: float(np.mean(values)) for name, values in found.items()}


def test_29_the_training_world_flatters_the_judge_undersells_and_only_the_picks_show_it() -> None:
    """R = 20; a right interval fails the last line for under 1 in 1,000 choices of seeds."""
    found = summary(range(20))
    assert found["claims too much"] > 1.02
    assert found["undersells"] < 0.9
    assert found["optimism > 0"] == 1.0
    assert found["optimism of A against itself"] == 0.0  # sabotage: the judge is the training world
    assert found["O/E on all rows"] > 0.95  # sabotage: all rows in place of the picks find nothing
    assert found["O/E on picks"] > 1.1
    assert found["detected"] >= 0.65
    assert found["covers uncorrected"] == 0.0
    assert found["covers"] >= 0.75


@pytest.mark.slow
def test_29_the_corrected_interval_covers_and_exposure_weights_are_needed() -> None:
    """R = 90 as in the protocol; measured: covers .93, half-width .08 of the value; unweighted .68, bias -.045."""
    found = summary(range(90))
    assert found["covers"] >= 0.85
    assert abs(found["covers: bias"]) < 0.015
    assert found["covers unweighted"] < 0.85
    assert found["covers unweighted: bias"] < -0.025
