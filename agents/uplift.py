"""An agent that targets by estimated effect: who gets the treatment's slate, and who is better left with the control's.

Both slates are dealt at random in the train world, causalml's X-learner estimates what the treatment adds to the clicks
on a slate for each state, and the agent shows it where that is more than it costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from agents.base import Agent, Observation, Training
from agents.contract import rows_of
from agents.features import Features, fit_features
from agents.settings import AgentSettings
from agents.teaching import Clock, quietly
from agents.train_world import Lanes
from agents.wrapping import Wrapping, slates_of
from simulator.causal_models import EffectModel, fit_effect_learner

Floats = NDArray[np.float64]


class UpliftSettings(BaseModel):
    """Parameters of targeting by effect."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    treatment: str = Field(default="linucb", min_length=1, description="kind of the agent whose slates are targeted")
    treatment_params: dict[str, Any] = Field(default_factory=dict, description="parameters of the treatment")
    control: str = Field(default="popularity", min_length=1, description="kind of the agent that serves the others")
    control_params: dict[str, Any] = Field(default_factory=dict, description="parameters of the control")
    learner: Literal["s", "t", "x", "r", "dr"] = Field(default="x", description="causalml's meta-learner of the effect")
    cost: float = Field(default=0.0, description="clicks a slate that the treatment has to add before it is shown")
    trial_steps: int = Field(default=20_000, ge=100, description="user-steps in which both slates are dealt at random")
    num_envs: int = Field(default=128, ge=1, description="users who are served at once")

    def wrapped(self) -> tuple[AgentSettings, ...]:
        """The entries of the two agents."""
        return (
            AgentSettings(name="treatment", kind=self.treatment, params=self.treatment_params),
            AgentSettings(name="control", kind=self.control, params=self.control_params),
        )


class Uplift(Wrapping):
    """Shows the treatment's slate where its estimated effect on the slate's clicks exceeds `cost`, else the control's.

    The effect is that of one slate on its own clicks, given the state; what it does to later slates is not counted. A
    fair coin dealt the slates, so the propensity is known and nothing is confounded; the estimate is as good as the
    train world, which is not the judge's.
    """

    def __init__(self, settings: UpliftSettings, wrapped: Sequence[Agent]) -> None:
        super().__init__(wrapped)
        self.settings = settings
        self.treatment, self.control = wrapped
        self._features: Features | None = None
        self._effect: EffectModel | None = None

    def fit(self, training: Training) -> None:
        """Fit both agents, deal their slates at random, and learn who is moved."""
        self.fit_wrapped(quietly(training))
        self._features = fit_features(training)
        rng = np.random.default_rng(training.seed)
        clock = Clock(training)
        training.expect(self.settings.trial_steps)
        lanes = Lanes(training, self.settings.num_envs, seed=training.seed)
        observation = lanes.reset()
        states, arms, clicks = [], [], []
        for _ in range(-(-self.settings.trial_steps // lanes.num_envs)):
            arm = rng.integers(0, 2, len(observation))
            states.append(self._state(observation))
            arms.append(arm)
            step = lanes.step(self._dealt(observation, arm == 1, rng))
            clicks.append(step.clicks.sum(axis=1, dtype=np.float64))
            observation = step.observation
            if clock.out_of_time():
                break
        lanes.close()
        x, treated, y = np.concatenate(states), np.concatenate(arms), np.concatenate(clicks)
        self._effect = fit_effect_learner(
            x, treated, y, np.full(len(y), 0.5), learner=self.settings.learner, trees=False, seed=training.seed
        )

    def act(self, observation: Observation, rng: np.random.Generator) -> NDArray[np.int64]:
        """The treatment's slate for those whom it moves, the control's for the others."""
        return self._dealt(observation, self.effect(observation) > self.settings.cost, rng)

    def effect(self, observation: Observation) -> Floats:
        """[n] clicks that the treatment's slate is expected to add."""
        assert self._effect is not None
        return self._effect(self._state(observation), np.full(len(observation), 0.5)).effect

    def _state(self, observation: Observation) -> Floats:
        """[n, s] what is known of each user before the slate."""
        assert self._features is not None
        users = self._features.users(observation)
        return np.concatenate([users.user_features(), users.taste, observation.user_features], axis=1, dtype=np.float64)

    def _dealt(
        self, observation: Observation, treated: NDArray[np.bool_], rng: np.random.Generator
    ) -> NDArray[np.int64]:
        """[n, K] slates of the treatment where `treated`, else of the control."""
        out = np.full((len(observation), observation.slate_size), -1, np.int64)
        for agent, mine in ((self.treatment, treated), (self.control, ~treated)):
            rows = np.flatnonzero(mine)
            if len(rows):
                out[rows] = slates_of(agent, rows_of(observation, rows), rng)
        return out
