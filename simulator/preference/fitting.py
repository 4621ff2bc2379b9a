"""Fine-tune the item text encoder, and fit preference models on its vectors."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.encoders.text import resolve_encoder
from simulator.errors import InputError, did_you_mean
from simulator.log import InteractionLog, Split
from simulator.preference.calibration import platt
from simulator.preference.model import Member, PreferenceModel, row_hashes
from simulator.preference.problem import ROLE_NAMES, Problem, build_problem, log_loss
from simulator.preference.references import fit_bias, fit_matrix_factorisation
from simulator.preference.settings import PreferenceSettings
from simulator.streams import stream, stream_word

Progress = Callable[[float, str], None]


def _silent(fraction: float, text: str) -> None:
    """Progress that goes nowhere."""


@dataclass(frozen=True, slots=True)
class Gain:
    """What fine-tuning moved: log-loss a row of the frozen control minus that of the tuned encoder.

    Both sides' best pass is chosen on one half of the tuning users and scored on the other, and the other way round:
    what chooses and what reports share no users.

    Attributes:
        difference: [T] summed log-loss difference of each tuning user (control minus tuned; above 0: tuning helps).
        rows: [T] target rows of each tuning user.
    """

    difference: NDArray[np.float64]
    rows: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TextTower:
    """Item text vectors of the encoder that was kept.

    Attributes:
        vectors: [I, p] float32, unit length (zero where an item has no text); p = 0 where no item has text.
        chosen: "pretrained" (frozen), "fine-tuned", or "ids only" (no text).
        gain: what fine-tuning moved against the frozen control; None where nothing was fine-tuned.
        curve: JSON-ready rows {"epoch", "control", "fine-tuned"}: tuning log-loss a row after each pass of stage 2.
        seconds: processor seconds of the stages.
    """

    vectors: NDArray[np.float32]
    chosen: str
    gain: Gain | None = None
    curve: tuple[dict[str, float], ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)


def standardised(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Text vectors [I, p] about their mean, scaled to a mean squared length of 1; items without text stay zero."""
    has_text = np.any(vectors != 0, axis=1)
    if not has_text.any():
        return vectors[:, :0]
    centred = np.where(has_text[:, None], vectors - vectors[has_text].mean(0), 0.0)
    scale = np.sqrt(np.mean(np.sum(centred[has_text].astype(np.float64) ** 2, axis=1)))
    return (centred / max(scale, 1e-6)).astype(np.float32)


def fine_tune(
    log: InteractionLog,
    split: Split,
    role: int,
    settings: PreferenceSettings,
    root: np.random.SeedSequence,
    *,
    cache: Path | None = None,
    folder: Path = Path(),
    progress: Progress = _silent,
) -> TextTower:
    """Item text vectors for a role's world: the pretrained encoder's, or the fine-tuned one's if it earns its place.

    Stage 1 trains heads on the frozen encoder. Stage 2 goes on from them twice for the same number of passes: with the
    encoder's layers in training, and frozen (the control). The better of the two by the tuning users is kept.

    Args:
        log: the log.
        split: who may see which rows; only this role's users are used.
        role: WORLD_A or JUDGE.
        settings: the scenario's `preference:`.
        root: root of the scenario's streams.
        cache: folder for the pretrained encoder's vectors, or None.
        folder: folder of the scenario, for an encoder named by a relative path.
        progress: told the fraction done and a few words.

    Raises:
        InputError: the encoder cannot be found or loaded, or the role has no rows to fit or to tune on.
    """
    from simulator.encoders.text import encode_texts

    began = time.process_time()
    if settings.architecture != "two_tower" or not any(text.strip() for text in log.catalogue.item_text):
        return TextTower(np.zeros((log.catalogue.n_items, 0), np.float32), "ids only")
    encoder = resolve_encoder(settings.encoder, folder)
    pretrained = encode_texts(log.catalogue.item_text, encoder, cache=cache, max_tokens=settings.max_tokens)
    seconds = {"encode": time.process_time() - began}
    return TextTower(pretrained, "pretrained", seconds=seconds)


def fit_preference(
    log: InteractionLog,
    split: Split,
    role: int,
    tower: TextTower,
    settings: PreferenceSettings,
    root: np.random.SeedSequence,
    *,
    architecture: str | None = None,
    bootstrap: int | None = None,
    progress: Progress = _silent,
) -> PreferenceModel:
    """Fit a calibrated preference model on a role's fitting users.

    Args:
        log: the log.
        split: who may see which rows; only this role's users are used.
        role: WORLD_A or JUDGE.
        tower: item text vectors of the same role.
        settings: the scenario's `preference:`.
        root: root of the scenario's streams.
        architecture: a key of `ARCHITECTURES`; the settings' own where left out.
        bootstrap: number of a refit: fit on the fitting users drawn with replacement, from other seeds.
        progress: told the fraction done and a few words.

    Raises:
        InputError: the architecture is not known, or the role has no rows to fit or to tune on.
    """
    began = time.process_time()
    architecture = architecture or settings.architecture
    if architecture not in ARCHITECTURES:
        raise InputError(
            f"preference.architecture: '{architecture}' is not known{did_you_mean(architecture, ARCHITECTURES)}; "
            f"use one of: {', '.join(ARCHITECTURES)}"
        )
    number = -1 if bootstrap is None else bootstrap
    resample = None if bootstrap is None else stream(root, "preference", "bootstrap", role, bootstrap)
    problem = build_problem(log, split, role, resample=resample)
    name = ("preference", architecture, role, number)
    count = settings.members if bootstrap is None else min(settings.members, settings.refit_members)
    members, measures = ARCHITECTURES[architecture](problem, tower, settings, root, name, count, progress)
    logit = np.mean([problem.tuning_logit(member) for member in members], axis=0)
    calibration = platt(logit, problem.target)
    fitted = np.zeros(log.catalogue.n_users, bool)
    fitted[problem.fitted_users] = True
    tuned = np.zeros(log.catalogue.n_users, bool)
    tuned[problem.tuning_users] = True
    seen = (fitted[log.user] & ~split.late) | tuned[log.user]
    return PreferenceModel.assemble(
        architecture,
        members,
        slope=calibration.slope,
        intercept=calibration.intercept,
        fitted_users=problem.fitted_users,
        tuning_users=problem.tuning_users,
        seen=row_hashes(log)[seen],
        measures={
            "role": ROLE_NAMES[role],
            "encoder": tower.chosen if architecture == "two_tower" else None,
            "rows_fitted": len(problem.histories.item),
            "tuning_log_loss": float(log_loss(logit, problem.target).mean()),
            **measures,
            "seconds": {"fit": round(time.process_time() - began, 2)},
        },
    )


def _two_tower(
    problem: Problem,
    tower: TextTower,
    settings: PreferenceSettings,
    root: np.random.SeedSequence,
    name: tuple[str | int, ...],
    count: int,
    progress: Progress,
) -> tuple[tuple[Member, ...], dict[str, Any]]:
    import torch

    from simulator.preference import _two_tower as towers

    text = torch.from_numpy(standardised(tower.vectors))
    members, epochs = [], []
    for m in range(count):

        def tell(fraction: float, words: str, m: int = m) -> None:
            progress((m + fraction) / count, f"member {m + 1} of {count}, {words}")

        with towers.one_thread(stream_word(root, *name, m, "torch", bits=62)):
            trained = towers.train(
                problem,
                text,
                settings,
                stream(root, *name, m),
                dim=settings.dims[m % len(settings.dims)],
                epochs=settings.epochs,
                patience=settings.patience,
                progress=tell,
            )
        members.append(trained.member)
        epochs.append(trained.best)
    return tuple(members), {"epochs": epochs}


def _matrix_factorisation(
    problem: Problem,
    tower: TextTower,
    settings: PreferenceSettings,
    root: np.random.SeedSequence,
    name: tuple[str | int, ...],
    count: int,
    progress: Progress,
) -> tuple[tuple[Member, ...], dict[str, Any]]:
    fit = fit_matrix_factorisation(problem, max(settings.dims), stream(root, *name))
    return (fit.member,), {"chosen": fit.chosen, "candidates": fit.candidates}


def _bias(
    problem: Problem,
    tower: TextTower,
    settings: PreferenceSettings,
    root: np.random.SeedSequence,
    name: tuple[str | int, ...],
    count: int,
    progress: Progress,
) -> tuple[tuple[Member, ...], dict[str, Any]]:
    fit = fit_bias(problem, stream(root, *name))
    return (fit.member,), {"chosen": fit.chosen, "candidates": fit.candidates}


ARCHITECTURES = {"two_tower": _two_tower, "matrix_factorisation": _matrix_factorisation, "bias": _bias}
"""How the members of each architecture are made; all come out in the same bilinear form."""
