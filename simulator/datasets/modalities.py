"""What is known of items beside text and categories: numbers, pictures, sounds, and vectors made elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from simulator.datasets.settings import DataSettings, ModalitySettings
from simulator.datasets.validation import Mistakes
from simulator.errors import LogError, did_you_mean

if TYPE_CHECKING:
    from simulator.datasets.build import Tables

F32 = NDArray[np.float32]
_NOTHING: F32 = np.zeros((0, 1), np.float32)


def modality_columns(settings: DataSettings) -> dict[str, str]:
    """Name of each modality that is read from a column of the items, and the column."""
    found = {}
    for name, modality in settings.modalities.items():
        if modality.kind == "number":
            found[name] = modality.column or name
        elif modality.column is not None:
            found[name] = modality.column
    return found


def load_modalities(
    settings: Mapping[str, ModalitySettings],
    item_ids: tuple[str, ...],
    columns: Mapping[str, list[str]],
    tables: Tables,
    folder: Path | None,
    mistakes: Mistakes,
) -> dict[str, F32]:
    """Vectors of the items by modality, as `Catalogue.modalities` holds them.

    Args:
        settings: the `data.modalities` key.
        item_ids: [I] ids in the catalogue's order.
        columns: modality name -> [I] text of its column, "" where empty.
        tables: pictures, clips and vectors that a built-in dataset brings.
        folder: the scenario's folder, where relative paths start.
        mistakes: takes what is wrong; a modality that cannot be read is then missing from the result.
    """
    folder = Path() if folder is None else folder

    def read(name: str, one: ModalitySettings) -> F32:
        field = f"data.modalities.{name}"
        if one.kind == "number":
            return _numbers(columns[name], item_ids, f"{field}.column", one.column or name)
        if one.kind == "vectors":
            return _vectors(name, one, item_ids, tables, folder, field)
        return _media(one, item_ids, columns.get(name), tables, folder, field)

    found = {name: mistakes.of(lambda name=name, one=one: read(name, one), _NOTHING) for name, one in settings.items()}  # type: ignore[misc]
    return {name: vectors for name, vectors in found.items() if vectors is not _NOTHING}


def _numbers(values: list[str], item_ids: tuple[str, ...], field: str, column: str) -> F32:
    """[I, 1] numbers; NaN where the cell is empty."""
    out = np.full((len(values), 1), np.nan, np.float32)
    for at, value in enumerate(values):
        if value.strip():
            try:
                out[at, 0] = float(value)
            except ValueError:
                out[at, 0] = np.inf
            if not np.isfinite(out[at, 0]):
                raise LogError(
                    f"{field}: column '{column}' has '{value}' for item '{item_ids[at]}', which is no number; "
                    "mend it, or list the column in data.item_text"
                )
    return out


def _vectors(
    name: str, one: ModalitySettings, item_ids: tuple[str, ...], tables: Tables, folder: Path, field: str
) -> F32:
    if one.files is None:
        if name not in tables.item_features:
            hint = did_you_mean(name, tables.item_features)
            there = (
                f"the dataset brings {', '.join(tables.item_features)}" if tables.item_features else "it brings none"
            )
            raise LogError(f"{field}: the data has no vectors of that name{hint or f'; {there}'}; or give files: x.npz")
        ids, vectors = tables.item_features[name]
        return _by_item(ids, vectors, item_ids)
    path = folder / Path(one.files).expanduser()
    try:
        with np.load(path, allow_pickle=False) as held:
            ids, vectors = tuple(str(one) for one in held["item_id"].tolist()), np.asarray(held["vectors"], np.float32)
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise LogError(
            f"{field}.files: '{one.files}' cannot be read ({type(error).__name__}: {error}); give a .npz with arrays "
            "item_id [m] and vectors [m, d]"
        ) from error
    if vectors.ndim != 2 or len(vectors) != len(ids) or not vectors.shape[1]:
        raise LogError(
            f"{field}.files: '{one.files}' has vectors of shape {list(vectors.shape)} for {len(ids)} ids; give [m, d]"
        )
    if not set(ids) & set(item_ids):
        raise LogError(f"{field}.files: '{one.files}' has none of the log's items; its item_id must be the log's ids")
    return _by_item(ids, vectors, item_ids)


def _by_item(ids: tuple[str, ...], vectors: F32, item_ids: tuple[str, ...]) -> F32:
    """The vectors in the catalogue's order; a row of NaN where there is none or one of its numbers is missing."""
    row = {name: at for at, name in enumerate(ids)}
    at = np.array([row.get(name, -1) for name in item_ids])
    out = np.where((at >= 0)[:, None], vectors[at], np.nan).astype(np.float32)
    out[~np.isfinite(out).all(axis=1)] = np.nan
    return out


def _media(
    one: ModalitySettings,
    item_ids: tuple[str, ...],
    names: list[str] | None,
    tables: Tables,
    folder: Path,
    field: str,
) -> F32:
    """Encoded pictures or clips: the dataset's own, or files that a column names."""
    from simulator.encoders.audio import encode_clips
    from simulator.encoders.image import encode_images

    read: Callable[[str], bytes]
    if names is None:
        if tables.media is None:
            raise LogError(
                f"{field}.column: missing; the data brings no files of its own, so name the column with them"
            )
        own = dict(zip(tables.media.item_ids, tables.media.names, strict=True))
        names, read = [own.get(item, "") for item in item_ids], tables.media.read
    else:
        place = folder / Path(one.files or ".").expanduser()

        def read(name: str) -> bytes:
            return (place / name.strip()).read_bytes()

    files: list[bytes | None] = []
    for item, name in zip(item_ids, names, strict=True):
        try:
            files.append(read(name) if name.strip() else None)
        except OSError as error:
            raise LogError(
                f"{field}.column: the file '{name}' of item '{item}' cannot be read ({type(error).__name__}); it is "
                f"looked for in {one.files or 'the folder of the scenario'}"
            ) from error
    if not any(file is not None for file in files):
        raise LogError(f"{field}.column: no item has a file; leave the modality out")
    encode = encode_images if one.kind == "image" else encode_clips
    return encode(files, one.encoder, folder=folder, field=field, names=[f"'{n}'" for n in names])
