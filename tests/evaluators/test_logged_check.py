"""Rounds logged inside a judge world: propensities, truth and estimates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from agents.base import Observation
from agents.baselines import NoSettings, Oracle, Random
from agents.slates import top_slates
from evaluators.logged_check import ItemFacts, JudgeLog, Policy, log_rounds, off_policy_check, policy_in
from simulator.behaviour import Assumption, SimulatorSettings
from simulator.behaviour.friends import Friends
from simulator.errors import InputError
from simulator.log import Histories, split_users
from simulator.users import SimulatedUsers
from simulator.world import World
from tests.simulator.small_world import TruePreference, small_log


@pytest.fixture(scope="module")
def judged() -> tuple[World, ItemFacts, JudgeLog]:
    rng = np.random.default_rng(3)
    log = small_log(rng, users=300, items=200)
    split = split_users(log, np.random.SeedSequence(3))
    vectors = (rng.standard_normal((200, 8)) / 3).astype(np.float32)
    model = TruePreference(vectors, (0.7 * rng.standard_normal(200) - 1).astype(np.float32))
    world = World.build(model, log, split, np.arange(300), SimulatorSettings(), name="w")
    facts = ItemFacts.of(log, np.arange(len(log)))
    return world, facts, log_rounds(world, facts, np.random.SeedSequence(5))


def test_candidates_are_unseen_items_and_propensities_those_of_the_softmax(
    judged: tuple[World, ItemFacts, JudgeLog],
) -> None:
    world, facts, found = judged
    rounds = found.rounds
    seen = world.starts.seen
    for row in (0, 777, 5999):
        u = found.start[row]
        history = seen.item[seen.start[u] : seen.start[u + 1]]
        assert not np.isin(found.candidates[row], history).any()
        assert len(set(found.candidates[row])) == 20
        weight = np.exp(facts.popularity[found.candidates[row]] / 2)
        assert rounds.pi_b[row] == pytest.approx(weight / weight.sum())
        assert rounds.pscore[row] == pytest.approx(rounds.pi_b[row, rounds.action[row]])
    assert rounds.n_users == 300
    shown = (rounds.pi_b - np.eye(20)[rounds.action]).sum(0)
    assert np.abs(shown).max() < 4 * np.sqrt(len(rounds) / 20)


def test_the_probability_is_that_of_a_click_at_the_first_position(judged: tuple[World, ItemFacts, JudgeLog]) -> None:
    world, _, found = judged
    users = SimulatedUsers(world, 300, seed=1, slate_size=1)
    users.start(np.arange(300))
    appeal = users.appeal()
    row = np.arange(0, 6000, 20)
    expected = 1 / (1 + np.exp(-appeal[found.start[row], found.candidates[row, 4]]))
    assert found.click[row, 4] == pytest.approx(expected, abs=1e-5)
    shifted = log_rounds(world.with_appeal_shift(1.0), judged[1], np.random.SeedSequence(5))
    assert (shifted.click > found.click).all()
    friends = Friends(np.append(0, np.full(300, 50)), np.arange(0, 100, 2))  # the first user's friend likes these
    strength = Assumption("friends", "strength", 1.0, "assumed")
    befriended = replace(world, friends=friends, assumptions=(*world.assumptions, strength))
    lifted = log_rounds(befriended, judged[1], np.random.SeedSequence(5))
    by = np.log(lifted.click / (1 - lifted.click)) - np.log(found.click / (1 - found.click))
    liked = (found.start == 0)[:, None] & (found.candidates < 100) & (found.candidates % 2 == 0)
    assert liked.any()
    assert by == pytest.approx(liked.astype(float), abs=1e-4)


def test_rewards_are_drawn_from_those_probabilities(judged: tuple[World, ItemFacts, JudgeLog]) -> None:
    found = judged[2]
    chance = found.click[np.arange(len(found.rounds)), found.rounds.action]
    z = (found.rounds.reward - chance).sum() / np.sqrt((chance * (1 - chance)).sum())
    assert abs(z) < 4


class Stateless:
    """Random slates without `action_probabilities`."""

    def act(self, observation: Observation, rng: np.random.Generator) -> NDArray[np.int64]:
        return top_slates(rng.random((len(observation), 200)), observation)


def test_a_policy_is_asked_over_the_candidates_alone_and_averaged_over_its_seeds(
    judged: tuple[World, ItemFacts, JudgeLog], root: np.random.SeedSequence
) -> None:
    world, _, found = judged
    uniform = policy_in(found, world, [Random(NoSettings())], root, name="random")
    assert uniform.pi_e == pytest.approx(np.full((6000, 20), 0.05))
    best = policy_in(found, world, [Oracle(NoSettings())], root, name="oracle")
    assert np.array_equal(best.pi_e.argmax(1), found.click.argmax(1))
    both = policy_in(found, world, [Random(NoSettings()), Oracle(NoSettings())], root, name="both")
    assert both.pi_e == pytest.approx((uniform.pi_e + best.pi_e) / 2)
    drawn = policy_in(found, world, [Stateless()], root, name="stateless")
    assert "16 draws" in drawn.how
    assert drawn.pi_e.sum(1) == pytest.approx(np.ones(6000))
    assert np.array_equal(drawn.pi_e, policy_in(found, world, [Stateless()], root, name="stateless").pi_e)


def test_the_truth_is_exact_and_the_estimates_do_not_use_the_simulator(
    judged: tuple[World, ItemFacts, JudgeLog], root: np.random.SeedSequence
) -> None:
    world, _, found = judged
    policy = policy_in(found, world, [Random(NoSettings())], root, name="random")
    check = off_policy_check(found, policy, estimators=["ips", "snips", "dm", "dr"], root=root)
    assert check.truth.value == pytest.approx(found.click.mean())
    assert check.truth.low == check.truth.high == check.truth.value
    assert check.logged.value == pytest.approx(found.rounds.reward.mean(), abs=4 * 0.5 / np.sqrt(6000))
    for name in ("ips", "snips", "dr"):
        estimate = check.estimates[name]
        assert estimate.low < check.truth.value < estimate.high
        assert "action_probabilities" in estimate.method
        assert check.sums[name].value == pytest.approx(estimate.value)
    assert "cross-fitted" in check.estimates["dr"].diagnostics["q_hat"]
    assert check.exact.value == pytest.approx(check.truth.value)
    assert check.estimates["dm"].low is None
    once = found.with_model(["ips", "dr"], root)
    again = off_policy_check(once, policy, estimators=["ips", "snips", "dm", "dr"], root=root)
    assert once.q_hat is not None
    assert again.estimates == check.estimates  # the model fitted once for all is the one that each would have fitted
    assert found.with_model(["ips", "snips"], root) is found


def test_estimates_without_their_propensities_would_miss(
    judged: tuple[World, ItemFacts, JudgeLog], root: np.random.SeedSequence
) -> None:
    """The policy that takes the best candidate: its value is far from the mean reward that was logged."""
    world, _, found = judged
    best = policy_in(found, world, [Oracle(NoSettings())], root, name="oracle")
    check = off_policy_check(found, Policy(0.5 * best.pi_e + 0.025, "mixed"), estimators=["snips"], root=root)
    estimate = check.estimates["snips"]
    assert estimate.low < check.truth.value < estimate.high
    assert found.rounds.reward.mean() < estimate.low


def test_rounds_have_as_many_candidates_as_half_of_the_users_have_left(
    judged: tuple[World, ItemFacts, JudgeLog],
) -> None:
    world, facts, _ = judged
    root = np.random.SeedSequence(1)
    left = 200 - np.diff(world.starts.seen.start)
    fewer = log_rounds(world, facts, root, candidates=199)
    assert fewer.candidates.shape[1] == int(np.median(left)) < 199
    assert set(fewer.start) == set(np.flatnonzero(left >= np.median(left)))
    assert log_rounds(replace(world, shown_again=True), facts, root, candidates=199).candidates.shape == (6000, 199)
    all_met = Histories(200 * np.arange(301), np.tile(np.arange(200), 300), np.ones(60_000, np.float32))
    with pytest.raises(InputError, match=r"simulator\.shown_again: 'false' leaves half of the users 0 of 200 items"):
        log_rounds(replace(world, starts=replace(world.starts, seen=all_met)), facts, root)
