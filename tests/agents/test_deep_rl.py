"""SB3 through our adapter: what it sees of users, what its actions do, and that a trained agent acts as its network."""

from __future__ import annotations

import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from agents.base import Observation, Training
from agents.deep_rl import DQNSettings, StateScale
from agents.features import Features, UserBlocks, fit_features
from agents.proto_actions import A2CSettings, PPOSettings, Proto
from agents.shortlist import MaskablePPOSettings, Shortlist
from agents.train_world import Lanes
from simulator.log import InteractionLog
from simulator.world import World
from tests.agents.taught_world import ITEMS, observed, taught_world, training_in

if TYPE_CHECKING:
    from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

    from agents.sb3_adapter import SB3Lanes


@pytest.fixture(scope="module")
def world_and_log() -> tuple[World, InteractionLog]:
    return taught_world(horizon=3)


@pytest.fixture(scope="module")
def features(world_and_log: tuple[World, InteractionLog]) -> Features:
    return fit_features(training_in(*world_and_log))


@pytest.mark.parametrize(("quantiles", "share"), [(None, 1), (6, 6), (6, 2)])
def test_a_trained_q_scores_as_the_network_that_sb3_trained(
    world_and_log: tuple[World, InteractionLog], features: Features, quantiles: int | None, share: int
) -> None:
    """The arrays that act and the torch module that learns are one function; of quantiles, the mean of the lowest."""
    import torch
    from gymnasium import spaces
    from stable_baselines3.common.torch_layers import FlattenExtractor

    from agents.sb3_adapter import ItemQNetwork, ItemQuantileNetwork

    scale = StateScale.of(features, training_in(*world_and_log))
    space = spaces.Box(-np.inf, np.inf, (len(scale.mean) + 1,), np.float32)
    torch.manual_seed(3)
    network = (ItemQNetwork if quantiles is None else ItemQuantileNetwork)(
        space,
        spaces.Discrete(ITEMS),
        features_extractor=FlattenExtractor(space),
        features_dim=space.shape[0],
        items={"features": features, "scale": scale, "hidden_size": 12, "embedding_size": 5},
        **({} if quantiles is None else {"n_quantiles": quantiles}),
    )
    observation = observed(world_and_log[0])
    state = features.users(observation).state()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn_like(parameter))
        seen = torch.as_tensor(np.concatenate([state, np.zeros((len(state), 1), np.float32)], axis=1))
        theirs = network(seen)
        if quantiles is not None:
            every = [torch.gather(theirs, 2, torch.full((len(state), quantiles, 1), i)) for i in range(ITEMS)]
            whole = torch.cat(every, dim=2)  # [n, quantiles, I], one item at a time
            assert torch.allclose(whole.mean(dim=1), theirs.mean(dim=1), rtol=1e-4, atol=1e-3)
            theirs = whole[:, :share].mean(dim=1)
    ours = network.items.as_arrays(features, scale, heads=share).scores(observation)
    assert ours.shape == (len(observation), ITEMS)
    assert np.abs(ours).max() > 1
    assert np.allclose(ours, theirs.numpy(), rtol=1e-4, atol=1e-3)


def test_sb3_sees_one_lane_for_each_place_with_that_places_click_and_the_last_observation(
    world_and_log: tuple[World, InteractionLog], features: Features
) -> None:
    from gymnasium import spaces

    from agents.sb3_adapter import SB3Lanes

    users, places = 8, world_and_log[0].slate_size
    step_at = 3  # place of the step in the state

    def encode(users: UserBlocks) -> np.ndarray:
        return np.repeat(users.state(), places, axis=0)

    def seen_of(observation: Observation) -> np.ndarray:
        return encode(features.users(observation))

    lanes = SB3Lanes(
        Lanes(training_in(*world_and_log), users, seed=1),
        features,
        spaces.Box(-np.inf, np.inf, (features.users(observed(world_and_log[0])).state().shape[1],), np.float32),
        spaces.Discrete(ITEMS),
        places=places,
        encode=encode,
        slates=lambda actions, users, observation: actions.reshape(-1, places).astype(np.int64),
        rewards=lambda clicks: clicks.reshape(-1),
    )
    twin = Lanes(training_in(*world_and_log), users, seed=1)
    observation = twin.reset()
    assert np.array_equal(lanes.reset(), seen_of(observation))
    assert lanes.num_envs == users * places
    ended = cut = 0
    for _ in range(6):
        assert observation.candidates is not None
        slates = np.argsort(~observation.candidates, axis=1, kind="stable")[:, :places]
        seen, rewards, dones, infos = lanes.step(slates.reshape(-1))
        step = twin.step(slates)
        assert np.array_equal(rewards.reshape(users, places), step.clicks)
        assert np.array_equal(rewards.reshape(users, places).sum(axis=1), step.reward)
        assert np.array_equal(dones, np.repeat(step.done, places))
        assert np.array_equal(seen, seen_of(step.observation))
        for lane in np.flatnonzero(dones):
            last = infos[lane]["terminal_observation"]
            ended_before = step.done[: lane // places].sum()
            assert np.array_equal(last, seen_of(step.last)[ended_before * places])
            assert last[step_at] > 0  # not the next session's start
            assert seen[lane, step_at] == 0
            assert infos[lane]["TimeLimit.truncated"] == step.truncated[lane // places]
            cut += step.truncated[lane // places]
            ended += 1
        assert all(infos[lane] == {} for lane in np.flatnonzero(~dones))
        observation = step.observation
    assert ended > cut > 0  # some left, some came to the horizon


def test_a_place_that_cannot_be_filled_is_empty_and_earns_nothing(
    world_and_log: tuple[World, InteractionLog],
) -> None:
    """Exploration may name an item twice or one that was seen: the clicks of the others stay at their own places."""
    lanes = Lanes(training_in(*world_and_log), 200, seed=2)
    observation = lanes.reset()
    assert observation.candidates is not None
    best = np.argsort(-np.where(observation.candidates, world_and_log[0].item_bias, -np.inf), axis=1)
    slates = best[:, :4].copy()
    slates[:, 1] = slates[:, 0]  # twice
    slates[:, 2] = np.argmin(observation.candidates, axis=1)  # in the history
    step = lanes.step(slates)
    assert step.clicks[:, 0].mean() > 0.3
    assert not step.clicks[:, 1:3].any()
    assert step.clicks[:, 3].mean() > 0.1
    assert np.array_equal(step.clicks.sum(axis=1), step.reward)


def test_a_proto_action_shows_the_items_that_it_points_at(
    world_and_log: tuple[World, InteractionLog], features: Features
) -> None:
    """An action along one feature ranks by that feature: here like rate, then popularity, then taste."""
    proto = Proto(features, StateScale.of(features, training_in(*world_and_log)))
    seen = replace(observed(world_and_log[0]), candidates=None, slate_size=3)
    users = features.users(seen)
    action = np.zeros((len(users.level), proto.size), np.float32)
    for number, feature in ((4, features.like_rate), (5, features.popularity)):
        action[:] = 0
        action[:, number] = 2.0
        expected = np.argsort(-feature, kind="stable")[:3]
        assert np.array_equal(proto.slates(users, action, seen), np.tile(expected, (len(action), 1)))
    action[:] = 0
    action[:, 0] = 1.0
    taste = users.taste @ features.vectors.T
    shown = proto.slates(users, action, seen)
    assert np.allclose(np.take_along_axis(taste, shown, axis=1), -np.sort(-taste, axis=1)[:, :3], atol=1e-4)
    some = np.random.default_rng(0).random(taste.shape) < 0.3
    shown = proto.slates(users, action, replace(seen, candidates=some))
    assert np.take_along_axis(some, shown, axis=1).all()
    assert np.allclose(
        np.take_along_axis(taste, shown, axis=1), -np.sort(-np.where(some, taste, -np.inf), axis=1)[:, :3], atol=1e-4
    )


def test_a_proto_action_weighs_all_features_of_items_and_pairs(
    world_and_log: tuple[World, InteractionLog], features: Features
) -> None:
    """The long way: each pair feature's product, the items' own features and the content directions, weighted."""
    proto = Proto(features, StateScale.of(features, training_in(*world_and_log)))
    seen = replace(observed(world_and_log[0]), candidates=None, slate_size=3)
    users = features.users(seen)
    action = np.random.default_rng(1).normal(0, 1, (len(seen), proto.size)).astype(np.float32)
    scores = sum(action[:, [j]] * (user @ item.T) for j, (user, item) in enumerate(features.pair_blocks(users)))
    own = np.stack([features.like_rate / 0.15, features.popularity], axis=1)
    scores = scores + action[:, 4:6] @ own.T + action[:, 6:] @ features.content.T
    shown = proto.slates(users, action, seen)
    assert np.allclose(np.take_along_axis(scores, shown, axis=1), -np.sort(-scores, axis=1)[:, :3], atol=1e-3)


def lanes_and_model(settings: Any, training: Training, features: Features) -> tuple[SB3Lanes, OnPolicyAlgorithm]:
    """What these settings train, untrained: one of SB3's environments for each user, or for each place of a slate."""
    from agents.sb3_proto import proto_lanes, proto_model
    from agents.sb3_shortlist import ShortlistLanes, shortlist_model

    scale = StateScale.of(features, training)
    if isinstance(settings, MaskablePPOSettings):
        shortlist = Shortlist.of(features, training, settings.shortlist_size)
        lanes: Any = ShortlistLanes(Lanes(training, settings.num_envs, seed=training.seed), shortlist, scale)
        return lanes, shortlist_model(settings, lanes, shortlist, scale, budget=10_000, seed=5)
    lanes = proto_lanes(training, settings, Proto(features, scale))
    model: Any = proto_model(settings, lanes, budget=10_000, seed=5)
    return lanes, model


@pytest.mark.parametrize(
    "settings",
    [
        A2CSettings(num_envs=32, n_steps=8, gamma=0.9),
        MaskablePPOSettings(num_envs=32, n_steps=8, gamma=0.9, n_epochs=1, shortlist_size=8),
    ],
    ids=["one lane a user", "a lane a place"],
)
def test_what_a_cut_session_would_go_on_to_bring_is_paid_as_sb3_pays_it(
    world_and_log: tuple[World, InteractionLog], features: Features, settings: Any
) -> None:
    """Two twins, one of which leaves it to SB3: after updates from the same draws the networks are the same."""
    import torch

    from agents.sb3_adapter import one_seeded_thread

    training = training_in(*world_and_log)
    networks, critics = [], []
    for ours in (True, False):
        with one_seeded_thread(5):
            lanes, model = lanes_and_model(settings, training, features)
            paid: list[int] = []
            if ours:
                value = lanes._value
                assert value is not None
                lanes.pay_on(lambda seen, value=value, paid=paid: (paid.append(len(seen)), value(seen))[1])
            else:
                lanes._value = None
            with torch.no_grad():
                model.policy.value_net.bias.fill_(3.0)  # worth telling apart from nothing
            model.learn(total_timesteps=2 * 8 * lanes.num_envs)
            networks.append(model.policy.state_dict())
            critics.append(paid)
            lanes.close()
    assert len(critics[0]) == 2  # once a rollout
    assert sum(critics[0]) > 10
    for name, learned in networks[0].items():
        assert torch.allclose(learned, networks[1][name], atol=1e-5), name


def test_a_rollout_holds_no_observation_of_sessions_that_go_on(
    world_and_log: tuple[World, InteractionLog], features: Features
) -> None:
    """Masks of all items for each user and slate of a rollout would be gigabytes in a large catalogue."""
    settings = MaskablePPOSettings(num_envs=4, shortlist_size=8)
    lanes, _ = lanes_and_model(settings, training_in(*world_and_log), features)
    lanes.reset()
    masks = []
    for _ in range(3):
        lanes.step(np.zeros(lanes.num_envs, np.int64))
        masks.append(weakref.ref(lanes.observation.candidates))
    assert [mask() is None for mask in masks] == [True, True, False]


@pytest.mark.parametrize("settings", [DQNSettings, PPOSettings])
def test_settings_are_readable_without_torch(settings: type) -> None:
    import subprocess
    import sys

    code = f"import sys; from {settings.__module__} import {settings.__name__}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(("double", "value"), [(True, 3.0), (False, 5.0)])
def test_double_dqn_values_the_item_that_the_learned_network_names(
    double: bool, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The learned network prefers action 1 (2 to 1), which the target values at 3; the target's own best is 5."""
    import stable_baselines3 as sb3
    import torch
    from stable_baselines3.common.logger import configure
    from stable_baselines3.dqn import dqn

    from agents.sb3_adapter import DoubleDQN

    kind = DoubleDQN if double else sb3.DQN
    model = kind("MlpPolicy", "CartPole-v1", gamma=0.5, policy_kwargs={"net_arch": []}, buffer_size=8, device="cpu")
    model.set_logger(configure(None, []))
    with torch.no_grad():
        for network, biases in ((model.q_net, (1.0, 2.0)), (model.q_net_target, (5.0, 3.0))):
            network.q_net[0].weight.zero_()
            network.q_net[0].bias.copy_(torch.tensor(biases))
    seen = np.zeros((1, 4), np.float32)
    model.replay_buffer.add(seen, seen, np.zeros((1, 1), np.int64), np.array([0.25]), np.zeros(1), [{}])
    targets, loss = [], dqn.F.smooth_l1_loss
    monkeypatch.setattr(dqn.F, "smooth_l1_loss", lambda now, then: targets.append(then) or loss(now, then))
    model.train(1, 4)
    assert targets[0].numpy() == pytest.approx(0.25 + 0.5 * value)
    assert isinstance(model.q_net_target, torch.nn.Module)  # it is put back
