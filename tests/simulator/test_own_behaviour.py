"""A user's own behaviour in place of the kernel's: the same luck, one-line errors, the environments' contract."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from scenarios.loading import load_scenario
from scenarios.stages.worlds import own_files
from simulator.behaviour import SimulatorSettings
from simulator.behaviour.own import OwnBehaviour
from simulator.env import WindtunnelEnv, WindtunnelVectorEnv
from simulator.errors import InputError
from simulator.preference.settings import PreferenceSettings
from simulator.users import SimulatedUsers
from simulator.world import World
from tests.simulator.small_world import small_world

PATIENT = '''
import numpy as np
from simulator.behaviour.own import Acts


class Patient:
    """Clicks what appeals, and leaves after the second slate without a click."""

    def __init__(self, patience=2):
        self.patience = patience

    def begin(self, user):
        return {"empty": np.zeros(len(user), int)}

    def act(self, moment):
        chance = 1 / (1 + np.exp(-moment.appeal))
        clicks = moment.uniforms("click") < chance
        moment.state["empty"] += ~clicks.any(axis=1)
        return Acts(clicks, moment.state["empty"] >= self.patience)
'''


@pytest.fixture
def world(tmp_path: Path) -> World:
    (tmp_path / "users.py").write_text(PATIENT)
    own = OwnBehaviour.find("users.py:Patient", {"patience": 2}, tmp_path)
    return replace(small_world(2, horizon=6, item_bias=-2.5), own=own)


def flight(world: World, rows: np.ndarray, seed: int) -> list[np.ndarray]:
    users = SimulatedUsers(world, len(rows), seed=seed)
    users.start(rows)
    slates = np.random.default_rng(0).integers(-1, world.n_items, (6, 40, 10))
    out = []
    for slate in slates:
        o = users.step(slate[rows])
        observed = users.observe()
        ends = [o.left[:, None], o.done[:, None], o.reward[:, None]]
        out.append(np.hstack([o.clicks, o.shown, *ends, observed.history_feedback]))
    return out


def test_its_decisions_are_the_classs_and_its_books_the_kernels(world: World) -> None:
    users = SimulatedUsers(world, 40, seed=5)
    users.start(np.arange(40))
    empty, done = np.zeros(40, int), np.zeros(40, bool)
    for step, slate in enumerate(np.random.default_rng(0).integers(0, world.n_items, (6, 40, 10))):
        o = users.step(slate)
        assert not o.clicks[o.shown < 0].any()
        assert not o.clicks[done].any()
        empty += ~o.clicks.any(axis=1) & ~done
        done |= (empty >= 2) | (step == 5)
        assert np.array_equal(o.done, done)
        assert np.array_equal(o.reward, o.clicks.sum(axis=1))
        newest, feedback = users.observe().history_items, users.observe().history_feedback
        for u in np.flatnonzero(~done):
            shown = o.shown[u] >= 0
            assert newest[u, -shown.sum() :].tolist() == o.shown[u][shown].tolist()
            assert feedback[u, -shown.sum() :].tolist() == o.clicks[u][shown].tolist()
    assert (empty >= 2).any()
    assert (empty < 2).any()


def test_its_luck_is_the_users_own_in_any_batch(world: World) -> None:
    whole = flight(world, np.arange(40), 5)
    parts = [flight(world, part, 5) for part in (np.arange(0, 13), np.arange(13, 40))]
    for step in range(6):
        assert np.array_equal(np.vstack([part[step] for part in parts]), whole[step])
    assert not all(np.array_equal(a, b) for a, b in zip(flight(world, np.arange(40), 6), whole, strict=True))


def test_the_environments_keep_their_contract_and_a_lane_is_the_single_environment(world: World) -> None:
    check_env(WindtunnelEnv(world), skip_render_check=True)
    many, one = WindtunnelVectorEnv(world, 5, seed=0), WindtunnelEnv(world, seed=0)
    assert isinstance(many, gymnasium.vector.VectorEnv)
    many.reset(seed=3)
    one.reset(seed=3)
    ended = 0
    for slate in np.random.default_rng(1).integers(0, world.n_items, (25, 5, 10)):
        seen, reward, terminated, truncated, info = many.step(slate)
        alone, own_reward, left, over, _ = one.step(slate[0])
        assert own_reward == reward[0]
        assert (left, over) == (terminated[0], truncated[0])
        if left or over:
            ended += 1
            last = info["final_obs"][0]
            assert np.array_equal(last["history_items"], alone["history_items"])
            alone, _ = one.reset()
        assert np.array_equal(seen["history_items"][0], alone["history_items"])
        assert seen["step"][0] == alone["step"]
    assert ended >= 3


def test_the_file_is_part_of_the_world(world: World, tmp_path: Path) -> None:
    assert world.own is not None
    (tmp_path / "users.py").write_text(PATIENT + "\n# edited\n")
    edited = replace(world, own=OwnBehaviour.find("users.py:Patient", {"patience": 2}, tmp_path))
    assert edited.digest != world.digest
    path = tmp_path / "world.npz"
    world.save(path)
    assert World.load(path).digest == world.digest


@pytest.mark.parametrize(
    ("change", "kind", "why"),
    [
        ({}, "user.py:Patient", r"no file user.py; did you mean 'users.py'\?"),
        ({}, "users.py:Pacient", r"'users.py:Pacient' is not there; did you mean 'Patient'\?"),
        ({}, "users", "no `file.py:Class`"),
        ({"def act": "def behave"}, "users.py:Patient", "no method act"),
        ({"self.patience = patience": "raise ValueError('no')"}, "users.py:Patient", "does not take them; no"),
        (
            {'moment.uniforms("click")': "np.random.default_rng().random((len(chance), 1))"},
            "users.py:Patient",
            "same moment",
        ),
        ({" < chance": " < chance * (len(moment.step) > 1)"}, "users.py:Patient", "depend on the other users"),
        ({"Acts(clicks,": "Acts(clicks[:, 1:],"}, "users.py:Patient", "clicks has shape"),
        ({"Acts(clicks,": "Acts(clicks | True,"}, "users.py:Patient", "an empty place was clicked"),
        ({"Acts(clicks,": "Acts(clicks * 0.5,"}, "users.py:Patient", "must be 0 or 1"),
        ({"import numpy": "import nunpy"}, "users.py:Patient", "cannot be loaded; ModuleNotFoundError"),
        ({'return {"empty"': 'return [{"empty"', "int)}": "int)}]"}, "users.py:Patient", "begin returned a list"),
    ],
)
def test_mistakes_of_a_class_are_one_line(change: dict[str, str], kind: str, why: str, tmp_path: Path) -> None:
    text = PATIENT
    for old, new in change.items():
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "users.py").write_text(text)
    with pytest.raises(InputError, match=why) as found:
        OwnBehaviour.find(kind, {}, tmp_path)
    assert "\n" not in str(found.value)
    assert str(found.value).startswith("simulator.behaviour")


def test_runs_that_differ_in_a_file_of_the_users_share_no_world_and_where_it_lies_is_nothing(tmp_path: Path) -> None:
    text = "name: t\ndata: {source: 'world:drift'}\nagents: [{name: r, kind: random}]\n"
    text += "simulator: {behaviour: 'users.py:Patient', friends: {pairs: friends.csv}}\n"
    text += "preference: {encoder: bert, robustness: {synonyms: words.txt}, update: {model: earlier}}\n"
    contents = {
        "users.py": PATIENT,
        "friends.csv": "a,b\n",
        "words.txt": "big,large\n",
        "bert/config.json": "{}",
        "earlier/world-a.npz": "weights",
    }
    (tmp_path / "t.yaml").write_text(text)
    scenario = load_scenario(tmp_path / "t.yaml")

    def found(place: str, **changed: str) -> tuple[tuple[str, str], ...]:
        for name, content in {**contents, **changed}.items():
            path = tmp_path / place / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return own_files(scenario, tmp_path / place)

    assert found("here") == found("there")
    edited = [
        found(f"edited-{at}", **{name: f"{content}\n# edited"}) for at, (name, content) in enumerate(contents.items())
    ]
    assert len({found("here"), *edited}) == 1 + len(contents)
    bare = {"simulator": SimulatorSettings(), "preference": PreferenceSettings()}
    assert own_files(scenario.model_copy(update=bare), tmp_path / "here") == ()
