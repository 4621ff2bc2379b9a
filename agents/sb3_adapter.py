"""The one importer of Stable-Baselines3: its VecEnv over our vector environment, and training of DQN and PPO."""

from __future__ import annotations

import random  # noqa: TID251  the library seeds this global generator; its state is put back
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import gymnasium
import numpy as np
import stable_baselines3 as sb3
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.dqn.policies import DQNPolicy, QNetwork
from torch import nn

from agents.base import Observation, Training
from agents.deep_rl import DQNSettings, ItemQ, Layers, PPOSettings, Proto, StateScale, item_inputs
from agents.features import PAIR_NAMES, Features
from agents.slates import top_slates
from agents.train_world import Act, Curve, Lanes

F32 = NDArray[np.float32]
NO_INFO: dict[str, Any] = {}
"""Information on a lane whose session goes on; SB3 only reads it, so all lanes share one."""


@contextmanager
def one_seeded_thread(seed: int) -> Iterator[None]:
    """SB3 and torch seeded, on one thread; the global generators and threads are as before afterwards."""
    legacy, python, own = np.random.get_state(), random.getstate(), torch.get_rng_state()  # noqa: NPY002  put back below
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    sb3.common.utils.set_random_seed(seed)
    try:
        yield
    finally:
        np.random.set_state(legacy)  # noqa: NPY002  what SB3 has drawn from is put back
        random.setstate(python)
        torch.set_rng_state(own)
        torch.set_num_threads(threads)


class SB3Lanes(VecEnv):
    """SB3's VecEnv over the lanes of the train world: the one adapter for every algorithm.

    What SB3 sees of a user and what its actions mean is the algorithm's affair, given by three functions; `places` is
    how many of SB3's environments stand for one user (1, or K where each place of a slate is one).

    Args:
        lanes: the train world.
        observation_space: of one of SB3's environments.
        action_space: of one of SB3's environments.
        places: SB3 environments for each user.
        encode: from an observation of n users to SB3's [n * places, s].
        slates: from SB3's actions [n * places, ...] and the observation to slates [n, K].
        rewards: from the step's clicks [n, K] to SB3's [n * places].
    """

    def __init__(
        self,
        lanes: Lanes,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        *,
        places: int,
        encode: Callable[[Observation], F32],
        slates: Callable[[NDArray[Any], Observation], NDArray[np.int64]],
        rewards: Callable[[F32], F32],
    ) -> None:
        self.lanes, self.places = lanes, places
        self._encode, self._slates, self._rewards = encode, slates, rewards
        self.observation: Observation = lanes.reset()
        self._actions: NDArray[Any] = np.zeros(0)
        super().__init__(lanes.num_envs * places, observation_space, action_space)

    def reset(self) -> F32:
        """Start every session."""
        self.observation = self.lanes.reset()
        return self._encode(self.observation)

    def step_async(self, actions: NDArray[Any]) -> None:
        """Take note of the actions."""
        self._actions = actions

    def step_wait(self) -> tuple[F32, F32, NDArray[np.bool_], list[dict[str, Any]]]:
        """Step every user; a lane whose session ended shows the next one's start and keeps its last observation."""
        step = self.lanes.step(self._slates(self._actions, self.observation))
        self.observation = step.observation
        seen = self._encode(step.observation)
        infos = [NO_INFO] * self.num_envs
        ended = np.flatnonzero(np.repeat(step.done, self.places))
        if len(ended):
            last = self._encode(step.after)
            cut = np.repeat(step.truncated, self.places)
            for lane in ended.tolist():
                infos[lane] = {"terminal_observation": last[lane], "TimeLimit.truncated": bool(cut[lane])}
        return seen, self._rewards(step.clicks), np.repeat(step.done, self.places), infos

    def close(self) -> None:
        """Close the environment."""
        self.lanes.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Attributes that SB3 asks for; lanes have none of their own."""
        return [getattr(self.lanes.env, attr_name, None) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Lanes have no attributes to set."""
        raise NotImplementedError

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Lanes have no methods to call."""
        raise NotImplementedError

    def env_is_wrapped(
        self, wrapper_class: type[gymnasium.Wrapper[Any, Any, Any, Any]], indices: Any = None
    ) -> list[bool]:
        """Never."""
        return [False for _ in self._get_indices(indices)]


class _Points(BaseCallback):
    """Adds points to the learning curve, and stops when time is over."""

    def __init__(self, curve: Curve, act: Callable[[], Act], places: int, budget: int) -> None:
        super().__init__()
        self._curve, self._act, self._places, self._budget = curve, act, places, budget

    def _on_step(self) -> bool:
        steps = self.num_timesteps // self._places
        if self._curve.due(steps):
            self._curve.measure(steps, self._act())
        return steps < self._budget and not self._curve.out_of_time()


def _layers(modules: Sequence[nn.Module], activation: str) -> Layers:
    linear = [module for module in modules if isinstance(module, nn.Linear)]
    return Layers(
        tuple(module.weight.detach().numpy().copy() for module in linear),
        tuple(module.bias.detach().numpy().copy() for module in linear),
        activation,
    )


class ItemQNetwork(QNetwork):
    """SB3's Q-network whose output for all items is one matrix product; the same function as `ItemQ`."""

    item_inputs: torch.Tensor
    item_features: torch.Tensor
    state_mean: torch.Tensor
    state_spread: torch.Tensor

    def __init__(
        self, *args: Any, features: Features, scale: StateScale, hidden_size: int, embedding_size: int, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        del self.q_net
        item = features.item_features()
        self.n_pair, self.n_item = len(PAIR_NAMES), item.shape[1]
        out = self.n_pair + self.n_item + embedding_size + 1
        inputs = item_inputs(features)
        state_size = len(scale.mean) + 1
        self.state_network = nn.Sequential(nn.Linear(state_size, hidden_size), nn.ReLU(), nn.Linear(hidden_size, out))
        self.item_network = nn.Sequential(
            nn.Linear(inputs.shape[1], hidden_size), nn.ReLU(), nn.Linear(hidden_size, embedding_size)
        )
        with torch.no_grad():
            # A small start: nothing is known, so no item is far ahead of another.
            last = self.state_network[-1]
            assert isinstance(last, nn.Linear)
            last.weight.mul_(0.1)
            last.bias.zero_()
        self.register_buffer("item_inputs", torch.as_tensor(inputs))
        self.register_buffer("item_features", torch.as_tensor(item))
        self.register_buffer("state_mean", torch.as_tensor(scale.mean))
        self.register_buffer("state_spread", torch.as_tensor(scale.spread))
        self._slices = features.pair_slices()
        for number, block in enumerate(features.pair_item_blocks()):
            self.register_buffer(f"block_{number}", torch.as_tensor(block))

    def forward(self, obs: Any) -> torch.Tensor:
        """[n, I] Q of every item; obs is the raw state [n, s] and the place's discount."""
        raw, place = obs[:, :-1], obs[:, -1:]
        state = ((raw - self.state_mean) / self.state_spread).clamp(-5, 5)
        out = self.state_network(torch.cat([state, place], dim=1))
        left = [raw[:, part] * out[:, j, None] for j, part in enumerate(self._slices)]
        right = [getattr(self, f"block_{j}") for j in range(self.n_pair)]
        left += [out[:, self.n_pair : self.n_pair + self.n_item], out[:, self.n_pair + self.n_item : -1]]
        right += [self.item_features, self.item_network(self.item_inputs)]
        return torch.cat(left, dim=1) @ torch.cat(right, dim=1).T + out[:, -1:]

    def as_arrays(self, features: Features, scale: StateScale) -> ItemQ:
        """The same function without torch."""
        return ItemQ(features, scale, _layers([*self.state_network], "relu"), _layers([*self.item_network], "relu"))


class SlateDQNPolicy(DQNPolicy):
    """SB3's policy whose lanes fill the places of one slate: lane k of a user takes his k-th best candidate."""

    def __init__(self, *args: Any, lanes: SB3Lanes | None, network: dict[str, Any], **kwargs: Any) -> None:
        self._network = network
        super().__init__(*args, **kwargs)
        self._lanes = [lanes]  # in a list, so that SB3 does not take it for a part of the network

    def make_q_net(self) -> ItemQNetwork:
        """The network whose output is a matrix product."""
        arguments = self._update_features_extractor(self.net_args, features_extractor=None)
        return ItemQNetwork(**arguments, **self._network).to(self.device)

    def _predict(self, observation: Any, deterministic: Any = True) -> torch.Tensor:  # noqa: FBT002  the base class's signature
        lanes = self._lanes[0]
        assert lanes is not None
        top = observation[:: lanes.places].clone()
        top[:, -1] = 0.0
        slates = top_slates(self.q_net(top).numpy(), lanes.observation)
        return torch.as_tensor(slates.reshape(-1))


def train_dqn(
    training: Training, settings: DQNSettings, features: Features, scale: StateScale, *, budget: int
) -> ItemQ:
    """DQN of SB3 in the train world for `budget` user-steps; each place of a slate is one of SB3's environments."""
    places = training.slate_size
    discount = (1 / np.log2(2 + np.arange(places)) - 1).astype(np.float32)[:, None]  # [K, 1], 0 at the top

    def encode(observation: Observation) -> F32:
        state = features.users(observation).state()
        n = len(state)
        return np.concatenate([np.repeat(state, places, axis=0), np.tile(discount, (n, 1))], axis=1)

    with one_seeded_thread(training.seed):
        lanes = SB3Lanes(
            Lanes(training, settings.num_envs, seed=training.seed),
            spaces.Box(-np.inf, np.inf, (len(scale.mean) + 1,), np.float32),
            spaces.Discrete(features.n_items),
            places=places,
            encode=encode,
            slates=lambda actions, observation: actions.reshape(-1, places).astype(np.int64),
            rewards=lambda clicks: clicks.reshape(-1),
        )
        sizes = {"hidden_size": settings.hidden_size, "embedding_size": settings.embedding_size}
        total = budget * places
        model = sb3.DQN(
            SlateDQNPolicy,
            lanes,
            learning_rate=settings.learning_rate,
            buffer_size=settings.buffer_size,
            learning_starts=min(10 * lanes.num_envs, total // 10),
            batch_size=settings.batch_size,
            gamma=settings.gamma,
            train_freq=(1, "step"),
            gradient_steps=settings.gradient_steps,
            target_update_interval=lanes.num_envs,
            tau=settings.tau,
            exploration_fraction=settings.exploration_fraction,
            exploration_final_eps=settings.exploration_final_eps,
            policy_kwargs={
                "lanes": lanes,
                "network": {"features": features, "scale": scale, **sizes},
                "optimizer_class": torch.optim.AdamW,
                "optimizer_kwargs": {"weight_decay": settings.weight_decay},
            },
            seed=training.seed % 2**32,
            device="cpu",
        )

        def arrays() -> ItemQ:
            network = model.q_net_target  # the running average, which moves less by the luck of the last batches
            assert isinstance(network, ItemQNetwork)
            return network.as_arrays(features, scale)

        def act() -> Act:
            q = arrays()
            return lambda observation, rng: top_slates(q.scores(observation), observation)

        _learn(model, training, act, places, budget)
        lanes.close()
        return arrays()


def train_ppo(training: Training, settings: PPOSettings, proto: Proto, *, budget: int) -> Layers:
    """PPO of SB3 in the train world for `budget` user-steps; returns the network of the mean proto-action."""

    def slates(actions: NDArray[Any], observation: Observation) -> NDArray[np.int64]:
        return top_slates(proto.scores(proto.features.users(observation), actions), observation)

    # Eight updates at least, also where the budget is small.
    n_steps = max(2, min(settings.n_steps, budget // (8 * settings.num_envs)))
    with one_seeded_thread(training.seed):
        lanes = SB3Lanes(
            Lanes(training, settings.num_envs, seed=training.seed),
            spaces.Box(-np.inf, np.inf, (len(proto.scale.mean),), np.float32),
            spaces.Box(-10.0, 10.0, (proto.size,), np.float32),
            places=1,
            encode=lambda observation: proto.scale(proto.features.users(observation)),
            slates=slates,
            rewards=lambda clicks: clicks.mean(axis=1),
        )
        model = sb3.PPO(
            "MlpPolicy",
            lanes,
            learning_rate=settings.learning_rate,
            n_steps=n_steps,
            batch_size=_even_batch(n_steps * settings.num_envs, settings.batch_size),
            n_epochs=settings.n_epochs,
            gamma=settings.gamma,
            gae_lambda=settings.gae_lambda,
            clip_range=settings.clip_range,
            ent_coef=settings.ent_coef,
            policy_kwargs={"net_arch": [settings.hidden_size] * 2, "log_std_init": settings.log_std_init},
            seed=training.seed % 2**32,
            device="cpu",
        )

        def mean() -> Layers:
            policy = model.policy
            return _layers([*policy.mlp_extractor.policy_net, policy.action_net], "tanh")

        def act() -> Act:
            network = mean()

            def choose(observation: Observation, rng: np.random.Generator) -> NDArray[np.int64]:
                users = proto.features.users(observation)
                return top_slates(proto.scores(users, network(proto.scale(users))), observation)

            return choose

        _learn(model, training, act, 1, budget)
        lanes.close()
        return mean()


def _even_batch(rows: int, most: int) -> int:
    """The largest batch of at most `most` rows that divides them, so that no gradient step is made of a few rows."""
    return next(rows // parts for parts in range(-(-rows // most), rows + 1) if rows % parts == 0)


def _learn(model: sb3.DQN | sb3.PPO, training: Training, act: Callable[[], Act], places: int, budget: int) -> None:
    """Train for `budget` user-steps, with points of the learning curve from the untrained policy on."""
    curve = Curve(training, budget)
    curve.measure(0, act())
    if budget > 0:
        model.learn(
            total_timesteps=budget * places, callback=_Points(curve, act, places, budget), log_interval=1_000_000
        )
        curve.measure(model.num_timesteps // places, act(), last=True)
    curve.close()
