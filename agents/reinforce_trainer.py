"""Training of REINFORCE by torch: slates drawn in the train world, rows drawn from the log, one gradient for both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from agents.base import Observation, Training
from agents.deep_rl import ItemQ, StateScale, greedy_on
from agents.features import Features
from agents.item_networks import ItemHeads
from agents.logged_choices import LoggedChoices, discounted_rows
from agents.reinforce import ReinforceSettings
from agents.slates import masked, top_slates
from agents.teaching import teach
from agents.train_world import Lanes
from simulator.encoders.tuning import one_thread

F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Slates:
    """What n users did with the slates of one step.

    Attributes:
        state: [n, s + 1]; candidates: [n, I] bool; slates: [n, K]; chance: [n, K] log of each item's chance when drawn.
        clicks: [n, K]; done: [n] the session ended.
    """

    state: F32
    candidates: NDArray[np.bool_]
    slates: NDArray[np.int64]
    chance: F32
    clicks: F32
    done: NDArray[np.bool_]


def train_reinforce(
    training: Training, settings: ReinforceSettings, features: Features, scale: StateScale, *, budget: int
) -> ItemQ:
    """REINFORCE for `budget` user-steps; returns the network whose scores are the policy's logits."""
    with one_thread(training.seed):
        return teach(training, lambda: _Learner(training, settings, features, scale, budget), greedy_on, budget=budget)


class _Learner:
    def __init__(
        self, training: Training, settings: ReinforceSettings, features: Features, scale: StateScale, budget: int
    ) -> None:
        self.steps, self._budget = 0, budget
        self._training, self._settings, self._features, self._scale = training, settings, features, scale
        sizes: dict[str, Any] = {"hidden_size": settings.hidden_size, "embedding_size": settings.embedding_size}
        self._policy = ItemHeads(features, scale, **sizes)
        self._behaviour = ItemHeads(features, scale, **sizes)
        networks = [*self._policy.parameters(), *self._behaviour.parameters()]
        self._optimizer = torch.optim.Adam(networks, lr=settings.learning_rate)
        at_once = settings.batch_size if settings.log_share == 1 else settings.num_envs
        steps = max(1, -(-budget // at_once))
        self._falling = torch.optim.lr_scheduler.LinearLR(self._optimizer, 1.0, 0.0, total_iters=steps)
        self._choices = LoggedChoices.of(training, features)
        self._returns_of_rows = discounted_rows(training.log, settings.gamma)
        self._lanes: Lanes | None = None
        if settings.log_share < 1:
            self._lanes = Lanes(training, settings.num_envs, seed=training.seed)
            self._observation = self._lanes.reset()

    def policy(self) -> ItemQ:
        """The policy without torch."""
        return self._policy.as_arrays(self._features, self._scale)

    def advance(self) -> bool:
        """Draw slates, then a gradient step for each step of the users, mixed with rows of the log; or these alone."""
        share = self._settings.log_share
        if self._lanes is None:
            self._step(self._log_loss())
            self.steps += self._settings.batch_size
            return True
        steps: list[Slates] = []
        for _ in range(min(self._settings.n_steps, -(-(self._budget - self.steps) // self._settings.num_envs))):
            drawn, self._observation = self._draw(self._lanes, self._observation)
            steps.append(drawn)
        for step, returns in zip(steps, self._returns(steps), strict=True):
            loss = self._slate_loss(step, returns)
            if share > 0:
                loss = (1 - share) * loss + share * self._log_loss()
            self._step(loss)
        self.steps += len(steps) * len(self._observation)
        return True

    def _draw(self, lanes: Lanes, observation: Observation) -> tuple[Slates, Observation]:
        """Show each user K items drawn without repeats: the K highest of logit plus Gumbel noise."""
        state = self._state(observation)
        with torch.no_grad():
            logits = self._policy(torch.as_tensor(state)).mean().numpy()
        noise = self._training.rng.gumbel(size=logits.shape).astype(np.float32)
        slates = top_slates(logits + noise, observation)
        open_to = masked(logits, observation)
        chance = torch.log_softmax(torch.as_tensor(open_to), dim=1).numpy()
        step = lanes.step(slates)
        assert observation.candidates is not None
        drawn = Slates(
            state,
            observation.candidates.copy(),
            slates,
            np.take_along_axis(chance, np.maximum(slates, 0), axis=1),
            step.clicks,
            step.done,
        )
        return drawn, step.observation

    def _returns(self, steps: list[Slates]) -> list[F32]:
        """[n, K] of each step: an item's click and, discounted, the mean clicks on the session's later slates."""
        returns = []
        later = np.zeros(len(steps[-1].done), np.float32)
        for step in reversed(steps):
            later = np.where(step.done, 0, later)
            returns.append(step.clicks + self._settings.gamma * later[:, None])
            later = step.clicks.mean(axis=1) + self._settings.gamma * later
        return returns[::-1]

    def _slate_loss(self, step: Slates, returns: F32) -> torch.Tensor:
        shown = torch.as_tensor(step.slates >= 0)
        logits = self._policy(torch.as_tensor(step.state)).mean()
        logits = logits.masked_fill(~torch.as_tensor(step.candidates), -torch.inf)
        chance = torch.log_softmax(logits, dim=1).gather(1, torch.as_tensor(np.maximum(step.slates, 0)))
        # Lower places are looked at less, so each is compared with its own mean.
        advantage = torch.as_tensor((returns - returns.mean(axis=0)) / max(float(returns.std()), 1e-3))
        surrogate = self._surrogate(chance, torch.as_tensor(step.chance), advantage)
        return -surrogate[shown].mean()

    def _log_loss(self) -> torch.Tensor:
        """Loss of the policy on rows of the log, and of the behaviour policy that explains their choice."""
        log = self._training.log
        rows = self._training.rng.integers(0, len(log), self._settings.batch_size)
        state = torch.as_tensor(self._choices.states(rows))
        item = torch.as_tensor(log.item[rows])
        chance = self._chance_of(self._policy, state, item)
        behaviour = self._chance_of(self._behaviour, state, item)
        returns = self._returns_of_rows[rows]
        advantage = torch.as_tensor((returns - returns.mean()) / max(float(returns.std()), 1e-3))
        if log.propensity is None:
            logged = behaviour.detach()
        else:
            logged = torch.as_tensor(np.log(log.propensity[rows]), dtype=torch.float32)
        return -self._surrogate(chance, logged, advantage).mean() - behaviour.mean()

    def _surrogate(self, chance: torch.Tensor, logged: torch.Tensor, advantage: torch.Tensor) -> torch.Tensor:
        """What the gradient is taken of: log-chance times weight, lambda_K and advantage, the factors held fixed."""
        if not self._settings.correction:
            return chance * advantage
        with torch.no_grad():
            weight = torch.exp(chance - logged).clamp(max=self._settings.cap)
            slate_size = self._training.slate_size
            top_k = slate_size * (1 - chance.exp()) ** (slate_size - 1)
        return weight * top_k * chance * advantage

    def _chance_of(self, network: ItemHeads, state: torch.Tensor, item: torch.Tensor) -> torch.Tensor:
        return -functional.cross_entropy(network(state).mean(), item, reduction="none")

    def _state(self, observation: Observation) -> F32:
        """[n, s + 1] with the discount of the top place, for which the item networks have an input."""
        state = self._features.users(observation).state()
        return np.concatenate([state, np.zeros((len(state), 1), np.float32)], axis=1)

    def _step(self, loss: torch.Tensor) -> None:
        self._optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._policy.parameters(), 1.0)
        self._optimizer.step()
        self._falling.step()
