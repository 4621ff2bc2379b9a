"""What trajectories need beyond the log: value predictions by fitted-Q evaluation, marginal ratios by counts.

Both are cross-fitted by user: no trajectory is predicted by a model that saw its user.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluators.off_policy.records import Trajectories
from evaluators.off_policy.reward_model import user_folds
from evaluators.off_policy.terms import Units
from simulator.errors import LogError

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FittedQ:
    """Value predictions of the evaluation policy.

    Attributes:
        q_hat: [N, T, A] predicted value from each step on, under the evaluation policy after it.
        bellman_residual: mean over steps of r + g V_{t+1} - Q_t on the folds that were not fitted; 0 if right.
        bellman_error: its user-cluster standard error.
        method: how it was made.
    """

    q_hat: Floats
    bellman_residual: float
    bellman_error: float
    method: str


def _discrete(state: NDArray[Any] | None) -> NDArray[np.int64]:
    if state is None or np.asarray(state).ndim != 2:
        raise LogError(
            "state: discrete states [trajectories, steps] are needed here; add them, or give the predictions"
        )
    return np.unique(np.asarray(state), return_inverse=True)[1].reshape(np.asarray(state).shape)


def fitted_q(
    log: Trajectories, gamma: float, rng: np.random.Generator, *, model: Any = None, folds: int = 2
) -> FittedQ:
    """Fitted-Q evaluation (Le, Voloshin, Yue 2019), backwards: Q_t = r_t + g E_pi_e Q_{t+1}, one fit for each step.

    Discrete states (integers [N, T]) use cell means; feature states [N, T, d] use a scikit-learn regressor (default:
    gradient-boosted trees) on state and one-hot action. Right only where the model class holds the value.
    """
    if log.state is None:
        raise LogError("state: no value predictions and no state in the log to fit them from; add either")
    n, steps = log.action.shape
    actions = log.pi_e.shape[2]
    fold = user_folds(log.cluster, log.n_users, n, folds, rng)
    tabular = log.state.ndim == 2
    cells = _discrete(log.state) if tabular else None
    q = np.zeros((n, steps, actions))
    for f in range(folds):
        fit = np.flatnonzero(fold != f)
        out = np.flatnonzero(fold == f)
        after_fit = np.zeros(len(fit))  # V_{t+1} of the rows that are fitted; 0 past the end
        for t in range(steps - 1, -1, -1):
            live = log.alive[fit, t]
            rows = fit[live]
            if len(rows) == 0:
                after_fit = np.zeros(len(fit))
                continue
            target = log.reward[rows, t] + gamma * after_fit[live]
            if cells is not None:
                table = _cell_means(cells[rows, t], log.action[rows, t], target, int(cells.max()) + 1, actions)
                here, there = table[cells[fit, t]], table[cells[out, t]]
            else:
                fitted = _fit(model, _features(log.state[rows, t], log.action[rows, t], actions), target)
                here, there = (_all_actions(fitted, log.state[r, t], actions) for r in (fit, out))
            after_fit = np.einsum("na,na->n", log.pi_e[fit, t], here) * live
            q[out, t] = there * log.alive[out, t][:, None]
    v = np.einsum("nta,nta->nt", log.pi_e, q)
    taken = np.take_along_axis(q, log.action[:, :, None], axis=2)[:, :, 0]
    after = np.concatenate([v[:, 1:], np.zeros((n, 1))], axis=1)
    residual = ((log.reward + gamma * after - taken) * log.alive).mean(axis=1)
    units = Units.of(log.cluster, log.n_users, n)
    mean = units.mean(residual)
    scores = mean.scores()
    how = "cell means" if tabular else "regression"
    return FittedQ(
        q, mean.value, float(np.sqrt(scores @ scores)), f"fitted-Q evaluation by {how}, {folds} folds of users"
    )


def _cell_means(
    state: NDArray[np.int64], action: NDArray[np.int64], target: Floats, states: int, actions: int
) -> Floats:
    cell = state * actions + action
    count = np.bincount(cell, minlength=states * actions)
    total = np.bincount(cell, weights=target, minlength=states * actions)
    # a cell that was never seen gets the step's mean: the log says nothing about it
    return np.where(count > 0, total / np.maximum(count, 1), target.mean()).reshape(states, actions)


def _features(state: NDArray[Any], action: NDArray[np.int64], actions: int) -> Floats:
    return np.concatenate([np.asarray(state, dtype=np.float64), np.eye(actions)[action]], axis=1)


def _all_actions(fitted: Any, state: NDArray[Any], actions: int) -> Floats:
    return np.stack([fitted.predict(_features(state, np.full(len(state), a), actions)) for a in range(actions)], axis=1)


def _fit(model: Any, x: Floats, y: Floats) -> Any:
    from sklearn.base import clone

    if model is None:
        from sklearn.ensemble import HistGradientBoostingRegressor

        model = HistGradientBoostingRegressor(max_iter=100, early_stopping=False, random_state=0)
    return clone(model).fit(x, y)


def marginal_ratios(
    log: Trajectories, rho: Floats, rng: np.random.Generator, *, folds: int = 2
) -> tuple[Floats, Floats]:
    """State and state-action marginal ratios [N, T] by counts, for discrete states.

    The state ratio is E[w_{t-1} | s_t = s], the mean weight up to the step among the other folds' trajectories that
    are in that state at that step; a state that they never reach keeps the trajectory's own weight.
    """
    state = _discrete(log.state)
    n, steps = state.shape
    states = int(state.max()) + 1
    before = np.concatenate([np.ones((n, 1)), np.cumprod(rho, axis=1)[:, :-1]], axis=1)
    fold = user_folds(log.cluster, log.n_users, n, folds, rng)
    ratio = before.copy()
    for f in range(folds):
        fit, out = fold != f, fold == f
        for t in range(steps):
            live = fit & log.alive[:, t]
            count = np.bincount(state[live, t], minlength=states)
            total = np.bincount(state[live, t], weights=before[live, t], minlength=states)
            seen = count[state[out, t]] > 0
            mean = total / np.maximum(count, 1)
            ratio[out, t] = np.where(seen & log.alive[out, t], mean[state[out, t]], before[out, t])
    return ratio, ratio * rho
