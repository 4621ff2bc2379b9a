"""Around the step of the simulated users, not in it: late feedback, late items, and the kernel's hash in numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class Delay:
    """Hides what was answered lately from the observed history, and pays rewards as late.

    Args:
        n: lanes.
        steps: slates after which an answer is known.
        rewards: whether the reward comes as late; what is still due is paid when the session ends.
    """

    def __init__(self, n: int, steps: int, *, rewards: bool) -> None:
        self._shown = np.zeros((n, steps), np.int64)
        self._due = np.zeros((n, steps), np.float32)
        self._rewards = rewards

    def begin(self, lanes: NDArray[np.bool_] | None = None) -> None:
        """New sessions in these lanes, all where None."""
        self._shown[slice(None) if lanes is None else lanes] = 0
        self._due[slice(None) if lanes is None else lanes] = 0

    def push(self, shown: NDArray[np.int32], reward: NDArray[np.float32], done: NDArray[np.bool_]) -> None:
        """One step's slates [n, K] and rewards [n]; the rewards become, in place, those that are paid now."""
        self._shown[:, :-1] = self._shown[:, 1:]
        self._shown[:, -1] = (shown >= 0).sum(axis=1)
        if not self._rewards:
            return
        paid = self._due[:, 0].copy()
        self._due[:, :-1] = self._due[:, 1:]
        self._due[:, -1] = reward
        reward[:] = paid + np.where(done, self._due.sum(axis=1), 0)
        self._due[done] = 0

    def hide(self, feedback: NDArray[np.float32], lanes: NDArray[np.int64] | None = None) -> None:
        """Set the newest answers [m, H] to 0, those that these lanes' policies cannot know yet; in place."""
        newest = self._shown.sum(axis=1)
        newest = newest if lanes is None else newest[lanes]
        column = np.arange(feedback.shape[1])[None, :]
        feedback[column >= feedback.shape[1] - newest[:, None]] = 0


class Arrivals:
    """Which items may be shown yet.

    Args:
        entry: [I] slate of a session from which each item may be shown; session: [I] session from which.
    """

    def __init__(self, entry: NDArray[np.int32], session: NDArray[np.int32]) -> None:
        self._entry, self._session = entry, session

    def there(self, visit: NDArray[np.int64], step: NDArray[np.int64]) -> NDArray[np.bool_]:
        """[n, I] items that may be shown to users in their session `visit` [n], counted from 0, at slate `step` [n]."""
        own, visit = self._session[None, :], visit[:, None]
        return np.asarray((visit > own) | ((visit == own) & (step[:, None] >= self._entry[None, :])))

    def allowed(self, slate: NDArray[np.int64], visit: NDArray[np.int64], step: NDArray[np.int64]) -> NDArray[np.int64]:
        """The slates [n, K] with -1 in place of items that are not there yet."""
        item = np.clip(slate, 0, len(self._entry) - 1)
        own, visit = self._session[item], visit[:, None]
        there = (visit > own) | ((visit == own) & (step[:, None] >= self._entry[item]))
        return np.where(there, slate, -1)


def hashed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """`simulator.kernel.mix64` of each number."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)))


def folded(key: NDArray[np.uint64], word: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """`simulator.kernel.fold` of each pair."""
    return hashed((key ^ word) + np.uint64(0x9E3779B97F4A7C15))


def uniform_of(key: NDArray[np.uint64], stream: int) -> NDArray[np.float64]:
    """Uniforms of a session's keys, as the kernel draws them: the high 24 bits of a hash."""
    return np.asarray((hashed(key ^ np.uint64(stream)) >> np.uint64(40)).astype(np.float64) * 2.0**-24)
