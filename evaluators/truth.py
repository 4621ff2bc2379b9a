"""Agents in the true world beside the judge worlds, where a log's truth is known: the strongest evidence there is.

Each agent flies in both with the same users, histories and luck, so what it truly earns stands beside what the worlds
that were fitted on the log said of it. Nothing is fitted to the true world, and no agent learns in it before its
flight there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from evaluators.comparison import ratio_between_worlds
from evaluators.estimate import Estimate
from evaluators.fidelity import Check, UserValues, not_made
from evaluators.fidelity.agreement import RANKING, ranking_agreement
from evaluators.flights import Flights
from evaluators.known import FEWEST_POLICIES, Simulated, Swept, confirmed, with_limits
from evaluators.report import EstimateModel, TruthDifference, TruthSection, TruthValue

TRUE_WORLD = "in the true world"
ORDER = f"{RANKING}, truth"


@dataclass(frozen=True, slots=True)
class Truth:
    """The flights of a run in the true world and in the judge worlds.

    Attributes:
        true: flights in the true world.
        judged: flights in the judge worlds.
        bounds: agents that read each world's own appeal, and so are other policies in the one than in the other.
    """

    true: Flights
    judged: Flights
    bounds: Collection[str]

    def value(self, agent: str, metric: str) -> Estimate:
        """What an agent truly earns."""
        found = self.true.simulated(agent, metric)
        return replace(found, method=f"{found.method}, {TRUE_WORLD}")

    def checks(self, moved: Callable[[str, str], Swept], rng: np.random.Generator) -> tuple[Check, ...]:
        """The primary metric of every policy, simulated over true, and the order of the policies.

        Args:
            moved: (agent, metric) -> how swept assumptions move what the judge worlds say.
            rng: draws the resamples of the order.
        """
        metric = self.true.metrics[0]
        both = {
            name: (self.judged.values[metric][name], true)
            for name, true in self.true.usable(metric).items()
            if name not in self.bounds and self.judged.why_not(metric, name) is None
        }
        checks = [
            self._check(name, metric, ratio_between_worlds(*pair, both.values(), rules=self.true.rules(metric)), moved)
            for name, pair in both.items()
        ]
        return (*checks, replace(self._order(metric, list(both), rng), name=ORDER))

    def _check(self, name: str, metric: str, ratio: Estimate, moved: Callable[[str, str], Swept]) -> Check:
        # Of the users who flew in both; a value corrected by the picks is of others, whom nobody flew.
        simulated = Simulated(self.judged.simulated(name, metric), moved(name, metric))
        true = self.value(name, metric)
        for one in (simulated.estimate, true):
            if one.value is None:
                ratio = Estimate.withhold(ratio.method, one.withheld or "", n=one.n, level=ratio.level)
        found = replace(ratio, method=f"simulated / {TRUE_WORLD}: {ratio.method}")
        return confirmed(f"truth: {metric} of {name}", found, simulated, f"{TRUE_WORLD} {with_limits(true)}")

    def _order(self, metric: str, policies: Sequence[str], rng: np.random.Generator) -> Check:
        """The same trained agents fly in both, so that users alone are resampled, those of both sides together."""
        if len(policies) < FEWEST_POLICIES:
            return not_made(RANKING, "lower > 0", f"{len(policies)} policies, needs {FEWEST_POLICIES}")
        true, judged = (np.stack([of.per_user(metric, name) for name in policies]) for of in (self.true, self.judged))
        return ranking_agreement(judged, UserValues(true, np.ones_like(true)), rng, same_users=True)

    def section(self, source: str, baselines: Sequence[str], checks: Sequence[Check]) -> TruthSection:
        """What the report says of it.

        Args:
            source: of the log.
            baselines: that agents are compared with.
            checks: of `checks`.
        """
        metrics, agents = self.true.metrics, self.true.agents
        simulated = {(c.metric, c.agent, c.baseline): c.difference for c in self.judged.comparisons(baselines)}
        order = next(check.estimate for check in checks if check.name == ORDER)
        return TruthSection(
            source=source,
            values=[
                TruthValue(
                    agent=agent,
                    metric=metric,
                    true=EstimateModel.of(true),
                    simulated=EstimateModel.of(judged),
                    holds=None if agent in self.bounds else _holds(judged, true),
                )
                for metric in metrics
                for agent in agents
                for true, judged in [(self.value(agent, metric), self.judged.simulated(agent, metric))]
            ],
            differences=[
                TruthDifference(
                    agent=one.agent,
                    metric=one.metric,
                    baseline=one.baseline,
                    true=EstimateModel.of(replace(one.difference, method=f"{one.difference.method}, {TRUE_WORLD}")),
                    simulated=EstimateModel.of(judged),
                    holds=None if {one.agent, one.baseline} & set(self.bounds) else _holds(judged, one.difference),
                    p_adjusted=one.p_adjusted,
                )
                for one in self.true.comparisons(baselines)
                for judged in [simulated[one.metric, one.agent, one.baseline]]
            ],
            ranking_agreement=EstimateModel.of(order),
        )


def _holds(judged: Estimate, true: Estimate) -> bool | None:
    """Whether the interval of the judge worlds holds the true value; None where either is withheld."""
    if judged.low is None or judged.high is None or true.value is None:
        return None
    return judged.low <= true.value <= judged.high
