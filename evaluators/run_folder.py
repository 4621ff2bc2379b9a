"""What a run leaves on disk: the report, its page, the scenario as it was resolved, and the flights as tables."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from simulator.cache import write_atomically

if TYPE_CHECKING:
    import pyarrow as pa

    from evaluators.judging import Judged
    from evaluators.report import Report


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other processes from writing to a run's folder, made if it is not there; waits while one of them does.

    Each file is whole at any time; this keeps the files of two runs with one digest and one `--out` from being mixed.
    The lock is the operating system's, so it ends with the process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    place = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(place, fcntl.LOCK_EX)
        yield
    finally:
        os.close(place)


def write_run(
    folder: Path,
    report: Report,
    judged: Mapping[str, Sequence[Judged]],
    *,
    scenario_text: str,
    beside: Callable[[Path], None] | None = None,
) -> None:
    """Write the tables of flights, scenario.yaml, report.html and, last, report.json; each whole or not at all.

    Args:
        folder: of this run; made if it is not there. No other run writes to it meanwhile.
        report: what the run found.
        judged: agent -> what each of its training seeds did.
        scenario_text: the resolved scenario as YAML.
        beside: writes whatever else of the run belongs into the folder.
    """
    import pyarrow.parquet as pq

    text = report.to_json_text()
    with alone_in(folder):
        write_atomically(folder / "users.parquet", lambda path: pq.write_table(_users(judged), path))
        write_atomically(folder / "sessions.parquet", lambda path: pq.write_table(_sessions(judged), path))
        write_atomically(folder / "scenario.yaml", lambda path: _write_text(path, scenario_text))
        if beside is not None:
            beside(folder)
        _write_page(folder / "report.html", text)
        write_atomically(folder / "report.json", lambda path: _write_text(path, text))


def write_ids(folder: Path, user_ids: Sequence[str], item_ids: Sequence[str]) -> None:
    """Write ids.parquet: the log's own id of each user and item that the other tables name by number.

    Args:
        folder: of the run.
        user_ids: [U], by number.
        item_ids: [I], by number.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "kind": pa.array(["user"] * len(user_ids) + ["item"] * len(item_ids)).dictionary_encode(),
            "number": np.concatenate([np.arange(len(user_ids)), np.arange(len(item_ids))]),
            "id": pa.array([*user_ids, *item_ids], pa.string()),
        }
    )
    write_atomically(folder / "ids.parquet", lambda path: pq.write_table(table, path))


def write_fidelity(folder: Path, report: Report) -> None:
    """Write fidelity.html and, last, fidelity.json: the report of the stages before any agent, beside that of a run.

    Args:
        folder: of the run with the same digest; made if it is not there.
        report: has no agents.
    """
    text = report.to_json_text()
    with alone_in(folder):
        _write_page(folder / "fidelity.html", text)
        write_atomically(folder / "fidelity.json", lambda path: _write_text(path, text))


def render_again(folder: Path) -> Path:
    """Render report.html again from the report.json on disk; returns the page's path."""
    from evaluators.page import write_page
    from evaluators.report import Report

    page = folder / "report.html"
    if not folder.is_dir():
        Report.read(folder / "report.json")  # says what is wrong
    with alone_in(folder):
        report = Report.read(folder / "report.json")
        write_atomically(page, lambda path: write_page(report, path))
    return page


def _write_page(page: Path, text: str) -> None:
    """The page of a report as it will be read back, so that rendering it again gives the same page."""
    from evaluators.page import write_page
    from evaluators.report import Report

    report = Report.model_validate_json(text)
    write_atomically(page, lambda path: write_page(report, path))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _users(judged: Mapping[str, Sequence[Judged]]) -> pa.Table:
    """One row an agent, training seed, world and user, with the user's metrics."""
    import pyarrow as pa

    tables = []
    for name, many in judged.items():
        for one in many:
            for flight in one.flights:
                n = len(flight.user)
                columns = {
                    "agent": pa.array([name] * n),
                    "training_seed": np.full(n, flight.training_seed),
                    "world": np.full(n, flight.world),
                    "seed": np.full(n, flight.seed),
                    "session": np.full(n, flight.session),
                    "user": flight.user,
                    **{metric: np.asarray(values, np.float64) for metric, values in sorted(flight.values.items())},
                }
                tables.append(pa.table(columns))
    return _one_table(tables)


def _sessions(judged: Mapping[str, Sequence[Judged]]) -> pa.Table:
    """What was shown and clicked in judge world 1: one row a slate."""
    import pyarrow as pa

    tables = []
    for name, many in judged.items():
        for one in many:
            sessions = one.first
            row, step = np.nonzero(np.arange(sessions.slate.shape[1])[None, :] < sessions.length[:, None])
            slates, clicks = sessions.slate[row, step], sessions.clicks[row, step]
            width = slates.shape[1]
            columns = {
                "agent": pa.array([name] * len(row)),
                "training_seed": np.full(len(row), sessions.training_seed),
                "user": sessions.user[row],
                "step": step,
                "slate": pa.FixedSizeListArray.from_arrays(pa.array(slates.ravel()), width),
                "clicks": pa.FixedSizeListArray.from_arrays(pa.array(clicks.ravel()), width),
            }
            tables.append(pa.table(columns))
    return _one_table(tables)


def _one_table(tables: Sequence[pa.Table]) -> pa.Table:
    import pyarrow as pa

    return pa.concat_tables(tables) if tables else pa.table({"agent": pa.array([], pa.string())})
