"""Agents made of agents: diversity against slow twins, the mixture's choice, rules that hold and rules refused.

Sabotaged once, each seen red: likeness to the last chosen item only (MMR), the Cholesky column not divided (DPP), arms
paid by another session's reward, candidates of `never` not narrowed, the must item put over another must's.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.base import AgentError, Observation, Training, learns_online
from agents.contract import check_agent
from agents.diversity import DPP, MMR, Diversified, DiversitySettings
from agents.loading import resolve_kind, train
from agents.mixture import Mixture, MixtureSettings
from agents.rules import UserTest
from agents.settings import AgentSettings
from agents.wrapping import best_of, slates_of
from evaluators.rollout import fly
from simulator.errors import InputError
from simulator.log import InteractionLog
from simulator.world import World
from tests.agents.taught_world import ITEMS, observed, taught_world, training_in


@pytest.fixture(scope="module")
def world_and_log() -> tuple[World, InteractionLog]:
    return taught_world()


def made(
    world_and_log: tuple[World, InteractionLog], kind: str, training: Training | None = None, **params: Any
) -> Any:
    settings = AgentSettings.model_validate({"name": "one", "kind": kind, "params": params})
    return train(settings, training or training_in(*world_and_log), Path()).agent


def slates(agent: Any, observation: Observation, seed: int = 0) -> np.ndarray:
    return np.asarray(agent.act(observation, np.random.default_rng(seed)))


# ------------------------------------------------------------------------------------------------------ diversity


@pytest.mark.parametrize("kind", ["mmr", "dpp"])
def test_without_strength_the_slates_are_the_agents_own_and_with_more_no_two_items_are_as_near(
    kind: str, world_and_log: tuple[World, InteractionLog]
) -> None:
    world, log = world_and_log
    observation = observed(world)
    own = slates(made(world_and_log, "popularity"), observation)
    content = log.catalogue.content
    assert content is not None

    def nearest(strength: float) -> float:
        """Greatest cosine of two items of a slate, mean over users."""
        v = content[slates(made(world_and_log, kind, agent="popularity", strength=strength), observation)]
        likeness = v @ v.transpose(0, 2, 1) - 2 * np.eye(v.shape[1])
        return float(likeness.max(axis=(1, 2)).mean())

    assert np.array_equal(slates(made(world_and_log, kind, agent="popularity", strength=0), observation), own)
    assert nearest(0.0) > nearest(0.5) + 0.1
    assert nearest(0.5) > nearest(0.95) - 1e-6


def slow_mmr(likeness: np.ndarray, relevance: np.ndarray, there: np.ndarray, size: int, s: float) -> list[int]:
    chosen: list[int] = []
    for _ in range(size):
        left = [i for i in range(len(there)) if there[i] and i not in chosen]
        if not left:
            break
        value = {i: (1 - s) * relevance[i] - s * max((likeness[i, j] for j in chosen), default=0) for i in left}
        chosen.append(max(left, key=value.__getitem__))
    return chosen + [-1] * (size - len(chosen))


def slow_dpp(likeness: np.ndarray, relevance: np.ndarray, there: np.ndarray, size: int, s: float) -> list[int]:
    quality = np.exp(relevance * (1 - s) / (2 * s))
    kernel = quality[:, None] * likeness * quality
    chosen: list[int] = []
    for _ in range(size):
        left = [i for i in range(len(there)) if there[i] and i not in chosen]
        if not left:
            break
        value = {i: np.linalg.slogdet(kernel[np.ix_([*chosen, i], [*chosen, i])])[1] for i in left}
        chosen.append(max(left, key=value.__getitem__))
    return chosen + [-1] * (size - len(chosen))


@pytest.mark.parametrize(("agent", "slow"), [(MMR, slow_mmr), (DPP, slow_dpp)])
def test_the_choice_is_that_of_the_slow_twin(agent: type[Diversified], slow: Any) -> None:
    rng = np.random.default_rng(8)
    vectors = rng.standard_normal((20, 12, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    likeness, relevance = vectors @ vectors.transpose(0, 2, 1), (1 / np.log2(2 + np.arange(12))).astype(np.float32)
    there = rng.random((20, 12)) < 0.8
    there[0, 3:] = False
    for s in (0.2, 0.7):
        found = agent(DiversitySettings(strength=s), [None]).choose(likeness, relevance, there, 5)  # type: ignore[list-item]
        assert found.tolist() == [slow(likeness[u], relevance, there[u], 5, s) for u in range(20)]


def test_a_copy_of_a_chosen_item_adds_nothing_to_a_determinant_and_comes_last() -> None:
    vectors = np.eye(4, dtype=np.float32)[[0, 0, 1, 2, 3]][None]
    chosen = DPP(DiversitySettings(strength=0.5), [None]).choose(  # type: ignore[list-item]
        vectors @ vectors.transpose(0, 2, 1), np.ones(5, np.float32), np.ones((1, 5), bool), 5
    )
    assert sorted(chosen[0, :4].tolist()) == [0, 2, 3, 4]
    assert chosen[0, 4] == 1


# -------------------------------------------------------------------------------------------------------- mixture


@pytest.mark.parametrize("algorithm", ["thompson", "exp3"])
def test_a_mixture_comes_to_serve_users_by_the_better_agent(
    algorithm: str, world_and_log: tuple[World, InteractionLog]
) -> None:
    agents = [{"kind": "random"}, {"kind": "popularity"}, {"kind": "random"}]
    training = training_in(*world_and_log, budget=6_000)
    mixture = made(world_and_log, "mixture", training, agents=agents, algorithm=algorithm, exploration=0.2)
    shares = mixture.shares(observed(world_and_log[0], 60))
    assert abs(shares.sum() - 1) < 1e-9
    assert shares[1] > (0.95 if algorithm == "thompson" else 0.6), shares


def test_exp3_tells_arms_apart_whatever_the_unit_of_the_reward(
    world_and_log: tuple[World, InteractionLog],
) -> None:
    """Seconds, of which a session earns hundreds: were each the most that there can be, all arms would be alike."""
    training = training_in(*world_and_log)
    mixture = Mixture(MixtureSettings(algorithm="exp3"), [Sorts(), Sorts()])
    arm = np.arange(40) % 2
    for _ in range(20):
        mixture._learn(np.zeros((40, 4)), arm, np.full(40, 0.5), np.where(arm == 1, 900.0, 300.0), training)
    shares = mixture.shares(observed(world_and_log[0], 2))
    assert shares[1] > 0.9


def test_an_untrained_mixture_serves_by_any_agent(world_and_log: tuple[World, InteractionLog]) -> None:
    agents = [{"kind": "popularity"}, {"kind": "content"}]
    mixture = made(world_and_log, "mixture", training_in(*world_and_log, budget=0), agents=agents)
    observation = observed(world_and_log[0], 60)
    check_agent(mixture, observation, ITEMS)
    shown = slates(mixture, observation)
    like = [np.mean((shown == slates(arm, observation)).all(axis=1)) for arm in mixture.wrapped]
    assert all(0.25 < share < 0.75 for share in like), like


# ---------------------------------------------------------------------------------------------------------- rules


def under_rules(world_and_log: tuple[World, InteractionLog], *rules: dict[str, Any], agent: str = "popularity") -> Any:
    """The agent under rules, in a catalogue whose items have a stock and whose users' ages were standardised."""
    world, log = world_and_log
    stock = np.arange(ITEMS, dtype=np.float32)[:, None] % 7
    stock[5] = np.nan
    scale = np.array([[40.0, 10.0], [0.0, 1.0]])
    features = log.catalogue.user_features.copy()
    features[:, 1] = features[:, 1] > 0
    catalogue = replace(log.catalogue, modalities={"stock": stock}, user_feature_scale=scale, user_features=features)
    training = training_in(world, replace(log, catalogue=catalogue))
    return made(world_and_log, "rules", training, agent=agent, rules=list(rules))


def with_ages(world: World, ages: list[float]) -> Observation:
    seen = observed(world, len(ages))
    features = np.column_stack([(np.array(ages) - 40) / 10, np.arange(len(ages)) % 2]).astype(np.float32)
    return replace(seen, user_features=features)


def test_an_age_limit_holds_for_those_below_it_alone(world_and_log: tuple[World, InteractionLog]) -> None:
    world, log = world_and_log
    adult = log.catalogue.item_categories[:, 0] > 0
    seen = with_ages(world, [17.9, 18.0, 40.0, 12.0])
    agent = under_rules(world_and_log, {"never": {"category": "a"}, "when": {"age": "< 18"}})
    shown, own = slates(agent, seen), slates(made(world_and_log, "popularity"), seen)
    assert adult[own].any(axis=1).all()  # or the limit would limit nothing
    assert not adult[shown[[0, 3]]].any()
    assert np.array_equal(shown[[1, 2]], own[[1, 2]])


@pytest.mark.parametrize(
    ("values", "test", "met"),
    [
        ([17.0, 18.0, 19.0, 70.0], "< 18", [True, False, False, False]),
        ([90_210.0, 90_211.0, 10_001.0, 33_333.0], "== 90210", [True, False, False, False]),
        ([2.1e-5, 2.2e-5, 9.0e-5, 1e-6], "> 0.000021", [False, True, True, False]),
        ([1.7e9 + 60, 1.7e9, 1.2e9, 1.3e9], "<= 1700000060", [True, True, True, True]),
    ],
)
def test_a_comparison_is_in_the_feature_s_own_unit_however_large_or_small(
    values: list[float], test: str, met: list[bool]
) -> None:
    own = np.array(values)
    scale = np.array([[own.mean(), own.std()]])
    catalogue = replace(taught_world()[1].catalogue, user_feature_names=("size",), user_feature_scale=scale)
    features = ((own - scale[0, 0]) / scale[0, 1]).astype(np.float32)[:, None]
    assert UserTest.of({"size": test}, catalogue, "when").holds(features).tolist() == met


def test_what_is_out_of_stock_is_not_shown_and_the_unknown_passes_never_but_not_only(
    world_and_log: tuple[World, InteractionLog],
) -> None:
    seen = with_ages(world_and_log[0], [30.0] * 6)
    candidates = np.zeros((6, ITEMS), bool)
    candidates[:, :14] = True
    seen = replace(seen, candidates=candidates)
    shown = slates(under_rules(world_and_log, {"never": {"stock": "< 5"}}), seen)
    assert {int(i) for i in shown.ravel()} == {5, 6, 12, 13}
    with pytest.raises(AgentError, match=r"3 of 14 candidates are left for user 0, and a slate has 4 places"):
        slates(under_rules(world_and_log, {"only": {"stock": ">= 5"}}), seen)


def test_a_must_is_met_by_the_agents_best_and_two_of_them_do_not_undo_each_other(
    world_and_log: tuple[World, InteractionLog],
) -> None:
    world, log = world_and_log
    seen = with_ages(world, [30.0, 31.0, 50.0, 60.0])
    own = slates(made(world_and_log, "popularity"), seen)
    rare = {"must": {"stock": "== 3", "category": "c"}, "at_least": 2}
    other = {"must": {"stock": "== 4"}, "at_least": 2, "when": {"gender": "F"}}
    shown = slates(under_rules(world_and_log, rare, other), seen)
    wanted = (np.arange(ITEMS) % 7 == 3) & (log.catalogue.item_categories[:, 2] > 0)
    assert (wanted[shown].sum(axis=1) == 2).all()
    assert ((shown % 7 == 4).sum(axis=1) >= 2)[1::2].all()
    narrowed = replace(seen, candidates=seen.candidates & wanted)
    best = slates(made(world_and_log, "popularity"), narrowed)
    for row in range(4):
        assert set(best[row, :2]) == {i for i in shown[row] if wanted[i]}
    assert (own[::2, :2] == shown[::2, :2]).all()  # the rest of the slate is the agent's own


def test_a_must_counts_on_no_more_than_it_asks_for_and_musts_that_do_not_fit_together_fail(
    world_and_log: tuple[World, InteractionLog],
) -> None:
    """The first must finds a whole slate of its kind and asks for one: the other places are free for the second."""
    log = world_and_log[1]
    seen = with_ages(world_and_log[0], [30.0])
    own = slates(made(world_and_log, "popularity"), seen)
    first = {"must": {"id": [log.catalogue.item_ids[item] for item in own[0]]}}
    rare = {"must": {"stock": "== 3"}, "at_least": 3}
    shown = slates(under_rules(world_and_log, first, rare), seen)
    assert (shown % 7 == 3).sum() == 3
    assert shown[0, 0] == own[0, 0]
    too_many = {"must": {"stock": "== 2"}, "at_least": 3}, {"must": {"stock": "== 3"}, "at_least": 2}
    with pytest.raises(AgentError, match=r"rules\[1\].must asks for 2 in each slate, .* a slate has 4 places, so ask"):
        slates(under_rules(world_and_log, *too_many), seen)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"never": {"category": "aa"}}, "rules[0].never.category: no item has 'aa'"),
        ({"never": {"stok": "< 1"}}, "rules[0].never.stok: is nothing known of items; did you mean 'stock'?"),
        ({"never": {"stock": "few"}}, "rules[0].never.stock: 'few' is no comparison with a number"),
        ({"never": {"id": "i999"}}, "rules[0].never.id: no item has 'i999'"),
        ({"must": {"category": "a"}, "when": {"agee": "< 3"}}, "rules[0].when.agee: is not among data.policy_inputs"),
        ({"must": {"category": "a"}, "when": {"gender": "X"}}, "rules[0].when.gender: no user has 'X'"),
    ],
)
def test_a_rule_about_what_is_not_there_is_one_line(
    world_and_log: tuple[World, InteractionLog], rule: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError) as refused:
        under_rules(world_and_log, rule)
    assert said in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- {never: {category: a}, must: {category: b}}", "this one says never and must"),
        ("- {when: {age: '< 18'}}", "this one says none"),
        ("- {never: {stock: '< one'}}", "'< one' is no comparison"),
        ("- {nevr: {stock: 1}}", "nevr"),
        ("never: {category: a}", "is no list of rules"),
        ("- {never: [", "mend the YAML"),
        ("- never: {category: a}\n  never: {category: b}", "the key 'never' stands twice"),
        ("- {never: {category: a}}\n- {only: {}}", "rule 2: only: is empty; name what it tests"),
        ("- {never: {category: a}, at_least: 2}", "rule 1: at_least: 2 belongs to must"),
    ],
)
def test_a_file_of_rules_that_are_none_is_refused_before_anything_trains(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "rules.yaml").write_text(text)
    entry = AgentSettings(name="kept", kind="rules", params={"file": "rules.yaml"})
    with pytest.raises(InputError) as refused:
        resolve_kind(entry, tmp_path, where="agents[2]")
    assert "agents[2].params.file: 'rules.yaml'" in str(refused.value)
    assert said in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_rules_of_a_file_are_read_from_the_scenarios_folder_and_belong_to_what_the_agent_depends_on(
    tmp_path: Path, world_and_log: tuple[World, InteractionLog]
) -> None:
    (tmp_path / "rules.yaml").write_text("- never: {category: [a, b]}\n")
    spec = resolve_kind(AgentSettings(name="kept", kind="rules", params={"file": "rules.yaml"}), tmp_path)
    assert spec.files == (f"{tmp_path / 'rules.yaml'}:",)
    agent = train(spec, training_in(*world_and_log), tmp_path).agent
    forbidden = world_and_log[1].catalogue.item_categories[:, :2].any(axis=1)
    assert not forbidden[slates(agent, observed(world_and_log[0]))].any()


class Sorts:
    """The agent of the docs: candidates first, and whatever comes after them in a row that has too few."""

    def __init__(self, place: int = 0) -> None:
        self.place = place

    def act(self, observation: Observation, rng: np.random.Generator) -> np.ndarray:
        assert observation.candidates is not None
        order = np.argsort(~observation.candidates, axis=1, kind="stable")
        return order[:, self.place : self.place + observation.slate_size]


class Insists:
    """Shows each user the first candidate, at every place."""

    def act(self, observation: Observation, rng: np.random.Generator) -> np.ndarray:
        assert observation.candidates is not None
        return np.repeat(observation.candidates.argmax(axis=1)[:, None], observation.slate_size, axis=1)


def test_an_agent_within_another_is_held_to_its_contract_where_it_has_enough_candidates(
    world_and_log: tuple[World, InteractionLog],
) -> None:
    seen = observed(world_and_log[0], 3)
    candidates = np.zeros((3, ITEMS), bool)
    candidates[:, 10:20] = True
    candidates[1] = np.arange(ITEMS) == 7
    seen = replace(seen, candidates=candidates)
    rng = np.random.default_rng(0)
    assert slates_of(Sorts(), seen, rng).tolist() == [[10, 11, 12, 13], [7, -1, -1, -1], [10, 11, 12, 13]]
    assert best_of(Sorts(), seen, rng, ITEMS, 3)[0].tolist() == [*range(10, 20), -1, -1]
    lonely = replace(seen, candidates=np.tile(np.arange(ITEMS) == 7, (3, 1)))
    assert slates_of(Insists(), lonely, rng).tolist() == [[7, -1, -1, -1]] * 3
    with pytest.raises(AgentError, match="act returned item 10 twice for user 0"):
        slates_of(Insists(), seen, rng)
    with pytest.raises(AgentError, match="act returned item 0 for user 0, which is not among the candidates; 3 of 3"):
        slates_of(Sorts(8), seen, rng)
    with pytest.raises(AgentError, match=r"act returned shape \[3, 0\]"):
        slates_of(Sorts(ITEMS), seen, rng)


def test_an_agent_made_of_one_that_learns_online_learns_online_and_its_next_flight_starts_afresh(
    world_and_log: tuple[World, InteractionLog],
) -> None:
    world, _ = world_and_log
    few = replace(training_in(*world_and_log), budget=1)  # what it knows it learns while it is judged
    params = {"epsilon": 0.05, "online": True}
    learner = made(world_and_log, "mmr", few, agent="epsilon_greedy", params=params, strength=0.0)
    deaf = deepcopy(learner)
    deaf.wrapped = ()  # explores as much, and is told nothing
    assert (learns_online(learner), learns_online(deaf)) == (True, False)
    arms = [{"kind": "popularity"}, {"kind": "epsilon_greedy", "params": {"online": True}}]
    assert learns_online(
        Mixture(MixtureSettings.model_validate({"agents": arms}), [made(world_and_log, "popularity"), learner])
    )
    flown = {"name": "one", "world_number": 1, "seed": 5, "training_seed": 0}
    first, again, never = (fly(agent, world, **flown) for agent in (learner, learner, deaf))
    np.testing.assert_array_equal(first.slate, again.slate)
    np.testing.assert_array_equal(first.slate[:, 0], never.slate[:, 0])
    assert (first.slate[:, 1:] != never.slate[:, 1:]).any(axis=(1, 2)).mean() > 0.5
