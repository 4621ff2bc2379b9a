"""The `simulator:` key of a scenario: how appeal becomes acts, and what is assumed where a log cannot tell.

The formulas are in docs/world.md; `simulator.kernel` computes them. What a log does not identify is *assumed*: it has
a value here, is marked so, and is swept in the sensitivity analysis.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]
OpenShare = Annotated[float, Field(gt=0, lt=1)]
NotNegative = Annotated[float, Field(ge=0)]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ExaminationSettings(_Settings):
    """Which positions of a slate the user looks at."""

    model: Literal["position", "cascade"] = Field(
        default="position",
        description="position: each position k (from 0) is examined with probability decay^k, independently. "
        "cascade: from the top, going on with probability decay, after a click with decay * continuation.",
    )
    decay: float = Field(
        default=0.85, gt=0, le=1, description="Attention kept from one position to the next, probability."
    )
    continuation: Share = Field(
        default=0.5,
        description="Probability of going on after a click; cascade only. 0: the user stops at the first click.",
    )
    sweep: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        default=(0.7, 1.0), description="Other values of decay under which the agents are flown again."
    )


class SatiationSettings(_Settings):
    """Loss of appeal of the categories that were shown lately."""

    strength: NotNegative = Field(
        default=1.0, description="Logits lost by an item when all recent exposure was of its own categories."
    )
    memory: Share = Field(default=0.8, description="Weight of the past in the running exposure by category, per slate.")
    sweep: tuple[NotNegative, ...] = Field(default=(0.0, 2.0), description="Other values of strength to fly again.")


class DriftSettings(_Settings):
    """Taste moves towards what pleased more than expected, and away from what disappointed."""

    rate: NotNegative = Field(
        default=0.05,
        description="Logits by which a fully unexpected click raises the appeal of a typical item to this user.",
    )
    sweep: tuple[NotNegative, ...] = Field(default=(0.0, 0.2), description="Other values of rate to fly again.")


class LeaveSettings(_Settings):
    """Chance of leaving after each slate."""

    base_rate: OpenShare = Field(default=0.1, description="Probability of leaving after a slate, at satisfaction 0.5.")
    satisfaction: NotNegative = Field(
        default=2.5, description="c1: logits by which the hazard falls from satisfaction 0 to 1; satisfied users stay."
    )
    repetition: NotNegative = Field(
        default=1.0,
        description="c2: logits by which the hazard rises when the slate only repeats the categories shown lately.",
    )
    step: float = Field(default=0.0, description="c3: logits by which the hazard changes with each slate shown.")
    memory: Share = Field(default=0.7, description="Weight of the past in the running satisfaction, per slate.")
    sweep: tuple[NotNegative, ...] = Field(
        default=(0.0, 5.0), description="Other values of satisfaction (c1) to fly again."
    )
    base_rate_sweep: tuple[OpenShare, ...] = Field(
        default=(0.05, 0.2), description="Other values of base_rate to fly again."
    )
    repetition_sweep: tuple[NotNegative, ...] = Field(
        default=(0.0, 2.0), description="Other values of repetition to fly again."
    )


class SimulatorSettings(_Settings):
    """The `simulator:` key of a scenario."""

    slate_size: int = Field(default=10, ge=1, le=1000, description="K, items on a slate.")
    horizon: int = Field(default=20, ge=1, le=10_000, description="Slates in a session at most.")
    reward: Literal["clicks"] = Field("clicks", description="clicks: number of primary behaviours in the step.")
    history_length: int = Field(default=50, ge=1, le=10_000, description="H, newest interactions that an agent sees.")
    examination: ExaminationSettings = ExaminationSettings()
    satiation: SatiationSettings = SatiationSettings()
    drift: DriftSettings = DriftSettings()
    leave: LeaveSettings = LeaveSettings()


REWARDS = {"clicks": "number of primary behaviours (clicks) in the step"}
"""What `simulator.reward` may be: name -> about."""
