"""What a run found, as one document: the model of report.json, and its summary for a terminal.

`report.json` keeps the keys of its contract for good; sections beyond it are optional and have defaults, so that a
report of an earlier version still loads. The page for people is drawn from this model alone (`evaluators.page`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_serializer, model_validator
from pydantic_core.core_schema import SerializerFunctionWrapHandler

from evaluators.estimate import Estimate
from simulator.errors import InputError

if TYPE_CHECKING:
    from rich.console import Group

SCHEMA_VERSION = 1

Verdict = Literal["pass", "fail", "undecided"]
Threshold = str | float | tuple[float | None, float | None] | None

EXIT_CODES: dict[str, int] = {"pass": 0, "fail": 1, "undecided": 3}
"""Exit code of `run` and `vet` for each verdict."""


def plain(value: Any) -> Any:
    """JSON-ready twin of a value: numpy becomes Python, a number that is not finite becomes None."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in (sorted(value) if isinstance(value, set | frozenset) else value)]
    return value


class _Part(BaseModel):
    """A part of the report: frozen, no unknown keys, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


class EstimateModel(_Part):
    """A number that may be believed, or the reason why it is withheld; keys of `Estimate.to_json()`."""

    value: float | None = Field(description="point estimate in the unit of the metric; null where withheld")
    low: float | None = Field(None, description="lower limit of the interval; null where there is none")
    high: float | None = Field(None, description="upper limit of the interval; null where there is none")
    level: float = Field(0.95, description="coverage that the interval claims, in (0, 1)")
    n: int = Field(0, description="independent units (users, clusters) it rests on")
    method: str = Field(description="how value and interval were made, scope and assumptions included")
    withheld: str | None = Field(None, description="why there is no value: rule, measured, needed, what would help")
    diagnostics: dict[str, JsonValue] = Field(default_factory=dict, description="further figures (ess, n_inf, ...)")

    @model_validator(mode="before")
    @classmethod
    def _accept_estimate(cls, given: Any) -> Any:
        return plain(given.to_json()) if isinstance(given, Estimate) else given

    @model_validator(mode="after")
    def _value_or_reason(self) -> EstimateModel:
        if (self.value is None) != (self.withheld is not None):
            raise ValueError("an estimate has either a value or a reason why it is withheld")
        return self

    @model_serializer(mode="wrap")
    def _leave_out_the_empty(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without(handler(self), "withheld", "diagnostics")

    @classmethod
    def of(cls, estimate: Estimate) -> EstimateModel:
        """The report's form of an estimate."""
        return cls.model_validate(plain(estimate.to_json()))


def estimates(table: Mapping[str, Estimate]) -> dict[str, EstimateModel]:
    """The report's form of named estimates."""
    return {str(name): EstimateModel.of(estimate) for name, estimate in table.items()}


def _without(dumped: dict[str, Any], *names: str) -> dict[str, Any]:
    """Leave out those of the named keys that hold nothing."""
    return {key: value for key, value in dumped.items() if key not in names or value not in (None, {}, [])}


class SpreadModel(_Part):
    """Least, median and greatest value."""

    least: float
    median: float
    most: float


class TimesModel(_Part):
    """When the rows were logged."""

    first: str = Field(description="day of the first row; empty where times count in some unit of their own")
    last: str
    days: float
    gaps: SpreadModel = Field(description="seconds between a user's consecutive rows, or slates where logged")
    zero_gaps: float = Field(description="share of those gaps that are 0 s")
    within_a_minute: float = Field(description="share of those gaps that are below 60 s")


class SelectionModel(_Part):
    """A difference that is 0 where what was shown depends on nothing that liking depends on."""

    name: str
    estimate: EstimateModel


class GroupModel(_Part):
    """One group of a sensitive attribute."""

    attribute: str
    group: str
    users: int
    rows: int
    base_rate: EstimateModel


class QuestionModel(_Part):
    """What one may want to know of users, and whether the log can tell."""

    about: str
    answer: Literal["yes", "in part", "no"]
    why: str


class DataCardModel(_Part):
    """What the log holds and cannot tell; keys of `DataCard.to_json()`."""

    rows: int
    users: int = Field(description="users with rows")
    items: int = Field(description="items with rows")
    unseen_items: int = Field(description="items of the catalogue without a row")
    density: float = Field(description="share of the pairs of these users and items that have a row")
    rows_per_user: SpreadModel
    rows_per_item: SpreadModel
    base_rate: EstimateModel
    behaviours: dict[str, SpreadModel]
    exposure: str = Field(description="who chose what was shown")
    selection: list[SelectionModel] = Field(description="evidence on rows missing not at random")
    times: TimesModel | None
    impressions: int | None
    sessions: int | None
    positions: int | None = Field(description="greatest position, from 0")
    propensity: SpreadModel | None
    random_rows: int = Field(description="rows of the part whose items were drawn uniformly at random")
    with_text: float = Field(description="share of rows whose item has text")
    groups: list[GroupModel]
    questions: list[QuestionModel]
    limits: list[str] = Field(description="what the publisher's files cannot tell beyond that")
    notes: list[str] = Field(description="what reading left out, merged or put in order")


class DataSection(_Part):
    """What the run was computed from."""

    source: str = Field(description="name of the dataset, or of the file or folder without its path")
    n_users: int
    n_items: int
    n_interactions: int
    splits: dict[str, JsonValue] = Field(default_factory=dict, description="users and rows of each split")
    card: dict[str, JsonValue] = Field(
        default_factory=dict, description="in words: positive, base rate, columns used, sha256, what the log lacks"
    )
    holds: DataCardModel | None = Field(None, description="data card: what the log holds and cannot tell")


class ReliabilityBin(_Part):
    """One bin of a reliability curve."""

    bin: int | None = Field(None, description="number of the bin, by rising prediction")
    predicted: float = Field(description="mean predicted probability")
    observed: float = Field(description="share of primary behaviours observed")
    low: float | None = Field(None, description="lower limit of the share observed, users as clusters")
    high: float | None = Field(None, description="upper limit of the share observed, users as clusters")
    n: int = Field(description="rows in the bin")


class ReferenceComparison(_Part):
    """The preference model against a reference, on rows that neither has seen."""

    reference: str = Field(description="base rate, bias model, matrix factorisation, frozen encoder, ...")
    rows: str = Field("", description="which rows: future rows of the world's users, held-out users, ...")
    statistic: str = Field("log-loss gain", description="what is compared; above 0 is better than the reference")
    estimate: EstimateModel


class ForgettingRow(_Part):
    """Log-loss a row of an updated model on older rows that neither it nor the saved one has seen."""

    world: str
    before: EstimateModel = Field(description="of the saved model")
    after: EstimateModel = Field(description="of the updated one")
    difference: EstimateModel = Field(description="after minus before; above 0 is forgotten")


class PreferenceSection(_Part):
    """What the fine-tuned preference model is worth."""

    encoder: str = ""
    adaptation: str = Field("", description="the adaptation that the scenario asked for")
    chosen: str = Field("", description="the checkpoint that the tuning users kept: frozen, top_layers, ...")
    gain: EstimateModel | None = Field(None, description="log-loss gain of fine-tuning over the frozen encoder")
    comparisons: list[ReferenceComparison] = Field(default_factory=list)
    reliability: list[ReliabilityBin] = Field(default_factory=list)
    curve: list[tuple[float, float]] = Field(default_factory=list, description="(steps, tuning loss)")
    forgetting: list[ForgettingRow] = Field(default_factory=list, description="what `preference.update` cost")
    summary: dict[str, JsonValue] = Field(default_factory=dict)


class FidelityCheck(_Part):
    """One check of the simulator: passed iff the whole interval lies inside the band."""

    name: str
    estimate: EstimateModel
    threshold: Threshold = Field(None, description="the band as [low, high] (null where open), or in words")
    passed: bool | None = Field(description="null where the check cannot be made or is undecided")
    verdict: Literal["pass", "fail", "undecided", "not made"] | None = None
    reason: str = Field("", description="why it did not pass, or why it cannot be made; empty where it passed")

    @property
    def outcome(self) -> str:
        """The verdict, or what `passed` says of it."""
        return self.verdict or {True: "pass", False: "fail", None: "not made"}[self.passed]


class CalibrationFloorSection(_Part):
    """Calibration errors beside what a right model would show on these rows, whose users have moods it cannot know."""

    error: float = Field(description="plain error")
    perfect: float = Field(description="mean plain error of a right model")
    perfect_95: float = Field(description="95 % quantile of the plain error of a right model")
    debiased: float | None = Field(default=None, description="debiased error; null where users are too few")
    debiased_95: float | None = Field(default=None, description="95 % quantile of the debiased error of a right model")
    mood: float = Field(default=0.0, description="standard deviation of users' own levels, in logits")


class FidelitySection(_Part):
    """May the simulator be believed?"""

    trusted: bool
    reasons: list[str] = Field(default_factory=list)
    checks: list[FidelityCheck] = Field(default_factory=list)
    ranking_agreement: EstimateModel | None = None
    reliability: list[ReliabilityBin] = Field(default_factory=list, description="of the first judge world, future rows")
    calibration_floor: CalibrationFloorSection | None = None
    comparisons: dict[str, EstimateModel] = Field(default_factory=dict, description="log-loss gains over references")

    @model_serializer(mode="wrap")
    def _leave_out_the_empty(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without(handler(self), "ranking_agreement", "reliability", "calibration_floor", "comparisons")


class Curve(_Part):
    """Learning curve of one training seed."""

    seed: int = Field(description="number of the training seed")
    points: list[tuple[float, float]] = Field(description="(environment steps, value in the train world)")
    prior_value: float | None = Field(None, description="value before the first step, where a prior is used")


class TrialRow(_Part):
    """One trial of a search of parameters."""

    params: dict[str, Any]
    value: float | None = Field(None, description="mean reward a session of the tuning users in the validation world")
    failed: str | None = Field(None, description="why it has none")


class SearchSection(_Part):
    """A search of an agent's parameters, which no judge world and none of its users took part in."""

    trials: list[TrialRow] = Field(description="in their order; the first has the scenario's own parameters")
    chosen: dict[str, Any] = Field(description="parameters of the trial of highest value; that value is no estimate")


class TrainingSection(_Part):
    """How an agent learned."""

    steps: int | None = Field(None, description="environment steps of one training seed")
    curve: list[tuple[float, float]] = Field(default_factory=list, description="(steps, mean value over seeds)")
    seeds: list[Curve] = Field(default_factory=list, description="one curve for each training seed")
    judged_at: list[int] | None = Field(
        None, description="of each training seed, the steps of the point that is judged, where training may stop early"
    )
    not_reproducible: str | None = Field(None, description="why a second run may differ, e.g. a budget in seconds")
    search: SearchSection | None = Field(None, description="search of its parameters, where the scenario asks for one")


class OffPolicyCheck(_Part):
    """An estimator on rounds logged inside a judge world, beside the simulated truth."""

    estimate: EstimateModel
    truth: EstimateModel


class GroupRow(_Part):
    """One group of users under one agent."""

    attribute: str
    group: str
    metric: str
    estimate: EstimateModel
    difference: EstimateModel | None = Field(None, description="agent minus baseline in this group, paired users")


class EffectMethod(_Part):
    """One way of estimating the effect of being served by the agent, beside the exact effect."""

    method: str
    estimate: EstimateModel
    exact: float


class PathCheck(_Part):
    """Effect not by way of the number of slates: by the plug-in from a log, and by intervention."""

    estimate: EstimateModel
    exact: float


class PriceRow(_Part):
    """What a constraint costs: the agent minus the one that it wraps."""

    of: str
    what: str
    estimate: EstimateModel


class AgentSection(_Part):
    """Everything found about one agent; no numbers where it failed."""

    name: str
    kind: str
    trained_on: str = "this run"
    simulated: dict[str, EstimateModel] = Field(default_factory=dict)
    simulated_corrected: dict[str, EstimateModel] = Field(default_factory=dict)
    picks: EstimateModel | None = None
    optimism: EstimateModel | None = None
    off_policy: dict[str, EstimateModel] = Field(default_factory=dict)
    off_policy_check: dict[str, OffPolicyCheck] = Field(default_factory=dict)
    fairness: dict[str, EstimateModel] = Field(default_factory=dict)
    causal: dict[str, EstimateModel] = Field(default_factory=dict)
    training: TrainingSection | None = None
    failed: str | None = None
    role: Literal["policy", "baseline", "bound"] = Field("policy", description="bound: the oracle")
    groups: list[GroupRow] = Field(default_factory=list, description="fairness by group, with the groups withheld")
    causal_exact: dict[str, EstimateModel] = Field(
        default_factory=dict, description="the exact simulated effect under the key of its estimate in `causal`"
    )
    effect_methods: list[EffectMethod] = Field(
        default_factory=list, description="ways of estimating the effect from a targeted log, beside the exact one"
    )
    drivers: dict[str, EstimateModel] = Field(
        default_factory=dict, description="change of the exact effect with one sd of each user feature, others held"
    )
    paths: dict[str, EstimateModel] = Field(
        default_factory=dict, description="agent minus baseline by path: how often, what is shown; exact"
    )
    path_check: PathCheck | None = None
    price: list[PriceRow] = Field(default_factory=list, description="of an agent that wraps another one of the run")
    notes: list[str] = Field(default_factory=list)

    @model_validator(mode="after")
    def _no_numbers_of_a_failed_agent(self) -> AgentSection:
        if self.failed is not None and (self.simulated or self.simulated_corrected or self.off_policy):
            raise ValueError(f"agent '{self.name}' failed and has numbers")
        return self

    @model_serializer(mode="wrap")
    def _leave_out_the_empty(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without(
            handler(self),
            "failed",
            "groups",
            "causal_exact",
            "effect_methods",
            "drivers",
            "paths",
            "path_check",
            "price",
            "notes",
        )


class AssumptionSection(_Part):
    """One parameter of the world: fitted with its standard error, or assumed and swept."""

    part: str
    parameter: str
    value: float | int | str | bool | None
    source: Literal["fitted", "assumed"]
    se: float | None = None
    sweep: list[float] = Field(default_factory=list, description="its other values under which agents flew")
    effect: dict[str, tuple[float, float]] = Field(
        default_factory=dict,
        description="metric -> (lowest, highest) value of the policy moved most, over the sweep and the value itself",
    )
    moved: dict[str, str] = Field(default_factory=dict, description="metric -> the policy whose range `effect` gives")
    note: str | None = None


class PortfolioRow(_Part):
    """The k agents that an off-policy estimator would send on-line, by their true values on rounds of a judge world."""

    estimator: str
    k: int
    best: float = Field(description="true value of the best of the k agents")
    spread: float = Field(description="standard deviation of their true values")
    ratio: float | None = Field(
        description="SharpeRatio@k: best less the logging policy, over the spread; null at spread 0"
    )
    low: float | None = Field(default=None, description="lower limit of the ratio; null where there is none")
    high: float | None = Field(default=None, description="upper limit of the ratio; null where there is none")
    regret: float = Field(description="true value of the best agent of all, less `best`")


class SweepEffect(_Part):
    """What one swept value of an assumption does to one agent."""

    part: str
    parameter: str
    value: float
    agent: str
    metric: str
    estimate: EstimateModel
    baseline: str | None = Field(None, description="set where the estimate is a difference from this agent")


class ComparisonSection(_Part):
    """One agent against one baseline on one metric; Holm within the metric and baseline."""

    metric: str
    agent: str
    baseline: str
    difference: EstimateModel
    p_value: float | None = None
    p_adjusted: float | None = None
    further_world: EstimateModel | None = Field(None, description="the same difference in a further judge world")
    exploratory: bool = Field(default=False, description="true for every metric but the primary one")
    note: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _take_the_further_world_from_the_diagnostics(cls, given: Any) -> Any:
        """A paired difference brings the limits in a further world as a diagnostic; here they are an estimate."""
        if not isinstance(given, Mapping) or given.get("further_world") is not None:
            return given
        difference = given.get("difference")
        model = EstimateModel.model_validate(difference) if difference is not None else None
        limits = model.diagnostics.get("further_world") if model is not None else None
        if model is None or model.value is None or not isinstance(limits, list) or len(limits) != 2:
            return given
        method = f"{model.method}; in a further judge world"
        further = model.model_dump(exclude={"low", "high", "diagnostics", "method"})
        return {**given, "further_world": {**further, "low": limits[0], "high": limits[1], "method": method}}

    @model_serializer(mode="wrap")
    def _leave_out_the_empty(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without(handler(self), "further_world", "note")


class RankingRow(_Part):
    """The places that an agent may hold, 1 the best."""

    agent: str
    rank_low: int
    rank_high: int


class GateSection(_Part):
    """One gate on one agent."""

    name: str
    rule: str
    agent: str
    verdict: Verdict
    reason: str
    estimate: EstimateModel | None = Field(None, description="the interval that decided, at the family's level")
    threshold: float | None = None

    @model_serializer(mode="wrap")
    def _leave_out_the_empty(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without(handler(self), "estimate", "threshold")


class PowerRow(_Part):
    """What the run could have seen: smallest difference at power 0.8, and what a smaller one would need."""

    metric: str
    agent: str | None = None
    baseline: str | None = None
    users: int
    training_seeds: int = 1
    detectable: float | None = Field(None, description="smallest difference seen with power 0.8, unit of the metric")
    users_needed: int | None = Field(None, description="users that would decide at the present estimate")
    seeds_needed: int | None = Field(None, description="training seeds that would decide at the present estimate")
    pairing_gain: float | None = Field(None, description="variance unpaired / variance paired")
    note: str | None = None


class ProfileSection(_Part):
    """Share of users an agent serves at least so well: level of the primary metric, share, its limits."""

    agent: str
    points: list[tuple[float, float, float, float]]


class AdaptationPoint(_Part):
    """Worth of an agent that has seen so many of a user's interactions."""

    interactions: int = Field(description="newest interactions of the history that it was shown")
    value: EstimateModel
    differences: dict[str, EstimateModel] = Field(
        default_factory=dict, description="minus another agent that has seen as many, by its name"
    )


class AdaptationSection(_Part):
    """How fast an agent adapts to users whom it never met, by one measure."""

    agent: str
    measure: Literal["auc", "reward"] = Field(
        description="auc: order of the users' own later rows; reward: first slate in judge worlds"
    )
    points: list[AdaptationPoint]


class TruthValue(_Part):
    """What an agent truly earns beside what the judge worlds said."""

    agent: str
    metric: str
    true: EstimateModel = Field(description="in the true world")
    simulated: EstimateModel = Field(description="in the judge worlds")
    holds: bool | None = Field(
        description="whether the judge worlds' interval holds the true value; null where one is withheld, and of a "
        "bound, which is another policy in each world"
    )


class TruthDifference(TruthValue):
    """An agent minus a baseline, truly and in the judge worlds, with the intervals of `comparisons`."""

    baseline: str
    p_adjusted: float | None = None


class TruthSection(_Part):
    """The agents in the true world, where the truth of the log is known: same users, same luck."""

    source: str = Field(description="the test world")
    values: list[TruthValue]
    differences: list[TruthDifference]
    ranking_agreement: EstimateModel = Field(description="Kendall's tau of policies, judge worlds and true world")


class Report(_Part):
    """What a run found. `report.json` is this model; times stand in `seconds` and nowhere else."""

    schema_version: int = SCHEMA_VERSION
    name: str
    digest: str
    world_digest: str
    seed: int
    versions: dict[str, str] = Field(default_factory=dict)
    seconds: dict[str, float] = Field(default_factory=dict)
    data: DataSection
    fidelity: FidelitySection
    agents: list[AgentSection] = Field(default_factory=list)
    assumptions: list[AssumptionSection] = Field(default_factory=list)
    comparisons: list[ComparisonSection] = Field(default_factory=list)
    ranking: list[RankingRow] = Field(default_factory=list)
    gates: list[GateSection] = Field(default_factory=list)
    verdict: Verdict
    metrics: list[str] = Field(default_factory=list, description="metrics in the scenario's order, the primary first")
    scenario: dict[str, JsonValue] = Field(default_factory=dict, description="resolved, every default in it")
    preference: PreferenceSection | None = None
    power: list[PowerRow] = Field(default_factory=list)
    sweeps: list[SweepEffect] = Field(default_factory=list)
    portfolios: list[PortfolioRow] = Field(
        default_factory=list, description="each off-policy estimator by the agents that it would test; of one log"
    )
    profiles: list[ProfileSection] = Field(default_factory=list)
    adaptation: list[AdaptationSection] = Field(default_factory=list)
    truth: TruthSection | None = None

    @property
    def exit_code(self) -> int:
        """Exit code of `run` and `vet`: 0 pass, 1 fail, 3 undecided."""
        return EXIT_CODES[self.verdict]

    @property
    def gates_asked(self) -> int:
        """Gates that stand in the scenario, also those that hold for no agent of it."""
        gates = self.scenario.get("gates")
        return len(gates) if isinstance(gates, list) else 0

    @property
    def primary_metric(self) -> str | None:
        """The metric that ranking and the first table show; None where no agent has a number."""
        if self.metrics:
            return self.metrics[0]
        return next((metric for agent in self.agents for metric in agent.simulated), None)

    @property
    def metric_names(self) -> list[str]:
        """All metrics that an agent has, the primary first, then in the scenario's order."""
        found = {metric for agent in self.agents for metric in agent.simulated}
        return [m for m in self.metrics if m in found] + sorted(found - set(self.metrics))

    @property
    def baselines(self) -> list[str]:
        """Baselines of the comparisons, in the scenario's order; `random` comes last."""
        names = list(dict.fromkeys(comparison.baseline for comparison in self.comparisons))
        return sorted(names, key=lambda name: name == "random")

    @property
    def first_baseline(self) -> str | None:
        """The baseline that the first table compares with."""
        return next(iter(self.baselines), None)

    def comparison(self, agent: str, baseline: str, metric: str | None) -> ComparisonSection | None:
        """The comparison of an agent with a baseline on a metric, if it was made."""
        wanted = (agent, baseline, metric)
        return next((c for c in self.comparisons if (c.agent, c.baseline, c.metric) == wanted), None)

    def rank(self, agent: str) -> RankingRow | None:
        """The places that an agent may hold, if it was ranked."""
        return next((row for row in self.ranking if row.agent == agent), None)

    def ordered_agents(self) -> list[AgentSection]:
        """Agents by the places they may hold, then by value, those that failed last.

        The order is for reading only: agents whose places overlap are not separated.
        """
        metric = self.primary_metric or ""

        def key(agent: AgentSection) -> tuple[bool, float, float, float, str]:
            place, estimate = self.rank(agent.name), agent.simulated.get(metric)
            value = estimate.value if estimate is not None and estimate.value is not None else -math.inf
            low, high = (place.rank_low, place.rank_high) if place else (math.inf, math.inf)
            bound = agent.role == "bound" and place is None  # the oracle bounds all others: it opens the table
            return agent.failed is not None, -1.0 if bound else low, high, -value, agent.name

        return sorted(self.agents, key=key)

    def renderable(self, *, html: str | None = None) -> Group:
        """The summary as a rich renderable, for a console with colours."""
        from evaluators.report_text import summary

        return summary(self, html=html)

    def as_text(self, *, html: str | None = None, width: int = 80) -> str:
        """The summary for a terminal as plain text: agents, fidelity in one line, a line per gate.

        Args:
            html: where report.html lies, as the reader should see it; left out where None.
            width: columns.
        """
        from evaluators.report_text import summary, to_text

        return to_text(summary(self, html=html), width)

    def without_seconds(self) -> dict[str, Any]:
        """The document without its times: equal for two runs of one scenario and seed."""
        dumped = self.model_dump(mode="json")
        del dumped["seconds"]
        return dumped

    def to_json_text(self) -> str:
        """report.json as text: keys sorted, floats in the shortest form that reads back to the same number."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)

    @classmethod
    def read(cls, path: Path) -> Report:
        """Load a report.json.

        Raises:
            InputError: the file is not there, is no JSON, or is no report of this version.
        """
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(f"report: '{path}' is not there; give the folder of a finished run") from None
        except (OSError, ValueError) as error:
            raise InputError(f"report: '{path}' cannot be read ({error}); run the scenario again") from None
        version = document.get("schema_version") if isinstance(document, dict) else None
        if version != SCHEMA_VERSION:
            raise InputError(
                f"report: '{path}' has schema version {version}, this version reads {SCHEMA_VERSION}; "
                "run the scenario again"
            )
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(step) for step in first["loc"])
            raise InputError(f"report: '{path}' at {where}: {first['msg']}; run the scenario again") from None
