"""Deep reinforcement learning by Stable-Baselines3: DQN on item features, PPO with a continuous proto-action.

Training is in `agents.sb3_adapter`, which alone imports torch and SB3. A trained agent holds its networks as plain
arrays, so acting needs neither.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from agents.base import Observation, Training
from agents.features import PAIR_NAMES, Features, UserBlocks, fit_features, newest_rows
from agents.slates import greedy_probabilities, top_slates

F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Layers:
    """A feed-forward network as arrays.

    Attributes:
        weights: of each layer, [out, in]; biases: of each layer, [out].
        activation: between the layers, "relu" or "tanh".
    """

    weights: tuple[F32, ...]
    biases: tuple[F32, ...]
    activation: str

    def __call__(self, x: F32) -> F32:
        """Output [n, out] for input [n, in]."""
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = x @ weight.T + bias
            if number < len(self.weights) - 1:
                x = np.maximum(x, 0) if self.activation == "relu" else np.tanh(x)
        return x


@dataclass(frozen=True, slots=True)
class StateScale:
    """Mean and spread of the state of train users, so that networks see inputs of unit size.

    Attributes:
        mean: [s]; spread: [s].
    """

    mean: F32
    spread: F32

    @classmethod
    def of(cls, features: Features, training: Training) -> StateScale:
        """From the histories of the train rows."""
        state = features.users(newest_rows(training.log, length=50, slate_size=training.slate_size)).state()
        spread = state.std(axis=0)
        # What is the same for all of them (no slate was shown yet) still varies in a session, within [0, 1].
        return cls(state.mean(axis=0), np.where(spread > 1e-3, spread, 0.3).astype(np.float32))

    def __call__(self, users: UserBlocks) -> F32:
        """[n, s] standardised state, cut at 5 spreads."""
        standard: F32 = np.clip((users.state() - self.mean) / self.spread, -5, 5).astype(np.float32)
        return standard


class DQNSettings(BaseModel):
    """Parameters of DQN, by SB3's names."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    gamma: float = Field(default=0.5, ge=0, lt=1, description="discount a slate")
    learning_rate: float = Field(default=1e-3, gt=0, description="AdamW's step")
    weight_decay: float = Field(
        default=0.0, ge=0, description="AdamW's shrinking of the weights, against learning the train world by heart"
    )
    batch_size: int = Field(default=256, ge=1, description="transitions in a gradient step")
    buffer_size: int = Field(default=200_000, ge=1_000, description="transitions kept; one for each place of a slate")
    gradient_steps: int = Field(default=2, ge=1, description="gradient steps for each step of all environments")
    exploration_fraction: float = Field(
        default=0.3, ge=0, le=1, description="share of the training that explores less and less"
    )
    exploration_final_eps: float = Field(default=0.05, ge=0, le=1, description="chance of random slates after that")
    tau: float = Field(
        default=0.02, gt=0, le=1, description="share by which the target, which is judged, follows at each step"
    )
    embedding_size: int = Field(default=32, ge=1, description="width of the product of state and item network")
    hidden_size: int = Field(default=64, ge=1, description="width of the hidden layer of either network")
    num_envs: int = Field(default=64, ge=1, description="users stepped at once")


@dataclass(frozen=True, slots=True)
class ItemQ:
    """Q(s, i) of all items as one matrix product.

    The state network gives, for each state, a gate for each pair feature, a weight for each item feature, a vector
    that the item network's is multiplied with, and the value of the state.

    Attributes:
        features: tables of the features.
        scale: of the state.
        state_network: [s + 1] (the state and the place's discount) to [4 + a + e + 1].
        item_network: [a + r] to [e].
    """

    features: Features
    scale: StateScale
    state_network: Layers
    item_network: Layers

    def scores(self, observation: Observation) -> F32:
        """[n, I] Q of each item at the top of a slate."""
        users = self.features.users(observation)
        item = self.features.item_features()
        state = np.concatenate([self.scale(users), np.zeros((len(observation), 1), np.float32)], axis=1)
        out = self.state_network(state)
        n_pair, n_item = len(PAIR_NAMES), item.shape[1]
        blocks = self.features.pair_blocks(users)
        left = [block * out[:, j, None] for j, (block, _) in enumerate(blocks)]
        right = [block for _, block in blocks]
        vectors = self.item_network(item_inputs(self.features))
        left += [out[:, n_pair : n_pair + n_item], out[:, n_pair + n_item : -1]]
        right += [item, vectors]
        return np.concatenate(left, axis=1) @ np.concatenate(right, axis=1).T + out[:, -1:]


def item_inputs(features: Features) -> F32:
    """[I, a + r] what the item network reads: features of the item and its vector."""
    return np.concatenate([features.item_features(), features.vectors], axis=1, dtype=np.float32)


class DQN:
    """Deep Q-network (Mnih et al., 2015) of SB3 on features of state and item, slates by the K highest Q.

    Each place of a slate is a transition of its own: its item is the action, its click the reward (the decomposition
    of SlateQ, Ie et al., 2019, with every place taken as equally responsible for what comes next). So one slate of
    each of 64 users gives 64 x K transitions, and Q reads the catalogue, not item numbers.
    """

    def __init__(self, settings: DQNSettings) -> None:
        self.settings = settings
        self.q: ItemQ | None = None

    def fit(self, training: Training) -> None:
        """Learn for `budget` user-steps (default 24,000; with more it learns the train world rather than its users)."""
        from agents.sb3_adapter import train_dqn

        features = fit_features(training)
        self.q = train_dqn(
            training,
            self.settings,
            features,
            StateScale.of(features, training),
            budget=24_000 if training.budget is None else training.budget,
        )

    def act(self, observation: Observation, rng: np.random.Generator) -> NDArray[np.int64]:
        """The K candidates of highest Q."""
        return top_slates(self._scores(observation), observation)

    def action_probabilities(self, observation: Observation) -> NDArray[np.float64]:
        """One for the candidate of highest Q."""
        return greedy_probabilities(self._scores(observation), observation)

    def _scores(self, observation: Observation) -> F32:
        assert self.q is not None, "fit comes before act"
        return self.q.scores(observation)


class PPOSettings(BaseModel):
    """Parameters of PPO, by SB3's names."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    gamma: float = Field(default=0.5, ge=0, lt=1, description="discount a slate")
    gae_lambda: float = Field(default=0.9, ge=0, le=1, description="weight of longer returns in the advantage")
    learning_rate: float = Field(default=1e-3, gt=0, description="Adam's step")
    n_steps: int = Field(default=16, ge=1, description="slates of each user between updates")
    n_epochs: int = Field(default=4, ge=1, description="passes over the slates of an update")
    batch_size: int = Field(default=512, ge=2, description="slates in a gradient step")
    clip_range: float = Field(
        default=0.2, gt=0, description="how far an update may move an action's chance, as a share"
    )
    ent_coef: float = Field(default=0.0, ge=0, description="weight of the entropy of the proto-action")
    log_std_init: float = Field(default=-0.5, description="log of the proto-action's first standard deviation")
    hidden_size: int = Field(default=64, ge=1, description="width of the two hidden layers")
    num_envs: int = Field(default=128, ge=1, description="users stepped at once")


@dataclass(frozen=True, slots=True)
class Proto:
    """From a proto-action to the items nearest to it.

    The action weighs the features of items and pairs; weighted, the user's blocks are a point in the space of the
    item blocks, and the items with the highest inner product with it are the slate.

    Attributes:
        features: tables of the features.
        scale: of the state.
    """

    features: Features
    scale: StateScale

    @property
    def size(self) -> int:
        """Dimensions of the proto-action."""
        return len(PAIR_NAMES) + self.features.item_features().shape[1]

    def scores(self, users: UserBlocks, action: F32) -> F32:
        """[n, I] nearness of the items to the proto-actions [n, size]."""
        blocks = self.features.pair_blocks(users)
        left = [block * action[:, j, None] for j, (block, _) in enumerate(blocks)]
        right = [block for _, block in blocks]
        left.append(action[:, len(blocks) :])
        right.append(self.features.item_features())
        return np.concatenate(left, axis=1) @ np.concatenate(right, axis=1).T


class PPO:
    """Proximal policy optimisation (Schulman et al., 2017) of SB3 with a continuous proto-action.

    The policy answers a state with a point near which items are looked up (Dulac-Arnold et al., 2015), so the size of
    the catalogue does not enter the policy. Judged, it shows the items nearest to the mean action.
    """

    def __init__(self, settings: PPOSettings) -> None:
        self.settings = settings
        self.proto: Proto | None = None
        self.mean: Layers | None = None

    def fit(self, training: Training) -> None:
        """Learn for `budget` user-steps (default 200,000)."""
        from agents.sb3_adapter import train_ppo

        features = fit_features(training)
        self.proto = Proto(features, StateScale.of(features, training))
        budget = 200_000 if training.budget is None else training.budget
        self.mean = train_ppo(training, self.settings, self.proto, budget=budget)

    def act(self, observation: Observation, rng: np.random.Generator) -> NDArray[np.int64]:
        """The K candidates nearest to the mean proto-action."""
        return top_slates(self._scores(observation), observation)

    def action_probabilities(self, observation: Observation) -> NDArray[np.float64]:
        """One for the candidate nearest to the mean proto-action."""
        return greedy_probabilities(self._scores(observation), observation)

    def _scores(self, observation: Observation) -> F32:
        assert self.proto is not None, "fit comes before act"
        assert self.mean is not None, "fit comes before act"
        users = self.proto.features.users(observation)
        return self.proto.scores(users, self.mean(self.proto.scale(users)))
