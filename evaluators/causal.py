"""Effects of a treatment on an outcome, by group: logged (`windtunnel effect`), or agent against baseline, simulated.

Values are means of cross-fitted doubly robust (AIPW) scores whose outcome models are causalml's learners; intervals
are user-cluster t. Not the mean of predicted effects: that one's error is six times its naive standard error
(EVALUATION, section 7). Refutations run always, and a failed one withholds the number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evaluators.estimate import Estimate
from evaluators.fairness import FEWEST_USERS, UNKNOWN
from evaluators.fidelity import ratio_by_user
from evaluators.intervals import cluster_index, find_door, standard_error, t_quantile, user_sums
from evaluators.off_policy.diagnostics import sensitivity_range
from evaluators.off_policy.reward_model import user_folds
from simulator.errors import InputError, LogError, did_you_mean
from simulator.streams import stream, stream_word

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FOLDS = 3
PLACEBOS = 200
TREES_FROM = 5_000
"""Rows from which boosted trees replace penalised linear models as causalml's base learners."""
PROPENSITY_ROWS = 20_000
"""Rows that the elastic-net propensity model is fitted on at most: its solver takes minutes for more."""
FLOOR = 0.01
"""Estimated propensities are kept this far from 0 and 1; where that binds for over 1 % of the rows, it withholds."""
FEWEST_QINI_OUTCOMES = 200
LARGEST_IMBALANCE = 4.5
LAMBDAS = (1.0, 1.25, 1.5, 2.0)
MOST_LEVELS = 50
MOST_GROUPS = 12


# ----------------------------------------------------------------------------------------------- doubly robust scores


@dataclass(frozen=True, slots=True)
class Trial:
    """n rows of one treatment against its control.

    Attributes:
        x: [n, d] covariates measured before the treatment.
        treated: [n] 1 treatment, 0 control.
        y: [n] outcome, measured after it.
        p: [n] known probability of the treatment, or None where it has to be estimated.
        user: [n] the cluster, or None where rows are assumed independent.
    """

    x: Floats
    treated: Ints
    y: Floats
    p: Floats | None = None
    user: NDArray[Any] | None = None

    def __len__(self) -> int:
        return len(self.y)

    @property
    def clusters(self) -> Ints:
        """[n] number of each row's cluster."""
        index, _ = cluster_index(self.user, len(self))
        return np.arange(len(self)) if index is None else index

    def take(self, rows: NDArray[np.bool_]) -> Trial:
        """Some of the rows."""
        return Trial(
            self.x[rows],
            self.treated[rows],
            self.y[rows],
            None if self.p is None else self.p[rows],
            None if self.user is None else self.user[rows],
        )


@dataclass(frozen=True, slots=True)
class Scores:
    """Cross-fitted doubly robust scores of n rows.

    Attributes:
        treated: [n] score of the outcome under treatment: its mean is E[Y(1)].
        control: [n] score of the outcome under control: its mean is E[Y(0)].
        effect: [n] conditional effect predicted by a model that saw none of the row's user.
        expected: [n] outcome expected whatever the treatment.
        p: [n] probability of the treatment that was used.
        floored: share of rows whose estimated propensity was at the floor.
    """

    treated: Floats
    control: Floats
    effect: Floats
    expected: Floats
    p: Floats
    floored: float

    @property
    def difference(self) -> Floats:
        """[n] score of the effect."""
        return self.treated - self.control


def doubly_robust(trial: Trial, root: np.random.SeedSequence, *, learner: str = "x", folds: int = FOLDS) -> Scores:
    """AIPW scores, cross-fitted by user with causalml's learners; propensities too where they are not known.

    Args:
        trial: the rows.
        root: root of the streams that deal users into folds and seed the learners.
        learner: s, t, x or dr, for the conditional effect.
        folds: users are dealt into so many.
    """
    from simulator.causal_models import elastic_net_propensity, fit_effect_learner

    index, n_users = cluster_index(trial.user, len(trial))
    fold = user_folds(index, n_users, len(trial), folds, stream(root, "causal", "folds"))
    control, treated, effect, p = (np.empty(len(trial)) for _ in range(4))
    trees = len(trial) >= TREES_FROM
    for k in range(folds):
        fit, out = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        seed = stream_word(root, "causal", "learner", k, bits=31)
        if len(np.unique(trial.treated[fit])) < 2:
            raise LogError("treatment: a fold of the users holds one arm only; log more users of both arms")
        if trial.p is None:
            some = fit
            if len(fit) > PROPENSITY_ROWS:
                some = np.sort(stream(root, "causal", "propensity", k).choice(fit, PROPENSITY_ROWS, replace=False))
            model = elastic_net_propensity(trial.x[some], trial.treated[some], seed=seed)
            p_fit, p[out] = model(trial.x[fit]), model(trial.x[out])
        else:
            p_fit, p[out] = trial.p[fit], trial.p[out]
        predict = fit_effect_learner(
            trial.x[fit], trial.treated[fit], trial.y[fit], p_fit, learner=learner, trees=trees, seed=seed
        )
        models = predict(trial.x[out], p[out])
        control[out], treated[out], effect[out] = models.control, models.treated, models.effect
    floored = 0.0
    if trial.p is None:
        floored = float(np.mean((p < FLOOR) | (p > 1 - FLOOR)))
        p = np.clip(p, FLOOR, 1 - FLOOR)
    return Scores(
        treated + trial.treated * (trial.y - treated) / p,
        control + (1 - trial.treated) * (trial.y - control) / (1 - p),
        effect,
        p * treated + (1 - p) * control,
        p,
        floored,
    )


def mean_effect(difference: Floats, user: Ints, *, level: float = 0.95, method: str) -> Estimate:
    """Mean of doubly robust scores with the user-cluster t interval."""
    return ratio_by_user(difference, np.ones(len(difference)), user, level=level, method=method)


# -------------------------------------------------------------------------------------------------------- refutations


@dataclass(frozen=True, slots=True)
class Refutation:
    """One attempt to refute an effect, and how it went."""

    name: str
    passed: bool
    detail: str

    def to_json(self) -> dict[str, Any]:
        """JSON-ready dictionary."""
        return {"name": self.name, "passed": self.passed, "detail": self.detail}


def refute(
    trial: Trial,
    scores: Scores,
    root: np.random.SeedSequence,
    *,
    balance: Refutation | None = None,
    negative_control: Floats | None = None,
) -> tuple[Refutation, ...]:
    """Try to refute an effect in every way there is. Where it lies among its placebos is printed, never a filter.

    Args:
        trial: the rows.
        scores: their doubly robust scores.
        root: root of the streams.
        balance: what `covariate_balance` found, where propensities are known.
        negative_control: [n] an outcome from before the treatment, which it cannot have moved; None where unnamed.
    """
    clusters = trial.clusters
    effect = mean_effect(scores.difference, clusters, method="effect")
    if effect.value is None or effect.high is None:
        return ()
    n_users = int(clusters.max()) + 1
    se = standard_error(_scores(scores.difference, clusters))
    out = [_placebo(trial, scores, effect.value, se, stream(root, "causal", "placebo"))]

    rng = stream(root, "causal", "common cause")
    noise = rng.standard_normal(n_users)[clusters]
    moved = _value(replace(trial, x=np.column_stack([trial.x, noise])), root)
    change = abs(moved - effect.value)
    out.append(
        Refutation("random common cause", change < se, f"moves the effect by {change / se:.2f} se, needs under 1")
    )

    part = stream(root, "causal", "subset").permutation(n_users) < round(0.8 * n_users)
    change = abs(_value(trial.take(part[clusters]), root) - effect.value)
    out.append(Refutation("80 % subset", change < 2 * se, f"moves the effect by {change / se:.2f} se, needs under 2"))

    shuffled = replace(trial, y=stream(root, "causal", "dummy").permutation(trial.y))
    dummy = _with_error(shuffled, root)
    out.append(
        Refutation("dummy outcome", abs(dummy) < 3.3, f"permuted outcomes give z = {dummy:.2f}, needs |z| < 3.3")
    )

    if balance is not None:
        out.append(balance)
    if negative_control is not None:
        z = _with_error(replace(trial, y=negative_control), root)
        out.append(
            Refutation("negative control", abs(z) < 3.3, f"an earlier outcome gives z = {z:.2f}, needs |z| < 3.3")
        )
    return tuple(out)


def _scores(difference: Floats, clusters: Ints) -> Floats:
    """[G] influence of each user on the mean of per-row scores."""
    n_users = int(clusters.max()) + 1
    centred = user_sums(difference - difference.mean(), clusters, n_users)
    return centred / len(difference)


def _value(trial: Trial, root: np.random.SeedSequence) -> float:
    return float(doubly_robust(trial, root, learner="t").difference.mean())


def _with_error(trial: Trial, root: np.random.SeedSequence) -> float:
    difference = doubly_robust(trial, root, learner="t").difference
    return float(difference.mean()) / max(standard_error(_scores(difference, trial.clusters)), 1e-300)


def _placebo(trial: Trial, scores: Scores, effect: float, se: float, rng: np.random.Generator) -> Refutation:
    """Treatment permuted within tenths of the propensity, 200 times, with the outcome's expectation held."""
    clusters = trial.clusters
    n_users = int(clusters.max()) + 1
    count = user_sums(np.ones(len(trial)), clusters, n_users)
    of_user = user_sums(trial.treated.astype(np.float64), clusters, n_users) / count
    by_user = bool(np.isin(of_user, (0.0, 1.0)).all())
    # A treatment that is the user's (one arm each) is permuted between users, or the rows of one would part.
    treated = of_user if by_user else trial.treated.astype(np.float64)
    p = user_sums(scores.p, clusters, n_users) / count if by_user else scores.p
    tenth = np.searchsorted(np.quantile(p, np.arange(1, 10) / 10), p, side="left")
    groups = [np.flatnonzero(tenth == k) for k in np.unique(tenth)]
    residual = trial.y - scores.expected
    up, down = residual / scores.p, residual / (1 - scores.p)
    if by_user:
        up, down = user_sums(up, clusters, n_users), user_sums(down, clusters, n_users)
    means = np.empty(PLACEBOS)
    for b in range(PLACEBOS):
        t = np.empty(len(treated))
        for group in groups:
            t[group] = rng.permutation(treated[group])
        means[b] = (t @ up - (1 - t) @ down) / len(trial)
    low, high = (0.8, 1.25) if len(trial) >= 5_000 else (0.6, 1.6)
    ratio = float(means.std(ddof=1)) / se
    beyond = (1 + int((np.abs(means) >= abs(effect)).sum())) / (1 + PLACEBOS)
    passed = abs(float(means.mean())) < se and low <= ratio <= high
    detail = (
        f"mean {means.mean() / se:.2f} se, needs within 1; sd {ratio:.2f} se, needs [{low}, {high}]; "
        f"p value among {PLACEBOS} placebos {beyond:.3f} (printed, no filter)"
    )
    return Refutation("placebo treatment", passed, detail)


def covariate_balance(trial: Trial, columns: Sequence[str] = ()) -> Refutation | None:
    """With known propensities no covariate may know the treatment: else it was measured after it, or p is wrong."""
    if trial.p is None:
        return None
    clusters = trial.clusters
    n_users = int(clusters.max()) + 1
    surprise = trial.treated - trial.p
    worst, name = 0.0, "the treatment's share"
    table = np.column_stack([np.ones(len(trial)), trial.x - trial.x.mean(axis=0)])
    for j in range(table.shape[1]):
        sums = user_sums(table[:, j] * surprise, clusters, n_users)
        error = math.sqrt(float(sums @ sums))
        z = float(sums.sum()) / error if error > 0 else 0.0
        if abs(z) > abs(worst):
            worst = z
            name = name if j == 0 else (columns[j - 1] if j <= len(columns) else f"covariate {j}")
    passed = abs(worst) <= LARGEST_IMBALANCE
    mend = "" if passed else "; it was measured after the treatment (--ignore it), or the propensity is wrong"
    return Refutation(
        "covariate balance", passed, f"largest |z| {abs(worst):.1f} ({name}), needs {LARGEST_IMBALANCE}{mend}"
    )


# ------------------------------------------------------------------------------------------- sensitivity, ranking


def e_value(ratio: float) -> float:
    """How strong an unmeasured confounder must be, on the risk-ratio scale with both, to explain a risk ratio away."""
    ratio = 1 / ratio if ratio < 1 else ratio
    return ratio + math.sqrt(ratio * (ratio - 1))


def sensitivity(trial: Trial, scores: Scores, *, level: float = 0.95) -> dict[str, Any]:
    """E-values of a yes/no outcome; with estimated propensities the effect's range for odds wrong by Lambda."""
    out: dict[str, Any] = {}
    binary = bool(np.isin(trial.y, (0.0, 1.0)).all())
    one, zero = float(scores.treated.mean()), float(scores.control.mean())
    if binary and one > 0 and zero > 0:
        clusters = trial.clusters
        influence = _scores(scores.treated, clusters) / one - _scores(scores.control, clusters) / zero
        half = t_quantile(level, len(influence) - 1) * standard_error(influence)
        ratio = one / zero
        low, high = ratio * math.exp(-half), ratio * math.exp(half)
        nearer = low if ratio >= 1 else high
        crosses = low <= 1 <= high
        out |= {
            "risk_ratio": ratio,
            "risk_ratio_low": low,
            "risk_ratio_high": high,
            "e_value": e_value(ratio),
            "e_value_limit": 1.0 if crosses else e_value(nearer),
        }
    if trial.p is None:
        out["effect_if_odds_wrong_by"] = confounding_range(trial, scores.p)
    return out


def confounding_range(trial: Trial, p: Floats, lambdas: tuple[float, ...] = LAMBDAS) -> dict[str, list[float]]:
    """Range of the effect if the odds of each propensity are wrong by at most Lambda (Tan 2006; Zhao et al. 2019)."""
    arms = []
    for arm, chance in ((1, p), (0, 1 - p)):
        mine = trial.treated == arm
        arms.append(sensitivity_range(np.ones(int(mine.sum())), chance[mine], trial.y[mine], lambdas))
    return {key: [arms[0][key][0] - arms[1][key][1], arms[0][key][1] - arms[1][key][0]] for key in arms[0]}


def qini(
    scores: Scores, y: Floats, user: Ints, rng: np.random.Generator, *, resamples: int = 500, level: float = 0.95
) -> Estimate:
    """Qini area of the predicted effects minus that of a random order, per user of the log; user bootstrap.

    Area between the cumulative doubly robust gain, in the order of effects predicted by models that did not see the
    user, and the straight line. 0: the ranking knows nothing.
    """
    method = f"Qini area - random order, doubly robust gain, cross-fitted by user, user bootstrap of {resamples}"
    outcomes = int(np.count_nonzero(y))
    index, n_users = cluster_index(user, len(y))
    if outcomes < FEWEST_QINI_OUTCOMES:
        why = f"qini: {outcomes} outcomes, needs {FEWEST_QINI_OUTCOMES}; log more"
        return Estimate.withhold(method, why, n=n_users, level=level)
    order = np.argsort(-scores.effect, kind="stable")
    gain = scores.difference[order]
    of_user = np.arange(len(y))[order] if index is None else index[order]
    value = qini_area(gain, np.ones(len(gain)))
    drawn = np.empty(resamples)
    for b in range(resamples):
        counts = np.bincount(rng.integers(0, n_users, n_users), minlength=n_users)
        drawn[b] = qini_area(gain, counts[of_user].astype(np.float64))
    low, high = np.quantile(drawn, [0.5 - level / 2, 0.5 + level / 2])
    return Estimate(value, min(float(low), value), max(float(high), value), level, n_users, method)


def qini_area(gain: Floats, weight: Floats) -> float:
    """Area between the cumulative gain of rows in their order and the line to its end, both per row."""
    total = weight.sum()
    before = (np.cumsum(weight) - weight / 2) / total  # share of the rows treated before the middle of this one
    mean = float(weight @ gain) / total
    return float((weight * (gain - mean)) @ (1 - before)) / total


# ------------------------------------------------------------------------------------- served by the agent, simulated


@dataclass(frozen=True, slots=True)
class ServedEffect:
    """Effect of being served by an agent instead of the baseline, estimated as if from an experiment, and exactly.

    Attributes:
        estimated: "all" and `attribute=group` -> doubly robust estimate from users dealt to the two arms.
        exact: the same keys -> mean paired difference of the two flights.
        refutations: of the effect on all users.
    """

    estimated: Mapping[str, Estimate]
    exact: Mapping[str, Estimate]
    refutations: tuple[Refutation, ...]


def served_effect(
    agent: Floats,
    baseline: Floats,
    x: Floats,
    user: Ints,
    attributes: Mapping[str, NDArray[np.str_]],
    root: np.random.SeedSequence,
    *,
    metric: str,
    level: float = 0.95,
) -> ServedEffect:
    """Deal simulated users to agent or baseline by a fair coin and estimate the effect as an experiment would.

    The simulator knows both outcomes of each user; the estimate sees one. Beside the exact effect it shows what such
    an analysis is worth, by group.

    Args:
        agent: [U] metric of each user under the agent.
        baseline: [U] the same user and noise under the baseline.
        x: [U, d] what is known of the users before: features, history length, share of likes, ...
        user: [U] the cluster.
        attributes: name -> [U] group of each user; "" is unknown.
        root: root of the streams.
        metric: name of the metric.
        level: simultaneous over the groups of an attribute.
    """
    users, index = np.unique(user, return_inverse=True)
    coin = stream(root, "causal", "arms").integers(0, 2, len(users))[index]
    trial = Trial(x, coin, np.where(coin == 1, agent, baseline), np.full(len(user), 0.5), user)
    what = f"effect of agent instead of baseline on {metric}, simulated"
    if len(users) < FEWEST_USERS:
        why = f"effect: {len(users)} users, needs {FEWEST_USERS}; fly more users"
        nothing = Estimate.withhold(what, why, n=len(users), level=level)
        return ServedEffect({"all": nothing}, {"all": nothing}, ())
    scores = doubly_robust(trial, root, learner="t")
    refutations = refute(trial, scores, root, balance=covariate_balance(trial))
    failed = [f"{r.name}: {r.detail}" for r in refutations if not r.passed]
    estimated, exact = {}, {}
    how = "users dealt to arms by a fair coin, cross-fitted doubly robust scores, user-cluster t"
    cells: list[tuple[str, NDArray[np.bool_], float, str]] = [("all", np.ones(len(user), bool), level, "")]
    for attribute, group in attributes.items():
        names = [str(name) for name in np.unique(group) if name != UNKNOWN]
        large = max(1, sum(len(np.unique(user[group == name])) >= FEWEST_USERS for name in names))
        for name in names:
            note = f", {attribute} = {name}, simultaneous over {large} groups"
            cells.append((f"{attribute}={name}", group == name, 1 - (1 - level) / large, note))
    for key, mine, at, note in cells:
        n = len(np.unique(user[mine]))
        if n < FEWEST_USERS:
            small = f"group size: {key} has {n} users, needs {FEWEST_USERS}; fly more users"
            estimated[key] = exact[key] = Estimate.withhold(f"{what}{note}", small, n=n, level=level)
            continue
        one = mean_effect(scores.difference[mine], user[mine], level=at, method=f"{what}{note}; {how}")
        estimated[key] = replace(one, level=level) if not failed else Estimate.withhold(one.method, failed[0], n=n)
        paired = mean_effect(
            (agent - baseline)[mine], user[mine], level=at, method=f"{what}{note}; both flights, paired"
        )
        exact[key] = replace(paired, level=level)
    return ServedEffect(estimated, exact, refutations)


# ---------------------------------------------------------------------------------------------------- logged effects


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
    frame = _read(log_path)
    wanted = {"treatment": [treatment], "outcome": [outcome], "by": list(by), "ignore": list(ignore)}
    wanted["user"] = [] if user is None else [user]
    for name, columns in wanted.items():
        for column in columns:
            if column not in frame.columns:
                near = did_you_mean(column, [str(c) for c in frame.columns])
                raise LogError(f"{name}: '{column}' is not a column of {log_path.name}{near}")
    arms = _as_text(frame[treatment], "treatment", treatment)
    values = sorted(set(arms))
    if len(values) < 2:
        raise LogError(f"treatment: '{treatment}' has one value, '{values[0]}'; an effect needs two arms")
    if len(values) > MOST_LEVELS:
        raise LogError(f"treatment: '{treatment}' has {len(values)} values; arms are at most {MOST_LEVELS}")
    control = _control(values, control, treatment)
    y = _as_numbers(frame[outcome], "outcome", outcome)
    p, p_column = _known_propensity(frame, propensity, [v for v in values if v != control])
    users = None if user is None else np.unique(_as_text(frame[user], "user", user), return_inverse=True)[1]
    left_out = {treatment, outcome, *ignore, *([user] if user else []), *([p_column] if p_column else [])}
    x, columns = _covariates(frame[[c for c in frame.columns if c not in left_out]])
    groups = {column: _groups(frame[column]) for column in by}
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
    door = find_door((_scores(scores.difference, clusters),), None, float(weight.max() / weight.mean()))
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


# ----------------------------------------------------------------------------------------------------- reading a log


def _read(path: Path) -> pd.DataFrame:
    import pandas as pd

    if not path.exists():
        raise LogError(f"log: '{path}' is not there; give a .csv, .csv.gz or .parquet file")
    name = path.name.lower()
    try:
        if name.endswith(".parquet"):
            frame = pd.read_parquet(path)
        elif name.endswith((".csv", ".csv.gz")):
            # "None" is the name of an arm as often as a missing value, so it is text here.
            frame = pd.read_csv(path, keep_default_na=False, na_values=["", "NA", "N/A", "NaN", "nan", "NULL", "null"])
        else:
            raise LogError(f"log: '{path.name}' is neither .csv, .csv.gz nor .parquet; convert it")
    except UnicodeDecodeError as error:
        raise LogError(f"log: '{path.name}' is not UTF-8; convert it") from error
    except (ValueError, OSError) as error:
        raise LogError(f"log: '{path.name}' cannot be read ({str(error).splitlines()[0]}); mend the file") from error
    if frame.empty:
        raise LogError(f"log: '{path.name}' has no rows; an effect needs rows of both arms")
    frame.columns = [str(column) for column in frame.columns]
    return frame


def _as_text(column: pd.Series[Any], field_name: str, name: str) -> NDArray[np.str_]:
    if column.isna().any():
        raise LogError(f"{field_name}: '{name}' is missing in {int(column.isna().sum())} rows; drop or fill them")
    if column.dtype.kind == "f" and bool((column == column.round()).all()):
        column = column.astype("int64")
    return column.astype(str).str.strip().to_numpy(dtype=np.str_)


def _as_numbers(column: pd.Series[Any], field_name: str, name: str) -> Floats:
    import pandas as pd

    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(numbers))
    if len(bad):
        found = column.iloc[int(bad[0])]
        raise LogError(
            f"{field_name}: '{name}' is '{found}' in row {bad[0]} ({len(bad)} such rows); numbers are needed"
        )
    return numbers


def _control(values: Sequence[str], control: str | None, treatment: str) -> str:
    if control is not None:
        asked = str(control).strip()
        if asked in values:
            return asked
        raise LogError(f"control: '{control}' is not a value of '{treatment}'{did_you_mean(asked, values)}")
    named = [v for v in values if v.lower() in ("0", "false", "control", "none") or v.lower().split(" ")[0] == "no"]
    if len(named) != 1:
        raise LogError(f"control: not given, and '{treatment}' has {', '.join(values[:5])}; say which is the control")
    return named[0]


def _known_propensity(
    frame: pd.DataFrame, propensity: str | None, treatments: Sequence[str]
) -> tuple[Floats | None, str | None]:
    """[n] probability of the treatment among the rows of it and of its control, and the column that it came from."""
    if propensity is None:
        return None, None
    k = len(treatments)
    if propensity in frame.columns:
        if k > 1:
            raise LogError(f"propensity: a column serves one treatment, here are {k}; keep two arms, or give a number")
        p, column = _as_numbers(frame[propensity], "propensity", propensity), propensity
    else:
        try:
            each = float(propensity)
        except ValueError as error:
            near = did_you_mean(propensity, [str(c) for c in frame.columns])
            raise LogError(f"propensity: '{propensity}' is neither a number nor a column{near}") from error
        rest = 1 - k * each
        if not (0 < each < 1 and rest > 1e-9):
            raise LogError(
                f"propensity: {each:g} for each of {k} treatments leaves {rest:g} for the control; "
                "give each arm's share of all rows"
            )
        p, column = np.full(len(frame), each / (each + rest)), None
    if not ((p > 0) & (p < 1)).all():
        bad = float(p[~((p > 0) & (p < 1))][0])
        raise LogError(f"propensity: {bad:g} is outside (0, 1); rows with a certain arm say nothing: drop them")
    return p, column


def _covariates(frame: pd.DataFrame) -> tuple[Floats, list[str]]:
    """Numeric design [n, d] and its names: numbers with the median for missing ones, categories one-hot."""
    parts: list[Floats] = []
    names: list[str] = []
    for name in frame.columns:
        column = frame[name]
        if column.dtype.kind in "biuf":
            numbers = column.to_numpy(dtype=np.float64)
            missing = ~np.isfinite(numbers)
            if missing.all():
                continue
            if missing.any():
                numbers = np.where(missing, np.median(numbers[~missing]), numbers)
                parts.append(missing.astype(np.float64))
                names.append(f"{name} is missing")
            parts.append(numbers)
            names.append(name)
            continue
        text = column.astype(str)
        counts = text.value_counts()
        if len(counts) > len(text) / 2:
            raise LogError(
                f"ignore: '{name}' has {len(counts)} values in {len(text)} rows, so it names rows; --ignore it"
            )
        for level in sorted(counts.index[:MOST_LEVELS])[1:]:
            parts.append((text == level).to_numpy(dtype=np.float64))
            names.append(f"{name}={level}")
    keep = [j for j, part in enumerate(parts) if part.min() != part.max()]
    if not keep:
        return np.zeros((len(frame), 1)), ["none"]
    return np.column_stack([parts[j] for j in keep]), [names[j] for j in keep]


def _groups(column: pd.Series[Any]) -> NDArray[np.str_]:
    """[n] group of each row; numbers with many values are cut into quarters of the rows."""
    import pandas as pd

    if column.dtype.kind in "if" and column.nunique() > MOST_GROUPS:
        cut = pd.qcut(column, 4, duplicates="drop")
        return cut.astype(str).where(column.notna(), UNKNOWN).to_numpy(dtype=np.str_)
    if column.nunique() > MOST_LEVELS:
        raise InputError(f"by: '{column.name}' has {column.nunique()} groups; give a column with at most {MOST_LEVELS}")
    return column.astype(str).where(column.notna(), UNKNOWN).to_numpy(dtype=np.str_)
