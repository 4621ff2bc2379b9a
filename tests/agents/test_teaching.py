"""Training that stops early, and training that goes on from its checkpoint as if it had never been stopped.

Sabotaged once, each seen red: libraries' generators not put back, the last policy judged, the best one not copied, no
patience, a user's agent as it was last, a gain below `min_delta` counted, early stopping let through, a curve that ends
before what `multimodal` does at the end, a damaged checkpoint loaded all the same, a failure to write let through.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.base import AgentError, Training
from agents.checkpoints import STAGE, Checkpoint, GlobalDraws, Part
from agents.loading import AgentSpec, Trained, resolve_kind, train
from agents.multimodal import Multimodal
from agents.settings import AgentSettings, EarlyStopping
from agents.slates import top_slates
from agents.teaching import whole_passes
from agents.train_world import VALUE_SEED, VALUE_SESSIONS, Act, Lanes, session_value
from simulator.cache import StageCache
from simulator.env import WindtunnelVectorEnv
from simulator.errors import InputError
from simulator.log import InteractionLog
from simulator.world import World
from tests.agents.taught_world import ITEMS, observed, taught_world, training_in

SMALL: dict[str, dict[str, Any]] = {
    "linucb": {},
    "hybrid_linucb": {},
    "neural_linear": {"retrain_every": 300, "gradient_steps": 5},
    "q_learning": {},
    "dqn": {"buffer_size": 2_000, "num_envs": 16},
    "qr_dqn": {"buffer_size": 2_000, "num_envs": 16},
    "slate_q": {"buffer_size": 2_000, "num_envs": 16, "gradient_steps": 1},
    "ppo": {"num_envs": 16, "n_epochs": 2},
    "a2c": {"num_envs": 16},
    "sac": {"num_envs": 16, "buffer_size": 2_000},
    "td3": {"num_envs": 16, "buffer_size": 2_000},
    "maskable_ppo": {"num_envs": 16, "shortlist_size": 20, "n_epochs": 2},
    "reinforce": {"num_envs": 16},
    "cql": {},
    "iql": {},
    "decision_transformer": {},
    "multimodal": {},
    "maml": {},
    "fine_tuned": {},
    "mixture": {"agents": [{"kind": "epsilon_greedy"}, {"kind": "popularity"}]},
    "rerank:linucb": {"constraint": "exposure_parity"},
}
"""Every family that learns along a curve, as small as it goes."""

QUICK = ("linucb", "q_learning", "a2c", "cql", "mixture")
EVERY = [kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.slow) for kind in SMALL]


class Killed(BaseException):
    """The process is stopped from outside."""


@pytest.fixture(scope="module")
def world_and_log() -> tuple[World, InteractionLog]:
    return taught_world()


def spec_of(kind: str, **settings: Any) -> AgentSpec:
    entry = {"name": "a", "kind": kind, "params": SMALL[kind], **settings}
    return resolve_kind(AgentSettings.model_validate(entry), Path())


def training_of(kind: str, world: World, log: InteractionLog, **changes: Any) -> Training:
    budget = {"multimodal": 4 * len(log), "mixture": 1_600}.get(kind, 640)
    return replace(training_in(world, log, budget=budget), **changes)


def state_of(trained: Trained, world: World) -> tuple[Any, bytes]:
    slates = trained.agent.act(observed(world), np.random.default_rng(0))
    return trained.curve, slates.tobytes()


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Values of the points of learning curves that were flown."""
    found: list[float] = []

    def noted(lanes: Lanes, act: Act) -> float:
        found.append(session_value(lanes, act))
        return found[-1]

    monkeypatch.setattr("agents.teaching.session_value", noted)
    return found


@pytest.mark.parametrize("kind", EVERY)
def test_a_training_that_was_killed_goes_on_to_the_same_result_with_fewer_steps(
    kind: str, world_and_log: tuple[World, InteractionLog], tmp_path: Path, measured: list[float]
) -> None:
    world, log = world_and_log
    spec, cache = spec_of(kind), StageCache(tmp_path)
    whole = train(spec, training_of(kind, world, log), Path())
    assert len(measured) == len(whole.curve) > 3

    def killed(steps: int, value: float) -> None:
        if steps >= whole.curve[-2][0]:
            raise Killed

    kept = training_of(kind, world, log, report=killed, checkpoint=Checkpoint(cache, "k", seconds_apart=0.0))
    with pytest.raises(Killed):
        train(spec, kept, Path())
    assert cache.has(STAGE, "k")
    measured.clear()
    kept = training_of(kind, world, log, checkpoint=Checkpoint(cache, "k", seconds_apart=0.0))
    resumed = train(spec, kept, Path())
    assert len(measured) == 2
    assert state_of(resumed, world) == state_of(whole, world)
    assert resumed.steps == whole.steps


@pytest.mark.parametrize("part", [False, True])
def test_a_checkpoint_that_cannot_be_read_is_dropped_and_the_training_begins_anew(
    part: bool, world_and_log: tuple[World, InteractionLog], tmp_path: Path
) -> None:
    world, log = world_and_log
    spec, cache, said = spec_of("linucb"), StageCache(tmp_path), tmp_path / "a.log"
    draws = np.random.default_rng(9).bit_generator.state, GlobalDraws.now()
    cache.store(STAGE, "k", ([Part(b"cut off", draws, ended=False)], 1.0))
    if not part:
        cache.path(STAGE, "k").write_bytes(b"")
    found = train(spec, training_of("linucb", world, log, checkpoint=Checkpoint(cache, "k", said)), Path())
    assert state_of(found, world) == state_of(train(spec, training_of("linucb", world, log), Path()), world)
    assert not cache.has(STAGE, "k")
    assert "its checkpoint cannot be read, so it begins anew" in said.read_text()


@pytest.mark.parametrize("full", [False, True])
def test_a_checkpoint_that_cannot_be_written_is_told_once_and_done_without(
    full: bool, world_and_log: tuple[World, InteractionLog], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder can be made here")
    said = tmp_path / "a.log"
    cache = StageCache(tmp_path / "file" if full else tmp_path)
    checkpoint = Checkpoint(cache, "k", said, seconds_apart=0.0)
    assert checkpoint.due
    training = training_in(*world_and_log)
    checkpoint.keep(training, None if full else threading.Lock())
    checkpoint.end(training, threading.Lock())
    assert not checkpoint.due
    assert not cache.has(STAGE, "k")
    assert said.read_text().count("no checkpoint can be written") == 1


@pytest.mark.slow
def test_the_last_point_of_a_curve_is_what_is_judged_where_the_end_changes_the_policy(
    world_and_log: tuple[World, InteractionLog],
) -> None:
    world, log = world_and_log
    training = training_of("multimodal", world, log)
    trained = train(spec_of("multimodal"), training, Path())
    lanes = Lanes(training, VALUE_SESSIONS, seed=training.seed + VALUE_SEED)
    assert trained.curve[-1][1] == session_value(lanes, trained.agent.act)
    assert isinstance(trained.agent, Multimodal)
    assert trained.agent._tables is not None
    learned = replace(trained.agent._tables, repetition=0.0)
    assert trained.agent._tables.repetition > 0  # the balance changed something
    assert trained.curve[-1][1] != session_value(lanes, lambda seen, rng: top_slates(learned.scores(seen), seen))


@dataclass(frozen=True)
class Validating:
    """Environments of a world that say whether they validate."""

    world: World
    validates: bool = True

    def __call__(self, num_envs: int, *, action: str = "slate", seed: int = 0, copy: bool = True) -> Any:
        env = WindtunnelVectorEnv(self.world, num_envs, action=action, seed=seed, copy=copy)
        env.validates = self.validates  # type: ignore[attr-defined]
        return env


@pytest.mark.parametrize("kind", EVERY)
def test_a_training_that_may_stop_early_is_judged_as_it_was_at_the_best_point(
    kind: str, world_and_log: tuple[World, InteractionLog], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The validation world says 1, 3, 2, 0: training stops after the fourth point, and the second's agent is judged."""
    world, log = world_and_log
    spec = spec_of(kind, train={"early_stopping": {"patience": 2, "points": 4}})
    planned = [1.0, 3.0, 2.0, 0.0]
    flown: dict[Lanes, list[bytes]] = {}  # an agent within an agent has lanes of its own

    def value(lanes: Lanes, act: Act) -> float:
        if not lanes.env.validates:
            return 0.0
        shown = flown.setdefault(lanes, [])
        shown.append(act(observed(world), np.random.default_rng(0)).tobytes())
        return planned[len(shown) - 1]

    monkeypatch.setattr("agents.teaching.session_value", value)
    told: list[int] = []
    training = training_of(
        kind, world, log, validation=Validating(world), valued=lambda steps, value: told.append(steps)
    )
    training = replace(training, make_env=Validating(world, validates=False))
    trained = train(spec, training, Path())
    assert [value for _, value in trained.valued] == planned
    assert [steps for steps, _ in trained.valued] == told == [steps for steps, _ in trained.curve]
    assert trained.judged_at == told[1] < trained.steps
    shown = list(flown.values())[-1]
    learned: Any = trained.agent
    if kind.startswith("rerank:"):
        learned = learned.agent
    assert learned.act(observed(world), np.random.default_rng(0)).tobytes() == shown[1]
    assert len(set(shown)) > 1


@pytest.mark.parametrize("kind", ["recbole:EASE", "popularity", "uplift", "from_scratch"])
def test_early_stopping_of_what_does_not_learn_in_steps_is_bad_input(kind: str) -> None:
    entry = {"name": "a", "kind": kind, "train": {"early_stopping": {"patience": 2}}}
    with pytest.raises(InputError, match=r"agents\[a\].train.early_stopping: .*nothing to stop") as caught:
        resolve_kind(AgentSettings.model_validate(entry), Path())
    assert "\n" not in str(caught.value)


def test_clicks_that_are_learned_from_are_whole_where_their_delay_hides_them_from_observations() -> None:
    world, log = taught_world()
    clicks = []
    for delay in (0, 2):
        lanes = Lanes(training_in(replace(world, delay=delay), log), 64, seed=3)
        seen = lanes.reset()
        step = lanes.step(top_slates(np.arange(ITEMS, dtype=np.float32), seen))
        clicks.append(step.clicks)
        newest = step.observation.history_feedback[~step.done, -lanes.slate_size :]
        assert newest.any() == (delay == 0)
        lanes.close()
    assert clicks[0].any()
    np.testing.assert_array_equal(*clicks)


def test_a_small_budget_of_rows_is_one_pass_and_none_is_none() -> None:
    assert [whole_passes(budget, 1_000) for budget in (0, 1, 400, 1_400, 2_600)] == [0, 1, 1, 1, 3]


@pytest.mark.parametrize("kind", ["recbole:BPR", "multimodal"])
def test_what_learns_by_passes_learns_whatever_it_is_given(kind: str) -> None:
    trained = train(AgentSettings(name="one", kind=kind), training_in(*taught_world(), budget=10), Path())
    assert trained.steps > 10


def test_the_best_point_is_the_first_of_those_that_are_no_gain_on_each_other() -> None:
    stopping = EarlyStopping(patience=2, min_delta=0.5)
    assert stopping.best([1.0, 1.4, 1.5, 2.0, 2.1]) == 3
    assert not stopping.over([1.0, 1.4])
    assert stopping.over([1.0, 1.4, 1.5])
    assert not stopping.over([1.0, 1.4, 1.6, 1.7])


OWN = """
import numpy as np


class Climber:
    def fit(self, training):
        assert training.validation is None  # what it is valued on is not its to learn from
        for self.point in range(100):
            training.report(self.point, 0.0)

    def act(self, observation, rng):
        order = np.roll(np.arange(observation.candidates.shape[1]), -self.point)
        barred = ~observation.candidates[:, order]
        return order[np.argsort(barred, axis=1, kind="stable")[:, : observation.slate_size]].tolist()


class Repeats(Climber):
    def act(self, observation, rng):
        return [[one[0]] * len(one) for one in super().act(observation, rng)]


class Hangs(Climber):
    def act(self, observation, rng):
        __import__("time").sleep(60)


class Locked(Climber):
    def __init__(self):
        self.lock = __import__("threading").Lock()


class Silent:
    def fit(self, training):
        pass

    def act(self, observation, rng):
        return np.tile(np.arange(observation.slate_size), (len(observation), 1))
"""


def train_own(
    world_and_log: tuple[World, InteractionLog], folder: Path, kind: str, *, stops: bool = True, **entry: Any
) -> Trained:
    """An agent with a class of OWN trained in the world, which validates it, too."""
    (folder / "own.py").write_text(OWN)
    train_settings = {"early_stopping": {"patience": 3}} if stops else {}
    settings = AgentSettings.model_validate({"name": "a", "kind": kind, "train": train_settings, **entry})
    training = training_of("linucb", *world_and_log)
    training = replace(training, validation=training.make_env)
    return train(resolve_kind(settings, folder), training, folder)


def test_a_users_own_agent_is_stopped_where_it_gains_nothing(
    world_and_log: tuple[World, InteractionLog], tmp_path: Path
) -> None:
    found = train_own(world_and_log, tmp_path, "own.py:Climber")
    assert len(found.valued) < 100
    values = [value for _, value in found.valued]
    assert found.judged_at == int(np.argmax(values)) == len(values) - 4
    seen = observed(world_and_log[0])
    slates = np.asarray(found.agent.act(seen, np.random.default_rng(0)))
    assert seen.candidates is not None
    assert slates[0, 0] == found.judged_at + np.roll(seen.candidates[0], -found.judged_at).argmax()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Repeats", r"fit raised AgentError: act returned item \d+ twice for user 0"),
        pytest.param("Silent", "reported no point", marks=pytest.mark.slow),
        pytest.param("Locked", "leave environments and open files out of self: TypeError", marks=pytest.mark.slow),
        pytest.param("Hangs", r"act took longer than 1 s \(limits.act_seconds\)", marks=pytest.mark.slow),
    ],
)
def test_how_a_users_own_agent_fails_where_it_is_valued_is_one_line(
    name: str, expected: str, world_and_log: tuple[World, InteractionLog], tmp_path: Path
) -> None:
    with pytest.raises(AgentError, match=expected) as caught:
        train_own(world_and_log, tmp_path, f"own.py:{name}", limits={"act_seconds": 1.0 if name == "Hangs" else 60.0})
    assert "\n" not in str(caught.value)


def mixed(name: str) -> dict[str, Any]:
    return {"agents": [{"kind": f"own.py:{name}"}, {"kind": "popularity"}]}


def test_points_of_an_agent_within_a_mixture_are_none_of_the_mixtures(
    world_and_log: tuple[World, InteractionLog], tmp_path: Path
) -> None:
    found = train_own(world_and_log, tmp_path, "mixture", stops=False, params=mixed("Climber"))
    assert all(value > 0 for _, value in found.curve)  # its own points are 0


@pytest.mark.slow
def test_an_agent_within_a_mixture_that_stops_early_must_report_its_points(
    world_and_log: tuple[World, InteractionLog], tmp_path: Path
) -> None:
    with pytest.raises(AgentError, match="reported no point"):
        train_own(world_and_log, tmp_path, "mixture", params=mixed("Silent"))
