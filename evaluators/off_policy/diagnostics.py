"""What is measured about an off-policy estimate besides its value: weights, support, propensities."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluators.intervals import Ratios, standard_error, t_interval
from evaluators.off_policy.records import CHUNK_ROWS
from evaluators.off_policy.terms import Units, slices

Floats = NDArray[np.float64]

MAX_UNSUPPORTED = 0.01
MAX_WEIGHT_Z = 4.0
MAX_WEIGHT_SHIFT = 0.02
CALIBRATION_BAND = (0.8, 1.25)


@dataclass(frozen=True, slots=True)
class WeightFacts:
    """Summary of importance weights that should average 1.

    Attributes:
        mean: mean weight; z: (mean - 1) over its user-cluster standard error.
        ess: (sum w)^2 / sum w^2; share: largest weight over their sum; ratio: largest weight over the mean.
        k_hat: shape of the generalised Pareto tail, or None where it is undefined.
    """

    mean: float
    z: float
    ess: float
    share: float
    ratio: float
    k_hat: float | None


def weight_facts(weight: Floats, units: Units) -> WeightFacts:
    """Facts of weights [N], or of the worst column of [N, S] (by effective sample size; z of the worst column)."""
    columns = [weight] if weight.ndim == 1 else [np.ascontiguousarray(weight[:, s]) for s in range(weight.shape[1])]
    facts = [_facts(column, units) for column in columns]
    worst = min(range(len(facts)), key=lambda s: facts[s][2])
    z, mean = max(((f[1], f[0]) for f in facts), key=lambda pair: abs(pair[0]))
    _, _, ess, share, _ = facts[worst]
    return WeightFacts(mean, z, ess, share, max(f[4] for f in facts), k_hat(columns[worst]))


def _facts(w: Floats, units: Units) -> tuple[float, float, float, float, float]:
    total = float(w.sum())
    squares = float(w @ w)
    mean = total / len(w)
    top = float(w.max(initial=0.0))
    error = standard_error(units.mean(w).scores())
    z = (mean - 1) / error if error > 0 else (0.0 if abs(mean - 1) < 1e-9 else math.copysign(math.inf, mean - 1))
    if total == 0:
        return mean, z, 0.0, 1.0, math.inf
    return mean, z, total**2 / squares, top / total, top / abs(mean)


def k_hat(w: Floats) -> float | None:
    """Shape of a generalised Pareto fit to the upper 3 sqrt(n) weights (Vehtari et al. 2024; Zhang, Stephens 2009).

    None where the tail has too many ties to be fitted, as for a deterministic policy.
    """
    n = len(w)
    m = int(min(n / 5, 3 * math.sqrt(n)))
    if m < 5:
        return None
    top = np.sort(np.partition(w, n - m - 1)[n - m - 1 :])
    x = top[1:] - top[0]
    if len(np.unique(x)) < max(5, m // 2) or x[0] < 0 or x[-1] <= 0:
        return None
    x = x[x > 0]
    m = len(x)
    grid = 30 + int(math.sqrt(m))
    quartile = x[max(int(m / 4 + 0.5) - 1, 0)]
    b = 1 - np.sqrt(grid / (np.arange(1, grid + 1) - 0.5))
    b = b / (3 * quartile) + 1 / x[-1]
    k = np.log1p(-b[:, None] * x).mean(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        profile = m * (np.log(-b / k) - k - 1)
    good = np.isfinite(profile)
    if not good.any():
        return None
    weights = np.exp(profile[good] - profile[good].max())
    mean_b = float((b[good] * weights).sum() / weights.sum())
    shape = float(np.log1p(-mean_b * x).mean())
    return (shape * m + 0.5 * 10) / (m + 10)  # the weak prior of the paper, worth ten observations at 1/2


def k_hat_limit(n: int) -> float:
    """Above this the tail is heavier than n rounds can average out."""
    return min(1 - 1 / math.log10(n), 0.7) if n > 10 else 0.0


@dataclass(frozen=True, slots=True)
class Support:
    """Mass of the evaluation policy on actions that the logging policy never takes (rule W4).

    Attributes:
        mass: estimated mass in excess of what full support would leave unseen; low, high: limits by user t.
        exact: whether all propensities pi_b were known.
    """

    mass: float
    low: float
    high: float
    exact: bool

    @property
    def reason(self) -> str | None:
        """Why to withhold, or None."""
        if self.low <= MAX_UNSUPPORTED:
            return None
        how = "actions with pi_b = 0" if self.exact else "actions never logged"
        return (
            f"W4: {self.mass:.3g} of pi_e is on {how} (lower limit {self.low:.3g}), needs at most {MAX_UNSUPPORTED:g}; "
            "log these actions, or ips(clip=10)"
        )


FULL_SUPPORT = Support(0.0, 0.0, 0.0, exact=True)


class Gaps:
    """Where the logging policy never goes: exactly where pi_b [n, A] is known, else by weighted Good-Turing.

    Where only the logged action's propensity is known, an action may be missing from the log by chance. Under full
    support the expected mass of actions never logged is that of w over actions logged exactly once, so the excess over
    it is what the logging policy cannot reach.
    """

    def __init__(
        self, action: NDArray[np.int64], slot: NDArray[np.int64] | None, pi_b: Floats | None, actions: int
    ) -> None:
        self.pi_b, self.slot = pi_b, slot
        self.once: NDArray[np.bool_] | None = None
        if pi_b is not None:
            self.any = any(bool((pi_b[part] == 0).any()) for part in slices(len(pi_b), CHUNK_ROWS))
            return
        slots = 1 if slot is None else int(slot.max()) + 1
        pair = action if slot is None else slot * actions + action
        counts = np.bincount(pair, minlength=slots * actions)
        self.never = (counts == 0).reshape(slots, actions).astype(np.float64)
        if slot is not None:
            self.never[np.bincount(slot, minlength=slots) == 0] = 0.0
        single = counts == 1
        if single.any():
            self.once = single[pair]
        self.any = bool(self.never.any()) or self.once is not None

    def mass(self, pi_e: Floats, part: slice) -> Floats:
        """[c] mass of some rows of the policy on such actions."""
        if self.pi_b is not None:
            return np.where(self.pi_b[part] == 0, pi_e, 0.0).sum(axis=1)
        if self.slot is None:
            return pi_e @ self.never[0]
        return np.einsum("na,na->n", pi_e, self.never[self.slot[part]])

    def less_chance(self, mass: Floats, w: Floats) -> None:
        """Take off what chance leaves out, in place."""
        if self.once is not None:
            mass[self.once] -= w[self.once]


def support_of(mass: Floats | None, units: Units, level: float, *, exact: bool) -> Support:
    """Support from the unsupported mass [n] of each round, None where there is none."""
    if mass is None or not mass.any():
        return Support(0.0, 0.0, 0.0, exact=exact)
    ratios = units.mean(mass)
    low, high = t_interval(ratios.value, ratios.scores(), level)
    return Support(ratios.value, low, high, exact=exact)


def measure_support(
    pi_e: Floats, action: NDArray[np.int64], slot: NDArray[np.int64] | None, w: Floats, units: Units, level: float
) -> Support:
    """Support of a policy [n, A] on n logged choices whose propensities alone are known."""
    n, actions = pi_e.shape
    gaps = Gaps(action, slot, None, actions)
    if not gaps.any:
        return support_of(None, units, level, exact=False)
    mass = np.concatenate([gaps.mass(pi_e[part], part) for part in slices(n, CHUNK_ROWS)])
    gaps.less_chance(mass, w)
    return support_of(mass, units, level, exact=False)


def sensitivity_range(
    pi_e_logged: Floats, pscore: Floats, reward: Floats, lambdas: tuple[float, ...]
) -> dict[str, list[float]]:
    """Range of SNIPS if the odds of each estimated propensity are wrong by at most Lambda (Tan 2006; Zhao et al. 2019).

    Weights are pi_e (1 + (1/p - 1) z) with z in [1/Lambda, Lambda]; the extreme of a ratio puts z at one end below and
    at the other above a threshold of the reward, so one sort finds it.
    """
    order = np.argsort(-reward, kind="stable")
    r, base, free = reward[order], pi_e_logged[order], (pi_e_logged * (1 / pscore - 1))[order]
    out = {}
    for bound in lambdas:
        ends = []
        for top, bottom in ((1 / bound, bound), (bound, 1 / bound)):  # factor of the highest rewards, of the others
            high, low = base + free * top, base + free * bottom
            upper = (
                np.concatenate([[0.0], np.cumsum(high * r)])
                + (low * r).sum()
                - np.concatenate([[0.0], np.cumsum(low * r)])
            )
            mass = np.concatenate([[0.0], np.cumsum(high)]) + low.sum() - np.concatenate([[0.0], np.cumsum(low)])
            values = upper / mass
            ends.append(float(values.min() if top < bottom else values.max()))
        out[f"{bound:g}"] = ends
    return out


def propensity_calibration(
    propensities: Floats, action: NDArray[np.int64], units: Units, level: float = 0.95
) -> tuple[list[dict[str, float]], float, tuple[float, float], list[str]]:
    """Rule W7: observed over expected number of each action (Bonferroni over actions) and the slope of the logit.

    Returns:
        Rows {action, observed, expected, ratio, low, high}; slope and its limits; reasons to withhold.
    """
    actions = propensities.shape[1]
    lowest, highest = CALIBRATION_BAND
    rows, reasons = [], []
    for k in range(actions):
        hit = (action == k).astype(np.float64)
        expected = np.ascontiguousarray(propensities[:, k])
        if expected.sum() == 0:
            continue
        ratios = Ratios(units.sums(hit)[None], units.sums(expected)[None])
        low, high = t_interval(ratios.value, ratios.scores(), 1 - (1 - level) / actions)
        rows.append(
            {
                "action": float(k),
                "observed": float(hit.sum()),
                "expected": float(expected.sum()),
                "ratio": ratios.value,
                "low": low,
                "high": high,
            }
        )
        if high < lowest or low > highest:
            reasons.append(
                f"W7: action {k} occurs {ratios.value:.2f} times as often as its estimated propensities say, needs "
                f"{lowest:g} to {highest:g}; log propensities, or add the context that the logging policy used"
            )
    slope, limits = _slope(propensities, action, units, level)
    if limits[1] < lowest or limits[0] > highest:
        reasons.append(
            f"W7: slope of the logged action on its log propensity {slope:.2f}, needs {lowest:g} to {highest:g}; "
            "log propensities, or add the context that the logging policy used"
        )
    return rows, slope, limits, reasons


def _slope(p: Floats, action: NDArray[np.int64], units: Units, level: float) -> tuple[float, tuple[float, float]]:
    """Exponent b for which p^b / sum p^b fits the logged actions best, with user-cluster limits; 1 if calibrated."""
    logs = np.log(np.maximum(p, 1e-12))
    rows = np.arange(len(p))
    slope = 1.0
    for _ in range(25):
        tilted = np.exp(slope * (logs - logs.max(axis=1, keepdims=True)))
        tilted /= tilted.sum(axis=1, keepdims=True)
        mean = (tilted * logs).sum(axis=1)
        gradient = logs[rows, action] - mean
        information = float(((tilted * logs**2).sum(axis=1) - mean**2).sum())
        if information <= 1e-12:
            return 1.0, (1.0, 1.0)  # the propensities do not vary: there is no slope to be wrong
        step = float(np.clip(gradient.sum() / information, -0.5, 0.5))
        slope += step
        if abs(step) < 1e-10:
            break
    return slope, t_interval(slope, units.sums(gradient) / information, level)
