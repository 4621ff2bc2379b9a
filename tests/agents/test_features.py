"""Features of users and items: right by another way of computing them, and blind to everything hidden."""

from __future__ import annotations

import pickle
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.base import Observation, Training
from agents.contract import rows_of
from agents.features import (
    PAIR_NAMES,
    USER_NAMES,
    Features,
    attention,
    content_directions,
    fit_features,
    fold_in,
    main_directions,
    newest_rows,
)
from agents.folding import design_of
from agents.loading import AgentSettings, train
from scenarios.stages.training import MakeTrainEnv
from simulator.env import WindtunnelVectorEnv
from simulator.log import InteractionLog
from simulator.world import World
from tests.agents.taught_world import observed, taught_world, training_in


@pytest.fixture(scope="module")
def world_and_log() -> tuple[World, InteractionLog]:
    return taught_world()


@pytest.fixture(scope="module")
def features(world_and_log: tuple[World, InteractionLog]) -> Features:
    return fit_features(training_in(*world_and_log), content_size=4, learned_size=3)


def test_the_fold_in_is_the_ridge_regression_of_each_users_rows() -> None:
    rng = np.random.default_rng(0)
    table = rng.standard_normal((20, 3)).astype(np.float32)
    items = rng.integers(0, 20, (5, 9))
    vectors = table[items]
    items[2, :2] = -1
    trust = rng.random((5, 9)).astype(np.float32)
    trust[2, :4] = 0.0  # empty places
    surprise = rng.standard_normal((5, 9)).astype(np.float32)
    precision = np.array([2.0, 5.0, 0.5, 1.0], np.float32)
    level, taste = fold_in(items, trust, surprise, design_of(table), precision)
    for user in range(5):
        design = np.concatenate([np.ones((9, 1)), vectors[user]], axis=1) * np.sqrt(trust[user])[:, None]
        augmented = np.concatenate([design, np.diag(np.sqrt(precision))])
        target = np.concatenate([surprise[user] * np.sqrt(trust[user]), np.zeros(4)])
        solved = np.linalg.lstsq(augmented, target, rcond=None)[0]
        assert np.allclose([level[user], *taste[user]], solved, atol=1e-5)


@pytest.mark.parametrize(
    ("learned_size", "category_size", "vectors"), [(3, 3, 1), (10, 3, 2), (10, None, 2), (20, 3, 2)]
)
def test_users_are_what_plain_numpy_makes_of_their_histories(
    world_and_log: tuple[World, InteractionLog], learned_size: int, category_size: int | None, vectors: int
) -> None:
    """Histories with gaps, of logged rows and slates; 37 users, so that the last group of sixteen is not full.

    Items in few dimensions are folded in by one pass, those in many by several; fifteen columns are the most of few.
    """
    sizes = {"content_size": 4, "learned_size": learned_size, "category_size": category_size}
    features = fit_features(training_in(*world_and_log), **sizes)
    assert len(features.precision) == 1 + 4 + learned_size
    assert features._design.shape[1] == 16 * vectors
    rng = np.random.default_rng(3)
    n, length, slate_size = 37, 23, 4
    items = rng.integers(-1, features.n_items, (n, length))
    items[5] = -1
    observation = replace(
        rows_of(observed(world_and_log[0], n), np.arange(n)),
        history_items=items,
        history_feedback=(rng.random((n, length)) < 0.4).astype(np.float32),
        step=rng.integers(0, 8, n),
        slate_size=slate_size,
    )
    users = features.users(observation)
    there = items >= 0
    liked = observation.history_feedback * there
    trust = np.where(liked > 0, 1, attention(observation)) * there
    surprise = (observation.history_feedback - features.mean - features.like_rate[items]).astype(np.float32)
    level, taste = fold_in(items, trust.astype(np.float32), surprise, design_of(features.vectors), features.precision)
    sign = liked / np.maximum(liked.sum(axis=1, keepdims=True), 1e-9)
    sign = sign - (trust - liked) / np.maximum((trust - liked).sum(axis=1, keepdims=True), 1e-9)
    newest = items[:, -features.window :]
    recent = (newest >= 0) / np.maximum((newest >= 0).sum(axis=1, keepdims=True), 1)
    expected = {
        "level": level,
        "taste": taste,
        "content": np.einsum("nh,nhd->nd", sign, features.content[items]),
        "categories": np.einsum("nh,nhd->nd", sign, features.categories[items]),
        "recent": np.einsum("nh,nhd->nd", recent, features.categories[newest]),
    }
    for name, value in expected.items():
        assert np.allclose(getattr(users, name), value, atol=1e-5), name
    of_user = users.user_features()
    assert np.allclose(of_user[:, 1], liked.sum(axis=1) / np.maximum(trust.sum(axis=1), 1), atol=1e-6)
    assert np.allclose(of_user[:, 2], np.log1p(there.sum(axis=1)) / 4, atol=1e-6)
    assert np.allclose(of_user[:, 3], observation.step / features.horizon, atol=1e-6)


def test_a_user_without_history_is_the_average_user(
    features: Features, world_and_log: tuple[World, InteractionLog]
) -> None:
    observation = observed(world_and_log[0], 3)
    blank = replace(observation, history_items=np.full_like(observation.history_items, -1))
    users = features.users(blank)
    assert not users.state()[:, [0, 1, 2, *range(len(USER_NAMES), users.state().shape[1])]].any()


def test_pair_features_are_products_of_blocks_and_stand_where_the_slices_say(
    features: Features, world_and_log: tuple[World, InteractionLog]
) -> None:
    users = features.users(observed(world_and_log[0]))
    state = users.state()
    blocks = features.pair_blocks(users)
    assert len(blocks) == len(PAIR_NAMES)
    for (user, _), part in zip(blocks, features.pair_slices(), strict=True):
        assert np.array_equal(user, state[:, part])


def test_pair_features_have_unit_spread_over_the_train_users(
    features: Features, world_and_log: tuple[World, InteractionLog]
) -> None:
    rows = newest_rows(world_and_log[1], length=50, slate_size=4)
    for user, item in features.pair_blocks(features.users(rows)):
        assert (user @ item.T).std() == pytest.approx(1.0, abs=0.02)


def test_taste_tells_which_items_a_user_likes_beyond_their_quality(
    features: Features, world_and_log: tuple[World, InteractionLog]
) -> None:
    """Among pairs of unrated items, the world prefers the one of higher predicted taste far more often than not."""
    world, _ = world_and_log
    users = features.users(observed(world, 60))
    predicted = users.taste @ features.vectors.T
    truth = world.starts.vector @ world.item_vectors.T
    agreement = [np.corrcoef(predicted[u], truth[u])[0, 1] for u in range(60)]
    assert np.mean(agreement) > 0.3


def test_feedback_far_down_a_slate_weighs_less_and_logged_rows_weigh_in_full(
    features: Features, world_and_log: tuple[World, InteractionLog]
) -> None:
    """One user, one not liked item in the newest place: as a logged row, and as place K of a slate."""
    one = rows_of(observed(world_and_log[0], 2), np.array([0]))
    one.history_items[:] = -1
    one.history_items[0, -1] = 7
    one.history_feedback[:] = 0.0
    logged = features.users(one).level[0]
    shown = features.users(replace(one, step=np.array([1]))).level[0]
    surprise = -features.mean - features.like_rate[7]
    assert surprise < 0
    assert logged < shown < 0


def test_content_directions_do_not_depend_on_where_or_how_far_the_vectors_lie(
    world_and_log: tuple[World, InteractionLog],
) -> None:
    catalogue = world_and_log[1].catalogue
    assert catalogue.content is not None
    moved = replace(catalogue, content=3 * catalogue.content + 5)
    assert np.allclose(content_directions(catalogue, 4), content_directions(moved, 4), atol=1e-4)
    flat = replace(catalogue, content=np.ones_like(catalogue.content))
    assert content_directions(flat, 4).shape == (catalogue.n_items, 1)


def tables(features: Features) -> dict[str, Any]:
    return {one.name: getattr(features, one.name) for one in fields(Features) if one.init}


def test_categories_are_kept_in_as_many_directions_as_are_asked_for(
    world_and_log: tuple[World, InteractionLog], features: Features
) -> None:
    training = training_in(*world_and_log)
    n_categories = training.catalogue.item_categories.shape[1]
    for size in (2, n_categories - 1):
        kept = fit_features(training, content_size=4, learned_size=3, category_size=size).categories
        assert kept.shape == (training.catalogue.n_items, size)
        assert np.array_equal(kept, main_directions(features.categories, size))
    for size in (n_categories, n_categories + 5):
        kept = fit_features(training, content_size=4, learned_size=3, category_size=size).categories
        assert np.array_equal(kept, features.categories)


def test_features_read_nothing_of_the_world(world_and_log: tuple[World, InteractionLog]) -> None:
    """Poison: without any environment, and with the world's vectors replaced by noise, the tables are the same bits."""
    world, log = world_and_log
    noise = np.random.default_rng(2).standard_normal(world.item_vectors.shape).astype(np.float32)
    noisy = training_in(replace(world, item_vectors=noise), log)

    def refuse(*args: Any, **kwargs: Any) -> WindtunnelVectorEnv:
        raise AssertionError("features asked for an environment")

    plain = training_in(world, log)
    blind = replace(training_in(world, log), make_env=refuse)
    ours = tables(fit_features(plain))
    for poisoned in (blind, noisy):
        theirs = tables(fit_features(poisoned))
        assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("kind", ["popularity", "linucb", "dqn", "ppo", "recbole:EASE"])
def test_agents_that_are_not_the_oracle_do_not_read_appeal(
    kind: str, world_and_log: tuple[World, InteractionLog]
) -> None:
    """Poison: appeal that is NaN for every item changes no slate and no chance."""
    settings = AgentSettings(name="one", kind=kind, params={"num_envs": 8} if kind in ("linucb", "dqn", "ppo") else {})
    agent = train(settings, training_in(*world_and_log, budget=None if "recbole" in kind else 32), Path()).agent
    observation = observed(world_and_log[0])
    assert observation.candidates is not None
    poisoned = replace(observation, appeal=np.full(observation.candidates.shape, np.nan, np.float32))
    rng = np.random.default_rng
    assert np.array_equal(agent.act(observation, rng(0)), agent.act(poisoned, rng(0)))
    chances = agent.action_probabilities  # type: ignore[attr-defined]
    assert np.array_equal(chances(observation), chances(poisoned))


def test_an_agent_learns_the_same_when_what_it_may_not_see_of_its_own_world_changes(
    world_and_log: tuple[World, InteractionLog],
) -> None:
    """Poison: a world whose hidden arrays are turned together behaves alike; who sees acts alone learns the same."""
    world, log = world_and_log
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((world.item_vectors.shape[1],) * 2))[0]
    starts = replace(world.starts, vector=(world.starts.vector @ turn).astype(np.float32))
    turned = replace(world, item_vectors=(world.item_vectors @ turn).astype(np.float32), starts=starts)
    settings = AgentSettings(name="one", kind="linucb", params={"num_envs": 16})

    def taught(where: World) -> Training:
        return replace(training_in(where, log, budget=160), make_env=MakeTrainEnv(where, world.item_vectors))

    one, other = (train(settings, taught(where), Path()) for where in (world, turned))
    observation: Observation = observed(world)
    rng = np.random.default_rng
    assert one.curve == other.curve
    assert np.array_equal(one.agent.act(observation, rng(0)), other.agent.act(observation, rng(0)))


def test_what_is_kept_of_users_and_items_is_not_stored_twice_and_comes_back(features: Features) -> None:
    again = pickle.loads(pickle.dumps(features))
    assert all(np.array_equal(tables(features)[name], tables(again)[name]) for name in tables(features))
    assert all(np.array_equal(a, b) for a, b in zip(features.pair_item_blocks(), again.pair_item_blocks(), strict=True))
    assert (
        len(pickle.dumps(features)) < 1.2 * sum(np.asarray(table).nbytes for table in tables(features).values()) + 2_000
    )


def test_a_user_comes_to_the_same_whoever_else_is_asked_about(
    features: Features, world_and_log: tuple[World, InteractionLog]
) -> None:
    observation = observed(world_and_log[0], 7)
    everyone = features.users(observation).state()
    for user in range(7):
        assert np.array_equal(features.users(rows_of(observation, np.array([user]))).state()[0], everyone[user])
