"""What a ranking of users by predicted effect is worth."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evaluators.causal.scores import Scores
from evaluators.estimate import Estimate
from evaluators.intervals import (
    cluster_index,
)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


FEWEST_QINI_OUTCOMES = 200


def qini(
    scores: Scores, y: Floats, user: Ints, rng: np.random.Generator, *, resamples: int = 500, level: float = 0.95
) -> Estimate:
    """Qini area of the predicted effects minus that of a random order, per user of the log; user bootstrap.

    The AUUC less that of targeting at random: the area between the cumulative doubly robust gain, in the order of
    effects predicted by models that did not see the user, and the straight line. 0: the ranking knows nothing.
    """
    method = f"Qini area - random order, doubly robust gain, cross-fitted by user, user bootstrap of {resamples}"
    outcomes = int(np.count_nonzero(y))
    index, n_users = cluster_index(user, len(y))
    if outcomes < FEWEST_QINI_OUTCOMES:
        why = f"qini: {outcomes} outcomes, needs {FEWEST_QINI_OUTCOMES}; log more"
        return Estimate.withhold(method, why, n=n_users, level=level)
    order = np.argsort(-scores.effect, kind="stable")
    gain = scores.difference[order]
    of_user = np.arange(len(y))[order] if index is None else index[order]
    value = qini_area(gain, np.ones(len(gain)))
    drawn = np.empty(resamples)
    for b in range(resamples):
        counts = np.bincount(rng.integers(0, n_users, n_users), minlength=n_users)
        drawn[b] = qini_area(gain, counts[of_user].astype(np.float64))
    low, high = np.quantile(drawn, [0.5 - level / 2, 0.5 + level / 2])
    random_order = float(gain.mean()) / 2
    diagnostics = {"auuc": value + random_order, "auuc_of_random_targeting": random_order}
    return Estimate(
        value, min(float(low), value), max(float(high), value), level, n_users, method, diagnostics=diagnostics
    )


def qini_area(gain: Floats, weight: Floats) -> float:
    """Area between the cumulative gain of rows in their order and the line to its end, both per row."""
    total = weight.sum()
    before = (np.cumsum(weight) - weight / 2) / total  # share of the rows treated before the middle of this one
    mean = float(weight @ gain) / total
    return float((weight * (gain - mean)) @ (1 - before)) / total
