"""Tables and linear Q: the textbook's cliff, a table's steps worked out, and what they see of a session.

Sabotaged once, each seen red: SARSA with Q-learning's targets and the reverse, the least step always, clicks of the log
counted as the session's, a future after the end.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from agents.features import fit_features
from agents.q_learning import Groups, LinearQ, LinearQSettings, QLearning, Sarsa, TabularSettings, move_towards
from agents.train_world import Lanes
from simulator.known_worlds import known_world
from tests.agents.known_training import training_of
from tests.agents.taught_world import observed

ROWS, COLUMNS = 3, 6
MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))


def cliff(state: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Next states, rewards and ends: from corner to corner along a cliff (Sutton and Barto, 2018, example 6.6)."""
    move = np.array(MOVES)[action]
    row = np.clip(state // COLUMNS + move[:, 0], 0, ROWS - 1)
    column = np.clip(state % COLUMNS + move[:, 1], 0, COLUMNS - 1)
    fell = (row == ROWS - 1) & (column > 0) & (column < COLUMNS - 1)
    after = np.where(fell, (ROWS - 1) * COLUMNS, row * COLUMNS + column)
    return after, np.where(fell, -100.0, -1.0), after == ROWS * COLUMNS - 1


@pytest.mark.parametrize(("kind", "route"), [(QLearning, 1), (Sarsa, 0)])
def test_at_the_cliff_q_learning_walks_the_edge_and_sarsa_keeps_away(kind: type[QLearning], route: int) -> None:
    """Both explore with chance .2: what it costs to slip is in SARSA's values and not in Q-learning's."""
    agent = kind(TabularSettings(epsilon=0.2, learning_rate=0.02))
    agent._q, agent._visits = np.zeros((2, ROWS * COLUMNS, len(MOVES)))
    start = (ROWS - 1) * COLUMNS
    rng = np.random.default_rng(2)
    state = np.full(64, start)
    action = agent._explore(state, 0.2, rng)
    for _ in range(2_000):
        after, reward, ended = cliff(state, action)
        after = np.where(ended, start, after)
        following = agent._explore(after, 0.2, rng)
        target = reward + np.where(ended, 0, agent.next_value(after, following))
        move_towards(agent._q, agent._visits, state, action, target, 0.02)
        state, action = after, following
    best = agent._q.argmax(axis=1)
    if kind is QLearning:  # the values of the shortest way: 7 steps from the start
        assert agent._q[start].max() == pytest.approx(-7, abs=0.1)
    walked, here = [], start
    while here != ROWS * COLUMNS - 1 and len(walked) < 30:
        here = int(cliff(np.array([here]), best[[here]])[0][0])
        walked.append(here // COLUMNS)
    assert min(walked) == route, walked


def test_a_cell_moves_to_the_mean_of_its_targets_first_and_by_the_least_step_later() -> None:
    q, visits = np.zeros((2, 3, 2))
    q[0, 1] = 50.0  # forgotten at the first visit
    move_towards(q, visits, np.array([0, 0, 2]), np.array([1, 1, 0]), np.array([1.0, 3.0, 5.0]), 0.1)
    assert q.tolist() == [[0, 2], [0, 0], [5, 0]]
    assert visits.tolist() == [[0, 2], [0, 0], [1, 0]]
    visits[0, 1] = 1_000
    move_towards(q, visits, np.array([0, 0]), np.array([1, 1]), np.array([4.0, 6.0]), 0.1)
    assert q[0, 1] == pytest.approx(2 + (1 - 0.9**2) * (5 - 2))


def test_the_table_sees_clicks_of_the_session_on_the_favourites_alone() -> None:
    known = known_world("boredom")
    training = training_of(known)
    groups = Groups.of(training, fit_features(training), TabularSettings(favourites=2))
    assert np.array_equal(groups.group, known.world.item_categories.argmax(axis=1))
    first = observed(known.world, 8)
    state, favourites, scores = groups.see(first)
    assert state.tolist() == [0] * 8  # the log's clicks are no clicks of this session
    taste = known.world.starts.vector[:8]
    assert np.mean(favourites[:, 0] == taste.argmax(axis=1)) >= 0.75
    items, feedback = first.history_items.copy(), first.history_feedback.copy()
    for user in range(8):
        of = [np.flatnonzero(groups.group == g) for g in (*favourites[user], 5 - favourites[user, 0])]
        new = [*of[0][:3], *of[1][:2], of[2][10]]
        items[user] = np.concatenate([items[user, 6:], new])
        feedback[user] = np.concatenate([feedback[user, 6:], [1, 1, 1, 1, 0, 0]])
    after = replace(first, history_items=items, history_feedback=feedback, step=np.full(8, 9, np.int64))
    assert groups.see(replace(after, step=np.ones(8, np.int64)))[0].tolist() == [2 + 3 * 1] * 8
    slates = groups.slates(np.array([0, 1, 2, 0, 1, 2, 1, 2]), favourites, scores, first)
    assert first.candidates is not None
    for user, action in enumerate([0, 1, 2, 0, 1, 2, 1, 2]):
        there = first.candidates[user] & ((groups.group == favourites[user, action - 1]) | (action == 0))
        best = np.argsort(-np.where(there, scores[user], -np.inf))[:6]
        assert set(slates[user]) == set(best)


def test_linear_q_without_a_future_is_ridge_regression_and_with_one_adds_the_best_next_place() -> None:
    agent = LinearQ(LinearQSettings(memory=1.0, reg=2.0, gamma=0.5, num_envs=64))
    known = known_world("boredom")
    agent.fit(training_of(known, budget=0))
    size = len(agent._theta)
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(300, size)), rng.random(300).astype(np.float32)
    agent.learn(x[:100], np.zeros(100, np.int64), y[:100])
    agent.learn(x[100:], np.zeros(200, np.int64), y[100:])
    assert agent._theta == pytest.approx(np.linalg.solve(x.T @ x + 2 * np.eye(size), x.T @ y), abs=1e-4)

    lanes = Lanes(training_of(known), 32, seed=3)
    observation = lanes.reset()
    assert observation.candidates is not None
    for _ in range(10):
        step = lanes.step(np.argsort(rng.random(observation.candidates.shape), axis=1)[:, :6])
        features = agent._features
        assert features is not None
        users = features.users(step.observation)
        agent._seen = 1
        slates = agent.act(step.observation, rng)
        rows, places = np.repeat(np.arange(32), 6), np.tile(np.arange(6), 32)
        values = agent._design(users, rows, places, slates.reshape(-1)) @ agent._theta
        expected = step.clicks + 0.5 * np.where(step.done, 0, values.reshape(32, 6).mean(axis=1))[:, None]
        assert agent.returns(step) == pytest.approx(expected, abs=1e-3)
    lanes.close()
