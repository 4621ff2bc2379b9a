"""The contract's checks: each fault of an agent is found, named in one line, and nothing else is called a fault."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from agents.base import AgentError, Observation
from agents.baselines import NoSettings, Random
from agents.contract import check_agent, check_probabilities, check_slate, rows_of
from agents.slates import greedy_probabilities, top_slates, uniform_probabilities
from agents.train_world import shown_places

USERS, ITEMS, PLACES = 6, 12, 3


def seen(*, barred: dict[int, list[int]] | None = None) -> Observation:
    """Six users and twelve items; user u may not be shown item u, nor what `barred` says."""
    candidates = np.ones((USERS, ITEMS), bool)
    candidates[np.arange(USERS), np.arange(USERS)] = False
    for user, items in (barred or {}).items():
        candidates[user, items] = False
    return Observation(
        user_features=np.zeros((USERS, 1), np.float32),
        history_items=np.arange(USERS)[:, None],
        history_feedback=np.ones((USERS, 1), np.float32),
        context=np.zeros((USERS, 0), np.float32),
        candidates=candidates,
        step=np.zeros(USERS, np.int64),
        slate_size=PLACES,
    )


def good() -> np.ndarray:
    return np.tile([9, 10, 11], (USERS, 1))


def with_item(user: int, place: int, item: int) -> np.ndarray:
    slate = good()
    slate[user, place] = item
    return slate


@pytest.mark.parametrize(
    ("slate", "said"),
    [
        (good()[:, :2], r"shape \[6, 2\]; the shape must be \[n, K\] = \[6, 3\]"),
        (good()[0], "shape"),
        (good()[:5], "shape"),
        ([[1, 2, 3], [1, 2]] * 3, "shape"),
        (None, "shape"),
        (good().astype(float), "float64; return item indices as integers"),
        (with_item(4, 1, 4), "item 4 for user 4, which is not among the candidates"),
        (with_item(2, 0, ITEMS), "item 12; the catalogue has 12 items"),
        (with_item(3, 2, -1), "item -1 for user 3; items are numbered from 0"),
        (with_item(3, 2, -7), "item -7 for user 3"),
        (with_item(1, 2, 9), "item 9 twice for user 1"),
    ],
)
def test_a_slate_that_is_none_is_refused_with_one_line(slate: Any, said: str) -> None:
    with pytest.raises(AgentError, match=said) as caught:
        check_slate(slate, seen())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("slates", "said"),
    [
        ([[5], [0]], r"item 5 for user 0; the catalogue has 4 items"),
        ([[3], [4]], r"item 4 for user 1; the catalogue has 4 items"),
        ([[-1], [-2]], r"item -2 for user 1"),
        ([[0], [0], [0]], r"shape \[3, 1\]; the shape must be \[n, K\] with n = 2"),
        ([0, 0], r"shape \[2\]; the shape must be \[n, K\]"),
    ],
)
def test_what_a_wrapped_agent_names_beyond_the_catalogue_is_refused_before_masks_are_read(
    slates: list[Any], said: str
) -> None:
    allowed = np.zeros((2, 4), bool)
    allowed[1, 1] = True
    with pytest.raises(AgentError, match=said):
        shown_places(np.array(slates), allowed)
    assert shown_places(np.array([[1], [1]]), allowed).tolist() == [[-1], [1]]


def test_a_slate_is_taken_as_lists_or_as_any_integers() -> None:
    for slate in (good().tolist(), good().astype(np.int16), good().astype(np.uint8)):
        checked = check_slate(slate, seen())
        assert checked.dtype == np.int64
        assert np.array_equal(checked, good())


def test_places_may_stay_empty_only_where_candidates_run_out() -> None:
    observation = seen(barred={2: [i for i in range(ITEMS) if i not in (7, 8)]})
    slate = good()
    slate[2] = [7, 8, -1]
    assert np.array_equal(check_slate(slate, observation), slate)
    slate[2] = [7, -1, -1]
    with pytest.raises(AgentError, match="item -1 for user 2"):
        check_slate(slate, observation)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda p: p[:, :-1], "shape"),
        (lambda p: p * 0.9, "sum to 0.9; each row must sum to one"),
        (lambda p: np.where(np.arange(ITEMS) == 9, np.nan, p), "outside"),
        (lambda p: np.where(np.arange(ITEMS) == 9, -p, p), "outside"),
        (lambda p: np.full_like(p, 1 / ITEMS), "not among the candidates"),
    ],
)
def test_chances_that_are_none_are_refused(spoil: Callable[[np.ndarray], np.ndarray], said: str) -> None:
    right = uniform_probabilities(seen(), ITEMS)
    assert np.array_equal(check_probabilities(right, seen(), ITEMS), right)
    with pytest.raises(AgentError, match=said):
        check_probabilities(spoil(right), seen(), ITEMS)


class Lowest:
    """Shows the lowest candidates; the parent of agents that are broken in one way each."""

    def act(self, observation: Observation, rng: np.random.Generator) -> np.ndarray:
        return top_slates(-np.arange(ITEMS, dtype=np.float32), observation)

    def action_probabilities(self, observation: Observation) -> np.ndarray:
        return greedy_probabilities(-np.arange(ITEMS, dtype=np.float32), observation)


class Remembers(Lowest):
    calls = 0

    def act(self, observation: Observation, rng: np.random.Generator) -> np.ndarray:
        self.calls += 1
        return top_slates(np.roll(np.arange(ITEMS, dtype=np.float32), self.calls), observation)


class LooksSideways(Lowest):
    def act(self, observation: Observation, rng: np.random.Generator) -> np.ndarray:
        return top_slates(np.roll(np.arange(ITEMS, dtype=np.float32), len(observation)), observation)


class SaysOtherwise(Lowest):
    def action_probabilities(self, observation: Observation) -> np.ndarray:
        return greedy_probabilities(np.arange(ITEMS, dtype=np.float32), observation)


@pytest.mark.parametrize(
    ("agent", "said"),
    [
        (object(), "has no method act"),
        (Remembers(), "two different slates"),
        (LooksSideways(), "when other users are in the batch"),
        (SaysOtherwise(), "no weight to an item that act showed first"),
    ],
)
def test_an_agent_that_breaks_the_contract_is_found_out(agent: Any, said: str) -> None:
    with pytest.raises(AgentError, match=said):
        check_agent(agent, seen(), ITEMS)


def test_agents_that_keep_the_contract_pass_whether_they_draw_or_not() -> None:
    check_agent(Lowest(), seen(), ITEMS)
    check_agent(Random(NoSettings()), seen(), ITEMS)


def test_some_rows_of_an_observation_are_those_users() -> None:
    observation = replace(seen(), appeal=np.arange(USERS * ITEMS, dtype=np.float32).reshape(USERS, ITEMS))
    cut = rows_of(observation, np.array([4, 1]))
    assert len(cut) == 2
    assert cut.history_items[:, 0].tolist() == [4, 1]
    assert cut.candidates is not None
    assert np.flatnonzero(~cut.candidates[0]).tolist() == [4]
    assert cut.appeal is not None
    assert cut.appeal[1, 0] == ITEMS


@settings(max_examples=60)
@given(
    scores=arrays(np.float32, (USERS, ITEMS), elements=st.integers(-3, 3).map(float)),
    mask=arrays(bool, (USERS, ITEMS)),
)
def test_slates_are_the_best_candidates_best_first_ties_by_number(scores: np.ndarray, mask: np.ndarray) -> None:
    observation = replace(seen(), candidates=mask)
    slates = top_slates(scores, observation)
    for user in range(USERS):
        order = sorted(np.flatnonzero(mask[user]), key=lambda item: (-scores[user, item], item))
        assert slates[user].tolist() == (order + [-1] * PLACES)[:PLACES]
    check_slate(slates, observation)
    one_for_all = top_slates(scores[0], observation)
    assert np.array_equal(one_for_all, top_slates(np.tile(scores[0], (USERS, 1)), observation))


def test_a_row_whose_scores_are_no_order_has_no_slate() -> None:
    """NaN among the candidates of user 0 and infinity among those of user 1; user 2's NaN is no candidate."""
    scores = np.tile(np.arange(ITEMS, dtype=np.float64), (USERS, 1))
    scores[0, 3], scores[1, 4], scores[2, 5] = np.nan, np.inf, np.nan
    mask = np.ones((USERS, ITEMS), bool)
    mask[2, 5] = False
    slates = top_slates(scores, replace(seen(), candidates=mask))
    assert (slates[:2] == -1).all()
    assert (slates[2:, 0] == ITEMS - 1).all()


def test_slates_of_a_large_catalogue_are_those_of_a_full_sort(rng: np.random.Generator) -> None:
    """The best stand last, far apart, or first; one user has two candidates."""
    items = 64 * 120 + 13
    scores = rng.standard_normal((9, items)).astype(np.float32)
    scores[0, -3:] = 9.0, 8.0, 7.0
    scores[1, 5 : 5 + 3 * 120 : 120] = 9.0, 8.0, 7.0
    mask = rng.random((9, items)) < 0.9
    mask[2] = False
    mask[2, [7, 4_000]] = True
    mask[:2, [-3, -2, -1, 5, 125, 245]] = True
    observation = replace(
        seen(),
        user_features=np.zeros((9, 0), np.float32),
        history_items=np.zeros((9, 1), np.int64),
        history_feedback=np.zeros((9, 1), np.float32),
        step=np.zeros(9, np.int64),
        candidates=mask,
    )
    full = np.argsort(-np.where(mask, scores, -np.inf), axis=1)[:, :PLACES]
    full[2, 2:] = -1
    assert np.array_equal(top_slates(scores, observation), full)
    assert np.array_equal(top_slates(lambda rows: scores[rows], observation), full)
