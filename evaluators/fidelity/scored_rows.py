"""Rows that a model predicted without having seen them, and their losses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from evaluators.fidelity.checks import Floats, Ints
from simulator.log import InteractionLog, Split

EPSILON = 1e-12
"""Predictions are kept this far from 0 and 1 before a logarithm."""


@dataclass(frozen=True, slots=True)
class ScoredRows:
    """n rows that a model predicted without having seen them.

    Attributes:
        p: [n] predicted probability of the primary behaviour, in (0, 1).
        y: [n] 1.0 where it occurred, else 0.0.
        user: [n] the cluster of each row.
        item_exposure: [n] how often the row's item occurs in the log's fitted rows: its exposure.
        p_bias: [n] predictions of the shrunk user + item bias model, or None.
    """

    p: Floats
    y: Floats
    user: Ints
    item_exposure: Floats
    p_bias: Floats | None = None

    def __post_init__(self) -> None:
        n = len(self.y)
        lengths = [
            len(self.p),
            len(self.user),
            len(self.item_exposure),
            *([] if self.p_bias is None else [len(self.p_bias)]),
        ]
        if any(length != n for length in lengths):
            raise ValueError(f"scored rows: columns of {lengths} values beside {n} outcomes")
        if not ((self.p > 0) & (self.p < 1)).all():
            raise ValueError("scored rows: a predicted probability lies outside (0, 1)")

    def __len__(self) -> int:
        return len(self.y)


class Predicts(Protocol):
    """A preference model, as far as fidelity needs it."""

    def predict(self, log: InteractionLog, split: Split, rows: Ints) -> Floats:
        """Probability of the primary behaviour for each row, from the early rows of its user."""
        ...


def score_rows(
    model: Predicts, log: InteractionLog, split: Split, users: Ints, *, p_bias: Floats | None = None
) -> ScoredRows:
    """Predictions of a model for the late rows of the given users, beside what happened.

    An item's exposure is its share of all early rows: what a user of this log was likely to meet.

    Args:
        model: was fitted on other rows.
        log: the interaction log.
        split: which rows are late.
        users: whose late rows are scored.
        p_bias: predictions of the bias model for these rows.

    Raises:
        SeenRowsError: the model was fitted on one of these rows.
    """
    rows = split.rows(log, users, late=True)
    exposure = np.bincount(log.item[~split.late], minlength=log.catalogue.n_items).astype(np.float64)
    return ScoredRows(
        inside(model.predict(log, split, rows)),
        log.primary[rows].astype(np.float64),
        log.user[rows],
        exposure[log.item[rows]],
        None if p_bias is None else inside(p_bias),
    )


class PredictsPairs(Protocol):
    """A preference model, as far as rows of random exposure need it."""

    def predict_pairs(self, log: InteractionLog, split: Split, user: Ints, item: Ints) -> Floats:
        """Probability of the primary behaviour for pairs outside the log."""
        ...


def score_random_rows(model: PredictsPairs, log: InteractionLog, split: Split, users: Ints) -> ScoredRows | None:
    """Predictions for the rows of random exposure of the given users; None where the log has none of them.

    Pairs that stand in their user's history are left out: what was met before is no unbiased test.
    """
    if log.random is None:
        return None
    n_items = log.catalogue.n_items
    met = np.isin(log.random.user * n_items + log.random.item, log.user[~split.late] * n_items + log.item[~split.late])
    rows = np.flatnonzero(np.isin(log.random.user, users) & ~met)
    if not len(rows):
        return None
    user, item = log.random.user[rows], log.random.item[rows]
    exposure = np.bincount(log.item[~split.late], minlength=n_items).astype(np.float64)
    p = inside(model.predict_pairs(log, split, user, item))
    return ScoredRows(p, log.random.primary[rows].astype(np.float64), user, exposure[item])


def inside(p: Floats) -> Floats:
    """[n] probabilities kept away from 0 and 1."""
    return np.clip(np.asarray(p, np.float64), EPSILON, 1 - EPSILON)


def log_loss(p: Floats, y: Floats) -> Floats:
    """[n] minus the log-likelihood of each outcome, in nats."""
    return -np.where(y > 0.5, np.log(inside(p)), np.log1p(-inside(p)))
