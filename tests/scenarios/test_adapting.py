"""The adaptation section: who is measured, beside whom, and what the page shows of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from agents.base import Observation
from agents.loading import AgentSpec, Trained, resolve_kind, train
from agents.settings import AgentSettings
from agents.slates import top_slates
from evaluators.page import render_page
from scenarios.schema import Scenario
from scenarios.stages.adapting import measure_adaptation, measured, references
from scenarios.stages.setting import Setting
from scenarios.stages.training import Failure
from simulator.cache import StageCache
from simulator.engine import Engine
from simulator.errors import InputError
from simulator.progress import Progress
from tests.agents.task_world import ITEMS, task_world
from tests.agents.taught_world import taught_world, training_in
from tests.evaluators.example_report import example_report


class LearnsLate:
    """Puts the liked items of its one world first once it is shown three interactions, any before."""

    privileged = True

    def act(self, observation: Observation, rng: np.random.Generator) -> np.ndarray:
        shown = (observation.history_items >= 0).sum(axis=1)
        noise = rng.random((len(observation), ITEMS))
        appeal = noise if observation.appeal is None else observation.appeal
        return top_slates(np.where((shown >= 3)[:, None], appeal, noise), observation)


class Flat:
    """Any items, in any order."""

    def act(self, observation: Observation, rng: np.random.Generator) -> np.ndarray:
        return top_slates(rng.random((len(observation), ITEMS)), observation)


class Broken:
    """Cannot act."""

    def act(self, observation: Observation, rng: np.random.Generator) -> np.ndarray:
        raise ValueError("no weights")


def setting(folder: Path, **adaptation: Any) -> Setting:
    scenario = Scenario.model_validate(
        {
            "name": "tasks",
            "data": {"source": "log.csv", "positive": "liked"},
            "agents": [
                {"name": "late", "kind": "maml", "params": {"layer_size": 5}, "train": {"seeds": 2}},
                {"name": "scratch", "kind": "from_scratch"},
                {"name": "popular", "kind": "popularity"},
                {"name": "other", "kind": "linucb"},
            ],
            "evaluate": {"baseline": "popular", "adaptation": adaptation},
        }
    )
    return Setting(scenario, folder, np.random.SeedSequence(1), Engine(StageCache(folder), 1), Progress(None), {})


def specs(of: Setting) -> list[AgentSpec]:
    return [resolve_kind(agent, of.folder) for agent in of.scenario.agents]


def trained(agent: Any) -> list[Trained | Failure]:
    return [Trained(agent, (), prior_value=None, prior=None, steps=0, seconds=0.0, reproducible=True)]


def test_meta_learned_agents_are_held_against_the_same_network_learned_otherwise(tmp_path: Path) -> None:
    own = setting(tmp_path)
    assert measured(own, specs(own)) == ["late", "scratch"]
    [beside] = references(own, specs(own))  # the scenario has the other one itself
    assert beside.settings.kind == "fine_tuned"
    assert beside.settings.params == {"layer_size": 5}
    assert beside.settings.train.seeds == 2
    chosen = setting(tmp_path, agents=["other"])
    assert measured(chosen, specs(chosen)) == ["other"]
    assert references(chosen, specs(chosen)) == []
    none = setting(tmp_path, agents=[])
    assert measured(none, specs(none)) == []


def references_of_one_that_stops_early() -> list[AgentSpec]:
    entry = {"name": "late", "kind": "maml", "train": {"early_stopping": {"patience": 2}}}
    agents = [{"name": "popular", "kind": "popularity"}, entry]
    scenario = Scenario.model_validate({"name": "tasks", "data": {"source": "ml-100k"}, "agents": agents})
    own: Any = SimpleNamespace(scenario=scenario, folder=Path())
    return references(own, specs(own))


def test_references_of_an_agent_that_stops_early_learn_from_the_users_that_it_learns_from() -> None:
    patience = [one.settings.train.early_stopping and one.settings.train.early_stopping.patience
                for one in references_of_one_that_stops_early()]  # fmt: skip
    assert patience == [2, 2]  # which `train_agents` goes by


@pytest.mark.slow
def test_the_reference_that_is_not_trained_has_no_training_that_could_stop() -> None:
    *_, beside = references_of_one_that_stops_early()
    assert beside.settings.kind == "from_scratch"
    training = training_in(*taught_world())
    found = train(beside, replace(training, validation=training.make_env), Path())
    assert found.judged_at == 0
    assert len(found.valued) == 1


def test_worth_by_interactions_reaches_the_page_and_an_agent_that_fails_costs_its_row(tmp_path: Path) -> None:
    own = setting(tmp_path, interactions=[0, 5])
    world, log, split = task_world()
    every = [*specs(own), *references(own, specs(own))]
    reference = every[-1].settings.name
    agents = {"late": trained(LearnsLate()), "scratch": trained(Broken()), "popular": trained(Flat()),
              "other": trained(Flat()), reference: trained(Flat())}  # fmt: skip
    data = SimpleNamespace(log=log, split=split, digest="d", content="c")
    worlds = SimpleNamespace(judges=(world, world))
    found = measure_adaptation(own, data, worlds, every, agents, {name: name for name in agents})  # type: ignore[arg-type]
    assert {(one.agent, one.measure) for one in found} == {
        (name, measure) for name in ("late", "popular", reference) for measure in ("auc", "reward")
    }
    late = {point.interactions: point for one in found if (one.agent, one.measure) == ("late", "reward")
            for point in one.points}  # fmt: skip
    before, after = late[0].differences[reference], late[5].differences[reference]
    assert before.low is not None
    assert before.high is not None
    assert before.low < 0 < before.high
    assert after.low is not None
    assert after.low > 0.5
    page = render_page(example_report().model_copy(update={"adaptation": found}))
    assert '<section id="adaptation">' in page
    assert f"Reward of the first slate, minus {reference}" in page
    assert 'href="#adaptation"' in page
    assert '<section id="adaptation">' not in render_page(example_report())


def test_no_agent_measured_is_no_section(tmp_path: Path) -> None:
    own = setting(tmp_path, agents=[])
    assert measure_adaptation(own, None, None, specs(own), {}, {}) == []  # type: ignore[arg-type]


def test_mistakes_name_the_field_the_value_and_the_mend(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"evaluate.adaptation.agents: 'lat' is not an agent.*late"):
        setting(tmp_path, agents=["lat"])
    with pytest.raises(ValueError, match=r"interactions: 60 are more than agents are shown; 50 at most"):
        setting(tmp_path, interactions=[0, 60])
    with pytest.raises(ValueError, match="must ascend"):
        setting(tmp_path, interactions=[5, 0])
    with pytest.raises(InputError, match="layer_sise"):
        resolve_kind(AgentSettings(name="a", kind="maml", params={"layer_sise": 5}), tmp_path)
