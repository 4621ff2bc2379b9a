"""Stable-Baselines3 over our vector environment: its VecEnv, seeding, learning curves; and training of DQN and QR-DQN.

Only the modules named `agents.sb3_*` import SB3 and sb3-contrib.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import gymnasium
import numpy as np
import stable_baselines3 as sb3
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from sb3_contrib import QRDQN
from sb3_contrib.qrdqn.policies import QRDQNPolicy, QuantileNetwork
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.dqn.policies import DQNPolicy, QNetwork

from agents.base import Observation, Training
from agents.checkpoints import GlobalDraws
from agents.contract import joined, rows_of
from agents.deep_rl import DQNSettings, ItemQ, QRDQNSettings, QSettings, StateScale, greedy_on
from agents.features import Features, UserBlocks
from agents.item_networks import FactoredScores, ItemHeads
from agents.slates import top_slates
from agents.teaching import Curve, Lesson
from agents.train_world import Act, Lanes

if TYPE_CHECKING:
    from agents.proto_actions import A2CSettings, PPOSettings
    from agents.shortlist import MaskablePPOSettings

F32 = NDArray[np.float32]
M = TypeVar("M", bound=BaseAlgorithm)
P = TypeVar("P")
NO_INFO: dict[str, Any] = {}
"""Information on a lane whose session goes on; SB3 only reads it, so all lanes share one."""


@contextmanager
def one_seeded_thread(seed: int) -> Iterator[None]:
    """SB3 and torch seeded, on one thread; the global generators and threads are as before afterwards."""
    before, threads = GlobalDraws.now(), torch.get_num_threads()
    torch.set_num_threads(1)
    sb3.common.utils.set_random_seed(seed)
    try:
        yield
    finally:
        before.put_back()
        torch.set_num_threads(threads)


class SB3Lanes(VecEnv):
    """SB3's VecEnv over the lanes of the train world: the one adapter for every algorithm.

    What SB3 sees of a user and what its actions mean is the algorithm's affair, given by three functions; `places` is
    how many of SB3's environments stand for one user (1, or K where each place of a slate is one).

    Args:
        lanes: the train world.
        features: tables by which users are described.
        observation_space: of one of SB3's environments.
        action_space: of one of SB3's environments.
        places: SB3 environments for each user.
        encode: from n users to SB3's observations [n * places, s].
        slates: from SB3's actions [n * places, ...], the users and what was observed of them to slates [n, K].
        rewards: from the step's clicks [n, K] to SB3's [n * places].
    """

    def __init__(
        self,
        lanes: Lanes,
        features: Features,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        *,
        places: int,
        encode: Callable[[UserBlocks], F32],
        slates: Callable[[NDArray[Any], UserBlocks, Observation], NDArray[np.int64]],
        rewards: Callable[[F32], F32],
    ) -> None:
        self.lanes, self.places = lanes, places
        self._features = features
        self._encode, self._slates, self._rewards = encode, slates, rewards
        self._look(lanes.reset())
        self._actions: NDArray[Any] = np.zeros(0)
        self._value: Callable[[F32], F32] | None = None
        # Done, truncated and the last observations of the steps that `pay` has not heard of; what goes on is let go.
        self._ends: list[tuple[NDArray[np.bool_], NDArray[np.bool_], Observation]] = []
        super().__init__(lanes.num_envs * places, observation_space, action_space)

    def reset(self) -> F32:
        """Start every session."""
        self._ends = []
        return self._look(self.lanes.reset())

    def step_async(self, actions: NDArray[Any]) -> None:
        """Take note of the actions."""
        self._actions = actions

    def step_wait(self) -> tuple[F32, F32, NDArray[np.bool_], list[dict[str, Any]]]:
        """Step every user; a lane whose session ended shows the next one's start and keeps its last observation."""
        step = self.lanes.step(self._slates(self._actions, self.users, self.observation))
        seen = self._look(step.observation)
        infos = [NO_INFO] * self.num_envs
        done = step.done if self.places == 1 else np.repeat(step.done, self.places)
        if self._value is not None:
            self._ends.append((step.done, step.truncated, step.last))
        elif done.any():
            last = self._encode(self._features.users(step.last))
            cut = np.repeat(step.truncated, self.places)
            for row, lane in enumerate(np.flatnonzero(done).tolist()):
                infos[lane] = {"terminal_observation": last[row], "TimeLimit.truncated": bool(cut[lane])}
        return seen, self._rewards(step.clicks), done, infos

    def pay_on(self, value: Callable[[F32], F32]) -> None:
        """Have what sessions that the horizon cuts would go on to bring paid by `pay`, by their last observations.

        SB3's algorithms on a policy do the same, one session after the other; they find nothing left to do.
        """
        self._value = value

    def pay(self, rewards: F32) -> None:
        """Add to the rewards [T, n * places] of the last T steps, all since the last call, what is owed."""
        ends, self._ends = self._ends, []
        if self._value is None:
            return
        assert len(ends) == len(rewards)
        cut = np.concatenate([truncated[done] for done, truncated, _ in ends])
        if cut.any():
            last = rows_of(joined([seen for _, _, seen in ends]), np.flatnonzero(cut))
            which = np.repeat([truncated for _, truncated, _ in ends], self.places, axis=1)
            rewards[which] += self._value(self._encode(self._features.users(last)))

    def _look(self, observation: Observation) -> F32:
        """Take note of what is observed now; SB3's view of it."""
        self.observation = observation
        self.users = self._features.users(observation)
        return self._encode(self.users)

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


class Paid:
    """Of a rollout buffer of SB3: what lanes owe for sessions that the horizon cut is paid once a rollout.

    Args:
        lanes: which fill it.
        args, kwargs: the buffer's.
    """

    rewards: F32

    def __init__(self, *args: Any, lanes: SB3Lanes, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lanes = lanes

    def compute_returns_and_advantage(self, *args: Any, **kwargs: Any) -> None:
        """As the buffer's, with what is owed."""
        self._lanes.pay(self.rewards)
        super().compute_returns_and_advantage(*args, **kwargs)  # type: ignore[misc]


class PaidRollouts(Paid, RolloutBuffer):
    """The buffer of PPO and A2C."""


def in_rollouts(
    settings: A2CSettings | PPOSettings | MaskablePPOSettings, lanes: SB3Lanes, buffer: type[Paid], budget: int
) -> dict[str, Any]:
    """What SB3's algorithms on a policy have in common: rollouts, what is made of them, and a buffer that lanes pay."""
    return {
        "n_steps": rollout_length(settings.n_steps, settings.num_envs, budget),
        "gae_lambda": settings.gae_lambda,
        "ent_coef": settings.ent_coef,
        "rollout_buffer_class": buffer,
        "rollout_buffer_kwargs": {"lanes": lanes},
    }


def clipped_in_rollouts(
    settings: PPOSettings | MaskablePPOSettings, lanes: SB3Lanes, buffer: type[Paid], budget: int
) -> dict[str, Any]:
    """The same of those that pass over a rollout several times, in batches, with clipped steps."""
    common = in_rollouts(settings, lanes, buffer, budget)
    return common | {
        "batch_size": even_batch(common["n_steps"] * lanes.num_envs, settings.batch_size),
        "n_epochs": settings.n_epochs,
        "clip_range": settings.clip_range,
    }


class _Points(BaseCallback):
    """Adds points to the learning curve, writes checkpoints between rounds, and stops when it is time."""

    def __init__(self, lesson: Lesson[M, P], policy: Callable[[M], P], places: int, budget: int) -> None:
        super().__init__()
        assert lesson.curve is not None
        self._lesson, self._curve, self._policy = lesson, lesson.curve, policy
        self._places, self._budget = places, budget

    def _on_rollout_start(self) -> None:
        # Here, and not in the middle of a round, all that SB3 knows hangs on the model.
        self._lesson.keep(self.model)  # type: ignore[arg-type]

    def _on_step(self) -> bool:
        steps = self.num_timesteps // self._places
        if self._curve.due(steps):
            self._curve.measure(steps, self._policy(self.model))  # type: ignore[arg-type]
        return steps < self._budget and not self._curve.over()


class ItemQNetwork(QNetwork):
    """SB3's Q-network whose output for all items is one matrix product."""

    def __init__(self, *args: Any, items: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        del self.q_net
        self.items = ItemHeads(**items)

    def forward(self, obs: Any) -> torch.Tensor:
        """[n, I] Q of every item."""
        return self.items(obs).mean(dim=1)


class ItemQuantileNetwork(QuantileNetwork):
    """The quantile network of sb3-contrib, likewise: one head for each quantile."""

    def __init__(self, *args: Any, items: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        del self.quantile_net
        self.items = ItemHeads(**items, heads=self.n_quantiles)

    def forward(self, obs: Any) -> FactoredScores:  # type: ignore[override]
        """[n, quantiles, I] quantiles of the return of every item."""
        return self.items(obs)


def fill_places(lanes: SB3Lanes | None, items: ItemHeads, seen: torch.Tensor) -> torch.Tensor:
    """Actions of the lanes that fill the places of one slate: lane k of a user takes his k-th best candidate."""
    assert lanes is not None
    top = seen[:: lanes.places].clone()
    top[:, -1] = 0.0
    scores = items(top).mean(dim=1)
    return torch.as_tensor(top_slates(scores.numpy(), lanes.observation).reshape(-1))


class SlateDQNPolicy(DQNPolicy):
    """SB3's policy on item features, whose lanes fill the places of a slate."""

    def __init__(self, *args: Any, lanes: SB3Lanes | None, items: dict[str, Any], **kwargs: Any) -> None:
        self._items = items
        super().__init__(*args, **kwargs)
        self._lanes = [lanes]  # in a list, so that SB3 does not take it for a part of the network

    def make_q_net(self) -> ItemQNetwork:
        """The network whose output is a matrix product."""
        arguments = self._update_features_extractor(self.net_args, features_extractor=None)
        return ItemQNetwork(**arguments, items=self._items).to(self.device)

    def _predict(self, observation: Any, deterministic: Any = True) -> torch.Tensor:  # noqa: FBT002  the base class's signature
        assert isinstance(self.q_net, ItemQNetwork)
        return fill_places(self._lanes[0], self.q_net.items, observation)


class SlateQRDQNPolicy(QRDQNPolicy):
    """sb3-contrib's policy on item features, whose lanes fill the places of a slate."""

    def __init__(self, *args: Any, lanes: SB3Lanes | None, items: dict[str, Any], **kwargs: Any) -> None:
        self._items = items
        super().__init__(*args, **kwargs)
        self._lanes = [lanes]

    def make_quantile_net(self) -> ItemQuantileNetwork:
        """The network whose output is a matrix product."""
        arguments = self._update_features_extractor(self.net_args, features_extractor=None)
        return ItemQuantileNetwork(**arguments, items=self._items).to(self.device)

    def _predict(self, obs: Any, deterministic: Any = True) -> torch.Tensor:  # noqa: FBT002  the base class's signature
        assert isinstance(self.quantile_net, ItemQuantileNetwork)
        return fill_places(self._lanes[0], self.quantile_net.items, obs)


class DoubleDQN(sb3.DQN):
    """SB3's DQN with the targets of double DQN (van Hasselt, Guez and Silver, 2016)."""

    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        """Gradient steps in which the best next item is named by the learned network and valued by the target."""
        target, learned = self.q_net_target, self.q_net

        def named_by_the_learned(seen: Any) -> torch.Tensor:
            """[n, 1]: SB3 takes the maximum of what it gets."""
            return target(seen).gather(1, learned(seen).argmax(dim=1, keepdim=True))

        self.q_net_target = named_by_the_learned  # type: ignore[assignment]
        try:
            super().train(gradient_steps, batch_size)
        finally:
            self.q_net_target = target


def q_lanes(training: Training, settings: QSettings, features: Features, scale: StateScale) -> SB3Lanes:
    """The train world as DQN sees it: each place of a slate is one of SB3's environments, its action an item."""
    places = training.slate_size
    discount = (1 / np.log2(2 + np.arange(places)) - 1).astype(np.float32)[:, None]  # [K, 1], 0 at the top

    def encode(users: UserBlocks) -> F32:
        state = users.state()
        n = len(state)
        return np.concatenate([np.repeat(state, places, axis=0), np.tile(discount, (n, 1))], axis=1)

    return SB3Lanes(
        Lanes(training, settings.num_envs, seed=training.seed),
        features,
        spaces.Box(-np.inf, np.inf, (len(scale.mean) + 1,), np.float32),
        spaces.Discrete(features.n_items),
        places=places,
        encode=encode,
        slates=lambda actions, users, observation: actions.reshape(-1, places).astype(np.int64),
        rewards=lambda clicks: clicks.reshape(-1),
    )


def q_model(
    settings: QSettings, lanes: SB3Lanes, features: Features, scale: StateScale, *, budget: int, seed: int
) -> sb3.DQN | QRDQN:
    """SB3's DQN or sb3-contrib's QR-DQN for these settings, untrained; `budget` in user-steps."""
    policy = {
        "lanes": lanes,
        "items": {
            "features": features,
            "scale": scale,
            "hidden_size": settings.hidden_size,
            "embedding_size": settings.embedding_size,
            "centred": isinstance(settings, DQNSettings) and settings.duelling,
        },
        "optimizer_class": torch.optim.AdamW,
        "optimizer_kwargs": {"weight_decay": settings.weight_decay},
    }
    total = budget * lanes.places
    common: dict[str, Any] = {
        "learning_rate": settings.learning_rate,
        "buffer_size": settings.buffer_size,
        "learning_starts": min(10 * lanes.num_envs, total // 10),
        "batch_size": settings.batch_size,
        "gamma": settings.gamma,
        "train_freq": (1, "step"),
        "gradient_steps": settings.gradient_steps,
        "target_update_interval": lanes.num_envs,
        "tau": settings.tau,
        "exploration_fraction": settings.exploration_fraction,
        "exploration_final_eps": settings.exploration_final_eps,
        "seed": seed % 2**32,
        "device": "cpu",
    }
    if isinstance(settings, QRDQNSettings):
        policy["n_quantiles"] = settings.n_quantiles
        return QRDQN(SlateQRDQNPolicy, lanes, policy_kwargs=policy, **common)
    assert isinstance(settings, DQNSettings)
    kind = DoubleDQN if settings.double else sb3.DQN
    return kind(SlateDQNPolicy, lanes, policy_kwargs=policy, n_steps=settings.n_steps, **common)


def train_q(training: Training, settings: QSettings, features: Features, scale: StateScale, *, budget: int) -> ItemQ:
    """DQN or QR-DQN in the train world for `budget` user-steps."""
    # At least one quantile is averaged, however small the share.
    heads = max(1, round(settings.risk * settings.n_quantiles)) if isinstance(settings, QRDQNSettings) else 1

    def begin() -> sb3.DQN | QRDQN:
        lanes = q_lanes(training, settings, features, scale)
        return q_model(settings, lanes, features, scale, budget=budget, seed=training.seed)

    def arrays(model: sb3.DQN | QRDQN) -> ItemQ:
        # The running average, which moves less by the luck of the last batches.
        network = model.q_net_target if isinstance(model, sb3.DQN) else model.quantile_net_target
        items = network.items
        assert isinstance(items, ItemHeads)
        return items.as_arrays(features, scale, heads=heads)

    with one_seeded_thread(training.seed):
        return learn(training, begin, arrays, greedy_on, places=training.slate_size, budget=budget)


def value_after(model: OnPolicyAlgorithm) -> Callable[[F32], F32]:
    """What the algorithm's critic says of observations [m, s], discounted by one step: [m]."""

    def value(seen: F32) -> F32:
        with torch.no_grad():
            found: F32 = model.policy.predict_values(torch.as_tensor(seen)).numpy()[:, 0]
        return model.gamma * found

    return value


def rollout_length(n_steps: int, num_envs: int, budget: int) -> int:
    """Slates of each user between updates: eight updates at least, also where the budget is small."""
    return max(2, min(n_steps, budget // (8 * num_envs)))


def even_batch(rows: int, most: int) -> int:
    """The largest batch of at most `most` rows that divides them, so that no gradient step is made of a few rows."""
    return next(rows // parts for parts in range(-(-rows // most), rows + 1) if rows % parts == 0)


def learn(
    training: Training,
    begin: Callable[[], M],
    policy: Callable[[M], P],
    act: Callable[[P], Act],
    *,
    places: int,
    budget: int,
) -> P:
    """Train SB3's model for `budget` user-steps, with points of the learning curve from the untrained policy on.

    Args:
        training: as in `teach`.
        begin: makes the model with its lanes.
        policy: the model's policy as it is now, without torch.
        act: how such a policy shows slates.
        places: SB3 environments for each user.
        budget: user-steps of the whole training.

    Returns:
        The policy that is to be judged.
    """
    curve = Curve(training, budget, act)
    lesson: Lesson[M, P] = Lesson(training, curve)
    try:
        model = lesson.begin(begin, policy)
        if model is None:
            assert lesson.result is not None
            return lesson.result
        left = budget * places - model.num_timesteps
        if left > 0 and not curve.over():
            model.learn(
                total_timesteps=left,
                callback=_Points(lesson, policy, places, budget),
                log_interval=1_000_000,
                reset_num_timesteps=model.num_timesteps == 0,
            )
        return lesson.end(model.num_timesteps // places, policy(model))
    finally:
        curve.close()
