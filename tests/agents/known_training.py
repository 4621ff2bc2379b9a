"""Training in a named world of known truth."""

from __future__ import annotations

import numpy as np

from agents.base import Training
from simulator.known_worlds import KnownWorld
from simulator.log import Catalogue, InteractionLog
from tests.agents.taught_world import training_in


def training_of(known: KnownWorld, *, seed: int = 5, budget: int | None = None) -> Training:
    """What `fit` gets in a known world: the log that its users left, and the world itself to learn in."""
    world, rows = known.world, known.rows
    n_users, n_items = len(world.starts), world.n_items
    catalogue = Catalogue(
        item_ids=tuple(f"i{i}" for i in range(n_items)),
        item_text=tuple(f"item {i}" for i in range(n_items)),
        item_categories=world.item_categories,
        category_names=tuple(f"c{c}" for c in range(world.item_categories.shape[1])),
        user_ids=tuple(f"u{u}" for u in range(n_users)),
        user_features=np.zeros((n_users, 0), np.float32),
        user_feature_names=(),
    )
    order = np.lexsort((rows.time, rows.user))
    log = InteractionLog(
        rows.user[order],
        rows.item[order],
        rows.time[order],
        rows.click[order].astype(np.float32),
        catalogue,
        known.name,
    )
    return training_in(world, log, seed=seed, budget=budget)
