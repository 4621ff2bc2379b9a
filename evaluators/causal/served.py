"""Effect of being served by an agent instead of the baseline: exact in the simulator, and estimated as from a log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from evaluators.causal.refutations import Refutation, covariate_balance, refute
from evaluators.causal.scores import Trial, doubly_robust, mean_effect
from evaluators.estimate import Estimate
from evaluators.fairness.groups import FEWEST_USERS, UNKNOWN
from simulator.streams import stream

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ServedEffect:
    """Effect of being served by an agent instead of the baseline, estimated as if from an experiment, and exactly.

    Attributes:
        estimated: "all" and `attribute=group` -> doubly robust estimate from users dealt to the two arms.
        exact: the same keys -> mean paired difference of the two flights.
        refutations: of the effect on all users.
    """

    estimated: Mapping[str, Estimate]
    exact: Mapping[str, Estimate]
    refutations: tuple[Refutation, ...]


def served_effect(
    agent: Floats,
    baseline: Floats,
    x: Floats,
    user: Ints,
    attributes: Mapping[str, NDArray[np.str_]],
    root: np.random.SeedSequence,
    *,
    metric: str,
    level: float = 0.95,
) -> ServedEffect:
    """Deal simulated users to agent or baseline by a fair coin and estimate the effect as an experiment would.

    The simulator knows both outcomes of each user; the estimate sees one. Beside the exact effect it shows what such
    an analysis is worth, by group.

    Args:
        agent: [U] metric of each user under the agent.
        baseline: [U] the same user and noise under the baseline.
        x: [U, d] what is known of the users before: features, history length, share of likes, ...
        user: [U] the cluster.
        attributes: name -> [U] group of each user; "" is unknown.
        root: root of the streams.
        metric: name of the metric.
        level: simultaneous over the groups of an attribute.
    """
    users, index = np.unique(user, return_inverse=True)
    coin = stream(root, "causal", "arms").integers(0, 2, len(users))[index]
    trial = Trial(x, coin, np.where(coin == 1, agent, baseline), np.full(len(user), 0.5), user)
    what = f"effect of agent instead of baseline on {metric}, simulated"
    if len(users) < FEWEST_USERS:
        why = f"effect: {len(users)} users, needs {FEWEST_USERS}; fly more users"
        nothing = Estimate.withhold(what, why, n=len(users), level=level)
        return ServedEffect({"all": nothing}, {"all": nothing}, ())
    scores = doubly_robust(trial, root, learner="t")
    refutations = refute(trial, scores, root, balance=covariate_balance(trial))
    failed = [f"{r.name}: {r.detail}" for r in refutations if not r.passed]
    estimated, exact = {}, {}
    how = "users dealt to arms by a fair coin, cross-fitted doubly robust scores, user-cluster t"
    cells: list[tuple[str, NDArray[np.bool_], float, str]] = [("all", np.ones(len(user), bool), level, "")]
    for attribute, group in attributes.items():
        names = [str(name) for name in np.unique(group) if name != UNKNOWN]
        large = max(1, sum(len(np.unique(user[group == name])) >= FEWEST_USERS for name in names))
        for name in names:
            note = f", {attribute} = {name}, simultaneous over {large} groups"
            cells.append((f"{attribute}={name}", group == name, 1 - (1 - level) / large, note))
    for key, mine, at, note in cells:
        n = len(np.unique(user[mine]))
        if n < FEWEST_USERS:
            small = f"group size: {key} has {n} users, needs {FEWEST_USERS}; fly more users"
            estimated[key] = exact[key] = Estimate.withhold(f"{what}{note}", small, n=n, level=level)
            continue
        one = mean_effect(scores.difference[mine], user[mine], level=at, method=f"{what}{note}; {how}")
        estimated[key] = replace(one, level=level) if not failed else Estimate.withhold(one.method, failed[0], n=n)
        paired = mean_effect(
            (agent - baseline)[mine], user[mine], level=at, method=f"{what}{note}; both flights, paired"
        )
        exact[key] = replace(paired, level=level)
    return ServedEffect(estimated, exact, refutations)
