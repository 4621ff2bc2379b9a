"""The scenario: one frozen model, made of the settings models that stand beside the code they configure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, model_validator

from agents.settings import AgentSettings
from evaluators.gates import GateSettings, check_rule
from evaluators.settings import AdaptationSettings, EvaluateSettings
from simulator.behaviour import SimulatorSettings
from simulator.datasets import DataSettings
from simulator.errors import InputError, did_you_mean
from simulator.preference.settings import PreferenceSettings


def _plain_file_name(name: str) -> str:
    """Names become folders and files, so they must be harmless on any file system."""
    if not re.fullmatch(r"\w[\w. -]{0,79}", name) or name[-1] in ". ":
        raise ValueError("is no plain file name; use letters, digits, '.', '_', '-', at most 80")
    return name


PlainName = Annotated[str, AfterValidator(_plain_file_name)]


class Scenario(BaseModel):
    """Everything that a run depends on, apart from the log itself."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: PlainName = Field(description="Name of the scenario; a plain file name, for it names a folder under runs/.")
    seed: int = Field(default=0, ge=0, lt=2**63, description="Root of every random stream.")
    task: Literal["recommend"] = Field(default="recommend", description="What users come for.")
    data: DataSettings = Field(description="The log, and what is read from it.")
    preference: PreferenceSettings = Field(
        default_factory=lambda: PreferenceSettings(), description="The model of what users like, fine-tuned on the log."
    )
    simulator: SimulatorSettings = Field(
        default_factory=lambda: SimulatorSettings(),
        description="How appeal becomes clicks, drift, satiation and leaving.",
    )
    agents: tuple[AgentSettings, ...] = Field(min_length=1, description="The policies that are flown.")
    evaluate: EvaluateSettings = Field(default_factory=EvaluateSettings, description="How they are compared.")
    ablation: dict[str, tuple[JsonValue, ...]] = Field(
        default={},
        description="Keys of `preference` and the values of each: `windtunnel ablation` fits every combination.",
    )
    stress: None = Field(default=None, description="Reserved; leave it out.")
    gates: tuple[GateSettings, ...] = Field(
        default=(), description="Rules that an agent must pass; none: no verdict but pass."
    )

    @model_validator(mode="after")
    def _parts_fit(self) -> Scenario:
        parts = {name: getattr(self, name) for name in type(self).model_fields}
        mistakes = cross_check(parts, [agent.name for agent in self.agents])
        if mistakes:
            raise ValueError("\n".join(mistakes))
        return self

    def agent(self, name: str) -> AgentSettings:
        """The agent of that name; KeyError where there is none."""
        for agent in self.agents:
            if agent.name == name:
                return agent
        raise KeyError(name)


def cross_check(parts: Mapping[str, Any], agent_names: Sequence[str | None] | None) -> list[str]:
    """Mistakes between parts of a scenario that are each right by themselves, one line each.

    Args:
        parts: top-level key -> settings; a part that is missing (because it is wrong itself) is not checked against.
            `gates` may hold None for an entry that is wrong itself.
        agent_names: name of each agent, also of those that are wrong otherwise; None where even the name is. None in
            place of the list: nothing is known of the agents, so names of agents are not checked.
    """
    names = None if agent_names is None else [name for name in agent_names if name is not None]
    evaluate, gates = parts.get("evaluate"), parts.get("gates", ())
    mistakes = _same_names("agents", agent_names or ())
    mistakes += _same_names("gates", [None if gate is None else gate.name for gate in gates])
    if evaluate is not None:
        mistakes += _check_evaluate(evaluate, names, parts.get("data"))
        mistakes += _check_adaptation(evaluate.adaptation, names, parts.get("simulator"))
        for at, gate in enumerate(gates):
            if gate is None or names is None:
                continue
            wrong = check_rule(
                gate.rule,
                agents=names,
                metrics=evaluate.metrics,
                attributes=evaluate.fairness.groupings,
                estimators=evaluate.off_policy,
            )
            mistakes += [f"gates[{at}].rule: {line}" for line in wrong]
            mistakes += _unknown_names(f"gates[{at}].agents", gate.agents or (), names, _AN_AGENT)
    return mistakes


_AN_AGENT = "an agent of this scenario"


def _check_evaluate(evaluate: EvaluateSettings, agents: Sequence[str] | None, data: DataSettings | None) -> list[str]:
    from evaluators.metrics import METRICS
    from evaluators.off_policy.names import parse

    mistakes: list[str] = []
    mistakes += _unknown_names("evaluate.baseline", evaluate.baseline, agents, _AN_AGENT)
    mistakes += _unknown_names("evaluate.metrics", evaluate.metrics, METRICS, "a metric", "metrics")
    for name in evaluate.off_policy:
        try:
            parse(name)
        except InputError as error:
            mistakes.append(f"evaluate.off_policy: {str(error).removeprefix('estimator: ')}")
    fairness = evaluate.fairness
    for crossed in fairness.intersections:
        if len(crossed) < 2:
            mistakes.append(
                f"evaluate.fairness.intersections: '{', '.join(crossed)}' crosses nothing; name two or more"
            )
    if fairness.attributes:
        mistakes += _unknown_names("evaluate.fairness.metric", [fairness.metric], METRICS, "a metric", "metrics")
    if data is not None:
        known = data.sensitive
        named = [("attributes", name) for name in fairness.attributes]
        named += [("intersections", name) for crossed in fairness.intersections for name in crossed]
        for key, name in named:
            if name not in known:
                hint = did_you_mean(name, known) or "; add it there"
                mistakes.append(f"evaluate.fairness.{key}: '{name}' is not among data.sensitive{hint}")
        usable = [*known, *data.policy_inputs, "history_length", "like_share"]
        for key in ("confounders", "mediators"):
            names = getattr(fairness, key)
            mistakes += _unknown_names(f"evaluate.fairness.{key}", names, usable, "a column that the graph may name")
    for at, value in enumerate(evaluate.known):
        where = f"evaluate.known[{at}]"
        mistakes += _unknown_names(f"{where}.metric", [value.metric], METRICS, "a metric", "metrics")
        if value.metric in METRICS and value.metric not in evaluate.metrics:
            mistakes.append(f"{where}.metric: '{value.metric}' is not among evaluate.metrics; add it there")
        mistakes += _unknown_names(f"{where}.policy", [value.policy], agents, _AN_AGENT)
    return mistakes


def _check_adaptation(
    adaptation: AdaptationSettings, agents: Sequence[str] | None, simulator: SimulatorSettings | None
) -> list[str]:
    mistakes = _unknown_names("evaluate.adaptation.agents", adaptation.agents or (), agents, _AN_AGENT)
    most = adaptation.interactions[-1]
    asked = "interactions" in adaptation.model_fields_set
    if asked and simulator is not None and most > simulator.history_length:
        mistakes.append(
            f"evaluate.adaptation.interactions: {most} are more than agents are shown; {simulator.history_length} at "
            "most, or raise simulator.history_length"
        )
    return mistakes


def _unknown_names(
    where: str, names: Iterable[str], known: Iterable[str] | None, what: str, command: str | None = None
) -> list[str]:
    if known is None:
        return []
    known = list(known)
    listed = (
        f"; `windtunnel list {command}` has all {len(known)}"
        if command
        else f"; there are {', '.join(known) or 'none'}"
    )
    return [
        f"{where}: '{name}' is not {what}{did_you_mean(name, known) or listed}" for name in names if name not in known
    ]


def _same_names(where: str, names: Sequence[str | None]) -> list[str]:
    """Names must differ also where a file system does not tell capitals from small letters."""
    first: dict[str, int] = {}
    mistakes = []
    for at, name in enumerate(names):
        if name is None:
            continue
        if name.casefold() in first:
            mistakes.append(
                f"{where}[{at}].name: '{name}' is also the name of {where}[{first[name.casefold()]}]; rename one"
            )
        first.setdefault(name.casefold(), at)
    return mistakes
