"""How the members of each architecture are made from a problem: one table, one signature, one form that comes out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from simulator.encoders.text import encoder_for
from simulator.errors import InputError
from simulator.log import Catalogue, InteractionLog, Split
from simulator.preference.calibration import calibrate
from simulator.preference.continual import SavedModel, weigh_older
from simulator.preference.model import Member
from simulator.preference.problem import Problem, only
from simulator.preference.references import fit_bias, fit_matrix_factorisation
from simulator.preference.rehearsal import Rehearsal
from simulator.preference.settings import PreferenceSettings, UpdateSettings
from simulator.streams import stream, stream_word

Progress = Callable[[float, str], None]


@dataclass(frozen=True, slots=True)
class Start:
    """A saved model to go on from.

    Attributes:
        members: its members; training member m goes on from number m, round and round.
        known: [I] row of each item in them, -1 for an item that they do not know.
        problem: the rows to fit, older ones weighed by `replay`.
        older: the same with older rows alone.
        update: how to go on.
    """

    members: tuple[Member, ...]
    known: NDArray[np.int64]
    problem: Problem
    older: Problem
    update: UpdateSettings

    @classmethod
    def of(
        cls,
        saved: SavedModel,
        problem: Problem,
        log: InteractionLog,
        features: NDArray[np.float32],
        update: UpdateSettings,
    ) -> Start:
        """Check that the saved model fits this log's features.

        Raises:
            InputError: it does not, or the log has no newer rows.
        """
        wrong = None
        if any(one.item_map is None for one in saved.model.members):
            wrong = f"is a {saved.model.architecture} model"
        elif any(len(one.item_map.offset) != features.shape[1] for one in saved.model.members if one.item_map):
            wrong = "was fitted on other item features"
        elif saved.feature_names != log.catalogue.user_feature_names:
            wrong = "was fitted on other user features"
        if wrong is not None:
            raise InputError(
                f"preference.update.model: '{update.model}' {wrong}; go on from a two_tower model of this encoder, "
                "these categories and these policy_inputs, or leave update out"
            )
        weighed, older = weigh_older(problem, log, saved, update.replay)
        return cls(saved.model.members, saved.known(log.catalogue), weighed, older, update)

    @property
    def seen(self) -> NDArray[np.bool_]:
        """[m] rows of the problem that the saved model was fitted on."""
        assert self.older.weight is not None
        return self.older.weight > 0

    def rehearsed(self, rehearsal: Rehearsal) -> Start:
        """The same start for the rows that a rehearsal leaves."""
        return replace(self, problem=rehearsal.problem, older=only(self.older, rehearsal.left))


def _go_on(start: Start, m: int, known: Any, settings: PreferenceSettings, rng: np.random.Generator) -> tuple[Any, Any]:
    """Heads that begin where a saved member ended, and what holds them there."""
    import torch

    from simulator.preference import _two_tower as towers

    member = start.members[m % len(start.members)]
    heads = towers.Heads(start.problem, known.shape[1], member.item_vectors.shape[1], 0.0, torch.Generator())
    heads.take(member, known, start.known)
    anchor = None
    if start.update.elastic > 0:
        anchor = towers.Anchor.of(heads, start.older, known, settings, start.update.elastic, rng)
    return heads, anchor


@dataclass(frozen=True, slots=True)
class Fit:
    """What the members of an architecture are made from.

    Attributes:
        problem: rows to fit and to tune on.
        features: [I, p] features of the items.
        settings: the scenario's `preference:`.
        root, name: of the random streams.
        count: members to train.
        start: a saved model to go on from, or None.
        catalogue: of the log.
        cache: folder for encoders made here, or None.
        folder: of the scenario.
        progress: told the fraction done and a few words.
    """

    problem: Problem
    features: NDArray[np.float32]
    settings: PreferenceSettings
    root: np.random.SeedSequence
    name: tuple[str | int, ...]
    count: int
    start: Start | None
    catalogue: Catalogue
    cache: Path | None
    folder: Path
    progress: Progress


@dataclass(frozen=True, slots=True)
class Made:
    """What an architecture comes to.

    Attributes:
        members: models of bilinear form.
        measures: figures of the fit, JSON-ready.
        pairs: the `PairEncoder` that taught them, or None.
    """

    members: tuple[Member, ...]
    measures: dict[str, Any]
    pairs: Any = None


def _two_tower(fit: Fit) -> Made:
    import torch

    from simulator.encoders.tuning import one_thread
    from simulator.preference import _two_tower as towers

    settings, problem, start = fit.settings, fit.problem, fit.start
    known = torch.from_numpy(fit.features)
    imputation = _imputation(fit, known) if settings.debias == "doubly_robust" else None
    members, epochs = [], []
    for m in range(fit.count):

        def tell(fraction: float, words: str, m: int = m) -> None:
            fit.progress((m + fraction) / fit.count, f"member {m + 1} of {fit.count}, {words}")

        with one_thread(stream_word(fit.root, *fit.name, m, "torch", bits=62)):
            heads, anchor = None, None
            if start is not None:
                heads, anchor = _go_on(start, m, known, settings, stream(fit.root, *fit.name, m, "importance"))
            trained = towers.train(
                problem,
                known,
                settings,
                stream(fit.root, *fit.name, m),
                dim=settings.dims[m % len(settings.dims)],
                start=heads,
                anchor=anchor,
                learning_rate=settings.learning_rate if start is None else start.update.learning_rate,
                epochs=settings.epochs,
                patience=settings.patience,
                imputation=imputation,
                progress=tell,
            )
        members.append(trained.member)
        epochs.append(trained.best)
    return Made(tuple(members), {"epochs": epochs})


def _imputation(fit: Fit, known: Any) -> Member:
    """Model of every pair's outcome, fitted where a wrong one costs variance: weights (1 - p) / p^2 (MRDR)."""
    from simulator.encoders.tuning import one_thread
    from simulator.preference import _two_tower as towers

    assert fit.problem.weight is not None
    squared = fit.problem.weight**2
    problem = replace(fit.problem, weight=(squared / squared.mean()).astype(np.float32))
    name = (*fit.name, "imputation")
    with one_thread(stream_word(fit.root, *name, "torch", bits=62)):
        return towers.train(
            problem,
            known,
            fit.settings,
            stream(fit.root, *name),
            dim=fit.settings.dims[0],
            learning_rate=fit.settings.learning_rate,
            epochs=fit.settings.epochs,
            patience=fit.settings.patience,
        ).member


def _pairs(fit: Fit) -> Made:
    """Vectors taught by a pair encoder: a world needs them, for it cannot run a transformer for each user and item."""
    from simulator.preference._pair_encoder import halves

    problem, pairs = fit.problem, fit.settings.pairs
    encoder, measures = _train_pairs(fit)
    past, who, rows = halves(problem)
    # Rows that the pair encoder learned from come last: there it says more of what it was told than of what it found.
    order = np.argsort(np.isin(rows, encoder.rows), kind="stable")[: pairs.distilled]
    logit = encoder.logit(past, problem.features, who[order], problem.histories.item[rows[order]])
    taught = np.full(len(problem.histories.item), np.nan, np.float32)
    taught[rows[order]] = 1 / (1 + np.exp(-logit))
    made = _two_tower(replace(fit, problem=replace(problem, taught=taught)))
    return Made(made.members, {**made.measures, **measures, "rows_taught": len(order)}, encoder)


def _train_pairs(fit: Fit) -> tuple[Any, dict[str, Any]]:
    """A trained `PairEncoder` and the measures of its training."""
    from simulator.encoders.tuning import one_thread
    from simulator.preference._pair_encoder import PairEncoder

    name = (*fit.name, "pairs")
    offset = fit_bias(fit.problem, stream(fit.root, *name, "bias")).member
    with one_thread(stream_word(fit.root, *name, "torch", bits=62), fit.settings.tuning.device):
        encoder = PairEncoder(
            fit.problem,
            fit.catalogue,
            offset,
            encoder_for(
                fit.settings.encoder,
                fit.catalogue.item_text,
                fit.folder,
                cache=fit.cache,
                own=fit.settings.own,
                root=fit.root,
            ),
            fit.settings,
            stream(fit.root, *name),
        )
        best, losses = encoder.train(lambda done, words: fit.progress(0.9 * done, f"pairs, {words}"))
    rows = len(encoder.tuning_rows)
    return encoder, {
        "pair_pass": best,
        "pair_tuning_log_loss": float(losses[best].sum() / rows),
        "bias_tuning_log_loss": float(losses[0].sum() / rows),
    }


def predict_pairs(encoder: Any, log: InteractionLog, split: Split, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Calibrated probability of late rows by the pair encoder itself, a pass of the transformer for each row."""
    from simulator.encoders.tuning import one_thread

    problem = encoder.problem
    users, who = np.unique(log.user[rows], return_inverse=True)
    with one_thread(0):
        tuning = encoder.tuning_logit()
        logit = encoder.logit(split.histories(log, users), log.catalogue.user_features[users], who, log.item[rows])
    known = encoder.tuning_rows
    found = calibrate(tuning, problem.target[known], problem.target_user[known])
    return np.asarray(expit(found.slope * logit + found.intercept))


def _matrix_factorisation(fit: Fit) -> Made:
    found = fit_matrix_factorisation(fit.problem, fit.settings.factors, stream(fit.root, *fit.name))
    return Made((found.member,), {"chosen": found.chosen, "candidates": found.candidates})


def _bias(fit: Fit) -> Made:
    found = fit_bias(fit.problem, stream(fit.root, *fit.name))
    return Made((found.member,), {"chosen": found.chosen, "candidates": found.candidates})


WITHOUT_TEXT = ("matrix_factorisation", "bias")
ARCHITECTURES = {
    "two_tower": _two_tower,
    "cross_encoder": _pairs,
    "prompt": _pairs,
    "matrix_factorisation": _matrix_factorisation,
    "bias": _bias,
}
"""How the members of each architecture are made; all come out in the same bilinear form."""
