"""The Gymnasium environments: contracts, autoreset, and whose observation is whose."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers.vector import DictInfoToList, RecordEpisodeStatistics

import simulator
from simulator.env import ACTIONS, WindtunnelEnv, WindtunnelVectorEnv, proto_vectors
from simulator.errors import InputError
from simulator.users import SimulatedUsers
from simulator.world import World
from tests.simulator.small_world import small_world

CONTENT = np.random.default_rng(8).standard_normal((130, 48)).astype(np.float32)


@pytest.fixture(scope="module")
def world() -> World:
    return small_world(6, users=60, horizon=6, history_length=12)


@pytest.mark.parametrize("action", ACTIONS)
def test_both_checkers_pass_in_every_action_mode(world: World, action: str) -> None:
    from stable_baselines3.common.env_checker import check_env as sb3_check

    env = WindtunnelEnv(world, action=action, content=CONTENT)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*alternative render modes.*")  # it has none, and no spec: made by hand
        check_env(env)
    sb3_check(env)


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("copied", [True, False])
def test_observations_lie_in_the_space_and_types_are_gymnasiums(world: World, action: str, copied: bool) -> None:
    env = WindtunnelVectorEnv(world, 16, action=action, seed=1, content=CONTENT, copy=copied)
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    env.action_space.seed(0)
    observation, info = env.reset(seed=4)
    assert env.observation_space.contains(observation)
    assert info == {}
    for _ in range(15):
        observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
        assert env.observation_space.contains(observation)
        assert reward.shape == terminated.shape == truncated.shape == (16,)
        assert terminated.dtype == truncated.dtype == np.bool_
        assert not (terminated & truncated).any()
        for lane in np.flatnonzero(terminated | truncated):
            assert env.single_observation_space.contains(info["final_obs"][lane])


def lanes_of(env: WindtunnelVectorEnv, steps: int, lanes: int) -> list[Any]:
    observation, _ = env.reset(seed=7)
    rng = np.random.default_rng(3)
    found: list[Any] = [[v[:lanes].copy() for v in observation.values()]]
    for _ in range(steps):
        actions = rng.integers(0, env.world.n_items, (64, env.world.slate_size))[: env.num_envs]
        observation, reward, terminated, truncated, info = env.step(actions)
        last = [None if o is None else {k: v.copy() for k, v in o.items()} for o in info.get("final_obs", [None] * 64)]
        parts = [v[:lanes].copy() for v in (*observation.values(), reward, terminated, truncated)]
        found.append((parts, last[:lanes]))
    return found


def test_a_lane_is_the_same_whatever_the_number_of_lanes_and_copied_or_not(world: World) -> None:
    few, many = WindtunnelVectorEnv(world, 8), WindtunnelVectorEnv(world, 64)
    views = WindtunnelVectorEnv(world, 64, copy=False)
    first, second, third = (lanes_of(env, 20, 8) for env in (few, many, views))
    assert pickle.dumps(first) == pickle.dumps(second) == pickle.dumps(third)


def test_the_single_environment_is_lane_0(world: World) -> None:
    vector, single = WindtunnelVectorEnv(world, 3), WindtunnelEnv(world)
    rng = np.random.default_rng(5)
    many, _ = vector.reset(seed=2)
    one, _ = single.reset(seed=2)
    for _ in range(40):
        assert all(np.array_equal(one[k], many[k][0]) for k in one)
        assert np.array_equal(single.candidates(), vector.candidates()[0])
        slates = rng.integers(0, world.n_items, (3, 10))
        many, rewards, terminated, truncated, info = vector.step(slates)
        one, reward, left, over, _ = single.step(slates[0])
        assert (reward, left, over) == (rewards[0], terminated[0], truncated[0])
        if left or over:
            assert all(np.array_equal(one[k], info["final_obs"][0][k]) for k in one)
            one, _ = single.reset()


def test_the_last_observation_is_that_of_the_user_who_leaves(world: World) -> None:
    """VirtualTaobao and RECGym return the next user's state. Here the poison is a next user unlike any other."""
    env = WindtunnelVectorEnv(world, 32, seed=9)
    before, _ = env.reset(seed=9)
    rng = np.random.default_rng(1)
    ended = 0
    for _ in range(30):
        slates = rng.integers(0, world.n_items, (32, 10))
        observation, _, terminated, truncated, info = env.step(slates)
        shown, clicks = env.users.outcome.shown, env.users.outcome.clicks
        for lane in np.flatnonzero(terminated | truncated):
            ended += 1
            last = info["final_obs"][lane]
            assert np.array_equal(last["user_features"], before["user_features"][lane])
            assert last["step"] == before["step"][lane] + 1
            new = shown[lane][shown[lane] >= 0]
            expected = np.concatenate([before["history_items"][lane], new])[-world.history_length :]
            liked = np.concatenate([before["history_feedback"][lane], clicks[lane][shown[lane] >= 0]])
            assert np.array_equal(last["history_items"], expected)
            assert np.array_equal(last["history_feedback"], liked[-world.history_length :])
            row = env.users.rows[lane]
            assert observation["step"][lane] == 0
            assert np.array_equal(observation["history_items"][lane], world.starts.history_items[row])
            assert np.array_equal(observation["user_features"][lane], world.starts.user_features[row])
        before = observation
    assert ended > 100


def test_leaving_terminates_and_the_horizon_truncates() -> None:
    staying = small_world(1, horizon=3, leave={"base_rate": 1e-6, "satisfaction": 0.0, "repetition": 0.0})
    env = WindtunnelVectorEnv(staying, 20)
    env.reset(seed=0)
    slates = np.random.default_rng(0).integers(0, staying.n_items, (3, 20, 10))
    for t in range(3):
        _, _, terminated, truncated, _ = env.step(slates[t])
        assert not terminated.any()
        assert truncated.all() == (t == 2)


def test_info_is_gymnasiums_however_it_is_read(world: World) -> None:
    def fresh() -> Any:
        env = WindtunnelVectorEnv(world, 40)
        env.reset(seed=0)
        for _ in range(3):
            info = env.step(np.zeros((40, 10), np.int64))[4]
        return info, env.ended

    info, ended = fresh()
    assert set(info) == {"final_obs", "_final_obs", "final_info", "_final_info"}
    assert "final_obs" in info
    readings = [
        dict(fresh()[0]),
        {**fresh()[0]},
        fresh()[0].copy(),
        dict(fresh()[0].items()),
        copy.deepcopy(fresh()[0]),
        pickle.loads(pickle.dumps(fresh()[0])),
        fresh()[0] | {},
        {"final_obs": fresh()[0].get("final_obs"), "_final_obs": fresh()[0]["_final_obs"]},
        {"final_obs": fresh()[0].pop("final_obs"), "_final_obs": list(fresh()[0].values())[1]},
    ]
    for reading in readings:
        assert reading["_final_obs"].nonzero()[0].tolist() == ended.lanes.tolist()
        for place, lane in enumerate(ended.lanes):
            for name, value in reading["final_obs"][lane].items():
                assert np.array_equal(value, ended.observation[name][place])
        assert sum(o is not None for o in reading["final_obs"]) == len(ended.lanes)


def test_gymnasiums_wrappers_work_on_the_vector_environment(world: World) -> None:
    env = DictInfoToList(RecordEpisodeStatistics(WindtunnelVectorEnv(world, 10)))
    env.reset(seed=0)
    lengths = []
    for _ in range(12):
        infos = env.step(np.random.default_rng(0).integers(0, 130, (10, 10)))[4]
        lengths += [i["episode"]["l"] for i in infos if "episode" in i]
    assert lengths
    assert max(lengths) <= world.horizon


def test_proto_shows_the_nearest_candidates(world: World) -> None:
    vectors = proto_vectors(CONTENT)
    assert vectors.shape == (130, 32)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    env = WindtunnelVectorEnv(world, 5, action="proto", content=CONTENT)
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(4):
        allowed = env.candidates()
        wanted = rng.uniform(-1, 1, (5, 32)).astype(np.float32)
        env.step(wanted)
        scores = np.where(allowed, wanted @ vectors.T, -np.inf)
        assert np.array_equal(env.users.outcome.shown, np.argsort(-scores, axis=1)[:, :10])


def test_what_was_shown_or_logged_is_no_candidate_and_stays_empty(world: World) -> None:
    users = SimulatedUsers(world, 4, seed=0)
    users.start([0, 1, 2, 3])
    logged = world.starts.seen.item[: world.starts.seen.start[1]]
    allowed = users.candidates()
    assert set(np.flatnonzero(~allowed[0])) == set(logged.tolist())
    fresh = np.flatnonzero(allowed[0])[:8]
    slate = np.array([[fresh[0], fresh[0], logged[0], -1, 130, 2**40, *fresh[1:5]]] * 4)
    shown = users.step(slate).shown[0]
    assert shown.tolist() == [fresh[0], -1, -1, -1, -1, -1, *fresh[1:5]]
    assert not users.candidates()[0, fresh[:5]].any()
    if not users.outcome.done[0]:
        assert (users.step(slate).shown[0] == -1).all()
        assert users.outcome.clicks[0].sum() == 0


def test_bad_actions_and_content_are_said_in_one_line(world: World) -> None:
    with pytest.raises(InputError, match=r"action: 'slat' is not one of .*; did you mean 'slate'\?"):
        WindtunnelVectorEnv(world, 2, action="slat")
    with pytest.raises(InputError, match="content: action 'proto' needs"):
        WindtunnelEnv(world, action="proto")
    with pytest.raises(InputError, match="content: 3 rows for 130 items"):
        WindtunnelEnv(world, action="proto", content=CONTENT[:3])


def test_no_global_random_state_is_read_or_moved(world: World) -> None:
    """EasyRL4Rec and RecSim seed and draw from NumPy's global generator."""
    env = WindtunnelVectorEnv(world, 8)
    results = []
    for seed in (0, 1):
        np.random.seed(seed)  # noqa: NPY002  # the very thing that must not matter
        before = np.random.get_state()[1].copy()  # noqa: NPY002
        env.reset(seed=3)
        results.append([env.step(np.arange(80).reshape(8, 10))[1].copy() for _ in range(3)])
        assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    assert np.array_equal(results[0], results[1])


def test_importing_the_simulator_registers_the_environment_and_nothing_heavy() -> None:
    spec = gymnasium.spec("windtunnel/Recommend-v0")
    assert spec.entry_point == "pipeline:make_env"
    assert spec.vector_entry_point == "pipeline:make_vector_env"
    assert simulator.__doc__
    heavy = ("torch", "numba", "pandas", "pydantic", "pipeline")
    code = f"import simulator, sys; print([m for m in {heavy} if m in sys.modules])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[]"


def test_an_observation_stays_as_it_was_for_as_long_as_anything_holds_a_part_of_it() -> None:
    """Arrays are taken again only when the observation, its arrays and their views are all gone."""
    world = small_world(3, users=20, horizon=6)
    env = WindtunnelVectorEnv(world, 9, seed=2)
    other = WindtunnelVectorEnv(world, 9, seed=2, copy=False)
    held, views, seen, unread = [env.reset(seed=2)[0]], [], [], []
    other.reset(seed=2)
    rng = np.random.default_rng(0)
    for turn in range(30):
        slate = rng.integers(0, world.n_items, (9, world.slate_size))
        observation, *_, info = env.step(slate)
        live = other.step(slate)[0]
        assert all(np.array_equal(observation[name], live[name]) for name in live)
        last = {lane: other.ended.observation["history_items"][at].copy() for at, lane in enumerate(other.ended.lanes)}
        unread.append((info, last))
        del info
        for late, then in unread[:-6]:  # an info that is first read six steps later
            assert all(np.array_equal(late["final_obs"][lane]["history_items"], then[lane]) for lane in then)
        unread = unread[-6:]
        seen.append(id(observation["history_items"]))
        if turn % 7 == 0:
            held.append(observation)
        views.append((observation["history_items"][3:5], live["history_items"][3:5].copy()))
        views = views[-3:]
        assert all(np.array_equal(view, then) for view, then in views)
        del observation
    assert len({id(o["history_items"]) for o in held}) == len(held)
    assert len(set(seen)) < len(seen)


def test_an_argument_that_no_environment_takes_is_an_error_and_not_ignored() -> None:
    import pipeline

    with pytest.raises(TypeError, match="actoin"):
        pipeline.make_env("nothing.yaml", actoin="item")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="actoin"):
        pipeline.make_vector_env(2, scenario="nothing.yaml", actoin="item")  # type: ignore[call-arg]


Turn = tuple[Any, ...]


def sessions_of(world: World, mode: str, *, copied: bool, turns: int) -> tuple[list[list[Turn]], list[list[Turn]]]:
    """Each lane's turns under a policy of what it sees, those in which a lane stands still left out, and these."""
    env = WindtunnelVectorEnv(world, 9, seed=1, copy=copied, autoreset_mode=mode)
    seen, _ = env.reset(seed=4)
    lived: list[list[Turn]] = [[] for _ in range(9)]
    still: list[list[Turn]] = [[] for _ in range(9)]
    waits = np.zeros(9, bool)
    for _ in range(turns):
        before = {name: np.array(value) for name, value in seen.items()}
        actions = np.stack(
            [(before["history_items"][:, -1] + 7 * k) % world.n_items for k in range(world.slate_size)], 1
        )
        actions[waits] = 0
        seen, reward, terminated, truncated, info = env.step(actions)
        for lane in range(9):
            after = {name: np.array(value[lane]) for name, value in seen.items()}
            done = bool(terminated[lane] | truncated[lane])
            if done and mode == "same_step":
                after = info["final_obs"][lane]
            row = tuple(part.tobytes() for part in (*(value[lane] for value in before.values()), *after.values()))
            into = still if waits[lane] else lived
            into[lane].append((row, float(reward[lane]), bool(terminated[lane]), bool(truncated[lane])))
        waits = (terminated | truncated) if mode == "next_step" else np.zeros(9, bool)
    return lived, still


@pytest.mark.parametrize("copied", [True, False])
def test_next_step_autoreset_lives_the_same_sessions_with_a_turn_of_rest_between_them(
    world: World, copied: bool
) -> None:
    same, _ = sessions_of(world, "same_step", copied=copied, turns=30)
    following, still = sessions_of(world, "next_step", copied=copied, turns=30)
    for lane in range(9):
        assert len(still[lane]) >= 3
        assert following[lane] == same[lane][: len(following[lane])]
        assert all(
            (reward, terminated, truncated) == (0.0, False, False) for _, reward, terminated, truncated in still[lane]
        )
    env = WindtunnelVectorEnv(world, 3, seed=1, autoreset_mode=AutoresetMode.NEXT_STEP)
    assert env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    assert WindtunnelVectorEnv.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    counted = RecordEpisodeStatistics(env)
    counted.reset(seed=4)
    lengths = []
    for _ in range(20):
        *_, info = counted.step(counted.action_space.sample())
        if "episode" in info:
            lengths += info["episode"]["l"][info["_episode"]].tolist()
    assert lengths
    assert max(lengths) <= world.horizon
    with pytest.raises(InputError, match="autoreset_mode: 'disabled' is not offered; choose same_step or next_step"):
        WindtunnelVectorEnv(world, 3, autoreset_mode=AutoresetMode.DISABLED)
