"""How far each way of estimating an effect from a log agrees with the exact one, which the simulator knows.

Simulated users are dealt to agent or baseline with a chance that depends on who they are, as a campaign would; one
outcome of each user is seen. A naive difference of means is then wrong, and each method shows what it makes of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from evaluators.causal.learners import cross_fitted_effects
from evaluators.causal.scores import FLOOR, FOLDS, Trial, doubly_robust, mean_effect
from evaluators.estimate import Estimate
from evaluators.fairness.groups import FEWEST_USERS
from evaluators.intervals import cluster_index
from evaluators.off_policy.reward_model import user_folds
from simulator.streams import stream, stream_word

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

STEEP = 1.0
"""Log odds of being served by the agent gained with one standard deviation of the score that targets users."""
METHODS = ("difference of means", "inverse propensity", "s", "t", "x", "r", "dr", "doubly robust")


@dataclass(frozen=True, slots=True)
class Assignment:
    """Who is served by the agent and what a log would know of that.

    Attributes:
        treated: [U] 1 served by the agent.
        p: [U] estimated chance of it, cross-fitted by user.
    """

    treated: Ints
    p: Floats


def targeted(x: Floats, score: Floats, user: Ints, root: np.random.SeedSequence) -> Assignment:
    """Deal users to the arms by a score of theirs, and estimate the propensities as if the score were not known.

    Args:
        x: [U, d] what is known of the users before.
        score: [U] users with a higher one are more often served by the agent; a function of x.
        user: [U] the cluster.
        root: root of the streams.
    """
    from simulator.causal_models import elastic_net_propensity

    index, n_users = cluster_index(user, len(user))
    place = np.arange(len(user)) if index is None else index
    spread = float(score.std())
    chance = 1 / (1 + np.exp(-STEEP * (score - score.mean()) / (spread if spread > 0 else 1.0)))
    treated = (stream(root, "causal", "targeted").random(n_users)[place] < chance).astype(np.int64)
    if n_users < 2 * FEWEST_USERS or min(int(treated.sum()), int((1 - treated).sum())) < FEWEST_USERS:
        return Assignment(treated, np.full(len(user), 0.5))  # an arm is too small, so every method is withheld
    fold = user_folds(index, n_users, len(user), FOLDS, stream(root, "causal", "propensity folds"))
    p = np.empty(len(user))
    for k in range(FOLDS):
        seed = stream_word(root, "causal", "targeted", k, bits=31)
        p[fold == k] = elastic_net_propensity(x[fold != k], treated[fold != k], seed=seed)(x[fold == k])
    return Assignment(treated, np.clip(p, FLOOR, 1 - FLOOR))


def methods_beside_the_truth(
    agent: Floats,
    baseline: Floats,
    x: Floats,
    user: Ints,
    assignment: Assignment,
    root: np.random.SeedSequence,
    *,
    metric: str,
    level: float = 0.95,
) -> dict[str, Estimate]:
    """Effect of agent instead of baseline by each method; the truth is the mean of `agent - baseline`.

    Learners have no valid interval and none is given (`evaluators.causal.learners`).

    Args:
        agent: [U] metric of each user under the agent.
        baseline: [U] the same user and luck under the baseline.
        x: [U, d] what is known of the users before.
        user: [U] the cluster.
        assignment: who is served by whom, the same for all agents.
        root: root of the streams.
        metric: name of the metric.
        level: of the intervals.
    """
    treated, p = assignment.treated, assignment.p
    y = np.where(treated == 1, agent, baseline)
    what = f"effect of agent instead of baseline on {metric}, users dealt by who they are"
    n_users = len(np.unique(user))
    if min(len(np.unique(user[treated == arm])) for arm in (0, 1)) < FEWEST_USERS:
        why = f"users: an arm has fewer than {FEWEST_USERS}; fly more users"
        return {name: Estimate.withhold(f"{what}; {name}", why, n=n_users, level=level) for name in METHODS}
    trial = Trial(x, treated, y, p, user)
    scores = doubly_robust(trial, root, learner="t")
    one: Floats = treated.astype(np.float64)
    zero: Floats = (1 - treated).astype(np.float64)
    out = {
        "difference of means": _hajek(y, one, zero, user, f"{what}; difference of means, no adjustment", level),
        "inverse propensity": _hajek(
            y, one / p, zero / (1 - p), user, f"{what}; inverse propensity, normalised", level
        ),
    }
    for name in ("s", "t", "x", "r", "dr"):
        effect = scores.effect if name == "t" else cross_fitted_effects(trial, scores, root, name)
        how = f"{what}; mean effect predicted by causalml's {name} learner, no valid interval"
        out[name] = Estimate(float(effect.mean()), None, None, level, n_users, how)
    robust = mean_effect(scores.difference, user, level=level, method=f"{what}; cross-fitted doubly robust scores")
    out["doubly robust"] = replace(robust, level=level)
    return out


def _hajek(y: Floats, one: Floats, zero: Floats, user: Ints, method: str, level: float) -> Estimate:
    """Difference of two weighted means: the mean of scores whose normalisers are put in."""
    treated, control = float(one @ y / one.sum()), float(zero @ y / zero.sum())
    n = len(y)
    centred = one * (y - treated) * n / one.sum() - zero * (y - control) * n / zero.sum()
    return mean_effect(centred + (treated - control), user, level=level, method=method)
