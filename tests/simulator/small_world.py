"""Small true worlds for tests: a preference model that is what it says, and a log that was drawn from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.behaviour import SimulatorSettings
from simulator.log import Catalogue, Histories, InteractionLog, Split, split_users
from simulator.world import World


@dataclass(frozen=True)
class TrueStates:
    vector: NDArray[np.float32]
    bias: NDArray[np.float32]


@dataclass(frozen=True)
class TruePreference:
    """Known item vectors; a user's state is the mean vector of what they liked."""

    item_vectors: NDArray[np.float32]
    item_bias: NDArray[np.float32]

    def user_states(self, histories: Histories, user_features: NDArray[np.float32]) -> TrueStates:
        n, d = len(histories), self.item_vectors.shape[1]
        vector = np.zeros((n, d), np.float32)
        bias = np.zeros(n, np.float32)
        for u in range(n):
            part = slice(histories.start[u], histories.start[u + 1])
            liked = histories.item[part][histories.primary[part] > 0]
            if len(liked):
                vector[u] = self.item_vectors[liked].mean(axis=0) * 4
            bias[u] = 0.3 * np.sin(u)
        return TrueStates(vector, bias)


def bare_catalogue(users: int, content: NDArray[np.float32], **more: Any) -> Catalogue:
    """Items of this content [I, d] and users of whom nothing is known; `more` are further fields."""
    items = len(content)
    return Catalogue(
        item_ids=tuple(f"i{i}" for i in range(items)),
        item_text=tuple(f"item {i}" for i in range(items)),
        item_categories=np.zeros((items, 0), np.float32),
        category_names=(),
        user_ids=tuple(f"u{u}" for u in range(users)),
        user_features=np.zeros((users, 0), np.float32),
        user_feature_names=(),
        content=content,
        **more,
    )


def small_log(rng: np.random.Generator, *, users: int = 40, items: int = 130, categories: int = 5) -> InteractionLog:
    """Every user rated 5 to 25 items; features are two columns, categories may be none."""
    lengths = rng.integers(5, 26, users)
    user = np.repeat(np.arange(users), lengths)
    item = np.concatenate([rng.choice(items, n, replace=False) for n in lengths])
    primary = (rng.random(len(user)) < 0.5).astype(np.float32)
    belongs = (rng.random((items, categories)) < 0.3).astype(np.float32)
    content = rng.standard_normal((items, 48)).astype(np.float32)
    catalogue = Catalogue(
        item_ids=tuple(f"i{i}" for i in range(items)),
        item_text=tuple(f"item {i}" for i in range(items)),
        item_categories=belongs,
        category_names=tuple(f"c{c}" for c in range(categories)),
        user_ids=tuple(f"u{u}" for u in range(users)),
        user_features=rng.standard_normal((users, 2)).astype(np.float32),
        user_feature_names=("age", "gender=F"),
        content=content / np.linalg.norm(content, axis=1, keepdims=True),
    )
    return InteractionLog(user, item, np.arange(len(user), dtype=np.float64), primary, catalogue, "small")


def small_parts(
    seed: int = 0, *, users: int = 40, items: int = 130, width: int = 12, categories: int = 5, item_bias: float = 0.0
) -> tuple[InteractionLog, Split, TruePreference]:
    """What `small_world` is made of: a `small_log`, its split, and a preference model."""
    rng = np.random.default_rng(seed)
    log = small_log(rng, users=users, items=items, categories=categories)
    split: Split = split_users(log, np.random.SeedSequence(seed))
    vectors = rng.standard_normal((items, width)).astype(np.float32) / np.float32(np.sqrt(width))
    biases = (item_bias + 0.5 * rng.standard_normal(items)).astype(np.float32)
    return log, split, TruePreference(vectors, biases)


def small_world(
    seed: int = 0,
    *,
    users: int = 40,
    items: int = 130,
    width: int = 12,
    categories: int = 5,
    item_bias: float = 0.0,
    **settings: object,
) -> World:
    """World whose sessions start from all users of a `small_log`."""
    log, split, preference = small_parts(
        seed, users=users, items=items, width=width, categories=categories, item_bias=item_bias
    )
    behaviour = SimulatorSettings.model_validate(settings)
    return World.build(preference, log, split, np.arange(users), behaviour, name="small")
