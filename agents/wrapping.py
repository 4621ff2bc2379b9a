"""What agents that are made of other agents share: fitting and telling these, and asking for more than a slate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from agents.base import Agent, Feedback, Observation, Training, learns_online
from agents.contract import check_slate
from agents.train_world import shown_places

Ints = NDArray[np.int64]


class Wrapping:
    """An agent that is made of others: it reads and learns what they do.

    Attributes:
        wrapped: the agents that it is made of.
        privileged: one of them reads the judge world's appeal.
    """

    def __init__(self, wrapped: Sequence[Agent]) -> None:
        self.wrapped = tuple(wrapped)
        self.privileged = any(getattr(agent, "privileged", False) for agent in wrapped)

    def fit_wrapped(self, training: Training) -> None:
        """Let those that learn learn."""
        for agent in self.wrapped:
            fit = getattr(agent, "fit", None)
            if fit is not None:
                fit(training)

    @property
    def online(self) -> bool:
        """Whether one of them goes on learning while it is judged."""
        return any(learns_online(agent) for agent in self.wrapped)

    def observe(self, feedback: Feedback) -> None:
        """Tell those that learn online what came of the slates that were shown, whoever chose them."""
        for agent in self.wrapped:
            if learns_online(agent):
                agent.observe(feedback)  # type: ignore[attr-defined]

    def account(self) -> str:
        """What the answers of those that count took, in words."""
        said = [agent.account() for agent in self.wrapped if hasattr(agent, "account")]
        return "; ".join(one for one in said if one)


def slates_of(agent: Agent, observation: Observation, rng: np.random.Generator) -> Ints:
    """[n, K] slates of an agent within another, as they must be; -1 at the end of a row that has too few candidates.

    Candidates are narrowed for it, so that they may be fewer than places, which an agent of a user's own need never
    have met: what it puts there that is none is left out. Where there are enough it is held to its contract.

    Raises:
        AgentError: the slates are not as they must be.
    """
    slates, candidates = agent.act(observation, rng), observation.candidates
    wanted = (len(observation), observation.slate_size)
    if (
        candidates is not None
        and isinstance(slates, np.ndarray)
        and slates.shape == wanted
        and slates.dtype.kind in "iu"
    ):
        # Counting a row of a large catalogue takes as long as ranking it, so only what is not whole is counted.
        odd = np.flatnonzero(~_whole(slates, candidates))
        room = candidates[odd].sum(axis=1)
        few = odd[room < observation.slate_size]
        if len(few):
            kept = shown_places(slates[few], candidates[few])
            kept = np.take_along_axis(kept, np.argsort(kept < 0, axis=1, kind="stable"), axis=1)
            all_there = (kept >= 0).sum(axis=1) == room[room < observation.slate_size]
            slates = slates.astype(np.int64)  # a copy
            slates[few[all_there]] = kept[all_there]
    return check_slate(slates, observation)


def _whole(slates: NDArray[np.integer], candidates: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """[n] whether all places of a slate [n, K] have a candidate [n, I], none twice."""
    there = (slates >= 0) & (slates < candidates.shape[1])
    there &= candidates[np.arange(len(slates))[:, None], np.where(there, slates, 0)]
    ordered = np.sort(slates, axis=1)
    whole: NDArray[np.bool_] = there.all(axis=1) & (ordered[:, 1:] != ordered[:, :-1]).all(axis=1)
    return whole


def best_of(agent: Agent, observation: Observation, rng: np.random.Generator, n_items: int, slates: int) -> Ints:
    """[n, slates * K] the agent's best items: its slate, then its slate without these, and so on; -1 where none is.

    The agent is only ever asked for slates, so it may be of any kind.
    """
    n = len(observation)
    candidates = observation.candidates
    left = np.ones((n, n_items), bool) if candidates is None else candidates.copy()
    found = []
    for _ in range(slates):
        slate = slates_of(agent, replace(observation, candidates=left), rng)
        found.append(slate)
        left = left.copy()  # the agent may have kept the array that it was given
        row, place = np.nonzero(slate >= 0)
        left[row, slate[row, place]] = False
    return np.concatenate(found, axis=1)
