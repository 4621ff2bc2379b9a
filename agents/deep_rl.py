"""Value-based deep reinforcement learning by Stable-Baselines3: a Q-network that reads item features.

Training is in `agents.sb3_adapter`, and only modules of that prefix import SB3. A trained agent holds its networks as
plain arrays, so acting needs neither SB3 nor torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from agents.base import Observation, Training
from agents.features import Features, UserBlocks, fit_features, newest_rows
from agents.slates import greedy_probabilities, top_slates
from agents.train_world import Act

F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Layers:
    """A feed-forward network as arrays.

    Attributes:
        weights: of each layer, [out, in]; biases: of each layer, [out].
        activation: between the layers, "relu" or "tanh".
        squashed: tanh of the output.
    """

    weights: tuple[F32, ...]
    biases: tuple[F32, ...]
    activation: str
    squashed: bool = False

    def __call__(self, x: F32) -> F32:
        """Output [n, out] for input [n, in]."""
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = x @ weight.T + bias
            if number < len(self.weights) - 1:
                x = np.maximum(x, 0) if self.activation == "relu" else np.tanh(x)
        return np.tanh(x) if self.squashed else x


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
        from agents.folding import standardise  # numba is slow to import, and who lists agents asks for no state

        standard = np.empty_like(users.values)
        standardise(users.values, self.mean, 1 / self.spread, 5.0, standard)
        return standard


class QSettings(BaseModel):
    """Parameters that DQN and QR-DQN share, by SB3's names."""

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


class DQNSettings(QSettings):
    """Parameters of DQN."""

    double: bool = Field(
        default=False, description="the learned network names the next item, the target network values it"
    )
    duelling: bool = Field(default=False, description="value of the state and advantages of items, whose mean is 0")
    n_steps: int = Field(default=1, ge=1, description="slates whose clicks are summed before the target is asked")


class QRDQNSettings(QSettings):
    """Parameters of QR-DQN."""

    n_quantiles: int = Field(default=16, ge=2, description="quantiles of the return that are learned for each item")
    risk: float = Field(
        default=1.0, gt=0, le=1, description="share of the lowest quantiles that an item is judged by; 1: their mean"
    )


@dataclass(frozen=True, slots=True)
class ItemQ:
    """Q(s, i) of all items as one matrix product.

    The state network gives, for each state, a gate for each pair feature, a weight for each item feature, a vector
    that the item network's is multiplied with, and the value of the state.

    Attributes:
        features: tables of the features.
        scale: of the state.
        state_network: [s + m] (the state and further inputs: mostly the place's discount) to [4 + a + e + 1].
        item_network: [a + r] to [e].
        centred: what items add to the state's value has mean zero over the catalogue (a duelling network).
    """

    features: Features
    scale: StateScale
    state_network: Layers
    item_network: Layers
    centred: bool = False
    _items: F32 = field(init=False, repr=False, compare=False)  # [I, d], which no state changes

    def __post_init__(self) -> None:
        vectors = self.item_network(item_inputs(self.features))
        blocks = [*self.features.pair_item_blocks(), self.features.item_features(), vectors]
        items = np.concatenate(blocks, axis=1)
        object.__setattr__(self, "_items", items - items.mean(axis=0) if self.centred else items)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.features, self.scale, self.state_network, self.item_network, self.centred)

    def scores(self, observation: Observation, further: F32 | None = None) -> F32:
        """[n, I] Q of each item; where there are no further inputs [n, m], at the top of a slate (discount 0)."""
        product = self.product(self.features.users(observation), further)
        return product.left @ product.items.T + product.value

    def product(self, users: UserBlocks, further: F32 | None = None) -> ItemProduct:
        """What these scores are made of."""
        if further is None:
            further = np.zeros((len(users.values), 1), np.float32)
        out = self.state_network(np.concatenate([self.scale(users), further], axis=1))
        left = [block * out[:, j, None] for j, block in enumerate(users.pair_blocks())]
        return ItemProduct(np.concatenate([*left, out[:, len(left) : -1]], axis=1), self._items, out[:, -1:])


@dataclass(frozen=True, slots=True)
class ItemProduct:
    """Scores of n users for I items as left items^T + value.

    Attributes:
        left: [n, d]; items: [I, d]; value: [n, 1].
    """

    left: F32
    items: F32
    value: F32


def greedy_on(q: ItemQ) -> Act:
    """Slates of the items of highest Q."""
    return lambda observation, rng: top_slates(q.scores(observation), observation)


def item_inputs(features: Features) -> F32:
    """[I, a + r] what the item network reads: features of the item and its vector."""
    return np.concatenate([features.item_features(), features.vectors], axis=1, dtype=np.float32)


class QAgent:
    """Base of both: slates by the K highest Q of a network on features of state and item.

    Each place of a slate is a transition of its own: its item is the action, its click the reward (the decomposition
    of SlateQ, Ie et al., 2019, with every place taken as equally responsible for what comes next). So one slate of
    each of 64 users gives 64 x K transitions, and Q reads the catalogue, not item numbers.
    """

    def __init__(self, settings: QSettings) -> None:
        self.settings = settings
        self.q: ItemQ | None = None

    def fit(self, training: Training) -> None:
        """Learn for `budget` user-steps (default 24,000; with more it learns the train world rather than its users)."""
        from agents.sb3_adapter import train_q

        features = fit_features(training)
        self.q = train_q(
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


class DQN(QAgent):
    """Deep Q-network (Mnih et al., 2015) of SB3.

    Options: double DQN (van Hasselt, Guez and Silver, 2016), duelling (Wang et al., 2016: the state's value is an
    output of its own, and what items add to it has mean zero) and n-step returns.
    """

    def __init__(self, settings: DQNSettings) -> None:
        super().__init__(settings)


class QRDQN(QAgent):
    """QR-DQN (Dabney et al., 2018) of sb3-contrib: learns quantiles of the return, not its mean alone.

    With `risk` below 1 an item is judged by the mean of its lowest quantiles (conditional value at risk), so that what
    only some users like falls behind what few dislike; while it learns it follows the mean.
    """

    def __init__(self, settings: QRDQNSettings) -> None:
        super().__init__(settings)
