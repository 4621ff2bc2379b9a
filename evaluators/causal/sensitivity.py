"""How strong an unmeasured confounder would have to be."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluators.causal.scores import Scores, Trial, influence
from evaluators.intervals import (
    standard_error,
    t_quantile,
)
from evaluators.off_policy.diagnostics import sensitivity_range

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


LAMBDAS = (1.0, 1.25, 1.5, 2.0)


def e_value(ratio: float) -> float:
    """How strong an unmeasured confounder must be, on the risk-ratio scale with both, to explain a risk ratio away."""
    ratio = 1 / ratio if ratio < 1 else ratio
    return ratio + math.sqrt(ratio * (ratio - 1))


def sensitivity(trial: Trial, scores: Scores, *, level: float = 0.95) -> dict[str, Any]:
    """E-values of a yes/no outcome; with estimated propensities the effect's range for odds wrong by Lambda."""
    out: dict[str, Any] = {}
    binary = bool(np.isin(trial.y, (0.0, 1.0)).all())
    one, zero = float(scores.treated.mean()), float(scores.control.mean())
    if binary and one > 0 and zero > 0:
        clusters = trial.clusters
        log_ratio = influence(scores.treated, clusters) / one - influence(scores.control, clusters) / zero
        half = t_quantile(level, len(log_ratio) - 1) * standard_error(log_ratio)
        ratio = one / zero
        low, high = ratio * math.exp(-half), ratio * math.exp(half)
        nearer = low if ratio >= 1 else high
        crosses = low <= 1 <= high
        out |= {
            "risk_ratio": ratio,
            "risk_ratio_low": low,
            "risk_ratio_high": high,
            "e_value": e_value(ratio),
            "e_value_limit": 1.0 if crosses else e_value(nearer),
        }
    if trial.p is None:
        out["effect_if_odds_wrong_by"] = confounding_range(trial, scores.p)
    return out


def confounding_range(trial: Trial, p: Floats, lambdas: tuple[float, ...] = LAMBDAS) -> dict[str, list[float]]:
    """Range of the effect if the odds of each propensity are wrong by at most Lambda (Tan 2006; Zhao et al. 2019)."""
    arms = []
    for arm, chance in ((1, p), (0, 1 - p)):
        mine = trial.treated == arm
        arms.append(sensitivity_range(np.ones(int(mine.sum())), chance[mine], trial.y[mine], lambdas))
    return {key: [arms[0][key][0] - arms[1][key][1], arms[0][key][1] - arms[1][key][0]] for key in arms[0]}
