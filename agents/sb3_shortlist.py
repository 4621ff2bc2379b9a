"""Training of maskable PPO by sb3-contrib over retrieved shortlists."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.buffers import MaskableRolloutBuffer
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from torch import nn

from agents.base import Observation, Training
from agents.deep_rl import StateScale
from agents.features import UserBlocks
from agents.item_networks import layers_of
from agents.sb3_adapter import Paid, SB3Lanes, clipped_in_rollouts, learn, one_seeded_thread, value_after
from agents.shortlist import MaskablePPOSettings, Shortlist, ShortlistPolicy, shortlist_slates
from agents.train_world import Act, Lanes

F32 = NDArray[np.float32]


class ShortlistLanes(SB3Lanes):
    """Lanes each of which sees the state, its place and its share of the user's shortlist, and chooses one of it.

    Args:
        lanes: the train world.
        shortlist: retrieves the items.
        scale: of the state.
    """

    def __init__(self, lanes: Lanes, shortlist: Shortlist, scale: StateScale) -> None:
        places = lanes.slate_size
        self._shortlist, self._scale = shortlist, scale
        self._discount = (1 / np.log2(2 + np.arange(places)) - 1).astype(np.float32)[:, None]  # [K, 1], 0 at the top
        self.options = shortlist.size // places
        self._items: NDArray[np.int64] = np.zeros((0, places, self.options), np.int64)
        size = len(scale.mean) + 1 + self.options * shortlist.width
        super().__init__(
            lanes,
            shortlist.features,
            spaces.Box(-np.inf, np.inf, (size,), np.float32),
            spaces.Discrete(self.options),
            places=places,
            encode=self._without_items,
            slates=self._chosen,
            rewards=lambda clicks: clicks.reshape(-1),
        )

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """The one method that sb3-contrib calls: which of its options each lane has."""
        assert method_name == "action_masks", method_name
        return list((self._items >= 0).reshape(self.num_envs, self.options))

    def _look(self, observation: Observation) -> F32:
        seen = super()._look(observation)
        items = self._shortlist.items(self.users, observation)
        read = self._shortlist.inputs(self.users, items)
        n, width = len(observation), self._shortlist.width
        # Item r of the shortlist is option r // K of place r % K.
        self._items = items.reshape(n, self.options, self.places).transpose(0, 2, 1)
        dealt = read.reshape(n, self.options, self.places, width).transpose(0, 2, 1, 3)
        seen[:, -self.options * width :] = dealt.reshape(n * self.places, -1)
        return seen

    def _without_items(self, users: UserBlocks) -> F32:
        """What is known of a state whose next slate is not asked for; values are read from it alone."""
        state = self._scale(users)
        items = np.zeros((len(state) * self.places, self.options * self._shortlist.width), np.float32)
        return np.concatenate(
            [np.repeat(state, self.places, axis=0), np.tile(self._discount, (len(state), 1)), items], axis=1
        )

    def _chosen(self, actions: NDArray[Any], users: UserBlocks, observation: Observation) -> NDArray[np.int64]:
        chosen = actions.reshape(-1, self.places, 1).astype(np.int64)
        return np.take_along_axis(self._items, chosen, axis=2)[:, :, 0]


class ShortlistHeads(nn.Module):
    """Logits of a lane's options and a hidden layer for its value; the same function as `ShortlistPolicy`."""

    def __init__(self, state_size: int, width: int, *, hidden_size: int, embedding_size: int) -> None:
        super().__init__()
        self._state_size, self._width = state_size, width
        self.state_network = nn.Sequential(
            nn.Linear(state_size, hidden_size), nn.Tanh(), nn.Linear(hidden_size, width + embedding_size)
        )
        self.item_network = nn.Sequential(
            nn.Linear(width, hidden_size), nn.Tanh(), nn.Linear(hidden_size, embedding_size)
        )
        self.value_network = nn.Sequential(nn.Linear(state_size, hidden_size), nn.Tanh())
        with torch.no_grad():
            # A small start: nothing is known, so no option is far ahead of another.
            last = self.state_network[-1]
            assert isinstance(last, nn.Linear)
            last.weight.mul_(0.01)
            last.bias.zero_()

    def forward(self, seen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """[n, m] logits and [n, h]."""
        return self.forward_actor(seen), self.forward_critic(seen)

    def forward_actor(self, seen: torch.Tensor) -> torch.Tensor:
        """[n, m] logits of the options."""
        items = seen[:, self._state_size :].reshape(len(seen), -1, self._width)
        read = torch.cat([items, self.item_network(items)], dim=2)
        return (read @ self.state_network(seen[:, : self._state_size])[:, :, None])[:, :, 0]

    def forward_critic(self, seen: torch.Tensor) -> torch.Tensor:
        """[n, h] from the state alone."""
        out: torch.Tensor = self.value_network(seen[:, : self._state_size])
        return out


class PaidMaskableRollouts(Paid, MaskableRolloutBuffer):
    """The buffer of MaskablePPO."""


class ShortlistActorCritic(MaskableActorCriticPolicy):
    """sb3-contrib's policy with networks that read items, so that an option is what it is, not where it stands."""

    def __init__(self, *args: Any, heads: dict[str, int], **kwargs: Any) -> None:
        self._heads = heads
        super().__init__(*args, **kwargs)

    def _build(self, lr_schedule: Any) -> None:
        self.mlp_extractor: Any = ShortlistHeads(**self._heads)
        self.action_net: Any = nn.Identity()  # the extractor's output is the logits
        self.value_net = nn.Linear(self._heads["hidden_size"], 1)
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)  # type: ignore[call-arg]


def shortlist_model(
    settings: MaskablePPOSettings, lanes: SB3Lanes, shortlist: Shortlist, scale: StateScale, *, budget: int, seed: int
) -> MaskablePPO:
    """sb3-contrib's algorithm for these settings, untrained; `budget` in user-steps."""
    model = MaskablePPO(
        ShortlistActorCritic,
        lanes,
        learning_rate=settings.learning_rate,
        gamma=settings.gamma,
        **clipped_in_rollouts(settings, lanes, PaidMaskableRollouts, budget),
        policy_kwargs={
            "heads": {
                "state_size": len(scale.mean) + 1,
                "width": shortlist.width,
                "hidden_size": settings.hidden_size,
                "embedding_size": settings.embedding_size,
            }
        },
        seed=seed % 2**32,
        device="cpu",
    )
    lanes.pay_on(value_after(model))
    return model


def train_maskable_ppo(
    training: Training, settings: MaskablePPOSettings, shortlist: Shortlist, scale: StateScale, *, budget: int
) -> ShortlistPolicy:
    """MaskablePPO in the train world for `budget` user-steps; each place of a slate is one of SB3's environments."""

    def begin() -> MaskablePPO:
        lanes = ShortlistLanes(Lanes(training, settings.num_envs, seed=training.seed), shortlist, scale)
        return shortlist_model(settings, lanes, shortlist, scale, budget=budget, seed=training.seed)

    def arrays(model: MaskablePPO) -> ShortlistPolicy:
        heads = model.policy.mlp_extractor
        assert isinstance(heads, ShortlistHeads)
        state, item = layers_of([*heads.state_network], "tanh"), layers_of([*heads.item_network], "tanh")
        return ShortlistPolicy(scale, state, item)

    def act(policy: ShortlistPolicy) -> Act:
        return lambda observation, rng: shortlist_slates(shortlist, policy, observation)

    with one_seeded_thread(training.seed):
        return learn(training, begin, arrays, act, places=training.slate_size, budget=budget)
