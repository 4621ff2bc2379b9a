"""From scores of items to slates and to probabilities: the last step of every built-in agent."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from agents.base import Observation

BLOCK = 1 << 20
"""Scores ranked at a time: they stay in the processor's cache, which makes ranking 100,000 items three times faster."""

PARTS = 64
"""Items of a group, where only the groups with the highest maxima are ranked."""

MANY_ITEMS = 16 * PARTS
"""Scores a place of the slate from which groups save time."""

Scores = NDArray[np.floating] | Callable[[slice], NDArray[np.floating]]


def top_slates(scores: Scores, observation: Observation) -> NDArray[np.int64]:
    """The K best candidates of each user, best first: [n, K].

    Args:
        scores: [n, I] any order-giving score, or [I] where it is the same for all users, or a function that gives the
            scores of the users in a slice when their turn comes.
        observation: gives the candidates and K.

    Returns:
        [n, K] items; -1 at the end of a row that has fewer than K candidates.
    """
    n, slate_size = len(observation), observation.slate_size
    slates = np.full((n, slate_size), -1, np.int64)
    low, rows_at_once = 0, 1
    while low < n:
        rows = slice(low, min(low + rows_at_once, n))
        given = scores(rows) if callable(scores) else scores if scores.ndim == 1 else scores[rows]
        block = masked(given, observation, rows)
        kept = min(slate_size, block.shape[1])
        best = _highest(block, kept)
        value = np.take_along_axis(block, best, axis=1)
        # By score, then by item number, so that equal scores are shown in one order whatever argpartition did.
        order = np.lexsort((best, -value), axis=1)
        chosen = np.take_along_axis(best, order, axis=1)
        there = np.isfinite(np.take_along_axis(value, order, axis=1))
        slates[rows, :kept] = np.where(there, chosen, -1)
        low = rows.stop
        rows_at_once = int(np.clip(BLOCK // max(1, block.shape[1]), 1, 256))
    return slates


def _highest(block: NDArray[np.floating], kept: int) -> NDArray[np.int64]:
    """[m, kept] items with the highest of the scores [m, I], in any order.

    None of them is outside the `kept` groups with the highest maxima, so in a large catalogue only those are ranked.
    """
    m, n_items = block.shape
    if n_items < MANY_ITEMS * kept:
        return np.argpartition(block, n_items - kept, axis=1)[:, n_items - kept :]
    width = n_items // PARTS  # group j has the items j, j + width, ..., so that maxima are taken of whole rows
    maxima = block[:, : PARTS * width].reshape(m, PARTS, width).max(axis=1)
    groups = np.argpartition(maxima, width - kept, axis=1)[:, width - kept :]
    items = (groups[:, :, None] + width * np.arange(PARTS)).reshape(m, -1)
    rest = np.broadcast_to(np.arange(PARTS * width, n_items), (m, n_items - PARTS * width))
    items = np.concatenate([items, rest], axis=1)
    best = np.argpartition(np.take_along_axis(block, items, axis=1), items.shape[1] - kept, axis=1)
    return np.take_along_axis(items, best[:, items.shape[1] - kept :], axis=1)


def masked(scores: NDArray[np.floating], observation: Observation, rows: slice = slice(None)) -> NDArray[np.floating]:
    """Scores [n, I] with -inf outside the candidates of these rows."""
    n = len(range(*rows.indices(len(observation))))
    if observation.candidates is None:
        return np.broadcast_to(scores, (n, scores.shape[-1]))
    return np.where(observation.candidates[rows], scores, -np.inf)


def greedy_probabilities(scores: NDArray[np.floating], observation: Observation) -> NDArray[np.float64]:
    """Chances of the first position [n, I] for an agent that shows the best first: one, for that item."""
    first = top_slates(scores, observation)[:, 0]
    out = np.zeros((len(observation), scores.shape[-1]))
    there = np.flatnonzero(first >= 0)
    out[there, first[there]] = 1.0
    return out


def uniform_probabilities(observation: Observation, n_items: int) -> NDArray[np.float64]:
    """Equal chances [n, I] of all candidates."""
    if observation.candidates is None:
        return np.full((len(observation), n_items), 1.0 / n_items)
    return observation.candidates / np.maximum(1, observation.candidates.sum(axis=1, keepdims=True))
