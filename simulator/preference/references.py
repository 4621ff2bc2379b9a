"""The references a text model must beat: user+item biases and logistic matrix factorisation, by alternating MAP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulator.preference.map_head import newton_map
from simulator.preference.model import Member
from simulator.preference.problem import Problem

USER_RIDGES = (0.5, 1.0, 2.0, 4.0)
ITEM_RIDGES = (0.5, 1.0, 2.0, 4.0)
VECTOR_RIDGES = (4.0, 8.0, 16.0, 32.0)
SWEEPS = 12
PATIENCE = 2


@dataclass(frozen=True, slots=True)
class ReferenceFit:
    """A reference and how it was chosen.

    Attributes:
        member: the model that is best on the tuning users.
        loss: its log-loss a row there.
        chosen: the ridge strengths and sweeps that were kept.
        candidates: number of settings tried.
    """

    member: Member
    loss: float
    chosen: dict[str, float]
    candidates: int


def _by_item(problem: Problem) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The rows ordered by item: starts [I + 1], user of each row, and the order."""
    history = problem.histories
    user = np.repeat(np.arange(len(history)), np.diff(history.start))
    order = np.argsort(history.item, kind="stable")
    start = np.searchsorted(history.item[order], np.arange(problem.n_items + 1))
    return start, user[order], order


def _alternate(
    problem: Problem, dim: int, user_ridge: float, item_ridge: float, vector_ridge: float, rng: np.random.Generator
) -> ReferenceFit:
    """Alternate users given items and items given users, each a batch of logistic MAP fits, until tuning stops it.

    The scale of user and item vectors is free but for their priors, so users' vectors keep precision 1.
    """
    history = problem.histories
    start, item_user, order = _by_item(problem)
    by_item = history.primary[order]
    base = np.float32(problem.base_logit)
    precision = np.concatenate([[user_ridge], np.ones(dim)]).astype(np.float32)
    item_precision = np.concatenate([[item_ridge], np.full(dim, vector_ridge)]).astype(np.float32)
    items = np.zeros((problem.n_items, dim + 1), np.float32)
    items[:, 1:] = rng.normal(0, 0.1, (problem.n_items, dim))
    none = np.zeros(problem.features.shape[1], np.float32)
    best: ReferenceFit | None = None
    since = 0
    states: NDArray[np.float32] | None = None
    for sweep in range(1, SWEEPS + 1):
        offset = base + items[history.item, 0]
        states = newton_map(history.start, history.item, history.primary, items[:, 1:], offset, precision)
        known = base + states[item_user, 0]
        items = newton_map(
            start,
            item_user,
            by_item,
            np.ascontiguousarray(states[:, 1:]),
            known,
            item_precision,
            steps=1,
            initial=items,
        )
        member = Member(items[:, 1:].copy(), base + items[:, 0], none, precision)
        loss = float(problem.tuning_loss(problem.tuning_logit(member)).sum()) / len(problem.target)
        if best is None or loss < best.loss:
            chosen = {"user_ridge": user_ridge, "item_ridge": item_ridge, "vector_ridge": vector_ridge, "sweeps": sweep}
            best, since = ReferenceFit(member, loss, chosen, 1), 0
        else:
            since += 1
            if since >= PATIENCE:
                break
    assert best is not None
    return best


def _best(fits: Sequence[ReferenceFit]) -> ReferenceFit:
    chosen = min(fits, key=lambda fit: fit.loss)
    return ReferenceFit(chosen.member, chosen.loss, chosen.chosen, sum(fit.candidates for fit in fits))


def fit_bias(problem: Problem, rng: np.random.Generator) -> ReferenceFit:
    """User and item biases with the ridge strengths that are best on the tuning users."""
    return _best([_alternate(problem, 0, u, i, 1.0, rng) for u in USER_RIDGES for i in ITEM_RIDGES])


def fit_matrix_factorisation(problem: Problem, dim: int, rng: np.random.Generator) -> ReferenceFit:
    """Logistic matrix factorisation without text, ridge strengths and sweeps chosen on the tuning users."""
    bias = fit_bias(problem, rng).chosen
    return _best([_alternate(problem, dim, bias["user_ridge"], bias["item_ridge"], v, rng) for v in VECTOR_RIDGES])
