"""Simulated users: n sessions at once, stepped by the kernel."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simulator import kernel
from simulator.world import World

_TILE = 16
"""Vectors are padded with zeros to a multiple of this many floats, so that no loop has a remainder."""
_GROUP = 32
"""Categories in one word of bits."""
_ROOM = 6
"""Slates that a history takes before it is moved to the front of its buffer, where a session's entries do not fit."""
_MASK_WORDS, _LISTED = 512, 4096
"""A lane has a mask of the catalogue. Where that is larger than 512 words (from 32,768 items on), it has a list of what
its session has shown, unless there may be more than 4,096 places in a session."""
_KNOWN_WORDS = 1 << 23
"""Words that the masks of all starts may take where lanes have none (64 MiB)."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What n users did with their slates. The arrays are the simulator's own: the next step overwrites them.

    Attributes:
        clicks: [n, K] uint8 primary behaviour at each position.
        reward: [n] float32 reward of this step; 0 for users who were done before.
        left: [n] bool the user has left (in this step or before).
        done: [n] bool the session is over: left, or the horizon is reached.
        shown: [n, K] int32 the items shown; -1 where the place stayed empty.
    """

    clicks: NDArray[np.uint8]
    reward: NDArray[np.float32]
    left: NDArray[np.bool_]
    done: NDArray[np.bool_]
    shown: NDArray[np.int32]


RawObservation = tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]
"""history_items [n, H], history_feedback [n, H], step [n]."""


@dataclass(frozen=True, slots=True)
class Advance:
    """What became of the sessions in one step of a vector environment.

    Attributes:
        terminated: [n] bool the user left; truncated: [n] bool the horizon was reached instead.
        lanes: [m] lanes whose session ended; features, last: [m, f] and their last observations.
    """

    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    lanes: NDArray[np.int64]
    features: NDArray[np.float32]
    last: RawObservation


class ObservedUsers:
    """What a policy may know of the n users now. The next `observe` overwrites the arrays.

    Attributes:
        user_features: [n, f] float32; history_items: [n, H] int64; history_feedback: [n, H] float32;
        context: [n, 0] float32; step: [n] int64: as in `agents.base.Observation`.
    """

    __slots__ = ("_users", "context", "history_feedback", "history_items", "step", "user_features")

    def __init__(self, users: SimulatedUsers) -> None:
        self._users = users
        self.user_features = users.user_features
        self.history_items, self.history_feedback, self.step = users.new_observation(users.n)
        self.context = np.zeros((users.n, 0), np.float32)

    def candidates(self) -> NDArray[np.bool_]:
        """[n, I] items that may be shown: neither in the logged history nor shown before in this session."""
        return self._users.candidates()

    def appeal(self) -> NDArray[np.float32]:
        """[n, I] logit of a click on each item, were it examined now: the world's own, for the oracle alone."""
        return self._users.appeal()


class ItemScorer:
    """Scores items as <user, item> + bias and picks the best K; for one thread at a time.

    A user's result does not depend on which other users are asked for.
    """

    def __init__(self, item_vectors: NDArray[np.float32], item_bias: NDArray[np.float32] | None = None) -> None:
        self.n_items, self.width = item_vectors.shape
        self._table, self._bias = kernel.tiles_of(item_vectors, item_bias)
        self._scores = np.zeros((5, 1024), np.float32)
        self._nothing = np.zeros((1, self.n_items // 64 + 1), np.uint64)

    def scores(self, users: NDArray[np.float32], offset: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """[n, I] float32 scores of users [n, d], plus offset [n]."""
        out = np.empty((len(users), self.n_items), np.float32)
        offset = np.zeros(len(users), np.float32) if offset is None else offset
        kernel.score_items(np.ascontiguousarray(users, np.float32), offset, self._table, self._bias, self._scores, out)
        return out

    def top_k(
        self, users: NDArray[np.float32], k: int, *, blocked: NDArray[np.uint64] | None = None
    ) -> NDArray[np.int64]:
        """[n, k] items of highest score for users [n, d], best first, ties to the smaller number.

        Args:
            users: [n, d] float32.
            k: how many.
            blocked: [n, ceil(I / 64)] uint64, bit i set where item i is left out (`pack_mask`); None blocks nothing.
                Where fewer than k items are left, the rest of the row is -1.
        """
        out = np.empty((len(users), k), np.int64)
        blocked = self._nothing if blocked is None else blocked
        best = np.empty((len(users), k), np.float32)
        kernel.top_items(
            np.ascontiguousarray(users, np.float32), self._table, self._bias, blocked, self._scores, best, out
        )
        return out


def pack_mask(mask: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """[n, ceil(I / 64)] uint64 with bit i of a row set where mask [n, I] is true."""
    n, n_items = mask.shape
    words = -(-n_items // 64)
    packed = np.zeros((n, words * 8), np.uint8)
    packed[:, : -(-n_items // 8)] = np.packbits(mask, axis=1, bitorder="little")
    return packed.view("<u8").astype(np.uint64, copy=False)


class SimulatedUsers:
    """n users of a world, each in one session, all stepped at once.

    Every draw is keyed by (seed, stream, real user, session, step, position): a user's luck is the same in any batch,
    order or thread, and whatever is shown to others.

    Args:
        world: what users would do.
        n: number of lanes.
        seed: of the draws.
        slate_size: K; the world's own where None.
    """

    def __init__(self, world: World, n: int, *, seed: int, slate_size: int | None = None) -> None:
        self.world = world
        self.n = n
        self.slate_size = slots = world.slate_size if slate_size is None else slate_size
        starts, n_items = world.starts, world.n_items
        self.width = -(-world.item_vectors.shape[1] // 16) * 16
        categories = world.item_categories > 0
        self._table = _aligned((n_items + 1, self.width))
        self._table[:-1, : world.item_vectors.shape[1]] = world.item_vectors
        self._groups = np.zeros((n_items + 1, -(-categories.shape[1] // _GROUP)), np.uint32)
        packed = np.packbits(categories, axis=1, bitorder="little")
        self._groups[:-1].view(np.uint8)[:, : packed.shape[1]] = packed
        self._traits = np.zeros((n_items + 1, 2), np.float32)
        self._traits[:-1, kernel.ITEM_BIAS] = world.item_bias
        self._traits[:-1, kernel.SHARE] = 1 / np.maximum(categories.sum(axis=1), 1)
        self._parameters = np.concatenate([self._parameter_array(), world.examination_curve(slots)])
        self._start_state = _aligned((len(starts), self.width + _GROUP * self._groups.shape[1]))
        self._start_state[:, : starts.vector.shape[1]] = starts.vector
        self._start_bias = (starts.bias + np.float32(world.appeal_shift)).astype(np.float32)
        length = world.history_length
        self._start_past = (2 * starts.history_items + (starts.history_feedback > 0.5)).astype(np.int32)
        words, places = n_items // 64 + 1, world.horizon * slots
        listed = words > _MASK_WORDS and places <= _LISTED
        known_item = starts.seen.item.astype(np.int32)
        masked = not listed or len(starts) * words <= _KNOWN_WORDS
        self._known = np.zeros((len(starts), words if masked else 0), np.uint64)
        if masked:
            kernel.pack_rows(starts.seen.start, known_item, n_items, self._known)
        else:
            kernel.sort_rows(starts.seen.start, known_item)
        self._seeds = np.full(n, seed % 2**64, np.uint64)

        self.rows = np.zeros(n, np.int64)
        self.session = np.zeros(n, np.uint64)
        self.user_features = np.zeros((n, starts.user_features.shape[1]), np.float32)
        self._clock = np.zeros((n, 3), np.uint64)
        self._clock[:, int(kernel.WRITTEN)] = length  # an empty history before the first start
        self._state = _aligned((n, self._start_state.shape[1]))
        self._mood = np.zeros((n, 2), np.float32)
        self._seen = np.zeros((n, 0 if listed else words), np.uint64)
        # An odd number of cache lines a lane: a power of two would put all lanes into a few places of a cache.
        lines = (-(-(length + (places if places <= _LISTED else _ROOM * slots)) // 16) + 1) | 1
        self._past = np.empty((n, 16 * lines), np.int32)
        self._past[:, :length] = -2
        self._flags = np.ones((n, 2), np.bool_)
        self._last: tuple[NDArray[np.int64], NDArray[np.float32], *RawObservation] | None = None
        self.outcome = Outcome(
            clicks=np.zeros((n, slots), np.uint8),
            reward=np.zeros(n, np.float32),
            left=self._flags[:, kernel.LEFT],
            done=self._flags[:, kernel.DONE],
            shown=np.full((n, slots), -1, np.int32),
        )
        self._scorer: ItemScorer | None = None
        self._observed: ObservedUsers | None = None
        self._start_arguments = (
            starts.user,
            self._start_state,
            self._start_bias,
            self._known,
            self._start_past,
            starts.user_features,
        )
        self._known_arguments = (self._known, starts.seen.start, known_item, self.rows)
        self._state_arguments = (self._clock, self._state, self._mood, self._seen, self._past, self._flags)
        self._step_arguments = (
            self._table,
            self._groups,
            self._traits,
            self._parameters,
            *self._known_arguments,
            self._clock,
            self._state,
            self._mood,
            self._seen,
            self._past,
            self.outcome.shown,
            self.outcome.clicks,
            self.outcome.reward,
            self._flags,
            *kernel.new_scratch(slots),
            length,
        )

    def _parameter_array(self) -> NDArray[np.float32]:
        world = self.world
        base = world.value("leave", "base_rate")
        out = np.zeros(kernel.N_PARAMETERS, np.float32)
        out[kernel.STRENGTH] = world.value("satiation", "strength")
        out[kernel.EXPOSURE_MEMORY] = world.value("satiation", "memory")
        # A unit of drift is the change of a typical item's logit, whatever the scale of the vectors.
        norm = float(np.mean(np.sum(world.item_vectors.astype(np.float64) ** 2, axis=1)))
        out[kernel.RATE] = world.value("drift", "rate") / norm if norm > 0 else 0.0
        out[kernel.C0] = math.log(base / (1 - base))
        out[kernel.C1] = world.value("leave", "satisfaction")
        out[kernel.C2] = world.value("leave", "repetition")
        out[kernel.C3] = world.value("leave", "step")
        out[kernel.SATISFACTION_MEMORY] = world.value("leave", "memory")
        out[kernel.TWICE_USUAL] = 2 * world.expected_clicks(self.slate_size)
        out[kernel.CASCADE] = world.examination == "cascade"
        out[kernel.CONTINUATION] = world.value("examination", "continuation")
        out[kernel.HORIZON] = world.horizon
        return out

    def start(self, rows: ArrayLike, session: ArrayLike = 0) -> None:
        """Start a session in every lane.

        Args:
            rows: [n] rows of `world.starts`.
            session: number of the session, one or [n]; another number is other luck.
        """
        self.rows[:] = rows
        self.session[:] = np.asarray(session).astype(np.uint64)
        if self.rows.min(initial=0) < 0 or self.rows.max(initial=0) >= len(self.world.starts):
            raise IndexError(f"start rows must lie in [0, {len(self.world.starts)})")
        kernel.start_users(
            self.rows,
            *self._start_arguments,
            self.world.history_length,
            self._seeds,
            self.session,
            *self._state_arguments,
            self.user_features,
        )

    @property
    def bytes_a_lane(self) -> int:
        """Bytes of state that each lane holds: it does not grow with the catalogue where that is large."""
        return sum(array.nbytes for array in self._state_arguments) // self.n

    def reseed(self, seeds: ArrayLike) -> None:
        """Change the seed of the draws, one or [n]; sessions that run keep theirs until they start anew."""
        self._seeds[:] = np.asarray(seeds).astype(np.uint64)

    def observe(self) -> ObservedUsers:
        """What a policy may know of the users now; the next call overwrites it."""
        if self._observed is None:
            self._observed = ObservedUsers(self)
        o = self._observed
        kernel.observe_users(self._clock, self._past, o.history_items, o.history_feedback, o.step)
        return o

    def new_observation(self, m: int) -> RawObservation:
        """Uninitialised arrays for the observation of m users, their features left out."""
        length = self.world.history_length
        return np.empty((m, length), np.int64), np.empty((m, length), np.float32), np.empty(m, np.int64)

    def advance(
        self, slate: NDArray[np.int64], episode: NDArray[np.int64], observation: RawObservation, *, copy: bool = True
    ) -> Advance:
        """`step`, then start the next session in every lane that is done, and observe all lanes.

        The next user and session of a lane depend on its seed, its number and its episode only.

        Args:
            slate: [n, K] int64, C-contiguous.
            episode: [n] number of each lane's next episode, counted up in place.
            observation: where the observation of all lanes is written.
            copy: False returns last observations that the next call overwrites.
        """
        if self._last is None:
            features = np.empty_like(self.user_features)
            self._last = (np.empty(self.n, np.int64), features, *self.new_observation(self.n))
        terminated, truncated = np.empty(self.n, np.bool_), np.empty(self.n, np.bool_)
        m = kernel.advance_users(
            slate,
            *self._step_arguments,
            *self._start_arguments,
            self._seeds,
            episode,
            self.session,
            terminated,
            truncated,
            *self._last,
            self.user_features,
            *observation,
        )
        lanes, features, items, feedback, step = self._last
        last = (lanes[:m], features[:m], items[:m], feedback[:m], step[:m])
        if copy:
            last = (lanes[:m].copy(), features[:m].copy(), items[:m].copy(), feedback[:m].copy(), step[:m].copy())
        return Advance(terminated, truncated, last[0], last[1], last[2:])

    def stop(self) -> None:
        """End every session at once, as if the horizon were reached."""
        self._flags[:, kernel.LEFT] = False
        self._flags[:, kernel.DONE] = True

    def step(self, slate: NDArray[np.int64]) -> Outcome:
        """Show a slate to each user; users who are done are left as they are.

        Args:
            slate: [n, K] items, best first. An item that is not a candidate, or stands in the slate already, leaves
                its place empty: no click, no exposure.
        """
        if slate.shape != self.outcome.shown.shape:
            raise ValueError(f"slate has shape {slate.shape}, needs {self.outcome.shown.shape}")
        if slate.dtype != np.int64 or not slate.flags.c_contiguous:
            slate = np.ascontiguousarray(slate, np.int64)
        kernel.step_users(slate, *self._step_arguments)
        return self.outcome

    def blocked(self, first: int = 0, count: int | None = None) -> NDArray[np.uint64]:
        """[count, I // 64 + 1] bits of the items that may not be shown to these lanes (all from `first` on)."""
        count = self.n - first if count is None else count
        if self._seen.shape[1]:
            return self._seen[first : first + count]
        out = np.zeros((count, self.world.n_items // 64 + 1), np.uint64)
        kernel.block_met(first, *self._known_arguments, self._clock, self._past, self.world.history_length, out)
        return out

    def candidates(self) -> NDArray[np.bool_]:
        """[n, I] items that may be shown now."""
        out = np.empty((self.n, self.world.n_items), np.bool_)
        kernel.unpack_candidates(self.blocked(), out)
        return out

    def appeal(self) -> NDArray[np.float32]:
        """[n, I] logit of a click on each item, were it examined now, satiation included."""
        if self._scorer is None:
            shares = self.world.category_shares
            scaled = np.zeros((self.world.n_items, self._state.shape[1]), np.float32)
            scaled[:, : self.width] = self._table[:-1]
            scaled[:, self.width : self.width + shares.shape[1]] = -self._parameters[kernel.STRENGTH] * shares
            self._scorer = ItemScorer(scaled, self._traits[:-1, kernel.ITEM_BIAS])
        return self._scorer.scores(self._state, self._mood[:, kernel.BIAS])


def _aligned(shape: tuple[int, int]) -> NDArray[np.float32]:
    """Zeros that begin at a multiple of 64 bytes, so that no load of eight floats lies across two cache lines."""
    size = shape[0] * shape[1]
    room = np.zeros(size + 16, np.float32)
    first = (-room.ctypes.data % 64) // 4
    return room[first : first + size].reshape(shape)
