"""From a scenario's entry to an agent: what is known resolves cheaply; what is not is told with the nearest name."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from agents.base import Observation, Training
from agents.kinds import KINDS, family_of, known_families, learns_clicks
from agents.loading import (
    AgentSettings,
    build_agent,
    resolve_kind,
    train,
    training_seeds,
)
from scenarios.listing import LISTS
from simulator.errors import InputError
from simulator.log import InteractionLog
from simulator.world import World
from tests.agents.taught_world import taught_world, training_in


@pytest.fixture(scope="module")
def world_and_log() -> tuple[World, InteractionLog]:
    return taught_world()


def entry(kind: str, **params: Any) -> AgentSettings:
    return AgentSettings(name="one", kind=kind, params=params)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (entry("linucbb"), "agents[2].kind: 'linucbb' is not an agent; did you mean 'linucb'?"),
        (entry("nothing like it"), "agents[2].kind: 'nothing like it' is not an agent (`windtunnel list agents`"),
        (entry("linucb", alfa=1), "agents[2].params.alfa: unknown parameter; did you mean 'alpha'?; known: reg"),
        (entry("linucb", alpha="wide"), "agents[2].params.alpha: 'wide' cannot be used"),
        (entry("linucb", alpha=-1), "agents[2].params.alpha: -1 cannot be used"),
        (entry("linucb", alpha=float("inf")), "agents[2].params.alpha: inf cannot be used"),
        (entry("random", seed=1), "agents[2].params.seed: unknown parameter; this agent has none"),
        (entry("recbole:EASY"), "did you mean 'EASE'?"),
        (
            entry("recbole:nothing like it"),
            "agents[2].params.model: 'nothing like it' cannot be used; no model of RecBole has",
        ),
        (entry("recbole:BPR", model="EASE"), "agents[2].params.model: 'EASE' is given twice"),
        (entry("gone.py:Mine"), "agents[2].kind: 'gone.py:Mine' cannot be loaded; there is no file gone.py"),
        (entry("no.such.module:Mine"), "agents[2].kind: 'no.such.module:Mine' cannot be loaded"),
    ],
)
def test_what_cannot_be_used_is_told_with_its_place_and_the_nearest_name(settings: AgentSettings, said: str) -> None:
    with pytest.raises(InputError) as caught:
        resolve_kind(settings, Path(), where="agents[2]")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_mistakes_of_an_agents_parameters_are_told_at_once() -> None:
    with pytest.raises(InputError) as caught:
        resolve_kind(entry("ppo", gama=0.5, n_steps=0), Path(), where="agents[0]")
    assert sorted(line.split(":")[0] for line in str(caught.value).splitlines()) == [
        "agents[0].params.gama",
        "agents[0].params.n_steps",
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "../up"},
        {"name": ""},
        {"kind": ""},
        {"train": {"seeds": 0}},
        {"train": {"steps": -1}},
        {"limits": {"memory_gb": 0}},
        {"limits": {"memory_gb": 1e300}},
        {"limits": {"act_seconds": 1e300}},
        {"trained_on": "yesterday"},
        {"trained_on": "before lunch"},
        {"trained_on": "before 1998-02-31"},
        {"trained_on": "before NaT"},
        {"colour": "red"},
    ],
)
def test_an_entry_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        AgentSettings.model_validate({"name": "one", "kind": "random", **wrong})


def test_every_row_of_the_table_names_what_there_is() -> None:
    for kind in KINDS.values():
        for path in (kind.agent, kind.settings):
            module, _, name = path.partition(":")
            assert hasattr(import_module(module), name)


def test_every_learning_kind_says_whose_algorithm_it_is_and_the_list_shows_it() -> None:
    unsaid = [name for name, kind in KINDS.items() if kind.learns and kind.family != "baseline" and not kind.paper]
    assert unsaid == []
    shown = {entry.name: entry for entry in LISTS["agents"]()}
    assert shown["linucb"].line.startswith("[bandit] ")
    assert "Li et al. 2010" in shown["linucb"].line
    assert shown["logged"].more["needs"] == "a log of exposure"


def test_resolving_every_built_in_kind_loads_no_heavy_library() -> None:
    code = (
        "import sys; from pathlib import Path; from agents.loading import *\n"
        "for kind in ('random', 'oracle', 'linucb', 'dqn', 'ppo', 'recbole:BPR'):\n"
        "    resolve_kind(AgentSettings(name='one', kind=kind), Path())\n"
        "heavy = {'torch', 'stable_baselines3', 'recbole', 'pandas', 'transformers'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_only_agents_that_draw_are_trained_more_than_once_and_only_the_oracle_is_privileged() -> None:
    specs = {kind: resolve_kind(entry(kind), Path()) for kind in ("random", "popularity", "oracle", "linucb")}
    assert {kind: training_seeds(spec) for kind, spec in specs.items()} == {
        "random": 1,
        "popularity": 1,
        "oracle": 1,
        "linucb": 3,
    }
    assert [kind for kind, spec in specs.items() if spec.privileged] == ["oracle"]


class FromAPrior:
    """Says that it started from a prior, in points that come out of order."""

    prior = "likes of the log"

    def fit(self, training: Training) -> None:
        self.asked = training.budget, training.seconds
        for steps, value in ((200, 3.0), (0, 2.5), (100, 2.0)):
            training.report(steps, value)

    def act(self, observation: Observation, rng: np.random.Generator) -> np.ndarray:
        return np.zeros((len(observation), 1), np.int64)


def test_a_trained_agent_brings_its_curve_and_the_value_of_its_prior(
    monkeypatch: pytest.MonkeyPatch, world_and_log: tuple[World, InteractionLog]
) -> None:
    heard: list[tuple[int, float]] = []
    training = replace(training_in(*world_and_log, budget=7), report=lambda steps, value: heard.append((steps, value)))
    monkeypatch.setattr("agents.loading.build_agent", lambda *args, **kwargs: FromAPrior())
    done = train(AgentSettings(name="one", kind="popularity"), training, Path())
    assert done.curve == ((0, 2.5), (100, 2.0), (200, 3.0))
    assert heard == [(200, 3.0), (0, 2.5), (100, 2.0)]
    assert (done.prior_value, done.prior, done.steps, done.reproducible) == (2.5, "likes of the log", 200, True)
    assert done.agent.asked == (7, None)  # type: ignore[attr-defined]
    limited = AgentSettings.model_validate({"name": "one", "kind": "popularity", "train": {"steps": 9, "seconds": 5}})
    done = train(limited, training, Path())
    assert done.agent.asked == (9, 5.0)  # type: ignore[attr-defined]
    assert not done.reproducible


def test_an_untrained_agent_is_built_anew_each_time() -> None:
    one, other = (build_agent(entry("popularity"), Path()) for _ in range(2))
    assert one is not other


def test_a_limit_in_seconds_stops_training_early(world_and_log: tuple[World, InteractionLog]) -> None:
    settings = AgentSettings.model_validate(
        {"name": "one", "kind": "linucb", "train": {"steps": 10**9, "seconds": 0.5}, "params": {"num_envs": 8}}
    )
    done = train(settings, training_in(*world_and_log), Path())
    assert done.steps < 10**9
    assert not done.reproducible


def test_which_built_in_kinds_learn_from_clicks_whatever_the_reward_is() -> None:
    asked = ["linucb", "ppo", "recbole:BPR", "maml", "q_learning", "mixture", "popularity", "oracle", "mine.py:Mine"]
    assert [kind for kind in asked if learns_clicks(kind)] == ["linucb", "ppo", "recbole:BPR", "maml"]


def test_every_kind_has_a_family_and_what_is_not_built_in_is_the_users() -> None:
    assert {family_of("linucb"), family_of("recbole:EASE"), family_of("mine.py:Mine")} == {"bandit", "recbole", "user"}
    assert {family_of(kind) for kind in KINDS} | {"user"} == set(known_families())
