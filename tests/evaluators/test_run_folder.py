"""A run's folder holds the files of one run. Sabotaged once and seen red: the lock left out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from evaluators import run_folder
from evaluators.report import Report
from simulator.cache import write_atomically
from tests.evaluators.example_report import example_report


def test_two_runs_with_one_folder_do_not_mix_their_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One run is slow before its scenario, the other slower before its report: unlocked, each ends with a word."""
    slow = {"first": ("scenario.yaml", 0.3), "second": ("report.json", 1.0)}

    def slowly(path: Path, write: Callable[[Path], None]) -> None:
        name, seconds = slow[threading.current_thread().name]
        if path.name == name:
            time.sleep(seconds)
        write_atomically(path, write)

    monkeypatch.setattr(run_folder, "write_atomically", slowly)
    monkeypatch.setattr(run_folder, "_write_page", lambda page, text: None)

    def leave(name: str) -> None:
        def models(folder: Path) -> None:
            slowly(folder / "preference", lambda path: path.write_text(name) and None)

        report = example_report(name=name)
        run_folder.write_run(tmp_path / "run", report, {}, scenario_text=name, beside=models)

    runs = [threading.Thread(target=leave, args=(name,), name=name) for name in slow]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    last = Report.read(tmp_path / "run" / "report.json").name
    assert (tmp_path / "run" / "scenario.yaml").read_text() == last
    assert (tmp_path / "run" / "preference").read_text() == last
