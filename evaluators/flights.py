"""All flights of a run in one table, and what may be said from it: values, differences, ranks.

A flight (one agent, training, world and seed) is reduced to a few numbers a user where it was flown; only these travel
between processes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from evaluators.comparison import (
    AgentValues,
    Comparison,
    Paired,
    Rules,
    SeedPool,
    compare_with,
    paired_difference,
    paired_ratio,
    simulated_mean,
)
from evaluators.estimate import Estimate
from evaluators.intervals import Ratios, standard_error
from evaluators.metrics import Reference, click_counts, metric_named, real_users, user_metric, why_undefined
from evaluators.power import Power, power_of
from evaluators.ranking import Rank, rank_agents
from evaluators.sessions import Sessions

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Flight:
    """One flight reduced to the users' metrics.

    Attributes:
        agent, training_seed, world, seed, session: which flight.
        user: [U] real users in order of first appearance.
        values: metric -> [U].
        undefined: metric -> why it has no value here.
        clicks: [U] primary behaviours, and shown: [U] shown positions, over all sessions of the user.
    """

    agent: str
    training_seed: int
    world: int
    seed: int
    session: int
    user: NDArray[np.int64]
    values: Mapping[str, Array]
    undefined: Mapping[str, str]
    clicks: Array
    shown: Array


def measure(sessions: Sessions, reference: Reference, metrics: Sequence[str]) -> Flight:
    """Metrics of each user of a flight. `regret` needs the oracle's flight too and is filled in by `gather`."""
    names = list(dict.fromkeys([*(name for name in metrics if name != "regret"), "reward"]))
    users, place = real_users(sessions)
    clicks, shown = (
        np.bincount(place, count, len(users)).astype(np.float64, copy=False) for count in click_counts(sessions)
    )
    undefined = {name: why for name in names if (why := why_undefined(name, sessions, reference)) is not None}
    return Flight(
        agent=sessions.agent,
        training_seed=sessions.training_seed,
        world=sessions.world,
        seed=sessions.seed,
        session=sessions.session,
        user=users,
        values={name: user_metric(name, sessions, reference) for name in names},
        undefined=undefined,
        clicks=clicks,
        shown=shown,
    )


@dataclass(frozen=True)
class Flights:
    """The metrics of all agents on the same users, worlds and luck.

    Attributes:
        user: [U] real users.
        metrics: names, the primary one first.
        values: metric -> agent -> values [T, M, U].
        undefined: (metric, agent) -> why the metric has no value.
        clicks, shown: agent -> [U] primary behaviours and shown positions in all flights.
        barred: agent -> why none of its numbers from judge worlds is given: it failed, or may have seen their rows.
    """

    user: NDArray[np.int64]
    metrics: tuple[str, ...]
    values: Mapping[str, Mapping[str, AgentValues]]
    undefined: Mapping[tuple[str, str], str] = field(default_factory=dict)
    clicks: Mapping[str, Array] = field(default_factory=dict)
    shown: Mapping[str, Array] = field(default_factory=dict)
    barred: Mapping[str, str] = field(default_factory=dict)

    @property
    def agents(self) -> tuple[str, ...]:
        """Agents with numbers, in the order in which they were gathered."""
        return tuple(name for name in self.values[self.metrics[0]] if name not in self.barred)

    @property
    def n_worlds(self) -> int:
        """M."""
        return max((values.n_worlds for by_agent in self.values.values() for values in by_agent.values()), default=0)

    def why_not(self, metric: str, *agents: str) -> str | None:
        """Why there is no number of this metric for these agents, or None."""
        for agent in agents:
            if agent in self.barred:
                return f"{agent}: {self.barred[agent]}"
            if (metric, agent) in self.undefined:
                return self.undefined[metric, agent]
            if agent not in self.values.get(metric, {}):
                return f"{agent}: not flown with the metric {metric}"
        return None

    def usable(self, metric: str) -> dict[str, AgentValues]:
        """Agent -> values, of the agents for which the metric has a value."""
        return {name: self.values[metric][name] for name in self.agents if self.why_not(metric, name) is None}

    def per_user(self, metric: str, agent: str) -> Array:
        """[U] values of an agent, mean over training seeds and worlds."""
        return np.asarray(self.values[metric][agent].per_user.mean(axis=(0, 1)))

    def rules(self, metric: str, agent: str | None = None) -> Rules:
        """How the mean of a metric may be published."""
        row = metric_named(metric)
        if not row.rate or agent is None:
            return Rules(rewarded=row.of == "user")
        return Rules(
            rate=True,
            events=float(self.clicks[agent].sum()),
            trials=float(self.shown[agent].sum()),
            design_effect=self._design_effect(),
        )

    def _design_effect(self) -> float | None:
        """Variance of the rate pooled over all agents over that of as many independent trials, at least 1."""
        events, trials = sum(self.clicks.values()), sum(self.shown.values())
        ratios = Ratios(np.asarray(events)[None], np.asarray(trials)[None])
        rate, n = ratios.value, float(np.sum(trials))
        return max(1.0, standard_error(ratios.scores()) ** 2 * n / (rate * (1 - rate))) if 0 < rate < 1 else None

    def simulated(self, agent: str, metric: str, *, level: float = 0.95) -> Estimate:
        """Value in the judge worlds, with the part of the worlds in its interval."""
        why = self.why_not(metric, agent)
        if why is not None:
            return Estimate.withhold("mean over judge worlds", why, level=level)
        agents = self.usable(metric)
        if metric == "regret" and not agents[agent].per_user.any():
            return Estimate(0.0, 0.0, 0.0, level, len(self.user), "0 for every user: the bound, or what it shows")
        return simulated_mean(agents[agent], SeedPool.of(agents.values()), level=level, rules=self.rules(metric, agent))

    def worst_served(self, agent: str, metric: str, share: float) -> AgentValues:
        """Values whose mean is that of the worst-served share of users, and whose variance is that of this mean.

        Conditional value at risk of the users' means (Rockafellar, Uryasev 2000): with q the quantile of the share,
        q + 1[user's mean worse than q] (value - q) / share, the delta method at the quantile that was found.
        """
        given = self.values[metric][agent]
        sign = 1.0 if metric_named(metric).higher_is_better else -1.0
        of_user = sign * given.per_user.mean(axis=(0, 1))  # [U]
        quantile = np.quantile(of_user, share, method="inverted_cdf")
        tail = quantile + (of_user < quantile) * (sign * given.per_user - quantile) / share
        return replace(given, per_user=sign * tail)

    def cvar(self, agent: str, metric: str, share: float, *, level: float = 0.95) -> Estimate:
        """Mean over the worst-served share of users, in the judge worlds."""
        why = self.why_not(metric, agent)
        if why is None and metric_named(metric).of == "set":
            why = f"{metric} is one number for all users together, no user has a worse one than others"
        if why is not None:
            return Estimate.withhold("mean of the worst-served users", why, level=level)
        tails = {name: self.worst_served(name, metric, share) for name in self.usable(metric)}
        found = simulated_mean(tails[agent], SeedPool.of(tails.values()), level=level, rules=Rules(rewarded=False))
        return replace(found, method=f"worst-served {share:.0%} of users; {found.method}")

    def difference(self, agent: str, vs: str, metric: str, *, level: float = 0.95) -> Paired:
        """Paired difference over these worlds."""
        why = self.why_not(metric, agent, vs)
        if why is not None:
            return Paired(Estimate.withhold("paired difference", why, level=level), None, (), None)
        agents = self.usable(metric)
        return paired_difference(
            agents[agent], agents[vs], SeedPool.of(agents.values()), level=level, rules=self.rules(metric)
        )

    def ratio(self, agent: str, vs: str, metric: str, *, level: float = 0.95) -> Paired:
        """Paired ratio over these worlds."""
        why = self.why_not(metric, agent, vs)
        if why is not None:
            return Paired(Estimate.withhold("paired ratio", why, level=level), None, (), None)
        agents = self.usable(metric)
        return paired_ratio(agents[agent], agents[vs], agents.values(), level=level, rules=self.rules(metric))

    def comparisons(self, baselines: Sequence[str]) -> tuple[Comparison, ...]:
        """Every agent against each baseline in every metric: one Holm family for each metric and baseline."""
        found: list[Comparison] = []
        everyone = [*self.agents, *self.barred]
        for metric in self.metrics:
            usable = self.usable(metric)
            for baseline in dict.fromkeys(baselines):
                exploratory = metric != self.metrics[0]
                if baseline in usable:
                    found += compare_with(metric, baseline, usable, rules=self.rules(metric), exploratory=exploratory)
                for agent in everyone:
                    why = self.why_not(metric, agent, baseline)
                    if why is not None and agent != baseline:
                        withheld = Estimate.withhold("paired difference", why)
                        found.append(Comparison(metric, agent, baseline, withheld, None, None, exploratory))
        return tuple(found)

    def power(self, comparisons: Iterable[Comparison]) -> tuple[Power, ...]:
        """What this run could have seen of each difference, and what would decide those it did not."""
        found = []
        for one in comparisons:
            if one.components is not None:
                gain = one.difference.diagnostics.get("pairing_gain")
                found.append(
                    power_of(one.metric, one.agent, one.baseline, one.difference, one.components, pairing_gain=gain)
                )
        return tuple(found)

    def ranking(
        self, metric: str | None = None, *, alpha: float = 0.05, comparable: Collection[frozenset[str]] | None = None
    ) -> tuple[Rank, ...]:
        """Rank ranges by a metric (default the primary one), of the agents with numbers."""
        metric = self.metrics[0] if metric is None else metric
        return rank_agents(
            self.usable(metric),
            higher_is_better=metric_named(metric).higher_is_better,
            alpha=alpha,
            rules=self.rules(metric),
            comparable=comparable,
        )


def gather(
    flights: Iterable[Flight],
    metrics: Sequence[str],
    *,
    learners: Collection[str] = (),
    oracle: str | None = None,
    barred: Mapping[str, str] | None = None,
    planned: int | None = None,
) -> Flights:
    """The table of all flights; simulation seeds and sessions are averaged within the user.

    Args:
        flights: every agent in the same worlds, seeds and sessions, on the same users.
        metrics: names, the primary one first.
        learners: agents whose training is one draw of many.
        oracle: name of the agent that bounds what is reachable, for `regret`.
        barred: agents without numbers, and why; their flights, if any, are ignored.
        planned: users planned, where looking at the differences decided how many were flown.

    Raises:
        ValueError: flights are missing, come twice, or are not on the same users, so nothing can be paired.
    """
    barred = dict(barred or {})
    table: dict[str, dict[tuple[int, int, int, int], Flight]] = {}
    for flight in flights:
        if flight.agent in barred:
            continue
        key = (flight.training_seed, flight.world, flight.seed, flight.session)
        if key in table.setdefault(flight.agent, {}):
            raise ValueError(f"{flight.agent}: flight {key} came twice")
        table[flight.agent][key] = flight
    if not table:
        empty: dict[str, AgentValues] = {}
        return Flights(np.zeros(0, np.int64), tuple(metrics), dict.fromkeys(metrics, empty), barred=barred)

    first = next(iter(next(iter(table.values())).values()))
    luck = {key[1:] for key in next(iter(table.values()))}
    values: dict[str, dict[str, AgentValues]] = {name: {} for name in metrics}
    undefined: dict[tuple[str, str], str] = {}
    for agent, flown in table.items():
        seeds = sorted({key[0] for key in flown})
        if set(flown) != {(seed, *rest) for seed in seeds for rest in luck}:
            raise ValueError(f"{agent}: flights are missing: every training has to fly in all worlds, seeds, sessions")
        if any(not np.array_equal(flight.user, first.user) for flight in flown.values()):
            raise ValueError(f"{agent}: flights are not on the same users in the same order, so they do not pair")
        for name in metrics:
            why = [flight.undefined[name] for flight in flown.values() if name in flight.undefined]
            if name == "regret" and oracle not in table:
                why = ["oracle: it did not fly; add an agent of kind oracle"]
            if why:
                undefined[name, agent] = why[0]
                continue
            bound = table[oracle] if name == "regret" and oracle is not None else None
            values[name][agent] = AgentValues(_stack(name, flown, seeds, luck, bound), agent in learners, planned)
    # An agent whose primary metric is undefined still has a row.
    for name in metrics:
        for agent in table:
            values[name].setdefault(agent, AgentValues(np.full((1, 1, len(first.user)), np.nan)))
    return Flights(
        user=first.user,
        metrics=tuple(metrics),
        values=values,
        undefined=undefined,
        clicks={agent: np.sum([f.clicks for f in flown.values()], axis=0) for agent, flown in table.items()},
        shown={agent: np.sum([f.shown for f in flown.values()], axis=0) for agent, flown in table.items()},
        barred=barred,
    )


def _stack(
    metric: str,
    flown: Mapping[tuple[int, int, int, int], Flight],
    seeds: Sequence[int],
    luck: Collection[tuple[int, int, int]],
    bound: Mapping[tuple[int, int, int, int], Flight] | None,
) -> Array:
    """[T, M, U] values, averaged over simulation seeds and sessions."""

    def of(key: tuple[int, int, int, int]) -> Array:
        if bound is None:
            return flown[key].values[metric]
        reached = next(flight for there, flight in bound.items() if there[1:] == key[1:])
        return reached.values["reward"] - flown[key].values["reward"]

    worlds = sorted({world for world, _, _ in luck})
    return np.array(
        [
            [np.mean([of((t, *key)) for key in sorted(luck) if key[0] == world], axis=0) for world in worlds]
            for t in seeds
        ]
    )
