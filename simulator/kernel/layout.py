"""How the arrays of the kernel are laid out: columns, parameters, streams of random numbers, working memory."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from simulator._compiled import F32, I32, I64, PLAIN, U64

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

BLOCK = 128
"""Users stepped together."""
_STAGGER = 24
"""Numbers between working arrays, so that they do not lie 4,096 bytes apart: a processor takes such places for one."""
SHOWN, FIRST, USER = 0, 1, 2
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


@njit(inline="always", **PLAIN)
def views_of_scratch(floats: F32, words: U64, numbers: I64) -> tuple[F32, F32, F32, F32, U64, U64, F32, I64]:
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
