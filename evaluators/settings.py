"""The `evaluate:` key of a scenario: on whom, in how many worlds and against whom agents are judged."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

FEWEST_WORLDS_FOR_A_GATE = 5
"""Gates on a simulated difference need this many worlds that agree (measured in EVALUATION, section 5)."""


def _as_tuple(value: Any) -> Any:
    """A single word stands for a list of one: `baseline: popularity`."""
    return (value,) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]


class FairnessSettings(BaseModel):
    """Groups of users between which a metric is compared."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    attributes: Names = Field(
        default=(), description="sensitive attributes of data.sensitive by which users are grouped; e.g. [gender, age]"
    )
    intersections: tuple[Names, ...] = Field(
        default=(), description="attributes that are crossed, a list each; e.g. [[gender, age]]"
    )
    confounders: Names = Field(
        default=(),
        description="stated graph: attributes or policy inputs that precede the sensitive attribute's effects; used "
        "where mediators are named",
    )
    mediators: Names = Field(
        default=(),
        description="stated graph: attributes, policy inputs, history_length or like_share by way of which a sensitive "
        "attribute acts; empty: only the gap is given, not its direct, indirect and spurious parts",
    )
    metric: str = Field(default="click_rate", description="metric compared between groups, by name; see list metrics")

    @property
    def crossed(self) -> dict[str, tuple[str, ...]]:
        """Name of each intersection, as `gender x age`, and the attributes that it crosses."""
        return {" x ".join(names): names for names in self.intersections}

    @property
    def groupings(self) -> tuple[str, ...]:
        """Everything by which users are grouped: attributes, then intersections by name."""
        return (*self.attributes, *self.crossed)


class KnownValue(BaseModel):
    """A value that was once measured on-line, which the simulator must place inside its limits."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    policy: str = Field(description="name of the agent that was measured")
    metric: str = Field(description="metric that was measured, by name")
    value: float = Field(description="value measured on-line, in the metric's unit")
    low: float | None = Field(default=None, description="lower limit of its interval, in the metric's unit")
    high: float | None = Field(default=None, description="upper limit of its interval, in the metric's unit")

    @model_validator(mode="after")
    def _ordered(self) -> KnownValue:
        low = self.value if self.low is None else self.low
        high = self.value if self.high is None else self.high
        if not low <= self.value <= high:
            raise ValueError(f"value {self.value:g} lies outside [{low:g}, {high:g}]; give low <= value <= high")
        return self


class AdaptationSettings(BaseModel):
    """Whose worth is measured by the number of a user's interactions that it has seen."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    agents: Names | None = Field(
        default=None,
        description="agents that are measured, beside the first baseline and the same network fine-tuned and trained "
        "from scratch; empty: the meta-learned ones; []: none",
    )
    interactions: tuple[Annotated[int, Field(ge=0, le=1000)], ...] = Field(
        default=(0, 1, 2, 5, 10, 20),
        min_length=1,
        description="newest interactions of a history that are shown, ascending; simulator.history_length at most, "
        "count",
    )

    @model_validator(mode="after")
    def _ascending(self) -> AdaptationSettings:
        if list(self.interactions) != sorted(set(self.interactions)):
            raise ValueError(f"interactions: {list(self.interactions)} must ascend, none twice")
        return self


class EvaluateSettings(BaseModel):
    """How agents are judged."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    baseline: Names = Field(
        default=(),
        description="agents that every other agent is compared with (name or list); `random` is one where it flies",
    )
    users: int = Field(default=1000, ge=1, description="real users at most whose histories start sessions, count")
    sessions_per_user: int = Field(
        default=1, ge=1, le=100, description="sessions flown for each real user and averaged within the user, count"
    )
    worlds: int = Field(
        default=5, ge=1, le=50, description="judge worlds, fitted on other users than the agents trained on, count"
    )
    seeds: int = Field(
        default=1,
        ge=1,
        le=100,
        description="simulation seeds averaged within the user; they cut noise, they add no users, count",
    )
    metrics: Names = Field(
        default=("reward", "click_rate", "session_length", "diversity", "coverage"),
        min_length=1,
        description="metrics by name, the primary one first: it ranks the agents, the others are exploratory",
    )
    off_policy: Names = Field(
        default=("ips", "snips", "dm", "dr"), description="off-policy estimators by name; see list estimators"
    )
    precision: float | None = Field(
        default=None,
        gt=0,
        description="users are flown in growing numbers until every difference to the first baseline is known to this "
        "half-width, in the primary metric's unit, or `users` are flown; empty: `users` are flown at once",
    )
    fairness: FairnessSettings = Field(default=FairnessSettings(), description="groups of users to compare")
    adaptation: AdaptationSettings = Field(
        default=AdaptationSettings(), description="worth against the number of interactions seen"
    )
    known: tuple[KnownValue, ...] = Field(default=(), description="values measured on-line before, if any")
    other_logs: Names = Field(
        default=(),
        description="logs of other policies on the same items, each a `data.source` with the columns of `data`: the "
        "first judge world, which has seen none of their rows, must place what each policy earned",
    )

    @model_validator(mode="after")
    def _no_name_twice(self) -> EvaluateSettings:
        for field in ("baseline", "metrics", "off_policy", "other_logs"):
            names = getattr(self, field)
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"{field} names '{twice[0]}' twice; name it once")
        return self
