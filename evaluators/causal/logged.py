"""Effect of a logged treatment, without a simulator: what `windtunnel effect` computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluators.causal.learners import LearnerResult, compare_learners, linear_drivers
from evaluators.causal.mediation import mediated_parts
from evaluators.causal.overlap import overlap_of, trimmed_effect
from evaluators.causal.refutations import Refutation, covariate_balance, refute
from evaluators.causal.results import Driver, Effect, EffectResult, GroupEffect
from evaluators.causal.scores import FLOOR, TREES_FROM, Scores, Trial, doubly_robust, influence, mean_effect
from evaluators.causal.sensitivity import sensitivity
from evaluators.causal.table import (
    MOST_LEVELS,
    as_numbers,
    as_text,
    control_of,
    covariates,
    groups_of,
    known_propensity,
    read_frame,
)
from evaluators.causal.targeting import qini
from evaluators.estimate import Estimate
from evaluators.fairness.groups import FEWEST_USERS, FEWEST_WITH_EVENT, UNKNOWN
from evaluators.intervals import find_door
from simulator.errors import LogError, did_you_mean
from simulator.streams import stream, stream_word

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def run_effect(
    log_path: Path,
    *,
    treatment: str,
    outcome: str,
    control: str | None = None,
    by: Sequence[str] = (),
    propensity: str | None = None,
    user: str | None = None,
    ignore: Sequence[str] = (),
    mediators: Sequence[str] = (),
    negative_control: str | None = None,
    learners: Sequence[str] | None = None,
    seed: int = 0,
    level: float = 0.95,
) -> EffectResult:
    """Causal effect of a logged treatment by causalml, with refutations; no simulator.

    Args:
        log_path: a `.csv`, `.csv.gz` or `.parquet`; every column not named here is a covariate from before.
        treatment: column that says which arm a row was in.
        outcome: numeric column measured after the treatment.
        control: value of the control arm; default 0, `control`, `none` or a value that begins with `no`.
        by: columns by whose groups the effect is given.
        propensity: probability of each treatment arm as a number (3 arms at 0.333: 1/3 each), or the column that
            holds the probability of the (one) treatment; None: estimated.
        user: column of the user: the cluster; None: rows are assumed independent.
        ignore: columns that are no covariates (measured after the treatment).
        mediators: columns measured after the treatment by way of which it may act; no covariates.
        negative_control: numeric column from before the treatment that it cannot have moved; no covariate.
        learners: causalml's learners to set side by side; None: all.
        seed: of folds and learners.
        level: of the intervals.

    Raises:
        LogError: the file or a column cannot be used.
    """
    frame = read_frame(log_path)
    wanted = {"treatment": [treatment], "outcome": [outcome], "by": list(by), "ignore": list(ignore)}
    wanted |= {"mediator": list(mediators), "user": [] if user is None else [user]}
    wanted["negative-control"] = [] if negative_control is None else [negative_control]
    for name, columns in wanted.items():
        for column in columns:
            if column not in frame.columns:
                known = [str(c) for c in frame.columns]
                near = did_you_mean(column, known) or f"; it has {', '.join(known)}"
                raise LogError(f"{name}: '{column}' is not a column of '{log_path.name}'{near}")
    if outcome == treatment:
        raise LogError(f"outcome: '{outcome}' is the treatment too; name the column that was measured after it")
    for name, must in _OTHER_COLUMNS.items():
        for column in wanted[name]:
            if column in (treatment, outcome):
                raise LogError(f"{name}: '{column}' is the {'treatment' if column == treatment else 'outcome'}; {must}")
    if negative_control is not None and negative_control in mediators:
        raise LogError(f"negative-control: '{negative_control}' is a mediator too; it was measured before or after")
    arms = as_text(frame[treatment], "treatment", treatment)
    values = sorted(set(arms))
    if len(values) < 2:
        raise LogError(f"treatment: '{treatment}' has one value, '{values[0]}'; an effect needs two arms")
    if len(values) > MOST_LEVELS:
        raise LogError(f"treatment: '{treatment}' has {len(values)} values; arms are at most {MOST_LEVELS}")
    control = control_of(values, control, treatment)
    y = as_numbers(frame[outcome], "outcome", outcome)
    p, p_column = known_propensity(frame, propensity, [v for v in values if v != control])
    users = None if user is None else np.unique(as_text(frame[user], "user", user), return_inverse=True)[1]
    left_out = {treatment, outcome, *ignore, *mediators}
    left_out |= {column for column in (user, p_column, negative_control) if column is not None}
    named = _known_learners(learners)
    before = (
        None if negative_control is None else as_numbers(frame[negative_control], "negative-control", negative_control)
    )
    way = covariates(frame[list(mediators)])[0] if mediators else None
    x, columns = covariates(frame[[c for c in frame.columns if c not in left_out]])
    groups = {column: groups_of(frame[column]) for column in by}
    notes = [] if user is not None else ["clusters: rows assumed independent"]
    root = np.random.SeedSequence(seed)
    trials = {}
    for value in values:
        if value == control:
            continue
        rows = (arms == control) | (arms == value)
        trial = Trial(
            x[rows],
            (arms[rows] == value).astype(np.int64),
            y[rows],
            None if p is None else p[rows],
            None if users is None else users[rows],
        )
        trials[value] = _Arm(
            value,
            trial,
            {column: group[rows] for column, group in groups.items()},
            None if before is None else before[rows],
            None if way is None else way[rows],
        )
    balances = {value: covariate_balance(arm.trial, columns) for value, arm in trials.items()}
    # A covariate that knows one treatment was measured after all of them.
    leak = next((found for found in balances.values() if found is not None and not found.passed), None)
    effects = [
        _effect(arm, control, outcome, columns, leak or balances[value], named, root, level)
        for value, arm in trials.items()
    ]
    return EffectResult(len(frame), control, tuple(effects), tuple(notes))


_OTHER_COLUMNS = {
    "by": "groups are of columns measured before",
    "mediator": "name a column between the two, by way of which the treatment may act",
    "negative-control": "name an outcome from before the treatment, which it cannot have moved",
    "user": "name the column that says whose row it is",
}
"""What a column must be that is neither treatment nor outcome."""


def _known_learners(learners: Sequence[str] | None) -> Sequence[str]:
    from simulator.causal_models import LEARNERS

    for name in learners or ():
        if name not in LEARNERS:
            raise LogError(f"learner: '{name}' is not a learner{did_you_mean(name, LEARNERS)}; {', '.join(LEARNERS)}")
    return LEARNERS if learners is None else learners


@dataclass(frozen=True, slots=True)
class _Arm:
    """The rows of one treatment and of its control.

    Attributes:
        value: the treatment.
        trial: the rows.
        groups: column -> [n] group of each row.
        before: [n] negative control outcome, or None.
        way: [n, m] mediators, or None.
    """

    value: str
    trial: Trial
    groups: Mapping[str, NDArray[np.str_]]
    before: Floats | None
    way: Floats | None


def _effect(
    arm: _Arm,
    control: str,
    outcome: str,
    columns: Sequence[str],
    balance: Refutation | None,
    learners: Sequence[str],
    root: np.random.SeedSequence,
    level: float,
) -> Effect:
    trial, value = arm.trial, arm.value
    clusters = trial.clusters
    known = trial.p is not None
    source = "known propensities" if known else "propensities by causalml (elastic net), cross-fitted by user"
    clustered = "user-cluster t" if trial.user is not None else "t, clusters: rows assumed independent"
    learner = "causalml X and T learners (" + ("boosted trees)" if len(trial) >= TREES_FROM else "linear)")
    method = f"logged effect of {value} against {control}: mean doubly robust score, {learner}, {source}, {clustered}"
    smallest = min(len(np.unique(clusters[trial.treated == side])) for side in (0, 1))
    overlap: dict[str, Any] = {
        "rows_treated": int(trial.treated.sum()),
        "rows_control": int(len(trial) - trial.treated.sum()),
        "propensity": "known" if known else "estimated",
    }
    why = None
    if smallest < FEWEST_USERS:
        why = f"users: an arm has {smallest}, needs {FEWEST_USERS}; log more"
    elif all(np.ptp(trial.y[trial.treated == side]) == 0 for side in (0, 1)):
        each = " and ".join(f"{trial.y[trial.treated == side][0]:g}" for side in (1, 0))
        why = f"outcome: {each} in all rows of {value} and {control}, no error to measure; give one that varies"
    if why is not None:
        nothing = Estimate.withhold(method, why, n=int(clusters.max()) + 1, level=level)
        return Effect(value, outcome, nothing, {}, nothing, overlap, (), {}, ())
    scores = doubly_robust(trial, root)
    overlap |= overlap_of(trial, scores)
    refutations = refute(trial, scores, root, balance=balance, negative_control=arm.before)
    refuted = [f"{r.name}: {r.detail}" for r in refutations if not r.passed]
    reasons = [*_reasons(trial, scores), *refuted]
    ate = mean_effect(scores.difference, clusters, level=level, method=method)
    ranking = qini(scores, trial.y, clusters, stream(root, "causal", "qini"), level=level)
    by = {
        column: _by_group(trial, scores, group, column, method, reasons, level) for column, group in arm.groups.items()
    }
    trimmed = None if trial.p is not None else trimmed_effect(scores, clusters, method, level)
    compared = compare_learners(trial, scores, root, learners, level=level)
    mediation = None if arm.way is None else mediated_parts(trial, arm.way, root, level=level)
    if reasons:
        details = {"shown_if_forced": ate.value, "reasons": reasons}
        ate = Estimate.withhold(method, "; ".join(reasons), n=ate.n, level=level, diagnostics=details)
        ranking = Estimate.withhold(ranking.method, reasons[0], n=ranking.n, level=level)
        compared = tuple(replace(one, **_withheld(one, reasons[0])) for one in compared)
        mediation = None if mediation is None else {k: _because(reasons[0], part) for k, part in mediation.items()}
        # Trimming mends overlap, nothing else: after a refutation it is no answer either.
        if trimmed is not None and refuted:
            trimmed = _because(refuted[0], trimmed)
    return Effect(
        value, outcome, ate, by, ranking, overlap, refutations,
        sensitivity(trial, scores, stream(root, "causal", "pairs"), level=level),
        _drivers(trial, scores, clusters, columns, reasons, root, level), trimmed, compared, mediation,
    )  # fmt: skip


def _because(why: str, estimate: Estimate) -> Estimate:
    return Estimate.withhold(estimate.method, why, n=estimate.n, level=estimate.level)


def _withheld(one: LearnerResult, why: str) -> dict[str, Any]:
    """Nothing of a learner stands on scores that were refuted."""
    return {"mean": _because(why, one.mean), "calibration": _because(why, one.calibration),
            "qini": _because(why, one.qini), "gates": ()}  # fmt: skip


def _reasons(trial: Trial, scores: Scores) -> list[str]:
    reasons = _too_little(trial, scores, np.ones(len(trial), dtype=bool))
    if scores.floored > 0.01:
        reasons.append(
            f"overlap: {scores.floored:.1%} of the rows have a propensity at the floor of {FLOOR}, needs 1 %"
        )
    ratio = float(trial.treated.sum() / scores.p.sum())
    if not 0.8 <= ratio <= 1.25:
        reasons.append(f"propensity: treated over expected is {ratio:.2f}, needs [0.8, 1.25]; mend the propensity")
    return reasons


def _too_little(trial: Trial, scores: Scores, rows: NDArray[np.bool_]) -> list[str]:
    """Why the mean effect over some rows has no valid interval: what its error rests on; nothing where it has one."""
    p, treated, y = scores.p[rows], trial.treated[rows], trial.y[rows]
    weight = np.where(treated == 1, 1 / p, 1 / (1 - p))
    clusters = np.unique(trial.clusters[rows], return_inverse=True)[1]
    reasons = []
    if np.isin(y, (0.0, 1.0)).all():  # few yes or few no may hide in one arm, or cancel in both
        fewest, said = min((len(np.unique(clusters[y == answer])), answer) for answer in (0.0, 1.0))
        if fewest < FEWEST_WITH_EVENT:
            reasons.append(f"events: {fewest} users with an outcome of {said:g}, needs {FEWEST_WITH_EVENT}; log more")
    scored = influence(scores.difference[rows], clusters)
    return [*reasons, *find_door((scored,), None, float(weight.max() / weight.mean())).reasons]


def _by_group(
    trial: Trial, scores: Scores, group: NDArray[np.str_], column: str, method: str, reasons: list[str], level: float
) -> tuple[GroupEffect, ...]:
    """Effects of groups, each of which has to pass what all rows together have to: both arms, and enough users."""
    clusters = trial.clusters
    names = [str(name) for name in np.unique(group) if name != UNKNOWN]
    sizes = {name: len(np.unique(clusters[group == name])) for name in names}
    arms = {
        name: min(len(np.unique(clusters[(group == name) & (trial.treated == side)])) for side in (0, 1))
        for name in names
    }
    large = max(1, sum(size >= FEWEST_USERS for size in arms.values()))
    out = []
    for name in names:
        mine = group == name
        how = f"{method}; {column} = {name}, simultaneous over {large} groups"
        why = reasons[0] if reasons else None
        if sizes[name] < FEWEST_USERS:
            why = f"group size: {name} has {sizes[name]} users, needs {FEWEST_USERS}; log more"
        elif arms[name] < FEWEST_USERS:
            why = f"group size: an arm of {name} has {arms[name]} users, needs {FEWEST_USERS}; log more"
        elif why is None:
            why = next(iter(_too_little(trial, scores, mine)), None)
        if why is not None:
            out.append(GroupEffect(name, Estimate.withhold(how, why, n=sizes[name], level=level)))
            continue
        at = 1 - (1 - level) / large
        estimate = mean_effect(scores.difference[mine], clusters[mine], level=at, method=how)
        out.append(GroupEffect(name, replace(estimate, level=level)))
    return tuple(out)


def _drivers(
    trial: Trial,
    scores: Scores,
    clusters: Ints,
    columns: Sequence[str],
    reasons: Sequence[str],
    root: np.random.SeedSequence,
    level: float,
) -> tuple[Driver, ...]:
    from simulator.causal_models import effect_drivers

    x = trial.x
    if not x.shape[1]:
        return ()
    seed = stream_word(root, "causal", "drivers", bits=31)
    share = effect_drivers(x, scores.difference, trees=len(x) >= TREES_FROM, seed=seed)
    slope = linear_drivers(x, scores.difference, clusters, columns, level)
    if reasons:
        slope = {name: _because(reasons[0], one) for name, one in slope.items()}
    order = np.argsort(-share, kind="stable")
    return tuple(Driver(columns[j], float(share[j]), slope.get(columns[j])) for j in order)
