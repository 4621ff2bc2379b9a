"""Every number of the behaviour model, and where it comes from: fitted with a standard error, or assumed and swept."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from simulator.behaviour.settings import SimulatorSettings
from simulator.errors import InputError, did_you_mean


@dataclass(frozen=True, slots=True)
class Assumption:
    """One number of the behaviour model, and where it comes from.

    Attributes:
        part: examination, choice, satiation, boredom, drift, leave, returning, friends, popularity or a behaviour.
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
    ("choice", "no_choice"): (-np.inf, np.inf),
    ("choice", "dissimilarity"): (1e-3, 1.0),
    ("satiation", "strength"): (0.0, np.inf),
    ("satiation", "memory"): (0.0, 1.0),
    ("boredom", "depth"): (0.0, np.inf),
    ("boredom", "threshold"): (0.0, np.inf),
    ("boredom", "memory"): (0.0, 1.0),
    ("drift", "rate"): (0.0, np.inf),
    ("leave", "base_rate"): (1e-9, 1 - 1e-9),
    ("leave", "satisfaction"): (0.0, np.inf),
    ("leave", "repetition"): (0.0, np.inf),
    ("leave", "step"): (-np.inf, np.inf),
    ("leave", "memory"): (0.0, 1.0),
    ("leave", "usual_rate"): (1e-9, 1.0),
    ("returning", "median_gap"): (1e-9, np.inf),
    ("returning", "spread"): (1e-9, np.inf),
    ("returning", "satisfaction"): (0.0, np.inf),
    ("returning", "window"): (1e-9, np.inf),
    ("returning", "forgetting"): (1e-9, np.inf),
    ("friends", "strength"): (-np.inf, np.inf),
    ("popularity", "strength"): (-np.inf, np.inf),
}
"""Scalar parameters and the values they may take. `examination.place_K[_after_J]` and those of heads come beside."""

BETWEEN_SESSIONS = ("returning", "popularity")
"""Parts that do nothing before a user's second session."""
_PLACE = re.compile(r"place_\d+(_after_\d+)?")


def limits_of(part: str, parameter: str) -> tuple[float, float]:
    """Least and greatest value of a parameter."""
    if part == "examination" and _PLACE.fullmatch(parameter):
        return 0.0, 1.0
    return _LIMITS.get((part, parameter), (-np.inf, np.inf))


def assumptions_of(
    settings: SimulatorSettings, usual_rate: float, usual_rate_se: float, fitted: Iterable[Assumption] = ()
) -> tuple[Assumption, ...]:
    """All parameters of the behaviour model: what was fitted, and the settings' values, assumed, for all the rest."""
    known = {(a.part, a.parameter): a for a in fitted}
    known["leave", "usual_rate"] = Assumption("leave", "usual_rate", usual_rate, "fitted", usual_rate_se)
    sweeps = {
        ("examination", "decay"): settings.examination.sweep,
        ("examination", "continuation"): settings.examination.continuation_sweep,
        ("choice", "no_choice"): settings.choice.sweep,
        ("choice", "dissimilarity"): settings.choice.dissimilarity_sweep,
        ("satiation", "strength"): settings.satiation.sweep,
        ("boredom", "depth"): settings.boredom.sweep,
        ("drift", "rate"): settings.drift.sweep,
        ("leave", "satisfaction"): settings.leave.sweep,
        ("leave", "base_rate"): settings.leave.base_rate_sweep,
        ("leave", "repetition"): settings.leave.repetition_sweep,
        ("friends", "strength"): settings.friends.sweep,
        ("popularity", "strength"): settings.popularity.sweep,
    }
    if settings.returning is not None:
        sweeps |= {
            ("returning", "satisfaction"): settings.returning.sweep,
            ("returning", "median_gap"): settings.returning.median_gap_sweep,
            ("returning", "spread"): settings.returning.spread_sweep,
        }
    found = []
    for part, parameter in _LIMITS:
        if (part, parameter) in known:
            found.append(known.pop((part, parameter)))
        elif _in_use(settings, part, parameter):
            value = float(getattr(getattr(settings, part), parameter))
            swept = part != "examination" or parameter in _of_places(settings, known)
            found.append(
                Assumption(part, parameter, value, "assumed", None, sweeps.get((part, parameter), ()) if swept else ())
            )
    return (*found, *known.values())


def _in_use(settings: SimulatorSettings, part: str, parameter: str) -> bool:
    """Whether a world of these settings has the parameter at all."""
    if part == "examination":  # who chooses one item has no place to go on to
        one = settings.examination.model == "position" or settings.choice.model != "independent"
        return parameter == "decay" or not one
    if part == "choice":
        models = {"no_choice": ("logit", "nested"), "dissimilarity": ("nested",)}
        return settings.choice.model in models[parameter]
    if part == "boredom":
        return settings.boredom.depth > 0
    if part == "returning":
        return settings.returning is not None
    if part in ("friends", "popularity"):
        return bool(getattr(settings, part).strength)
    return True


def _of_places(settings: SimulatorSettings, fitted: Container[tuple[str, str]]) -> set[str]:
    """Which of decay and continuation serve a place that was not fitted: a sweep of others would fly for nothing.

    Slates are as long as the world's own there. What stands below, in a log's longer slates, decays on all the same.
    """
    model, size = settings.examination.model, settings.slate_size

    def missing(name: str) -> bool:
        return ("examination", name) not in fitted

    used = {"decay"} if any(missing(f"place_{k}") for k in range(size)) else set()
    if model == "cascade":
        used |= {"decay", "continuation"}
    elif model == "user_browsing" and settings.choice.model == "independent":
        since = [k - j for k in range(size) for j in range(k) if missing(f"place_{k}_after_{j}")]
        used |= {"continuation"} if since else set()
        used |= {"decay"} if max(since, default=0) > 1 else set()  # right below a click continuation stands alone
    return used


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
    low, high = limits_of(part, parameter)
    if not low <= value <= high:  # written so that NaN is outside too
        raise InputError(f"simulator.{wanted}: {value:g} is outside [{low:g}, {high:g}]; choose a value inside")
    return tuple(
        replace(a, value=float(value)) if name == wanted else a for a, name in zip(assumptions, names, strict=True)
    )


def value_of(assumptions: tuple[Assumption, ...], part: str, parameter: str, default: float = 0.0) -> float:
    """Value of one parameter; `default` where this world has no such parameter (continuation without a cascade)."""
    return next((a.value for a in assumptions if (a.part, a.parameter) == (part, parameter)), default)
