"""How strong an unmeasured confounder would have to be."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import logit, ndtr
from scipy.stats import rankdata

from evaluators.causal.scores import Scores, Trial, influence
from evaluators.intervals import (
    standard_error,
    t_quantile,
)
from evaluators.off_policy.diagnostics import sensitivity_range

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


LAMBDAS = (1.0, 1.25, 1.5, 2.0)
CALIPER = 0.2
"""Standard deviations of the logit propensity within which two rows may be a pair (Austin 2011)."""
FEWEST_PAIRS = 30
MOST_GAMMA = 100.0


def e_value(ratio: float) -> float:
    """How strong an unmeasured confounder must be, on the risk-ratio scale with both, to explain a risk ratio away."""
    ratio = 1 / ratio if ratio < 1 else ratio
    return ratio + math.sqrt(ratio * (ratio - 1))


def sensitivity(trial: Trial, scores: Scores, rng: np.random.Generator, *, level: float = 0.95) -> dict[str, Any]:
    """E-values of a yes/no outcome, Rosenbaum's bounds of matched pairs, and the effect's range for wrong propensities.

    Args:
        trial: the rows.
        scores: of the trial.
        rng: breaks ties among the rows that could be pairs.
        level: of the risk ratio's limits.
    """
    out: dict[str, Any] = {}
    difference, share = matched_differences(trial, scores.p, rng)
    if len(difference) >= FEWEST_PAIRS:
        bounds = {f"{gamma:g}": signed_rank_bound(difference, gamma) for gamma in LAMBDAS}
        gamma = critical_gamma(difference)
        out["rosenbaum"] = {"pairs": len(difference), "matched": share, "gamma": gamma, "p": bounds}
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


def matched_differences(trial: Trial, p: Floats, rng: np.random.Generator) -> tuple[Floats, float]:
    """[m] outcome of the treated minus that of the control of each pair, and the share of the smaller arm in a pair.

    Each row of the smaller arm, in random order, gets the nearest free row of the other by logit propensity, if that
    lies within the caliper. One row of a user, drawn at random: pairs have to be independent.

    Args:
        trial: the rows.
        p: [n] propensities.
        rng: draws the order and the rows of users.
    """
    order = rng.permutation(len(trial))
    order = order[np.unique(trial.clusters[order], return_index=True)[1]]
    order = rng.permutation(order)
    score, treated, y = logit(p[order]), trial.treated[order] == 1, trial.y[order]
    few, many = (np.flatnonzero(arm) for arm in sorted((treated, ~treated), key=np.count_nonzero))
    if len(few) == 0:
        return np.zeros(0), 0.0
    many = many[np.argsort(score[many], kind="stable")]
    caliper = CALIPER * float(score.std())
    # Free rows to the left and to the right of a place, found by halving paths: both ends stand for "none".
    left, right = np.arange(len(many) + 2), np.arange(len(many) + 2)

    def free(path: Ints, at: int) -> int:
        while path[at] != at:
            path[at] = path[path[at]]
            at = int(path[at])
        return at

    pairs = []
    for row, place in zip(few, np.searchsorted(score[many], score[few]), strict=True):
        below, above = free(left, int(place)), free(right, int(place) + 1)
        sides = [(abs(score[many[at - 1]] - score[row]), at) for at in (below, above) if 1 <= at <= len(many)]
        if not sides or min(sides)[0] > caliper:
            continue
        at = min(sides)[1]
        left[at], right[at] = at - 1, at + 1
        pairs.append((row, many[at - 1]))
    if not pairs:
        return np.zeros(0), 0.0
    one, other = np.array(pairs).T
    sign = np.where(treated[one], 1.0, -1.0)
    return sign * (y[one] - y[other]), len(pairs) / len(few)


def signed_rank_bound(difference: Floats, gamma: float) -> float:
    """Largest one-sided p of Wilcoxon's signed-rank test where hidden odds within a pair differ by at most gamma.

    The alternative is the side that the pairs favour. Pairs without a difference are ranked and then say nothing
    (Rosenbaum 2002, 4.3).

    Args:
        difference: [m] treated minus control of each pair.
        gamma: 1 for pairs in which a coin decides who is treated.
    """
    rank = np.where(difference != 0, rankdata(np.abs(difference)), 0.0)
    if not rank.any():
        return 1.0
    statistic = max(float(rank[difference > 0].sum()), float(rank[difference < 0].sum()))
    chance = gamma / (1 + gamma)
    spread = math.sqrt(chance * (1 - chance) * float(rank @ rank))
    return float(ndtr((chance * float(rank.sum()) - statistic) / spread))


def critical_gamma(difference: Floats, alpha: float = 0.05) -> float:
    """Gamma at which the bound of the p value is alpha: how strong hidden confounding has to be to explain it away.

    1 where even a coin explains the differences; at most 100.
    """

    def beyond(gamma: float) -> float:
        return signed_rank_bound(difference, gamma) - alpha

    if beyond(1.0) >= 0:
        return 1.0
    return MOST_GAMMA if beyond(MOST_GAMMA) < 0 else float(brentq(beyond, 1.0, MOST_GAMMA, xtol=1e-10))


def confounding_range(trial: Trial, p: Floats, lambdas: tuple[float, ...] = LAMBDAS) -> dict[str, list[float]]:
    """Range of the effect if the odds of each propensity are wrong by at most Lambda (Tan 2006; Zhao et al. 2019)."""
    arms = []
    for arm, chance in ((1, p), (0, 1 - p)):
        mine = trial.treated == arm
        arms.append(sensitivity_range(np.ones(int(mine.sum())), chance[mine], trial.y[mine], lambdas))
    return {key: [arms[0][key][0] - arms[1][key][1], arms[0][key][1] - arms[1][key][0]] for key in arms[0]}
