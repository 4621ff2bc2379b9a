"""Which items of the slates are shown, and which of those are looked at."""

from __future__ import annotations

import numpy as np
from numba import njit

from simulator._compiled import F32, I32, I64, PLAIN, U16, U64
from simulator._vector import apart32, far32, first32, lesser32, lowest_bit, prefetch_write, short32, twins32, zeros32
from simulator.kernel.draws import GOLDEN, fold, high_uniform, low_uniform, mix64
from simulator.kernel.layout import ACTS, FIRST, KEY, N_PARAMETERS, SHOWN, STEP, USER, WRITTEN

_0, _1, _6, _63 = (np.uint64(n) for n in (0, 1, 6, 63))


@njit(inline="always", **PLAIN)
def _draw(moment: np.uint64, looks: F32, lucks: F32, b: int) -> None:
    """The uniforms of a slate's places: is it looked at, is it clicked."""
    for k in range(looks.shape[1]):
        bits = mix64((moment ^ ACTS) + GOLDEN * np.uint64(k + 1))
        looks[b, k] = high_uniform(bits)
        lucks[b, k] = low_uniform(bits)


@njit(**PLAIN)
def place_items(
    slate: I64,
    seen: U64,
    clock: U64,
    state: F32,
    parameters: F32,
    looks: F32,
    lucks: F32,
    rows: U64,
    examined: U64,
    count: I64,
    m: int,
    n_items: int,
    shift: np.uint64,
) -> None:
    """Which items of the slates are shown, and the list of those examined (each place by itself: no cascade)."""
    empty = np.uint64(n_items)
    n = _0
    for b in range(m):
        user = np.uint64(count[b, USER])
        for j in range(0, state.shape[1], 16):
            prefetch_write(state, count[b, USER], j)
        _draw(fold(clock[user, KEY], clock[user, STEP]), looks, lucks, b)
        count[b, FIRST] = np.int64(n)
        n_shown = 0
        for k in range(slate.shape[1]):
            item = min(np.uint64(slate[user, k]), empty)  # negative numbers wrap to large ones
            word, bit = item >> _6, _1 << (item & _63)
            old = seen[user, word]  # the bit of `empty` is always set
            there = (old & bit) == _0
            seen[user, word] = old | bit
            rows[b, k] = item if there else empty
            n_shown += there
            examined[0, n] = (np.uint64(b) << shift) | np.uint64(k)
            n += np.uint64(there & (looks[b, k] < parameters[N_PARAMETERS + k]))
        count[b, SHOWN] = n_shown
    count[m, FIRST] = np.int64(n)


@njit(**PLAIN)
def _listed(item: np.uint64, known_item: I32, start: np.uint64, end: np.uint64) -> bool:
    """Whether the sorted known_item[start:end] holds the item; how often it loops depends on the length alone."""
    number, at, left = np.int32(item), start, end - start
    while left > _1:
        half = left >> _1
        at += half if known_item[at + half] <= number else _0
        left -= half
    return bool(left > _0 and known_item[at] == number)


@njit(**PLAIN)
def _find_repeats(
    past: I32, rows: U64, b: int, user: np.uint64, slate_size: int, length: int, written: int, n_items: int
) -> None:
    """Empty the places of a slate whose item the session or a place above has shown."""
    empty = np.uint64(n_items)
    for k in range(slate_size - 1, -1, -1):  # from below, so that the places above are still whole
        found = False
        for place in range(length, written):
            found |= past[user, np.uint64(place)] >> 1 == np.int32(rows[b, k])
        for above in range(k):
            found |= rows[b, above] == rows[b, k]
        if found:
            rows[b, k] = empty


@njit(**PLAIN)
def place_listed(
    slate: I64,
    known: U64,
    known_start: I64,
    known_item: I32,
    start_row: I64,
    past: I32,
    listed: U16,
    clock: U64,
    state: F32,
    parameters: F32,
    looks: F32,
    lucks: F32,
    own: U16,
    rows: U64,
    examined: U64,
    count: I64,
    m: int,
    n_items: int,
    length: int,
    shift: np.uint64,
) -> None:
    """The same as `place_items` where a lane has a list of what the session has shown, not a mask of the catalogue.

    The list holds the lowest sixteen bits of the items' numbers; where they meet, the numbers themselves are compared.
    """
    empty, slate_size, lanes = np.uint64(n_items), slate.shape[1], looks.shape[1]
    masked, exact = known.shape[1] > 0, n_items < 1 << 16
    for b in range(m):
        user = np.uint64(count[b, USER])
        for j in range(0, state.shape[1], 16):
            prefetch_write(state, count[b, USER], j)
        _draw(fold(clock[user, KEY], clock[user, STEP]), looks, lucks, b)
        row = np.uint64(start_row[user])
        for k in range(slate_size):
            item = min(np.uint64(slate[user, k]), empty)  # negative numbers wrap to large ones
            if masked:
                met = (known[row, item >> _6] >> (item & _63)) & _1 != _0
            else:
                start, end = np.uint64(known_start[row]), np.uint64(known_start[row + _1])
                met = _listed(item, known_item, start, end)
            rows[b, k] = empty if met else item
            own[b, np.uint64(lanes + k)] = np.uint16(item)
    n = _0
    for b in range(m):
        user = np.uint64(count[b, USER])
        written = np.int64(clock[user, WRITTEN])
        so_far = written - length
        whole = so_far & -32
        rest, found = first32(listed, user, whole, so_far - whole), _0
        for k in range(slate_size):
            number = own[b, np.uint64(lanes + k)]
            apart = apart32(rest, number)
            for place in range(0, whole, 32):
                apart = lesser32(apart, apart32(short32(listed, user, place), number))
            hit = zeros32(apart)
            rows[b, k] = empty if hit and exact else rows[b, k]
            found |= hit
        for first in range(0, slate_size, 32):
            apart = far32()
            for above in range(1, min(slate_size, first + 32)):  # not before the slate
                begin = max(above - first, 0)
                apart = lesser32(apart, twins32(own, b, lanes + first, begin, slate_size - first, above))
            twins = zeros32(apart)
            found |= twins
            while twins and exact:
                rows[b, np.uint64(first) + lowest_bit(twins)] = empty
                twins &= twins - _1
        if found and not exact:
            _find_repeats(past, rows, b, user, slate_size, length, written, n_items)
        count[b, FIRST] = np.int64(n)
        n_shown = 0
        for k in range(slate_size):
            there = rows[b, k] < empty
            listed[user, np.uint64(so_far + n_shown)] = own[b, np.uint64(lanes + k)]
            n_shown += there
            examined[0, n] = (np.uint64(b) << shift) | np.uint64(k)
            n += np.uint64(there & (looks[b, k] < parameters[N_PARAMETERS + k]))
        count[b, SHOWN] = n_shown
    count[m, FIRST] = np.int64(n)
