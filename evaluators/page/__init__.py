"""report.html: one file without network, script or font of its own, drawn from a report and nothing else.

Everything that a user may have named (agents, items, groups, gates) is escaped by the template engine; the drawings
take numbers, and escape their labels. A number that is withheld stands with its reason, never as a blank.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic import JsonValue

from evaluators import wording
from evaluators.page import agents, belief, charts, evidence
from evaluators.page.parts import Footnotes
from evaluators.report import Report

if TYPE_CHECKING:
    from evaluators.leaderboard import Leaderboard


SCENARIO_ORDER = ("name", "seed", "task", "data", "preference", "simulator", "agents", "evaluate", "stress", "gates")
TASKS = {"recommend": "Recommendation on ", "search": "Search on ", "support": "Customer support on "}
COUNTED = {"users", "rows", "items", "interactions"}
"""Keys of the data card that count things and read better behind their number."""


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
        "gates_in_words": _sentence(wording.gate_summary((gate.verdict for gate in report.gates), report.gates_asked)),
        "gates": agents.gates_with_axes(report.gates),
        "main": agents.metric_heading(report.primary_metric),
        "agents": report.ordered_agents(),
        "columns": agents.columns(report),
        "footnotes": Footnotes(),
        "truth_columns": agents.truth_columns(report),
        "truth_held": agents.truth_held(report),
        "corrected_notes": agents.corrected_notes(report),
        "metric_panels": agents.metric_panels(report),
        "comparison_tables": agents.comparison_tables(report),
        "check_tables": belief.check_tables(report.fidelity.checks),
        "bins": belief.bins(report),
        "reliability_curve": charts.reliability(belief.bins(report)),
        "reference_panels": belief.reference_panels(report),
        "sweep_tables": belief.sweep_tables(report),
        "learning_charts": agents.learning_charts(report),
        "adaptation_tables": agents.adaptation_tables(report),
        "profile_charts": agents.profile_charts(report),
        "off_policy_notes": evidence.shared_reasons(report),
        "off_policy_panels": evidence.off_policy_panels(report),
        "check_panels": evidence.off_policy_check_panels(report),
        "fairness_panels": evidence.named_panels(report, "fairness"),
        "group_tables": evidence.group_tables(report),
        "causal_panels": evidence.causal_panels(report),
        "method_panels": evidence.method_panels(report),
        "driver_panels": evidence.driver_panels(report),
        "path_panels": evidence.path_panels(report),
        "price_panels": evidence.price_panels(report),
        "trade_offs": evidence.trade_offs(report),
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
        ("truth", "Truth", report.truth),
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


def _scenario_text(scenario: Mapping[str, JsonValue]) -> str:
    """The resolved scenario as YAML, in the order in which people write one."""
    if not scenario:
        return ""
    keys: Iterable[str] = [key for key in SCENARIO_ORDER if key in scenario] + sorted(
        set(scenario) - set(SCENARIO_ORDER)
    )
    return yaml.safe_dump({key: scenario[key] for key in keys}, sort_keys=False, allow_unicode=True, width=100)
