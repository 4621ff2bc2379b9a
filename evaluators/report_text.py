"""The summary of a report for a terminal: agents (or, without them, the checks), fidelity, gates, where the page is."""

from __future__ import annotations

from io import StringIO
from textwrap import shorten
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from evaluators.wording import (
    SCOPE,
    VERDICT_WORDS,
    column_decimals,
    counted,
    decimals,
    gate_summary,
    number,
    threshold_in_words,
    with_interval,
)

if TYPE_CHECKING:
    from evaluators.leaderboard import Board, Leaderboard
    from evaluators.report import DataCardModel, EstimateModel, Report

STYLES = {"pass": "bold green", "fail": "bold red", "undecided": "bold yellow"}
LABEL_WIDTH = 9
"""Columns of the widest label: `undecided`, `Simulator`."""
REASON_WIDTH = 140
REASONS_SHOWN = 4
"""The terminal shows this much of why; a simulator may have thirty reasons, and the page lists them all."""


def to_text(content: RenderableType, width: int, *, colour: bool = False) -> str:
    """Render to a string of at most `width` columns, without control sequences unless `colour`."""
    out = StringIO()
    console = Console(
        file=out,
        width=width,
        force_terminal=colour,
        color_system="standard" if colour else None,
        legacy_windows=False,
        emoji=False,
        highlight=False,
    )
    console.print(content)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def summary(report: Report, *, html: str | None = None) -> Group:
    """What a person reads when a run ends; all strings of the user are shown as they are, never as markup."""
    if not report.agents:
        return _fidelity_alone(report, html)
    parts: list[RenderableType] = [_heading(report), Text(""), _agents(report), Text("")]
    if report.truth is not None:
        parts += [Text(f"In the true world of {report.truth.source}, and what the judge worlds said of it"),
                  _truth(report), Text("")]  # fmt: skip
    lines = [(Text("failed", STYLES["fail"]), Text(f"{a.name}: {a.failed}")) for a in report.agents if a.failed]
    lines += [(Text("withheld"), Text(note)) for note in _withheld(report)]
    if lines:
        parts += [_hanging(lines), Text("")]
    parts += [_hanging([_fidelity(report), *_swept(report), _verdict(report)]), _gates(report)]
    if html is not None:
        parts.append(_hanging([(Text("Report", "bold"), Text(html, overflow="fold"))]))
    return Group(*parts)


def _fidelity_alone(report: Report, html: str | None) -> Group:
    """Every check of the first judge world, how many of the others passed, and every reason."""
    elsewhere = [check for check in report.fidelity.checks if SCOPE.search(check.name)]
    made = [check for check in elsewhere if check.outcome != "not made"]
    rows = [_fidelity(report, shown=len(report.fidelity.reasons))]
    if made:
        passed = sum(check.outcome == "pass" for check in made)
        words = f"{passed} of {len(made)} checks of further worlds and of held-out users passed"
        rows.append((Text("Elsewhere", "bold"), Text(words)))
    if report.data.holds is not None:
        rows.append((Text("Data", "bold"), Text(_cannot_tell(report.data.holds))))
    if html is not None:
        rows.append((Text("Report", "bold"), Text(html, overflow="fold")))
    return Group(_heading(report), Text(""), _checks(report), Text(""), _hanging(rows))


def _cannot_tell(log: DataCardModel) -> str:
    """Who chose what was shown, and what the log therefore does not identify."""
    missing = [question.about for question in log.questions if question.answer == "no"]
    return f"{log.exposure}; not identified: {', '.join(missing) or 'nothing asked of it'}"


def _checks(report: Report) -> Table:
    """One row a check of the first judge world: estimate with interval, band, answer."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for title in ("check", "estimate", "passes", "answer"):
        table.add_column(title, overflow="fold")
    for check in report.fidelity.checks:
        if not SCOPE.search(check.name):
            answer = Text(check.outcome, STYLES.get(check.outcome, ""))
            table.add_row(
                Text(check.name), Text(with_interval(check.estimate)), Text(threshold_in_words(check.threshold)), answer
            )
    return table


def _heading(report: Report) -> Text:
    data = report.data
    return Text.assemble(
        (report.name, "bold"),
        f" (seed {report.seed}, {report.digest[:12]}): {data.n_users:,} users, {data.n_items:,} items, "
        f"{data.n_interactions:,} interactions of {data.source}",
    )


def _agents(report: Report) -> Table:
    """One row an agent; the corrected value has a column only where one was published."""
    metric, baseline, agents = report.primary_metric or "", report.first_baseline, report.ordered_agents()
    values = [agent.simulated.get(metric) for agent in agents]
    corrected = [agent.simulated_corrected.get(metric) for agent in agents]
    compared = [report.comparison(agent.name, baseline, metric) if baseline else None for agent in agents]
    differences = [found.difference if found else None for found in compared]
    columns: list[tuple[str, list[str]]] = [(metric, _cells(values))]
    if any(estimate is not None and estimate.value is not None for estimate in corrected):
        columns.append(("corrected", _cells(corrected)))
    if baseline is not None:
        columns.append((f"minus {baseline}", _cells(differences, signed=True)))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("agent", overflow="fold")
    for title, _ in columns:
        table.add_column(Text(title), overflow="fold")
    table.add_column("rank", justify="right", no_wrap=True)
    for row, agent in enumerate(agents):
        cells = [Text(cells[row]) for _, cells in columns]
        if agent.failed is not None:
            cells = [Text("failed", STYLES["fail"])] + [Text("")] * (len(columns) - 1)
        place = report.rank(agent.name)
        rank = "bound" if agent.role == "bound" else _rank(place.rank_low, place.rank_high) if place else ""
        table.add_row(Text(agent.name), *cells, rank)
    return table


def _truth(report: Report) -> Table:
    """One row an agent, in the order of their table: true value and difference, each beside the judge worlds'."""
    metric, baseline, found = report.primary_metric or "", report.first_baseline, report.truth
    assert found is not None
    order = [agent.name for agent in report.ordered_agents()]
    values = {one.agent: one for one in found.values if one.metric == metric}
    compared = {one.agent: one for one in found.differences if (one.metric, one.baseline) == (metric, baseline)}
    names = sorted(values, key=order.index)
    columns = [
        (f"true {metric}", _cells([values[name].true for name in names])),
        ("judged", _cells([values[name].simulated for name in names])),
    ]
    if baseline is not None:
        true = {name: one.true for name, one in compared.items()}
        judged = {name: one.simulated for name, one in compared.items()}
        columns.append((f"true minus {baseline}", _cells([true.get(name) for name in names], signed=True)))
        columns.append(("judged", _cells([judged.get(name) for name in names], signed=True)))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for title in ("agent", *(title for title, _ in columns)):
        table.add_column(Text(title), overflow="fold")
    for row, name in enumerate(names):
        table.add_row(Text(name), *(Text(cells[row]) for _, cells in columns))
    return table


def _rank(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}-{high}"


def _cells(estimates: list[EstimateModel | None], *, signed: bool = False) -> list[str]:
    places = column_decimals(estimates)
    return [with_interval(estimate, places, signed=signed) if estimate else "" for estimate in estimates]


def _withheld(report: Report) -> list[str]:
    """Each reason why a number of the table is withheld, once, with the agents that it concerns."""
    metric, baseline = report.primary_metric or "", report.first_baseline
    agents_by_reason: dict[str, list[str]] = {}
    for agent in report.agents:
        compared = report.comparison(agent.name, baseline, metric) if baseline else None
        for what, estimate in (
            (metric, agent.simulated.get(metric)),
            (f"{metric}, corrected", agent.simulated_corrected.get(metric)),
            (f"minus {baseline}", compared.difference if compared else None),
        ):
            if estimate is not None and estimate.withheld is not None:
                agents_by_reason.setdefault(f"{what}: {estimate.withheld}", []).append(agent.name)
    everyone = sum(agent.failed is None for agent in report.agents)
    return [
        _short(reason) + ("" if len(names) == everyone else f" ({', '.join(names)})")
        for reason, names in agents_by_reason.items()
    ]


def _short(reason: str) -> str:
    """A reason cut to two lines; the page has all of it."""
    return shorten(reason, REASON_WIDTH, placeholder=" ...")


def _hanging(rows: list[tuple[Text, Text]]) -> Table:
    """Labels at the left in a column of one width, text that wraps beside them."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True, min_width=LABEL_WIDTH)
    grid.add_column(overflow="fold")
    for label, text in rows:
        grid.add_row(label, text)
    return grid


def _fidelity(report: Report, shown: int = REASONS_SHOWN) -> tuple[Text, Text]:
    trusted, given = report.fidelity.trusted, report.fidelity.reasons
    reasons = "; ".join(_short(reason) for reason in given[:shown])
    if len(given) > shown:
        reasons += f"; and {len(given) - shown} more in the report"
    line = Text("trusted" if trusted else "NOT TRUSTED", STYLES["pass" if trusted else "fail"])
    return Text("Simulator", "bold"), line.append(
        (("; " if trusted else ": ") + reasons) if reasons else "", "default not bold"
    )


def _swept(report: Report) -> list[tuple[Text, Text]]:
    """Which sweep moves a policy's primary metric furthest, and how far; nothing where nothing was swept."""
    metric = report.primary_metric or ""
    swept = [one for one in report.assumptions if metric in one.effect]
    if not swept:
        return []
    widest = max(swept, key=lambda one: one.effect[metric][1] - one.effect[metric][0])
    low, high = widest.effect[metric]
    places = decimals(low, high)
    moved = f" of {widest.moved[metric]}" if metric in widest.moved else ""
    values = ", ".join(f"{value:g}" for value in sorted({*widest.sweep, float(widest.value or 0)}))
    words = (
        f"{widest.part}.{widest.parameter} at {values}: {metric}{moved} {number(low, places)} to "
        f"{number(high, places)}, the widest of {counted(len(swept), 'sweep')}"
    )
    return [(Text("Assumed", "bold"), Text(words))]


def _verdict(report: Report) -> tuple[Text, Text]:
    counts = gate_summary((gate.verdict for gate in report.gates), report.gates_asked)
    line = Text.assemble((VERDICT_WORDS[report.verdict].upper(), STYLES[report.verdict]), f": {counts}")
    return Text("Verdict", "bold"), line


def _gates(report: Report) -> Table:
    rows = []
    for gate in report.gates:
        reason = f": {shorten(gate.reason, 2 * REASON_WIDTH, placeholder=' ...')}" if gate.reason else ""
        line = Text.assemble((gate.agent, "bold"), f", {gate.rule}{reason}")
        rows.append((Text(gate.verdict, STYLES[gate.verdict]), line))
    return _hanging(rows)


def boards(leaderboard: Leaderboard) -> Group:
    """The boards of a leaderboard, one under the other."""
    parts: list[RenderableType] = []
    for board in leaderboard.boards:
        title = Text.assemble((f"{board.source}, {board.metric}", "bold"), f" (worlds {board.world_digest[:12]}, ")
        parts += [title.append(f"seed {board.seed})"), _board(board), *(Text(note) for note in board.notes), Text("")]
    parts += [Text(f"skipped: {line}", STYLES["undecided"]) for line in leaderboard.skipped]
    return Group(*parts)


def _board(board: Board) -> Table:
    cells = _cells([entry.value for entry in board.entries])
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("rank", justify="right", no_wrap=True)
    table.add_column("tie", justify="right", no_wrap=True)
    for title in ("agent", board.metric, "runs"):
        table.add_column(Text(title), overflow="fold")
    for entry, value in zip(board.entries, cells, strict=True):
        rank, tie = "", ""
        if entry.rank is not None:
            rank, tie = _rank(entry.rank.rank_low, entry.rank.rank_high), str(entry.rank.tie_group)
        name, rank = Text(entry.agent), "bound" if entry.bound else rank
        runs = entry.runs[0] if len(entry.runs) == 1 else f"{len(entry.runs)} runs"
        table.add_row(rank, tie, name, Text(value or "failed"), Text(runs))
    return table
