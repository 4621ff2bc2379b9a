"""Known truths 34 to 36 (EVALUATION, section 8): placebo treatments, a hidden confounder, the Qini of random scores."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from evaluators.causal import Scores, Trial, confounding_range, covariate_balance, doubly_robust, mean_effect, qini
from evaluators.causal.learners import gates, linear_drivers

Floats = NDArray[np.float64]
HILLSTROM = next(
    (p for d in os.environ["WINDTUNNEL_DATA"].split(":") if (p := Path(d) / "hillstrom" / "hillstrom.csv.gz").exists()),
    None,
)
needs_hillstrom = pytest.mark.skipif(HILLSTROM is None, reason="the Hillstrom log is not there")


def sigmoid(z: Floats) -> Floats:
    return 1 / (1 + np.exp(-z))


def hillstrom(rows: int, *, leak: bool = False) -> tuple[Floats, NDArray[np.int64], Floats]:
    """Covariates, men's mail against none, visits of the first rows; `leak` adds the spend, which came after."""
    frame = pd.read_csv(HILLSTROM)
    frame = frame[frame.segment != "Womens E-Mail"].head(rows)
    columns = ["recency", "history", "mens", "womens", "newbie", *(["spend"] if leak else [])]
    x = np.column_stack([frame[columns], frame.channel == "Web", frame.zip_code == "Urban"]).astype(float)
    return x, (frame.segment == "Mens E-Mail").to_numpy(np.int64), frame.visit.to_numpy(float)


def placebo_coverage(permutations: int, rows: int) -> float:
    x, treated, y = hillstrom(rows)
    covered = []
    for seed in range(permutations):
        shuffled = np.random.default_rng(seed).permutation(treated)
        trial = Trial(x, shuffled, y, np.full(len(y), 0.5))
        scores = doubly_robust(trial, np.random.SeedSequence(seed), learner="t")
        effect = mean_effect(scores.difference, trial.clusters, method="placebo")
        covered.append(effect.low <= 0 <= effect.high)
    return float(np.mean(covered))


@needs_hillstrom
def test_34_a_placebo_treatment_has_no_effect() -> None:
    """40 permutations of 3,000 rows; a right interval fails for 1 choice of seeds in 1,000."""
    assert placebo_coverage(40, 3000) >= 0.82


@pytest.mark.slow
@needs_hillstrom
def test_34_a_placebo_treatment_has_no_effect_at_full_size() -> None:
    """500 permutations, linear learners."""
    assert 0.92 <= placebo_coverage(500, 4900) <= 0.98


@needs_hillstrom
def test_34_the_lifts_of_the_hillstrom_experiment_are_covered() -> None:
    """Randomised: men's mail raises visits by .0766, the difference of the raw means."""
    x, treated, y = hillstrom(42_613)
    trial = Trial(x, treated, y, np.full(len(y), 0.5))
    scores = doubly_robust(trial, np.random.SeedSequence(1), learner="t")
    effect = mean_effect(scores.difference, trial.clusters, method="men")
    assert effect.low < 0.0766 < effect.high
    assert effect.high - effect.low < 0.0135


@needs_hillstrom
def test_34_an_outcome_that_leaks_into_the_covariates_is_found() -> None:
    """Sabotage: the spend of the fortnight after the mail among the covariates."""
    x, treated, y = hillstrom(42_613)
    p = np.full(len(y), 0.5)
    assert covariate_balance(Trial(x, treated, y, p)).passed
    leaked, _, _ = hillstrom(42_613, leak=True)
    assert not covariate_balance(Trial(leaked, treated, y, p)).passed


def confounded(rng: np.random.Generator, n: int) -> Trial:
    """No effect at all; a hidden u moves the odds of the treatment by 2 in all, and the outcome strongly."""
    x = rng.standard_normal((n, 2))
    u = rng.integers(0, 2, n)
    p = sigmoid(0.4 * x[:, 0] + np.log(2) * (u - 0.5))
    treated = (rng.random(n) < p).astype(np.int64)
    y = (rng.random(n) < 0.15 + 0.05 * np.tanh(x[:, 0]) + 0.5 * u).astype(float)
    return Trial(x, treated, y)


def test_35_a_hidden_confounder_is_missed_by_the_interval_and_held_by_the_range_for_its_odds() -> None:
    naive, held, one = [], [], []
    for seed in range(4):
        trial = confounded(np.random.default_rng(seed), 3000)
        scores = doubly_robust(trial, np.random.SeedSequence(seed), learner="t")
        effect = mean_effect(scores.difference, trial.clusters, method="naive")
        ranges = confounding_range(trial, scores.p)
        naive.append(effect.low <= 0 <= effect.high)
        held.append(ranges["2"][0] <= 0 <= ranges["2"][1])
        one.append(ranges["1"][0] <= 0 <= ranges["1"][1])
    assert np.mean(naive) == 0.0
    assert np.mean(held) == 1.0
    assert np.mean(one) == 0.0  # sabotage: Lambda = 1


def qini_alarms(replications: int, *, same_users: bool) -> float:
    """Share of Qini intervals that leave out 0 for effects that are noise, or fitted on the outcomes they rank."""
    alarmed = []
    n = 600
    for seed in range(replications):
        rng = np.random.default_rng(seed)
        treated = rng.integers(0, 2, n)
        y = (rng.random(n) < 0.5).astype(float)
        gain = 2 * (2 * treated - 1) * (y - 0.5)
        x = rng.standard_normal((n, 30))
        # The sabotage regresses the very gains that it then ranks.
        effect = x @ np.linalg.lstsq(x, gain, rcond=None)[0] if same_users else rng.standard_normal(n)
        zero = np.zeros(n)
        scores = Scores(gain, zero, effect, zero, zero + 0.5, 0.0)
        found = qini(scores, y, np.arange(n), rng, resamples=200)
        alarmed.append(not found.low <= 0 <= found.high)
    return float(np.mean(alarmed))


def test_36_a_random_ranking_has_no_qini_and_one_fitted_on_its_users_has() -> None:
    """R = 100 at a true .05."""
    assert qini_alarms(100, same_users=False) <= 0.12
    assert qini_alarms(20, same_users=True) > 0.9


@pytest.mark.slow
def test_36_a_random_ranking_has_no_qini_at_full_size() -> None:
    """R = 500."""
    assert qini_alarms(500, same_users=False) <= 0.08


def cover_of_groups(replications: int, n: int = 2000) -> float:
    """Coverage of the group effect by cross-fitted doubly robust scores under confounding (protocol: .95)."""
    covered = []
    for seed in range(replications):
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((n, 3))
        p = sigmoid(0.7 * x[:, 0])
        treated = (rng.random(n) < p).astype(np.int64)
        y = x[:, 0] + treated * (0.3 + 0.2 * (x[:, 1] > 0)) + rng.standard_normal(n)
        trial = Trial(x, treated, y, None)
        scores = doubly_robust(trial, np.random.SeedSequence(seed), learner="t")
        mine = x[:, 1] > 0
        effect = mean_effect(scores.difference[mine], np.arange(n)[mine], method="group")
        covered.append(effect.low <= 0.5 <= effect.high)
    return float(np.mean(covered))


@pytest.mark.slow
def test_group_effects_are_covered_with_estimated_propensities() -> None:
    assert cover_of_groups(80) >= 0.88


def cover_of_drivers(replications: int, n: int = 500) -> tuple[float, float]:
    """Share of replications in which all three slopes are covered, and coverage of the highest fifth's true effect."""
    slopes, fifths = [], []
    for seed in range(replications):
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((n, 3))
        treated = rng.integers(0, 2, n)
        effect = 0.3 + 0.6 * x[:, 1]
        y = x[:, 0] + treated * effect + rng.standard_normal(n)
        trial = Trial(x, treated, y, np.full(n, 0.5))
        scores = doubly_robust(trial, np.random.SeedSequence(seed), learner="t")
        spread = x.std(axis=0)
        found = linear_drivers(x, scores.difference, trial.clusters, ["a", "b", "c"])
        truth = {"a": 0.0, "b": 0.6 * spread[1], "c": 0.0}
        slopes.append(all(found[name].low <= value <= found[name].high for name, value in truth.items()))
        # The fifth is whom the learner ranks highest, so its true effect is that of these very rows.
        part = np.concatenate(
            [fold.out[np.argsort(scores.effect[fold.out])[-len(fold.out) // 5 :]] for fold in scores.folds]
        )
        low, high = gates(scores, trial.clusters)[-1][2].low, gates(scores, trial.clusters)[-1][2].high
        fifths.append(low <= effect[part].mean() <= high)
    return float(np.mean(slopes)), float(np.mean(fifths))


@pytest.mark.slow
def test_drivers_and_fifths_are_covered_together() -> None:
    """R = 200; both hold simultaneously, so each covers at least as often as it claims."""
    slopes, fifths = cover_of_drivers(200)
    assert slopes >= 0.9
    assert fifths >= 0.93


def test_the_intervals_cluster_by_user(rng: np.random.Generator) -> None:
    """Rows repeated as if they were new users would halve the interval."""
    x = rng.standard_normal((400, 2))
    treated = rng.integers(0, 2, 400)
    y = treated + rng.standard_normal(400)
    one = Trial(x, treated, y, np.full(400, 0.5), np.arange(400))
    rows = np.repeat(np.arange(400), 4)
    four = Trial(x[rows], treated[rows], y[rows], np.full(1600, 0.5), rows)
    width = []
    for trial in (one, four, replace(four, user=None)):
        scores = doubly_robust(trial, np.random.SeedSequence(1), learner="t")
        effect = mean_effect(scores.difference, trial.clusters, method="effect")
        width.append(effect.high - effect.low)
    assert width[1] == pytest.approx(width[0], rel=0.1)
    assert width[2] == pytest.approx(width[0] / 2, rel=0.1)
