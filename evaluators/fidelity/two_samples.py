"""Can a classifier tell real units from simulated ones (Lopez-Paz, Oquab 2017)?"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from evaluators.estimate import Estimate
from evaluators.fidelity.checks import Check, Floats, Ints, judged, not_made
from evaluators.fidelity.prediction import top_rows
from evaluators.fidelity.scored_rows import ScoredRows
from evaluators.intervals import t_quantile

BLOCK = 10
"""Rows of a unit where there are no sessions: the mean session of EVALUATION's measurements has 9 to 10 steps."""
DRAWS = 5


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
            LogisticRegression(C=0.1, solver="newton-cholesky"),
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


def answer_blocks(user: Ints, rng: np.random.Generator, *, size: int = BLOCK) -> Ints:
    """[n] block of each row: each user's rows dealt at random into blocks of about `size` rows."""
    order = np.lexsort((rng.random(len(user)), user))
    dealt = user[order]
    new_user = np.r_[True, dealt[1:] != dealt[:-1]]
    start, which = np.flatnonzero(new_user), np.cumsum(new_user) - 1
    count = np.diff(np.r_[start, len(dealt)])
    blocks = np.maximum(1, np.rint(count / size)).astype(np.int64)
    place = (np.arange(len(dealt)) - start[which]) * blocks[which] // count[which]
    out = np.empty(len(user), np.int64)
    out[order] = (np.cumsum(blocks) - blocks)[which] + place
    return out


def answer_features(p: Floats, y: Floats, block: Ints) -> NDArray[np.float64]:
    """[blocks, 3] features of the answers in each block: mean, mean in the better-scored half, log number of rows.

    Nothing about the order of the rows: where time stamps are bursts of entry (like films rated in a row) the log does
    not identify it.
    """
    count = np.bincount(block)
    half = top_rows(p, block, share=0.5)
    top = np.bincount(block, y * half) / np.bincount(block, half)
    return np.column_stack([np.bincount(block, y) / count, top, np.log(count)])


def answers_classifier(rows: ScoredRows, rng: np.random.Generator, *, level: float = 0.95) -> Check:
    """The classifier on answers to the logged rows, for logs without sessions: real against drawn from p.

    The unit is a block of ten of a user's rows, about a session's length. Sums over all of a user's rows tell more
    the longer the log is, so that one band for all logs would judge their length; a block's do not. The order within
    a block says nothing. Several draws from p a row keep the simulated side's luck small beside the users'.
    """
    block = answer_blocks(rows.user, rng)
    user = np.zeros(int(block.max()) + 1, np.int64)
    user[block] = rows.user
    real = answer_features(rows.p, rows.y, block)
    draws = [(rng.random(len(rows)) < rows.p).astype(np.float64) for _ in range(DRAWS)]
    simulated = np.vstack([answer_features(rows.p, drawn, block) for drawn in draws])
    what = f"answers to the logged rows, blocks of {BLOCK}, {DRAWS} draws of each"
    return two_sample_classifier(real, user, simulated, np.tile(user, DRAWS), rng, level=level, what=what)
