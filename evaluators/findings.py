"""From what was flown and checked to the sections of the report, and to the verdict."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.tuning import Tuned
from evaluators.comparison import optimism
from evaluators.estimate import Estimate
from evaluators.evidence import Corrections, GroupGaps, SimulatedEvidence
from evaluators.fidelity import Check, Fidelity
from evaluators.flights import Flight, Flights, gather
from evaluators.for_whom import ForWhom, Population, crossed_groups
from evaluators.gates import GateResult, GateSettings, decide_gates, overall_verdict
from evaluators.judging import Judged, Sweep
from evaluators.known import Simulated, Swept, agreement_with_known, order_on_log
from evaluators.logged_check import LoggedCheck
from evaluators.logged_rounds import OffPolicyEvidence
from evaluators.metrics import METRICS
from evaluators.off_policy import sharpe_ratio_interval
from evaluators.picks import UNLOGGED_CHOICE, Picks
from evaluators.precision import planned_users
from evaluators.profiles import profiles
from evaluators.report import (
    AgentSection,
    AssumptionSection,
    ComparisonSection,
    Curve,
    EstimateModel,
    GateSection,
    OffPolicyCheck,
    PortfolioRow,
    PowerRow,
    ProfileSection,
    RankingRow,
    Report,
    SearchSection,
    SweepEffect,
    TrainingSection,
    TrialRow,
    TruthSection,
    Verdict,
    estimates,
)
from evaluators.settings import EvaluateSettings
from evaluators.truth import Truth
from simulator.behaviour import BETWEEN_SESSIONS, Assumption
from simulator.streams import stream

Floats = NDArray[np.float64]

BOUND, BASELINES = "oracle", ("random",)
MODEL_ONLY = ("dm",)
"""Off-policy values without an interval that covers: no reference for anything."""


@dataclass(frozen=True, slots=True)
class AgentFacts:
    """What the findings need to know of an agent beside its flights.

    Attributes:
        name, kind: as in the scenario.
        trained_on: what it has seen: "this run", "nothing", "before TIME", "unsaid".
        learns: its training is one draw of many.
        bound: it is the oracle.
        curves: (training seed, points, value of a prior or None).
        steps: user-steps of one training, None where it has none.
        reproducible: False where a budget in seconds ended the training.
        judged_at: of each training seed the steps after which it was judged, where training could stop early.
        failed: why it has no numbers, or None.
        barred: why no number from judge worlds is given although it flew, or None.
        notes: what is missing of an agent that flew, and why.
        tuned: what a search of its parameters found, or why it found nothing.
    """

    name: str
    kind: str
    trained_on: str
    learns: bool
    bound: bool
    curves: tuple[tuple[int, tuple[tuple[int, float], ...], float | None], ...] = ()
    steps: int | None = None
    reproducible: bool = True
    judged_at: tuple[int, ...] = ()
    failed: str | None = None
    barred: str | None = None
    notes: tuple[str, ...] = ()
    tuned: Tuned | str | None = None


@dataclass(frozen=True)
class Evidences:
    """What was measured, by agent.

    Attributes:
        judged: one entry a training seed.
        picks: the picks check.
        shifted: for each training seed the flights in B_1 with the shifts of the picks.
        logged: off-policy estimates on rounds logged in B_1.
        population: whom and what the agents served.
        given: under what condition the log's rows speak of what agents pick (`picks.said_of`).
        on_log: the agents on the log's own rounds.
        source: name of the log.
    """

    judged: Mapping[str, Sequence[Judged]]
    picks: Mapping[str, Picks]
    shifted: Mapping[str, Sequence[Sequence[tuple[Flight, ...] | None]]]
    logged: Mapping[str, LoggedCheck]
    population: Population
    given: str
    on_log: OffPolicyEvidence
    source: str = ""


@dataclass(frozen=True)
class Findings:
    """Sections of the report that rest on the flights."""

    agents: list[AgentSection]
    assumptions: list[AssumptionSection]
    comparisons: list[ComparisonSection]
    ranking: list[RankingRow]
    gates: list[GateSection]
    verdict: Verdict
    power: list[PowerRow]
    sweeps: list[SweepEffect]
    portfolios: list[PortfolioRow]
    profiles: list[ProfileSection]
    fidelity: Fidelity
    truth: TruthSection | None = None
    flights: Flights | None = field(repr=False, default=None)

    def sections(self) -> dict[str, Any]:
        """The fields of `Report` that these findings are, by name; its `fidelity` section is built from the checks."""
        own = (one.name for one in fields(self) if one.name in Report.model_fields and one.name != "fidelity")
        return {name: getattr(self, name) for name in own}


@dataclass(frozen=True)
class Told:
    """What the flights say of the simulator, and the tables that it rests on.

    Attributes:
        flights: in the judge worlds.
        claimed: in world A.
        swept: in B_1 under each other value of an assumed parameter.
        corrections: flights with the appeal shifted by the picks.
        fidelity: with the checks that need flown policies.
        truth: flights in the true world, or None where that is not known.
        true_checks: the checks that `truth` gave.
    """

    flights: Flights
    claimed: Flights
    swept: Sequence[tuple[Sweep, Flights]]
    corrections: Corrections
    fidelity: Fidelity
    truth: Truth | None
    true_checks: tuple[Check, ...]


Served = Callable[[ForWhom, Sequence[str]], Mapping[str, Mapping[str, Any]]]
"""From the agents' names to the fields of their sections that say for whom they were better."""


def sections_of(whom: ForWhom, names: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
    """Sections of these agents, worked out here and now."""
    return {name: whom.section(name) for name in names}


def find(
    facts: Sequence[AgentFacts],
    evidence: Evidences,
    *,
    evaluate: EvaluateSettings,
    gates: Sequence[GateSettings],
    assumptions: Sequence[Assumption],
    fidelity: Fidelity,
    root: np.random.SeedSequence,
    served: Served = sections_of,
) -> Findings:
    """Everything that may be said of the agents.

    Args:
        facts: all agents, in the scenario's order, those that failed among them.
        evidence: what was measured.
        evaluate: the scenario's `evaluate:`.
        gates: the scenario's gates.
        assumptions: parameters of the behaviour model.
        fidelity: what was checked of the simulator before any agent flew.
        root: root of the scenario's streams.
        served: works out for whom each of the agents was better; a caller may keep what it finds.
    """
    groups = crossed_groups(evidence.population.groups, evaluate.fairness.crossed)
    gaps = GroupGaps(groups)
    told = hold_against_flights(facts, evidence, evaluate=evaluate, fidelity=fidelity, root=root)
    flights, swept, corrections, fidelity = told.flights, told.swept, told.corrections, told.fidelity
    source = {(a.part, a.parameter): a.source for a in assumptions}
    gate_evidence = SimulatedEvidence(
        flights=flights,
        swept=[(f"{source[part, parameter]} {part}.{parameter}", value, of) for (part, parameter, value), of in swept],
        mistrust=fidelity.mistrust,
        given=evidence.given,
        corrected=corrections.corrected,
        corrected_difference=corrections.difference,
        picks_difference=corrections.picks_difference,
        fairness=gaps if groups else None,
        off_policy=evidence.on_log,
    )
    bounds = {one.name for one in facts if one.bound}
    baselines = list(dict.fromkeys([*evaluate.baseline, *(n for n in BASELINES if any(f.name == n for f in facts))]))
    default_agents = [f.name for f in facts if role_of(f.name, evaluate, bound=f.bound) == "policy"]
    decided = decide_gates(gates, default_agents, gate_evidence)
    verdict: Verdict = overall_verdict(decided)

    comparisons = flights.comparisons(baselines)
    first = next((name for name in evaluate.baseline if name in flights.agents), None)
    kinds = {one.name: one.kind for one in facts}
    whom = ForWhom(evidence.population, evidence.judged, flights, evaluate, first, gaps, kinds, root)
    sections = served(whom, [one.name for one in facts if one.failed is None and one.barred is None])
    return Findings(
        agents=[
            _agent(one, flights, told.claimed, evidence, evaluate, corrections, sections.get(one.name, {}))
            for one in facts
        ],
        assumptions=[assumption_section(a, swept, flights, evaluate.metrics, bounds) for a in assumptions],
        comparisons=[
            ComparisonSection(
                metric=c.metric,
                agent=c.agent,
                baseline=c.baseline,
                difference=EstimateModel.of(c.difference),
                further_world=None,
                p_value=c.p_value,
                p_adjusted=c.p_adjusted,
                exploratory=c.exploratory,
            )
            for c in comparisons
        ],
        ranking=[RankingRow(agent=r.agent, rank_low=r.rank_low, rank_high=r.rank_high) for r in flights.ranking()],
        gates=[_gate(result) for result in decided],
        verdict=verdict,
        power=[
            PowerRow(**asdict(one)) for one in flights.power(c for c in comparisons if c.metric == evaluate.metrics[0])
        ],
        sweeps=_sweep_effects(swept, flights, evaluate.metrics[0], first),
        portfolios=_portfolios(
            {f.name for f in facts if not f.bound and f.name not in flights.barred}, evidence, evaluate, root
        ),
        profiles=[
            ProfileSection(agent=one.agent, points=list(one.points)) for one in profiles(flights, evaluate.metrics[0])
        ],
        fidelity=fidelity,
        truth=None if told.truth is None else told.truth.section(evidence.source, baselines, told.true_checks),
        flights=flights,
    )


def hold_against_flights(
    facts: Sequence[AgentFacts],
    evidence: Evidences,
    *,
    evaluate: EvaluateSettings,
    fidelity: Fidelity,
    root: np.random.SeedSequence,
) -> Told:
    """The checks that need flown policies: values known from elsewhere, the order on the log's own rounds, the truth.

    Args:
        facts: agents, those without a number among them.
        evidence: what was measured of them.
        evaluate: the scenario's `evaluate:`.
        fidelity: what was checked of the simulator before any agent flew.
        root: root of the scenario's streams.
    """
    learners = {one.name for one in facts if one.learns}
    oracle = next((one.name for one in facts if one.bound), None)
    barred = {one.name: why for one in facts if (why := one.failed or one.barred) is not None}

    def table(pick: Any, without: Mapping[str, str] = barred) -> Flights:
        flown = [flight for name in evidence.judged for one in evidence.judged[name] for flight in pick(one)]
        return gather(
            flown, evaluate.metrics, learners=learners, oracle=oracle, barred=without, planned=planned_users(evaluate)
        )

    flights = table(lambda one: one.flights)
    swept_keys: list[Sweep] = list(next((one.swept for many in evidence.judged.values() for one in many), {}))
    swept = [(key, table(lambda one, key=key: one.swept[key])) for key in swept_keys]  # type: ignore[misc]
    corrections = _corrections(flights, evidence, evaluate, learners)
    said = _Said(flights, swept, corrections, evidence)
    known = agreement_with_known(evaluate.known, said.of, said.per_user, stream(root, "fidelity", "known"))
    logged = _order_on_log(flights, evidence, evaluate, stream(root, "fidelity", "off-policy order"))
    truth: Truth | None = None
    true_checks: tuple[Check, ...] = ()
    if any(one.truth for many in evidence.judged.values() for one in many):
        # A policy that may have seen the log's rows has not seen the truth, so that its true value is given.
        failed = {one.name: one.failed for one in facts if one.failed is not None}
        truth = Truth(table(lambda one: one.truth, failed), flights, {one.name for one in facts if one.bound})
        true_checks = truth.checks(said.moved, stream(root, "fidelity", "truth"))
    return Told(
        flights,
        table(lambda one: one.claimed),
        swept,
        corrections,
        fidelity.with_checks([*true_checks, *known, *logged]),
        truth,
        true_checks,
    )


PORTFOLIO = 3
"""Agents that an estimator would send to an on-line test, for SharpeRatio@k."""


def _portfolios(
    agents: set[str], evidence: Evidences, evaluate: EvaluateSettings, root: np.random.SeedSequence
) -> list[PortfolioRow]:
    """Each estimator by what the agents that it ranks first are truly worth, on rounds logged in a judge world."""
    checks = {name: check for name, check in evidence.logged.items() if name in agents}
    truth = {name: check.exact for name, check in checks.items()}
    rows = []
    for estimator in evaluate.off_policy:
        estimated = {name: check.sums[estimator] for name, check in checks.items() if estimator in check.sums}
        if len(estimated) < PORTFOLIO:
            continue  # an estimator that is withheld for most agents sends nobody
        logged = next(iter(checks.values())).logged
        rng = stream(root, "portfolio", estimator)
        sent = sharpe_ratio_interval(estimated, truth, rng, logged=logged, k=PORTFOLIO)
        rows.append(PortfolioRow(estimator=estimator, **asdict(sent)))
    return rows


def _gate(result: GateResult) -> GateSection:
    return GateSection(
        name=result.name,
        rule=result.rule,
        agent=result.agent,
        verdict=result.verdict,
        reason=result.reason,
        estimate=None if result.estimate is None else EstimateModel.of(result.estimate),
        threshold=result.threshold,
    )


def _corrections(flights: Flights, evidence: Evidences, evaluate: EvaluateSettings, learners: set[str]) -> Corrections:
    """Flights of each agent with its appeal shifted until its picks are calibrated, and at both limits."""
    shifted: dict[str, tuple[Flights | None, Flights | None, Flights | None]] = {}
    metrics = [name for name in evaluate.metrics if name != "regret"]
    for name, by_seed in evidence.shifted.items():
        flown: list[Flights | None] = []
        for k in range(3):
            parts = [part for one in by_seed for part in one[k] or ()]
            flown.append(
                gather(parts, metrics, learners=learners & {name}, planned=planned_users(evaluate)) if parts else None
            )
        shifted[name] = (flown[0], flown[1], flown[2])
    return Corrections(flights, evidence.picks, shifted)


@dataclass(frozen=True, slots=True)
class _Said:
    """What the simulator says of policies: the corrected value where one may be given, else the judge worlds' mean."""

    flights: Flights
    swept: Sequence[tuple[Sweep, Flights]]
    corrections: Corrections
    evidence: Evidences

    def of(self, name: str, metric: str) -> Simulated:
        """What it says of one policy and metric."""
        flights, evidence = self.flights, self.evidence
        why = flights.why_not(metric, name)
        if why is not None:
            return Simulated(Estimate.withhold("simulated", why))
        value = flights.simulated(name, metric)
        if METRICS[metric].behaviour and evidence.given not in UNLOGGED_CHOICE and name in evidence.picks:
            corrected = self.corrections.corrected(flights, name, metric, 0.95)
            value = corrected if corrected.value is not None else value
        return Simulated(value, self.moved(name, metric))

    def moved(self, name: str, metric: str) -> Swept:
        """How swept assumptions move it, in the first judge world."""
        if self.flights.why_not(metric, name) is not None:
            return ()
        now = float(self.flights.values[metric][name].by_world[0])
        return tuple(
            (f"{part}.{parameter}", setting, float(of.values[metric][name].by_world[0]) / now)
            for (part, parameter, setting), of in self.swept
            if now > 0 and of.why_not(metric, name) is None
        )

    def per_user(self, name: str, metric: str) -> Floats | None:
        """[U] mean over training seeds and worlds, or None."""
        return None if self.flights.why_not(metric, name) is not None else self.flights.per_user(metric, name)


def _order_on_log(
    flights: Flights, evidence: Evidences, evaluate: EvaluateSettings, rng: np.random.Generator
) -> tuple[Check, ...]:
    """The simulator's order of agents beside that of the first off-policy estimator that can tell, once a run."""
    metric = "click_rate" if "click_rate" in flights.values else evaluate.metrics[0]
    users = {name: flights.per_user(metric, name) for name in flights.agents if flights.why_not(metric, name) is None}
    first: Check | None = None
    for estimator in evaluate.off_policy:
        if estimator in MODEL_ONLY:
            continue
        values = {name: evidence.on_log.estimate(name, estimator) for name in users}
        found = order_on_log(estimator, values, users.get, rng, given=evidence.given)
        if found is not None and found.estimate.value is not None:
            return (found,)
        first = first or found
    return () if first is None else (first,)


def role_of(name: str, evaluate: EvaluateSettings, *, bound: bool) -> str:
    """What an agent is flown for: `bound`, `baseline`, or `policy`, for which gates hold that name no agents."""
    return "bound" if bound else "baseline" if name in (*evaluate.baseline, *BASELINES) else "policy"


def _agent(
    one: AgentFacts,
    flights: Flights,
    claimed: Flights,
    evidence: Evidences,
    evaluate: EvaluateSettings,
    corrections: Corrections,
    served: Mapping[str, Any],
) -> AgentSection:
    role = role_of(one.name, evaluate, bound=one.bound)
    section: dict[str, Any] = {
        "name": one.name,
        "kind": one.kind,
        "trained_on": one.trained_on,
        "role": role,
        "training": _training(one),
        "notes": [*one.notes, *([one.tuned] if isinstance(one.tuned, str) else [])],
    }
    if one.failed is not None:
        return AgentSection(**section, failed=one.failed)
    name = one.name
    simulated = {metric: flights.simulated(name, metric) for metric in evaluate.metrics}
    corrected = {}
    if name in evidence.picks and not one.barred:
        corrected = {
            metric: corrections.corrected(flights, name, metric, 0.95)
            for metric in evaluate.metrics
            if METRICS[metric].behaviour and METRICS[metric].of == "user" and metric != "regret"
        }
    section["simulated"] = estimates(simulated)
    section["simulated_corrected"] = estimates(corrected)
    on_log = {
        estimator: Estimate.withhold(estimator, one.barred) if one.barred else evidence.on_log.estimate(name, estimator)
        for estimator in evaluate.off_policy
    }
    section["off_policy"] = estimates(on_log)
    if one.barred is not None:
        why = one.barred
        section["picks"] = EstimateModel.of(Estimate.withhold("O/E on the agent's own picks", why))
        section["optimism"] = EstimateModel.of(Estimate.withhold("train world minus judge worlds", why))
        return AgentSection(**section)
    metric = evaluate.metrics[0]
    bound = Estimate.withhold("O/E on the agent's own picks", "a bound, not a policy: it reads a judge world's appeal")
    section["picks"] = EstimateModel.of(evidence.picks[name].estimate if name in evidence.picks else bound)
    if name in evidence.picks and evidence.picks[name].check.passed is False:
        section["notes"] += [f"O/E on its own picks {evidence.picks[name].check.reason}: read its values with that"]
    section["optimism"] = EstimateModel.of(optimism(claimed.values[metric][name], flights.values[metric][name]))
    if name in evidence.logged:
        logged = evidence.logged[name]
        section["off_policy_check"] = {
            estimator: OffPolicyCheck(estimate=EstimateModel.of(found), truth=EstimateModel.of(logged.truth))
            for estimator, found in logged.estimates.items()
        }
    section |= served
    return AgentSection(**section)


def _training(one: AgentFacts) -> TrainingSection | None:
    search = None
    if one.tuned is not None and not isinstance(one.tuned, str):
        trials = [TrialRow(params=dict(t.params), value=t.value, failed=t.why or None) for t in one.tuned.trials]
        search = SearchSection(trials=trials, chosen=dict(one.tuned.params))
    if not one.curves:
        return None if search is None else TrainingSection(search=search)
    seeds = [
        Curve(seed=seed, points=[(float(x), float(y)) for x, y in points], prior_value=prior)
        for seed, points, prior in one.curves
    ]
    longest = min(len(curve.points) for curve in seeds)
    mean = [(seeds[0].points[k][0], float(np.mean([curve.points[k][1] for curve in seeds]))) for k in range(longest)]
    why = None if one.reproducible else "a budget in seconds ended the training: a second run may differ"
    return TrainingSection(steps=one.steps, curve=mean, seeds=seeds, judged_at=list(one.judged_at) or None,
                           not_reproducible=why, search=search)  # fmt: skip


def assumption_section(
    a: Assumption,
    swept: Sequence[tuple[Sweep, Flights]],
    flights: Flights,
    metrics: Sequence[str],
    bounds: Collection[str],
) -> AssumptionSection:
    """An assumption, its other values that were flown, and how far they move the policy that they move most, by metric.

    Args:
        a: the assumption.
        swept: flights in B_1 under each other value of every swept parameter.
        flights: in the judge worlds, B_1 first.
        metrics: names.
        bounds: agents that are no policies.
    """
    # The sweep is flown in B_1 alone, so its unswept value is that of B_1 too.
    others = {value: of for (part, parameter, value), of in swept if (part, parameter) == (a.part, a.parameter)}
    flown = [flights, *others.values()]
    effect: dict[str, tuple[float, float]] = {}
    moved: dict[str, str] = {}
    for metric in metrics if len(flown) > 1 else ():
        ranges = {
            name: (min(values), max(values))
            for name in flights.agents
            if name not in bounds
            and (values := [float(of.values[metric][name].by_world[0]) for of in flown if not of.why_not(metric, name)])
        }
        if ranges:
            moved[metric] = max(ranges, key=lambda name: ranges[name][1] - ranges[name][0])
            effect[metric] = ranges[moved[metric]]
    idle = bool(a.sweep) and not others and a.part in BETWEEN_SESSIONS
    return AssumptionSection(
        part=a.part, parameter=a.parameter, value=a.value, source=a.source, se=a.se, sweep=list(others),
        effect=effect, moved=moved, note="acts between sessions, of which users have one each" if idle else None,
    )  # fmt: skip


def _sweep_effects(
    swept: Sequence[tuple[Sweep, Flights]], flights: Flights, metric: str, baseline: str | None
) -> list[SweepEffect]:
    out = []
    for (part, parameter, value), of in swept:
        for name in of.agents:
            if baseline is not None and name != baseline and baseline in of.agents:
                estimate = of.difference(name, baseline, metric).estimate
            elif name == baseline or baseline is None:
                estimate = of.simulated(name, metric)
            else:
                continue
            out.append(
                SweepEffect(
                    part=part,
                    parameter=parameter,
                    value=value,
                    agent=name,
                    metric=metric,
                    estimate=EstimateModel.of(estimate),
                    baseline=baseline if name != baseline else None,
                )
            )
    return out


__all__ = ["AgentFacts", "Evidences", "Findings", "assumption_section", "find", "hold_against_flights"]
