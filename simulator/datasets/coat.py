"""Coat Shopping (Schnabel et al., 2016): ratings that people chose to give, and ratings of coats drawn at random."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simulator.datasets.build import SELF_SELECTED, Tables
from simulator.datasets.parts import Dataset
from simulator.datasets.tables import Table, table_of

LIMITS = (
    "290 people and 300 coats, no times: order, drift and leaving are not identified",
    "propensities are the publisher's estimates from the self-selected part, not a logged policy's own",
    "366 pairs of a person and a coat are in both parts: reading drops them from the self-selected one",
)


def read_coat(folder: Path) -> Dataset:
    """The self-selected part as the log, the random part kept apart, given propensities, user and item features."""
    train = np.loadtxt(folder / "train.ascii", dtype=np.int64)
    test = np.loadtxt(folder / "test.ascii", dtype=np.int64)
    propensity = np.loadtxt(folder / "propensities.ascii")
    user, item = np.nonzero(train)
    features = folder / "user_item_features"
    return Dataset(
        "coat",
        limits=LIMITS,
        tables=Tables(
            log=_rows(folder / "train.ascii", train, propensity, user, item),
            items=_features(
                features / "item_features.ascii", features / "item_features_map.txt", "item_id", gender="gender_of_coat"
            ),
            users=_features(features / "user_features.ascii", features / "user_features_map.txt", "user_id"),
            random=_rows(folder / "test.ascii", test, propensity, *np.nonzero(test)),
            exposure=SELF_SELECTED,
        ),
    )


def _rows(
    path: Path, ratings: NDArray[np.int64], propensity: NDArray[np.float64], user: NDArray[np.int64],
    item: NDArray[np.int64],
) -> Table:  # fmt: skip
    return table_of(path, user_id=user, item_id=item, rating=ratings[user, item], propensity=propensity[user, item])


def _features(path: Path, names: Path, key: str, **renamed: str) -> Table:
    """A table with one column for each family of binary columns ("jackettype:parkas" -> jackettype: parkas)."""
    flags = np.loadtxt(path, dtype=np.int64)
    families: dict[str, dict[int, str]] = {}
    for at, line in enumerate(names.read_text(encoding="utf-8").splitlines()):
        family, _, value = line.strip().partition(":")
        families.setdefault(family, {})[at] = value
    columns: dict[str, NDArray[np.str_]] = {}
    for family, values in families.items():
        chosen = np.array(list(values))[flags[:, list(values)].argmax(axis=1)]
        columns[renamed.get(family, family)] = np.array([values[at] for at in chosen], np.str_)
    return table_of(path, **{key: np.arange(len(flags))}, **columns)
