"""The stage cache and its digests."""

from __future__ import annotations

import datetime as dt
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from simulator.cache import StageCache, digest_of, write_atomically
from simulator.errors import InputError


def test_equal_content_has_an_equal_digest_and_any_change_another() -> None:
    a = np.arange(6.0)
    assert digest_of(a, {"x": 1, "y": [2, "3"]}) == digest_of(a.copy(), {"y": [2, "3"], "x": 1})
    others = [
        digest_of(a.reshape(2, 3), {"x": 1, "y": [2, "3"]}),
        digest_of(a.astype(np.float32), {"x": 1, "y": [2, "3"]}),
        digest_of(a, {"x": 1, "y": [2, 3]}),
        digest_of(a, {"x": True, "y": [2, "3"]}),
        digest_of(a, {"x": 1}, {"y": [2, "3"]}),
    ]
    assert len({digest_of(a, {"x": 1, "y": [2, "3"]}), *others}) == 6


def test_what_cannot_be_told_by_content_has_no_digest() -> None:
    with pytest.raises(TypeError, match="digest of a object"):
        digest_of(object())


def test_a_write_that_breaks_off_leaves_nothing_behind(tmp_path: Path) -> None:
    def half(path: Path) -> None:
        path.write_text("half")
        raise KeyboardInterrupt

    target = tmp_path / "result.json"
    with pytest.raises(KeyboardInterrupt):
        write_atomically(target, half)
    assert list(tmp_path.iterdir()) == []


def test_a_result_comes_back_whole(tmp_path: Path) -> None:
    cache = StageCache(tmp_path)
    assert not cache.has("train", "ab" * 32)
    cache.store("train", "ab" * 32, {"curve": np.arange(3)})
    assert cache.has("train", "ab" * 32)
    assert cache.load("train", "ab" * 32)["curve"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda whole: b"", id="empty"),
        pytest.param(lambda whole: whole[:40], id="cut"),
        pytest.param(lambda whole: whole.replace(b"told", b"\xff" * 4), id="no text"),
        pytest.param(lambda whole: whole.replace(b"date", b"gate"), id="another class"),
    ],
)
def test_a_damaged_result_is_named_and_removed_so_that_the_next_run_computes_it(
    damage: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    """It was a traceback with the promise that the same command goes on, which it never did."""
    cache = StageCache(tmp_path)
    cache.store("fit", "key", {"told": dt.date(2024, 1, 1), "curve": np.arange(100.0)})
    path = cache.path("fit", "key")
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert path.read_bytes() != whole
    with pytest.raises(
        InputError, match=r"WINDTUNNEL_CACHE: '.*key\.pkl' was damaged \(.*\) and is removed; run the same"
    ):
        cache.load("fit", "key")
    assert not cache.has("fit", "key")


def test_of_two_runs_that_need_a_result_one_computes_it(tmp_path: Path) -> None:
    cache, computed = StageCache(tmp_path), []

    def need() -> None:
        with cache.claim("fit", "k" * 64):
            if not cache.has("fit", "k" * 64):
                computed.append(1)
                time.sleep(0.05)
                cache.store("fit", "k" * 64, 1)

    threads = [threading.Thread(target=need) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert computed == [1]
    assert list((tmp_path / "claims").iterdir()) == []


def test_prune_takes_what_was_not_of_use_lately_and_nothing_while_a_run_lasts(tmp_path: Path) -> None:
    cache = StageCache(tmp_path)
    for stage, key in (("fit", "old"), ("fit", "new"), ("train", "old")):
        cache.store(stage, key, list(range(100)))
        if key == "old":
            os.utime(cache.path(stage, key), (0, 0))
    (tmp_path / "agent-logs").mkdir()
    (tmp_path / "agent-logs" / "mine.log").write_text("said")
    assert [(h.stage, h.count) for h in cache.contents()] == [("fit", 2), ("train", 1)]
    assert all(h.size > 100 for h in cache.contents())

    with cache.in_use(), pytest.raises(InputError, match="a run is using it"):
        cache.prune()
    with pytest.raises(InputError, match="--stage: 'fits' is not in the cache; it holds fit, train"):
        cache.prune(stage="fits")
    cache.load("train", "old")  # of use again
    assert cache.prune(days=30).count == 1
    assert [(h.stage, h.count) for h in cache.contents()] == [("fit", 1), ("train", 1)]
    assert cache.has("fit", "new")
    assert cache.prune(stage="train").count == 1
    assert (tmp_path / "agent-logs" / "mine.log").exists()


def test_prune_takes_what_a_killed_writer_left_half_written(tmp_path: Path) -> None:
    cache = StageCache(tmp_path)
    cache.store("fit", "whole", 1)
    left = [tmp_path / "fit" / f".k.pkl.{age}.part" for age in ("old", "new")]
    for path in left:
        path.write_bytes(b"half")
    os.utime(left[0], (0, 0))
    assert [(h.stage, h.count) for h in cache.contents()] == [("fit", 1)]
    assert cache.prune(days=30).size == 4
    assert [path.exists() for path in left] == [False, True]
    assert cache.prune().count == 2
    assert not left[1].exists()


def test_a_claim_let_go_while_others_wait_is_taken_over_without_a_failure(tmp_path: Path) -> None:
    # A waiter finds its file removed between any two of its own calls: it must take another, not fail.
    cache, taken, failed = StageCache(tmp_path), [], []

    def take() -> None:
        try:
            for _ in range(200):
                with cache.claim("fit", "k" * 64):
                    taken.append(1)
        except OSError as error:
            failed.append(error)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert len(taken) == 8 * 200
