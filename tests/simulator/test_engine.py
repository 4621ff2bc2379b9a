"""Tasks side by side: order, storing, and equal results for any number of workers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from simulator.cache import StageCache, code_digest
from simulator.engine import Engine, Task, parse_engine
from simulator.errors import InputError


def noisy_sum(number: int, *, report: Callable[[float, str], None]) -> float:
    report(1.0, "summed")
    return float(np.random.default_rng(number).normal(size=1000).sum())


def fail_on_three(number: int, *, report: Callable[[float, str], None]) -> int:
    if number == 3:
        raise RuntimeError("three")
    return number


def threads(number: int, *, report: Callable[[float, str], None]) -> int:
    return max(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")


def tasks_of(run: Callable[..., object], numbers: range) -> list[Task]:
    return [Task("sum", f"sum {n}", run, (n,), (n,), ("simulator/streams.py",)) for n in numbers]


def test_results_are_in_order_and_equal_for_one_worker_and_two(tmp_path: Path) -> None:
    one = Engine(StageCache(tmp_path / "one"), workers=1).map(tasks_of(noisy_sum, range(5)))
    two = Engine(StageCache(tmp_path / "two"), workers=2).map(tasks_of(noisy_sum, range(5)))
    assert (
        [d.result for d in one] == [d.result for d in two] == [noisy_sum(n, report=lambda *_: None) for n in range(5)]
    )


def test_a_task_has_one_thread_in_a_process_that_has_more(tmp_path: Path) -> None:
    """Sums of two threads differ from those of one in their last digits, and so would reports of one worker and two."""
    with threadpool_limits(2):
        assert threads(0, report=lambda *_: None) == 2
        assert [d.result for d in Engine(StageCache(tmp_path), workers=1).map(tasks_of(threads, range(2)))] == [1, 1]
        assert threads(0, report=lambda *_: None) == 2


def test_what_was_done_before_a_failure_is_not_done_again(tmp_path: Path) -> None:
    engine = Engine(StageCache(tmp_path), workers=1)
    with pytest.raises(RuntimeError, match="three"):
        engine.map(tasks_of(fail_on_three, range(5)))
    done = engine.map(tasks_of(fail_on_three, range(3)))
    assert [d.cached for d in done] == [True, True, True]


def test_a_result_that_holds_for_this_run_alone_is_computed_again(tmp_path: Path) -> None:
    engine = Engine(StageCache(tmp_path), workers=1)
    tasks = [replace(task, passing=lambda result: result == 1) for task in tasks_of(fail_on_three, range(3))]
    assert [d.result for d in engine.map(tasks)] == [0, 1, 2]
    assert [d.cached for d in engine.map(tasks)] == [True, False, True]


def test_a_result_is_not_served_once_the_file_that_computed_it_has_changed(tmp_path: Path) -> None:
    place, keys = tmp_path / "stage.py", []
    for number in (1, 1, 2):
        place.write_text(f"def run(*, report):\n    return {number}\n", encoding="utf-8")
        module: dict[str, Any] = {}
        exec(compile(place.read_text(encoding="utf-8"), str(place), "exec"), module)
        code_digest.cache_clear()  # as in another process
        keys.append(Task("stage", "one", module["run"], (), (), ("simulator/streams.py",)).key)
    code_digest.cache_clear()
    assert keys[0] == keys[1] != keys[2]


def test_what_a_task_needs_while_it_is_under_way_goes_when_its_own_result_is_stored(tmp_path: Path) -> None:
    cache = StageCache(tmp_path)
    tasks = [replace(task, scratch=("halves",)) for task in tasks_of(fail_on_three, range(2, 4))]
    for task in tasks:
        cache.store("halves", task.key, "half")
    with pytest.raises(RuntimeError, match="three"):
        Engine(cache, workers=1).map(tasks)
    assert [cache.has("halves", task.key) for task in tasks] == [False, True]
    cache.store("halves", tasks[0].key, "half")  # of a process that was killed between the two
    Engine(cache, workers=1).map(tasks[:1])
    assert not cache.has("halves", tasks[0].key)


def silent(number: int, *, report: Callable[[float, str], None]) -> int:
    time.sleep(0.6)
    return number


def test_a_task_that_says_nothing_of_how_far_it_is_counts_once_it_is_done(tmp_path: Path) -> None:
    shown: list[tuple[float, str]] = []
    Engine(StageCache(tmp_path), workers=1).map(tasks_of(silent, range(3)), lambda *what: shown.append(what))
    assert any(0 < fraction < 1 for fraction, _ in shown)
    assert {words for _, words in shown} & {task.name for task in tasks_of(silent, range(3))}


def test_an_unknown_engine_is_named() -> None:
    for address in ("dask:tcp://127.0.0.1:8786", "dask:tls://scheduler:8786", "dask:scheduler:8786"):
        assert parse_engine(address) == address
    with pytest.raises(InputError, match="--engine: 'spark' is not an engine"):
        parse_engine("spark")


@pytest.mark.parametrize("text", ["dask:", "dask:here", "dask:tcp://127.0.0.1", "dask:file://127.0.0.1:8786"])
def test_an_address_without_a_port_is_told_before_anything_is_fitted(text: str) -> None:
    """A dask client raised ValueError at the first stage with several tasks: a traceback and exit code 70."""
    with pytest.raises(
        InputError, match=f"--engine: '{text}' is not an engine; use local, dask or dask:tcp://host:port"
    ):
        parse_engine(text)
