"""The step of the simulated users, and top-K scoring: numba over arrays, counter-based random numbers, nothing else.

Every draw is a hash of (seed, stream, real user, session, step, position), so the same bits come out for any batch
size, order or thread. No array is allocated here; callers pass all outputs. The functions release the GIL.

`_dot` alone may reorder a sum ("reassoc"): its length is the same for every user of a world, so its order of addition
does not depend on the batch. Everything else is strict IEEE arithmetic in float32.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_M1 = np.uint64(0xBF58476D1CE4E5B9)
_M2 = np.uint64(0x94D049BB133111EB)
_S27, _S30, _S31, _S40, _S16, _S6 = (np.uint64(s) for s in (27, 30, 31, 40, 16, 6))
_LOW24 = np.uint64(0xFFFFFF)
_LOW6 = np.uint64(63)
_BIT = np.uint64(1)
_ULP24 = np.float32(2.0**-24)
_ZERO, _HALF, _ONE = np.float32(0.0), np.float32(0.5), np.float32(1.0)

ACTS, LEAVING, NEXT_USER = np.uint64(1), np.uint64(2), np.uint64(3)
"""Streams: examination and clicks; leaving; which user an environment's next episode is of."""

STRENGTH, EXPOSURE_MEMORY, RATE, C0, C1, C2, C3, SATISFACTION_MEMORY, TWICE_USUAL, CASCADE, CONTINUATION, HORIZON = (
    range(12)
)
"""Places of the parameters in the kernel's parameter array."""


@njit(cache=True, inline="always")
def mix64(x: np.uint64) -> np.uint64:
    """SplitMix64's finaliser (Steele, Lea and Flood, 2014): a bijection whose output bits each depend on all input bits."""
    x = (x ^ (x >> _S30)) * _M1
    x = (x ^ (x >> _S27)) * _M2
    return x ^ (x >> _S31)


@njit(cache=True, inline="always")
def fold(key: np.uint64, word: np.uint64) -> np.uint64:
    """Key of one more coordinate (user, session, step, position)."""
    return mix64((key ^ word) + GOLDEN)


@njit(cache=True, inline="always")
def high_uniform(bits: np.uint64) -> np.float32:
    """Uniform on [0, 1) from the highest 24 bits."""
    return np.float32(np.int64(bits >> _S40)) * _ULP24


@njit(cache=True, inline="always")
def low_uniform(bits: np.uint64) -> np.float32:
    """Uniform on [0, 1) from bits 16 to 39: independent of `high_uniform` of the same bits."""
    return np.float32(np.int64((bits >> _S16) & _LOW24)) * _ULP24


@njit(cache=True, fastmath={"reassoc", "contract"})
def _dot(a: F32, b: F32) -> np.float32:
    total = _ZERO
    for j in range(a.shape[0]):
        total += a[j] * b[j]
    return total


@njit(cache=True, inline="always")
def _sigma(z: np.float32) -> np.float32:
    return _ONE / (_ONE + np.float32(math.exp(-z)))


@njit(cache=True, nogil=True)
def step_users(
    slate: I64,
    vectors: F32,
    item_bias: F32,
    shares: F32,
    examine: F32,
    parameters: F32,
    key: U64,
    vector: F32,
    bias: F32,
    exposure: F32,
    satisfaction: F32,
    seen: U64,
    history_items: I64,
    history_feedback: F32,
    step: I64,
    shown: NDArray[np.int32],
    clicks: NDArray[np.uint8],
    reward: F32,
    left: NDArray[np.bool_],
    done: NDArray[np.bool_],
    scratch: F32,
) -> int:
    """One step of n users in place; returns how many are done. Users already done are left as they are.

    slate: [n, K]; a place is empty (-1, out of range, in `seen`, or repeated) or shown.
    vectors, item_bias, shares: [I, D], [I], [I, C]; shares of a row sum to 1, or to 0 without categories.
    examine, parameters: [K], and [12] in the order of the constants above.
    key: [n] hash of (seed, user, session).
    vector, bias, exposure, satisfaction, step: [n, D], [n], [n, C], [n], [n] state.
    seen: [n, W] bit i of a row is set where item i may not be shown.
    history_items, history_feedback: [n, H], newest last.
    shown, clicks, reward, left, done: [n, K], [n, K], [n], [n], [n] outputs; left and done also inputs.
    scratch: [K] anything.
    """
    n_items = vectors.shape[0]
    n_users, slate_size = slate.shape
    width, categories, length = vector.shape[1], exposure.shape[1], history_items.shape[1]
    strength, memory, rate = parameters[STRENGTH], parameters[EXPOSURE_MEMORY], parameters[RATE]
    cascade = parameters[CASCADE] > _ZERO
    n_done = 0
    for user in range(n_users):
        reward[user] = _ZERO
        if done[user]:
            n_done += 1
            for k in range(slate_size):
                shown[user, k] = -1
                clicks[user, k] = 0
            continue
        moment = fold(key[user], np.uint64(step[user]))
        acts = moment ^ ACTS
        taste, recent = vector[user], exposure[user]
        n_shown, n_clicks, overlap, looking = 0, 0, _ZERO, True
        for k in range(slate_size):
            item = slate[user, k]
            scratch[k] = _ZERO
            clicks[user, k] = 0
            shown[user, k] = -1
            bits = mix64(acts + GOLDEN * np.uint64(k + 1))
            examined = looking and high_uniform(bits) < examine[k]
            if cascade and not examined:
                looking = False
            if item < 0 or item >= n_items:
                continue
            word, bit = item >> 6, _BIT << (np.uint64(item) & _LOW6)
            if seen[user, word] & bit:
                continue
            seen[user, word] |= bit
            shown[user, k] = np.int32(item)
            n_shown += 1
            share = _dot(recent, shares[item])
            overlap += share
            if not examined:
                continue
            appeal = _sigma(_dot(taste, vectors[item]) + bias[user] + item_bias[item] - strength * share)
            clicked = low_uniform(bits) < appeal
            if clicked:
                clicks[user, k] = 1
                n_clicks += 1
                if cascade and high_uniform(mix64(bits + GOLDEN)) >= parameters[CONTINUATION]:
                    looking = False
            scratch[k] = rate * ((_ONE if clicked else _ZERO) - appeal)

        for c in range(categories):
            recent[c] *= memory
        gain = (_ONE - memory) / np.float32(max(n_shown, 1))
        for k in range(slate_size):
            item = np.int64(shown[user, k])
            if item < 0:
                continue
            for c in range(categories):
                recent[c] += gain * shares[item, c]
            move = scratch[k]
            if move != _ZERO:
                for j in range(width):
                    taste[j] += move * vectors[item, j]

        # The newest `length` interactions, newest last: shift by what was shown, then append in the slate's order.
        for j in range(length - n_shown):
            history_items[user, j] = history_items[user, j + n_shown]
            history_feedback[user, j] = history_feedback[user, j + n_shown]
        place = length - n_shown
        for k in range(slate_size):
            if shown[user, k] >= 0:
                if place >= 0:
                    history_items[user, place] = shown[user, k]
                    history_feedback[user, place] = np.float32(clicks[user, k])
                place += 1

        pleased = min(_ONE, np.float32(n_clicks) / parameters[TWICE_USUAL])
        keep = parameters[SATISFACTION_MEMORY]
        satisfaction[user] = keep * satisfaction[user] + (_ONE - keep) * pleased
        hazard = _sigma(
            parameters[C0]
            - parameters[C1] * (satisfaction[user] - _HALF)
            + parameters[C2] * (overlap / np.float32(max(n_shown, 1)))
            + parameters[C3] * np.float32(step[user])
        )
        step[user] += 1
        left[user] = high_uniform(mix64(moment ^ LEAVING)) < hazard
        done[user] = left[user] or np.float32(step[user]) >= parameters[HORIZON]
        reward[user] = np.float32(n_clicks)
        n_done += done[user]
    return n_done


@njit(cache=True, nogil=True)
def start_users(
    lanes: I64,
    rows: I64,
    start_user: I64,
    start_vector: F32,
    start_bias: F32,
    start_items: I64,
    start_feedback: F32,
    start_features: F32,
    seen_start: I64,
    seen_item: I64,
    seed: U64,
    session: U64,
    key: U64,
    vector: F32,
    bias: F32,
    exposure: F32,
    satisfaction: F32,
    seen: U64,
    history_items: I64,
    history_feedback: F32,
    features: F32,
    step: I64,
    left: NDArray[np.bool_],
    done: NDArray[np.bool_],
) -> None:
    """Put the start `rows[lane]` into each of the given lanes, in place.

    lanes: [m] which of the n lanes; rows: [n] start rows; session: [n] number of the session; seed: [n].
    seen_start, seen_item: [U + 1], [m] ragged items each start may not be shown.
    """
    for lane in lanes:
        row = rows[lane]
        key[lane] = fold(fold(mix64(seed[lane] + GOLDEN), np.uint64(start_user[row])), session[lane])
        vector[lane, :] = start_vector[row, :]
        bias[lane] = start_bias[row]
        exposure[lane, :] = _ZERO
        satisfaction[lane] = _HALF
        seen[lane, :] = np.uint64(0)
        for place in range(seen_start[row], seen_start[row + 1]):
            item = seen_item[place]
            seen[lane, item >> 6] |= _BIT << (np.uint64(item) & _LOW6)
        history_items[lane, :] = start_items[row, :]
        history_feedback[lane, :] = start_feedback[row, :]
        features[lane, :] = start_features[row, :]
        step[lane] = 0
        left[lane] = False
        done[lane] = False


@njit(cache=True, nogil=True)
def next_users(lanes: I64, seed: U64, episode: I64, n_starts: int, rows: I64, session: U64) -> None:
    """Choose the user of each lane's next episode and number its session, in place.

    A lane's users depend on its seed, its number and the episode only, not on how many lanes there are.
    """
    for lane in lanes:
        session[lane] = (np.uint64(lane) << np.uint64(32)) | np.uint64(episode[lane])
        bits = fold(mix64(seed[lane] ^ NEXT_USER), session[lane])
        rows[lane] = np.int64((bits >> np.uint64(32)) * np.uint64(n_starts) >> np.uint64(32))
        episode[lane] += 1


@njit(cache=True, nogil=True)
def unpack_candidates(seen: U64, out: NDArray[np.bool_]) -> None:
    """Mask of the items that may be shown: out [n, I] from the bits of seen [n, W]."""
    for user in range(out.shape[0]):
        for item in range(out.shape[1]):
            out[user, item] = (seen[user, item >> 6] >> (np.uint64(item) & _LOW6)) & _BIT == np.uint64(0)


@njit(cache=True, nogil=True, fastmath={"contract"})
def _score_pair(one: F32, two: F32, table: F32, out_one: F32, out_two: F32) -> None:
    """Add <user, item> of two users to out [Ip]; table is [d, Ip], d a multiple of 4.

    Sums run over d in order, vectorised over items: strict order without horizontal sums.
    """
    for j in range(0, table.shape[0], 4):
        a0, a1, a2, a3 = one[j], one[j + 1], one[j + 2], one[j + 3]
        b0, b1, b2, b3 = two[j], two[j + 1], two[j + 2], two[j + 3]
        t0, t1, t2, t3 = table[j], table[j + 1], table[j + 2], table[j + 3]
        for i in range(table.shape[1]):
            out_one[i] = out_one[i] + a0 * t0[i] + a1 * t1[i] + a2 * t2[i] + a3 * t3[i]
            out_two[i] = out_two[i] + b0 * t0[i] + b1 * t1[i] + b2 * t2[i] + b3 * t3[i]


@njit(cache=True, nogil=True)
def score_items(users: F32, offset: F32, table: F32, bias: F32, scores: F32, out: F32) -> None:
    """Scores out [n, I] = <users, items> + bias + offset; table [d, Ip]; scores [2, Ip] scratch."""
    n_users, n_items = out.shape
    for first in range(0, n_users, 2):
        second = min(first + 1, n_users - 1)  # the last of an odd number is scored twice: one path for all
        scores[0, :] = bias
        scores[1, :] = bias
        _score_pair(users[first], users[second], table, scores[0], scores[1])
        for i in range(n_items):
            out[first, i] = scores[0, i] + offset[first]
            out[second, i] = scores[1, i] + offset[second]


@njit(cache=True, inline="always")
def _keep_best(scores: F32, n_items: int, blocked: U64, best: F32, items: I64) -> None:
    """The len(items) best unblocked items, best first, ties to the smaller number; -1 where there are too few."""
    k = items.shape[0]
    for place in range(k):
        best[place] = -np.inf
        items[place] = -1
    for i in range(n_items):
        score = scores[i]
        if score > best[k - 1] and not (blocked[i >> 6] >> (np.uint64(i) & _LOW6)) & _BIT:
            place = k - 1
            while place > 0 and score > best[place - 1]:
                best[place] = best[place - 1]
                items[place] = items[place - 1]
                place -= 1
            best[place] = score
            items[place] = i


@njit(cache=True, nogil=True)
def top_items(users: F32, table: F32, bias: F32, blocked: U64, n_items: int, scores: F32, best: F32, out: I64) -> None:
    """The K items of highest <users, items> + bias for each user: out [n, K], best first.

    users: [n, d]; table: [d, Ip]; bias: [Ip]; blocked: [n or 1, W] bits of items left out; scores: [2, Ip] and
    best: [K] scratch.
    """
    n_users = users.shape[0]
    for first in range(0, n_users, 2):
        second = min(first + 1, n_users - 1)
        scores[0, :] = bias
        scores[1, :] = bias
        _score_pair(users[first], users[second], table, scores[0], scores[1])
        _keep_best(scores[0], n_items, blocked[min(first, blocked.shape[0] - 1)], best, out[first])
        if second > first:
            _keep_best(scores[1], n_items, blocked[min(second, blocked.shape[0] - 1)], best, out[second])
