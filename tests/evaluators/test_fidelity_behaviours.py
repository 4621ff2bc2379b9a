"""Behaviours after a click: a right head passes, one of a wrong level, spread or slope does not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from evaluators.fidelity import DRAWS, FUTURE_ROWS, Check, GradedRows, behaviour_rows, graded_checks, graded_predictions
from evaluators.fidelity.behaviours import _crps
from evaluators.fidelity.trust import MANDATORY, CheckedWorld, conclude
from simulator.behaviour.heads import fit_head
from tests.simulator.small_world import small_log

Floats = NDArray[np.float64]


def dwell(rng: np.random.Generator, *, level: float = 0.0, spread: float = 0.7, slope: float = 0.8) -> GradedRows:
    """600 users of 6 clicks, log-normal seconds; the arguments make the prediction wrong."""
    user = np.repeat(np.arange(600), 6)
    z = rng.standard_normal(len(user))
    y = np.exp(3 + 0.8 * z + 0.7 * rng.standard_normal(len(user)))
    shift = 0.5 * (0.7**2 - spread**2) + 0.5 * (0.8**2 - slope**2)  # keeps the mean where only the shape is wrong
    predicted = np.exp(3 + level + shift + slope * z + spread * rng.standard_normal((64, len(user))))
    return GradedRows(predicted, y, user)


@pytest.mark.parametrize(
    ("wrong", "failing"),
    [
        ({}, set()),
        ({"level": 0.4}, {"dwell: calibration in the large"}),
        ({"spread": 0.25}, {"dwell: spread"}),
        ({"slope": -0.8}, {"dwell: skill over own distribution"}),
    ],
)
def test_each_fault_of_a_graded_behaviour_fails_its_own_check(
    wrong: dict[str, float], failing: set[str], rng: np.random.Generator
) -> None:
    checks = {check.name: check.verdict for check in graded_predictions("dwell", dwell(rng, **wrong), rng)}
    assert {name for name, verdict in checks.items() if verdict == "fail"} >= failing
    if not wrong:
        assert set(checks.values()) == {"pass"}


def test_crps_from_draws_is_that_of_the_normal_distribution(rng: np.random.Generator) -> None:
    """Closed form: E|X - y| - 1 / sqrt(pi), with y = 0 sqrt(2 / pi) - 1 / sqrt(pi)."""
    found = _crps(rng.standard_normal((64, 20000)), np.zeros(20000)).mean()
    assert found == pytest.approx(np.sqrt(2 / np.pi) - 1 / np.sqrt(np.pi), abs=0.003)


def test_heads_are_held_against_the_clicked_rows_that_say_what_followed(rng: np.random.Generator) -> None:
    log = small_log(rng, users=300)
    n = len(log)
    z = rng.standard_normal(n)
    bought = np.where(rng.random(n) < 0.1, np.nan, (rng.random(n) < 1 / (1 + np.exp(1 - z))).astype(float))
    stars = np.clip(np.rint(3 + z + 0.5 * rng.standard_normal(n)), 1, 5)
    log = replace(log, behaviours={"bought": bought, "stars": stars})
    clicked = log.primary > 0
    heads = [
        fit_head("purchase", "bought", bought[clicked], z[clicked], log.user[clicked]),
        fit_head("rating", "stars", stars[clicked], z[clicked], log.user[clicked]),
    ]
    yes_no, graded = behaviour_rows(heads, log, np.arange(n), 1 / (1 + np.exp(-z)), rng)
    assert len(yes_no["bought"]) == (clicked & np.isfinite(bought)).sum()
    assert graded["stars"].draws.shape == (64, clicked.sum())
    assert yes_no["bought"].p.mean() == pytest.approx(np.nanmean(bought[clicked]), abs=0.02)
    rated = graded_predictions("stars", graded["stars"], rng)
    assert [check.verdict for check in rated] == ["pass", "pass", "pass"]


def watched(rng: np.random.Generator, *, rate: float = 1.0) -> tuple[Check, ...]:
    """Checks of exponential watch ratios whose means a model knows, or takes for `rate` of what they are."""
    user = np.repeat(np.arange(400), 20)
    mean = np.exp(rng.normal(0, 0.5, len(user)))
    thresholds = np.array([0.5, 1.5])
    told = rate * mean
    rows = GradedRows(rng.exponential(told, (DRAWS, len(user))), rng.exponential(mean), user)
    survival = np.exp(-thresholds / told[:, None])
    return graded_checks("ratio", thresholds, survival, rows, FUTURE_ROWS, lambda _: np.random.default_rng(1))


def test_a_behaviour_of_degree_is_checked_at_each_threshold_and_as_a_whole(rng: np.random.Generator) -> None:
    right = {check.name: check for check in watched(rng)}
    at_each = ("calibration in the large", "slope", "calibration error", "skill over base rate", "discrimination")
    whole = ("calibration in the large", "spread", "skill over own distribution")
    wanted = [f"ratio >= {t}: {name}" for t in ("0.5", "1.5") for name in at_each] + [
        f"ratio: {name}" for name in whole
    ]
    assert list(right) == wanted
    assert all(check.passed for check in right.values())
    wrong = {check.name: check.verdict for check in watched(rng, rate=1.5)}
    assert wrong["ratio >= 1.5: calibration in the large"] == "fail"
    assert wrong["ratio: calibration in the large"] == "fail"


def test_what_the_world_does_not_simulate_is_a_reason_and_does_not_block(rng: np.random.Generator) -> None:
    sound = CheckedWorld(1, tuple(
        Check(name, watched(rng)[0].estimate, "", "pass", world=1, rows=FUTURE_ROWS)
        for name in MANDATORY
    ))  # fmt: skip
    found = conclude([sound], watched(rng, rate=1.5))
    assert found.trusted
    assert any(r.startswith("ratio >= 1.5: calibration in the large, not counted: ") for r in found.reasons)
    assert not conclude([sound], [replace(check, counts=True) for check in watched(rng, rate=1.5)]).trusted
