"""What an agent gets of a world's environment: the Gymnasium side, and nothing that production would not show."""

from __future__ import annotations

from typing import Any

from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from simulator.env import Arrays, Ended, WindtunnelVectorEnv


def hidden(name: str) -> AttributeError:
    """The error for an agent that asks for what the world is made of."""
    return AttributeError(
        f"'{name}' is hidden from agents: a world's inner side (its users, their appeal, item vectors) is not known in "
        "production; use reset, step, clicks, candidates, blocked and ended"
    )


class OpenVectorEnv(VectorEnv[Arrays, NDArray[Any], NDArray[Any]]):
    """A vector environment of which only the Gymnasium side, `clicks`, `candidates`, `blocked` and `ended` are open.

    Whatever else the environment behind it has raises AttributeError, so that no agent reads it by accident. Python
    keeps nothing from code that looks for names that begin with an underscore. A step costs nothing more: the methods
    are those of the environment itself.
    """

    def __init__(self, env: WindtunnelVectorEnv) -> None:
        self._inner = env
        self.num_envs, self.metadata = env.num_envs, env.metadata
        self.observation_space, self.action_space = env.observation_space, env.action_space
        self.single_observation_space, self.single_action_space = env.single_observation_space, env.single_action_space
        self.reset, self.step = env.reset, env.step  # type: ignore[method-assign]
        self.candidates, self.blocked = env.candidates, env.blocked

    @property
    def ended(self) -> Ended:
        """Sessions that ended in the last step."""
        return self._inner.ended

    @property
    def clicks(self) -> NDArray[Any]:
        """[n, K] float32 primary behaviour at each place of the last slates, also what `delay` still hides."""
        return self._inner.clicks

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_") and hasattr(self._inner, name):
            raise hidden(name)
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")
