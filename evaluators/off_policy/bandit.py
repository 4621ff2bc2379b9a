"""Bandit estimators as pure functions of weights, rewards and model values; each returns `Terms` over the n rounds.

Notation: w = pi_e(a|x) / pscore, r reward, q = q_hat(x, a) of the logged action, v = sum_a pi_e(a|x) q_hat(x, a).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluators.off_policy.diagnostics import Gaps
from evaluators.off_policy.names import EstimatorName
from evaluators.off_policy.records import CHUNK_CELLS, CHUNK_ROWS, Rounds, check_policy_rows
from evaluators.off_policy.terms import Terms, slices
from simulator.errors import InputError, LogError

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Weighted:
    """What bandit estimators read: n rounds reduced from n x A to a few columns.

    Attributes:
        w: [n] importance weight of the logged action.
        r: [n] reward.
        q: [n] model value of the logged action; v: [n] model value of the policy. None without a model.
        reward_range: (r_lo, r_hi), or None where unknown.
        q_range: smallest and largest model value.
    """

    w: Floats
    r: Floats
    q: Floats | None = None
    v: Floats | None = None
    reward_range: tuple[float, float] | None = None
    q_range: tuple[float, float] = (0.0, 0.0)

    def take(self, rows: NDArray[np.bool_] | slice) -> Weighted:
        """Some of the rounds; a slice copies nothing."""
        return Weighted(
            self.w[rows],
            self.r[rows],
            None if self.q is None else self.q[rows],
            None if self.v is None else self.v[rows],
            self.reward_range,
            self.q_range,
        )


def reduce_policy(
    rounds: Rounds, pi_e: Any, q_hat: Any, reward_range: tuple[float, float] | None, *, name: str = "pi_e"
) -> Weighted:
    """Reduce policy and model [n, A] to columns [n]; `reduce_rounds` without the support."""
    return reduce_rounds(rounds, Matrix.of(rounds, pi_e, name), _model_matrix(rounds, q_hat), reward_range).weighted


def _model_matrix(rounds: Rounds, q_hat: Any) -> Matrix | None:
    return None if q_hat is None else Matrix.of(rounds, q_hat, "q_hat")


@dataclass(frozen=True, slots=True)
class Matrix:
    """[n, A] values that are read a part at a time: an array, a memory-mapped file, or rows made when asked for.

    Attributes:
        name: for messages.
        shape: (n, A).
        source: has `shape` and takes slices of rows.
        slot: [n] where the source is [n, A, L]: the position that each row is read at.
    """

    name: str
    shape: tuple[int, int]
    source: Any
    slot: NDArray[np.int64] | None = None

    @classmethod
    def of(cls, rounds: Rounds, values: Any, name: str) -> Matrix:
        """Check the shape against the rounds; [n, A, L] is read at each round's position."""
        n = len(rounds)
        source = values if hasattr(values, "shape") and hasattr(values, "__getitem__") else np.asarray(values)
        shape = tuple(int(size) for size in source.shape)
        slot = None
        if len(shape) == 3:
            slot = np.zeros(n, dtype=np.int64) if rounds.position is None else rounds.position
            if shape[0] != n or slot.max() >= shape[2]:
                raise LogError(f"{name}: shape {shape} must be [{n}, A] or [{n}, A, positions]")
        elif len(shape) != 2 or shape[0] != n:
            raise LogError(
                f"{name}: shape {shape} must be [{n}, A]; one row for each round, one column for each action"
            )
        actions = shape[1]
        for other, what in ((rounds.pi_b, "pi_b"), (rounds.mask, "mask")):
            if other is not None and other.shape[1] != actions:
                raise LogError(f"{name}: {actions} columns, but {what} has {other.shape[1]}; give the same actions")
        if rounds.action.max() >= actions:
            raise LogError(f"action: {rounds.action.max()} has no column in {name} ({actions} columns); add it")
        return cls(name, (n, actions), source, slot)

    def rows(self, part: slice) -> Floats:
        """[c, A] float64 rows of a part."""
        rows = np.asarray(self.source[part])
        if self.slot is not None:
            rows = rows[np.arange(len(rows)), :, self.slot[part]]
        if rows.dtype == np.float64:
            return rows
        try:
            return rows.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise LogError(f"{self.name}: holds a value that is no number; give numbers only") from error

    def whole(self) -> Floats:
        """[n, A], all of it: for the few estimators that cannot work by parts."""
        return self.rows(slice(0, self.shape[0]))

    def parts(self) -> Iterable[slice]:
        """Parts of so many rows that one of them takes about 10 MB."""
        return slices(self.shape[0], min(CHUNK_ROWS, max(1, CHUNK_CELLS // max(self.shape[1], 1))))


@dataclass(frozen=True, slots=True)
class Reduced:
    """A policy on logged rounds, reduced from n x A to columns.

    Attributes:
        weighted: what the estimators read.
        unsupported: [n] mass of the policy on actions that the logging policy never takes (rule W4), less, where only
            logged propensities are known, what chance leaves out; None where it is 0 everywhere.
    """

    weighted: Weighted
    unsupported: Floats | None


def reduce_rounds(
    rounds: Rounds, pi_e: Matrix, q_hat: Matrix | None, reward_range: tuple[float, float] | None
) -> Reduced:
    """Check and reduce policy and model in one pass over both, a part at a time."""
    n = len(rounds)
    if rounds.pscore is None:
        raise ValueError("pscore must be known or estimated before weights can be made")
    if q_hat is not None and q_hat.shape != pi_e.shape:
        raise LogError(f"q_hat: shape {q_hat.shape} must be {pi_e.shape}, as {pi_e.name}; give one value per action")
    gaps = Gaps(rounds.action, rounds.position, rounds.pi_b, pi_e.shape[1])
    w, unsupported = np.empty(n), np.zeros(n) if gaps.any else None
    q, v = (np.empty(n), np.empty(n)) if q_hat is not None else (None, None)
    lowest, highest = math.inf, -math.inf
    for part in pi_e.parts():
        rows = pi_e.rows(part)
        check_policy_rows(pi_e.name, rows, part.start, None if rounds.mask is None else rounds.mask[part])
        each, action = np.arange(len(rows)), rounds.action[part]
        np.divide(rows[each, action], rounds.pscore[part], out=w[part])
        if unsupported is not None:
            unsupported[part] = gaps.mass(rows, part)
        if q_hat is None or q is None or v is None:
            continue
        values = q_hat.rows(part)
        bottom, top = float(values.min()), float(values.max())  # NaN comes through both
        if not (math.isfinite(bottom) and math.isfinite(top)):
            raise LogError("q_hat: holds NaN or infinite values; mend the reward model")
        lowest, highest = min(lowest, bottom), max(highest, top)
        q[part] = values[each, action]
        np.einsum("na,na->n", rows, values, out=v[part])
    span = (lowest, highest) if q_hat is not None else (0.0, 0.0)
    if unsupported is not None:
        gaps.less_chance(unsupported, w)
    return Reduced(Weighted(w, rounds.reward, q, v, reward_range, span), unsupported)


def ips(x: Weighted) -> Terms:
    """Inverse propensity scoring (Horvitz, Thompson 1952): w r."""
    weighted = x.w * x.r
    return Terms(family="ratio", numerators=(weighted,), denominators=(None,), weighted=weighted, weight=x.w)


def snips(x: Weighted) -> Terms:
    """Self-normalised IPS (Swaminathan, Joachims 2015): w r / mean w; a bias of order 1/ESS buys stability."""
    weighted = x.w * x.r
    return Terms(family="ratio", numerators=(weighted,), denominators=(x.w,), weighted=weighted, weight=x.w)


def dm(x: Weighted) -> Terms:
    """Direct method: the model's value of the policy. Nothing in the log checks it where the policy goes elsewhere."""
    _, v = _model(x)
    return Terms(family="model", numerators=(v,), denominators=(None,))


def dr(x: Weighted) -> Terms:
    """Doubly robust (Dudik, Langford, Li 2011): v + w (r - q)."""
    q, v = _model(x)
    return Terms(
        family="ratio",
        numerators=(v + x.w * (x.r - q),),
        denominators=(None,),
        weighted=x.w * x.r,
        weight=x.w,
        own=False,
    )


def sndr(x: Weighted) -> Terms:
    """Self-normalised doubly robust: mean v + mean w (r - q) / mean w."""
    q, v = _model(x)
    return Terms(
        family="ratio",
        numerators=(v, x.w * (x.r - q)),
        denominators=(None, x.w),
        weighted=x.w * x.r,
        weight=x.w,
        own=False,
    )


def clipped_ips(x: Weighted, clip: float) -> Terms:
    """IPS with min(w, clip)."""
    return _shrunk(x, np.minimum(x.w, clip), model=False)


def clipped_dr(x: Weighted, clip: float) -> Terms:
    """DR with min(w, clip)."""
    return _shrunk(x, np.minimum(x.w, clip), model=True)


def switch_dr(x: Weighted, threshold: float) -> Terms:
    """Switch-DR (Wang, Agarwal, Dudik 2017): the weighted residual only where w is at most the threshold."""
    return _shrunk(x, np.where(x.w <= threshold, x.w, 0.0), model=True)


def dros(x: Weighted, lambda_: float) -> Terms:
    """DR with optimistic shrinkage (Su, Dimakopoulou, Krishnamurthy, Dudik 2020): weights l w / (w^2 + l)."""
    if lambda_ == 0:
        return _shrunk(x, np.zeros_like(x.w), model=True)
    return _shrunk(x, x.w if np.isinf(lambda_) else lambda_ * x.w / (x.w**2 + lambda_), model=True)


def sgips(x: Weighted, lambda_: float) -> Terms:
    """Sub-Gaussian IPS (Metelli, Russo, Restelli 2021): weights w / (1 - l + l w), l in [0, 1]."""
    return _shrunk(x, subgaussian_weight(x.w, lambda_), model=False, exceeds=True)


def sgdr(x: Weighted, lambda_: float) -> Terms:
    """DR with sub-Gaussian weights."""
    return _shrunk(x, subgaussian_weight(x.w, lambda_), model=True, exceeds=True)


def subgaussian_weight(w: Floats, lambda_: float) -> Floats:
    """Weight w / (1 - l + l w); 0 where w is 0 even at l = 1."""
    if not 0 <= lambda_ <= 1:
        raise InputError(f"estimator: lambda is {lambda_:g}; sub-Gaussian weights need it between 0 and 1")
    return np.divide(w, 1 - lambda_ + lambda_ * w, out=np.zeros_like(w), where=w > 0)


def _model(x: Weighted) -> tuple[Floats, Floats]:
    if x.q is None or x.v is None:
        raise ValueError("this estimator needs a reward model")
    return x.q, x.v


def _shrunk(x: Weighted, w: Floats, *, model: bool, exceeds: bool = False) -> Terms:
    """Estimator with weights w~ in place of w, and the rows of its bias-aware limits.

    E w = 1 is known, so the weight that is missing is 1 - mean w~ whether or not large weights occurred. Where w~
    `exceeds` w (sub-Gaussian weights below 1), the excess (w~ - w)+ and the shortfall 1 - w~ + it are bounded apart.
    """
    residual = x.r
    value = w * x.r
    lo, hi = x.reward_range if x.reward_range else (0.0, 0.0)
    if model:
        q, v = _model(x)
        residual = x.r - q
        value = v + w * residual
        lo, hi = lo - x.q_range[1], hi - x.q_range[0]
    low = high = None
    if x.reward_range is not None:
        if exceeds:
            excess = np.maximum(w - x.w, 0.0)
            short = 1 - w + excess
            low = value + min(lo, 0.0) * short - max(hi, 0.0) * excess
            high = value + max(hi, 0.0) * short - min(lo, 0.0) * excess
        else:
            missing = 1 - w
            low, high = value + lo * missing, value + hi * missing
    return Terms(
        family="shrunk",
        numerators=(value,),
        denominators=(None,),
        weighted=w * x.r,
        weight=x.w,
        low_rows=low,
        high_rows=high,
    )


def shrunk_weight(base: str, w: Floats, parameter: float) -> Floats:
    """The weight w~ that an estimator with a parameter uses."""
    if base in ("ips", "dr"):
        return np.minimum(w, parameter)
    if base == "switch_dr":
        return np.where(w <= parameter, w, 0.0)
    if base == "dros":
        return parameter * w / (w**2 + parameter)
    return subgaussian_weight(w, parameter)


_WITH_PARAMETER = {
    "ips": clipped_ips,
    "dr": clipped_dr,
    "switch_dr": switch_dr,
    "dros": dros,
    "sgips": sgips,
    "sgdr": sgdr,
}
_PLAIN = {"ips": ips, "snips": snips, "dm": dm, "dr": dr, "sndr": sndr}


def with_parameter(base: str, x: Weighted, parameter: float) -> Terms:
    """An estimator of `names.TUNABLE` at one value of its parameter."""
    return _WITH_PARAMETER[base](x, parameter)


def bandit_terms(name: EstimatorName, x: Weighted) -> Terms:
    """Terms of a named estimator that needs weights of actions only."""
    if name.tuning is not None:
        return with_parameter(name.base, x, name.tuning)
    return _PLAIN[name.base](x)


def embedding_weights(rounds: Rounds, pi_e: Matrix, p_e_a: Floats) -> Floats:
    """[n] joint marginal weights over the embedding's dimensions (Saito, Joachims 2022), given p(e_d | a) [A, C, e]."""
    if rounds.pi_b is None or rounds.action_embed is None:
        raise LogError("pi_b: mips needs pi_b [n, A] and action_embed [n, e] in the log; add them")
    n, actions = rounds.pi_b.shape
    dims = rounds.action_embed.shape[1]
    if p_e_a.shape[0] != actions or p_e_a.shape[2] != dims or rounds.action_embed.max() >= p_e_a.shape[1]:
        raise LogError(f"p_e_a: shape {p_e_a.shape} must be [{actions}, categories, {dims}]; one row for each action")
    w = np.empty(n)
    for part in pi_e.parts():
        embed = rounds.action_embed[part]
        joint = np.ones((len(embed), actions))  # p(e | a) of each round's embedding under every action
        for d in range(dims):
            joint *= p_e_a[:, embed[:, d], d].T
        w[part] = np.einsum("na,na->n", pi_e.rows(part), joint) / np.einsum("na,na->n", rounds.pi_b[part], joint)
    return w


def estimated_embedding_weights(
    rounds: Rounds, pi_e: Floats, folds: NDArray[np.int64] | None, *, seed: int = 12345
) -> Floats:
    """[n] weights sum_a (pi_e / pi_b)(a|x) p(a | x, e), with p fitted by logistic regression.

    Args:
        rounds: with context, pi_b and action_embed.
        pi_e: [n, A].
        folds: [n] fold of each round; a round is predicted by a model without its fold. None: one model for all rows
            (in sample, for parity with Open Bandit Pipeline only).
        seed: of the solver.
    """
    if rounds.pi_b is None or rounds.action_embed is None or rounds.context is None:
        raise LogError("context: mips without p_e_a needs context, pi_b and action_embed in the log; add them")
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import OneHotEncoder

    encoded = OneHotEncoder(sparse_output=False, drop="first").fit_transform(rounds.action_embed)
    x = np.c_[rounds.context, encoded]
    ratio = np.divide(pi_e, rounds.pi_b, out=np.zeros_like(pi_e), where=rounds.pi_b > 0)
    w = np.empty(len(rounds))
    parts = [np.ones(len(rounds), dtype=bool)] if folds is None else [folds == f for f in np.unique(folds)]
    for part in parts:
        fit = part if folds is None else ~part
        model = LogisticRegression(max_iter=1000, random_state=seed).fit(x[fit], rounds.action[fit])
        w[part] = np.einsum("na,na->n", ratio[part][:, model.classes_], model.predict_proba(x[part]))
    return w


def mips_terms(w: Floats, r: Floats, *, self_normalised: bool) -> Terms:
    """IPS or SNIPS with embedding weights."""
    base = (snips if self_normalised else ips)(Weighted(w, r))
    return replace(base, assumes="assumes that an action acts only through its embedding")
