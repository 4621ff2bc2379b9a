"""Heads, hazards of leaving and gaps between sessions, fitted on data of known truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from simulator.behaviour import SimulatorSettings
from simulator.behaviour.fitting import fit_behaviour
from simulator.behaviour.heads import LEVELS, Head, fit_head
from simulator.behaviour.leaving import LoggedSteps, fit_gaps, fit_leaving, logged_gaps, running_satisfaction
from simulator.errors import LogError
from simulator.log import JUDGE, InteractionLog, Split
from tests.simulator.small_world import small_log

TRUE_HEADS = [
    Head("like", "l", -0.5, 0.8, 0, 0),
    Head("dwell", "d", 3.0, 0.4, 0, 0, levels=tuple(np.sort(np.random.default_rng(0).standard_normal(LEVELS)))),
    Head("rating", "r", 0.0, 0.7, 0, 0, levels=(-1.0, 0.5, 2.0), values=(1.0, 2.0, 3.0, 4.0)),
    Head("rating", "r", 0.0, 0.7, 0, 0, levels=(-1.0,), values=(4.0, 5.0)),
]


@pytest.mark.parametrize("true", TRUE_HEADS, ids=lambda head: f"{head.kind}{len(head.values)}")
def test_a_head_comes_back_and_is_calibrated(true: Head) -> None:
    """In each half of the logits the mean of the behaviour is what the head expects, within 4 standard errors."""
    rng = np.random.default_rng(5)
    z, u, user = rng.standard_normal(4_000), rng.random(4_000), rng.integers(0, 300, 4_000)
    y = true.draw(z, u)
    found = fit_head(true.kind, "column", y, z, user)
    assert abs(found.slope - true.slope) < 3 * found.slope_se
    assert found.values == true.values
    for half in (z < 0, z >= 0):
        error = y[half].std() / np.sqrt(half.sum())
        assert abs(found.mean(z[half]).mean() - y[half].mean()) < 4 * error
    again = found.draw(z, rng.random(4_000))
    assert abs(again.mean() - y.mean()) < 4 * y.std() * np.sqrt(2 / 4_000)
    assert np.quantile(again, [0.1, 0.5, 0.9]) == pytest.approx(np.quantile(y, [0.1, 0.5, 0.9]), rel=0.15)


@pytest.mark.parametrize(
    ("kind", "value", "why"),
    [
        ("like", np.full(100, 1.0), "both must occur"),
        ("like", np.arange(100.0), "a like is 0 or 1"),
        ("dwell", np.append(np.ones(99), -2.0), "-2 seconds"),
        ("rating", np.arange(100.0), "100 different ratings"),
        ("dwell", np.append(np.ones(20), np.full(80, np.nan)), "20 clicked rows have a value"),
    ],
)
def test_columns_that_are_no_such_behaviour_are_refused(kind: str, value: np.ndarray, why: str) -> None:
    with pytest.raises(LogError, match=f"simulator.behaviours.column: .*{why}"):
        fit_head(kind, "column", value, np.linspace(-1, 1, 100), np.arange(100) % 9)  # type: ignore[arg-type]


def logged_leaving(effect: float, seed: int, sessions: int = 900) -> LoggedSteps:
    rng = np.random.default_rng(seed)
    satisfaction, here = np.full(sessions, 0.5), np.arange(sessions)
    parts: list[tuple[np.ndarray, ...]] = []
    for step in range(30):
        pleased = np.minimum(1, rng.poisson(1.5, len(here)) / 3)
        satisfaction[here] = 0.7 * satisfaction[here] + 0.3 * pleased
        repetition = 0.5 * rng.random(len(here))
        logit = -2.2 - effect * (satisfaction[here] - 0.5) + repetition + 0.03 * step
        left = rng.random(len(here)) < 1 / (1 + np.exp(-logit))
        parts.append((here // 3, here, np.full(len(here), step), satisfaction[here], repetition, left))
        here = here[~left]
    return LoggedSteps(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def test_a_hazard_of_known_truth_comes_back_and_a_true_effect_of_slates_is_identified() -> None:
    fit = fit_leaving(logged_leaving(2.5, 1), np.random.default_rng(0))
    true = {"base_rate": 1 / (1 + np.exp(2.2)), "satisfaction": 2.5, "repetition": 1.0, "step": 0.03}
    for name, value in true.items():
        assert abs(fit.value[name] - value) < 2.5 * fit.se[name], name
    assert fit.identified
    assert ("leave", "satisfaction", "fitted") in [(a.part, a.parameter, a.source) for a in fit.assumptions()]


def test_an_effect_that_is_not_there_stays_assumed() -> None:
    """Ten logs without an effect: more than two identified ones would be chance at 1 in 90 (level 5 %, one-sided)."""
    found = [fit_leaving(logged_leaving(0.0, seed, 300), np.random.default_rng(0)) for seed in range(10)]
    assert sum(fit.identified for fit in found) <= 2
    assert "placebos" in found[0].why
    quiet = next(fit for fit in found if not fit.identified)
    assert "satisfaction" not in [a.parameter for a in quiet.assumptions()]


@pytest.mark.parametrize("rate", [0.03, 0.3, 0.98])
def test_the_base_rate_alone_is_never_certain_and_covers_although_users_differ(rate: float) -> None:
    """A site that users open once: maximum likelihood says 1 - 2e-11, with a standard error of 2e-12.

    All three slates of half of the users are ends, or none are.
    """
    rng = np.random.default_rng(3)
    n, covered = 90, 0
    user, zeros = np.arange(n) // 3, np.zeros(n)
    for _ in range(200):
        alike = rng.random(n // 3)[user] < 0.5
        left = np.where(alike, rng.random(n // 3)[user] < rate, rng.random(n) < rate)
        fit = fit_leaving(LoggedSteps(user, np.arange(n), zeros.astype(int), zeros + 0.5, zeros, left), rng)
        (only,) = fit.assumptions()
        covered += only.sweep[0] < rate < only.sweep[1]
        assert 0 < fit.value["base_rate"] < 1
        assert only.parameter == "base_rate"
        assert only.sweep[0] < only.value < only.sweep[1]
    assert covered >= 184
    assert "of 90 slates end a session" in fit.why
    sure = fit_leaving(LoggedSteps(user, np.arange(n), zeros.astype(int), zeros + 0.5, zeros, zeros == 0), rng)
    assert 0.98 < sure.value["base_rate"] < 1
    with pytest.raises(ValueError, match="1 slates that tell"):
        fit_leaving(LoggedSteps(*(np.zeros(1, int),) * 3, zeros[:1], zeros[:1], left[:1]), rng)


@pytest.mark.parametrize("few", [True, False])
def test_beside_assumed_effects_the_base_rate_ends_as_many_sessions_as_the_log(few: bool) -> None:
    """Users who click little have little satisfaction: the share of ends as the base rate makes too many leave."""
    rng = np.random.default_rng(5)
    n = 200 if few else 2_000
    satisfaction, repetition = 0.6 * rng.random(n), rng.random(n)
    left = rng.random(n) < 0.1
    steps = LoggedSteps(np.arange(n) // 4, np.arange(n), np.zeros(n, int), satisfaction, repetition, left)
    fit = fit_leaving(steps, rng, (2.5, 1.0))
    assert not fit.identified
    base = fit.value["base_rate"]
    chance = 1 / (1 + (1 - base) / base * np.exp(2.5 * (satisfaction - 0.5) - repetition))
    assert chance.mean() == pytest.approx((left.sum() + 0.5 * few) / (n + few), rel=1e-6)
    assert base < 0.07


def test_gaps_come_back_although_the_log_ends_before_many_of_them() -> None:
    """Without censoring the median of the gaps that were seen is far too short."""
    rng = np.random.default_rng(4)
    user, gap = np.repeat(np.arange(400), 4), np.exp(np.log(3) + 1.5 * rng.standard_normal(1_600))
    end = rng.uniform(0, 10, 1_600)
    fit = fit_gaps(np.minimum(gap, end), gap < end, user)
    assert abs(fit.median_gap - 3) < 3 * fit.median_gap_se
    assert abs(fit.spread - 1.5) < 3 * fit.spread_se
    assert np.median(gap[gap < end]) < 3 - 4 * fit.median_gap_se
    with pytest.raises(ValueError, match="needed"):
        fit_gaps(gap[:9], np.ones(9, bool), user[:9])


def test_sessions_end_where_nothing_happens_for_half_an_hour() -> None:
    day = 86_400.0
    log = small_log(np.random.default_rng(0), users=2)
    user, time = np.array([0, 0, 0, 1, 1]), np.array([0.0, 60, day, 0, 3 * day])
    log = InteractionLog(user, np.arange(5), time, np.array([1, 0, 0, 0, 0], np.float32), log.catalogue, "gaps")
    gaps = logged_gaps(log, np.arange(5))
    assert gaps.user.tolist() == [0, 0, 1, 1]
    assert gaps.followed.tolist() == [True, False, True, False]
    assert gaps.days == pytest.approx([1 - 60 / day, 2, 3, 0])
    assert gaps.left == pytest.approx([3 - 60 / day, 2, 3, 0])


def test_gaps_are_fitted_between_the_sessions_that_the_log_names() -> None:
    """Visits of two rows an hour apart, a day between them: by half an hour's pause each row would be a session."""
    rng = np.random.default_rng(1)
    users, visits = 100, 20
    begin = np.cumsum(86_400 * np.exp(0.3 * rng.standard_normal((users, visits))), axis=1)
    time, number = np.stack([begin, begin + 3600], axis=2).ravel(), np.repeat(np.arange(users * visits), 2)
    user = number // visits
    there = time < 8 * 86_400
    item, primary = rng.integers(130, size=len(time)), (rng.random(len(time)) < 0.5).astype(np.float32)
    catalogue = small_log(rng, users=users).catalogue
    log = InteractionLog(
        user[there], item[there], time[there], primary[there], catalogue, "visits", session=number[there]
    )
    split = Split(np.full(users, JUDGE, np.int8), np.ones(users, bool), np.zeros(len(log), bool))
    settings = SimulatorSettings.model_validate({"returning": {}})
    found = [
        {a.parameter: a.value for a in fit_behaviour(
            one, split, np.arange(users), settings, np.zeros, usual_rate=0.5, rng=rng).assumptions}
        for one in (log, replace(log, session=None))
    ]  # fmt: skip
    assert found[0]["median_gap"] == pytest.approx(23 / 24, rel=0.05)
    assert found[1]["median_gap"] < 0.5


def test_satisfaction_is_the_kernels() -> None:
    """From 1/2 at each session's start; 1 is twice the usual number of clicks or more."""
    found = running_satisfaction(np.array([0, 0, 1]), np.array([4.0, 0.0, 1.0]), usual=1.0, memory=0.6)
    assert found == pytest.approx([0.6 * 0.5 + 0.4, 0.6 * 0.7, 0.6 * 0.5 + 0.4 * 0.5])
