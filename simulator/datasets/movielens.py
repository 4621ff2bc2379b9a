"""MovieLens 100k as the recbole package ships it, and ml-latest-small with trailer features and overviews."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from simulator.datasets.atomic import read_atomic
from simulator.datasets.build import SELF_SELECTED, Tables
from simulator.datasets.parts import Dataset, Tags
from simulator.datasets.tables import table_of

# Item 267 has no title and no year, spelt so; two films have no genre; item 1412 has "V" for a year.
_NO_VALUE = ("unkonwn", "unknown", "V")


LIMITS = (
    "people chose what to rate: the log says what is liked once seen, not what would be seen",
    "times are those of entering ratings, many in one sitting: sessions and leaving are not identified",
)
LATEST_LIMITS = (
    *LIMITS,
    "no demographics",
    "overviews cover 1,886 and trailer features 4,751 of 9,742 films, the better known ones",
)


def read_ml_100k(folder: Path) -> Dataset:
    """MovieLens 100k, its placeholders for missing titles, years and genres emptied."""
    tables = read_atomic(folder)
    items = tables.items
    assert items is not None  # the three files were checked by sha256
    emptied = {
        name: pc.if_else(pc.is_in(column, pa.array(_NO_VALUE)), "", column) for name, column in items.columns.items()
    }
    return Dataset(
        "ml-100k",
        limits=LIMITS,
        tables=replace(tables, items=replace(items, columns=emptied), exposure=SELF_SELECTED),
    )


def read_ml_latest_small(folder: Path) -> Dataset:
    """Ratings, films with genres and overviews, tags, and low-level visual features of trailers."""
    import pandas as pd

    ratings = pd.read_csv(folder / "ratings.csv.gz")
    films = pd.read_csv(folder / "movies.csv", dtype=str, keep_default_na=False)
    overviews = pd.read_csv(folder / "tmdb_overviews_subset.csv.gz", dtype=str, keep_default_na=False)
    tags = pd.read_csv(folder / "tags.csv", dtype=str, keep_default_na=False)
    trailers = pd.read_csv(folder / "LLVisualFeatures13K_Log.csv.gz")
    trailers = trailers[trailers["ML_Id"].astype(str).isin(set(films["movieId"]))]  # 13,373 trailers, of all MovieLens
    overview = dict(zip(overviews["movieId"], overviews["overview"], strict=True))
    words, tag = np.unique(tags["tag"].to_numpy(np.str_), return_inverse=True)
    return Dataset(
        "ml-latest-small",
        limits=LATEST_LIMITS,
        tables=Tables(
            log=table_of(
                folder / "ratings.csv.gz",
                user_id=ratings["userId"],
                item_id=ratings["movieId"],
                rating=ratings["rating"],
                timestamp=ratings["timestamp"],
            ),
            items=table_of(
                folder / "movies.csv",
                item_id=films["movieId"],
                title=films["title"],
                genres=films["genres"].replace("(no genres listed)", "").str.replace("|", " "),
                overview=films["movieId"].map(overview).fillna(""),
            ),
            exposure=SELF_SELECTED,
        ),
        item_features={
            "trailer": (
                tuple(trailers["ML_Id"].astype(str)),
                trailers[[f"f{k}" for k in range(1, 8)]].to_numpy(np.float32),
            )
        },
        tags=Tags(
            user=tags["userId"].to_numpy(np.str_),
            item=tags["movieId"].to_numpy(np.str_),
            tag=tag.astype(np.int64),
            time=tags["timestamp"].to_numpy(np.float64),
            words=tuple(words.tolist()),
        ),
    )
