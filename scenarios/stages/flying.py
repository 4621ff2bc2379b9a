"""Fly the trained agents in the judge worlds, check the flights, and value the agents on logged rounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from agents.base import learns_online
from agents.kinds import learns_clicks
from scenarios.stages.setting import Setting
from scenarios.stages.training import Failure, failed_by_limit
from scenarios.stages.worlds import Data, Worlds, judged_on
from simulator.behaviour import BETWEEN_SESSIONS
from simulator.engine import Task
from simulator.errors import LogError
from simulator.log import HELD_OUT, WORLD_A, InteractionLog, Split
from simulator.streams import stream, stream_word

if TYPE_CHECKING:
    from agents.loading import AgentSpec, Trained
    from evaluators.fairness import Flip
    from evaluators.judging import Course, Judged, Sweep
    from evaluators.logged_check import JudgeLog, LoggedCheck
    from evaluators.logged_rounds import LogRounds, OffPolicyEvidence, PolicyOnLog
    from evaluators.picks import Picks
    from simulator.behaviour import Assumption
    from simulator.world import World

FLYING = ("simulator", "agents", "evaluators/judging.py", "evaluators/rollout.py", "evaluators/metrics.py",
          "evaluators/flights.py", "evaluators/fairness/counterfactual.py", "evaluators/slate_distance.py",
          "evaluators/sessions.py")  # fmt: skip
MOST_PICKS = 10
"""Items at the top of an agent's list that the picks check scores; its slate if that is longer."""
LEARNS_ON = "learns while it is judged: its users share what it learned, and its intervals take them as independent"
"""Note beside an agent that learns online."""


@dataclass(frozen=True, slots=True)
class Flown:
    """Everything that the agents did."""

    judged: Mapping[str, list[Judged]]
    failed: Mapping[str, str]
    notes: Mapping[str, tuple[str, ...]]
    picks: Mapping[str, Picks]
    shifted: Mapping[str, Any]
    logged: Mapping[str, LoggedCheck]
    on_log: OffPolicyEvidence


def plan_course(setting: Setting, data: Data, worlds: Worlds, *, flips: bool) -> Course:
    """Where every agent is flown, with counterfactual flips or without."""
    from evaluators.judging import Course
    from evaluators.metrics import Reference
    from evaluators.picks import held_out_observation

    scenario, log, split = setting.scenario, data.log, data.split
    train_rows = np.isin(log.user, split.users(WORLD_A))
    first = worlds.judges[0]
    held_out = held_out_observation(
        log,
        split,
        split.users(HELD_OUT),
        feature_names=first.feature_names,
        history_length=first.history_length,
        slate_size=min(max(MOST_PICKS, first.slate_size), first.n_items),
        shown_again=first.shown_again,
    )
    n_items = log.catalogue.n_items
    return Course(
        worlds=worlds.judges,
        claimed=worlds.a_on_judge_users,
        truth=worlds.truth,
        sweeps=sweeps_of(first.assumptions, scenario.evaluate.sessions_per_user),
        seeds=tuple(stream_word(setting.root, "fly", number, bits=63) for number in range(scenario.evaluate.seeds)),
        sessions=scenario.evaluate.sessions_per_user,
        metrics=scenario.evaluate.metrics,
        reference=Reference(
            item_rows=np.bincount(log.item[train_rows], minlength=n_items),
            eligible=np.ones(n_items, bool),
            content=log.catalogue.content,
        ),
        held_out=held_out,
        flips=_flips(setting, data, worlds) if flips else {},
    )


def sweeps_of(assumptions: Sequence[Assumption], sessions: int) -> tuple[Sweep, ...]:
    """Under which other values agents fly again: none of what does nothing where users have one session each."""
    return tuple(
        (a.part, a.parameter, float(value))
        for a in assumptions
        if sessions > 1 or a.part not in BETWEEN_SESSIONS
        for value in a.sweep
    )


def _flips(setting: Setting, data: Data, worlds: Worlds) -> Mapping[str, tuple[Flip, ...]]:
    """Flips of sensitive attributes that users' features carry, so that an agent or a world may read them."""
    from evaluators.fairness import flips_of

    world, catalogue = worlds.judges[0], data.log.catalogue
    features = catalogue.user_features[world.starts.user].astype(np.float32)
    found = {
        attribute: flips_of(
            world, worlds.judge_models[0], features, catalogue.user_feature_names, attribute,
            stream(setting.root, "fairness", "replay"),
        )
        for attribute in setting.scenario.evaluate.fairness.attributes
    }  # fmt: skip
    return {attribute: flips for attribute, flips in found.items() if flips}


def where_of(setting: Setting, data: Data, worlds: Worlds) -> tuple[Any, ...]:
    """What every flight depends on beside the agent."""
    # What was measured on-line is compared with the flights, and changes none of them.
    evaluated = setting.scenario.evaluate.model_copy(update={"known": ()})
    flown = (*worlds.judges, worlds.a_on_judge_users, *(() if worlds.truth is None else (worlds.truth,)))
    return (data.digest, data.content, setting.scenario.seed, evaluated, *(world.digest for world in flown))


def _judge(
    trained: Trained, course: Course, name: str, training_seed: int, root: Any, *, report: Callable[[float, str], None]
) -> Judged | Failure:
    from evaluators.judging import fly_course

    try:
        return fly_course(trained.agent, course, name=name, training_seed=training_seed, root=root, report=report)
    except Exception as error:  # noqa: BLE001  as in _train
        return Failure.of(error)


def fly_users(
    setting: Setting,
    data: Data,
    worlds: Worlds,
    specs: Sequence[AgentSpec],
    trained: Mapping[str, list[Trained | Failure]],
    keys: Mapping[str, Any],
) -> tuple[Worlds, dict[str, list[Judged]], dict[str, str]]:
    """Fly every trained agent, with more and more users where the scenario asks for a precision.

    Returns:
        The worlds with the users who flew, what each agent did there, and why agents failed.
    """
    from evaluators.precision import looks, precise_enough

    users = worlds.judges[0].starts.user
    order = stream(setting.root, "evaluate", "order").permutation(users)
    learners = {spec.settings.name for spec in specs if spec.learns}
    bounds = {spec.settings.name for spec in specs if spec.privileged}
    judged: dict[str, list[Judged]] = {}
    failed: dict[str, str] = {}
    flown = worlds
    for number in looks(len(users), setting.scenario.evaluate):
        if number < len(users):
            some = np.sort(order[:number])
            flown = replace(worlds, **judged_on(setting, data, worlds.model_a, worlds.judge_models, some))
        else:
            flown = worlds
        judged, failed = fly_everywhere(setting, data, flown, trained, keys)
        flights = [flight for all_ in judged.values() for one in all_ for flight in one.flights]
        if precise_enough(flights, setting.scenario.evaluate, learners=learners, bounds=bounds):
            break
    return flown, judged, failed


def fly_everywhere(
    setting: Setting,
    data: Data,
    worlds: Worlds,
    trained: Mapping[str, list[Trained | Failure]],
    keys: Mapping[str, Any],
) -> tuple[dict[str, list[Judged]], dict[str, str]]:
    """Every trained agent on the whole course, and why agents failed."""
    root = setting.root
    course, where = plan_course(setting, data, worlds, flips=True), where_of(setting, data, worlds)
    failed = {name: one.why for name, all_ in trained.items() for one in all_ if isinstance(one, Failure)}
    ready = {name: all_ for name, all_ in trained.items() if name not in failed}
    tasks, owners = [], []
    for name, all_ in ready.items():
        for number, one in enumerate(all_):
            label = f"{name}, seed {number}" if len(all_) > 1 else name
            tasks.append(Task("fly", label, _judge, (one, course, name, number, root), (where, keys[name], number),
                              FLYING, failed_by_limit))  # fmt: skip
            owners.append(name)
    judged: dict[str, list[Any]] = {name: [] for name in ready}
    for name, result in zip(owners, setting.map("fly", tasks), strict=True):
        judged[name].append(result)
    for name, results in judged.items():
        wrong = next((one.why for one in results if isinstance(one, Failure)), None)
        if wrong is not None:
            failed[name] = wrong
    return {name: results for name, results in judged.items() if name not in failed}, failed


def correct_by_picks(
    setting: Setting,
    data: Data,
    worlds: Worlds,
    trained: Mapping[str, list[Any]],
    keys: Mapping[str, Any],
    judged: Mapping[str, list[Judged]],
) -> tuple[dict[str, Picks], dict[str, Any]]:
    """Each agent's picks scored on rows that no model has seen, and its flights corrected by them, or the `Failure`."""
    from evaluators.picks import picks_of

    log, split = data.log, data.split
    course, where = plan_course(setting, data, worlds, flips=False), where_of(setting, data, worlds)
    with setting.progress.stage("picks"):
        users = split.users(HELD_OUT)
        rows = split.rows(log, users, late=True)
        p = np.mean([model.predict(log, split, rows) for model in worlds.judge_models], axis=0)
        picks = {
            name: picks_of([one.slates for one in results if one.slates is not None], users, log, rows, p)
            for name, results in judged.items()
            if all(one.slates is not None for one in results)
        }
    correctable = [name for name, found in picks.items() if found.estimate.value is not None]
    corrections = [
        Task("correct", name, _shifted,
             (trained[name], course, (found.shift, found.shift_low, found.shift_high), name),
             (where, keys[name], found.shift, found.shift_low, found.shift_high), FLYING, failed_by_limit)
        for name in correctable
        for found in [picks[name]]
    ]  # fmt: skip
    return picks, dict(zip(correctable, setting.map("correct", corrections), strict=True))


def learned_clicks(reward: str, specs: Sequence[AgentSpec]) -> dict[str, tuple[str]]:
    """The note beside each agent that learned, or is made of one that did, from clicks where the reward is another."""
    said = f"learned from clicks, not from the reward that it is judged by ({reward})"
    notes: dict[str, tuple[str]] = {}
    for spec in () if reward == "clicks" else specs:
        own = spec.settings.kind
        kinds = [one.settings.kind for one in spec.made_of() if learns_clicks(one.settings.kind)]
        if kinds:
            notes[spec.settings.name] = (said if kinds[0] == own else f"is made of {kinds[0]}, which {said}",)
    return notes


def check_flights(
    setting: Setting,
    data: Data,
    worlds: Worlds,
    specs: Sequence[AgentSpec],
    trained: Mapping[str, list[Any]],
    keys: Mapping[str, Any],
    judged: dict[str, list[Judged]],
    failed: dict[str, str],
) -> Flown:
    """Score each agent's picks, fly it corrected by them, and estimate it from rounds logged in a judge world."""
    from evaluators.logged_check import ItemFacts, log_rounds

    scenario, log, split, root = setting.scenario, data.log, data.split, setting.root
    where = where_of(setting, data, worlds)
    picks, shifted = correct_by_picks(setting, data, worlds, trained, keys, judged)

    judge_log = log_rounds(
        worlds.judges[0], ItemFacts.of(log, np.flatnonzero(np.isin(log.user, split.users(WORLD_A)))), root
    )
    code = ("simulator", "agents", "evaluators/off_policy", "evaluators/intervals.py", "evaluators/logged_check.py")
    inputs = (judge_log, scenario.evaluate.off_policy, root)
    [judge_log] = setting.map(
        "off-policy check", [Task("off-policy check", "reward model", _with_model, inputs, (where, "model"), code)]
    )
    checks = [
        Task("off-policy check", name, _judge_logged,
             (trained[name], judge_log, worlds.judges[0], name, scenario.evaluate.off_policy, root),
             (where, keys[name], scenario.evaluate.off_policy), code, failed_by_limit)
        for name in judged
    ]  # fmt: skip
    found_logged = dict(zip(judged, setting.map("off-policy check", checks), strict=True))
    missing = {"off-policy check": found_logged, "corrected value": shifted}
    of_clicks = learned_clicks(scenario.simulator.reward, specs)
    notes = {
        name: tuple(
            f"no {what}: {found[name].why}" for what, found in missing.items() if isinstance(found.get(name), Failure)
        )
        + (LEARNS_ON,) * any(learns_online(one.agent) for one in trained[name])
        + of_clicks.get(name, ())
        + tuple(dict.fromkeys(f"flown by {one.account}" for one in judged[name] if one.account))
        for name in judged
    }
    return Flown(
        judged,
        failed,
        notes,
        picks,
        {name: found for name, found in shifted.items() if not isinstance(found, Failure)},
        {name: found for name, found in found_logged.items() if not isinstance(found, Failure)},
        value_on_log(setting, data, worlds.judges[0], {name: trained[name] for name in judged}, keys),
    )


def _with_model(
    judge_log: JudgeLog, estimators: tuple[str, ...], root: Any, *, report: Callable[[float, str], None]
) -> JudgeLog:
    return judge_log.with_model(estimators, root)


def _judge_logged(
    agents: list[Trained],
    judge_log: JudgeLog,
    world: World,
    name: str,
    estimators: tuple[str, ...],
    root: Any,
    *,
    report: Callable[[float, str], None],
) -> LoggedCheck | Failure:
    from evaluators.logged_check import off_policy_check, policy_in

    try:
        policy = policy_in(judge_log, world, [one.agent for one in agents], root, name=name)
    except Exception as error:  # noqa: BLE001  as in _train
        return Failure.of(error)
    return off_policy_check(judge_log, policy, estimators=estimators, root=root)


def _shifted(
    trained: list[Trained],
    course: Course,
    shifts: tuple[float | None, ...],
    name: str,
    *,
    report: Callable[[float, str], None],
) -> Any:
    from evaluators.judging import fly_shifted

    try:
        return [
            fly_shifted(one.agent, course, shifts, name=name, training_seed=number)
            for number, one in enumerate(trained)
        ]
    except Exception as error:  # noqa: BLE001  as in _train
        return Failure.of(error)


def value_on_log(
    setting: Setting,
    data: Data,
    world: World,
    ready: Mapping[str, list[Any]],
    keys: Mapping[str, Any],
) -> OffPolicyEvidence:
    """Every agent on the log's own rounds: no simulator in between."""
    from evaluators.logged_rounds import OffPolicyEvidence
    from evaluators.off_policy.names import parse

    scenario, root = setting.scenario, setting.root
    names = scenario.evaluate.off_policy
    if not names:
        return OffPolicyEvidence("off-policy: evaluate.off_policy names no estimator", {})
    need_model = any(parse(name, "bandit").info.needs_model for name in names)
    code = ("simulator", "agents", "evaluators/off_policy", "evaluators/intervals.py", "evaluators/logged_rounds.py")
    shape = (world.feature_names, world.history_length, world.slate_size, need_model)
    where = (data.digest, data.content, scenario.seed, shape)
    inputs = (data.log, data.split, root, *shape)
    task = Task("log rounds", "rounds, propensities, rewards", _round_log, inputs, where, code)
    (asked,) = setting.map("log rounds", [task])
    seed = stream_word(root, "off_policy", "estimate", bits=31)
    if isinstance(asked, str):
        return OffPolicyEvidence(asked, {}, seed)
    bounds = {name for name, all_ in ready.items() if any(getattr(one.agent, "privileged", False) for one in all_)}
    able = [name for name in ready if name not in bounds]
    tasks = [
        Task(
            "off-policy",
            name,
            _choose_on_log,
            (ready[name], asked, name, root),
            (where, keys[name]),
            code,
            failed_by_limit,
        )
        for name in able
    ]
    found = dict(zip(able, setting.map("off-policy", tasks), strict=True))
    policies = {name: f"off-policy: {one.why}" if isinstance(one, Failure) else one for name, one in found.items()}
    reads = "off-policy: a bound, not a policy: it reads a judge world's appeal"
    return OffPolicyEvidence(asked, {**policies, **dict.fromkeys(bounds, reads)}, seed)


def _round_log(
    log: InteractionLog,
    split: Split,
    root: Any,
    names: tuple[str, ...],
    history_length: int,
    slate_size: int,
    need_model: bool,  # noqa: FBT001  a task's inputs are given in order
    *,
    report: Callable[[float, str], None],
) -> LogRounds | str:
    from evaluators.logged_rounds import log_rounds_of

    try:
        return log_rounds_of(
            log, split, root, feature_names=names, history_length=history_length, slate_size=slate_size,
            need_model=need_model,
        )  # fmt: skip
    except LogError as error:
        return str(error)  # the log gives no rounds: a reason beside every agent, not the end of the run


def _choose_on_log(
    agents: list[Trained], asked: LogRounds, name: str, root: Any, *, report: Callable[[float, str], None]
) -> PolicyOnLog | Failure:
    from evaluators.logged_rounds import policy_on_log

    try:
        return policy_on_log(asked, [one.agent for one in agents], root, name=name)
    except Exception as error:  # noqa: BLE001  as in _train
        return Failure.of(error)
