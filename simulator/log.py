"""The interaction log: columns, the catalogue they point into, and the split by user. No model in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.errors import LogError
from simulator.streams import stream

WORLD_A, JUDGE, HELD_OUT = 0, 1, 2
"""Roles of a user: trains world A, fits the judge worlds, or is held out of everything."""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What is known of I items and U users before anything is fitted.

    Attributes:
        item_ids: [I] the user's own item ids.
        item_text: [I] text of each item (title, year, class, ...), "" where there is none.
        item_categories: [I, C] 1.0 where the item has the category, else 0.0; C may be 0.
        category_names: [C].
        user_ids: [U] the user's own user ids.
        user_features: [U, f] public features a policy may see, standardised or one-hot; f may be 0.
        user_feature_names: [f]; "name=value" is a one-hot column.
        user_feature_scale: [f, 2] mean and standard deviation that a feature was standardised by, 0 and 1
            for one-hot; empty: all stand in their own unit.
        user_attributes: attribute name -> [U] value as text ("" = unknown): groups for fairness analysis. Never
            shown to an agent.
        content: [I, d] float32 vectors of the *pretrained* encoder, unit length; None before the encode stage.
        modalities: name -> [I, d] float32 of what else is known of an item (its picture, its sound, a number); a row
            of NaN where an item has none. A modality of one column is a number in its own unit.
    """

    item_ids: tuple[str, ...]
    item_text: tuple[str, ...]
    item_categories: NDArray[np.float32]
    category_names: tuple[str, ...]
    user_ids: tuple[str, ...]
    user_features: NDArray[np.float32]
    user_feature_names: tuple[str, ...]
    user_attributes: Mapping[str, NDArray[np.str_]] = field(default_factory=dict)
    content: NDArray[np.float32] | None = None
    modalities: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    user_feature_scale: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2)))

    @property
    def n_items(self) -> int:
        """Number of items I."""
        return len(self.item_ids)

    @property
    def n_users(self) -> int:
        """Number of users U."""
        return len(self.user_ids)


@dataclass(frozen=True, slots=True)
class RandomRows:
    """n interactions with items that were drawn uniformly at random: an unbiased test set. Nothing is fitted on them.

    Attributes:
        user: [n] index into the log's catalogue.
        item: [n] index into the log's catalogue.
        primary: [n] 1.0 where the primary behaviour occurred, else 0.0.
        behaviours: further columns by name, as in the log.
    """

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    primary: NDArray[np.float32]
    behaviours: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.user)


@dataclass(frozen=True, slots=True)
class SearchRows:
    """q judged pairs of a query and an item: what was searched for beside what was met.

    Attributes:
        text: [Q] distinct queries.
        query: [q] index into `text`.
        item: [q] index into the log's catalogue; a query's items are distinct.
        grade: [q] how well the item answers the query, 0 = not at all; in any unit, greater is better.

    Raises:
        LogError: a grade is below 0 or not finite, or a query has no item with a grade above 0.
    """

    text: tuple[str, ...]
    query: NDArray[np.int64]
    item: NDArray[np.int64]
    grade: NDArray[np.float64]

    def __post_init__(self) -> None:
        bad = np.flatnonzero(~(np.isfinite(self.grade) & (self.grade >= 0)))
        if bad.size:
            raise LogError(f"data.queries: row {bad[0]} has the grade {self.grade[bad[0]]:g}; give 0 or more")
        unanswered = np.flatnonzero(np.bincount(self.query, self.grade, len(self.text)) == 0)
        if unanswered.size:
            raise LogError(
                f"data.queries: no item answers '{self.text[unanswered[0]]}' (grades are 0); leave such queries out"
            )

    def __len__(self) -> int:
        return len(self.query)


@dataclass(frozen=True, slots=True)
class InteractionLog:
    """n logged interactions, sorted by user and then by time (ties keep the order of the file).

    Attributes:
        user: [n] index into the catalogue's users.
        item: [n] index into the catalogue's items.
        time: [n] seconds; all NaN where the log has no time (then the order within a user is drawn at random).
        primary: [n] 1.0 where the primary behaviour occurred (e.g. rating >= 4), else 0.0.
        catalogue: items and users.
        source: name of the dataset, for the report.
        behaviours: further columns by name, e.g. "rating" -> [n]; NaN where it was not observed.
        position: [n] position on the slate from 0, or None where not logged.
        propensity: [n] logging propensity in (0, 1], or None where not logged.
        self_selected: True where users, or a policy that nobody logged, chose what has rows: exposure was not logged.
        notes: what was left out or merged on reading, for the report.
        impression: [n] number of the slate that the row's item was shown on, from 0, or None where not logged.
        session: [n] number of the visit that the row belongs to, from 0, or None where not logged.
        random: rows with items drawn uniformly at random, kept apart from the log, or None.
        searches: queries and the items that answer them, or None.
        exposure: who chose what was shown, where the dataset says so; "" where nobody does.
        friends: [m, 2] users who are friends of each other, or None where not known.
        limits: what the dataset's publisher or its reader says that it cannot tell, for the data card.

    Raises:
        LogError: lengths differ, an index is out of range, rows are not sorted by user, the primary behaviour never
            or always occurs, or there are fewer than two users.
    """

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    time: NDArray[np.float64]
    primary: NDArray[np.float32]
    catalogue: Catalogue
    source: str
    behaviours: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    position: NDArray[np.int64] | None = None
    propensity: NDArray[np.float64] | None = None
    self_selected: bool = True
    notes: tuple[str, ...] = ()
    impression: NDArray[np.int64] | None = None
    session: NDArray[np.int64] | None = None
    random: RandomRows | None = None
    searches: SearchRows | None = None
    exposure: str = ""
    limits: tuple[str, ...] = ()
    friends: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        n = len(self.user)
        if n == 0:
            raise LogError(f"data.source: '{self.source}' has no rows; a log needs interactions")
        for name in ("item", "time", "primary"):
            if len(getattr(self, name)) != n:
                raise LogError(f"data.{name}: {len(getattr(self, name))} values for {n} rows; give one a row")
        for name in ("position", "propensity", "impression", "session"):
            column = getattr(self, name)
            if column is not None and len(column) != n:
                raise LogError(f"data.columns.{name}: {len(column)} values for {n} rows; give one a row")
        if self.random is not None and len(self.random):
            for name, size in (("user", self.catalogue.n_users), ("item", self.catalogue.n_items)):
                index = getattr(self.random, name)
                if index.min() < 0 or index.max() >= size:
                    raise LogError(f"data.random: {name} index {index.max()} is outside the {size} {name}s")
        if self.searches is not None and np.any(self.searches.item >= self.catalogue.n_items):
            found = self.searches.item.max()
            raise LogError(f"data.queries: item index {found} is outside the {self.catalogue.n_items} items")
        if self.user.min() < 0 or self.user.max() >= self.catalogue.n_users:
            raise LogError(f"data.user: index {self.user.max()} is outside the {self.catalogue.n_users} users")
        if self.item.min() < 0 or self.item.max() >= self.catalogue.n_items:
            raise LogError(f"data.item: index {self.item.max()} is outside the {self.catalogue.n_items} items")
        if np.any(self.user[1:] < self.user[:-1]):
            raise LogError("data: rows are not sorted by user; sort them before building an InteractionLog")
        if self.user[0] == self.user[-1]:
            raise LogError(f"data.source: '{self.source}' has one user; at least two are needed, better hundreds")
        if not np.isin(self.primary, (0.0, 1.0)).all():
            raise LogError(
                "data.positive: the primary behaviour has values other than 0 and 1; give a yes/no condition"
            )
        if self.primary.min() == self.primary.max():
            said = "always" if self.primary[0] else "never"
            raise LogError(f"data.positive: the primary behaviour {said} occurs in '{self.source}'; nothing to learn")

    def __len__(self) -> int:
        return len(self.user)

    @property
    def has_time(self) -> bool:
        """Whether rows carry times."""
        return not bool(np.isnan(self.time).any())

    def columns_of(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> dict[str, Any]:
        """What has a value for each row, for these rows: fields of a log; `rows` are flags [n] or numbers, in order."""

        def cut(column: NDArray[Any] | None) -> NDArray[Any] | None:
            return None if column is None else column[rows]

        names = ("user", "item", "time", "primary", "position", "propensity", "impression", "session")
        columns: dict[str, Any] = {name: cut(getattr(self, name)) for name in names}
        return columns | {"behaviours": {name: column[rows] for name, column in self.behaviours.items()}}

    def row_starts(self) -> NDArray[np.int64]:
        """[U + 1] rows of user u are `starts[u]:starts[u + 1]`."""
        return np.searchsorted(self.user, np.arange(self.catalogue.n_users + 1))


@dataclass(frozen=True, slots=True)
class Histories:
    """Ragged histories of n users: what each consumed and whether they liked it, oldest first.

    Attributes:
        start: [n + 1] history of row u is `start[u]:start[u + 1]` of the columns below.
        item: [m] item index.
        primary: [m] 1.0 liked, 0.0 not.
    """

    start: NDArray[np.int64]
    item: NDArray[np.int64]
    primary: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.start) - 1

    def last(self, length: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The last `length` entries of each: items [n, length] and feedback [n, length], right-aligned.

        Empty places hold item -1 and feedback 0 and stand on the left, so the newest is always the last column.
        """
        offset = self.start[1:, None] - length + np.arange(length)[None, :]  # [n, length]
        there = offset >= self.start[:-1, None]
        safe = np.where(there, offset, 0)
        if len(self.item) == 0:
            return np.full(offset.shape, -1), np.zeros(offset.shape, np.float32)
        return np.where(there, self.item[safe], -1), np.where(there, self.primary[safe], 0.0).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Split:
    """Who may see which rows (EVALUATION: users are disjoint, rows within a user go by time).

    Attributes:
        role: [U] WORLD_A, JUDGE or HELD_OUT.
        tuning: [U] True for the tenth of world A's and of the judge's users who tune and calibrate, not fit.
        late: [n] True for the last fifth of a fitting user's rows (the future test) and for the second half of a
            tuning or held-out user's rows (scored after folding in the first half).
    """

    role: NDArray[np.int8]
    tuning: NDArray[np.bool_]
    late: NDArray[np.bool_]

    def users(self, role: int, *, tuning: bool | None = None) -> NDArray[np.int64]:
        """Indices of the users of a role; `tuning` narrows them to the tuning (True) or fitting (False) ones."""
        chosen = self.role == role
        if tuning is not None:
            chosen &= self.tuning == tuning
        return np.flatnonzero(chosen)

    def rows(self, log: InteractionLog, users: NDArray[np.int64], *, late: bool) -> NDArray[np.int64]:
        """Row numbers of these users: the early ones (to fit, or history) or the late ones (to score), sorted."""
        chosen = np.zeros(len(self.role), bool)
        chosen[users] = True
        return np.flatnonzero(chosen[log.user] & (self.late == late))

    def histories(self, log: InteractionLog, users: NDArray[np.int64]) -> Histories:
        """Early rows of each of the given users, in the order of `users`."""
        return histories_of(log, users, keep=~self.late)


def history_rows(
    log: InteractionLog, users: NDArray[np.int64], *, keep: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Starts [n + 1] and row numbers [m] of the rows of the given users where `keep` [n] holds, in their order."""
    starts = log.row_starts()
    lengths = starts[users + 1] - starts[users]
    end = np.cumsum(lengths)
    rows = np.arange(end[-1] if len(end) else 0)
    rows += np.repeat(starts[users] - (end - lengths), lengths)
    kept = keep[rows]
    before = np.concatenate([[0], np.cumsum(kept, dtype=np.int64)])  # rows kept before each of the rows
    return before[np.concatenate([[0], end])], rows[kept]


def histories_of(log: InteractionLog, users: NDArray[np.int64], *, keep: NDArray[np.bool_]) -> Histories:
    """Histories of the given users from the rows where `keep` [n] holds, in the order of `users`."""
    start, rows = history_rows(log, users, keep=keep)
    return Histories(start, log.item[rows], log.primary[rows])


def split_users(
    log: InteractionLog,
    root: np.random.SeedSequence,
    *,
    world_a: float = 0.45,
    judge: float = 0.40,
    tuning: float = 0.10,
    future: float = 0.20,
) -> Split:
    """Split by user, then by time within the user.

    Args:
        log: the log; where it has no times, the order within a user is drawn at random here.
        root: root of the scenario's streams; the stream "split" is used.
        world_a: share of the users that fit world A.
        judge: share that fit the judge worlds; the rest is held out of everything.
        tuning: share of each world's users that tune and calibrate.
        future: share of a fitting user's rows, the newest, that test.

    Raises:
        LogError: there are too few users for each part to have two fitting and one tuning user.
    """
    n_users = log.catalogue.n_users
    rng = stream(root, "split")
    order = rng.permutation(n_users)
    n_a, n_judge = round(world_a * n_users), round(judge * n_users)
    if min(n_a, n_judge) < 3 or n_users - n_a - n_judge < 1:
        raise LogError(
            f"data.source: {n_users} users are too few to split into train, judge and held-out; at least 10 are needed"
        )
    role = np.full(n_users, HELD_OUT, np.int8)
    role[order[:n_a]] = WORLD_A
    role[order[n_a : n_a + n_judge]] = JUDGE
    is_tuning = np.zeros(n_users, bool)
    is_tuning[order[: max(1, round(tuning * n_a))]] = True
    is_tuning[order[n_a : n_a + max(1, round(tuning * n_judge))]] = True

    starts = log.row_starts()
    lengths = np.diff(starts)
    share = np.where(is_tuning | (role == HELD_OUT), 0.5, 1 - future)  # [U] share of early rows
    n_early = np.maximum(1, np.floor(share * lengths)).astype(np.int64)
    if log.has_time:
        # A user's late rows are the last of their rows: +1 where they begin, -1 behind them, added up along the log.
        change = np.zeros(len(log) + 1, np.int8)
        some = lengths > n_early
        change[(starts[:-1] + n_early)[some]] += 1
        change[starts[1:][some]] -= 1
        return Split(role, is_tuning, np.cumsum(change[:-1], dtype=np.int8).view(bool))
    noise = rng.random(len(log))
    by_noise = np.lexsort((noise, log.user))
    rank = np.empty(len(log), np.int64)
    rank[by_noise] = np.arange(len(log)) - starts[log.user[by_noise]]
    return Split(role, is_tuning, rank >= n_early[log.user])
