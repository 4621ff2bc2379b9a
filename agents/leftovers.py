"""Processes that a user's own agent started and left behind, also in a session of their own: found by a mark, ended."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

__all__ = ["MARK", "end_marked"]

MARK = "WINDTUNNEL_AGENT"
"""Variable of the environment whose value all processes of one agent inherit."""

ROUNDS = 5
"""Looks at the list of processes: one may start another while it is read."""


def end_marked(value: str) -> None:
    """End every other process of this user whose environment began with `MARK=value`, where there is a /proc."""
    wanted = f"{MARK}={value}".encode()
    for _ in range(ROUNDS):
        found = [pid for pid in _processes() if wanted in _environment(pid)]
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if not found:
            return


def _processes() -> list[int]:
    try:
        names = os.listdir("/proc")
    except OSError:
        return []
    return [int(name) for name in names if name.isdigit() and int(name) != os.getpid()]


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # gone, or not ours
        return []
