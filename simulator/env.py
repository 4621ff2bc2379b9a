"""Gymnasium environments over the simulated users: one user, or many at once with same-step autoreset."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from simulator.errors import InputError, did_you_mean
from simulator.top_items import ItemScorer
from simulator.users import Advance, LastArrays, RawObservation, SimulatedUsers
from simulator.world import World

Action = Literal["slate", "item", "proto"]
ACTIONS: tuple[str, ...] = get_args(Action)
PROTO_WIDTH = 32
"""Dimensions of a proto-action at most: principal components of the items' content vectors."""

_KEPT = 4
"""Observations whose arrays an environment may take again: an agent often holds the last one beside the new one."""
_BITS_AT_ONCE = 1 << 27
"""Lanes times items of whose masks the bits are laid out together (16 MiB)."""

FIELDS = ("user_features", "history_items", "history_feedback", "step")
"""Names of an observation's parts; those of `agents.base.Observation`."""

Arrays = dict[str, NDArray[Any]]
Given = tuple[NDArray[np.float32], *RawObservation, *LastArrays]


def _holders(arrays: tuple[NDArray[Any], ...]) -> int:
    """The most references that one of the arrays has, its views among them."""
    return max(map(sys.getrefcount, arrays))


_NOBODY = _holders((np.empty(0),))
"""What `_holders` says of arrays that only their tuple holds."""


class _Actions:
    """Turns the actions of one mode into slates."""

    def __init__(self, world: World, action: str, content: NDArray[np.float32] | None) -> None:
        if action not in ACTIONS:
            raise InputError(f"action: '{action}' is not one of {', '.join(ACTIONS)}{did_you_mean(action, ACTIONS)}")
        self.mode = action
        self.slate_size = 1 if action == "item" else world.slate_size
        self.space: spaces.Space[Any]
        self._scorer: ItemScorer | None = None
        if action == "slate":
            self.space = spaces.MultiDiscrete([world.n_items] * world.slate_size)
        elif action == "item":
            self.space = spaces.Discrete(world.n_items)
        else:
            if content is None:
                raise InputError("content: action 'proto' needs the items' content vectors; give content=[I, d]")
            if len(content) != world.n_items:
                raise InputError(f"content: {len(content)} rows for {world.n_items} items; give one row an item")
            proto = proto_vectors(content)
            self._scorer = ItemScorer(proto)
            self.space = spaces.Box(-1.0, 1.0, (proto.shape[1],), np.float32)

    def slates(self, actions: NDArray[Any], users: SimulatedUsers) -> NDArray[np.int64]:
        if self._scorer is None:
            return np.ascontiguousarray(actions, np.int64).reshape(users.n, self.slate_size)
        wanted = np.asarray(actions, np.float32).reshape(users.n, self._scorer.width)
        out = np.empty((users.n, self.slate_size), np.int64)
        together = max(1, _BITS_AT_ONCE // (64 * (users.world.n_items // 64 + 1)))
        for first in range(0, users.n, together):
            part = slice(first, min(first + together, users.n))
            blocked = users.blocked(first, part.stop - first)
            out[part] = self._scorer.top_k(wanted[part], self.slate_size, blocked=blocked)
        return out


def _mode(given: AutoresetMode | str) -> AutoresetMode:
    known = {one.name.lower(): one for one in (AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP)}
    name = given.name.lower() if isinstance(given, AutoresetMode) else str(given).lower()
    if name not in known:
        raise InputError(f"autoreset_mode: '{name}' is not offered; choose {' or '.join(known)}")
    return known[name]


def proto_vectors(content: NDArray[np.float32], width: int = PROTO_WIDTH) -> NDArray[np.float32]:
    """[I, min(width, d, I)] principal components of the items' content, unit length: the space of proto-actions."""
    centred = content.astype(np.float64) - content.mean(axis=0, dtype=np.float64)
    left, scale, right = np.linalg.svd(centred, full_matrices=False)
    kept = min(width, len(scale))
    # The sign of a component is arbitrary; fix it by its largest loading.
    largest = np.argmax(np.abs(right[:kept]), axis=1)
    sign = np.where(right[np.arange(kept), largest] < 0, -1.0, 1.0)
    reduced = left[:, :kept] * scale[:kept] * sign
    norm = np.linalg.norm(reduced, axis=1, keepdims=True)
    return (reduced / np.where(norm > 0, norm, 1)).astype(np.float32)


def observation_space(world: World) -> spaces.Dict:
    """Space of one user's observation; the fields are those of `agents.base.Observation`."""
    features = world.starts.user_features
    low = np.minimum(features.min(axis=0), -1.0).astype(np.float32)
    high = np.maximum(features.max(axis=0), 1.0).astype(np.float32)
    length = world.history_length
    return spaces.Dict(
        {
            "user_features": spaces.Box(low, high, dtype=np.float32),
            "history_items": spaces.Box(-1, world.n_items - 1, (length,), np.int32),
            "history_feedback": spaces.Box(0.0, 1.0, (length,), np.float32),
            "step": spaces.Discrete(world.horizon + 1),
        }
    )


@dataclass(frozen=True, slots=True)
class Ended:
    """Sessions that ended in one step: which lanes [m], and their last observations, fields [m, ...]."""

    lanes: NDArray[np.int64]
    observation: Arrays

    @classmethod
    def of(cls, turn: Advance, *, copy: bool) -> Ended:
        """The sessions that ended in a step, copied out of the arrays where they were written, or views of these."""
        m = turn.n_ended
        parts = {name: getattr(turn, name)[:m] for name in ("lanes", *FIELDS)}
        if copy:
            parts = {name: part.copy() for name, part in parts.items()}
        return cls(parts.pop("lanes"), parts)


class LastInfo(dict[str, Any]):
    """Gymnasium's info of a step in which sessions ended.

    `final_obs` wants one Python object a lane, which costs more than simulating the lane. It is therefore built when a
    value is first read. The keys are there from the beginning.
    """

    def __init__(self, turn: Advance, *, copy: bool) -> None:
        super().__init__(final_obs=None, _final_obs=None, final_info={}, _final_info=None)
        self._turn: Advance | None = turn
        self._copy = copy

    def _fill(self) -> None:
        if self._turn is None:
            return
        ended, n = Ended.of(self._turn, copy=self._copy), len(self._turn.terminated)
        self._turn = None
        last, there = np.full(n, None, object), np.zeros(n, np.bool_)
        rows = zip(*ended.observation.values(), strict=True)
        last[ended.lanes] = [dict(zip(FIELDS, row, strict=True)) for row in rows]
        there[ended.lanes] = True
        self.update(final_obs=last, _final_obs=there, _final_info=there.copy())

    def __getitem__(self, key: str) -> Any:
        self._fill()
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        """As in dict."""
        self._fill()
        return super().get(key, default)

    def values(self) -> Any:
        """As in dict."""
        self._fill()
        return super().values()

    def items(self) -> Any:
        """As in dict."""
        self._fill()
        return super().items()

    def __iter__(self) -> Iterator[str]:
        # Its own __iter__ keeps dict(info) and {**info} from copying past the methods above.
        return super().__iter__()

    def keys(self) -> Any:
        """As in dict."""
        return super().keys()

    def pop(self, key: str, *default: Any) -> Any:
        """As in dict."""
        self._fill()
        return super().pop(key, *default)

    def copy(self) -> dict[str, Any]:
        """As in dict."""
        return dict(self.items())

    def __eq__(self, other: object) -> bool:
        self._fill()
        return super().__eq__(other)

    __hash__ = None  # type: ignore[assignment]

    def __or__(self, other: Any) -> dict[str, Any]:  # type: ignore[override]  # of the overloads one is enough
        return self.copy() | other

    def __repr__(self) -> str:
        return repr(self.copy())

    def __reduce__(self) -> Any:
        return dict, (self.copy(),)


class WindtunnelVectorEnv(VectorEnv[Arrays, NDArray[Any], NDArray[Any]]):
    """Many users at once; a lane whose session ends starts that of its next user within the same step, or in the next.

    Same step: the last observation of a session is in `info["final_obs"][lane]` (with the mask `info["_final_obs"]`),
    and those of all sessions that ended in the last step stand together in `ended`. Next step: the last observation is
    the step's own, and in the step after it the lane's action is not looked at, its reward is 0 and its observation the
    start of the next session. A lane's users and luck depend on the seed, its number and the episode, not on
    `num_envs` and not on the mode.

    Args:
        world: what users would do.
        num_envs: number of lanes.
        action: "slate" (MultiDiscrete of K items), "item" (Discrete, a slate of one) or "proto" (Box: the K
            candidates nearest to a point in the space of content).
        seed: of users and luck, until `reset(seed=...)` gives another.
        content: [I, d] content vectors, needed by "proto".
        copy: False returns live views that the next step overwrites.
        autoreset_mode: Gymnasium's SAME_STEP or NEXT_STEP, or its name.

    Raises:
        InputError: another mode, or "proto" without content vectors that fit.
    """

    metadata: dict[str, Any] = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(
        self,
        world: World,
        num_envs: int,
        *,
        action: str = "slate",
        seed: int = 0,
        content: NDArray[np.float32] | None = None,
        copy: bool = True,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
    ) -> None:
        self.world = world
        self.num_envs = num_envs
        self.copy = copy
        self.metadata = {**self.metadata, "autoreset_mode": _mode(autoreset_mode)}
        self._next_step = self.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
        self._waiting = np.zeros(num_envs, np.bool_)  # lanes whose session ended in the last step, in mode NEXT_STEP
        self._actions = _Actions(world, action, content)
        self.single_action_space = self._actions.space
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.single_observation_space = observation_space(world)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.users = SimulatedUsers(world, num_envs, seed=seed, slate_size=self._actions.slate_size)
        self._episode = np.zeros(num_envs, np.int64)
        self._nothing = np.full((num_envs, self._actions.slate_size), -1)
        self._live = self.users.new_observation(num_envs)
        self._last = self.users.new_last(num_envs)
        self._given: list[Given] = []
        nobody = np.zeros(num_envs, np.bool_)
        self._no_turn = Advance(nobody, nobody, 0, *self.users.new_last(0))
        self._turn = self._no_turn

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Arrays, dict[str, Any]]:
        """Start a session in every lane: episode 0 of the seed, or without a seed the next episode."""
        super().reset(seed=seed)
        if seed is not None:
            self.users.reseed(seed)
            self._episode[:] = 0
        self.users.stop()
        self._waiting[:] = False
        return self._advance(self._nothing)[0], {}

    def step(self, actions: NDArray[Any]) -> tuple[Arrays, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Show slates; reward is the number of clicks in this step."""
        if self._next_step:
            return self._next_step_of(actions)
        self._turn = self._no_turn  # its arrays may be taken again
        observation, turn = self._advance(self._actions.slates(actions, self.users))
        self._turn = turn
        reward = self.users.outcome.reward
        return (
            observation,
            reward.copy() if self.copy else reward,
            turn.terminated,
            turn.truncated,
            LastInfo(turn, copy=self.copy) if turn.n_ended else {},
        )

    def _next_step_of(
        self, actions: NDArray[Any]
    ) -> tuple[Arrays, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """As `step`, in mode NEXT_STEP.

        A session that ended has its successor begun in the same turn, as in the other mode, and not shown; in the next
        turn the lane stands still, which is to begin that same session once more.
        """
        waited = self._waiting.copy()
        self.users.stop(waited)
        self._episode[waited] -= 1
        self._turn = self._no_turn
        observation, turn = self._advance(self._actions.slates(actions, self.users))
        reward = np.where(waited, 0, self.users.outcome.reward).astype(np.float32)
        terminated, truncated = turn.terminated & ~waited, turn.truncated & ~waited
        self._waiting = terminated | truncated
        ended = Ended.of(turn, copy=False)
        now = self._waiting[ended.lanes]
        for name, last in ended.observation.items():
            observation[name][ended.lanes[now]] = last[now]
        return observation, reward, terminated, truncated, {}

    @property
    def ended(self) -> Ended:
        """Sessions that ended in the last step: lanes [m] and their last observations, fields [m, ...]."""
        return Ended.of(self._turn, copy=self.copy)

    @property
    def clicks(self) -> NDArray[np.float32]:
        """[n, K] primary behaviour at each place of the last slates, 0 where it was empty; a copy.

        What there is to learn from them: whole where `delay` still hides it from observations, or a history that is
        shorter than a slate does not hold it.
        """
        return self.users.outcome.clicks.astype(np.float32)

    def _advance(self, slates: NDArray[np.int64]) -> tuple[Arrays, Advance]:
        if not self.copy:
            turn = self.users.advance(slates, self._episode, self._live, self._last)
            return dict(zip(FIELDS, (self.users.user_features, *self._live))), turn  # noqa: B905  # 0.3 microseconds
        arrays = self._own_arrays()
        turn = self.users.advance(slates, self._episode, arrays[1:4], arrays[4:])
        arrays[0][:] = self.users.user_features
        return dict(zip(FIELDS, arrays)), turn  # noqa: B905  # the first four

    def _own_arrays(self) -> Given:
        """Arrays for observations that are the caller's to keep: of all lanes, and the last ones of those that end.

        Those of an earlier step whose observation and every view of it are gone are taken again: the system would
        clear new ones page by page, which takes as long as filling them.
        """
        for arrays in self._given:
            if _holders(arrays) == _NOBODY:
                return arrays
        n, users = self.num_envs, self.users
        arrays = (np.empty_like(users.user_features), *users.new_observation(n), *users.new_last(n))
        if len(self._given) < _KEPT:
            self._given.append(arrays)
        return arrays

    def candidates(self) -> NDArray[np.bool_]:
        """[num_envs, I] items that may be shown now."""
        return self.users.candidates()

    def blocked(self) -> NDArray[np.uint64]:
        """[num_envs, words] bits of the items that may not be shown now, for `ItemScorer`; the next step changes it."""
        return self.users.blocked()


class WindtunnelEnv(gymnasium.Env[Arrays, Any]):
    """One user at a time; arguments as in `WindtunnelVectorEnv`, of which this is lane 0 without autoreset."""

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012

    def __init__(
        self,
        world: World,
        *,
        action: str = "slate",
        seed: int = 0,
        content: NDArray[np.float32] | None = None,
    ) -> None:
        self.world = world
        self._actions = _Actions(world, action, content)
        self.action_space = self._actions.space
        self.observation_space: spaces.Space[Any] = observation_space(world)
        self.users = SimulatedUsers(world, 1, seed=seed, slate_size=self._actions.slate_size)
        self._episode = np.zeros(1, np.int64)
        self._nothing = np.full((1, self._actions.slate_size), -1)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Arrays, dict[str, Any]]:
        """Start a session: episode 0 of the seed, or without a seed the next episode."""
        super().reset(seed=seed)
        if seed is not None:
            self.users.reseed(seed)
            self._episode[:] = 0
        self.users.stop()
        self.users.advance(self._nothing, self._episode, self.users.new_observation(1), self.users.new_last(1))
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Arrays, float, bool, bool, dict[str, Any]]:
        """Show a slate; reward is the number of clicks in this step."""
        outcome = self.users.step(self._actions.slates(action, self.users))
        left = bool(outcome.left[0])
        return self._observation(), float(outcome.reward[0]), left, bool(outcome.done[0]) and not left, {}

    def candidates(self) -> NDArray[np.bool_]:
        """[I] items that may be shown now."""
        return self.users.candidates()[0]

    def _observation(self) -> Arrays:
        o = self.users.observe()
        return {name: getattr(o, name)[0].copy() for name in FIELDS}
