"""The whole distribution of returns under the policy: F(y) = sum w 1[r <= y] / sum w, and what is read off it.

Huang, Leqi, Lipton, Azizzadenesheli 2021; Chandak et al. 2021. Intervals are a percentile bootstrap over users with
the normaliser and the functional recomputed in each resample.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evaluators.intervals import RESAMPLES, n_pos, percentile_interval
from evaluators.off_policy.terms import Units

Floats = NDArray[np.float64]


def functional(name: str, parameter: float | None, r: Floats, w: Floats) -> float:
    """One functional of the weighted distribution; `r` [n] must be sorted, w [n] are its weights."""
    total = w.sum()
    if not total > 0:
        return float("nan")
    if name == "cdf_mean":
        return float(w @ r / total)
    if name == "variance":
        mean = w @ r / total
        return float(w @ (r - mean) ** 2 / total)
    cdf = np.cumsum(w) / total
    if name == "quantile":
        return float(r[min(int(np.searchsorted(cdf, parameter or 0.5, side="left")), len(r) - 1)])
    alpha = parameter or 0.1
    share = np.diff(np.minimum(cdf, alpha), prepend=0.0)  # mass of each return below the quantile
    return float(share @ r / alpha)


def value_and_interval(
    name: str, parameter: float | None, r: Floats, w: Floats, units: Units, level: float, rng: np.random.Generator
) -> tuple[float, tuple[float, float], float]:
    """Value, user-bootstrap limits, and the effective number of units that the functional rests on.

    For a quantile or CVaR that is the effective sample size on its side of the quantile (the smaller tail). For the
    mean it is n_pos, as for SNIPS, whose value it is; for the variance the same of squared distances from the mean:
    rewards that did not occur are in no resample.
    """
    order = np.argsort(r, kind="stable")
    sorted_r, sorted_w = r[order], w[order]
    owner = order if units.cluster is None else units.cluster[order]
    value = functional(name, parameter, sorted_r, sorted_w)
    draws = np.empty(RESAMPLES)
    for b in range(RESAMPLES):
        counts = np.bincount(rng.integers(0, units.n_users, units.n_users), minlength=units.n_users)
        draws[b] = functional(name, parameter, sorted_r, sorted_w * counts[owner])
    return value, percentile_interval(draws[np.isfinite(draws)], level), _rests_on(name, parameter, sorted_r, sorted_w)


def _rests_on(name: str, parameter: float | None, r: Floats, w: Floats) -> float:
    if name == "cdf_mean":
        return n_pos(w * r)
    if name == "variance":
        return n_pos(w * (r - w @ r / w.sum()) ** 2)
    share = parameter or (0.5 if name == "quantile" else 0.1)
    below = np.cumsum(w) / w.sum() <= share
    w = w[below] if name == "cvar" or share <= 0.5 else w[~below]
    squares = float(w @ w)
    return float(w.sum()) ** 2 / squares if squares > 0 else 0.0
