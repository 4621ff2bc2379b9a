"""Rows in the order of user and time without repeats, in one pass over each user's rows: numba, for logs of any length.

A sort of all rows by four keys would need several arrays as long as the log, and minutes for 10^8 rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Ordered:
    """Rows of a log by user, then by time; ties keep their order in the file.

    Attributes:
        rows: [m] row numbers that are kept: the last of each (user, item, time).
        repeats: rows left out; changed: those of them whose successor has another primary behaviour.
        back: rows that stood in the file after a later row of the same user.
    """

    rows: NDArray[np.int64]
    repeats: int
    changed: int
    back: int

    def notes(self) -> list[str]:
        """What the report says of it."""
        found = []
        if self.back:
            found.append(
                f"{self.back} rows stood after a later row of their user; each user's rows were put in order of time"
            )
        if self.repeats:
            said = f", {self.changed} with another answer than the one before" if self.changed else ""
            found.append(f"{self.repeats} rows repeat a user, item and time{said}; the last of each was kept")
        return found


def order_rows(
    user: NDArray[np.int64], item: NDArray[np.int64], time: NDArray[np.float64], primary: NDArray[np.float32]
) -> Ordered:
    """Order the rows of a log; times that are NaN are all one moment.

    Args:
        user: [n] number of the user, from 0.
        item: [n] number of the item.
        time: [n] seconds, or NaN.
        primary: [n] primary behaviour, to say how many repeats contradict.
    """
    n_users = int(user.max()) + 1 if len(user) else 0
    start = np.concatenate([[0], np.cumsum(np.bincount(user, minlength=n_users))])
    rows = np.empty(len(user), np.int64)
    _by_user(user, start[:-1].copy(), rows)
    kept, changed, back = _by_time(start, item, time, primary, rows)
    return Ordered(rows[:kept], len(user) - kept, changed, back)


@njit(cache=True, nogil=True)
def _by_user(user: NDArray[np.int64], place: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
    """Row numbers by user, in the order of the file; place: [U] where the next row of a user goes."""
    for row in range(len(user)):
        rows[place[user[row]]] = row
        place[user[row]] += 1


@njit(cache=True, nogil=True)
def _by_time(
    start: NDArray[np.int64],
    item: NDArray[np.int64],
    time: NDArray[np.float64],
    primary: NDArray[np.float32],
    rows: NDArray[np.int64],
) -> tuple[int, int, int]:
    """Put each user's rows in order of time, leave repeats out and close the gaps; how many are left, changed, back."""
    kept = changed = back = 0
    for user in range(len(start) - 1):
        own = rows[start[user] : start[user + 1]].copy()
        when = np.empty(len(own), np.float64)
        sorted_already = True
        for k in range(len(own)):
            when[k] = 0.0 if np.isnan(time[own[k]]) else time[own[k]]
            if k and when[k] < when[k - 1]:
                sorted_already = False
                back += 1
        if not sorted_already:
            order = np.argsort(when, kind="mergesort")
            own, when = own[order], when[order]
        first = 0
        while first < len(own):
            last = first + 1
            while last < len(own) and when[last] == when[first]:
                last += 1
            if last == first + 1:
                rows[kept] = own[first]
                kept += 1
            else:
                drop = np.zeros(last - first, np.bool_)
                by_item = np.argsort(item[own[first:last]], kind="mergesort")
                for k in range(len(by_item) - 1):
                    this, next_ = own[first + by_item[k]], own[first + by_item[k + 1]]
                    if item[this] == item[next_]:
                        drop[by_item[k]] = True
                        changed += primary[this] != primary[next_]
                for k in range(last - first):
                    if not drop[k]:
                        rows[kept] = own[first + k]
                        kept += 1
            first = last
    return kept, changed, back
