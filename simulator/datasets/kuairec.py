"""KuaiRec sample (Gao et al., 2022): watch ratios of short videos, with Chinese captions, categories and users."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from simulator.datasets.build import UNLOGGED_POLICY, Tables
from simulator.datasets.parts import Dataset
from simulator.datasets.tables import table_of

LIMITS = (
    "not the whole small matrix and no uniform sample of it: 1 to 1,400 rows a video; how it was drawn is unknown",
    "the self-selected training part (big matrix) is missing: selection bias cannot be measured here",
    "no times, positions, sessions or propensities: order, examination, drift and leaving are not identified",
    "captions are Chinese: `preference.encoder: e5-small` or `own` reads them, the default English encoder does not",
    "watch_ratio is clipped at 5 (0.5 % of rows lie above, up to 144)",
)
MOST_WATCHED = 5.0
"""Watch ratios above it (one video left running in a loop) say nothing more about taste."""
_TEXT = {
    "cover": "manual_cover_text",
    "caption": "caption",
    "topics": "topic_tag",
    "category": "first_level_category_name",
    "subcategory": "second_level_category_name",
    "third_category": "third_level_category_name",
}


def read_kuairec_sample(folder: Path) -> Dataset:
    """Watch ratios as the log, captions and category names as the items, activity and ranges as the users."""
    import pandas as pd

    log = pd.read_csv(
        folder / "small_matrix_part_random.txt.gz", header=None, names=["user_id", "item_id", "watch_ratio"]
    )
    # Captions hold stray line breaks, on which the fast parser fails; four broken rows have no number as their id.
    text = pd.read_csv(folder / "kuairec_caption_category.csv.gz", engine="python", dtype=str, keep_default_na=False)
    text = text[text["video_id"].str.fullmatch(r"\d+")]
    items = {name: text[column].where(text[column] != "UNKNOWN", "") for name, column in _TEXT.items()}
    items["topics"] = items["topics"].map(_topics)
    ids = pd.read_csv(folder / "item_categories.csv.gz")
    tags = dict(zip(ids["video_id"].astype(str), ids["feat"], strict=True))
    users = pd.read_csv(folder / "user_features.csv.gz", dtype=str, keep_default_na=False)
    return Dataset(
        "kuairec-sample",
        limits=LIMITS,
        tables=Tables(
            log=table_of(
                folder / "small_matrix_part_random.txt.gz",
                user_id=log["user_id"],
                item_id=log["item_id"],
                watch_ratio=log["watch_ratio"].clip(upper=MOST_WATCHED),
            ),
            items=table_of(
                folder / "kuairec_caption_category.csv.gz",
                item_id=text["video_id"],
                **items,
                tags=text["video_id"].map(tags).map(lambda found: " ".join(re.findall(r"\d+", found))),
            ),
            users=table_of(folder / "user_features.csv.gz", **{name: users[name] for name in users.columns}),
            exposure=UNLOGGED_POLICY,
        ),
    )


def _topics(tags: Any) -> str:
    """The tags of "[a,b]" as "a b"."""
    return str(tags).strip("[]").replace(",", " ")
