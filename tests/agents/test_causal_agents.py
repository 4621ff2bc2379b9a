"""Agents that act on effects, weights and constraints: uplift, debiased, rerank.

Sabotaged once, each seen red: the effect's sign turned, weights left out, head and tail swapped, the price of tail
exposure left at zero, the divergence's sign turned.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from agents.base import Agent, AgentError, Observation
from agents.baselines import Popularity, PopularitySettings
from agents.debiased import Debiased, DebiasedSettings
from agents.loading import AgentSettings, build_agent, resolve_kind
from agents.rerank import TAIL, Rerank, RerankSettings, head_and_tail
from agents.uplift import Uplift, UpliftSettings
from simulator.errors import InputError
from simulator.log import InteractionLog
from simulator.world import World
from tests.agents.taught_world import ITEMS, USERS, observed, taught_world, training_in


@pytest.fixture(scope="module")
def world_and_log() -> tuple[World, InteractionLog]:
    return taught_world()


class Showing:
    """Shows the candidates of highest score, the same for all."""

    def __init__(self, scores: NDArray[np.float64]) -> None:
        self.scores = scores

    def act(self, observation: Observation, rng: np.random.Generator) -> NDArray[np.int64]:
        from agents.slates import top_slates

        return top_slates(self.scores, observation)


def shares_of_tail(agent: Rerank, observation: Observation) -> float:
    slates = np.concatenate([agent.act(observation, np.random.default_rng(seed)) for seed in range(40)])
    return float(np.mean(agent._group[slates] == TAIL))


def test_the_head_holds_its_share_of_the_likes_with_the_fewest_items() -> None:
    group = head_and_tail(np.array([1.0, 50.0, 30.0, 19.0, 0.0]), 0.5)
    assert group.tolist() == [1, 0, 1, 1, 1]
    assert head_and_tail(np.array([1.0, 50.0, 30.0, 19.0, 0.0]), 0.6).tolist() == [1, 0, 0, 1, 1]


def test_parity_moves_exposure_towards_merit_by_its_strength_and_nothing_moves_at_zero(
    world_and_log: tuple[World, InteractionLog],
) -> None:
    world, log = world_and_log
    observation = observed(world)
    found = []
    for strength in (0.0, 0.5, 1.0):
        settings = RerankSettings(agent="popularity", strength=strength)
        agent = Rerank(settings, [Popularity(PopularitySettings())])
        agent.fit(training_in(world, log))
        found.append(shares_of_tail(agent, observation))
        assert agent._tail_share == pytest.approx(found[-1], abs=0.05)
    merit = found[-1]
    assert found[1] == pytest.approx((found[0] + merit) / 2, abs=0.06)
    assert merit > 0.5 > found[0]


def test_within_head_and_tail_the_agents_own_order_is_kept(world_and_log: tuple[World, InteractionLog]) -> None:
    world, log = world_and_log
    scores = np.random.default_rng(3).random(ITEMS)
    agent = Rerank(RerankSettings(agent="popularity", strength=1.0), [Showing(scores)])
    agent.fit(training_in(world, log))
    slates = agent.act(observed(world), np.random.default_rng(0))
    for slate in slates:
        for group in (0, 1):
            mine = scores[slate[agent._group[slate] == group]]
            assert (np.diff(mine) < 0).all()


def test_the_reduction_meets_its_bound_and_spends_it_where_it_costs_least(
    world_and_log: tuple[World, InteractionLog],
) -> None:
    world, log = world_and_log
    found = []
    for bound in (0.05, 0.6):
        agent = Rerank(RerankSettings(agent="popularity", constraint="reduction", bound=bound), [
            Popularity(PopularitySettings())
        ])  # fmt: skip
        agent.fit(training_in(world, log))
        found.append(agent)
    easy, hard = (shares_of_tail(agent, observed(world, USERS)) for agent in found)
    assert hard > easy + 0.1
    # Where clicks fall less for those who like the tail anyway, they are served more of it at the same price.
    agent = found[1]
    agent._cost = np.array([2.0, 0, 0, 0, 0, -1.0, 1.5, 0, 0, 0, -0.5])
    fond, cool = np.tile([0.9, 0.5, 1.0, 0.0], (5, 1)), np.tile([0.1, 0.5, 1.0, 0.0], (5, 1))
    assert agent._best_response(fond, 4, 0.2).min() > agent._best_response(cool, 4, 0.2).max()
    assert agent._best_response(cool, 4, 5.0).min() == 4


def test_calibration_brings_a_slate_nearer_to_the_categories_that_the_user_liked(
    world_and_log: tuple[World, InteractionLog],
) -> None:
    world, log = world_and_log
    observation = observed(world, USERS)
    shares = log.catalogue.item_categories / np.maximum(log.catalogue.item_categories.sum(1, keepdims=True), 1)
    liked = (observation.history_items >= 0) & (observation.history_feedback > 0)
    wanted = (shares[np.maximum(observation.history_items, 0)] * liked[..., None]).sum(1)
    wanted /= np.maximum(wanted.sum(1, keepdims=True), 1e-9)

    def distance(strength: float) -> float:
        settings = RerankSettings(agent="popularity", constraint="calibration", strength=strength)
        agent = Rerank(settings, [Showing(np.arange(ITEMS, dtype=np.float64))])
        agent.fit(training_in(world, log))
        shown = shares[agent.act(observation, np.random.default_rng(0))].mean(1)
        return float(np.abs(shown - wanted).sum(1).mean())

    assert distance(0.9) < distance(0.3) < distance(0.0)
    nameless = replace(log, catalogue=replace(log.catalogue, item_categories=np.zeros((ITEMS, 0), np.float32)))
    agent = Rerank(RerankSettings(agent="popularity", constraint="calibration"), [Showing(np.ones(ITEMS))])
    with pytest.raises(AgentError, match="item_categories"):
        agent.fit(training_in(world, nameless))


def test_a_wrapper_takes_any_kind_and_is_what_its_agent_is(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n\n\nclass Mine:\n    def act(self, observation, rng):\n"
        "        scores = np.where(observation.candidates, np.arange(observation.candidates.shape[1]), -1)\n"
        "        return np.argsort(-scores, axis=1)[:, : observation.slate_size]\n"
    )
    spec = resolve_kind(AgentSettings(name="fair", kind="rerank:mine.py:Mine"), tmp_path)
    assert not spec.fitted_here  # it was trained elsewhere, so it has to say what it has seen
    assert len(spec.files) == 1
    assert spec.files[0].endswith("mine.py:Mine")
    agent: Agent = build_agent(spec, tmp_path)
    world, log = taught_world()
    agent.fit(training_in(world, log))  # type: ignore[attr-defined]
    assert agent.act(observed(world), np.random.default_rng(0)).shape == (24, 4)
    assert resolve_kind(AgentSettings(name="fair", kind="rerank:recbole:BPR"), tmp_path).learns
    assert not resolve_kind(AgentSettings(name="fair", kind="rerank:popularity"), tmp_path).learns
    with pytest.raises(InputError, match="did you mean 'popularity'"):
        resolve_kind(AgentSettings(name="fair", kind="rerank:popularty"), tmp_path)
    with pytest.raises(InputError, match="given twice"):
        resolve_kind(AgentSettings(name="fair", kind="rerank:popularity", params={"agent": "random"}), tmp_path)


def test_a_bound_can_be_reranked_by_category_alone() -> None:
    world, log = taught_world()
    oracle = build_agent(AgentSettings(name="o", kind="oracle"), Path())
    agent = Rerank(RerankSettings(agent="oracle"), [oracle])
    with pytest.raises(AgentError, match="wrap a policy"):
        agent.fit(training_in(world, log))


def test_the_treatment_goes_to_those_whom_it_moves(world_and_log: tuple[World, InteractionLog]) -> None:
    """Good items against bad ones: the treatment is better for all; with a cost above any effect nobody gets it."""
    world, log = world_and_log
    best, worst = Showing(world.item_bias.astype(np.float64)), Showing(-world.item_bias.astype(np.float64))
    observation = observed(world)
    settings = UpliftSettings(trial_steps=2_000, num_envs=64)
    agent = Uplift(settings, [best, worst])
    agent.fit(training_in(world, log))
    assert (agent.effect(observation) > 0).all()
    rng = np.random.default_rng(0)
    assert np.array_equal(agent.act(observation, rng), best.act(observation, rng))
    turned = Uplift(settings, [worst, best])
    turned.fit(training_in(world, log))
    assert np.array_equal(turned.act(observation, rng), best.act(observation, rng))
    agent.settings = UpliftSettings(cost=100.0)
    assert np.array_equal(agent.act(observation, rng), worst.act(observation, rng))


def test_an_item_that_only_its_friends_met_is_not_taken_for_one_that_all_like() -> None:
    """Item 0 is liked by half of the users and shown nearly to them alone; item 1 is liked by 70 % and shown to all."""
    rng = np.random.default_rng(0)
    world, log = taught_world()
    n_users = 400
    catalogue = replace(
        log.catalogue, user_ids=tuple(map(str, range(n_users))), user_features=np.zeros((n_users, 2), np.float32)
    )
    user, item, liked, chance = [], [], [], []
    for u in range(n_users):
        friend = u % 2 == 0
        for i in range(ITEMS):
            like = float(friend) if i == 0 else float(rng.random() < 0.7) if i == 1 else float(rng.random() < 0.4)
            p = (0.95 if friend else 0.12) if i == 0 else 0.5
            if rng.random() < p:
                user.append(u), item.append(i), liked.append(like), chance.append(p)
    exposed = InteractionLog(
        np.array(user), np.array(item), np.arange(len(user), dtype=np.float64), np.array(liked, np.float32),
        catalogue, "exposed", propensity=np.array(chance),
    )  # fmt: skip
    training = training_in(world, exposed)
    # One dimension, strongly shrunk: what is under test is the level of the items, not tastes that explain it away.
    right = Debiased(DebiasedSettings(embedding_size=1, clip=100.0))
    naive = Debiased(DebiasedSettings(embedding_size=1, power=0.0))
    right.fit(training)
    naive.fit(replace(training, log=replace(exposed, propensity=None)))
    assert naive._bias[0] > naive._bias[1]
    assert right._bias[1] > right._bias[0]
