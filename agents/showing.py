"""What stands on slates, and the best slate where one item is chosen: compiled."""

from __future__ import annotations

import numpy as np
from numba import njit

from simulator._compiled import F32, I64, PLAIN, Flags
from simulator._vector import above16, add16, fill16, load16, lowest_bit, mad16
from simulator.top_items import insert_item


@njit(nogil=True, **PLAIN)
def keep_allowed(slates: I64, candidates: Flags, out: I64) -> None:
    """Out [n, K]: the slates [n, K] with -1 where an item is no candidate [n, I] or stood further up already.

    Items lie in [-1, I), which `agents.train_world.shown_places` sees to: beyond lies another user's mask.
    """
    for user in range(slates.shape[0]):
        for place in range(slates.shape[1]):
            item = slates[user, place]
            allowed = item >= 0 and candidates[user, item]
            for above in range(place):
                allowed = allowed and slates[user, above] != item
            out[user, place] = item if allowed else -1


@njit(**PLAIN)
def _may_enter(item: int, candidates: Flags, out: I64, user: int) -> bool:
    """Whether an item is a candidate that does not stand on the slate yet."""
    allowed = candidates.shape[0] == 0 or candidates[user, item]
    for place in range(out.shape[1]):
        allowed = allowed and out[user, place] != item
    return allowed


@njit(nogil=True, **PLAIN)
def best_of_one_choice(weight: F32, worth: F32, candidates: Flags, rounds: int, best: F32, out: I64) -> None:
    """Slates out [n, K] of highest sum(v q) / (1 + sum(v)): at most one item is chosen, by a logit (Dinkelbach, 1967).

    Each round takes the K items of highest v (q - z), z being the value of the slate before; the slate's own items
    come first, so that few others are looked at. -1 where there are too few candidates.

    weight, worth: [n, I], v and q; candidates: [n, I], or [0, I] where all may be shown; best: [n, K] scratch.
    """
    n_items, k = weight.shape[1], out.shape[1]
    whole = n_items // 16 * 16
    best[:, :] = -np.inf
    out[:, :] = -1
    for user in range(out.shape[0]):
        z = 0.0  # in double: of an item of great v all but the last digits of q - z cancel
        for _ in range(rounds):
            filled, changed = 0, False
            while filled < k and out[user, filled] >= 0:
                item = out[user, filled]
                gain = np.float32(weight[user, item] * (worth[user, item] - z))
                place = filled
                while place > 0 and gain > best[user, place - 1]:
                    best[user, place] = best[user, place - 1]
                    out[user, place] = out[user, place - 1]
                    place -= 1
                best[user, place] = gain
                out[user, place] = item
                filled += 1
            for tile in range(0, whole, 16):
                less = add16(load16(worth, user, tile), fill16(np.float32(-z)))
                gains = mad16(load16(weight, user, tile), less, fill16(np.float32(0.0)))
                hits = above16(gains, fill16(best[user, k - 1]))
                while hits != np.uint64(0):
                    item = tile + int(lowest_bit(hits))
                    hits &= hits - np.uint64(1)
                    gain = np.float32(weight[user, item] * (worth[user, item] - z))
                    if gain > best[user, k - 1] and _may_enter(item, candidates, out, user):
                        insert_item(gain, item, best, out, user)
                        changed = True
            for item in range(whole, n_items):
                gain = np.float32(weight[user, item] * (worth[user, item] - z))
                if gain > best[user, k - 1] and _may_enter(item, candidates, out, user):
                    insert_item(gain, item, best, out, user)
                    changed = True
            if not changed:
                break
            above, below = 0.0, 1.0
            for place in range(k):
                item = out[user, place]
                if item >= 0:
                    above += np.float64(weight[user, item]) * worth[user, item]
                    below += weight[user, item]
            z = above / below
