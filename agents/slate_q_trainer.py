"""Training of SlateQ by torch: a choice model and item-wise values, from slates shown in the train world."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from agents.base import Observation, Training
from agents.deep_rl import StateScale
from agents.features import Features
from agents.item_networks import ItemHeads, StateValue, move_target
from agents.slate_q import SlateQSettings, SlateValue, best_of_one
from agents.slates import top_slates
from agents.teaching import teach
from agents.train_world import Act, Lanes
from simulator.encoders.tuning import one_thread

F32 = NDArray[np.float32]
Ints = NDArray[np.int64]

OPTIONS = 5
"""Slates that the options fill among which the best slate of a state that follows is looked for."""


@dataclass(slots=True)
class Shown:
    """The newest slates and what came of them: rings of as many rows as are kept.

    Attributes:
        size: rows kept; count: rows taken in so far.
        columns: state [size, s + 1], slates [size, K], clicks [size, K], following [size, s + 1], next_slates
            [size, K] or the options [size, M] of what is shown next, done [size].
    """

    size: int
    count: int = 0
    columns: dict[str, NDArray[np.generic]] = field(default_factory=dict)

    def take_in(self, **rows: NDArray[np.generic]) -> None:
        """Add rows, over the oldest ones where it is full."""
        m = len(rows["done"])
        at = (self.count + np.arange(m)) % self.size
        for name, values in rows.items():
            if name not in self.columns:
                self.columns[name] = np.zeros((self.size, *values.shape[1:]), values.dtype)
            self.columns[name][at] = values
        self.count += m

    def draw(self, m: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        """So many rows, any of them more than once."""
        rows = rng.integers(0, min(self.count, self.size), m)
        return {name: torch.as_tensor(values[rows]) for name, values in self.columns.items()}


def train_slate_q(
    training: Training, settings: SlateQSettings, features: Features, scale: StateScale, *, budget: int
) -> SlateValue:
    """SlateQ in the train world for `budget` user-steps."""
    with one_thread(training.seed):
        return teach(training, lambda: _Learner(training, settings, features, scale, budget), _greedy, budget=budget)


def _greedy(value: SlateValue) -> Act:
    return lambda observation, rng: value.slates(observation)


class _Learner:
    def __init__(
        self, training: Training, settings: SlateQSettings, features: Features, scale: StateScale, budget: int
    ) -> None:
        self.steps, self._budget = 0, budget
        self._training, self._settings, self._features, self._scale = training, settings, features, scale
        sizes: dict[str, Any] = {"hidden_size": settings.hidden_size, "embedding_size": settings.embedding_size}
        self._choice = ItemHeads(features, scale, **sizes)
        # What the choice of an item adds in the long run less its click, and the value where nothing is chosen.
        self._values = nn.ModuleList(
            [ItemHeads(features, scale, **sizes), StateValue(scale, hidden_size=settings.hidden_size)]
        )
        self._target = deepcopy(self._values)
        parameters = [*self._choice.parameters(), *self._values.parameters()]
        self._optimiser = torch.optim.Adam(parameters, lr=settings.learning_rate)
        self._discount = torch.as_tensor((1 / np.log2(2 + np.arange(training.slate_size)) - 1).astype(np.float32))
        self._shown = Shown(settings.buffer_size)
        self._lanes = Lanes(training, settings.num_envs, seed=training.seed)
        observation = self._lanes.reset()
        self._now, self._slates = self._state(observation), self._explore(observation, self.policy, 1.0)

    def policy(self) -> SlateValue:
        """What it learned, without torch."""
        worth = self._target[0]
        assert isinstance(worth, ItemHeads)
        return SlateValue(
            self._choice.as_arrays(self._features, self._scale),
            worth.as_arrays(self._features, self._scale),
            self._settings.choice == "one",
        )

    def advance(self) -> bool:
        """Show slates, and make gradient steps on the newest ones."""
        settings, rng = self._settings, self._training.rng
        step = self._lanes.step(self._slates)
        self.steps += len(self._slates)
        over = self.steps / max(settings.exploration_fraction * self._budget, 1.0)
        epsilon = max(settings.exploration_final_eps, 1 - (1 - settings.exploration_final_eps) * over)
        following = self._state(step.observation)  # where a session ended its value does not count
        value = cache(self.policy)  # it reads every item, so it is made only where it is asked for
        next_slates = self._explore(step.observation, value, epsilon)
        options = {}
        if settings.target == "q_learning":
            options["options"] = value().options(step.observation, OPTIONS * next_slates.shape[1])
        self._shown.take_in(
            state=self._now,
            slates=self._slates,
            clicks=step.clicks,
            following=following,
            next_slates=next_slates,
            done=step.done,
            **options,
        )
        for _ in range(settings.gradient_steps):
            self._gradient_step(self._shown.draw(settings.batch_size, rng))
        self._now, self._slates = following, next_slates
        return True

    def _gradient_step(self, batch: dict[str, torch.Tensor]) -> None:
        state, slates, clicks = batch["state"], batch["slates"], batch["clicks"]
        logits = self._logits(state, slates)
        there = slates >= 0
        if self._settings.choice == "one":
            # Nothing chosen is one more alternative, of logit 0; of several clicks the first counts.
            every = torch.cat([logits.masked_fill(~there, -torch.inf), torch.zeros(len(logits), 1)], dim=1)
            chosen = torch.cat([clicks, torch.ones(len(clicks), 1)], dim=1).argmax(dim=1)
            choice_loss = functional.cross_entropy(every, chosen)
        else:
            choice_loss = functional.binary_cross_entropy_with_logits(logits[there], clicks[there])
        loss = choice_loss + functional.mse_loss(self._expected(batch), self._target_of(batch))
        self._optimiser.zero_grad()
        loss.backward()
        self._optimiser.step()
        move_target(self._target, self._values, self._settings.tau)

    def _expected(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """[m] value of the slates as they were clicked, or as they were shown."""
        if self._settings.credit == "shown":
            return self._value_of(batch["state"], batch["slates"], self._values)
        worth, nothing = self._values
        assert isinstance(worth, ItemHeads)
        added = batch["clicks"] * (1 + worth.at(batch["state"], batch["slates"].clamp(min=0)))
        value: torch.Tensor = nothing(batch["state"]) + added.sum(dim=1)
        return value

    def _target_of(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """[m] clicks on the slates and, discounted, the value of what follows where the session goes on."""
        goes_on = self._settings.gamma * (~batch["done"]).float()
        return batch["clicks"].sum(dim=1) + goes_on * self._value_after(batch)

    def _value_after(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """[m] value of the state that follows: with the slate shown there, or with the best one of its options."""
        following, slates = batch["following"], batch["next_slates"]
        with torch.no_grad():
            if self._settings.target == "q_learning":
                slates = self._best(following, batch["options"], slates.shape[1])
            return self._value_of(following, slates, self._target)

    def _value_of(self, state: torch.Tensor, slates: torch.Tensor, values: nn.ModuleList) -> torch.Tensor:
        """[m] value of slates before they are clicked: without a click, and what each item adds by its chance."""
        worth, nothing = values
        assert isinstance(worth, ItemHeads)
        with torch.no_grad():  # the choice model learns from choices alone
            logits = self._logits(state, slates)
            if self._settings.choice == "one":
                weight = torch.where(slates >= 0, logits.exp(), 0)
                chance = weight / (1 + weight.sum(dim=1, keepdim=True))
            else:
                chance = torch.where(slates >= 0, torch.sigmoid(logits), 0)
        of_shown = 1 + worth.at(state, slates.clamp(min=0))
        value: torch.Tensor = nothing(state) + (chance * of_shown).sum(dim=1)
        return value

    def _best(self, state: torch.Tensor, options: torch.Tensor, slate_size: int) -> torch.Tensor:
        """[m, K] slate of highest value that the options [m, M] make."""
        worth = self._target[0]
        assert isinstance(worth, ItemHeads)
        items, there = options.clamp(min=0), options >= 0
        logits, value = self._choice.at(state, items), 1 + worth.at(state, items)
        if self._settings.choice == "one":
            at = torch.as_tensor(best_of_one(logits.numpy(), value.numpy(), there.numpy(), slate_size))
        else:
            at = (torch.sigmoid(logits) * value).masked_fill(~there, -torch.inf).topk(slate_size, dim=1).indices
        return options.gather(1, at.clamp(min=0)).masked_fill(at < 0, -1)

    def _logits(self, state: torch.Tensor, slates: torch.Tensor) -> torch.Tensor:
        """[m, K] logit of the choice of each shown item at its place."""
        at_place = torch.repeat_interleave(state, slates.shape[1], dim=0)
        at_place[:, -1] = self._discount.repeat(len(slates))
        return self._choice.at(at_place, slates.clamp(min=0).reshape(-1, 1)).view(slates.shape)

    def _explore(self, observation: Observation, value: Callable[[], SlateValue], epsilon: float) -> Ints:
        """[n, K] the slates of highest value, or any for a share of the users."""
        rng = self._training.rng
        blind = rng.random(len(observation)) < epsilon
        noise = rng.random((len(observation), self._features.n_items), dtype=np.float32)
        anything = top_slates(noise, observation)
        if blind.all():
            return anything
        return np.where(blind[:, None], anything, value().slates(observation))

    def _state(self, observation: Observation) -> F32:
        """[n, s + 1] with the discount of the top place, for which the networks have an input."""
        state = self._features.users(observation).state()
        return np.concatenate([state, np.zeros((len(state), 1), np.float32)], axis=1)
