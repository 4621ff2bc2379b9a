"""report.html: one file without network, script or font of its own, drawn from a report and nothing else.

Everything that a user may have named (agents, items, groups, gates) is escaped by the template engine; the drawings
take numbers, and escape their labels. A number that is withheld stands with its reason, never as a blank.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from pydantic import JsonValue

from evaluators import report_charts as charts
from evaluators import wording
from evaluators.metrics import METRICS
from evaluators.report import (
    AgentSection,
    ComparisonSection,
    EstimateModel,
    FidelityCheck,
    GateSection,
    Report,
    Threshold,
)
from evaluators.report_charts import Axis

if TYPE_CHECKING:
    from evaluators.leaderboard import Leaderboard

SCENARIO_ORDER = ("name", "seed", "task", "data", "preference", "simulator", "agents", "evaluate", "stress", "gates")
TASKS = {"recommend": "Recommendation on ", "search": "Search on ", "support": "Customer support on "}
COUNTED = {"users", "rows", "items", "interactions"}
"""Keys of the data card that count things and read better behind their number."""
ADAPTATION = {"auc": "Order of later rows, AUC", "reward": "Reward of the first slate"}
BAND = re.compile(r"\[(?P<low>[-+\d.e]+), (?P<high>[-+\d.e]+)\]")
BOUND = re.compile(r"(?P<side>lower|upper) (?P<sign>[<>]=?) (?P<limit>[-+\d.e]+)")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a panel: whose number, the estimate, what is marked beside it (the truth), a remark."""

    who: str
    estimate: EstimateModel | None
    tone: str = ""
    mark: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """Numbers of one kind for several agents on one axis, `line` a vertical line (zero, one)."""

    title: str
    rows: tuple[Row, ...]
    axis: Axis | None
    places: int | None
    about: str = ""
    line: float | None = None
    signed: bool = False

    @property
    def shared_reason(self) -> str | None:
        """Why all numbers of the panel are withheld, where it is one reason for all: said once."""
        reasons = {None if row.estimate is None else row.estimate.withheld for row in self.rows}
        return reasons.pop() if len(reasons) == 1 and not any(row.note for row in self.rows) else None


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the table of agents; `itself` is the agent that the others are compared with."""

    title: str
    estimates: Mapping[str, EstimateModel]
    axis: Axis | None
    places: int | None
    line: float | None = None
    signed: bool = False
    itself: str | None = None

    def of(self, agent: str) -> EstimateModel | None:
        """The agent's estimate."""
        return self.estimates.get(agent)

    def is_itself(self, agent: str) -> bool:
        """Whether the agent is what the column compares with."""
        return agent == self.itself


class Footnotes:
    """Reasons of a table whose cells are too narrow for them: each is numbered once, and listed under the table."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def number(self, reason: str) -> int:
        """The number of a reason, a new one for a new reason."""
        if reason not in self.reasons:
            self.reasons.append(reason)
        return self.reasons.index(reason) + 1


@dataclass(frozen=True, slots=True)
class ComparisonTable:
    """All agents against one baseline on one metric."""

    title: str
    rows: tuple[ComparisonSection, ...]
    axis: Axis | None
    places: int | None
    further: bool


@dataclass(frozen=True, slots=True)
class CheckRow:
    """A fidelity check with the name it has within its scope, an axis of its own and the band to shade."""

    check: FidelityCheck
    name: str
    axis: Axis | None
    band: tuple[float | None, float | None] | None
    threshold: str


@dataclass(frozen=True, slots=True)
class CheckTable:
    """Checks of one scope: a judge world, or it on held-out users."""

    title: str
    rows: tuple[CheckRow, ...]
    open: bool
    summary: str


@dataclass(frozen=True, slots=True)
class SweepTable:
    """Each agent at several values of something: of an assumption, of how much it has seen."""

    title: str
    parameter: str
    values: tuple[float, ...]
    rows: tuple[tuple[str, tuple[EstimateModel | None, ...]], ...]
    axis: Axis | None
    places: int | None
    signed: bool
    line: float | None


@dataclass(frozen=True, slots=True)
class GroupsTable:
    """A metric by groups of users under each agent."""

    title: str
    metric: str
    agents: tuple[tuple[str, tuple[Any, ...]], ...]
    axis: Axis | None
    difference_axis: Axis | None
    places: int | None


@dataclass(frozen=True, slots=True)
class LearningChart:
    """Learning curves of one agent."""

    name: str
    about: str
    chart: Markup


@cache
def environment() -> Environment:
    """The template engine: escapes everything, and an unknown name is an error."""
    engine = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    engine.filters["short"] = lambda x: f"{x:.4g}"
    engine.globals.update(
        number=wording.number,
        integer=lambda n: f"{n:,}",
        decimals=wording.decimals,
        limits=wording.limits,
        p_value=wording.p_value,
        places_held=wording.places_held,
        counted=wording.counted,
        verdict_words=wording.VERDICT_WORDS,
        words=in_words,
        interval=charts.interval,
        scale=charts.scale,
        places=charts.places,
    )
    return engine


def in_words(item: JsonValue) -> str:
    """A value of the data card as text."""
    if item is None:
        return "none"
    if isinstance(item, bool):
        return "yes" if item else "no"
    if isinstance(item, int):
        return f"{item:,}"
    if isinstance(item, float):
        return f"{item:.6g}"
    if isinstance(item, list):
        return ", ".join(in_words(part) for part in item) or "none"
    if isinstance(item, dict):
        return ", ".join(
            f"{in_words(value)} {key}" if key in COUNTED else f"{key}: {in_words(value)}" for key, value in item.items()
        )
    return str(item)


def render_page(report: Report) -> str:
    """The page as HTML."""
    content = {
        "report": report,
        "task": TASKS.get(str(report.scenario.get("task", "")), ""),
        "gates_in_words": _sentence(wording.gate_summary(gate.verdict for gate in report.gates)),
        "gates": _gates(report.gates),
        "main": _metric_heading(report.primary_metric),
        "agents": report.ordered_agents(),
        "columns": _columns(report),
        "footnotes": Footnotes(),
        "corrected_notes": _corrected_notes(report),
        "metric_panels": _metric_panels(report),
        "comparison_tables": _comparison_tables(report),
        "check_tables": _check_tables(report.fidelity.checks),
        "bins": _bins(report),
        "reliability_curve": charts.reliability(_bins(report)),
        "reference_panels": _reference_panels(report),
        "sweep_tables": _sweep_tables(report),
        "learning_charts": _learning_charts(report),
        "adaptation_tables": _adaptation_tables(report),
        "profile_charts": _profile_charts(report),
        "off_policy_notes": _shared_reasons(report),
        "off_policy_panels": _off_policy_panels(report),
        "check_panels": _check_panels(report),
        "fairness_panels": _named_panels(report, "fairness"),
        "group_tables": _group_tables(report),
        "causal_panels": _causal_panels(report),
        "method_panels": _method_panels(report),
        "driver_panels": _driver_panels(report),
        "path_panels": _path_panels(report),
        "price_panels": _price_panels(report),
        "trade_offs": _trade_offs(report),
        "not_reproducible": [
            f"{agent.name}: {agent.training.not_reproducible}"
            for agent in report.agents
            if agent.training and agent.training.not_reproducible
        ],
        "file_name": f"{report.name}.yaml",
        "scenario_text": _scenario_text(report.scenario),
    }
    content["sections"] = _sections(report, content)
    return environment().get_template("report.html").render(content)


def write_page(report: Report, path: Path) -> None:
    """Write report.html, whole or not at all."""
    part = path.with_suffix(".part")
    part.write_text(render_page(report), encoding="utf-8")
    part.replace(path)


def render_leaderboard(leaderboard: Leaderboard) -> str:
    """The page of a leaderboard as HTML."""
    boards = []
    for board in leaderboard.boards:
        values = [entry.value for entry in board.entries]
        boards.append((board, charts.axis_over(values), wording.column_decimals(values)))
    content = {"boards": boards, "skipped": leaderboard.skipped, "tasks": TASKS}
    return environment().get_template("leaderboard.html").render(content)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _sections(report: Report, content: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Anchor and title of the sections that the page has."""
    off_policy = content["off_policy_notes"] or content["off_policy_panels"] or content["check_panels"]
    groups = any(content[name] for name in ("fairness_panels", "group_tables", "causal_panels", "trade_offs"))
    everything = (
        ("gates", "Gates", report.gates),
        ("agents", "Agents", report.agents),
        ("metrics", "Metrics", content["metric_panels"]),
        ("comparisons", "Comparisons", content["comparison_tables"]),
        ("profiles", "Profiles", content["profile_charts"]),
        ("fidelity", "Fidelity", True),
        ("assumptions", "Assumptions", report.assumptions),
        ("learning", "Learning", content["learning_charts"]),
        ("adaptation", "Adaptation", report.adaptation),
        ("off-policy", "Off-policy", off_policy),
        ("fairness", "Fairness", groups),
        ("data", "Data", True),
        ("reproduce", "Reproduce", True),
    )
    return [(anchor, title) for anchor, title, there in everything if there]


def _panel(
    title: str, rows: Sequence[Row], *, about: str = "", line: float | None = None, signed: bool = False
) -> Panel:
    marks = [row.mark for row in rows if row.mark is not None]
    include = marks if line is None else [*marks, line]
    axis = charts.axis_over((row.estimate for row in rows), include)
    places = wording.column_decimals(row.estimate for row in rows)
    return Panel(title, tuple(rows), axis, places, about, line, signed)


def _metric_heading(metric: str | None) -> dict[str, str] | None:
    if metric is None:
        return None
    known = METRICS.get(metric)
    return {"title": metric, "about": f"{known.about} ({known.unit})" if known else ""}


# ---------------------------------------------------------------------------------------------- gates and agents


def _gates(gates: Sequence[GateSection]) -> list[tuple[GateSection, Axis | None]]:
    """Each gate with its axis; gates of one rule share it."""
    axes: dict[str, Axis | None] = {}
    for rule in dict.fromkeys(gate.rule for gate in gates):
        same = [gate for gate in gates if gate.rule == rule]
        thresholds = [gate.threshold for gate in same if gate.threshold is not None]
        axes[rule] = charts.axis_over((gate.estimate for gate in same), thresholds)
    return [(gate, axes[gate.rule]) for gate in gates]


def _columns(report: Report) -> list[Column]:
    metric = report.primary_metric
    if metric is None:
        return []
    found = [
        _column(metric, {a.name: a.simulated[metric] for a in report.agents if metric in a.simulated}),
    ]
    corrected = {a.name: a.simulated_corrected[metric] for a in report.agents if metric in a.simulated_corrected}
    if any(estimate.value is not None for estimate in corrected.values()):
        found.append(_column(f"{metric}, corrected", corrected))
    baseline = report.first_baseline
    if baseline is not None:
        compared = {c.agent: c.difference for c in report.comparisons if (c.metric, c.baseline) == (metric, baseline)}
        found.append(_column(f"minus {baseline}", compared, line=0.0, signed=True, itself=baseline))
    return found


def _column(
    title: str,
    estimates: Mapping[str, EstimateModel],
    *,
    line: float | None = None,
    signed: bool = False,
    itself: str | None = None,
) -> Column:
    axis = charts.axis_over(estimates.values(), () if line is None else (line,))
    return Column(title, estimates, axis, wording.column_decimals(estimates.values()), line, signed, itself)


def _corrected_notes(report: Report) -> list[str]:
    """Why the table has no corrected column: each reason with the agents, where all values are withheld."""
    metric = report.primary_metric or ""
    corrected = {a.name: e for a in report.agents if (e := a.simulated_corrected.get(metric)) is not None}
    if any(e.value is not None for e in corrected.values()):
        return []
    return _reasons(f"{metric}, corrected by the picks check", corrected)


def _reasons(what: str, estimates: Mapping[str, EstimateModel]) -> list[str]:
    """'WHAT withheld for AGENTS: why', once for each reason."""
    names: dict[str, list[str]] = {}
    for name, estimate in estimates.items():
        if estimate.withheld is not None:
            names.setdefault(estimate.withheld, []).append(name)
    return [
        f"{what} withheld for {'every agent' if len(who) == len(estimates) > 1 else wording.listing(who)}: {reason}"
        for reason, who in names.items()
    ]


def _rows(report: Report, estimates: Mapping[str, EstimateModel]) -> list[Row]:
    """A row for each agent that has the number, in the order of the table of agents."""
    return [
        Row(a.name, estimates[a.name], a.role if a.role != "policy" else "")
        for a in report.ordered_agents()
        if a.name in estimates
    ]


def _metric_panels(report: Report) -> list[Panel]:
    panels = []
    for metric in report.metric_names:
        if metric == report.primary_metric:
            continue
        heading = _metric_heading(metric) or {}
        of = {a.name: a.simulated[metric] for a in report.agents if metric in a.simulated}
        panels.append(_panel(metric, _rows(report, of), about=heading["about"]))
    return panels


def _comparison_tables(report: Report) -> list[ComparisonTable]:
    """The primary metric first, each baseline in turn."""
    metrics = list(
        dict.fromkeys([report.primary_metric, *report.metric_names, *(c.metric for c in report.comparisons)])
    )
    place = {agent.name: index for index, agent in enumerate(report.ordered_agents())}
    tables = []
    for metric in metrics:
        for baseline in report.baselines:
            rows = [c for c in report.comparisons if (c.metric, c.baseline) == (metric, baseline)]
            if not rows:
                continue
            rows.sort(key=lambda c: place.get(c.agent, len(place)))
            differences = [c.difference for c in rows]
            exploratory = ", exploratory" if rows[0].exploratory else ""
            tables.append(
                ComparisonTable(
                    f"{metric}, minus {baseline}{exploratory}",
                    tuple(rows),
                    charts.axis_over(differences, (0.0,)),
                    wording.column_decimals(differences),
                    any(c.further_world is not None for c in rows),
                )
            )
    return tables


# ---------------------------------------------------------------------------------------- fidelity and assumptions


def band_of(threshold: Threshold) -> tuple[float | None, float | None] | None:
    """The band of a threshold, None at an open end; None where it is no band ("exactly 0")."""
    if isinstance(threshold, tuple):
        return threshold
    if not isinstance(threshold, str):
        return None
    if found := BAND.search(threshold):
        return float(found["low"]), float(found["high"])
    if found := BOUND.search(threshold):
        limit = float(found["limit"])
        return (limit, None) if found["sign"].startswith(">") else (None, limit)
    return None


def _check_tables(checks: Sequence[FidelityCheck]) -> list[CheckTable]:
    """Checks by their scope; those of the first judge world open, the others folded."""
    scopes: dict[str, list[CheckRow]] = {}
    for check in checks:
        found = wording.SCOPE.search(check.name)
        name = check.name if found is None else check.name[: found.start()]
        band = band_of(check.threshold)
        ends = [limit for limit in band or () if limit is not None]
        row = CheckRow(
            check, name, charts.axis_over([check.estimate], ends), band, wording.threshold_in_words(check.threshold)
        )
        scopes.setdefault(found["scope"] if found else "", []).append(row)
    tables = []
    for scope, rows in scopes.items():
        world, _, users = scope.partition(", ") if scope.startswith("world") else ("", "", scope)
        title = f"Judge {world or 'world 1'}, {users or 'future rows'}"
        made = [row.check for row in rows if row.check.passed is not None]
        summary = f"{sum(bool(check.passed) for check in made)} of {wording.counted(len(made), 'check')} passed"
        tables.append(CheckTable(title, tuple(rows), not world, summary))
    return tables


def _bins(report: Report) -> list[Any]:
    return list(report.fidelity.reliability or (report.preference.reliability if report.preference else []))


def _reference_panels(report: Report) -> list[Panel]:
    """Gains of the preference model over its references, above 0 is better."""
    rows = [Row(name, estimate) for name, estimate in report.fidelity.comparisons.items()]
    panels = (
        [
            _panel(
                "Log-loss gain",
                rows,
                about="over each reference, a row; right of zero is better",
                line=0.0,
                signed=True,
            )
        ]
        if rows
        else []
    )
    if report.preference is None:
        return panels
    by_statistic: dict[str, list[Row]] = {}
    for c in report.preference.comparisons:
        who = f"{c.reference}, {c.rows}" if c.rows else c.reference
        if who in report.fidelity.comparisons:
            continue
        by_statistic.setdefault(c.statistic, []).append(Row(who, c.estimate))
    for statistic, found in by_statistic.items():
        panels.append(
            _panel(f"Preference model: {statistic}", found, about="over each reference", line=0.0, signed=True)
        )
    return panels


def _sweep_tables(report: Report) -> list[SweepTable]:
    tables = []
    keys = dict.fromkeys((s.part, s.parameter, s.metric, s.baseline) for s in report.sweeps)
    for part, parameter, metric, baseline in keys:
        same = [
            s
            for s in report.sweeps
            if (s.part, s.parameter, s.metric, s.baseline) == (part, parameter, metric, baseline)
        ]
        values = tuple(sorted({s.value for s in same}))
        found = {(s.agent, s.value): s.estimate for s in same}
        agents = dict.fromkeys(s.agent for s in same)
        line = None if baseline is None else 0.0
        tables.append(
            SweepTable(
                f"{part} {parameter}: {metric}" + ("" if baseline is None else f" minus {baseline}"),
                parameter,
                values,
                tuple((agent, tuple(found.get((agent, value)) for value in values)) for agent in agents),
                charts.axis_over(found.values(), () if line is None else (line,)),
                wording.column_decimals(found.values()),
                baseline is not None,
                line,
            )
        )
    return tables


def _adaptation_tables(report: Report) -> list[SweepTable]:
    """One table a measure, and one for each agent that the others are held against."""
    tables = []
    for measure in dict.fromkeys(section.measure for section in report.adaptation):
        of = [section for section in report.adaptation if section.measure == measure]
        beside = dict.fromkeys(name for section in of for point in section.points for name in point.differences)
        for other in (None, *beside):
            rows = tuple(
                (
                    section.agent,
                    tuple(point.value if other is None else point.differences.get(other) for point in section.points),
                )
                for section in of
                if section.agent != other
            )
            found = [cell for _, cells in rows for cell in cells]
            line = None if other is None else 0.0
            tables.append(
                SweepTable(
                    ADAPTATION[measure] + ("" if other is None else f", minus {other}"),
                    "interactions",
                    tuple(float(point.interactions) for point in of[0].points),
                    rows,
                    charts.axis_over(found, () if line is None else (line,)),
                    wording.column_decimals(found),
                    other is not None,
                    line,
                )
            )
    return tables


def _profile_charts(report: Report) -> list[tuple[str, Markup]]:
    """Profiles of all agents on one scale, each beside the first baseline's."""
    points = {one.agent: one.points for one in report.profiles}
    levels = [level for of_agent in points.values() for level, *_ in of_agent]
    if not levels:
        return []
    axis, first = charts.axis_between(levels, 4), report.first_baseline or ""
    return [
        (agent.name, charts.profile(points[agent.name], beside, axis, agent.name, first))
        for agent in report.ordered_agents()
        if agent.name in points
        for beside in [points.get(first, []) if agent.name != first else []]
    ]


def _learning_charts(report: Report) -> list[LearningChart]:
    """Curves of all agents that learn, on one scale, so that they may be compared by eye."""
    learners = [
        (a, a.training)
        for a in report.ordered_agents()
        if a.training is not None and any(c.points for c in a.training.seeds)
    ]
    curves = [curve for _, training in learners for curve in training.seeds]
    heights = [value for curve in curves for _, value in curve.points]
    heights += [curve.prior_value for curve in curves if curve.prior_value is not None]
    if not heights:
        return []
    axis = charts.axis_between(heights, 4)
    found = []
    for agent, training in learners:
        about = wording.counted(len(training.seeds), "training seed")
        if training.steps is not None:
            about += f", {training.steps:,} steps each"
        priors = sorted({c.prior_value for c in training.seeds if c.prior_value is not None})
        if priors:
            about += f", prior at {wording.listing(wording.number(p, 1) for p in priors)}"
        if training.search is not None:
            chosen = wording.listing(f"{name} {value}" for name, value in training.search.chosen.items())
            about += f", {chosen} chosen by {wording.counted(len(training.search.trials), 'trial')}"
        found.append(LearningChart(agent.name, about, charts.learning(training.seeds, axis, agent.name)))
    return found


# ------------------------------------------------------------------------------------ off-policy, fairness, causal


def _shared_reasons(report: Report) -> list[str]:
    """Reasons for which an estimator is withheld for all agents: said once, not in a table of equal words."""
    by_reason: dict[str, list[str]] = {}
    for estimator in _estimators(report):
        of = [a.off_policy[estimator] for a in report.agents if estimator in a.off_policy]
        reasons = {estimate.withheld for estimate in of}
        if len(reasons) == 1 and (reason := reasons.pop()) is not None:
            by_reason.setdefault(reason, []).append(estimator)
    whom = "every agent" if len(report.agents) > 1 else "the agent"
    return [f"{wording.listing(names)} withheld for {whom}: {reason}" for reason, names in by_reason.items()]


def _estimators(report: Report) -> list[str]:
    found = dict.fromkeys(name for agent in report.agents for name in agent.off_policy)
    evaluate = report.scenario.get("evaluate")
    asked = evaluate.get("off_policy") if isinstance(evaluate, dict) else None
    return sorted(
        found, key=lambda name: asked.index(name) if isinstance(asked, list) and name in asked else len(found)
    )


def _off_policy_panels(report: Report) -> list[Panel]:
    panels = []
    for estimator in _estimators(report):
        of = {a.name: a.off_policy[estimator] for a in report.agents if estimator in a.off_policy}
        reasons = {estimate.withheld for estimate in of.values()}
        if len(reasons) > 1 or None in reasons:
            panels.append(_panel(estimator, _rows(report, of)))
    return panels


def _check_panels(report: Report) -> list[Panel]:
    """Each estimator beside the truth, with a count of the intervals that hold it."""
    panels = []
    for estimator in dict.fromkeys(name for agent in report.agents for name in agent.off_policy_check):
        rows, inside, with_interval = [], 0, 0
        for agent in report.ordered_agents():
            check = agent.off_policy_check.get(estimator)
            if check is None:
                continue
            truth, e = check.truth.value, check.estimate
            places = wording.decimals(e.value, e.low, e.high)
            rows.append(
                Row(agent.name, e, "", truth, "" if truth is None else f"truth {wording.number(truth, max(places, 3))}")
            )
            if truth is not None and e.low is not None and e.high is not None:
                with_interval += 1
                inside += e.low <= truth <= e.high
        if with_interval:
            hold = "holds" if inside == 1 else "hold"
            about = f"{inside} of {wording.counted(with_interval, 'interval')} {hold} the truth"
        else:
            about = "no interval to judge"
        panels.append(_panel(estimator, rows, about=about))
    return panels


def _named_panels(report: Report, field: str) -> list[Panel]:
    """One panel for each key that agents have in a table of estimates."""
    tables: dict[str, Mapping[str, EstimateModel]] = {agent.name: getattr(agent, field) for agent in report.agents}
    panels = []
    for key in dict.fromkeys(name for table in tables.values() for name in table):
        of = {agent: table[key] for agent, table in tables.items() if key in table}
        line = 0.0 if key.startswith(("gap", "fairness.gap", "effect", "difference")) else None
        panels.append(_panel(key, _rows(report, of), line=line))
    return panels


def _group_tables(report: Report) -> list[GroupsTable]:
    keys = dict.fromkeys((g.attribute, g.metric) for agent in report.agents for g in agent.groups)
    tables = []
    for attribute, metric in keys:
        agents = []
        for agent in report.ordered_agents():
            rows = tuple(g for g in agent.groups if (g.attribute, g.metric) == (attribute, metric))
            if rows:
                agents.append((agent.name, rows))
        everyone = [g for _, rows in agents for g in rows]
        tables.append(
            GroupsTable(
                f"{metric} by {attribute}",
                metric,
                tuple(agents),
                charts.axis_over(g.estimate for g in everyone),
                charts.axis_over((g.difference for g in everyone), (0.0,)),
                wording.column_decimals(g.estimate for g in everyone),
            )
        )
    return tables


def _causal_panels(report: Report) -> list[Panel]:
    """The estimated effect with its exact twin as a mark."""
    panels = []
    for key in dict.fromkeys(name for agent in report.agents for name in agent.causal):
        rows = [_causal_row(a, key) for a in report.ordered_agents() if key in a.causal]
        panels.append(_panel(key, rows, line=0.0, signed=True))
    return panels


def _causal_row(agent: AgentSection, key: str) -> Row:
    exact = agent.causal_exact.get(key)
    if exact is None:
        return Row(agent.name, agent.causal[key])
    note = (
        f"exact {wording.with_interval(exact, signed=True)}"
        if exact.value is not None
        else f"exact withheld: {exact.withheld}"
    )
    return Row(agent.name, agent.causal[key], "", exact.value, note)


def _method_panels(report: Report) -> list[Panel]:
    """Each way of estimating the effect beside the exact one, with a count of the intervals that hold it."""
    panels = []
    for method in dict.fromkeys(one.method for agent in report.agents for one in agent.effect_methods):
        rows, inside, with_interval = [], 0, 0
        for agent in report.ordered_agents():
            for one in (m for m in agent.effect_methods if m.method == method):
                e = one.estimate
                rows.append(Row(agent.name, e, "", one.exact, f"exact {wording.number(one.exact, 3)}"))
                if e.low is not None and e.high is not None:
                    with_interval += 1
                    inside += e.low <= one.exact <= e.high
        about = (
            f"{inside} of {wording.counted(with_interval, 'interval')} hold the exact effect" if with_interval else ""
        )
        panels.append(_panel(method, rows, about=about or "no valid interval", line=0.0, signed=True))
    return panels


def _driver_panels(report: Report) -> list[Panel]:
    """By how much each agent's effect changes with what is known of the user: one panel an agent."""

    def size(one: tuple[str, EstimateModel]) -> float:
        return -abs(one[1].value or 0.0)

    return [
        _panel(a.name, [Row(*one) for one in sorted(a.drivers.items(), key=size)], line=0.0, signed=True)
        for a in report.ordered_agents()
        if a.drivers
    ]


def _path_panels(report: Report) -> list[Panel]:
    """Agent minus baseline by path, and the direct effect as a log would give it."""
    panels = []
    for path in dict.fromkeys(name for agent in report.agents for name in agent.paths):
        rows = [Row(a.name, a.paths[path]) for a in report.ordered_agents() if path in a.paths]
        panels.append(_panel(path, rows, line=0.0, signed=True))
    checked = [(a.name, a.path_check) for a in report.ordered_agents() if a.path_check is not None]
    if checked:
        rows = [
            Row(name, check.estimate, "", check.exact, f"exact {wording.number(check.exact, 3)}")
            for name, check in checked
        ]
        title = "not by way of the number of slates, from a log"
        panels.append(_panel(title, rows, about="plug-in, users dealt by a coin", line=0.0, signed=True))
    return panels


def _price_panels(report: Report) -> list[Panel]:
    """What a constraint costs and whom: one panel for each number, agents minus the ones that they wrap."""
    panels = []
    for what in dict.fromkeys(row.what for agent in report.agents for row in agent.price):
        rows = [
            Row(f"{agent.name} minus {row.of}", row.estimate)
            for agent in report.ordered_agents()
            for row in agent.price
            if row.what == what
        ]
        panels.append(_panel(what, rows, line=0.0, signed=True))
    return panels


ITEM_SIDE = {
    "exposure_share(head)": "share of attention that the head items get",
    "exposure_per_merit(tail / head)": "exposure per merit, tail over head; 1 is even",
    "attention_unfairness": "how far attention is from relevance; 0 is fair",
}


def _trade_offs(report: Report) -> list[tuple[str, Markup]]:
    """Users against items, one chart for each item-side number that two agents have."""
    metric = report.primary_metric
    found = []
    for key, words in ITEM_SIDE.items():
        sides = [
            charts.TwoSides(a.name, a.fairness[key], a.simulated[metric])
            for a in report.ordered_agents()
            if metric is not None and key in a.fairness and metric in a.simulated
        ]
        chart = charts.trade_off(sides, words, str(metric))
        if chart:
            found.append((f"{metric} against {words}", chart))
    return found


def _scenario_text(scenario: Mapping[str, JsonValue]) -> str:
    """The resolved scenario as YAML, in the order in which people write one."""
    if not scenario:
        return ""
    keys: Iterable[str] = [key for key in SCENARIO_ORDER if key in scenario] + sorted(
        set(scenario) - set(SCENARIO_ORDER)
    )
    return yaml.safe_dump({key: scenario[key] for key in keys}, sort_keys=False, allow_unicode=True, width=100)
