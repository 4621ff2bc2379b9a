"""REINFORCE over the whole catalogue with the off-policy correction for slates of K (Chen et al., 2019)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from agents.base import Observation, Training
from agents.deep_rl import ItemQ, StateScale
from agents.features import fit_features
from agents.logged_choices import in_order
from agents.slates import greedy_probabilities, top_slates

F32 = NDArray[np.float32]


class ReinforceSettings(BaseModel):
    """Parameters of REINFORCE."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    gamma: float = Field(default=0.5, ge=0, lt=1, description="discount a slate, in the log a row")
    learning_rate: float = Field(default=3e-3, gt=0, description="Adam's step at the start; it falls to 0 evenly")
    log_share: float = Field(
        default=0.3,
        ge=0,
        le=1,
        description="weight of the log's rows in a gradient step; 1: the log alone",
    )
    batch_size: int = Field(default=256, ge=1, description="log rows in a gradient step")
    cap: float = Field(default=10.0, gt=0, description="highest importance weight of a row")
    correction: bool = Field(
        default=True, description="weigh rows by policy over behaviour and by lambda_K; off: plain REINFORCE"
    )
    n_steps: int = Field(default=8, ge=1, description="slates of each user between updates; returns are cut there")
    embedding_size: int = Field(default=32, ge=1, description="width of the product of state and item network")
    hidden_size: int = Field(default=64, ge=1, description="width of the hidden layer of either network")
    num_envs: int = Field(default=64, ge=1, description="users stepped at once")


class Reinforce:
    """REINFORCE with top-K off-policy correction (Chen et al., 2019): a softmax over the catalogue.

    It learns from the train world, whose slates it draws from its own policy, and from the log's rows, each weighted
    by the policy's chance of the row's item over that of a behaviour policy: the log's propensities where it has
    them, else a second network that is fitted to the log's choices. `lambda_K` is the derivative of the chance to be
    in a slate of K by the chance to be drawn once: an item that is sure to be shown is pushed no further. Returns
    count from the batch's mean, for slates that of their place. Judged, it shows the K most likely items.
    """

    def __init__(self, settings: ReinforceSettings) -> None:
        self.settings = settings
        self.policy: ItemQ | None = None

    def fit(self, training: Training) -> None:
        """Learn for `budget` user-steps (default 60,000).

        From the log alone (`log_share` 1) a row of it is a user-step, and the default is four passes: with more it
        learns its rows by heart.
        """
        from agents.reinforce_trainer import train_reinforce

        default = 60_000 if self.settings.log_share < 1 else 4 * len(training.log)
        training = in_order(training)
        features = fit_features(training)
        self.policy = train_reinforce(
            training,
            self.settings,
            features,
            StateScale.of(features, training),
            budget=default if training.budget is None else training.budget,
        )

    def act(self, observation: Observation, rng: np.random.Generator) -> NDArray[np.int64]:
        """The K candidates that the policy would most likely draw."""
        return top_slates(self._scores(observation), observation)

    def action_probabilities(self, observation: Observation) -> NDArray[np.float64]:
        """One for the likeliest candidate."""
        return greedy_probabilities(self._scores(observation), observation)

    def _scores(self, observation: Observation) -> F32:
        assert self.policy is not None, "fit comes before act"
        return self.policy.scores(observation)
