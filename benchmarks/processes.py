"""Process P1 of EVALUATION, section 10, for many logs at once: user sums of logs whose value is known."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from evaluators.intervals import Ratios

Floats = NDArray[np.float64]
MOST_ROWS = 4_000_000

GRID_USERS = (20, 50, 100, 300, 1000, 2000)
GRID_CELLS = [("logn", 1.0)] + [(family, f) for family in ("logn", "det") for f in (0.3, 0.1, 0.05, 0.01)]
GRID_RATES = (0.005, 0.05, 0.5)
"""6 x 9 x 3 = 162 cells: where all weights are 1 the two families are one."""


@dataclass(frozen=True, slots=True)
class Logs:
    """R logs of G users each, and the policy's value.

    Attributes:
        weighted, weight, rows, doubly: [R, G] user sums of w r, w, 1, and v + w (r - q).
        n_pos, ess, top: [R] effective number of rewarded rounds and of rounds; largest weight over mean weight.
        low, high: [R, G] user sums of the rows of the bias-aware limits of `ips(clip=10)`, and `clipped` of its value.
        truth: the value.
    """

    weighted: Floats
    weight: Floats
    rows: Floats
    doubly: Floats
    n_pos: Floats
    ess: Floats
    top: Floats
    clipped: Floats
    low: Floats
    high: Floats
    truth: float

    def ratios(self, estimator: str, k: int) -> Ratios:
        """An estimator's user sums in log k."""
        top = self.doubly[k] if estimator == "dr" else self.weighted[k]
        bottom = self.weight[k] if estimator == "snips" else self.rows[k]
        return Ratios(top[None], bottom[None])


@dataclass(frozen=True, slots=True)
class Rows:
    """Rounds of process P1: [n] user, weight, reward, q of the logged action; v of the policy; the value."""

    user: NDArray[np.int64]
    w: Floats
    r: Floats
    q: Floats
    v: float
    truth: float


def p1_rows(rng: np.random.Generator, users: int, f: float, p: float, family: str) -> Rows:
    """Draw rounds of so many users; see EVALUATION, section 10, for the process."""
    user = np.repeat(np.arange(users), rng.geometric(0.2, users))
    n = len(user)
    base = p * (rng.uniform(0.6, 1.4, users) if p == 0.5 else rng.exponential(1.0, users))
    if family == "logn":
        s = math.sqrt(math.log(1 / f))
        x = rng.normal(size=n)
        w, h = np.exp(s * x - s * s / 2), 0.6 + 0.8 * ndtr(x - s / 2)
        truth = p * (0.6 + 0.8 * float(ndtr(s / math.sqrt(8))))
    else:
        w = np.where(rng.random(n) < f, 1 / f, 0.0)
        h, truth = np.where(w > 0, 1.4, 0.9), 1.4 * p
    r = (rng.random(n) < np.minimum(base[user] * h, 1.0)).astype(float)
    return Rows(user, w, r, 0.9 * p * h, 0.9 * truth, truth)


def p1_logs(rng: np.random.Generator, runs: int, users: int, f: float, p: float, family: str) -> Logs:
    """Draw R logs at once."""
    return p1_sums(p1_rows(rng, runs * users, f, p, family), runs, users)


def p1_sums(rows: Rows, runs: int, users: int) -> Logs:
    """User sums of R logs whose users follow one another."""
    owner, w, r, q, v, truth = rows.user, rows.w, rows.r, rows.q, rows.v, rows.truth
    rounds = np.bincount(owner, minlength=runs * users)
    clipped = np.minimum(w, 10.0)

    def sums(rows: Floats) -> Floats:
        return np.bincount(owner, weights=rows, minlength=runs * users).reshape(runs, users)

    log = np.repeat(np.arange(runs), rounds.reshape(runs, users).sum(axis=1))
    of_log = np.bincount(log, minlength=runs)
    squares = np.bincount(log, weights=(w * r) ** 2, minlength=runs)
    of_weight = np.bincount(log, weights=w**2, minlength=runs)
    largest = np.zeros(runs)
    np.maximum.at(largest, log, w)
    weight = sums(w)
    total = sums(w * r)
    return Logs(
        weighted=total,
        weight=weight,
        rows=rounds.reshape(runs, users).astype(float),
        doubly=sums(v + w * (r - q)),
        n_pos=np.divide(total.sum(1) ** 2, squares, out=np.zeros(runs), where=squares > 0),
        ess=np.divide(weight.sum(1) ** 2, of_weight, out=np.zeros(runs), where=of_weight > 0),
        top=largest * of_log / np.maximum(weight.sum(1), 1e-12),
        clipped=sums(clipped * r),
        low=sums(clipped * r),
        high=sums(clipped * r + 1 - clipped),
        truth=truth,
    )


def batches(runs: int, users: int) -> list[int]:
    """Numbers of logs that are drawn at once, so that no batch holds more than some four million rounds."""
    most = max(1, MOST_ROWS // (5 * users))
    return [min(most, runs - start) for start in range(0, runs, most)]
