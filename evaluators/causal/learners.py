"""causalml's learners side by side: who is moved, checked against doubly robust scores of users they did not see.

A learner's mean prediction has no interval of its own (the naive one covers a quarter of the time). What can be tested
is its ranking and its scale: effects of the fifths that it ranks highest to lowest (GATES), a calibration slope, and
the area it gains over targeting at random (Chernozhukov, Demirer, Duflo, Fernandez-Val, 2018).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluators.causal.scores import TREES_FROM, Scores, Trial, mean_effect
from evaluators.causal.targeting import qini
from evaluators.estimate import Estimate
from evaluators.intervals import standard_error, t_quantile, user_sums
from simulator.streams import stream, stream_word

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FIFTHS = 5
FEWEST_ROWS_FOR_A_FOREST = 1_000
"""causalml's trees ask for 100 rows a leaf and 20 of each arm; with fewer rows they are stumps."""


@dataclass(frozen=True, slots=True)
class LearnerResult:
    """What one learner says of rows whose users it did not see.

    Attributes:
        learner: its name.
        mean: mean predicted effect, without an interval; or why it was not fitted.
        calibration: slope of the doubly robust scores on the predicted effects: 1 is right, 0 says nothing.
        qini: area gained over targeting at random.
        gates: (lower and upper predicted effect, effect) of fifths of the rows by predicted effect, lowest first.
    """

    learner: str
    mean: Estimate
    calibration: Estimate
    qini: Estimate
    gates: tuple[tuple[float, float, Estimate], ...]

    def to_json(self) -> dict[str, Any]:
        """JSON-ready dictionary."""
        return {
            "learner": self.learner,
            "mean": self.mean.to_json(),
            "calibration": self.calibration.to_json(),
            "qini": self.qini.to_json(),
            "gates": [{"from": low, "to": high, "effect": effect.to_json()} for low, high, effect in self.gates],
        }


def compare_learners(
    trial: Trial,
    scores: Scores,
    root: np.random.SeedSequence,
    learners: Sequence[str],
    *,
    level: float = 0.95,
    resamples: int = 200,
) -> tuple[LearnerResult, ...]:
    """Fit each learner on the folds of the doubly robust scores and test what it says of the other users.

    Args:
        trial: the rows.
        scores: their doubly robust scores, with folds.
        root: root of the streams.
        learners: names of `simulator.causal_models.LEARNERS`.
        level: of the intervals; those of the fifths hold together.
        resamples: of the Qini's user bootstrap.
    """
    from simulator.causal_models import FORESTS, is_binary

    clusters = trial.clusters
    n_users = int(clusters.max()) + 1
    out = []
    for name in learners:
        why = None
        if name in FORESTS and len(trial) < FEWEST_ROWS_FOR_A_FOREST:
            why = f"rows: {len(trial)}, a forest needs {FEWEST_ROWS_FOR_A_FOREST}; log more"
        elif name == "uplift_forest" and not all(is_binary(trial.treated[f.fit], trial.y[f.fit]) for f in scores.folds):
            why = "outcome: its trees compare shares of yes, so it has to be 0 or 1, with both in each arm"
        if why is not None:
            withheld = Estimate.withhold(f"causalml {name}", why, n=n_users, level=level)
            out.append(LearnerResult(name, withheld, withheld, withheld, ()))
            continue
        effect = cross_fitted_effects(trial, scores, root, name)
        of = replace(scores, effect=effect)
        confounded = "; its trees use no propensity, so a confounded log biases it" if name in FORESTS else ""
        how = f"mean of effects predicted by causalml's {name} learner, cross-fitted by user; no valid interval"
        mean = Estimate(float(effect.mean()), None, None, level, n_users, how + confounded)
        rng = stream(root, "causal", "qini", name)
        ranking = qini(of, trial.y, clusters, rng, resamples=resamples, level=level)
        out.append(LearnerResult(name, mean, calibration(of, clusters, level), ranking, gates(of, clusters, level)))
    return tuple(out)


def cross_fitted_effects(trial: Trial, scores: Scores, root: np.random.SeedSequence, learner: str) -> Floats:
    """[n] effects predicted for each row by a learner that saw none of its user."""
    from simulator.causal_models import fit_cate

    effect = np.empty(len(trial))
    for k, fold in enumerate(scores.folds):
        model = fit_cate(
            trial.x[fold.fit], trial.treated[fold.fit], trial.y[fold.fit], fold.p,
            learner=learner, trees=len(trial) >= TREES_FROM, seed=stream_word(root, "causal", "learner", k, bits=31),
        )  # fmt: skip
        effect[fold.out] = model(trial.x[fold.out], scores.p[fold.out])
    return effect


def calibration(scores: Scores, clusters: Ints, level: float = 0.95) -> Estimate:
    """Slope of the doubly robust scores on the predicted effects, user-cluster t interval."""
    method = "slope of doubly robust scores on predicted effects (1 calibrated, 0 uninformative), user-cluster t"
    centred = scores.effect - scores.effect.mean()
    n_users = int(clusters.max()) + 1
    spread = float(centred @ centred)
    if spread <= 1e-12 * len(centred) * max(1.0, float(scores.effect @ scores.effect)):
        return Estimate.withhold(method, "calibration: the same effect is predicted for all", n=n_users, level=level)
    slope = float(centred @ scores.difference) / spread
    residual = scores.difference - scores.difference.mean() - slope * centred
    error = standard_error(user_sums(centred * residual, clusters, n_users) / spread)
    half = t_quantile(level, n_users - 1) * error
    return Estimate(slope, slope - half, slope + half, level, n_users, method)


def gates(
    scores: Scores, clusters: Ints, level: float = 0.95, parts: int = FIFTHS
) -> tuple[tuple[float, float, Estimate], ...]:
    """Effects of equal parts of the rows by predicted effect, lowest first, simultaneous (Bonferroni).

    Cut points are those of each scoring model's own fold, so that rows are compared with rows of the same model.
    """
    part = np.empty(len(scores.effect), np.int64)
    for fold in scores.folds:
        mine = scores.effect[fold.out]
        rank = np.argsort(np.argsort(mine, kind="stable"), kind="stable")
        part[fold.out] = rank * parts // len(mine)
    out = []
    for k in range(parts):
        mine = part == k
        method = f"effect of the rows in part {k + 1} of {parts} by predicted effect, simultaneous over {parts}"
        found = mean_effect(scores.difference[mine], clusters[mine], level=1 - (1 - level) / parts, method=method)
        low, high = float(scores.effect[mine].min()), float(scores.effect[mine].max())
        out.append((low, high, replace(found, level=level)))
    return tuple(out)


def linear_drivers(
    x: Floats, effect: Floats, clusters: Ints, columns: Sequence[str], level: float = 0.95
) -> dict[str, Estimate]:
    """By how much the effect rises with one standard deviation of each feature, the others held.

    Best linear projection of the effect (Semenova, Chernozhukov, 2021): least squares on scaled features,
    cluster-robust errors, simultaneous over the features (Bonferroni).

    Args:
        x: [n, d] features.
        effect: [n] doubly robust scores of a logged effect, or the effects themselves where the simulator knows them.
        clusters: [n] number of each row's user.
        columns: [d] names of the features.
        level: of all intervals together.
    """
    n_users = int(clusters.max()) + 1
    spread = x.std(axis=0)
    use = np.flatnonzero(spread > 0)
    if not len(use) or n_users <= len(use) + 1:
        return {}
    design = np.column_stack([np.ones(len(x)), (x[:, use] - x[:, use].mean(axis=0)) / spread[use]])
    inverse = np.linalg.pinv(design.T @ design)
    slope = inverse @ (design.T @ effect)
    residual = effect - design @ slope
    sums = np.stack([user_sums(design[:, j] * residual, clusters, n_users) for j in range(design.shape[1])])
    variance = inverse @ (sums @ sums.T) @ inverse * n_users / (n_users - 1)
    half = t_quantile(1 - (1 - level) / len(use), n_users - 1) * np.sqrt(np.maximum(np.diag(variance), 0))
    method = f"change of the effect with one sd, others held, cluster-robust, simultaneous over {len(use)} features"
    return {
        columns[int(j)]: Estimate(
            float(slope[k]), float(slope[k] - half[k]), float(slope[k] + half[k]), level, n_users, method
        )
        for k, j in enumerate(use, start=1)
    }
