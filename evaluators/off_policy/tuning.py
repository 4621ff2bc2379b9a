"""Choosing an estimator's parameter: on one half of the users, for an estimate on the other, and the reverse."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from evaluators.intervals import standard_error
from evaluators.off_policy.bandit import Weighted, shrunk_weight, with_parameter
from evaluators.off_policy.terms import Terms, Units

Floats = NDArray[np.float64]

CANDIDATES = {
    "ips": (1.0, 5.0, 10.0, 50.0, 100.0, 1000.0),
    "dr": (1.0, 5.0, 10.0, 50.0, 100.0, 1000.0),
    "switch_dr": (1.0, 5.0, 10.0, 50.0, 100.0, 1000.0),
    "dros": (1.0, 5.0, 10.0, 50.0, 100.0, 1000.0),
    "sgips": (0.5, 0.1, 0.05, 0.01, 0.005, 0.0),
    "sgdr": (0.5, 0.1, 0.05, 0.01, 0.005, 0.0),
}


def choose_by_slope(base: str, x: Weighted, units: Units, candidates: tuple[float, ...], delta: float = 0.1) -> float:
    """SLOPE (Su, Srinath, Krishnamurthy 2020; Tucker, Lee 2021).

    From wide to narrow intervals, the last parameter whose estimate agrees with all that were accepted before it.
    """
    values, widths = [], []
    quantile = float(stdtrit(units.n_users - 1, 1 - delta))
    for parameter in candidates:
        ratios = units.mean(with_parameter(base, x, parameter).numerators[0])
        values.append(ratios.value)
        widths.append(quantile * standard_error(ratios.scores()))
    accepted: list[int] = []
    for i in np.argsort(widths)[::-1]:
        if any(abs(values[i] - values[j]) > widths[i] + (math.sqrt(6) - 1) * widths[j] for j in accepted):
            break
        accepted.append(int(i))
    return candidates[accepted[-1]]


def choose_by_mse(base: str, x: Weighted, units: Units, candidates: tuple[float, ...], delta: float = 0.1) -> float:
    """Smallest variance plus squared upper bound of the bias (Su, Dimakopoulou, Krishnamurthy, Dudik 2020)."""
    n = len(x.w)
    slack = math.sqrt(2 * float(np.mean(x.w**2)) * math.log(2 / delta) / n)
    slack += 2 * float(x.w.max()) * math.log(2 / delta) / (3 * n)
    residual = x.r if base in ("ips", "sgips") or x.q is None else x.r - x.q
    scores = []
    for parameter in candidates:
        ratios = units.mean(with_parameter(base, x, parameter).numerators[0])
        bias = abs(float(np.mean((x.w - shrunk_weight(base, x.w, parameter)) * residual))) + slack
        scores.append(standard_error(ratios.scores()) ** 2 + bias**2)
    return candidates[int(np.argmin(scores))]


CHOOSERS = {"slope": choose_by_slope, "mse": choose_by_mse}


def halves(units: Units, rng: np.random.Generator) -> NDArray[np.bool_]:
    """[N] True for the units of one random half of the users."""
    half = rng.permutation(units.n_users) % 2 == 0
    return half if units.cluster is None else half[units.cluster]


def part_of(units: Units, rows: NDArray[np.bool_]) -> Units:
    """The users of some units alone, renumbered."""
    if units.cluster is None:
        n = int(rows.sum())
        return Units.of(None, n, n)
    owner = units.cluster[rows]
    present = np.zeros(units.n_users, dtype=bool)
    present[owner] = True
    rank = np.cumsum(present) - 1
    return Units.of(rank[owner], int(rank[-1]) + 1, len(owner))


def choose(base: str, tuner: str, x: Weighted, units: Units, first: NDArray[np.bool_]) -> tuple[float, float]:
    """Parameter for each half of the users, chosen on the other one."""
    found = [CHOOSERS[tuner](base, x.take(rows), part_of(units, rows), CANDIDATES[base]) for rows in (~first, first)]
    return found[0], found[1]


def tuned_terms(base: str, x: Weighted, first: NDArray[np.bool_], chosen: tuple[float, float]) -> Terms:
    """Rows of the estimator with one parameter in the first half of the users and another in the rest."""
    one, other = (with_parameter(base, x, parameter) for parameter in chosen)

    def pick(a: Floats | None, b: Floats | None) -> Floats | None:
        return None if a is None or b is None else np.where(first, a, b)

    weighted = pick(one.weighted, other.weighted)
    return Terms(
        family="shrunk",
        numerators=(np.where(first, one.numerators[0], other.numerators[0]),),
        denominators=(None,),
        weighted=weighted,
        weight=x.w,
        low_rows=pick(one.low_rows, other.low_rows),
        high_rows=pick(one.high_rows, other.high_rows),
    )
