"""Stepping the environments of the train world: what learners share, whatever they learn with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from agents.base import MakeEnv, Observation, Training

VALUE_SESSIONS = 256
"""Sessions in which a point of the learning curve is measured: the same users and luck for each point of a training."""

VALUE_SEED = 20_011
"""Seed of those sessions' luck is the training's plus this, so that it is never the luck that was trained on."""

VectorEnv = gymnasium.vector.VectorEnv[Any, Any, Any]


@dataclass(frozen=True, slots=True)
class Step:
    """What came of one slate for each of n users.

    Attributes:
        clicks: [n, K] float32 primary behaviour at each place.
        reward: [n] float32.
        done: [n] bool the session ended.
        truncated: [n] bool it ended at the horizon, not because the user left.
        after: what was observed after the slate, before any next session began.
        observation: what is observed now: where `done`, the start of the next session.
    """

    clicks: NDArray[np.float32]
    reward: NDArray[np.float32]
    done: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    after: Observation
    observation: Observation


class Lanes:
    """A vector environment in action mode "slate", with observations as agents get them.

    Args:
        training: gives the train world and the size of a slate.
        num_envs: users at once.
        seed: of users and luck.
        make_env: builds environments in place of the train world's.
    """

    def __init__(self, training: Training, num_envs: int, *, seed: int, make_env: MakeEnv | None = None) -> None:
        self.env: VectorEnv = (make_env or training.make_env)(num_envs, action="slate", seed=seed)
        self.num_envs = num_envs
        self.slate_size = training.slate_size
        self._seed = seed

    def reset(self) -> Observation:
        """Start every lane with the first session of its seed."""
        seen, _ = self.env.reset(seed=self._seed)
        self._candidates: NDArray[np.bool_] = self.env.candidates()  # type: ignore[attr-defined]
        return self._observation(seen, self._candidates)

    def step(self, slates: NDArray[np.int64]) -> Step:
        """Show a slate in each lane; an item that may not be shown, or stands there twice, leaves its place empty."""
        slates = shown_places(slates, self._candidates)
        seen, reward, terminated, truncated, info = self.env.step(slates)
        done = terminated | truncated
        after = {name: np.asarray(value) for name, value in seen.items()}
        lanes = np.flatnonzero(done)
        if len(lanes):
            last = info["final_obs"][lanes]
            after = {name: value.copy() for name, value in after.items()}
            for name in after:
                after[name][lanes] = np.stack([final[name] for final in last])
        self._candidates = self.env.candidates()  # type: ignore[attr-defined]
        return Step(
            clicks=_clicks(slates, after["history_feedback"]),
            reward=np.asarray(reward, np.float32),
            done=done,
            truncated=np.asarray(truncated),
            after=self._observation(after, None),
            observation=self._observation(seen, self._candidates),
        )

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def _observation(self, seen: dict[str, NDArray[Any]], candidates: NDArray[np.bool_] | None) -> Observation:
        return Observation(
            user_features=seen["user_features"],
            history_items=np.asarray(seen["history_items"], np.int64),
            history_feedback=seen["history_feedback"],
            context=np.zeros((len(seen["step"]), 0), np.float32),
            candidates=candidates,
            step=np.asarray(seen["step"], np.int64),
            slate_size=self.slate_size,
        )


def shown_places(slates: NDArray[np.int64], candidates: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The slates [n, K] with -1 where an item is no candidate or stood further up already."""
    n, slate_size = slates.shape
    allowed = (slates >= 0) & candidates[np.arange(n)[:, None], np.maximum(slates, 0)]
    before = np.tri(slate_size, k=-1, dtype=bool)
    allowed &= ~((slates[:, :, None] == slates[:, None, :]) & before).any(axis=2)
    return np.where(allowed, slates, -1)


def _clicks(slates: NDArray[np.int64], feedback: NDArray[np.float32]) -> NDArray[np.float32]:
    """[n, K] feedback on the slate: the newest entries of the history, in the slate's order, empty places left out."""
    shown = slates >= 0
    back = shown.sum(axis=1, keepdims=True) - np.cumsum(shown, axis=1)  # [n, K] 0 is the newest entry
    place = feedback.shape[1] - 1 - back
    known = shown & (place >= 0)
    return np.where(known, np.take_along_axis(feedback, np.maximum(place, 0), axis=1), 0.0).astype(np.float32)


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
