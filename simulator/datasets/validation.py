"""What is wrong with a log, all at once, and what is odd about it: columnar checks, without a copy of the rows.

A mistake refuses the log. An oddity that changes nothing for certain (rows out of order, repeats, ids without a row in
their table) is a note on the log, so that the report shows it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from simulator.datasets.tables import Table
from simulator.errors import LogError

T = TypeVar("T")

LATEST_SECONDS = 1e11
"""Seconds since 1970 beyond which (the year 5138) a time is one in milliseconds or finer."""


class Mistakes:
    """Collects what is wrong with one log; `refuse` raises all of it, one line each."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def of(self, read: Callable[[], T], otherwise: T) -> T:
        """What `read` returns; `otherwise` where it refuses the log, whose lines are kept for `refuse`."""
        try:
            return read()
        except LogError as error:
            self.lines += str(error).splitlines()
            return otherwise

    def refuse(self) -> None:
        """Do nothing if all was right.

        Raises:
            LogError: one line for each mistake.
        """
        if self.lines:
            raise LogError("\n".join(dict.fromkeys(self.lines)))


def check_range(table: Table, name: str, values: NDArray[np.float64], low: float, high: float) -> None:
    """Hold a column to the range that the settings give.

    Raises:
        LogError: a value lies outside.
    """
    bad = np.flatnonzero((values < low) | (values > high))
    if bad.size:
        raise LogError(
            f"data.ranges.{name}: {table.where(int(bad[0]))} of '{table.path.name}' has {values[bad[0]]:g}, outside "
            f"[{low:g}, {high:g}]{_such(bad.size)}; mend the rows or widen the range"
        )


def check_observed(table: Table, name: str, values: NDArray[np.float64], primary: NDArray[np.float32]) -> None:
    """Hold a further behaviour to have a value wherever the primary one occurred: what follows it is read there.

    Args:
        table: the log.
        name: of the column.
        values: [n], NaN where the cell is empty; none if the column could not be read.
        primary: [n] the primary behaviour; none if it could not be read.

    Raises:
        LogError: a value is missing there.
    """
    if len(values) != len(primary):
        return
    bad = np.flatnonzero(np.isnan(values) & (primary > 0))
    if bad.size:
        raise LogError(
            f"data.behaviours: {table.where(int(bad[0]))} of '{table.path.name}' has the primary behaviour and no "
            f"value in column '{name}'{_such(bad.size)}; fill it in or drop the row"
        )


def check_seconds(table: Table, name: str, seconds: NDArray[np.float64]) -> None:
    """Refuse times that cannot be seconds: sessions and gaps would be a thousand times too long.

    Raises:
        LogError: a time is later than the year 5138.
    """
    bad = np.flatnonzero(np.abs(seconds) > LATEST_SECONDS)
    if bad.size:
        raise LogError(
            f"data.columns.time: {table.where(int(bad[0]))} of '{table.path.name}' has {seconds[bad[0]]:.0f} in column "
            f"'{name}'{_such(bad.size)}, which is no time in seconds; divide milliseconds by 1000, or write dates"
        )


def check_one_user_each(table: Table, name: str, part: str, number: NDArray[np.int64], user: NDArray[np.int64]) -> None:
    """Hold each impression or session to one user.

    Raises:
        LogError: rows of two users have the same.
    """
    if not len(user):
        return  # the users could not be read: that was said already
    first = np.full(int(number.max()) + 1, -1)
    first[number[::-1]] = user[::-1]  # backwards, so that the first row's user is written last
    bad = np.flatnonzero(first[number] != user)
    if bad.size:
        raise LogError(
            f"data.columns.{part}: {table.where(int(bad[0]))} of '{table.path.name}' has the {part} of another user in "
            f"column '{name}'{_such(bad.size)}; give each user's {part}s values of their own"
        )


def unknown_ids(ids: tuple[str, ...], table_ids: tuple[str, ...], file: str, field: str) -> list[str]:
    """A note on ids of the log that their own table lacks.

    Raises:
        LogError: the table has none of them, so that the key columns cannot be the same ids.
    """
    known = set(table_ids)
    unknown = [name for name in ids if name not in known]
    if not unknown:
        return []
    if len(unknown) == len(ids):
        raise LogError(
            f"{field}: '{file}' has none of the log's {len(ids)} ids (the log's first is '{ids[0]}', the file's "
            f"'{table_ids[0]}'); write both in the same way"
        )
    of_what = field.removeprefix("data.")
    return [f"{len(unknown)} of {len(ids)} {of_what} of the log are not in '{file}' (first: '{unknown[0]}')"]


def blanks_around(ids: tuple[str, ...], what: str) -> list[str]:
    """A note where ids differ by the blanks around them alone; they stay different."""
    twice = len(ids) - len({name.strip() for name in ids})
    return [f"{twice} {what} ids differ from another by blanks around them alone"] if twice else []


def _such(count: int) -> str:
    return f" ({count} such rows)" if count > 1 else ""
