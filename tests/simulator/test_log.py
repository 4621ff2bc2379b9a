"""The log, histories and the split by user."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from simulator.errors import LogError
from simulator.log import HELD_OUT, JUDGE, WORLD_A, Catalogue, InteractionLog, histories_of, split_users


def make_log(
    user: NDArray[np.int64], rng: np.random.Generator, *, timed: bool = True, **changes: Any
) -> InteractionLog:
    """A log of these users (sorted), with random items and both answers."""
    n, n_items = len(user), 30
    primary = rng.integers(0, 2, n).astype(np.float32)
    primary[:2] = 0.0, 1.0
    time = np.concatenate([np.sort(rng.integers(0, 1000, count)) for count in np.bincount(user)]).astype(float)
    catalogue = Catalogue(
        item_ids=tuple(map(str, range(n_items))),
        item_text=("",) * n_items,
        item_categories=np.zeros((n_items, 0), np.float32),
        category_names=(),
        user_ids=tuple(map(str, range(int(user.max()) + 1))),
        user_features=np.zeros((int(user.max()) + 1, 0), np.float32),
        user_feature_names=(),
    )
    parts: dict[str, Any] = {
        "user": user,
        "item": rng.integers(0, n_items, n),
        "time": time if timed else np.full(n, np.nan),
        "primary": primary,
        "catalogue": catalogue,
        "source": "made up",
    }
    return InteractionLog(**{**parts, **changes})


@st.composite
def logs(draw: st.DrawFn) -> InteractionLog:
    counts = draw(st.lists(st.integers(1, 12), min_size=10, max_size=40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return make_log(np.repeat(np.arange(len(counts)), counts), rng, timed=draw(st.booleans()))


def slow_histories(log: InteractionLog, users: NDArray[np.int64], keep: NDArray[np.bool_]) -> list[list[int]]:
    return [[int(log.item[row]) for row in range(len(log)) if log.user[row] == u and keep[row]] for u in users]


@settings(max_examples=60)
@given(log=logs(), seed=st.integers(0, 2**32))
def test_histories_are_what_a_loop_over_rows_finds_in_any_order_of_users(log: InteractionLog, seed: int) -> None:
    rng = np.random.default_rng(seed)
    users = rng.permutation(log.catalogue.n_users)[: rng.integers(0, log.catalogue.n_users + 1)]
    keep = rng.integers(0, 2, len(log)).astype(bool)
    found = histories_of(log, users, keep=keep)
    assert len(found) == len(users)
    parts = [found.item[a:b].tolist() for a, b in zip(found.start[:-1], found.start[1:], strict=True)]
    assert parts == slow_histories(log, users, keep)


@settings(max_examples=60)
@given(log=logs(), length=st.integers(1, 15))
def test_last_entries_stand_right_and_newest_last(log: InteractionLog, length: int) -> None:
    users = np.arange(log.catalogue.n_users)
    histories = histories_of(log, users, keep=np.ones(len(log), bool))
    items, feedback = histories.last(length)
    for u, history in enumerate(slow_histories(log, users, np.ones(len(log), bool))):
        newest = history[-length:]
        assert items[u].tolist() == [-1] * (length - len(newest)) + newest
        assert (feedback[u, : length - len(newest)] == 0).all()


@settings(max_examples=80)
@given(log=logs(), seed=st.integers(0, 2**32))
def test_split_parts_users_disjointly_in_the_shares_asked_for(log: InteractionLog, seed: int) -> None:
    split = split_users(log, np.random.SeedSequence(seed))
    n = log.catalogue.n_users
    sizes = [len(split.users(role)) for role in (WORLD_A, JUDGE, HELD_OUT)]
    assert sum(sizes) == n
    assert sizes[:2] == [round(0.45 * n), round(0.40 * n)]
    for role in (WORLD_A, JUDGE):
        tuning, fitting = split.users(role, tuning=True), split.users(role, tuning=False)
        assert set(tuning).isdisjoint(fitting)
        assert len(tuning) >= 1
        assert len(fitting) >= 2
    assert not split.tuning[split.role == HELD_OUT].any()


@settings(max_examples=80)
@given(log=logs(), seed=st.integers(0, 2**32))
def test_late_rows_of_a_user_come_after_the_early_ones_and_every_user_has_a_past(
    log: InteractionLog, seed: int
) -> None:
    split = split_users(log, np.random.SeedSequence(seed))
    for u in range(log.catalogue.n_users):
        rows = np.flatnonzero(log.user == u)
        late = split.late[rows]
        assert not late[0] or not log.has_time
        assert (~late).sum() >= 1
        if log.has_time:
            assert not np.any(np.diff(late.astype(int)) < 0)
        share = 0.5 if split.tuning[u] or split.role[u] == HELD_OUT else 0.8
        assert (~late).sum() == max(1, int(np.floor(share * len(rows))))


@settings(max_examples=30)
@given(log=logs(), seed=st.integers(0, 2**32))
def test_rows_of_the_parts_are_the_whole_log_once(log: InteractionLog, seed: int) -> None:
    split = split_users(log, np.random.SeedSequence(seed))
    parts = [
        split.rows(log, split.users(role), late=late) for role in (WORLD_A, JUDGE, HELD_OUT) for late in (False, True)
    ]
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(len(log)))


def test_split_depends_on_the_seed_and_on_nothing_else(rng: np.random.Generator) -> None:
    log = make_log(np.repeat(np.arange(40), 6), rng)
    first, again, other = (split_users(log, np.random.SeedSequence(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first.role, again.role)
    assert np.array_equal(first.late, again.late)
    assert not np.array_equal(first.role, other.role)


def test_split_of_too_few_users_is_refused(rng: np.random.Generator) -> None:
    log = make_log(np.repeat(np.arange(5), 6), rng)
    with pytest.raises(LogError, match="5 users are too few"):
        split_users(log, np.random.SeedSequence(0))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"user": np.zeros(12, np.int64)}, "has one user"),
        ({"user": np.repeat([1, 0], 6)}, "not sorted by user"),
        ({"user": np.repeat([0, 9], 6)}, "outside the 2 users"),
        ({"item": np.full(12, 99)}, "outside the 30 items"),
        ({"item": np.zeros(3, np.int64)}, "3 values for 12 rows"),
        ({"primary": np.ones(12, np.float32)}, "always occurs"),
        ({"primary": np.zeros(12, np.float32)}, "never occurs"),
        ({"primary": np.linspace(0, 1, 12, dtype=np.float32)}, "other than 0 and 1"),
        ({"user": np.zeros(0, np.int64)}, "has no rows"),
    ],
)
def test_a_log_that_cannot_be_used_says_why(changes: dict[str, Any], said: str, rng: np.random.Generator) -> None:
    log = make_log(np.repeat([0, 1], 6), rng)
    with pytest.raises(LogError, match=said):
        replace(log, **changes)
