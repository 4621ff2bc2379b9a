"""Can a classifier tell real units from simulated ones (Lopez-Paz, Oquab 2017)?"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from evaluators.estimate import Estimate
from evaluators.fidelity.checks import Check, Floats, Ints, judged, not_made
from evaluators.fidelity.prediction import top_rows
from evaluators.fidelity.scored_rows import ScoredRows
from evaluators.intervals import t_quantile


def two_sample_classifier(
    real: NDArray[np.float64],
    real_user: Ints,
    simulated: NDArray[np.float64],
    simulated_user: Ints,
    rng: np.random.Generator,
    *,
    folds: int = 5,
    level: float = 0.95,
    what: str = "session features",
) -> Check:
    """AUC of a classifier that tells real units from simulated ones (Lopez-Paz, Oquab 2017); upper <= .60.

    Cross-fitted by user, so that a user's real and simulated units are scored by a model that saw neither, with a
    user-cluster interval. A weak filter: a 20 % wrong click rate gives an AUC of .54; it refuses gross fakes only.

    Args:
        real: [n, d] features of the log's units. simulated: [m, d] the same of the simulator.
        real_user: [n] user of each real unit.
        simulated: [m, d] features of the simulated units.
        simulated_user: [m] user whose state the unit was simulated from.
        rng: deals users into folds.
        folds: number of folds.
        level: of the interval.
        what: kind of feature, for the method.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PolynomialFeatures, StandardScaler

    name, threshold = "two-sample classifier", "upper <= 0.6"
    features = np.vstack([real, simulated])
    label = np.r_[np.ones(len(real)), np.zeros(len(simulated))]
    users, index = np.unique(np.r_[real_user, simulated_user], return_inverse=True)
    n_users = len(users)
    if n_users < 30:
        return not_made(name, threshold, f"classifier: {n_users} users; needs 30")
    fold_of = rng.permutation(n_users) % folds
    fold = fold_of[index]
    influence = np.zeros(n_users)
    total_pairs, auc_sum = 0.0, 0.0
    parts = []
    for k in range(folds):
        test = fold == k
        train = ~test
        n1, n0 = int(label[test].sum()), int((1 - label[test]).sum())
        if n1 == 0 or n0 == 0 or len(np.unique(label[train])) < 2:
            continue
        model = make_pipeline(
            StandardScaler(),
            PolynomialFeatures(2, include_bias=False),
            StandardScaler(),
            LogisticRegression(C=0.1, max_iter=500),
        )
        model.fit(features[train], label[train])
        value, psi = _auc_placements(model.decision_function(features[test]), label[test])
        parts.append((n1 * n0, value, psi, index[test]))
        total_pairs += n1 * n0
        auc_sum += n1 * n0 * value
    if not total_pairs:
        return not_made(name, threshold, "classifier: no fold holds real and simulated units")
    auc = auc_sum / total_pairs
    # Scores of different folds are on different scales: AUC within folds, averaged by pairs.
    for pairs, _, psi, where in parts:
        influence += np.bincount(where, psi * pairs / total_pairs, minlength=n_users)
    se = math.sqrt(n_users / (n_users - 1) * float((influence**2).sum()))
    t = t_quantile(level, n_users - 1)
    method = (
        f"AUC real against simulated, {what}, logistic on squares and products, {folds} folds by user, user-cluster t"
    )
    return judged(name, Estimate(auc, auc - t * se, auc + t * se, level, n_users, method), threshold, below=0.60)


def _auc_placements(score: Floats, label: Floats) -> tuple[float, Floats]:
    """AUC and each unit's contribution to its error (DeLong placements, centred, divided by the class size)."""
    positive, negative = np.sort(score[label == 1]), np.sort(score[label == 0])
    above = (np.searchsorted(negative, score, "left") + np.searchsorted(negative, score, "right")) / (2 * len(negative))
    below = 1 - (np.searchsorted(positive, score, "left") + np.searchsorted(positive, score, "right")) / (
        2 * len(positive)
    )
    auc = float(above[label == 1].mean())
    return auc, np.where(label == 1, (above - auc) / len(positive), (below - auc) / len(negative))


def outcome_features(p: Floats, y: Floats, user: Ints) -> tuple[NDArray[np.float64], Ints]:
    """Features of each user's answers to the rows that they were shown: [users, 3], and the users.

    Mean outcome, mean outcome in the better-scored half, log number of rows. Nothing about the order of the rows: where
    time stamps are bursts of entry (like films rated in a row) the log does not identify it.
    """
    users, index, count = np.unique(user, return_inverse=True, return_counts=True)
    n = len(users)
    half = top_rows(p, user, share=0.5)
    top = np.bincount(index, y * half, minlength=n) / np.bincount(index, half, minlength=n)
    return np.column_stack([np.bincount(index, y, minlength=n) / count, top, np.log(count)]), users


def answers_classifier(rows: ScoredRows, rng: np.random.Generator, *, level: float = 0.95) -> Check:
    """The classifier on users' answers to the logged rows, where there are no sessions: printed, not counted.

    Real outcomes against outcomes drawn from p. Its band was measured for sessions; sums over a user's rows tell more
    the more rows there are, so that band would judge the length of the log.
    """
    drawn = (rng.random(len(rows)) < rows.p).astype(np.float64)
    real, users = outcome_features(rows.p, rows.y, rows.user)
    simulated, _ = outcome_features(rows.p, drawn, rows.user)
    check = two_sample_classifier(real, users, simulated, users, rng, level=level, what="users' answers to logged rows")
    if check.estimate.value is None:
        return check
    shown = f"AUC {check.estimate.value:.3f} on users' answers to the logged rows is printed, not counted"
    return replace(check, verdict="not made", reason=f"the log has no sessions to tell apart; {shown}")
