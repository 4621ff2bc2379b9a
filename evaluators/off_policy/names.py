"""Names of estimators and their parameters: `snips`, `dr(clip=10)`, `tuned(dr, slope)`; one table for all records."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from simulator.errors import InputError, did_you_mean

Record = Literal["bandit", "slate", "trajectory"]
Family = Literal["ratio", "shrunk", "model", "distribution"]


@dataclass(frozen=True, slots=True)
class EstimatorInfo:
    """One row of the table of estimators.

    Attributes:
        records: kinds of logged feedback that it takes.
        family: "ratio" (user-cluster t interval), "shrunk" (bias-aware interval), "model" (no coverage claim),
            "distribution" (user bootstrap).
        parameters: name -> default; None where the parameter is off unless given.
        needs_model: whether it needs q_hat.
        assumption: what has to be true besides overlap and right propensities.
        paper: where it comes from.
    """

    records: tuple[Record, ...]
    family: Family
    parameters: dict[str, float | None]
    needs_model: bool
    assumption: str
    paper: str
    about: str


_LOGGED = "the logging policy depends on logged context only"
_BOUNDED = _LOGGED + "; biased, the bias is inside the limits"


def _row(
    records: str,
    family: Family,
    about: str,
    assumption: str,
    paper: str,
    *,
    model: bool = False,
    **parameters: float | None,
) -> EstimatorInfo:
    kinds = {"b": "bandit", "s": "slate", "t": "trajectory"}
    return EstimatorInfo(
        tuple(kinds[k] for k in records),  # type: ignore[misc]
        family,
        {name.rstrip("_"): value for name, value in parameters.items()},
        model,
        assumption,
        paper,
        about,
    )


_IIPS, _RIPS = "assumes independent slots", "assumes that a slot is affected only by those above it"
_AIPS = "assumes that the chosen sets of slots hold all that influence a slot"
_PI = "assumes that the expected slate reward is additive over slots"
_MARKOV = "assumes a Markov state as logged and right marginal ratios"
_LI, _MC = "Li et al. 2018", "McInerney et al. 2020"

ESTIMATORS: dict[str, EstimatorInfo] = {
    "ips": _row("b", "ratio", "mean of w r; `clip` caps the weight", _LOGGED, "Horvitz, Thompson 1952", clip=None),
    "snips": _row("b", "ratio", "mean of w r over mean of w", _LOGGED, "Swaminathan, Joachims 2015"),
    "dm": _row(
        "bt",
        "model",
        "mean of the reward model under the policy",
        "the reward model is right",
        "Dudik et al. 2011",
        model=True,
    ),
    "dr": _row(
        "bt",
        "ratio",
        "model plus weighted residual; `clip` caps the weight",
        _LOGGED,
        "Dudik et al. 2011",
        model=True,
        clip=None,
        steps=None,
    ),
    "sndr": _row(
        "bt", "ratio", "dr with self-normalised residual", _LOGGED, "Dudik et al. 2011", model=True, steps=None
    ),
    "switch_dr": _row(
        "b",
        "shrunk",
        "dr where w is at most lambda, else the model",
        _BOUNDED,
        "Wang et al. 2017",
        model=True,
        lambda_=5.0,
    ),
    "dros": _row(
        "b",
        "shrunk",
        "dr with weights shrunk to l w / (w^2 + l)",
        _BOUNDED,
        "Su et al. 2020",
        model=True,
        lambda_=100.0,
    ),
    "sgips": _row("b", "shrunk", "ips with w / (1 - l + l w)", _BOUNDED, "Metelli et al. 2021", lambda_=0.1),
    "sgdr": _row("b", "shrunk", "dr with w / (1 - l + l w)", _BOUNDED, "Metelli et al. 2021", model=True, lambda_=0.1),
    "mips": _row(
        "b",
        "ratio",
        "weights of action embeddings instead of actions",
        "assumes that an action acts only through its embedding",
        "Saito, Joachims 2022",
    ),
    "snmips": _row(
        "b",
        "ratio",
        "mips, self-normalised",
        "assumes that an action acts only through its embedding",
        "Saito, Joachims 2022",
    ),
    "sips": _row("s", "ratio", "slate reward times the whole slate's weight", _LOGGED, "Precup et al. 2000"),
    "iips": _row("s", "ratio", "each slot with its own weight", _IIPS, _LI),
    "rips": _row("s", "ratio", "each slot with the weight of the slots down to it", _RIPS, _MC),
    "cascade_dr": _row("s", "ratio", "rips with a value model", _RIPS, "Kiyohara et al. 2022", model=True),
    "aips": _row(
        "s", "ratio", "each slot with the weight of the slots that influence it", _AIPS, "Kiyohara et al. 2023"
    ),
    "pi": _row("s", "ratio", "slate reward times the pseudo-inverse weight", _PI, "Swaminathan et al. 2017"),
    "sn_sips": _row("s", "ratio", "sips, self-normalised", _LOGGED, "Precup et al. 2000"),
    "sn_iips": _row("s", "ratio", "iips, self-normalised at each slot", _IIPS, _LI),
    "sn_rips": _row("s", "ratio", "rips, self-normalised at each slot", _RIPS, _MC),
    "sn_cascade_dr": _row(
        "s", "ratio", "cascade_dr, self-normalised at each slot", _RIPS, "Kiyohara et al. 2022", model=True
    ),
    "sn_aips": _row("s", "ratio", "aips, self-normalised at each slot", _AIPS, "Kiyohara et al. 2023"),
    "sn_pi": _row("s", "ratio", "pi, self-normalised", _PI, "Swaminathan et al. 2017"),
    "tis": _row(
        "t", "ratio", "discounted return times the trajectory's weight", _LOGGED, "Precup et al. 2000", steps=None
    ),
    "pdis": _row("t", "ratio", "each reward with the weight up to its step", _LOGGED, "Precup et al. 2000", steps=None),
    "sntis": _row("t", "ratio", "tis, self-normalised", _LOGGED, "Precup et al. 2000", steps=None),
    "snpdis": _row("t", "ratio", "pdis, self-normalised at each step", _LOGGED, "Thomas, Brunskill 2016", steps=None),
    "drl": _row(
        "t",
        "ratio",
        "dr with state-action marginal weights, discounted",
        _MARKOV,
        "Kallus, Uehara 2020",
        model=True,
        steps=None,
    ),
}
for _kind, _name in (("sm", "state"), ("sam", "state-action")):
    ESTIMATORS[f"{_kind}_dm"] = _row(
        "t", "model", "the same as dm", "the value model is right", "Le et al. 2019", model=True
    )
    for _form, _text, _model in (
        ("is", "weights", False),
        ("snis", "weights, self-normalised", False),
        ("dr", "weights with a value model", True),
        ("sndr", "weights with a value model, self-normalised", True),
    ):
        ESTIMATORS[f"{_kind}_{_form}"] = _row(
            "t",
            "ratio",
            f"{_name} marginal {_text}",
            _MARKOV,
            "Liu et al. 2018; Uehara et al. 2020",
            model=_model,
            n_step_pdis=None,
            steps=None,
        )
ESTIMATORS |= {
    "variance": _row("bst", "distribution", "variance of the return under the policy", _LOGGED, "Huang et al. 2021"),
    "quantile": _row(
        "bst", "distribution", "quantile q of the return under the policy", _LOGGED, "Huang et al. 2021", q=0.5
    ),
    "cvar": _row(
        "bst", "distribution", "mean of the lowest share alpha of returns", _LOGGED, "Huang et al. 2021", alpha=0.1
    ),
    "cdf_mean": _row("bst", "distribution", "mean of the self-normalised distribution", _LOGGED, "Huang et al. 2021"),
}

ONLY_FOR: dict[str, Record] = {"clip": "bandit", "steps": "trajectory"}
"""Parameters that an estimator of several kinds of record takes with one of them only."""
TUNABLE = ("ips", "dr", "switch_dr", "dros", "sgips", "sgdr")
TUNERS = ("slope", "mse")
DEFAULTS: dict[Record, tuple[str, ...]] = {
    "bandit": ("ips", "snips", "dm", "dr", "sndr"),
    "slate": ("sips", "iips", "rips", "cascade_dr"),
    "trajectory": ("dm", "tis", "pdis", "dr", "sntis", "snpdis", "sndr"),
}


@dataclass(frozen=True, slots=True)
class EstimatorName:
    """A parsed name: `base` in ESTIMATORS, its parameters, and how its parameter is tuned, if it is."""

    asked: str
    base: str
    parameters: dict[str, float | None]
    tuner: str | None = None

    @property
    def info(self) -> EstimatorInfo:
        """The estimator's row of the table."""
        return ESTIMATORS[self.base]

    @property
    def tuning(self) -> float | None:
        """The parameter that shrinks its weights, or None where it has none or it is off."""
        return next((self.parameters[key] for key in ("clip", "lambda") if self.parameters.get(key) is not None), None)

    @property
    def shrunk(self) -> bool:
        """Whether it replaces the weights by smaller ones, so that its bias must be inside its limits."""
        return self.info.family == "shrunk" or self.tuner is not None or self.parameters.get("clip") is not None


_CALL = re.compile(r"\s*([a-zA-Z_]\w*)\s*(?:\(([^()]*)\))?\s*")


def parse(text: str, record: Record | None = None) -> EstimatorName:
    """Read an estimator's name, such as `dr(clip=10)` or `tuned(dr, slope)`.

    Raises:
        InputError: no such estimator or parameter (the nearest one is named), or not for this kind of record.
    """
    match = _CALL.fullmatch(text)
    if not match:
        raise InputError(f"estimator: '{text}' is not a name with parameters; write it as dr or dr(clip=10)")
    base, inside = match.group(1), match.group(2)
    items = [item.strip() for item in inside.split(",")] if inside else []
    tuner = None
    if base == "tuned":
        if len(items) != 2 or items[0] not in TUNABLE or items[1] not in TUNERS:
            raise InputError(
                f"estimator: '{text}' cannot be tuned; write tuned(NAME, METHOD), NAME one of {', '.join(TUNABLE)}, "
                f"METHOD one of {', '.join(TUNERS)}"
            )
        base, tuner = items
        items = []
    if base not in ESTIMATORS:
        raise InputError(
            f"estimator: '{base}' is not an estimator{did_you_mean(base, [*ESTIMATORS, 'tuned'])} "
            "(`list estimators` has them all)"
        )
    info = ESTIMATORS[base]
    if record is not None and record not in info.records:
        usable = [name for name, row in ESTIMATORS.items() if record in row.records]
        raise InputError(
            f"estimator: '{base}' is for {' and '.join(info.records)} logs and this is a {record} log; "
            f"use one of {', '.join(usable)}"
        )
    parameters = dict(info.parameters)
    for item in items:
        name, equals, value = (part.strip() for part in item.partition("="))
        if not equals or name not in parameters:
            known = ", ".join(parameters) or "none"
            raise InputError(
                f"estimator: '{text}' has no parameter '{name}'{did_you_mean(name, parameters)}; it takes {known}"
            )
        only = ONLY_FOR.get(name)
        if only is not None and record not in (None, only):
            raise InputError(f"estimator: '{text}': {name} is for {only} logs and this is a {record} log; leave it out")
        parameters[name] = _number(text, name, value)
    return EstimatorName(text, base, parameters, tuner)


def _number(text: str, name: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError as error:
        raise InputError(f"estimator: '{text}': {name} is '{value}', no number; give one, e.g. {name}=10") from error
    unit = name in ("q", "alpha")
    if math.isnan(number) or number < 0 or (unit and not 0 < number < 1):
        raise InputError(
            f"estimator: '{text}': {name} is {value}; it must be {'between 0 and 1' if unit else '0 or more'}"
        )
    if name in ("n_step_pdis", "steps") and (number != number // 1 or (name == "steps" and number < 1)):
        raise InputError(f"estimator: '{text}': {name} is {value}; it must be a whole number of steps")
    return number


def about_estimators() -> list[dict[str, str]]:
    """`[{name, about}]` of all estimators, for `list estimators`."""
    rows = []
    for name, info in ESTIMATORS.items():
        parameters = ", ".join(f"{k}={v:g}" for k, v in info.parameters.items() if v is not None)
        shown = f"{name}({parameters})" if parameters else name
        rows.append(
            {"name": shown, "about": f"{'/'.join(info.records)}: {info.about} ({info.paper}); {info.assumption}"}
        )
        if "clip" in info.parameters:
            rows.append(
                {"name": f"{name}(clip=10)", "about": f"bandit: {name} with weights cut at 10; bias inside the limits"}
            )
        if name == "pdis":
            about = "trajectory: the first 3 steps, another estimand; so for every weighted trajectory estimator"
            rows.append({"name": "pdis(steps=3)", "about": about})
    rows.append(
        {
            "name": "tuned(NAME, slope|mse)",
            "about": f"bandit: parameter of {', '.join(TUNABLE)} chosen on one half of the users",
        }
    )
    return rows
