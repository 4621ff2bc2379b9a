"""The page's parts on how far the simulator may be believed: checks, references, assumptions swept."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from evaluators import wording
from evaluators.page import charts
from evaluators.page.parts import CheckRow, CheckTable, Panel, Row, SweepTable, panel
from evaluators.report import (
    FidelityCheck,
    Report,
    Threshold,
)

BAND = re.compile(r"\[(?P<low>[-+\d.e]+), (?P<high>[-+\d.e]+)\]")
BOUND = re.compile(r"(?P<side>lower|upper) (?P<sign>[<>]=?) (?P<limit>[-+\d.e]+)")


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


def check_tables(checks: Sequence[FidelityCheck]) -> list[CheckTable]:
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


def bins(report: Report) -> list[Any]:
    """Bins of the reliability curve: those of the fidelity section, or the preference model's own."""
    return list(report.fidelity.reliability or (report.preference.reliability if report.preference else []))


def reference_panels(report: Report) -> list[Panel]:
    """Gains of the preference model over its references, above 0 is better."""
    rows = [Row(name, estimate) for name, estimate in report.fidelity.comparisons.items()]
    panels = (
        [
            panel(
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
            panel(f"Preference model: {statistic}", found, about="over each reference", line=0.0, signed=True)
        )
    return panels


def sweep_tables(report: Report) -> list[SweepTable]:
    """A table for each parameter that was swept, by metric and baseline."""
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
