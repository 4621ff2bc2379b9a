"""How fast agents adapt: their worth by the number of a user's interactions that they have seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from scenarios.stages.setting import Setting
from scenarios.stages.training import Failure, failed_by_limit
from scenarios.stages.worlds import Data, Worlds
from simulator.engine import Task
from simulator.log import HELD_OUT, JUDGE, InteractionLog, Split
from simulator.streams import stream_word

if TYPE_CHECKING:
    from agents.loading import AgentSpec, Trained
    from evaluators.adaptation import Adaptation
    from evaluators.report import AdaptationSection
    from simulator.world import World

REFERENCES = ("fine_tuned", "from_scratch")
"""Kinds that a meta-learned agent is held against: the same network, learned without meta-learning and not at all."""
FAMILY = "meta"


def measured(setting: Setting, specs: Sequence[AgentSpec]) -> list[str]:
    """Agents whose adaptation is measured: those that the scenario names, else the meta-learned ones."""
    from agents.kinds import family_of

    chosen = setting.scenario.evaluate.adaptation.agents
    if chosen is not None:
        return list(chosen)
    return [one.settings.name for one in specs if family_of(one.settings.kind) == FAMILY]


def references(setting: Setting, specs: Sequence[AgentSpec]) -> list[AgentSpec]:
    """What meta-learned agents are held against and the scenario has not, as the first one is trained.

    Its parameters, seeds, budget and early stopping are theirs: with the last, both learn from the users that it leaves
    them, though `from_scratch` has no training that could stop.
    """
    from agents.kinds import family_of
    from agents.loading import resolve_kind

    names = measured(setting, specs)
    learned = [one for one in specs if one.settings.name in names and family_of(one.settings.kind) == FAMILY]
    if not learned:
        return []
    there = {one.settings.kind for one in specs}
    first = learned[0].settings
    found = []
    for kind in (kind for kind in REFERENCES if kind not in there):
        settings = first.model_copy(update={"name": f"{kind} (reference)", "kind": kind, "tune": None})
        throughout = settings.train.model_copy(update={"early_stopping": None})
        spec = resolve_kind(settings.model_copy(update={"train": throughout}), setting.folder)
        found.append(replace(spec, settings=settings))
    return found


def measure_adaptation(
    setting: Setting,
    data: Data,
    worlds: Worlds,
    specs: Sequence[AgentSpec],
    trained: Mapping[str, Sequence[Trained | Failure]],
    keys: Mapping[str, Any],
) -> list[AdaptationSection]:
    """The section of the report; empty where no agent is measured.

    Args:
        setting: of the run.
        data: of the run.
        worlds: the judge worlds.
        specs: the scenario's agents and the references.
        trained: all of them trained.
        keys: what each of them depends on.
    """
    from evaluators.adaptation import Adaptation, sections

    chosen = measured(setting, specs)
    if not chosen:
        return []
    beside = [one.settings.name for one in specs if one.settings.kind in REFERENCES]
    names = dict.fromkeys([*chosen, *beside, *setting.scenario.evaluate.baseline[:1]])
    ready = [name for name in names if not any(isinstance(one, Failure) for one in trained[name])]
    length = worlds.judges[0].history_length
    interactions = tuple(k for k in setting.scenario.evaluate.adaptation.interactions if k <= length)
    depends = (
        data.digest,
        data.content,
        setting.scenario.seed,
        interactions,
        *(world.digest for world in worlds.judges),
    )
    code = ("simulator", "agents", "evaluators/adaptation.py", "evaluators/rollout.py", "evaluators/picks.py")
    seed = stream_word(setting.root, "adaptation", bits=63)
    tasks = [
        Task("adapt", name, _measure,
             (name, trained[name], data.log, data.split, worlds.judges, interactions, seed), (depends, keys[name]),
             code, failed_by_limit)
        for name in ready
    ]  # fmt: skip
    done = [one for one in setting.map("adapt", tasks) if not isinstance(one, Failure)]
    if not done:
        return []
    together = [Adaptation.together(parts) for parts in zip(*done, strict=True)]
    return [section for one in together for section in sections(one, beside)]


def _measure(
    name: str,
    trained: Sequence[Trained],
    log: InteractionLog,
    split: Split,
    judges: Sequence[World],
    interactions: tuple[int, ...],
    seed: int,
    *,
    report: Callable[[float, str], None],
) -> tuple[Adaptation, Adaptation] | Failure:
    from evaluators.adaptation import first_slates, later_rows_ordered

    first = judges[0]
    agents = {name: [one.agent for one in trained]}
    users = np.sort(np.concatenate([split.users(HELD_OUT), split.users(JUDGE)]))
    try:
        ordered = later_rows_ordered(
            agents,
            log,
            split,
            users,
            feature_names=first.feature_names,
            history_length=first.history_length,
            interactions=interactions,
            seed=seed,
        )
        report(0.5, "first slates")
        shown = first_slates(agents, dict(enumerate(judges, 1)), interactions=interactions, seed=seed)
    except Exception as error:  # noqa: BLE001  one agent's failure is no end of the run
        return Failure.of(error)
    return ordered, shown
