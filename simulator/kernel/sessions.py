"""Where sessions start and what is observed of them; a step and the next start in one call for the environment."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from simulator._compiled import F32, I32, I64, PLAIN, U8, U16, U32, U64, Flags
from simulator._vector import load16, prefetch_read, prefetch_write, store16, unpack8
from simulator.kernel.draws import GOLDEN, fold, mix64
from simulator.kernel.layout import (
    BIAS,
    BLOCK,
    DONE,
    KEY,
    LEFT,
    NEXT_USER,
    SATISFACTION,
    STEP,
    WRITTEN,
    Extra,
    views_of_scratch,
)
from simulator.kernel.stepping import step_block

_0, _1, _6, _32, _63 = (np.uint64(n) for n in (0, 1, 6, 32, 63))
_ZERO, _HALF = np.float32(0.0), np.float32(0.5)
_OBSERVED_AHEAD, _STARTED_AHEAD = 3, 2
"""Users ahead for whom observations, and what the next session of a lane is started from, are asked for."""


@njit(nogil=True, **PLAIN)
def pack_rows(start: I64, item: I32, last: int, out: U64) -> None:
    """Bits of ragged rows, item[start[u] : start[u + 1]], and of `last`, in out [U, W]."""
    for row in range(out.shape[0]):
        out[row, :] = _0
        out[row, last >> 6] = _1 << (np.uint64(last) & _63)
        for place in range(start[row], start[row + 1]):
            bit = np.uint64(item[place])
            out[row, bit >> _6] |= _1 << (bit & _63)


@njit(cache=True, nogil=True)
def sort_rows(start: I64, item: I32) -> None:
    """Sort each of the ragged rows item[start[u] : start[u + 1]], in place."""
    for row in range(len(start) - 1):
        item[start[row] : start[row + 1]].sort()


@njit(inline="always", **PLAIN)
def _start(
    lane: np.uint64,
    row: np.uint64,
    start_user: I64,
    start_state: F32,
    start_bias: F32,
    start_seen: U64,
    start_past: I32,
    length: int,
    seed: U64,
    session: U64,
    clock: U64,
    state: F32,
    mood: F32,
    seen: U64,
    past: I32,
    flags: Flags,
) -> None:
    clock[lane, KEY] = fold(fold(mix64(seed[lane] + GOLDEN), np.uint64(start_user[row])), session[lane])
    clock[lane, STEP] = _0
    clock[lane, WRITTEN] = np.uint64(length)
    for j in range(0, state.shape[1], 16):
        store16(state, lane, j, load16(start_state, row, j))
    mood[lane, BIAS] = start_bias[row]
    mood[lane, SATISFACTION] = _HALF
    for word in range(seen.shape[1]):
        seen[lane, np.uint64(word)] = start_seen[row, np.uint64(word)]
    for j in range(length):
        past[lane, np.uint64(j)] = start_past[row, np.uint64(j)]
    flags[lane, LEFT] = False
    flags[lane, DONE] = False


@njit(inline="always", **PLAIN)
def _features(row: np.uint64, at: int, start_features: F32, features: F32) -> None:
    width = features.shape[1]
    for j in range(0, width - 15, 16):
        store16(features, at, j, load16(start_features, row, j))
    for j in range(width - width % 16, width):
        features[at, np.uint64(j)] = start_features[row, np.uint64(j)]


@njit(inline="always", **PLAIN)
def _observe(
    lane: np.uint64,
    at: int,
    clock: U64,
    past: I32,
    history_items: I32,
    history_feedback: F32,
    step: I64,
) -> None:
    length = history_items.shape[1]
    step[at] = np.int64(clock[lane, STEP])
    first = np.int64(clock[lane, WRITTEN]) - length
    whole = length - length % 8
    for j in range(0, whole, 8):
        unpack8(past, lane, first + j, history_items, history_feedback, at, j)
    for j in range(whole, length):
        entry = past[lane, np.uint64(first + j)]
        history_items[at, np.uint64(j)] = entry >> 1
        history_feedback[at, np.uint64(j)] = np.float32(entry & 1)


@njit(inline="always", **PLAIN)
def _fetch_start(
    lane: int,
    row: int,
    start_state: F32,
    start_seen: U64,
    start_past: I32,
    start_features: F32,
    length: int,
    seen: U64,
    past: I32,
    features: F32,
) -> None:
    """Ask for what `_start` and `_features` will read and write."""
    for j in range(0, start_state.shape[1], 16):
        prefetch_read(start_state, row, j)
    for word in range(0, seen.shape[1], 8):
        prefetch_read(start_seen, row, word)
        prefetch_write(seen, lane, word)
    for j in range(0, length, 16):
        prefetch_read(start_past, row, j)
        prefetch_write(past, lane, j)
    for j in range(0, features.shape[1], 16):
        prefetch_read(start_features, row, j)
        prefetch_write(features, lane, j)


@njit(nogil=True, **PLAIN)
def start_users(
    rows: I64,
    start_user: I64,
    start_state: F32,
    start_bias: F32,
    start_seen: U64,
    start_past: I32,
    start_features: F32,
    length: int,
    seed: U64,
    session: U64,
    clock: U64,
    state: F32,
    mood: F32,
    seen: U64,
    past: I32,
    flags: Flags,
    features: F32,
) -> None:
    """Put the start `rows[lane]` into every lane, in place; session [n], seed [n]; length: H; features: [n, f]."""
    for at in range(rows.shape[0]):
        lane = np.uint64(at)
        row = np.uint64(rows[lane])
        _start(
            lane, row, start_user, start_state, start_bias, start_seen, start_past, length, seed, session, clock,
            state, mood, seen, past, flags,
        )  # fmt: skip
        _features(row, at, start_features, features)


@njit(nogil=True, **PLAIN)
def observe_users(clock: U64, past: I32, history_items: I32, history_feedback: F32, step: I64) -> None:
    """Write what every lane's user has done into outputs [n, H], [n, H], [n]; newest last."""
    for at in range(step.shape[0]):
        _observe(np.uint64(at), at, clock, past, history_items, history_feedback, step)


@njit(nogil=True, **PLAIN)
def advance_users(
    slate: I64,
    table: F32,
    groups: U32,
    traits: F32,
    parameters: F32,
    known: U64,
    known_start: I64,
    known_item: I32,
    start_row: I64,
    clock: U64,
    state: F32,
    mood: F32,
    seen: U64,
    past: I32,
    listed: U16,
    shown: I32,
    clicks: U8,
    reward: F32,
    flags: Flags,
    floats: F32,
    words: U64,
    numbers: I64,
    length: int,
    extra: Extra | None,
    start_user: I64,
    start_state: F32,
    start_bias: F32,
    start_seen: U64,
    start_past: I32,
    start_features: F32,
    seed: U64,
    episode: I64,
    session: U64,
    terminated: Flags,
    truncated: Flags,
    ended: I64,
    last_features: F32,
    last_items: I64,
    last_feedback: F32,
    last_step: I64,
    features: F32,
    history_items: I32,
    history_feedback: F32,
    step: I64,
) -> int:
    """`step_users`, and start the next session where one ended, and observe all: what a vector environment needs.

    The next user and session of a lane depend on its seed, its number and its episode only. Returns m, how many ended.

    seed, episode, start_row, session: [n]; episode is counted up. terminated, truncated: [n] outputs.
    ended, last_*: [n], ... outputs whose first m rows are the lanes that ended and their last observations.
    features: [n, f], written where a session starts.
    history_items, history_feedback, step: [n, H], [n, H], [n] outputs.
    """
    looks, lucks, flat, overlap, rows, examined, clicked, count = views_of_scratch(floats, words, numbers)
    n_starts = np.uint64(start_user.shape[0])
    m = 0
    for first in range(0, slate.shape[0], BLOCK):
        end = min(first + BLOCK, slate.shape[0])
        step_block(
            first, end, slate, table, groups, traits, parameters, known, known_start, known_item, start_row, clock,
            state, mood, seen, past, listed, shown, clicks, reward, flags, looks, lucks, flat, overlap, clicked, rows,
            examined, count, length, extra,
        )  # fmt: skip
        begin = m
        for at in range(first, end):
            lane = np.uint64(at)
            later = min(at + _OBSERVED_AHEAD, end - 1)
            oldest = np.int64(clock[np.uint64(later), WRITTEN]) - length
            for j in range(0, length, 16):
                prefetch_read(past, later, oldest + j)
                prefetch_write(history_items, later, j)
                prefetch_write(history_feedback, later, j)
            terminated[lane] = flags[lane, LEFT]
            truncated[lane] = flags[lane, DONE] and not flags[lane, LEFT]
            ended[m] = at  # no branch: whose session ends cannot be predicted
            m += 1 if flags[lane, DONE] else 0
            _observe(lane, at, clock, past, history_items, history_feedback, step)
        for place in range(begin, m):
            lane = np.uint64(ended[place])
            session[lane] = (lane << _32) | np.uint64(episode[lane])
            bits = fold(mix64(seed[lane] ^ NEXT_USER), session[lane])
            start_row[lane] = np.int64(((bits >> _32) * n_starts) >> _32)
            episode[lane] += 1
        for place in range(begin, m):
            later = min(place + _STARTED_AHEAD, m - 1)
            _fetch_start(
                ended[later], start_row[np.uint64(ended[later])], start_state, start_seen, start_past, start_features,
                length, seen, past, features,
            )  # fmt: skip
            for j in range(0, length, 16):
                prefetch_write(last_items, later, j)
                prefetch_write(last_feedback, later, j)
            at = ended[place]
            lane = np.uint64(at)
            row = np.uint64(start_row[lane])
            _features(lane, place, features, last_features)
            for j in range(length):
                last_items[place, j] = history_items[at, j]
                last_feedback[place, j] = history_feedback[at, j]
            last_step[place] = step[lane]
            _start(
                lane, row, start_user, start_state, start_bias, start_seen, start_past, length, seed, session, clock,
                state, mood, seen, past, flags,
            )  # fmt: skip
            if extra is not None:
                extra.bored[lane] = _ZERO
            _features(row, at, start_features, features)
            _observe(lane, at, clock, past, history_items, history_feedback, step)
    return m


@njit(nogil=True, **PLAIN)
def block_met(
    first: int,
    known: U64,
    known_start: I64,
    known_item: I32,
    start_row: I64,
    clock: U64,
    past: I32,
    length: int,
    out: U64,
) -> None:
    """What `seen` would hold for users `first` and following, where it has no words: out [m, W], zeros."""
    for at in range(out.shape[0]):
        user = np.uint64(first + at)
        row = np.uint64(start_row[user])
        if known.shape[1]:
            for word in range(known.shape[1]):
                out[at, word] = known[row, np.uint64(word)]
        else:
            for place in range(known_start[row], known_start[row + _1]):
                bit = np.uint64(known_item[place])
                out[at, bit >> _6] |= _1 << (bit & _63)
        for place in range(length, np.int64(clock[user, WRITTEN])):
            bit = np.uint64(past[user, np.uint64(place)] >> 1)
            out[at, bit >> _6] |= _1 << (bit & _63)


@njit(nogil=True, **PLAIN)
def unpack_candidates(blocked: U64, out: NDArray[np.bool_]) -> None:
    """Mask of the items that may be shown: out [n, I] from the bits of blocked [n, W]."""
    for user in range(out.shape[0]):
        for item in range(out.shape[1]):
            out[user, item] = (blocked[user, item >> 6] >> (np.uint64(item) & _63)) & _1 == np.uint64(0)
