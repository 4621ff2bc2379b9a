"""What agents that are made of other agents share: fitting these, and asking them for more than a slate."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from agents.base import Agent, Observation, Training

Ints = NDArray[np.int64]


def fit_wrapped(agents: Iterable[Agent], training: Training) -> None:
    """Let those that learn learn."""
    for agent in agents:
        fit = getattr(agent, "fit", None)
        if fit is not None:
            fit(training)


def best_of(agent: Agent, observation: Observation, rng: np.random.Generator, n_items: int, slates: int) -> Ints:
    """[n, slates * K] the agent's best items: its slate, then its slate without these, and so on; -1 where none is.

    The agent is only ever asked for slates, so it may be of any kind.
    """
    n = len(observation)
    candidates = observation.candidates
    left = np.ones((n, n_items), bool) if candidates is None else candidates.copy()
    found = []
    for _ in range(slates):
        slate = np.asarray(agent.act(replace(observation, candidates=left), rng), np.int64)
        found.append(slate)
        left = left.copy()  # the agent may have kept the array that it was given
        row, place = np.nonzero(slate >= 0)
        left[row, slate[row, place]] = False
    return np.concatenate(found, axis=1)
