"""Direct, indirect and spurious parts of a gap between two groups."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluators.estimate import Estimate
from evaluators.intervals import (
    Ratios,
    cluster_index,
    percentile_interval,
    user_sums,
)
from evaluators.off_policy.reward_model import user_folds

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Decomposition:
    """E[Y | second value] - E[Y | first value] in its parts: total = direct - indirect - spurious.

    Attributes:
        total: total variation: the difference of the two groups' means.
        direct: what the attribute itself does to the first group, all else as it is for them. None where unnamed.
        indirect: by way of the mediators. None where unnamed.
        spurious: by way of the confounders. None where unnamed.
    """

    total: Estimate
    direct: Estimate | None = None
    indirect: Estimate | None = None
    spurious: Estimate | None = None


def decompose(
    y: Floats,
    second: NDArray[np.bool_],
    user: Ints,
    rng: np.random.Generator,
    *,
    confounders: Floats | None = None,
    mediators: Floats | None = None,
    folds: int = 3,
    resamples: int = 1000,
    level: float = 0.95,
) -> Decomposition:
    """Parts of a gap between two groups under the standard fairness model (Plecko, Bareinboim 2024).

    Cross-fitted doubly robust means with linear and logistic nuisance models, user bootstrap of their sums. It is true
    under its graph only: attribute -> mediators -> outcome, confounders of the attribute and both. Which columns are
    confounders and which mediators has to be named; without it only the total is given.

    Args:
        y: [n] outcome.
        second: [n] True for rows of the second value x1, False for the first x0.
        user: [n] the cluster.
        rng: deals folds and draws the bootstrap.
        confounders: [n, dz] columns that precede the attribute's effect; None where unnamed.
        mediators: [n, dw] columns by way of which it acts; None where unnamed.
        folds: of users.
        resamples: of the bootstrap.
        level: of the intervals.
    """
    index, n_users = cluster_index(user, len(y))
    one, zero = second.astype(np.float64), (~second).astype(np.float64)
    means = {"x1": (one * y, one), "x0": (zero * y, zero)}
    if confounders is not None and mediators is not None:
        fold = user_folds(index, n_users, len(y), folds, rng)
        both = np.column_stack([confounders, mediators])
        means["direct"] = (_first_group_under_second(y, second, both, fold), zero)
        means["spurious"] = (_first_group_under_second(y, second, confounders, fold), zero)
    sums = {key: (user_sums(a, index, n_users), user_sums(b, index, n_users)) for key, (a, b) in means.items()}

    def part(name: str, plus: str, minus: str) -> Estimate:
        ratios = Ratios(np.stack([sums[plus][0], -sums[minus][0]]), np.stack([sums[plus][1], sums[minus][1]]))
        low, high = percentile_interval(ratios.resample(rng, resamples), level)
        value = ratios.value
        method = f"{name}, cross-fitted doubly robust, user bootstrap of {resamples}"
        return Estimate(value, min(low, value), max(high, value), level, n_users, method)

    total = part("total variation", "x1", "x0")
    if "direct" not in sums:
        return Decomposition(total)
    return Decomposition(
        total,
        part("direct effect", "direct", "x0"),
        part("indirect effect (second to first)", "direct", "spurious"),
        part("spurious effect (second to first)", "spurious", "x1"),
    )


def _first_group_under_second(y: Floats, second: NDArray[np.bool_], x: Floats, fold: Ints) -> Floats:
    """[n] doubly robust terms whose sum over the first group's size is E over its x of E(y | second, x)."""
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    out = np.empty(len(y))
    for k in np.unique(fold):
        fit, rows = fold != k, fold == k
        outcome = make_pipeline(StandardScaler(), Ridge(alpha=1.0)).fit(x[fit & second], y[fit & second])
        chance = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(x[fit], second[fit])
        mean = outcome.predict(x[rows])
        p = np.clip(chance.predict_proba(x[rows])[:, 1], 0.01, 0.99)
        out[rows] = np.where(second[rows], (1 - p) / p * (y[rows] - mean), mean)
    return out
