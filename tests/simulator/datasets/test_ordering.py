"""The order of rows and their repeats, in one pass, against a sort by four keys."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from simulator.datasets.ordering import order_rows


def by_sorting(
    user: NDArray[np.int64], item: NDArray[np.int64], time: NDArray[np.float64]
) -> tuple[list[int], int, int]:
    """Rows to keep in their order, how many are left out, how many stood behind a later row of their user."""
    stamp = np.nan_to_num(time)
    order = np.lexsort((np.arange(len(user)), stamp, item, user))
    keys = list(zip(user[order], item[order], stamp[order], strict=True))
    kept = sorted(int(order[k]) for k in range(len(keys)) if k + 1 == len(keys) or keys[k] != keys[k + 1])
    back = sum(int((np.diff(stamp[user == u]) < 0).sum()) for u in set(user.tolist()))
    return sorted(kept, key=lambda row: (user[row], stamp[row], row)), len(user) - len(kept), back


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32), n=st.integers(1, 120), timed=st.booleans())
def test_one_pass_finds_what_sorting_by_user_item_and_time_finds(seed: int, n: int, timed: bool) -> None:
    rng = np.random.default_rng(seed)
    user, item = rng.integers(0, 6, n), rng.integers(0, 8, n)
    time = rng.integers(0, 9, n).astype(float) if timed else np.full(n, np.nan)
    rows, repeats, back = by_sorting(user, item, time)
    found = order_rows(user, item, time, np.zeros(n, np.float32))
    assert found.rows.tolist() == rows
    assert (found.repeats, found.changed, found.back) == (repeats, 0, back)


@pytest.mark.parametrize(("last", "changed"), [(1.0, 0), (0.0, 1)])
def test_a_repeat_with_another_answer_is_counted_and_the_last_holds(last: float, changed: int) -> None:
    user, item, time = np.zeros(3, int), np.array([4, 5, 4]), np.zeros(3)
    found = order_rows(user, item, time, np.array([1.0, 1.0, last], np.float32))
    assert (found.rows.tolist(), found.repeats, found.changed) == ([1, 2], 1, changed)
    assert len(found.notes()) == 1
