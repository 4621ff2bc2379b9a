"""What a scenario names outside itself: agents, encoder, log. Looked up before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.loading import AgentSpec, resolve_kind
from agents.needs import lacking
from agents.settings import AgentSettings
from evaluators.settings import EvaluateSettings
from scenarios.loading import CANDIDATE, Candidate, Parts, load_scenario, read_parts
from scenarios.schema import Scenario
from simulator.behaviour import SimulatorSettings
from simulator.datasets import DATASETS, DataSettings, load_dataset, log_of_policy
from simulator.datasets.sources import named_file
from simulator.errors import InputError, ScenarioError, did_you_mean
from simulator.known_worlds import WORLD_PREFIX
from simulator.log import JUDGE, WORLD_A, InteractionLog, Split, split_users
from simulator.preference.settings import PreferenceSettings

FEWEST_SHARED = 0.8
"""Share of another policy's rows whose items the scenario's own log must know."""
SAME_PEOPLE = 0.5
"""Share of what users of like ids met that must be common to two logs of other sources for the users to be the same."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A scenario that can be run.

    Attributes:
        scenario: with every default written out, the parameters of built-in agents too.
        specs: what each agent was resolved to, in the scenario's order.
        folder: where relative paths of the scenario start.
        encoder: path of the encoder's folder.
    """

    scenario: Scenario
    specs: tuple[AgentSpec, ...]
    folder: Path
    encoder: str


def prepare_scenario(
    path: Path, *, overrides: Sequence[str] = (), seed: int | None = None, candidate: Candidate | None = None
) -> Prepared:
    """Read a scenario and look up its agents and encoder; the log is left to `load_dataset`.

    Args:
        path: the YAML file.
        overrides: texts of `--set`, see `load_scenario`.
        seed: replaces the scenario's own seed.
        candidate: a policy to vet.

    Raises:
        ScenarioError: everything that is wrong, one line each.
    """
    parts = read_parts(path, overrides=overrides, seed=seed, candidate=candidate)
    specs, wrong_agents = _resolve_agents(parts, path)
    encoder, wrong_encoder = _resolve_encoder(parts, path.parent)
    mistakes = [*parts.mistakes, *wrong_agents, *wrong_encoder, *_check_behaviour(parts, path.parent)]
    if candidate is not None:
        mistakes = _by_options(mistakes, parts)
    if mistakes or encoder is None:
        raise ScenarioError(mistakes)
    return Prepared(_completed(parts.whole(), specs), tuple(specs), path.parent, encoder)


def check_scenario(
    path: Path, *, overrides: Sequence[str] = (), seed: int | None = None, candidate: Candidate | None = None
) -> list[str]:
    """Everything that is wrong with a scenario, its agents, its encoder and its log, one line each; trains nothing."""
    try:
        parts = read_parts(path, overrides=overrides, seed=seed, candidate=candidate)
    except ScenarioError as error:
        return list(error.mistakes)
    specs, wrong_agents = _resolve_agents(parts, path)
    _, wrong_encoder = _resolve_encoder(parts, path.parent)
    wrong_behaviour = _check_behaviour(parts, path.parent)
    wrong_log = _check_log(parts, path, specs, vetted=candidate is not None)
    mistakes = [*parts.mistakes, *wrong_agents, *wrong_encoder, *wrong_behaviour, *wrong_log]
    return mistakes if candidate is None else _by_options(mistakes, parts)


def check_log(log: InteractionLog, simulator: SimulatorSettings | None, evaluate: EvaluateSettings | None) -> list[str]:
    """Mistakes that show only when the log is known: too few users or items, one group where two are compared."""
    mistakes = []
    split = None
    try:
        split = split_users(log, np.random.SeedSequence(0))
    except InputError as error:
        mistakes.append(str(error))
    n_items = log.catalogue.n_items
    if simulator is not None and simulator.slate_size > n_items:
        mistakes.append(
            f"simulator.slate_size: '{simulator.slate_size}' is more than the log's items; give at most {n_items}"
        )
    elif simulator is not None and not simulator.shown_again and split is not None:
        left = items_left(log, split)
        if left < simulator.slate_size:
            mistakes.append(
                f"simulator.shown_again: 'false' leaves half of the users {left} of {n_items} items that they have not "
                f"met, and a slate needs {simulator.slate_size}; set it to true"
            )
    if simulator is not None and simulator.friends.strength and simulator.friends.pairs is None and log.friends is None:
        mistakes.append(
            f"simulator.friends.pairs: '{log.source}' does not say who is whose friend; name a file of pairs"
        )
    for column in () if simulator is None else simulator.behaviours:
        if column not in log.behaviours:
            hint = did_you_mean(column, log.behaviours) or "; name it there"
            mistakes.append(f"simulator.behaviours: '{column}' is not among data.behaviours{hint}")
    for name in () if evaluate is None else evaluate.fairness.attributes:
        groups = sorted(set(log.catalogue.user_attributes.get(name, ())) - {""})
        if name in log.catalogue.user_attributes and len(groups) < 2:
            there = f"only '{groups[0]}'" if groups else "no value"
            mistakes.append(
                f"evaluate.fairness.attributes: '{name}' has {there} in the log; a comparison needs two groups"
            )
    return mistakes


def check_needs(
    log: InteractionLog, specs: Sequence[AgentSpec], agents: Sequence[AgentSettings | None], *, vetted: bool
) -> list[str]:
    """Mistakes of agents that need, or name, what the log does not hold, one line each.

    Args:
        log: the whole log.
        specs: what the agents were resolved to, as far as they could be.
        agents: the scenario's entries.
        vetted: the policy to vet is one of them; who gives it knows of no entry.
    """
    mistakes = []
    at = {agent.name: k for k, agent in enumerate(agents) if agent is not None}
    for spec in specs:
        name = spec.settings.name
        field, params = f"agents[{at[name]}].kind", f"agents[{at[name]}].params"
        if vetted and name == CANDIDATE:
            field, params = "--policy", f"--set agents[{CANDIDATE}].params"
        for one in spec.made_of():
            needs = getattr(one.params, "needs", "" if one.kind is None else one.kind.needs)
            if lack := lacking(needs, log):
                mistakes.append(f"{field}: '{one.settings.kind}' needs {needs}; {lack}")
            mistakes_in = getattr(one.params, "mistakes_in", None)
            if mistakes_in is not None:
                mistakes += [f"{params}.{line}" for line in mistakes_in(log.catalogue)]
    return mistakes


def items_left(log: InteractionLog, split: Split) -> int:
    """Items that the median judge user has not met before sessions start."""
    n_items = log.catalogue.n_items
    rows = split.rows(log, split.users(JUDGE), late=False)
    user = np.unique(log.user[rows] * n_items + log.item[rows]) // n_items
    return int(n_items - np.median(np.unique(user, return_counts=True)[1]))


def _check_log(parts: Parts, path: Path, specs: Sequence[AgentSpec], *, vetted: bool) -> list[str]:
    """Mistakes that the log shows, and the logs of other policies and of the scenarios that agents learn in."""
    data, folder = parts.settings.get("data"), path.parent
    if not isinstance(data, DataSettings):
        return []
    try:
        log = load_dataset(data, folder, seed=_seed(parts))
    except InputError as error:
        return str(error).splitlines()
    evaluate = parts.settings.get("evaluate")
    wrong = check_log(log, parts.settings.get("simulator"), evaluate)
    wrong += check_graded(log, parts.settings.get("preference"))
    wrong += check_needs(log, specs, parts.settings.get("agents") or (), vetted=vetted)
    if isinstance(evaluate, EvaluateSettings):
        try:
            read_other_logs(evaluate.other_logs, data, folder, log, seed=_seed(parts))
        except InputError as error:
            wrong += str(error).splitlines()
    return wrong + _check_domains(parts, path, specs, data, log)


def _check_domains(
    parts: Parts, path: Path, specs: Sequence[AgentSpec], data: DataSettings, log: InteractionLog
) -> list[str]:
    """Mistakes in the logs of the scenarios that agents learn in; `_check_learned_in` has those of the files."""
    from scenarios.stages.training import learned_in

    at = {agent.name: k for k, agent in enumerate(parts.settings.get("agents") or ()) if agent is not None}
    mistakes: list[str] = []
    for spec in specs:
        for name in dict.fromkeys(learned_in(spec)):
            other = named_file(path.parent, name)
            if not other.is_file() or other.samefile(path):
                continue
            try:
                theirs = load_scenario(other)
            except ScenarioError:
                continue
            try:
                their_log = load_dataset(theirs.data, other.parent, seed=theirs.seed)
                wrong = check_log(their_log, theirs.simulator, theirs.evaluate)
                if not (wrong := wrong + check_graded(their_log, theirs.preference)):
                    split = split_users(log, np.random.SeedSequence(_seed(parts)))
                    their_split = split_users(their_log, np.random.SeedSequence(theirs.seed))
                    alike = source_id(data, path.parent) == source_id(theirs.data, other.parent)
                    wrong = check_domain(log, split, their_log, their_split, same_source=alike)
            except InputError as error:
                wrong = str(error).splitlines()
            mistakes += [f"agents[{at[spec.settings.name]}].params.learned_in: '{name}': {line}" for line in wrong]
    return mistakes


def check_domain(
    log: InteractionLog, split: Split, theirs: InteractionLog, their_split: Split, *, same_source: bool
) -> list[str]:
    """Mistakes of a scenario that agents of another one learn in, one line each.

    Args:
        log: of the scenario whose agents learn.
        split: of its users.
        theirs: of the scenario that is learned in.
        their_split: of its users.
        same_source: whether both logs are of one source, in which a user's id stands for one person.
    """
    mistakes = [
        f"data.item_text: {whose} have no text, by which domains know each other's items; name columns"
        for one, whose in ((theirs, "its items"), (log, "this scenario's items"))
        if not any(text.strip() for text in one.catalogue.item_text)
    ]
    judged = np.flatnonzero(split.role != WORLD_A)
    known = _same_users(log, judged, theirs, their_split.users(WORLD_A), same_source=same_source)
    if known:
        mistakes.append(
            f"data.source: {known} of the {len(judged)} users by whom agents are judged here are train users there; "
            "name a scenario of other users, or one with this scenario's data and seed"
        )
    return mistakes


def source_id(data: DataSettings, folder: Path) -> str:
    """What two scenarios share whose logs come from one source: a dataset's name, else the path of a file or folder."""
    source = data.source
    if source in DATASETS or source.startswith(WORLD_PREFIX):
        return source
    if (named := log_of_policy(source)) is not None and not (folder / source).exists():
        return named[0]
    return str(named_file(folder, source).resolve())


def _same_users(
    log: InteractionLog,
    users: NDArray[np.int64],
    theirs: InteractionLog,
    their_users: NDArray[np.int64],
    *,
    same_source: bool,
) -> int:
    """How many of the users [n] of a log are among those [m] of another.

    Of one source, like ids are enough. Of two, "17" may be two people: those of like ids are taken to be the same if
    they met the same items, which are known by id and by the words of their texts, of which one may have more.
    """
    ids, their_ids = np.array(log.catalogue.user_ids)[users], np.array(theirs.catalogue.user_ids)[their_users]
    _, here, there = np.intersect1d(ids, their_ids, assume_unique=True, return_indices=True)
    if same_source or not len(here):
        return len(here)
    items, their_items = np.array(log.catalogue.item_ids), np.array(theirs.catalogue.item_ids)
    _, item, their_item = np.intersect1d(items, their_items, assume_unique=True, return_indices=True)
    text, their_text = log.catalogue.item_text, theirs.catalogue.item_text
    words = [(set(text[i].split()), set(their_text[j].split())) for i, j in zip(item, their_item, strict=True)]
    same = np.array([one <= other or other <= one for one, other in words], bool)
    as_here = np.full(len(their_items), -1)
    as_here[their_item[same]] = item[same]

    met = _met(log.user, log.item, users[here], len(items))
    their_met = _met(theirs.user, theirs.item, their_users[there], len(their_items))
    number, known = their_met // len(their_items), as_here[their_met % len(their_items)]
    shared = np.isin((number * len(items) + known)[known >= 0], met).sum()
    fewer = np.minimum(np.bincount(met // len(items), minlength=len(here)), np.bincount(number, minlength=len(here)))
    return len(here) if shared >= SAME_PEOPLE * fewer.sum() else 0


def _met(user: NDArray[np.int64], item: NDArray[np.int64], users: NDArray[np.int64], n_items: int) -> NDArray[np.int64]:
    """Distinct pairs of a row's user, numbered by its place in `users`, and item, as place * n_items + item."""
    place = np.full(max(user.max(), users.max()) + 1, -1)
    place[users] = np.arange(len(users))
    rows = place[user] >= 0
    return np.unique(place[user[rows]] * n_items + item[rows])


def read_other_logs(
    sources: Sequence[str], data: DataSettings, folder: Path, log: InteractionLog, *, seed: int
) -> dict[str, InteractionLog]:
    """The logs that `evaluate.other_logs` names, by their source, read as the scenario's own.

    Raises:
        InputError: one cannot be read, or has hardly an item of the scenario's own log.
    """
    logs: dict[str, InteractionLog] = {}
    for at, source in enumerate(sources):
        where = f"evaluate.other_logs[{at}]"
        try:
            other = load_dataset(data.model_copy(update={"source": source}), folder, seed=seed)
        except InputError as error:
            raise InputError(str(error).replace("data.source", where)) from error
        shared = np.isin(np.array(other.catalogue.item_ids)[other.item], np.array(log.catalogue.item_ids)).mean()
        if shared < FEWEST_SHARED:
            raise InputError(
                f"{where}: {shared:.0%} of the rows of '{source}' are of items of '{data.source}', "
                f"{FEWEST_SHARED:.0%} are needed; name a log of another policy on the same items"
            )
        logs[source] = other
    return logs


def check_graded(log: InteractionLog, preference: PreferenceSettings | None) -> list[str]:
    """Mistakes of `preference.graded` that only the log shows, one line each."""
    mistakes = []
    for name, limits in () if preference is None else preference.graded.items():
        where = f"preference.graded.{name}"
        if name not in log.behaviours:
            hint = did_you_mean(name, log.behaviours) or "; name it there"
            mistakes.append(f"{where}: '{name}' is not among data.behaviours{hint}")
            continue
        value = log.behaviours[name]
        if unobserved := int(np.isnan(value).sum()):
            mistakes.append(
                f"{where}: '{name}' has no value on {unobserved} rows, and thresholds are fitted on every row; "
                "fill them in, drop the rows or leave it out"
            )
            continue
        for limit in limits:
            share = float((value >= limit).mean())
            if not 0 < share < 1:
                found = "every" if share else "no"
                mistakes.append(f"{where}: {found} row reaches {limit:g}; give thresholds between its values")
    return mistakes


def _check_behaviour(parts: Parts, folder: Path) -> list[str]:
    """Mistakes of a user's own behaviour class; it is loaded and held to its contract."""
    simulator = parts.settings.get("simulator")
    if not isinstance(simulator, SimulatorSettings) or simulator.behaviour is None:
        return []
    from simulator.behaviour.own import OwnBehaviour

    try:
        OwnBehaviour.find(simulator.behaviour, simulator.behaviour_params, folder)
    except InputError as error:
        return str(error).splitlines()
    return []


def _seed(parts: Parts) -> int:
    seed = parts.settings.get("seed", 0)
    return seed if isinstance(seed, int) else 0


def _check_learned_in(spec: AgentSpec, path: Path, encoder: str | None, where: str) -> list[str]:
    """Mistakes in the scenarios that an agent learns in; their own agents are not looked at."""
    from scenarios.stages.training import learned_in

    mistakes: list[str] = []
    for name in dict.fromkeys(learned_in(spec)):
        field, other = f"{where}.params.learned_in", named_file(path.parent, name)
        if not other.is_file():
            mistakes.append(f"{field}: '{name}' is no file; name scenarios, counted from the folder of this one")
        elif path.is_file() and other.samefile(path):
            mistakes.append(f"{field}: '{name}' is this scenario; leave it out, and its own train users are the tasks")
        elif encoder == "own":
            mistakes.append(f"{field}: preference.encoder 'own' knows this log's texts alone; name another encoder")
        else:
            try:
                mistakes += [f"{field}: '{name}': {line}" for line in read_parts(other).mistakes]
            except ScenarioError as error:
                mistakes += [f"{field}: {line}" for line in error.mistakes]
    return mistakes


def _by_options(mistakes: Sequence[str], parts: Parts) -> list[str]:
    """Mistakes of the policy to vet by the options that gave it: who gives one knows of no entry in the scenario."""
    agents = parts.raw.get("agents")
    names = [one.get("name") if isinstance(one, dict) else None for one in agents] if isinstance(agents, list) else []
    if CANDIDATE not in names:
        return list(mistakes)
    entry = f"agents[{names.index(CANDIDATE)}]."
    options = {"kind": "--policy", "trained_on": "--trained-on"}
    told = []
    for line in mistakes:
        field, colon, said = line.removeprefix(entry).partition(":")
        place = options.get(field, f"--set agents[{CANDIDATE}].{field}")
        told.append(f"{place}{colon}{said}" if line.startswith(entry) else line)
    return told


def _resolve_agents(parts: Parts, path: Path) -> tuple[list[AgentSpec], list[str]]:
    specs: list[AgentSpec] = []
    mistakes: list[str] = []
    agents: Sequence[AgentSettings | None] = parts.settings.get("agents") or ()
    preference = parts.settings.get("preference")
    for at, agent in enumerate(agents):
        if agent is None:
            continue
        try:
            specs.append(resolve_kind(agent, path.parent, where=f"agents[{at}]"))
        except InputError as error:
            mistakes += str(error).splitlines()
        else:
            mistakes += _check_learned_in(specs[-1], path, getattr(preference, "encoder", None), f"agents[{at}]")
    return specs, mistakes


def _resolve_encoder(parts: Parts, folder: Path) -> tuple[str | None, list[str]]:
    from simulator.encoders.text import check_device, resolve_encoder

    preference = parts.settings.get("preference")
    if preference is None:
        return None, []
    try:
        check_device(preference.tuning.device, "preference.tuning.device")
        return resolve_encoder(preference.encoder, folder), []
    except InputError as error:
        return None, str(error).splitlines()


def _completed(scenario: Scenario, specs: Sequence[AgentSpec]) -> Scenario:
    """The scenario with the parameters of its built-in agents written out."""
    agents = []
    for agent, spec in zip(scenario.agents, specs, strict=True):
        params: dict[str, Any] = dict(agent.params)
        if spec.params is not None:
            params = spec.params.model_dump(mode="json")
            if ":" in agent.kind:
                params.pop("model", None)  # the kind names it: `recbole:EASE`
        agents.append(agent.model_copy(update={"params": params}))
    return scenario.model_copy(update={"agents": tuple(agents)})
