"""Neural-linear Thompson sampling: what a network finds in state and item, beside what the linear bandits read."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from agents.bandits import LinearThompson, ThompsonSettings
from agents.base import Training
from agents.deep_rl import Layers, StateScale, item_inputs
from agents.features import UserBlocks

F32 = NDArray[np.float32]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class NeuralLinearSettings(ThompsonSettings):
    """Parameters of the neural-linear bandit."""

    embedding_size: int = Field(default=16, ge=1, description="features that the network makes of state and item")
    hidden_size: int = Field(default=64, ge=1, description="width of the hidden layer of either network")
    learning_rate: float = Field(default=1e-3, gt=0, description="Adam's step")
    retrain_every: int = Field(default=5_000, ge=1, description="user-steps between trainings of the network")
    gradient_steps: int = Field(default=200, ge=1, description="gradient steps of a training")
    batch_size: int = Field(default=1_024, ge=1, description="shown places in a gradient step")


class NeuralLinear(LinearThompson):
    """Bayesian linear regression on the last layer of a network (Riquelme, Tucker and Snoek, 2018).

    The last layer is the product, element by element, of a state and an item network, so that expected clicks of all
    items are still one matrix product, beside the features that all linear bandits have. The network is trained now and
    then on all that was shown so far; the posterior is then computed anew from the same rows.
    """

    settings: NeuralLinearSettings

    def fit(self, training: Training) -> None:
        """Learn online for `budget` user-steps (default 50,000)."""
        self._rng = training.rng
        self._memory: list[tuple[UserBlocks, Ints, F32]] | None = []
        self._trained_at = 0
        self._scale: StateScale | None = None
        super().fit(training)
        self._memory = None  # what it was trained on does not travel with it

    def prepare(self, training: Training) -> int:
        """Tables, and networks that know nothing yet; returns how many features they make."""
        assert self._features is not None
        self._scale = StateScale.of(self._features, training)
        e, h = self.settings.embedding_size, self.settings.hidden_size

        def untrained(width: int) -> Layers:
            first = self._rng.normal(0, np.sqrt(2 / width), (h, width)).astype(np.float32)
            last = self._rng.normal(0, 1 / np.sqrt(h), (e, h)).astype(np.float32)
            return Layers((first, last), (np.zeros(h, np.float32), np.zeros(e, np.float32)), "relu")

        inputs = item_inputs(self._features)
        self._take(untrained(len(self._scale.mean)), untrained(inputs.shape[1]))
        return e

    def mean(self, users: UserBlocks, theta: NDArray[np.floating] | None = None) -> F32:
        """[n, I] expected click at the top of a slate, less what is equal for all items."""
        coefficients = np.atleast_2d(self._theta if theta is None else theta).astype(np.float32)
        own = coefficients[:, -self.settings.embedding_size :]
        return np.asarray(super().mean(users, theta) + (self._of_users(users) * own) @ self._of_items.T, np.float32)

    def _take(self, state_network: Layers, item_network: Layers) -> None:
        """Work with these networks from now on."""
        assert self._features is not None
        self._state_network, self._item_network = state_network, item_network
        self._of_items = item_network(item_inputs(self._features))  # [I, e]

    def _of_users(self, users: UserBlocks) -> F32:
        assert self._scale is not None
        return self._state_network(self._scale(users))  # [n, e]

    def _design(self, users: UserBlocks, rows: Ints, places: Ints, items: Ints) -> Floats:
        known = super()._design(users, rows, places, items)
        return np.concatenate([known, self._of_users(users)[rows] * self._of_items[items]], axis=1)

    def _take_in(self, users: UserBlocks, slates: Ints, clicks: F32) -> None:
        super()._take_in(users, slates, clicks)
        if self._memory is None:
            return
        self._memory.append((users, slates, clicks))
        if self._seen - self._trained_at >= self.settings.retrain_every:
            self._trained_at = self._seen
            self._retrain()

    def _retrain(self) -> None:
        """Train the network on all that was shown, and start the posterior anew from the same rows."""
        from agents.neural_linear_training import train_features

        assert self._features is not None
        assert self._scale is not None
        assert self._memory is not None
        base = len(self._theta) - self.settings.embedding_size
        states = np.concatenate([self._scale(users) for users, _, _ in self._memory])
        known, clicked, user, item, first = [], [], [], [], 0
        for users, slates, clicks in self._memory:
            rows, places = np.nonzero(slates >= 0)
            items = slates[rows, places]
            known.append(super()._design(users, rows, places, items).astype(np.float32))
            clicked.append(clicks[rows, places])
            user.append(first + rows)
            item.append(items)
            first += len(slates)
        design, target = np.concatenate(known), np.concatenate(clicked)
        of_user, of_item = np.concatenate(user), np.concatenate(item)
        self._take(
            *train_features(
                self.settings,
                (self._state_network, self._item_network),
                (states, item_inputs(self._features)),
                (of_user, of_item),
                design,
                target,
                self._rng,
            )
        )
        made = self._state_network(states)[of_user] * self._of_items[of_item]
        full = np.concatenate([design, made], axis=1).astype(np.float64)
        self._gram = np.eye(base + made.shape[1]) * self.settings.reg + full.T @ full
        self._right = full.T @ target
        self._theta = np.linalg.solve(self._gram, self._right).astype(np.float32)
