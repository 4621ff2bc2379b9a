"""What a person sees of a long stage, by a clock that the test moves."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest

from simulator import progress
from simulator.progress import Progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    now = SimpleNamespace(wall=100.0, cpu=5.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now.wall, process_time=lambda: now.cpu))
    return now


def test_a_short_stage_says_nothing_and_is_timed_all_the_same(clock: SimpleNamespace) -> None:
    shown = Progress(io.StringIO())
    for _ in range(2):
        with shown.stage("load") as say:
            clock.wall += 1.5
            say(0.5, "half")
    assert shown.stream is not None
    assert shown.stream.getvalue() == ""  # type: ignore[attr-defined]
    assert shown.seconds == {"load": 3.0}


def test_a_long_stage_gives_fraction_words_time_and_time_left_and_ends_with_processor_seconds(
    clock: SimpleNamespace,
) -> None:
    out = io.StringIO()
    shown = Progress(out)
    with shown.stage("train") as say:
        clock.wall += 20.0
        clock.cpu += 3.0
        say(0.25, "ppo, 500 steps")
        clock.wall += 1.0
        say(0.3, "too soon for another line")
        clock.wall += 10.0
        say(0.2, "a fraction never falls")
        say.elsewhere = 40.0
    lines = out.getvalue().splitlines()
    assert lines == [
        "train: 25% ppo, 500 steps (0:20 so far, 1:00 left)",
        "train: 30% a fraction never falls (0:31 so far, 1:12 left)",
        "train: done in 0:31, 43 processor seconds",
    ]
    assert shown.cpu_seconds == {"train": 43.0}


def test_a_stage_that_breaks_off_is_timed_and_not_called_done(clock: SimpleNamespace) -> None:
    out = io.StringIO()
    shown = Progress(out)

    def break_off() -> None:
        with shown.stage("fly"):
            clock.wall += 30.0
            raise KeyError

    with pytest.raises(KeyError):
        break_off()
    assert out.getvalue() == ""
    assert shown.seconds == {"fly": 30.0}
