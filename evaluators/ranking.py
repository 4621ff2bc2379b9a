"""Ranks that may be believed: a range of places for each agent, and no forced order."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from evaluators.comparison import AgentValues, Rules, SeedPool, holm, paired_difference


@dataclass(frozen=True, slots=True)
class Rank:
    """Places that an agent may have: all true ranks lie inside with a chance of at least 1 - alpha.

    Attributes:
        agent: name.
        rank_low: 1 + number of agents that are significantly better.
        rank_high: number of agents - number that are significantly worse.
        tie_group: for display only: every agent of a group is significantly better than all of later groups; within
            one, some may be separated and the ranges say which. Groups from 1.
        worlds: place by the point estimate in each judge world.
    """

    agent: str
    rank_low: int
    rank_high: int
    tie_group: int
    worlds: tuple[int, ...] = ()


def rank_agents(
    agents: Mapping[str, AgentValues],
    *,
    higher_is_better: bool = True,
    alpha: float = 0.05,
    rules: Rules | None = None,
    comparable: Collection[frozenset[str]] | None = None,
) -> tuple[Rank, ...]:
    """Ranks from Holm over all pairs (Mogstad, Romano, Shaikh and Wilhelm, 2024), best point estimate first.

    A pair whose difference is withheld is not separated.

    Args:
        agents: name -> values of the primary metric.
        higher_is_better: direction of the metric.
        alpha: chance that any true rank lies outside.
        rules: how the metric may be published.
        comparable: pairs whose simulated difference may be believed; the others are not separated. None: all.
    """
    names = list(agents)
    pool = SeedPool.of(agents.values())
    pairs = [(i, j) for i in range(len(names)) for j in range(i)]
    p_values = [
        paired_difference(agents[names[i]], agents[names[j]], pool, rules=rules).p_value
        if comparable is None or frozenset((names[i], names[j])) in comparable
        else None
        for i, j in pairs
    ]
    sign = 1 if higher_is_better else -1
    value = np.array([sign * agents[name].value for name in names])
    better = np.zeros((len(names), len(names)), bool)  # [i, j]: i is significantly better than j
    for (i, j), p in zip(pairs, holm(p_values), strict=True):
        if p is not None and p <= alpha:
            winner, loser = (i, j) if value[i] > value[j] else (j, i)
            better[winner, loser] = True
    by_world = np.array([sign * agents[name].by_world for name in names])  # [K, M]
    place = 1 + (by_world[None, :, :] > by_world[:, None, :]).sum(axis=1)  # [K, M]

    ranks = []
    order = np.argsort(-value, kind="stable")
    group = 1
    for at, i in enumerate(order):
        # A withheld comparison separates nobody, so it never lets two agents look ordered.
        group += int(at > 0 and bool(better[np.ix_(order[:at], order[at:])].all()))
        ranks.append(
            Rank(
                names[i],
                rank_low=1 + int(better[:, i].sum()),
                rank_high=len(names) - int(better[i].sum()),
                tie_group=group,
                worlds=tuple(int(x) for x in place[i]),
            )
        )
    return tuple(ranks)
