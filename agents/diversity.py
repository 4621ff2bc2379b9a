"""`mmr` and `dpp`: any agent's best items, chosen again so that a slate's items differ in content."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from agents.base import Agent, AgentError, Observation, Training
from agents.settings import AgentSettings
from agents.wrapping import Wrapping, best_of

F32 = NDArray[np.float32]
Ints = NDArray[np.int64]

CHUNK = 256
"""Users chosen for at a time: their pools' vectors are [n, L, d]."""
LEAST = 1e-6
"""Squared length that is left of an item whose content the slate already has: it then counts by relevance alone."""


class DiversitySettings(BaseModel):
    """Parameters of a diversified agent."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    agent: str = Field(default="popularity", min_length=1, description="kind of the agent whose items are chosen among")
    params: dict[str, Any] = Field(default_factory=dict, description="parameters of that agent")
    strength: float = Field(
        default=0.3, ge=0, lt=1, description="weight of diversity; at 0 the slates are the agent's own"
    )
    pool: int = Field(default=3, ge=1, le=50, description="slates of the agent among whose items are chosen")

    def wrapped(self) -> tuple[AgentSettings, ...]:
        """The entry of the wrapped agent."""
        return (AgentSettings(name="wrapped", kind=self.agent, params=self.params),)


class Diversified(Wrapping):
    """Chooses greedily among the wrapped agent's best items, by their rank there and their likeness to those chosen.

    Relevance of an item is 1 / log2(1 + rank) in the wrapped agent's order, for agents of different kinds share no
    scale of scores. Likeness is the cosine of content vectors.
    """

    def __init__(self, settings: DiversitySettings, wrapped: Sequence[Agent]) -> None:
        super().__init__(wrapped)
        self.settings = settings
        self.agent = wrapped[0]
        self._content = np.zeros((0, 0), np.float32)  # [I, d] unit length

    def fit(self, training: Training) -> None:
        """Fit the wrapped agent and take the catalogue's content vectors.

        Raises:
            AgentError: the items have no content vectors.
        """
        self.fit_wrapped(training)
        content = training.catalogue.content
        if content is None:
            raise AgentError("diversity needs content vectors; name data.item_text or data.item_categories")
        length = np.linalg.norm(content, axis=1, keepdims=True)
        self._content = (content / np.where(length > 0, length, 1)).astype(np.float32)

    def act(self, observation: Observation, rng: np.random.Generator) -> Ints:
        """[n, K] items chosen one after another."""
        pool = best_of(self.agent, observation, rng, len(self._content), self.settings.pool)  # [n, L]
        if self.settings.strength == 0:
            return pool[:, : observation.slate_size]
        relevance = (1 / np.log2(2 + np.arange(pool.shape[1]))).astype(np.float32)
        out = np.full((len(pool), observation.slate_size), -1, np.int64)
        for low in range(0, len(pool), CHUNK):
            part = pool[low : low + CHUNK]
            vectors = self._content[np.maximum(part, 0)]  # [c, L, d]
            chosen = self.choose(vectors @ vectors.transpose(0, 2, 1), relevance, part >= 0, observation.slate_size)
            out[low : low + CHUNK] = np.where(chosen >= 0, np.take_along_axis(part, np.maximum(chosen, 0), axis=1), -1)
        return out

    def choose(self, likeness: F32, relevance: F32, there: NDArray[np.bool_], size: int) -> Ints:
        """[n, size] places in the pool, in the order of choice; -1 where none is left.

        Args:
            likeness: [n, L, L] cosines.
            relevance: [L] of each place in the pool.
            there: [n, L] places that hold an item.
            size: how many are chosen.
        """
        raise NotImplementedError


class MMR(Diversified):
    """Maximal marginal relevance (Carbonell and Goldstein, 1998).

    The next item has the greatest (1 - strength) relevance - strength x greatest likeness to an item chosen before.
    """

    def choose(self, likeness: F32, relevance: F32, there: NDArray[np.bool_], size: int) -> Ints:
        """See `Diversified.choose`."""
        n, length = there.shape
        s, rows = self.settings.strength, np.arange(len(there))
        nearest = np.zeros((n, length), np.float32)
        left = there.copy()
        out = np.full((n, size), -1, np.int64)
        for place in range(min(size, length)):
            value = np.where(left, (1 - s) * relevance - s * nearest, -np.inf)
            best = value.argmax(axis=1)
            some = left[rows, best]
            out[some, place] = best[some]
            left[rows, best] = False
            to_best = likeness[rows, best]
            nearest = to_best if place == 0 else np.maximum(nearest, to_best)
        return out


class DPP(Diversified):
    """Greedy MAP of a determinantal point process (Chen, Zhang and Zhou, 2018).

    Kernel q_i <v_i, v_j> q_j with q = exp(relevance (1 - strength) / (2 strength)); the next item has the greatest
    gain in log determinant, found by one more column of the Cholesky factor.
    """

    def choose(self, likeness: F32, relevance: F32, there: NDArray[np.bool_], size: int) -> Ints:
        """See `Diversified.choose`."""
        n, length = there.shape
        s, rows = self.settings.strength, np.arange(len(there))
        left = there.copy()
        rest = np.einsum("nll->nl", likeness).astype(np.float64)  # [n, L] squared length outside the span of the chosen
        factor = np.zeros((n, length, min(size, length)))
        out = np.full((n, size), -1, np.int64)
        for place in range(min(size, length)):
            gain = relevance * (1 - s) / s + np.log(np.maximum(rest, LEAST))
            best = np.where(left, gain, -np.inf).argmax(axis=1)
            some = left[rows, best]
            out[some, place] = best[some]
            left[rows, best] = False
            along = np.einsum("nlk,nk->nl", factor[:, :, :place], factor[rows, best, :place])
            column = (likeness[rows, best] - along) / np.sqrt(np.maximum(rest[rows, best], LEAST))[:, None]
            # Nothing new points along an item that the slate already spans: it must not divide by next to nothing.
            column[rest[rows, best] <= LEAST] = 0
            factor[:, :, place] = column
            rest = rest - column**2
        return out
