"""How appeal becomes acts: examination, clicks, satiation, drift, leaving. Settings, and what is assumed of each.

The formulas are in docs/world.md; `simulator.kernel` computes them. What a log does not identify is *assumed*: it has
a value here, is marked so, and is swept in the sensitivity analysis.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from simulator.errors import InputError, did_you_mean

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


@dataclass(frozen=True, slots=True)
class Assumption:
    """One number of the behaviour model, and where it comes from.

    Attributes:
        part: examination, satiation, drift or leave.
        parameter: name within the part, as in the scenario.
        value: its value.
        source: "fitted" where the log identifies it, else "assumed".
        se: standard error of a fitted value; None where assumed.
        sweep: other values under which agents are flown again; empty: held fixed.
    """

    part: str
    parameter: str
    value: float
    source: Literal["fitted", "assumed"]
    se: float | None = None
    sweep: tuple[float, ...] = ()


_LIMITS: dict[tuple[str, str], tuple[float, float]] = {
    ("examination", "decay"): (0.0, 1.0),
    ("examination", "continuation"): (0.0, 1.0),
    ("satiation", "strength"): (0.0, np.inf),
    ("satiation", "memory"): (0.0, 1.0),
    ("drift", "rate"): (0.0, np.inf),
    ("leave", "base_rate"): (1e-9, 1 - 1e-9),
    ("leave", "satisfaction"): (0.0, np.inf),
    ("leave", "repetition"): (0.0, np.inf),
    ("leave", "step"): (-np.inf, np.inf),
    ("leave", "memory"): (0.0, 1.0),
    ("leave", "usual_rate"): (1e-9, 1.0),
}


def assumptions_of(settings: SimulatorSettings, usual_rate: float, usual_rate_se: float) -> tuple[Assumption, ...]:
    """All parameters of the behaviour model: the settings' values, assumed, and the log's usual click rate, fitted."""
    sweeps = {
        ("examination", "decay"): settings.examination.sweep,
        ("satiation", "strength"): settings.satiation.sweep,
        ("drift", "rate"): settings.drift.sweep,
        ("leave", "satisfaction"): settings.leave.sweep,
        ("leave", "base_rate"): settings.leave.base_rate_sweep,
        ("leave", "repetition"): settings.leave.repetition_sweep,
    }
    found = []
    for part, parameter in _LIMITS:
        if parameter == "usual_rate":
            found.append(Assumption(part, parameter, usual_rate, "fitted", usual_rate_se))
        elif part != "examination" or parameter != "continuation" or settings.examination.model == "cascade":
            value = float(getattr(getattr(settings, part), parameter))
            found.append(Assumption(part, parameter, value, "assumed", None, sweeps.get((part, parameter), ())))
    return tuple(found)


def replace_parameter(
    assumptions: tuple[Assumption, ...], part: str, parameter: str, value: float
) -> tuple[Assumption, ...]:
    """The same assumptions with one value changed.

    Raises:
        InputError: there is no such parameter, or the value is outside its limits.
    """
    names = [f"{a.part}.{a.parameter}" for a in assumptions]
    wanted = f"{part}.{parameter}"
    if wanted not in names:
        raise InputError(f"simulator.{wanted}: not a parameter of this world{did_you_mean(wanted, names)}")
    low, high = _LIMITS[part, parameter]
    if not low <= value <= high:  # written so that NaN is outside too
        raise InputError(f"simulator.{wanted}: {value:g} is outside [{low:g}, {high:g}]; choose a value inside")
    return tuple(
        replace(a, value=float(value)) if name == wanted else a for a, name in zip(assumptions, names, strict=True)
    )


def value_of(assumptions: tuple[Assumption, ...], part: str, parameter: str, default: float = 0.0) -> float:
    """Value of one parameter; `default` where this world has no such parameter (continuation without a cascade)."""
    return next((a.value for a in assumptions if (a.part, a.parameter) == (part, parameter)), default)


def examination_curve(model: str, decay: float, slate_size: int) -> NDArray[np.float32]:
    """[K] what a position's uniform is compared with: decay^k by position; in a cascade, of going on to k."""
    if model == "cascade":
        return np.concatenate([[1.0], np.full(slate_size - 1, decay)]).astype(np.float32)
    return (decay ** np.arange(slate_size)).astype(np.float32)


def expected_clicks(model: str, decay: float, continuation: float, rate: float, slate_size: int) -> float:
    """Clicks on a full slate of items that are each clicked with probability `rate` once examined."""
    keep = decay * (1 - rate + rate * continuation) if model == "cascade" else decay
    return float(rate * np.sum(keep ** np.arange(slate_size)))
