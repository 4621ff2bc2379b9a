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


def inside(p: Floats) -> Floats:
    """[n] probabilities kept away from 0 and 1."""
    return np.clip(np.asarray(p, np.float64), EPSILON, 1 - EPSILON)


def log_loss(p: Floats, y: Floats) -> Floats:
    """[n] minus the log-likelihood of each outcome, in nats."""
    return -np.where(y > 0.5, np.log(inside(p)), np.log1p(-inside(p)))
