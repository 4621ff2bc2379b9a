"""Users from their histories: ridge regressions and weighted sums over rows of a table, compiled, a user at a time.

What a user comes to does not depend on who else is asked about. Callers pass outputs and scratch, and a
table in the form that `design_of` gives it.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from simulator._compiled import F32, I64, PLAIN
from simulator._vector import fill16, load16, mad16, store16


def design_of(table: F32) -> F32:
    """The rows that `ridge` reads: (1, table row, zeros), [I, w] with w a multiple of 16, from a table [I, r]."""
    n_items, size = table.shape
    design = np.zeros((n_items, -(-(1 + size) // 16) * 16), np.float32)
    design[:, 0] = 1.0
    design[:, 1 : 1 + size] = table
    return design


@njit(nogil=True, **PLAIN)
def ridge(items: I64, trust: F32, surprise: F32, design: F32, precision: F32, gram: F32, right: F32, out: F32) -> None:
    """Coefficients out [n, 1 + r] of each user's weighted ridge regression of surprise on (1, table row).

    items, trust, surprise: [n, H], items of -1 are empty; design: [I, w] from `design_of`; precision: [1 + r] of the
    prior about 0, each above 0; gram: [w, w] and right: [1, w] scratch.
    """
    size, wide = precision.shape[0], design.shape[1]
    for user in range(items.shape[0]):
        for c in range(0, wide, 16):
            total = fill16(np.float32(0.0))
            for h in range(items.shape[1]):
                item = items[user, h]
                if item >= 0:
                    total = mad16(fill16(trust[user, h] * surprise[user, h]), load16(design, item, c), total)
            store16(right, 0, c, total)
            for j in range(0, min(size, c + 16), 4):  # four rows of the upper half stay in registers
                a0, a1, a2, a3 = (
                    fill16(np.float32(0)),
                    fill16(np.float32(0)),
                    fill16(np.float32(0)),
                    fill16(np.float32(0)),
                )
                for h in range(items.shape[1]):
                    item, weight = items[user, h], trust[user, h]
                    if item < 0 or weight == 0.0:
                        continue
                    row = load16(design, item, c)
                    a0 = mad16(fill16(weight * design[item, j]), row, a0)
                    a1 = mad16(fill16(weight * design[item, j + 1]), row, a1)
                    a2 = mad16(fill16(weight * design[item, j + 2]), row, a2)
                    a3 = mad16(fill16(weight * design[item, j + 3]), row, a3)
                store16(gram, j, c, a0)
                store16(gram, j + 1, c, a1)
                store16(gram, j + 2, c, a2)
                store16(gram, j + 3, c, a3)
        for j in range(size):
            gram[j, j] += precision[j]
        # Elimination without pivots, for the matrix is positive definite, then substitution from the last.
        for k in range(size):
            inverse = 1 / gram[k, k]
            for j in range(k + 1, size):
                factor = gram[k, j] * inverse
                right[0, j] -= factor * right[0, k]
                for c in range((j >> 4) << 4, wide, 16):
                    store16(gram, j, c, mad16(fill16(-factor), load16(gram, k, c), load16(gram, j, c)))
        for j in range(size - 1, -1, -1):
            found = right[0, j] / gram[j, j]
            out[user, j] = found
            for k in range(j):
                right[0, k] -= gram[k, j] * found


@njit(nogil=True, **PLAIN)
def weighted_sums(items: I64, weight: F32, table: F32, out: F32) -> None:
    """Sums out [n, d] of the table rows [I, d] of each user's items [n, H] by their weights [n, H]; -1 is empty."""
    for user in range(items.shape[0]):
        for j in range(table.shape[1]):
            out[user, j] = 0.0
        for h in range(items.shape[1]):
            item, share = items[user, h], weight[user, h]
            if item < 0 or share == 0.0:
                continue
            for j in range(table.shape[1]):
                out[user, j] += share * table[item, j]
