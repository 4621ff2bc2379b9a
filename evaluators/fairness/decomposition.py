"""Direct, indirect and spurious parts of a gap between two groups."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from evaluators.estimate import Estimate
from evaluators.intervals import (
    Ratios,
    cluster_index,
    percentile_interval,
    user_sums,
)
from evaluators.off_policy.reward_model import user_folds
from evaluators.off_policy.terms import slices

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

    Cross-fitted doubly robust means with linear and logistic nuisance models; user bootstrap, widened
    by what fitting the models adds. It is true under its graph only: attribute -> mediators -> outcome, confounders of
    the attribute and both. Which columns are confounders and which mediators has to be named; without it only the total
    is given.

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
    models: dict[str, _FirstUnderSecond] = {}
    if confounders is not None and mediators is not None:
        fold = user_folds(index, n_users, len(y), folds, rng)
        both = np.column_stack([confounders, mediators])
        models = {
            key: _FirstUnderSecond(y, second, x, fold) for key, x in (("direct", both), ("spurious", confounders))
        }
        means |= {key: (model.terms(), zero) for key, model in models.items()}
    sums = {key: (user_sums(a, index, n_users), user_sums(b, index, n_users)) for key, (a, b) in means.items()}
    group = rng.permutation(np.arange(n_users) % GROUPS)
    left_out = (
        {key: _without_each_group(key, sums, models, index, group) for key in sums}
        if models and len(y) <= REFITTED_ROWS
        else {}
    )

    def part(name: str, plus: str, minus: str) -> Estimate:
        ratios = Ratios(np.stack([sums[plus][0], -sums[minus][0]]), np.stack([sums[plus][1], sums[minus][1]]))
        low, high = percentile_interval(ratios.resample(rng, resamples), level)
        value = ratios.value
        method = f"{name}, cross-fitted doubly robust, user bootstrap of {resamples}"
        wider = 1.0
        if left_out and not {plus, minus} <= {"x1", "x0"}:
            fixed, refitted = left_out[plus] - left_out[minus]
            added = float(refitted.var() / max(fixed.var(), 1e-300)) - 1
            wider = math.sqrt(1 + max(added, 0.0) / 2)
            method += f", {wider:.3g} times as wide for the models"
        elif models and not {plus, minus} <= {"x1", "x0"}:
            method += f", models held fixed (over {REFITTED_ROWS:,} rows)"
        low, high = value - wider * max(value - low, 0.0), value + wider * max(high - value, 0.0)
        return Estimate(value, low, high, level, n_users, method)

    total = part("total variation", "x1", "x0")
    if "direct" not in sums:
        return Decomposition(total)
    return Decomposition(
        total,
        part("direct effect", "direct", "x0"),
        part("indirect effect (second to first)", "direct", "spurious"),
        part("spurious effect (second to first)", "spurious", "x1"),
    )


GROUPS = 50
"""Groups of users that are left out in turn to see what the models add to the error of a part.

Their errors multiply, so they vanish faster than the sampling error; but a part may be nearly 0 for every user, as the
spurious one of an experiment is, and then they are much of its error. A bootstrap of user sums holds the models fixed;
one that fits them anew exaggerates (its limits were 1.5 times too wide at 400 users). The variance of what leaving
groups out does is twice that of such a product (Efron, Stein 1981), so half of what it grows by when the models are
fitted anew is added to the bootstrap's.
"""
CELLS = 4_000_000
"""Rows times squared features that are held at a time."""
REFITTED_ROWS = 100_000
"""Rows up to which the models are fitted anew; beyond, for time's sake, the limits hold them fixed and say so."""


def _without_each_group(
    key: str,
    sums: Mapping[str, tuple[Floats, Floats]],
    models: Mapping[str, _FirstUnderSecond],
    index: Ints | None,
    group: Ints,
) -> Floats:
    """[2, GROUPS] a mean without the users of each group, models as they are and fitted anew."""
    top, bottom = sums[key]
    kept = (group[:, None] != np.arange(GROUPS)).astype(np.float64)  # [users, groups]
    below = bottom @ kept
    fixed = (top @ kept) / below
    if key not in models:
        return np.stack([fixed, fixed])
    return np.stack([fixed, models[key].refitted(kept if index is None else kept[index]) / below])


class _FirstUnderSecond:
    """E over the first group's x of E(y | second, x): doubly robust, cross-fitted; the models can be fitted anew."""

    def __init__(self, y: Floats, second: NDArray[np.bool_], x: Floats, fold: Ints) -> None:
        from sklearn.linear_model import LogisticRegression, Ridge
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        self._y, self._second = y, second
        self._folds = []
        for k in np.unique(fold):
            fit = fold != k
            outcome = make_pipeline(StandardScaler(), Ridge(alpha=1.0)).fit(x[fit & second], y[fit & second])
            chance = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(x[fit], second[fit])
            self._folds.append((fit, *(_Linear.of(model, x) for model in (outcome, chance))))

    def terms(self) -> Floats:
        """[n] terms whose sum over the first group's size is the value."""
        out = np.empty(len(self._y))
        for fit, outcome, chance in self._folds:
            rows = ~fit
            out[rows] = self._terms(rows, outcome.at(rows), chance.at(rows))[:, 0]
        return out

    def refitted(self, weight: Floats) -> Floats:
        """[B] sum of the terms of weighted rows [n, B], the models fitted to the same weights."""
        total = np.zeros(weight.shape[1])
        for fit, outcome, chance in self._folds:
            rows = ~fit
            taught = fit & self._second
            mean = outcome.at(rows, outcome.least_squares(taught, self._y, weight[taught]))
            logit = chance.at(rows, chance.newton_step(fit, self._second, weight[fit]))
            total += (weight[rows] * self._terms(rows, mean, logit)).sum(axis=0)
        return total

    def _terms(self, rows: NDArray[np.bool_], mean: Floats, logit: Floats) -> Floats:
        """[m, B] terms from what the models say of some rows."""
        p = np.clip(expit(logit), 0.01, 0.99)
        return np.where(self._second[rows][:, None], (1 - p) / p * (self._y[rows][:, None] - mean), mean)


@dataclass(frozen=True, slots=True)
class _Linear:
    """A ridge-penalised linear or logistic model: rows [n, 1 + d] of scaled features, and its coefficients [1 + d]."""

    design: Floats
    coefficient: Floats

    @classmethod
    def of(cls, fitted: Any, x: Floats) -> _Linear:
        """What a pipeline of scaler and model was fitted to be."""
        scaler, model = (step for _, step in fitted.steps)
        design = np.column_stack([np.ones(len(x)), scaler.transform(x)])
        return cls(design, np.append(np.ravel(model.intercept_), np.ravel(model.coef_)))

    def at(self, rows: NDArray[np.bool_], coefficients: Floats | None = None) -> Floats:
        """[m, B] linear predictor of some rows by coefficients [B, 1 + d], one set where None."""
        return self.design[rows] @ (self.coefficient[None] if coefficients is None else coefficients).T

    def least_squares(self, rows: NDArray[np.bool_], y: Floats, weight: Floats) -> Floats:
        """[B, 1 + d] ridge coefficients of weighted rows [m, B]."""
        design = self.design[rows]
        right = (weight * y[rows][:, None]).T @ design
        return np.asarray(np.linalg.solve(self._gram(design, weight), right[..., None])[..., 0])

    def newton_step(self, rows: NDArray[np.bool_], hit: NDArray[np.bool_], weight: Floats) -> Floats:
        """[B, 1 + d] logistic coefficients one Newton step from the fitted ones: as good as all, so near they are."""
        design = self.design[rows]
        p = expit(design @ self.coefficient)[:, None]
        penalty = np.append(0.0, self.coefficient[1:])
        gradient = (weight * (hit[rows][:, None] - p)).T @ design - penalty
        step = np.linalg.solve(self._gram(design, weight * p * (1 - p)), gradient[..., None])[..., 0]
        return np.asarray(self.coefficient + step)

    def _gram(self, design: Floats, weight: Floats) -> Floats:
        """[B, 1 + d, 1 + d] weighted products of the features, and the penalty of 1 on all but the intercept."""
        size = design.shape[1]
        total = np.zeros((weight.shape[1], size * size))
        for part in slices(len(design), CELLS // size**2):
            rows = design[part]
            total += weight[part].T @ (rows[:, :, None] * rows[:, None, :]).reshape(len(rows), -1)
        return total.reshape(-1, size, size) + np.diag(np.append(1e-9, np.ones(size - 1)))
