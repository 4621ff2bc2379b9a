"""What there is to name in a scenario: agents, estimators, metrics, rewards, datasets, scenarios, encoders."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agents.kinds import Kind

SCENARIOS_FOLDER = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a list.

    Attributes:
        name: as a scenario names it.
        about: what it is.
        more: what else is known of it, for `--json`.
        line: what people read where that is more than `about`.
    """

    name: str
    about: str
    more: dict[str, str | bool] = field(default_factory=dict)
    line: str = ""


def _agents() -> Iterable[Entry]:
    from agents.kinds import KINDS

    own = Entry("file.py:Class", "your own class with `act`; also package.module:Class")
    return [*(Entry(name, kind.about, _facts(kind), kind.line) for name, kind in KINDS.items()), own]


def _facts(kind: Kind) -> dict[str, str | bool]:
    names = ("family", "needs", "paper", "learns", "online")
    return {name: getattr(kind, name) for name in names}


def _estimators() -> Iterable[Entry]:
    from evaluators.off_policy.names import about_estimators

    return [Entry(row["name"], row["about"]) for row in about_estimators()]


def _metrics() -> Iterable[Entry]:
    from evaluators.metrics import METRICS

    return [Entry(name, f"{metric.about} ({metric.unit})") for name, metric in METRICS.items()]


def _rewards() -> Iterable[Entry]:
    from simulator.behaviour import REWARDS

    return [Entry(name, about) for name, about in REWARDS.items()]


def _datasets() -> Iterable[Entry]:
    from simulator.datasets import DATASETS

    return [Entry(name, known.about) for name, known in DATASETS.items()]


def _scenarios() -> Iterable[Entry]:
    found = [*sorted(SCENARIOS_FOLDER.glob("*.yaml")), *sorted(SCENARIOS_FOLDER.glob("worlds/*.yaml"))]
    return [
        Entry(path.relative_to(SCENARIOS_FOLDER).with_suffix("").as_posix(), _first_comment(path)) for path in found
    ]


def _first_comment(path: Path) -> str:
    line = path.read_text(encoding="utf-8").partition("\n")[0]
    return line.removeprefix("#").strip() if line.startswith("#") else ""


def _encoders() -> Iterable[Entry]:
    from simulator.encoders.text import ENCODERS

    return [Entry(name, about) for name, about in ENCODERS.items()]


LISTS: dict[str, Callable[[], Iterable[Entry]]] = {
    "agents": _agents,
    "estimators": _estimators,
    "metrics": _metrics,
    "rewards": _rewards,
    "datasets": _datasets,
    "scenarios": _scenarios,
    "encoders": _encoders,
}
"""What `windtunnel list` takes; each part is imported when it is asked for."""
