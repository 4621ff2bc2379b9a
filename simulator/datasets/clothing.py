"""Clothing dataset, small subset (Grigorev et al., 2020): 120 photographs of ten kinds of garment, CC0."""

from __future__ import annotations

import zipfile
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from simulator.datasets.emotify import read_from_zip
from simulator.datasets.parts import Dataset, MediaFiles

ARCHIVE = "test_12_per_class.zip"


def read_clothing_images(folder: Path) -> Dataset:
    """The pictures and what each shows; the item's id is the name of its file."""
    with zipfile.ZipFile(folder / ARCHIVE) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
    paths = [PurePosixPath(name) for name in names]
    classes, label = np.unique([path.parent.name for path in paths], return_inverse=True)
    return Dataset(
        "clothing-images",
        limits=("no users and no interactions: who likes what is assumed",),
        media=MediaFiles(
            item_ids=tuple(path.stem for path in paths),
            names=tuple(names),
            label=label.astype(np.int64),
            classes=tuple(classes.tolist()),
            read=partial(read_from_zip, folder / ARCHIVE),
        ),
    )
