"""Continual learning: keep a fitted model in a file, go on from it with newer rows, and see what was forgotten."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.cache import write_atomically
from simulator.errors import InputError
from simulator.log import Catalogue, InteractionLog, Split
from simulator.preference.model import ItemMap, Member, PreferenceModel, row_hashes
from simulator.preference.problem import ROLE_NAMES, Problem

FORMAT = 2


@dataclass(frozen=True, slots=True)
class SavedModel:
    """A fitted model and the catalogue that its arrays go by.

    Attributes:
        model: the model.
        item_ids: [I] ids of the items of its rows.
        feature_names: names of the public user features that it reads.
    """

    model: PreferenceModel
    item_ids: tuple[str, ...]
    feature_names: tuple[str, ...]

    def known(self, catalogue: Catalogue) -> NDArray[np.int64]:
        """[I'] row in the saved model of each item of another catalogue, -1 for an item that it does not know."""
        place = {name: k for k, name in enumerate(self.item_ids)}
        return np.array([place.get(name, -1) for name in catalogue.item_ids], np.int64)

    def on(self, catalogue: Catalogue) -> PreferenceModel:
        """The saved model on another catalogue's items; one that it does not know gets the mean item's vector."""
        known = self.known(catalogue)

        def moved(rows: NDArray[np.float32]) -> NDArray[np.float32]:
            return np.where((known >= 0).reshape(-1, *[1] * (rows.ndim - 1)), rows[known], rows.mean(0))

        members = tuple(
            replace(one, item_vectors=moved(one.item_vectors), item_offset=moved(one.item_offset))
            for one in self.model.members
        )
        return PreferenceModel.assemble(
            self.model.architecture,
            members,
            slope=self.model.slope,
            intercept=self.model.intercept,
            item_shift=moved(self.model.item_shift),
            fitted_users=np.zeros(0, np.int64),
            tuning_users=np.zeros(0, np.int64),
            seen=self.model.seen,
            measures=self.model.measures,
        )


def file_name(role: int) -> str:
    """Name of the file that holds a role's model, e.g. `world-a.npz`."""
    return f"{ROLE_NAMES[role].replace(' ', '-').lower()}.npz"


def save(model: PreferenceModel, catalogue: Catalogue, path: Path) -> None:
    """Write a model as one .npz file of plain arrays, whole or not at all."""
    about = {
        "format": FORMAT,
        "architecture": model.architecture,
        "slope": model.slope,
        "intercept": model.intercept,
        "members": [
            {
                "newton_steps": one.newton_steps,
                "map": None if one.item_map is None else [one.item_map.popularity, one.item_map.intercept],
            }
            for one in model.members
        ],
        "measures": model.measures,
    }
    arrays: dict[str, NDArray[Any]] = {
        "about": np.array(json.dumps(about)),
        "item_ids": np.array(catalogue.item_ids),
        "feature_names": np.array(catalogue.user_feature_names, dtype=np.str_),
        "seen": model.seen,
        "item_shift": model.item_shift,
    }
    for k, one in enumerate(model.members):
        arrays |= {f"{k}.{name}": getattr(one, name) for name in _MEMBER}
        if one.item_map is not None:
            arrays |= {f"{k}.map_vector": one.item_map.vector, f"{k}.map_offset": one.item_map.offset}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    write_atomically(path, lambda part: _write(part, buffer.getvalue()))


_MEMBER = ("item_vectors", "item_offset", "feature_weights", "precision")


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def load(path: Path) -> SavedModel:
    """Read what `save` wrote.

    Raises:
        InputError: there is no such file, or it was not written by `save`.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        about = json.loads(str(arrays["about"]))
        if about["format"] != FORMAT:
            raise ValueError(f"format {about['format']}")
        members = []
        for k, one in enumerate(about["members"]):
            item_map = None
            if one["map"] is not None:
                item_map = ItemMap(arrays[f"{k}.map_vector"], arrays[f"{k}.map_offset"], *one["map"])
            columns: dict[str, Any] = {name: arrays[f"{k}.{name}"] for name in _MEMBER}
            members.append(Member(**columns, newton_steps=one["newton_steps"], item_map=item_map))
        nobody = np.zeros(0, np.int64)
        model = PreferenceModel.assemble(
            about["architecture"],
            tuple(members),
            slope=about["slope"],
            intercept=about["intercept"],
            item_shift=arrays["item_shift"],
            fitted_users=nobody,
            tuning_users=nobody,
            seen=arrays["seen"],
            measures=about["measures"],
        )
        return SavedModel(model, tuple(arrays["item_ids"].tolist()), tuple(arrays["feature_names"].tolist()))
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise InputError(
            f"preference.update.model: '{path.parent.name}/{path.name}' cannot be read ({error}); name the folder "
            "`preference` of an earlier run of this version"
        ) from error


def weigh_older(problem: Problem, log: InteractionLog, saved: SavedModel, replay: float) -> tuple[Problem, Problem]:
    """The problem with rows that the saved model knows weighed by `replay`, and that of those older rows alone.

    Weights of the first are scaled to a mean of 1, as those of every problem; each older row of the second counts as
    one, since its rows are summed up.

    Raises:
        InputError: there is no newer row to go on with.
    """
    older = np.isin(row_hashes(log)[problem.rows], saved.model.seen)
    if older.all():
        raise InputError(
            f"preference.update: '{log.source}' holds no row to fit that the saved model has not seen; give a log with "
            "newer rows, or leave update out"
        )
    each = np.ones(len(older), np.float32) if problem.weight is None else problem.weight
    weight = np.where(older, np.float32(replay) * each, each)
    weight = (weight / weight.mean()).astype(np.float32)
    return replace(problem, weight=weight), replace(problem, weight=np.where(older, each, 0).astype(np.float32))


@dataclass(frozen=True, slots=True)
class Forgetting:
    """Loss on older rows that neither model was fitted on, before the update and after it.

    Attributes:
        before, after: [m] log-loss of each row.
        user: [m] user of each row.
    """

    before: NDArray[np.float64]
    after: NDArray[np.float64]
    user: NDArray[np.int64]


def forgetting(model: PreferenceModel, saved: SavedModel, log: InteractionLog, split: Split) -> Forgetting:
    """Score late rows no newer than the newest that the saved model knew, by the model before and after.

    Both models get the same histories. Rows that either has seen are left out, so with a log that has only fitting
    users' older rows nothing is left.
    """
    hashes = row_hashes(log)
    known = np.isin(hashes, saved.model.seen)
    until = np.max(log.time[known], initial=-np.inf) if log.has_time else -np.inf
    older = split.late & (log.time <= until) & ~known & ~np.isin(hashes, model.seen)
    rows = np.flatnonzero(older)
    outcome = log.primary[rows].astype(np.float64)
    before, after = (
        -np.log(np.where(outcome > 0, p, 1 - p))
        for p in (
            one.predict(log, split, rows) if len(rows) else np.zeros(0) for one in (saved.on(log.catalogue), model)
        )
    )
    return Forgetting(before, after, log.user[rows])
