"""`estimate` and `difference`: from a record and a policy to estimates that may be believed, or the reason why not."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
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
    n_pos,
    standard_error,
    t_interval,
)
from evaluators.off_policy import bandit, distribution, slate, trajectory
from evaluators.off_policy.diagnostics import (
    FULL_SUPPORT,
    MAX_UNSUPPORTED,
    MAX_WEIGHT_SHIFT,
    MAX_WEIGHT_Z,
    Support,
    WeightFacts,
    k_hat_limit,
    measure_support,
    propensity_calibration,
    sensitivity_range,
    weight_facts,
)
from evaluators.off_policy.names import DEFAULTS, EstimatorName, Record, parse
from evaluators.off_policy.propensity import FLOOR, MAX_FLOORED, METHOD, estimate_propensities
from evaluators.off_policy.records import Rounds, Slates, Trajectories
from evaluators.off_policy.reward_model import cross_fit_q, user_folds
from evaluators.off_policy.slate import MissingColumns
from evaluators.off_policy.state_models import fitted_q, marginal_ratios
from evaluators.off_policy.terms import Terms, Units
from evaluators.off_policy.tuning import tuned_terms
from simulator.errors import InputError
from simulator.streams import stream

Floats = NDArray[np.float64]

BOUNDED = "ips(clip=10)"
SENSITIVITY = (1.0, 1.25, 1.5, 2.0)
WITH_ESTIMATED = ("snips", "sndr", "dr", "dm")
MAX_DISAGREEMENT = 4.0


class _Withheld(Exception):
    """An estimator cannot be computed on this record; the message is the reason."""


@dataclass(slots=True)
class _Prepared:
    """A record and a policy, reduced to what the estimators read. One for each policy; never leaves this module."""

    record: Record
    units: Units
    rows_independent: bool
    reward_range: tuple[float, float] | None
    root: np.random.SeedSequence
    level: float
    rounds: Rounds | None = None
    pi_e: Floats | None = None
    weighted: bandit.Weighted | None = None
    slates: Slates | None = None
    stepped: trajectory.Stepped | None = None
    support: Support = FULL_SUPPORT
    estimated: bool = False
    reasons: list[str] = field(default_factory=list)
    no_model: str | None = None
    diagnostics: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    _facts: dict[int, tuple[Any, WeightFacts]] = field(default_factory=dict)
    _disagreements: dict[str, tuple[float, float]] | None = None

    def rng(self, *name: str | int) -> np.random.Generator:
        return stream(self.root, "off_policy", *name)

    def facts(self, weight: Floats) -> WeightFacts:
        """Facts of weights; the same array is measured once."""
        if id(weight) not in self._facts:
            self._facts[id(weight)] = (weight, weight_facts(weight, self.units))
        return self._facts[id(weight)][1]

    def terms(self, name: EstimatorName) -> tuple[Terms, dict[str, Any]]:
        """Rows of an estimator, and further diagnostics of its own."""
        if name.info.needs_model and self.no_model:
            raise _Withheld(self.no_model)
        try:
            if self.record == "bandit":
                return self._bandit(name)
            if self.record == "slate":
                return self._slate(name)
            assert self.stepped is not None
            return trajectory.trajectory_terms(name, self.stepped), {}
        except MissingColumns as missing:
            raise _Withheld(str(missing)) from missing

    def _bandit(self, name: EstimatorName) -> tuple[Terms, dict[str, Any]]:
        assert self.weighted is not None
        if name.base in ("mips", "snmips"):
            w, how = self._embedding_weights()
            return bandit.mips_terms(w, self.weighted.r, self_normalised=name.base == "snmips"), {"p_e_a": how}
        if name.tuner is not None:
            terms, chosen = tuned_terms(name.base, name.tuner, self.weighted, self.units, self.rng("tune", name.base))
            return terms, {"lambda": chosen, "bias_bound": terms.bias}
        terms = bandit.bandit_terms(name, self.weighted)
        parameter = next((v for v in name.parameters.values() if v is not None), None)
        return terms, {} if parameter is None else {"lambda": parameter, "bias_bound": terms.bias}

    def _embedding_weights(self) -> tuple[Floats, str]:
        rounds, pi_e = self.rounds, self.pi_e
        assert rounds is not None
        assert pi_e is not None
        if rounds.pi_b is None or rounds.action_embed is None:
            raise _Withheld("pi_b: mips needs pi_b [n, A] and action_embed [n, e] in the log; add them")
        if rounds.p_e_a is not None:
            return bandit.embedding_weights(rounds, pi_e, rounds.p_e_a), "given"
        if rounds.context is None:
            raise _Withheld("p_e_a: not in the log, and no context to estimate it from; add either")
        fold = user_folds(rounds.cluster, rounds.n_users, len(rounds), 2, self.rng("folds", "embedding"))
        return bandit.estimated_embedding_weights(rounds, pi_e, fold), "logistic regression, cross-fitted by user"

    def _slate(self, name: EstimatorName) -> tuple[Terms, dict[str, Any]]:
        slates = self.slates
        assert slates is not None
        if not name.base.endswith("aips"):
            return slate.slate_terms(name.base, slates), {}
        half = self.rng("tune", "aips").permutation(self.units.n_users) % 2 == 0
        first = half if self.units.cluster is None else half[self.units.cluster]
        w = np.empty(slates.action.shape)
        chosen = []
        for here in (first, ~first):  # the sets are chosen on one half of the users and used on the other
            both, names = slate.adaptive_weights(slates, ~here)
            w[here] = both[here]
            chosen.append(" | ".join(names))
        terms = slate.slot_terms(
            w, slates.reward, self_normalised=name.base.startswith("sn_"), assumes=name.info.assumption
        )
        return terms, {"slot_sets": chosen}

    def binding(self) -> Terms:
        """IPS, or per-decision weights: binds estimates whose own score does not see rewards that did not occur."""
        if self.record == "bandit":
            assert self.weighted is not None
            return bandit.ips(self.weighted)
        assert self.stepped is not None
        return trajectory.ips_like(self.stepped)

    def returns(self) -> tuple[Floats, Floats]:
        """Return and weight of each unit, for functionals of the distribution."""
        if self.weighted is not None:
            return self.weighted.r, self.weighted.w
        if self.slates is not None:
            try:
                return self.slates.reward.sum(axis=1), slate.joint_weight(self.slates)
            except MissingColumns as missing:
                raise _Withheld(str(missing)) from missing
        assert self.stepped is not None
        return self.stepped.r @ self.stepped.discount, self.stepped.rho.prod(axis=1)

    def disagreements(self) -> dict[str, tuple[float, float]]:
        """Rule W8: name -> (difference, z) of its largest disagreement with an estimator that assumes less."""
        if self._disagreements is not None:
            return self._disagreements
        out: dict[str, tuple[float, float]] = {}
        ratios: dict[str, Ratios] = {}
        pairs: tuple[tuple[str, str], ...] = ()
        if self.record == "bandit" and self.weighted is not None and self.weighted.q is not None:
            pairs = (("ips", "dr"), ("snips", "dr"))
            for base in ("ips", "snips", "dr"):
                ratios[base] = bandit.bandit_terms(parse(base), self.weighted).ratios(self.units)
        elif self.record == "slate" and self.slates is not None:
            pairs = (("iips", "rips"), ("iips", "sips"), ("rips", "sips"))
            for base in ("iips", "rips", "sips"):
                try:
                    ratios[base] = slate.slate_terms(base, self.slates).ratios(self.units)
                except MissingColumns:
                    continue  # that twin is not in the log: there is nothing to compare
        for strong, weak in pairs:
            if strong in ratios and weak in ratios and ratios[strong].defined and ratios[weak].defined:
                both = ratios[strong].minus(ratios[weak])
                error = standard_error(both.scores())
                if error > 0 and abs(both.value / error) >= abs(out.get(strong, (0.0, 0.0))[1]):
                    out[strong] = (both.value, both.value / error)
        self._disagreements = out
        return out


def _range(reward: Floats, given: tuple[float, float] | None, what: str = "reward") -> tuple[float, float] | None:
    if given is None:
        # yes/no rewards bring their range along; an observed maximum of other rewards proves nothing
        return (0.0, 1.0) if bool(np.all((reward == 0) | (reward == 1))) else None
    low, high = float(given[0]), float(given[1])
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InputError(f"reward_range: '{low:g},{high:g}' must be two numbers, the lower first")
    if reward.min() < low or reward.max() > high:
        raise InputError(
            f"reward_range: '{low:g},{high:g}' does not hold the observed {what} {reward.min():g} to {reward.max():g}; "
            "widen it"
        )
    return low, high


def _prepare(
    record: Rounds | Slates | Trajectories,
    pi_e: Floats | None,
    names: list[EstimatorName],
    *,
    q_hat: Floats | None,
    q_hat_source: str,
    reward_range: tuple[float, float] | None,
    gamma: float,
    level: float,
    seed: int,
    reward_model: Any,
    folds: int,
) -> _Prepared:
    if not 0 < level < 1:
        raise InputError(f"level: {level:g} must be between 0 and 1")
    if "simulator" in q_hat_source.lower():
        raise InputError(
            f"q_hat_source: '{q_hat_source}' may not enter an estimate from the log; leave q_hat out to cross-fit it"
        )
    root = np.random.SeedSequence(seed)
    units = Units.of(record.cluster, record.n_users, len(record))
    independent = record.cluster is None
    if isinstance(record, Slates):
        total = record.reward.sum(axis=1)
        prepared = _Prepared(
            "slate", units, independent, _range(total, reward_range, "slate reward"), root, level, slates=record
        )
        if record.pi_e_action_dist is not None and record.pscore_item_position is not None and slate.factorises(record):
            n, slots, actions = record.pi_e_action_dist.shape
            w = slate.item_weight(record)
            prepared.support = measure_support(
                record.pi_e_action_dist.reshape(n * slots, actions),
                record.action.reshape(-1),
                np.tile(np.arange(slots), n),
                w.reshape(-1),
                None,
                _repeated(units, slots),
                level,
            )
        return prepared
    if isinstance(record, Trajectories):
        if not 0 <= gamma <= 1:
            raise InputError(f"gamma: {gamma:g} must be between 0 and 1")
        return _prepare_trajectories(
            record,
            names,
            units,
            root,
            q_hat=q_hat,
            q_hat_source=q_hat_source,
            reward_range=reward_range,
            gamma=gamma,
            level=level,
            model=reward_model,
            folds=folds,
        )
    return _prepare_rounds(
        record,
        pi_e,
        names,
        units,
        root,
        q_hat=q_hat,
        q_hat_source=q_hat_source,
        reward_range=reward_range,
        level=level,
        reward_model=reward_model,
        folds=folds,
    )


def _prepare_trajectories(
    log: Trajectories,
    names: list[EstimatorName],
    units: Units,
    root: np.random.SeedSequence,
    *,
    q_hat: Floats | None,
    q_hat_source: str,
    reward_range: tuple[float, float] | None,
    gamma: float,
    level: float,
    model: Any,
    folds: int,
) -> _Prepared:
    prepared = _Prepared("trajectory", units, log.cluster is None, reward_range, root, level)
    given = q_hat if q_hat is not None else log.q_hat
    only_initial = all(name.base.endswith("dm") for name in names if name.info.needs_model)
    if given is not None or (log.initial_value is not None and only_initial):
        prepared.diagnostics["q_hat"] = q_hat_source
    elif log.state is not None and any(name.info.needs_model for name in names):
        fitted = fitted_q(log, gamma, prepared.rng("folds", "q_hat"), model=model, folds=max(folds, 2))
        given = fitted.q_hat
        prepared.diagnostics["q_hat"] = fitted.method
        prepared.diagnostics["bellman_residual"] = [fitted.bellman_residual, fitted.bellman_error]
    stepped = trajectory.reduce_steps(log, gamma, given)
    marginal = any(name.base.startswith(("sm_", "sam_", "drl")) for name in names)
    if (
        marginal
        and stepped.state is None
        and stepped.state_action is None
        and log.state is not None
        and log.state.ndim == 2
    ):
        state, state_action = marginal_ratios(log, stepped.rho, prepared.rng("folds", "marginal"))
        stepped = replace(stepped, state=state, state_action=state_action)
        prepared.diagnostics["marginal_ratios"] = "by counts, cross-fitted by user"
    prepared.stepped = stepped
    n, steps, actions = log.pi_e.shape
    alive = log.alive.reshape(-1)
    prepared.support = measure_support(
        log.pi_e.reshape(n * steps, actions)[alive],
        log.action.reshape(-1)[alive],
        None,
        stepped.rho.reshape(-1)[alive],
        None,
        _alive_units(units, alive, steps),
        level,
    )
    return prepared


def _repeated(units: Units, times: int) -> Units:
    cluster = np.repeat(np.arange(units.n) if units.cluster is None else units.cluster, times)
    return Units.of(cluster, units.n_users, units.n * times)


def _alive_units(units: Units, alive: NDArray[np.bool_], steps: int) -> Units:
    cluster = np.repeat(np.arange(units.n) if units.cluster is None else units.cluster, steps)[alive]
    return Units.of(cluster, units.n_users, int(alive.sum()))


def _prepare_rounds(
    rounds: Rounds,
    pi_e: Floats | None,
    names: list[EstimatorName],
    units: Units,
    root: np.random.SeedSequence,
    *,
    q_hat: Floats | None,
    q_hat_source: str,
    reward_range: tuple[float, float] | None,
    level: float,
    reward_model: Any,
    folds: int,
) -> _Prepared:
    if pi_e is None:
        raise InputError("pi_e: bandit rounds need the evaluation policy's probabilities [n, n_actions]; give them")
    pi_e = bandit.checked_policy(rounds, pi_e)
    prepared = _Prepared(
        "bandit", units, rounds.cluster is None, _range(rounds.reward, reward_range), root, level, pi_e=pi_e
    )
    if rounds.pscore is None:
        propensities, floored = estimate_propensities(rounds, pi_e.shape[1], prepared.rng("folds", "propensity"))
        taken = propensities[np.arange(len(rounds)), rounds.action]
        pscore = np.maximum(taken, 1e-9)
        rounds = replace(rounds, pscore=pscore)
        prepared.estimated = True
        prepared.notes.append(METHOD)
        rows, slope, limits, why = propensity_calibration(propensities, rounds.action, units, level)
        prepared.reasons += why
        prepared.diagnostics["propensity_calibration"] = rows
        prepared.diagnostics["propensity_slope"] = [slope, *limits]
        if floored > MAX_FLOORED:
            prepared.reasons.append(
                f"W6: the estimated propensity of {floored:.1%} of rounds is below {FLOOR:g}, needs at most "
                f"{MAX_FLOORED:.0%}; log propensities"
            )
        prepared.diagnostics["sensitivity"] = sensitivity_range(
            pi_e[np.arange(len(rounds)), rounds.action], pscore, rounds.reward, SENSITIVITY
        )
    needs_model = any(name.info.needs_model for name in names)
    if q_hat is not None:
        q_hat = bandit.check_q_hat(_at_position(rounds, q_hat), pi_e.shape)
        prepared.diagnostics["q_hat"] = q_hat_source
    elif needs_model:
        if rounds.context is None and rounds.action_features is None:
            prepared.no_model = "q_hat: not given, and no context to fit it from; give q_hat, or context in the log"
        else:
            q_hat, how = cross_fit_q(
                rounds, pi_e.shape[1], prepared.rng("folds", "q_hat"), model=reward_model, folds=folds
            )
            prepared.diagnostics["q_hat"] = how
    prepared.rounds = rounds
    prepared.weighted = bandit.reduce_policy(rounds, pi_e, q_hat, prepared.reward_range)
    prepared.support = measure_support(
        pi_e, rounds.action, rounds.position, prepared.weighted.w, rounds.pi_b, units, level
    )
    return prepared


def _at_position(rounds: Rounds, q_hat: Floats) -> Floats:
    q_hat = np.asarray(q_hat)
    if q_hat.ndim != 3:
        return q_hat
    slot = np.zeros(len(rounds), dtype=np.int64) if rounds.position is None else rounds.position
    return q_hat[np.arange(len(rounds)), :, slot]


def estimate(
    rounds: Rounds | Slates | Trajectories,
    pi_e: Floats | None = None,
    *,
    estimators: Iterable[str] | None = None,
    q_hat: Floats | None = None,
    q_hat_source: str = "given",
    reward_range: tuple[float, float] | None = None,
    gamma: float = 1.0,
    level: float = 0.95,
    force: bool = False,
    seed: int = 0,
    reward_model: Any = None,
    folds: int = 3,
) -> dict[str, Estimate]:
    """Value of a policy from logged feedback, by each estimator asked for.

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

    Returns:
        One estimate for each name as asked, in the unit of the reward; withheld where a rule says so.
    """
    kind: Record = (
        "slate" if isinstance(rounds, Slates) else "trajectory" if isinstance(rounds, Trajectories) else "bandit"
    )
    names = [parse(text, kind) for text in (DEFAULTS[kind] if estimators is None else estimators)]
    prepared = _prepare(
        rounds,
        pi_e,
        names,
        q_hat=q_hat,
        q_hat_source=q_hat_source,
        reward_range=reward_range,
        gamma=gamma,
        level=level,
        seed=seed,
        reward_model=reward_model,
        folds=folds,
    )
    return {name.asked: _estimate(name, prepared, force=force) for name in names}


def difference(
    rounds: Rounds,
    pi_e: Floats,
    against: Floats | None = None,
    *,
    estimators: Iterable[str] | None = None,
    q_hat: Floats | None = None,
    q_hat_source: str = "given",
    reward_range: tuple[float, float] | None = None,
    level: float = 0.95,
    force: bool = False,
    seed: int = 0,
    reward_model: Any = None,
    folds: int = 3,
) -> dict[str, Estimate]:
    """Value of `pi_e` minus that of another policy, or of the logged one (`against=None`), on the same rounds.

    The same users and the same reward model serve both, so the covariance is kept. Arguments as in `estimate`.
    """
    if not isinstance(rounds, Rounds):
        raise InputError("against: a difference of policies is made on bandit rounds; other logs carry one policy only")
    names = [parse(text, "bandit") for text in (DEFAULTS["bandit"] if estimators is None else estimators)]
    options: dict[str, Any] = {
        "q_hat_source": q_hat_source,
        "reward_range": reward_range,
        "gamma": 1.0,
        "level": level,
        "seed": seed,
        "reward_model": reward_model,
        "folds": folds,
    }
    first = _prepare(rounds, pi_e, names, q_hat=q_hat, **options)
    second = None if against is None else _prepare(rounds, against, names, q_hat=q_hat, **options)
    return {name.asked: _difference(name, first, second, force=force) for name in names}


def _note(name: EstimatorName, prepared: _Prepared, how: str, terms: Terms | None = None) -> str:
    parts = [f"{name.asked}: {how}"]
    if terms is not None and terms.assumes:
        parts.append(terms.assumes)
    if prepared.rows_independent:
        parts.append("clusters: rows assumed independent")
    return "; ".join([*parts, *prepared.notes])


def _support_note(prepared: _Prepared) -> dict[str, Any]:
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


def _weight_reason(facts: WeightFacts | None, *, estimated: bool) -> str | None:
    if facts is None or not (abs(facts.z) > MAX_WEIGHT_Z and abs(facts.mean - 1) > MAX_WEIGHT_SHIFT):
        return None
    culprit = "wrong propensity model" if estimated else "wrong pscore"
    why = f"unseen weight mass or {culprit}" if facts.mean < 1 else culprit
    return (
        f"W5: mean weight {facts.mean:.3g} with z {facts.z:.1f}, needs 1 within {MAX_WEIGHT_Z:g} standard errors or "
        f"{MAX_WEIGHT_SHIFT:g} ({why}); check how pscore was logged"
    )


def _settle(
    name: EstimatorName,
    prepared: _Prepared,
    method: str,
    value: float,
    low: float | None,
    high: float | None,
    reasons: list[str],
    diagnostics: Mapping[str, Any],
    *,
    force: bool,
    level: float,
) -> Estimate:
    """The estimate, its withheld form, or its forced form."""
    units = prepared.units
    full = dict(diagnostics)
    if not reasons:
        return Estimate(value, low, high, level, units.n_users, method, None, full)
    full["reasons"] = list(reasons)
    why = " | ".join(reasons)
    if force and math.isfinite(value):
        full["forced"] = why
        return Estimate(value, low, high, level, units.n_users, f"{method}; forced although {why}", None, full)
    if name.asked != BOUNDED and prepared.record == "bandit" and not prepared.estimated:
        bounded = _estimate(parse(BOUNDED), prepared, force=False)
        if bounded.value is not None:
            full[BOUNDED] = {"value": bounded.value, "low": bounded.low, "high": bounded.high}
    return Estimate.withhold(method, why, n=units.n_users, level=level, diagnostics=full)


def _estimate(name: EstimatorName, prepared: _Prepared, *, force: bool) -> Estimate:
    units, level = prepared.units, prepared.level
    base = {"n": units.n, "users": units.n_users, **_support_note(prepared), **prepared.diagnostics}
    if name.info.family == "distribution":
        return _functional(name, prepared, base, force=force)
    try:
        terms, own = prepared.terms(name)
    except _Withheld as reason:
        method = _note(name, prepared, "not computed")
        return Estimate.withhold(method, str(reason), n=units.n_users, level=level, diagnostics=base)
    facts = None if terms.weight is None else prepared.facts(terms.weight)
    ratios = terms.ratios(units)
    base |= _weight_diagnostics(facts, units) | own
    reasons = list(prepared.reasons) if terms.family != "model" else []
    if not ratios.defined:
        why = "W4: the policy never takes an action that was logged, so there is no overlap; log its actions"
        return Estimate.withhold(
            _note(name, prepared, "not computed", terms), why, n=units.n_users, level=level, diagnostics=base
        )
    if terms.family == "model":
        support = prepared.support.reason
        reasons += [support] if support else []
        method = _note(name, prepared, "model only, no coverage claim", terms)
        base |= {"n_inf": None, "n_pos": None, "door": None}
        return _settle(name, prepared, method, ratios.value, None, None, reasons, base, force=force, level=level)
    if prepared.estimated and (name.base not in WITH_ESTIMATED or name.shrunk):
        reasons.insert(
            0,
            "estimated propensities: that weights average 1 is then not known, and this estimator rests on it; "
            "use snips, sndr or dr, or log propensities",
        )
    weight_reason = _weight_reason(facts, estimated=prepared.estimated)
    reasons += [weight_reason] if weight_reason else []
    if terms.family == "shrunk":
        return _bias_aware(name, prepared, terms, ratios, base, reasons, force=force)
    return _weighted(name, prepared, terms, ratios, base, reasons, facts, force=force)


def _bias_aware(
    name: EstimatorName,
    prepared: _Prepared,
    terms: Terms,
    ratios: Ratios,
    base: dict[str, Any],
    reasons: list[str],
    *,
    force: bool,
) -> Estimate:
    """Limits that hold the bias of smaller weights (B1); exempt from W1 to W4, unsupported mass is inside them."""
    units, level = prepared.units, prepared.level
    value = ratios.value
    low = high = None
    how = "bias-aware limits withheld: no reward_range"
    if terms.low_rows is not None and terms.high_rows is not None:
        low, high = _limits(units, terms.low_rows, terms.high_rows, value, level)
        how = "bias-aware user-cluster t limits"
    base |= {"n_inf": _json(n_inf(ratios.scores())), "n_pos": terms.rewarded(), "door": "bias-aware"}
    return _settle(
        name, prepared, _note(name, prepared, how, terms), value, low, high, reasons, base, force=force, level=level
    )


def _limits(units: Units, low_rows: Floats, high_rows: Floats, value: float, level: float) -> tuple[float, float]:
    lower, upper = units.mean(low_rows), units.mean(high_rows)
    low = t_interval(lower.value, lower.scores(), level)[0]
    high = t_interval(upper.value, upper.scores(), level)[1]
    return min(low, value), max(high, value)  # small logs can invert them; this only widens


def _json(x: float) -> float | None:
    return x if math.isfinite(x) else None


def _unweighted_binary(prepared: _Prepared, name: EstimatorName) -> bool:
    x = prepared.weighted
    return (
        x is not None
        and name.base in ("ips", "snips")
        and bool(np.all(np.abs(x.w - 1) <= 1e-12))
        and bool(np.all((x.r == 0) | (x.r == 1)))
        and float(x.r.sum()) < FEW_EVENTS
    )


def _weighted(
    name: EstimatorName,
    prepared: _Prepared,
    terms: Terms,
    ratios: Ratios,
    base: dict[str, Any],
    reasons: list[str],
    facts: WeightFacts | None,
    *,
    force: bool,
) -> Estimate:
    """Ratio estimators: three doors, support, disagreement, user-cluster t interval."""
    units, level = prepared.units, prepared.level
    scores = ratios.scores()
    value = ratios.value
    if _unweighted_binary(prepared, name) and prepared.weighted is not None:
        low, high = binary_mean_interval(units.sums(prepared.weighted.r), units.counts, level)
        base |= {"n_inf": _json(n_inf(scores)), "n_pos": terms.rewarded(), "door": "binary"}
        if units.n_users < MIN_USERS:
            reasons.append(f"W3: {units.n_users} users, needs {MIN_USERS}; log more users")
        reasons += [prepared.support.reason] if prepared.support.reason else []
        method = _note(name, prepared, "Clopper-Pearson at the effective size", terms)
        return _settle(name, prepared, method, value, low, high, reasons, base, force=force, level=level)
    binding = (scores,) if terms.own else (scores, prepared.binding().ratios(units).scores())
    ratio = facts.ratio if facts is not None else 1.0
    more = f"more users, or {BOUNDED}" if prepared.record == "bandit" else "more users"
    door = find_door(binding, terms.rewarded(), ratio, more=more)
    reasons += list(door.reasons)
    base |= {"n_inf": _json(door.n_inf), "n_pos": door.n_pos, "door": door.number}
    low, high, how = door_interval(ratios, scores, door.number, level, prepared.rng("bootstrap", name.asked))
    low, high = _with_support(prepared, name, low, high, reasons)
    _check_disagreement(prepared, name, reasons, base)
    if prepared.record == "trajectory" and reasons:
        base |= _passing_horizon(name, prepared)
    method = _note(name, prepared, how, terms)
    return _settle(name, prepared, method, value, low, high, reasons, base, force=force, level=level)


def _with_support(
    prepared: _Prepared, name: EstimatorName, low: float, high: float, reasons: list[str]
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


def _check_disagreement(prepared: _Prepared, name: EstimatorName, reasons: list[str], base: dict[str, Any]) -> None:
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


def _passing_horizon(name: EstimatorName, prepared: _Prepared) -> dict[str, Any]:
    """The last step up to which the same rules pass, as a different estimand: the first H* steps."""
    stepped = prepared.stepped
    assert stepped is not None
    best: dict[str, Any] = {}
    for steps in range(1, stepped.r.shape[1]):
        part = stepped.first(steps)
        terms = trajectory.trajectory_terms(name, part)
        ratios = terms.ratios(prepared.units)
        if not ratios.defined or terms.weight is None:
            break
        scores = ratios.scores()
        binding = (scores,) if terms.own else (scores, trajectory.ips_like(part).ratios(prepared.units).scores())
        facts = weight_facts(terms.weight, prepared.units)
        door = find_door(binding, terms.rewarded(), facts.ratio)
        if door.number is None or _weight_reason(facts, estimated=False):
            break
        low, high, _ = door_interval(
            ratios, scores, door.number, prepared.level, prepared.rng("bootstrap", name.asked, steps)
        )
        best = {"first_steps": {"steps": steps, "value": ratios.value, "low": low, "high": high}}
    return best


def _functional(name: EstimatorName, prepared: _Prepared, base: dict[str, Any], *, force: bool) -> Estimate:
    """Mean, variance, quantile, CVaR of the self-normalised distribution."""
    units, level = prepared.units, prepared.level
    try:
        r, w = prepared.returns()
    except _Withheld as reason:
        return Estimate.withhold(
            _note(name, prepared, "not computed"), str(reason), n=units.n_users, level=level, diagnostics=base
        )
    if not w.sum() > 0:
        why = "W4: the policy never takes an action that was logged, so there is no overlap; log its actions"
        return Estimate.withhold(
            _note(name, prepared, "not computed"), why, n=units.n_users, level=level, diagnostics=base
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
    weight_reason = _weight_reason(facts, estimated=prepared.estimated)
    reasons += [why for why in (weight_reason, prepared.support.reason) if why]
    base |= _weight_diagnostics(facts, units) | {"n_inf": _json(door.n_inf), "n_pos": rests_on, "door": door.number}
    method = _note(name, prepared, "user-cluster percentile bootstrap of the self-normalised distribution")
    return _settle(name, prepared, method, value, low, high, reasons, base, force=force, level=level)


def _difference(name: EstimatorName, first: _Prepared, second: _Prepared | None, *, force: bool) -> Estimate:
    """Paired difference: the same user sums, the second's negated."""
    units, level = first.units, first.level
    base: dict[str, Any] = {"n": units.n, "users": units.n_users, **_support_note(first), **first.diagnostics}
    method = _note(name, first, "paired difference")
    if name.info.family == "distribution":
        raise InputError(f"estimator: '{name.asked}' has no paired difference; ask for a mean, such as snips or dr")
    assert first.weighted is not None
    logged = Terms(
        family="ratio",
        numerators=(first.weighted.r,),
        denominators=(None,),
        weighted=first.weighted.r,
        weight=np.ones(units.n),
        low_rows=first.weighted.r,
        high_rows=first.weighted.r,
    )
    try:
        one, own = first.terms(name)
        other = logged if second is None else second.terms(name)[0]
    except _Withheld as reason:
        return Estimate.withhold(method, str(reason), n=units.n_users, level=level, diagnostics=base)
    ratios = one.ratios(units).minus(other.ratios(units))
    facts = [None if t.weight is None else first.facts(t.weight) for t in (one, other)]
    base |= _weight_diagnostics(facts[0], units) | own
    if not ratios.defined:
        why = "W4: a policy never takes an action that was logged, so there is no overlap; log its actions"
        return Estimate.withhold(method, why, n=units.n_users, level=level, diagnostics=base)
    value, scores = ratios.value, ratios.scores()
    reasons = [] if one.family == "model" else list(first.reasons)
    supports = [p.support.reason for p in (first, second) if p is not None and p.support.reason]
    if one.family == "model":
        method = _note(name, first, "paired difference, model only, no coverage claim", one)
        return _settle(name, first, method, value, None, None, supports, base, force=force, level=level)
    if first.estimated and (name.base not in WITH_ESTIMATED or name.shrunk):
        reasons.insert(0, "estimated propensities: use snips, sndr or dr, or log propensities")
    reasons += [why for why in (_weight_reason(f, estimated=first.estimated) for f in facts) if why]
    if one.family == "shrunk":
        low = high = None
        how = "paired difference, bias-aware limits withheld: no reward_range"
        rows = (one.low_rows, one.high_rows, other.low_rows, other.high_rows)
        if rows[0] is not None and rows[1] is not None and rows[2] is not None and rows[3] is not None:
            low, high = _limits(units, rows[0] - rows[3], rows[1] - rows[2], value, level)
            how = "paired difference, bias-aware user-cluster t limits"
        return _settle(
            name, first, _note(name, first, how, one), value, low, high, reasons, base, force=force, level=level
        )
    if second is not None and first.pi_e is not None and np.array_equal(first.pi_e, second.pi_e):  # type: ignore[arg-type]
        # one policy against itself: exactly nothing, whatever the last bits of two ratios do
        return Estimate(0.0, 0.0, 0.0, level, units.n_users, method, None, base)
    assert one.weighted is not None
    assert other.weighted is not None
    binding = [scores]
    if not one.own:
        against = units.mean(first.weighted.r) if second is None else second.binding().ratios(units)
        binding.append(first.binding().ratios(units).minus(against).scores())
    worst = max(f.ratio for f in facts if f is not None)
    door = find_door(tuple(binding), min(n_pos(one.weighted), n_pos(other.weighted)), worst, more="more users")
    reasons += [*door.reasons, *supports]
    base |= {"n_inf": _json(door.n_inf), "n_pos": door.n_pos, "door": door.number}
    low, high, how = door_interval(ratios, scores, door.number, level, first.rng("bootstrap", name.asked, "difference"))
    for part in (first, second):
        if part is not None:
            low, high = _with_support(part, name, low, high, [])
    return _settle(
        name,
        first,
        _note(name, first, f"paired difference, {how}", one),
        value,
        low,
        high,
        reasons,
        base,
        force=force,
        level=level,
    )
