"""The stage cache and its digests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from simulator.cache import StageCache, digest_of, write_atomically


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
