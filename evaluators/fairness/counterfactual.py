"""Counterfactual flips of a sensitive attribute in the simulator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.base import Observation
from evaluators.estimate import Estimate
from evaluators.fairness.groups import mean_interval
from simulator.world import Preference, World

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class CounterfactualFlip:
    """Effect of flipping a sensitive attribute, everything exogenous held: a statement about the simulator.

    Attributes:
        agent: flipped only in what the agent sees: the agent's direct use of it. Exactly 0 if it reads nothing.
        world: flipped only in the world: the world's own dependence.
        both: flipped in both.
    """

    agent: Estimate
    world: Estimate
    both: Estimate


class FlippedAgent:
    """An agent that is shown flipped user features; histories and everything else stay as they are (direct effect)."""

    def __init__(self, agent: Any, flip: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> None:
        self._agent = agent
        self._flip = flip
        self.privileged = bool(getattr(agent, "privileged", False))

    def act(self, observation: Observation, rng: np.random.Generator) -> NDArray[np.int64]:
        """The agent's slates for the same users with their features flipped."""
        return self._agent.act(replace(observation, user_features=self._flip(observation.user_features)), rng)


@dataclass(frozen=True, slots=True)
class SwapColumns:
    """A flip of a one-hot attribute: users of the first value get the second and the other way round.

    Attributes:
        first, second: columns of the two values.
    """

    first: int
    second: int

    def __call__(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Features [n, f] with the attribute flipped."""
        flipped = features.copy()
        flipped[:, self.first], flipped[:, self.second] = features[:, self.second], features[:, self.first]
        return flipped


def swap_of(names: Sequence[str], attribute: str) -> SwapColumns | None:
    """The flip of an attribute that stands one-hot in named features; None where it does not, or has not two values."""
    columns = [j for j, name in enumerate(names) if name.startswith(f"{attribute}=")]
    return SwapColumns(columns[0], columns[1]) if len(columns) == 2 else None


def flipped_world(
    world: World,
    preference: Preference,
    user_features: NDArray[np.float32],
    flip: Callable[[NDArray[np.float32]], NDArray[np.float32]],
) -> World:
    """The same world with every user's state made from the same history and the flipped attribute.

    What agents see of the user (`starts.user_features`) stays as it is.

    Args:
        world: a judge world.
        preference: the model that the world was built from.
        user_features: [U, f] the catalogue's features of the world's users, in the order of its starts.
        flip: flips the attribute in user features.
    """
    states = preference.user_states(world.starts.seen, flip(user_features))
    vector = np.ascontiguousarray(states.vector, np.float32)
    starts = replace(world.starts, vector=vector, bias=np.ascontiguousarray(states.bias, np.float32))
    return replace(world, starts=starts)


def counterfactual_flip(
    fly: Callable[[Any, Any], Floats],
    agent: Any,
    world: Any,
    flipped_world: Any,
    flip: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    user: Ints,
    *,
    attribute: str,
    metric: str,
    level: float = 0.95,
) -> CounterfactualFlip:
    """Mean over users of metric(flipped) - metric(as is), same noise, same initial state (EVALUATION, section 7).

    Args:
        fly: `fly(agent, world) -> [U]` metric of each start; same noise whatever agent and world.
        agent: the agent.
        world: a judge world.
        flipped_world: the same world with its users' states made from the flipped attribute.
        flip: flips the attribute in user features [n, f].
        user: [U] cluster of each start.
        attribute: its name.
        metric: name of the metric.
        level: of the intervals.
    """
    shown = FlippedAgent(agent, flip)
    before = fly(agent, world)
    cases = {
        "agent": (fly(shown, world), "flipped in what the agent sees"),
        "world": (fly(agent, flipped_world), "flipped in the world"),
        "both": (fly(shown, flipped_world), "flipped in both"),
    }
    out: Mapping[str, Estimate] = {
        name: flip_effect(after - before, user, f"{metric}, {attribute} {how}, same noise, scope: simulator", level)
        for name, (after, how) in cases.items()
    }
    return CounterfactualFlip(**out)


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
