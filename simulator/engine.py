"""Independent tasks on many cores or machines: joblib with its loky or dask backend, the same results from either.

A task stores its own result in the stage cache, in the process that computed it, so what was finished survives
whatever happens to the rest.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simulator.cache import StageCache, code_digest, digest_of, library_versions
from simulator.errors import InputError

Report = Callable[[float, str], None]
"""Called by a long task with the fraction done in [0, 1] and a few words."""

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
"""One BLAS, torch and numba thread a task: sums do not change with the number of workers, and cores go to processes."""


_DASK_ADDRESS = re.compile(r"dask:((tcp|tls|wss?)://)?[^\s/]+:\d{1,5}")


def _never(result: Any) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Task:
    """One unit of work with a key by which its result is stored.

    Attributes:
        stage: name of the stage; name: of the task within it, for people.
        run: a module-level function called as `run(*inputs, report=...)` with the inputs below.
        inputs: what `run` gets; picklable.
        depends: what the result depends on, instead of hashing `inputs` (keys of upstream tasks, settings).
        code: parts of the project whose source the result depends on, beside the file of `run`.
        passing: whether a result holds for this run alone, so that a later one computes it again.
        scratch: stages in which it keeps under its own key what is of use only until its result is stored.
    """

    stage: str
    name: str
    run: Callable[..., Any]
    inputs: tuple[Any, ...]
    depends: tuple[Any, ...]
    code: tuple[str, ...]
    passing: Callable[[Any], bool] = _never
    scratch: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Key of the stored result."""
        own = self.run.__code__.co_filename
        return digest_of(
            self.stage, self.run.__qualname__, self.depends, code_digest(own, *self.code), dict(library_versions())
        )


@dataclass(frozen=True, slots=True)
class Done:
    """Result of a task with what it took.

    Attributes:
        result: what the task returned.
        cpu_seconds: processor time of the process while it ran (0 where read from the cache).
        cached: whether it was read from the cache.
    """

    result: Any
    cpu_seconds: float
    cached: bool


def _limit_threads() -> None:
    os.environ.update(ONE_THREAD)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import sys

    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def _children_cpu() -> float:
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def _report_to(path: Path | None) -> Report:
    """A report function that leaves its last word in a small file, at most four times a second."""
    last = 0.0

    def report(fraction: float, text: str = "") -> None:
        nonlocal last
        now = time.monotonic()
        if path is None or (now - last < 0.25 and fraction < 1):
            return
        last = now
        try:
            path.write_text(f"{fraction:.4f} {text}")
        except OSError:  # progress is a courtesy: a full disk must not end a run here
            return

    return report


def _keep_this_worker() -> None:
    """Tell loky that a worker which has grown is no leak: torch alone adds more than the 300 MB that it allows.

    A worker that it ends for that while others' inputs are under way can leave the queue locked for ever (seen on a
    loaded machine); there is no public setting.
    """
    from joblib.externals.loky import process_executor

    process_executor._MAX_MEMORY_LEAK_SIZE = float("inf")


def _run_and_store(cache: StageCache, task: Task, key: str, progress: Path | None) -> None:
    from threadpoolctl import threadpool_limits

    _limit_threads()
    _keep_this_worker()
    report = _report_to(progress)
    report(0.0, "")
    # What this process had loaded before the variables were set goes by this alone: a program that calls `run`.
    with cache.claim(task.stage, key), threadpool_limits(1):
        if not cache.has(task.stage, key):  # another run may have stored it while this one waited
            before = _children_cpu()
            result = task.run(*task.inputs, report=report)
            cache.store(task.stage, key, (result, _children_cpu() - before))
        for stage in task.scratch:
            cache.drop(stage, key)
    report(1.0, "")  # not every task says how far it is


@dataclass(slots=True)
class Engine:
    """Maps tasks over workers.

    Attributes:
        cache: where results are stored.
        workers: processes of the local backend; 1 runs tasks one after another in this process.
        address: "" for local processes, "dask" for a dask cluster on this machine, "dask:tcp://host:port" for a
            scheduler that runs already.
    """

    cache: StageCache
    workers: int
    address: str = ""
    _client: Any = field(default=None, repr=False)

    @property
    def serial(self) -> bool:
        """Whether tasks run one after another in this process."""
        return self.workers == 1 and not self.address

    def map(self, tasks: Sequence[Task], show: Callable[[float, str], None] | None = None) -> list[Done]:
        """Run those tasks whose result is not stored yet, side by side; results in the order of `tasks`.

        Args:
            tasks: independent tasks.
            show: called from time to time with the fraction of all tasks done and a few words.
        """
        keys = [task.key for task in tasks]
        waiting = [(task, key) for task, key in zip(tasks, keys, strict=True) if not self.cache.has(task.stage, key)]
        fresh = {key for _, key in waiting}
        if waiting:
            self._compute(waiting, show, already=len(tasks) - len(waiting))
        done = []
        for task, key in zip(tasks, keys, strict=True):
            result, used = self.cache.load(task.stage, key)
            if task.passing(result):
                self.cache.drop(task.stage, key)
            for stage in task.scratch:  # of a process that was killed after it had stored its result
                self.cache.drop(stage, key)
            done.append(Done(result, used, cached=key not in fresh))
        return done

    def _compute(
        self, waiting: list[tuple[Task, str]], show: Callable[[float, str], None] | None, already: int
    ) -> None:
        import joblib

        # Long tasks first: with two workers the last one to start decides when all have ended.
        progress = self.cache.folder / "progress" / str(os.getpid())
        progress.mkdir(parents=True, exist_ok=True)
        paths = [progress / str(number) for number in range(len(waiting))]
        stop = threading.Event()
        watcher = threading.Thread(
            target=_watch, args=([task for task, _ in waiting], paths, show, already, stop), daemon=True
        )
        watcher.start()
        try:
            if self.serial:
                for (task, key), path in zip(waiting, paths, strict=True):
                    _run_and_store(self.cache, task, key, path)
            else:
                with self._backend():
                    joblib.Parallel(n_jobs=self.workers, batch_size=1, pre_dispatch="all")(
                        joblib.delayed(_run_and_store)(self.cache, task, key, path)
                        for (task, key), path in zip(waiting, paths, strict=True)
                    )
        finally:
            stop.set()
            watcher.join()
            for path in paths:
                path.unlink(missing_ok=True)

    def _backend(self) -> AbstractContextManager[Any]:
        import joblib

        if not self.address:
            os.environ.update(ONE_THREAD)  # inherited by the workers, before they import numpy
            return (
                joblib.parallel_config(backend="loky", inner_max_num_threads=1) if self.workers > 1 else nullcontext()
            )
        if self._client is None:
            from dask.distributed import Client, LocalCluster

            where = self.address.partition(":")[2]
            try:
                self._client = (
                    Client(where, timeout=10)
                    if where
                    else Client(
                        LocalCluster(
                            n_workers=self.workers, threads_per_worker=1, dashboard_address=None, host="127.0.0.1"
                        )
                    )
                )
            except (OSError, TypeError, ValueError, OverflowError) as error:  # TypeError: tls without certificates
                raise InputError(
                    f"--engine: no dask scheduler answers at '{where}' ({error}); start one or leave --engine out"
                ) from error
        return joblib.parallel_config(backend="dask")


def _watch(
    waiting: list[Task],
    paths: list[Path],
    show: Callable[[float, str], None] | None,
    already: int,
    stop: threading.Event,
) -> None:
    """Add up what the running tasks left in their progress files until told to stop."""
    while not stop.wait(0.5):
        if show is None:
            continue
        done, words = float(already), ""
        for task, path in zip(waiting, paths, strict=True):
            try:
                fraction, _, text = path.read_text().partition(" ")
                done += float(fraction)
                if float(fraction) < 1:
                    words = f"{task.name} {text}".strip()
            except (OSError, ValueError):  # not started yet, or caught in the middle of a write
                continue
        show(done / (already + len(waiting)), words)


def parse_engine(text: str) -> str:
    """Check `--engine`: "local", "dask" or "dask:ADDRESS"; returns the address form that `Engine` takes.

    Raises:
        InputError: it is something else.
    """
    if text == "local":
        return ""
    if text == "dask" or _DASK_ADDRESS.fullmatch(text):
        return text
    raise InputError(f"--engine: '{text}' is not an engine; use local, dask or dask:tcp://host:port")
