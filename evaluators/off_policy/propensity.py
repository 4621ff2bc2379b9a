"""Propensities of a log without them: a multinomial logit fitted by pairs of actions, cross-fitted by user.

Each action is set against the most frequent one on the rows of these two alone, by causalml's elastic-net logistic
model without isotonic calibration; the odds then make up p_k = o_k / sum_j o_j. One model against the rest, or an
isotonic step on small samples, is badly biased where an action is rare.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evaluators.off_policy.records import Rounds
from evaluators.off_policy.reward_model import user_folds
from simulator.errors import LogError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MAX_ACTIONS = 50
SEARCHED = 10
"""Actions up to which the mixing of each pair's penalty is searched: 50 actions would take minutes, and 64 fits a pair
in place of 16 move a propensity by little beside its own error."""
FLOOR = 1e-3
MAX_FLOORED = 0.01
METHOD = "propensities estimated with causalml (elastic net, pairs of actions, cross-fitted by user)"


def pairwise_propensities(
    context: Floats, action: Ints, fold: Ints, n_actions: int, *, seed: int = 0
) -> tuple[Floats, float]:
    """Estimated propensities [n, A] of all actions, and the share of rounds whose logged action is at the floor.

    Args:
        context: [n, d] what the logging policy saw.
        action: [n] in [0, A).
        fold: [n] fold of each round; models for a fold are fitted on the others.
        n_actions: A, at most 50.
        seed: of the solver.
    """
    from simulator.causal_models import elastic_net_propensity

    if n_actions > MAX_ACTIONS:
        raise LogError(
            f"action: {n_actions} actions are more than the {MAX_ACTIONS} that propensities can be estimated for; "
            "log pscore"
        )
    n = len(action)
    out = np.zeros((n, n_actions))
    for f in np.unique(fold):
        fit, rows = fold != f, fold == f
        counts = np.bincount(action[fit], minlength=n_actions)
        most = int(counts.argmax())
        odds = np.zeros((int(rows.sum()), n_actions))
        odds[:, most] = 1.0
        for k in range(n_actions):
            if k == most or counts[k] == 0:
                continue
            pair = fit & ((action == k) | (action == most))
            if counts[k] < 10:  # too few for the solver's own folds: the ratio of counts, without context
                odds[:, k] = counts[k] / counts[most]
                continue
            fitted = elastic_net_propensity(
                context[pair], (action[pair] == k).astype(np.int64), seed=seed,
                mixings=None if n_actions <= SEARCHED else (0.5,),
            )  # fmt: skip
            p = fitted(context[rows])
            odds[:, k] = p / (1 - p)
        out[rows] = odds / odds.sum(axis=1, keepdims=True)
    taken = out[np.arange(n), action]
    return out, float(np.mean(taken < FLOOR))


def estimate_propensities(
    rounds: Rounds, n_actions: int, rng: np.random.Generator, *, folds: int = 2
) -> tuple[Floats, float]:
    """Propensities [n, A] of rounds without pscore, and the share of rounds at the floor.

    Raises:
        LogError: no context, more than 50 actions, or too few users.
    """
    if rounds.context is None:
        raise LogError("pscore: not in the log, and no context to estimate it from; add either")
    context = rounds.context
    if rounds.position is not None and rounds.position.max() > 0:
        slots = np.eye(int(rounds.position.max()) + 1)[rounds.position]
        context = np.concatenate([context, slots[:, 1:]], axis=1)
    fold = user_folds(rounds.cluster, rounds.n_users, len(rounds), folds, rng)
    return pairwise_propensities(context, rounds.action, fold, n_actions, seed=int(rng.integers(2**31)))
