"""A world whose users differ in two directions of content alone: a few interactions tell much to who knows where."""

from __future__ import annotations

import numpy as np

from simulator.behaviour import SimulatorSettings
from simulator.log import HELD_OUT, WORLD_A, InteractionLog, Split, split_users
from simulator.world import World
from tests.simulator.small_world import TruePreference, bare_catalogue

USERS, ITEMS, WIDTH, DIRECTIONS, ROWS = 500, 300, 16, 2, 40
SEED = 21


def hidden_directions(seed: int = SEED) -> np.ndarray:
    """[WIDTH, DIRECTIONS] in which the users of the task world of this seed differ."""
    rng = np.random.default_rng(seed)
    rng.standard_normal((ITEMS, WIDTH))
    return np.linalg.qr(rng.standard_normal((WIDTH, WIDTH)))[0][:, :DIRECTIONS]


def task_world(
    *, taste: float = 3.0, seed: int = SEED, directions: np.ndarray | None = None, horizon: int = 4
) -> tuple[World, InteractionLog, Split]:
    """World, log and split: half of the users teach, half are held out.

    Each user has ROWS rows in random order. Logit of a like: taste along two hidden directions of the 16 of an item's
    content, in which users differ and everybody's mean is zero, plus a little quality. So a start that is fitted to
    everyone says nothing of anyone, and where to look is all that can be learned from others.

    Args:
        taste: standard deviation of a user's taste, in logits; 0 makes all users alike.
        seed: draws items and users, and the directions where none are given.
        directions: [WIDTH, DIRECTIONS] in which users differ.
        horizon: slates of a session.
    """
    rng = np.random.default_rng(seed)
    content = rng.standard_normal((ITEMS, WIDTH)).astype(np.float32)
    content /= np.linalg.norm(content, axis=1, keepdims=True)
    hidden = np.linalg.qr(rng.standard_normal((WIDTH, WIDTH)))[0][:, :DIRECTIONS]
    place = content @ (hidden if directions is None else directions)
    place /= place.std(axis=0)
    quality = (0.3 * rng.standard_normal(ITEMS)).astype(np.float32)
    user = np.repeat(np.arange(USERS), ROWS)
    item = np.concatenate([rng.choice(ITEMS, ROWS, replace=False) for _ in range(USERS)])
    tastes = taste * rng.standard_normal((USERS, DIRECTIONS)) / np.sqrt(DIRECTIONS)
    logit = np.einsum("ij,ij->i", tastes[user], place[item]) + quality[item]
    primary = (rng.random(len(user)) < 1 / (1 + np.exp(-logit))).astype(np.float32)
    catalogue = bare_catalogue(USERS, content)
    log = InteractionLog(user, item, np.arange(len(user), dtype=np.float64), primary, catalogue, "tasks")
    split = split_users(log, np.random.SeedSequence(3), world_a=0.5, judge=0.1)
    settings = SimulatorSettings.model_validate({"slate_size": 4, "horizon": horizon})
    preference = TruePreference(place.astype(np.float32), quality)
    world = World.build(preference, log, split, split.users(WORLD_A), settings, name="tasks")
    return world, log, split


def held_out(split: Split) -> np.ndarray:
    """[n] users whom nothing was learned from."""
    return split.users(HELD_OUT)


def taught(log: InteractionLog, split: Split) -> InteractionLog:
    """The rows of the users who teach."""
    kept = split.role[log.user] == WORLD_A
    return InteractionLog(log.user[kept], log.item[kept], log.time[kept], log.primary[kept], log.catalogue, log.source)
