"""From scores of items to slates and to probabilities: the last step of every built-in agent."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from agents.base import Observation

BLOCK = 1 << 20
"""Scores that a function is asked for at a time: they stay in the processor's cache until they are ranked."""

Scores = NDArray[np.floating] | Callable[[slice], NDArray[np.floating]]


def top_slates(scores: Scores, observation: Observation) -> NDArray[np.int64]:
    """The K best candidates of each user, best first: [n, K].

    Args:
        scores: [n, I] any order-giving score, or [I] where it is the same for all users, or a function that gives the
            scores of the users in a slice when their turn comes.
        observation: gives the candidates and K.

    Returns:
        [n, K] items, of equal ones the smaller number first; -1 at the end of a row that has fewer than K candidates,
        and in all of one in which a candidate's score is NaN or infinite.
    """
    from simulator.top_items import best_of_scores  # numba is slow to import, and who lists agents ranks nothing

    n, slate_size = len(observation), observation.slate_size
    slates = np.empty((n, slate_size), np.int64)
    everything = np.zeros((0, 0), np.bool_)
    low, rows_at_once = 0, 1 if callable(scores) else n  # one row tells how many items there are
    while low < n:
        rows = slice(low, min(low + rows_at_once, n))
        given = np.atleast_2d(scores(rows) if callable(scores) else scores)
        if given.dtype not in (np.float32, np.float64):
            given = given.astype(np.float64)
        candidates = everything if observation.candidates is None else observation.candidates[rows]
        scratch = np.empty((rows.stop - low, slate_size), given.dtype)
        best_of_scores(np.ascontiguousarray(given), np.ascontiguousarray(candidates), scratch, slates[rows])
        low = rows.stop
        rows_at_once = int(np.clip(BLOCK // max(1, given.shape[1]), 1, 256))
    return slates


def masked(scores: NDArray[np.floating], observation: Observation) -> NDArray[np.floating]:
    """Scores [n, I] with -inf outside the candidates."""
    if observation.candidates is None:
        return np.broadcast_to(scores, (len(observation), scores.shape[-1]))
    return np.where(observation.candidates, scores, -np.inf)


def greedy_probabilities(scores: NDArray[np.floating], observation: Observation) -> NDArray[np.float64]:
    """Chances of the first position [n, I] for an agent that shows the best first: one, for that item."""
    return certain(top_slates(scores, observation)[:, 0], scores.shape[-1])


def certain(first: NDArray[np.int64], n_items: int) -> NDArray[np.float64]:
    """Chances [n, I] of one for each user's item [n]; none where it is -1."""
    out = np.zeros((len(first), n_items))
    there = np.flatnonzero(first >= 0)
    out[there, first[there]] = 1.0
    return out


def uniform_probabilities(observation: Observation, n_items: int) -> NDArray[np.float64]:
    """Equal chances [n, I] of all candidates."""
    if observation.candidates is None:
        return np.full((len(observation), n_items), 1.0 / n_items)
    return observation.candidates / np.maximum(1, observation.candidates.sum(axis=1, keepdims=True))
