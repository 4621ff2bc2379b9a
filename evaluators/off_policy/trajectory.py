"""Trajectory estimators over N trajectories of T steps.

rho_t = pi_e / pi_b, w_t = product of rho up to t, w_{-1} = 1, discount g^t. Marginal forms follow the definition, not
SCOPE-RL 0.2.1, whose marginal doubly robust forms shift the next value by one step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluators.off_policy.names import EstimatorName
from evaluators.off_policy.records import Trajectories
from evaluators.off_policy.slate import MissingColumns
from evaluators.off_policy.terms import Terms

Floats = NDArray[np.float64]

_MARKOV = "assumes a Markov state as logged and right marginal ratios"


@dataclass(frozen=True, slots=True)
class Stepped:
    """What trajectory estimators read.

    Attributes:
        rho: [N, T] step ratios (1 after the end).
        r: [N, T] rewards (0 after the end).
        gamma: discount per step.
        q: [N, T] model value of the logged action; v: [N, T] of the policy; both 0 after the end. None without a model.
        v0: [N] model value of the policy at the first step.
        state: [N, T] state marginal ratio; state_action: [N, T] state-action marginal ratio.
    """

    rho: Floats
    r: Floats
    gamma: float
    q: Floats | None
    v: Floats | None
    v0: Floats | None
    state: Floats | None
    state_action: Floats | None

    @property
    def discount(self) -> Floats:
        """[T] g^t."""
        return np.power(self.gamma, np.arange(self.r.shape[1]), dtype=np.float64)

    def first(self, steps: int) -> Stepped:
        """The first steps only: another estimand."""
        cut = slice(None), slice(None, steps)
        q, v, state, state_action = (
            None if a is None else a[cut] for a in (self.q, self.v, self.state, self.state_action)
        )
        return Stepped(self.rho[cut], self.r[cut], self.gamma, q, v, self.v0, state, state_action)


def reduce_steps(log: Trajectories, gamma: float, q_hat: Floats | None = None) -> Stepped:
    """Reduce policy and model [N, T, A] to columns [N, T]."""
    taken = np.take_along_axis(log.pi_e, log.action[:, :, None], axis=2)[:, :, 0]
    rho = np.where(log.alive, taken / log.pscore, 1.0)
    q_hat = log.q_hat if q_hat is None else q_hat
    q = v = None
    v0 = log.initial_value
    if q_hat is not None:
        q = np.take_along_axis(q_hat, log.action[:, :, None], axis=2)[:, :, 0] * log.alive
        v = np.einsum("nta,nta->nt", log.pi_e, q_hat) * log.alive
        v0 = np.ascontiguousarray(v[:, 0]) if v0 is None else v0
    return Stepped(rho, log.reward, gamma, q, v, v0, log.state_marginal, log.state_action_marginal)


def step_weight(x: Stepped) -> Floats:
    """[N, T] w_t, the product of the step ratios up to t."""
    return np.asarray(np.cumprod(x.rho, axis=1), dtype=np.float64)


def _columns(matrix: Floats) -> tuple[Floats, ...]:
    return tuple(np.ascontiguousarray(matrix[:, t]) for t in range(matrix.shape[1]))


def _sum(w: Floats, r: Floats, discount: Floats, *, normalised: bool, own: bool = True, assumes: str = "") -> Terms:
    """Sum_t g^t w_t r_t; where normalised each step is divided by its mean weight."""
    weighted = (discount * w * r).sum(axis=1)
    tops = _columns(discount * w * r) if normalised else (weighted,)
    bottoms: tuple[Floats | None, ...] = _columns(w) if normalised else (None,)
    return Terms(
        family="ratio", numerators=tops, denominators=bottoms, weighted=weighted, weight=w, own=own, assumes=assumes
    )


def dm(x: Stepped) -> Terms:
    """Direct method: E_pi_e Q(s_0, .)."""
    if x.v0 is None:
        raise MissingColumns("q_hat: no value predictions in the log; add state_action_value_prediction")
    return Terms(family="model", numerators=(x.v0,), denominators=(None,))


def tis(x: Stepped, *, normalised: bool) -> Terms:
    """Trajectory-wise weights: sum_t g^t w_{T-1} r_t."""
    w = np.repeat(x.rho.prod(axis=1)[:, None], x.rho.shape[1], axis=1)
    return _sum(w, x.r, x.discount, normalised=normalised)


def pdis(x: Stepped, *, normalised: bool) -> Terms:
    """Per-decision weights: sum_t g^t w_t r_t."""
    return _sum(step_weight(x), x.r, x.discount, normalised=normalised)


def dr(x: Stepped, *, normalised: bool) -> Terms:
    """Doubly robust (Jiang, Li 2016): sum_t g^t [w_t (r_t - Q_t) + w_{t-1} V_t]."""
    return _corrected(x, step_weight(x), x.discount, normalised=normalised, own=False, assumes="")


def drl(x: Stepped) -> Terms:
    """Double reinforcement learning: dr with state-action marginal weights m_t in place of w_t, discounted."""
    return _corrected(x, marginal_weight(x, "sam", None), x.discount, normalised=False, own=True, assumes=_MARKOV)


def _corrected(x: Stepped, w: Floats, discount: Floats, *, normalised: bool, own: bool, assumes: str) -> Terms:
    if x.q is None or x.v is None:
        raise MissingColumns("q_hat: no value predictions in the log; add state_action_value_prediction")
    before = np.concatenate([np.ones((len(w), 1)), w[:, :-1]], axis=1)
    residual, baseline = discount * w * (x.r - x.q), discount * before * x.v
    if normalised:
        tops = (*_columns(residual), *_columns(baseline))
        bottoms: tuple[Floats | None, ...] = (*_columns(w), *_columns(before))
    else:
        tops, bottoms = ((residual + baseline).sum(axis=1),), (None,)
    return Terms(
        family="ratio",
        numerators=tops,
        denominators=bottoms,
        weighted=(discount * w * x.r).sum(axis=1),
        weight=w,
        own=own,
        assumes=assumes,
    )


def marginal_weight(x: Stepped, kind: str, steps: int | None) -> Floats:
    """[N, T] marginal ratio of state and action at each step.

    None: by definition, d_e,t(s) / d_b,t(s) rho_t for "sm" and d_e,t(s,a) / d_b,t(s,a) for "sam". A number of steps is
    SCOPE-RL's `n_step_pdis`: the given ratio that many steps back (1 before the start) times the last `steps` step
    ratios. For "sm" that formula lacks one ratio; it is kept for parity only.
    """
    base = x.state if kind == "sm" else x.state_action
    if base is None:
        name = "state" if kind == "sm" else "state_action"
        raise MissingColumns(f"{name}_marginal_importance_weight: not in the log and not estimated; add it")
    if steps is None:
        return base * x.rho if kind == "sm" else base
    n, horizon = x.rho.shape
    weight = np.ones((n, horizon))
    if steps < horizon:
        weight[:, steps:] = base[:, : horizon - steps]
    for back in range(min(steps, horizon)):
        weight[:, back:] *= x.rho[:, : horizon - back]
    return weight


def marginal(x: Stepped, kind: str, form: str, steps: int | None) -> Terms:
    """SM and SAM estimators: `is`, `snis`, `dr` (E V(s_0) + sum g^t m_t (r_t + g V_{t+1} - Q_t)), `sndr`."""
    if form == "dm":
        return dm(x)
    w = marginal_weight(x, kind, steps)
    normalised = form.startswith("sn")
    if form in ("is", "snis"):
        return _sum(w, x.r, x.discount, normalised=normalised, assumes=_MARKOV)
    if x.q is None or x.v is None or x.v0 is None:
        raise MissingColumns("q_hat: no value predictions in the log; add state_action_value_prediction")
    after = np.concatenate([x.v[:, 1:], np.zeros((len(w), 1))], axis=1)  # V_T = 0 stands at the end
    error = x.discount * w * (x.r + x.gamma * after - x.q)
    tops: tuple[Floats, ...]
    bottoms: tuple[Floats | None, ...]
    if normalised:
        tops, bottoms = (x.v0, *_columns(error)), (None, *_columns(w))
    else:
        tops, bottoms = (x.v0 + error.sum(axis=1),), (None,)
    return Terms(
        family="ratio",
        numerators=tops,
        denominators=bottoms,
        weighted=(x.discount * w * x.r).sum(axis=1),
        weight=w,
        assumes=_MARKOV,
    )


def trajectory_terms(name: EstimatorName, x: Stepped) -> Terms:
    """Terms of a named trajectory estimator."""
    base = name.base
    if base == "dm":
        return dm(x)
    if base in ("tis", "sntis"):
        return tis(x, normalised=base == "sntis")
    if base in ("pdis", "snpdis"):
        return pdis(x, normalised=base == "snpdis")
    if base in ("dr", "sndr"):
        return dr(x, normalised=base == "sndr")
    if base == "drl":
        return drl(x)
    kind, form = base.split("_")
    steps = name.parameters.get("n_step_pdis")
    return marginal(x, kind, form, None if steps is None else int(steps))


def ips_like(x: Stepped) -> Terms:
    """PDIS: what binds the doubly robust forms."""
    return pdis(x, normalised=False)
