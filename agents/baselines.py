"""Agents that learn nothing from interaction: bounds and the simple rankings that a new policy has to beat."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from agents.base import AgentError, Observation, Training
from agents.slates import greedy_probabilities, top_slates, uniform_probabilities


class NoSettings(BaseModel):
    """Parameters of an agent that has none."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Random:
    """Shows any candidates in any order."""

    def __init__(self, settings: NoSettings) -> None:
        self._n_items = 0

    def fit(self, training: Training) -> None:
        """Take note of the size of the catalogue."""
        self._n_items = training.catalogue.n_items

    def act(self, observation: Observation, rng: np.random.Generator) -> NDArray[np.int64]:
        """A uniform draw without repeats for each user."""
        n_items = self._n_items if observation.candidates is None else observation.candidates.shape[1]
        return top_slates(lambda rows: rng.random((rows.stop - rows.start, n_items), dtype=np.float32), observation)

    def action_probabilities(self, observation: Observation) -> NDArray[np.float64]:
        """Equal for all candidates."""
        n_items = self._n_items if observation.candidates is None else observation.candidates.shape[1]
        return uniform_probabilities(observation, n_items)


class Oracle:
    """Shows what the judge world itself would like best: a bound on what is reachable, not a policy.

    Greedy on the world's appeal of this step, so it looks ahead at neither satiation nor leaving; a policy that does
    may pass it in a long session.
    """

    privileged: ClassVar[bool] = True

    def __init__(self, settings: NoSettings) -> None:
        pass

    def act(self, observation: Observation, rng: np.random.Generator) -> NDArray[np.int64]:
        """The items of highest appeal."""
        return top_slates(self._appeal(observation), observation)

    def action_probabilities(self, observation: Observation) -> NDArray[np.float64]:
        """One for the item of highest appeal."""
        return greedy_probabilities(self._appeal(observation), observation)

    def _appeal(self, observation: Observation) -> NDArray[np.float32]:
        if observation.appeal is None:
            raise AgentError("the oracle needs the judge world's appeal, which this observation does not carry")
        return observation.appeal


class Ranking:
    """Base of the agents that give every user one score an item and show the best."""

    def scores(self, observation: Observation) -> NDArray[np.floating]:
        """[n, I] or [I] scores of the items."""
        raise NotImplementedError

    def act(self, observation: Observation, rng: np.random.Generator) -> NDArray[np.int64]:
        """The K candidates of highest score."""
        return top_slates(self.scores(observation), observation)

    def action_probabilities(self, observation: Observation) -> NDArray[np.float64]:
        """One for the candidate of highest score."""
        return greedy_probabilities(self.scores(observation), observation)


class PopularitySettings(BaseModel):
    """What counts as popular."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    by: Literal["likes", "interactions"] = Field(default="likes", description="count `likes` or all `interactions`")


class Popularity(Ranking):
    """Shows the items that most users of the train rows liked."""

    def __init__(self, settings: PopularitySettings) -> None:
        self.settings = settings
        self._count = np.zeros(0, np.float32)

    def fit(self, training: Training) -> None:
        """Count likes in the train rows."""
        log = training.log
        weight = log.primary if self.settings.by == "likes" else np.ones(len(log))
        self._count = np.bincount(log.item, weights=weight, minlength=log.catalogue.n_items).astype(np.float32)

    def scores(self, observation: Observation) -> NDArray[np.floating]:
        """[I] likes of each item in the train rows."""
        return self._count
