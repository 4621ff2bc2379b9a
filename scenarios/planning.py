"""What a scenario could find out, told from its log and its settings before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evaluators.gates import comparisons_of, parse_rule
from evaluators.power import planning_advice
from evaluators.settings import FEWEST_WORLDS_FOR_A_GATE
from scenarios.checking import Prepared, items_left, prepare_scenario
from scenarios.schema import Scenario
from simulator.datasets import load_dataset
from simulator.log import JUDGE, InteractionLog, Split, split_users


def planning_lines(path: Path, *, overrides: Sequence[str] = ()) -> list[str]:
    """What a right scenario could find out, one line each: its smallest detectable difference, gates that cannot pass.

    Args:
        path: the YAML file.
        overrides: texts of `--set`.

    Raises:
        InputError: the scenario or its log is wrong.
    """
    prepared = prepare_scenario(path, overrides=overrides)
    scenario = prepared.scenario
    log = load_dataset(scenario.data, prepared.folder, seed=scenario.seed)
    split = split_users(log, np.random.SeedSequence(scenario.seed))
    judges = split.users(JUDGE)
    n_users = min(len(judges), scenario.evaluate.users)
    return [
        *_detectable(prepared, n_users),
        *_too_few_worlds(scenario),
        *_gates_on_nobody(prepared),
        *_small_groups(scenario, log, judges),
        *_few_items(scenario, log, split),
    ]


def _detectable(prepared: Prepared, n_users: int) -> Iterator[str]:
    """A line for each number of trainings that the agents have, with the agents' names."""
    baselines = prepared.scenario.evaluate.baseline
    rivals = [spec for spec in prepared.specs if spec.settings.name not in baselines]
    against = [spec for spec in prepared.specs if spec.settings.name in baselines and spec.learns]
    named: dict[tuple[bool, int], list[str]] = {}
    for spec in rivals:
        trainings = [other.settings.train.seeds for other in (spec, *against) if other.learns]
        named.setdefault((spec.learns, min(trainings, default=1)), []).append(spec.settings.name)
    for (learns, n_seeds), names in named.items():
        learners = learns + bool(against)
        line = planning_advice(n_users, n_seeds, learners=learners, comparisons=len(rivals))
        yield f"{', '.join(names)}: {line}"


def _too_few_worlds(scenario: Scenario) -> Iterator[str]:
    statistics = {c.term.statistic for gate in scenario.gates for c in comparisons_of(parse_rule(gate.rule))}
    if statistics & {"difference", "ratio"} and scenario.evaluate.worlds < FEWEST_WORLDS_FOR_A_GATE:
        yield (
            f"evaluate.worlds: {scenario.evaluate.worlds} judge worlds decide no difference; "
            f"its gates stay undecided below {FEWEST_WORLDS_FOR_A_GATE}"
        )


def _gates_on_nobody(prepared: Prepared) -> Iterator[str]:
    from evaluators.findings import role_of

    evaluate = prepared.scenario.evaluate
    roles = [role_of(one.settings.name, evaluate, bound=one.privileged) for one in prepared.specs]
    for at, gate in enumerate(prepared.scenario.gates):
        if not ("policy" in roles if gate.agents is None else gate.agents):
            yield (
                f"gates[{at}].agents: '{gate.name}' holds for no agent of this scenario, so a run passes without it; "
                "name agents, or fly a policy with `windtunnel vet`"
            )


def _small_groups(scenario: Scenario, log: InteractionLog, judges: NDArray[np.int64]) -> Iterator[str]:
    from evaluators.fairness import FEWEST_USERS

    share = min(1.0, scenario.evaluate.users / max(len(judges), 1))
    for name in scenario.evaluate.fairness.attributes:
        groups, count = np.unique(log.catalogue.user_attributes[name][judges], return_counts=True)
        small = [
            f"{group} {size:.0f}"
            for group, size in zip(groups, np.floor(count * share), strict=True)
            if group != "" and size < FEWEST_USERS
        ]
        if small:
            yield (
                f"evaluate.fairness: groups of {name} with fewer than {FEWEST_USERS} flown users "
                f"({', '.join(small)}) have no gap; more users would help"
            )


def _few_items(scenario: Scenario, log: InteractionLog, split: Split) -> Iterator[str]:
    simulator = scenario.simulator
    shown, left = simulator.slate_size * simulator.horizon, items_left(log, split)
    if not simulator.shown_again and left < shown:
        yield (
            f"simulator.shown_again: false leaves half of the users {left} of {log.catalogue.n_items} items that they "
            f"have not met, and a session shows up to {shown}: whoever ranks them shows much the same; set it to true"
        )
