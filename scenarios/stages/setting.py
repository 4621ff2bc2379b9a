"""What every stage of a run shares: the scenario, its random numbers, the engine with its cache, the progress."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scenarios.schema import Scenario
from simulator.cache import StageCache, default_cache_folder
from simulator.engine import ONE_THREAD, Engine, Task, parse_engine
from simulator.errors import InputError
from simulator.progress import Progress


@dataclass(frozen=True, slots=True)
class Setting:
    """What every stage of a run shares."""

    scenario: Scenario
    folder: Path
    root: np.random.SeedSequence
    engine: Engine
    progress: Progress
    cpu: dict[str, float]

    def map(self, stage: str, tasks: Sequence[Task]) -> list[Any]:
        """Results of tasks, with progress on show and processor seconds noted."""
        with self.progress.stage(stage) as show:
            done = self.engine.map(tasks, show)
            if not self.engine.serial:
                show.elsewhere = sum(one.cpu_seconds for one in done if not one.cached)
        for task, one in zip(tasks, done, strict=True):
            if not one.cached:
                self.cpu[f"{stage}/{task.name} (cpu)"] = one.cpu_seconds
        return [one.result for one in done]


@contextmanager
def open_setting(
    scenario: Scenario, folder: Path, progress: Progress, *, workers: int | None = None, engine: str = "local"
) -> Iterator[Setting]:
    """What the stages share, with the cache kept from being pruned meanwhile."""
    if workers is not None and workers < 1:
        raise InputError(f"--workers: {workers} must be at least 1")
    os.environ.update(ONE_THREAD)
    count = workers or os.cpu_count() or 1
    cache = StageCache(default_cache_folder())
    root = np.random.SeedSequence(scenario.seed)
    with cache.in_use():
        yield Setting(scenario, folder.resolve(), root, Engine(cache, count, parse_engine(engine)), progress, {})
