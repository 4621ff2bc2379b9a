"""Value against the number of interactions known: what an agent is shown, and what its order is worth."""

from __future__ import annotations

import numpy as np
import pytest

from agents.base import Observation
from agents.slates import top_slates
from evaluators.adaptation import cut_history, first_slates, later_rows_ordered
from simulator.log import InteractionLog
from tests.agents.task_world import USERS, held_out, task_world
from tests.agents.taught_world import observed, taught_world


class Knows:
    """Orders items by whether the user liked them in the log, with a sign."""

    def __init__(self, log: InteractionLog, sign: float) -> None:
        self.liked = np.zeros((USERS, log.catalogue.n_items))
        self.liked[log.user, log.item] = log.primary
        self.users: np.ndarray = np.zeros(0, np.int64)
        self.sign = sign

    def act(self, observation: Observation, rng: np.random.Generator) -> np.ndarray:
        return top_slates(self.sign * self.liked[self.users], observation)


class CountsHistory:
    """Shows its knowledge as soon as it is shown three interactions, and blindly before."""

    def __init__(self, inner: Knows) -> None:
        self.inner = inner

    def act(self, observation: Observation, rng: np.random.Generator) -> np.ndarray:
        if (observation.history_items >= 0).sum(axis=1).min() >= 3:
            return self.inner.act(observation, rng)
        return top_slates(rng.random((len(observation), self.inner.liked.shape[1])), observation)


def test_auc_is_one_for_an_agent_that_knows_zero_for_its_reverse_and_rises_where_history_tells() -> None:
    _, log, split = task_world()
    users = held_out(split)
    best, worst = Knows(log, 1.0), Knows(log, -1.0)
    late = split.rows(log, users, late=True)
    both = [0 < log.primary[late][log.user[late] == u].mean() < 1 for u in users]
    best.users = worst.users = users[np.array(both)]
    agents = {"best": [best], "worst": [worst], "later": [CountsHistory(best)]}
    found = later_rows_ordered(
        agents, log, split, users, feature_names=(), history_length=20, interactions=(0, 2, 3, 5)
    )
    for k in (0, 5):
        assert found.estimate("best", k).value == 1
        assert found.estimate("worst", k).value == 0
    blind = found.estimate("later", 2)
    assert blind.low is not None
    assert blind.high is not None
    assert blind.low < 0.5 < blind.high
    assert found.estimate("later", 3).value == 1
    assert found.difference("best", "worst", 3).value == 1
    assert "history cut to 3" in found.estimate("later", 3).method
    assert found.estimate("best", 0).n == sum(both)


def test_where_nobody_has_so_many_interactions_worth_and_difference_are_withheld_and_say_so() -> None:
    """Means over no users at all would warn, and warnings are errors here."""
    _, log, split = task_world()
    users = held_out(split)
    best, worst = Knows(log, 1.0), Knows(log, -1.0)
    best.users = worst.users = users[:0]
    found = later_rows_ordered(
        {"best": [best], "worst": [worst]},
        log,
        split,
        users,
        feature_names=(),
        history_length=200,
        interactions=(0, 200),
    )
    for estimate in (found.estimate("best", 0), found.difference("best", "worst", 0)):
        assert estimate.value is None
        assert estimate.withheld is not None
        assert estimate.withheld.startswith("W3: 0 users with 200 interactions")


def test_history_is_cut_to_its_newest() -> None:
    world, _ = taught_world()
    seen = observed(world)
    cut = cut_history(seen, 3)
    assert np.array_equal(cut.history_items[:, -3:], seen.history_items[:, -3:])
    assert np.array_equal(cut.history_feedback[:, -3:], seen.history_feedback[:, -3:])
    assert (cut.history_items[:, :-3] == -1).all()
    assert (cut.history_feedback[:, :-3] == 0).all()
    assert np.array_equal(cut.candidates, seen.candidates)  # what was met stays met
    assert (cut_history(seen, 0).history_items == -1).all()


def test_the_first_slate_earns_what_the_world_pays_for_it() -> None:
    world, _ = taught_world()

    class Best:
        privileged = True

        def act(self, observation: Observation, rng: np.random.Generator) -> np.ndarray:
            return top_slates(observation.appeal, observation)

    class Worst(Best):
        def act(self, observation: Observation, rng: np.random.Generator) -> np.ndarray:
            return top_slates(-observation.appeal, observation)

    found = first_slates({"best": [Best()], "worst": [Worst()]}, {1: world}, interactions=(0, 5))
    assert found.estimate("best", 0).value == found.estimate("best", 5).value
    gain = found.difference("best", "worst", 5)
    assert gain.low is not None
    assert gain.low > 0.3
    assert found.estimate("best", 0).value <= world.slate_size


def test_too_few_users_are_withheld_with_the_reason() -> None:
    _, log, split = task_world()
    best = Knows(log, 1.0)
    best.users = held_out(split)[:5]
    found = later_rows_ordered(
        {"best": [best]}, log, split, best.users, feature_names=(), history_length=20, interactions=(0, 2)
    )
    assert found.estimate("best", 0).value is None
    assert "W3" in str(found.estimate("best", 0).withheld)
    with pytest.raises(ValueError, match="not in"):
        found.estimate("best", 7)
