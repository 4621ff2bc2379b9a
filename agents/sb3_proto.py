"""Training of policies with a continuous proto-action by Stable-Baselines3: PPO, A2C, SAC, TD3."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import stable_baselines3 as sb3
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.noise import NormalActionNoise, VectorizedActionNoise
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from agents.base import Observation, Training
from agents.deep_rl import Layers
from agents.features import UserBlocks
from agents.item_networks import layers_of
from agents.proto_actions import (
    A2CSettings,
    OffPolicySettings,
    PPOSettings,
    Proto,
    ProtoSettings,
    SACSettings,
    TD3Settings,
)
from agents.sb3_adapter import (
    PaidRollouts,
    SB3Lanes,
    clipped_in_rollouts,
    in_rollouts,
    learn,
    one_seeded_thread,
    value_after,
)
from agents.train_world import Act, Lanes

BOUND = 10.0
"""Proto-actions of PPO and A2C lie in [-BOUND, BOUND]; only their directions matter."""


def train_proto(training: Training, settings: ProtoSettings, proto: Proto, *, budget: int) -> Layers:
    """SB3 in the train world for `budget` user-steps; returns the network of the mean proto-action."""

    def begin() -> BaseAlgorithm:
        return proto_model(settings, proto_lanes(training, settings, proto), budget=budget, seed=training.seed)

    def act(network: Layers) -> Act:
        def choose(observation: Observation, rng: np.random.Generator) -> NDArray[np.int64]:
            users = proto.features.users(observation)
            return proto.slates(users, network(proto.scale(users)), observation)

        return choose

    with one_seeded_thread(training.seed):
        return learn(training, begin, mean_action, act, places=1, budget=budget)


def proto_lanes(training: Training, settings: ProtoSettings, proto: Proto) -> SB3Lanes:
    """The train world as SB3 sees it: states, proto-actions, and the share of a slate that was clicked."""
    bound = 1.0 if isinstance(settings, OffPolicySettings) else BOUND

    lanes = Lanes(training, settings.num_envs, seed=training.seed, masks=False)
    each = np.full(lanes.slate_size, 1 / lanes.slate_size, np.float32)

    def slates(actions: NDArray[Any], users: UserBlocks, observation: Observation) -> NDArray[np.int64]:
        return proto.nearest(users, actions, lanes.slate_size, lanes.blocked())

    return SB3Lanes(
        lanes,
        proto.features,
        spaces.Box(-np.inf, np.inf, (len(proto.scale.mean),), np.float32),
        spaces.Box(-bound, bound, (proto.size,), np.float32),
        places=1,
        encode=proto.scale,
        slates=slates,
        rewards=lambda clicks: clicks @ each,
    )


def proto_model(settings: ProtoSettings, lanes: SB3Lanes, *, budget: int, seed: int) -> BaseAlgorithm:
    """SB3's algorithm for these settings, untrained."""
    build: Callable[..., BaseAlgorithm] = _BUILDERS[type(settings)]
    model = build(
        settings,
        lanes,
        budget,
        learning_rate=settings.learning_rate,
        gamma=settings.gamma,
        seed=seed % 2**32,
        device="cpu",
    )
    if isinstance(model, OnPolicyAlgorithm):
        lanes.pay_on(value_after(model))
    return model


def mean_action(model: BaseAlgorithm) -> Layers:
    """The network of the mean proto-action; SAC and TD3 squash it, which changes its direction and so the slate."""
    if isinstance(model, sb3.SAC):
        return layers_of([*model.actor.latent_pi, model.actor.mu], "relu", squashed=True)
    if isinstance(model, sb3.TD3):
        return layers_of([*model.actor.mu], "relu", squashed=True)
    policy: Any = model.policy
    return layers_of([*policy.mlp_extractor.policy_net, policy.action_net], "tanh")


def _ppo(settings: PPOSettings, lanes: SB3Lanes, budget: int, **common: Any) -> sb3.PPO:
    rollouts = clipped_in_rollouts(settings, lanes, PaidRollouts, budget)
    return sb3.PPO("MlpPolicy", lanes, policy_kwargs=_gaussian(settings), **rollouts, **common)


def _a2c(settings: A2CSettings, lanes: SB3Lanes, budget: int, **common: Any) -> sb3.A2C:
    rollouts = in_rollouts(settings, lanes, PaidRollouts, budget)
    return sb3.A2C("MlpPolicy", lanes, policy_kwargs=_gaussian(settings), **rollouts, **common)


def _gaussian(settings: PPOSettings | A2CSettings) -> dict[str, Any]:
    """The networks, and the spread that the proto-action begins with."""
    return {"net_arch": [settings.hidden_size] * 2, "log_std_init": settings.log_std_init}


def _sac(settings: SACSettings, lanes: SB3Lanes, budget: int, **common: Any) -> sb3.SAC:
    model = sb3.SAC(
        "MlpPolicy",
        lanes,
        ent_coef="auto_0.1" if settings.ent_coef is None else settings.ent_coef,
        **_from_a_buffer(settings, budget),
        **common,
    )
    _without_preference(model.actor.mu)
    return model


def _td3(settings: TD3Settings, lanes: SB3Lanes, budget: int, **common: Any) -> sb3.TD3:
    assert lanes.action_space.shape is not None
    mean = np.zeros(lanes.action_space.shape)
    noise = NormalActionNoise(mean, np.full_like(mean, settings.action_noise))
    model = sb3.TD3(
        "MlpPolicy",
        lanes,
        action_noise=VectorizedActionNoise(noise, settings.num_envs),
        policy_delay=settings.policy_delay,
        target_policy_noise=settings.target_policy_noise,
        **_from_a_buffer(settings, budget),
        **common,
    )
    _without_preference(model.actor.mu[-2])
    model.actor_target.load_state_dict(model.actor.state_dict())
    return model


def _from_a_buffer(settings: OffPolicySettings, budget: int) -> dict[str, Any]:
    """What SAC and TD3 share: a round of gradient steps for each step of all environments, once the buffer is warm."""
    return {
        "buffer_size": settings.buffer_size,
        "learning_starts": min(10 * settings.num_envs, budget // 10),  # user-steps with actions at random before
        "batch_size": settings.batch_size,
        "train_freq": (1, "step"),
        "gradient_steps": settings.gradient_steps,
        "tau": settings.tau,
        "policy_kwargs": {"net_arch": [settings.hidden_size] * 2},
    }


def _without_preference(last: Any) -> None:
    """Zero the layer that gives the mean action: untrained, all items are equally near."""
    with torch.no_grad():
        last.weight.zero_()
        last.bias.zero_()


_BUILDERS: dict[type[ProtoSettings], Callable[..., BaseAlgorithm]] = {
    PPOSettings: _ppo,
    A2CSettings: _a2c,
    SACSettings: _sac,
    TD3Settings: _td3,
}
