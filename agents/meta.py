"""Meta-learned agents: a user is a task, and what is learned is a start from which a few interactions go far.

All share one network (after MeLU, Lee, Im, Jang, Cho and Chung, 2019): an item tower that is the same for everyone,
and decision layers that are adapted to each user by a few gradient steps on the user's history. They differ in what
is adapted and how the start is learned. Training is in `agents.meta_trainer`, which needs torch; a trained agent holds
plain arrays. The decision layers are linear, though more than one deep, so that after adaptation a user is one vector
and all items are scored for all users by one matrix product.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from agents.base import Observation, Training
from agents.baselines import Ranking
from agents.features import attention
from simulator.datasets.sources import named_file

F32 = NDArray[np.float32]

MOST_USERS = 2_048
"""Users adapted to at a time: their items' vectors are [n, H, e]."""

LOCAL = ("layer", "head", "level", "of_features")
"""The decision layers: [e, m] from an item's vector, [m] head, [1] level, [f, m] what user features add to the head."""


class MetaSettings(BaseModel):
    """Parameters of the meta-learned agents, and of the two that they are held against."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    embedding_size: int = Field(default=24, ge=1, description="width of an item's vector")
    hidden_size: int = Field(default=48, ge=1, description="width of the hidden layer of the item tower")
    layer_size: int = Field(default=12, ge=1, description="width between the two decision layers")
    inner_steps: int = Field(default=3, ge=1, le=100, description="gradient steps in which a user is adapted to")
    inner_rate: float = Field(default=0.3, gt=0, description="step of those; where rates are learned, their start")
    prior_rows: float = Field(
        default=10.0, ge=0, description="rows by which a user's loss is divided beyond his own: few move him less"
    )
    learning_rate: float = Field(default=3e-3, gt=0, description="AdamW's step of the meta-learning")
    weight_decay: float = Field(
        default=3.0, ge=0, description="AdamW's shrinking of the weights, against learning the train users by heart"
    )
    meta_batch_size: int = Field(default=32, ge=1, description="users in a step of the meta-learning")
    learned_in: tuple[str, ...] = Field(
        default=(),
        description="scenario files, counted from this one: tasks are the sessions of users of their train worlds, and "
        "of this scenario only texts and a user's own history are known; empty: tasks are this scenario's train users",
    )

    def files(self, folder: Path) -> tuple[Path, ...]:
        """The files that are read beside the scenario."""
        return tuple(named_file(folder, name) for name in self.learned_in)


@dataclass(frozen=True, slots=True)
class Support:
    """The histories that n users are adapted to.

    Attributes:
        items: [n, H] int64; places without weight hold any item.
        liked: [n, H] float32 feedback.
        weight: [n, H] float32 how far each counts; 0 for an empty place.
        user_features: [n, f] float32.
    """

    items: NDArray[np.int64]
    liked: F32
    weight: F32
    user_features: F32

    @classmethod
    def of(cls, observation: Observation, rows: slice) -> Support:
        """What was observed of these users."""
        items, feedback = observation.history_items[rows], observation.history_feedback[rows].astype(np.float32)
        there = items >= 0
        return cls(
            items=np.where(there, items, 0),
            liked=np.where(there, feedback, 0).astype(np.float32),
            weight=np.where(feedback > 0, 1, attention(observation)[rows]).astype(np.float32) * there,
            user_features=observation.user_features[rows].astype(np.float32),
        )


@dataclass(frozen=True, slots=True)
class Learned:
    """What a meta-learner knows after training.

    Attributes:
        vectors: [I, e] of the items, by the tower.
        bias: [I] logit of each item for anyone.
        start: decision layers before adaptation, by the names in LOCAL.
        rate: step of each of their parameters, of its shape or (); 0 where it is not adapted.
        prototypes: [2, e] prototypes of what is not liked and liked before any interaction; None for gradient methods.
        steps: gradient steps.
        prior_rows: rows that a user's loss, or a prototype, counts beyond the user's own.
    """

    vectors: F32
    bias: F32
    start: dict[str, F32]
    rate: dict[str, F32]
    prototypes: F32 | None
    steps: int
    prior_rows: float

    def adapt(self, support: Support) -> tuple[F32, F32]:
        """Vectors [n, e] and levels [n] of users: the logit of item i is `vectors @ items[i] + level + bias[i]`."""
        if self.prototypes is not None:
            return self._prototypes(support)
        n = len(support.items)
        phi, bias = self.vectors[support.items], self.bias[support.items]
        layer, head, level, of_features = (np.repeat(self.start[name][None], n, axis=0) for name in LOCAL)
        features = support.user_features[:, : len(self.start["of_features"])]  # none where learned in other domains
        share = support.weight / (self.prior_rows + support.weight.sum(axis=1, keepdims=True)).clip(1e-9)
        for _ in range(self.steps):
            inner = head + _times(features, of_features)  # [n, m]
            vector = (layer @ inner[..., None])[..., 0]
            logit = (phi @ vector[..., None])[..., 0] + level + bias
            error = share * (_chance(logit) - support.liked)  # [n, H]
            to_vector = _times(error, phi)  # [n, e]
            to_head = _times(to_vector, layer)  # [n, m]
            layer = layer - self.rate["layer"] * to_vector[:, :, None] * inner[:, None, :]
            head = head - self.rate["head"] * to_head
            level = level - self.rate["level"] * error.sum(axis=1, keepdims=True)
            of_features = of_features - self.rate["of_features"] * features[:, :, None] * to_head[:, None, :]
        inner = head + _times(features, of_features)
        return (layer @ inner[..., None])[..., 0].astype(np.float32), level[:, 0].astype(np.float32)

    def _prototypes(self, support: Support) -> tuple[F32, F32]:
        """The nearer prototype wins: squared distances differ by a product with an item's vector and a level."""
        assert self.prototypes is not None
        phi = self.vectors[support.items]
        means = []
        for liked, prior in enumerate(self.prototypes):
            weight = support.weight * ((support.liked > 0) == bool(liked))
            total = _times(weight, phi) + self.prior_rows * prior
            means.append(total / (weight.sum(axis=1, keepdims=True) + self.prior_rows))
        no, yes = means
        level = (no**2).sum(axis=1) - (yes**2).sum(axis=1) + self.start["level"]
        return (2 * (yes - no)).astype(np.float32), level.astype(np.float32)


def _times(row: F32, matrix: F32) -> F32:
    """[n, b] products of the rows [n, a] with a matrix [n, a, b] each."""
    return np.asarray((row[:, None, :] @ matrix)[:, 0, :], np.float32)


def _chance(logit: F32) -> F32:
    return np.asarray(1 / (1 + np.exp(-np.clip(logit, -30, 30))), np.float32)


class MetaLearner(Ranking):
    """What they share: the network, the tasks, and acting.

    Class attributes:
        adapts: decision layers that a user's gradient steps change.
        second_order: the meta-gradient goes through the gradient steps.
        learns_rates: the step of every parameter is learned.
        moves: the start moves to where users' steps end (Reptile), instead of by the loss of what comes after them.
        by_prototypes: a user is his prototypes, without gradient steps.
        pools: the start is fitted to everyone's rows without adaptation.
        chooses_steps: number and size of the gradient steps and the weight decay are those that, after a first fit, put
            in best order what a fifth of the train users, left out of it, met after what was adapted to.
        trains: the network is trained at all.
    """

    adapts: ClassVar[tuple[str, ...]] = LOCAL
    second_order: ClassVar[bool] = True
    learns_rates: ClassVar[bool] = False
    moves: ClassVar[bool] = False
    by_prototypes: ClassVar[bool] = False
    pools: ClassVar[bool] = False
    chooses_steps: ClassVar[bool] = False
    trains: ClassVar[bool] = True

    def __init__(self, settings: MetaSettings) -> None:
        self.settings = settings
        self.learned: Learned | None = None

    def fit(self, training: Training) -> None:
        """Learn from `budget` tasks of train users, steps of the learning curve (default 9,600).

        With more of them it learns the train users by heart.
        """
        from agents.meta_trainer import train_meta

        self.learned = train_meta(training, self.settings, type(self))

    def scores(self, observation: Observation) -> F32:
        """[n, I] logit of a like, once adapted to each user's history."""
        return score(self.learned, observation)


def score(learned: Learned | None, observation: Observation) -> F32:
    """[n, I] logit of a like of every item by users adapted to."""
    assert learned is not None, "fit comes before act"
    out = np.empty((len(observation), len(learned.bias)), np.float32)
    for low in range(0, len(observation), MOST_USERS):
        rows = slice(low, low + MOST_USERS)
        vector, level = learned.adapt(Support.of(observation, rows))
        np.matmul(vector, learned.vectors.T, out=out[rows])
        out[rows] += learned.bias
        out[rows] += level[:, None]
    return out


class MAML(MetaLearner):
    """Model-agnostic meta-learning with second-order gradients (Finn, Abbeel and Levine, 2017)."""


class ANIL(MetaLearner):
    """Almost no inner loop (Raghu, Raghu, Bengio and Vinyals, 2020): only the last layer and the level are adapted."""

    adapts = ("head", "level")


class MetaSGD(MetaLearner):
    """Meta-SGD (Li, Zhou, Chen and Li, 2017): MAML that learns the step of every parameter along with its start."""

    learns_rates = True


class Reptile(MetaLearner):
    """Reptile (Nichol, Achiam and Schulman, 2018): the start moves to where the users' gradient steps end.

    The item tower, which is not adapted, learns by the first-order gradient of the loss after the steps.
    """

    second_order = False
    moves = True
    chooses_steps = True


class Prototypical(MetaLearner):
    """Prototypical network (Snell, Swersky and Zemel, 2017) of two classes: the mean vectors of liked and not liked.

    A prototype counts `prior_rows` of a learned one, so that it exists before any interaction.
    """

    by_prototypes = True


class FineTuned(MetaLearner):
    """The same network fitted to everyone's rows, then fine-tuned to each user: what meta-learning is held against."""

    pools = True
    chooses_steps = True


class FromScratch(MetaLearner):
    """The same network with random weights, trained on each user's history alone; held against it too."""

    chooses_steps = True
    trains = False
