"""Bandit estimators as pure functions of weights, rewards and model values; each returns `Terms` over the n rounds.

Notation: w = pi_e(a|x) / pscore, r reward, q = q_hat(x, a) of the logged action, v = sum_a pi_e(a|x) q_hat(x, a).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from evaluators.off_policy.names import EstimatorName
from evaluators.off_policy.records import CHUNK_ROWS, Rounds, check_policy
from evaluators.off_policy.terms import Terms
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

    def take(self, rows: NDArray[np.bool_]) -> Weighted:
        """The rounds of some users."""
        return replace(
            self,
            w=self.w[rows],
            r=self.r[rows],
            q=None if self.q is None else self.q[rows],
            v=None if self.v is None else self.v[rows],
        )


def reduce_policy(
    rounds: Rounds, pi_e: Floats, q_hat: Floats | None, reward_range: tuple[float, float] | None
) -> Weighted:
    """Reduce policy and model [n, A] to columns [n], in chunks so that no further n x A array is made."""
    n = len(rounds)
    if rounds.pscore is None:
        raise ValueError("pscore must be known or estimated before weights can be made")
    rows = np.arange(n)
    w = pi_e[rows, rounds.action] / rounds.pscore
    if q_hat is None:
        return Weighted(w, rounds.reward, reward_range=reward_range)
    v = np.empty(n)
    for start in range(0, n, CHUNK_ROWS):
        part = slice(start, start + CHUNK_ROWS)
        np.einsum("na,na->n", pi_e[part], q_hat[part], out=v[part])
    return Weighted(
        w, rounds.reward, q_hat[rows, rounds.action], v, reward_range, (float(q_hat.min()), float(q_hat.max()))
    )


def check_q_hat(q_hat: Floats, shape: tuple[int, ...]) -> Floats:
    """Model values [n, A], finite."""
    out = np.asarray(q_hat, dtype=np.float64)
    if out.shape != shape:
        raise LogError(f"q_hat: shape {out.shape} must be {shape}, as pi_e; give one value for each action")
    if not np.isfinite(out.sum()):
        raise LogError("q_hat: holds NaN or infinite values; mend the reward model")
    return out


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
    return _shrunk(x, subgaussian_weight(x.w, lambda_), model=False)


def sgdr(x: Weighted, lambda_: float) -> Terms:
    """DR with sub-Gaussian weights."""
    return _shrunk(x, subgaussian_weight(x.w, lambda_), model=True)


def subgaussian_weight(w: Floats, lambda_: float) -> Floats:
    """Weight w / (1 - l + l w); 0 where w is 0 even at l = 1."""
    if not 0 <= lambda_ <= 1:
        raise InputError(f"estimator: lambda is {lambda_:g}; sub-Gaussian weights need it between 0 and 1")
    return np.divide(w, 1 - lambda_ + lambda_ * w, out=np.zeros_like(w), where=w > 0)


def _model(x: Weighted) -> tuple[Floats, Floats]:
    if x.q is None or x.v is None:
        raise ValueError("this estimator needs a reward model")
    return x.q, x.v


def _shrunk(x: Weighted, w: Floats, *, model: bool) -> Terms:
    """Estimator with weights w~ in place of w, and the rows of its bias-aware limits.

    E w = 1 is known, so the weight that is missing is 1 - mean w~ whether or not large weights occurred. Where w~
    exceeds w (sub-Gaussian weights below 1), the excess e- = (w~ - w)+ and the shortfall 1 - w~ + e- are bounded apart.
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
    bias = None
    if x.reward_range is not None:
        excess = np.maximum(w - x.w, 0.0)
        if excess.max(initial=0.0) <= 1e-12:
            missing = 1 - w
            low, high = value + lo * missing, value + hi * missing
            bias = max(abs(lo), abs(hi)) * max(float(missing.mean()), 0.0)
        else:
            short = 1 - w + excess
            low = value + min(lo, 0.0) * short - max(hi, 0.0) * excess
            high = value + max(hi, 0.0) * short - min(lo, 0.0) * excess
            bias = float(max((high - value).mean(), (value - low).mean()))
    return Terms(
        family="shrunk",
        numerators=(value,),
        denominators=(None,),
        weighted=w * x.r,
        weight=x.w,
        low_rows=low,
        high_rows=high,
        bias=bias,
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
    parameter = next((value for value in name.parameters.values() if value is not None), None)
    if parameter is not None:
        return with_parameter(name.base, x, parameter)
    return _PLAIN[name.base](x)


def embedding_weights(rounds: Rounds, pi_e: Floats, p_e_a: Floats) -> Floats:
    """[n] joint marginal weights over the embedding's dimensions (Saito, Joachims 2022), given p(e_d | a) [A, C, e]."""
    if rounds.pi_b is None or rounds.action_embed is None:
        raise LogError("pi_b: mips needs pi_b [n, A] and action_embed [n, e] in the log; add them")
    n, actions = rounds.pi_b.shape
    dims = rounds.action_embed.shape[1]
    if p_e_a.shape[0] != actions or p_e_a.shape[2] != dims or rounds.action_embed.max() >= p_e_a.shape[1]:
        raise LogError(f"p_e_a: shape {p_e_a.shape} must be [{actions}, categories, {dims}]; one row for each action")
    w = np.empty(n)
    for start in range(0, n, CHUNK_ROWS):
        part = slice(start, start + CHUNK_ROWS)
        embed = rounds.action_embed[part]
        joint = np.ones((len(embed), actions))  # p(e | a) of each round's embedding under every action
        for d in range(dims):
            joint *= p_e_a[:, embed[:, d], d].T
        w[part] = np.einsum("na,na->n", pi_e[part], joint) / np.einsum("na,na->n", rounds.pi_b[part], joint)
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


def checked_policy(rounds: Rounds, pi_e: Floats, name: str = "pi_e") -> Floats:
    """Policy [n, A] that fits the rounds; [n, A, L] is read at each round's position."""
    out = np.asarray(pi_e)
    if out.ndim == 3:
        slot = np.zeros(len(rounds), dtype=np.int64) if rounds.position is None else rounds.position
        if len(out) != len(rounds) or slot.max() >= out.shape[2]:
            raise LogError(f"{name}: shape {out.shape} must be [{len(rounds)}, A] or [{len(rounds)}, A, positions]")
        out = out[np.arange(len(out)), :, slot]
    if out.ndim != 2:
        raise LogError(f"{name}: shape {out.shape} must be [{len(rounds)}, A]; one row for each round")
    actions = out.shape[1]
    if rounds.pi_b is not None and rounds.pi_b.shape[1] != actions:
        raise LogError(f"{name}: {actions} columns, but pi_b has {rounds.pi_b.shape[1]}; give the same actions")
    if rounds.mask is not None and rounds.mask.shape[1] != actions:
        raise LogError(f"{name}: {actions} columns, but mask has {rounds.mask.shape[1]}; give the same actions")
    if rounds.action.max() >= actions:
        raise LogError(f"action: {rounds.action.max()} has no column in {name} ({actions} columns); add it")
    return check_policy(name, out, (len(rounds), actions), rounds.mask)
