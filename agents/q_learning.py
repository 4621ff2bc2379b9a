"""Value-based reinforcement learning without networks: tables of discretised states, and Q linear in the features."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from agents.bandits import EpsilonGreedy, EpsilonGreedySettings
from agents.base import Observation, Training
from agents.features import USER_NAMES, Features, fit_features
from agents.slates import greedy_probabilities, top_slates, uniform_probabilities
from agents.teaching import own_act, teach
from agents.train_world import Lanes, Step

F32 = NDArray[np.float32]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

DEFAULT_STEPS = 50_000
"""User-steps of a training whose scenario names no budget."""

STEPS, CLICKS = 3, 3
"""Parts of the session, and buckets of clicks on a group in the last two slates: none, one or two, more."""

FIRST = 100.0
"""Added to the score of the items of the chosen group, which stand before all others; scores are of order one."""


class TabularSettings(BaseModel):
    """Parameters of tabular Q-learning and SARSA."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    gamma: float = Field(default=0.9, ge=0, lt=1, description="discount a slate")
    learning_rate: float = Field(
        default=0.02,
        gt=0,
        le=1,
        description="least step of a cell to its target; before that, one over its visits",
    )
    epsilon: float = Field(default=0.1, ge=0, le=1, description="chance of any action at the end of the training")
    exploration_fraction: float = Field(
        default=0.5, ge=0, le=1, description="share of the training in which the chance falls to epsilon from 1"
    )
    groups: int = Field(
        default=12, ge=2, description="clusters of items by categories, where an item may have more than one"
    )
    favourites: int = Field(default=3, ge=1, le=5, description="groups of each user that are told apart")
    num_envs: int = Field(default=128, ge=1, description="users who are served at once")


@dataclass(frozen=True, slots=True)
class Groups:
    """Groups of items, the favourites of users among them, and what a table knows of a user.

    An action is a place in the user's own order of groups, so that one table serves users of any taste and catalogues
    of any size: 0 shows the best items of all, j those of the j-th favourite first.

    Attributes:
        features: tables of the features.
        group: [I] group of each item.
        vectors: [G, r] mean vector of the items of each group.
        rate: [G] mean like rate.
        favourites: R.
    """

    features: Features
    group: Ints
    vectors: F32
    rate: F32
    favourites: int

    @classmethod
    def of(cls, training: Training, features: Features, settings: TabularSettings) -> Groups:
        """Categories where every item has one, else clusters of them (k-means)."""
        categories = training.catalogue.item_categories
        if categories.shape[1] > 1 and (categories.sum(axis=1) == 1).all():
            group = np.unique(categories.argmax(axis=1), return_inverse=True)[1].astype(np.int64)
        else:
            group = _clusters(features.categories, settings.groups, training.seed)
        size = np.bincount(group).astype(np.float64)
        members = np.zeros((len(size), features.n_items), np.float32)
        members[group, np.arange(features.n_items)] = 1 / size[group]
        return cls(
            features,
            group,
            members @ features.vectors,
            members @ features.like_rate,
            min(settings.favourites, len(size)),
        )

    @property
    def n_states(self) -> int:
        """States of a user."""
        return STEPS * CLICKS**self.favourites

    @property
    def n_actions(self) -> int:
        """The best of all, or one of the favourites."""
        return 1 + self.favourites

    def see(self, observation: Observation) -> tuple[Ints, Ints, F32]:
        """State [n], favourites [n, R] with the dearest first, and score [n, I] of each item: its predicted like."""
        features = self.features
        in_session = (
            np.arange(observation.history_items.shape[1])[::-1] < (observation.step * observation.slate_size)[:, None]
        )  # [n, H]
        # The order of a user's groups is to stay as it is while the session bores him with one or the other.
        before = replace(observation, history_items=np.where(in_session, -1, observation.history_items))
        liking = self.rate + features.users(before).taste @ self.vectors.T  # [n, G]
        favourites = np.argsort(-liking, axis=1, kind="stable")[:, : self.favourites]
        newest = slice(-features.window, None)
        items = observation.history_items[:, newest]
        clicked = (observation.history_feedback[:, newest] > 0) & in_session[:, newest] & (items >= 0)
        of = self.group[np.maximum(items, 0)]  # [n, window]
        clicks = ((of[:, None, :] == favourites[:, :, None]) & clicked[:, None, :]).sum(axis=2)  # [n, R]
        buckets = np.digitize(clicks, [1, 3])
        part = np.minimum(STEPS - 1, STEPS * observation.step // features.horizon)
        state = part * CLICKS**self.favourites + buckets @ CLICKS ** np.arange(self.favourites)
        scores = features.like_rate + features.users(observation).taste @ features.vectors.T
        return state.astype(np.int64), favourites.astype(np.int64), scores

    def slates(self, actions: Ints, favourites: Ints, scores: F32, observation: Observation) -> Ints:
        """[n, K] the best items of all where the action is 0, else of the favourite of that number first."""
        chosen = np.where(actions > 0, favourites[np.arange(len(actions)), np.maximum(actions - 1, 0)], -1)
        return top_slates(
            lambda rows: scores[rows] + np.float32(FIRST) * (self.group == chosen[rows, None]), observation
        )


def _clusters(categories: F32, count: int, seed: int) -> Ints:
    """[I] cluster of each item."""
    from sklearn.cluster import KMeans

    count = min(count, len(np.unique(categories, axis=0)))
    return KMeans(count, n_init=1, random_state=seed).fit(categories).labels_.astype(np.int64)


def move_towards(q: Floats, visits: Floats, state: Ints, action: Ints, target: Floats, least: float) -> None:
    """Move cells of a table towards the targets of m transitions, in place.

    A cell that is met several times at once moves towards the mean of its targets, as far as one after the other would
    have taken it. The step is one over the visits so far, and `least` once that is smaller: means at first, so that the
    start is forgotten, and a running average later, as the targets themselves move.

    Args:
        q: [S, A] values.
        visits: [S, A] transitions so far.
        state: [m] of each transition.
        action: [m] of each transition.
        target: [m] what its cell should have been.
        least: smallest step, in (0, 1].
    """
    cell = state * q.shape[1] + action
    count = np.bincount(cell, minlength=q.size)
    met = np.flatnonzero(count)
    mean = np.bincount(cell, weights=target, minlength=q.size)[met] / count[met]
    seen, values = visits.reshape(-1), q.reshape(-1)
    seen[met] += count[met]
    step = np.maximum(count[met] / seen[met], 1 - (1 - least) ** count[met])
    values[met] += step * (mean - values[met])


class QLearning:
    """Tabular Q-learning (Watkins and Dayan, 1992): which group of items to show next.

    The state is the part of the session and how often the user's favourite groups were clicked in the last two slates;
    the action is one of these groups, within which the items of highest predicted like are shown, or the best of all.
    """

    def __init__(self, settings: TabularSettings) -> None:
        self.settings = settings
        self._groups: Groups | None = None
        self._q: Floats = np.zeros((0, 0))
        self._visits: Floats = np.zeros((0, 0))

    def fit(self, training: Training) -> None:
        """Learn online for `budget` user-steps (default 50,000)."""
        budget = DEFAULT_STEPS if training.budget is None else training.budget
        self._groups = groups = Groups.of(training, fit_features(training), self.settings)
        self._q, self._visits = np.zeros((2, groups.n_states, groups.n_actions))
        learned = teach(training, lambda: _Serving(self, groups, training, budget), own_act, budget=budget)
        vars(self).update(vars(learned))

    def next_value(self, state: Ints, action: Ints) -> Floats:
        """[n] value of the next states: of the best action there, whatever is done."""
        best: Floats = self._q[state].max(axis=1)
        return best

    def act(self, observation: Observation, rng: np.random.Generator) -> Ints:
        """The group of highest Q; before any training, any group."""
        groups, (state, favourites, scores) = self._see(observation)
        if not self._visits.any():
            action = rng.integers(0, groups.n_actions, len(state))
        else:
            action = self._known()[state].argmax(axis=1)
        return groups.slates(action, favourites, scores, observation)

    def action_probabilities(self, observation: Observation) -> Floats:
        """One for the best candidate of the group of highest Q; equal before any training."""
        groups, (state, favourites, scores) = self._see(observation)
        if not self._visits.any():
            return uniform_probabilities(observation, groups.features.n_items)
        action = self._known()[state].argmax(axis=1)
        first = groups.slates(action, favourites, scores, replace(observation, slate_size=1))[:, 0]
        chosen = np.where(np.arange(groups.features.n_items) == first[:, None], 1.0, 0.0)
        return greedy_probabilities(chosen, observation)

    def _see(self, observation: Observation) -> tuple[Groups, tuple[Ints, Ints, F32]]:
        assert self._groups is not None, "fit comes before act"
        return self._groups, self._groups.see(observation)

    def _known(self) -> Floats:
        """[S, A] values; a cell that was never met counts as the action does on average over the states."""
        usual = (self._q * self._visits).sum(axis=0) / np.maximum(self._visits.sum(axis=0), 1)
        return np.where(self._visits > 0, self._q, usual)

    def _explore(self, state: Ints, epsilon: float, rng: np.random.Generator) -> Ints:
        """[n] the best action as known, or any with chance `epsilon`."""
        best = self._known()[state].argmax(axis=1)
        anyone = rng.integers(0, self._q.shape[1], len(state))
        return np.where(rng.random(len(state)) < epsilon, anyone, best)


class _Serving:
    """A table that serves the users of the train world and learns from each step."""

    def __init__(self, agent: QLearning, groups: Groups, training: Training, budget: int) -> None:
        self.steps = 0
        self._agent, self._groups, self._rng, self._budget = agent, groups, training.rng, budget
        self._lanes = Lanes(training, agent.settings.num_envs, seed=training.seed)
        self._observation = self._lanes.reset()
        self._state, self._favourites, self._scores = groups.see(self._observation)
        self._action = agent._explore(self._state, 1.0, self._rng)

    def advance(self) -> bool:
        agent, settings = self._agent, self._agent.settings
        slates = self._groups.slates(self._action, self._favourites, self._scores, self._observation)
        step = self._lanes.step(slates)
        self.steps += len(slates)
        self._observation = step.observation
        # Where a session ended, of the next one's start.
        after, self._favourites, self._scores = self._groups.see(self._observation)
        left = settings.exploration_fraction * self._budget
        epsilon = max(settings.epsilon, 1 - (1 - settings.epsilon) * self.steps / max(left, 1.0))
        following = agent._explore(after, epsilon, self._rng)
        # What comes after the horizon does not count, and the state says how far it is.
        future = np.where(step.done, 0.0, agent.next_value(after, following))
        target = step.reward + settings.gamma * future
        move_towards(agent._q, agent._visits, self._state, self._action, target, settings.learning_rate)
        self._state, self._action = after, following
        return True

    def policy(self) -> QLearning:
        return self._agent


class Sarsa(QLearning):
    """Tabular SARSA (Rummery and Niranjan, 1994): the same table with the value of what is really done next.

    It learns what its own exploring policy is worth, so it keeps away from states in which a false step costs much.
    """

    def next_value(self, state: Ints, action: Ints) -> Floats:
        """[n] value of the action that is taken in the next states."""
        taken: Floats = self._q[state, action]
        return taken


class LinearQSettings(EpsilonGreedySettings):
    """Parameters of linear Q-learning."""

    gamma: float = Field(default=0.5, ge=0, lt=1, description="discount a slate")
    memory: float = Field(
        default=0.99,
        gt=0,
        le=1,
        description="weight of what was learned before, at each step of all users",
    )
    online: Literal[False] = Field(default=False, description="it learns in the train world only")


class LinearQ(EpsilonGreedy):
    """Q-learning with Q linear in features of user, item, pair and place, by recursive least squares.

    Fitted Q-iteration (Ernst, Geurts and Wehenkel, 2005) with ridge regression in place of trees: each place of a slate
    is regressed on its click and the discounted value of the best slate that may follow, by the coefficients so far.
    Old targets fade, as they were made by older coefficients.
    """

    settings: LinearQSettings

    def returns(self, step: Step) -> F32:
        """[n, K] each place's click and the discounted value of a place of the best next slate."""
        observation = step.observation  # where the session goes on, this is what was observed after the slate
        assert self._features is not None
        users = self._features.users(observation)
        scores = self.mean(users)
        slates = top_slates(scores, observation)
        there = slates >= 0
        place = (1 / np.log2(2 + np.arange(slates.shape[1])) - 1).astype(np.float32)
        values = np.take_along_axis(scores, np.maximum(slates, 0), axis=1) + self._theta[-1] * place
        of_user = self._theta[-1 - len(USER_NAMES) : -1]
        same = self._theta[0] + users.user_features() @ of_user  # [n] what mean() leaves out
        best = same + np.where(there, values, 0).sum(axis=1) / np.maximum(there.sum(axis=1), 1)
        future = np.where(step.done, 0, self.settings.gamma * best).astype(np.float32)
        return step.clicks + future[:, None]

    def learn(self, design: Floats, items: Ints, clicks: F32) -> None:
        """Take in the returns [m] on rows of features [m, size] of the items [m]; earlier ones fade."""
        ridge = np.eye(len(self._gram)) * self.settings.reg
        self._gram = self.settings.memory * (self._gram - ridge) + ridge
        self._right *= self.settings.memory
        super().learn(design, items, clicks)
