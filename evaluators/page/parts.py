"""What the page is made of: rows, panels and tables of numbers, each with its axis and its decimals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from evaluators import wording
from evaluators.page import charts
from evaluators.page.charts import Axis
from evaluators.report import (
    ComparisonSection,
    EstimateModel,
    FidelityCheck,
    Report,
)


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


def panel(
    title: str, rows: Sequence[Row], *, about: str = "", line: float | None = None, signed: bool = False
) -> Panel:
    """A panel with the axis and the decimals that its rows need."""
    marks = [row.mark for row in rows if row.mark is not None]
    include = marks if line is None else [*marks, line]
    axis = charts.axis_over((row.estimate for row in rows), include)
    places = wording.column_decimals(row.estimate for row in rows)
    return Panel(title, tuple(rows), axis, places, about, line, signed)


def rows_of(report: Report, estimates: Mapping[str, EstimateModel]) -> list[Row]:
    """A row for each agent that has the number, in the order of the table of agents."""
    return [
        Row(a.name, estimates[a.name], a.role if a.role != "policy" else "")
        for a in report.ordered_agents()
        if a.name in estimates
    ]


def reasons_of(what: str, estimates: Mapping[str, EstimateModel]) -> list[str]:
    """'WHAT withheld for AGENTS: why', once for each reason."""
    names: dict[str, list[str]] = {}
    for name, estimate in estimates.items():
        if estimate.withheld is not None:
            names.setdefault(estimate.withheld, []).append(name)
    return [
        f"{what} withheld for {'every agent' if len(who) == len(estimates) > 1 else wording.listing(who)}: {reason}"
        for reason, who in names.items()
    ]
