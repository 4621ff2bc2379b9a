"""Pairs of users from a file: who is whose friend."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simulator.datasets.tables import read_table
from simulator.errors import LogError
from simulator.log import Catalogue


def read_pairs(path: Path, catalogue: Catalogue, field: str) -> NDArray[np.int64]:
    """[m, 2] users of the first two columns of a file; pairs with somebody who is not in the log are left out.

    Raises:
        LogError: the file cannot be read, has one column only, or names no two users of the log.
    """
    table = read_table(path, field)
    names = list(table.columns)[:2]
    if len(names) < 2:
        raise LogError(f"{field}: '{path.name}' has one column; a pair needs two, user ids of the log")
    ids = np.column_stack([np.array(table.text(column, field).to_pylist(), np.str_) for column in names])
    pairs = pairs_of(ids, catalogue)
    if not len(pairs):
        raise LogError(f"{field}: '{path.name}' names no two users of the log; its first two columns must be user ids")
    return pairs


def pairs_of(ids: NDArray[np.str_], catalogue: Catalogue) -> NDArray[np.int64]:
    """[m, 2] users of pairs of ids [p, 2]; pairs with somebody who is not in the log are left out."""
    number = {name: at for at, name in enumerate(catalogue.user_ids)}
    pairs = np.array([[number.get(name, -1) for name in pair] for pair in ids.tolist()], np.int64).reshape(-1, 2)
    return np.asarray(pairs[(pairs >= 0).all(axis=1)])
