"""The page's parts on agents: gates, metrics, comparisons, profiles, learning and adaptation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from evaluators import wording
from evaluators.metrics import METRICS
from evaluators.page import charts
from evaluators.page.charts import Axis
from evaluators.page.parts import Column, ComparisonTable, LearningChart, Panel, SweepTable, panel, reasons_of, rows_of
from evaluators.report import (
    EstimateModel,
    GateSection,
    Report,
    TruthValue,
)

ADAPTATION = {"auc": "Order of later rows, AUC", "reward": "Reward of the first slate"}


def gates_with_axes(gates: Sequence[GateSection]) -> list[tuple[GateSection, Axis | None]]:
    """Each gate with its axis; gates of one rule share it."""
    axes: dict[str, Axis | None] = {}
    for rule in dict.fromkeys(gate.rule for gate in gates):
        same = [gate for gate in gates if gate.rule == rule]
        thresholds = [gate.threshold for gate in same if gate.threshold is not None]
        axes[rule] = charts.axis_over((gate.estimate for gate in same), thresholds)
    return [(gate, axes[gate.rule]) for gate in gates]


def metric_heading(metric: str | None) -> dict[str, str] | None:
    """Title of a metric, and what it is with its unit."""
    if metric is None:
        return None
    known = METRICS.get(metric)
    return {"title": metric, "about": f"{known.about} ({known.unit})" if known else ""}


def columns(report: Report) -> list[Column]:
    """Columns of the table of agents: the primary metric, corrected, and less the first baseline."""
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


def truth_columns(report: Report) -> list[Column]:
    """Columns of the table of agents in the true world: each true number, and what the judge worlds said of it."""
    metric, baseline, found = report.primary_metric, report.first_baseline, report.truth
    if metric is None or found is None:
        return []
    values = [one for one in found.values if one.metric == metric]
    compared = [one for one in found.differences if (one.metric, one.baseline) == (metric, baseline)]
    pairs: list[tuple[str, Sequence[TruthValue], str | None]] = [(f"true {metric}", values, None)]
    if compared:
        pairs.append((f"true minus {baseline}", compared, baseline))
    out = []
    for title, rows, itself in pairs:
        line = None if itself is None else 0.0
        both = [estimate for one in rows for estimate in (one.true, one.simulated)]
        axis = charts.axis_over(both, () if line is None else (line,))
        places = wording.column_decimals(both)
        for name, of in (
            (title, {one.agent: one.true for one in rows}),
            ("judged", {one.agent: one.simulated for one in rows}),
        ):
            out.append(Column(name, of, axis, places, line, itself is not None, itself))
    return out


def truth_held(report: Report) -> dict[str, str]:
    """Whether the judge worlds' intervals hold an agent's true value, and its true difference to the first baseline."""
    metric, baseline, found = report.primary_metric, report.first_baseline, report.truth
    if found is None:
        return {}
    words = {True: "yes", False: "no", None: "withheld"}
    held = {one.agent: [words[one.holds]] for one in found.values if one.metric == metric}
    for one in found.differences:
        if (one.metric, one.baseline) == (metric, baseline):
            held[one.agent].append(words[one.holds])
    bounds = {agent.name for agent in report.agents if agent.role == "bound"}
    return {agent: "a bound" if agent in bounds else ", ".join(of) for agent, of in held.items()}


def corrected_notes(report: Report) -> list[str]:
    """Why the table has no corrected column: each reason with the agents, where all values are withheld."""
    metric = report.primary_metric or ""
    corrected = {a.name: e for a in report.agents if (e := a.simulated_corrected.get(metric)) is not None}
    if any(e.value is not None for e in corrected.values()):
        return []
    return reasons_of(f"{metric}, corrected by the picks check", corrected)


def metric_panels(report: Report) -> list[Panel]:
    """A panel for each metric but the primary one."""
    panels = []
    for metric in report.metric_names:
        if metric == report.primary_metric:
            continue
        heading = metric_heading(metric) or {}
        of = {a.name: a.simulated[metric] for a in report.agents if metric in a.simulated}
        panels.append(panel(metric, rows_of(report, of), about=heading["about"]))
    return panels


def comparison_tables(report: Report) -> list[ComparisonTable]:
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


def profile_charts(report: Report) -> list[tuple[str, Markup]]:
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


def learning_charts(report: Report) -> list[LearningChart]:
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
        if training.judged_at:
            about += f", judged as after {wording.listing(f'{steps:,}' for steps in training.judged_at)} steps"
        elif training.steps is not None:
            about += f", {training.steps:,} steps each"
        priors = sorted({c.prior_value for c in training.seeds if c.prior_value is not None})
        if priors:
            about += f", prior at {wording.listing(wording.number(p, 1) for p in priors)}"
        if training.search is not None:
            chosen = wording.listing(f"{name} {value}" for name, value in training.search.chosen.items())
            about += f", {chosen} chosen by {wording.counted(len(training.search.trials), 'trial')}"
        found.append(LearningChart(agent.name, about, charts.learning(training.seeds, axis, agent.name)))
    return found


def adaptation_tables(report: Report) -> list[SweepTable]:
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
