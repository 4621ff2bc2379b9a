"""The step of the simulated users: numba over arrays, counter-based random numbers, nothing else.

Every draw is a hash of (seed, stream, real user, session, step, position), so the same bits come out for any batch
size, order or thread. No array is allocated here; callers pass all outputs and scratch. The functions release the GIL.

Users are stepped in blocks, one phase at a time over the block: rows stay in cache, and branches that no processor can
predict (how many places of a slate are looked at) do not interrupt the arithmetic. No `fastmath`: sums run over sixteen
lanes in one order (`simulator._vector`). Indices that are not counted by `range` are unsigned, because numba's test for
negative ones keeps loops from being vectorised.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from simulator._compiled import F32, I32, I64, PLAIN, U8, U16, U32, U64, Flags
from simulator._vector import (
    add16,
    add32,
    apart32,
    far32,
    fill16,
    fill32,
    first32,
    half32,
    keep32,
    lesser32,
    load16,
    load32,
    lowest_bit,
    mad16,
    mad32,
    move8,
    mul32,
    prefetch_read,
    prefetch_write,
    short32,
    store16,
    store32,
    sum16,
    twins32,
    unpack8,
    zeros32,
)

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_M1 = np.uint64(0xBF58476D1CE4E5B9)
_M2 = np.uint64(0x94D049BB133111EB)
_NONE = np.int32(-1)
_0, _1, _6, _16, _27, _30, _31, _32, _40, _63 = (np.uint64(s) for s in (0, 1, 6, 16, 27, 30, 31, 32, 40, 63))
_LOW24 = np.uint64(0xFFFFFF)
_ULP24 = np.float32(2.0**-24)
_ZERO, _HALF, _ONE = np.float32(0.0), np.float32(0.5), np.float32(1.0)

ACTS, LEAVING, NEXT_USER = np.uint64(1), np.uint64(2), np.uint64(3)
"""Streams: examination and clicks; leaving; which user an environment's next episode is of."""

STRENGTH, EXPOSURE_MEMORY, RATE, C0, C1, C2, C3, SATISFACTION_MEMORY, TWICE_USUAL, CASCADE, CONTINUATION, HORIZON = (
    range(12)
)
N_PARAMETERS = 12
"""Places of the parameters in the kernel's parameter array; the examination curve [K] follows them."""

KEY, STEP, WRITTEN = np.uint64(0), np.uint64(1), np.uint64(2)
"""Columns of `clock`: hash of (seed, user, session); slates shown; where the next entry of the history goes."""
BIAS, SATISFACTION = np.uint64(0), np.uint64(1)
"""Columns of `mood`: the user's own logit; running satisfaction in [0, 1]."""
LEFT, DONE = 0, 1
"""Columns of `flags`."""
ITEM_BIAS, SHARE = np.uint64(0), np.uint64(1)
"""Columns of `traits`: the item's own logit; 1 / number of its categories."""

_AHEAD = 3
"""Rows are asked for this many items before they are used."""
_USERS_AHEAD = 6
"""The history of a user is asked for so many users before it is needed."""
_OBSERVED_AHEAD, _STARTED_AHEAD = 3, 2
"""The same for observations, and for what the next session of a lane is started from."""
BLOCK = 128
"""Users stepped together."""
_STAGGER = 24
"""Numbers between working arrays, so that they do not lie 4,096 bytes apart: a processor takes such places for one."""
_SHOWN, _FIRST, _USER = 0, 1, 2
"""Columns of the scratch `count`: items shown; where the user's examined items begin in the flat arrays; who it is."""


def lanes_of(slate_size: int) -> int:
    """Length of a scratch row: a power of two, at least three more than the slate."""
    return 1 << (slate_size + 2).bit_length()


def new_scratch(slate_size: int) -> tuple[F32, U64, I64]:
    """Working memory of `step_users` and `advance_users` for slates of K; not shared between threads.

    With L = lanes_of(K) it holds looks, lucks, clicked, rows [BLOCK, L], flat, examined [2, BLOCK L],
    overlap [BLOCK] and count [BLOCK + 1, 3].
    """
    rows = BLOCK * lanes_of(slate_size)
    size = rows + _STAGGER
    return np.zeros(6 * size, np.float32), np.zeros(3 * size, np.uint64), np.zeros(3 * (BLOCK + 1), np.int64)


@njit(cache=True, inline="always")
def mix64(x: np.uint64) -> np.uint64:
    """SplitMix64's finaliser (Steele, Lea and Flood, 2014): a bijection, each output bit depends on all input bits."""
    x = (x ^ (x >> _30)) * _M1
    x = (x ^ (x >> _27)) * _M2
    return x ^ (x >> _31)


@njit(cache=True, inline="always")
def fold(key: np.uint64, word: np.uint64) -> np.uint64:
    """Key of one more coordinate (user, session, step)."""
    return mix64((key ^ word) + GOLDEN)


@njit(cache=True, inline="always")
def high_uniform(bits: np.uint64) -> np.float32:
    """Uniform on [0, 1) from the highest 24 bits."""
    return np.float32(np.int32(bits >> _40)) * _ULP24


@njit(cache=True, inline="always")
def low_uniform(bits: np.uint64) -> np.float32:
    """Uniform on [0, 1) from bits 16 to 39: independent of `high_uniform` of the same bits."""
    return np.float32(np.int32((bits >> _16) & _LOW24)) * _ULP24


_LOG2_E, _LN2_HIGH, _LN2_LOW = np.float32(1.44269504), np.float32(0.693359375), np.float32(-2.12194440e-4)
_E0, _E1, _E2 = np.float32(1.9875691500e-4), np.float32(1.3981999507e-3), np.float32(8.3334519073e-3)
_E3, _E4, _E5 = np.float32(4.1665795894e-2), np.float32(1.6666665459e-1), np.float32(5.0000001201e-1)
_FAR = np.float32(80.0)
_MAGIC = np.float32(1.5 * 2**23)  # adding it rounds to an integer, which then stands in the lowest bits
_MANTISSA = np.int32(23)
_BITS_OF_ONE = np.int32(0x3F800000)


@njit(inline="always", **PLAIN)
def sigma(z: np.float32) -> np.float32:
    """1 / (1 + exp(-z)) within 2e-7 of the value, by Cephes' polynomial: vectorises, and is the same on any libm."""
    x = -z
    x = x if x > -_FAR else -_FAR
    x = x if x < _FAR else _FAR
    rounded = x * _LOG2_E + _MAGIC
    n = rounded - _MAGIC
    r = x - n * _LN2_HIGH - n * _LN2_LOW
    y = ((((_E0 * r + _E1) * r + _E2) * r + _E3) * r + _E4) * r + _E5
    power = np.int32(np.int32(np.float32(rounded).view(np.int32) << _MANTISSA) + _BITS_OF_ONE).view(np.float32)
    return _ONE / (_ONE + (y * r * r + r + _ONE) * power)


@njit(inline="always", **PLAIN)
def _logit(
    state: F32, user: np.uint64, table: F32, groups: U32, traits: F32, row: np.uint64, strength: np.float32
) -> np.float32:
    """<taste, vector> + bias - strength <exposure, shares>."""
    width = table.shape[1]
    taste = fill16(_ZERO)
    other = taste  # two sums side by side: an addition need not wait for the one before
    for c in range(0, width - 16, 32):
        taste = mad16(load16(state, user, c), load16(table, row, c), taste)
        other = mad16(load16(state, user, c + 16), load16(table, row, c + 16), other)
    for c in range(width & -32, width, 16):
        taste = mad16(load16(state, user, c), load16(table, row, c), taste)
    exposed = fill32(_ZERO)
    for word in range(groups.shape[1]):
        own = load32(state, user, width + 32 * word)
        exposed = add32(exposed, keep32(np.uint64(groups[row, np.uint64(word)]), own))
    taste = mad16(fill16(-strength * traits[row, SHARE]), half32(exposed), add16(taste, other))
    return sum16(taste) + traits[row, ITEM_BIAS]


@njit(inline="always", **PLAIN)
def _draw(moment: np.uint64, looks: F32, lucks: F32, b: int) -> None:
    """The uniforms of a slate's places: is it looked at, is it clicked."""
    for k in range(looks.shape[1]):
        bits = mix64((moment ^ ACTS) + GOLDEN * np.uint64(k + 1))
        looks[b, k] = high_uniform(bits)
        lucks[b, k] = low_uniform(bits)


@njit(**PLAIN)
def _place(
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
        user = np.uint64(count[b, _USER])
        for j in range(0, state.shape[1], 16):
            prefetch_write(state, count[b, _USER], j)
        _draw(fold(clock[user, KEY], clock[user, STEP]), looks, lucks, b)
        count[b, _FIRST] = np.int64(n)
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
        count[b, _SHOWN] = n_shown
    count[m, _FIRST] = np.int64(n)


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
def _place_listed(
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
    """The same as `_place` where a lane has a list of what the session has shown, not a mask of the catalogue.

    The list holds the lowest sixteen bits of the items' numbers; where they meet, the numbers themselves are compared.
    """
    empty, slate_size, lanes = np.uint64(n_items), slate.shape[1], looks.shape[1]
    masked, exact = known.shape[1] > 0, n_items < 1 << 16
    for b in range(m):
        user = np.uint64(count[b, _USER])
        for j in range(0, state.shape[1], 16):
            prefetch_write(state, count[b, _USER], j)
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
        user = np.uint64(count[b, _USER])
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
        count[b, _FIRST] = np.int64(n)
        n_shown = 0
        for k in range(slate_size):
            there = rows[b, k] < empty
            listed[user, np.uint64(so_far + n_shown)] = own[b, np.uint64(lanes + k)]
            n_shown += there
            examined[0, n] = (np.uint64(b) << shift) | np.uint64(k)
            n += np.uint64(there & (looks[b, k] < parameters[N_PARAMETERS + k]))
        count[b, _SHOWN] = n_shown
    count[m, _FIRST] = np.int64(n)


@njit(**PLAIN)
def _drift(table: F32, state: F32, flat: F32, examined: U64, count: I64, m: int) -> None:
    """Taste moves by weight times vector of each examined item, eight items at a time (most slates have no more)."""
    for b in range(m):
        user, end = np.uint64(count[b, _USER]), count[b + 1, _FIRST]
        for p in range(count[b, _FIRST], end, 8):
            i0, i1, i2, i3 = examined[1, p], examined[1, p + 1], examined[1, p + 2], examined[1, p + 3]
            i4, i5, i6, i7 = examined[1, p + 4], examined[1, p + 5], examined[1, p + 6], examined[1, p + 7]
            w0 = fill16(flat[0, p])
            w1 = fill16(flat[0, p + 1] if p + 1 < end else _ZERO)
            w2 = fill16(flat[0, p + 2] if p + 2 < end else _ZERO)
            w3 = fill16(flat[0, p + 3] if p + 3 < end else _ZERO)
            w4 = fill16(flat[0, p + 4] if p + 4 < end else _ZERO)
            w5 = fill16(flat[0, p + 5] if p + 5 < end else _ZERO)
            w6 = fill16(flat[0, p + 6] if p + 6 < end else _ZERO)
            w7 = fill16(flat[0, p + 7] if p + 7 < end else _ZERO)
            for j in range(0, table.shape[1], 16):
                moved = mad16(w0, load16(table, i0, j), load16(state, user, j))
                moved = mad16(w1, load16(table, i1, j), moved)
                moved = mad16(w2, load16(table, i2, j), moved)
                moved = mad16(w3, load16(table, i3, j), moved)
                moved = mad16(w4, load16(table, i4, j), moved)
                moved = mad16(w5, load16(table, i5, j), moved)
                moved = mad16(w6, load16(table, i6, j), moved)
                store16(state, user, j, mad16(w7, load16(table, i7, j), moved))


@njit(**PLAIN)
def _click(
    table: F32,
    groups: U32,
    traits: F32,
    parameters: F32,
    state: F32,
    mood: F32,
    looks: F32,
    lucks: F32,
    flat: F32,
    rows: U64,
    examined: U64,
    count: I64,
    m: int,
    shift: np.uint64,
) -> None:
    """Clicks on the examined items, and each one's weight rate * (click - p) in the drift."""
    n, low = count[m, _FIRST], (_1 << shift) - _1
    strength, rate = parameters[STRENGTH], parameters[RATE]
    for p in range(n):
        ahead = examined[0, p + _AHEAD]
        for c in range(0, table.shape[1], 16):
            prefetch_read(table, rows[ahead >> shift, ahead & low], c)
        b, k = examined[0, p] >> shift, examined[0, p] & low
        user, row = np.uint64(count[b, _USER]), rows[b, k]
        flat[0, p] = _logit(state, user, table, groups, traits, row, strength) + mood[user, BIAS]
        flat[1, p] = lucks[b, k]
        examined[1, p] = row
    for p in range(n):
        chance = sigma(flat[0, p])
        clicked = _ONE if flat[1, p] < chance else _ZERO
        flat[0, p] = rate * (clicked - chance)
        flat[1, p] = clicked


@njit(**PLAIN)
def _cascade(
    table: F32,
    groups: U32,
    traits: F32,
    parameters: F32,
    clock: U64,
    state: F32,
    mood: F32,
    looks: F32,
    lucks: F32,
    flat: F32,
    rows: U64,
    examined: U64,
    count: I64,
    m: int,
    slate_size: int,
    shift: np.uint64,
) -> None:
    """The same as `_click` where the user reads from the top and each look depends on what was clicked above."""
    strength, rate, empty = parameters[STRENGTH], parameters[RATE], np.uint64(table.shape[0] - 1)
    n = _0
    for b in range(m):
        user = np.uint64(count[b, _USER])
        acts = fold(clock[user, KEY], clock[user, STEP]) ^ ACTS
        count[b, _FIRST] = np.int64(n)
        for k in range(slate_size):
            if looks[b, k] >= parameters[N_PARAMETERS + k]:
                break
            row = rows[b, k]
            if row == empty:
                continue
            chance = sigma(_logit(state, user, table, groups, traits, row, strength) + mood[user, BIAS])
            clicked = _ONE if lucks[b, k] < chance else _ZERO
            examined[0, n] = (np.uint64(b) << shift) | np.uint64(k)
            examined[1, n] = row
            flat[0, n] = rate * (clicked - chance)
            flat[1, n] = clicked
            n += _1
            if clicked > _ZERO:
                more = high_uniform(mix64(mix64(acts + GOLDEN * np.uint64(k + 1)) + GOLDEN))
                if more >= parameters[CONTINUATION]:
                    break
    count[m, _FIRST] = np.int64(n)


# --------------------------------------------------------------- parts that are off unless asked for: `extra` is None


class Extra(NamedTuple):
    """What the further parts of the behaviour need; `step_users` and `advance_users` take None where all are off.

    numbers: [10] in the order of the constants below.
    examination: [K, K + 1] as `simulator.behaviour.examination_table`.
    nest: [I + 1] number of the item's nest, -1 for a nest of its own.
    friends_start, friends_item: [U + 1], [m] items that a friend of each start row likes, rising within a row.
    bored: [n, C] running clicks by category.
    heads: [B, 4] kind (1 yes/no, 2 dwell, 3 rating), intercept, slope, number of levels; levels: [B, 2, L] levels
        or cuts, and ratings.
    after: [n, K, B] output: behaviours after the click.
    """

    numbers: F32
    examination: F32
    nest: I32
    friends_start: I64
    friends_item: I64
    bored: F32
    heads: F32
    levels: NDArray[np.float32]
    after: NDArray[np.float32]


CHOICE, NO_CHOICE, DISSIMILARITY, DEPTH, THRESHOLD, CLICK_MEMORY, FRIENDS, REWARD, BROWSING = range(9)
N_NUMBERS = 9
"""Places in `Extra.numbers`. CHOICE: 0 independent, 1 logit, 2 nested. REWARD: 0 clicks, b + 1 behaviour b."""
CHOOSING = np.uint64(4)
"""Stream of the one uniform by which a slate is chosen from."""
RETURNING = np.uint64(5)
"""Stream of the gap to the next session."""
_LEVELS = np.float32(256.0)
_SQRT_HALF, _LN2 = np.float32(0.70710678), np.float32(0.69314718)


@njit(**PLAIN)
def exp32(x: np.float32) -> np.float32:
    """exp(x) for |x| <= 80 by Cephes' polynomial, as in `sigma`."""
    x = x if x > -_FAR else -_FAR
    x = x if x < _FAR else _FAR
    rounded = x * _LOG2_E + _MAGIC
    n = rounded - _MAGIC
    r = x - n * _LN2_HIGH - n * _LN2_LOW
    y = ((((_E0 * r + _E1) * r + _E2) * r + _E3) * r + _E4) * r + _E5
    power = np.int32(np.int32(np.float32(rounded).view(np.int32) << _MANTISSA) + _BITS_OF_ONE).view(np.float32)
    return (y * r * r + r + _ONE) * power


@njit(**PLAIN)
def log32(x: np.float32) -> np.float32:
    """log(x) for x >= 1 within 1e-6, by the series of atanh: no libm, so the same everywhere."""
    exponent = _ZERO
    while x > np.float32(1.41421356):
        x *= _HALF
        exponent += _ONE
    s = (x - _ONE) / (x + _ONE)
    t = s * s
    series = _ONE + t * (np.float32(1 / 3) + t * (np.float32(1 / 5) + t * (np.float32(1 / 7) + t * np.float32(1 / 9))))
    return np.float32(2.0) * s * series + exponent * _LN2


@njit(**PLAIN)
def _has(start: I64, item: I64, row: np.uint64, wanted: np.int64) -> bool:
    """Whether a rising ragged row holds a number."""
    low, high = start[row], start[row + _1]
    while low < high:
        middle = (low + high) >> 1
        if item[np.uint64(middle)] < wanted:
            low = middle + 1
        else:
            high = middle
    return low < start[row + _1] and item[np.uint64(low)] == wanted


@njit(**PLAIN)
def _choose(flat: F32, examined: U64, begin: int, end: int, uniform: np.float32, extra: Extra) -> int:
    """Which of the examined items is chosen, by place in the flat arrays, -1 for none; flat[1] gets the chances.

    The inverse distribution function of one uniform, in the slate's order with choosing none last.
    flat: row 0 holds the logits.
    """
    numbers = extra.numbers
    scale = numbers[DISSIMILARITY] if numbers[CHOICE] > _ONE else _ONE
    top = numbers[NO_CHOICE]
    for p in range(begin, end):
        top = max(top, flat[0, p])
    total = exp32(numbers[NO_CHOICE] - top)
    for p in range(begin, end):
        if numbers[CHOICE] < np.float32(2.0):
            flat[1, p] = exp32(flat[0, p] - top)
            total += flat[1, p]
            continue
        # Nested: the nest's sum over its strongest item, so that the logarithm's argument is at least 1.
        nest = extra.nest[examined[1, p]]
        strongest, first = flat[0, p], True
        for q in range(begin, end):
            if nest >= 0 and extra.nest[examined[1, q]] == nest:
                strongest = max(strongest, flat[0, q])
                first = first and q >= p
        within = _ZERO
        for q in range(begin, end):
            if q == p or (nest >= 0 and extra.nest[examined[1, q]] == nest):
                within += exp32((flat[0, q] - strongest) / scale)
        weight = exp32(strongest - top + scale * log32(within))
        flat[1, p] = weight * exp32((flat[0, p] - strongest) / scale) / within
        if first:
            total += weight
    chosen, run = -1, _ZERO
    for p in range(begin, end):
        flat[1, p] /= total
        run += flat[1, p]
        if chosen < 0 and uniform < run:
            chosen = p
    return chosen


@njit(**PLAIN)
def _follow(user: np.uint64, k: int, z: np.float32, bits: np.uint64, extra: Extra) -> None:
    """Behaviours after a click at place k with logit z; bits: those of the place."""
    for h in range(extra.heads.shape[0]):
        uniform = high_uniform(mix64(bits + GOLDEN * np.uint64(h + 2)))
        kind, intercept, slope = extra.heads[h, 0], extra.heads[h, 1], extra.heads[h, 2]
        if kind == _ONE:
            extra.after[user, k, h] = _ONE if uniform < sigma(intercept + slope * z) else _ZERO
        elif kind == np.float32(2.0):
            level = extra.levels[h, 0, int(uniform * _LEVELS)]
            extra.after[user, k, h] = exp32(intercept + slope * z + level)
        else:
            place = 0
            for cut in range(int(extra.heads[h, 3])):
                place += 1 if uniform >= sigma(extra.levels[h, 0, cut] - slope * z) else 0
            extra.after[user, k, h] = extra.levels[h, 1, place]


@njit(**PLAIN)
def _boring(groups: U32, traits: F32, row: np.uint64, user: np.uint64, extra: Extra) -> np.float32:
    """Share of the item's categories that bore the user."""
    share = _ZERO
    for c in range(extra.bored.shape[1]):
        if extra.bored[user, c] > extra.numbers[THRESHOLD] and (groups[row, c >> 5] >> np.uint32(c & 31)) & np.uint32(
            1
        ):
            share += traits[row, SHARE]
    return share


@njit(**PLAIN)
def _act(
    table: F32,
    groups: U32,
    traits: F32,
    parameters: F32,
    start_row: I64,
    clock: U64,
    state: F32,
    mood: F32,
    looks: F32,
    lucks: F32,
    flat: F32,
    rows: U64,
    examined: U64,
    count: I64,
    m: int,
    slate_size: int,
    shift: np.uint64,
    extra: Extra,
) -> None:
    """What `_click` and `_cascade` do, with every further part: choice, boredom, friends, and what follows a click."""
    strength, rate, empty = parameters[STRENGTH], parameters[RATE], np.uint64(table.shape[0] - 1)
    numbers, cascade = extra.numbers, parameters[CASCADE] > _ZERO
    n = np.int64(0)
    for b in range(m):
        user = np.uint64(count[b, _USER])
        moment = fold(clock[user, KEY], clock[user, STEP])
        acts = moment ^ ACTS
        begin = n
        count[b, _FIRST] = begin
        last = 0
        for k in range(slate_size):
            for h in range(extra.heads.shape[0]):
                extra.after[user, k, h] = _ZERO
        for k in range(slate_size):
            if looks[b, k] >= extra.examination[k, last]:
                if cascade:
                    break
                continue
            row = rows[b, k]
            if row == empty:
                continue
            z = _logit(state, user, table, groups, traits, row, strength) + mood[user, BIAS]
            if numbers[DEPTH] > _ZERO:
                z -= numbers[DEPTH] * _boring(groups, traits, row, user, extra)
            if numbers[FRIENDS] != _ZERO and _has(
                extra.friends_start, extra.friends_item, np.uint64(start_row[user]), np.int64(row)
            ):
                z += numbers[FRIENDS]
            examined[0, n] = (np.uint64(b) << shift) | np.uint64(k)
            examined[1, n] = row
            flat[0, n] = z
            n += 1
            if numbers[CHOICE] > _ZERO:
                continue
            chance = sigma(z)
            clicked = lucks[b, k] < chance
            flat[0, n - 1] = rate * ((_ONE if clicked else _ZERO) - chance)
            flat[1, n - 1] = _ONE if clicked else _ZERO
            if clicked:
                bits = mix64(acts + GOLDEN * np.uint64(k + 1))
                _follow(user, k, z, bits, extra)
                if cascade and high_uniform(mix64(bits + GOLDEN)) >= parameters[CONTINUATION]:
                    break
                if numbers[BROWSING] > _ZERO:
                    last = k + 1
        if numbers[CHOICE] > _ZERO:
            chosen = _choose(flat, examined, begin, n, high_uniform(mix64(moment ^ CHOOSING)), extra)
            for p in range(begin, n):
                clicked = p == chosen
                if clicked:
                    k = int(examined[0, p] & ((_1 << shift) - _1))
                    _follow(user, k, flat[0, p], mix64(acts + GOLDEN * np.uint64(k + 1)), extra)
                flat[0, p] = rate * ((_ONE if clicked else _ZERO) - flat[1, p])
                flat[1, p] = _ONE if clicked else _ZERO
        if numbers[DEPTH] > _ZERO:
            for c in range(extra.bored.shape[1]):
                extra.bored[user, c] *= numbers[CLICK_MEMORY]
            for p in range(begin, n):
                row = examined[1, p]
                for c in range(extra.bored.shape[1]):
                    if flat[1, p] > _ZERO and (groups[row, c >> 5] >> np.uint32(c & 31)) & np.uint32(1):
                        extra.bored[user, c] += traits[row, SHARE]
    count[m, _FIRST] = n


@njit(**PLAIN)
def _reward(reward: F32, count: I64, m: int, slate_size: int, extra: Extra) -> None:
    """The reward where it is a behaviour after the click."""
    head = int(extra.numbers[REWARD]) - 1
    if head < 0:
        return
    for b in range(m):
        user = np.uint64(count[b, _USER])
        total = _ZERO
        for k in range(slate_size):
            total += extra.after[user, k, head]
        reward[user] = total


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
        user = np.uint64(count[b, _USER])
        share = _ONE / np.float32(max(count[b, _SHOWN], 1))
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
        user = np.uint64(count[b, _USER])
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
    for p in range(count[m, _FIRST]):
        clicked[examined[0, p] >> shift, examined[0, p] & low] = flat[1, p]
    for b in range(m):
        user = np.uint64(count[b, _USER])
        later = np.uint64(count[min(b + _USERS_AHEAD, m - 1), _USER])
        prefetch_write(past, later, np.int64(clock[later, WRITTEN]))
        if listed.shape[1]:  # of the next block
            following = min(count[b, _USER] + BLOCK, clock.shape[0] - 1)
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
        user = np.uint64(count[b, _USER])
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
def _step_block(
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
            count[m, _USER] = user
            m += 1
    if seen.shape[1]:
        _place(slate, seen, clock, state, parameters, looks, lucks, rows, examined, count, m, n_items, shift)
    else:
        _place_listed(
            slate, known, known_start, known_item, start_row, past, listed, clock, state, parameters, looks, lucks,
            clicked.view(np.uint16), rows, examined, count, m, n_items, length, shift,
        )  # fmt: skip
    if extra is not None:
        _act(
            table, groups, traits, parameters, start_row, clock, state, mood, looks, lucks, flat, rows, examined, count,
            m, slate_size, shift, extra,
        )  # fmt: skip
    elif parameters[CASCADE] > _ZERO:
        _cascade(
            table, groups, traits, parameters, clock, state, mood, looks, lucks, flat, rows, examined, count, m,
            slate_size, shift,
        )  # fmt: skip
    else:
        _click(table, groups, traits, parameters, state, mood, looks, lucks, flat, rows, examined, count, m, shift)
    if parameters[RATE] > _ZERO:
        _drift(table, state, flat, examined, count, m)
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
        _reward(reward, count, m, slate_size, extra)
    return n_done


@njit(inline="always", **PLAIN)
def _scratch(floats: F32, words: U64, numbers: I64) -> tuple[F32, F32, F32, F32, U64, U64, F32, I64]:
    """The working arrays of a block, out of three: each argument of a kernel costs a tenth of a microsecond a call."""
    size = words.shape[0] // 3
    rows = size - _STAGGER
    lanes = rows // BLOCK
    looks = floats[:rows].reshape((BLOCK, lanes))
    lucks = floats[size : size + rows].reshape((BLOCK, lanes))
    flat = floats[2 * size : 4 * size].reshape((2, size))
    clicked = floats[4 * size : 4 * size + rows].reshape((BLOCK, lanes))
    overlap = floats[5 * size : 5 * size + BLOCK]
    shown = words[:rows].reshape((BLOCK, lanes))
    examined = words[size:].reshape((2, size))
    count = numbers.reshape((BLOCK + 1, 3))
    return looks, lucks, flat, overlap, shown, examined, clicked, count


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
    looks, lucks, flat, overlap, rows, examined, clicked, count = _scratch(floats, words, numbers)
    n_done = 0
    for first in range(0, slate.shape[0], BLOCK):
        end = min(first + BLOCK, slate.shape[0])
        n_done += _step_block(
            first, end, slate, table, groups, traits, parameters, known, known_start, known_item, start_row, clock,
            state, mood, seen, past, listed, shown, clicks, reward, flags, looks, lucks, flat, overlap, clicked, rows,
            examined, count, length, extra,
        )  # fmt: skip
    return n_done


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
    looks, lucks, flat, overlap, rows, examined, clicked, count = _scratch(floats, words, numbers)
    n_starts = np.uint64(start_user.shape[0])
    m = 0
    for first in range(0, slate.shape[0], BLOCK):
        end = min(first + BLOCK, slate.shape[0])
        _step_block(
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
