"""Stepping the environments of the train world: what learners share, whatever they learn with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.base import AgentError, MakeEnv, Observation, Training

VALUE_SESSIONS = 256
"""Sessions in which a point of the learning curve is measured: the same users and luck for each point of a training."""

VALUE_SEED = 20_011
"""Seed of those sessions' luck is the training's plus this, so that it is never the luck that was trained on."""


@dataclass(frozen=True, slots=True)
class Step:
    """What came of one slate for each of n users.

    Attributes:
        clicks: [n, K] float32 primary behaviour at each place.
        reward: [n] float32.
        done: [n] bool the session ended.
        truncated: [n] bool it ended at the horizon, not because the user left.
        last: what was observed of the sessions that ended, in the order of `done`, candidates left out.
        observation: what is observed now: where `done`, the start of the next session.
    """

    clicks: NDArray[np.float32]
    reward: NDArray[np.float32]
    done: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    last: Observation
    observation: Observation


class Lanes:
    """A vector environment in action mode "slate", with observations as agents get them.

    Args:
        training: gives the train world and the size of a slate.
        num_envs: users at once.
        seed: of users and luck.
        masks: whether observations have candidates, and slates are held against them; without, the caller shows only
            what `blocked` leaves and nothing twice.
        make_env: builds environments in place of the train world's.
    """

    def __init__(
        self, training: Training, num_envs: int, *, seed: int, masks: bool = True, make_env: MakeEnv | None = None
    ) -> None:
        self.env: Any = (make_env or training.make_env)(num_envs, action="slate", seed=seed)
        self.num_envs = num_envs
        self.slate_size = training.slate_size
        self._seed, self._masks = seed, masks
        self._context = np.zeros((num_envs, 0), np.float32)

    def reset(self) -> Observation:
        """Start every lane with the first session of its seed."""
        seen, _ = self.env.reset(seed=self._seed)
        return self._look(seen)

    def step(self, slates: NDArray[np.int64]) -> Step:
        """Show a slate in each lane; an item that may not be shown, or stands there twice, leaves its place empty."""
        if self._candidates is not None:
            slates = shown_places(slates, self._candidates)
        seen, reward, terminated, truncated, _ = self.env.step(slates)
        ended = self.env.ended
        return Step(
            clicks=self.env.clicks,
            reward=np.asarray(reward, np.float32),
            done=terminated | truncated,
            truncated=np.asarray(truncated),
            last=self._observation(ended.observation, None),
            observation=self._look(seen),
        )

    def blocked(self) -> NDArray[np.uint64]:
        """[n, words] bits of the items that may not be shown now; the next step overwrites them."""
        blocked: NDArray[np.uint64] = self.env.blocked()
        return blocked

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def _look(self, seen: dict[str, NDArray[Any]]) -> Observation:
        self._candidates: NDArray[np.bool_] | None = self.env.candidates() if self._masks else None
        return self._observation(seen, self._candidates)

    def _observation(self, seen: dict[str, NDArray[Any]], candidates: NDArray[np.bool_] | None) -> Observation:
        return Observation(
            user_features=seen["user_features"],
            history_items=seen["history_items"].astype(np.int64),
            history_feedback=seen["history_feedback"],
            context=self._context[: len(seen["step"])],
            candidates=candidates,
            step=np.asarray(seen["step"], np.int64),
            slate_size=self.slate_size,
        )


def shown_places(slates: NDArray[np.int64], candidates: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The slates [n, K] with -1 where an item is no candidate [n, I] or stood further up already.

    Raises:
        AgentError: there is not one slate for each user, or an item does not exist; compiled code would read beyond.
    """
    from agents.showing import keep_allowed  # numba is slow to import, and who lists agents steps nobody

    slates = np.ascontiguousarray(slates, np.int64)
    n, n_items = candidates.shape
    if slates.ndim != 2 or len(slates) != n:
        raise AgentError(f"act returned shape {list(slates.shape)}; the shape must be [n, K] with n = {n}")
    unknown = (slates < -1) | (slates >= n_items)
    if unknown.any():
        row, place = (int(x[0]) for x in np.nonzero(unknown))
        found = f"act returned item {slates[row, place]} for user {row}"
        raise AgentError(f"{found}; the catalogue has {n_items} items, numbered from 0")
    out = np.empty(slates.shape, np.int64)
    keep_allowed(slates, candidates, out)
    return out


Act = Callable[[Observation, np.random.Generator], NDArray[np.int64]]


def session_value(lanes: Lanes, act: Act) -> float:
    """Mean reward of the first session of every lane."""
    return float(session_values(lanes, act).mean())


def session_values(lanes: Lanes, act: Act) -> NDArray[np.float64]:
    """[n] reward of the first session of every lane; the same users and luck each time, so that values are paired."""
    rng = np.random.default_rng(0)
    observation = lanes.reset()
    total = np.zeros(lanes.num_envs)
    running = np.ones(lanes.num_envs, bool)
    while running.any():
        step = lanes.step(act(observation, rng))
        total += np.where(running, step.reward, 0)
        running &= ~step.done
        observation = step.observation
    return total
