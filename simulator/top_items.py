"""Scoring all items for many users and taking the best K: numba over arrays, tiles of users and items in registers.

No array is allocated but by `tiles_of`; callers pass all outputs and scratch. The functions release the GIL.
`ItemScorer` keeps the items' tiles and the scratch for them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from simulator._compiled import F32, I64, PLAIN, U64, Flags, aligned_zeros
from simulator._vector import above16, count_bits, fill16, load16, lowest_bit, mad16, max16, store16, without16

_0, _1 = np.uint64(0), np.uint64(1)
_SLACK, _TINY, _HUGE = np.float32(1e-6), np.float32(1e-30), np.finfo(np.float32).max
_MOST = np.uint64(32)
"""Items of a user that are put in order together."""

_USERS_AT_ONCE, _ITEMS_AT_ONCE = 64, 2048
"""Scoring goes through a block of items for this many users while the block is in cache."""


def tiles_of(item_vectors: F32, item_bias: F32 | None) -> tuple[F32, F32]:
    """The items as scoring wants them: thirty-two at a time, [Ip / 32, 32 d] with the items side by side, and biases.

    Ip is I rounded up to a multiple of 32; what fills up has the bias -inf.
    """
    n_items, width = item_vectors.shape
    n_tiles = -(-n_items // 32)
    padded = np.zeros((n_tiles * 32, width), np.float32)
    padded[:n_items] = item_vectors
    bias = aligned_zeros(1, n_tiles * 32)
    bias[0, n_items:] = -np.inf
    bias[0, :n_items] = 0.0 if item_bias is None else item_bias
    table = aligned_zeros(n_tiles, 32 * width)
    table.reshape(n_tiles, width, 32)[:] = padded.reshape(n_tiles, 32, width).transpose(0, 2, 1)
    return table, bias


@njit(**PLAIN)
def _score(users: F32, first: int, table: F32, bias: F32, start: int, end: int, scores: F32) -> None:
    """Scores [4, end - start] of items start to end for four users from `first` on (the last one fills up the four).

    A tile of four users and thirty-two items stays in registers while the sum runs over d, in order.
    """
    last = users.shape[0] - 1
    u0, u1, u2, u3 = first, min(first + 1, last), min(first + 2, last), min(first + 3, last)
    for i in range(start, end, 32):
        low, high = load16(bias, 0, i), load16(bias, 0, i + 16)
        a0, a1, a2, a3 = low, low, low, low
        b0, b1, b2, b3 = high, high, high, high
        for j in range(table.shape[1] // 32):
            low, high = load16(table, i // 32, 32 * j), load16(table, i // 32, 32 * j + 16)
            w0, w1, w2, w3 = fill16(users[u0, j]), fill16(users[u1, j]), fill16(users[u2, j]), fill16(users[u3, j])
            a0, b0 = mad16(w0, low, a0), mad16(w0, high, b0)
            a1, b1 = mad16(w1, low, a1), mad16(w1, high, b1)
            a2, b2 = mad16(w2, low, a2), mad16(w2, high, b2)
            a3, b3 = mad16(w3, low, a3), mad16(w3, high, b3)
        at = i - start
        store16(scores, 0, at, a0)
        store16(scores, 0, at + 16, b0)
        store16(scores, 1, at, a1)
        store16(scores, 1, at + 16, b1)
        store16(scores, 2, at, a2)
        store16(scores, 2, at + 16, b2)
        store16(scores, 3, at, a3)
        store16(scores, 3, at + 16, b3)


@njit(nogil=True, **PLAIN)
def score_items(users: F32, offset: F32, table: F32, bias: F32, scores: F32, out: F32) -> None:
    """Scores out [n, I] = <users, items> + bias + offset [n].

    users: [n, d]; table, bias: [Ip / 32, 32 d], [1, Ip] from `tiles_of`; scores: [4, 2048] scratch. A row of `out` does
    not depend on the other users.
    """
    n_users, n_items = out.shape
    for start in range(0, n_items, _ITEMS_AT_ONCE):
        end = min(start + _ITEMS_AT_ONCE, bias.shape[1])
        for first in range(0, n_users, 4):
            _score(users, first, table, bias, start, end, scores)
            for user in range(first, min(first + 4, n_users)):
                for i in range(start, min(end, n_items)):
                    out[user, i] = scores[user - first, i - start] + offset[user]


@njit(inline="always", **PLAIN)
def insert_item(score: np.float32, item: int, best: F32, out: I64, user: int) -> None:
    """Put an item among the best K of a user, best and out [n, K], where it belongs; it is better than the last."""
    place = out.shape[1] - 1
    while place > 0 and score > best[user, place - 1]:
        best[user, place] = best[user, place - 1]
        out[user, place] = out[user, place - 1]
        place -= 1
    best[user, place] = score
    out[user, place] = item


class Room(NamedTuple):
    """Scratch of `top_items`, from `room_for_scores`.

    Attributes:
        scores: [4, 2048] of four users and a block of items.
        found: [2, 48] scores of a user's items above the limit, as found and in order; items: [2, 48] which they are.
        tiles, hits: [256] tiles of sixteen items that have some, and bits of the lanes.
    """

    scores: F32
    found: F32
    items: I64
    tiles: I64
    hits: U64


def room_for_scores() -> Room:
    """Scratch for one call at a time."""
    found, items = aligned_zeros(2, 48), np.zeros((2, 48), np.int64)
    return Room(aligned_zeros(4, _ITEMS_AT_ONCE), found, items, np.zeros(256, np.int64), np.zeros(256, np.uint64))


@njit(**PLAIN)
def _keep_best(
    row: int, start: int, end: int, blocked: U64, who: int, room: Room, best: F32, out: I64, user: int
) -> None:
    """Let the unblocked items from start to end into the best so far, best [n, K] and out [n, K]; never one of NaN.

    What is better than a limit is collected and put in order by counting, without a branch that depends on a score: a
    wrongly guessed one costs as much as scoring twenty items.
    """
    k, scores, places = out.shape[1], room.scores, _0
    most = fill16(np.float32(-np.inf))
    for tile in range(start, end, 16):
        kept, word = load16(scores, row, tile - start), tile >> 6
        if word < blocked.shape[1]:
            kept = without16(kept, blocked[who, np.uint64(word)] >> np.uint64(tile & 63))
            store16(scores, row, tile - start, kept)
        most = max16(most, kept)
    limit = fill16(best[user, k - 1])
    if start == 0 and k <= 16:
        # The best of every sixteenth item are sixteen items, so the K-th of them is no better than the K-th of all.
        store16(room.found, 0, 0, most)
        lowest = _HUGE
        for lane in range(16):
            score = room.found[0, lane]
            score = score if score > -np.inf else np.float32(-np.inf)  # nor does a lane that ends with NaN limit any
            lowest = min(lowest, score if count_bits(above16(most, fill16(score))) < k else _HUGE)
        limit = fill16(lowest - (abs(lowest) * _SLACK + _TINY))  # a little below, so that the K-th itself gets in
    for tile in range(start, end, 16):
        hits = above16(load16(scores, row, tile - start), limit)
        room.tiles[places], room.hits[places] = tile, hits
        places += np.uint64(hits != _0)
    if places and not (k <= 16 and _in_order(row, start, places, room, best, out, user)):
        for tile in range(start, end, 16):
            hits = above16(load16(scores, row, tile - start), limit)
            while hits != _0:
                lane = lowest_bit(hits)
                hits &= hits - _1
                score = scores[row, np.uint64(tile - start) + lane]
                if score > best[user, k - 1]:
                    insert_item(score, tile + int(lane), best, out, user)
            limit = max16(limit, fill16(best[user, k - 1]))


@njit(**PLAIN)
def _in_order(row: int, start: int, places: np.uint64, room: Room, best: F32, out: I64, user: int) -> bool:
    """Put the best so far and the hits in order; False, with nothing done, if they are over 32 or some are equal."""
    k, m = np.uint64(out.shape[1]), _0
    lost = fill16(np.float32(-np.inf))
    store16(room.found, 0, 0, lost)
    store16(room.found, 0, 16, lost)
    store16(room.found, 1, 0, lost)
    if start > 0:
        for place in range(k):
            room.found[0, m], room.items[0, m] = best[user, place], out[user, place]
            m += np.uint64(out[user, place] >= 0)
    taken = _0
    while taken < places and m < _MOST:
        tile, hits = room.tiles[taken], room.hits[taken]
        lane = lowest_bit(hits)
        item = np.uint64(tile) + lane
        room.found[0, m], room.items[0, m] = room.scores[row, item - np.uint64(start)], item
        m += _1
        hits &= hits - _1
        room.tiles[places], room.hits[places] = tile, hits  # the tile's other hits are taken later
        places += np.uint64(hits != _0)
        taken += _1
    if taken < places:
        return False
    for place in range(k + _1):
        room.items[1, place] = -1
    low, high = load16(room.found, 0, 0), load16(room.found, 0, 16)
    for j in range(m):
        score = room.found[0, j]
        every = fill16(score)
        rank = count_bits(above16(low, every)) + count_bits(above16(high, every))
        room.found[1, rank], room.items[1, rank] = score, room.items[0, j]
    for place in range(min(m, k + _1)):
        if room.items[1, place] < 0:  # the one before it has an equal
            return False
    for place in range(k):
        best[user, place], out[user, place] = room.found[1, place], room.items[1, place]
    return True


@njit(nogil=True, **PLAIN)
def top_items(users: F32, table: F32, bias: F32, blocked: U64, room: Room, best: F32, out: I64) -> None:
    """The K items of highest <users, items> + bias for each user: out [n, K], best first, ties to the smaller number.

    users: [n, d]; table, bias: [Ip / 32, 32 d], [1, Ip] from `tiles_of`; blocked: [n or 1, W] bits of items left out
    (out is -1 where too few are left); room: from `room_for_scores`; best: [n, K] output, their scores.
    """
    n_users, n_items = users.shape[0], bias.shape[1]
    best[:, :] = -np.inf
    out[:, :] = -1
    for begin in range(0, n_users, _USERS_AT_ONCE):
        stop = min(begin + _USERS_AT_ONCE, n_users)
        for start in range(0, n_items, _ITEMS_AT_ONCE):
            end = min(start + _ITEMS_AT_ONCE, n_items)
            for first in range(begin, stop, 4):
                _score(users, first, table, bias, start, end, room.scores)
                for user in range(first, min(first + 4, stop)):
                    _keep_best(
                        user - first, start, end, blocked, min(user, blocked.shape[0] - 1), room, best, out, user
                    )


@njit(nogil=True, **PLAIN)
def best_of_scores(scores: NDArray[np.floating], candidates: Flags, best: NDArray[np.floating], out: I64) -> None:
    """The K candidates of highest score for each user: out [n, K], best first, ties to the smaller number.

    Out is -1 where too few candidates have a score above -inf, and in all of a row that gives a candidate NaN or inf:
    such a row has no order.

    scores: [n, I], or [1, I] for all users; candidates: [n, I], or [0, I] where all may be shown; best: [n, K] scratch.
    """
    n_users, k = out.shape
    n_items = scores.shape[1]
    best[:, :] = -np.inf
    out[:, :] = -1
    for user in range(n_users):
        row = user if scores.shape[0] > 1 else 0
        limit = best[user, k - 1]
        for item in range(n_items):
            score = scores[row, item]
            if score <= limit or (candidates.shape[0] and not candidates[user, item]):
                continue
            if not score < np.inf:
                out[user, :] = -1
                break
            place = k - 1
            while place > 0 and score > best[user, place - 1]:
                best[user, place] = best[user, place - 1]
                out[user, place] = out[user, place - 1]
                place -= 1
            best[user, place] = score
            out[user, place] = item
            limit = best[user, k - 1]


class ItemScorer:
    """Scores items as <user, item> + bias and picks the best K; for one thread at a time.

    A user's result does not depend on which other users are asked for.
    """

    def __init__(self, item_vectors: NDArray[np.float32], item_bias: NDArray[np.float32] | None = None) -> None:
        self.n_items, self.width = item_vectors.shape
        self._table, self._bias = tiles_of(item_vectors, item_bias)
        self._room = room_for_scores()
        self._nothing = np.zeros((1, self.n_items // 64 + 1), np.uint64)

    def scores(self, users: NDArray[np.float32], offset: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """[n, I] float32 scores of users [n, d], plus offset [n]."""
        out = np.empty((len(users), self.n_items), np.float32)
        offset = np.zeros(len(users), np.float32) if offset is None else offset
        score_items(np.ascontiguousarray(users, np.float32), offset, self._table, self._bias, self._room.scores, out)
        return out

    def top_k(
        self, users: NDArray[np.float32], k: int, *, blocked: NDArray[np.uint64] | None = None
    ) -> NDArray[np.int64]:
        """[n, k] items of highest score for users [n, d], best first, ties to the smaller number.

        Args:
            users: [n, d] float32.
            k: how many.
            blocked: [n, ceil(I / 64)] uint64, bit i set where item i is left out (`pack_mask`); None blocks nothing.
                Where fewer than k items are left, the rest of the row is -1.
        """
        out = np.empty((len(users), k), np.int64)
        blocked = self._nothing if blocked is None else blocked
        best = np.empty((len(users), k), np.float32)
        top_items(np.ascontiguousarray(users, np.float32), self._table, self._bias, blocked, self._room, best, out)
        return out


def pack_mask(mask: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """[n, ceil(I / 64)] uint64 with bit i of a row set where mask [n, I] is true."""
    n, n_items = mask.shape
    words = -(-n_items // 64)
    packed = np.zeros((n, words * 8), np.uint8)
    packed[:, : -(-n_items // 8)] = np.packbits(mask, axis=1, bitorder="little")
    return packed.view("<u8").astype(np.uint64, copy=False)
