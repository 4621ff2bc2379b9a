"""How unlike the items of a slate are."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray


def mean_slate_distance(slate: NDArray[np.int32], content: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mean over each user's slates of the mean cosine distance of the slate's pairs; slates of one item are skipped.

    The sum over pairs comes from the square of the sum of the vectors, so a slate costs K gathers and no K^2.

    Args:
        slate: [U, T, K] items, -1 none.
        content: [I, d] unit vectors.

    Returns:
        [U] distances, NaN for a user without a slate of two items.
    """
    squares = np.einsum("id,id->i", content, content, dtype=np.float64)
    return _mean_slate_distance(slate, np.ascontiguousarray(content), squares)


@njit(cache=True, fastmath={"reassoc", "contract"})
def _mean_slate_distance(
    slate: NDArray[np.int32], content: NDArray[np.float32], squares: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Sums may be taken in any order, so that they use the processor's vectors; squares: [I] squared lengths."""
    n_users, n_steps, slate_size = slate.shape
    distance = np.full(n_users, np.nan)
    total = np.zeros(content.shape[1])
    for user in range(n_users):
        summed, n_slates = 0.0, 0
        for step in range(n_steps):
            total[:] = 0.0
            n_items, square = 0, 0.0
            for k in range(slate_size):
                item = slate[user, step, k]
                if item < 0:
                    continue
                n_items += 1
                square += squares[item]
                for j in range(content.shape[1]):
                    total[j] += content[item, j]
            if n_items < 2:
                continue
            square_of_sum = 0.0
            for j in range(content.shape[1]):
                square_of_sum += total[j] * total[j]
            summed += 1.0 - (square_of_sum - square) / (n_items * (n_items - 1))
            n_slates += 1
        if n_slates > 0:
            distance[user] = summed / n_slates
    return distance
