"""Cross-fitted doubly robust (AIPW) scores, whose outcome models are causalml's learners."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluators.estimate import Estimate
from evaluators.fidelity import ratio_by_user
from evaluators.intervals import (
    cluster_index,
    user_sums,
)
from evaluators.off_policy.reward_model import user_folds
from simulator.errors import LogError
from simulator.streams import stream, stream_word

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FOLDS = 3
TREES_FROM = 5_000
"""Rows from which boosted trees replace penalised linear models as causalml's base learners."""
PROPENSITY_ROWS = 20_000
"""Rows that the elastic-net propensity model is fitted on at most: its solver takes minutes for more."""
FLOOR = 0.01
"""Estimated propensities are kept this far from 0 and 1; where that binds for over 1 % of the rows, it withholds."""


@dataclass(frozen=True, slots=True)
class Trial:
    """n rows of one treatment against its control.

    Attributes:
        x: [n, d] covariates measured before the treatment.
        treated: [n] 1 treatment, 0 control.
        y: [n] outcome, measured after it.
        p: [n] known probability of the treatment, or None where it has to be estimated.
        user: [n] the cluster, or None where rows are assumed independent.
    """

    x: Floats
    treated: Ints
    y: Floats
    p: Floats | None = None
    user: NDArray[Any] | None = None

    def __len__(self) -> int:
        return len(self.y)

    @property
    def clusters(self) -> Ints:
        """[n] number of each row's cluster."""
        index, _ = cluster_index(self.user, len(self))
        return np.arange(len(self)) if index is None else index

    def take(self, rows: NDArray[np.bool_]) -> Trial:
        """Some of the rows."""
        return Trial(
            self.x[rows],
            self.treated[rows],
            self.y[rows],
            None if self.p is None else self.p[rows],
            None if self.user is None else self.user[rows],
        )


@dataclass(frozen=True, slots=True)
class Fold:
    """Rows that are scored by models of other users.

    Attributes:
        out: rows that are scored.
        fit: rows of all other users.
        p: [len(fit)] their probability of the treatment, by a model of the same users.
    """

    out: Ints
    fit: Ints
    p: Floats


@dataclass(frozen=True, slots=True)
class Scores:
    """Cross-fitted doubly robust scores of n rows.

    Attributes:
        treated: [n] score of the outcome under treatment: its mean is E[Y(1)].
        control: [n] score of the outcome under control: its mean is E[Y(0)].
        effect: [n] conditional effect predicted by a model that saw none of the row's user.
        expected: [n] outcome expected whatever the treatment.
        p: [n] probability of the treatment that was used.
        floored: share of rows whose estimated propensity was at the floor.
        folds: who was fitted on when the rows of each fold were scored.
    """

    treated: Floats
    control: Floats
    effect: Floats
    expected: Floats
    p: Floats
    floored: float
    folds: tuple[Fold, ...] = ()

    @property
    def difference(self) -> Floats:
        """[n] score of the effect."""
        return self.treated - self.control


def doubly_robust(trial: Trial, root: np.random.SeedSequence, *, learner: str = "x", folds: int = FOLDS) -> Scores:
    """AIPW scores, cross-fitted by user with causalml's learners; propensities too where they are not known.

    Args:
        trial: the rows.
        root: root of the streams that deal users into folds and seed the learners.
        learner: a name of `causal_models.LEARNERS`, for the conditional effect.
        folds: users are dealt into so many.
    """
    from simulator.causal_models import elastic_net_propensity, fit_effect_learner

    index, n_users = cluster_index(trial.user, len(trial))
    fold = user_folds(index, n_users, len(trial), folds, stream(root, "causal", "folds"))
    control, treated, effect, p = (np.empty(len(trial)) for _ in range(4))
    trees = len(trial) >= TREES_FROM
    dealt = []
    for k in range(folds):
        fit, out = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        seed = stream_word(root, "causal", "learner", k, bits=31)
        if len(np.unique(trial.treated[fit])) < 2:
            raise LogError("treatment: a fold of the users holds one arm only; log more users of both arms")
        if trial.p is None:
            some = fit
            if len(fit) > PROPENSITY_ROWS:
                some = np.sort(stream(root, "causal", "propensity", k).choice(fit, PROPENSITY_ROWS, replace=False))
            model = elastic_net_propensity(trial.x[some], trial.treated[some], seed=seed)
            p_fit, p[out] = model(trial.x[fit]), model(trial.x[out])
        else:
            p_fit, p[out] = trial.p[fit], trial.p[out]
        dealt.append(Fold(out, fit, p_fit))
        predict = fit_effect_learner(
            trial.x[fit], trial.treated[fit], trial.y[fit], p_fit, learner=learner, trees=trees, seed=seed
        )
        models = predict(trial.x[out], p[out])
        control[out], treated[out], effect[out] = models.control, models.treated, models.effect
    floored = 0.0
    if trial.p is None:
        floored = float(np.mean((p < FLOOR) | (p > 1 - FLOOR)))
        p = np.clip(p, FLOOR, 1 - FLOOR)
    return Scores(
        treated + trial.treated * (trial.y - treated) / p,
        control + (1 - trial.treated) * (trial.y - control) / (1 - p),
        effect,
        p * treated + (1 - p) * control,
        p,
        floored,
        tuple(dealt),
    )


def mean_effect(difference: Floats, user: Ints, *, level: float = 0.95, method: str) -> Estimate:
    """Mean of doubly robust scores with the user-cluster t interval."""
    return ratio_by_user(difference, np.ones(len(difference)), user, level=level, method=method)


def influence(difference: Floats, clusters: Ints) -> Floats:
    """[G] influence of each user on the mean of per-row scores."""
    n_users = int(clusters.max()) + 1
    centred = user_sums(difference - difference.mean(), clusters, n_users)
    return centred / len(difference)
