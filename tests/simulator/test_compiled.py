"""Compiled code on disk is stale as soon as anything that was compiled into it has changed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from simulator import _compiled, kernel, users

LOW = "from numba import njit\n\n@njit(cache=True, inline='always')\ndef low():\n    return {}\n"
HIGH = (
    "from numba import njit\nfrom simulator import _compiled\nfrom simulator.low import low\n\n"
    "@njit(cache=True)\ndef high():\n    return low()\n"
)


def test_a_function_follows_a_change_in_another_file(tmp_path: Path) -> None:
    package = tmp_path / "simulator"
    package.mkdir()
    shutil.copy(_compiled.__file__, package / "_compiled.py")
    (package / "high.py").write_text(HIGH)
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    asked = [sys.executable, "-c", "from simulator.high import high; print(high(), len(high.stats.cache_hits))"]
    answers = []
    for value in (1, 1, 2):
        (package / "low.py").write_text(LOW.format(value))
        done = subprocess.run(
            asked, cwd=tmp_path, env=environment | {"PYTHONPATH": str(tmp_path)}, capture_output=True, check=True
        )
        answers.append(done.stdout.decode().split())
    assert answers == [["1", "0"], ["1", "1"], ["2", "0"]]


def test_the_sources_of_the_kernel_are_its_own_modules_and_what_they_are_compiled_with() -> None:
    names = {path.name for path in _compiled.sources(Path(kernel.__file__))}
    assert {"draws.py", "layout.py", "showing.py", "answering.py", "stepping.py", "sessions.py", "_vector.py"} < names
    assert not names & {"users.py", "world.py", "env.py"}
    assert names < {path.name for path in _compiled.sources(Path(users.__file__))}, "a package named in an import"
