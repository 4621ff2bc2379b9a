"""Where a dataset known by name is looked for, and whether it is as published. Imports nothing heavy."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from simulator.datasets.published import DATASETS, KnownDataset
from simulator.errors import LogError, did_you_mean

FILE_ENDINGS = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")
"""Files that can be an interaction log of the user's own."""


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


def dataset(name: str, field: str = "data.source") -> KnownDataset:
    """The dataset of that name.

    Raises:
        LogError: there is none; `field` is where the user named it.
    """
    if name not in DATASETS:
        raise LogError(f"{field}: '{name}' is not a known dataset{did_you_mean(name, DATASETS)} ({known_datasets()})")
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


def named_file(folder: Path, name: str) -> Path:
    """Where a file lies that a scenario names: counted from the scenario's folder, `~` is the user's home."""
    return folder / Path(name).expanduser()


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
