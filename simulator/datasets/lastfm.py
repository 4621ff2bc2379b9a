"""Last.fm 2k (HetRec 2011): how often 1,892 people played their artists, the tags they gave, and their friends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from simulator.datasets.build import SELF_SELECTED, Tables
from simulator.datasets.parts import Dataset, Tags
from simulator.datasets.tables import table_of

LIMITS = (
    "play counts without times, the 50 most played artists of a person: order, drift and leaving are not identified",
    "only artists that were played: nothing says what was heard and not liked, or never offered",
    "the default behaviour compares an artist with the person's own median, so it holds for half of each person's rows",
    "tags of 2005 to 2011; five dates before that cannot be true and are left empty",
)
FOUNDED = 2002
"""Year of Last.fm's foundation: tags dated earlier (1956, 1957, 1979) are slips."""
MOST_TAGS = 8
"""Words of an artist's text: the tags that most people gave."""
GENRES = 40
"""So many of the tags that were given most often count as categories; of the rest, most were given once."""


def read_lastfm_2k(folder: Path) -> Dataset:
    """Play counts as the log, artists with their commonest tags, tag assignments and friends.

    Names of artists are UTF-8 and tags are Latin-1, whatever the readme says of both: read as Latin-1, "Röyksopp"
    becomes "RÃ¶yksopp".
    """
    import pandas as pd

    def read(name: str, encoding: str = "utf-8") -> Any:
        return pd.read_csv(
            folder / name, sep="\t", encoding=encoding, quoting=3, dtype=str, keep_default_na=False,
        )  # fmt: skip

    plays, artists = read("user_artists.dat.gz"), read("artists.dat.gz")
    words, given = read("tags.dat.gz", "latin-1"), read("user_taggedartists.dat.gz")
    count = plays["weight"].astype(np.int64)
    index = pd.Index(words["tagID"]).get_indexer(given["tagID"])
    most_given = given["tagID"].value_counts(sort=True).index[:GENRES]
    year = given["year"].astype(int)
    dates = pd.to_datetime(given[["year", "month", "day"]].astype(int)).to_numpy("datetime64[s]").astype(np.float64)
    tags = Tags(
        user=given["userID"].to_numpy(np.str_),
        item=given["artistID"].to_numpy(np.str_),
        tag=index.astype(np.int64),
        time=np.where(year >= FOUNDED, dates, np.nan),
        words=tuple(words["tagValue"]),
    )
    return Dataset(
        "lastfm-2k",
        limits=LIMITS,
        tables=Tables(
            log=table_of(
                folder / "user_artists.dat.gz",
                user_id=plays["userID"],
                item_id=plays["artistID"],
                plays=count,
                plays_to_median=count / count.groupby(plays["userID"]).transform("median"),
            ),
            items=table_of(
                folder / "artists.dat.gz",
                item_id=artists["id"],
                name=artists["name"],
                tags=_commonest(given, words, artists["id"]),
                genre=_commonest(given[given["tagID"].isin(most_given)], words, artists["id"]),
            ),
            exposure=SELF_SELECTED,
        ),
        tags=tags,
        friends=read("user_friends.dat.gz").to_numpy(np.str_),
    )


def _commonest(given: Any, words: Any, artists: Any) -> list[str]:
    """The tags of each artist that most people gave, commonest first, joined by ", "."""
    counted = given.groupby(["artistID", "tagID"]).size().rename("n").reset_index()
    counted = counted.sort_values(["artistID", "n", "tagID"], ascending=[True, False, True], kind="stable")
    top = counted.groupby("artistID").head(MOST_TAGS)
    names = dict(zip(words["tagID"], words["tagValue"], strict=True))
    joined: dict[str, list[str]] = {}
    for artist, tag in zip(top["artistID"], top["tagID"], strict=True):
        joined.setdefault(artist, []).append(names[tag])
    return [", ".join(joined.get(artist, ())) for artist in artists]
