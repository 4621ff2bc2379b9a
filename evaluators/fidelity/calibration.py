"""Are predicted probabilities right: in the large, in slope, by bins of the prediction?"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluators.estimate import Estimate
from evaluators.fidelity.checks import Check, Floats, Ints, judged, ratio_by_user
from evaluators.fidelity.scored_rows import ScoredRows, inside
from evaluators.intervals import t_quantile

FEWEST_USERS = 30
"""Users under which the variance of a bin's mean, clustered by user, is not known well enough to be taken off."""
MOST_MOOD = 3.0
_LOGITS = np.linspace(-40, 40, 2001)


def calibration_in_the_large(rows: ScoredRows, *, level: float = 0.95) -> Check:
    """O/E = sum of outcomes / sum of predictions, passed in [0.9, 1.1]."""
    estimate = observed_over_expected(rows.p, rows.y, rows.user, level=level)
    return judged("calibration in the large", estimate, "[0.9, 1.1]", above=0.9, below=1.1)


def observed_over_expected(
    p: Floats, y: Floats, user: Ints, *, weight: Floats | None = None, level: float = 0.95, method: str = "O/E"
) -> Estimate:
    """Ratio of the (weighted) outcomes to the (weighted) predictions, user-cluster t interval."""
    w = np.ones(len(y)) if weight is None else weight
    return ratio_by_user(w * y, w * p, user, level=level, method=f"{method}, user-cluster t")


def calibration_slope(rows: ScoredRows, *, level: float = 0.95) -> Check:
    """Slope of the logistic regression of outcomes on logit p, cluster-robust; the intercept is in the diagnostics."""
    fit = logistic_recalibration(rows.p, rows.y, rows.user, level=level)
    return judged("slope", fit, "[0.8, 1.25]", above=0.8, below=1.25)


def logistic_recalibration(p: Floats, y: Floats, user: Ints, *, level: float = 0.95) -> Estimate:
    """Cox's calibration slope (logit y on logit p) with a user-cluster sandwich interval; 1 and 0 are perfect."""
    method = "calibration slope, logistic regression, user-cluster sandwich t"
    clusters, index = np.unique(user, return_inverse=True)
    n_users = len(clusters)
    x = np.log(inside(p)) - np.log1p(-inside(p))
    if n_users < 2 or y.min() == y.max() or np.ptp(x) < 1e-9:
        why = f"slope: {n_users} users, outcomes {y.min():g}..{y.max():g}; needs 2, both, varying predictions"
        return Estimate.withhold(method, why, n=n_users, level=level)
    design = np.column_stack([np.ones(len(x)), x])
    beta = np.array([0.0, 1.0])
    for _ in range(50):
        mean = 1 / (1 + np.exp(-design @ beta))
        hessian = (design * (mean * (1 - mean))[:, None]).T @ design
        step = np.linalg.solve(hessian + 1e-12 * np.eye(2), design.T @ (y - mean))
        # Damped so that a nearly separable sample cannot throw the next step to infinity.
        beta = beta + step * min(1.0, 5.0 / max(1e-300, float(np.abs(step).max())))
        if np.abs(step).max() < 1e-10:
            break
    mean = 1 / (1 + np.exp(-design @ beta))
    bread = np.linalg.inv((design * (mean * (1 - mean))[:, None]).T @ design)
    residual = y - mean
    scores = np.column_stack([np.bincount(index, residual * design[:, k], minlength=n_users) for k in range(2)])
    covariance = bread @ (scores.T @ scores * n_users / (n_users - 1)) @ bread
    t = t_quantile(level, n_users - 1)
    se = np.sqrt(np.diag(covariance))
    details = {
        "intercept": float(beta[0]),
        "intercept_low": float(beta[0] - t * se[0]),
        "intercept_high": float(beta[0] + t * se[0]),
    }
    return Estimate(
        float(beta[1]),
        float(beta[1] - t * se[1]),
        float(beta[1] + t * se[1]),
        level,
        n_users,
        method,
        diagnostics=details,
    )


def calibration_error(
    rows: ScoredRows, rng: np.random.Generator, *, bins: int = 10, resamples: int = 1000, level: float = 0.95
) -> Check:
    """Root of the debiased squared calibration error over equal-count bins (Kumar, Liang, Ma 2019), user bootstrap.

    The square of a noisy bin mean is too large by its variance, so that is taken off: a perfect model shows 0, where
    the plain error of a perfect model shows .013 at n = 2,000 and a base rate of .05.
    """
    band = max(0.01, 0.15 * float(rows.y.mean()))
    threshold = f"upper <= {band:.3g}"
    estimate = debiased_calibration_error(rows.p, rows.y, rows.user, rng, bins=bins, resamples=resamples, level=level)
    return judged("calibration error", estimate, threshold, below=band)


def debiased_calibration_error(
    p: Floats,
    y: Floats,
    user: Ints,
    rng: np.random.Generator,
    *,
    bins: int = 10,
    resamples: int = 1000,
    level: float = 0.95,
) -> Estimate:
    """Debiased calibration error with its user-bootstrap interval; the bins stay those of the predictions."""
    method = f"debiased calibration error, {bins} equal-count bins, user bootstrap of {resamples}"
    clusters, index = np.unique(user, return_inverse=True)
    n_users = len(clusters)
    if n_users < FEWEST_USERS or len(p) < 10 * bins:
        need = f"needs {FEWEST_USERS} users and {10 * bins} rows"
        why = f"calibration error: {n_users} users and {len(p)} rows; {need}"
        return Estimate.withhold(method, why, n=n_users, level=level)
    cell = index * bins + _equal_count_bins(p, bins)
    shape = (n_users, bins)
    count = np.bincount(cell, minlength=n_users * bins).reshape(shape).astype(np.float64)
    residual = np.bincount(cell, y - p, minlength=n_users * bins).reshape(shape).astype(np.float64, copy=False)

    def squared(weight: Floats) -> tuple[Floats, Floats]:
        return _squared_error(weight, count, residual)

    plain, variance = (float(part[0]) for part in squared(np.ones((1, n_users))))
    weight = rng.multinomial(n_users, np.full(n_users, 1 / n_users), size=resamples).astype(np.float64)
    plain_r, variance_r = squared(weight)
    # A resample carries the sample's noise and its own: both variances come off, so replicates centre on the value.
    replicates = np.sqrt(np.maximum(plain_r - variance_r - variance, 0))
    low, high = np.quantile(replicates, [0.5 - level / 2, 0.5 + level / 2])
    value = math.sqrt(max(plain - variance, 0.0))
    details = {"plain": math.sqrt(plain), "noise": math.sqrt(variance)}
    return Estimate(value, min(float(low), value), max(float(high), value), level, n_users, method, diagnostics=details)


def _squared_error(weight: Floats, count: Floats, residual: Floats) -> tuple[Floats, Floats]:
    """Per resample: plain squared error and the sum of the bins' variances, both weighted by rows.

    Args:
        weight: [r, U] times each user counts.
        count: [U, bins] rows.
        residual: [U, bins] summed outcome minus prediction.
    """
    n_users = count.shape[0]
    n_b = np.maximum(weight @ count, 1e-100)  # [r, bins]; its square must not underflow
    r_b = weight @ residual
    mean = r_b / n_b
    spread = weight @ residual**2 - 2 * mean * (weight @ (residual * count)) + mean**2 * (weight @ count**2)
    variance = np.maximum(spread, 0) / n_b**2 * n_users / (n_users - 1)
    share = n_b / n_b.sum(1, keepdims=True)
    return (share * mean**2).sum(1), (share * variance).sum(1)


def _equal_count_bins(p: Floats, bins: int) -> NDArray[np.int64]:
    """[n] bin of each row: ranks cut into equal counts; equal predictions stay in one bin."""
    order = np.sort(p)
    edges = order[np.minimum((np.arange(1, bins) * len(p)) // bins, len(p) - 1)]
    return np.searchsorted(edges, p, side="right").astype(np.int64)


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """One point of the reliability curve: mean prediction, mean outcome with its user-cluster interval, rows."""

    predicted: float
    observed: float
    low: float
    high: float
    n: int


def reliability_curve(rows: ScoredRows, *, bins: int = 10, level: float = 0.95) -> tuple[ReliabilityBin, ...]:
    """Predicted against observed by tenths of the predictions, for the report's picture."""
    which = _equal_count_bins(rows.p, bins)
    points = []
    for b in np.unique(which):
        mine = which == b
        mean = ratio_by_user(rows.y[mine], np.ones(int(mine.sum())), rows.user[mine], level=level, method="bin mean")
        if mean.value is None:
            continue
        points.append(
            ReliabilityBin(
                float(rows.p[mine].mean()),
                mean.value,
                max(0.0, mean.low if mean.low is not None else 0.0),
                min(1.0, mean.high if mean.high is not None else 1.0),
                int(mine.sum()),
            )
        )
    return tuple(points)


@dataclass(frozen=True, slots=True)
class CalibrationFloor:
    """Calibration errors beside what a *right* model shows on such rows: right in the mean at every prediction.

    Users differ by a mood that a right model does not know either (`mood`): rows of one user are off together, and a
    floor from independent rows would be too low (on MovieLens by a tenth to a fifth).

    Attributes:
        error: the model's plain error, the mean |observed - predicted| over bins.
        perfect: mean plain error of a right model.
        perfect_95: its 95 % quantile.
        debiased: the model's debiased error; None where there are too few users for it.
        debiased_95: 95 % quantile of a right model's debiased error; None likewise.
        mood: standard deviation of what users' own levels add to the logits, beyond what the model knows.
    """

    error: float
    perfect: float
    perfect_95: float
    debiased: float | None = None
    debiased_95: float | None = None
    mood: float = 0.0


def calibration_floor(
    rows: ScoredRows, rng: np.random.Generator, *, bins: int = 10, draws: int = 500
) -> CalibrationFloor:
    """The calibration errors that a right model would show on these rows, whose users have moods of their own."""
    which = _equal_count_bins(rows.p, bins)
    clusters, user = np.unique(rows.user, return_inverse=True)
    mood = _mood(rows.p, rows.y, user)
    logit = _without_mood(rows.p, mood)
    n_users, n = len(clusters), len(rows)
    few = n_users < FEWEST_USERS or n < 10 * bins
    shape = (n_users, bins)
    cell = user * bins + which
    count = np.bincount(cell, minlength=n_users * bins).reshape(shape).astype(np.float64)

    def errors(y: Floats) -> tuple[float, float]:
        residual = np.bincount(cell, y - rows.p, minlength=n_users * bins).reshape(shape).astype(np.float64, copy=False)
        plain = float(np.abs(residual.sum(0)).sum() / n)
        if few:
            return plain, 0.0
        error, variance = _squared_error(np.ones((1, n_users)), count, residual)
        return plain, math.sqrt(max(float(error[0] - variance[0]), 0.0))

    def right() -> Floats:
        p = 1 / (1 + np.exp(-(logit + mood * rng.standard_normal(n_users)[user])))
        return (rng.random(n) < p).astype(np.float64)

    plain, debiased = (np.array(side) for side in zip(*(errors(right()) for _ in range(draws)), strict=True))
    own = errors(rows.y)
    return CalibrationFloor(
        own[0],
        float(plain.mean()),
        float(np.quantile(plain, 0.95)),
        None if few else own[1],
        None if few else float(np.quantile(debiased, 0.95)),
        mood,
    )


def _mood(p: Floats, y: Floats, user: NDArray[np.int64]) -> float:
    """Standard deviation of the users' own levels in logits: what their residuals vary beyond chance, by moments.

    Two rows of one user covary by s^2 g g', g being how far the mean outcome moves with the logit (Stein's lemma, the
    first term of the covariance); g itself is flattened by moods, hence the iteration.
    """
    chance = np.bincount(user, p * (1 - p))
    residual = np.bincount(user, y - p)
    residual = residual - residual.sum() / chance.sum() * chance  # a level that is off for all is no mood
    beyond = max(0.0, float((residual**2).sum() - chance.sum()))
    mood = 0.0
    for _ in range(6):
        mean, slope = _with_mood(mood)
        g = np.interp(p, mean, slope)
        pairs = float((np.bincount(user, g) ** 2).sum() - (g**2).sum())
        mood = min(math.sqrt(beyond / pairs), MOST_MOOD) if pairs > 0 else 0.0
    return mood


def _without_mood(p: Floats, mood: float) -> Floats:
    """[n] logits from which normal moods lead to `p` in the mean."""
    return np.asarray(np.interp(p, _with_mood(mood)[0], _LOGITS))


def _with_mood(mood: float) -> tuple[Floats, Floats]:
    """Mean outcome at each of `_LOGITS` under normal moods, and how fast it moves with the logit."""
    node, weight = np.polynomial.hermite_e.hermegauss(41)
    p = 1 / (1 + np.exp(-(_LOGITS[:, None] + mood * node)))
    weight = weight / weight.sum()
    return np.asarray(p @ weight), np.asarray((p * (1 - p)) @ weight)
