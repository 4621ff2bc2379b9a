"""Metrics: values worked out by hand, and scores of set metrics held to the jackknife that they stand for.

Sabotaged once, each seen red: click rate pooled over users, coverage without the n - 1 of its scores, ranks of equal
exposure by catalogue order, one unseen item counted as infinitely novel, the gain without its power of 2, ndcg over the
slate's own best order, the places of mrr from 0.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from evaluators.metrics import METRICS, Reference, gini, user_metric, why_undefined
from evaluators.sessions import Sessions
from simulator.errors import InputError


def sessions_of(slate: list[list[list[int]]], clicks: list[list[list[int]]], user: list[int] | None = None) -> Sessions:
    shown = np.array(slate, np.int32)
    n, steps, _ = shown.shape
    length = np.asarray((shown >= 0).any(axis=2)).sum(axis=1)
    return Sessions(
        "agent", 1, 0, 0, np.array(range(n) if user is None else user), shown, np.array(clicks, np.uint8), length,
        np.asarray(length < steps),
    )  # fmt: skip


TWO_USERS = sessions_of(
    [[[0, 1], [2, 3]], [[0, 4], [-1, -1]]],
    [[[1, 0], [1, 1]], [[0, 1], [0, 0]]],
)
REFERENCE = Reference(
    item_rows=np.array([8, 4, 2, 1, 0, 1]),
    eligible=np.array([True, True, True, True, True, False]),
    content=np.array([[1, 0], [0, 1], [1, 0], [-1, 0], [0.6, 0.8], [1, 0]], np.float32),
)


def random_sessions(rng: np.random.Generator, n: int, *, steps: int = 3, k: int = 4, items: int = 40) -> Sessions:
    slate = np.argsort(rng.random((n, steps, items)) ** np.linspace(0.2, 3, items), axis=2)[:, :, :k]
    gone = np.arange(steps) >= rng.integers(1, steps + 1, n)[:, None]
    slate[gone] = -1
    clicks = (rng.random(slate.shape) < 0.3) & (slate >= 0)
    return Sessions(
        "agent", 1, 0, 0, np.arange(n), slate.astype(np.int32), clicks.astype(np.uint8), (~gone).sum(axis=1),
        np.asarray(gone.any(axis=1)),
    )  # fmt: skip


def without_row(sessions: Sessions, row: int) -> Sessions:
    keep = np.arange(len(sessions)) != row
    return Sessions(
        sessions.agent, sessions.world, sessions.seed, sessions.training_seed, sessions.user[keep],
        sessions.slate[keep], sessions.clicks[keep], sessions.length[keep], sessions.left[keep],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("reward", [3, 1]),
        ("click_rate", [3 / 4, 1 / 2]),
        ("session_length", [2, 1]),
        # User 0: distances 1 (items 0, 1) and 2 (items 2, 3); user 1: 1 - .6.
        ("diversity", [1.5, 0.4]),
        # Shares of 16 rows: 1/2, 1/4, 1/8, 1/16; item 4 has no rows and counts as one.
        ("novelty", [(1 + 2 + 3 + 4) / 4, (1 + 4) / 2]),
    ],
)
def test_a_metric_of_users_is_what_it_says(name: str, values: list[float]) -> None:
    np.testing.assert_allclose(user_metric(name, TWO_USERS, REFERENCE), values, rtol=1e-6)


def test_metrics_of_ranked_results_are_what_they_say() -> None:
    """User 0: relevance (0, 1) where (1, 0) is best, then (.5, 0) where (.5, .5) is; user 1: (.5, .5), the best."""
    sessions = replace(
        sessions_of(
            [[[0, 1], [2, 3]], [[0, 4], [-1, -1]]],
            [[[0, 1], [0, 0]], [[1, 1], [0, 0]]],
        ),
        relevance=np.array([[[0, 1], [0.5, 0]], [[0.5, 0.5], [0, 0]]], np.float32),
        best_relevance=np.array([[[1, 0], [0.5, 0.5]], [[0.5, 0.5], [0, 0]]], np.float32),
    )
    second = 1 / np.log2(3)  # discount of the second place
    values = {
        "ndcg": [(second + 1 / (1 + second)) / 2, 1.0],
        "err": [(1 / 2 + 0.5) / 2, 0.5 + 0.5 * 0.5 / 2],
        "mrr": [(1 / 2 + 0) / 2, 1.0],
        "abandonment": [1 / 2, 0.0],
    }
    for name, expected in values.items():
        np.testing.assert_allclose(user_metric(name, sessions, REFERENCE), expected, rtol=1e-6, err_msg=name)
    gain = np.sqrt(2) - 1  # 2^.5 - 1, not .5: of a slate (.5, 1) where (1, .5) is best
    graded = replace(
        sessions_of([[[0, 1]]], [[[0, 0]]]),
        relevance=np.array([[[0.5, 1]]], np.float32),
        best_relevance=np.array([[[1, 0.5]]], np.float32),
    )
    np.testing.assert_allclose(user_metric("ndcg", graded, REFERENCE), (gain + second) / (1 + gain * second), rtol=1e-6)


def test_coverage_is_the_share_of_the_eligible_items_that_anyone_was_shown() -> None:
    assert user_metric("coverage", TWO_USERS, REFERENCE).mean() == pytest.approx(1.0)
    one = without_row(TWO_USERS, 0)
    assert user_metric("coverage", one, REFERENCE).mean() == pytest.approx(2 / 5)


def test_a_user_with_two_sessions_counts_once_with_the_mean_of_both() -> None:
    again = sessions_of(
        [[[0, 1], [2, 3]], [[0, 4], [-1, -1]], [[4, 3], [-1, -1]]],
        [[[1, 0], [1, 1]], [[0, 1], [0, 0]], [[1, 1], [0, 0]]],
        [9, 4, 9],
    )
    np.testing.assert_allclose(user_metric("click_rate", again, REFERENCE), [(3 / 4 + 1) / 2, 1 / 2])
    np.testing.assert_allclose(user_metric("reward", again, REFERENCE), [(3 + 2) / 2, 1])
    assert len(user_metric("coverage", again, REFERENCE)) == 2


def test_rewards_that_are_no_clicks_are_summed_instead_of_clicks() -> None:
    reward = np.array([[0.5, 2.0], [0.25, 0.0]], np.float32)
    paid = Sessions(
        "agent", 1, 0, 0, TWO_USERS.user, TWO_USERS.slate, TWO_USERS.clicks, TWO_USERS.length, TWO_USERS.left, reward
    )
    np.testing.assert_allclose(user_metric("reward", paid, REFERENCE), [2.5, 0.25])
    np.testing.assert_allclose(user_metric("click_rate", paid, REFERENCE), [3 / 4, 1 / 2])


def test_scores_of_coverage_are_the_jackknifes_pseudo_values(rng: np.random.Generator) -> None:
    sessions = random_sessions(rng, 25)
    reference = Reference(np.ones(40, np.int64), rng.random(40) < 0.9)
    scores = user_metric("coverage", sessions, reference)
    n, whole = len(sessions), scores.mean()
    left_out = np.array([user_metric("coverage", without_row(sessions, u), reference).mean() for u in range(n)])
    seen = np.unique(sessions.slate[sessions.slate >= 0])
    assert whole == pytest.approx(reference.eligible[seen].sum() / reference.eligible.sum())
    np.testing.assert_allclose(scores - whole, (n - 1) * (left_out.mean() - left_out), atol=1e-12)


def exposure_of(sessions: Sessions, eligible: NDArray[np.bool_]) -> NDArray[np.float64]:
    exposure = np.zeros(len(eligible))
    for _, _, k, item in ((*at, sessions.slate[tuple(at)]) for at in np.argwhere(sessions.slate >= 0)):
        exposure[item] += 1 / np.log2(2 + k)
    return exposure[eligible]


def test_scores_of_the_gini_are_its_derivatives_by_the_weight_of_each_user(rng: np.random.Generator) -> None:
    sessions = random_sessions(rng, 300)
    reference = Reference(np.ones(40, np.int64), np.arange(40) != 7)
    scores = user_metric("exposure_gini", sessions, reference)
    whole = exposure_of(sessions, reference.eligible)
    assert scores.mean() == pytest.approx(gini(whole))
    for user in (0, 5, 123):
        own = whole - exposure_of(without_row(sessions, user), reference.eligible)
        step = 1e-6
        derivative = (gini(whole + step * own) - gini(whole - step * own)) / (2 * step)
        assert scores[user] - gini(whole) == pytest.approx(len(sessions) * derivative, abs=1e-5)


def test_the_gini_does_not_depend_on_the_order_of_the_catalogue(rng: np.random.Generator) -> None:
    sessions = random_sessions(rng, 100, k=2, items=30)
    order = rng.permutation(30)
    renamed = Sessions(
        sessions.agent, 1, 0, 0, sessions.user,
        np.where(sessions.slate >= 0, order[np.maximum(sessions.slate, 0)], -1).astype(np.int32),
        sessions.clicks, sessions.length, sessions.left,
    )  # fmt: skip
    reference = Reference(np.ones(30, np.int64), np.ones(30, bool))
    np.testing.assert_allclose(
        user_metric("exposure_gini", sessions, reference), user_metric("exposure_gini", renamed, reference)
    )


def test_users_who_were_shown_items_of_equal_exposure_have_equal_scores() -> None:
    even = sessions_of([[[user % 4]] for user in range(80)], [[[0]]] * 80)
    reference = Reference(np.ones(4, np.int64), np.ones(4, bool))
    np.testing.assert_allclose(user_metric("exposure_gini", even, reference), np.zeros(80), atol=1e-12)


@pytest.mark.parametrize(
    ("name", "sessions", "reference", "words"),
    [
        ("diversity", TWO_USERS, Reference(REFERENCE.item_rows, REFERENCE.eligible), "name data.item_text"),
        ("diversity", sessions_of([[[1]]], [[[0]]]), REFERENCE, "slate size: 1"),
        ("exposure_gini", TWO_USERS, REFERENCE, "fly more users"),
        ("regret", TWO_USERS, REFERENCE, "agent of kind oracle"),
        ("click_rate", sessions_of([[[-1]], [[2]]], [[[0]], [[1]]]), REFERENCE, "1 users were shown nothing"),
        ("mrr", sessions_of([[[-1]], [[2]]], [[[0]], [[1]]]), REFERENCE, "1 users were shown nothing"),
        ("ndcg", TWO_USERS, REFERENCE, "users of one's own class"),
    ],
)
def test_an_undefined_metric_says_what_would_help(
    name: str, sessions: Sessions, reference: Reference, words: str
) -> None:
    why = why_undefined(name, sessions, reference)
    assert why is not None
    assert words in why
    assert np.isnan(user_metric(name, sessions, reference)).all()


def test_an_unknown_metric_names_the_nearest() -> None:
    with pytest.raises(InputError, match="click_rate"):
        user_metric("clickrate", TWO_USERS, REFERENCE)


def test_every_metric_says_what_it_is_and_its_unit() -> None:
    assert next(iter(METRICS)) == "reward"
    assert all(metric.about and metric.unit for metric in METRICS.values())
