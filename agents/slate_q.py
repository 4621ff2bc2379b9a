"""SlateQ: values of slates made of values of single items and of what the user will choose (Ie et al., 2019)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from agents.base import Observation, Training
from agents.contract import rows_of
from agents.deep_rl import ItemQ, StateScale
from agents.features import fit_features
from agents.slates import greedy_probabilities, top_slates

F32 = NDArray[np.float32]
Ints = NDArray[np.int64]

ROUNDS = 50
"""Most rounds to the best slate of a single choice; it is found when the slate stays the same, mostly after three."""

TOGETHER = 256
"""Users whose items are scored at a time."""


class SlateQSettings(BaseModel):
    """Parameters of SlateQ."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    gamma: float = Field(default=0.8, ge=0, lt=1, description="discount a slate; 0: clicks on this slate alone")
    choice: Literal["independent", "one"] = Field(
        default="independent",
        description="what the user is taken to do: click each item for itself, or choose one of them or none (logit)",
    )
    target: Literal["sarsa", "q_learning"] = Field(
        default="sarsa", description="value of what follows: of the slate shown next, or of the best one"
    )
    credit: Literal["clicked", "shown"] = Field(
        default="clicked",
        description="what the future is taken to depend on: the items that were clicked, or all that were shown, each "
        "by its chance of a click",
    )
    learning_rate: float = Field(default=2e-3, gt=0, description="Adam's step")
    batch_size: int = Field(default=128, ge=1, description="slates in a gradient step")
    buffer_size: int = Field(default=20_000, ge=100, description="newest slates that are learned from")
    gradient_steps: int = Field(default=4, ge=1, description="gradient steps for each step of all users")
    exploration_fraction: float = Field(
        default=0.3, ge=0, le=1, description="share of the training that explores less and less"
    )
    exploration_final_eps: float = Field(default=0.05, ge=0, le=1, description="chance of a random slate after that")
    tau: float = Field(default=0.02, gt=0, le=1, description="share by which the target follows at each gradient step")
    embedding_size: int = Field(default=16, ge=1, description="width of the product of state and item network")
    hidden_size: int = Field(default=64, ge=1, description="width of the hidden layer of either network")
    num_envs: int = Field(default=64, ge=1, description="users stepped at once")


@dataclass(frozen=True, slots=True)
class SlateValue:
    """What a user will choose, and what that is worth.

    Attributes:
        choice: logit of the choice of an item, at the top of a slate; worth: what its choice adds in the long run,
            less the one click that it is.
        single: the user chooses one item or none, else each for itself.
    """

    choice: ItemQ
    worth: ItemQ
    single: bool

    def slates(self, observation: Observation) -> Ints:
        """[n, K] slates of highest value, best first."""
        out = np.empty((len(observation), observation.slate_size), np.int64)
        for part, logits, worth in self._read(observation):
            out[part] = best_slates(logits, worth, rows_of(observation, part), single=self.single)
        return out

    def options(self, observation: Observation, size: int) -> Ints:
        """[n, size] candidates of highest chance, each for itself, times worth, best first."""
        return np.concatenate(
            [
                best_slates(logits, worth, replace(rows_of(observation, part), slate_size=size), single=False)
                for part, logits, worth in self._read(observation)
            ]
        )

    def _read(self, observation: Observation) -> Iterator[tuple[slice, F32, F32]]:
        """Some of the users, and logits and worths [m, I] of all items for them, in memory that is written to again.

        Fresh memory for all users takes as long as the products.
        """
        users = self.choice.features.users(observation)
        choice, worth = self.choice.product(users), self.worth.product(users)
        n = len(observation)
        room = np.empty((2, min(TOGETHER, n), len(choice.items)), np.float32)
        for low in range(0, n, TOGETHER):
            part = slice(low, min(low + TOGETHER, n))
            logits, value = room[:, : part.stop - low]
            np.matmul(choice.left[part], choice.items.T, out=logits)
            np.matmul(worth.left[part], worth.items.T, out=value)
            logits += choice.value[part]
            value += 1 + worth.value[part]
            yield part, logits, value


def best_slates(logits: F32, worth: F32, observation: Observation, *, single: bool) -> Ints:
    """[n, K] slates of highest value, exactly.

    Independent choices: the K items of highest chance times worth. A single choice: the value of a slate is
    sum(v q) / (1 + sum(v)) with v the exponential of the logit, the fractional linear program of Ie et al.; its optimum
    has the K highest v (q - z), z being its own value, which Dinkelbach's iteration finds.

    Args:
        logits: [n, I] of a choice; written over where one is chosen.
        worth: [n, I] of the chosen item.
        observation: gives the candidates and K.
        single: whether one item is chosen or none, else each for itself.
    """
    if not single:
        return top_slates(lambda rows: worth[rows] / (1 + np.exp(-logits[rows])), observation)
    everything = np.zeros((0, 0), np.bool_)
    candidates = everything if observation.candidates is None else observation.candidates
    return best_of_one(logits, worth, candidates, observation.slate_size)


def best_of_one(logits: F32, worth: F32, candidates: NDArray[np.bool_], slate_size: int) -> Ints:
    """[n, K] slates of highest value where one item is chosen; logits [n, I] are written over.

    candidates: [n, I], or [0, I] where all may be shown.
    """
    from agents.showing import best_of_one_choice  # numba is slow to import, and who lists agents ranks nothing

    weight = np.exp(np.clip(logits, -30, 30, out=logits), out=logits)
    slates = np.empty((len(weight), slate_size), np.int64)
    best, allowed = np.empty(slates.shape, np.float32), np.ascontiguousarray(candidates)
    best_of_one_choice(np.ascontiguousarray(weight), np.ascontiguousarray(worth), allowed, ROUNDS, best, slates)
    return slates


class SlateQ:
    """SlateQ (Ie et al., 2019): Q of a slate is the sum of chances of a choice times long-term values of the chosen.

    A choice model and item-wise long-term values are learned side by side in the train world. The value of a slate's
    clicks and of what follows is regressed on the items that were clicked: what a click adds, item by item, to the
    value of a slate on which nothing is clicked. Where at most one item is clicked this is the paper's decomposition,
    with nothing as the null item; where several may be, they add up. With `gamma: 0` it shows what will most likely
    be clicked, so the same agent with and without a future can be held against each other.
    """

    def __init__(self, settings: SlateQSettings) -> None:
        self.settings = settings
        self.value: SlateValue | None = None

    def fit(self, training: Training) -> None:
        """Learn for `budget` user-steps (default 24,000)."""
        from agents.slate_q_trainer import train_slate_q

        features = fit_features(training)
        budget = 24_000 if training.budget is None else training.budget
        scale = StateScale.of(features, training)
        self.value = train_slate_q(training, self.settings, features, scale, budget=budget)

    def act(self, observation: Observation, rng: np.random.Generator) -> Ints:
        """The slate of highest value."""
        assert self.value is not None, "fit comes before act"
        return self.value.slates(observation)

    def action_probabilities(self, observation: Observation) -> NDArray[np.float64]:
        """One for the first item of that slate."""
        slates = self.act(observation, np.random.default_rng(0))
        assert self.value is not None
        first = np.zeros((len(observation), self.value.choice.features.n_items))
        there = np.flatnonzero(slates[:, 0] >= 0)
        first[there, slates[there, 0]] = 1.0
        return greedy_probabilities(first, observation)
