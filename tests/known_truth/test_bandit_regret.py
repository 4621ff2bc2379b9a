"""Regret of bandits while they learn, in a world whose every chance of a click is known.

Regret is the expected clicks of the slate that the best policy of the bandits' own class would show at the same state
(linear in the same features, learned from many more slates), less those of the slate that was shown: what is lost by
not yet knowing, not what no linear policy could win. Sabotaged once, seen red: a LinUCB without its width.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from agents.base import Agent, Observation
from agents.loading import train
from agents.settings import AgentSettings
from agents.train_world import VALUE_SESSIONS, Lanes, Step
from evaluators.intervals import t_quantile
from simulator.env import WindtunnelVectorEnv
from simulator.log import InteractionLog
from simulator.world import World
from tests.agents.taught_world import taught_world, training_in

Floats = NDArray[np.float64]


class Table:
    """A world, the log of its users, and how to learn in it and be watched."""

    def __init__(self, world: World, log: InteractionLog) -> None:
        self.world, self.log = world, log
        self.examination = world.examination_table(world.slate_size)[:, 0].astype(np.float64)
        self.best = self.trained("linucb", {"alpha": 0.1, "num_envs": 64}, seed=99, budget=40_000)

    def make_env(self, num_envs: int, *, action: str = "slate", seed: int = 0, copy: bool = True) -> Any:
        return WindtunnelVectorEnv(self.world, num_envs, action=action, seed=seed, copy=copy)

    def trained(self, kind: str, params: dict[str, Any], *, seed: int, budget: int) -> Agent:
        settings = AgentSettings.model_validate({"name": "one", "kind": kind, "params": params})
        training = replace(training_in(self.world, self.log, seed=seed, budget=budget), make_env=self.make_env)
        return train(settings, training, Path()).agent

    def regret(
        self, kind: str, monkeypatch: pytest.MonkeyPatch, *, seeds: int, budget: int, num_envs: int,
        **params: Any,
    ) -> Floats:  # fmt: skip
        """[seeds, T] mean regret of the users of each step."""
        table, lost = self, []

        class Watched(Lanes):
            """Lanes that note what each slate gives away; those that value the learning curve are not watched."""

            now: Observation

            def reset(self) -> Observation:
                self.now = super().reset()
                return self.now

            def step(self, slates: NDArray[np.int64]) -> Step:
                if self.num_envs != VALUE_SESSIONS:
                    chance = 1 / (1 + np.exp(-self.env.users.appeal().astype(np.float64)))  # type: ignore[attr-defined]
                    best = table.best.act(self.now, np.random.default_rng(0))
                    found = [np.take_along_axis(chance, shown, axis=1) @ table.examination for shown in (best, slates)]
                    lost[-1].append((found[0] - found[1]).mean())
                step = super().step(slates)
                self.now = step.observation
                return step

        monkeypatch.setattr("agents.bandits.Lanes", Watched)
        for seed in range(seeds):
            lost.append([])
            self.trained(kind, {"num_envs": num_envs, **params}, seed=seed, budget=budget)
        return np.array(lost)


@pytest.fixture(scope="module")
def table() -> Table:
    return Table(*taught_world())


def growth(regret: Floats) -> Floats:
    """[seeds] by which power of time the summed regret grows, from an eighth of the time on."""
    summed = regret.cumsum(axis=1)
    first = regret.shape[1] // 8
    time = np.log(np.arange(first, regret.shape[1]) + 1.0)
    return np.array([np.polyfit(time, np.log(row[first:]), 1)[0] for row in np.maximum(summed, 1e-9)])


def limits(values: Floats) -> tuple[float, float]:
    half = t_quantile(0.95, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


def test_linucb_soon_loses_little_and_the_share_that_explores_for_ever_goes_on_losing(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    few: dict[str, Any] = {"seeds": 2, "budget": 1_200, "num_envs": 4}
    bound = table.regret("linucb", monkeypatch, alpha=0.5, **few).mean(axis=0)
    share = table.regret("epsilon_greedy", monkeypatch, epsilon=0.2, **few).mean(axis=0)
    quarter = len(bound) // 4
    assert bound[-quarter:].mean() < 0.3 * bound[:quarter].mean()
    assert share[-quarter:].mean() > 3 * bound[-quarter:].mean()


@pytest.mark.slow
def test_regret_grows_slower_than_time_and_optimism_beats_greed(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """One user at a time: many at once differ so much that greed explores by them."""
    alone: dict[str, Any] = {"seeds": 24, "budget": 800, "num_envs": 1}
    optimist = table.regret("linucb", monkeypatch, alpha=0.5, **alone)
    sampler = table.regret("linear_thompson", monkeypatch, scale=0.1, **alone)
    for_ever = table.regret("epsilon_greedy", monkeypatch, epsilon=0.1, **alone)
    greed = table.regret("epsilon_greedy", monkeypatch, epsilon=0.0, **alone)
    for regret in (optimist, sampler):
        assert limits(growth(regret))[1] < 0.6
    assert limits(growth(for_ever))[0] > limits(growth(optimist))[1]
    assert limits((greed - optimist).sum(axis=1))[0] > 0
    assert limits((for_ever - sampler).sum(axis=1))[0] > 0
