"""What stands on slates and what was clicked there, lane by lane: compiled, for it is asked at every training step."""

from __future__ import annotations

from numba import njit

from simulator._compiled import F32, I64, PLAIN, Flags


@njit(nogil=True, **PLAIN)
def keep_allowed(slates: I64, candidates: Flags, out: I64) -> None:
    """Out [n, K]: the slates [n, K] with -1 where an item is no candidate [n, I] or stood further up already."""
    for user in range(slates.shape[0]):
        for place in range(slates.shape[1]):
            item = slates[user, place]
            allowed = item >= 0 and candidates[user, item]
            for above in range(place):
                allowed = allowed and slates[user, above] != item
            out[user, place] = item if allowed else -1


@njit(nogil=True, **PLAIN)
def clicks_on(slates: I64, feedback: F32, out: F32) -> None:
    """Out [n, K]: feedback on each place; that on a slate stands last in feedback [n, H], empty places left out."""
    for user in range(slates.shape[0]):
        back = feedback.shape[1] - 1
        for place in range(slates.shape[1] - 1, -1, -1):
            out[user, place] = 0.0
            if slates[user, place] >= 0:
                if back >= 0:
                    out[user, place] = feedback[user, back]
                back -= 1
