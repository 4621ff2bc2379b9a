"""`mixture`: a bandit over other agents, which learns in the train world whom each of them serves best."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from agents.base import Agent, AgentError, Observation, Training
from agents.contract import rows_of
from agents.features import Features, fit_features
from agents.settings import AgentSettings
from agents.teaching import own_act, quietly, teach
from agents.train_world import Lanes
from agents.wrapping import Wrapping, slates_of

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

DEFAULT_STEPS = 20_000
"""User-steps of a training whose scenario names no budget."""


class ArmSettings(BaseModel):
    """One agent of a mixture."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str = Field(min_length=1, description="kind of the agent")
    params: dict[str, Any] = Field(default_factory=dict, description="its parameters")


class MixtureSettings(BaseModel):
    """Parameters of a mixture of agents."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    agents: tuple[ArmSettings, ...] = Field(
        default=(ArmSettings(kind="popularity"), ArmSettings(kind="content")),
        min_length=2,
        description="the agents, e.g. [{kind: popularity}, {kind: linucb, params: {alpha: 0.5}}]",
    )
    algorithm: Literal["thompson", "exp3"] = Field(
        default="thompson",
        description="thompson: linear Thompson sampling on what is known of the user. exp3: one distribution for all "
        "users, which supposes nothing of the rewards",
    )
    scale: float = Field(default=1.0, ge=0, description="thompson: sampled standard deviation, in posterior ones")
    exploration: float = Field(default=0.1, gt=0, le=1, description="exp3: share of sessions given to any agent")
    num_envs: int = Field(default=64, ge=1, description="users who are served at once")

    def wrapped(self) -> tuple[AgentSettings, ...]:
        """The entries of the agents."""
        return tuple(AgentSettings(name=f"arm {k}", kind=a.kind, params=a.params) for k, a in enumerate(self.agents))


class Mixture(Wrapping):
    """Serves each user by one of several agents.

    An arm is dealt for a whole session and paid by the session's reward, so that what an agent does to later slates
    counts. thompson (Agrawal and Goyal, 2013): the reward is linear in the user's level, share of likes and length of
    history; a trained mixture takes the arm of highest mean. exp3 (Auer et al., 2002): a trained mixture draws from
    the last distribution. Sessions are dealt in waves that all run to their end: were they counted as they end, short
    ones would come first.
    """

    def __init__(self, settings: MixtureSettings, wrapped: Sequence[Agent]) -> None:
        super().__init__(wrapped)
        self.settings = settings
        size, count = 4, len(self.wrapped)
        self._features: Features | None = None
        self._gram = np.tile(np.eye(size), (count, 1, 1))  # [a, 4, 4]
        self._right = np.zeros((count, size))
        self._gains = np.zeros(count)  # exp3: estimated gains of each arm, summed
        self._sessions = 0
        self._scale = (0.0, 1.0)  # mean and standard deviation of a session's reward in the first wave
        self._most = 1.0  # exp3: what a session earns at most; more counts as that

    def fit(self, training: Training) -> None:
        """Fit the agents, then learn whom each serves best, for `budget` user-steps (default 20,000).

        Raises:
            AgentError: one of them reads the judge world's appeal, which the train world has not.
        """
        if self.privileged:
            raise AgentError("a bound reads the judge world's appeal, which the train world has not; mix policies")
        budget = DEFAULT_STEPS if training.budget is None else training.budget
        self.fit_wrapped(quietly(training))
        self._features = fit_features(training)
        learned = teach(training, lambda: _Dealing(self, training), own_act, budget=budget)
        vars(self).update(vars(learned))

    def act(self, observation: Observation, rng: np.random.Generator) -> Ints:
        """The slate of the arm that is best for each user, or drawn by exp3; before any training, of any."""
        if self.settings.algorithm == "thompson" and self._sessions:
            arm = np.asarray(self._mean(self._known(observation)).argmax(axis=1))
        else:
            arm = rng.choice(len(self.wrapped), len(observation), p=self._distribution())
        return self._served(observation, arm, rng)

    def shares(self, observation: Observation) -> Floats:
        """[a] share of these users whom each arm serves."""
        if self.settings.algorithm == "exp3":
            return self._distribution()
        best = self._mean(self._known(observation)).argmax(axis=1)
        return np.bincount(best, minlength=len(self.wrapped)) / len(observation)

    def _known(self, observation: Observation) -> Floats:
        """[n, 4] what decides between the arms: a constant, level, share of likes, length of history."""
        assert self._features is not None
        of_user = self._features.users(observation).user_features()[:, :3]  # the step would change within a session
        return np.concatenate([np.ones((len(observation), 1)), of_user], axis=1)

    def _mean(self, known: Floats) -> Floats:
        theta = np.linalg.solve(self._gram, self._right[..., None])[..., 0]  # [a, 4]
        return np.asarray(known @ theta.T)

    def _distribution(self) -> Floats:
        count = len(self.wrapped)
        if self.settings.algorithm == "thompson" or not self._sessions:
            return np.full(count, 1 / count)
        rate = self.settings.exploration / count
        weight = np.exp(rate * (self._gains - self._gains.max()))
        return np.asarray(
            (1 - self.settings.exploration) * weight / weight.sum() + self.settings.exploration / count, np.float64
        )

    def _deal(self, known: Floats, rng: np.random.Generator) -> tuple[Ints, Floats]:
        """An arm for each session [n], and the chance that it had (exp3)."""
        n, count = len(known), len(self.wrapped)
        if self.settings.algorithm == "exp3" or not self._sessions:
            chance = self._distribution()
            arm = rng.choice(count, n, p=chance)
            return arm, chance[arm]
        value = np.empty((n, count))
        for k in range(count):
            cover = np.linalg.inv(self._gram[k])
            middle = cover @ self._right[k]
            theta = rng.multivariate_normal(middle, self.settings.scale**2 * cover, size=n, method="cholesky")
            value[:, k] = np.einsum("nf,nf->n", known, theta)
        return value.argmax(axis=1), np.ones(n)

    def _learn(self, known: Floats, arm: Ints, chance: Floats, total: Floats, training: Training) -> None:
        if not self._sessions:
            self._scale = (float(total.mean()), max(float(total.std()), 1e-6))
            # Where a reward is no count of clicks (seconds, stars) a session may earn more than it has places.
            self._most = max(float(training.horizon * training.slate_size), float(total.max()))
        self._sessions += len(arm)
        if self.settings.algorithm == "exp3":
            gain = np.clip(total / self._most, 0, 1) / chance
            self._gains += np.bincount(arm, gain, len(self.wrapped))
            return
        value = (total - self._scale[0]) / self._scale[1]
        for k in range(len(self.wrapped)):
            mine = known[arm == k]
            self._gram[k] += mine.T @ mine
            self._right[k] += mine.T @ value[arm == k]

    def _served(self, observation: Observation, arm: Ints, rng: np.random.Generator) -> Ints:
        """[n, K] slates of each user's arm."""
        out = np.full((len(observation), observation.slate_size), -1, np.int64)
        for k, agent in enumerate(self.wrapped):
            rows = np.flatnonzero(arm == k)
            if len(rows):
                out[rows] = slates_of(agent, rows_of(observation, rows), rng)
        return out


class _Dealing:
    """A mixture that deals its arms to the users of the train world, session by session."""

    def __init__(self, mixture: Mixture, training: Training) -> None:
        self.steps = 0
        self._mixture, self._training = mixture, training
        self._lanes = Lanes(training, mixture.settings.num_envs, seed=training.seed)
        self._observation = self._lanes.reset()

    def advance(self) -> bool:
        mixture, rng = self._mixture, self._training.rng
        known = mixture._known(self._observation)
        arm, chance = mixture._deal(known, rng)
        total, running = np.zeros(self._lanes.num_envs), np.ones(self._lanes.num_envs, bool)
        while running.any():
            step = self._lanes.step(mixture._served(self._observation, arm, rng))
            total += np.where(running, step.reward, 0)
            self.steps += int(running.sum())
            running &= ~step.done
            self._observation = step.observation
        mixture._learn(known, arm, chance, total, self._training)
        return True

    def policy(self) -> Mixture:
        return self._mixture
