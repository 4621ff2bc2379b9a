"""The datasets known by name: where each is looked for and which columns it brings. Imports nothing heavy."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from simulator.errors import LogError, did_you_mean

FILE_ENDINGS = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")
"""Files that can be an interaction log of the user's own."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset known by name.

    Attributes:
        about: one line for `windtunnel list datasets`.
        reader: "module:function" that takes (settings, folder) and returns tables; resolved when a scenario names it.
        files: file name -> sha256; these and no others are read.
        defaults: fields of `data:` that hold unless the scenario says otherwise.
        package: installed package that ships it, and the folder inside; None: looked for in WINDTUNNEL_DATA only.
        missing: what to do where it is not found.
    """

    about: str
    reader: str
    files: Mapping[str, str]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    package: tuple[str, str] | None = None
    missing: str = "put its folder into one of the folders of WINDTUNNEL_DATA"


DATASETS: Mapping[str, Dataset] = {
    "ml-100k": Dataset(
        about="MovieLens 100k: 943 users, 1,682 films, 100,000 ratings with times; age, gender, occupation "
        "(free for research with citation; read from the installed recbole package)",
        reader="simulator.datasets.movielens:read_ml_100k",
        files={
            "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
            "ml-100k.user": "4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972",
            "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
        },
        defaults={
            "positive": "rating >= 4",
            "behaviours": ["rating"],
            "item_text": ["movie_title", "release_year", "class"],
            "item_categories": ["class"],
        },
        package=("recbole", "dataset_example/ml-100k"),
        missing="install recbole 1.2.1 (`pip install -c constraints.txt -e .`), which ships it",
    ),
}
"""Name -> dataset. A new one is a row here and a reader beside it."""


@dataclass(frozen=True, slots=True)
class DatasetState:
    """Where a dataset is looked for and whether it is whole.

    Attributes:
        name: name of the dataset.
        looked_in: folders in the order of looking.
        folder: where it was found, or None.
        damaged: files whose sha256 is not the published one, or that are missing.
    """

    name: str
    looked_in: tuple[Path, ...]
    folder: Path | None
    damaged: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether it was found and every file is as published."""
        return self.folder is not None and not self.damaged


def dataset(name: str) -> Dataset:
    """The dataset of that name.

    Raises:
        LogError: there is none.
    """
    if name not in DATASETS:
        raise LogError(
            f"data.source: '{name}' is not a known dataset{did_you_mean(name, DATASETS)} ({known_datasets()})"
        )
    return DATASETS[name]


def known_datasets() -> str:
    """Where to see what there is."""
    return (
        f"`windtunnel list datasets` has all {len(DATASETS)}" if len(DATASETS) > 1 else f"known: {', '.join(DATASETS)}"
    )


def data_folders() -> tuple[Path, ...]:
    """Folders of WINDTUNNEL_DATA, in order."""
    return tuple(Path(part).expanduser() for part in os.environ.get("WINDTUNNEL_DATA", "").split(os.pathsep) if part)


def candidates(name: str) -> tuple[Path, ...]:
    """Folders where the dataset is looked for: WINDTUNNEL_DATA first, then the package that ships it."""
    known = dataset(name)
    found = [folder / name for folder in data_folders()]
    if known.package is not None:
        package, inside = known.package
        spec = find_spec(package)  # finds the folder without importing the package (and torch with it)
        if spec is not None and spec.submodule_search_locations:
            found.append(Path(next(iter(spec.submodule_search_locations))) / inside)
    return tuple(found)


def check_dataset(name: str) -> DatasetState:
    """Look for a dataset and compare its files with the published sha256."""
    known, looked_in = dataset(name), candidates(name)
    for folder in looked_in:
        if folder.is_dir():
            damaged = tuple(file for file, sha in known.files.items() if file_sha256(folder / file) != sha)
            return DatasetState(name, looked_in, folder, damaged)
    return DatasetState(name, looked_in, None, tuple(known.files))


def locate_dataset(name: str) -> Path:
    """Folder of a dataset whose files are all as published.

    Raises:
        LogError: it is not there, or a file is missing or changed.
    """
    state = check_dataset(name)
    if state.folder is None:
        looked = ", ".join(str(folder) for folder in state.looked_in) or "nowhere, WINDTUNNEL_DATA is not set"
        raise LogError(f"data.source: '{name}' was not found (looked in: {looked}); {dataset(name).missing}")
    if state.damaged:
        file = state.folder / state.damaged[0]
        what = "is not the published file (sha256 differs)" if file.exists() else "is missing"
        raise LogError(f"data.source: '{file}' {what}; {dataset(name).missing}")
    return state.folder


def file_sha256(path: Path) -> str | None:
    """sha256 of a file, or None where there is none."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return _sha256_of(path, stat.st_size, stat.st_mtime_ns)


@cache
def _sha256_of(path: Path, size: int, changed: int) -> str:  # size and time are part of the cache's key
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
