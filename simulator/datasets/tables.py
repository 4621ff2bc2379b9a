"""Files to columns: csv, tsv, parquet and RecBole's atomic files, read by pyarrow and checked column by column.

Ids are kept as the user wrote them ("007" stays "007"), so csv columns are read as text and turned into numbers here,
where a value that is none can be named with its line. Of a file only columns that somebody asks for are read: parquet
one by one, when they are asked for, and none is kept; csv those that will be asked for, in one pass.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from simulator.errors import LogError, did_you_mean

_EMPTY_WORDS = ("", "na", "n/a", "nan", "null", "none")
_MISSING_WORDS = (*_EMPTY_WORDS, "inf", "-inf", "infinity", "-infinity", "+inf")
_DATE_FORMS = (pa.timestamp("us"), pa.timestamp("us", tz="UTC"))  # ISO 8601 without an offset from UTC, and with one


@dataclass(frozen=True, slots=True)
class Table:
    """Columns of one file, by the name that the user sees.

    Attributes:
        path: the file, for messages.
        columns: name -> column; text as it stands in the file, or typed as parquet has it. May read when asked.
        rows: number of rows.
        types: RecBole's type of each column (token, token_seq, float, float_seq); empty for other files.
        first_line: line of the file in which row 0 stands, for messages; 0 where rows have no lines (parquet).
    """

    path: Path
    columns: Mapping[str, pa.ChunkedArray]
    types: Mapping[str, str]
    first_line: int
    rows: int

    def __len__(self) -> int:
        return self.rows

    def require(self, name: str, field: str) -> None:
        """Look whether there is a column of that name, and read nothing.

        Raises:
            LogError: there is none; `field` is the scenario's key that asked for it.
        """
        if name not in self.columns:
            hint = did_you_mean(name, self.columns) or f"; it has {_some(self.columns)}"
            raise LogError(f"{field}: '{self.path.name}' has no column '{name}'{hint}")

    def column(self, name: str, field: str) -> pa.ChunkedArray:
        """The column of that name.

        Raises:
            LogError: there is none, or it cannot be read.
        """
        self.require(name, field)
        return self.columns[name]

    def where(self, row: int) -> str:
        """How a message names a row."""
        return f"line {row + self.first_line}" if self.first_line else f"row {row}"

    def text(self, name: str, field: str, *, required: bool = False) -> pa.ChunkedArray:
        """A column as strings, "" where empty; with `required`, empty places are an error."""
        column = self.column(name, field)
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if pa.types.is_floating(column.type):
            column = self._whole_numbers(column)
        try:
            column = column.cast(pa.string())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise LogError(
                f"{field}: column '{name}' of '{self.path.name}' holds {column.type}, which is no plain value; "
                "flatten it to text first"
            ) from None
        column = pc.fill_null(column, "")
        if required:
            empty = pc.equal(pc.utf8_trim_whitespace(column), "")
            self._refuse(empty, name, field, column, "is empty", "give every row a value or drop the row")
        return column

    def ids(self, name: str, field: str) -> pa.ChunkedArray:
        """A column whose values name users or items; whole numbers stay numbers, anything else is text.

        Raises:
            LogError: a row has none.
        """
        column = self.column(name, field)
        if pa.types.is_integer(column.type) and column.null_count == 0:
            return column  # 10^8 rows as text would take gigabytes and minutes
        return self.text(name, field, required=True)

    def numbers(self, name: str, field: str, *, optional: bool = False) -> NDArray[np.float64]:
        """A column as float64; text, empty places, NaN and infinities are errors.

        With `optional` an empty place or NaN is NaN: what it stands for was not observed.
        """
        column = self.column(name, field)
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            column = pc.utf8_trim_whitespace(column)
            lower = pc.utf8_lower(column)
            lower = pc.fill_null(lower, "")
            if optional:
                empty = pc.is_in(lower, pa.array(_EMPTY_WORDS))
                column, lower = (pc.if_else(empty, pa.scalar(None, part.type), part) for part in (column, lower))
            missing = pc.is_in(lower, pa.array(_MISSING_WORDS))
            self._refuse(missing, name, field, column, "is missing or not finite", "fill it in or drop the row")
            try:
                column = column.cast(pa.float64())
            except pa.ArrowInvalid:
                if pc.all(pc.is_in(pc.drop_null(lower), pa.array(["true", "false"]))).as_py():
                    column = pc.equal(lower, "true").cast(pa.float64())
                else:
                    raise self._not_a_number(column, name, field) from None
        elif pa.types.is_boolean(column.type) or pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
            column = column.cast(pa.float64(), safe=False)
        elif pa.types.is_decimal(column.type):
            column = column.cast(pa.float64())
        else:
            raise LogError(f"{field}: column '{name}' of '{self.path.name}' holds {column.type}; numbers are wanted")
        if not optional:
            self._refuse(pc.is_null(column), name, field, column, "is missing", "fill it in or drop the row")
        values = column.to_numpy().astype(np.float64, copy=False)
        bad = np.flatnonzero(np.isinf(values) if optional else ~np.isfinite(values))
        if bad.size:
            more = f" ({bad.size} such rows)" if bad.size > 1 else ""
            raise LogError(
                f"{field}: {self.where(int(bad[0]))} of '{self.path.name}' has {values[bad[0]]:g} in column "
                f"'{name}'{more}; fill it in or drop the row"
            )
        return values

    def seconds(self, name: str, field: str) -> NDArray[np.float64]:
        """A column of times as seconds since 1970: numbers as they are, dates and time stamps converted.

        Dates of a column all have an offset from UTC or none, and then count as UTC.
        """
        column = self.column(name, field)
        if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
            return self._stamp_seconds(column.cast(pa.timestamp("us")), name, field)
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            column = pc.utf8_trim_whitespace(column)
            filled = pc.index(pc.fill_null(pc.not_equal(column, ""), fill_value=False), value=True).as_py()
            first = max(filled, 0)  # -1 where every place is empty
            if not _is_number(column[first].as_py()):
                return self._date_seconds(column, first, name, field)
        return self.numbers(name, field)

    def _date_seconds(self, column: pa.ChunkedArray, first: int, name: str, field: str) -> NDArray[np.float64]:
        """Text as seconds since 1970, written as row `first` is: with an offset from UTC, or without."""
        form = next((form for form in _DATE_FORMS if _is_date(column[first].as_py(), form)), None)
        like = "like the first; write all of them in seconds or as ISO 8601 dates, all with an offset or none"
        if form is not None:
            try:
                return self._stamp_seconds(column.cast(form), name, field)
            except pa.ArrowInvalid:
                first = next(row for row, value in enumerate(column.to_pylist()) if not _is_date(value, form))
        else:
            like = "in seconds or as ISO 8601 has it; write e.g. 1706702400 or 2024-01-31T12:00:00Z"
        raise LogError(
            f"{field}: {self.where(first)} of '{self.path.name}' has '{_shown(column[first].as_py())}' in column "
            f"'{name}', which is no time {like}"
        )

    def _stamp_seconds(self, column: pa.ChunkedArray, name: str, field: str) -> NDArray[np.float64]:
        self._refuse(pc.is_null(column), name, field, column, "is missing", "fill it in or drop the row")
        return column.cast(pa.int64()).to_numpy().astype(np.float64) / 1e6

    def _whole_numbers(self, column: pa.ChunkedArray) -> pa.ChunkedArray:
        """Ids that parquet keeps as 17.0 (pandas does that beside missing values) are 17."""
        values = pc.drop_null(column)
        if len(values) and pc.all(pc.equal(values, pc.floor(values))).as_py():
            return column.cast(pa.int64(), safe=False)
        return column

    def _refuse(self, bad: Any, name: str, field: str, column: pa.ChunkedArray, what: str, mend: str) -> None:
        count = pc.sum(bad).as_py() or 0
        if count:
            row = pc.index(bad, value=True).as_py()
            more = f" ({count} such rows)" if count > 1 else ""
            raise LogError(
                f"{field}: {self.where(row)} of '{self.path.name}' has '{_shown(column[row].as_py())}' in column "
                f"'{name}', which {what}{more}; {mend}"
            )

    def _not_a_number(self, column: pa.ChunkedArray, name: str, field: str) -> LogError:
        row, value = next((row, value) for row, value in enumerate(column.to_pylist()) if not _is_number(value))
        return LogError(
            f"{field}: {self.where(row)} of '{self.path.name}' has '{_shown(value)}' in column '{name}', where a "
            "number is wanted; mend it, or map another column"
        )


class _ColumnsOfFile(Mapping[str, pa.ChunkedArray]):
    """Columns of a file, read when they are asked for.

    Args:
        names: of all columns, in the file's order.
        read: reads columns by their names.
        held: columns that were read already and are kept.
    """

    def __init__(
        self,
        names: Sequence[str],
        read: Callable[[Sequence[str]], pa.Table],
        held: Mapping[str, pa.ChunkedArray],
    ) -> None:
        self._names, self._read, self._held = dict.fromkeys(names), read, held

    def __getitem__(self, name: str) -> pa.ChunkedArray:
        if name not in self._names:
            raise KeyError(name)
        return self._held[name] if name in self._held else self._read([name]).column(0)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def table_of(path: Path, **columns: Any) -> Table:
    """A table of columns that a reader has in memory; rows are counted from 0 in messages."""
    chunked = {name: pa.chunked_array([pa.array(np.asarray(values))]) for name, values in columns.items()}
    return Table(path, chunked, {}, 0, len(next(iter(chunked.values()))))


def read_table(path: Path, field: str, *, atomic: bool = False, wanted: Collection[str] | None = None) -> Table:
    """Columns of a .csv, .tsv, .parquet or (with `atomic`) RecBole file.

    Args:
        path: the file; .gz is unpacked on the way.
        field: the scenario's key that names it, for messages.
        atomic: tab-separated without quotes, types in the header (`user_id:token`).
        wanted: names that will be asked for; None: any may be. The other columns of a csv are not kept, and cost a pass
            over the file each if they are asked for after all.

    Raises:
        LogError: it is missing, unreadable, not UTF-8, has no rows, or has a column twice.
    """
    if not path.is_file():
        beside = [one.name for one in path.parent.glob(f"*{path.suffix}")] if path.suffix else []
        near = did_you_mean(path.name, beside, cutoff=0.8) or "; paths start at the scenario's folder"
        raise LogError(f"{field}: '{path}' is not there{near}")
    names = [part.lower() for part in path.suffixes]
    if ".parquet" in names:
        return _read_parquet(path, field)
    if path.stat().st_size == 0:
        raise LogError(f"{field}: '{path.name}' is empty; a log needs a header line and rows")
    tabs = atomic or ".tsv" in names
    header = _header(path, field, "\t" if tabs else ",", quoted=not atomic)
    types: dict[str, str] = {}
    if atomic:
        pairs = [name.partition(":") for name in header]
        untyped = [name for name, colon, _ in pairs if not colon]
        if untyped:
            raise LogError(
                f"{field}: column '{untyped[0]}' of '{path.name}' has no type; RecBole writes e.g. '{untyped[0]}:token'"
            )
        types = {name: kind for name, _, kind in pairs}
        odd = [kind for kind in types.values() if kind not in ("token", "token_seq", "float", "float_seq")]
        if odd:
            raise LogError(
                f"{field}: '{path.name}' has the type '{odd[0]}'; RecBole knows token, token_seq, float, float_seq"
            )
        header = [name for name, _, _ in pairs]
    else:
        _refuse_one_column(header, "\t" if tabs else ",", path, field)
    _refuse_twice(header, path, field)

    def read(names: Sequence[str]) -> pa.Table:
        """These columns, in blocks of the file: every column of a block is checked, and the others are let go."""
        try:
            with pa.csv.open_csv(
                path,
                read_options=pa.csv.ReadOptions(column_names=header, skip_rows=1, block_size=4 << 20),
                parse_options=pa.csv.ParseOptions(delimiter="\t" if tabs else ",", quote_char=False if atomic else '"'),
                convert_options=pa.csv.ConvertOptions(
                    column_types={name: pa.string() for name in header}, strings_can_be_null=False, check_utf8=True
                ),
            ) as blocks:
                schema = pa.schema([(name, pa.string()) for name in names])
                return pa.Table.from_batches([block.select(names) for block in blocks], schema)
        except pa.ArrowInvalid as error:
            raise _unreadable(path, field, error) from None

    # One column at least, so that rows are counted.
    table = read([name for name in header if wanted is None or name in wanted] or header[:1])
    if len(table) == 0:
        raise _header_alone(path, field)
    held = dict(zip(table.column_names, table.columns, strict=True))
    return Table(path, _ColumnsOfFile(header, read, held), types, 2, len(table))


def _read_parquet(path: Path, field: str) -> Table:
    def opened() -> pa.parquet.ParquetFile:
        try:
            return pa.parquet.ParquetFile(path)
        except (pa.ArrowInvalid, OSError) as error:
            raise broken(error) from None

    def broken(error: Exception) -> LogError:
        return LogError(f"{field}: '{path.name}' is no parquet file ({_first_line(error)}); write it again")

    def read(names: Sequence[str]) -> pa.Table:
        with opened() as file:
            try:
                return file.read(columns=list(names))
            except (pa.ArrowInvalid, OSError) as error:
                raise broken(error) from None

    with opened() as file:
        names, rows = file.schema_arrow.names, file.metadata.num_rows
    _refuse_twice(names, path, field)
    if rows == 0:
        raise LogError(f"{field}: '{path.name}' has no rows; a log needs interactions")
    return Table(path, _ColumnsOfFile(names, read, {}), {}, 0, rows)


def _header(path: Path, field: str, delimiter: str, *, quoted: bool) -> list[str]:
    import csv

    with pa.input_stream(str(path), compression="detect") as stream:
        try:
            raw = re.split(rb"[\r\n]", stream.read(1 << 20).removeprefix(codecs.BOM_UTF8), maxsplit=1)[0]
        except OSError as error:
            raise LogError(f"{field}: '{path.name}' cannot be unpacked ({_first_line(error)}); pack it again") from None
    try:
        line = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise _not_utf8(path, field, 1) from None
    if not line.strip():
        raise LogError(f"{field}: '{path.name}' has an empty first line; the first line names the columns")
    names = next(csv.reader([line], delimiter=delimiter)) if quoted else line.split(delimiter)
    return [name.strip() for name in names]


def _unreadable(path: Path, field: str, error: Exception) -> LogError:
    message = _first_line(error)
    if "utf8" in message.lower() or "utf-8" in message.lower():
        return _not_utf8(path, field, _line_that_is_not_utf8(path))
    if message.startswith("Could not skip initial 1 rows"):
        return _header_alone(path, field)
    return LogError(
        f"{field}: '{path.name}' cannot be read as a table ({message}); every line needs the header's columns"
    )


def _header_alone(path: Path, field: str) -> LogError:
    return LogError(f"{field}: '{path.name}' has a header and no rows; a log needs interactions")


def _not_utf8(path: Path, field: str, line: int) -> LogError:
    return LogError(f"{field}: line {line} of '{path.name}' is not UTF-8 text; save the file as UTF-8")


def _line_that_is_not_utf8(path: Path) -> int:
    with pa.input_stream(str(path), compression="detect") as stream:
        content = stream.read()
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        return content.count(b"\n", 0, error.start) + 1
    return 1


def _refuse_one_column(header: Sequence[str], delimiter: str, path: Path, field: str) -> None:
    """Refuse a header that was separated by something else, and so is a single name."""
    other = next((mark for mark in ",;|\t" if mark != delimiter and mark in header[0]), None)
    if len(header) == 1 and other is not None:
        raise LogError(
            f"{field}: '{path.name}' has one column, '{_shown(header[0])}', with {other!r} in its name; separate the "
            "columns of a .csv by commas, those of a .tsv by tabs"
        )


def _refuse_twice(names: Iterable[str], path: Path, field: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise LogError(f"{field}: '{path.name}' has the column '{name}' twice; rename one")
        seen.add(name)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:160]


def _some(names: Iterable[str], most: int = 12) -> str:
    listed = list(names)
    return ", ".join(listed[:most]) + (", ..." if len(listed) > most else "")


def _shown(value: Any) -> str:
    return "" if value is None else str(value)[:40]


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _is_date(value: Any, form: pa.TimestampType) -> bool:
    try:
        pa.scalar(value or "").cast(form)
    except pa.ArrowInvalid:
        return False
    return True
