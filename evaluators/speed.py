"""What this machine does in a second: simulated user-steps and logged rounds, one thread each."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.engine import ONE_THREAD

if TYPE_CHECKING:
    from simulator.world import World

USERS_AT_ONCE = (1, 64, 1024, 16384)
ESTIMATORS = ("ips", "snips", "dm", "dr", "ips(clip=10)", "switch_dr(lambda=5)")
ROUNDS, ACTIONS = 100_000, 10


@dataclass(frozen=True, slots=True)
class Speed:
    """What this machine does in a second.

    Attributes:
        user_steps: users at once -> simulated user-steps a second, one thread.
        rounds: estimator -> logged rounds a second, one thread.
        stages: seconds of each stage of the scenario that was run.
    """

    user_steps: Mapping[int, float]
    rounds: Mapping[str, float]
    stages: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """JSON-ready dictionary."""
        return {
            "user_steps_per_second": {str(n): round(x) for n, x in self.user_steps.items()},
            "rounds_per_second": {name: round(x) for name, x in self.rounds.items()},
            "seconds_per_stage": {name: round(x, 2) for name, x in self.stages.items()},
        }

    def as_text(self) -> str:
        """The same for people."""
        lines = [f"{n:>8,} users at once  {x / 1e6:6.2f} M user-steps a second" for n, x in self.user_steps.items()]
        lines += [f"{name:>16}  {x / 1e6:9.2f} M rounds a second" for name, x in self.rounds.items()]
        lines += [f"{name:>40}  {x:7.2f} s" for name, x in self.stages.items()]
        return "\n".join(lines)


def measure_speed(world: World, seconds: float, *, stages: Mapping[str, float]) -> Speed:
    """Time the simulator in a world, and the off-policy estimators on rounds made up for it.

    Args:
        world: where users are stepped through random slates.
        seconds: how long each number of users and each estimator is measured.
        stages: seconds of a run's stages and tasks; those in processor seconds are left out.
    """
    os.environ.update(ONE_THREAD)
    rng = np.random.default_rng(0)
    walls = {name: value for name, value in stages.items() if not name.endswith("(cpu)")}
    return Speed(_user_steps(world, seconds, rng), _rounds(seconds, rng), walls)


def _rate(work: Callable[[], Any], amount: int, seconds: float) -> float:
    """Units a second of work that does `amount` of them at a call; the first call compiles and is not counted."""
    work()
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        work()
        count += 1
    return amount * count / (time.perf_counter() - began)


def _user_steps(world: World, seconds: float, rng: np.random.Generator) -> dict[int, float]:
    from simulator.users import SimulatedUsers

    found = {}
    for n in USERS_AT_ONCE:
        users = SimulatedUsers(world, n, seed=1)
        rows = np.arange(n) % len(world.starts)
        slates = rng.integers(0, world.n_items, (world.horizon, n, world.slate_size))

        def session(users: SimulatedUsers = users, rows: Any = rows, slates: Any = slates) -> None:
            users.start(rows)
            for slate in slates:
                users.step(slate)

        found[n] = _rate(session, n * world.horizon, seconds)
    return found


def _rounds(seconds: float, rng: np.random.Generator) -> dict[str, float]:
    from evaluators import off_policy

    pi_b = np.full((ROUNDS, ACTIONS), 1 / ACTIONS)
    rewards = (rng.random(ROUNDS) < 0.1).astype(float)
    rounds = off_policy.Rounds(rng.integers(0, ACTIONS, ROUNDS), rewards, pi_b[:, 0], pi_b=pi_b)
    pi_e = rng.dirichlet(np.ones(ACTIONS), ROUNDS)
    q_hat = np.full((ROUNDS, ACTIONS), 0.1)

    def estimate(name: str) -> Callable[[], Any]:
        return lambda: off_policy.estimate(rounds, pi_e, estimators=[name], q_hat=q_hat)

    return {name: _rate(estimate(name), ROUNDS, seconds) for name in ESTIMATORS}
