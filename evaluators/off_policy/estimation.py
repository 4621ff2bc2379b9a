"""`estimate` and `difference`: from a record and a policy to estimates that may be believed, or the reason why not."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluators.estimate import Estimate
from evaluators.intervals import (
    FEW_EVENTS,
    MIN_USERS,
    Ratios,
    binary_mean_interval,
    door_interval,
    find_door,
    n_inf,
    t_interval,
)
from evaluators.off_policy import distribution, trajectory
from evaluators.off_policy.continuous import ContinuousRounds
from evaluators.off_policy.diagnostics import (
    MAX_UNSUPPORTED,
    MAX_WEIGHT_SHIFT,
    MAX_WEIGHT_Z,
    WeightFacts,
    k_hat_limit,
    weight_facts,
)
from evaluators.off_policy.guaranteed import Interval, checked_interval, guaranteed
from evaluators.off_policy.names import DEFAULTS, EstimatorName, Record, parse
from evaluators.off_policy.prepared import Asked, Prepared, WeightSource, Withheld, prepare, prepare_continuous
from evaluators.off_policy.records import Rounds, Slates, Trajectories
from evaluators.off_policy.terms import Sums, Units, json_number, sum_terms
from simulator.errors import InputError

Floats = NDArray[np.float64]
Log = Rounds | Slates | Trajectories

BOUNDED = "ips(clip=10)"
WITH_ESTIMATED = ("snips", "sndr", "dr", "dm")
MAX_DISAGREEMENT = 4.0


def kind_of(record: Log) -> Record:
    """Which kind of record a log is."""
    return "slate" if isinstance(record, Slates) else "trajectory" if isinstance(record, Trajectories) else "bandit"


def estimate(
    rounds: Log,
    pi_e: Any = None,
    *,
    estimators: Iterable[str] | None = None,
    q_hat: Any = None,
    q_hat_source: str = "given",
    reward_range: tuple[float, float] | None = None,
    gamma: float = 1.0,
    level: float = 0.95,
    force: bool = False,
    seed: int = 0,
    reward_model: Any = None,
    folds: int = 3,
    q_weights: str | None = None,
    interval: str = "default",
) -> dict[str, Estimate]:
    """Value of a policy from logged feedback, by each estimator asked for.

    Policy and model are read once, a part at a time, so they may be memory-mapped files, or anything with `shape` that
    gives rows for a slice: beside them only columns [n] are held.

    Args:
        rounds: bandit rounds, slates or trajectories; slates and trajectories carry the policy themselves.
        pi_e: [n, A] evaluation policy, for bandit rounds.
        estimators: names such as `snips`, `dr(clip=10)`, `tuned(dr, slope)`; None: the usual ones of the record.
        q_hat: [n, A] model values; None: cross-fitted by user from context, where an estimator needs them.
        q_hat_source: said in the diagnostics; a simulator is refused.
        reward_range: (lowest, highest) possible reward, for bias-aware limits; 0/1 rewards imply (0, 1).
        gamma: discount per step of trajectories.
        level: coverage.
        force: give the value of a withheld estimate, with its reason in `method` and `diagnostics["forced"]`.
        seed: of folds, halves and bootstrap; the same seed gives the same numbers.
        reward_model: scikit-learn estimator for q_hat instead of the default.
        folds: of the reward model.
        q_weights: `importance` or `mrdr` weights its rows towards the policy (Farajtabar et al. 2018).
        interval: `bernstein` or `betting` for limits of `ips` and `ips(clip=..)` that need no large sample; betting
            limits hold at all looks at a log that grows. Other estimators are withheld then.

    Returns:
        One estimate for each name as asked, in the unit of the reward; withheld where a rule says so.
    """
    kind = kind_of(rounds)
    names = tuple(parse(text, kind) for text in (DEFAULTS[kind] if estimators is None else estimators))
    asked = Asked(names, reward_range, gamma, level, seed, reward_model, folds, q_weights, interval)
    prepared = prepare(rounds, pi_e, asked, q_hat=q_hat, q_hat_source=q_hat_source)
    if interval != "default":
        return {
            name.asked: guaranteed_estimate(name, prepared, checked_interval(interval), force=force) for name in names
        }
    return {name.asked: estimate_prepared(name, prepared, force=force) for name in names}


def difference(
    rounds: Log,
    pi_e: Any = None,
    against: Any = None,
    *,
    estimators: Iterable[str] | None = None,
    q_hat: Any = None,
    q_hat_source: str = "given",
    reward_range: tuple[float, float] | None = None,
    gamma: float = 1.0,
    level: float = 0.95,
    force: bool = False,
    seed: int = 0,
    reward_model: Any = None,
    folds: int = 3,
    q_weights: str | None = None,
) -> dict[str, Estimate]:
    """Value of one policy minus that of another, or of the logged one (`against=None`), on the same record.

    The same users and the same reward model serve both, so the covariance is kept. `against` is another [n, A] policy
    for bandit rounds; for slates and trajectories, which carry their policy, it is the same log under the other one.
    Other arguments as in `estimate`.
    """
    kind = kind_of(rounds)
    names = tuple(parse(text, kind) for text in (DEFAULTS[kind] if estimators is None else estimators))
    asked = Asked(names, reward_range, gamma, level, seed, reward_model, folds, q_weights)
    for name in names:
        if name.info.family == "distribution":
            raise InputError(f"estimator: '{name.asked}' has no paired difference; ask for a mean, such as snips or dr")
    first = prepare(rounds, pi_e, asked, q_hat=q_hat, q_hat_source=q_hat_source)
    second = None
    if against is not None and kind == "bandit":
        second = prepare(rounds, against, asked, q_hat=q_hat, q_hat_source=q_hat_source)
    elif against is not None:
        if kind_of(against) != kind or not _same_log(rounds, against):
            raise InputError(f"against: not the same {kind} log under another policy; keep actions and rewards equal")
        second = prepare(against, None, asked, q_hat=None, q_hat_source=q_hat_source)
    return {name.asked: difference_prepared(name, first, second, force=force) for name in names}


def _same_log(one: Any, other: Any) -> bool:
    columns = ((a, b) for name in ("action", "reward") for a, b in [(getattr(one, name), getattr(other, name))])
    same = all(np.array_equal(a, b) for a, b in columns)
    return (
        same
        and (one.user is None) == (other.user is None)
        and (one.user is None or np.array_equal(one.user, other.user))
    )


def estimate_continuous(
    rounds: ContinuousRounds,
    pi_e: Any,
    *,
    bandwidth: float,
    estimators: Iterable[str] | None = None,
    reward_range: tuple[float, float] | None = None,
    level: float = 0.95,
    force: bool = False,
    seed: int = 0,
    reward_model: Any = None,
    folds: int = 3,
) -> dict[str, Estimate]:
    """Value of a policy over a continuous action, blurred by a kernel of this bandwidth.

    Args:
        rounds: logged rounds with the density of each action.
        pi_e: [n] the policy's action in each round.
        bandwidth: half-width of the kernel, in the unit of the action.
        estimators: names of bandit estimators without embeddings; None: the usual ones.
        reward_range: (lowest, highest) possible reward; 0/1 rewards imply (0, 1).
        level: coverage.
        force: give the value of a withheld estimate, with its reason.
        seed: of folds, halves and bootstrap.
        reward_model: scikit-learn estimator for q_hat instead of the default.
        folds: of the reward model.

    Returns:
        One estimate for each name as asked, of the blurred policy; the same at half and twice the bandwidth stands in
        `diagnostics["bandwidths"]`.
    """
    names = tuple(parse(text, "bandit") for text in (DEFAULTS["bandit"] if estimators is None else estimators))
    asked = Asked(names, reward_range, 1.0, level, seed, reward_model, folds)
    prepared = {h: prepare_continuous(rounds, pi_e, h, asked) for h in (bandwidth, bandwidth / 2, 2 * bandwidth)}
    out = {}
    for name in names:
        found = {h: estimate_prepared(name, one, force=force) for h, one in prepared.items()}
        beside = {f"{h:g}": {"value": e.value, "low": e.low, "high": e.high} for h, e in found.items()}
        main = found[bandwidth]
        out[name.asked] = dataclasses.replace(main, diagnostics={**main.diagnostics, "bandwidths": beside})
    return out


def _note(name: EstimatorName, prepared: Prepared, how: str, sums: Sums | None = None) -> str:
    parts = [f"{name.asked}: {how}"]
    if sums is not None and sums.assumes:
        parts.append(sums.assumes)
    if prepared.units.cluster is None:
        parts.append("clusters: rows assumed independent")
    return "; ".join([*parts, *prepared.notes])


def _support_note(prepared: Prepared) -> dict[str, Any]:
    support = prepared.support
    return {
        "unsupported_mass": max(0.0, support.mass),
        "unsupported_low": support.low,
        "unsupported_high": support.high,
        "unsupported_exact": support.exact,
    }


def _weight_diagnostics(facts: WeightFacts | None, units: Units) -> dict[str, Any]:
    if facts is None:
        return {
            "ess": None,
            "ess_fraction": None,
            "max_weight_share": None,
            "mean_weight": None,
            "mean_weight_z": None,
            "k_hat": None,
        }
    out: dict[str, Any] = {
        "ess": facts.ess,
        "ess_fraction": facts.ess / units.n,
        "max_weight_share": facts.share,
        "mean_weight": facts.mean,
        "mean_weight_z": facts.z if math.isfinite(facts.z) else None,
        "k_hat": facts.k_hat,
    }
    if facts.k_hat is not None and facts.k_hat > k_hat_limit(units.n):
        out["k_hat_warning"] = f"k_hat {facts.k_hat:.2f} is above {k_hat_limit(units.n):.2f}: heavy tail of the weights"
    return out


WEIGHTS_BY: dict[WeightSource, tuple[str, str]] = {
    "logged": ("wrong pscore", "check how pscore was logged"),
    "estimated": ("wrong propensity model", "log propensities, or add the context that the logging policy used"),
    "ratios": ("wrong estimated marginal ratios", "give the ratios, or use an estimator without them, such as dr"),
}
"""Where weights come from -> what is wrong where they do not average 1, and what would help."""


def weight_reason(facts: WeightFacts | None, source: WeightSource) -> str | None:
    """Why weights do not average 1 (rule W5), or None where they may."""
    if facts is None or not (abs(facts.z) > MAX_WEIGHT_Z and abs(facts.mean - 1) > MAX_WEIGHT_SHIFT):
        return None
    culprit, mend = WEIGHTS_BY[source]
    why = f"unseen weight mass or {culprit}" if facts.mean < 1 else culprit
    return (
        f"W5: mean weight {facts.mean:.3g} with z {facts.z:.1f}, needs 1 within {MAX_WEIGHT_Z:g} standard errors or "
        f"{MAX_WEIGHT_SHIFT:g} ({why}); {mend}"
    )


def _settle(
    name: EstimatorName,
    prepared: Prepared,
    method: str,
    value: float,
    low: float | None,
    high: float | None,
    reasons: list[str],
    diagnostics: Mapping[str, Any],
    *,
    force: bool,
) -> Estimate:
    """The estimate, its withheld form, or its forced form."""
    units, level = prepared.units, prepared.level
    full = dict(diagnostics)
    if not reasons:
        return Estimate(value, low, high, level, units.n_users, method, None, full)
    full["reasons"] = list(reasons)
    why = " | ".join(reasons)
    if force and math.isfinite(value):
        full["forced"] = why
        return Estimate(value, low, high, level, units.n_users, f"{method}; forced although {why}", None, full)
    if name.asked != BOUNDED and prepared.record == "bandit" and not prepared.estimated:
        bounded = prepared.bounded(lambda: estimate_prepared(parse(BOUNDED), prepared))
        if bounded.value is not None:
            full[BOUNDED] = {"value": bounded.value, "low": bounded.low, "high": bounded.high}
    return Estimate.withhold(method, why, n=units.n_users, level=level, diagnostics=full)


def estimate_prepared(name: EstimatorName, prepared: Prepared, *, force: bool = False) -> Estimate:
    """One estimate from a record and policy that were reduced before."""
    units, level = prepared.units, prepared.level
    base = {"n": units.n, "users": units.n_users, **_support_note(prepared), **prepared.diagnostics}
    if name.info.family == "distribution":
        return _functional(name, prepared, base, force=force)
    try:
        sums, weight, own = prepared.sums(name)
    except Withheld as reason:
        method = _note(name, prepared, "not computed")
        return Estimate.withhold(method, str(reason), n=units.n_users, level=level, diagnostics=base)
    facts = None if weight is None else prepared.facts(weight)
    base |= _weight_diagnostics(facts, units) | own
    reasons = list(prepared.reasons) if sums.family != "model" else []
    if not sums.ratios.defined:
        method = _note(name, prepared, "not computed", sums)
        return Estimate.withhold(method, NO_OVERLAP, n=units.n_users, level=level, diagnostics=base)
    if sums.family == "model":
        support = prepared.support.reason
        reasons += [support] if support else []
        method = _note(name, prepared, "model only, no coverage claim", sums)
        base |= {"n_inf": None, "n_pos": None, "door": None}
        return _settle(name, prepared, method, sums.ratios.value, None, None, reasons, base, force=force)
    if prepared.estimated and (name.base not in WITH_ESTIMATED or name.shrunk):
        reasons.insert(0, NEEDS_PROPENSITIES)
    if prepared.rests_on_estimated_ratios(name):
        reasons.append(ESTIMATED_RATIOS)
    why_weights = weight_reason(facts, prepared.weight_source(name))
    reasons += [why_weights] if why_weights else []
    if sums.family == "shrunk":
        return _bias_aware(name, prepared, sums, base, reasons, force=force)
    return _weighted(name, prepared, sums, base, reasons, weight, force=force)


NO_OVERLAP = "W4: the policy never takes an action that was logged, so there is no overlap; log its actions"
ESTIMATED_RATIOS = (
    "marginal ratios: estimated on this log, and no interval of this estimator holds their error; use its dr form, "
    "where errors of ratios and model multiply, or give the ratios"
)
NEEDS_PROPENSITIES = (
    "estimated propensities: that weights average 1 is then not known, and this estimator rests on it; "
    "use snips, sndr or dr, or log propensities"
)


def _bias_aware(
    name: EstimatorName, prepared: Prepared, sums: Sums, base: dict[str, Any], reasons: list[str], *, force: bool
) -> Estimate:
    """Limits that hold the bias of smaller weights (B1); exempt from W1 to W4, unsupported mass is inside them."""
    value = sums.ratios.value
    low = high = None
    how = "bias-aware limits withheld: no reward_range"
    if sums.low is not None and sums.high is not None:
        low, high = _limits(sums.low, sums.high, value, prepared.level)
        how = "bias-aware user-cluster t limits"
    base |= {"n_inf": json_number(n_inf(sums.ratios.scores())), "n_pos": sums.n_pos, "door": "bias-aware"}
    method = _note(name, prepared, how, sums)
    return _settle(name, prepared, method, value, low, high, reasons, base, force=force)


def _limits(lower: Ratios, upper: Ratios, value: float, level: float) -> tuple[float, float]:
    low = t_interval(lower.value, lower.scores(), level)[0]
    high = t_interval(upper.value, upper.scores(), level)[1]
    return min(low, value), max(high, value)  # small logs can invert them; this only widens


def guaranteed_estimate(name: EstimatorName, prepared: Prepared, kind: Interval, *, force: bool = False) -> Estimate:
    """IPS with limits that need no large sample; only the rules on propensities (W5, W6) can withhold it."""
    units, level = prepared.units, prepared.level
    x = prepared.weighted
    base = {"n": units.n, "users": units.n_users, **_support_note(prepared), **prepared.diagnostics}
    if x is None or name.base != "ips" or name.tuner is not None:
        why = f"interval: {kind} limits are for ips and ips(clip=..) of bandit rounds; ask for those"
        return Estimate.withhold(
            _note(name, prepared, "not computed"), why, n=units.n_users, level=level, diagnostics=base
        )
    found = guaranteed(kind, x, units, level, name.tuning)
    if isinstance(found, str):
        method = _note(name, prepared, "not computed")
        return Estimate.withhold(method, found, n=units.n_users, level=level, diagnostics=base)
    facts = prepared.facts(x.w)
    base |= _weight_diagnostics(facts, units)
    base |= {"n_inf": None, "n_pos": None, "door": kind}
    if found.looks:
        base["looks"] = [{"users": n, "low": low, "high": high} for n, low, high in found.looks]
    reasons = list(prepared.reasons)
    if prepared.estimated:
        reasons.insert(0, NEEDS_PROPENSITIES)
    why_weights = weight_reason(facts, prepared.weight_source(name))
    reasons += [why_weights] if why_weights else []
    how = {"bernstein": "empirical Bernstein limits", "betting": "betting limits, valid at every look"}[kind]
    scope = "" if units.cluster is None else "; mean over users of their own means, no user comes back"
    method = _note(name, prepared, how + scope)
    low, high = min(found.low, found.value), max(found.high, found.value)
    return _settle(name, prepared, method, found.value, low, high, reasons, base, force=force)


def _unweighted_binary(prepared: Prepared, name: EstimatorName) -> bool:
    """Whether this is a share of few yes among rounds that all count alike: no t interval is made for those."""
    x = prepared.weighted
    if x is None or name.base not in ("ips", "snips") or prepared.reward_range != (0.0, 1.0):
        return False
    return (
        float(x.r.sum()) < FEW_EVENTS
        and abs(float(x.w.min()) - 1) <= 1e-12
        and abs(float(x.w.max()) - 1) <= 1e-12
        and bool(np.all((x.r == 0) | (x.r == 1)))
    )


def _weighted(
    name: EstimatorName,
    prepared: Prepared,
    sums: Sums,
    base: dict[str, Any],
    reasons: list[str],
    weight: Floats | None,
    *,
    force: bool,
) -> Estimate:
    """Ratio estimators: three doors, support, disagreement, user-cluster t interval."""
    units, level = prepared.units, prepared.level
    scores = sums.ratios.scores()
    value = sums.ratios.value
    if _unweighted_binary(prepared, name) and prepared.weighted is not None:
        low, high = binary_mean_interval(units.sums(prepared.weighted.r), units.counts, level)
        base |= {"n_inf": json_number(n_inf(scores)), "n_pos": sums.n_pos, "door": "binary"}
        if units.n_users < MIN_USERS:
            reasons.append(f"W3: {units.n_users} users, needs {MIN_USERS}; log more users")
        reasons += [prepared.support.reason] if prepared.support.reason else []
        method = _note(name, prepared, "Clopper-Pearson at the effective size", sums)
        return _settle(name, prepared, method, value, low, high, reasons, base, force=force)
    binding = (scores, *prepared.binding_scores(name, weight, own=sums.own))
    ratio = prepared.facts(weight).ratio if weight is not None else 1.0
    bounded = prepared.record == "bandit" and not prepared.estimated
    more = f"more users, or {BOUNDED}" if bounded else "more users"
    door = find_door(binding, sums.n_pos, ratio, more=more)
    reasons += list(door.reasons)
    base |= {"n_inf": json_number(door.n_inf), "n_pos": door.n_pos, "door": door.number}
    low, high, how = door_interval(sums.ratios, scores, door.number, level, prepared.rng("bootstrap", name.asked))
    low, high = _with_support(prepared, name, low, high, reasons)
    _check_disagreement(prepared, name, reasons, base)
    if prepared.record == "trajectory" and reasons and name.parameters.get("steps") is None:
        base |= _passing_horizon(name, prepared)
    method = _note(name, prepared, how, sums)
    return _settle(name, prepared, method, value, low, high, reasons, base, force=force)


def _with_support(
    prepared: Prepared, name: EstimatorName, low: float, high: float, reasons: list[str]
) -> tuple[float, float]:
    """Rule W4: withhold, or widen by the mass that may be unsupported."""
    support = prepared.support
    if name.base in ("mips", "snmips"):
        return low, high  # embeddings need overlap of embeddings only
    if support.reason:
        reasons.append(support.reason)
        return low, high
    unseen = max(0.0, support.high)
    if unseen == 0:
        return low, high
    if prepared.reward_range is None or prepared.record != "bandit":
        if unseen > MAX_UNSUPPORTED:
            reasons.append(
                f"W4: up to {unseen:.3g} of pi_e may be on actions never logged, needs at most {MAX_UNSUPPORTED:g} "
                "or a reward_range; give it, or log more users"
            )
        return low, high
    width = unseen * (prepared.reward_range[1] - prepared.reward_range[0])
    return low - width, high + width


def _check_disagreement(prepared: Prepared, name: EstimatorName, reasons: list[str], base: dict[str, Any]) -> None:
    """Rule W8: paired t of the difference from an estimator that assumes less."""
    found = prepared.disagreements()
    base["disagreement"] = {k: {"difference": d, "z": z} for k, (d, z) in found.items()}
    kind = name.base.removeprefix("sn_")
    if kind in found and abs(found[kind][1]) > MAX_DISAGREEMENT:
        gap, z = found[kind]
        reasons.append(
            f"W8: differs by {gap:.3g} (z {z:.1f}) from an estimator that assumes less, needs |z| up to "
            f"{MAX_DISAGREEMENT:g}; use that one"
        )


def _passing_horizon(name: EstimatorName, prepared: Prepared) -> dict[str, Any]:
    """The last step up to which the same rules pass, as a different estimand: the first H* steps."""
    stepped = prepared.stepped
    assert stepped is not None
    best: dict[str, Any] = {}
    for steps in range(1, stepped.r.shape[1]):
        part = stepped.first(steps)
        terms = trajectory.trajectory_terms(name, part)
        sums = sum_terms([(slice(0, prepared.units.n), terms)], prepared.units)
        if not sums.ratios.defined or terms.weight is None:
            break
        scores = sums.ratios.scores()
        here = dataclasses.replace(name, parameters={**name.parameters, "steps": steps})
        binding = (scores, *prepared.binding_scores(here, terms.weight, own=sums.own))
        facts = weight_facts(terms.weight, prepared.units)
        door = find_door(binding, sums.n_pos, facts.ratio)
        if door.number is None or weight_reason(facts, prepared.weight_source(name)):
            break
        low, high, _ = door_interval(
            sums.ratios, scores, door.number, prepared.level, prepared.rng("bootstrap", name.asked, steps)
        )
        asked = f"{name.base}(steps={steps})"
        best = {"estimator": asked, "steps": steps, "value": sums.ratios.value, "low": low, "high": high}
    return {"first_steps": best} if best else {}


def _functional(name: EstimatorName, prepared: Prepared, base: dict[str, Any], *, force: bool) -> Estimate:
    """Mean, variance, quantile, CVaR of the self-normalised distribution."""
    units, level = prepared.units, prepared.level
    try:
        r, w = prepared.returns()
    except Withheld as reason:
        return Estimate.withhold(
            _note(name, prepared, "not computed"), str(reason), n=units.n_users, level=level, diagnostics=base
        )
    if not w.sum() > 0:
        return Estimate.withhold(
            _note(name, prepared, "not computed"), NO_OVERLAP, n=units.n_users, level=level, diagnostics=base
        )
    facts = prepared.facts(w)
    parameter = next(iter(name.parameters.values()), None)
    value, (low, high), rests_on = distribution.value_and_interval(
        name.base, parameter, r, w, units, level, prepared.rng("bootstrap", name.asked)
    )
    reasons = list(prepared.reasons)
    scores = Ratios(units.sums(w * r)[None], units.sums(w)[None]).scores()
    door = find_door((scores,), rests_on, facts.ratio)
    reasons += door.reasons
    why_weights = weight_reason(facts, prepared.weight_source(name))
    reasons += [why for why in (why_weights, prepared.support.reason) if why]
    base |= _weight_diagnostics(facts, units) | {
        "n_inf": json_number(door.n_inf),
        "n_pos": rests_on,
        "door": door.number,
    }
    method = _note(name, prepared, "user-cluster percentile bootstrap of the self-normalised distribution")
    return _settle(name, prepared, method, value, low, high, reasons, base, force=force)


def difference_prepared(
    name: EstimatorName, first: Prepared, second: Prepared | None, *, force: bool = False
) -> Estimate:
    """Paired difference from the logged policy (None) or another one: user sums of both, the second's negated."""
    units, level = first.units, first.level
    base: dict[str, Any] = {"n": units.n, "users": units.n_users, **_support_note(first), **first.diagnostics}
    parts = [first] if second is None else [first, second]
    try:
        found = [part.sums(name) for part in parts]
    except Withheld as reason:
        method = _note(name, first, "paired difference")
        return Estimate.withhold(method, str(reason), n=units.n_users, level=level, diagnostics=base)
    one, weight, own = found[0]
    other = first.logged() if second is None else found[1][0]
    facts = [part.facts(w) for part, (_, w, _) in zip(parts, found, strict=True) if w is not None]
    base |= _weight_diagnostics(facts[0] if weight is not None else None, units) | own
    ratios = one.ratios.minus(other.ratios)
    method = _note(name, first, "paired difference", one)
    if not ratios.defined:
        return Estimate.withhold(method, NO_OVERLAP, n=units.n_users, level=level, diagnostics=base)
    value = ratios.value
    supports = [part.support.reason for part in parts if part.support.reason]
    if one.family == "model":
        method = _note(name, first, "paired difference, model only, no coverage claim", one)
        return _settle(name, first, method, value, None, None, supports, base, force=force)
    reasons = list(first.reasons)
    if first.estimated and (name.base not in WITH_ESTIMATED or name.shrunk):
        reasons.insert(0, NEEDS_PROPENSITIES)
    if first.rests_on_estimated_ratios(name):
        reasons.append(ESTIMATED_RATIOS)
    reasons += [why for why in (weight_reason(f, first.weight_source(name)) for f in facts) if why]
    if one.family == "shrunk":
        low = high = None
        how = "paired difference, bias-aware limits withheld: no reward_range"
        if one.low is not None and one.high is not None and other.low is not None and other.high is not None:
            low, high = _limits(one.low.minus(other.high), one.high.minus(other.low), value, level)
            how = "paired difference, bias-aware user-cluster t limits"
        return _settle(name, first, _note(name, first, how, one), value, low, high, reasons, base, force=force)
    if second is not None and _equal(one.ratios, other.ratios):
        # one policy against itself: exactly nothing, whatever the last bits of two ratios do
        return Estimate(0.0, 0.0, 0.0, level, units.n_users, method, None, base)
    scores = ratios.scores()
    mine = first.binding_scores(name, weight, own=one.own)
    if second is None:
        against = (other.ratios.scores(),) * len(mine)
    else:
        against = second.binding_scores(name, found[1][1], own=one.own)
    binding = [scores, *(a - b for a, b in zip(mine, against, strict=True))]
    assert one.n_pos is not None
    assert other.n_pos is not None
    door = find_door(tuple(binding), min(one.n_pos, other.n_pos), max(f.ratio for f in facts), more="more users")
    reasons += door.reasons
    base |= {"n_inf": json_number(door.n_inf), "n_pos": door.n_pos, "door": door.number}
    low, high, how = door_interval(ratios, scores, door.number, level, first.rng("bootstrap", name.asked, "difference"))
    for part in parts:
        low, high = _with_support(part, name, low, high, reasons)
    reasons = list(dict.fromkeys(reasons))
    method = _note(name, first, f"paired difference, {how}", one)
    return _settle(name, first, method, value, low, high, reasons, base, force=force)


def _equal(one: Ratios, other: Ratios) -> bool:
    return np.array_equal(one.numerator, other.numerator) and np.array_equal(one.denominator, other.denominator)
