"""Where gates find their numbers: the flights of a run, and whatever else the run computed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from evaluators.comparison import AgentValues, Paired
from evaluators.estimate import Estimate
from evaluators.fairness import GroupTable, by_group
from evaluators.flights import Flights
from evaluators.gates import Evidence, GateEvidence, Term
from evaluators.intervals import t_quantile
from evaluators.metrics import METRICS
from evaluators.picks import UNLOGGED_CHOICE, Picks, ShiftedFlights, corrected, corrected_difference, picks_difference
from evaluators.ranking import Rank

OPTIMISM_BAND = 0.15
"""Two agents' log O/E on their own picks must differ by less than this for their simulated difference to decide."""

Fairness = Callable[[Flights, Term, str, float], Estimate]
OffPolicy = Callable[[Term, str, float], Estimate]
Corrected = Callable[[Flights, str, str, float, float | None], Estimate]
CorrectedDifference = Callable[[Flights, str, str, str, float], Estimate]
PicksDifference = Callable[[str, str, float], Estimate]


@dataclass(frozen=True)
class SimulatedEvidence:
    """Evidence of one run, as `evaluators.gates` asks for it.

    Attributes:
        flights: the judge worlds.
        swept: (part with its source, such as `assumed leave.satisfaction`, value, the same agents flown with it).
        mistrust: None where the simulator is trusted, else the checks that failed.
        given: under what condition the log's rows speak (`picks.said_of`). Where exposure was not logged picks are
            printed and correct nothing.
        corrected: (flights, agent, metric, level, share) -> value corrected by the picks check, of the worst-served
            share of users where one is given.
        corrected_difference: (flights, agent, vs, metric, level) -> its difference.
        picks_difference: (agent, vs, level) -> difference of the log O/E on their own picks.
        fairness: (flights, term, agent, level) -> gap or worst group, simultaneous.
        off_policy: (term, agent, level) -> value or difference on the log's own rounds.
    """

    flights: Flights
    swept: Sequence[tuple[str, float, Flights]] = ()
    mistrust: str | None = None
    given: str = ""
    corrected: Corrected | None = None
    corrected_difference: CorrectedDifference | None = None
    picks_difference: PicksDifference | None = None
    fairness: Fairness | None = None
    off_policy: OffPolicy | None = None
    _found: dict[tuple[Term, str, float], Evidence] = field(default_factory=dict, repr=False, compare=False)

    @property
    def self_selected(self) -> bool:
        """Whether users, or a policy that nobody logged, chose what has rows."""
        return self.given in UNLOGGED_CHOICE

    def _scope(self, metric: str) -> tuple[str, ...]:
        """The condition, for a metric of what users do: what was merely shown needs no log to be true."""
        return (self.given,) if self.given and METRICS[metric].behaviour else ()

    def sweeps(self) -> Iterable[tuple[str, float, GateEvidence]]:
        """The same evidence with the flights of each swept value."""
        for part, value, flights in self.swept:
            yield part, value, replace(self, flights=flights, swept=(), _found={})

    def look_up(self, term: Term, agent: str, level: float) -> Evidence:
        """What is known of a term for an agent, once; asking again costs nothing."""
        key = (term, agent, level)
        if key not in self._found:
            self._found[key] = self._look_up(term, agent, level)
        return self._found[key]

    def _look_up(self, term: Term, agent: str, level: float) -> Evidence:
        if term.statistic in ("off_policy", "off_policy_difference"):
            return self._logged(term, agent, level)
        why = self.flights.why_not(term.subject, *(name for name in (agent, term.vs) if name is not None))
        if why is not None:
            return Evidence(Estimate.withhold(term.statistic, why, level=level), n_worlds=self.flights.n_worlds)
        if term.statistic in ("mean", "cvar"):
            return self._mean(agent, term.subject, level, term.share)
        if term.statistic in ("difference", "ratio"):
            return self._paired(term, agent, level)
        if term.statistic == "rank":
            return self._rank(agent, term.subject, level)
        return self._fairness(term, agent, level)

    def _mean(self, agent: str, metric: str, level: float, share: float | None) -> Evidence:
        flights = self.flights
        found, usual = (_of_users(flights, agent, metric, at, share) for at in (level, 0.95))
        if not METRICS[metric].behaviour:
            # What was shown needs no correction: no model of taste is read to count it.
            return Evidence(found, usual, n_worlds=flights.n_worlds, scale=abs(found.value or 0))
        if self.self_selected:
            return Evidence(
                found,
                usual,
                n_worlds=flights.n_worlds,
                blocked=f"where exposure was not logged no mean decides a gate, {self.given}; gate on a difference",
            )
        if self.corrected is None:
            why = "picks check: not made, and judge worlds alone undersell or flatter; gate on a difference"
            return Evidence(Estimate.withhold("mean", why, level=level), n_worlds=flights.n_worlds)
        return Evidence(
            self.corrected(flights, agent, metric, level, share),
            self.corrected(flights, agent, metric, 0.95, share),
            n_worlds=flights.n_worlds,
            scope=("corrected by the picks check",),
        )

    def _paired(self, term: Term, agent: str, level: float) -> Evidence:
        assert term.vs is not None
        ask = self.flights.difference if term.statistic == "difference" else self.flights.ratio
        paired: Paired = ask(agent, term.vs, term.subject, level=level)
        behaviour = METRICS[term.subject].behaviour
        blocked, alternative = None, None
        if behaviour and not self.self_selected and agent != term.vs:
            blocked = self._optimism_differs(agent, term.vs)
            if blocked is not None and term.statistic == "difference" and self.corrected_difference is not None:
                alternative = self.corrected_difference(self.flights, agent, term.vs, term.subject, level)
        other = self.flights.values[term.subject][term.vs].value
        return Evidence(
            paired.estimate,
            ask(agent, term.vs, term.subject, level=0.95).estimate,
            worlds=paired.worlds,
            n_worlds=self.flights.n_worlds,
            blocked=blocked,
            alternative=alternative,
            scope=(*paired.scope, *self._scope(term.subject)),
            components=paired.components,
            scale=abs(other) if term.statistic == "difference" else 1.0,
        )

    def _optimism_differs(self, agent: str, vs: str) -> str | None:
        """Why the worlds may flatter one of the two more than the other, or None where they surely do not."""
        if self.picks_difference is None:
            return "picks check: not made, so the worlds may flatter one of the two"
        gap = self.picks_difference(agent, vs, 0.95)
        if gap.value is None:
            return f"picks check withheld: {gap.withheld}"
        if gap.low is None or gap.high is None:
            return f"picks check: log O/E of the two differ by {gap.value:.3g}, without an interval"
        if max(-gap.low, gap.high) < OPTIMISM_BAND:
            return None
        differ = f"{gap.value:.3g} [{gap.low:.3g}, {gap.high:.3g}]"
        return f"the worlds may flatter one of the two: log O/E of their picks differ by {differ}, needs within 0.15"

    def _rank(self, agent: str, metric: str, level: float) -> Evidence:
        rank, estimate = self._rank_at(agent, metric, level)
        _, usual = self._rank_at(agent, metric, 0.95)
        return Evidence(
            estimate,
            usual,
            worlds=tuple(float(place) for place in rank.worlds),
            n_worlds=self.flights.n_worlds,
            scope=self._scope(metric),
        )

    def _rank_at(self, agent: str, metric: str, level: float) -> tuple[Rank, Estimate]:
        """Range of places, and the same as an interval around the place by point estimate."""
        ranks = self.flights.ranking(metric, alpha=1 - level, comparable=self._pairs(metric))
        rank = next(rank for rank in ranks if rank.agent == agent)
        values = {name: agents.value for name, agents in self.flights.usable(metric).items()}
        sign = 1 if METRICS[metric].higher_is_better else -1
        place = 1 + sum(sign * value > sign * values[agent] for value in values.values())
        method = "rank range: Holm over all pairs of agents"
        return rank, Estimate(place, rank.rank_low, rank.rank_high, level, len(self.flights.user), method)

    def _pairs(self, metric: str) -> frozenset[frozenset[str]] | None:
        """Pairs that may be separated by simulation; None: all."""
        if self.self_selected or not METRICS[metric].behaviour:
            return None
        names = self.flights.agents
        pairs = (frozenset((a, b)) for i, a in enumerate(names) for b in names[:i])
        return frozenset(pair for pair in pairs if self._optimism_differs(*sorted(pair)) is None)

    def _fairness(self, term: Term, agent: str, level: float) -> Evidence:
        if self.fairness is None:
            why = f"groups: none for {term.attribute}; name data.sensitive and evaluate.fairness"
            return Evidence(Estimate.withhold(str(term), why, level=level), n_worlds=self.flights.n_worlds)
        return Evidence(
            self.fairness(self.flights, term, agent, level),
            self.fairness(self.flights, term, agent, 0.95),
            n_worlds=self.flights.n_worlds,
            scope=self._scope(term.subject),
        )

    def _logged(self, term: Term, agent: str, level: float) -> Evidence:
        why = self.flights.barred.get(agent) or self.flights.barred.get(term.vs or "")
        if why is None and self.off_policy is None:
            why = "off-policy: no logged exposure with propensities; name them in data"
        if why is not None or self.off_policy is None:
            return Evidence(Estimate.withhold(str(term), why or "", level=level), simulated=False)
        return Evidence(
            self.off_policy(term, agent, level),
            self.off_policy(term, agent, 0.95),
            simulated=False,
            n_worlds=0,
            scope=(self.given,) if self.self_selected else (),
        )


def _of_users(flights: Flights, agent: str, metric: str, level: float, share: float | None) -> Estimate:
    """Mean over all users, or over the worst-served share of them."""
    if share is None:
        return flights.simulated(agent, metric, level=level)
    return flights.cvar(agent, metric, share, level=level)


@dataclass(frozen=True)
class Corrections:
    """Values corrected by the picks check: `corrected`, `corrected_difference` and `picks_difference` of the evidence.

    Attributes:
        base: the judge worlds as assumed.
        picks: agent -> its picks check.
        shifted: agent -> its flights with the shift of O/E, of its lower and of its upper limit; None without shift.
    """

    base: Flights
    picks: Mapping[str, Picks]
    shifted: Mapping[str, tuple[Flights | None, Flights | None, Flights | None]]

    def corrected(
        self, flights: Flights, agent: str, metric: str, level: float, share: float | None = None
    ) -> Estimate:
        """Value of an agent for users like the held-out ones, or for the worst-served share of them."""
        simulated = _of_users(flights, agent, metric, level, share)
        why = simulated.withheld or self._why_not(agent, metric)
        if why is not None:
            return Estimate.withhold("corrected by the picks check", why, level=level)
        flown = self._flown(flights, agent, metric, level, share)
        return corrected(simulated, self.picks[agent], flown.at_shift, flown.at_low, flown.at_high)

    def difference(self, flights: Flights, agent: str, vs: str, metric: str, level: float) -> Estimate:
        """Corrected value of an agent minus that of another."""
        simulated = flights.difference(agent, vs, metric, level=level).estimate
        why = simulated.withheld or self._why_not(agent, metric) or self._why_not(vs, metric)
        if why is not None:
            return Estimate.withhold("difference of two corrected values", why, level=level)
        flown, against = (self._flown(flights, name, metric, level) for name in (agent, vs))
        return corrected_difference(simulated, self.picks[agent], self.picks[vs], flown, against)

    def picks_difference(self, agent: str, vs: str, level: float) -> Estimate:
        """Log O/E of one agent's picks minus that of another's."""
        for name in (agent, vs):
            if name not in self.picks:
                return Estimate.withhold("difference of log O/E", f"picks: {name} was not checked", level=level)
        return picks_difference(self.picks[agent], self.picks[vs], level=level)

    def _why_not(self, agent: str, metric: str) -> str | None:
        if agent not in self.picks:
            return f"picks: {agent} was not checked"
        if self.picks[agent].estimate.withheld is not None:
            return self.picks[agent].estimate.withheld
        flown = self.shifted[agent][0] if agent in self.shifted else None
        if flown is None:
            return f"picks: {agent} did not fly with its appeal shifted"
        return flown.why_not(metric, agent)

    def _flown(
        self, flights: Flights, agent: str, metric: str, level: float, share: float | None = None
    ) -> ShiftedFlights:
        """Shifted values; under a swept assumption they move as the unshifted value of the first world does."""

        def values(flown: Flights) -> AgentValues:
            return flown.values[metric][agent] if share is None else flown.worst_served(agent, metric, share)

        now, assumed = values(flights).by_world[0], values(self.base).by_world[0]
        factor = float(now / assumed) if assumed != 0 else 1.0
        at, low, high = (None if flown is None else values(flown).value * factor for flown in self.shifted[agent])
        assert at is not None
        # The shifts were flown at the limits of one level; at another these limits lie further out or in.
        picks = self.picks[agent].estimate
        wider = t_quantile(level, picks.n - 1) / t_quantile(picks.level, picks.n - 1)
        low, high = (None if limit is None else at + (limit - at) * wider for limit in (low, high))
        return ShiftedFlights(at, low, high)


@dataclass(frozen=True)
class GroupGaps:
    """Gaps and worst groups of simulated metrics: `fairness` of the evidence.

    Attributes:
        groups: attribute -> [n_users of the log] value of each user, "" unknown.
    """

    groups: Mapping[str, NDArray[np.str_]]

    def __call__(self, flights: Flights, term: Term, agent: str, level: float) -> Estimate:
        """The gap between groups, or the worst of them, over the worlds and trainings flown."""
        if term.attribute is None or term.attribute not in self.groups:
            why = f"groups: no attribute {term.attribute}; name it in data.sensitive and evaluate.fairness"
            return Estimate.withhold(str(term), why, level=level)
        if METRICS[term.subject].of == "set":
            why = f"groups: {term.subject} is one number for all users together, no group has its own"
            return Estimate.withhold(str(term), why, level=level)
        table = self.table(flights, term.subject, term.attribute, agent, level)
        return table.gap if term.statistic == "fairness.gap" else table.worst

    def table(self, flights: Flights, metric: str, attribute: str, agent: str, level: float = 0.95) -> GroupTable:
        """A metric by group over the worlds and trainings flown."""
        return by_group(
            flights.values[metric][agent],
            self.groups[attribute][flights.user],
            metric=metric,
            attribute=attribute,
            events=flights.clicks[agent] if METRICS[metric].behaviour else None,
            level=level,
            higher_is_better=METRICS[metric].higher_is_better,
        )
