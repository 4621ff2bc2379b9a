"""RecBole's atomic files: a folder with NAME.inter and, if there are any, NAME.user and NAME.item."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from simulator.datasets.build import Tables
from simulator.datasets.tables import read_table
from simulator.errors import LogError


def read_atomic(folder: Path, *, wanted: Collection[str] | None = None) -> Tables:
    """Tables of a folder of atomic files.

    Args:
        folder: the folder.
        wanted: columns of the log that will be asked for; None: any may be.

    Raises:
        LogError: there is no .inter file, or more than one.
    """
    logs = sorted(folder.glob("*.inter"))
    if len(logs) != 1:
        found = "no .inter file" if not logs else f"{len(logs)} .inter files ({', '.join(p.name for p in logs[:3])})"
        raise LogError(f"data.source: '{folder}' has {found}; a folder of RecBole atomic files has exactly one")
    log = logs[0]
    users, items = log.with_suffix(".user"), log.with_suffix(".item")
    return Tables(
        log=read_table(log, "data.source", atomic=True, wanted=wanted),
        items=read_table(items, "data.source", atomic=True) if items.exists() else None,
        users=read_table(users, "data.source", atomic=True) if users.exists() else None,
    )
