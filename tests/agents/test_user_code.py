"""A user's own class: what it may do, and how each of its failures is told.

Each agent is written to a file and run in a process of its own, as in a scenario. Sabotaged once, each seen red: no
limit of memory, no deadline, the state after `fit` not kept.
"""

from __future__ import annotations

import pickle
import time
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from agents.base import AgentError, Observation
from agents.contract import check_slate
from agents.loading import MOST_POINTS, AgentSettings, LimitSettings, build_agent, resolve_kind, train
from agents.user_code import CUT, LOG_BYTES, UserAgent, _keep_output, _Patience, locate
from evaluators.rollout import fly
from scenarios.stages.training import source_of
from simulator.errors import InputError
from simulator.log import InteractionLog
from simulator.world import World
from tests.agents.taught_world import observed, taught_world, training_in

FILE = """
import time
import numpy as np


class Good:
    def __init__(self, shift: int = 0):
        self.shift = shift

    def fit(self, training):
        env = training.make_env(3)
        env.reset(seed=1)
        for _ in range(2):
            reward = env.step(np.tile(np.arange(training.slate_size), (3, 1)))[1]
        self.likes = np.bincount(training.log.item, weights=training.log.primary, minlength=training.catalogue.n_items)
        training.report(6, float(reward.sum()))
        print("fitted by hand, shown again:", training.shown_again)

    def act(self, observation, rng):
        score = np.where(observation.candidates, self.likes, -1)
        return np.argsort(-score, axis=1, kind="stable")[:, self.shift : self.shift + observation.slate_size]

    def action_probabilities(self, observation):
        out = np.zeros(observation.candidates.shape)
        out[np.arange(len(out)), self.act(observation, None)[:, 0]] = 1.0
        return out


class Learns:
    # shows what no user has been shown yet

    def __init__(self):
        self.shown = 0

    def act(self, observation, rng):
        order = np.roll(np.arange(observation.candidates.shape[1]), -self.shown)
        ranked = np.where(observation.candidates[:, order], np.arange(len(order)), len(order))
        return order[np.argsort(ranked, axis=1)[:, : observation.slate_size]]

    def observe(self, feedback):
        self.shown += feedback.slates.shape[1]


class Raises:
    def act(self, observation, rng):
        raise KeyError("no such user")


class Hangs:
    def act(self, observation, rng):
        time.sleep(60)


class WrongShape:
    def act(self, observation, rng):
        return np.zeros((len(observation.step), 1), int)


class Ragged:
    def act(self, observation, rng):
        return [[1, 2], [3]]


class Hungry:
    def act(self, observation, rng):
        return np.ones((40_000, 40_000))


class Dies:
    def act(self, observation, rng):
        import os
        os._exit(3)


class KeepsEnv:
    def fit(self, training):
        self.lock = __import__("threading").Lock()

    def act(self, observation, rng):
        return None


class WrongFit(KeepsEnv):
    def fit(self, training):
        raise ValueError("trees must be above 0")


class NoAct:
    pass


class Talks(Good):
    def act(self, observation, rng):
        for _ in range(20):
            print("x" * 1_000_000, flush=True)
        return super().act(observation, rng)


class Rambles:
    def act(self, observation, rng):
        raise ValueError("x" * 3_000_000)


class Unsayable:
    def act(self, observation, rng):
        class Mute(Exception):
            def __str__(self):
                raise RuntimeError("not that either")

        raise Mute


class Swells:
    def fit(self, training):
        self.table = np.zeros(int(1.2e9), np.int8)

    def act(self, observation, rng):
        return None


class ReportsNothingFinite(Good):
    def fit(self, training):
        training.report(1, float("nan"))


class ReportsEachStep(Good):
    def fit(self, training):
        super().fit(training)
        for step in range(5_000):
            training.report(step, float(step))


class LeavesOneBehind(Good):
    def act(self, observation, rng):
        import subprocess

        self.child = subprocess.Popen(["sleep", "600"], start_new_session=True)
        print(self.child.pid, flush=True)
        return super().act(observation, rng)


class HangsInInit(Good):
    def __init__(self):
        time.sleep(60)


class HangsWhenUnpickled(Good):
    def __setstate__(self, state):
        time.sleep(60)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("own")
    (place / "own.py").write_text(FILE)
    (place / "broken.py").write_text("import nothing_of_that_name\n")
    return place


@pytest.fixture(scope="module")
def world_and_log() -> tuple[World, InteractionLog]:
    return taught_world()


@pytest.fixture(scope="module")
def observation(world_and_log: tuple[World, InteractionLog]) -> Observation:
    return observed(world_and_log[0])


def own(name: str, **limits: float) -> AgentSettings:
    return AgentSettings.model_validate({"name": "own", "kind": f"own.py:{name}", "limits": limits})


def test_an_own_agent_learns_in_the_train_world_reports_prints_and_travels(
    folder: Path, tmp_path: Path, world_and_log: tuple[World, InteractionLog], observation: Observation
) -> None:
    said = tmp_path / "own.log"
    settings = AgentSettings.model_validate({"name": "own", "kind": "own.py:Good", "params": {"shift": 1}})
    spec = resolve_kind(settings, folder)
    assert (spec.fits, spec.has_probabilities, spec.fitted_here) == (True, True, True)
    trained = train(spec, replace(training_in(*world_and_log), shown_again=True), folder, log_file=said)
    assert [steps for steps, _ in trained.curve] == [6]
    assert isinstance(trained.agent, UserAgent)
    rng = np.random.default_rng(0)
    slates = check_slate(trained.agent.act(observation, rng), observation)
    travelled = pickle.loads(pickle.dumps(trained.agent))
    assert np.array_equal(travelled.act(observation, rng), slates)
    chance = travelled.action_probabilities(observation)
    assert np.array_equal(chance.argmax(axis=1), slates[:, 0])
    trained.agent.close()
    travelled.close()
    assert "fitted by hand, shown again: True" in said.read_text()


@pytest.mark.parametrize(
    ("name", "limits", "expected"),
    [
        ("Raises", {}, r"act raised KeyError: 'no such user' \(own.py line \d+\)"),
        ("Hangs", {"act_seconds": 0.5}, r"act took longer than 0.5 s \(limits.act_seconds\)"),
        ("Ragged", {}, "act returned .* shape"),
        ("Hungry", {"memory_gb": 3.0}, r"act ate more memory than 3 GB \(limits.memory_gb\)"),
        ("Dies", {}, "act: its process ended with exit code 3"),
        ("Rambles", {}, r"^act raised ValueError: x{500}\.\.\. \(own.py line \d+\)$"),
        ("Unsayable", {}, r"act raised Mute: its text cannot be had \(RuntimeError\) \(own.py line \d+\)"),
    ],
)
def test_each_failure_of_an_own_agent_is_one_line(
    folder: Path, observation: Observation, name: str, limits: dict[str, float], expected: str
) -> None:
    agent = build_agent(own(name, **limits), folder)
    started = time.monotonic()
    with pytest.raises(AgentError, match=expected) as caught:
        agent.act(observation, np.random.default_rng(0))
    assert "\n" not in str(caught.value)
    assert time.monotonic() - started < 20  # also where it would have slept for a minute


def test_an_agent_that_is_too_large_to_be_sent_is_told_by_the_limit_that_it_met(
    folder: Path, world_and_log: tuple[World, InteractionLog]
) -> None:
    with pytest.raises(AgentError, match=r"fit ate more memory than 3 GB \(limits.memory_gb\)"):
        train(own("Swells", memory_gb=3.0), training_in(*world_and_log), folder)


def test_a_learning_curve_is_finite_and_no_longer_than_a_page_draws(
    folder: Path, world_and_log: tuple[World, InteractionLog]
) -> None:
    with pytest.raises(AgentError, match=r"fit reported nan at step 1 \(training.report\); report a finite value"):
        train(own("ReportsNothingFinite"), training_in(*world_and_log), folder)
    trained = train(own("ReportsEachStep"), training_in(*world_and_log), folder)
    steps = [step for step, _ in trained.curve]
    assert (len(steps), steps[0], steps[-1]) == (MOST_POINTS, 0, 4_999)
    assert np.diff(steps).max() <= 6


def test_what_an_agent_started_ends_with_it_also_in_a_session_of_its_own(
    folder: Path, tmp_path: Path, world_and_log: tuple[World, InteractionLog], observation: Observation
) -> None:
    said = tmp_path / "own.log"
    trained = train(own("LeavesOneBehind"), training_in(*world_and_log), folder, log_file=said)
    trained.agent.act(observation, np.random.default_rng(0))
    trained.agent.close()  # type: ignore[attr-defined]
    place = Path(f"/proc/{said.read_text().split()[-1]}/stat")
    assert not place.exists() or " Z " in place.read_text()  # nobody may have asked how it ended


def test_twenty_megabytes_of_print_change_no_slate_and_the_log_says_where_it_was_cut(
    folder: Path, tmp_path: Path, world_and_log: tuple[World, InteractionLog], observation: Observation
) -> None:
    said, slates = tmp_path / "own.log", {}
    for name in ("Good", "Talks"):
        trained = train(own(name), training_in(*world_and_log), folder, log_file=said)
        slates[name] = [trained.agent.act(observation, np.random.default_rng(0)) for _ in range(2)]
        trained.agent.close()  # type: ignore[attr-defined]
    np.testing.assert_array_equal(slates["Talks"], slates["Good"])
    assert said.stat().st_size == LOG_BYTES + len(CUT)
    assert said.read_bytes().endswith(CUT)
    assert said.read_bytes().count(CUT) == 1


def test_an_agent_that_hangs_before_it_is_asked_is_bounded_by_its_own_limit(
    folder: Path, world_and_log: tuple[World, InteractionLog], observation: Observation
) -> None:
    (folder / "hangs.py").write_text("while True:\n    pass\n", encoding="utf-8")
    settings = own("Any", load_seconds=0.5).model_copy(update={"kind": "hangs.py:Any"})
    started = time.monotonic()
    with pytest.raises(InputError, match=r"loading took longer than 0.5 s \(limits.load_seconds\)"):
        resolve_kind(settings, folder)
    resolve_kind(own("HangsInInit"), folder)  # the class is looked at once for all the file's limits
    with pytest.raises(AgentError, match=r"^building took longer than 0.5 s \(limits.load_seconds\)$"):
        build_agent(own("HangsInInit", load_seconds=0.5), folder).act(observation, np.random.default_rng(0))
    trained = train(own("HangsWhenUnpickled"), training_in(*world_and_log), folder)
    travelled = pickle.loads(pickle.dumps(trained.agent))
    travelled.limits = LimitSettings(load_seconds=0.5)
    with pytest.raises(AgentError, match=r"^building took longer than 0.5 s \(limits.load_seconds\)$"):
        travelled.act(observation, np.random.default_rng(0))
    assert time.monotonic() - started < 60


def test_flights_of_a_valuation_are_no_part_of_the_seconds_of_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("agents.user_code.time.monotonic", lambda: now)
    patience = _Patience(10.0, "fit", "fit_seconds", LimitSettings(act_seconds=3.0))
    patience.begin()
    now = 4.0
    patience.heard("report")
    assert patience.left == 6
    now = 5.0
    patience.heard("asked")
    now = 7.0
    assert patience.left == 1
    patience.heard("asked")
    assert patience.left == 3
    now = 9.0
    patience.heard("asked")
    now = 11.0
    assert patience.left == 1
    assert patience.lost == "act took longer than 3 s (limits.act_seconds)"
    patience.heard("valued")  # six seconds of flight
    assert patience.left == 5
    assert patience.lost == "fit took longer than 10 s (limits.fit_seconds)"


def test_a_wrong_shape_is_told_by_the_word_shape(folder: Path, observation: Observation) -> None:
    slates = build_agent(own("WrongShape"), folder).act(observation, np.random.default_rng(0))
    with pytest.raises(AgentError, match=r"shape \[24, 1\]; the shape must be \[n, K\] = \[24, 4\]"):
        check_slate(slates, observation)


def test_an_agent_that_cannot_be_kept_after_fit_says_what_to_leave_out(
    folder: Path, world_and_log: tuple[World, InteractionLog]
) -> None:
    with pytest.raises(AgentError, match="leave environments and open files out of self: TypeError"):
        train(own("KeepsEnv"), training_in(*world_and_log), folder)


def test_what_fit_raises_is_told_as_such_with_its_traceback_in_the_log(
    folder: Path, tmp_path: Path, world_and_log: tuple[World, InteractionLog]
) -> None:
    said = tmp_path / "own.log"
    with pytest.raises(AgentError, match=r"^fit raised ValueError: trees must be above 0 \(own.py line \d+\)$"):
        train(own("WrongFit"), training_in(*world_and_log), folder, log_file=said)
    assert "Traceback" in said.read_text()


@pytest.mark.parametrize(
    ("kind", "params", "expected"),
    [
        ("own.py:Goode", {}, "there is no 'Goode' in it"),
        ("own.py:NoAct", {}, r"'NoAct' has no method act\(observation, rng\)"),
        ("owned.py:Good", {}, "there is no file owned.py"),
        ("broken.py:Any", {}, "nothing_of_that_name"),
        ("own.py:Good", {"shfit": 2}, "unknown parameter.*shift"),
        ("popularty", {}, "is not an agent.*popularity"),
        ("popularity", {"by": "fame"}, "params.by: 'fame' cannot be used"),
        ("linucb", {"alfa": 1}, "params.alfa: unknown parameter.*alpha"),
        ("recbole:EAZE", {}, "params.model: 'EAZE' cannot be used.*EASE"),
    ],
)
def test_what_cannot_be_loaded_is_bad_input_before_anything_trains(
    folder: Path, kind: str, params: dict[str, object], expected: str
) -> None:
    with pytest.raises(InputError, match=expected):
        resolve_kind(AgentSettings.model_validate({"name": "own", "kind": kind, "params": params}), folder)


def test_a_file_that_is_not_there_is_said_with_its_folder_and_then_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("")
    with pytest.raises(InputError) as caught:
        locate("mime.py:Mine", tmp_path, "agents[0]")
    assert str(caught.value).endswith(f"there is no file mime.py in {tmp_path}; did you mean 'mine.py'?")


def test_limits_of_an_agent_hold_for_the_own_class_that_it_is_made_of(folder: Path) -> None:
    wrapping = own("Any", act_seconds=2.5).model_copy(update={"kind": "rerank:own.py:Good"})
    (inner,) = resolve_kind(wrapping, folder).wrapped
    assert inner.settings.limits == wrapping.limits != LimitSettings()


def test_an_agent_depends_on_its_file_and_on_every_module_of_the_user_s_that_it_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its results are kept under these digests: an edit of any of them trains it again."""
    (tmp_path / "rank.py").write_text("import json, numpy\nfrom beside import Base\nclass Mine(Base): pass\n")
    (tmp_path / "beside.py").write_text("class Base:\n    def act(self, observation, rng): return None\n")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").write_text("")
    (tmp_path / "mine" / "rank.py").write_text("import beside\nclass Mine(beside.Base): pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    def source(kind: str) -> str:
        return source_of(resolve_kind(AgentSettings(name="own", kind=kind), tmp_path))

    for kind, files in (
        ("rank.py:Mine", ("rank.py", "beside.py")),
        ("mine.rank:Mine", ("mine/rank.py", "mine/__init__.py", "beside.py")),
    ):
        for file in files:
            before = source(kind)
            with (tmp_path / file).open("a") as text:
                text.write("\n# edited\n")
            assert source(kind) != before, (kind, file)


def test_an_own_agent_with_observe_learns_in_each_flight_anew(
    folder: Path, world_and_log: tuple[World, InteractionLog]
) -> None:
    agent = build_agent(AgentSettings(name="own", kind="own.py:Learns"), folder)
    flown = {"name": "own", "world_number": 1, "seed": 5, "training_seed": 0}
    first, again = (fly(agent, world_and_log[0], **flown) for _ in range(2))  # type: ignore[arg-type]
    np.testing.assert_array_equal(first.slate, again.slate)
    slates = [np.unique(first.slate[first.length > step, step]) for step in range(2)]
    assert slates[0].min() < slates[1].min()
    agent.close()  # type: ignore[attr-defined]


def test_what_a_process_prints_is_read_on_where_it_cannot_be_kept(tmp_path: Path) -> None:
    """A full disk or a file in the folder's place costs the output: a process that nobody reads would wait for ever."""
    (tmp_path / "logs").write_text("no folder", encoding="utf-8")
    output = BytesIO(b"x" * 200_000)
    _keep_output(output, tmp_path / "logs" / "agent.log")
    assert output.read() == b""
    output.seek(0)
    _keep_output(output, tmp_path / "agent.log")
    assert (tmp_path / "agent.log").stat().st_size == 200_000
