"""Counterfactual flips of a sensitive attribute in the simulator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from agents.base import Feedback, Observation, learns_online
from evaluators.estimate import Estimate
from evaluators.fairness.groups import mean_interval
from simulator.log import Histories
from simulator.world import Preference, World

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


CASES = ("agent", "world", "both", "total")
"""Where an attribute is flipped: in what the agent sees (its direct use), in the world (its own dependence), in both,
and in both and all that users' histories hold of it."""
MOST_VALUES = 6
"""Values of an attribute up to which it is flipped: k values are k - 1 flips of four flights each."""
REPLAYED_IN = 10
"""Parts in which a history is replayed: what users liked of one changes what they like of the next."""


class FlippedAgent:
    """An agent that is shown flipped user features; histories and everything else stay as they are (direct effect)."""

    def __init__(self, agent: Any, flip: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> None:
        self._agent = agent
        self._flip = flip
        self.privileged = bool(getattr(agent, "privileged", False))

    def act(self, observation: Observation, rng: np.random.Generator) -> NDArray[np.int64]:
        """The agent's slates for the same users with their features flipped."""
        return self._agent.act(self._flipped(observation), rng)

    @property
    def online(self) -> bool:
        """Whether the agent goes on learning while it is judged: then it does so in flipped flights too."""
        return learns_online(self._agent)

    def observe(self, feedback: Feedback) -> None:
        """What came of the slates, of users as they were shown to it."""
        self._agent.observe(replace(feedback, observation=self._flipped(feedback.observation)))

    def _flipped(self, observation: Observation) -> Observation:
        return replace(observation, user_features=self._flip(observation.user_features))


@dataclass(frozen=True, slots=True)
class ShiftValues:
    """A flip of a one-hot attribute: users of each value get the one `by` places further on, round the end.

    Of two values each user gets the other one. Users with none of the values stay as they are.

    Attributes:
        columns: of the values, in their order.
        by: places, 1 to k - 1; together these shifts take every value to every other.
    """

    columns: tuple[int, ...]
    by: int = 1

    def __call__(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Features [n, f] with the attribute flipped."""
        flipped = features.copy()
        columns = list(self.columns)
        flipped[:, columns] = np.roll(features[:, columns], self.by, axis=1)
        return flipped


def columns_of(names: Sequence[str], attribute: str) -> tuple[int, ...]:
    """Columns of an attribute that stands one-hot in named features; none where it does not, or has too many values."""
    columns = tuple(j for j, name in enumerate(names) if name.startswith(f"{attribute}="))
    return columns if 2 <= len(columns) <= MOST_VALUES else ()


@dataclass(frozen=True, slots=True)
class Flip:
    """One flip of an attribute, and what it makes of a judge world.

    Attributes:
        values: names of the attribute's values; a user of value j gets value j + `shift.by`, round the end.
        shift: the flip of what agents see.
        world: the world with every user's state made from the same history and the flipped attribute.
        replayed: the world with the histories replayed under the flipped attribute as well.
    """

    values: tuple[str, ...]
    shift: ShiftValues
    world: World
    replayed: World

    def cases(self, agent: Any, world: World) -> tuple[tuple[Any, World], ...]:
        """Whom to fly where, in the order of CASES."""
        shown = FlippedAgent(agent, self.shift)
        return ((shown, world), (agent, self.world), (shown, self.world), (shown, self.replayed))


def flips_of(
    world: World,
    preference: Preference,
    user_features: NDArray[np.float32],
    names: Sequence[str],
    attribute: str,
    rng: np.random.Generator,
) -> tuple[Flip, ...]:
    """Every flip of an attribute that users' features carry one-hot; none where they do not.

    What agents see of the user (`starts.user_features`) stays as it is: `FlippedAgent` flips it.

    Args:
        world: a judge world.
        preference: the model that the world was built from.
        user_features: [U, f] the catalogue's features of the world's users, in the order of its starts.
        names: [f] of these features.
        attribute: name of the attribute.
        rng: the luck with which histories are replayed; the same for every attribute.
    """
    seen, read = columns_of(world.feature_names, attribute), columns_of(names, attribute)
    values = tuple(names[j].partition("=")[2] for j in read)
    if not values or values != tuple(world.feature_names[j].partition("=")[2] for j in seen):
        return ()
    liked = _Replay(world.starts.seen, preference, user_features, rng)
    return tuple(
        Flip(
            values,
            ShiftValues(seen, by),
            _world_of(world, preference, world.starts.seen, features),
            _world_of(world, preference, liked.under(features), features),
        )
        for by in range(1, len(values))
        for features in [ShiftValues(read, by)(user_features)]
    )


def _world_of(world: World, preference: Preference, seen: Histories, features: NDArray[np.float32]) -> World:
    """The world with every user's state made from these histories and features."""
    states = preference.user_states(seen, features)
    _, feedback = seen.last(world.history_length)
    starts = replace(
        world.starts,
        vector=np.ascontiguousarray(states.vector, np.float32),
        bias=np.ascontiguousarray(states.bias, np.float32),
        history_feedback=feedback,
        seen=seen,
    )
    return replace(world, starts=starts)


class _Replay:
    """Histories as they would have been: the same items, liked or not by the same luck under other features.

    A history is gone through in parts. Each row's probability follows from the parts before it, as they were and as
    they would have been; a user who liked an item still does where the probability has not fallen, and else with the
    ratio of the two (and the other way round for one who did not): abduction of the luck, action, prediction (Pearl
    2009, 7.1). Where no probability moves, nothing does.
    """

    def __init__(
        self, seen: Histories, preference: Preference, features: NDArray[np.float32], rng: np.random.Generator
    ) -> None:
        self._seen, self._preference = seen, preference
        length = np.diff(seen.start)
        self._owner = np.repeat(np.arange(len(seen)), length)
        place = np.arange(len(self._owner)) - seen.start[self._owner]
        self._part = place * REPLAYED_IN // np.maximum(length, 1)[self._owner]
        self._luck = rng.random(len(self._owner))
        self._chance = np.empty(len(self._owner))
        for part in range(REPLAYED_IN):
            now = self._part == part
            self._chance[now] = self._probability(seen.primary, part, features)

    def under(self, features: NDArray[np.float32]) -> Histories:
        """The histories under other features [U, f]."""
        primary = self._seen.primary.copy()
        for part in range(REPLAYED_IN):
            now = self._part == part
            was, p, luck = self._chance[now], self._probability(primary, part, features), self._luck[now]
            liked = self._seen.primary[now] > 0
            with np.errstate(divide="ignore", invalid="ignore"):
                stays = (p >= was) | (luck < p / was)
                comes = (p > was) & (luck < (p - was) / (1 - was))
            primary[now] = np.where(liked, stays, comes)
        return Histories(self._seen.start, self._seen.item, primary)

    def _probability(self, primary: NDArray[np.float32], part: int, features: NDArray[np.float32]) -> Floats:
        """Probability that each row of a part was liked, given the parts before it."""
        before = self._part < part
        start = np.append(0, np.cumsum(np.bincount(self._owner[before], minlength=len(self._seen))))
        states = self._preference.user_states(Histories(start, self._seen.item[before], primary[before]), features)
        now = self._part == part
        owner, item = self._owner[now], self._seen.item[now]
        logit = np.einsum("md,md->m", states.vector[owner], self._preference.item_vectors[item], dtype=np.float64)
        return np.asarray(expit(logit + states.bias[owner] + self._preference.item_bias[item]))


def flip_effect(difference: Floats, user: Ints, method: str, level: float = 0.95) -> Estimate:
    """Mean over users of what a flip changed; exactly 0 where it changed nothing for anybody."""
    _, index = np.unique(user, return_inverse=True)
    of_user = np.bincount(index, difference) / np.bincount(index)
    n = len(of_user)
    if not of_user.any():
        return Estimate(0.0, 0.0, 0.0, level, n, f"{method}; exactly 0 for every user")
    if n < 2:
        return Estimate.withhold(method, f"users: {n}, needs 2", n=n, level=level)
    return mean_interval(float(of_user.mean()), float(of_user.std(ddof=1)), n, level, f"{method}, user t")
