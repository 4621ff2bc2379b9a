"""Score every judge world on rows that it has not seen: how far may it be believed?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from scenarios.stages.flying import Flown, correct_by_picks, fly_everywhere
from scenarios.stages.reporting import evidences_of, facts_of
from scenarios.stages.setting import Setting
from scenarios.stages.training import Failure, keys_of, train_agents
from scenarios.stages.worlds import OTHER_CLASS, Data, Worlds
from simulator.engine import Task
from simulator.log import HELD_OUT, JUDGE, Histories, InteractionLog, Split
from simulator.streams import stream, stream_word

if TYPE_CHECKING:
    from agents.loading import AgentSpec
    from evaluators.fidelity import Check, CheckedWorld, Fidelity
    from simulator.preference.graded import GradedModel
    from simulator.preference.model import PreferenceModel
    from simulator.world import World

CHECKING = ("simulator", "evaluators/fidelity", "evaluators/intervals.py", "evaluators/estimate.py")


def _predict_references(
    references: Mapping[str, PreferenceModel],
    log: InteractionLog,
    split: Split,
    *,
    report: Callable[[float, str], None],
) -> dict[str, tuple[NDArray[np.float64], ...]]:
    """What each reference predicts for the judge users' future rows and for the held-out users' later half."""
    parts = [split.rows(log, users, late=True) for users in scored_users(split)]
    return {name: tuple(model.predict(log, split, rows) for rows in parts) for name, model in references.items()}


def scored_users(split: Split) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Users whose future rows are scored, and those whose rows no model has seen."""
    return split.users(JUDGE, tuning=False), split.users(HELD_OUT)


def _check_world(
    number: int,
    model: PreferenceModel,
    world: World,
    references: Mapping[str, tuple[NDArray[np.float64], ...]],
    log: InteractionLog,
    split: Split,
    root: Any,
    *,
    report: Callable[[float, str], None],
) -> CheckedWorld:
    from evaluators.fidelity import (
        WorldEvidence,
        behaviour_checks,
        behaviour_rows,
        check_world,
        compare_predictions,
        flown_sessions,
        fly_logged_slates,
        replayed_sessions,
        score_random_rows,
        score_rows,
        world_against_model,
    )

    future, held_out = (
        score_rows(model, log, split, users, p_bias=p_bias)
        for users, p_bias in zip(scored_users(split), references["bias"], strict=True)
    )
    report(0.3, "rows scored")
    gains = {}
    for place, scored, p in zip(("future rows", "held-out users"), (future, held_out), references[OTHER_CLASS],
                                strict=True):  # fmt: skip
        gain = compare_predictions("over matrix factorisation", scored.p, p, scored.y, scored.user)
        gains[f"matrix factorisation, {place}"] = gain
    fitting, held = scored_users(split)
    rows = split.rows(log, fitting, late=True)
    further, graded = behaviour_rows(
        world.heads,
        log,
        rows,
        future.p,
        stream(root, "fidelity", number, "behaviours"),
        shift=world.fitted_shift,
    )
    evidence = WorldEvidence(
        number,
        future,
        held_out,
        (world_against_model(world, log, rows, future.p), *behaviour_checks(world, root)),
        further=further,
        graded=graded,
        unbiased=score_random_rows(model, log, split, np.union1d(fitting, held)),
        comparisons=gains,
    )
    if number == 1:  # of the other worlds nobody asks for sessions and slates
        draw = partial(stream, root, "fidelity", number)
        seed = stream_word(root, "fidelity", number, "flown", bits=63)
        evidence = replace(
            evidence,
            sessions=replayed_sessions(log, rows, future.p, draw("replay")),
            flown=flown_sessions(world, log, split, fitting, draw("slates"), seed=seed),
            clicks=fly_logged_slates(world, log, split, fitting, seed=seed),
        )
    fitted_users = np.union1d(model.fitted_users, model.tuning_users)
    return check_world(evidence, log=log, split=split, fitted_users=fitted_users, root=root)


def _check_graded(
    model: GradedModel, log: InteractionLog, split: Split, root: Any, *, report: Callable[[float, str], None]
) -> tuple[Check, ...]:
    """Checks of a behaviour of degree on the judge users' future rows and on users held out."""
    from evaluators.fidelity import DRAWS, FUTURE_ROWS, HELD_OUT_USERS, GradedRows, graded_checks

    checks: list[Check] = []
    for place, users in zip((FUTURE_ROWS, HELD_OUT_USERS), scored_users(split), strict=True):
        rows = split.rows(log, users, late=True)
        rows = rows[np.isfinite(log.behaviours[model.behaviour][rows])]
        survival = model.survival(log, split, rows)
        draw = partial(stream, root, "fidelity", "graded", model.behaviour, place)
        rng = draw("draws")
        draws = np.stack([model.draw(survival, rng.random(len(rows))) for _ in range(DRAWS)])
        values = GradedRows(draws, log.behaviours[model.behaviour][rows].astype(np.float64), log.user[rows])
        checks += graded_checks(model.behaviour, model.thresholds, survival, values, place, draw)
    return tuple(checks)


def _check_others(
    model: PreferenceModel,
    log: InteractionLog,
    split: Split,
    others: Mapping[str, InteractionLog],
    *,
    report: Callable[[float, str], None],
) -> tuple[Check, ...]:
    """Does a model of this log place what other policies earned? On all of their rows whose item it knows.

    The other policy's own rows and users are predicted, so a difference between the two policies' users is no error of
    the model where it knows the users; where it does not, they count as the mean user, and a failure may be theirs.
    """
    from evaluators.fidelity import not_made
    from evaluators.known import in_order, value_elsewhere

    own = split.rows(log, split.users(JUDGE, tuning=False), late=True)
    own_p = model.predict(log, split, own)
    checks: list[Check] = []
    for source, other in others.items():
        users, items = (
            _places(getattr(other.catalogue, ids), getattr(log.catalogue, ids)) for ids in ("user_ids", "item_ids")
        )
        rows = np.flatnonzero(items[other.item] >= 0)
        user, item = users[other.user[rows]], items[other.item[rows]]
        # A user whom this log does not know is folded in from nothing: the mean user.
        met, who = np.unique(user, return_inverse=True)
        known = met[met >= 0]
        histories = split.histories(log, known)
        features = log.catalogue.user_features[known]
        if len(known) < len(met):
            none = Histories(np.append(0, histories.start), histories.item, histories.primary)
            histories, features = none, np.concatenate([np.zeros((1, features.shape[1]), np.float32), features])
        p = expit(model.logits(model.user_states(histories, features), who, item))
        y = other.primary[rows].astype(np.float64)
        known_users = float((users[other.user[rows]] >= 0).mean())
        method = (
            f"O/E of {source} under judge world 1's model of {log.source}, user-cluster t; {known_users:.0%} of the "
            "rows are of users whom that log knows"
        )
        checks.append(value_elsewhere(source, p, y, other.user[rows], method))
        said = float(own_p.mean() - p.mean())
        pair = in_order(log.source, source, (log.primary[own].astype(np.float64), y), said)
        checks.append(not_made(f"order of logged policies: {source}", "lower > 0", pair))
    return tuple(checks)


def _places(ids: Sequence[str], known: Sequence[str]) -> NDArray[np.int64]:
    """Index of each id among the known ones, -1 where it is not."""
    place = {name: k for k, name in enumerate(known)}
    return np.array([place.get(name, -1) for name in ids], np.int64)


def check_fidelity(setting: Setting, data: Data, worlds: Worlds) -> Fidelity:
    """Score every judge world on rows that it has not seen."""
    from evaluators.fidelity import conclude

    log, split, scenario = data.log, data.split, setting.scenario
    bare = replace(log, catalogue=replace(log.catalogue, content=None))
    shared = (data.digest, scenario.seed, scenario.preference, len(worlds.judges))
    (references,) = setting.map(
        "fidelity",
        [Task("fidelity", "references", _predict_references, (worlds.references, bare, split), shared, CHECKING)],
    )
    tasks = [
        Task("fidelity", f"judge world {number}", _check_world,
             (number, model, world, references, bare, split, setting.root), (*shared, number, world.digest), CHECKING)
        for number, (model, world) in enumerate(zip(worlds.judge_models, worlds.judges, strict=True), 1)
    ]  # fmt: skip
    graded = [
        Task("fidelity", f"graded {model.behaviour}", _check_graded, (model, bare, split, setting.root),
             (*shared, model.behaviour), CHECKING)
        for model in worlds.graded
    ]  # fmt: skip
    others = [
        Task("fidelity", "other policies", _check_others, (worlds.judge_models[0], bare, split, data.others), shared,
             (*CHECKING, "evaluators/known.py"))
    ] * bool(data.others)  # fmt: skip
    checked = setting.map("fidelity", [*tasks, *graded, *others])
    further = [check for checks in checked[len(tasks) :] for check in checks]
    return conclude(checked[: len(tasks)], further)


UNTRAINED = (
    "it would have to be trained, and nothing is trained here: this answer is no confirmation of its value; "
    "`windtunnel run` checks it"
)
"""Why `fidelity` says nothing of a known policy."""


def check_known(
    setting: Setting, data: Data, worlds: Worlds, specs: Sequence[AgentSpec], believed: Fidelity
) -> Fidelity:
    """Fly the policies whose value is known (`evaluate.known`) and that need no training, and hold them against it.

    As in a run, and what is flown is what a run reads from the cache; all users fly, `evaluate.precision` or not. Of
    a policy that learns the check is not made, and says so.

    Args:
        setting: of the scenario.
        data: its log.
        worlds: fitted on it.
        specs: its agents.
        believed: the checks that need no flown policy.
    """
    from evaluators.findings import hold_against_flights
    from evaluators.logged_rounds import OffPolicyEvidence

    named = {known.policy for known in setting.scenario.evaluate.known}
    asked = [spec for spec in specs if spec.settings.name in named]
    if not asked:
        return believed
    untrained = {spec.settings.name: UNTRAINED for spec in asked if spec.learns or spec.settings.tune is not None}
    ready = [spec for spec in asked if spec.settings.name not in untrained]
    trained = train_agents(setting, data, worlds, ready)
    keys = keys_of(data, worlds, ready)
    judged, failed = fly_everywhere(setting, data, worlds, trained, keys)
    picks, shifted = correct_by_picks(setting, data, worlds, trained, keys, judged)
    flown = Flown(
        judged=judged,
        failed={**failed, **untrained},
        notes={},
        picks=picks,
        shifted={name: one for name, one in shifted.items() if not isinstance(one, Failure)},
        logged={},
        on_log=OffPolicyEvidence("off-policy: asked of a run's agents alone", {}),
    )
    facts, evidence = facts_of(data, asked, trained, flown), evidences_of(data, worlds, flown)
    with setting.progress.stage("known values"):
        evaluate = setting.scenario.evaluate
        return hold_against_flights(facts, evidence, evaluate=evaluate, fidelity=believed, root=setting.root).fidelity
