"""Every built-in kind: valid slates and chances, the same again from the same seed, and something learned.

All train in a small world in which items differ in quality and users in taste. Sabotaged once, each seen red:
candidates not masked, the bandit's weights with the wrong sign, the command line not hidden from RecBole or not put
back, the global generator not put back.
"""

from __future__ import annotations

import os
import pickle
import random  # noqa: TID251  the state that libraries seed is what is tested
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agents.base import Observation
from agents.contract import check_agent, check_slate
from agents.kinds import KINDS
from agents.loading import AgentSettings, Trained, resolve_kind, train, training_seeds
from agents.train_world import Lanes, session_value, session_values
from simulator.log import InteractionLog
from simulator.world import World
from tests.agents.taught_world import ITEMS, observed, taught_world, training_in

BANDITS = ("linucb", "epsilon_greedy", "linear_thompson", "logistic_thompson", "slate_thompson", "cascade_ucb",
           "hybrid_linucb", "neural_linear")  # fmt: skip
VALUE_BASED = ("q_learning", "sarsa", "linear_q", "slate_q")
DEEP = ("dqn", "qr_dqn", "ppo", "a2c", "sac", "td3", "maskable_ppo", "reinforce")
OFFLINE = ("behaviour_cloning", "cql", "iql", "decision_transformer")
META = ("maml", "anil", "meta_sgd", "reptile", "prototypical", "fine_tuned", "from_scratch")
BUDGET = {
    **dict.fromkeys(META, 320),
    **dict.fromkeys(OFFLINE, 6_000),
    "maml": 1_920,
    **dict.fromkeys((*BANDITS, *VALUE_BASED), 2_400),
    "slate_q": 4_000,
    "bert_q": 3_000,
    "uplift": 2_400,
    "rerank:linucb": 2_400,
    "mixture": 2_400,
    "dqn": 6_000,
    "ppo": 12_000,
    "qr_dqn": 4_000,
    "a2c": 6_000,
    "sac": 2_400,
    "td3": 3_200,
    "maskable_ppo": 4_000,
    "reinforce": 3_000,
}
"""User-steps at which each is well ahead of where it starts in this world."""

SMALL: dict[str, dict[str, object]] = {
    **{kind: {"num_envs": 64} for kind in (*BANDITS, *VALUE_BASED, *DEEP)},
    "neural_linear": {"num_envs": 64, "retrain_every": 1_000},
    "decision_transformer": {"width": 16, "layers": 1, "learning_rate": 0.01},
    "bert_q": {"num_envs": 64, "adaptation": "frozen"},
    "uplift": {"num_envs": 64, "trial_steps": 2_000, "treatment_params": {"num_envs": 64}},
    "rerank:linucb": {"params": {"num_envs": 64}, "strength": 0.5},
    "multimodal": {"epochs": 6},
    "mixture": {"num_envs": 64, "agents": [{"kind": "random"}, {"kind": "popularity"}]},
    "rules": {"rules": [{"never": {"id": ["i119"]}}]},
    "recbole:BPR": {"epochs": 60, "options": {"train_batch_size": 256}},
}
EVERY = ("random", "popularity", "recent", "segment_popularity", "cooccurrence", "content", "logged", "oracle",
         *BANDITS, *VALUE_BASED, "bert_q", *DEEP, *OFFLINE, *META, "recbole:EASE", "recbole:BPR", "uplift", "debiased",
         "rerank:linucb", "multimodal", "mmr", "dpp", "mixture", "rules")  # fmt: skip
ELSEWHERE = {"http": "test_remote.py", "language_model": "test_language_model.py"}
"""Kinds that need a service or a model of the test's own."""


@pytest.fixture(scope="module")
def world_and_log() -> tuple[World, InteractionLog]:
    return taught_world()


class TrainedKinds(dict[str, Trained]):
    """Each kind, trained once, when a test first asks for it."""

    def __init__(self, world_and_log: tuple[World, InteractionLog]) -> None:
        super().__init__()
        self._world_and_log = world_and_log

    def __missing__(self, kind: str) -> Trained:
        return self.setdefault(kind, teach(kind, self._world_and_log, budget=BUDGET.get(kind)))


@pytest.fixture(scope="module")
def trained(world_and_log: tuple[World, InteractionLog]) -> dict[str, Trained]:
    return TrainedKinds(world_and_log)


def teach(kind: str, world_and_log: tuple[World, InteractionLog], *, seed: int = 5, budget: int | None) -> Trained:
    settings = AgentSettings.model_validate({"name": "one", "kind": kind, "params": SMALL.get(kind, {})})
    world, log = world_and_log
    if kind == "logged":
        world_and_log = world, replace(log, self_selected=False)
    return train(settings, training_in(*world_and_log, seed=seed, budget=budget), Path())


def later(world: World, observation: Observation) -> Observation:
    """The same users as if two slates had been shown: newer history, fewer candidates."""
    items = observation.history_items.copy()
    feedback = observation.history_feedback.copy()
    assert observation.candidates is not None
    candidates = observation.candidates.copy()
    shown = 2 * world.slate_size
    for row in range(len(items)):
        new = np.flatnonzero(candidates[row])[:shown]
        items[row] = np.concatenate([items[row], new])[-items.shape[1] :]
        feedback[row] = np.concatenate([feedback[row], new % 2])[-items.shape[1] :]
        candidates[row, new] = False
    return replace(
        observation,
        history_items=items,
        history_feedback=feedback,
        candidates=candidates,
        step=np.full(len(items), 2, np.int64),
    )


def test_every_built_in_kind_is_tested_here() -> None:
    assert {kind.partition(":")[0] for kind in (*EVERY, *ELSEWHERE)} == {kind.partition(":")[0] for kind in KINDS}
    assert all((Path(__file__).parent / file).is_file() for file in ELSEWHERE.values())


@pytest.mark.parametrize("kind", EVERY)
def test_every_kind_keeps_the_contract_at_the_start_and_within_a_session(
    kind: str, trained: dict[str, Trained], world_and_log: tuple[World, InteractionLog]
) -> None:
    world, _ = world_and_log
    observation = observed(world, privileged=kind == "oracle")
    agent = trained[kind].agent
    check_agent(agent, observation, ITEMS)
    check_agent(agent, later(world, observation), ITEMS)


@pytest.mark.parametrize("kind", EVERY)
def test_every_kind_serves_users_of_whom_nothing_is_known_or_who_have_seen_almost_all(
    kind: str, trained: dict[str, Trained], world_and_log: tuple[World, InteractionLog]
) -> None:
    observation = observed(world_and_log[0], 2, privileged=kind == "oracle")
    assert observation.candidates is not None
    candidates = observation.candidates.copy()
    candidates[1] = False
    candidates[1, :2] = True
    blank = replace(
        observation,
        history_items=np.full_like(observation.history_items, -1),
        history_feedback=np.zeros_like(observation.history_feedback),
        candidates=candidates,
    )
    slates = check_slate(trained[kind].agent.act(blank, np.random.default_rng(0)), blank)
    assert set(slates[1]) == {0, 1, -1}


@pytest.mark.parametrize("kind", EVERY)
def test_a_trained_agent_is_the_same_after_travelling(
    kind: str, trained: dict[str, Trained], world_and_log: tuple[World, InteractionLog]
) -> None:
    observation = observed(world_and_log[0], privileged=kind == "oracle")
    agent = trained[kind].agent
    travelled = pickle.loads(pickle.dumps(agent))
    assert np.array_equal(
        travelled.act(observation, np.random.default_rng(1)), agent.act(observation, np.random.default_rng(1))
    )
    if hasattr(agent, "action_probabilities"):  # those made of other agents have none: draws of act say theirs
        assert np.array_equal(travelled.action_probabilities(observation), agent.action_probabilities(observation))


@pytest.mark.parametrize(
    "kind", ["linucb", "dqn", "ppo", "sac", "reinforce", "iql", "decision_transformer", "recbole:BPR"]
)
def test_a_learner_learns_the_same_from_the_same_seed_and_other_things_from_another(
    kind: str, world_and_log: tuple[World, InteractionLog]
) -> None:
    budget = {"recbole:BPR": None}.get(kind, 600)
    one, again, other = (teach(kind, world_and_log, seed=seed, budget=budget) for seed in (5, 5, 6))
    observation = observed(world_and_log[0], 60)
    rng = np.random.default_rng(0)
    assert one.curve == again.curve
    assert np.array_equal(one.agent.act(observation, rng), again.agent.act(observation, rng))
    assert one.curve != other.curve


@pytest.mark.parametrize("kind", [*BANDITS, *VALUE_BASED, *DEEP])
def test_a_learning_curve_starts_at_the_untrained_policy_and_ends_far_above_random(
    kind: str, trained: dict[str, Trained], world_and_log: tuple[World, InteractionLog]
) -> None:
    curve = trained[kind].curve
    untrained = teach(kind, world_and_log, budget=0)
    assert curve[0] == untrained.curve[0]
    assert curve[0][0] == 0
    assert BUDGET[kind] <= curve[-1][0] < 1.2 * BUDGET[kind]
    assert len(curve) >= 6
    lanes = Lanes(training_in(*world_and_log), 256, seed=99)
    agents = {"random": trained["random"], "untrained": untrained, kind: trained[kind]}
    values = {name: session_values(lanes, one.agent.act) for name, one in agents.items()}
    lanes.close()
    assert values[kind].mean() > 1.3 * values["random"].mean(), values
    for less in ("random", "untrained"):
        difference = values[kind] - values[less]  # the same users and luck: a paired interval
        assert difference.mean() - 1.96 * difference.std() / np.sqrt(len(difference)) > 0, less
    if kind not in ("q_learning", "sarsa"):  # whose items are scored by the log, whatever the table says
        assert curve[-1][1] > 1.7 * curve[0][1], curve  # without rewards, luck alone reached 1.4


def test_learners_that_read_the_log_beat_random(
    trained: dict[str, Trained], world_and_log: tuple[World, InteractionLog]
) -> None:
    lanes = Lanes(training_in(*world_and_log), 256, seed=99)
    names = (
        "random",
        "popularity",
        "recent",
        "segment_popularity",
        "cooccurrence",
        "content",
        "recbole:EASE",
        "recbole:BPR",
        "uplift",
        "debiased",
        "bert_q",
        "cql",
        "iql",
        "maml",
        "rerank:linucb",
        "multimodal",
        "mmr",
        "dpp",
        "mixture",
        "rules",
    )
    values = {name: session_value(lanes, trained[name].agent.act) for name in names}
    lanes.close()
    assert min(values[name] for name in names[1:]) > 1.15 * values["random"], values


def test_an_agent_trained_twice_is_judged_as_often_as_its_training_draws() -> None:
    def seeds(kind: str) -> int:
        return training_seeds(resolve_kind(AgentSettings(name="one", kind=kind), Path()))

    assert {kind: seeds(kind) for kind in ("popularity", "recbole:EASE", "recbole:BPR", "linucb")} == {
        "popularity": 1,
        "recbole:EASE": 1,
        "recbole:BPR": 3,
        "linucb": 3,
    }


@pytest.mark.parametrize("kind", ["dqn", "recbole:EASE"])
def test_training_leaves_the_process_as_it_was(
    kind: str,
    world_and_log: tuple[World, InteractionLog],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    import torch

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["windtunnel", "--seed=99", "--reg_weight=1", "--embedding_size=2"])

    def state() -> tuple[object, ...]:
        legacy = np.random.get_state(legacy=True)  # noqa: NPY002  the state that libraries seed is what is tested
        return (
            random.getstate(),
            legacy[1].tobytes(),
            legacy[2],
            torch.get_rng_state().numpy().tobytes(),
            torch.get_num_threads(),
            tuple(sys.argv),
            Path.cwd(),
            os.environ.get("CUDA_VISIBLE_DEVICES"),
            sorted(np.__dict__),
        )

    before = state()
    quiet = teach(kind, world_and_log, budget=600)
    assert state() == before
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr(sys, "argv", ["windtunnel"])
    observation = observed(world_and_log[0])
    rng = np.random.default_rng(0)
    plain = teach(kind, world_and_log, budget=600)
    assert np.array_equal(plain.agent.act(observation, rng), quiet.agent.act(observation, rng))
