"""Attempts to refute an effect: always run, always printed; one that succeeds withholds the number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluators.causal.scores import Scores, Trial, doubly_robust, influence, mean_effect
from evaluators.intervals import (
    standard_error,
    user_sums,
)
from simulator.streams import stream

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


PLACEBOS = 200
LARGEST_IMBALANCE = 4.5


@dataclass(frozen=True, slots=True)
class Refutation:
    """One attempt to refute an effect, and how it went."""

    name: str
    passed: bool
    detail: str

    def to_json(self) -> dict[str, Any]:
        """JSON-ready dictionary."""
        return {"name": self.name, "passed": self.passed, "detail": self.detail}


def refute(
    trial: Trial,
    scores: Scores,
    root: np.random.SeedSequence,
    *,
    balance: Refutation | None = None,
    negative_control: Floats | None = None,
) -> tuple[Refutation, ...]:
    """Try to refute an effect in every way there is. Where it lies among its placebos is printed, never a filter.

    Args:
        trial: the rows.
        scores: their doubly robust scores.
        root: root of the streams.
        balance: what `covariate_balance` found, where propensities are known.
        negative_control: [n] an outcome from before the treatment, which it cannot have moved; None where unnamed.
    """
    clusters = trial.clusters
    effect = mean_effect(scores.difference, clusters, method="effect")
    if effect.value is None or effect.high is None:
        return ()
    n_users = int(clusters.max()) + 1
    se = standard_error(influence(scores.difference, clusters))
    out = [_placebo(trial, scores, effect.value, se, stream(root, "causal", "placebo"))]

    rng = stream(root, "causal", "common cause")
    noise = rng.standard_normal(n_users)[clusters]
    moved = _value(replace(trial, x=np.column_stack([trial.x, noise])), root)
    change = abs(moved - effect.value)
    out.append(
        Refutation("random common cause", change < se, f"moves the effect by {change / se:.2f} se, needs under 1")
    )

    part = stream(root, "causal", "subset").permutation(n_users) < round(0.8 * n_users)
    change = abs(_value(trial.take(part[clusters]), root) - effect.value)
    out.append(Refutation("80 % subset", change < 2 * se, f"moves the effect by {change / se:.2f} se, needs under 2"))

    shuffled = replace(trial, y=stream(root, "causal", "dummy").permutation(trial.y))
    dummy = _with_error(shuffled, root)
    out.append(
        Refutation("dummy outcome", abs(dummy) < 3.3, f"permuted outcomes give z = {dummy:.2f}, needs |z| < 3.3")
    )

    if balance is not None:
        out.append(balance)
    if negative_control is not None:
        z = _with_error(replace(trial, y=negative_control), root)
        out.append(
            Refutation("negative control", abs(z) < 3.3, f"an earlier outcome gives z = {z:.2f}, needs |z| < 3.3")
        )
    return tuple(out)


def _value(trial: Trial, root: np.random.SeedSequence) -> float:
    return float(doubly_robust(trial, root, learner="t").difference.mean())


def _with_error(trial: Trial, root: np.random.SeedSequence) -> float:
    difference = doubly_robust(trial, root, learner="t").difference
    return float(difference.mean()) / max(standard_error(influence(difference, trial.clusters)), 1e-300)


def _placebo(trial: Trial, scores: Scores, effect: float, se: float, rng: np.random.Generator) -> Refutation:
    """Treatment permuted within tenths of the propensity, 200 times, with the outcome's expectation held."""
    clusters = trial.clusters
    n_users = int(clusters.max()) + 1
    count = user_sums(np.ones(len(trial)), clusters, n_users)
    of_user = user_sums(trial.treated.astype(np.float64), clusters, n_users) / count
    by_user = bool(np.isin(of_user, (0.0, 1.0)).all())
    # A treatment that is the user's (one arm each) is permuted between users, or the rows of one would part.
    treated = of_user if by_user else trial.treated.astype(np.float64)
    p = user_sums(scores.p, clusters, n_users) / count if by_user else scores.p
    tenth = np.searchsorted(np.quantile(p, np.arange(1, 10) / 10), p, side="left")
    groups = [np.flatnonzero(tenth == k) for k in np.unique(tenth)]
    residual = trial.y - scores.expected
    up, down = residual / scores.p, residual / (1 - scores.p)
    if by_user:
        up, down = user_sums(up, clusters, n_users), user_sums(down, clusters, n_users)
    means = np.empty(PLACEBOS)
    for b in range(PLACEBOS):
        t = np.empty(len(treated))
        for group in groups:
            t[group] = rng.permutation(treated[group])
        means[b] = (t @ up - (1 - t) @ down) / len(trial)
    low, high = (0.8, 1.25) if len(trial) >= 5_000 else (0.6, 1.6)
    ratio = float(means.std(ddof=1)) / se
    beyond = (1 + int((np.abs(means) >= abs(effect)).sum())) / (1 + PLACEBOS)
    passed = abs(float(means.mean())) < se and low <= ratio <= high
    detail = (
        f"mean {means.mean() / se:.2f} se, needs within 1; sd {ratio:.2f} se, needs [{low}, {high}]; "
        f"p value among {PLACEBOS} placebos {beyond:.3f} (printed, no filter)"
    )
    return Refutation("placebo treatment", passed, detail)


def covariate_balance(trial: Trial, columns: Sequence[str] = ()) -> Refutation | None:
    """With known propensities no covariate may know the treatment: else it was measured after it, or p is wrong."""
    if trial.p is None:
        return None
    clusters = trial.clusters
    n_users = int(clusters.max()) + 1
    surprise = trial.treated - trial.p
    worst, name = 0.0, "the treatment's share"
    table = np.column_stack([np.ones(len(trial)), trial.x - trial.x.mean(axis=0)])
    for j in range(table.shape[1]):
        sums = user_sums(table[:, j] * surprise, clusters, n_users)
        error = math.sqrt(float(sums @ sums))
        z = float(sums.sum()) / error if error > 0 else 0.0
        if abs(z) > abs(worst):
            worst = z
            name = name if j == 0 else (columns[j - 1] if j <= len(columns) else f"covariate {j}")
    passed = abs(worst) <= LARGEST_IMBALANCE
    mend = "" if passed else "; it was measured after the treatment (--ignore it), or the propensity is wrong"
    return Refutation(
        "covariate balance", passed, f"largest |z| {abs(worst):.1f} ({name}), needs {LARGEST_IMBALANCE}{mend}"
    )
