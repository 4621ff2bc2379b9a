"""Training of the offline agents by torch: one loop over the log's rows, and an objective for each algorithm."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from agents.base import Training
from agents.deep_rl import ItemQ, StateScale, greedy_on
from agents.features import Features
from agents.item_networks import ItemHeads, StateValue, move_target
from agents.logged_choices import LoggedChoices, Transitions, discounted_rows
from agents.offline import BehaviourCloningSettings, CQLSettings, IQLSettings, OfflineSettings
from agents.teaching import teach
from simulator.encoders.tuning import one_thread


@dataclass(frozen=True, slots=True)
class Batch:
    """m rows of the log as tensors.

    Attributes:
        choices: the log that they are of.
        rows: [m] of the log.
        state: [m, s + 1] before each row; following: [m, s + 1] where the user is next decided for.
        item: [m] taken; reward: [m] of `n_steps` rows; discount: [m] of the value at `following`.
    """

    choices: LoggedChoices
    rows: np.ndarray
    state: torch.Tensor
    following: torch.Tensor
    item: torch.Tensor
    reward: torch.Tensor
    discount: torch.Tensor

    @classmethod
    def of(cls, choices: LoggedChoices, rows: np.ndarray, came: Transitions) -> Batch:
        """The rows with what came of them."""
        return cls(
            choices,
            rows,
            torch.as_tensor(choices.states(rows)),
            torch.as_tensor(choices.states(came.following)),
            torch.as_tensor(came.item),
            torch.as_tensor(came.reward),
            torch.as_tensor(came.discount),
        )

    @property
    def met(self) -> torch.Tensor:
        """[m, I] items that cannot come next, as the user has met them; not every objective reads so much."""
        return torch.as_tensor(self.choices.met(self.rows))


class Objective(Protocol):
    """What an algorithm minimises.

    Attributes:
        learned: networks that the optimiser moves.
        acting: the one whose scores are shown.
        gamma: discount a row; n_steps: rows that are summed.
    """

    learned: nn.Module
    acting: ItemHeads
    gamma: float
    n_steps: int

    def loss(self, batch: Batch) -> torch.Tensor:
        """Of a batch; the sum of all networks' losses."""
        ...

    def follow(self) -> None:
        """Move the targets after a gradient step."""
        ...


def train_offline(
    training: Training, settings: OfflineSettings, features: Features, scale: StateScale, *, budget: int
) -> ItemQ:
    """Gradient steps on `budget` rows drawn from the log; returns the network whose scores are shown."""

    def begin() -> _Rows:
        return _Rows(training, settings, features, scale, budget)

    with one_thread(training.seed):
        return teach(training, begin, greedy_on, budget=budget)


class RowLearner:
    """Gradient steps on rows of the log, whose size falls to nothing at the end of the budget.

    Args:
        settings: step and size of a batch.
        learned: whose parameters move.
        budget: rows of the whole training.
    """

    def __init__(self, settings: OfflineSettings, learned: nn.Module, budget: int) -> None:
        self.steps = 0
        self._batch_size, self._budget, self._learned = settings.batch_size, budget, learned
        self._optimiser = torch.optim.AdamW(
            learned.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        steps = max(1, -(-budget // settings.batch_size))
        self._falling = torch.optim.lr_scheduler.LinearLR(self._optimiser, 1.0, 0.0, total_iters=steps)

    def loss(self, size: int) -> torch.Tensor:
        """Loss of a batch of so many rows, which it draws."""
        raise NotImplementedError

    def follow(self) -> None:
        """Called after each gradient step."""

    def advance(self) -> bool:
        """One gradient step."""
        size = min(self._batch_size, self._budget - self.steps)
        self._optimiser.zero_grad()
        self.loss(size).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._learned.parameters(), 1.0)
        self._optimiser.step()
        self._falling.step()
        self.follow()
        self.steps += size
        return True


class _Rows(RowLearner):
    """One of the three algorithms, with what it reads."""

    def __init__(
        self, training: Training, settings: OfflineSettings, features: Features, scale: StateScale, budget: int
    ) -> None:
        self._choices = LoggedChoices.of(training, features)
        self._objective = objective_of(settings, features, scale)
        self._drawn_from, self._rng = rows_of(settings, training), training.rng
        self._features, self._scale = features, scale
        super().__init__(settings, self._objective.learned, budget)

    def loss(self, size: int) -> torch.Tensor:
        objective = self._objective
        rows = self._rng.choice(self._drawn_from, size)
        came = self._choices.transitions(rows, gamma=objective.gamma, n_steps=objective.n_steps)
        return objective.loss(Batch.of(self._choices, rows, came))

    def follow(self) -> None:
        self._objective.follow()

    def policy(self) -> ItemQ:
        return self._objective.acting.as_arrays(self._features, self._scale)


def log_chance(network: ItemHeads, state: torch.Tensor, item: torch.Tensor) -> torch.Tensor:
    """[m] log of the chance of each row's item, by a softmax over the catalogue."""
    return -functional.cross_entropy(network(state).mean(), item, reduction="none")


def surprise_of_unmet(logits: torch.Tensor, met: torch.Tensor, item: torch.Tensor) -> torch.Tensor:
    """[m] minus the log of the chance of each row's item [m] among those that the user has not met, met [m, I]."""
    return functional.cross_entropy(logits.masked_fill(met, -torch.inf), item, reduction="none")


def objective_of(settings: OfflineSettings, features: Features, scale: StateScale) -> Objective:
    """The algorithm that these settings belong to."""

    def heads(count: int = 1) -> ItemHeads:
        return ItemHeads(
            features,
            scale,
            hidden_size=settings.hidden_size,
            embedding_size=settings.embedding_size,
            heads=count,
        )

    if isinstance(settings, CQLSettings):
        return _Conservative(settings, heads())
    if isinstance(settings, IQLSettings):
        value = StateValue(scale, hidden_size=settings.hidden_size)
        return _Implicit(settings, policy=heads(), q=heads(2), value=value)
    assert isinstance(settings, BehaviourCloningSettings)
    return _Imitation(settings, heads())


class _Imitation:
    """The items of the log are to be likely."""

    def __init__(self, settings: BehaviourCloningSettings, policy: ItemHeads) -> None:
        self.learned: nn.Module = policy
        self.acting = policy
        self.gamma, self.n_steps = settings.gamma, 1

    def loss(self, batch: Batch) -> torch.Tensor:
        return surprise_of_unmet(self.acting(batch.state).mean(), batch.met, batch.item).mean()

    def follow(self) -> None:
        pass


class _Conservative:
    """Error of (double) DQN, and the log-sum-exp of Q against the Q of what was taken."""

    def __init__(self, settings: CQLSettings, q: ItemHeads) -> None:
        self._settings = settings
        self.learned: nn.Module = q
        self.acting = deepcopy(q)  # the running average, which moves less by the luck of the last batches
        self.gamma, self.n_steps = settings.gamma, settings.n_steps

    def loss(self, batch: Batch) -> torch.Tensor:
        every = self.learned(batch.state).mean()
        taken = every.gather(1, batch.item[:, None])[:, 0]
        with torch.no_grad():
            following = self.acting(batch.following).mean()
            named = self.learned(batch.following).mean() if self._settings.double else following
            best = following.gather(1, named.argmax(dim=1, keepdim=True))[:, 0]
            target = batch.reward + batch.discount * best
        pushed_down = torch.logsumexp(every, dim=1) - taken
        return 0.5 * functional.mse_loss(taken, target) + self._settings.alpha * pushed_down.mean()

    def follow(self) -> None:
        move_target(self.acting, self.learned, self._settings.tau)


class _Implicit:
    """Expectile of Q as value, Q by the next state's value, and the policy by exponential advantages."""

    def __init__(self, settings: IQLSettings, *, policy: ItemHeads, q: ItemHeads, value: StateValue) -> None:
        self._settings, self._q, self._value = settings, q, value
        self._target = deepcopy(q)
        self.learned: nn.Module = nn.ModuleList([policy, q, value])
        self.acting = policy
        self.gamma, self.n_steps = settings.gamma, settings.n_steps

    def loss(self, batch: Batch) -> torch.Tensor:
        item = batch.item[:, None, None].expand(-1, 2, 1)
        with torch.no_grad():
            q = self._target(batch.state).gather(2, item).amin(dim=(1, 2))
            target = batch.reward + batch.discount * self._value(batch.following)
        advantage = q - self._value(batch.state)
        share = torch.where(advantage > 0, self._settings.expectile, 1 - self._settings.expectile)
        value_loss = (share * advantage**2).mean()
        q_loss = functional.mse_loss(self._q(batch.state).gather(2, item)[..., 0], target[:, None].expand(-1, 2))
        weight = torch.exp(self._settings.beta * advantage.detach()).clamp(max=self._settings.largest_weight)
        policy_loss = -(weight * log_chance(self.acting, batch.state, batch.item)).mean()
        return value_loss + q_loss + policy_loss

    def follow(self) -> None:
        move_target(self._target, self._q, self._settings.tau)


def rows_of(settings: OfflineSettings, training: Training) -> np.ndarray:
    """Rows of the log that are drawn: all, or for cloning the share of highest return."""
    rows = np.arange(len(training.log))
    if not isinstance(settings, BehaviourCloningSettings) or settings.best_share == 1:
        return rows
    kept = max(1, round(settings.best_share * len(rows)))
    return np.sort(np.argsort(-discounted_rows(training.log, settings.gamma), kind="stable")[:kept])
