"""Progress for a person: a live bar where the stream is a terminal, plain lines where it is not."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any

QUIET_SECONDS = 2.0
"""A stage that ends sooner says nothing while it runs."""
LINE_SECONDS = 10.0
"""Plain lines come no more often than this."""


def _clock(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 60}:{whole % 60:02d}"


@dataclass(slots=True)
class StageProgress:
    """One stage under way: call it with the fraction done and a few words.

    Attributes:
        name: of the stage. began: on the monotonic clock. show: how it is shown.
        fraction: done, in [0, 1].
        elsewhere: processor seconds spent on it in other processes.
    """

    name: str
    began: float
    show: Any
    fraction: float = 0.0
    elsewhere: float = 0.0

    def __call__(self, fraction: float, text: str = "") -> None:
        """Say that this share of the stage is done, in [0, 1]."""
        self.fraction = min(max(fraction, self.fraction), 1.0)
        self.show(self, text)

    def left(self) -> float | None:
        """Seconds left at the rate so far, or None while that cannot be told."""
        spent = time.monotonic() - self.began
        return None if self.fraction < 0.02 else spent * (1 - self.fraction) / self.fraction


@dataclass(slots=True)
class Progress:
    """Times stages and shows how far they are.

    Attributes:
        stream: where to write; None is silent.
        seconds: wall-clock seconds of the stages that ended, by name.
        cpu_seconds: their processor seconds, all processes together.
    """

    stream: IO[str] | None = field(default_factory=lambda: sys.stderr)
    seconds: dict[str, float] = field(default_factory=dict)
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    _bar: Any = None
    _spoke: float = 0.0

    @contextmanager
    def stage(self, name: str) -> Iterator[StageProgress]:
        """Run a stage under this name; yields the callable that takes the fraction done."""
        began, began_cpu = time.monotonic(), time.process_time()
        live = self.stream is not None and self.stream.isatty()
        handle = StageProgress(name, began, self._show_bar if live else self._show_line)
        self._spoke = began
        try:
            yield handle
        finally:
            if self._bar is not None:
                self._bar.stop()
                self._bar = None
            cpu = time.process_time() - began_cpu + handle.elsewhere
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - began
            self.cpu_seconds[name] = self.cpu_seconds.get(name, 0.0) + cpu
        done = f"{name}: done in {_clock(time.monotonic() - began)}, {cpu:.0f} processor seconds"
        self.say(done, after=QUIET_SECONDS, began=began)

    def say(self, text: str, *, after: float = 0.0, began: float | None = None) -> None:
        """Write one line, unless less than `after` seconds went by since `began`."""
        if self.stream is None or (began is not None and time.monotonic() - began < after):
            return
        self.stream.write(text + os.linesep)
        self.stream.flush()

    def _show_line(self, stage: StageProgress, text: str) -> None:
        now = time.monotonic()
        if now - stage.began < QUIET_SECONDS or now - self._spoke < LINE_SECONDS:
            return
        self._spoke = now
        left = stage.left()
        rest = f", {_clock(left)} left" if left is not None else ""
        self.say(f"{stage.name}: {stage.fraction:.0%} {text} ({_clock(now - stage.began)} so far{rest})")

    def _show_bar(self, stage: StageProgress, text: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        if time.monotonic() - stage.began < QUIET_SECONDS:
            return
        if self._bar is None:
            columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(show_speed=True),
                       TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[words]}"))  # fmt: skip
            self._bar = Bar(*columns, console=Console(file=self.stream), transient=True)
            self._bar.add_task(stage.name, total=1.0, words="")
            self._bar.start()
        self._bar.update(self._bar.task_ids[0], completed=stage.fraction, words=text)
