"""The bandits' posteriors against what they should be: plain regressions on the same rows.

Sabotaged once, each seen red: the touched items not taken out of the shared part, the term between shared and own
dropped, places below the last click kept, the draw not scaled, an online bandit that takes nothing in.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np
import pytest

from agents.bandits import (
    BanditSettings,
    CascadeUCB,
    EpsilonGreedy,
    EpsilonGreedySettings,
    LinearBandit,
    LinearThompson,
    LinUCB,
    LinUCBSettings,
    LogisticThompson,
    LogisticThompsonSettings,
    ThompsonSettings,
)
from agents.base import AgentError, learns_online
from agents.features import PAIR_NAMES, USER_NAMES
from agents.item_bandits import OWN, SHARED, HybridLinUCB, HybridLinUCBSettings
from agents.neural_linear import NeuralLinear, NeuralLinearSettings
from evaluators.rollout import fly
from tests.agents.taught_world import ITEMS, observed, taught_world, training_in

Bandit = TypeVar("Bandit", bound=LinearBandit)


def started(agent: Bandit) -> Bandit:
    """The bandit with its tables fitted and nothing learned."""
    world, log = taught_world()
    agent.fit(replace(training_in(world, log), budget=0))
    return agent


def rows_of(rng: np.random.Generator, agent: LinearBandit, m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    design = rng.normal(size=(m, len(agent._theta)))
    design[:, 0] = 1.0
    return design, rng.integers(0, ITEMS, m), (rng.random(m) < 0.4).astype(np.float32)


def test_learning_in_parts_is_ridge_regression_on_all_rows(rng: np.random.Generator) -> None:
    agent = started(LinearBandit(BanditSettings(reg=2.0)))
    parts = [rows_of(rng, agent, 50) for _ in range(3)]
    for part in parts:
        agent.learn(*part)
    x, y = np.concatenate([p[0] for p in parts]), np.concatenate([p[2] for p in parts])
    expected = np.linalg.solve(x.T @ x + 2.0 * np.eye(x.shape[1]), x.T @ y)
    assert agent._theta == pytest.approx(expected, abs=1e-5)


def test_hybrid_linucb_is_one_ridge_regression_with_columns_for_every_item(rng: np.random.Generator) -> None:
    """The paper's block algebra against the dense regression it stands for, means and widths."""
    agent = started(HybridLinUCB(HybridLinUCBSettings(reg=2.0, own_reg=3.0)))
    assert isinstance(agent, HybridLinUCB)
    parts = [rows_of(rng, agent, 80) for _ in range(3)]
    for part in parts:
        agent.learn(*part)
    design, items, clicks = (np.concatenate([part[k] for part in parts]) for k in range(3))
    n_item = design.shape[1] - 2 - len(PAIR_NAMES) - len(USER_NAMES)
    z = np.concatenate([design[:, 1:3], design[:, 1 + n_item : 1 + n_item + len(PAIR_NAMES)], design[:, -1:]], axis=1)
    x = np.concatenate([design[:, :1], design[:, 1 + n_item + len(PAIR_NAMES) : -1]], axis=1)
    wide = np.zeros((len(design), SHARED + OWN * ITEMS))
    wide[:, :SHARED] = z
    for row, item in enumerate(items):
        wide[row, SHARED + OWN * item : SHARED + OWN * (item + 1)] = x[row]
    ridge = np.diag(np.concatenate([np.full(SHARED, 2.0), np.full(OWN * ITEMS, 3.0)]))
    information = wide.T @ wide + ridge
    theta = np.linalg.solve(information, wide.T @ clicks)
    assert agent._shared == pytest.approx(theta[:SHARED], abs=1e-4)
    assert agent._own.ravel() == pytest.approx(theta[SHARED:], abs=1e-4)

    assert agent._features is not None
    world, _ = taught_world()
    users = agent._features.users(observed(world, 3))
    pairs = [block @ other.T for block, other in agent._features.pair_blocks(users)]
    item_part = agent._features.item_features()[:, :2]
    covariance = np.linalg.inv(information)
    for user, item in ((0, 5), (2, 77)):
        row = np.zeros(wide.shape[1])
        row[: SHARED - 1] = [*item_part[item], *(pair[user, item] for pair in pairs)]
        row[SHARED + OWN * item : SHARED + OWN * (item + 1)] = [1, *users.user_features()[user]]
        assert agent.mean(users)[user, item] == pytest.approx(row @ theta, abs=1e-3)
        assert agent.widths(users)(slice(0, 3))[user, item] == pytest.approx(np.sqrt(row @ covariance @ row), rel=1e-3)


def test_widths_are_the_standard_errors_of_the_dense_regression(rng: np.random.Generator) -> None:
    agent = started(LinUCB(LinUCBSettings()))
    agent.learn(*rows_of(rng, agent, 300))
    assert agent._features is not None
    world, _ = taught_world()
    users = agent._features.users(observed(world, 3))
    widths = agent.widths(users)
    everyone, items = np.repeat(np.arange(3), ITEMS), np.tile(np.arange(ITEMS), 3)
    x = agent._design(users, everyone, np.zeros(len(items), np.int64), items)
    expected = np.sqrt(np.einsum("ij,jk,ik->i", x, agent.covariance(), x))
    assert widths(slice(0, 3)).ravel() == pytest.approx(expected, rel=1e-3)
    assert widths(slice(1, 2)).ravel() == pytest.approx(expected[ITEMS : 2 * ITEMS], rel=1e-3)


def test_the_cascade_learns_down_to_the_last_click_and_from_all_where_there_is_none() -> None:
    agent = CascadeUCB(LinUCBSettings())
    slates = np.array([[3, 1, 2, -1], [4, 5, 6, 7], [4, 5, 6, 7]])
    clicks = np.array([[0, 1, 0, 0], [0, 0, 0, 0], [1, 0, 1, 0]], np.float32)
    assert agent.teaches(slates, clicks).tolist() == [
        [True, True, False, False],
        [True, True, True, True],
        [True, True, True, False],
    ]


def test_draws_have_the_posterior_s_mean_and_covariance(rng: np.random.Generator) -> None:
    agent = started(LinearThompson(ThompsonSettings(scale=0.5)))
    assert isinstance(agent, LinearThompson)
    agent.learn(*rows_of(rng, agent, 400))
    draws = agent.draw(20_000, rng)
    assert draws.mean(axis=0) == pytest.approx(agent._theta, abs=0.002)
    assert np.cov(draws.T) == pytest.approx(0.25 * agent.covariance(), abs=1e-4)


def test_the_logistic_posterior_finds_the_coefficients_that_made_the_clicks(rng: np.random.Generator) -> None:
    agent = started(LogisticThompson(LogisticThompsonSettings()))
    truth = rng.normal(0, 0.7, len(agent._theta))
    for _ in range(60):
        design, items, _ = rows_of(rng, agent, 200)
        clicks = (rng.random(200) < 1 / (1 + np.exp(-design @ truth))).astype(np.float32)
        agent.learn(design, items, clicks)
    error = np.sqrt(np.diag(agent.covariance()))
    assert np.mean(np.abs(agent._theta - truth) < 2 * error) > 0.85
    assert error.max() < 0.1


def test_a_bandit_that_learns_online_serves_later_users_better_and_its_next_flight_starts_afresh() -> None:
    world, _ = taught_world()
    flown = {"name": "one", "world_number": 1, "seed": 5, "training_seed": 0}
    online = started(EpsilonGreedy(EpsilonGreedySettings(epsilon=0.05, online=True)))
    frozen = started(EpsilonGreedy(EpsilonGreedySettings(epsilon=0.05)))
    assert (learns_online(online), learns_online(frozen)) == (True, False)
    first, again, blind = (fly(agent, world, **flown) for agent in (online, online, frozen))  # type: ignore[arg-type]
    np.testing.assert_array_equal(first.slate, again.slate)
    first_step, later = (
        [one.clicks[:, :1].mean() for one in (first, blind)],
        [one.reward.sum() for one in (first, blind)],
    )
    assert first_step[0] == first_step[1]
    assert later[0] > 1.15 * later[1]
    with pytest.raises(AgentError, match="learns while it is judged"):
        online.action_probabilities(observed(world))


def test_neural_linear_is_ridge_regression_on_what_its_network_found_in_the_same_rows(rng: np.random.Generator) -> None:
    """Clicks are an exclusive or of a user's and an item's sign, which no linear feature of either tells."""
    world, _ = taught_world()
    agent = started(
        NeuralLinear(NeuralLinearSettings(reg=2.0, retrain_every=600, gradient_steps=300, embedding_size=4))
    )
    assert isinstance(agent, NeuralLinear)
    assert agent._features is not None
    agent._memory = []
    users = agent._features.users(observed(world, 60))
    of_user = users.user_features()[:, 1] > np.median(users.user_features()[:, 1])
    of_item = agent._features.like_rate > np.median(agent._features.like_rate)
    batches = []
    for _ in range(10):  # the tenth trains the network
        slates = np.argsort(rng.random((60, ITEMS)), axis=1)[:, :8]
        clicks = (of_user[:, None] ^ of_item[slates]).astype(np.float32)
        batches.append((slates, clicks))
        agent._take_in(users, slates, clicks)
    rows, places = np.repeat(np.arange(60), 8), np.tile(np.arange(8), 60)
    design = np.concatenate([agent._design(users, rows, places, slates.reshape(-1)) for slates, _ in batches])
    clicks = np.concatenate([clicks.reshape(-1) for _, clicks in batches])
    information = design.T @ design + 2.0 * np.eye(design.shape[1])
    assert agent._gram == pytest.approx(information, rel=1e-3, abs=1e-2)
    assert agent._theta == pytest.approx(np.linalg.solve(information, design.T @ clicks), abs=1e-3)

    known = design[:, :-4]
    linear = known @ np.linalg.lstsq(known, clicks, rcond=None)[0]
    assert np.corrcoef(design @ agent._theta, clicks)[0, 1] ** 2 > 0.3 + np.corrcoef(linear, clicks)[0, 1] ** 2
    first = agent._design(users, np.arange(60), np.zeros(60, np.int64), np.arange(60)) @ agent._theta
    same_for_all = agent._theta[0] + users.user_features() @ agent._theta[-5 - len(USER_NAMES) : -5]
    assert agent.mean(users)[np.arange(60), np.arange(60)] + same_for_all == pytest.approx(first, abs=1e-3)
