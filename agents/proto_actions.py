"""Policies that answer a state with a continuous proto-action, near which items are looked up: PPO, A2C, SAC, TD3.

The size of the catalogue does not enter the policy (Dulac-Arnold et al., 2015). The whole slate is one action, so where
a critic is learned it judges the proto-action, and there is no second choice among the nearest items by it. Training is
in `agents.sb3_proto`; a trained agent holds its network as plain arrays, so acting needs neither SB3 nor torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from agents.base import Observation, Training
from agents.deep_rl import Layers, StateScale
from agents.features import ITEM_NAMES, PAIR_NAMES, Features, UserBlocks, fit_features
from agents.slates import certain

if TYPE_CHECKING:
    from simulator.top_items import ItemScorer

F32 = NDArray[np.float32]


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
    _scorer: ItemScorer = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        from simulator.top_items import ItemScorer  # numba is slow to import, and who lists agents ranks nothing

        f = self.features
        own = f.item_features()[:, : len(ITEM_NAMES)]
        object.__setattr__(self, "_scorer", ItemScorer(np.concatenate([f.vectors, f.categories, own], axis=1)))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.features, self.scale)

    @property
    def size(self) -> int:
        """Dimensions of the proto-action."""
        return len(PAIR_NAMES) + self.features.item_features().shape[1]

    def nearest(
        self, users: UserBlocks, action: F32, slate_size: int, blocked: NDArray[np.uint64] | None
    ) -> NDArray[np.int64]:
        """[n, K] items nearest to the proto-actions [n, size], nearest first; -1 where there are no more.

        `blocked` has the bits of the items that are left out, as `simulator.top_items.pack_mask` sets them; None: none.
        """
        from agents.folding import aim

        f = self.features
        point = np.empty((len(action), self._scorer.width), np.float32)
        # Several features read the same columns of the items, which are multiplied once: content is the first part of
        # the vectors, and categories are read twice.
        sizes = f.vectors.shape[1], f.categories.shape[1], f.content.shape[1]
        aim(users.values, np.ascontiguousarray(action, np.float32), f.pair_scale, sizes, point)
        return self._scorer.top_k(point, slate_size, blocked=blocked)

    def slates(self, users: UserBlocks, action: F32, observation: Observation) -> NDArray[np.int64]:
        """[n, K] candidates nearest to the proto-actions [n, size]."""
        from simulator.top_items import pack_mask

        blocked = None if observation.candidates is None else pack_mask(~observation.candidates)
        return self.nearest(users, action, observation.slate_size, blocked)


class ProtoSettings(BaseModel):
    """Parameters that all of them have, by SB3's names."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    gamma: float = Field(default=0.5, ge=0, lt=1, description="discount a slate")
    learning_rate: float = Field(default=1e-3, gt=0, description="Adam's step")
    hidden_size: int = Field(default=64, ge=1, description="width of the two hidden layers")
    num_envs: int = Field(default=128, ge=1, description="users stepped at once")
    content_size: int = Field(default=16, ge=1, description="directions kept of the items' content vectors")
    learned_size: int = Field(default=8, ge=1, description="dimensions of items learned from who liked what")
    category_size: int | None = Field(
        default=None, ge=1, description="directions kept of the items' categories; empty: every category for itself"
    )


class PPOSettings(ProtoSettings):
    """Parameters of PPO."""

    gae_lambda: float = Field(default=0.9, ge=0, le=1, description="weight of longer returns in the advantage")
    n_steps: int = Field(default=16, ge=1, description="slates of each user between updates")
    n_epochs: int = Field(default=4, ge=1, description="passes over the slates of an update")
    batch_size: int = Field(default=512, ge=2, description="slates in a gradient step")
    clip_range: float = Field(
        default=0.2, gt=0, description="how far an update may move an action's chance, as a share"
    )
    ent_coef: float = Field(default=0.0, ge=0, description="weight of the entropy of the proto-action")
    log_std_init: float = Field(default=-0.5, description="log of the proto-action's first standard deviation")


class A2CSettings(ProtoSettings):
    """Parameters of A2C.

    In fewer dimensions than the others' it learns as well, and describing users and looking for the nearest items take
    less than half the time: on splits 3, 5 and 7 of ml-100k 38.02, 39.20 and 35.98 clicks, against 37.95, 39.19 and
    35.92 with every category for itself, eight directions of the content and six learned dimensions; six trainings
    each, which lie within .6 of their mean.
    """

    gae_lambda: float = Field(default=0.9, ge=0, le=1, description="weight of longer returns in the advantage")
    n_steps: int = Field(default=5, ge=1, description="slates of each user between updates")
    ent_coef: float = Field(default=0.0, ge=0, description="weight of the entropy of the proto-action")
    log_std_init: float = Field(default=-0.5, description="log of the proto-action's first standard deviation")
    content_size: int = Field(default=6, ge=1, description="directions kept of the items' content vectors")
    learned_size: int = Field(default=4, ge=1, description="dimensions of items learned from who liked what")
    category_size: int | None = Field(
        default=4, ge=1, description="directions kept of the items' categories; empty: every category for itself"
    )


class OffPolicySettings(ProtoSettings):
    """Parameters that SAC and TD3 share: both learn from a buffer of past slates."""

    batch_size: int = Field(default=256, ge=1, description="slates in a gradient step")
    buffer_size: int = Field(default=100_000, ge=1_000, description="slates kept")
    gradient_steps: int = Field(default=4, ge=1, description="gradient steps for each step of all environments")
    tau: float = Field(default=0.02, gt=0, le=1, description="share by which the target critics follow at each step")
    num_envs: int = Field(default=64, ge=1, description="users stepped at once")


class SACSettings(OffPolicySettings):
    """Parameters of SAC."""

    ent_coef: float | None = Field(
        default=0.005, ge=0, description="weight of the entropy of the proto-action; empty: tuned as it learns"
    )


class TD3Settings(OffPolicySettings):
    """Parameters of TD3."""

    action_noise: float = Field(
        default=0.5, ge=0, description="standard deviation of exploration, in half-widths of the action's range"
    )
    policy_delay: int = Field(default=2, ge=1, description="updates of the critics for each of the policy")
    target_policy_noise: float = Field(
        default=0.2, ge=0, description="standard deviation of the noise on the targets' actions, in half-widths"
    )


def fit_proto(training: Training, settings: ProtoSettings) -> Proto:
    """Tables and scale from the train rows."""
    features = fit_features(
        training,
        content_size=settings.content_size,
        learned_size=settings.learned_size,
        category_size=settings.category_size,
    )
    return Proto(features, StateScale.of(features, training))


class ProtoAgent:
    """Base of the four: shows the items nearest to the mean proto-action once it is trained."""

    default_steps: ClassVar[int]

    def __init__(self, settings: ProtoSettings) -> None:
        self.settings = settings
        self.proto: Proto | None = None
        self.mean: Layers | None = None

    def fit(self, training: Training) -> None:
        """Learn for `budget` user-steps; without one, for `default_steps`."""
        from agents.sb3_proto import train_proto

        self.proto = fit_proto(training, self.settings)
        budget = self.default_steps if training.budget is None else training.budget
        self.mean = train_proto(training, self.settings, self.proto, budget=budget)

    def act(self, observation: Observation, rng: np.random.Generator) -> NDArray[np.int64]:
        """The K candidates nearest to the mean proto-action."""
        assert self.proto is not None, "fit comes before act"
        assert self.mean is not None, "fit comes before act"
        users = self.proto.features.users(observation)
        return self.proto.slates(users, self.mean(self.proto.scale(users)), observation)

    def action_probabilities(self, observation: Observation) -> NDArray[np.float64]:
        """One for the candidate nearest to the mean proto-action."""
        assert self.proto is not None, "fit comes before act"
        return certain(self.act(observation, np.random.default_rng(0))[:, 0], self.proto.features.n_items)


class PPO(ProtoAgent):
    """Proximal policy optimisation (Schulman et al., 2017) of SB3 with a continuous proto-action."""

    default_steps = 200_000


class A2C(ProtoAgent):
    """Synchronous advantage actor-critic (Mnih et al., 2016) of SB3 with a continuous proto-action."""

    default_steps = 200_000


class SAC(ProtoAgent):
    """Soft actor-critic (Haarnoja et al., 2018) of SB3 with a continuous proto-action.

    It learns from each slate many times, so it needs fewer user-steps than PPO and more arithmetic for each.
    """

    default_steps = 24_000


class TD3(ProtoAgent):
    """Twin delayed deep deterministic policy gradient (Fujimoto et al., 2018) of SB3 with a continuous proto-action."""

    default_steps = 24_000
