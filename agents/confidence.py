"""Upper confidence bounds of a linear model whose features are products of a user's and an item's: compiled."""

from __future__ import annotations

import numpy as np
from numba import njit

from simulator._compiled import F32, PLAIN


@njit(nogil=True, **PLAIN)
def confidence_bounds(
    rest: F32, pairs: F32, base: F32, weights: F32, of_items: F32, of_users: F32, spread: F32, alpha: float
) -> None:
    """Rest [n, I] becomes base + sum_j w_j x_j + alpha sqrt(rest + sum_j x_j (2 (a_j + b_j) + sum_k S_jk x_k)).

    One pass over what would be some thirty of numpy's, each through memory.

    rest: what of the quadratic form has no pair feature in it; pairs: [p, n, I] the pair features x; base: [I] what of
    the mean has none; weights: [p]; of_items a: [p, I] and of_users b: [n, p] their covariances with the other
    features; spread: [p, p] and with one another, symmetric.
    """
    p, width = len(pairs), np.float32(alpha)
    for user in range(rest.shape[0]):
        bound = rest[user]
        for j in range(p):
            x, twice = pairs[j, user], np.float32(2) * of_users[user, j]
            for i in range(len(base)):
                bound[i] += x[i] * (np.float32(2) * of_items[j, i] + twice + spread[j, j] * x[i])
            for k in range(j):
                y, both = pairs[k, user], np.float32(2) * spread[j, k]
                for i in range(len(base)):
                    bound[i] += both * x[i] * y[i]
        for i in range(len(base)):
            bound[i] = base[i] + width * np.sqrt(max(bound[i], np.float32(0)))
        for j in range(p):
            x, weight = pairs[j, user], weights[j]
            for i in range(len(base)):
                bound[i] += weight * x[i]
