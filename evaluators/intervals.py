"""Intervals over users, and the rules that say when a mean of users may be published at all.

Everything is a sum of ratios of user sums, theta = sum_k (sum_u A_ku / sum_u B_ku): plain means, self-normalised
estimates, doubly robust ones, and differences of any two. One code path then gives value, score, standard error,
bootstrap and the doors to publication, normalisers included. The user is the unit, never the row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, ndtr, ndtri, stdtrit

Array = NDArray[np.float64]

MIN_USERS = 30
MIN_N_POS = 30.0
MIN_N_INF = 50.0
MIN_N_INF_HULL = 30.0
MAX_WEIGHT_RATIO = 10.0
MAX_SKEW = 0.2
RESAMPLES = 1000
FEW_EVENTS = 100


def cluster_index(user: NDArray[Any] | None, n: int) -> tuple[NDArray[np.int64] | None, int]:
    """Number the users 0..G-1: ([n] index or None where every row is its own cluster, G)."""
    if user is None:
        return None, n
    user = np.asarray(user)
    if user.dtype.kind in "iu" and user.size:
        low, high = int(user.min()), int(user.max())
        if high - low < 4 * n:  # dense numbers are renumbered by counting, not by sorting
            present = np.zeros(high - low + 1, dtype=bool)
            present[user - low] = True
            rank = np.cumsum(present, dtype=np.int64) - 1
            return rank[user - low], int(rank[-1]) + 1
    names, index = np.unique(user, return_inverse=True)
    return index.reshape(-1).astype(np.int64, copy=False), len(names)


def user_sums(rows: Array, cluster: NDArray[np.int64] | None, n_users: int) -> Array:
    """[G] sums of the rows [n] of each user."""
    if cluster is None:
        return np.asarray(rows, dtype=np.float64)
    return np.asarray(np.bincount(cluster, weights=rows, minlength=n_users), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Ratios:
    """A sum of k ratios of user sums over G users.

    Attributes:
        numerator: [k, G] sums A_ku of each user.
        denominator: [k, G] sums B_ku of each user.
    """

    numerator: Array
    denominator: Array

    @classmethod
    def mean(cls, values: Array) -> Ratios:
        """Mean over users of one value each: [G]."""
        values = np.asarray(values, dtype=np.float64)[None]
        return cls(values, np.ones_like(values))

    @property
    def n_users(self) -> int:
        """G."""
        return self.numerator.shape[1]

    @property
    def defined(self) -> bool:
        """Whether no denominator is zero."""
        return bool(self.n_users) and bool(np.all(self.denominator.sum(axis=1) != 0))

    @property
    def value(self) -> float:
        """The point estimate; NaN where a denominator is zero."""
        if not self.defined:
            return math.nan
        return float((self.numerator.sum(axis=1) / self.denominator.sum(axis=1)).sum())

    def scores(self) -> Array:
        """[G] influence of each user on the value, centred: the sum of the squares is the variance."""
        out = np.zeros(self.n_users)
        for top, bottom in zip(self.numerator, self.denominator, strict=True):
            total = bottom.sum()
            part = bottom * (-(top.sum() / total))
            part += top
            part /= total
            out += part
        return out

    def minus(self, other: Ratios) -> Ratios:
        """Difference of two estimates on the same users, with their covariance kept."""
        return Ratios(
            np.concatenate([self.numerator, -other.numerator]), np.concatenate([self.denominator, other.denominator])
        )

    def resample(self, rng: np.random.Generator, resamples: int = RESAMPLES) -> Array:
        """[resamples] values on bootstrap samples of users, every normaliser recomputed.

        Users are drawn by the multinomial counts of a sample with replacement.
        """
        both = np.concatenate([self.numerator, self.denominator])  # [2k, G]
        k, n = self.numerator.shape
        out = np.empty(resamples)
        for b in range(resamples):
            counts = np.bincount(rng.integers(0, n, n), minlength=n)
            sums = both @ counts
            with np.errstate(divide="ignore", invalid="ignore"):
                out[b] = (sums[:k] / sums[k:]).sum()
        return out[np.isfinite(out)]


def t_quantile(level: float, df: float) -> float:
    """Two-sided Student t quantile."""
    return float(stdtrit(df, 0.5 + level / 2))


def standard_error(scores: Array) -> float:
    """sqrt(G/(G-1) sum psi^2): the cluster-robust standard error of the value whose user scores these are."""
    n = len(scores)
    return math.sqrt(n / (n - 1) * float(scores @ scores)) if n > 1 else math.inf


def t_interval(value: float, scores: Array, level: float = 0.95) -> tuple[float, float]:
    """User-cluster t interval with G - 1 degrees of freedom."""
    if len(scores) < 2:
        return -math.inf, math.inf
    half = t_quantile(level, len(scores) - 1) * standard_error(scores)
    return value - half, value + half


def n_inf(scores: Array) -> float:
    """How many users the standard error rests on: (sum d^2)^2 / sum d^4 (G/3 for normal scores, 1 if one makes it)."""
    squares = scores * scores
    top = float(squares.max(initial=0.0))
    if top == 0:
        return math.inf  # every user agrees exactly: there is no error for one user to make
    squares /= top  # or the fourth power underflows
    return float(squares.sum() ** 2 / (squares @ squares))


def n_pos(weighted: Array) -> float:
    """Effective number of rewarded units: (sum |w r|)^2 / sum (w r)^2."""
    size = np.abs(weighted)
    top = float(size.max(initial=0.0))
    if top == 0:
        return 0.0
    size = size / top
    return float(size.sum() ** 2 / (size @ size))


def below(x: float) -> str:
    """Three digits that are never more than x, so that a number under a threshold never reads as the threshold."""
    if not math.isfinite(x) or x <= 0:
        return f"{x:.3g}"
    step = 10.0 ** (math.floor(math.log10(x)) - 2)
    return f"{math.floor(x / step + 1e-9) * step:.3g}"


def skewness(scores: Array) -> float:
    """Third standardised moment of the user scores (centred already)."""
    spread = math.sqrt(float(np.mean(scores * scores))) if len(scores) else 0.0
    if spread == 0:
        return 0.0
    scaled = scores / spread
    return float((scaled * scaled) @ scaled) / len(scaled)


def percentile_interval(draws: Array, level: float = 0.95) -> tuple[float, float]:
    """Percentile bootstrap interval."""
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def recentred_interval(value: float, draws: Array, level: float = 0.95) -> tuple[float, float]:
    """Limits from the spread of resampled draws about their own mean, moved to the value; NaN draws are left out.

    For statistics that a resample can only make larger (a distance, a Gini, a gap): their noise shifts the draws'
    centre, so only the spread is used. The limits always contain the value.
    """
    low, high = np.nanquantile(draws - np.nanmean(draws) + value, [0.5 - level / 2, 0.5 + level / 2])
    return min(float(low), value), max(float(high), value)


def bca_interval(value: float, scores: Array, draws: Array, level: float = 0.95) -> tuple[float, float]:
    """Bias-corrected and accelerated bootstrap interval (Efron, 1987), acceleration from the user scores."""
    share = (np.count_nonzero(draws < value) + 0.5 * np.count_nonzero(draws == value)) / len(draws)
    shift = float(ndtri(min(max(share, 0.5 / len(draws)), 1 - 0.5 / len(draws))))
    acceleration = skewness(scores) / (6 * math.sqrt(len(scores)))
    ends = []
    for tail in ((1 - level) / 2, (1 + level) / 2):
        z = shift + float(ndtri(tail))
        ends.append(float(ndtr(shift + z / max(1 - acceleration * z, 1e-6))))
    low, high = np.quantile(draws, ends)
    return float(low), float(high)


def hall_interval(value: float, scores: Array, level: float = 0.95) -> tuple[float, float]:
    """Interval from Hall's monotone transformation of the t statistic, which removes skewness (P. Hall, 1992)."""
    n, skew, error = len(scores), skewness(scores), standard_error(scores)
    quantile = t_quantile(level, n - 1)
    if abs(skew) < 1e-8:
        return value - quantile * error, value + quantile * error
    root = math.sqrt(n)

    def inverse(x: float) -> float:
        return 3 * root / skew * (math.cbrt(1 + skew / root * (x - skew / (6 * root))) - 1)

    ends = (value - error * inverse(quantile), value - error * inverse(-quantile))
    return min(ends), max(ends)


def clopper_pearson(events: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Clopper-Pearson limits; `events` and `n` may be fractional effective counts."""
    tail = (1 - level) / 2
    low = 0.0 if events <= 0 else float(betaincinv(events, n - events + 1, tail))
    high = 1.0 if events >= n else float(betaincinv(events + 1, n - events, 1 - tail))
    return low, high


def binary_mean_interval(
    events: Array, trials: Array, level: float = 0.95, *, design_effect: float | None = None
) -> tuple[float, float]:
    """Limits of a pooled rate of yes/no outcomes (Korn and Graubard, 1998): Clopper-Pearson at the effective size.

    Args:
        events: [G] number of events of each user.
        trials: [G] number of trials of each user.
        level: coverage.
        design_effect: used where there is no event to measure it on; without it users are taken as the trials.
    """
    n, total = float(trials.sum()), float(events.sum())
    rate = total / n
    error = standard_error(Ratios(events[None].astype(float), trials[None].astype(float)).scores())
    if 0 < rate < 1 and 0 < error < math.inf:
        effective = min(n, rate * (1 - rate) / error**2)
    else:
        effective = n / design_effect if design_effect else float(np.count_nonzero(trials))
    return clopper_pearson(rate * effective, effective, level)


def empirical_bernstein_lower(x: Array, x_max: float, delta: float = 0.05) -> float:
    """Lower limit of a mean of values in [0, x_max] without asymptotics (Maurer and Pontil, 2009).

    Valid only where x_max is known in advance, as under clipping; never with the observed maximum.
    """
    n = len(x)
    log = math.log(2 / delta)
    return float(x.mean() - 7 * x_max * log / (3 * (n - 1)) - math.sqrt(2 * log * float(np.var(x)) / (n - 1)))


def hoeffding_lower(x: Array, x_max: float, delta: float = 0.05) -> float:
    """Lower limit of a mean of values in [0, x_max] by Hoeffding's inequality; x_max must be known in advance."""
    return float(x.mean() - x_max * math.sqrt(math.log(1 / delta) / (2 * len(x))))


@dataclass(frozen=True, slots=True)
class Door:
    """Whether and how an estimate may be published.

    Attributes:
        number: 1 (n_inf >= 50), 2 (bounded weights and little skew), 3 (30 <= n_inf < 50: hull of intervals), or None.
        reasons: why not, one line each; empty where `number` is set.
        n_users: G; n_inf: the smallest of the scores that bind; n_pos: effective number of rewarded units.
        skew: largest |skewness| / sqrt(G) of the scores that bind.
    """

    number: int | None
    reasons: tuple[str, ...]
    n_users: int
    n_inf: float
    n_pos: float
    skew: float


def find_door(
    scores: tuple[Array, ...], rewarded: float | None, weight_ratio: float, *, more: str = "more users would help"
) -> Door:
    """Which of the three doors to publication is open (rules W1 to W3).

    Args:
        scores: user scores [G] of the estimate and of what binds it as well (IPS for doubly robust estimates).
        rewarded: n_pos, or None where it does not bind (binary means without weights).
        weight_ratio: largest weight over mean weight.
        more: what would help where no door is open.
    """
    n = len(scores[0])
    rests_on = min(n_inf(s) for s in scores)
    skew = max(abs(skewness(s)) for s in scores) / math.sqrt(max(n, 1))
    reasons = []
    number = None
    if rests_on >= MIN_N_INF:
        number = 1
    elif weight_ratio <= MAX_WEIGHT_RATIO and skew <= MAX_SKEW:
        number = 2
    elif rests_on >= MIN_N_INF_HULL:
        number = 3
    else:
        reasons.append(
            f"W1: n_inf {below(rests_on)} users carry the standard error, needs {MIN_N_INF_HULL:g} "
            f"(or weights up to {MAX_WEIGHT_RATIO:g} times their mean and skew up to {MAX_SKEW:g}, here "
            f"{weight_ratio:.3g} and {skew:.2g}); {more}"
        )
    if rewarded is not None and rewarded < MIN_N_POS:
        reasons.append(f"W2: n_pos {below(rewarded)} effective rewarded units, needs {MIN_N_POS:g}; {more}")
    if n < MIN_USERS:
        reasons.append(f"W3: {n} users, needs {MIN_USERS}; log more users")
    return Door(
        None if reasons else number, tuple(reasons), n, rests_on, rewarded if rewarded is not None else math.nan, skew
    )


def door_interval(
    ratios: Ratios, scores: Array, door: int | None, level: float, rng: np.random.Generator
) -> tuple[float, float, str]:
    """Interval that belongs to a door: user-cluster t; behind door 3 the hull of t, BCa and Hall. (low, high, name)."""
    value = ratios.value
    low, high = t_interval(value, scores, level)
    if door != 3:
        return low, high, "user-cluster t"
    draws = ratios.resample(rng)
    ends = [(low, high), bca_interval(value, scores, draws, level), hall_interval(value, scores, level)]
    return min(e[0] for e in ends), max(e[1] for e in ends), "hull of user-cluster t, BCa and Hall"
