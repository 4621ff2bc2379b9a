"""Effect of a logged treatment, without a simulator: what `windtunnel effect` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluators.causal.refutations import Refutation, covariate_balance, refute
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
    read_table,
)
from evaluators.causal.targeting import qini
from evaluators.estimate import Estimate
from evaluators.fairness.groups import FEWEST_USERS, UNKNOWN
from evaluators.intervals import (
    find_door,
)
from simulator.errors import LogError, did_you_mean
from simulator.streams import stream, stream_word

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class GroupEffect:
    """Effect in one group of rows."""

    group: str
    effect: Estimate


@dataclass(frozen=True, slots=True)
class Effect:
    """Effect of one treatment against the control.

    Attributes:
        treatment: value of the treatment. outcome: column.
        ate: average effect, or withheld.
        by: column -> effect in each of its groups, simultaneous over them.
        qini: what the ranking by predicted effect is worth.
        overlap: propensities: known or estimated, range, rows at the floor, rows and users of each arm.
        refutations: all that were tried.
        sensitivity: to unmeasured confounding.
        drivers: features by their share in explaining who is moved.
    """

    treatment: str
    outcome: str
    ate: Estimate
    by: Mapping[str, tuple[GroupEffect, ...]]
    qini: Estimate
    overlap: Mapping[str, Any]
    refutations: tuple[Refutation, ...]
    sensitivity: Mapping[str, Any]
    drivers: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class EffectResult:
    """What `windtunnel effect` found.

    Attributes:
        n: rows. control: value of the treatment column that is the control.
        effects: one for each other value.
        notes: what was assumed.
    """

    n: int
    control: str
    effects: tuple[Effect, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def withheld(self) -> bool:
        """True where no effect is given: exit code 3."""
        return all(effect.ate.value is None for effect in self.effects)

    def to_json(self) -> dict[str, Any]:
        """The document of `effect --json`."""
        return {
            "n": self.n,
            "control": self.control,
            "effects": [
                {
                    "treatment": e.treatment,
                    "outcome": e.outcome,
                    "ate": e.ate.to_json(),
                    "by": {
                        column: [{"group": g.group, "effect": g.effect.to_json()} for g in groups]
                        for column, groups in e.by.items()
                    },
                    "qini": e.qini.to_json(),
                    "overlap": dict(e.overlap),
                    "refutations": [r.to_json() for r in e.refutations],
                    "sensitivity": dict(e.sensitivity),
                    "drivers": [{"feature": name, "importance": share} for name, share in e.drivers],
                }
                for e in self.effects
            ],
            "notes": list(self.notes),
        }

    def as_text(self) -> str:
        """A table for a terminal."""
        lines = [f"{self.n} rows, control: {self.control}", *(f"note: {note}" for note in self.notes)]
        for e in self.effects:
            lines += ["", f"{e.treatment} against {self.control}, effect on {e.outcome}: {_shown(e.ate)}"]
            for column, groups in e.by.items():
                lines += [f"  {column} = {g.group}: {_shown(g.effect)}" for g in groups]
            lines.append(f"  ranking by predicted effect (Qini - random): {_shown(e.qini)}")
            lines += [f"  {'passed' if r.passed else 'FAILED'}  {r.name}: {r.detail}" for r in e.refutations]
            if "e_value" in e.sensitivity:
                limit = e.sensitivity["e_value_limit"]
                lines.append(f"  E-value {e.sensitivity['e_value']:.2f} (of the limit nearer 1: {limit:.2f})")
            for bound, (low, high) in e.sensitivity.get("effect_if_odds_wrong_by", {}).items():
                lines.append(f"  if odds of the treatment are wrong by at most {bound}: [{low:.4g}, {high:.4g}]")
            if e.drivers:
                lines.append("  who is moved: " + ", ".join(f"{name} {share:.0%}" for name, share in e.drivers[:5]))
        return "\n".join(lines)


def _shown(estimate: Estimate) -> str:
    if estimate.value is None:
        return f"withheld: {estimate.withheld}"
    return f"{estimate.value:+.4g} [{estimate.low:.4g}, {estimate.high:.4g}]"


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
        seed: of folds and learners.
        level: of the intervals.

    Raises:
        LogError: the file or a column cannot be used.
    """
    frame = read_table(log_path)
    wanted = {"treatment": [treatment], "outcome": [outcome], "by": list(by), "ignore": list(ignore)}
    wanted["user"] = [] if user is None else [user]
    for name, columns in wanted.items():
        for column in columns:
            if column not in frame.columns:
                near = did_you_mean(column, [str(c) for c in frame.columns])
                raise LogError(f"{name}: '{column}' is not a column of {log_path.name}{near}")
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
    left_out = {treatment, outcome, *ignore, *([user] if user else []), *([p_column] if p_column else [])}
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
        trials[value] = (trial, {column: group[rows] for column, group in groups.items()})
    balances = {value: covariate_balance(trial, columns) for value, (trial, _) in trials.items()}
    # A covariate that knows one treatment was measured after all of them.
    leak = next((found for found in balances.values() if found is not None and not found.passed), None)
    effects = [
        _effect(trial, value, control, outcome, mine, columns, leak or balances[value], root, level)
        for value, (trial, mine) in trials.items()
    ]
    return EffectResult(len(frame), control, tuple(effects), tuple(notes))


def _effect(
    trial: Trial,
    value: str,
    control: str,
    outcome: str,
    groups: Mapping[str, NDArray[np.str_]],
    columns: Sequence[str],
    balance: Refutation | None,
    root: np.random.SeedSequence,
    level: float,
) -> Effect:
    clusters = trial.clusters
    known = trial.p is not None
    source = "known propensities" if known else "propensities by causalml (elastic net), cross-fitted by user"
    clustered = "user-cluster t" if trial.user is not None else "t, clusters: rows assumed independent"
    learner = "causalml X and T learners (" + ("boosted trees)" if len(trial) >= TREES_FROM else "linear)")
    method = f"logged effect of {value} against {control}: mean doubly robust score, {learner}, {source}, {clustered}"
    smallest = min(len(np.unique(clusters[trial.treated == arm])) for arm in (0, 1))
    overlap: dict[str, Any] = {
        "rows_treated": int(trial.treated.sum()),
        "rows_control": int(len(trial) - trial.treated.sum()),
        "propensity": "known" if known else "estimated",
    }
    if smallest < FEWEST_USERS:
        why = f"users: an arm has {smallest}, needs {FEWEST_USERS}; log more"
        nothing = Estimate.withhold(method, why, n=int(clusters.max()) + 1, level=level)
        return Effect(value, outcome, nothing, {}, nothing, overlap, (), {}, ())
    scores = doubly_robust(trial, root)
    overlap |= _overlap(trial, scores)
    refutations = refute(trial, scores, root, balance=balance)
    reasons = [*_reasons(trial, scores, clusters), *(f"{r.name}: {r.detail}" for r in refutations if not r.passed)]
    ate = mean_effect(scores.difference, clusters, level=level, method=method)
    ranking = qini(scores, trial.y, clusters, stream(root, "causal", "qini"), level=level)
    by = {
        column: _by_group(scores, clusters, group, column, method, reasons, level) for column, group in groups.items()
    }
    if reasons:
        details = {"shown_if_forced": ate.value, "reasons": reasons}
        ate = Estimate.withhold(method, "; ".join(reasons), n=ate.n, level=level, diagnostics=details)
        ranking = Estimate.withhold(ranking.method, reasons[0], n=ranking.n, level=level)
    seed = stream_word(root, "causal", "drivers", bits=31)
    return Effect(
        value, outcome, ate, by, ranking, overlap, refutations, sensitivity(trial, scores, level=level),
        _drivers(trial.x, scores.difference, columns, seed),
    )  # fmt: skip


def _overlap(trial: Trial, scores: Scores) -> dict[str, Any]:
    p = scores.p
    return {
        "lowest": float(p.min()),
        "highest": float(p.max()),
        "share_outside_5_to_95_percent": float(np.mean((p < 0.05) | (p > 0.95))),
        "share_at_floor": scores.floored,
        "treated_over_expected": float(trial.treated.sum() / p.sum()),
    }


def _reasons(trial: Trial, scores: Scores, clusters: Ints) -> list[str]:
    weight = np.where(trial.treated == 1, 1 / scores.p, 1 / (1 - scores.p))
    door = find_door((influence(scores.difference, clusters),), None, float(weight.max() / weight.mean()))
    reasons = list(door.reasons)
    if scores.floored > 0.01:
        reasons.append(
            f"overlap: {scores.floored:.1%} of the rows have a propensity at the floor of {FLOOR}, needs 1 %"
        )
    ratio = float(trial.treated.sum() / scores.p.sum())
    if not 0.8 <= ratio <= 1.25:
        reasons.append(f"propensity: treated over expected is {ratio:.2f}, needs [0.8, 1.25]; mend the propensity")
    return reasons


def _by_group(
    scores: Scores, clusters: Ints, group: NDArray[np.str_], column: str, method: str, reasons: list[str], level: float
) -> tuple[GroupEffect, ...]:
    names = [str(name) for name in np.unique(group) if name != UNKNOWN]
    sizes = {name: len(np.unique(clusters[group == name])) for name in names}
    large = max(1, sum(size >= FEWEST_USERS for size in sizes.values()))
    out = []
    for name in names:
        mine = group == name
        how = f"{method}; {column} = {name}, simultaneous over {large} groups"
        why = reasons[0] if reasons else None
        if sizes[name] < FEWEST_USERS:
            why = f"group size: {name} has {sizes[name]} users, needs {FEWEST_USERS}; log more"
        if why is not None:
            out.append(GroupEffect(name, Estimate.withhold(how, why, n=sizes[name], level=level)))
            continue
        at = 1 - (1 - level) / large
        estimate = mean_effect(scores.difference[mine], clusters[mine], level=at, method=how)
        out.append(GroupEffect(name, replace(estimate, level=level)))
    return tuple(out)


def _drivers(x: Floats, difference: Floats, columns: Sequence[str], seed: int) -> tuple[tuple[str, float], ...]:
    from simulator.causal_models import effect_drivers

    if not x.shape[1]:
        return ()
    share = effect_drivers(x, difference, trees=len(x) >= TREES_FROM, seed=seed)
    order = np.argsort(-share, kind="stable")
    return tuple((columns[j], float(share[j])) for j in order)
