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
) -> tuple[Floats, Floats, str]:
    """State and state-action marginal ratios [N, T] step by step, and how they were made.

    With m_0 = 1, the ratio of the next state is E[m_t rho_t | s_{t+1}]: by cell means for discrete states [N, T] (Xie,
    Ma, Wang 2019), by ridge regression on the features of the state, their squares and products for [N, T, d] (minimax
    weight learning, Uehara, Huang, Jiang 2020, with linear classes has this closed form, step by step). Fitted on the
    other folds of users. A discrete state that they never reach keeps the ratio that its trajectory came with.
    """
    n, steps = log.action.shape
    tabular = np.asarray(log.state).ndim == 2
    cells = _discrete(log.state) if tabular else None
    fold = user_folds(log.cluster, log.n_users, n, folds, rng)
    ratio = np.ones((n, steps))
    for f in range(folds):
        out, fit = fold == f, fold != f
        carried = np.ones((n, steps))  # of both parts, by models of the fitting part
        for t in range(1, steps):
            before = carried[:, t - 1] * rho[:, t - 1]
            live = fit & log.alive[:, t]
            if not live.any():
                carried[:, t] = before
                continue
            if cells is not None:
                found = _cell_ratio(cells[:, t], before, live)
            else:
                assert log.state is not None
                found = _ridge_ratio(np.asarray(log.state[:, t], dtype=np.float64), before, live)
            carried[:, t] = np.where(log.alive[:, t], found, before)
        ratio[out] = carried[out]
    how = "by counts" if tabular else "by ridge regression on the state"
    return ratio, ratio * rho, f"{how}, step by step, cross-fitted by user"


def _cell_ratio(state: NDArray[np.int64], before: Floats, live: NDArray[np.bool_]) -> Floats:
    states = int(state.max()) + 1
    count = np.bincount(state[live], minlength=states)
    mean = np.bincount(state[live], weights=before[live], minlength=states) / np.maximum(count, 1)
    return np.where(count[state] > 0, mean[state], before)


def _ridge_ratio(state: Floats, before: Floats, live: NDArray[np.bool_]) -> Floats:
    """Regression of the ratio so far on the state; ratios are not negative, and average 1 where they were fitted."""
    centre, spread = state[live].mean(axis=0), np.maximum(state[live].std(axis=0), 1e-12)
    z = np.clip((state - centre) / spread, -5, 5)
    pairs = [z[:, i] * z[:, j] for i in range(z.shape[1]) for j in range(i, z.shape[1])] if z.shape[1] <= 20 else []
    x = np.column_stack([np.ones(len(z)), z, *pairs])
    gram = x[live].T @ x[live] + np.diag([0.0, *np.ones(x.shape[1] - 1)])
    found = np.maximum(x @ np.linalg.solve(gram, x[live].T @ before[live]), 0.0)
    return found * (before[live].mean() / max(float(found[live].mean()), 1e-12))
