"""One step of the users, block by block: shown, answered, exposed to, recorded, left or not."""

from __future__ import annotations

import numpy as np
from numba import njit

from simulator._compiled import F32, I32, I64, PLAIN, U8, U16, U32, U64, Flags
from simulator._vector import add32, fill32, half32, keep32, load32, mad32, move8, mul32, prefetch_write, store32, sum16
from simulator.kernel.answering import act, cascade, click, drift, pay_behaviour
from simulator.kernel.draws import fold, high_uniform, mix64, sigma
from simulator.kernel.layout import (
    BLOCK,
    C0,
    C1,
    C2,
    C3,
    CASCADE,
    DONE,
    EXPOSURE_MEMORY,
    FIRST,
    HORIZON,
    KEY,
    LEAVING,
    LEFT,
    RATE,
    SATISFACTION,
    SATISFACTION_MEMORY,
    SHARE,
    SHOWN,
    STEP,
    TWICE_USUAL,
    USER,
    WRITTEN,
    Extra,
    views_of_scratch,
)
from simulator.kernel.showing import place_items, place_listed

_0, _1 = (np.uint64(n) for n in (0, 1))
_ZERO, _HALF, _ONE = np.float32(0.0), np.float32(0.5), np.float32(1.0)
_NONE = np.int32(-1)
_USERS_AHEAD = 6
"""The history of a user is asked for so many users before it is needed."""


@njit(**PLAIN)
def _expose(
    groups: U32,
    traits: F32,
    state: F32,
    memory: np.float32,
    overlap: F32,
    rows: U64,
    count: I64,
    m: int,
    width: int,
    slate_size: int,
) -> None:
    """Exposure moves towards the slate's mean categories; `overlap` is what the two had in common before."""
    keep = fill32(memory)
    for b in range(m):
        user = np.uint64(count[b, USER])
        share = _ONE / np.float32(max(count[b, SHOWN], 1))
        gain = fill32((_ONE - memory) * share)
        both = fill32(_ZERO)
        for word in range(groups.shape[1]):
            total = fill32(_ZERO)
            for k in range(slate_size):
                row = rows[b, k]
                total = add32(total, keep32(np.uint64(groups[row, np.uint64(word)]), fill32(traits[row, SHARE])))
            before = load32(state, user, width + 32 * word)
            both = mad32(before, total, both)
            store32(state, user, width + 32 * word, mad32(gain, total, mul32(keep, before)))
        overlap[b] = sum16(half32(both)) * share


@njit(**PLAIN)
def _make_room(clock: U64, past: I32, count: I64, m: int, slate_size: int, length: int) -> None:
    """Where a slate would not fit behind the history, the newest H entries move to the front."""
    full = np.uint64(past.shape[1] - slate_size)
    for b in range(m):
        user = np.uint64(count[b, USER])
        if clock[user, WRITTEN] > full:
            first = clock[user, WRITTEN] - np.uint64(length)
            for j in range(0, length - 7, 8):  # eight at a time, from the front: the two places may overlap
                move8(past, user, np.int64(first) + j, j)
            for j in range(length - length % 8, length):
                past[user, np.uint64(j)] = past[user, first + np.uint64(j)]
            clock[user, WRITTEN] = np.uint64(length)


@njit(**PLAIN)
def _record(
    clock: U64,
    mood: F32,
    past: I32,
    listed: U16,
    shown: I32,
    clicks: U8,
    reward: F32,
    flags: Flags,
    parameters: F32,
    overlap: F32,
    flat: F32,
    clicked: F32,
    rows: U64,
    examined: U64,
    count: I64,
    m: int,
    n_items: int,
    length: int,
    shift: np.uint64,
) -> int:
    """Outputs, history, satisfaction and leaving; returns how many are done."""
    empty, low, slate_size = np.uint64(n_items), (_1 << shift) - _1, shown.shape[1]
    # The room of places that are recorded is used again: of user b it begins at b L.
    moment, step = rows.reshape(rows.size), clicked.reshape(clicked.size)
    for b in range(m):
        for k in range(clicked.shape[1]):
            clicked[b, k] = _ZERO
    for p in range(count[m, FIRST]):
        clicked[examined[0, p] >> shift, examined[0, p] & low] = flat[1, p]
    for b in range(m):
        user = np.uint64(count[b, USER])
        later = np.uint64(count[min(b + _USERS_AHEAD, m - 1), USER])
        prefetch_write(past, later, np.int64(clock[later, WRITTEN]))
        if listed.shape[1]:  # of the next block
            following = min(count[b, USER] + BLOCK, clock.shape[0] - 1)
            for place in range(0, np.int64(clock[np.uint64(following), WRITTEN]) - length + slate_size, 32):
                prefetch_write(listed, following, place)
        written = clock[user, WRITTEN]
        n_clicks = _0
        for k in range(slate_size):
            row, hit = rows[b, k], clicked[b, k] > _ZERO
            there = row < empty
            shown[user, k] = np.int32(row) if there else _NONE
            clicks[user, k] = hit
            past[user, written] = np.int32((row << _1) + np.uint64(hit))  # written over where nothing is shown
            written += np.uint64(there)
            n_clicks += np.uint64(hit)
        clock[user, WRITTEN] = written
        flat[0, b] = mood[user, SATISFACTION]
        flat[1, b] = np.float32(np.int64(n_clicks))
        moment[b] = fold(clock[user, KEY], clock[user, STEP])
        step[b] = np.float32(np.int64(clock[user, STEP]))
    usual = parameters[TWICE_USUAL]
    keep, share = parameters[SATISFACTION_MEMORY], _ONE - parameters[SATISFACTION_MEMORY]
    c0, c1, c2, c3 = parameters[C0], parameters[C1], parameters[C2], parameters[C3]
    for b in range(m):  # nothing but arithmetic, so that eight or sixteen users are done at once
        pleased = min(_ONE, flat[1, b] / usual)
        satisfaction = keep * flat[0, b] + share * pleased
        hazard = sigma(c0 - c1 * (satisfaction - _HALF) + c2 * overlap[b] + c3 * step[b])
        flat[0, b] = satisfaction
        overlap[b] = _ONE if high_uniform(mix64(moment[b] ^ LEAVING)) < hazard else _ZERO
    n_done = 0
    for b in range(m):
        user = np.uint64(count[b, USER])
        left = overlap[b] > _ZERO
        done = left or step[b] + _ONE >= parameters[HORIZON]
        mood[user, SATISFACTION] = flat[0, b]
        clock[user, STEP] += _1
        flags[user, LEFT] = left
        flags[user, DONE] = done
        reward[user] = flat[1, b]
        n_done += 1 if done else 0
    return n_done


@njit(**PLAIN)
def step_block(
    first: int,
    end: int,
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
    looks: F32,
    lucks: F32,
    flat: F32,
    overlap: F32,
    clicked: F32,
    rows: U64,
    examined: U64,
    count: I64,
    length: int,
    extra: Extra | None,
) -> int:
    """One step of users first to end, at most BLOCK of them; returns how many are done."""
    slate_size = slate.shape[1]
    n_items = table.shape[0] - 1
    shift = _0
    while (1 << shift) < looks.shape[1]:
        shift += _1
    n_done = 0
    m = np.int64(0)  # a literal would compile all that it is passed to twice
    for user in range(first, end):
        if flags[user, DONE]:
            n_done += 1
            reward[user] = _ZERO
            for k in range(slate_size):
                shown[user, k] = -1
                clicks[user, k] = 0
            if extra is not None:
                extra.after[user] = _ZERO
        else:
            count[m, USER] = user
            m += 1
    if seen.shape[1]:
        place_items(slate, seen, clock, state, parameters, looks, lucks, rows, examined, count, m, n_items, shift)
    else:
        place_listed(
            slate, known, known_start, known_item, start_row, past, listed, clock, state, parameters, looks, lucks,
            clicked.view(np.uint16), rows, examined, count, m, n_items, length, shift,
        )  # fmt: skip
    if extra is not None:
        act(
            table, groups, traits, parameters, start_row, clock, state, mood, looks, lucks, flat, rows, examined, count,
            m, slate_size, shift, extra,
        )  # fmt: skip
    elif parameters[CASCADE] > _ZERO:
        cascade(
            table, groups, traits, parameters, clock, state, mood, looks, lucks, flat, rows, examined, count, m,
            slate_size, shift,
        )  # fmt: skip
    else:
        click(table, groups, traits, parameters, state, mood, looks, lucks, flat, rows, examined, count, m, shift)
    if parameters[RATE] > _ZERO:
        drift(table, state, flat, examined, count, m)
    _expose(
        groups, traits, state, parameters[EXPOSURE_MEMORY], overlap, rows, count, m, table.shape[1], slate_size
    )  # fmt: skip
    if past.shape[1] < length + np.int64(parameters[HORIZON]) * slate_size:
        _make_room(clock, past, count, m, slate_size, length)
    n_done += _record(
        clock, mood, past, listed, shown, clicks, reward, flags, parameters, overlap, flat, clicked, rows, examined,
        count, m, n_items, length, shift,
    )  # fmt: skip
    if extra is not None:
        pay_behaviour(reward, count, m, slate_size, extra)
    return n_done


@njit(nogil=True, **PLAIN)
def step_users(
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
) -> int:
    """One step of n users in place; returns how many are done. Users done before are left as they are.

    slate: [n, K]; a place is empty (no item's number, in `seen`, or a repetition) or shown.
    table: [I + 1, width] vectors, width a multiple of 16; the last row is zero, as it is of the next two.
    groups, traits: [I + 1, C / 32] and [I + 1, 2] categories of each item as bits; its bias and 1 / their number.
    parameters: [12 + K] in the order of the constants above, then the examination curve.
    known: [U, V] what users had met before the session, by row of the starts: bits as in `seen`. With V = 0
        known_item[known_start[u] : known_start[u + 1]], sorted, is searched instead. Not used where W > 0.
    start_row: [n] row of the starts that a lane's user is.
    clock, state, mood: [n, 3], [n, width + C], [n, 2] state: taste and exposure by category; columns as above.
    seen: [n, W] bit i of a row is set where item i may not be shown; bit I is always set. With W = 0 `known` and what
        the session has shown are searched instead.
    past: [n, P] history, the newest H = `length` entries end at column WRITTEN; 2 item + click, -2 where empty.
        The session's own entries begin at column H where P >= H + horizon K + 1. Otherwise P >= H + K, W is not 0, and
        the newest H entries are moved to the front when it is full (the larger, the more seldom).
    listed: [n, T] lowest sixteen bits of the items that the session has shown, as many as `past` has. T is a multiple
        of 32, and >= (horizon + 1) K where W = 0; 0 elsewhere.
    shown, clicks, reward: [n, K], [n, K], [n] outputs. flags: [n, 2] left and done, in and out.
    floats, words, numbers: what `new_scratch` returns.
    extra: None leaves out all parts of `Extra`: numba compiles the step without them.
    """
    looks, lucks, flat, overlap, rows, examined, clicked, count = views_of_scratch(floats, words, numbers)
    n_done = 0
    for first in range(0, slate.shape[0], BLOCK):
        end = min(first + BLOCK, slate.shape[0])
        n_done += step_block(
            first, end, slate, table, groups, traits, parameters, known, known_start, known_item, start_row, clock,
            state, mood, seen, past, listed, shown, clicks, reward, flags, looks, lucks, flat, overlap, clicked, rows,
            examined, count, length, extra,
        )  # fmt: skip
    return n_done
