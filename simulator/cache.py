"""Results of stages on disk: stored under a key of what they depend on, whole or not at all.

An interrupted run therefore goes on where it stopped, a changed gate re-runs nothing but the gate, and two runs at
once at worst do the same work twice.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pickle
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import cache as memoise
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

PROJECT = Path(__file__).resolve().parent.parent


def default_cache_folder() -> Path:
    """`WINDTUNNEL_CACHE`, else the platform's cache folder."""
    named = os.environ.get("WINDTUNNEL_CACHE")
    if named:
        return Path(named).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "windtunnel"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "windtunnel"


def _feed(hasher: Any, value: Any) -> None:
    """Feed a value of the plain kinds that settings and records are made of; anything else is refused."""
    if isinstance(value, np.ndarray):
        hasher.update(f"array {value.dtype.str} {value.shape}".encode())
        if value.dtype.hasobject:
            _feed(hasher, value.tolist())
        else:
            hasher.update(np.ascontiguousarray(value).view(np.uint8).data if value.size else b"")
    elif isinstance(value, BaseModel):
        hasher.update(type(value).__name__.encode())
        _feed(hasher, value.model_dump(mode="json"))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        hasher.update(type(value).__name__.encode())
        for field in dataclasses.fields(value):
            hasher.update(field.name.encode())
            _feed(hasher, getattr(value, field.name))
    elif isinstance(value, Mapping):
        hasher.update(f"mapping {len(value)}".encode())
        for key in sorted(value, key=repr):
            _feed(hasher, key)
            _feed(hasher, value[key])
    elif isinstance(value, list | tuple):
        hasher.update(f"sequence {len(value)}".encode())
        for part in value:
            _feed(hasher, part)
    elif value is None or isinstance(value, str | int | float | bool | bytes | np.generic | Path):
        hasher.update(f"{type(value).__name__} {value!r}".encode())
    else:
        raise TypeError(f"cannot take the digest of a {type(value).__name__}")


def digest_of(*values: Any) -> str:
    """Hexadecimal sha256 of settings, records and arrays by content: equal values have equal digests everywhere."""
    hasher = hashlib.sha256()
    _feed(hasher, values)
    return hasher.hexdigest()


@memoise
def code_digest(*parts: str) -> str:
    """Digest of the source of these packages or modules of the project (`"simulator"`, `"evaluators/rollout.py"`)."""
    hasher = hashlib.sha256()
    for part in sorted(parts):
        place = PROJECT / part
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            hasher.update(str(path.relative_to(PROJECT)).encode())
            hasher.update(path.read_bytes())
    return hasher.hexdigest()


LIBRARIES = ("numpy", "scipy", "scikit-learn", "numba", "torch", "transformers", "gymnasium", "stable-baselines3",
             "recbole", "causalml", "fairlearn", "pandas", "pyarrow")  # fmt: skip


@memoise
def library_versions() -> dict[str, str]:
    """Versions of the libraries whose numbers enter a report, by name; those not installed are left out."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path` and rename it: a reader sees the whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@dataclasses.dataclass(frozen=True, slots=True)
class StageCache:
    """Pickled results of stages in a folder of the user's own.

    Attributes:
        folder: where results lie, as `<stage>/<key>.pkl`. Pickles are code: the folder must not be writable by others.
    """

    folder: Path

    def path(self, stage: str, key: str) -> Path:
        """Where the result of a stage with this key lies or would lie."""
        return self.folder / stage / f"{key[:40]}.pkl"

    def has(self, stage: str, key: str) -> bool:
        """Whether the result is there."""
        return self.path(stage, key).exists()

    def load(self, stage: str, key: str) -> Any:
        """Read a stored result.

        Raises:
            FileNotFoundError: it is not there.
        """
        with self.path(stage, key).open("rb") as file:
            return pickle.load(file)

    def drop(self, stage: str, key: str) -> None:
        """Forget a result, if it is there."""
        self.path(stage, key).unlink(missing_ok=True)

    def store(self, stage: str, key: str, result: Any) -> None:
        """Write a result under its key, whole or not at all."""

        def dump(path: Path) -> None:
            with path.open("wb") as file:
                pickle.dump(result, file, protocol=5)

        write_atomically(self.path(stage, key), dump)
