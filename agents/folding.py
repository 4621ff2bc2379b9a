"""Users from their histories: ridge regressions and weighted sums over rows of a table, compiled.

What a user comes to does not depend on who else is asked about. Callers pass outputs and scratch (`scratch_of`), and a
table in the form that `design_of` gives it.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

import numpy as np
from numba import njit

from simulator._compiled import F32, I64, PLAIN, aligned_zeros
from simulator._vector import add16, fill16, load16, mad16, prefetch_read, store16

_0, _1 = np.float32(0.0), np.float32(1.0)
_TOGETHER = 16
"""Users whose equations are solved side by side, one in each lane of a vector."""


_threads = threading.local()


class Scratch(NamedTuple):
    """Room for one user's rows [H, w], as they are and weighted, for sums of them, and for the equations of sixteen.

    Attributes:
        rows, weighted: [H, w]; gram: [w, w]; sums: [2, w]; share: [H] of each row in a sum.
        equations: [q, 16] the upper halves of sixteen systems with their right sides; scale: [w, 16].
    """

    rows: F32
    weighted: F32
    gram: F32
    sums: F32
    share: F32
    unit: F32
    equations: F32
    scale: F32


def design_of(table: F32, beside: F32 | None = None) -> F32:
    """The rows that are read: (1, table row, room for one number, row beside), [I, w], filled up to a multiple of 16.

    table: [I, r] what is regressed on; beside: [I, C] what is only summed.
    """
    n_items, size = table.shape
    more = 0 if beside is None else beside.shape[1]
    design = aligned_zeros(n_items, -(-(2 + size + more) // 16) * 16)
    design[:, 0] = 1.0
    design[:, 1 : 1 + size] = table
    if beside is not None:
        design[:, 2 + size : 2 + size + more] = beside
    return design


def scratch_of(length: int, wide: int, size: int) -> Scratch:
    """For histories of this length, a design of so many columns and `size` coefficients: the thread's, taken anew."""
    kept: tuple[tuple[int, int, int], Scratch] | None = getattr(_threads, "scratch", None)
    if kept is None or kept[0] != (length, wide, size):
        kept = (
            (length, wide, size),
            Scratch(
                rows=aligned_zeros(length, wide),
                weighted=aligned_zeros(length, wide),
                gram=aligned_zeros(wide, wide),
                sums=aligned_zeros(2, wide),
                share=aligned_zeros(length),
                unit=aligned_zeros(1, 16),
                equations=aligned_zeros(size * (size + 3) // 2, _TOGETHER),
                scale=aligned_zeros(wide, _TOGETHER),
            ),
        )
        _threads.scratch = kept
    return kept[1]


@njit(**PLAIN)
def _take_row(design: F32, item: int, weight: np.float32, surprise: np.float32, size: int, m: int, s: Scratch) -> None:
    """Row m of the user: the item's, with the surprise behind what is regressed on; and the latter part weighted."""
    for c in range(0, size, 16):
        row = load16(design, item, c)
        store16(s.rows, m, c, row)
        store16(s.weighted, m, c, mad16(fill16(weight), row, fill16(_0)))
    for c in range(-(-size // 16) * 16, design.shape[1], 16):
        store16(s.rows, m, c, load16(design, item, c))
    s.rows[np.uint64(m), np.uint64(size)] = surprise


@njit(**PLAIN)
def _square(m: int, size: int, s: Scratch) -> None:
    """Upper half of gram [size, size + 1]: weighted products of the columns of m rows, the last with the surprise."""
    rows, weighted, gram, nothing = s.rows, s.weighted, s.gram, fill16(_0)
    for c in range(0, size + 1, 16):
        for j in range(size % 8):
            even, odd = nothing, nothing
            for h in range(0, m - 1, 2):
                one, two = np.uint64(h), np.uint64(h + 1)
                even = mad16(fill16(weighted[one, np.uint64(j)]), load16(rows, one, c), even)
                odd = mad16(fill16(weighted[two, np.uint64(j)]), load16(rows, two, c), odd)
            if m & 1:
                even = mad16(fill16(weighted[np.uint64(m - 1), np.uint64(j)]), load16(rows, m - 1, c), even)
            store16(gram, j, c, add16(even, odd))
        for j in range(size % 8, min(size, c + 16), 8):  # eight rows stay in registers
            a0, a1, a2, a3 = nothing, nothing, nothing, nothing
            a4, a5, a6, a7 = nothing, nothing, nothing, nothing
            for h in range(m):
                one, row = np.uint64(h), load16(rows, h, c)
                a0 = mad16(fill16(weighted[one, np.uint64(j)]), row, a0)
                a1 = mad16(fill16(weighted[one, np.uint64(j + 1)]), row, a1)
                a2 = mad16(fill16(weighted[one, np.uint64(j + 2)]), row, a2)
                a3 = mad16(fill16(weighted[one, np.uint64(j + 3)]), row, a3)
                a4 = mad16(fill16(weighted[one, np.uint64(j + 4)]), row, a4)
                a5 = mad16(fill16(weighted[one, np.uint64(j + 5)]), row, a5)
                a6 = mad16(fill16(weighted[one, np.uint64(j + 6)]), row, a6)
                a7 = mad16(fill16(weighted[one, np.uint64(j + 7)]), row, a7)
            store16(gram, j, c, a0)
            store16(gram, j + 1, c, a1)
            store16(gram, j + 2, c, a2)
            store16(gram, j + 3, c, a3)
            store16(gram, j + 4, c, a4)
            store16(gram, j + 5, c, a5)
            store16(gram, j + 6, c, a6)
            store16(gram, j + 7, c, a7)


@njit(**PLAIN)
def _take_equations(lane: int, size: int, s: Scratch) -> None:
    """Put the user's upper half and right side into a lane, row after row."""
    at = 0
    for j in range(size):
        for c in range(j, size + 1):
            s.equations[np.uint64(at), np.uint64(lane)] = s.gram[np.uint64(j), np.uint64(c)]
            at += 1


@njit(**PLAIN)
def _solve(precision: F32, s: Scratch) -> None:
    """Solve (gram + precision) x = right in all lanes; minus x_j then stands at the end of row j.

    Elimination without pivots, for the matrices are positive definite, a row at a time from the rows above it; then
    substitution from the last. Row j begins at `row + j` and ends with the right side.
    """
    equations, scale, size, nothing = s.equations, s.scale, precision.shape[0], fill16(_0)
    row = 0
    for j in range(size):
        store16(equations, row + j, 0, add16(load16(equations, row + j, 0), fill16(precision[j])))
        whole = j + (size + 1 - j) % 4
        for c in range(j, whole):
            a0, above = load16(equations, row + c, 0), 0
            for k in range(j):
                factor = mad16(load16(equations, above + j, 0), load16(scale, k, 0), nothing)
                a0 = mad16(factor, load16(equations, above + c, 0), a0)
                above += size - k
            store16(equations, row + c, 0, a0)
        for c in range(whole, size + 1, 4):
            at, above = row + c, 0
            a0, a1 = load16(equations, at, 0), load16(equations, at + 1, 0)
            a2, a3 = load16(equations, at + 2, 0), load16(equations, at + 3, 0)
            for k in range(j):
                factor = mad16(load16(equations, above + j, 0), load16(scale, k, 0), nothing)
                a0 = mad16(factor, load16(equations, above + c, 0), a0)
                a1 = mad16(factor, load16(equations, above + c + 1, 0), a1)
                a2 = mad16(factor, load16(equations, above + c + 2, 0), a2)
                a3 = mad16(factor, load16(equations, above + c + 3, 0), a3)
                above += size - k
            store16(equations, at, 0, a0)
            store16(equations, at + 1, 0, a1)
            store16(equations, at + 2, 0, a2)
            store16(equations, at + 3, 0, a3)
        for lane in range(_TOGETHER):
            scale[np.uint64(j), np.uint64(lane)] = -1 / equations[np.uint64(row + j), np.uint64(lane)]
        row += size - j
    for j in range(size - 1, -1, -1):
        row -= size - j
        total, below = load16(equations, row + size, 0), row
        for c in range(j + 1, size):
            below += size + 1 - c
            total = mad16(load16(equations, row + c, 0), load16(equations, below + size, 0), total)
        store16(equations, row + size, 0, mad16(load16(scale, j, 0), total, nothing))


@njit(**PLAIN)
def _give(lane: int, j: int, size: int, s: Scratch) -> np.float32:
    """Coefficient j that was found in a lane."""
    return -s.equations[np.uint64(j * (size + 1) - j * (j + 1) // 2 + size), np.uint64(lane)]


@njit(nogil=True, **PLAIN)
def ridge(items: I64, trust: F32, surprise: F32, design: F32, precision: F32, s: Scratch, out: F32) -> None:
    """Coefficients out [n, 1 + r] of each user's weighted ridge regression of surprise on (1, table row).

    items, trust, surprise: [n, H], items of -1 are empty; design: [I, w] from `design_of`; precision: [1 + r] of the
    prior about 0, each above 0.
    """
    size = precision.shape[0]
    for first in range(0, items.shape[0], _TOGETHER):
        count = min(_TOGETHER, items.shape[0] - first)
        for lane in range(count):
            user, m = first + lane, 0
            for h in range(items.shape[1]):
                if items[user, h] >= 0 and trust[user, h] != 0:
                    _take_row(design, items[user, h], trust[user, h], surprise[user, h], size, m, s)
                    m += 1
            _square(m, size, s)
            _take_equations(lane, size, s)
        _solve(precision, s)
        for lane in range(count):
            for j in range(size):
                out[first + lane, j] = _give(lane, j, size, s)


@njit(**PLAIN)
def _sum_rows(first: int, m: int, begin: int, to: int, s: Scratch) -> None:
    """sums[to] = the rows from `first` to m by their shares, from column `begin` (a multiple of 16) on."""
    for c in range(begin, s.rows.shape[1], 16):
        even, odd = fill16(_0), fill16(_0)
        for h in range(first, m - 1, 2):
            even = mad16(fill16(s.share[np.uint64(h)]), load16(s.rows, h, c), even)
            odd = mad16(fill16(s.share[np.uint64(h + 1)]), load16(s.rows, h + 1, c), odd)
        if (m - first) & 1:
            even = mad16(fill16(s.share[np.uint64(m - 1)]), load16(s.rows, m - 1, c), even)
        store16(s.sums, to, c, add16(even, odd))


@njit(**PLAIN)
def _fold_narrow(
    items: I64,
    feedback: F32,
    user: int,
    window: int,
    of_liked: np.float32,
    of_disliked: np.float32,
    of_recent: np.float32,
    design: F32,
    expected: F32,
    size: int,
    s: Scratch,
) -> None:
    """`_take_row`, `_sum_rows` and `_square` of all a user's rows in one pass.

    For at most fifteen columns, which one vector holds with the surprise, and a design of at most three vectors: then
    gram and both sums stay in registers. `s.share` has the trust in each place of the history.
    """
    gram, nothing, length = s.gram, fill16(_0), items.shape[1]
    surprise = load16(s.unit, 0, 0)
    # Where there are two vectors, the second is summed twice, to the same place.
    third = design.shape[1] - 16
    second = min(16, third)
    a0, a1, a2, a3 = nothing, nothing, nothing, nothing
    a4, a5, a6, a7 = nothing, nothing, nothing, nothing
    a8, a9, a10, a11 = nothing, nothing, nothing, nothing
    a12, a13, a14, a15 = nothing, nothing, nothing, nothing
    b0, b1, b2, c0, c1, c2 = nothing, nothing, nothing, nothing, nothing, nothing
    for at in range(length):
        h = np.uint64(at)
        item = items[np.uint64(user), h]
        if item < 0:
            continue
        like, trust = feedback[np.uint64(user), h], s.share[h]
        first = load16(design, item, 0)
        row = mad16(fill16(trust), mad16(fill16(like - expected[np.uint64(item)]), surprise, first), nothing)
        a0 = mad16(fill16(design[np.uint64(item), np.uint64(0)]), row, a0)
        a1 = mad16(fill16(design[np.uint64(item), np.uint64(1)]), row, a1)
        a2 = mad16(fill16(design[np.uint64(item), np.uint64(2)]), row, a2)
        a3 = mad16(fill16(design[np.uint64(item), np.uint64(3)]), row, a3)
        a4 = mad16(fill16(design[np.uint64(item), np.uint64(4)]), row, a4)
        a5 = mad16(fill16(design[np.uint64(item), np.uint64(5)]), row, a5)
        a6 = mad16(fill16(design[np.uint64(item), np.uint64(6)]), row, a6)
        a7 = mad16(fill16(design[np.uint64(item), np.uint64(7)]), row, a7)
        a8 = mad16(fill16(design[np.uint64(item), np.uint64(8)]), row, a8)
        a9 = mad16(fill16(design[np.uint64(item), np.uint64(9)]), row, a9)
        a10 = mad16(fill16(design[np.uint64(item), np.uint64(10)]), row, a10)
        a11 = mad16(fill16(design[np.uint64(item), np.uint64(11)]), row, a11)
        a12 = mad16(fill16(design[np.uint64(item), np.uint64(12)]), row, a12)
        a13 = mad16(fill16(design[np.uint64(item), np.uint64(13)]), row, a13)
        a14 = mad16(fill16(design[np.uint64(item), np.uint64(14)]), row, a14)
        a15 = mad16(fill16(design[np.uint64(item), np.uint64(15)]), row, a15)
        share = fill16(like * of_liked - (trust - like) * of_disliked)
        recent = fill16(of_recent if at >= length - window else _0)
        b0, c0 = mad16(share, first, b0), mad16(recent, first, c0)
        if second:
            beside = load16(design, item, second)
            b1, c1 = mad16(share, beside, b1), mad16(recent, beside, c1)
            beside = load16(design, item, third)
            b2, c2 = mad16(share, beside, b2), mad16(recent, beside, c2)
    store16(gram, 0, 0, a0)
    store16(gram, 1, 0, a1)
    store16(gram, 2, 0, a2)
    store16(gram, 3, 0, a3)
    store16(gram, 4, 0, a4)
    store16(gram, 5, 0, a5)
    store16(gram, 6, 0, a6)
    store16(gram, 7, 0, a7)
    store16(gram, 8, 0, a8)
    store16(gram, 9, 0, a9)
    store16(gram, 10, 0, a10)
    store16(gram, 11, 0, a11)
    store16(gram, 12, 0, a12)
    store16(gram, 13, 0, a13)
    store16(gram, 14, 0, a14)
    store16(gram, 15, 0, a15)
    store16(s.sums, 0, 0, b0)
    store16(s.sums, 1, 0, c0)
    if second:
        store16(s.sums, 0, second, b1)
        store16(s.sums, 1, second, c1)
        store16(s.sums, 0, third, b2)
        store16(s.sums, 1, third, c2)


@njit(nogil=True, **PLAIN)
def describe(
    items: I64,
    feedback: F32,
    shown: I64,
    step: F32,
    design: F32,
    expected: F32,
    discount: F32,
    precision: F32,
    content_size: int,
    beside_size: int,
    window: int,
    s: Scratch,
    out: F32,
) -> None:
    """What `agents.features.UserBlocks` holds of n users: out [n, s].

    items, feedback: [n, H], items of -1 are empty; shown: [n] newest places that were on slates of this session; step:
    [n] as it is given out; design: [I, w] from `design_of`, whose first `content_size` columns behind the one are the
    content and the last ones, `beside_size`, the categories; expected: [I] feedback before a user is known; discount:
    [H] weight of each place of the history where it was on a slate and not liked; precision: [1 + r]; window: newest
    items that count as recent.
    """
    size, length = precision.shape[0], items.shape[1]
    narrow = size < 16 and design.shape[1] <= 48
    if items.size >= design.shape[0]:
        # Most rows will be read: in order they come into cache several times as fast as where the histories name them.
        for item in range(design.shape[0]):
            for c in range(0, design.shape[1], 16):
                prefetch_read(design, item, c)
    s.unit[0, size % 16] = _1
    for first in range(0, items.shape[0], _TOGETHER):
        count = min(_TOGETHER, items.shape[0] - first)
        for lane in range(count):
            user, m, recent = np.uint64(first + lane), 0, 0
            liked, disliked = _0, _0
            for at in range(length):
                h = np.uint64(at)
                there = items[user, h] >= 0
                like = feedback[user, h]
                trust = discount[h] if at >= length - shown[user] else _1
                trust = _1 if like > 0 else trust
                s.share[h] = trust
                liked += like if there else _0
                disliked += trust - like if there else _0
                m += there
                recent += there and at >= length - window
            out[user, 1] = liked / max(liked + disliked, _1)
            out[user, 2] = np.float32(np.log1p(np.float64(m)) / 4)
            out[user, 3] = step[user]
            of_liked, of_disliked = _1 / max(liked, np.float32(1e-9)), _1 / max(disliked, np.float32(1e-9))
            of_recent = _1 / max(recent, 1)
            if narrow:
                _fold_narrow(
                    items, feedback, first + lane, window, of_liked, of_disliked, of_recent, design, expected, size, s
                )
            else:
                m = 0
                for at in range(length):
                    h = np.uint64(at)
                    item = items[user, h]
                    if item < 0:
                        continue
                    like, trust = feedback[user, h], s.share[h]
                    _take_row(design, item, trust, like - expected[np.uint64(item)], size, m, s)
                    s.share[np.uint64(m)] = like * of_liked - (trust - like) * of_disliked
                    m += 1
                _sum_rows(0, m, 0, 0, s)
                for row in range(m - recent, m):
                    s.share[np.uint64(row)] = of_recent
                _sum_rows(m - recent, m, (1 + size) // 16 * 16, 1, s)
                _square(m, size, s)
            _take_equations(lane, size, s)
            at = 3 + size
            for j in range(content_size):
                out[user, at + j] = s.sums[0, 1 + j]
            at += content_size
            for j in range(beside_size):
                out[user, at + j] = s.sums[0, 1 + size + j]
                out[user, at + beside_size + j] = s.sums[1, 1 + size + j]
        _solve(precision, s)
        for lane in range(count):
            out[first + lane, 0] = _give(lane, 0, size, s)
            for j in range(1, size):
                out[first + lane, 3 + j] = _give(lane, j, size, s)


@njit(nogil=True, **PLAIN)
def standardise(values: F32, mean: F32, scale: F32, most: float, out: F32) -> None:
    """Out [n, s]: values [n, s] less the mean [s], times the scale [s], cut at `most` on either side."""
    high = np.float32(most)
    for user in range(values.shape[0]):
        for j in range(values.shape[1]):
            out[user, j] = min(max((values[user, j] - mean[j]) * scale[j], -high), high)


@njit(nogil=True, **PLAIN)
def aim(values: F32, action: F32, pair_scale: F32, sizes: tuple[int, int, int], out: F32) -> None:
    """Points out [n, r + C + o] that proto-actions aim at, in the space of (item vectors, categories, own features).

    values: [n, s] from `describe`; action: [n, 4 + o + p] weights of the pair features, of the items' own features and
    of the content directions, which are the first p of the vectors; pair_scale: [4]; sizes: r, C, p.
    """
    taste_size, category_size, content_size = sizes
    own = out.shape[1] - taste_size - category_size
    taste_at = values.shape[1] - taste_size - content_size - 2 * category_size
    content_at, category_at = taste_at + taste_size, taste_at + taste_size + content_size
    for user in range(values.shape[0]):
        taste, content = action[user, 0] / pair_scale[0], action[user, 1] / pair_scale[1]
        category, recent = action[user, 2] / pair_scale[2], action[user, 3] / pair_scale[3]
        for j in range(taste_size):
            out[user, j] = taste * values[user, taste_at + j]
        for j in range(content_size):
            out[user, j] += content * values[user, content_at + j] + action[user, 4 + own + j]
        for j in range(category_size):
            of_liked, of_newest = values[user, category_at + j], values[user, category_at + category_size + j]
            out[user, taste_size + j] = category * of_liked + recent * of_newest
        for j in range(own):
            out[user, taste_size + category_size + j] = action[user, 4 + j]
