"""Other scenarios that agents learn in: their train worlds, with items known by this scenario's encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from scenarios.loading import load_scenario
from scenarios.stages.setting import Setting
from scenarios.stages.training import learned_in, training_log
from scenarios.stages.worlds import Data, Domain, fit_train_world, read_log, with_content
from simulator.cache import digest_of
from simulator.datasets.sources import named_file
from simulator.errors import InputError, ScenarioError

if TYPE_CHECKING:
    from agents.loading import AgentSpec


def open_domains(setting: Setting, data: Data, specs: Sequence[AgentSpec]) -> Data:
    """The data with the train world of every other scenario that an agent learns in; its own agents play no part.

    Raises:
        InputError: one cannot be read, its items have no text, or its train users are among those by whom agents are
            judged here; one line for each mistake.
    """
    names = dict.fromkeys(name for spec in specs for name in learned_in(spec))
    return replace(data, domains={name: _open(setting, data, name) for name in names})


def _open(setting: Setting, data: Data, name: str) -> Domain:
    from scenarios.checking import check_domain, source_id

    path = named_file(setting.folder, name)
    try:
        scenario = load_scenario(path)
        other = replace(
            setting, scenario=scenario, folder=path.parent.resolve(), root=np.random.SeedSequence(scenario.seed)
        )
        theirs = read_log(other)
        alike = source_id(setting.scenario.data, setting.folder) == source_id(scenario.data, path.parent)
        if mistakes := check_domain(data.log, data.split, theirs.log, theirs.split, same_source=alike):
            raise ScenarioError(mistakes)
        world = fit_train_world(other, theirs, beside=f" of {scenario.name}")
    except InputError as error:
        raise InputError(
            "\n".join(f"params.learned_in: '{name}': {line}" for line in str(error).splitlines())
        ) from error
    with setting.progress.stage("encode"):
        log = training_log(with_content(setting, theirs.log, theirs.log.catalogue.item_text), theirs.split)
    return Domain(log, world, digest_of((theirs.digest, world.digest)), digest_of(log.catalogue.content))
