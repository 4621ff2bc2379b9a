"""Overlap of the arms: propensities that were met, and the effect where both arms occur."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluators.causal.scores import Scores, Trial, mean_effect
from evaluators.estimate import Estimate

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def overlap_of(trial: Trial, scores: Scores) -> dict[str, Any]:
    """Range of the propensities, shares outside, and whether as many were treated as they say."""
    p = scores.p
    return {
        "lowest": float(p.min()),
        "highest": float(p.max()),
        "share_outside_5_to_95_percent": float(np.mean((p < 0.05) | (p > 0.95))),
        "share_at_floor": scores.floored,
        "treated_over_expected": float(trial.treated.sum() / p.sum()),
    }


def trimming_bound(p: Floats) -> float:
    """Propensity below which (and above 1 minus which) rows are left out for the least variance.

    The rule of Crump, Hotz, Imbens and Mitnik (2009): the smallest a with 1/(a(1 - a)) <= 2 E[1/(p(1 - p)) | that is at
    most 1/(a(1 - a))]; 0 where no row need be left out.
    """
    spread = np.sort(1 / (p * (1 - p)))
    means = np.cumsum(spread) / np.arange(1, len(spread) + 1)
    if spread[-1] <= 2 * means[-1]:
        return 0.0
    limit = float(spread[np.flatnonzero(spread <= 2 * means)[-1]])
    return float(0.5 - np.sqrt(max(0.25 - 1 / limit, 0.0)))


def trimmed_effect(scores: Scores, clusters: Ints, method: str, level: float = 0.95) -> Estimate | None:
    """Effect on the rows inside the bound, which is another question; None where no row lies outside."""
    bound = trimming_bound(scores.p)
    inside = (scores.p >= bound) & (scores.p <= 1 - bound)
    if inside.all():
        return None
    share = float(inside.mean())
    how = f"{method}; on the {share:.1%} of the rows with a propensity in [{bound:.3f}, {1 - bound:.3f}] only"
    return mean_effect(scores.difference[inside], clusters[inside], level=level, method=how)
