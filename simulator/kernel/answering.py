"""What users do with the items that they look at: clicks, what follows a click, and how taste moves."""

from __future__ import annotations

import numpy as np
from numba import njit

from simulator._compiled import F32, I64, PLAIN, U32, U64
from simulator._vector import (
    add16,
    add32,
    fill16,
    fill32,
    half32,
    keep32,
    load16,
    load32,
    mad16,
    prefetch_read,
    store16,
    sum16,
)
from simulator.kernel.draws import GOLDEN, exp32, fold, high_uniform, log32, mix64, sigma
from simulator.kernel.layout import (
    ACTS,
    BIAS,
    BROWSING,
    CASCADE,
    CHOICE,
    CHOOSING,
    CLICK_MEMORY,
    CONTINUATION,
    DEPTH,
    DISSIMILARITY,
    FIRST,
    FRIENDS,
    ITEM_BIAS,
    KEY,
    N_PARAMETERS,
    NO_CHOICE,
    RATE,
    REWARD,
    SHARE,
    STEP,
    STRENGTH,
    THRESHOLD,
    USER,
    Extra,
)

_0, _1 = (np.uint64(n) for n in (0, 1))
_ZERO, _ONE = np.float32(0.0), np.float32(1.0)
_LEVELS = np.float32(256.0)
_AHEAD = 3
"""Rows are asked for this many items before they are used."""


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


@njit(**PLAIN)
def click(
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
    n, low = count[m, FIRST], (_1 << shift) - _1
    strength, rate = parameters[STRENGTH], parameters[RATE]
    for p in range(n):
        ahead = examined[0, p + _AHEAD]
        for c in range(0, table.shape[1], 16):
            prefetch_read(table, rows[ahead >> shift, ahead & low], c)
        b, k = examined[0, p] >> shift, examined[0, p] & low
        user, row = np.uint64(count[b, USER]), rows[b, k]
        flat[0, p] = _logit(state, user, table, groups, traits, row, strength) + mood[user, BIAS]
        flat[1, p] = lucks[b, k]
        examined[1, p] = row
    for p in range(n):
        chance = sigma(flat[0, p])
        clicked = _ONE if flat[1, p] < chance else _ZERO
        flat[0, p] = rate * (clicked - chance)
        flat[1, p] = clicked


@njit(**PLAIN)
def cascade(
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
    """The same as `click` where the user reads from the top and each look depends on what was clicked above."""
    strength, rate, empty = parameters[STRENGTH], parameters[RATE], np.uint64(table.shape[0] - 1)
    n = _0
    for b in range(m):
        user = np.uint64(count[b, USER])
        acts = fold(clock[user, KEY], clock[user, STEP]) ^ ACTS
        count[b, FIRST] = np.int64(n)
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
    count[m, FIRST] = np.int64(n)


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
def act(
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
    """What `click` and `cascade` do, with every further part: choice, boredom, friends, and what follows a click."""
    strength, rate, empty = parameters[STRENGTH], parameters[RATE], np.uint64(table.shape[0] - 1)
    numbers, cascade = extra.numbers, parameters[CASCADE] > _ZERO
    n = np.int64(0)
    for b in range(m):
        user = np.uint64(count[b, USER])
        moment = fold(clock[user, KEY], clock[user, STEP])
        acts = moment ^ ACTS
        begin = n
        count[b, FIRST] = begin
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
    count[m, FIRST] = n


@njit(**PLAIN)
def pay_behaviour(reward: F32, count: I64, m: int, slate_size: int, extra: Extra) -> None:
    """The reward where it is a behaviour after the click."""
    head = int(extra.numbers[REWARD]) - 1
    if head < 0:
        return
    for b in range(m):
        user = np.uint64(count[b, USER])
        total = _ZERO
        for k in range(slate_size):
            total += extra.after[user, k, head]
        reward[user] = total


@njit(**PLAIN)
def drift(table: F32, state: F32, flat: F32, examined: U64, count: I64, m: int) -> None:
    """Taste moves by weight times vector of each examined item, eight items at a time (most slates have no more)."""
    for b in range(m):
        user, end = np.uint64(count[b, USER]), count[b + 1, FIRST]
        for p in range(count[b, FIRST], end, 8):
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
