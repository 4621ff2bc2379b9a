"""MIND-small sample (Wu et al., 2020): 5,000 impressions of a news site with candidates and clicks, and 2,000 news."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.datasets.build import UNLOGGED_POLICY, Tables
from simulator.datasets.parts import Dataset, Impressions, LabelledTexts
from simulator.datasets.tables import table_of

LIMITS = (
    "news and impressions were sampled apart: 284 of the 7,457 candidates have text (5,310 of 189,359 rows)",
    "the publisher shuffled the candidates of an impression: positions, and so examination, are not identified",
    "one impression a user as a rule (4,637 users, 5,000 impressions): how long a visit lasts is told, not why users "
    "leave nor when they return",
    "candidates were chosen by the site's own unlogged policy: no propensities",
)
_NEWS = ("item_id", "category", "subcategory", "title", "abstract", "url", "title_entities", "abstract_entities")


def read_mind_small_sample(folder: Path) -> Dataset:
    """Impressions, the same rows as an interaction log, and the news with their categories as labelled texts."""
    import pandas as pd

    def read(name: str, columns: tuple[str, ...]) -> Any:
        # quoting=3: a title may begin with a quotation mark that nothing closes.
        return pd.read_csv(
            folder / name, sep="\t", header=None, names=list(columns), quoting=3, dtype=str, keep_default_na=False,
        )  # fmt: skip

    news = read("news.tsv.gz", _NEWS)
    rows = read("behaviors.tsv.gz", ("impression_id", "user_id", "time", "history", "offered"))
    seconds = pd.to_datetime(rows["time"], format="%m/%d/%Y %I:%M:%S %p").to_numpy("datetime64[s]").astype(np.float64)
    offered, start = _ragged(rows["offered"])
    pairs = np.char.rpartition(offered, "-")  # [k, 3]: a news id, "-", 0 or 1
    candidates, clicked = pairs[:, 0], pairs[:, 2] == "1"
    history, history_start = _ragged(rows["history"])
    item_ids, item = np.unique(np.concatenate([candidates, history]), return_inverse=True)
    user_ids, user = np.unique(rows["user_id"].to_numpy(np.str_), return_inverse=True)
    impressions = Impressions(
        user=user,
        time=seconds,
        start=start,
        item=item[: len(candidates)],
        clicked=clicked,
        history_start=history_start,
        history=item[len(candidates) :],
        user_ids=tuple(user_ids.tolist()),
        item_ids=tuple(item_ids.tolist()),
    )
    owner = np.repeat(np.arange(len(rows)), np.diff(start))
    log = table_of(
        folder / "behaviors.tsv.gz",
        user_id=rows["user_id"].to_numpy()[owner],
        item_id=candidates,
        timestamp=seconds[owner],
        click=clicked,
        impression_id=rows["impression_id"].to_numpy()[owner],
    )
    items = table_of(
        folder / "news.tsv.gz",
        **{name: news[name] for name in ("item_id", "title", "abstract", "category", "subcategory")},
    )
    return Dataset(
        "mind-small-sample",
        limits=LIMITS,
        tables=Tables(log, items, exposure=UNLOGGED_POLICY),
        texts={"news": _labelled(news["title"], news["category"])},
        impressions=impressions,
    )


def _ragged(lists: Any) -> tuple[NDArray[np.str_], NDArray[np.int64]]:
    """All words of space-separated lists, and where each list starts [n + 1]."""
    words = lists.str.split()
    lengths = words.str.len().to_numpy(np.int64)
    return np.array([word for some in words for word in some], np.str_), np.concatenate([[0], np.cumsum(lengths)])


def _labelled(text: Any, label: Any) -> LabelledTexts:
    classes, index = np.unique(label.to_numpy(np.str_), return_inverse=True)
    return LabelledTexts(tuple(text), index.astype(np.int64), tuple(classes.tolist()))
