"""What an agent gets of the train world: it learns by showing slates, and what the world is made of stays hidden."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from gymnasium.vector import VectorEnv

from agents.base import AgentError
from agents.loading import AgentSettings, train
from simulator.env import WindtunnelVectorEnv
from simulator.log import InteractionLog
from simulator.world import World
from tests.agents.taught_world import taught_world, training_in

PEEKS = """
import numpy as np


class Peek:
    def __init__(self, at: str):
        self.at = at

    def fit(self, training):
        env = training.make_env(3)
        env.reset(seed=1)
        env.step(np.tile(np.arange(training.slate_size), (3, 1)))
        return eval(self.at, {"env": env, "training": training})

    def act(self, observation, rng):
        return None
"""


@pytest.fixture(scope="module")
def world_and_log() -> tuple[World, InteractionLog]:
    return taught_world()


@pytest.mark.parametrize(
    "at",
    ["env.users.appeal()", "env.world.item_vectors", "env.unwrapped.world", "training.make_env.world.item_vectors"],
)
def test_an_own_agent_that_asks_for_the_inner_side_fails_in_one_line(
    at: str, tmp_path: Path, world_and_log: tuple[World, InteractionLog]
) -> None:
    (tmp_path / "own.py").write_text(PEEKS, encoding="utf-8")
    settings = AgentSettings.model_validate({"name": "own", "kind": "own.py:Peek", "params": {"at": at}})
    with pytest.raises(
        AgentError, match=r"^fit raised AttributeError: '(users|world)' is hidden from agents"
    ) as caught:
        train(settings, training_in(*world_and_log), tmp_path)
    assert "\n" not in str(caught.value)


def test_what_is_open_is_the_environment_itself(world_and_log: tuple[World, InteractionLog]) -> None:
    world, log = world_and_log
    make_env = pickle.loads(pickle.dumps(training_in(world, log).make_env))  # as it travels to an agent's process
    given, own = make_env(8, seed=2), WindtunnelVectorEnv(world, 8, seed=2)
    assert issubclass(type(given), VectorEnv)
    assert given.unwrapped is given
    assert (given.num_envs, given.metadata) == (own.num_envs, own.metadata)
    for space in ("action_space", "observation_space", "single_action_space", "single_observation_space"):
        assert getattr(given, space) == getattr(own, space)
    one, other = given.reset(seed=3)[0], own.reset(seed=3)[0]
    for number in range(2 * world.horizon):
        assert all(np.array_equal(one[name], other[name]) for name in one)
        assert np.array_equal(given.candidates(), own.candidates())
        assert np.array_equal(given.blocked(), own.blocked())
        slates = np.argsort(~own.candidates(), axis=1, kind="stable")[:, number : number + world.slate_size]
        (one, reward, *_), (other, same, *_) = given.step(slates), own.step(slates)
        assert np.array_equal(reward, same)
        assert np.array_equal(given.ended.lanes, own.ended.lanes)
        assert np.array_equal(given.clicks.sum(axis=1), reward)
    given.close()
    open_names = {name for name in dir(given) if not name.startswith("_")}
    assert open_names - set(dir(VectorEnv)) <= {
        "action_space", "blocked", "candidates", "clicks", "ended", "metadata", "num_envs", "observation_space",
        "single_action_space", "single_observation_space",
    }  # fmt: skip
    for name in set(vars(own)) | set(dir(WindtunnelVectorEnv)):
        if not name.startswith("_") and name not in open_names:
            with pytest.raises(AttributeError, match=f"'{name}' is hidden from agents"):
                getattr(given, name)
    with pytest.raises(AttributeError, match="has no attribute 'no_such_name'"):
        given.no_such_name  # noqa: B018
