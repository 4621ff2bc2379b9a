"""Widths of the confidence bounds of a linear model that has features of pairs of a user and an item: compiled."""

from __future__ import annotations

import numpy as np
from numba import njit

from simulator._compiled import F32, PLAIN


@njit(nogil=True, **PLAIN)
def confidence_widths(rest: F32, pairs: F32, linear: F32, spread: F32) -> None:
    """Rest [n, I] becomes sqrt(rest + sum_j x_j (linear_j + sum_k S_jk x_k)), in one pass.

    rest: what of the quadratic form has no pair feature in it; pairs: [p, n, I] the pair features x; linear: [p, n, I]
    twice their covariances with the other features; spread: [p, p] and with one another, symmetric.
    """
    for user in range(rest.shape[0]):
        total = rest[user]
        for j in range(len(pairs)):
            x, alone = pairs[j, user], linear[j, user]
            for i in range(len(total)):
                total[i] += x[i] * (alone[i] + spread[j, j] * x[i])
            for k in range(j):
                y, both = pairs[k, user], np.float32(2) * spread[j, k]
                for i in range(len(total)):
                    total[i] += both * x[i] * y[i]
        for i in range(len(total)):
            total[i] = np.sqrt(max(total[i], np.float32(0)))
