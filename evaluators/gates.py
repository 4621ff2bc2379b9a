"""Gates: rules that an agent must pass, and verdicts that follow intervals, never point estimates.

A rule is `term comparison number`, joined by `and`, `or` and parentheses:

    difference(reward, vs=popularity) > 0 and fairness.gap(click_rate, gender) <= 0.05

What a term is worth comes from whoever implements `GateEvidence`; this module only reads rules and decides.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, field_validator

from evaluators.estimate import Estimate
from evaluators.power import Components, advice
from evaluators.settings import FEWEST_WORLDS_FOR_A_GATE
from evaluators.wording import counted
from simulator.errors import InputError, did_you_mean

Verdict = Literal["pass", "fail", "undecided"]

FAMILY_ALPHA = 0.05
"""Chance of any wrong verdict in the family of all (gate, agent) pairs of a run, each side half of it."""

STATISTICS: dict[str, tuple[str, str, str]] = {
    "mean": ("metric", "", "mean over users of the judge worlds, corrected by the picks check where it can be"),
    "difference": ("metric", "vs", "agent minus another on the same users and noise"),
    "ratio": ("metric", "vs", "agent over another on the same users and noise"),
    "fairness.gap": ("metric", "attribute", "largest difference between the groups of a sensitive attribute"),
    "worst_group": ("metric", "attribute", "value of the group that is served worst"),
    "cvar": ("metric", "share", "mean of the worst-served share of users, e.g. cvar(reward, 0.1)"),
    "off_policy": ("estimator", "", "value on the log's own rounds, no simulator"),
    "off_policy_difference": ("estimator", "vs", "the same, minus another agent or `logged`"),
    "rank": ("metric", "", "place among the agents, 1 the best"),
}
"""Statistic -> what its first argument is, what its second is ("" for none), and what it says."""

NO_COVERAGE = ("dm", "fqe")
"""Estimators whose intervals claim no coverage; gates on them are a mistake."""


class GateSettings(BaseModel):
    """A rule that agents must pass."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field(min_length=1, description="what the gate asks, in words")
    rule: str = Field(description="e.g. difference(reward, vs=popularity) > 0")
    agents: tuple[str, ...] | None = Field(
        default=None, description="agents it holds for; default: every agent but baselines, `random` and `oracle`"
    )

    @field_validator("rule")
    @classmethod
    def _reads(cls, rule: str) -> str:
        try:
            parse_rule(rule)
        except InputError as wrong:
            raise ValueError(str(wrong)) from None
        return rule


# ------------------------------------------------------------------------------------------------ the rule, read


@dataclass(frozen=True, slots=True)
class Term:
    """A statistic of an agent, e.g. `difference(reward, vs=popularity)`.

    Attributes:
        statistic: a key of `STATISTICS`.
        subject: name of the metric, or of the estimator for the off-policy statistics.
        vs: the other agent of a difference or ratio, else None.
        attribute: the sensitive attribute of a fairness statistic, or an intersection (`"gender x age"`), else None.
        share: of users, the worst served, in (0, 1), for the conditional value at risk; else None.
    """

    statistic: str
    subject: str
    vs: str | None = None
    attribute: str | None = None
    share: float | None = None

    def __str__(self) -> str:
        second = [f"vs={self.vs}"] if self.vs is not None else []
        second += [_quoted(self.attribute)] if self.attribute is not None else []
        second += [f"{self.share:g}"] if self.share is not None else []
        return f"{self.statistic}({', '.join([self.subject, *second])})"


@dataclass(frozen=True, slots=True)
class Comparison:
    """`term operator threshold`."""

    term: Term
    operator: Literal[">", ">=", "<", "<="]
    threshold: float

    def __str__(self) -> str:
        return f"{self.term} {self.operator} {self.threshold:g}"


@dataclass(frozen=True, slots=True)
class Joined:
    """Rules joined by one word: all of them (`and`), or any (`or`)."""

    word: Literal["and", "or"]
    parts: tuple[Rule, ...]


Rule = Comparison | Joined


def parse_rule(text: str) -> Rule:
    """Read a rule.

    Raises:
        InputError: one line saying where the rule stops making sense and what belongs there.
    """
    return _Reader(text).whole_rule()


def comparisons_of(rule: Rule) -> Iterator[Comparison]:
    """All comparisons of a rule, left to right."""
    if isinstance(rule, Comparison):
        yield rule
    else:
        for part in rule.parts:
            yield from comparisons_of(part)


class _Reader:
    """Recursive descent over the text; `at` is the next character to read."""

    NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
    WORD = re.compile(r"[A-Za-z_][A-Za-z_0-9.]*")
    OPERATOR = re.compile(r">=|<=|>|<")

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def whole_rule(self) -> Rule:
        rule = self.either()
        self.skip_blanks()
        if self.at < len(self.text):
            raise self.wrong("join comparisons by `and` or `or`")
        return rule

    def either(self) -> Rule:
        return self.joined("or", lambda: self.joined("and", self.single))

    def joined(self, word: Literal["and", "or"], part: _ReadsRule) -> Rule:
        parts = [part()]
        while self.takes_word(word):
            parts.append(part())
        return parts[0] if len(parts) == 1 else Joined(word, tuple(parts))

    def single(self) -> Rule:
        if self.takes("("):
            rule = self.either()
            if not self.takes(")"):
                raise self.wrong("close the parenthesis with `)`")
            return rule
        return self.comparison()

    def comparison(self) -> Comparison:
        term = self.term()
        operator = self.match(self.OPERATOR)
        if operator is None:
            mend = (
                "write > or >= and < or <=: an interval is never exactly a number" if self.peek("=", "==", "!=") else ""
            )
            raise self.wrong(mend or "compare with > >= < or <=")
        number = self.match(self.NUMBER)
        if number is None or not math.isfinite(float(number)):
            raise self.wrong("give a number, e.g. 0.05")
        return Comparison(term, operator, float(number))  # type: ignore[arg-type]

    def term(self) -> Term:
        start = self.at
        statistic = self.match(self.WORD)
        if statistic is None:
            raise self.wrong(f"begin with one of {', '.join(STATISTICS)}")
        if statistic not in STATISTICS:
            self.at = start
            raise self.wrong(f"use one of {', '.join(STATISTICS)}{did_you_mean(statistic, STATISTICS)}")
        if not self.takes("("):
            raise self.wrong(f"write {_usage(statistic)}")
        arguments = [self.argument()]
        while self.takes(","):
            arguments.append(self.argument())
        if not self.takes(")"):
            raise self.wrong(f"close {statistic}( with `)`")
        return self.filled(statistic, arguments, start)

    def filled(self, statistic: str, arguments: list[str], start: int) -> Term:
        second = STATISTICS[statistic][1]
        if not all(arguments) or len(arguments) != (2 if second else 1):
            self.at = start
            raise self.wrong(f"write {_usage(statistic)}")
        if second == "vs":
            key, equals, other = arguments[1].partition("=")
            if key.strip() != "vs" or not equals or not other.strip():
                self.at = start
                raise self.wrong(f"write {_usage(statistic)}")
            return Term(statistic, arguments[0], vs=_bare(other))
        if second == "share":
            number = self.NUMBER.fullmatch(arguments[1])
            if number is None or not 0 < float(arguments[1]) < 1:
                self.at = start
                raise self.wrong(f"write {_usage(statistic)}, the share of users above 0 and below 1")
            return Term(statistic, arguments[0], share=float(arguments[1]))
        return Term(statistic, arguments[0], attribute=arguments[1] if second else None)

    def argument(self) -> str:
        """Raw text up to the `,` or `)` that ends it, so `ips(clip=10)` and `recbole:EASE` are arguments."""
        start, depth, quote = self.at, 0, ""
        while self.at < len(self.text):
            letter = self.text[self.at]
            if quote:
                quote = "" if letter == quote else quote
            elif letter in "'\"":
                quote = letter
            elif letter == "(":
                depth += 1
            elif letter in ",)" and depth == 0:
                break
            elif letter == ")":
                depth -= 1
            self.at += 1
        return _bare(self.text[start : self.at])

    # The four below move over blanks first.

    def skip_blanks(self) -> None:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1

    def takes(self, letter: str) -> bool:
        self.skip_blanks()
        there = self.text.startswith(letter, self.at)
        self.at += len(letter) if there else 0
        return there

    def takes_word(self, word: str) -> bool:
        self.skip_blanks()
        found = self.WORD.match(self.text, self.at)
        there = found is not None and found.group().lower() == word
        self.at += len(word) if there else 0
        return there

    def match(self, pattern: re.Pattern[str]) -> str | None:
        self.skip_blanks()
        found = pattern.match(self.text, self.at)
        if found is None:
            return None
        self.at = found.end()
        return found.group()

    def peek(self, *words: str) -> bool:
        self.skip_blanks()
        return self.text.startswith(words, self.at)

    def wrong(self, mend: str) -> InputError:
        self.skip_blanks()
        rest = self.text[self.at :]
        where = f"at '{rest[:24]}'" if rest else "at its end"
        return InputError(f"'{self.text}' cannot be read {where}; {mend}")


class _ReadsRule(Protocol):
    def __call__(self) -> Rule: ...


def _bare(text: str) -> str:
    """An argument without blanks around it and without its quotes."""
    text = text.strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def _quoted(name: str) -> str:
    """A name as a rule has to write it: an intersection, `"gender x age"`, has blanks and stands in quotes."""
    return f'"{name}"' if " " in name else name


def _usage(statistic: str) -> str:
    first, second, _ = STATISTICS[statistic]
    rest = {"": "", "vs": ", vs=AGENT", "attribute": ", ATTRIBUTE", "share": ", SHARE"}[second]
    return f"{statistic}({first.upper()}{rest})"


def check_rule(
    rule: str,
    *,
    agents: Collection[str],
    metrics: Collection[str],
    attributes: Collection[str],
    estimators: Collection[str],
) -> list[str]:
    """Everything in a rule that names what there is not, one line each; empty if the rule can be decided.

    Args:
        rule: the rule's text.
        agents: names of the scenario's agents.
        metrics: metrics that the scenario asks for.
        attributes: sensitive attributes by which the scenario groups users, and its intersections.
        estimators: off-policy estimators that the scenario asks for, as asked.
    """
    try:
        comparisons = list(comparisons_of(parse_rule(rule)))
    except InputError as wrong:
        return [str(wrong)]
    mistakes = []
    for comparison in comparisons:
        term = comparison.term
        if STATISTICS[term.statistic][0] == "estimator":
            mistakes += _unknown(term, "estimator", term.subject, estimators, "evaluate.off_policy")
            if term.subject.partition("(")[0] in NO_COVERAGE:
                mistakes.append(
                    f"{term}: '{term.subject}' has no interval that covers; gate on a doubly robust one, `dr`"
                )
        else:
            mistakes += _unknown(term, "metric", term.subject, metrics, "evaluate.metrics")
        if term.vs is not None:
            logged = ["logged"] if term.statistic == "off_policy_difference" else []
            mistakes += _unknown(term, "agent", term.vs, [*agents, *logged], "agents")
        if term.attribute is not None:
            crossed = " x " in term.attribute
            where = f"evaluate.fairness.{'intersections' if crossed else 'attributes'}"
            known = [name for name in attributes if (" x " in name) is crossed]
            mistakes += _unknown(term, "attribute", term.attribute, known, where)
        if term.statistic == "rank" and not 0 <= comparison.threshold <= len(agents):
            mistakes.append(f"{comparison}: ranks go from 1 to {len(agents)}, the number of agents; give one of these")
    return list(dict.fromkeys(mistakes))


def _unknown(term: Term, kind: str, name: str, known: Collection[str], where: str) -> list[str]:
    if name.replace(" ", "") in {word.replace(" ", "") for word in known}:
        return []
    near = did_you_mean(name, known) or f"; it has {', '.join(known) or 'none'}"
    return [f"{term}: {kind} '{name}' is not in {where}{near}"]


# ------------------------------------------------------------------------------------------------ evidence, verdict


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of one term for one agent.

    Attributes:
        estimate: value with an interval at the level that was asked for.
        usual: the same at the printed level of 95 %, shown beside it; None: the same.
        simulated: whether it rests on the simulator (then it needs trust, and assumed parts are swept).
        worlds: value in each judge world, where the rule says that all must lie on one side of the threshold;
            None where this rule does not apply (logged numbers, means over worlds, gaps).
        n_worlds: judge worlds that a simulated number comes from.
        blocked: why no gate may be decided on it although it has a value, or None.
        alternative: another estimate of the same that may decide where this one is blocked, or None.
        scope: labels that go with any verdict, e.g. "this trained model".
        components: variance components, for what would decide; None where there are none.
        scale: size of the quantity, by which "within 1 % of the threshold" is measured where the threshold is 0.
    """

    estimate: Estimate
    usual: Estimate | None = None
    simulated: bool = True
    worlds: tuple[float, ...] | None = None
    n_worlds: int = 1
    blocked: str | None = None
    alternative: Estimate | None = None
    scope: tuple[str, ...] = ()
    components: Components | None = None
    scale: float = 0.0


class GateEvidence(Protocol):
    """Where gates look numbers up."""

    @property
    def mistrust(self) -> str | None:
        """None where the simulator is trusted, else the checks that failed."""
        ...

    def look_up(self, term: Term, agent: str, level: float) -> Evidence:
        """What is known of a term for an agent, its interval at the asked level."""
        ...

    def sweeps(self) -> Iterable[tuple[str, float, GateEvidence]]:
        """Part with its source (`assumed leave.satisfaction`), value, and the evidence with that in place of its own.

        It may come from one judge world alone: the number of worlds and whether they agree is asked of the run
        itself, the sweep only asks whether the assumption turns the verdict.
        """
        ...


@dataclass(frozen=True, slots=True)
class GateResult:
    """Verdict of one gate for one agent, with the reason in words.

    Attributes:
        name, rule, agent: which gate, on whom.
        verdict: pass, fail or undecided.
        reason: why, with the interval that decided.
        estimate: the value and interval at the family's level; None for a rule of several comparisons.
        threshold: what it was compared with; None as well.
    """

    name: str
    rule: str
    agent: str
    verdict: Verdict
    reason: str
    estimate: Estimate | None = None
    threshold: float | None = None


def decide_gates(
    gates: Sequence[GateSettings], default_agents: Sequence[str], evidence: GateEvidence
) -> tuple[GateResult, ...]:
    """Verdicts of all gates for all agents they hold for, at intervals that keep the family's error below 5 %.

    Args:
        gates: the scenario's gates.
        default_agents: whom a gate without `agents` holds for.
        evidence: where the numbers are.
    """
    pairs = [(gate, agent) for gate in gates for agent in (default_agents if gate.agents is None else gate.agents)]
    return tuple(_decide(gate, agent, len(pairs), evidence) for gate, agent in pairs)


def overall_verdict(results: Iterable[GateResult]) -> Verdict:
    """`fail` if any gate failed, else `undecided` if any is, else `pass` (also where there are none)."""
    verdicts = {result.verdict for result in results}
    return "fail" if "fail" in verdicts else "undecided" if "undecided" in verdicts else "pass"


def verdict_of(estimate: Estimate, operator: str, threshold: float) -> Verdict:
    """PASS where every point of the interval satisfies the comparison, FAIL where none does, else UNDECIDED.

    A limit that is None is no limit: with a lower limit alone, `>=` can pass and `<` can fail, and nothing else.
    """
    if estimate.value is None:
        return "undecided"
    low = -math.inf if estimate.low is None else estimate.low
    high = math.inf if estimate.high is None else estimate.high
    every, none = {
        ">": (low > threshold, high <= threshold),
        ">=": (low >= threshold, high < threshold),
        "<": (high < threshold, low >= threshold),
        "<=": (high <= threshold, low > threshold),
    }[operator]
    return "pass" if every else "fail" if none else "undecided"


@dataclass(frozen=True, slots=True)
class _Part:
    verdict: Verdict
    reason: str


def _decide(gate: GateSettings, agent: str, m: int, evidence: GateEvidence) -> GateResult:
    rule = parse_rule(gate.rule)
    # A rule of several comparisons could go wrong by any of them, so they share the pair's part of the error.
    level = 1 - FAMILY_ALPHA / (m * sum(1 for _ in comparisons_of(rule)))
    part = _decide_rule(rule, agent, level, evidence)
    if part.verdict != "undecided":
        part = _over_sweeps(rule, agent, level, evidence, part)
    if isinstance(rule, Comparison):
        found = evidence.look_up(rule.term, agent, level)
        return GateResult(gate.name, gate.rule, agent, part.verdict, part.reason, found.estimate, rule.threshold)
    return GateResult(gate.name, gate.rule, agent, part.verdict, part.reason)


def _decide_rule(rule: Rule, agent: str, level: float, evidence: GateEvidence, *, swept: bool = False) -> _Part:
    if isinstance(rule, Comparison):
        return _decide_comparison(rule, agent, level, evidence, swept=swept)
    parts = [_decide_rule(part, agent, level, evidence, swept=swept) for part in rule.parts]
    settles: Verdict = "fail" if rule.word == "and" else "pass"
    otherwise: Verdict = "pass" if rule.word == "and" else "fail"
    verdicts = {part.verdict for part in parts}
    verdict: Verdict = settles if settles in verdicts else "undecided" if "undecided" in verdicts else otherwise
    return _Part(verdict, f" {rule.word} ".join(f"({part.verdict.upper()}) {part.reason}" for part in parts))


def _decide_comparison(
    comparison: Comparison, agent: str, level: float, evidence: GateEvidence, *, swept: bool
) -> _Part:
    found = evidence.look_up(comparison.term, agent, level)
    if found.estimate.value is None:
        return _Part("undecided", f"{comparison.term} withheld: {found.estimate.withheld}")
    said = _in_words(comparison.term, found)
    if "forced" in found.estimate.diagnostics:
        return _Part("undecided", f"a forced value decides no gate: {found.estimate.diagnostics['forced']}; {said}")
    if found.simulated and evidence.mistrust is not None:
        return _Part("undecided", f"simulator not trusted: {evidence.mistrust}; {said}")
    if found.simulated and found.n_worlds < 2 and not swept:
        return _Part("undecided", f"one judge world knows nothing of its own error; set evaluate.worlds to 5; {said}")
    if found.blocked is not None:
        return _decide_blocked(comparison, found, said)
    if found.estimate.low is None and found.estimate.high is None:
        return _Part("undecided", f"{said}: it has no limits, so it decides nothing: {found.estimate.method}")
    verdict = verdict_of(found.estimate, comparison.operator, comparison.threshold)
    if verdict == "undecided":
        return _Part(verdict, f"{said} has {comparison.threshold:g} inside; {_would_decide(comparison, found, level)}")
    if found.worlds is not None and not swept:
        disagree = _worlds_disagree(found.worlds, comparison, verdict)
        if disagree:
            return _Part("undecided", f"{disagree}; {said}")
    return _Part(verdict, said)


def _decide_blocked(comparison: Comparison, found: Evidence, said: str) -> _Part:
    """By the alternative estimate where it decides; the blocked one only stands beside it."""
    other = found.alternative
    verdict = "undecided" if other is None else verdict_of(other, comparison.operator, comparison.threshold)
    if other is None:
        return _Part("undecided", f"{found.blocked}; {said}")
    if other.value is None:
        return _Part("undecided", f"{found.blocked}; corrected: withheld: {other.withheld}; {said}")
    corrected = f"corrected {_number(other.value)} {_interval(other)}"
    if verdict == "undecided":
        inside = f"{comparison.threshold:g} inside"
        return _Part("undecided", f"{found.blocked}; {corrected} has {inside}; uncorrected {said}")
    return _Part(verdict, f"{comparison.term}: {corrected} decides, as {found.blocked}; uncorrected {said}")


def _worlds_disagree(worlds: tuple[float, ...], comparison: Comparison, verdict: Verdict) -> str | None:
    if len(worlds) < FEWEST_WORLDS_FOR_A_GATE:
        found = counted(len(worlds), "judge world")
        return f"worlds disagree or are too few: {found}, a gate needs {FEWEST_WORLDS_FOR_A_GATE}"
    sides = [
        verdict_of(Estimate(x, x, x, 0.95, 0, "one world"), comparison.operator, comparison.threshold) for x in worlds
    ]
    if all(side == verdict for side in sides):
        return None
    against = sum(side != verdict for side in sides)
    listed = ", ".join(f"{x:.4g}" for x in worlds)
    return f"worlds disagree: {against} of {len(worlds)} lie on the other side of {comparison.threshold:g} ({listed})"


def _over_sweeps(rule: Rule, agent: str, level: float, evidence: GateEvidence, decided: _Part) -> _Part:
    """The verdict again for every value of each swept part; undecided where they are not all the same."""
    if not any(evidence.look_up(comparison.term, agent, level).simulated for comparison in comparisons_of(rule)):
        return decided
    verdicts: dict[str, list[tuple[str, Verdict]]] = {}
    for part, value, swept in evidence.sweeps():
        verdicts.setdefault(part, []).append(
            (f"{value:g}", _decide_rule(rule, agent, level, swept, swept=True).verdict)
        )
    depends = [
        f"depends on {part}: {decided.verdict.upper()} as it stands, "
        + ", ".join(f"{verdict.upper()} at {value}" for value, verdict in found)
        for part, found in verdicts.items()
        if any(verdict != decided.verdict for _, verdict in found)
    ]
    if depends:
        return _Part("undecided", "; ".join([*depends, decided.reason]))
    if verdicts:
        return _Part(decided.verdict, f"{decided.reason}; the same over the sweeps of {', '.join(verdicts)}")
    return decided


def _in_words(term: Term, found: Evidence) -> str:
    estimate = found.estimate
    said = f"{term} = {_number(estimate.value)} {_interval(estimate)}"
    if found.usual is not None and found.usual.value is not None and found.usual.level != estimate.level:
        said += f" ({found.usual.level:.4g}: {_interval(found.usual, with_level=False)})"
    return f"{said}{''.join(f', {scope}' for scope in found.scope)}"


def _interval(estimate: Estimate, *, with_level: bool = True) -> str:
    limits = f"[{_number(estimate.low)}, {_number(estimate.high)}]"
    return f"{limits} at level {estimate.level:.4g}" if with_level else limits


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"


def _would_decide(comparison: Comparison, found: Evidence, level: float) -> str:
    value = found.estimate.value
    assert value is not None
    gap = abs(value - comparison.threshold)
    scale = abs(comparison.threshold) or abs(found.scale)
    if gap <= 0.01 * scale or gap == 0:
        return "no sample size will decide it: the estimate is within 1 % of the threshold"
    if found.components is None:
        return "more users would narrow it"
    return advice(found.components, gap, level=level)
