"""A log that is wrong is refused with all that is wrong, one line each; one that is odd is read, and says so."""

from __future__ import annotations

import datetime as dt
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simulator.datasets import DataSettings, load_dataset
from simulator.errors import LogError

COLUMNS = {"user": "user", "item": "item", "time": "time", "position": "place", "propensity": "p",
           "impression": "offer", "session": "visit"}  # fmt: skip


def rows(n: int = 12) -> dict[str, list[Any]]:
    """A log of n rows in which nothing is wrong: three users, each with visits of two offers."""
    at = np.arange(n)
    return {
        "user": [f"u{k // 4}" for k in at],
        "item": [f"i{k % 4}" for k in at],
        "time": (1000 + at).tolist(),
        "rating": (1 + at % 5).tolist(),
        "place": (at % 2).tolist(),
        "p": [0.5] * n,
        "offer": [f"o{k // 2}" for k in at],
        "visit": [f"v{k // 4}" for k in at],
    }


def write(folder: Path, table: dict[str, list[Any]], name: str = "log.csv") -> None:
    lines = [",".join(table), *(",".join(str(value) for value in row) for row in zip(*table.values(), strict=True))]
    (folder / name).write_text("\n".join([*lines, ""]))


def settings_of(**more: Any) -> DataSettings:
    given: dict[str, Any] = {"source": "log.csv", "columns": COLUMNS, "positive": "rating >= 4",
                             "ranges": {"rating": [1, 5]}, **more}  # fmt: skip
    return DataSettings(**given)


def mistakes(folder: Path, table: dict[str, list[Any]], **more: Any) -> list[str]:
    write(folder, table)
    with pytest.raises(LogError) as caught:
        load_dataset(settings_of(**more), folder)
    return str(caught.value).splitlines()


# ------------------------------------------------------------------------------------------------- mistakes

WRONG = {
    "user": ("", "data.columns.user", "is empty"),
    "item": ("", "data.columns.item", "is empty"),
    "time": ("yesterday", "data.columns.time", "'yesterday'"),
    "rating": ("7", "data.ranges.rating", "outside [1, 5]"),
    "place": ("-1", "data.columns.position", "whole numbers from 0"),
    "p": ("1.5", "data.columns.propensity", "outside (0, 1]"),
    "offer": ("o0", "data.columns.impression", "impression of another user"),
    "visit": ("v0", "data.columns.session", "session of another user"),
}


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(which=st.sets(st.sampled_from(sorted(WRONG)), min_size=1), row=st.integers(4, 11))
def test_each_mistake_has_its_line_and_there_is_no_other(which: set[str], row: int, tmp_path: Path) -> None:
    """Also where many columns are wrong at once: the first does not hide the others."""
    table = rows()
    for name in which:
        table[name][row] = WRONG[name][0]
    found = mistakes(tmp_path, table)
    expected = {name: WRONG[name] for name in which}
    if "user" in which:  # whose an offer or a visit is cannot be said where users are unknown
        expected = {name: value for name, value in expected.items() if name not in ("offer", "visit")}
    assert len(found) == len(expected)
    for field, words in ((field, words) for _, field, words in expected.values()):
        (line,) = [line for line in found if line.startswith(f"{field}:")]
        assert words in line
        assert f"line {row + 2}" in line


def test_many_bad_rows_are_counted(tmp_path: Path) -> None:
    table = rows()
    table["rating"] = [9] * 12
    (line,) = mistakes(tmp_path, table)
    assert "(12 such rows)" in line
    assert "line 2 of 'log.csv' has 9" in line


def test_a_column_named_only_in_ranges_is_held_to_its_range(tmp_path: Path) -> None:
    table = rows()
    table["age"] = [30] * 11 + [300]
    (line,) = mistakes(tmp_path, table, ranges={"age": [0, 120]})
    assert line.startswith("data.ranges.age: line 13 of 'log.csv' has 300")
    assert mistakes(tmp_path, table, ranges={"agee": [0, 120]})[0].startswith("data.ranges.agee: ")


def test_a_range_that_is_upside_down_is_refused() -> None:
    with pytest.raises(ValueError, match="the least value of 'rating' must be below the greatest"):
        settings_of(ranges={"rating": [5, 1]})


def test_milliseconds_are_not_seconds(tmp_path: Path) -> None:
    table = rows()
    table["time"] = [1_700_000_000_000 + at for at in range(12)]
    (line,) = mistakes(tmp_path, table)
    assert line.startswith("data.columns.time: line 2")
    assert "divide milliseconds by 1000" in line
    assert "(12 such rows)" in line


def test_a_table_that_knows_none_of_the_ids_is_another_table(tmp_path: Path) -> None:
    write(tmp_path, {"item": ["I0", "I1"], "name": ["a", "b"]}, "items.csv")
    (line,) = mistakes(tmp_path, rows(), items="items.csv")
    assert line.startswith("data.items: 'items.csv' has none of the log's 4 ids")
    assert "'i0'" in line
    assert "'I0'" in line


def test_wrong_user_columns_are_told_together(tmp_path: Path) -> None:
    write(tmp_path, {"user": ["u0", "u1", "u2"], "plan": ["a", "", "b"], "age": ["20", "old", "50"]}, "users.csv")
    found = mistakes(
        tmp_path, rows(), users="users.csv", policy_inputs=["plan"], sensitive=["age"], bands={"age": [30]}
    )
    assert [line.split(":")[0] for line in found] == ["data.policy_inputs", "data.bands.age"]


WRITTEN = ["{:%Y-%m-%d %H:%M:%S}", "{:%Y-%m-%dT%H:%M:%S}", " {:%Y-%m-%dT%H:%M:%SZ} ", "{:%Y-%m-%dT%H:%M:%S+00:00}",
           "{:%Y-%m-%d %H:%M:%S.000+0000}"]  # fmt: skip


@pytest.mark.parametrize("form", WRITTEN)
def test_dates_with_an_offset_and_without_are_the_same_seconds(form: str, tmp_path: Path) -> None:
    """'Z' and '+00:00' were refused as no numbers, though ISO 8601 was promised."""
    table = rows()
    start = dt.datetime(2024, 1, 31, 12, tzinfo=dt.UTC)
    table["time"] = [form.format(start + dt.timedelta(minutes=k)) for k in range(12)]
    write(tmp_path, table)
    log = load_dataset(settings_of(), tmp_path)
    assert np.sort(log.time).tolist() == [start.timestamp() + 60 * k for k in range(12)]


def test_an_offset_moves_the_clock(tmp_path: Path) -> None:
    table = rows()
    table["time"] = ["2024-01-31T12:00:00Z", "2024-01-31T12:30:00+02:00"] * 6  # 90 minutes back
    write(tmp_path, table)
    assert set(np.diff(np.unique(load_dataset(settings_of(), tmp_path).time))) == {5400.0}


@pytest.mark.parametrize(
    ("times", "line", "mend"),
    [
        (["31.01.2024 12:00"] * 12, 2, "write e.g. 1706702400 or 2024-01-31T12:00:00Z"),
        (["2024-01-31T12:00Z"] * 5 + ["2024-01-31T12:00"] + ["2024-01-31T12:00Z"] * 6, 7, "all with an offset"),
        (["2024-01-31"] * 5 + ["1706702400"] + ["2024-01-31"] * 6, 7, "all of them in seconds or as ISO 8601 dates"),
        (["2024-01-31"] * 5 + [""] + ["2024-01-31"] * 6, 7, "no time like the first"),
    ],
)
def test_a_time_that_is_none_is_told_how_times_are_written(
    times: list[str], line: int, mend: str, tmp_path: Path
) -> None:
    """A date in another form was told that 'a number is wanted'."""
    (said,) = mistakes(tmp_path, rows() | {"time": times})
    assert said.startswith(f"data.columns.time: line {line} of 'log.csv' has '{times[line - 2]}' in column 'time'")
    assert mend in said


@pytest.mark.parametrize(("name", "mark"), [("log.csv", ";"), ("log.csv", "\t"), ("log.tsv", ",")])
def test_a_table_with_other_separators_is_one_mistake_that_names_the_separator(
    name: str, mark: str, tmp_path: Path
) -> None:
    """It was told once for each column that it had none of them."""
    write(tmp_path, rows())
    (tmp_path / name).write_text((tmp_path / "log.csv").read_text().replace(",", mark))
    with pytest.raises(LogError) as caught:
        load_dataset(settings_of(source=name), tmp_path)
    (said,) = str(caught.value).splitlines()
    assert said.startswith(f"data.source: '{name}' has one column")
    assert f"with {mark!r} in its name; separate" in said


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_may_end_in_any_of_three_ways_and_a_header_alone_in_none(end: str, tmp_path: Path) -> None:
    """Those of an old Mac ended in a traceback; a header without an end was told of rows that cannot be skipped."""
    write(tmp_path, rows())
    text = (tmp_path / "log.csv").read_text()
    (tmp_path / "log.csv").write_text(text.replace("\n", end), newline="")
    assert len(load_dataset(settings_of(), tmp_path)) == 12
    (tmp_path / "log.csv").write_text(text.splitlines()[0])
    with pytest.raises(LogError, match=r"^data\.source: 'log\.csv' has a header and no rows"):
        load_dataset(settings_of(), tmp_path)


# ------------------------------------------------------------------------------------------------- oddities


def test_a_log_in_order_has_nothing_to_say(tmp_path: Path) -> None:
    write(tmp_path, rows())
    log = load_dataset(settings_of(), tmp_path)
    assert log.notes == ()
    assert log.impression is not None
    assert log.session is not None
    assert (log.impression.tolist(), log.session.tolist()) == (
        np.repeat(range(6), 2).tolist(),
        [0] * 4 + [1] * 4 + [2] * 4,
    )


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(order=st.permutations(range(12)), again=st.lists(st.integers(0, 11), max_size=6))
def test_nothing_is_lost_whatever_the_order_and_the_repeats(order: list[int], again: list[int], tmp_path: Path) -> None:
    """The log of a shuffled file with repeated rows is that of the file; its notes count what was moved and merged."""
    plain, columns = rows(), {key: name for key, name in COLUMNS.items() if key in ("user", "item", "time")}
    write(tmp_path, plain)
    expected = load_dataset(settings_of(columns=columns), tmp_path)
    write(tmp_path, {name: [values[at] for at in (*order, *again)] for name, values in plain.items()})
    found = load_dataset(settings_of(columns=columns), tmp_path)

    def told(log: Any) -> list[tuple[str, str, float, float]]:
        users, items = (np.array(ids) for ids in (log.catalogue.user_ids, log.catalogue.item_ids))
        return sorted(zip(users[log.user].tolist(), items[log.item].tolist(), log.time.tolist(), log.primary.tolist(),
                          strict=True))  # fmt: skip

    assert told(found) == told(expected)
    merged = [note for note in found.notes if "repeat" in note]
    assert [note.split()[0] for note in merged] == ([str(len(again))] if again else [])
    times = {user: [at for at in (*order, *again) if at // 4 == user] for user in range(3)}
    back = sum(b < a for own in times.values() for a, b in pairwise(own))
    moved = [note for note in found.notes if "in order of time" in note]
    assert [note.split()[0] for note in moved] == ([str(back)] if back else [])


def test_ids_without_a_row_in_their_table_and_ids_that_differ_by_blanks_are_noted(tmp_path: Path) -> None:
    table = rows()
    table["item"][3] = "i2 "
    write(tmp_path, table)
    write(tmp_path, {"item": ["i0", "i1", "i9"], "name": ["a", "b", "c"]}, "items.csv")
    notes = load_dataset(settings_of(items="items.csv", item_text=["name"]), tmp_path).notes
    assert any(note.startswith("3 of 5 items of the log are not in 'items.csv' (first: 'i2')") for note in notes)
    assert any("1 item ids differ from another by blanks" in note for note in notes)


def test_a_correction_with_another_answer_is_counted_as_one(tmp_path: Path) -> None:
    table = {name: [*values, values[0]] for name, values in rows().items()}
    table["rating"][-1] = 5
    write(tmp_path, table)
    log = load_dataset(settings_of(behaviours=["rating"]), tmp_path)
    assert log.behaviours["rating"][0] == 5
    assert any("1 rows repeat a user, item and time, 1 with another answer" in note for note in log.notes)


# ------------------------------------------------------------------------------------------------- the random part


def test_rows_of_the_random_part_are_dropped_from_the_log_and_kept_apart(tmp_path: Path) -> None:
    write(tmp_path, rows())
    write(
        tmp_path,
        {"user": ["u0", "u2", "u9"], "item": ["i1", "i3", "i0"], "rating": [5, 1, 3], "time": [1, 2, 3]},
        "random.csv",
    )
    log = load_dataset(
        settings_of(random="random.csv", columns={"user": "user", "item": "item"}, behaviours=["rating"]), tmp_path
    )
    ids = [(log.catalogue.user_ids[u], log.catalogue.item_ids[i]) for u, i in zip(log.user, log.item, strict=True)]
    assert len(ids) == 10
    assert not {("u0", "i1"), ("u2", "i3")} & set(ids)
    assert log.random is not None
    assert log.random.behaviours["rating"].tolist() == [5, 1]  # u9 is not in the log
    assert log.random.primary.tolist() == [1, 0]
    assert [log.catalogue.user_ids[u] for u in log.random.user] == ["u0", "u2"]
    assert log.notes == ("2 rows whose user and item are in the random part were dropped",)


def test_a_random_part_without_the_logs_columns_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"user": ["u0"], "item": ["i1"], "stars": [5]}, "random.csv")
    (line,) = mistakes(tmp_path, rows(), random="random.csv", ranges={})
    assert "'random.csv' has no column 'rating'" in line


def test_a_random_part_that_has_the_whole_log_is_named_and_not_the_log(tmp_path: Path) -> None:
    write(tmp_path, rows(), "random.csv")
    (line,) = mistakes(tmp_path, rows(), random="random.csv")
    assert line.startswith("data.random: 'random.csv' has every pair of 'log.csv'")
