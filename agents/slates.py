"""From scores of items to slates and to probabilities: the last step of every built-in agent."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from agents.base import Observation

CHUNK = 256
"""Users ranked at a time: 256 rows of a few thousand scores stay in the processor's cache."""


def top_slates(scores: NDArray[np.floating], observation: Observation) -> NDArray[np.int64]:
    """The K best candidates of each user, best first: [n, K].

    Args:
        scores: [n, I] any order-giving score, or [I] where it is the same for all users.
        observation: gives the candidates and K.

    Returns:
        [n, K] items; -1 at the end of a row that has fewer than K candidates.
    """
    n, slate_size = len(observation), observation.slate_size
    n_items = scores.shape[-1]
    kept = min(slate_size, n_items)
    slates = np.full((n, slate_size), -1, np.int64)
    for low in range(0, n, CHUNK):
        rows = slice(low, min(low + CHUNK, n))
        block = masked(scores if scores.ndim == 1 else scores[rows], observation, rows)
        best = np.argpartition(block, n_items - kept, axis=1)[:, n_items - kept :]
        value = np.take_along_axis(block, best, axis=1)
        # By score, then by item number, so that equal scores are shown in one order whatever argpartition did.
        order = np.lexsort((best, -value), axis=1)
        chosen = np.take_along_axis(best, order, axis=1)
        there = np.isfinite(np.take_along_axis(value, order, axis=1))
        slates[rows, :kept] = np.where(there, chosen, -1)
    return slates


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
