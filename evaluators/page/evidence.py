"""The page's parts on further evidence: off-policy values, fairness, effects and their price."""

from __future__ import annotations

from collections.abc import Mapping

from markupsafe import Markup

from evaluators import wording
from evaluators.page import charts
from evaluators.page.parts import GroupsTable, Panel, Row, panel, rows_of
from evaluators.report import (
    AgentSection,
    EstimateModel,
    Report,
)

ITEM_SIDE = {
    "exposure_share(head)": "share of attention that the head items get",
    "exposure_per_merit(tail / head)": "exposure per merit, tail over head; 1 is even",
    "attention_unfairness": "how far attention is from relevance; 0 is fair",
}


def shared_reasons(report: Report) -> list[str]:
    """Reasons for which an estimator is withheld for all agents: said once, not in a table of equal words."""
    by_reason: dict[str, list[str]] = {}
    for estimator in estimators_of(report):
        of = [a.off_policy[estimator] for a in report.agents if estimator in a.off_policy]
        reasons = {estimate.withheld for estimate in of}
        if len(reasons) == 1 and (reason := reasons.pop()) is not None:
            by_reason.setdefault(reason, []).append(estimator)
    whom = "every agent" if len(report.agents) > 1 else "the agent"
    return [f"{wording.listing(names)} withheld for {whom}: {reason}" for reason, names in by_reason.items()]


def estimators_of(report: Report) -> list[str]:
    """Names of the off-policy estimators, in the order in which the scenario asks for them."""
    found = dict.fromkeys(name for agent in report.agents for name in agent.off_policy)
    evaluate = report.scenario.get("evaluate")
    asked = evaluate.get("off_policy") if isinstance(evaluate, dict) else None
    return sorted(
        found, key=lambda name: asked.index(name) if isinstance(asked, list) and name in asked else len(found)
    )


def off_policy_panels(report: Report) -> list[Panel]:
    """A panel for each estimator that is not withheld for all agents for one reason."""
    panels = []
    for estimator in estimators_of(report):
        of = {a.name: a.off_policy[estimator] for a in report.agents if estimator in a.off_policy}
        reasons = {estimate.withheld for estimate in of.values()}
        if len(reasons) > 1 or None in reasons:
            panels.append(panel(estimator, rows_of(report, of)))
    return panels


def off_policy_check_panels(report: Report) -> list[Panel]:
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
        panels.append(panel(estimator, rows, about=about))
    return panels


def named_panels(report: Report, field: str) -> list[Panel]:
    """One panel for each key that agents have in a table of estimates."""
    tables: dict[str, Mapping[str, EstimateModel]] = {agent.name: getattr(agent, field) for agent in report.agents}
    panels = []
    for key in dict.fromkeys(name for table in tables.values() for name in table):
        of = {agent: table[key] for agent, table in tables.items() if key in table}
        line = 0.0 if key.startswith(("gap", "fairness.gap", "effect", "difference")) else None
        panels.append(panel(key, rows_of(report, of), line=line))
    return panels


def group_tables(report: Report) -> list[GroupsTable]:
    """A table for each attribute and metric."""
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


def causal_panels(report: Report) -> list[Panel]:
    """The estimated effect with its exact twin as a mark."""
    panels = []
    for key in dict.fromkeys(name for agent in report.agents for name in agent.causal):
        rows = [_causal_row(a, key) for a in report.ordered_agents() if key in a.causal]
        panels.append(panel(key, rows, line=0.0, signed=True))
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


def method_panels(report: Report) -> list[Panel]:
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
        panels.append(panel(method, rows, about=about or "no valid interval", line=0.0, signed=True))
    return panels


def driver_panels(report: Report) -> list[Panel]:
    """By how much each agent's effect changes with what is known of the user: one panel an agent."""

    def size(one: tuple[str, EstimateModel]) -> float:
        return -abs(one[1].value or 0.0)

    return [
        panel(a.name, [Row(*one) for one in sorted(a.drivers.items(), key=size)], line=0.0, signed=True)
        for a in report.ordered_agents()
        if a.drivers
    ]


def path_panels(report: Report) -> list[Panel]:
    """Agent minus baseline by path, and the direct effect as a log would give it."""
    panels = []
    for path in dict.fromkeys(name for agent in report.agents for name in agent.paths):
        rows = [Row(a.name, a.paths[path]) for a in report.ordered_agents() if path in a.paths]
        panels.append(panel(path, rows, line=0.0, signed=True))
    checked = [(a.name, a.path_check) for a in report.ordered_agents() if a.path_check is not None]
    if checked:
        rows = [
            Row(name, check.estimate, "", check.exact, f"exact {wording.number(check.exact, 3)}")
            for name, check in checked
        ]
        title = "not by way of the number of slates, from a log"
        panels.append(panel(title, rows, about="plug-in, users dealt by a coin", line=0.0, signed=True))
    return panels


def price_panels(report: Report) -> list[Panel]:
    """What a constraint costs and whom: one panel for each number, agents minus the ones that they wrap."""
    panels = []
    for what in dict.fromkeys(row.what for agent in report.agents for row in agent.price):
        rows = [
            Row(f"{agent.name} minus {row.of}", row.estimate)
            for agent in report.ordered_agents()
            for row in agent.price
            if row.what == what
        ]
        panels.append(panel(what, rows, line=0.0, signed=True))
    return panels


def trade_offs(report: Report) -> list[tuple[str, Markup]]:
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
