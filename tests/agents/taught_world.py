"""A small world in which there is something to learn, and the log that it was learned from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from agents.base import Observation, Training
from evaluators.rollout import observation_of
from scenarios.stages.training import MakeTrainEnv
from simulator.behaviour import SimulatorSettings
from simulator.log import Catalogue, InteractionLog, split_users
from simulator.users import SimulatedUsers
from simulator.world import World
from tests.simulator.small_world import TruePreference

USERS, ITEMS, WIDTH = 60, 120, 6


def _log(rng: np.random.Generator, vectors: np.ndarray, bias: np.ndarray, *, pull: float) -> InteractionLog:
    """Users of a hidden taste rated 20 to 40 items each, and like by it and by the item's quality.

    With a `pull` half of them were led to items of high quality and the others, by half as much again, to those of low.
    """
    lengths = rng.integers(20, 41, USERS)
    user = np.repeat(np.arange(USERS), lengths)
    item = np.concatenate([rng.choice(ITEMS, n, replace=False) for n in lengths])
    if pull:
        led = np.where(np.arange(USERS) % 2 == 0, pull, -1.5 * pull)[:, None] * bias
        order = np.argsort(-(led + rng.gumbel(size=led.shape)), axis=1)
        item = np.concatenate([row[:n] for row, n in zip(order, lengths, strict=True)])
    taste = 1.5 * rng.standard_normal((USERS, WIDTH))
    logit = np.einsum("ij,ij->i", taste[user], vectors[item]) + bias[item]
    content = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    catalogue = Catalogue(
        item_ids=tuple(f"i{i}" for i in range(ITEMS)),
        item_text=tuple(f"item {i}" for i in range(ITEMS)),
        item_categories=(vectors[:, :4] > 0.3).astype(np.float32),
        category_names=("a", "b", "c", "d"),
        user_ids=tuple(f"u{u}" for u in range(USERS)),
        user_features=rng.standard_normal((USERS, 2)).astype(np.float32),
        user_feature_names=("age", "gender=F"),
        content=content.astype(np.float32),
    )
    primary = (rng.random(len(user)) < 1 / (1 + np.exp(-logit))).astype(np.float32)
    return InteractionLog(user, item, np.arange(len(user), dtype=np.float64), primary, catalogue, "taught")


def taught_world(*, slate_size: int = 4, horizon: int = 6, pull: float = 0.0) -> tuple[World, InteractionLog]:
    """World whose items differ in quality by far, and whose users in taste; all rows of its users.

    With a `pull` above 0 the rows come from a mix of a good and a bad logging policy.
    """
    rng = np.random.default_rng(12)
    vectors = (rng.standard_normal((ITEMS, WIDTH)) / np.sqrt(WIDTH)).astype(np.float32)
    bias = (1.5 * rng.standard_normal(ITEMS) - 1.0).astype(np.float32)
    log = _log(rng, vectors, bias, pull=pull)
    settings = SimulatorSettings.model_validate({"slate_size": slate_size, "horizon": horizon})
    split = split_users(log, np.random.SeedSequence(3))
    world = World.build(TruePreference(vectors, bias), log, split, np.arange(USERS), settings, name="taught")
    return world, log


def training_in(world: World, log: InteractionLog, *, seed: int = 5, budget: int | None = None) -> Training:
    """What `fit` gets in this world."""
    return Training(
        log=log,
        catalogue=replace(log.catalogue, user_attributes={}),
        make_env=MakeTrainEnv(world, world.item_vectors),
        slate_size=world.slate_size,
        horizon=world.horizon,
        rng=np.random.default_rng(seed),
        seed=seed,
        budget=budget,
        report=_nobody,
        shown_again=world.shown_again,
    )


def _nobody(steps: int, value: float) -> None:
    """A curve that nobody watches."""


def observed(world: World, n: int = 24, *, privileged: bool = False) -> Observation:
    """The first users of the world before their first slate."""
    users = SimulatedUsers(world, n, seed=4)
    users.start(np.arange(n))
    return observation_of(users.observe(), np.arange(n), world.slate_size, privileged=privileged)
