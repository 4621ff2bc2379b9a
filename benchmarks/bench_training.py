"""What the train world costs SB3: training on it beside training on an environment that does nothing.

All have the same spaces, networks and number of environments, and run in turns in one process. A ratio is the
processor seconds of the free environment over those of the train world (MovieLens 100k, slates of 10): 1 would mean
that stepping users is free. The free environment ends its sessions where the train world did under random actions, for
what an end takes is SB3's own work (`ratio`), or never (`endless`). The last figure is user-steps a processor second in
the train world.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench_agents import worlds_of
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from agents.base import Training
from agents.deep_rl import DQNSettings, QRDQNSettings, StateScale
from agents.features import fit_features
from agents.proto_actions import A2CSettings, PPOSettings, ProtoSettings, SACSettings, TD3Settings, fit_proto
from agents.sb3_adapter import NO_INFO, SB3Lanes, one_seeded_thread, q_lanes, q_model
from agents.sb3_proto import proto_lanes, proto_model
from agents.sb3_shortlist import ShortlistLanes, shortlist_model
from agents.shortlist import MaskablePPOSettings, Shortlist
from agents.train_world import Lanes

ALGORITHMS: dict[str, Any] = {
    "ppo": PPOSettings,
    "a2c": A2CSettings,
    "sac": SACSettings,
    "td3": TD3Settings,
    "dqn": DQNSettings,
    "qr_dqn": QRDQNSettings,
    "maskable_ppo": MaskablePPOSettings,
}
BUDGET, SEED = 10**6, 0
Begin = Callable[[SB3Lanes], BaseAlgorithm]
"""Makes an algorithm, untrained, on lanes."""


class FreeLanes(SB3Lanes):
    """Shows the same states for ever and pays nothing; its sessions end where those of other lanes did, or never.

    Args:
        other: lanes that are copied.
        steps: how many of their steps, after which the ends come again; 0: no session ends.
    """

    def __init__(self, other: SB3Lanes, *, steps: int) -> None:
        VecEnv.__init__(self, other.num_envs, other.observation_space, other.action_space)
        self._seen = other.reset()
        self.places, self.observation = other.places, other.observation  # DQN fills the places of a slate by them
        self._masks = other.env_method("action_masks") if isinstance(other, ShortlistLanes) else []
        self._nothing = np.zeros(other.num_envs, np.float32)
        self._next = 0
        self._ends = [(np.zeros(self.num_envs, bool), [NO_INFO] * self.num_envs)]
        rng = np.random.default_rng(0)
        if steps:
            self._ends = [other.step(self._any_actions(rng))[2:] for _ in range(steps)]

    def _any_actions(self, rng: np.random.Generator) -> Any:
        space = self.action_space
        if isinstance(space, spaces.Discrete):
            return rng.integers(0, space.n, self.num_envs)
        assert isinstance(space, spaces.Box)
        return rng.uniform(-1, 1, (self.num_envs, *space.shape)).astype(np.float32)

    def reset(self) -> Any:
        return self._seen

    def step_wait(self) -> Any:
        done, infos = self._ends[self._next % len(self._ends)]
        self._next += 1
        return self._seen.copy(), self._nothing.copy(), done.copy(), list(infos)

    def pay(self, rewards: Any) -> None:
        """Owes nothing."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [None] * self.num_envs

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        return self._masks


def lanes_and_begin(training: Training, settings: Any) -> tuple[SB3Lanes, Begin]:
    """The train world as an algorithm sees it, and how the algorithm begins on lanes."""
    if isinstance(settings, ProtoSettings):
        lanes = proto_lanes(training, settings, fit_proto(training, settings))
        return lanes, lambda on: proto_model(settings, on, budget=BUDGET, seed=SEED)
    features = fit_features(training)
    scale = StateScale.of(features, training)
    if isinstance(settings, MaskablePPOSettings):
        shortlist = Shortlist.of(features, training, settings.shortlist_size)
        lanes = ShortlistLanes(Lanes(training, settings.num_envs, seed=training.seed), shortlist, scale)
        return lanes, lambda on: shortlist_model(settings, on, shortlist, scale, budget=BUDGET, seed=SEED)
    lanes = q_lanes(training, settings, features, scale)
    return lanes, lambda on: q_model(settings, on, features, scale, budget=BUDGET, seed=SEED)


def seconds_of(begin: Begin, lanes: SB3Lanes, steps: int) -> float:
    """Processor seconds of training for that many user-steps."""
    with one_seeded_thread(SEED):
        model = begin(lanes)
        began = time.process_time()
        model.learn(total_timesteps=steps * lanes.places, log_interval=10**6)
        return time.process_time() - began


def measure(training: Training, names: list[str], sizes: list[int], *, rounds: int, vector_steps: int) -> None:
    """Print a row for each algorithm and number of environments: medians over the rounds."""
    print(f"{'agent':<13}{'envs':>6}{'ratio':>8}{'endless':>9}{'steps/s':>10}")
    for name in names:
        for num_envs in sizes:
            world, begin = lanes_and_begin(training, ALGORITHMS[name](num_envs=num_envs))
            turns = (world, FreeLanes(world, steps=200), FreeLanes(world, steps=0))
            steps = vector_steps * num_envs
            spent = np.array([[seconds_of(begin, lanes, steps) for lanes in turns] for _ in range(rounds + 1)])[1:]
            of_world, ratios = spent[:, 0], np.median(spent[:, 1:] / spent[:, :1], axis=0)  # the first round warms up
            figures = f"{ratios[0]:>8.2f}{ratios[1]:>9.2f}{steps / np.median(of_world):>10,.0f}"
            print(f"{name:<13}{num_envs:>6}{figures}", flush=True)
            world.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", nargs="*", default=list(ALGORITHMS), choices=list(ALGORITHMS))
    parser.add_argument("--envs", nargs="*", type=int, default=[64, 128, 256], help="users stepped at once")
    parser.add_argument("--rounds", type=int, default=3, help="turns of either environment, after one to warm up")
    parser.add_argument("--vector-steps", type=int, default=48, help="steps of all environments in a turn")
    chosen = parser.parse_args()
    _, _, shared = worlds_of(7)
    measure(
        replace(shared, rng=np.random.default_rng(0)),
        chosen.agents,
        chosen.envs,
        rounds=chosen.rounds,
        vector_steps=chosen.vector_steps,
    )


if __name__ == "__main__":
    main()
