"""A discrete policy over a shortlist that is retrieved for each state, with masks where it is short: maskable PPO."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from agents.base import Observation, Training
from agents.deep_rl import Layers, StateScale
from agents.features import Features, UserBlocks, fit_features
from agents.slates import top_slates

F32 = NDArray[np.float32]


class MaskablePPOSettings(BaseModel):
    """Parameters of maskable PPO, by sb3-contrib's names where it has them."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    shortlist_size: int = Field(
        default=100, ge=1, description="items retrieved for each state; a multiple of the slate size, else cut to one"
    )
    gamma: float = Field(default=0.5, ge=0, lt=1, description="discount a slate")
    gae_lambda: float = Field(default=0.9, ge=0, le=1, description="weight of longer returns in the advantage")
    learning_rate: float = Field(default=1e-3, gt=0, description="Adam's step")
    n_steps: int = Field(default=16, ge=1, description="slates of each user between updates")
    n_epochs: int = Field(default=4, ge=1, description="passes over the places of an update")
    batch_size: int = Field(default=2048, ge=2, description="places in a gradient step")
    clip_range: float = Field(
        default=0.2, gt=0, description="how far an update may move an action's chance, as a share"
    )
    ent_coef: float = Field(default=0.01, ge=0, description="weight of the entropy of the choice")
    embedding_size: int = Field(default=16, ge=1, description="width of the product of state and item network")
    hidden_size: int = Field(default=64, ge=1, description="width of the hidden layers")
    num_envs: int = Field(default=64, ge=1, description="users stepped at once")


@dataclass(frozen=True, slots=True)
class Shortlist:
    """The M candidates of highest predicted like, and what the policy reads of them.

    The prediction is the item's like rate and the user's taste, both fitted on the train rows and the history; it is
    not learned further. Item r of a shortlist, by that order, is an option of place r modulo K of the slate, so the
    places choose among different items of much the same prediction.

    Attributes:
        features: tables of the features.
        size: M, a multiple of K.
    """

    features: Features
    size: int

    @classmethod
    def of(cls, features: Features, training: Training, size: int) -> Shortlist:
        """With the nearest multiple of the slate size that is no more than `size`, but at least one item a place."""
        return cls(features, training.slate_size * max(1, size // training.slate_size))

    @property
    def width(self) -> int:
        """Features of each item: those of the pair and those of the item."""
        return len(self.features.pair_item_blocks()) + self.features.item_features().shape[1]

    def items(self, users: UserBlocks, observation: Observation) -> NDArray[np.int64]:
        """[n, M] items, best first; -1 where there are fewer candidates."""
        liked = users.taste @ self.features.vectors.T + self.features.like_rate
        return top_slates(liked, replace(observation, slate_size=self.size))

    def inputs(self, users: UserBlocks, items: NDArray[np.int64]) -> F32:
        """[n, M, f] features of the shortlisted items; 0 where there is none."""
        safe = np.maximum(items, 0)
        pairs = [
            np.einsum("nk,nmk->nm", user, item[safe], optimize=True) for user, item in self.features.pair_blocks(users)
        ]
        read = np.concatenate([np.stack(pairs, axis=2), self.features.item_features()[safe]], axis=2, dtype=np.float32)
        return np.where(items[:, :, None] >= 0, read, 0)


@dataclass(frozen=True, slots=True)
class ShortlistPolicy:
    """Logits of shortlisted items: their features weighted by the state's network, plus a product of two networks.

    Attributes:
        scale: of the state.
        state_network: [s + 1] (the state and the place's discount) to [f + e].
        item_network: [f] to [e].
    """

    scale: StateScale
    state_network: Layers
    item_network: Layers

    def logits(self, users: UserBlocks, inputs: F32) -> F32:
        """[n, M] at the top of a slate, for features [n, M, f]."""
        n, size, width = inputs.shape
        state = np.concatenate([self.scale(users), np.zeros((n, 1), np.float32)], axis=1)
        read = np.concatenate([inputs, self.item_network(inputs.reshape(-1, width)).reshape(n, size, -1)], axis=2)
        return np.asarray(np.einsum("nmd,nd->nm", read, self.state_network(state), optimize=True), np.float32)


class MaskablePPO:
    """PPO with a discrete action and masks (Huang and Ontañón, 2022) of sb3-contrib over a retrieved shortlist.

    As in systems of two stages, retrieval is fixed and the order of what was retrieved is learned. Each place of a
    slate is a choice of its own among its share of the shortlist, rewarded by its click; options that do not exist are
    masked. Judged, it shows the K of highest logit of the whole shortlist. Items that are not retrieved are never
    shown, however many there are.
    """

    def __init__(self, settings: MaskablePPOSettings) -> None:
        self.settings = settings
        self.shortlist: Shortlist | None = None
        self.policy: ShortlistPolicy | None = None

    def fit(self, training: Training) -> None:
        """Learn for `budget` user-steps (default 60,000)."""
        from agents.sb3_shortlist import train_maskable_ppo

        features = fit_features(training)
        self.shortlist = Shortlist.of(features, training, self.settings.shortlist_size)
        budget = 60_000 if training.budget is None else training.budget
        scale = StateScale.of(features, training)
        self.policy = train_maskable_ppo(training, self.settings, self.shortlist, scale, budget=budget)

    def act(self, observation: Observation, rng: np.random.Generator) -> NDArray[np.int64]:
        """The K shortlisted candidates of highest logit."""
        assert self.shortlist is not None, "fit comes before act"
        assert self.policy is not None, "fit comes before act"
        return shortlist_slates(self.shortlist, self.policy, observation)

    def action_probabilities(self, observation: Observation) -> NDArray[np.float64]:
        """One for the shortlisted candidate of highest logit."""
        assert self.shortlist is not None, "fit comes before act"
        first = self.act(observation, np.random.default_rng(0))[:, 0]
        chance = np.zeros((len(observation), self.shortlist.features.n_items))
        there = np.flatnonzero(first >= 0)
        chance[there, first[there]] = 1.0
        return chance


def shortlist_slates(shortlist: Shortlist, policy: ShortlistPolicy, observation: Observation) -> NDArray[np.int64]:
    """[n, K] the shortlisted items of highest logit, equal ones by prediction; -1 where there are no more."""
    users = shortlist.features.users(observation)
    items = shortlist.items(users, observation)
    logits = np.where(items >= 0, policy.logits(users, shortlist.inputs(users, items)), -np.inf)
    best = np.argsort(-logits, axis=1, kind="stable")[:, : observation.slate_size]
    return np.take_along_axis(items, best, axis=1)
