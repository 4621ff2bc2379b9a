"""Logged rounds, slates, trajectories and policies from .npz, .npy and .parquet files."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from evaluators.off_policy.continuous import ContinuousRounds
from evaluators.off_policy.names import Record
from evaluators.off_policy.records import Rounds, Slates, Trajectories, indices_of
from simulator.datasets import DATASETS, read_dataset
from simulator.errors import LogError, did_you_mean

Floats = NDArray[np.float64]

_BANDIT = (
    "action",
    "reward",
    "pscore",
    "pi_b",
    "context",
    "position",
    "user",
    "mask",
    "action_features",
    "action_context",
    "action_embed",
    "p_e_a",
)


def read_columns(path: Path, what: str = "LOG") -> dict[str, NDArray[Any]]:
    """All arrays of a .npz or .parquet file by name; list columns of a parquet file become matrices."""
    if not path.is_file():
        raise LogError(f"{what}: '{path}' is not there; give a .npz or .parquet file")
    if path.suffix == ".npz":
        try:
            with np.load(path, allow_pickle=False) as stored:
                mapped = _mapped(path)
                return {name: mapped[name] if name in mapped else stored[name] for name in stored.files}
        except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise LogError(
                f"{what}: '{path.name}' cannot be read as numbers ({error}); save it with numpy.savez"
            ) from error
    if path.suffix == ".parquet":
        return _read_parquet(path, what)
    raise LogError(f"{what}: '{path.name}' ends in '{path.suffix}'; give a .npz or .parquet file")


LARGE = 1 << 26
"""Bytes from which an array of a file is mapped and not read."""


def _mapped(path: Path) -> dict[str, NDArray[Any]]:
    """Large arrays of an uncompressed .npz file, mapped in place: they are read a part at a time and never held."""
    out: dict[str, NDArray[Any]] = {}
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        for member in archive.infolist():
            if member.compress_type != zipfile.ZIP_STORED or member.file_size < LARGE:
                continue
            # A local header is 30 bytes, the name and an extra field of its own length; then comes the .npy file.
            file.seek(member.header_offset + 26)
            lengths = np.frombuffer(file.read(4), "<u2")
            file.seek(member.header_offset + 30 + int(lengths.sum()))
            version = np.lib.format.read_magic(file)
            read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(
                version
            )
            if read is None:
                continue
            shape, fortran, dtype = read(file)
            if not dtype.hasobject:
                order: Literal["F", "C"] = "F" if fortran else "C"
                out[member.filename.removesuffix(".npy")] = np.memmap(
                    path, dtype=dtype, mode="r", offset=file.tell(), shape=shape, order=order
                )
    return out


def _read_parquet(path: Path, what: str) -> dict[str, NDArray[Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise LogError(f"{what}: '{path.name}' cannot be read as parquet ({error}); write it again") from error
    names = table.column_names
    if len(set(names)) != len(names):
        raise LogError(f"{what}: '{path.name}' has a column twice; rename one")
    out: dict[str, NDArray[Any]] = {}
    for name in names:
        column = table.column(name).combine_chunks()
        if column.null_count:
            raise LogError(f"{name}: {column.null_count} values are missing; fill or drop these rows")
        if (
            pa.types.is_list(column.type)
            or pa.types.is_fixed_size_list(column.type)
            or pa.types.is_large_list(column.type)
        ):
            flat = column.flatten().to_numpy(zero_copy_only=False)
            if len(column) == 0 or len(flat) % len(column):
                raise LogError(f"{name}: its lists differ in length; give the same number of entries in each row")
            out[name] = flat.reshape(len(column), -1)
        else:
            out[name] = column.to_numpy(zero_copy_only=False)
    for name in ("step_per_trajectory", "len_list", "n_unique_action"):
        if name in out and out[name].size:
            out[name] = np.asarray(out[name].reshape(-1)[0])
    return out


def record_kind(columns: dict[str, Any]) -> Record:
    """Which kind of record the columns hold."""
    if "slate_id" in columns:
        return "slate"
    if "step_per_trajectory" in columns:
        return "trajectory"
    return "bandit"


def _of_known_dataset(path: Path) -> dict[str, NDArray[Any]] | None:
    """Columns of DATASET/POLICY (`obd-women/bts`), or None where no known dataset is named.

    Raises:
        LogError: the dataset has no rounds of that policy, or is not there.
    """
    name, *policy = path.parts or ("",)
    if name not in DATASETS or path.exists():
        return None
    rounds = read_dataset(name).rounds
    if len(policy) == 1 and policy[0] in rounds:
        return rounds[policy[0]].columns()
    if not rounds:
        raise LogError(f"LOG: '{path}': the dataset '{name}' holds no logged rounds; give a .npz or .parquet file")
    known = " or ".join(f"'{name}/{one}'" for one in sorted(rounds))
    raise LogError(f"LOG: '{path}' names no logging policy of '{name}'; give {known}")


def read_log(path: Path) -> tuple[Rounds | Slates | Trajectories, dict[str, NDArray[Any]]]:
    """The record in a log file, or of DATASET/POLICY where a dataset has logged rounds; and its columns."""
    columns = _of_known_dataset(path)
    if columns is None:
        columns = read_columns(path)
    kind = record_kind(columns)
    if kind == "slate":
        return Slates.from_rows(columns), columns
    if kind == "trajectory":
        return Trajectories.from_rows(columns), columns
    for name in ("action", "reward"):
        if name not in columns:
            raise LogError(f"{name}: '{path.name}' has no such column{did_you_mean(name, columns)}; add or rename it")
    given = {name: columns[name] for name in _BANDIT if name in columns}
    if "action_context" in given:  # Open Bandit Pipeline's name
        given.setdefault("action_features", given["action_context"])
        del given["action_context"]
    if "pi_b" in given and given["pi_b"].ndim == 3:
        given["pi_b"] = _of_position(given["pi_b"], given.get("position"))
    return Rounds(**given), columns


def _of_position(pi_b: NDArray[Any], position: NDArray[Any] | None) -> NDArray[Any]:
    """[n, A] of Open Bandit Pipeline's [n, A, positions]: the logging policy at the position of each round."""
    n, _, positions = pi_b.shape
    slot = np.zeros(n, dtype=np.int64) if position is None else indices_of("position", position, (n,))
    if slot.max(initial=-1) >= positions:
        raise LogError(f"position: {slot.max()} is beyond the {positions} positions of pi_b; number them 0, 1, 2, ...")
    return np.asarray(pi_b[np.arange(n), :, slot])


def read_continuous(path: Path) -> tuple[ContinuousRounds, dict[str, NDArray[Any]]]:
    """Rounds with a continuous action, and the file's columns."""
    columns = read_columns(path)
    for name in ("action", "reward", "pscore", "action_range"):
        if name not in columns:
            raise LogError(f"{name}: '{path.name}' has no such column{did_you_mean(name, columns)}; add or rename it")
    limits = np.asarray(columns["action_range"], dtype=np.float64).reshape(-1)
    if len(limits) != 2:
        raise LogError(f"action_range: {len(limits)} numbers must be two, the lowest and the highest action")
    return ContinuousRounds(
        columns["action"],
        columns["reward"],
        columns["pscore"],
        (float(limits[0]), float(limits[1])),
        user=columns.get("user"),
        context=columns.get("context"),
    ), columns


def read_policy(path: Path, what: str = "--policy") -> tuple[Floats, Floats | None]:
    """Policy `pi_e` and, where there, `q_hat` from a .npz, .npy or .parquet file."""
    if path.suffix == ".npy":
        if not path.is_file():
            raise LogError(f"{what}: '{path}' is not there; give a .npz or .npy file")
        try:
            return np.load(path, allow_pickle=False, mmap_mode="r"), None
        except (ValueError, OSError, EOFError) as error:
            raise LogError(
                f"{what}: '{path.name}' cannot be read as numbers ({error}); save it with numpy.save"
            ) from error
    columns = read_columns(path, what)
    if "pi_e" not in columns:
        raise LogError(f"{what}: '{path.name}' has no array 'pi_e'{did_you_mean('pi_e', columns)}; add it")
    return columns["pi_e"], columns.get("q_hat")
