"""What each setting of the preference model buys: every combination scored on the same unseen rows, in one table."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from evaluators.estimate import Estimate
from evaluators.fidelity.calibration import debiased_calibration_error
from evaluators.fidelity.checks import ratio_by_user
from evaluators.fidelity.prediction import compare_predictions, user_auc
from evaluators.fidelity.scored_rows import inside, log_loss
from simulator.errors import InputError
from simulator.log import InteractionLog, Split
from simulator.preference.settings import PreferenceSettings
from simulator.streams import stream

MOST_ROWS = 6000
"""Rows that are scored: a pair encoder needs a pass of the transformer for each."""
REFERENCE = "bias"
WITHOUT_ENCODER = ("bias", "matrix_factorisation")
Progress = Callable[[float, str], None]


def variants(base: PreferenceSettings, vary: Mapping[str, Sequence[Any]]) -> dict[str, PreferenceSettings]:
    """Every combination of the values given for keys of `preference`, by label; user and item biases stand first.

    References that read no text are there once, whatever else is varied.

    Args:
        base: the scenario's own settings.
        vary: dotted keys of `preference` and their values.

    Raises:
        InputError: there is nothing to vary, or a combination is no preference model.
    """
    if not vary:
        raise InputError(
            "ablation: the scenario varies nothing; give keys of preference and their values, e.g. "
            "{architecture: [two_tower, bias], adaptation: [frozen, lora]}"
        )
    out = {REFERENCE: base.model_copy(update={"architecture": REFERENCE})}
    for values in product(*vary.values()):
        chosen = dict(zip(vary, values, strict=True))
        raw = base.model_dump()
        for key, value in chosen.items():
            place, path = raw, key.split(".")
            for step in path[:-1]:
                place = place.get(step) if isinstance(place, dict) else None  # type: ignore[assignment]
            if not isinstance(place, dict) or path[-1] not in place:
                raise InputError(f"ablation.{key}: is not a key of preference; see docs/scenario.md")
            place[path[-1]] = value
        try:
            settings = PreferenceSettings.model_validate(raw)
        except ValidationError as error:
            first = error.errors()[0]
            raise InputError(f"ablation.{'.'.join(map(str, first['loc'])) or 'preference'}: {first['msg']}") from error
        if settings.architecture in WITHOUT_ENCODER:
            out.setdefault(settings.architecture, settings)
        else:
            out[", ".join(str(value) for value in values)] = settings
    return out


@dataclass(frozen=True, slots=True)
class Fitted:
    """One variant, fitted.

    Attributes:
        p: [m] probability of each scored row, by what a world would be built of.
        of_pairs: [m] the same by the pair encoder itself; None where there is none.
        seconds: processor seconds of fine-tuning and fit.
        pair_seconds: further processor seconds in which the pair encoder scored the rows.
        parameters: weights trained, of the encoder and beside it.
        memory: MB taken at most on top of what the process held before.
        encoder: which encoder was kept.
    """

    p: NDArray[np.float64]
    of_pairs: NDArray[np.float64] | None
    seconds: float
    pair_seconds: float
    parameters: int
    memory: float
    encoder: str | None


def scored_rows(
    log: InteractionLog, split: Split, users: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Late rows of whole users, drawn until there are enough, sorted."""
    rows = split.rows(log, users, late=True)
    order = rng.permutation(np.unique(log.user[rows]))
    count = np.bincount(log.user[rows], minlength=log.catalogue.n_users)[order]
    enough = int(np.searchsorted(np.cumsum(count), min(MOST_ROWS, len(rows)))) + 1
    return rows[np.isin(log.user[rows], order[:enough])]


def fit_variant(
    log: InteractionLog,
    split: Split,
    role: int,
    settings: PreferenceSettings,
    root: np.random.SeedSequence,
    rows: NDArray[np.int64],
    *,
    cache: Path | None,
    folder: Path,
    progress: Progress,
) -> Fitted:
    """Fine-tune and fit one variant on a role's users, and score rows with it."""
    from simulator.encoders.tuning import PeakMemory
    from simulator.preference.architectures import predict_pairs
    from simulator.preference.fitting import fine_tune, fit_with_pairs

    began, memory = time.process_time(), PeakMemory()
    tower = fine_tune(
        log, split, role, settings, root, cache=cache, folder=folder, progress=lambda f, words: progress(0.7 * f, words)
    )
    model, pairs = fit_with_pairs(
        log,
        split,
        role,
        tower,
        settings,
        root,
        cache=cache,
        folder=folder,
        progress=lambda f, words: progress(0.7 + 0.3 * f, words),
    )
    seconds, taken = time.process_time() - began, max(memory.megabytes(), tower.peak_memory)
    began = time.process_time()
    model.require_unseen(log, rows)
    of_pairs = None if pairs is None else predict_pairs(pairs, log, split, rows)
    return Fitted(
        p=model.predict(log, split, rows),
        of_pairs=of_pairs,
        seconds=seconds,
        pair_seconds=time.process_time() - began,
        parameters=model.parameters + tower.trained_parameters + (0 if pairs is None else pairs.trained_parameters),
        memory=taken,
        encoder=model.measures.get("encoder"),
    )


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table.

    Attributes:
        variant: its label.
        log_loss: a row, in nats.
        auc: mean of the users' AUC.
        calibration_error: debiased, over ten bins.
        gain: log-loss a row gained over user and item biases, paired; above 0 is better.
        seconds, parameters, memory: as in `Fitted`; measured once.
        encoder: which encoder was kept.
    """

    variant: str
    log_loss: Estimate
    auc: Estimate
    calibration_error: Estimate
    gain: Estimate
    seconds: float
    parameters: int
    memory: float
    encoder: str | None


@dataclass(frozen=True, slots=True)
class Ablation:
    """The table, and what its rows were scored on.

    Attributes:
        name: of the scenario.
        n_rows: rows scored, the same for every variant.
        n_users: their users.
        rows: one for each variant, user and item biases first.
    """

    name: str
    n_rows: int
    n_users: int
    rows: tuple[Row, ...]

    def to_json(self) -> dict[str, Any]:
        """JSON-ready dictionary."""
        estimates = ("log_loss", "auc", "calibration_error", "gain")
        plain = ("variant", "seconds", "parameters", "memory", "encoder")
        return {
            "name": self.name,
            "rows_scored": self.n_rows,
            "users_scored": self.n_users,
            "rows": [
                {name: getattr(row, name) for name in plain}
                | {name: getattr(row, name).to_json(diagnostics=False) for name in estimates}
                for row in self.rows
            ],
        }

    def as_text(self) -> str:
        """The table for people."""
        head = ("variant", "log-loss", "AUC in users", "calibration error", "gain over biases", "CPU s", "weights",
                "MB", "encoder")  # fmt: skip
        lines = [
            (
                row.variant,
                _shown(row.log_loss),
                _shown(row.auc),
                _shown(row.calibration_error),
                _shown(row.gain, signed=True),
                f"{row.seconds:.0f}",
                f"{row.parameters:,}",
                f"{row.memory:.0f}",
                row.encoder or "",
            )
            for row in self.rows
        ]
        width = [max(len(line[k]) for line in (head, *lines)) for k in range(len(head))]
        table = [
            "  ".join(cell.ljust(w) for cell, w in zip(line, width, strict=True)).rstrip() for line in (head, *lines)
        ]
        about = (
            f"{self.name}: {self.n_rows:,} late rows of {self.n_users} users that no variant saw; 95 % intervals by "
            "user. Seconds, weights and memory were measured once, seconds on however busy a machine."
        )
        return "\n".join([about, "", *table])


def _shown(estimate: Estimate, *, signed: bool = False) -> str:
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return "withheld"
    sign = "+" if signed else ""
    return f"{estimate.value:{sign}.4f} [{estimate.low:{sign}.4f}, {estimate.high:{sign}.4f}]"


def tabulate(
    name: str,
    log: InteractionLog,
    rows: NDArray[np.int64],
    fitted: Mapping[str, Fitted],
    root: np.random.SeedSequence,
) -> Ablation:
    """Score every variant on the same rows; a pair encoder's own scores stand beside those of the vectors it taught."""
    y, user = log.primary[rows].astype(np.float64), log.user[rows]
    reference = fitted[REFERENCE].p

    def line(label: str, p: NDArray[np.float64], one: Fitted, seconds: float) -> Row:
        auc, users = user_auc(p, y, user)
        return Row(
            label,
            ratio_by_user(log_loss(inside(p), y), np.ones(len(y)), user, method="log-loss a row, user-cluster t"),
            ratio_by_user(auc, np.ones(len(auc)), users, method="mean of per-user AUC, user t"),
            debiased_calibration_error(p, y, user, stream(root, "ablation", "calibration"), resamples=300),
            compare_predictions("over biases", p, reference, y, user),
            seconds,
            one.parameters,
            one.memory,
            one.encoder,
        )

    out = []
    for label, one in fitted.items():
        if one.of_pairs is not None:
            out.append(line(f"{label}, its own scores", one.of_pairs, one, one.seconds + one.pair_seconds))
        out.append(line(label if one.of_pairs is None else f"{label}, vectors it taught", one.p, one, one.seconds))
    return Ablation(name, len(rows), len(np.unique(user)), tuple(out))
