"""An entry of the scenario's `agents:` list. Cheap to import: nothing of any agent is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class EarlyStopping(BaseModel):
    """When a training stops before its steps are over, by what it is worth to users who do not train it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    patience: int = Field(
        default=3, ge=1, description="points of the learning curve without a gain in the validation world"
    )
    min_delta: float = Field(default=0.0, ge=0, description="reward a session by which a point must exceed the best")
    points: int = Field(
        default=8, ge=2, le=1000, description="points of the learning curve, evenly spread over `steps`"
    )

    def best(self, values: Sequence[float]) -> int:
        """Number of the point that counts as the best of these values, the first of which is the untrained policy's."""
        best = 0
        for number, value in enumerate(values):
            if value > values[best] + self.min_delta:
                best = number
        return best

    def over(self, values: Sequence[float]) -> bool:
        """Whether the points since the best one have used up the patience."""
        return len(values) - 1 - self.best(values) >= self.patience


class TrainSettings(BaseModel):
    """How an agent that learns is trained."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    seeds: int = Field(default=3, ge=1, le=100, description="trainings with different seeds, each judged")
    steps: int | None = Field(
        default=None, ge=0, description="user-steps in the train world; empty: the agent's own default"
    )
    seconds: float | None = Field(
        default=None, gt=0, description="wall-clock seconds a training may take; makes the agent not reproducible"
    )
    early_stopping: EarlyStopping | None = Field(
        default=None, description="stop where more steps gain nothing in a validation world; judged is the best point"
    )


LONGEST = 1e6
"""Seconds that something may be told to wait at most, eleven days; beyond some 10^9 no clock of a system counts."""


class LimitSettings(BaseModel):
    """What a user's own agent may take; it runs in a process of its own."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    act_seconds: float = Field(default=60.0, gt=0, le=LONGEST, description="wall-clock seconds of one call of act")
    fit_seconds: float = Field(default=600.0, gt=0, le=LONGEST, description="wall-clock seconds of fit")
    load_seconds: float = Field(
        default=120.0,
        gt=0,
        le=LONGEST,
        description="wall-clock seconds to start its process and import and build it, also from what it was after fit",
    )
    memory_gb: float = Field(default=4.0, gt=0, le=1e6, description="gigabytes of address space")


class Span(BaseModel):
    """Numbers from `low` to `high`, both within; whole ones where both are written as such."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    low: int | float = Field(description="least value")
    high: int | float = Field(description="greatest value")
    log: bool = Field(default=False, description="search by factors; low must be above 0")

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are meant."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @model_validator(mode="after")
    def _in_order(self) -> Span:
        if not self.low < self.high:
            raise ValueError(f"low {self.low} is not below high {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"low {self.low} must be above 0 where log is true")
        return self

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high


class TuneSettings(BaseModel):
    """Search of an agent's parameters, valued on users and in a world that neither train nor judge it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    trials: int = Field(default=20, ge=2, le=10_000, description="trainings of the search")
    space: dict[str, Span | list[bool | int | float | str]] = Field(
        min_length=1, description="a parameter's `{low, high, log}` or the list of its values"
    )
    steps: int | None = Field(default=None, ge=0, description="user-steps of a trial; empty: those of `train.steps`")
    sessions: int = Field(default=4, ge=1, le=1000, description="sessions of each tuning user that value a trial")

    @field_validator("space")
    @classmethod
    def _something_to_choose(cls, space: dict[str, Any]) -> dict[str, Any]:
        for name, part in space.items():
            if not isinstance(part, Span) and len(set(map(repr, part))) < 2:
                raise ValueError(f"'{name}' has fewer than two values to choose from")
        return space


class AgentSettings(BaseModel):
    """One agent of a scenario."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field(
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_. -]*$", max_length=80, description="name in the report; a plain file name"
    )
    kind: str = Field(min_length=1, description="`windtunnel list agents`, file.py:Class, or package.module:Class")
    params: dict[str, Any] = Field(default_factory=dict, description="parameters of the agent")
    train: TrainSettings = TrainSettings()
    tune: TuneSettings | None = Field(default=None, description="search of parameters before it is trained")
    limits: LimitSettings = LimitSettings()
    trained_on: str | None = Field(
        default=None,
        pattern=r"^(nothing|before \S.*)$",
        description="what a policy that is not fitted by this run has seen: `nothing` or `before TIME`",
    )

    @field_validator("trained_on")
    @classmethod
    def _time_can_be_read(cls, said: str | None) -> str | None:
        """Refused here, before anything trains: the time is first needed when the agent is judged."""
        if said is not None and said.startswith("before "):
            try:
                # "NaT" is read too, as a time that everything is later than.
                readable = not np.isnat(np.datetime64(said.removeprefix("before ").strip(), "s"))
            except ValueError:
                readable = False
            if not readable:
                raise ValueError(f"'{said}' names no time; write e.g. before 1998-02-01")
        return said
