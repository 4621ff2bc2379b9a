"""Reward models q_hat(x, a), cross-fitted by user: no row is predicted by a model that saw any row of its user."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluators.off_policy.records import Rounds
from simulator.errors import InputError, LogError, did_you_mean

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MAX_INTERACTIONS = 400


def user_folds(cluster: Ints | None, n_users: int, n: int, folds: int, rng: np.random.Generator) -> Ints:
    """[n] fold of each row; all rows of a user share one. Folds hold equally many users, give or take one."""
    if n_users < folds:
        raise LogError(f"user: {n_users} users cannot be split into {folds} folds; log more users")
    of_user = rng.permutation(np.arange(n_users) % folds)
    return of_user if cluster is None else of_user[cluster]


class _Design:
    """Features of (context, action): context, action (one-hot or its own features), products where they are few."""

    def __init__(self, rounds: Rounds, actions: int) -> None:
        self.context = np.zeros((len(rounds), 0)) if rounds.context is None else rounds.context
        self.features = rounds.action_features
        self.actions = actions
        if self.features is not None and (self.features.ndim not in (2, 3) or self.features.shape[-2] != actions):
            raise LogError(f"action_features: shape {self.features.shape} must be [{actions}, f] or [n, {actions}, f]")
        if self.features is not None and self.features.ndim == 3 and len(self.features) != len(rounds):
            raise LogError(f"action_features: shape {self.features.shape} must begin with {len(rounds)} rounds")
        width = actions if self.features is None else self.features.shape[-1]
        self.products = 0 < self.context.shape[1] * width <= MAX_INTERACTIONS

    def rows(self, rows: Ints, action: Ints) -> Floats:
        context = self.context[rows]
        if self.features is None:
            act = np.zeros((len(rows), self.actions))
            act[np.arange(len(rows)), action] = 1.0
        elif self.features.ndim == 2:
            act = self.features[action]
        else:
            act = self.features[rows, action]
        parts = [context, act]
        if self.products:
            parts.append((context[:, :, None] * act[:, None, :]).reshape(len(rows), -1))
        return np.concatenate(parts, axis=1)


def default_model(*, binary: bool) -> Any:
    """Ridge-penalised linear model on scaled features: logistic for yes/no rewards (calibrated by its likelihood)."""
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=500) if binary else Ridge(alpha=1.0))


SKLEARN = ("linear_model", "neighbors", "tree", "ensemble", "neural_network", "svm", "kernel_ridge", "gaussian_process")
MODELS = ("Regressor", "Regression", "Classifier", "Ridge", "Lasso", "ElasticNet", "SVR", "SVC", "CV")


def model_named(name: str, *, seed: int = 0) -> Any:
    """A scikit-learn regressor or classifier by the name of its class, with its own defaults and this seed.

    Raises:
        InputError: there is no such class, or it cannot be made without arguments.
    """
    from importlib import import_module

    known: dict[str, Any] = {}
    for part in SKLEARN:
        module = import_module(f"sklearn.{part}")
        known |= {each: getattr(module, each) for each in dir(module) if each.endswith(MODELS)}
        if name in known:
            break
    else:
        hint = did_you_mean(name, known) or "; give e.g. Ridge or HistGradientBoostingRegressor"
        raise InputError(f"reward_model: '{name}' is no regressor of scikit-learn{hint}")
    try:
        model = known[name]()
    except TypeError as error:
        raise InputError(
            f"reward_model: '{name}' needs arguments; give it from Python: reward_model={name}(..)"
        ) from error
    return model.set_params(random_state=seed) if "random_state" in model.get_params() else model


def fit_model(model: Any, x: Floats, y: Floats, weights: Floats | None, *, binary: bool) -> Any:
    """A copy of a model fitted to rows; a classifier of yes/no rewards that is no logistic regression is calibrated."""
    from sklearn.base import clone, is_classifier

    model = clone(model)
    step = ""
    if binary and is_classifier(model) and not _is_logistic(model):
        from sklearn.calibration import CalibratedClassifierCV

        model = CalibratedClassifierCV(model, cv=3)  # a tree's or a margin's vote is no probability
    elif hasattr(model, "steps"):
        step = model.steps[-1][0] + "__"
    target = y.astype(np.int64) if is_classifier(model) else y
    if weights is None:
        return model.fit(x, target)
    return model.fit(x, target, **{f"{step}sample_weight": weights})


def _is_logistic(model: Any) -> bool:
    last = model.steps[-1][1] if hasattr(model, "steps") else model
    return type(last).__name__.startswith("LogisticRegression")


def cross_fit_q(
    rounds: Rounds,
    n_actions: int,
    rng: np.random.Generator,
    *,
    model: Any = None,
    folds: int = 3,
    weights: Floats | None = None,
) -> tuple[Floats, str]:
    """Model values [n, A] by cross-fitting over users, and how they were made.

    Args:
        rounds: with context, action features, or both.
        n_actions: A.
        rng: splits the users.
        model: any scikit-learn regressor, or a classifier for 0/1 rewards (calibrated then); None: ridge-penalised
            logistic or linear regression on context, action and their products.
        folds: at least 2.
        weights: [n] importance weights for the "more robust doubly robust" fit (Farajtabar et al. 2018), or None.
            Propensities are never features of the model.

    Raises:
        LogError: the log holds neither context nor action features, or too few users.
    """
    if rounds.context is None and rounds.action_features is None:
        raise LogError("context: no q_hat and no context to fit one from; give either")
    if folds < 2:
        raise InputError(f"folds: {folds} must be 2 or more; a model may not predict the users that it was fitted on")
    binary = bool(np.all((rounds.reward == 0) | (rounds.reward == 1)))
    chosen = default_model(binary=binary) if model is None else model
    if not binary and hasattr(chosen, "predict_proba"):
        raise InputError("reward_model: a classifier needs 0/1 rewards; give a regressor")
    design = _Design(rounds, n_actions)
    fold = user_folds(rounds.cluster, rounds.n_users, len(rounds), folds, rng)
    q = np.empty((len(rounds), n_actions))
    for f in range(folds):
        fit, out = np.flatnonzero(fold != f), np.flatnonzero(fold == f)
        y = rounds.reward[fit]
        if binary and y.min() == y.max():
            q[out] = y[0]  # a fold without both outcomes: the constant is the model
            continue
        fitted = fit_model(
            chosen, design.rows(fit, rounds.action[fit]), y, None if weights is None else weights[fit], binary=binary
        )
        for a in range(n_actions):
            x = design.rows(out, np.full(len(out), a))
            if binary and hasattr(fitted, "predict_proba"):
                q[out, a] = fitted.predict_proba(x)[:, 1]
            else:
                q[out, a] = fitted.predict(x)
    name = type(chosen.steps[-1][1] if hasattr(chosen, "steps") else chosen).__name__
    return q, f"cross-fitted by user, {folds} folds, {name}"
