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


def tuned_terms(
    base: str, tuner: str, x: Weighted, units: Units, rng: np.random.Generator
) -> tuple[Terms, list[float]]:
    """Rows of the estimator whose parameter was chosen on the other half of the users, and both parameters."""
    half = rng.permutation(units.n_users) % 2 == 0
    first = half if units.cluster is None else half[units.cluster]
    chosen: list[float] = []
    columns: dict[str, Floats] = {}
    known = True
    for rows in (first, ~first):
        cluster = None if units.cluster is None else np.unique(units.cluster[~rows], return_inverse=True)[1]
        there = Units.of(
            cluster, int(cluster.max()) + 1 if cluster is not None else int((~rows).sum()), int((~rows).sum())
        )
        parameter = CHOOSERS[tuner](base, x.take(~rows), there, CANDIDATES[base])
        chosen.append(parameter)
        here = with_parameter(base, x.take(rows), parameter)
        known = here.low_rows is not None and here.high_rows is not None
        parts = {"value": here.numerators[0], "weighted": here.weighted, "low": here.low_rows, "high": here.high_rows}
        for name, part in parts.items():
            if part is not None:
                columns.setdefault(name, np.empty(len(x.w)))[rows] = part
    low, high = (columns["low"], columns["high"]) if known else (None, None)
    bias = None
    if low is not None and high is not None:
        bias = max(float((high - columns["value"]).mean()), float((columns["value"] - low).mean()))
    terms = Terms(
        family="shrunk",
        numerators=(columns["value"],),
        denominators=(None,),
        weighted=columns["weighted"],
        weight=x.w,
        low_rows=low,
        high_rows=high,
        bias=bias,
    )
    return terms, chosen
