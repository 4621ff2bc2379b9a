"""Reading logs: what comes out is what the file says, and what cannot be used is named with its line and the mend."""

from __future__ import annotations

import gzip
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from evaluators.data_card import data_card
from simulator.cache import digest_of
from simulator.datasets import DATASETS, DataSettings, check_dataset, load_dataset, locate_dataset
from simulator.datasets.build import columns_asked_for
from simulator.datasets.tables import read_table
from simulator.errors import LogError

HEADER = "user_id,item_id,timestamp,rating,title,kind,age\n"
ROWS = """\
u2,i1,300,5,"Toys, a story",comedy|film,31
u1,i2,200,1,Heat,crime,24
u1,i1,100,4,Toys again,comedy,24
u2,i3,100,2,,,31
u3,i1,50,5,Toys at last,comedy,
"""


def write(folder: Path, text: str | bytes, name: str = "log.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def settings_for(source: str = "log.csv", **more: Any) -> DataSettings:
    return DataSettings(**{"source": source, "positive": "rating >= 4", **more})


def refusal(folder: Path, text: str | bytes, **more: Any) -> str:
    write(folder, text)
    with pytest.raises(LogError) as caught:
        load_dataset(settings_for(**more), folder)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("data.")
    return message


# ------------------------------------------------------------------------------------------------- ml-100k


def test_movielens_is_as_published() -> None:
    log = load_dataset(DataSettings(source="ml-100k", sensitive=["gender", "age"]), Path())
    catalogue = log.catalogue
    assert (len(log), catalogue.n_users, catalogue.n_items) == (100_000, 943, 1682)
    assert np.bincount(log.behaviours["rating"].astype(int)).tolist() == [0, 6110, 11370, 27145, 34174, 21201]
    assert log.primary.sum() == 34174 + 21201
    assert (log.time.min(), log.time.max()) == (874724710, 893286638)
    assert log.self_selected
    genders, counts = np.unique(catalogue.user_attributes["gender"], return_counts=True)
    assert dict(zip(genders, counts, strict=True)) == {"F": 273, "M": 670}
    assert catalogue.item_text[0] == "Toy Story, 1995, Animation Children's Comedy"
    assert len(catalogue.category_names) == 18
    # A row of the file, found again: user 196 gave film 242 a 3 at 881250949.
    row = (log.user == catalogue.user_ids.index("196")) & (log.item == catalogue.item_ids.index("242"))
    assert log.time[row].tolist() == [881250949]
    assert log.behaviours["rating"][row].tolist() == [3]


def test_the_misspelt_placeholder_of_film_267_is_no_text() -> None:
    catalogue = load_dataset(DataSettings(source="ml-100k"), Path()).catalogue
    place = catalogue.item_ids.index("267")
    assert catalogue.item_text[place] == ""
    assert catalogue.item_categories[place].sum() == 0
    assert not any("unkno" in text.lower().split(", ")[0] for text in catalogue.item_text)


def test_ages_fall_into_thirds_as_equal_as_ties_allow() -> None:
    ages = load_dataset(DataSettings(source="ml-100k", sensitive=["age"]), Path()).catalogue.user_attributes["age"]
    names, counts = np.unique(ages, return_counts=True)
    assert names.tolist() == ["27 to 38", "39 and over", "under 27"]
    assert counts.min() > 943 * 0.3


def test_no_user_column_reaches_a_policy_unless_it_is_listed() -> None:
    silent = load_dataset(DataSettings(source="ml-100k", sensitive=["gender"]), Path()).catalogue
    assert silent.user_features.shape == (943, 0)
    open_ = load_dataset(DataSettings(source="ml-100k", policy_inputs=["age", "gender"]), Path()).catalogue
    assert open_.user_feature_names == ("age", "gender=F", "gender=M")
    assert open_.user_features[:, 0].mean() == pytest.approx(0, abs=1e-5)
    assert open_.user_features[:, 0].std() == pytest.approx(1, abs=1e-5)
    assert (open_.user_features[:, 1:].sum(axis=1) == 1).all()


def test_max_users_draws_by_the_seed_and_max_items_keeps_the_most_seen() -> None:
    small = DataSettings(source="ml-100k", max_users=100, max_items=300)
    first, again, other = (load_dataset(small, Path(), seed=seed) for seed in (1, 1, 2))
    assert digest_of(first) == digest_of(again)
    assert digest_of(first) != digest_of(other)
    assert first.catalogue.n_users == 100
    assert first.catalogue.n_items == 300
    whole = load_dataset(DataSettings(source="ml-100k", max_users=100), Path(), seed=1)
    names = np.array(whole.catalogue.item_ids)[np.argsort(-np.bincount(whole.item), kind="stable")[:280]]
    assert set(names) <= set(first.catalogue.item_ids)  # short of the edge, where ties may fall either way
    assert any("100 of 943 users" in note for note in first.notes)


def test_a_dataset_with_a_changed_byte_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "ml-100k"
    shutil.copytree(locate_dataset("ml-100k"), folder)
    monkeypatch.setenv("WINDTUNNEL_DATA", str(tmp_path))
    assert check_dataset("ml-100k").folder == folder
    assert check_dataset("ml-100k").whole
    with (folder / "ml-100k.user").open("ab") as handle:
        handle.write(b"944\t1\tM\tnone\t0\n")
    assert check_dataset("ml-100k").damaged == ("ml-100k.user",)
    with pytest.raises(LogError, match=r"ml-100k\.user.*not the published file"):
        load_dataset(DataSettings(source="ml-100k"), Path())
    (folder / "ml-100k.item").unlink()
    assert "ml-100k.item" in check_dataset("ml-100k").damaged


def test_a_built_in_dataset_brings_its_defaults_and_the_scenario_overrules_them() -> None:
    assert DataSettings(source="ml-100k").positive == "rating >= 4"
    own = DataSettings(source="ml-100k", positive="rating >= 5", item_text=["movie_title"])
    assert own.positive == "rating >= 5"
    assert own.item_text == ["movie_title"]
    assert own.item_categories == ["class"]
    assert set(DATASETS["ml-100k"].defaults) <= set(DataSettings.model_fields)


# ------------------------------------------------------------------------------------------------- files of one's own


def test_a_csv_log_is_read_as_it_stands(tmp_path: Path) -> None:
    write(tmp_path, HEADER + ROWS)
    settings = settings_for(
        item_text=["title", "kind"],
        item_categories=["kind"],
        category_separator="|",
        sensitive=["age"],
        bands={"age": [25, 30]},
    )
    log = load_dataset(settings, tmp_path)
    catalogue = log.catalogue
    assert catalogue.user_ids == ("u2", "u1", "u3")
    assert catalogue.item_ids == ("i1", "i2", "i3")
    rows = [(catalogue.user_ids[u], catalogue.item_ids[i], t, p) for u, i, t, p in
            zip(log.user, log.item, log.time, log.primary, strict=True)]  # fmt: skip
    assert rows == [
        ("u2", "i3", 100, 0), ("u2", "i1", 300, 1), ("u1", "i1", 100, 1), ("u1", "i2", 200, 0), ("u3", "i1", 50, 1)
    ]  # fmt: skip
    assert catalogue.item_text == ("Toys, a story, comedy|film", "Heat, crime", "")
    assert catalogue.category_names == ("comedy", "crime", "film")
    assert catalogue.item_categories.tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 0]]
    assert catalogue.user_attributes["age"].tolist() == ["30 and over", "under 25", ""]


def test_the_same_log_as_csv_gz_tsv_and_parquet_is_one_log(tmp_path: Path) -> None:
    write(tmp_path, HEADER + ROWS)
    (tmp_path / "log.csv.gz").write_bytes(gzip.compress((HEADER + ROWS).encode()))
    write(tmp_path, (HEADER + ROWS).replace('"Toys, a story"', "Toys").replace(",", "\t"), "log.tsv")
    columns = {"user_id": ["u2", "u1", "u1", "u2", "u3"], "item_id": ["i1", "i2", "i1", "i3", "i1"],
               "timestamp": [300, 200, 100, 100, 50], "rating": [5.0, 1, 4, 2, 5]}  # fmt: skip
    pq.write_table(pa.table(columns), tmp_path / "log.parquet")
    found = [load_dataset(settings_for(name), tmp_path) for name in ("log.csv", "log.csv.gz", "log.tsv", "log.parquet")]
    for log in found[1:]:
        assert log.catalogue.user_ids == found[0].catalogue.user_ids
        for column in ("user", "item", "time", "primary"):
            assert np.array_equal(getattr(log, column), getattr(found[0], column)), column


def test_a_parquet_column_that_nothing_names_is_not_read(tmp_path: Path) -> None:
    """Its bytes may be anything: here they are no column at all. Ids that are numbers come through as they stand."""
    n = 4_000
    path = tmp_path / "log.parquet"
    columns = {
        "user": np.arange(n) // 20 % 50 + 10**12, "item": np.arange(n) % 37, "time": np.arange(n) * 1.0,
        "rating": np.arange(n) % 5 + 1, "impression": np.arange(n) // 20,
        "url": [f"https://shop/{k:040}" for k in range(n)],
    }  # fmt: skip
    table = pa.table(columns)
    pq.write_table(table, path, row_group_size=700, use_dictionary=False, compression="none")
    settings = settings_for("log.parquet", columns={"impression": "impression"})
    whole = load_dataset(settings, tmp_path)
    with pq.ParquetFile(path) as file:
        about = file.metadata
        spans = [about.row_group(k).column(5) for k in range(about.num_row_groups)]
    content = bytearray(path.read_bytes())
    for span in spans:
        content[span.data_page_offset : span.data_page_offset + span.total_compressed_size] = (
            b"\xff" * span.total_compressed_size
        )
    path.write_bytes(content)
    assert digest_of(load_dataset(settings, tmp_path)) == digest_of(whole)
    assert whole.catalogue.user_ids[0] == "1000000000000"
    assert whole.impression is not None
    assert len(np.unique(whole.impression)) == n // 20
    with pytest.raises(LogError, match=r"^data.source: 'log.parquet' is no parquet file \(.*\); write it again$"):
        load_dataset(settings_for("log.parquet", item_text=["url"]), tmp_path)


@pytest.mark.parametrize("suffix", ["csv", "inter"])
def test_columns_of_text_that_nothing_names_are_let_go(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """20 MB of texts pass by in one reading of the file; every column that the settings name is kept from it."""
    tabs = suffix == "inter"
    names = [*HEADER.strip().split(","), "url"]
    head = [f"{one}:{'float' if one in ('timestamp', 'rating') else 'token'}" for one in names] if tabs else names
    rows = [
        [f"u{k % 40}", f"i{k % 30}", f"{k}", f"{k % 5 + 1}", "Toys", "crime", "24", "x" * 2_000] for k in range(9_000)
    ]
    lines = ["\t".join(row) if tabs else ",".join(row) for row in [head, *rows]]
    path = write(tmp_path, "\n".join(lines) + "\n", f"log.{suffix}")
    opened = []

    def counted(*given: Any, real: Any = pa.csv.open_csv, **options: Any) -> Any:
        opened.append(given)
        return real(*given, **options)

    monkeypatch.setattr(pa.csv, "open_csv", counted)
    settings = settings_for(
        "." if tabs else "log.csv", behaviours=["rating"], item_text=["title"], item_categories=["kind"],
        policy_inputs=["age"], sensitive=["age"], modalities={"price": {"kind": "number", "column": "age"}},
    )  # fmt: skip
    load_dataset(settings, tmp_path)
    assert len(opened) == 1
    before = pa.total_allocated_bytes()
    table = read_table(path, "data.source", atomic=tabs, wanted=columns_asked_for(settings))
    end = time.monotonic() + 20
    while pa.total_allocated_bytes() - before > 2e6 and time.monotonic() < end:
        time.sleep(0.01)  # threads of pyarrow's let go of their blocks when they come to it
    assert pa.total_allocated_bytes() - before < 2e6
    assert (list(table.columns), len(table)) == (names, 9_000)
    assert table.text("url", "data.item_text")[8_999].as_py() == "x" * 2_000  # asked for after all


def test_ids_keep_their_leading_zeros_and_tables_give_order_and_text(tmp_path: Path) -> None:
    write(tmp_path, "who,what,click\n007,02,1\n007,01,0\n8,02,yes\n".replace("yes", "1"))
    write(tmp_path, "id,name\n01,one\n02,two\n03,never seen\n", "items.csv")
    write(tmp_path, "who,sex\n8,f\n9,m\n007,m\n", "users.csv")
    settings = DataSettings(
        source="log.csv", columns={"user": "who", "item": "what"}, positive="click", items="items.csv",
        users="users.csv", item_text=["name"], sensitive=["sex"],
    )  # fmt: skip
    log = load_dataset(settings, tmp_path)
    assert log.catalogue.user_ids == ("8", "007")
    assert log.catalogue.item_ids == ("01", "02", "03")
    assert log.catalogue.item_text == ("one", "two", "never seen")
    assert log.catalogue.user_attributes["sex"].tolist() == ["f", "m"]
    assert not log.has_time
    assert log.item.tolist() == [1, 1, 0]


def test_dates_and_seconds_are_the_same_times(tmp_path: Path) -> None:
    body = "u,i,timestamp,click\na,x,{},1\nb,y,{},0\n"
    columns = {"user": "u", "item": "i"}
    write(tmp_path, body.format("1970-01-02 00:00:00", "1970-01-01T00:01:00"), "dates.csv")
    write(tmp_path, body.format("86400", "60"), "seconds.csv")
    stamps = pa.array([86_400_000, 60_000], pa.timestamp("ms"))
    pq.write_table(pa.table({"u": ["a", "b"], "i": ["x", "y"], "timestamp": stamps, "click": [True, False]}),
                   tmp_path / "stamps.parquet")  # fmt: skip
    for name in ("dates.csv", "seconds.csv", "stamps.parquet"):
        log = load_dataset(DataSettings(source=name, columns=columns, positive="click"), tmp_path)
        assert log.time.tolist() == [86400, 60], name


def test_rows_of_one_user_item_and_time_are_one_and_the_last_holds(tmp_path: Path) -> None:
    write(tmp_path, "user,item,time,rating\na,x,1,1\na,x,1,5\na,x,2,1\nb,x,1,2\nb,x,1,2\n")
    log = load_dataset(settings_for(behaviours=["rating"]), tmp_path)
    assert log.behaviours["rating"].tolist() == [5, 1, 2]
    assert log.notes == (
        "2 rows repeat a user, item and time, 1 with another answer than the one before; the last of each was kept",
    )


def test_position_and_propensity_say_that_exposure_was_logged(tmp_path: Path) -> None:
    write(tmp_path, "user,item,rating,place,p\na,x,5,0,0.5\na,y,1,1,1\nb,x,1,0,0.25\n")
    log = load_dataset(settings_for(columns={"position": "place", "propensity": "p"}), tmp_path)
    assert not log.self_selected
    assert log.position is not None
    assert log.position.tolist() == [0, 1, 0]
    assert log.propensity is not None
    assert log.propensity.tolist() == [0.5, 1, 0.25]


def test_a_folder_of_atomic_files_is_read_by_its_typed_headers(tmp_path: Path) -> None:
    write(tmp_path, 'user_id:token\titem_id:token\trating:float\n1\t5\t4\n2\t6\t"1\n'.replace('"', ""), "x.inter")
    write(tmp_path, 'item_id:token\ttitle:token_seq\n5\tA "quoted title\n6\tB\n', "x.item")
    log = load_dataset(settings_for(str(tmp_path), item_text=["title"]), Path())
    assert log.catalogue.item_text == ('A "quoted title', "B")
    assert log.primary.tolist() == [1, 0]


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    write(tmp_path, b"\xef\xbb\xbf" + (HEADER + ROWS).encode())
    assert load_dataset(settings_for(), tmp_path).catalogue.n_users == 3


def test_named_bands_are_half_open_and_must_hold_every_user(tmp_path: Path) -> None:
    write(tmp_path, HEADER + ROWS)
    young_old = settings_for(sensitive=["age"], bands={"age": {"young": (0, 31), "old": (31, 99)}})
    assert load_dataset(young_old, tmp_path).catalogue.user_attributes["age"].tolist() == ["old", "young", ""]
    narrow = settings_for(sensitive=["age"], bands={"age": {"young": (0, 30)}})
    with pytest.raises(LogError, match=r"data\.bands\.age: user 'u2' has 31, which no band holds"):
        load_dataset(narrow, tmp_path)


# ------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("text", "more", "said"),
    [
        ("", {}, "'log.csv' is empty"),
        (HEADER, {}, "has a header and no rows"),
        (HEADER + "a,x,1,5,,,\na,y,2,1,,,\n", {}, "has one user"),
        (HEADER.replace("kind", "title") + ROWS, {}, "has the column 'title' twice"),
        (HEADER + ROWS.replace(",1,Heat", ",nan,Heat"), {}, "line 3 of 'log.csv' has 'nan' in column 'rating'"),
        (HEADER + ROWS.replace(",1,Heat", ",,Heat"), {}, "line 3 of 'log.csv' has '' in column 'rating'"),
        (HEADER + ROWS.replace(",1,Heat", ",inf,Heat"), {}, "line 3 of 'log.csv' has 'inf' in column 'rating'"),
        (HEADER + ROWS.replace(",1,Heat", ",good,Heat"), {}, "'good' in column 'rating', where a number is wanted"),
        (HEADER + ROWS.replace("u1,i2,200", "u1,i2,soon"), {}, "line 3 of 'log.csv' has 'soon' in column 'timestamp'"),
        (HEADER + ROWS.replace("u1,i2", ",i2"), {}, "line 3 of 'log.csv' has '' in column 'user_id'"),
        ((HEADER + ROWS).encode().replace(b"Heat", b"H\xe9at"), {}, "line 3 of 'log.csv' is not UTF-8"),
        ((HEADER + ROWS).encode("utf-16"), {}, "line 1 of 'log.csv' is not UTF-8"),
        (HEADER + "a,x\n" + ROWS, {}, "every line needs the header's columns"),
        (HEADER + ROWS, {"positive": "rating >= 9"}, "primary behaviour never occurs"),
        (HEADER + ROWS, {"positive": "rating >= 1"}, "primary behaviour always occurs"),
        (HEADER + ROWS, {"positive": "rating"}, "which is neither yes nor no"),
        (HEADER + ROWS, {"positive": "ratings >= 4"}, "no column 'ratings'; did you mean 'rating'?"),
        (HEADER + ROWS, {"item_text": ["titel"]}, "no column 'titel'; did you mean 'title'?"),
        (HEADER + ROWS, {"columns": {"user": "uid"}}, "no column 'uid'"),
        (HEADER.replace("user_id", "uid") + ROWS, {}, r"no column 'user_id'; map it, e.g. columns: {user: uid}"),
        (HEADER + ROWS, {"policy_inputs": ["age"]}, "'age' is empty for user 'u3'"),
        (HEADER + ROWS, {"sensitive": ["title"], "bands": {"title": [1]}}, "which is no number; bands need numbers"),
        (HEADER + ROWS, {"columns": {"propensity": "rating"}}, "outside (0, 1]"),
        (HEADER + ROWS.replace(",4,", ",4.5,"), {"columns": {"position": "rating"}}, "whole numbers from 0"),
    ],
)
def test_what_cannot_be_used_is_named_in_one_line(
    text: str | bytes, more: dict[str, Any], said: str, tmp_path: Path
) -> None:
    assert said in refusal(tmp_path, text, **more)


def test_all_missing_columns_are_named_at_once(tmp_path: Path) -> None:
    write(tmp_path, HEADER + ROWS)
    with pytest.raises(LogError) as caught:
        load_dataset(settings_for(item_text=["a"], sensitive=["b"], behaviours=["c"]), tmp_path)
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("none.csv", "is not there"),
        ("ml-100", "did you mean 'ml-100k'?"),
        ("somewhere", "neither a known dataset nor a file or folder"),
        ("notes.txt", "no kind of log known here"),
        ("empty", "has no .inter file"),
        ("broken.parquet", "is no parquet file"),
    ],
)
def test_a_source_that_is_no_log_is_refused(source: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write(tmp_path, "x", "notes.txt")
    write(tmp_path, "x", "broken.parquet")
    with pytest.raises(LogError, match=r"^data\.source") as caught:
        load_dataset(settings_for(source), tmp_path)
    assert said in str(caught.value)


def test_parquet_with_a_missing_number_or_a_column_twice_is_refused(tmp_path: Path) -> None:
    columns = {"user_id": ["a", "b"], "item_id": ["x", "y"], "rating": [5.0, None]}
    pq.write_table(pa.table(columns), tmp_path / "log.parquet")
    with pytest.raises(LogError, match=r"row 1 of 'log\.parquet' has '' in column 'rating', which is missing"):
        load_dataset(settings_for("log.parquet"), tmp_path)
    twice = pa.Table.from_arrays([pa.array(["a"]), pa.array(["x"])], names=["user_id", "user_id"])
    pq.write_table(twice, tmp_path / "log.parquet")
    with pytest.raises(LogError, match="has the column 'user_id' twice"):
        load_dataset(settings_for("log.parquet"), tmp_path)


DWELLS = "user_id,item_id,clicked,dwell\na,x,1,3.5\na,y,0,{}\nb,x,1,{}\nb,z,0,0\n"


@pytest.mark.parametrize("empty", ["", "NaN", "null"])
def test_a_behaviour_that_was_not_observed_without_a_click_is_no_mistake_and_with_one_it_is(
    empty: str, tmp_path: Path
) -> None:
    asked: dict[str, Any] = {"positive": "clicked == 1", "behaviours": ["dwell"]}
    write(tmp_path, DWELLS.format(empty, 2))
    log = load_dataset(settings_for(**asked, ranges={"dwell": [0, 10]}), tmp_path)
    assert log.behaviours["dwell"].tolist() == pytest.approx([3.5, np.nan, 2, 0], nan_ok=True)
    assert any("'dwell' was not observed on 1 rows without the primary behaviour" in note for note in log.notes)
    assert data_card(log).behaviours["dwell"].most == 3.5
    said = "line 4 of 'log.csv' has the primary behaviour and no value in column 'dwell'"
    assert said in refusal(tmp_path, DWELLS.format(1, empty), **asked)
    # What the condition names is asked of every row, and an infinity is no missing value.
    assert "line 3" in refusal(tmp_path, DWELLS.format(empty, 2), positive="dwell >= 1", behaviours=["dwell"])
    assert "'inf'" in refusal(tmp_path, DWELLS.format("inf", 2), **asked)


def test_parquet_keeps_what_was_not_observed(tmp_path: Path) -> None:
    columns = {"user_id": ["a", "b"], "item_id": ["x", "y"], "clicked": [1, 0], "dwell": [5.0, None]}
    pq.write_table(pa.table(columns), tmp_path / "log.parquet")
    log = load_dataset(settings_for("log.parquet", positive="clicked == 1", behaviours=["dwell"]), tmp_path)
    assert log.behaviours["dwell"].tolist() == pytest.approx([5.0, np.nan], nan_ok=True)


def test_an_item_twice_in_its_table_is_refused(tmp_path: Path) -> None:
    write(tmp_path, HEADER + ROWS)
    write(tmp_path, "item_id,name\ni1,a\ni1,b\n", "items.csv")
    with pytest.raises(LogError, match=r"data\.items: 'items\.csv' has 'i1' twice"):
        load_dataset(settings_for(items="items.csv"), tmp_path)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"bands": {"age": [3, 1]}, "sensitive": ["age"]}, "must rise"),
        ({"bands": {"age": {"a": [0, 9], "b": [5, 12]}}, "sensitive": ["age"]}, "overlap"),
        ({"bands": {"age": [3]}}, "is not among data.sensitive"),
        ({"reward_range": [1, 0]}, "below the greatest"),
        ({"item_text": ["a", "a"]}, "listed twice"),
        ({"max_users": 9}, "greater than or equal to 10"),
        ({"positive": "rating >="}, "ends after"),
    ],
)
def test_settings_that_make_no_sense_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        settings_for(**given)
