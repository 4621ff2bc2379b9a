"""Every number of the behaviour model, and where it comes from: fitted with a standard error, or assumed and swept."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from simulator.behaviour.settings import SimulatorSettings
from simulator.errors import InputError, did_you_mean


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
