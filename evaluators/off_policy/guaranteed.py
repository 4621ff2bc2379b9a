"""Limits without asymptotics, for inverse propensity scoring with rewards of known range.

w (r - r_lo) is never negative and averages V - r_lo; w (r_hi - r) averages r_hi - V. A lower limit of both is an
interval of V; smaller weights (`ips(clip=..)`) only lower both means, so the interval still holds V. Two kinds of lower
limit: empirical Bernstein (Maurer, Pontil 2009), which needs a largest weight known in advance, and betting
(Waudby-Smith, Wu, Ramdas, Karampatziakis, Mineiro 2024), which needs none and holds at all looks at a growing log.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evaluators.intervals import empirical_bernstein_lower
from evaluators.off_policy.bandit import Weighted
from evaluators.off_policy.terms import Units
from simulator.errors import InputError

Floats = NDArray[np.float64]
Interval = Literal["default", "bernstein", "betting"]
INTERVALS: tuple[Interval, ...] = ("default", "bernstein", "betting")

STAKES = np.geomspace(1e-5, 0.95, 20)
"""Shares of the wealth that are bet, each on a strand of its own; the best strand wins but for log 20."""
LOOKS = 20
"""Looks at a growing log that are reported."""


@dataclass(frozen=True, slots=True)
class Guaranteed:
    """An interval that covers at any sample size.

    Attributes:
        value: mean over users of the mean of w r over their rounds.
        low, high: limits, within the range of the reward.
        looks: (users, low, high) at some looks, for betting; each holds together with all before it.
    """

    value: float
    low: float
    high: float
    looks: tuple[tuple[int, float, float], ...] = ()


def checked_interval(text: str) -> Interval:
    """The kind of interval.

    Raises:
        InputError: there is no such kind.
    """
    for kind in INTERVALS:
        if text == kind:
            return kind
    raise InputError(f"interval: '{text}' is none of {', '.join(INTERVALS)}")


def guaranteed(kind: Interval, x: Weighted, units: Units, level: float, clip: float | None) -> Guaranteed | str:
    """Limits of IPS, or why there are none. Users come in the order in which the log ends with them."""
    if x.reward_range is None:
        return "reward_range: limits without asymptotics need the least and greatest possible reward; give them"
    if kind == "bernstein" and clip is None:
        return "clip: empirical Bernstein needs a largest weight known in advance; ask for ips(clip=10), or for betting"
    lo, hi = x.reward_range
    w = x.w if clip is None else np.minimum(x.w, clip)
    below, above = (user_means(rows, units) for rows in (w * (x.r - lo), w * (hi - x.r)))
    value = float(user_means(w * x.r, units).mean())
    delta = (1 - level) / 2
    if kind == "bernstein":
        assert clip is not None
        most = clip * (hi - lo)
        low, high = (empirical_bernstein_lower(rows, most, delta) for rows in (below, above))
        return Guaranteed(value, max(lo, lo + low), min(hi, hi - high))
    at = np.unique(np.linspace(0, len(below), LOOKS + 1).astype(np.int64)[1:])
    lower, upper = (betting_lower(rows, delta, at) for rows in (below, above))
    # Limits hold at all looks together, so each look keeps the best limit so far.
    lows = np.maximum.accumulate(np.minimum(lo + lower, hi))
    highs = np.minimum.accumulate(np.maximum(hi - upper, lo))
    looks = tuple((int(n), float(a), float(b)) for n, a, b in zip(at, lows, highs, strict=True))
    return Guaranteed(value, looks[-1][1], looks[-1][2], looks)


def user_means(rows: Floats, units: Units) -> Floats:
    """[G] mean over each user's units, users in the order of their last unit."""
    if units.cluster is None:
        return rows
    last = np.zeros(units.n_users, dtype=np.int64)
    last[units.cluster] = np.arange(units.n)  # of equal indices the last one stays
    return np.asarray((units.sums(rows) / units.counts)[np.argsort(last)])


def betting_lower(x: Floats, delta: float, looks: NDArray[np.int64]) -> Floats:
    """Lower confidence sequence of the mean of values that are not negative, at some looks [m].

    A gambler who bets a share s of the wealth on x being above m has prod(1 + s (x / m - 1)), a martingale if m is the
    mean; the mean over strands of different s is one, too. So m is refuted once the wealth passes 1 / delta (Ville),
    at whatever look. The wealth falls with m: the limit is where it is 1 / delta.

    Args:
        x: [n] values, 0 or more, in the order in which they came.
        delta: chance of ever being above the mean.
        looks: how many of the values have come at each look, increasing.
    """
    out = np.zeros(len(looks))
    kept = np.flatnonzero(x > 0)
    positive = x[kept]
    ends = np.searchsorted(kept, looks)  # positive values that have come by each look
    empty = looks - ends
    best = 0.0
    for k, (end, zeros) in enumerate(zip(ends, empty, strict=True)):
        best = max(best, _refuted_below(positive[:end], int(zeros), math.log(1 / delta), best))
        out[k] = best
    return out


def _refuted_below(positive: Floats, zeros: int, need: float, known: float) -> float:
    """The largest m that the wealth refutes, to a relative 1e-4; `known` is refuted already."""
    n = len(positive) + zeros
    if len(positive) == 0:
        return 0.0
    mean = float(positive.sum()) / n

    def refuted(m: float) -> bool:
        wealth = zeros * np.log1p(-STAKES)
        for start in range(0, len(positive), 1 << 16):
            part = positive[start : start + (1 << 16)] / m - 1
            wealth += np.log1p(STAKES[:, None] * part).sum(axis=1)
        top = float(wealth.max())
        return top + math.log(float(np.exp(wealth - top).sum())) - math.log(len(STAKES)) >= need

    low, high = known, mean
    if known > 0 and (known >= mean or not refuted(known)):
        return known
    if known == 0:
        low = mean
        while not refuted(low):
            low /= 2
            if low < mean * 1e-6:
                return 0.0
        high = min(mean, low * 2)
    while high - low > 1e-4 * mean:
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low
