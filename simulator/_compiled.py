"""How the numba functions over arrays are compiled and kept on disk, and the types of their arrays."""

from __future__ import annotations

import hashlib
import math
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numba.core import caching
from numpy.typing import NDArray

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]
I32 = NDArray[np.int32]
U32 = NDArray[np.uint32]
U16 = NDArray[np.uint16]
U8 = NDArray[np.uint8]
Flags = NDArray[np.bool_]

PLAIN: dict[str, Any] = {"cache": True, "error_model": "numpy", "_nrt": False}
"""How the functions are compiled. Division by zero is not tested for: the test keeps loops from being vectorised.
Arrays are borrowed from the caller, without numba's count of references, which costs some thousand cycles a call."""


def aligned_zeros(*shape: int) -> F32:
    """Zeros that begin at a multiple of 64 bytes, so that no load of sixteen floats lies across two cache lines."""
    size = math.prod(shape)
    room = np.zeros(size + 16, np.float32)
    first = (-room.ctypes.data % 64) // 4
    return room[first : first + size].reshape(shape)


_PROJECT = Path(__file__).resolve().parent.parent
_IMPORT = re.compile(r"^from ((?:simulator|agents|evaluators)[\w.]*) import (\([^)]*\)|.*)$", re.MULTILINE)


def sources(file: Path) -> frozenset[Path]:
    """The file and every module of the project that it imports from, however deep."""
    found: set[Path] = set()
    waiting = [file]
    while waiting:
        one = waiting.pop()
        if one in found:
            continue
        found.add(one)
        for module, names in _IMPORT.findall(one.read_text(encoding="utf-8")):
            place = _PROJECT.joinpath(*module.split("."))
            for named in (place, *(place / name for name in re.findall(r"\w+", names))):
                waiting += [path for path in (named.with_suffix(".py"), named / "__init__.py") if path.is_file()]
    return frozenset(found)


@cache
def _stamp(file: Path) -> bytes:
    hasher = hashlib.sha256()
    for path in sorted(sources(file)):
        hasher.update(hashlib.sha256(path.read_bytes()).digest())
    return hasher.digest()


class _WithItsImports(caching._CacheLocator):  # type: ignore[misc]
    """Where compiled code is kept: as numba itself does, but code is stale when a module that it inlines has changed.

    numba looks at the one file that a function stands in; a changed function of another file that is compiled into it
    would go on in its old form.
    """

    def __init__(self, kept: Any, file: Path) -> None:
        self._kept, self._file = kept, file

    def get_cache_path(self) -> str:
        return str(self._kept.get_cache_path())

    def get_source_stamp(self) -> bytes:
        return _stamp(self._file)

    def get_disambiguator(self) -> str:
        return str(self._kept.get_disambiguator())

    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> _WithItsImports | None:
        file = Path(py_file)
        if not file.is_file() or Path(__file__).resolve() not in sources(file.resolve()):
            return None  # whether a file is looked after must not depend on what was imported before it
        others: list[Any] = caching.CacheImpl._locator_classes
        for other in others:
            kept = None if other is cls else other.from_function(py_func, py_file)
            if kept is not None:
                return cls(kept, file.resolve())
        return None


caching.CacheImpl._locator_classes.insert(0, _WithItsImports)
