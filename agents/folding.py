"""Users from their histories: ridge regressions and weighted sums over rows of a table, compiled, a user at a time.

What a user comes to does not depend on who else is asked about. Callers pass outputs and scratch.
"""

from __future__ import annotations

from numba import njit

from simulator._compiled import F32, I64, PLAIN
from simulator._vector import fill16, load16, mad16, store16


@njit(nogil=True, **PLAIN)
def ridge(items: I64, trust: F32, surprise: F32, table: F32, precision: F32, gram: F32, row: F32, out: F32) -> None:
    """Coefficients out [n, 1 + r] of each user's weighted ridge regression of surprise on (1, table row).

    items, trust, surprise: [n, H], items of -1 are empty; table: [I, r]; precision: [1 + r] of the prior about 0, each
    above 0; gram: [1 + r, w] and row: [1, w] scratch, w a multiple of 16 and at least 2 + r.
    """
    size, wide = precision.shape[0], gram.shape[1]
    row[:, :] = 0.0
    row[0, 0] = 1.0
    for user in range(items.shape[0]):
        gram[:, :] = 0.0
        for j in range(size):
            gram[j, j] = precision[j]
        for h in range(items.shape[1]):
            item, weight = items[user, h], trust[user, h]
            if item < 0 or weight == 0.0:
                continue
            for j in range(1, size):
                row[0, j] = table[item, j - 1]
            row[0, size] = surprise[user, h]  # the right side is one more column
            for j in range(size):
                weighted = fill16(weight * row[0, j])
                for c in range((j >> 4) << 4, wide, 16):
                    store16(gram, j, c, mad16(weighted, load16(row, 0, c), load16(gram, j, c)))
        # Elimination without pivots, for the matrix is positive definite, then substitution from the last.
        for k in range(size):
            for j in range(k + 1, size):
                factor = fill16(-gram[k, j] / gram[k, k])
                for c in range((j >> 4) << 4, wide, 16):
                    store16(gram, j, c, mad16(factor, load16(gram, k, c), load16(gram, j, c)))
        for j in range(size - 1, -1, -1):
            rest = gram[j, size]
            for k in range(j + 1, size):
                rest -= gram[j, k] * out[user, k]
            out[user, j] = rest / gram[j, j]


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
