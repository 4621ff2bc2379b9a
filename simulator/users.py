"""Simulated users: n sessions at once, stepped by the kernel."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simulator import kernel
from simulator._compiled import aligned_zeros
from simulator.behaviour.own import Moment, State, begun, checked_acts
from simulator.late import Arrivals, Delay, folded, hashed, uniform_of
from simulator.top_items import ItemScorer, pack_mask
from simulator.world import World

_TILE = 16
"""Vectors are padded with zeros to a multiple of this many floats, so that no loop has a remainder."""
_GROUP = 32
"""Categories in one word of bits."""
_ROOM = 6
"""Slates that a history takes before it is moved to the front of its buffer, where a session's entries do not fit."""
_MASK_WORDS, _ALL_MASK_WORDS, _LISTED = 512, 1 << 19, 4096
"""A lane has a mask of the catalogue. Where that is larger than 512 words (from 32,768 items on), or those of all lanes
than 4 MiB and a lane's than its list, it has a list of what its session has shown, unless there may be more than 4,096
places in a session. Which of the two changes no result."""
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
        after: [n, K, B] float32 behaviours after the click in the order of `world.heads`, 0 where nothing was clicked.
    """

    clicks: NDArray[np.uint8]
    reward: NDArray[np.float32]
    left: NDArray[np.bool_]
    done: NDArray[np.bool_]
    shown: NDArray[np.int32]
    after: NDArray[np.float32]


RawObservation = tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int64]]
"""history_items [n, H], history_feedback [n, H], step [n]."""


LastArrays = tuple[NDArray[np.int64], NDArray[np.float32], *RawObservation]
"""Lanes whose session ended [n], user_features [n, f] and the rest of their last observations; m rows are written."""


class Advance(NamedTuple):
    """What became of the sessions in one step of a vector environment.

    Attributes:
        terminated: [n] bool the user left; truncated: [n] bool the horizon was reached instead.
        n_ended: m, how many sessions ended.
        lanes, user_features, history_items, history_feedback, step: `LastArrays`, of which the first m rows count.
    """

    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    n_ended: int
    lanes: NDArray[np.int64]
    user_features: NDArray[np.float32]
    history_items: NDArray[np.int32]
    history_feedback: NDArray[np.float32]
    step: NDArray[np.int64]


class ObservedUsers:
    """What a policy may know of the n users now. The next `observe` overwrites the arrays.

    Attributes:
        user_features: [n, f] float32; history_items: [n, H] int32; history_feedback: [n, H] float32;
        context: [n, 0] float32; step: [n] int64: as in `agents.base.Observation`.
    """

    __slots__ = ("_users", "context", "history_feedback", "history_items", "step", "user_features")

    def __init__(self, users: SimulatedUsers) -> None:
        self._users = users
        self.user_features = users.user_features
        self.history_items, self.history_feedback, self.step = users.new_observation(users.n)
        self.context = np.zeros((users.n, 0), np.float32)

    def candidates(self) -> NDArray[np.bool_]:
        """[n, I] items that may be shown: neither barred by the logged history nor shown before in this session."""
        return self._users.candidates()

    def appeal(self) -> NDArray[np.float32]:
        """[n, I] logit of a click on each item, were it examined now: the world's own, for the oracle alone."""
        return self._users.appeal()


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
        self.width = -(-world.item_vectors.shape[1] // _TILE) * _TILE
        categories = world.item_categories > 0
        self._table = aligned_zeros(n_items + 1, self.width)
        self._table[:-1, : world.item_vectors.shape[1]] = world.item_vectors
        self._groups = np.zeros((n_items + 1, -(-categories.shape[1] // _GROUP)), np.uint32)
        packed = np.packbits(categories, axis=1, bitorder="little")
        self._groups[:-1].view(np.uint8)[:, : packed.shape[1]] = packed
        self._traits = np.zeros((n_items + 1, 2), np.float32)
        self._traits[:-1, kernel.ITEM_BIAS] = world.item_bias
        self._traits[:-1, kernel.SHARE] = 1 / np.maximum(categories.sum(axis=1), 1)
        self._parameters = np.concatenate([self._parameter_array(), world.examination_table(slots)[:, 0]])
        self._start_state = aligned_zeros(len(starts), self.width + _GROUP * self._groups.shape[1])
        self._start_state[:, : starts.vector.shape[1]] = starts.vector
        self._start_bias = (starts.bias + np.float32(world.appeal_shift)).astype(np.float32)
        length = world.history_length
        self._start_past = (2 * starts.history_items + (starts.history_feedback > 0.5)).astype(np.int32)
        words, places = n_items // 64 + 1, world.horizon * slots
        lines = (places + slots + 31) // 32 | 1  # cache lines of a list
        large = words > _MASK_WORDS or (n * words > _ALL_MASK_WORDS and words > 8 * lines)
        listed = large and places <= _LISTED
        barred = world.barred
        known_item = barred.item.astype(np.int32)
        masked = not listed or len(starts) * words <= _KNOWN_WORDS
        self._known = np.zeros((len(starts), words if masked else 0), np.uint64)
        if masked:
            kernel.pack_rows(barred.start, known_item, n_items, self._known)
        else:
            kernel.sort_rows(barred.start, known_item)
        self._seeds = np.full(n, seed % 2**64, np.uint64)

        self.rows = np.zeros(n, np.int64)
        self.session = np.zeros(n, np.uint64)
        self.user_features = np.zeros((n, starts.user_features.shape[1]), np.float32)
        self._clock = np.zeros((n, 3), np.uint64)
        self._clock[:, int(kernel.WRITTEN)] = length  # an empty history before the first start
        self._state = aligned_zeros(n, self._start_state.shape[1])
        self._mood = np.zeros((n, 2), np.float32)
        self._seen = np.zeros((n, 0 if listed else words), np.uint64)
        # An odd number of cache lines a lane: a power of two would put all lanes into a few places of a cache.
        entries = length + (places if places <= _LISTED else _ROOM * slots)
        self._past = np.empty((n, 16 * ((-(-entries // 16) + 1) | 1)), np.int32)
        self._past[:, :length] = -2
        self._listed = np.empty((n, 32 * lines if listed else 0), np.uint16)
        self._flags = np.ones((n, 2), np.bool_)
        left, done = self._ends()
        self.outcome = Outcome(
            clicks=np.zeros((n, slots), np.uint8),
            reward=np.zeros(n, np.float32),
            left=left,
            done=done,
            shown=np.full((n, slots), -1, np.int32),
            after=np.zeros((n, slots, len(world.heads)), np.float32),
        )
        self._extra = None if world.bare else self._extra_parts()
        self.visit = np.zeros(n, np.int64)
        self._delay = Delay(n, world.delay, rewards=world.delayed_reward) if world.delay else None
        self._arrivals: Arrivals | None = None
        if world.entry is not None or world.entry_session is not None:
            never = np.zeros(n_items, np.int32)
            self._arrivals = Arrivals(*(never if part is None else part for part in (world.entry, world.entry_session)))
        self._own = None if world.own is None else world.own.load()
        self._own_state: State = {}
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
        self._known_arguments = (self._known, barred.start, known_item, self.rows)
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
            self._listed,
            self.outcome.shown,
            self.outcome.clicks,
            self.outcome.reward,
            self._flags,
            *kernel.new_scratch(slots),
            length,
            self._extra,
        )

    def _ends(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Views of who has left and whose session is over."""
        return self._flags[:, kernel.LEFT], self._flags[:, kernel.DONE]

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        left, done = self._ends()  # a view comes back from a pickle as an array of its own
        self.outcome = replace(self.outcome, left=left, done=done)

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
        if world.own is not None:  # its class alone decides what changes a user
            out[kernel.STRENGTH] = out[kernel.RATE] = 0.0
        return out

    def _extra_parts(self) -> kernel.Extra:
        """What the kernel needs for the parts that it leaves out unless they are on."""
        world, slots = self.world, self.slate_size
        numbers = np.zeros(kernel.N_NUMBERS, np.float32)
        numbers[kernel.CHOICE] = ("independent", "logit", "nested").index(world.choice)
        numbers[kernel.NO_CHOICE] = world.value("choice", "no_choice")
        numbers[kernel.DISSIMILARITY] = world.value("choice", "dissimilarity")
        numbers[kernel.DEPTH] = world.value("boredom", "depth")
        numbers[kernel.THRESHOLD] = world.value("boredom", "threshold")
        numbers[kernel.CLICK_MEMORY] = world.value("boredom", "memory")
        numbers[kernel.FRIENDS] = world.value("friends", "strength") if world.friends is not None else 0.0
        numbers[kernel.REWARD] = 0 if world.reward_head is None else world.reward_head + 1
        numbers[kernel.BROWSING] = world.examination == "user_browsing"
        nest = np.full(world.n_items + 1, -1, np.int32)
        if world.category_shares.shape[1]:
            some = world.category_shares.any(axis=1)
            nest[:-1] = np.where(some, np.argmax(world.category_shares, axis=1), -1)
        friends = (np.zeros(len(world.starts) + 1, np.int64), np.zeros(0, np.int64))
        if world.friends is not None:
            friends = (world.friends.start.astype(np.int64), world.friends.item.astype(np.int64))
        widest = max([len(part) for head in world.heads for part in (head.levels, head.values)], default=1)
        heads = np.zeros((len(world.heads), 4), np.float32)
        levels = np.zeros((len(world.heads), 2, widest), np.float32)
        for at, head in enumerate(world.heads):
            kind = {"like": 1, "purchase": 1, "dwell": 2, "rating": 3}[head.kind]
            heads[at] = kind, head.intercept, head.slope, len(head.levels)
            levels[at, 0, : len(head.levels)] = head.levels
            levels[at, 1, : len(head.values)] = head.values
        return kernel.Extra(
            numbers,
            np.ascontiguousarray(world.examination_table(slots)),
            nest,
            *friends,
            np.zeros((self.n, self._state.shape[1] - self.width), np.float32),
            heads,
            levels,
            self.outcome.after,
        )

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
        self._begin()

    def _begin(self, lanes: NDArray[np.bool_] | None = None) -> None:
        """What begins anew with a session, beside the kernel's own state; in these lanes, all where None."""
        which = slice(None) if lanes is None else lanes
        self.visit[which] = 0
        if self._extra is not None:
            self._extra.bored[which] = 0
        if self._delay is not None:
            self._delay.begin(lanes)
        if self._own is not None:
            fresh = begun(self._own, self.world.starts.user[self.rows])
            for name, value in fresh.items():
                if lanes is None or name not in self._own_state:
                    self._own_state[name] = value
                else:
                    self._own_state[name][lanes] = value[lanes]

    @property
    def bytes_a_lane(self) -> int:
        """Bytes of state that each lane holds: it does not grow with the catalogue where that is large."""
        return sum(array.nbytes for array in (*self._state_arguments, self._listed)) // self.n

    def reseed(self, seeds: ArrayLike) -> None:
        """Change the seed of the draws, one or [n]; sessions that run keep theirs until they start anew."""
        self._seeds[:] = np.asarray(seeds).astype(np.uint64)

    def observe(self) -> ObservedUsers:
        """What a policy may know of the users now; the next call overwrites it."""
        if self._observed is None:
            self._observed = ObservedUsers(self)
        o = self._observed
        kernel.observe_users(self._clock, self._past, o.history_items, o.history_feedback, o.step)
        if self._delay is not None:
            self._delay.hide(o.history_feedback)
        return o

    def new_observation(self, m: int) -> RawObservation:
        """Uninitialised arrays for the observation of m users, their features left out."""
        length = self.world.history_length
        return np.empty((m, length), np.int32), np.empty((m, length), np.float32), np.empty(m, np.int64)

    def new_last(self, m: int) -> LastArrays:
        """Uninitialised arrays for the last observations of m users."""
        features = np.empty((m, self.user_features.shape[1]), np.float32)
        return np.empty(m, np.int64), features, *self.new_observation(m)

    def advance(
        self, slate: NDArray[np.int64], episode: NDArray[np.int64], observation: RawObservation, last: LastArrays
    ) -> Advance:
        """`step`, then start the next session in every lane that is done, and observe all lanes.

        The next user and session of a lane depend on its seed, its number and its episode only.

        Args:
            slate: [n, K] int64, C-contiguous.
            episode: [n] number of each lane's next episode, counted up in place.
            observation: where the observation of all lanes is written.
            last: room for n lanes, where those that ended and their last observations are written.
        """
        if self._own is not None:
            return self._own_advance(slate, episode, observation)
        if self._arrivals is not None:
            slate = self._allowed(slate)
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
            *last,
            self.user_features,
            *observation,
        )
        if self._delay is not None:
            done = terminated | truncated
            self._delay.push(self.outcome.shown, self.outcome.reward, done)
            self._delay.hide(last[3][:m], last[0][:m])
            self._delay.begin(done)
            self._delay.hide(observation[1])
        return Advance(terminated, truncated, m, *last)

    def stop(self, lanes: NDArray[np.bool_] | None = None) -> None:
        """End every session at once, as if the horizon were reached; of these lanes [n], of all where None."""
        which = slice(None) if lanes is None else lanes
        self._flags[which, kernel.LEFT] = False
        self._flags[which, kernel.DONE] = True

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
        if self._arrivals is not None:
            slate = self._allowed(slate)
        if self._own is not None:
            self._own_step(slate)
        else:
            kernel.step_users(slate, *self._step_arguments)
        if self._delay is not None:
            self._delay.push(self.outcome.shown, self.outcome.reward, self.outcome.done)
        return self.outcome

    def _allowed(self, slate: NDArray[np.int64]) -> NDArray[np.int64]:
        assert self._arrivals is not None
        return self._arrivals.allowed(slate, self.visit, self._clock[:, kernel.STEP].astype(np.int64))

    def come_back(
        self, session: int, here: NDArray[np.bool_], clicks: NDArray[np.floating] | None = None
    ) -> NDArray[np.bool_]:
        """Start the next session of every user who comes back; returns who does, [n] bool.

        Taste and history go on from where they were, satiation and boredom fall with the days of the gap, satisfaction
        starts at 1/2, and what an earlier session showed may be shown again. Where the world's users do not come and
        go, everybody starts again from the log.

        Args:
            session: number of the session, new luck.
            here: [n] bool, who had the last session.
            clicks: [I] clicks so far, the log's included, where popularity feeds back.
        """
        world, n = self.world, self.n
        back = here.copy()
        visit = self.visit + 1
        if clicks is not None:
            assert world.item_clicks is not None
            gained = world.popularity_bias(clicks) - world.popularity_bias(world.item_clicks)
            self._set_item_bias(world.item_bias + gained)
        if not world.returns:
            self.start(self.rows, session)
            self.visit[:] = visit
            return back
        days = self.gap_days()
        back &= days <= world.value("returning", "window")
        kept = np.exp(-days / world.value("returning", "forgetting")).astype(np.float32)[:, None]
        state, bored = self._state.copy(), None if self._extra is None else self._extra.bored.copy()
        length = world.history_length
        place = self._clock[:, kernel.WRITTEN].astype(np.int64)[:, None] - length + np.arange(length)[None, :]
        newest = np.take_along_axis(self._past, place, axis=1)
        own = {name: value.copy() for name, value in self._own_state.items()}
        self.start(self.rows, session)
        self._state[:, : self.width] = state[:, : self.width]
        self._state[:, self.width :] = state[:, self.width :] * kept
        if self._extra is not None and bored is not None:
            self._extra.bored[:] = bored * kept
        self._past[:, :length] = newest
        self._own_state = own
        self.visit[:] = visit
        self._flags[~back, kernel.DONE] = True
        assert len(back) == n
        return back

    def gap_days(self) -> NDArray[np.float64]:
        """[n] days until each user's next session, should they have ended this one now; lognormal, one uniform each."""
        from scipy.special import ndtri

        value, satisfaction = self.world.value, self._mood[:, kernel.SATISFACTION].astype(np.float64)
        uniform = uniform_of(self._clock[:, kernel.KEY], int(kernel.RETURNING))
        shift = value("returning", "satisfaction") * (satisfaction - 0.5)
        deviation = value("returning", "spread") * ndtri(uniform + 2.0**-25)  # the middle of the uniform's cell
        return np.asarray(np.exp(np.log(value("returning", "median_gap")) - shift + deviation))

    def _own_step(self, slate: NDArray[np.int64]) -> None:
        """A step in which the user's own class decides; the kernel keeps the books, and its decisions are replaced."""
        assert self._own is not None
        world, outcome = self.world, self.outcome
        active = np.flatnonzero(~outcome.done)
        self._flags[:, kernel.LEFT] &= self._flags[:, kernel.DONE]
        step = self._clock[active, kernel.STEP].astype(np.int64)
        key = self._clock[active, kernel.KEY].copy()
        kernel.step_users(slate, *self._step_arguments)
        if not len(active):
            return
        shown = outcome.shown[active].astype(np.int64)
        item = np.maximum(shown, 0)
        vectors = world.item_vectors
        taste = self._state[active, : vectors.shape[1]]
        appeal = np.einsum("nd,nkd->nk", taste, vectors[item]) + self._mood[active, kernel.BIAS][:, None]
        appeal = np.where(shown < 0, -np.inf, appeal + world.item_bias[item]).astype(np.float32)

        def uniforms(name: str) -> NDArray[np.float64]:
            word = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")
            moment = key + (step.astype(np.uint64) + np.uint64(1)) * kernel.GOLDEN
            places = (np.arange(self.slate_size, dtype=np.uint64) + np.uint64(1)) * kernel.GOLDEN
            return uniform_of(hashed(hashed(moment ^ np.uint64(word))[:, None] + places[None, :]), 0)

        state = {name: value[active] for name, value in self._own_state.items()}
        categories = world.category_shares[item] * (shown >= 0)[..., None]
        moment = Moment(shown, appeal, categories, step, world.starts.user[self.rows[active]], state, uniforms)
        acts = checked_acts(self._own.act(moment), moment)
        for name, value in state.items():
            if name not in self._own_state:
                self._own_state[name] = np.zeros((self.n, *value.shape[1:]), value.dtype)
            self._own_state[name][active] = value
        outcome.clicks[active] = acts.clicks
        outcome.reward[active] = acts.clicks.sum(axis=1) if acts.reward is None else acts.reward
        written = self._clock[active, kernel.WRITTEN].astype(np.int64)
        below = (shown >= 0)[:, ::-1].cumsum(axis=1)[:, ::-1]  # places from this one down that were shown
        row, place = np.nonzero(shown >= 0)
        self._past[active[row], written[row] - below[row, place]] = 2 * shown[row, place] + acts.clicks[row, place]
        self._flags[active, kernel.LEFT] = acts.leave
        self._flags[active, kernel.DONE] = acts.leave | (step + 1 >= world.horizon)

    def _own_advance(
        self, slate: NDArray[np.int64], episode: NDArray[np.int64], observation: RawObservation
    ) -> Advance:
        """`advance` where the user's own class decides: lanes that are done are started one by one."""
        self.step(slate)
        done, left = self._flags[:, kernel.DONE].copy(), self._flags[:, kernel.LEFT].copy()
        lanes = np.flatnonzero(done)
        seen = self.observe()
        features, items = self.user_features[lanes].copy(), seen.history_items[lanes].copy()
        last = (lanes, features, items, seen.history_feedback[lanes].copy(), seen.step[lanes].copy())
        if len(lanes):
            kept: list[NDArray[Any]] = [array.copy() for array in (*self._state_arguments, self.user_features)]
            number = lanes.astype(np.uint64)
            session = (number << np.uint64(32)) | episode[lanes].astype(np.uint64)
            bits = folded(hashed(self._seeds[lanes] ^ kernel.NEXT_USER), session)
            n_starts = np.uint64(len(self.world.starts))
            self.rows[lanes] = (((bits >> np.uint64(32)) * n_starts) >> np.uint64(32)).astype(np.int64)
            self.session[lanes] = session
            episode[lanes] += 1
            kernel.start_users(
                self.rows,
                *self._start_arguments,
                self.world.history_length,
                self._seeds,
                self.session,
                *self._state_arguments,
                self.user_features,
            )
            state: tuple[NDArray[Any], ...] = (*self._state_arguments, self.user_features)
            for array, before in zip(state, kept, strict=True):
                array[~done] = before[~done]
            self._begin(done)
        seen = self.observe()
        observation[0][:], observation[1][:] = seen.history_items, seen.history_feedback
        observation[2][:] = seen.step
        return Advance(left & done, done & ~left, len(lanes), *last)

    def blocked(self, first: int = 0, count: int | None = None) -> NDArray[np.uint64]:
        """[count, I // 64 + 1] bits of the items that may not be shown to these lanes (all from `first` on)."""
        count = self.n - first if count is None else count
        if self._seen.shape[1]:
            out = self._seen[first : first + count]
        else:
            out = np.zeros((count, self.world.n_items // 64 + 1), np.uint64)
            kernel.block_met(first, *self._known_arguments, self._clock, self._past, self.world.history_length, out)
        if self._arrivals is None:
            return out
        part = slice(first, first + count)
        there = self._arrivals.there(self.visit[part], self._clock[part, kernel.STEP].astype(np.int64))
        out = out.copy()
        later = pack_mask(~there)
        out[:, : later.shape[1]] |= later
        return out

    def candidates(self) -> NDArray[np.bool_]:
        """[n, I] items that may be shown now."""
        out = np.empty((self.n, self.world.n_items), np.bool_)
        kernel.unpack_candidates(self.blocked(), out)
        return out

    def _set_item_bias(self, bias: NDArray[np.float32]) -> None:
        self._traits[:-1, kernel.ITEM_BIAS] = bias
        self._scorer = None

    def appeal(self) -> NDArray[np.float32]:
        """[n, I] logit of a click on each item, were it examined now: satiation, boredom, friends and all."""
        strength, extra = self._parameters[kernel.STRENGTH], self._extra
        if self._scorer is None:
            shares = self.world.category_shares
            scaled = np.zeros((self.world.n_items, self._state.shape[1]), np.float32)
            scaled[:, : self.width] = self._table[:-1]
            scaled[:, self.width : self.width + shares.shape[1]] = -shares
            self._scorer = ItemScorer(scaled, self._traits[:-1, kernel.ITEM_BIAS])
        state = self._state.copy()
        state[:, self.width :] *= strength
        if extra is not None and extra.numbers[kernel.DEPTH] > 0:
            bores = extra.bored > extra.numbers[kernel.THRESHOLD]
            state[:, self.width :] += extra.numbers[kernel.DEPTH] * bores
        out = self._scorer.scores(state, self._mood[:, kernel.BIAS])
        if extra is not None and extra.numbers[kernel.FRIENDS]:
            for lane, row in enumerate(self.rows):
                part = slice(extra.friends_start[row], extra.friends_start[row + 1])
                out[lane, extra.friends_item[part]] += extra.numbers[kernel.FRIENDS]
        return out
