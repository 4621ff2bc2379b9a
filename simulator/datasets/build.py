"""Tables to an InteractionLog: ids to indices, the primary behaviour, item text, policy inputs and groups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from simulator.datasets.conditions import Condition
from simulator.datasets.modalities import load_modalities, modality_columns
from simulator.datasets.ordering import order_rows
from simulator.datasets.parts import MediaFiles
from simulator.datasets.settings import Bands, DataSettings
from simulator.datasets.tables import Table
from simulator.datasets.validation import (
    Mistakes,
    blanks_around,
    check_observed,
    check_one_user_each,
    check_range,
    check_seconds,
    unknown_ids,
)
from simulator.errors import LogError
from simulator.log import Catalogue, InteractionLog, RandomRows, SearchRows
from simulator.streams import stream

USUAL_NAMES = {"user": ("user_id", "user"), "item": ("item_id", "item"), "time": ("timestamp", "time")}
"""Columns that are tried where the column map is silent."""

SELF_SELECTED, UNLOGGED_POLICY = "self-selected", "unlogged policy"
LOGGED_POLICY, UNIFORM = "logged policy", "uniformly random"
UNLOGGED = (SELF_SELECTED, UNLOGGED_POLICY)
"""Ways of choosing what was shown under which a row says nothing of the items that were not."""

_NOTHING: NDArray[np.float64] = np.zeros(0)
_NO_IDS: tuple[NDArray[np.int64], tuple[str, ...]] = (np.zeros(0, np.int64), ())
_NO_FEATURES: tuple[NDArray[np.float32], tuple[str, ...], NDArray[np.float64]] = (
    np.zeros((0, 0), np.float32),
    (),
    np.zeros((0, 2)),
)
_NO_GROUPS = np.zeros(0, np.str_)
"""What stands in for a column that could not be read, until all mistakes are found and the log is refused."""

NUMERIC_GROUPS_FROM = 10
"""A sensitive column of numbers with at least so many different values is cut into terciles; below, each is a group."""


@dataclass(frozen=True, slots=True)
class Tables:
    """What a reader found: the log, and tables keyed by item and by user where there are any.

    Attributes:
        log: one row an interaction.
        items: one row an item.
        users: one row a user.
        random: rows like the log's whose items were drawn uniformly at random; never fitted on.
        queries: one row a pair of a query and an item.
        exposure: who chose what was shown, where the dataset says so (one of the constants below); "" where it is
            silent: then a log with positions or propensities was logged, and any other was self-selected.
        notes: what the reader left out, for the report.
        media: pictures or clips of the items that the dataset brings.
        item_features: name -> (item ids [m], vectors [m, f]) that the dataset brings.
    """

    log: Table
    items: Table | None = None
    users: Table | None = None
    random: Table | None = None
    queries: Table | None = None
    exposure: str = ""
    notes: tuple[str, ...] = ()
    media: MediaFiles | None = None
    item_features: Mapping[str, tuple[tuple[str, ...], NDArray[np.float32]]] = field(default_factory=dict)


def build_log(tables: Tables, settings: DataSettings, *, seed: int, folder: Path | None = None) -> InteractionLog:
    """Interaction log of the tables.

    Files of modalities are looked for from `folder`, the scenario's; the working folder where it is left out.

    Rows of one user, item and time are one interaction: the last in the file holds, as a correction does, and the
    log's `notes` say how many were merged. In a log without times that leaves one row for each user and item.

    Raises:
        LogError: a column is missing or its values cannot be used.
    """
    log = tables.log
    refuse_missing_columns(tables, settings)
    user_column, item_column = (_key_column(log, settings, part) for part in ("user", "item"))
    mistakes = Mistakes()
    user, user_ids = mistakes.of(lambda: _indices(log.ids(user_column, "data.columns.user")), _NO_IDS)
    item, item_ids = mistakes.of(lambda: _indices(log.ids(item_column, "data.columns.item")), _NO_IDS)
    time = mistakes.of(lambda: _times(log, settings), _NOTHING)
    numbers = _numbers(log, settings, mistakes)
    primary = mistakes.of(lambda: _primary(log, settings, numbers), _NOTHING.astype(np.float32))
    for name in settings.behaviours:
        mistakes.of(lambda name=name: check_observed(log, name, numbers[name], primary), None)  # type: ignore[misc]
    position = mistakes.of(lambda: _positions(log, settings), None)
    propensity = mistakes.of(lambda: _propensities(log, settings), None)
    impression, session = (
        mistakes.of(lambda part=part: _numbered(log, settings, part, user), None)  # type: ignore[misc]
        for part in ("impression", "session")
    )
    user_table = mistakes.of(lambda: _side(tables.users, user_column, "data.users"), None)
    item_table = mistakes.of(lambda: _side(tables.items, item_column, "data.items"), None)
    mistakes.refuse()

    rows, notes = np.arange(len(log)), list(tables.notes)
    if tables.random is not None:
        tested = _pairs_of(tables.random, settings, user_ids, item_ids)
        rows = np.flatnonzero(~np.isin(user * len(item_ids) + item, tested))
        if len(rows) < len(log):
            notes.append(f"{len(log) - len(rows)} rows whose user and item are in the random part were dropped")
        if not len(rows):
            raise LogError(
                f"data.random: '{tables.random.path.name}' has every pair of '{log.path.name}', so no row is left; "
                "name a file of other rows"
            )
    if settings.max_users is not None and settings.max_users < len(user_ids):
        rng = stream(np.random.SeedSequence(seed), "data", "max_users")
        kept = np.zeros(len(user_ids), bool)
        kept[rng.choice(len(user_ids), settings.max_users, replace=False)] = True
        rows = rows[kept[user[rows]]]
        notes.append(f"{settings.max_users} of {len(user_ids)} users, drawn at random")
    if settings.max_items is not None and settings.max_items < len(item_ids):
        count = np.bincount(item[rows], minlength=len(item_ids))
        kept = np.zeros(len(item_ids), bool)
        kept[np.argsort(-count, kind="stable")[: settings.max_items]] = True
        rows = rows[kept[item[rows]]]
        notes.append(f"the {settings.max_items} of {len(item_ids)} items with most rows")
    if len(rows) and primary[rows].min() == primary[rows].max():
        when = "always" if primary[rows[0]] else "never"
        raise LogError(
            f"data.positive: '{settings.positive}': the primary behaviour {when} occurs in '{log.path.name}'; "
            "name one that some rows have and others lack"
        )

    # Users without rows have nothing to learn from and no history: they are left out. Items without rows can be shown.
    for side, ids in ((user_table, user_ids), (item_table, item_ids)):
        if side is not None:
            notes += unknown_ids(ids, side.ids, side.table.path.name, side.field)
    notes += [*blanks_around(user_ids, "user"), *blanks_around(item_ids, "item")]
    users = _order(user_ids, user_table, np.unique(user[rows]), keep_unseen=False)
    items = _order(
        item_ids,
        item_table,
        np.unique(item[rows]),
        keep_unseen=settings.max_items is None and settings.max_users is None,
    )
    if len(rows) == len(log):  # nothing is copied to leave rows out
        ordered = order_rows(users.renumber[user], item, time, primary)
        rows = ordered.rows
    else:
        ordered = order_rows(users.renumber[user[rows]], item[rows], time[rows], primary[rows])
        rows = rows[ordered.rows]
    notes += ordered.notes()
    for name in settings.behaviours:
        if unobserved := int(np.isnan(numbers[name][rows]).sum()):
            notes.append(f"'{name}' was not observed on {unobserved} rows without the primary behaviour")

    catalogue = _catalogue(
        _Side(item_table, log, items, item), _Side(user_table, log, users, user), tables, settings, folder, mistakes
    )
    searches = None
    if tables.queries is not None:
        searches, left_out = _searches(tables.queries, settings, items.ids)
        notes += left_out
    # One column after the other: beside those in order at most one stands as it was read.
    user = user[rows]
    user = users.renumber[user]
    item = item[rows]
    item = items.renumber[item]
    time = time[rows]
    primary = primary[rows]
    for name in list(numbers):
        numbers[name] = numbers[name][rows]
    return InteractionLog(
        user=user,
        item=item,
        time=time,
        primary=primary,
        catalogue=catalogue,
        source=Path(settings.source).name,  # reports hold no paths
        behaviours=numbers,
        position=None if position is None else position[rows],
        propensity=None if propensity is None else propensity[rows],
        self_selected=tables.exposure in UNLOGGED if tables.exposure else position is None and propensity is None,
        notes=tuple(notes),
        impression=None if impression is None else impression[rows],
        session=None if session is None else session[rows],
        random=None if tables.random is None else _random_rows(tables.random, settings, catalogue),
        searches=searches,
        exposure=tables.exposure,
    )


def _catalogue(
    item_side: _Side, user_side: _Side, tables: Tables, settings: DataSettings, folder: Path | None, mistakes: Mistakes
) -> Catalogue:
    """What is known of the items and users.

    Raises:
        LogError: a column of theirs cannot be used, one line each.
    """
    categories, category_names = _categories(item_side, settings)
    modalities = load_modalities(
        settings.modalities,
        item_side.order.ids,
        {
            name: item_side.values(column, f"data.modalities.{name}.column")
            for name, column in modality_columns(settings).items()
        },
        tables,
        folder,
        mistakes,
    )
    features, feature_names, feature_scale = mistakes.of(lambda: _policy_inputs(user_side, settings), _NO_FEATURES)
    groups = {
        name: mistakes.of(lambda name=name: _groups(user_side, name, settings.bands.get(name)), _NO_GROUPS)  # type: ignore[misc]
        for name in settings.sensitive
    }
    mistakes.refuse()
    return Catalogue(
        item_ids=item_side.order.ids,
        item_text=_joined_text(item_side, settings),
        item_categories=categories,
        category_names=category_names,
        user_ids=user_side.order.ids,
        user_features=features,
        user_feature_names=feature_names,
        user_feature_scale=feature_scale,
        user_attributes=groups,
        modalities=modalities,
    )


def _pairs_of(
    table: Table, settings: DataSettings, user_ids: tuple[str, ...], item_ids: tuple[str, ...]
) -> NDArray[np.int64]:
    """Pairs of the random part as user * I + item: they are test rows, and nothing may be fitted on them."""
    user, item = _known_indices(table, settings, user_ids, item_ids)
    known = (user >= 0) & (item >= 0)
    return user[known] * len(item_ids) + item[known]


def _known_indices(
    table: Table, settings: DataSettings, user_ids: tuple[str, ...], item_ids: tuple[str, ...]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Index of each row's user and item [n] among known ids, -1 where it is not among them."""
    found = []
    for part, ids in (("user", user_ids), ("item", item_ids)):
        values = table.text(_key_column(table, settings, part), f"data.columns.{part}", required=True)
        index = pc.index_in(values.combine_chunks(), pa.array(ids, pa.string()))
        found.append(pc.fill_null(index, -1).to_numpy(zero_copy_only=False).astype(np.int64))
    return found[0], found[1]


def _random_rows(table: Table, settings: DataSettings, catalogue: Catalogue) -> RandomRows:
    """Rows of the uniformly random part whose user and item the log knows."""
    user, item = _known_indices(table, settings, catalogue.user_ids, catalogue.item_ids)
    mistakes = Mistakes()
    numbers = _numbers(table, settings, mistakes)
    mistakes.refuse()
    primary = _primary(table, settings, numbers)
    for name in settings.behaviours:
        check_observed(table, name, numbers[name], primary)
    known = (user >= 0) & (item >= 0)
    return RandomRows(
        user=user[known],
        item=item[known],
        primary=primary[known],
        behaviours={name: values[known] for name, values in numbers.items()},
    )


def _searches(table: Table, settings: DataSettings, item_ids: tuple[str, ...]) -> tuple[SearchRows | None, list[str]]:
    """Queries and the items that answer them, and what was left out; None where no item answers any.

    A pair that stands twice counts by its best grade. A query none of whose items is known and graded above 0 says
    nothing of what answers it, and is left out.
    """
    field, file = "data.queries", table.path.name
    words = table.text("query", field, required=True)
    values = table.text(_key_column(table, settings, "item", field), field, required=True)
    index = pc.index_in(values.combine_chunks(), pa.array(item_ids, pa.string()))
    item = pc.fill_null(index, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    grade = np.ones(len(table)) if "grade" not in table.columns else table.numbers("grade", field)
    bad = np.flatnonzero(grade < 0)
    if bad.size:
        found = f"{table.where(int(bad[0]))} of '{file}' has the grade {grade[bad[0]]:g}"
        raise LogError(f"{field}: {found}; give 0 (irrelevant) or more")
    query, texts = _indices(words)
    known = item >= 0
    notes = [f"{len(item) - known.sum()} rows of '{file}' name items that the log lacks"] if not known.all() else []
    query, item, grade = query[known], item[known], grade[known]
    order = np.lexsort((-grade, item, query))
    query, item, grade = query[order], item[order], grade[order]
    once = np.ones(len(query), bool)
    once[1:] = (query[1:] != query[:-1]) | (item[1:] != item[:-1])
    answered = np.bincount(query, grade, minlength=len(texts)) > 0
    if not answered.all():
        notes.append(f"{np.count_nonzero(~answered)} queries of '{file}' that no item answers were left out")
    kept = once & answered[query]
    left, number = np.unique(query[kept], return_inverse=True)
    if len(left) == 0:
        return None, notes
    return SearchRows(tuple(texts[k] for k in left), number, item[kept], grade[kept]), notes


def _named_columns(settings: DataSettings) -> list[tuple[str, str, str]]:
    """The scenario's key, the column that it names, and which table beside the log may have it ("" where none may)."""
    return [
        *((f"data.columns.{part}", name, "") for part, name in settings.columns if name is not None),
        *(("data.behaviours", name, "") for name in settings.behaviours),
        *((f"data.ranges.{name}", name, "") for name in settings.ranges),
        *(("data.positive", name, "") for name in Condition.parse(settings.positive).columns()),
        *(("data.item_text", name, "items") for name in settings.item_text),
        *(("data.item_categories", name, "items") for name in settings.item_categories),
        *((f"data.modalities.{name}.column", column, "items") for name, column in modality_columns(settings).items()),
        *(("data.policy_inputs", name, "users") for name in settings.policy_inputs),
        *(("data.sensitive", name, "users") for name in settings.sensitive),
    ]


def columns_asked_for(settings: DataSettings) -> frozenset[str]:
    """Columns of a log that `build_log` may ask for: those that the settings name, or that are tried without."""
    usual = (name for names in USUAL_NAMES.values() for name in names)
    return frozenset([*usual, *(name for _, name, _ in _named_columns(settings))])


def refuse_missing_columns(tables: Tables, settings: DataSettings) -> None:
    """Look for every column that the settings name, before any is read.

    Raises:
        LogError: one line for each that is not there.
    """
    mistakes = []
    for key, name, beside in _named_columns(settings):
        second: Table | None = getattr(tables, beside) if beside else None
        if name not in tables.log.columns and (second is None or name not in second.columns):
            try:
                (second or tables.log).require(name, key)
            except LogError as error:
                mistakes.append(str(error))
    if mistakes:
        raise LogError("\n".join(dict.fromkeys(mistakes)))


def _key_column(table: Table, settings: DataSettings, part: str, field: str = "data.source") -> str:
    named = getattr(settings.columns, part)
    if named is not None:
        table.require(named, f"data.columns.{part}")
        return str(named)
    for usual in USUAL_NAMES[part]:
        if usual in table.columns:
            return usual
    wanted = USUAL_NAMES[part][0]
    raise LogError(
        f"{field}: '{table.path.name}' has no column '{wanted}'; map it, e.g. columns: "
        f"{{{part}: {next(iter(table.columns))}}}"
    )


def _indices(column: pa.ChunkedArray) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Index of each value in order of first appearance [n], and the values."""
    index, values = _numbered_values(column)
    return index, tuple(values.cast(pa.string()).to_pylist())


def _numbered_values(column: pa.ChunkedArray) -> tuple[NDArray[np.int64], pa.Array]:
    """Index of each value in order of first appearance [n], and the values as arrow has them."""
    encoded = column.dictionary_encode().unify_dictionaries()
    if not len(column):
        return np.zeros(0, np.int64), pa.array([], column.type)
    index, at = np.empty(len(column), np.int64), 0
    for chunk in encoded.chunks:
        index[at : at + len(chunk)] = chunk.indices
        at += len(chunk)
    return index, encoded.chunk(0).dictionary


def _times(log: Table, settings: DataSettings) -> NDArray[np.float64]:
    name = settings.columns.time or next((usual for usual in USUAL_NAMES["time"] if usual in log.columns), None)
    if name is None:
        return np.full(len(log), np.nan)
    seconds = log.seconds(name, "data.columns.time")
    check_seconds(log, name, seconds)
    return seconds


def _numbers(log: Table, settings: DataSettings, mistakes: Mistakes) -> dict[str, NDArray[np.float64]]:
    """Every column of the log that must hold numbers, each in its range; NaN where a behaviour was not observed."""
    condition = Condition.parse(settings.positive).columns()
    wanted = dict.fromkeys(settings.behaviours, "data.behaviours")
    wanted |= {name: "data.positive" for name, number in condition.items() if number and name not in wanted}
    wanted |= {name: f"data.ranges.{name}" for name in settings.ranges if name not in wanted}

    def read(name: str) -> NDArray[np.float64]:
        values = log.numbers(name, wanted[name], optional=name in settings.behaviours and name not in condition)
        if name in settings.ranges:
            check_range(log, name, values, *settings.ranges[name])
        return values

    return {name: mistakes.of(lambda name=name: read(name), _NOTHING) for name in wanted}  # type: ignore[misc]


def _primary(log: Table, settings: DataSettings, numbers: dict[str, NDArray[np.float64]]) -> NDArray[np.float32]:
    """The primary behaviour [n]."""
    condition = Condition.parse(settings.positive)
    if any(len(numbers[name]) < len(log) for name in condition.columns() if name in numbers):
        return _NOTHING.astype(np.float32)  # a column could not be read: that was said already
    texts: dict[str, NDArray[Any]] = {
        name: np.asarray(log.text(name, "data.positive", required=True).to_pylist(), dtype=np.str_)
        for name in condition.columns()
        if name not in numbers
    }
    return condition.holds(numbers, texts).astype(np.float32)


def _positions(log: Table, settings: DataSettings) -> NDArray[np.int64] | None:
    if settings.columns.position is None:
        return None
    values = log.numbers(settings.columns.position, "data.columns.position")
    bad = np.flatnonzero((values < 0) | (values != np.floor(values)))
    if bad.size:
        raise LogError(
            f"data.columns.position: {log.where(int(bad[0]))} has {values[bad[0]]:g}; give whole numbers from 0"
        )
    return values.astype(np.int64)


def _propensities(log: Table, settings: DataSettings) -> NDArray[np.float64] | None:
    if settings.columns.propensity is None:
        return None
    propensity = log.numbers(settings.columns.propensity, "data.columns.propensity")
    bad = np.flatnonzero(~((propensity > 0) & (propensity <= 1)))
    if bad.size:
        raise LogError(
            f"data.columns.propensity: {log.where(int(bad[0]))} has {propensity[bad[0]]:g}, outside (0, 1] "
            f"({bad.size} such rows); drop these rows, or leave the column out"
        )
    return propensity


def _numbered(log: Table, settings: DataSettings, part: str, user: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """Number of each row's impression or session [n], or None where the settings name no column."""
    name = getattr(settings.columns, part)
    if name is None:
        return None
    number, _ = _numbered_values(log.ids(name, f"data.columns.{part}"))
    check_one_user_each(log, name, part, number, user)
    return number


@dataclass(frozen=True, slots=True)
class _Order:
    """Final order of the ids of one side.

    Attributes:
        ids: the user's own ids.
        renumber: [old] -> new index of an id of the log; -1 where it is left out.
        table_row: [new] row in the side's table, -1 where it has none.
    """

    ids: tuple[str, ...]
    renumber: NDArray[np.int64]
    table_row: NDArray[np.int64]


def _order(log_ids: tuple[str, ...], side: _KeyedTable | None, used: NDArray[np.int64], *, keep_unseen: bool) -> _Order:
    """The side's table gives the order; ids of the log that it lacks follow in order of appearance."""
    position = {log_ids[old]: int(old) for old in used}
    table_ids = side.ids if side is not None else ()
    listed = [(name, row) for row, name in enumerate(table_ids) if keep_unseen or name in position]
    in_table = set(table_ids)
    listed += [(name, -1) for name in position if name not in in_table]
    renumber = np.full(len(log_ids), -1)
    for new, (name, _) in enumerate(listed):
        if name in position:
            renumber[position[name]] = new
    return _Order(tuple(name for name, _ in listed), renumber, np.array([row for _, row in listed], np.int64))


@dataclass(frozen=True, slots=True)
class _KeyedTable:
    table: Table
    key: str
    ids: tuple[str, ...]
    field: str


def _side(table: Table | None, log_key: str, field: str) -> _KeyedTable | None:
    """A table of items or users with its key: the log's name for it, or the first column."""
    if table is None:
        return None
    key = log_key if log_key in table.columns else next(iter(table.columns))
    ids = tuple(table.text(key, field, required=True).to_pylist())
    if len(set(ids)) < len(ids):
        counted = pc.value_counts(table.text(key, field).combine_chunks())
        twice = next(entry["values"] for entry in counted.to_pylist() if entry["counts"] > 1)
        raise LogError(f"{field}: '{table.path.name}' has '{twice}' twice in column '{key}'; keep one row each")
    return _KeyedTable(table, key, ids, field)


@dataclass(frozen=True, slots=True)
class _Side:
    """Where columns about items or users are looked up: their own table first, then the log (first row of each).

    Attributes:
        keyed: the side's own table, if there is one.
        log: the log, in which a column about the item or user may stand too.
        order: final order of the ids.
        owner: [len(log)] id index, before renumbering, of each row of the log.
    """

    keyed: _KeyedTable | None
    log: Table
    order: _Order
    owner: NDArray[np.int64]

    def table_of(self, name: str, field: str) -> Table:
        """The table that has the column."""
        if self.keyed is not None and (name in self.keyed.table.columns or name not in self.log.columns):
            self.keyed.table.require(name, field)
            return self.keyed.table
        self.log.require(name, field)
        return self.log

    def values(self, name: str, field: str) -> list[str]:
        """Text of each item or user in final order; "" where unknown."""
        table = self.table_of(name, field)
        row = self.order.table_row if table is not self.log else self._first_rows()
        taken = table.text(name, field).take(pa.array(np.maximum(row, 0)))
        return pc.if_else(pa.array(row >= 0), taken, "").to_pylist()

    def _first_rows(self) -> NDArray[np.int64]:
        """[ids] first row of the log for each, -1 where it has none."""
        first = np.full(len(self.order.ids), -1)
        new = self.order.renumber[self.owner]
        kept = np.flatnonzero(new >= 0)[::-1]  # backwards, so that the first row is written last
        first[new[kept]] = kept
        return first


def _joined_text(side: _Side, settings: DataSettings) -> tuple[str, ...]:
    """Text of each item: its columns joined by ", ", empty ones left out."""
    columns = [side.values(name, "data.item_text") for name in settings.item_text]
    if not columns:
        return ("",) * len(side.order.ids)
    return tuple(", ".join(part.strip() for part in parts if part.strip()) for parts in zip(*columns, strict=True))


def _categories(side: _Side, settings: DataSettings) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """[I, C] membership and the names, in alphabetical order."""
    members: list[tuple[int, str]] = []
    for name in settings.item_categories:
        for index, text in enumerate(side.values(name, "data.item_categories")):
            members += [(index, part.strip()) for part in text.split(settings.category_separator) if part.strip()]
    names = tuple(sorted({category for _, category in members}))
    column = {name: at for at, name in enumerate(names)}
    matrix = np.zeros((len(side.order.ids), len(names)), np.float32)
    if members:
        matrix[[index for index, _ in members], [column[category] for _, category in members]] = 1.0
    return matrix, names


def _policy_inputs(
    side: _Side, settings: DataSettings
) -> tuple[NDArray[np.float32], tuple[str, ...], NDArray[np.float64]]:
    """[U, f] numbers standardised over users, text one-hot, with names and scale; every user must have a value."""
    blocks: list[NDArray[np.float32]] = []
    names: list[str] = []
    scale: list[tuple[float, float]] = []
    for name in settings.policy_inputs:
        values = side.values(name, "data.policy_inputs")
        empty = [side.order.ids[at] for at, value in enumerate(values) if not value.strip()]
        if empty:
            raise LogError(
                f"data.policy_inputs: '{name}' is empty for user '{empty[0]}' ({len(empty)} such users); fill it in "
                "or leave the column out"
            )
        number = _as_numbers(values)
        if number is not None:
            spread = number.std() or 1.0
            blocks.append(((number - number.mean()) / spread).astype(np.float32)[:, None])
            names.append(name)
            scale.append((float(number.mean()), float(spread)))
        else:
            levels, index = np.unique(np.asarray(values, np.str_), return_inverse=True)
            blocks.append(np.eye(len(levels), dtype=np.float32)[index])
            names += [f"{name}={level}" for level in levels]
            scale += [(0.0, 1.0)] * len(levels)
    if not blocks:
        return np.zeros((len(side.order.ids), 0), np.float32), (), np.zeros((0, 2))
    return np.concatenate(blocks, axis=1), tuple(names), np.array(scale)


def _as_numbers(values: list[str]) -> NDArray[np.float64] | None:
    """The values as finite numbers ("" is NaN), or None where one is text."""
    try:
        numbers = np.array([float(value) if value.strip() else np.nan for value in values])
    except ValueError:
        return None
    return None if np.isinf(numbers).any() or np.isnan(numbers).all() else numbers


def _groups(side: _Side, name: str, bands: Bands | None) -> NDArray[np.str_]:
    """[U] group of each user by a sensitive column, "" where unknown."""
    values = [value.strip() for value in side.values(name, "data.sensitive")]
    numbers = _as_numbers(values)
    if bands is not None and numbers is None:
        odd = next(value for value in values if value and _as_numbers([value]) is None)
        raise LogError(f"data.bands.{name}: column '{name}' has '{odd}', which is no number; bands need numbers")
    if isinstance(bands, dict):
        assert numbers is not None  # text was refused above
        return _in_named_bands(name, numbers, bands, side.order.ids)
    if numbers is None or (bands is None and len(np.unique(numbers[~np.isnan(numbers)])) < NUMERIC_GROUPS_FROM):
        return np.asarray(values, np.str_)
    known = numbers[~np.isnan(numbers)]
    limits = np.asarray(bands, float) if bands is not None else _tercile_limits(known)
    labels = _band_labels(limits, known)
    return np.where(np.isnan(numbers), "", labels[np.searchsorted(limits, np.nan_to_num(numbers), side="right")])


def _tercile_limits(known: NDArray[np.float64]) -> NDArray[np.float64]:
    """Two values of the column that cut the users into thirds as equal as ties allow; a band begins at its limit."""
    limits = np.unique(np.quantile(known, [1 / 3, 2 / 3], method="higher"))
    return limits[limits > known.min()]


def _band_labels(limits: NDArray[np.float64], known: NDArray[np.float64]) -> NDArray[np.str_]:
    """Names such as "under 25", "25 to 35", "36 and over"; whole numbers are written as closed ranges."""
    whole = bool((known == np.floor(known)).all() and (limits == np.floor(limits)).all())
    if not len(limits):
        return np.array(["all"])
    middle = [
        (f"{a:g}" if whole and b - a == 1 else f"{a:g} to {b - 1:g}" if whole else f"{a:g} to under {b:g}")
        for a, b in pairwise(limits)
    ]
    return np.array([f"under {limits[0]:g}", *middle, f"{limits[-1]:g} and over"])


def _in_named_bands(
    name: str, numbers: NDArray[np.float64], bands: dict[str, tuple[float, float]], ids: tuple[str, ...]
) -> NDArray[np.str_]:
    group = np.full(len(numbers), "", dtype=f"<U{max(map(len, bands))}")
    for label, (low, high) in bands.items():
        group[(numbers >= low) & (numbers < high)] = label
    outside = np.flatnonzero((group == "") & ~np.isnan(numbers))
    if outside.size:
        raise LogError(
            f"data.bands.{name}: user '{ids[outside[0]]}' has {numbers[outside[0]]:g}, which no band holds "
            f"({outside.size} such users); widen the bands"
        )
    return group
