"""Continuous actions: the policy is blurred by a kernel, and that blurred policy is valued without bias.

A policy that always takes a(x) has no density, so its own value has no unbiased estimate; smoothing the weights
(Kallus, Zhou 2018) has a bias that nothing bounds. Hence the estimand here is the policy that draws its action from a
kernel around a(x), cut to the range of actions: its density over the logging density is an ordinary weight that
averages 1, and every bandit estimator, interval and rule holds as it stands. A smaller bandwidth is nearer to the
policy itself and has heavier weights; the estimates at half and twice the bandwidth stand in the diagnostics.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluators.off_policy.bandit import Reduced, Weighted
from evaluators.off_policy.records import Rounds, checked_users, floats_of
from evaluators.off_policy.reward_model import default_model, fit_model, user_folds
from simulator.errors import InputError, LogError

Floats = NDArray[np.float64]

NODES = 15
"""Nodes of the quadrature that averages a reward model over the blurred policy."""


@dataclass(frozen=True, slots=True)
class ContinuousRounds:
    """n logged rounds whose action is a number: a price, a bid, a dose, a share of the slate.

    Attributes:
        action: [n] action taken.
        reward: [n] observed reward.
        pscore: [n] density of the logging policy at the action, above 0 (it may exceed 1).
        action_range: (lowest, highest) action that the logging policy could take at every context.
        user: [n] the cluster; None: rows are assumed independent.
        context: [n, d] what the logging policy saw; for the reward model.

    Raises:
        LogError: lengths differ, a density is not above 0, an action is outside the range, ...
    """

    action: Floats
    reward: Floats
    pscore: Floats
    action_range: tuple[float, float]
    user: NDArray[Any] | None = None
    context: Floats | None = None
    cluster: NDArray[np.int64] | None = field(init=False, default=None)
    n_users: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "action", floats_of("action", self.action))
        n = len(self.action)
        low, high = (float(end) for end in self.action_range)
        if not (np.isfinite([low, high]).all() and low < high):
            raise InputError(f"action_range: '{low:g},{high:g}' must be two numbers, the lower first")
        if n == 0 or self.action.ndim != 1 or not (self.action.min() >= low and self.action.max() <= high):
            raise LogError(f"action: must be [n] numbers within the action_range {low:g} to {high:g}; mend one of them")
        for name in ("reward", "pscore"):
            values = floats_of(name, getattr(self, name))
            if values.shape != (n,) or not np.isfinite(values).all():
                raise LogError(f"{name}: shape {values.shape} must be {(n,)} finite numbers; one for each round")
            put(self, name, values)
        if not self.pscore.min() > 0:
            raise LogError(f"pscore[{int(self.pscore.argmin())}]: a density must be above 0; drop these rounds")
        if self.context is not None:
            context = floats_of("context", self.context)
            put(self, "context", context[:, None] if context.ndim == 1 else context)
            if len(self.context) != n or not np.isfinite(self.context).all():
                raise LogError(
                    f"context: shape {self.context.shape} must be finite numbers, a row for each of {n} rounds"
                )
        user, cluster, n_users = checked_users(self.user, n)
        put(self, "user", user)
        put(self, "cluster", cluster)
        put(self, "n_users", n_users)

    def __len__(self) -> int:
        return len(self.action)


@dataclass(frozen=True, slots=True)
class Blur:
    """The Epanechnikov kernel around each policy action, cut to the range of actions and scaled to integrate to 1."""

    centre: Floats
    bandwidth: float
    low: float
    high: float

    def density(self, action: Floats) -> Floats:
        """[n] density of the blurred policy at one action for each round."""
        u = (action - self.centre) / self.bandwidth
        return np.where(np.abs(u) < 1, 0.75 * (1 - u * u), 0.0) / self.bandwidth / self._mass()

    def _ends(self) -> tuple[Floats, Floats]:
        return (
            np.clip((self.low - self.centre) / self.bandwidth, -1, 1),
            np.clip((self.high - self.centre) / self.bandwidth, -1, 1),
        )

    def _mass(self) -> Floats:
        bottom, top = ((3 * u - u**3) / 4 for u in self._ends())
        return np.maximum(top - bottom, 1e-12)

    def nodes(self) -> tuple[Floats, Floats]:
        """[n, k] actions and [n, k] weights that integrate a smooth function over the blurred policy."""
        at, weight = np.polynomial.legendre.leggauss(NODES)
        bottom, top = self._ends()
        u = (bottom + top)[:, None] / 2 + (top - bottom)[:, None] / 2 * at
        weights = 0.75 * (1 - u * u) * weight * (top - bottom)[:, None] / 2
        return self.centre[:, None] + self.bandwidth * u, weights / weights.sum(axis=1, keepdims=True)


def blur(log: ContinuousRounds, policy: Any, bandwidth: float) -> Blur:
    """The blurred policy.

    Raises:
        InputError: the bandwidth is not above 0.
        LogError: the policy's actions are no numbers within the range, or not one for each round.
    """
    if not (np.isfinite(bandwidth) and bandwidth > 0):
        raise InputError(f"bandwidth: {bandwidth:g} must be a number above 0, in the unit of the action")
    centre = np.asarray(policy, dtype=np.float64)
    low, high = log.action_range
    if centre.shape != (len(log),) or not np.all((centre >= low) & (centre <= high)):
        raise LogError(f"pi_e: must be [{len(log)}] actions within {low:g} to {high:g}, one for each round")
    return Blur(centre, float(bandwidth), low, high)


def reduce_continuous(
    log: ContinuousRounds, policy: Blur, model: Floats | None, reward_range: tuple[float, float] | None
) -> Reduced:
    """Weights of the blurred policy and, from a model's values [n, 1 + nodes], its q and v."""
    w = policy.density(log.action) / log.pscore
    q = v = None
    span = (0.0, 0.0)
    if model is not None:
        q = np.ascontiguousarray(model[:, 0])
        v = (policy.nodes()[1] * model[:, 1:]).sum(axis=1)
        span = (float(model.min()), float(model.max()))
    return Reduced(Weighted(w, log.reward, q, v, reward_range, span), None)


def cross_fit_values(
    log: ContinuousRounds, policy: Blur, rng: np.random.Generator, *, model: Any = None, folds: int = 3
) -> tuple[Floats, str]:
    """[n, 1 + nodes] model values at the logged action and at the policy's nodes, cross-fitted by user."""
    binary = bool(np.all((log.reward == 0) | (log.reward == 1)))
    chosen = default_model(binary=binary) if model is None else model
    context = np.zeros((len(log), 0)) if log.context is None else log.context
    spread = log.action_range[1] - log.action_range[0]

    def design(rows: NDArray[np.int64], action: Floats) -> Floats:
        a = ((action - log.action_range[0]) / spread)[:, None]
        return np.concatenate([context[rows], a, a * a, context[rows] * a], axis=1)

    fold = user_folds(log.cluster, log.n_users, len(log), folds, rng)
    at = np.column_stack([log.action, policy.nodes()[0]])
    out = np.empty(at.shape)
    for f in range(folds):
        fit, rows = np.flatnonzero(fold != f), np.flatnonzero(fold == f)
        y = log.reward[fit]
        if binary and y.min() == y.max():
            out[rows] = y[0]
            continue
        fitted = fit_model(chosen, design(fit, log.action[fit]), y, None, binary=binary)
        for k in range(at.shape[1]):
            x = design(rows, at[rows, k])
            predicted = fitted.predict_proba(x)[:, 1] if binary and hasattr(fitted, "predict_proba") else None
            out[rows, k] = fitted.predict(x) if predicted is None else predicted
    name = type(chosen.steps[-1][1] if hasattr(chosen, "steps") else chosen).__name__
    return out, f"cross-fitted by user, {folds} folds, {name}"


def as_rounds(log: ContinuousRounds) -> Rounds:
    """The clusters, rewards and contexts of the log in the record that intervals and rules read."""
    n = len(log)
    return Rounds(np.zeros(n, np.int64), log.reward, np.ones(n), user=log.user, context=log.context)
