"""THUCNews titles: 20,000 Chinese news titles in 10 classes, the dev and test part of a published selection."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np

from simulator.datasets.parts import Dataset, LabelledTexts


def read_thucnews_titles(folder: Path) -> Dataset:
    """Titles of the parts `dev` and `test`, 1,000 a class in each."""
    classes = tuple((folder / "class.txt").read_text(encoding="utf-8").split())
    texts = {}
    for split in ("dev", "test"):
        lines = gzip.decompress((folder / f"{split}.txt.gz").read_bytes()).decode("utf-8").splitlines()
        rows = [line.rsplit("\t", 1) for line in lines if line]
        texts[split] = LabelledTexts(
            tuple(title for title, _ in rows), np.array([int(number) for _, number in rows], np.int64), classes
        )
    return Dataset(
        "thucnews-titles", limits=("no users; the published training part (180,000 titles) is not here",), texts=texts
    )
