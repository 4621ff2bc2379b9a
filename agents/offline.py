"""Policies learned from the log alone: behaviour cloning, conservative Q-learning and implicit Q-learning.

All three decide by the networks of `agents.deep_rl` and differ by what these are taught: `agents.offline_trainer` has
one objective for each. A row of the log is a decision, its primary behaviour the reward, the user's next row what
follows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field

from agents.base import Observation, Training
from agents.bert_items import BertItems, by_bert
from agents.deep_rl import ItemQ, StateScale
from agents.features import fit_features
from agents.logged_choices import in_order
from agents.slates import greedy_probabilities, top_slates

PASSES, LEAST_ROWS = 4, 30_000
"""Passes over the log where a scenario names no budget (with more they learn its rows by heart), and rows at least."""


class OfflineSettings(BertItems):
    """Parameters of what learns from the log alone."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    learning_rate: float = Field(default=3e-3, gt=0, description="AdamW's step at the start; it falls to 0 evenly")
    weight_decay: float = Field(default=0.3, ge=0, description="AdamW's shrinking of the weights")
    batch_size: int = Field(default=256, ge=1, description="rows in a gradient step")
    embedding_size: int = Field(default=32, ge=1, description="width of the product of state and item network")
    hidden_size: int = Field(default=64, ge=1, description="width of the hidden layer of either network")


class BehaviourCloningSettings(OfflineSettings):
    """Parameters of behaviour cloning."""

    best_share: float = Field(
        default=1.0, gt=0, le=1, description="share of the rows, those of highest return, that are imitated"
    )
    gamma: float = Field(default=0.5, ge=0, lt=1, description="discount a row, for `best_share`")


class CQLSettings(OfflineSettings):
    """Parameters of conservative Q-learning."""

    gamma: float = Field(default=0.5, ge=0, lt=1, description="discount a row")
    alpha: float = Field(
        default=0.03, ge=0, description="weight of what pushes down items that were not taken; 0: DQN from the log"
    )
    double: bool = Field(
        default=True, description="the learned network names the next item, the target network values it"
    )
    n_steps: int = Field(default=1, ge=1, description="rows whose rewards are summed before the target is asked")
    tau: float = Field(default=0.02, gt=0, le=1, description="share by which the target follows at each step")


class IQLSettings(OfflineSettings):
    """Parameters of implicit Q-learning."""

    gamma: float = Field(default=0.5, ge=0, lt=1, description="discount a row")
    expectile: float = Field(
        default=0.7, gt=0, lt=1, description="of Q over the log's items that a state's value is; .5: their mean"
    )
    beta: float = Field(default=10.0, ge=0, description="rows weigh exp(beta * advantage); 0: behaviour cloning")
    largest_weight: float = Field(default=100.0, gt=0, description="cap on that weight")
    n_steps: int = Field(default=1, ge=1, description="rows whose rewards are summed before the next value is asked")
    tau: float = Field(default=0.02, gt=0, le=1, description="share by which the target follows at each step")


def rows_to_learn(training: Training) -> int:
    """Rows of the training: the budget, or what is usual for a log of this size."""
    return max(PASSES * len(training.log), LEAST_ROWS) if training.budget is None else training.budget


class OfflineAgent:
    """Base of all: slates by the K highest scores of a network that learned from the log's rows."""

    def __init__(self, settings: OfflineSettings) -> None:
        self.settings = settings
        self.policy: ItemQ | None = None

    def fit(self, training: Training) -> None:
        """Learn for `budget` rows (default four passes); the train world is flown for the learning curve only."""
        from agents.offline_trainer import train_offline

        training = in_order(by_bert(training, self.settings))
        features = fit_features(training)
        scale = StateScale.of(features, training)
        self.policy = train_offline(training, self.settings, features, scale, budget=rows_to_learn(training))

    def scores(self, observation: Observation) -> NDArray[np.float32]:
        """[n, I] logits of the policy, or Q."""
        assert self.policy is not None, "fit comes before act"
        return self.policy.scores(observation)

    def act(self, observation: Observation, rng: np.random.Generator) -> NDArray[np.int64]:
        """The K candidates of highest score."""
        return top_slates(self.scores(observation), observation)

    def action_probabilities(self, observation: Observation) -> NDArray[np.float64]:
        """One for the candidate of highest score."""
        return greedy_probabilities(self.scores(observation), observation)


class BehaviourCloning(OfflineAgent):
    """Behaviour cloning (Pomerleau, 1989): shows what the log's users would most likely have taken next.

    With `best_share` below 1 only the rows of highest return are imitated (Chen et al., 2021, call it %BC). It is what
    other offline learners are held against: who does not beat it has learned to imitate.
    """

    def __init__(self, settings: BehaviourCloningSettings) -> None:
        super().__init__(settings)


class CQL(OfflineAgent):
    """Conservative Q-learning (Kumar, Zhou, Tucker and Levine, 2020), for discrete actions: CQL(H).

    Beside the error of double DQN it lowers the log-sum-exp of Q over all items against the Q of the item that was
    taken, so an item that the log never tried is not shown because its value was guessed too high.
    """

    def __init__(self, settings: CQLSettings) -> None:
        super().__init__(settings)


class IQL(OfflineAgent):
    """Implicit Q-learning (Kostrikov, Nair and Levine, 2021): no value of an item that was not taken is ever asked.

    A state's value is an expectile of Q over the log's items, Q is regressed on reward and the next state's value, and
    the policy imitates the log's items by the exponential of their advantage. Q is the lower of two heads.
    """

    def __init__(self, settings: IQLSettings) -> None:
        super().__init__(settings)
