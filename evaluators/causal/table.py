"""The table that `windtunnel effect` reads: arms, outcome, propensities, covariates, groups."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evaluators.fairness.groups import UNKNOWN
from simulator.datasets.tables import read_table
from simulator.errors import InputError, LogError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


MOST_LEVELS = 50
MOST_GROUPS = 12


def read_frame(path: Path) -> pd.DataFrame:
    """The rows of a `.csv`, `.csv.gz` or `.parquet`, as a scenario's log is read, with columns of numbers as numbers.

    Raises:
        LogError: there is no such file, or it cannot be read.
    """
    import pandas as pd

    if not path.exists():
        raise LogError(f"log: '{path}' is not there; give a .csv, .csv.gz or .parquet file")
    if not path.name.lower().endswith((".parquet", ".csv", ".csv.gz")):
        raise LogError(f"log: '{path.name}' is neither .csv, .csv.gz nor .parquet; convert it")
    columns = read_table(path, "log").columns
    return pd.DataFrame({name: _typed(column.to_pandas()) for name, column in columns.items()})


MISSING = ("", "na", "n/a", "nan", "null")
"""Not "none", which is the name of an arm as often as a missing value."""


def _typed(column: pd.Series[Any]) -> pd.Series[Any]:
    """A column of text as numbers or truth values where all of it is that, missing ones as such."""
    import pandas as pd

    if column.dtype != object:
        return column
    lower = column.str.strip().str.lower()
    there = column.where(~lower.isin(MISSING))
    if lower.isin(("true", "false")).all():
        return lower == "true"
    numbers = pd.to_numeric(there, errors="coerce")
    return numbers if bool((numbers.isna() == there.isna()).all()) else there


def as_text(column: pd.Series[Any], field_name: str, name: str) -> NDArray[np.str_]:
    """[n] a column as text, whole numbers without their point.

    Raises:
        LogError: a value is missing.
    """
    if column.isna().any():
        raise LogError(f"{field_name}: '{name}' is missing in {int(column.isna().sum())} rows; drop or fill them")
    if column.dtype.kind == "f" and bool((column == column.round()).all()):
        column = column.astype("int64")
    return column.astype(str).str.strip().to_numpy(dtype=np.str_)


def as_numbers(column: pd.Series[Any], field_name: str, name: str) -> Floats:
    """[n] a column as numbers.

    Raises:
        LogError: a value is missing or no number.
    """
    import pandas as pd

    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(numbers))
    if len(bad):
        found = column.iloc[int(bad[0])]
        raise LogError(
            f"{field_name}: '{name}' is '{found}' in row {bad[0]} ({len(bad)} such rows); numbers are needed"
        )
    return numbers


def control_of(values: Sequence[str], control: str | None, treatment: str) -> str:
    """The value that is the control: as asked, or the one whose name says so.

    Raises:
        LogError: it is not among the values, or none or several are named so.
    """
    if control is not None:
        asked = str(control).strip()
        if asked in values:
            return asked
        hint = did_you_mean(asked, values) or f"; it has {', '.join(values[:5])}"
        raise LogError(f"control: '{control}' is not a value of '{treatment}'{hint}")
    named = [v for v in values if v.lower() in ("0", "false", "control", "none") or v.lower().split(" ")[0] == "no"]
    if len(named) != 1:
        raise LogError(f"control: not given, and '{treatment}' has {', '.join(values[:5])}; say which is the control")
    return named[0]


def known_propensity(
    frame: pd.DataFrame, propensity: str | None, treatments: Sequence[str]
) -> tuple[Floats | None, str | None]:
    """[n] probability of the treatment among the rows of it and of its control, and the column that it came from."""
    if propensity is None:
        return None, None
    k = len(treatments)
    if propensity in frame.columns:
        if k > 1:
            raise LogError(f"propensity: a column serves one treatment, here are {k}; keep two arms, or give a number")
        p, column = as_numbers(frame[propensity], "propensity", propensity), propensity
    else:
        try:
            each = float(propensity)
        except ValueError as error:
            near = did_you_mean(propensity, [str(c) for c in frame.columns])
            raise LogError(f"propensity: '{propensity}' is neither a number nor a column{near}") from error
        rest = 1 - k * each
        if not (0 < each < 1 and rest > 1e-9):
            raise LogError(
                f"propensity: {each:g} for each of {k} treatments leaves {rest:g} for the control; "
                "give each arm's share of all rows"
            )
        p, column = np.full(len(frame), each / (each + rest)), None
    if not ((p > 0) & (p < 1)).all():
        bad = float(p[~((p > 0) & (p < 1))][0])
        raise LogError(f"propensity: {bad:g} is outside (0, 1); rows with a certain arm say nothing: drop them")
    return p, column


def covariates(frame: pd.DataFrame) -> tuple[Floats, list[str]]:
    """Numeric design [n, d] and its names: numbers with the median for missing ones, categories one-hot."""
    parts: list[Floats] = []
    names: list[str] = []
    for name in frame.columns:
        column = frame[name]
        if column.dtype.kind in "biuf":
            numbers = column.to_numpy(dtype=np.float64)
            missing = ~np.isfinite(numbers)
            if missing.all():
                continue
            if missing.any():
                numbers = np.where(missing, np.median(numbers[~missing]), numbers)
                parts.append(missing.astype(np.float64))
                names.append(f"{name} is missing")
            parts.append(numbers)
            names.append(name)
            continue
        text = column.astype(str)
        counts = text.value_counts()
        if len(counts) > len(text) / 2:
            raise LogError(
                f"ignore: '{name}' has {len(counts)} values in {len(text)} rows, so it names rows; --ignore it"
            )
        for level in sorted(counts.index[:MOST_LEVELS])[1:]:
            parts.append((text == level).to_numpy(dtype=np.float64))
            names.append(f"{name}={level}")
    keep = [j for j, part in enumerate(parts) if part.min() != part.max()]
    if not keep:
        return np.zeros((len(frame), 1)), ["none"]
    return np.column_stack([parts[j] for j in keep]), [names[j] for j in keep]


def groups_of(column: pd.Series[Any]) -> NDArray[np.str_]:
    """[n] group of each row; numbers with many values are cut into quarters of the rows."""
    import pandas as pd

    if column.dtype.kind in "if" and column.nunique() > MOST_GROUPS:
        cut = pd.qcut(column, 4, duplicates="drop")
        return cut.astype(str).where(column.notna(), UNKNOWN).to_numpy(dtype=np.str_)
    if column.nunique() > MOST_LEVELS:
        raise InputError(f"by: '{column.name}' has {column.nunique()} groups; give a column with at most {MOST_LEVELS}")
    return column.astype(str).where(column.notna(), UNKNOWN).to_numpy(dtype=np.str_)
