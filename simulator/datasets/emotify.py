"""Emotify (Aljanaki et al., 2016): 400 music clips and what listeners felt on hearing them."""

from __future__ import annotations

import zipfile
from functools import partial
from pathlib import Path

import numpy as np

from simulator.datasets.build import SELF_SELECTED, Tables
from simulator.datasets.parts import Dataset, MediaFiles
from simulator.datasets.tables import table_of

LIMITS = (
    "no user ids: a user here is everyone of one age, gender, mother tongue and mood (750 groups of 1 to 215 rows)",
    "players chose the genre and could skip: exposure is self-selected, not random",
    "no times, positions or propensities",
    "ages are self-reported, 5 to 99",
)
ARCHIVE = "clips_8s_16k_ogg.zip"
EMOTIONS = (
    "amazement", "solemnity", "tenderness", "nostalgia", "calmness", "power", "joyful_activation", "tension", "sadness",
)  # fmt: skip


def read_emotify(folder: Path) -> Dataset:
    """Annotations as the log, the clips beside it.

    A clip belongs to a track by genre and (track id - 1) % 100 + 1. info.csv numbers the genres in another order
    than data.csv, so its track ids must not be joined on and it is not read.
    """
    import pandas as pd

    rows = pd.read_csv(folder / "data.csv", skipinitialspace=True)  # the header has blanks after its commas
    profile = ["age", "gender", "mother tongue", "mood"]
    group = rows.groupby(profile, sort=True).ngroup()
    people = rows[profile].assign(user_id=group).drop_duplicates("user_id").sort_values("user_id")
    tracks = rows[["track id", "genre"]].drop_duplicates().sort_values("track id")
    number = (tracks["track id"] - 1) % 100 + 1
    clips = tracks["genre"] + "/" + number.astype(str) + ".ogg"
    genres, label = np.unique(tracks["genre"].to_numpy(np.str_), return_inverse=True)
    return Dataset(
        "emotify",
        limits=LIMITS,
        tables=Tables(
            log=table_of(
                folder / "data.csv",
                user_id=group,
                item_id=rows["track id"],
                liked=rows["liked"],
                disliked=rows["disliked"],
                **{name: rows[name] for name in EMOTIONS},
            ),
            items=table_of(folder / "data.csv", item_id=tracks["track id"], genre=tracks["genre"], clip=clips),
            users=table_of(
                folder / "data.csv",
                user_id=people["user_id"],
                age=people["age"],
                gender=people["gender"].map({0: "0", 1: "1"}),  # the published file does not say which is which
                mother_tongue=people["mother tongue"],
                mood=people["mood"],
            ),
            exposure=SELF_SELECTED,
        ),
        media=MediaFiles(
            item_ids=tuple(tracks["track id"].astype(str)),
            names=tuple(clips),
            label=label.astype(np.int64),
            classes=tuple(genres.tolist()),
            read=partial(read_from_zip, folder / ARCHIVE),
        ),
    )


def read_from_zip(archive: Path, name: str) -> bytes:
    """Bytes of one file of an archive."""
    with zipfile.ZipFile(archive) as opened:
        return opened.read(name)
