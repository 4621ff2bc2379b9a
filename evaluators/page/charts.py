"""The few drawings of the page as SVG: intervals on a shared axis, reliability, learning curves, places.

A drawing never stands alone: each has its numbers in words, as a label for a reader who does not see it, and as text
beside it. Only numbers enter the drawings, apart from labels, which are escaped.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from evaluators.report import Curve, EstimateModel, ReliabilityBin
from evaluators.wording import number, with_interval

Point = tuple[float, float, float, float]
"""Level of a metric, share of users, lower and upper limit of the share."""

MARGIN = 0.04
"""Share of an axis left free at both ends, so that end marks are not cut."""
SMALLEST_SPREAD = 1e-9
"""Numbers nearer to one another than this share of their size are one number: ticks between them cannot be written."""


@dataclass(frozen=True, slots=True)
class Axis:
    """A linear axis from `low` to `high`, in the unit of what is drawn; `ticks` are round numbers inside."""

    low: float
    high: float
    ticks: tuple[float, ...]

    def share(self, x: float) -> float:
        """Where x lies on the axis, 0 at its low and 1 at its high end; held inside."""
        return min(max((x - self.low) / (self.high - self.low), 0.0), 1.0)

    def percent(self, x: float) -> str:
        """Where x lies, as a length of SVG."""
        return f"{100 * self.share(x):.2f}%"

    def labels(self) -> list[tuple[str, str]]:
        """(position, text) of each tick."""
        return [(self.percent(tick), number(tick, _places(self.ticks))) for tick in self.ticks]


def _places(ticks: Sequence[float]) -> int:
    """Fewest decimals that write all ticks exactly."""
    return next((p for p in range(9) if all(math.isclose(round(t, p), t, abs_tol=1e-12) for t in ticks)), 8)


def axis_over(estimates: Iterable[EstimateModel | None], include: Iterable[float] = (), ticks: int = 4) -> Axis | None:
    """An axis that holds all values and limits and the numbers to include; None where there is nothing to draw."""
    ends = [
        x for e in estimates if e is not None and e.value is not None for x in (e.value, e.low, e.high) if x is not None
    ]
    return axis_between([*ends, *include], ticks) if ends else None


def axis_between(numbers: Sequence[float], ticks: int = 4) -> Axis:
    """An axis over the numbers with about `ticks` round ticks."""
    low, high = min(numbers), max(numbers)
    size = max(abs(low), abs(high))
    if high - low <= SMALLEST_SPREAD * max(size, 1.0):
        half = size / 2 if size > SMALLEST_SPREAD else 0.5
        low, high = low - half, high + half
    low, high = low - MARGIN * (high - low), high + MARGIN * (high - low)
    raw = (high - low) / max(ticks, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(low / step)
    return Axis(low, high, tuple(round(k * step, 12) for k in range(first, math.floor(high / step) + 1)))


def interval(
    estimate: EstimateModel | None,
    axis: Axis | None,
    *,
    tone: str = "",
    line: float | None = None,
    band: tuple[float | None, float | None] | None = None,
    mark: float | None = None,
    label: str = "",
) -> Markup:
    """A point with its interval on an axis; nothing where there is no value.

    Args:
        estimate: what is drawn.
        axis: shared by the drawings under one another.
        tone: class of the mark, e.g. a verdict.
        line: a vertical line: zero, or a threshold.
        band: shaded region, None at an open end.
        mark: a second number drawn as a small tick: the truth beside an estimate.
        label: what is drawn, in words, for a reader who does not see it.
    """
    if estimate is None or estimate.value is None or axis is None:
        return Markup("")
    parts = []
    if band is not None:
        start, end = (axis.share(low) if low is not None else edge for low, edge in zip(band, (0.0, 1.0), strict=True))
        parts.append(
            f'<rect class="band" x="{100 * start:.2f}%" y="0" width="{100 * (end - start):.2f}%" height="100%"/>'
        )
    if line is not None:
        parts.append(f'<line class="rule" x1="{axis.percent(line)}" x2="{axis.percent(line)}" y1="0" y2="100%"/>')
    low = axis.low if estimate.low is None else estimate.low
    high = axis.high if estimate.high is None else estimate.high
    if (estimate.low, estimate.high) != (None, None):
        parts.append(f'<line class="whisker" x1="{axis.percent(low)}" x2="{axis.percent(high)}" y1="50%" y2="50%"/>')
    if mark is not None:
        parts.append(f'<line class="truth" x1="{axis.percent(mark)}" x2="{axis.percent(mark)}" y1="12%" y2="88%"/>')
    parts.append(f'<circle class="point" cx="{axis.percent(estimate.value)}" cy="50%" r="4"/>')
    words = f"{label}: {with_interval(estimate)}" if label else with_interval(estimate)
    return _svg(parts, f"iv {tone}".strip(), words)


def scale(axis: Axis | None, line: float | None = None) -> Markup:
    """The ticks of an axis with their numbers, to stand above a column of intervals."""
    if axis is None:
        return Markup("")
    parts = []
    for index, (position, text) in enumerate(axis.labels()):
        share = float(position.rstrip("%"))
        anchor = "start" if share < 8 else "end" if share > 92 else "middle"
        css = ' class="minor"' if index % 2 else ""  # left out where the page is narrow
        parts.append(f'<text{css} x="{position}" y="11" text-anchor="{anchor}">{escape(text)}</text>')
        parts.append(f'<line class="tick" x1="{position}" x2="{position}" y1="15" y2="20"/>')
    if line is not None:
        parts.append(f'<line class="rule" x1="{axis.percent(line)}" x2="{axis.percent(line)}" y1="15" y2="20"/>')
    return (
        Markup('<svg class="scale" aria-hidden="true">') + Markup("").join(Markup(p) for p in parts) + Markup("</svg>")
    )


def places(rank_low: int, rank_high: int, agents: int) -> Markup:
    """The places that an agent may hold, of all places, as a row of dots."""
    parts = []
    for place in range(1, agents + 1):
        x = f"{100 * (place - 0.5) / agents:.2f}%"
        held = rank_low <= place <= rank_high
        parts.append(f'<circle class="{"held" if held else "free"}" cx="{x}" cy="50%" r="{3.5 if held else 1.5}"/>')
    if rank_high > rank_low:
        x1, x2 = (f"{100 * (place - 0.5) / agents:.2f}%" for place in (rank_low, rank_high))
        parts.insert(0, f'<line class="held" x1="{x1}" x2="{x2}" y1="50%" y2="50%"/>')
    words = f"place {rank_low}" if rank_low == rank_high else f"places {rank_low} to {rank_high}"
    return _svg(parts, "places", f"{words} of {agents}")


WIDTH, HEIGHT = 320, 200
LEFT, RIGHT, TOP, BOTTOM = 44, 8, 10, 26
"""The frame of a chart with two axes, in units of its view box."""


def reliability(bins: Sequence[ReliabilityBin]) -> Markup:
    """Share observed against probability predicted, one mark a bin, with its interval; the diagonal is calibrated."""
    if not bins:
        return Markup("")
    ends = [x for b in bins for x in (b.predicted, b.observed, b.low, b.high) if x is not None]
    axis = axis_between(ends, 5)
    side = 300
    inner = side - LEFT - BOTTOM

    def x(value: float) -> float:
        return LEFT + axis.share(value) * inner

    def y(value: float) -> float:
        return TOP + (1 - axis.share(value)) * inner

    parts = [f'<rect class="frame" x="{LEFT}" y="{TOP}" width="{inner}" height="{inner}"/>']
    for _, text, value in _ticks(axis):
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{LEFT + inner}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y(value) + 3.5:.1f}" text-anchor="end">{text}</text>')
        parts.append(f'<text x="{x(value):.1f}" y="{TOP + inner + 15}" text-anchor="middle">{text}</text>')
    parts.append(
        f'<line class="diagonal" x1="{x(axis.low):.1f}" y1="{y(axis.low):.1f}" '
        f'x2="{x(axis.high):.1f}" y2="{y(axis.high):.1f}"/>'
    )
    path = " ".join(f"{x(b.predicted):.1f},{y(b.observed):.1f}" for b in bins)
    parts.append(f'<polyline class="curve" points="{path}"/>')
    for b in bins:
        if b.low is not None and b.high is not None:
            at = f"{x(b.predicted):.1f}"
            parts.append(f'<line class="whisker" x1="{at}" x2="{at}" y1="{y(b.low):.1f}" y2="{y(b.high):.1f}"/>')
        parts.append(f'<circle class="point" cx="{x(b.predicted):.1f}" cy="{y(b.observed):.1f}" r="3"/>')
    worst = max(bins, key=lambda b: abs(b.observed - b.predicted))
    words = (
        f"Reliability of {len(bins)} bins; the widest distance from the diagonal is predicted {worst.predicted:.3f}, "
        f"observed {worst.observed:.3f}"
    )
    return _svg(parts, "chart square", words, f"0 0 {side} {side - BOTTOM + 20}")


@dataclass(frozen=True, slots=True)
class TwoSides:
    """One agent on a chart of two sides.

    Attributes:
        name: of the agent.
        items: what it means for items: the horizontal place.
        users: what it means for users: the vertical place.
    """

    name: str
    items: EstimateModel
    users: EstimateModel


def trade_off(sides: Sequence[TwoSides], items: str, users: str) -> Markup:
    """What each agent does for users against what it does for items, with both intervals; nothing for under two."""
    known = [s for s in sides if s.items.value is not None and s.users.value is not None]
    if len(known) < 2:
        return Markup("")
    across, up = axis_over(s.items for s in known), axis_over(s.users for s in known)
    assert across is not None
    assert up is not None
    wide, tall = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    parts = []
    for share, text, _ in _ticks(up):
        at = TOP + (1 - share) * tall
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{LEFT + wide}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at + 3.5:.1f}" text-anchor="end">{text}</text>')
    for share, text, _ in _ticks(across):
        parts.append(f'<text x="{LEFT + share * wide:.1f}" y="{HEIGHT - 8}" text-anchor="middle">{text}</text>')

    def x(value: float | None, else_: float) -> float:
        return LEFT + across.share(else_ if value is None else value) * wide

    def y(value: float | None, else_: float) -> float:
        return TOP + (1 - up.share(else_ if value is None else value)) * tall

    points = []
    for s in known:
        a, b = s.items.value, s.users.value
        assert a is not None
        assert b is not None
        at_x, at_y = x(a, a), y(b, b)
        points.append((at_x, at_y))
        parts.append(
            f'<line class="whisker" x1="{x(s.items.low, a):.1f}" x2="{x(s.items.high, a):.1f}" y1="{at_y:.1f}" '
            f'y2="{at_y:.1f}"/><line class="whisker" x1="{at_x:.1f}" x2="{at_x:.1f}" y1="{y(s.users.low, b):.1f}" '
            f'y2="{y(s.users.high, b):.1f}"/><circle class="point" cx="{at_x:.1f}" cy="{at_y:.1f}" r="3"/>'
        )
    for s, (text_x, text_y) in zip(known, _label_places(points, [s.name for s in known]), strict=True):
        parts.append(f'<text x="{text_x:.1f}" y="{text_y:.1f}">{escape(s.name)}</text>')
    each = "; ".join(f"{s.name}: {users} {with_interval(s.users)}, {items} {with_interval(s.items)}" for s in known)
    return _svg(parts, "chart", f"Users against items. {each}", f"0 0 {WIDTH} {HEIGHT}")


LETTER, LINE = 6.5, 12
"""Width of a letter and height of a line of the chart's text, in units of its view box."""


def _label_places(points: Sequence[tuple[float, float]], names: Sequence[str]) -> list[tuple[float, float]]:
    """Where each point's name begins: at the first of eight places beside it that lies free and inside the frame."""
    taken: list[tuple[float, float, float]] = []
    found = []
    for (x, y), name in zip(points, names, strict=True):
        width = LETTER * len(name)
        places = [(x + side, y + down) for down in (-5, 14, -17, 26) for side in (6, -6 - width)]
        inside = [p for p in places if p[0] >= LEFT and p[0] + width <= WIDTH and LINE <= p[1] <= HEIGHT - BOTTOM]
        free = [
            p for p in inside if all(p[0] + width < x0 or p[0] > x1 or abs(p[1] - at) >= LINE for x0, x1, at in taken)
        ]
        chosen = (free or inside or places)[0]
        taken.append((chosen[0], chosen[0] + width, chosen[1]))
        found.append(chosen)
    return found


def learning(curves: Sequence[Curve], axis: Axis, name: str) -> Markup:
    """Value against steps, one line a training seed; a dashed line where a prior starts."""
    points = [point for curve in curves for point in curve.points]
    if not points:
        return Markup("")
    steps = axis_between([0.0, max(step for step, _ in points) or 1.0], 2)
    steps = Axis(0.0, max(step for step, _ in points) or 1.0, steps.ticks)
    wide, tall = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def x(value: float) -> float:
        return LEFT + steps.share(value) * wide

    def y(value: float) -> float:
        return TOP + (1 - axis.share(value)) * tall

    parts = []
    for _, text, value in _ticks(axis):
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{LEFT + wide}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y(value) + 3.5:.1f}" text-anchor="end">{text}</text>')
    for share, text, value in _ticks(steps):
        if value < 0 or value > steps.high:
            continue
        anchor = "end" if share > 0.95 else "start" if share < 0.05 else "middle"
        parts.append(f'<text x="{x(value):.1f}" y="{HEIGHT - 8}" text-anchor="{anchor}">{text}</text>')
    priors = sorted({curve.prior_value for curve in curves if curve.prior_value is not None})
    parts += [f'<line class="prior" x1="{LEFT}" x2="{LEFT + wide}" y1="{y(p):.1f}" y2="{y(p):.1f}"/>' for p in priors]
    for index, curve in enumerate(curves):
        path = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in curve.points)
        parts.append(f'<polyline class="curve seed{index % 4}" points="{path}"/>')
    firsts = [curve.points[0][1] for curve in curves if curve.points]
    lasts = [curve.points[-1][1] for curve in curves if curve.points]
    words = (
        f"Learning curves of {name}: {len(curves)} training seeds, from {number(sum(firsts) / len(firsts))} to "
        f"{number(sum(lasts) / len(lasts))} on average"
    )
    return _svg(parts, "chart", words, f"0 0 {WIDTH} {HEIGHT}")


def profile(points: Sequence[Point], baseline: Sequence[Point], axis: Axis, name: str, beside: str) -> Markup:
    """Share of users at a level of the metric or better, with its band, beside the baseline's as a dashed line.

    Args:
        points: (level, share, low, high) of the agent.
        baseline: of the baseline; empty draws none.
        axis: of the levels, shared by all agents.
        name: of the agent.
        beside: name of the baseline.
    """
    shares = Axis(0.0, 1.0, (0.0, 0.5, 1.0))
    wide, tall = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def at(level: float, share: float) -> str:
        return f"{LEFT + axis.share(level) * wide:.1f},{TOP + (1 - shares.share(share)) * tall:.1f}"

    parts = []
    for share, text, _ in _ticks(shares):
        y = TOP + (1 - share) * tall
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{LEFT + wide}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{text}</text>')
    for share, text, _ in _ticks(axis):
        parts.append(f'<text x="{LEFT + share * wide:.1f}" y="{HEIGHT - 8}" text-anchor="middle">{text}</text>')
    band = [at(level, high) for level, _, _, high in points] + [at(level, low) for level, _, low, _ in points[::-1]]
    parts.append(f'<polygon class="band" points="{" ".join(band)}"/>')
    if baseline:
        path = " ".join(at(level, share) for level, share, _, _ in baseline)
        parts.append(f'<polyline class="curve beside" points="{path}"/>')
    parts.append(f'<polyline class="curve" points="{" ".join(at(level, share) for level, share, _, _ in points)}"/>')
    half = min(points, key=lambda point: abs(point[1] - 0.5))
    words = f"Performance profile of {name}: {half[1]:.0%} of users at {number(half[0])} or better"
    if baseline:
        words += f", dashed: {beside}"
    return _svg(parts, "chart", words, f"0 0 {WIDTH} {HEIGHT}")


def _ticks(axis: Axis) -> list[tuple[float, str, float]]:
    """(share, text, value) of each tick."""
    decimals_needed = _places(axis.ticks)
    return [(axis.share(tick), number(tick, decimals_needed), tick) for tick in axis.ticks]


def _svg(parts: Iterable[str], css: str, words: str, view: str | None = None) -> Markup:
    """Wrap drawings whose numbers are already formatted; the words are escaped."""
    box = Markup(' viewBox="{}"').format(view) if view else Markup("")
    return (
        Markup('<svg class="{}" role="img" aria-label="{}"{}>').format(css, words, box)
        + Markup("".join(parts))
        + Markup("</svg>")
    )
