"""A record and a policy reduced to what the estimators read: weights, rewards, model values, support, propensities."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from evaluators.estimate import Estimate
from evaluators.intervals import standard_error
from evaluators.off_policy import bandit, slate, trajectory
from evaluators.off_policy.continuous import (
    ContinuousRounds,
    as_rounds,
    blur,
    cross_fit_values,
    reduce_continuous,
)
from evaluators.off_policy.diagnostics import (
    FULL_SUPPORT,
    Support,
    WeightFacts,
    measure_support,
    propensity_calibration,
    sensitivity_range,
    support_of,
    weight_facts,
)
from evaluators.off_policy.guaranteed import checked_interval
from evaluators.off_policy.names import EstimatorName, Record, parse
from evaluators.off_policy.propensity import FLOOR, MAX_FLOORED, METHOD, estimate_propensities
from evaluators.off_policy.records import COLUMN_ROWS, Rounds, Slates, Trajectories
from evaluators.off_policy.reward_model import cross_fit_q, user_folds
from evaluators.off_policy.slate import MissingColumns
from evaluators.off_policy.state_models import fitted_q, marginal_ratios
from evaluators.off_policy.terms import Sums, Terms, Units, slices, sum_terms
from evaluators.off_policy.tuning import choose, halves, tuned_terms
from simulator.errors import InputError
from simulator.streams import stream

Floats = NDArray[np.float64]

WeightSource = Literal["logged", "estimated", "ratios"]
"""Where weights come from: logged propensities, a model of propensities, marginal ratios that this log gave."""

SENSITIVITY = (1.0, 1.25, 1.5, 2.0)
"""Factors by which the odds of an estimated propensity may be wrong, for the printed range (EVALUATION, section 7)."""


class Withheld(Exception):
    """An estimator cannot be computed on this record; the message is the reason."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the caller wants, beside the record and the policy.

    Attributes:
        names: estimators.
        reward_range: (lowest, highest) possible reward, or None.
        gamma: discount per step of trajectories.
        level: coverage, in (0, 1).
        seed: of folds, halves and bootstrap.
        reward_model: scikit-learn estimator for q_hat, or None for the default.
        folds: of the reward model.
        q_weights: how its rows are weighted, or None.
        interval: "default", or limits of IPS without asymptotics.
    """

    names: tuple[EstimatorName, ...]
    reward_range: tuple[float, float] | None = None
    gamma: float = 1.0
    level: float = 0.95
    seed: int = 0
    reward_model: Any = None
    folds: int = 3
    q_weights: str | None = None
    interval: str = "default"

    def __post_init__(self) -> None:
        if not 0 < self.level < 1:
            raise InputError(f"level: {self.level:g} must be between 0 and 1")
        if not 0 <= self.gamma <= 1:
            raise InputError(f"gamma: {self.gamma:g} must be between 0 and 1")
        checked_interval(self.interval)

    @property
    def needs_model(self) -> bool:
        """Whether an estimator asked for reads q_hat."""
        return any(name.info.needs_model for name in self.names)


@dataclass(slots=True)
class Prepared:
    """A record under one policy.

    Attributes:
        record: kind of log.
        units: which unit belongs to which user.
        level: coverage of the intervals.
        root: of folds, halves and bootstrap.
        reward_range: (lowest, highest) possible reward of a unit, or None where unknown.
        rounds, weighted: bandit rounds and their columns.
        pi_e, model: matrices [n, A] of the policy and of its reward model, where they are at hand.
        slates, stepped: the other kinds of record.
        support: mass of the policy where the logging policy never goes.
        estimated: propensities were not logged.
        reasons: why nothing but a model's value may be given.
        no_model: why there is no q_hat.
        diagnostics, notes: said with every estimate.
    """

    record: Record
    units: Units
    level: float
    root: np.random.SeedSequence
    reward_range: tuple[float, float] | None
    rounds: Rounds | None = None
    weighted: bandit.Weighted | None = None
    pi_e: bandit.Matrix | None = None
    model: bandit.Matrix | None = None
    slates: Slates | None = None
    stepped: trajectory.Stepped | None = None
    support: Support = FULL_SUPPORT
    estimated: bool = False
    reasons: list[str] = field(default_factory=list)
    no_model: str | None = None
    diagnostics: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    _facts: dict[int, tuple[Any, WeightFacts]] = field(default_factory=dict)
    _binding: Floats | None = None
    _normalised: dict[int, tuple[Any, Floats]] = field(default_factory=dict)
    _disagreements: dict[str, tuple[float, float]] | None = None
    _bounded: Estimate | None = None

    def rng(self, *name: str | int) -> np.random.Generator:
        """Generator of a named use."""
        return stream(self.root, "off_policy", *name)

    def facts(self, weight: Floats) -> WeightFacts:
        """Facts of weights; the same array is measured once."""
        if id(weight) not in self._facts:
            self._facts[id(weight)] = (weight, weight_facts(weight, self.units))
        return self._facts[id(weight)][1]

    def sums(self, name: EstimatorName) -> tuple[Sums, Floats | None, dict[str, Any]]:
        """User sums of an estimator, the weights that should average 1, and further diagnostics of its own."""
        if name.info.needs_model and self.no_model:
            raise Withheld(self.no_model)
        try:
            if self.record == "bandit":
                return self._bandit(name)
            if self.record == "slate":
                return self._slate(name)
            return self._trajectory(name)
        except MissingColumns as missing:
            raise Withheld(str(missing)) from missing

    def _bandit(self, name: EstimatorName) -> tuple[Sums, Floats | None, dict[str, Any]]:
        x, units = self.weighted, self.units
        assert x is not None
        if name.base in ("mips", "snmips"):
            w, how = self._embedding_weights()
            terms = bandit.mips_terms(w, x.r, self_normalised=name.base == "snmips")
            return self._at_once(terms), w, {"p_e_a": how}
        parts = list(slices(units.n, COLUMN_ROWS))
        if name.tuner is not None:
            first = halves(units, self.rng("tune", name.base))
            chosen = choose(name.base, name.tuner, x, units, first)
            found = sum_terms(
                ((part, tuned_terms(name.base, x.take(part), first[part], chosen)) for part in parts), units
            )
            return found, x.w, {"lambda": list(chosen), "bias_bound": found.bias}
        found = sum_terms(((part, bandit.bandit_terms(name, x.take(part))) for part in parts), units)
        own = {} if name.tuning is None else {"lambda": name.tuning, "bias_bound": found.bias}
        return found, None if found.family == "model" else x.w, own

    def _at_once(self, terms: Terms) -> Sums:
        return sum_terms([(slice(0, self.units.n), terms)], self.units)

    def _embedding_weights(self) -> tuple[Floats, str]:
        rounds, pi_e = self.rounds, self.pi_e
        if rounds is None or pi_e is None:
            raise Withheld("mips: needs the whole policy at every round; ask for ips, snips or dr")
        if rounds.pi_b is None or rounds.action_embed is None:
            raise Withheld("pi_b: mips needs pi_b [n, A] and action_embed [n, e] in the log; add them")
        if rounds.p_e_a is not None:
            return bandit.embedding_weights(rounds, pi_e, rounds.p_e_a), "given"
        if rounds.context is None:
            raise Withheld("p_e_a: not in the log, and no context to estimate it from; add either")
        fold = user_folds(rounds.cluster, rounds.n_users, len(rounds), 2, self.rng("folds", "embedding"))
        weights = bandit.estimated_embedding_weights(rounds, pi_e.whole(), fold)
        return weights, "logistic regression, cross-fitted by user"

    def _slate(self, name: EstimatorName) -> tuple[Sums, Floats | None, dict[str, Any]]:
        slates = self.slates
        assert slates is not None
        if not name.base.endswith("aips"):
            terms = slate.slate_terms(name.base, slates)
            return self._at_once(terms), terms.weight, {}
        first = halves(self.units, self.rng("tune", "aips"))
        w = np.empty(slates.action.shape)
        chosen = []
        for here in (first, ~first):  # the sets are chosen on one half of the users and used on the other
            both, names = slate.adaptive_weights(slates, ~here)
            w[here] = both[here]
            chosen.append(" | ".join(names))
        terms = slate.slot_terms(
            w, slates.reward, self_normalised=name.base.startswith("sn_"), assumes=name.info.assumption
        )
        return self._at_once(terms), w, {"slot_sets": chosen}

    def _trajectory(self, name: EstimatorName) -> tuple[Sums, Floats | None, dict[str, Any]]:
        assert self.stepped is not None
        terms = trajectory.trajectory_terms(name, self.cut(name))
        return self._at_once(terms), terms.weight, {}

    def rests_on_estimated_ratios(self, name: EstimatorName) -> bool:
        """Whether marginal ratios that this log itself gave make up all of an estimate: no interval holds their error.

        Measured on a 4-state process with 500 trajectories: that of `sam_is` covers .70, of `sam_dr` .92.
        """
        return "marginal_ratios" in self.diagnostics and name.base.endswith(("_is", "_snis"))

    def weight_source(self, name: EstimatorName) -> WeightSource:
        """Where an estimator's weights come from."""
        if "marginal_ratios" in self.diagnostics and name.base.startswith(("sm_", "sam_", "drl")):
            return "ratios"
        return "estimated" if self.estimated else "logged"

    def cut(self, name: EstimatorName) -> trajectory.Stepped:
        """The steps that an estimator is asked for: all, or the first few."""
        assert self.stepped is not None
        steps = name.parameters.get("steps")
        return self.stepped if steps is None else self.stepped.first(int(steps))

    def binding_scores(self, name: EstimatorName, weight: Floats | None, *, own: bool) -> tuple[Floats, ...]:
        """[G] each: what binds an estimate beside its own scores, which need not see all that large weights carry.

        A doubly robust estimate does not see rewards that did not occur: the scores of IPS do (`own` false). A mean of
        w r does not see a large weight whose reward happens to be 0, however much of the policy it stands for: the
        scores of the same weights self-normalised do, as they are the same wherever the reward's zero is put.
        """
        found = [] if own else [self._ips_scores(name)]
        if weight is not None and not (own and name.info.needs_model):
            found.append(self._normalised_scores(weight))
        return tuple(found)

    def _ips_scores(self, name: EstimatorName) -> Floats:
        """[G] scores of IPS, or of per-decision weights; those of IPS are made once."""
        if self.record != "bandit":
            return self._at_once(trajectory.ips_like(self.cut(name))).ratios.scores()
        if self._binding is None:
            self._binding = self._bandit(parse("ips"))[0].ratios.scores()
        return self._binding

    def _normalised_scores(self, weight: Floats) -> Floats:
        """[G] scores of the mean reward under weights [N] or [N, S] over their mean; the same array is summed once."""
        if id(weight) not in self._normalised:
            ratios = self._normalised_sums(weight).ratios
            # Without any weight nothing was rewarded either, which W2 sees.
            scores = ratios.scores() if ratios.defined else np.zeros(self.units.n_users)
            self._normalised[id(weight)] = (weight, scores)
        return self._normalised[id(weight)][1]

    def _normalised_sums(self, weight: Floats) -> Sums:
        if self.weighted is not None:
            r = self.weighted.r
            parts = slices(self.units.n, COLUMN_ROWS)
            return sum_terms(
                ((part, bandit.mips_terms(weight[part], r[part], self_normalised=True)) for part in parts), self.units
            )
        if self.slates is not None:
            rewards = self.slates.reward
        else:
            assert self.stepped is not None
            rewards = self.stepped.discount * self.stepped.r
        if weight.ndim == 1:
            weight, rewards = weight[:, None], rewards.sum(axis=1)[:, None]
        rewards = rewards[:, : weight.shape[1]]
        return self._at_once(slate.slot_terms(weight, rewards, self_normalised=True, assumes=""))

    def logged(self) -> Sums:
        """The logging policy's own mean: of rewards, slates' rewards or returns."""
        if self.record == "bandit":
            assert self.weighted is not None
            rows = self.weighted.r
        elif self.record == "slate":
            assert self.slates is not None
            rows = self.slates.reward.sum(axis=1)
        else:
            assert self.stepped is not None
            rows = self.stepped.r @ self.stepped.discount
        terms = Terms(
            family="ratio",
            numerators=(rows,),
            denominators=(None,),
            weighted=rows,
            low_rows=rows,
            high_rows=rows,
        )
        return self._at_once(terms)

    def returns(self) -> tuple[Floats, Floats]:
        """Return and weight of each unit, for functionals of the distribution."""
        if self.weighted is not None:
            return self.weighted.r, self.weighted.w
        if self.slates is not None:
            try:
                return self.slates.reward.sum(axis=1), slate.joint_weight(self.slates)
            except MissingColumns as missing:
                raise Withheld(str(missing)) from missing
        assert self.stepped is not None
        return self.stepped.r @ self.stepped.discount, self.stepped.rho.prod(axis=1)

    def bounded(self, make: Callable[[], Estimate]) -> Estimate:
        """The bounded estimate that stands beside every withheld one; made once."""
        if self._bounded is None:
            self._bounded = make()
        return self._bounded

    def disagreements(self) -> dict[str, tuple[float, float]]:
        """Rule W8: name -> (difference, z) of its largest disagreement with an estimator that assumes less."""
        if self._disagreements is None:
            self._disagreements = self._disagree()
        return self._disagreements

    def _disagree(self) -> dict[str, tuple[float, float]]:
        found: dict[str, tuple[float, Floats]] = {}
        pairs: tuple[tuple[str, str], ...] = ()
        if self.record == "bandit" and self.weighted is not None and self.weighted.q is not None:
            pairs = (("ips", "dr"), ("snips", "dr"))
        elif self.record == "slate":
            pairs = (("iips", "rips"), ("iips", "sips"), ("rips", "sips"))
        for base in dict.fromkeys(name for pair in pairs for name in pair):
            try:
                ratios = self.sums(parse(base))[0].ratios
            except Withheld:
                continue  # that twin is not in the log: there is nothing to compare
            if ratios.defined:
                found[base] = (ratios.value, ratios.scores())
        out: dict[str, tuple[float, float]] = {}
        for strong, weak in pairs:
            if strong in found and weak in found:
                gap = found[strong][0] - found[weak][0]
                error = standard_error(found[strong][1] - found[weak][1])  # scores of one log are added user by user
                if error > 0 and abs(gap / error) >= abs(out.get(strong, (0.0, 0.0))[1]):
                    out[strong] = (gap, gap / error)
        return out


def known_range(reward: Floats, given: tuple[float, float] | None, what: str = "reward") -> tuple[float, float] | None:
    """The possible rewards: as given, (0, 1) where all are yes or no, else unknown.

    Raises:
        InputError: the given range is none, or does not hold what was observed.
    """
    lowest, highest = float(reward.min()), float(reward.max())
    if given is None:
        # yes/no rewards bring their range along; an observed maximum of other rewards proves nothing
        binary = lowest >= 0 and highest <= 1 and bool(np.all((reward == 0) | (reward == 1)))
        return (0.0, 1.0) if binary else None
    low, high = float(given[0]), float(given[1])
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InputError(f"reward_range: '{low:g},{high:g}' must be two numbers, the lower first")
    if lowest < low or highest > high:
        raise InputError(
            f"reward_range: '{low:g},{high:g}' does not hold the observed {what} {lowest:g} to {highest:g}; widen it"
        )
    return low, high


def prepare(
    record: Rounds | Slates | Trajectories, pi_e: Any, asked: Asked, *, q_hat: Any, q_hat_source: str
) -> Prepared:
    """Reduce a record and a policy.

    Raises:
        InputError, LogError: something given cannot be used.
    """
    if "simulator" in q_hat_source.lower():
        raise InputError(
            f"q_hat_source: '{q_hat_source}' may not enter an estimate from the log; leave q_hat out to cross-fit it"
        )
    if isinstance(record, Slates):
        return _prepare_slates(record, asked)
    if isinstance(record, Trajectories):
        return _prepare_trajectories(record, asked, q_hat, q_hat_source)
    if pi_e is None:
        raise InputError("pi_e: bandit rounds need the evaluation policy's probabilities [n, n_actions]; give them")
    return _prepare_rounds(record, pi_e, asked, q_hat, q_hat_source)


def _prepare_slates(log: Slates, asked: Asked) -> Prepared:
    units = Units.of(log.cluster, log.n_users, len(log))
    total = log.reward.sum(axis=1)
    prepared = Prepared(
        "slate",
        units,
        asked.level,
        np.random.SeedSequence(asked.seed),
        known_range(total, asked.reward_range, "slate reward"),
        slates=log,
    )
    if log.pi_e_action_dist is not None and log.pscore_item_position is not None and slate.factorises(log):
        n, slots, actions = log.pi_e_action_dist.shape
        prepared.support = measure_support(
            log.pi_e_action_dist.reshape(n * slots, actions),
            log.action.reshape(-1),
            np.tile(np.arange(slots), n),
            slate.item_weight(log).reshape(-1),
            _repeated(units, slots),
            asked.level,
        )
    return prepared


def _repeated(units: Units, times: int, keep: NDArray[np.bool_] | None = None) -> Units:
    cluster = np.repeat(np.arange(units.n) if units.cluster is None else units.cluster, times)
    cluster = cluster if keep is None else cluster[keep]
    return Units.of(cluster, units.n_users, len(cluster))


def _prepare_trajectories(log: Trajectories, asked: Asked, q_hat: Floats | None, q_hat_source: str) -> Prepared:
    units = Units.of(log.cluster, log.n_users, len(log))
    root = np.random.SeedSequence(asked.seed)
    prepared = Prepared("trajectory", units, asked.level, root, asked.reward_range)
    names = asked.names
    given = q_hat if q_hat is not None else log.q_hat
    only_initial = all(name.base.endswith("dm") for name in names if name.info.needs_model)
    if given is not None or (log.initial_value is not None and only_initial):
        prepared.diagnostics["q_hat"] = q_hat_source
    elif log.state is not None and asked.needs_model:
        fitted = fitted_q(
            log, asked.gamma, prepared.rng("folds", "q_hat"), model=asked.reward_model, folds=max(asked.folds, 2)
        )
        given = fitted.q_hat
        prepared.diagnostics["q_hat"] = fitted.method
        prepared.diagnostics["bellman_residual"] = [fitted.bellman_residual, fitted.bellman_error]
    stepped = trajectory.reduce_steps(log, asked.gamma, given)
    marginal = any(name.base.startswith(("sm_", "sam_", "drl")) for name in names)
    if marginal and stepped.state is None and stepped.state_action is None and log.state is not None:
        state, state_action, how = marginal_ratios(log, stepped.rho, prepared.rng("folds", "marginal"))
        stepped = replace(stepped, state=state, state_action=state_action)
        prepared.diagnostics["marginal_ratios"] = how
    prepared.stepped = stepped
    n, steps, actions = log.pi_e.shape
    alive = log.alive.reshape(-1)
    prepared.support = measure_support(
        log.pi_e.reshape(n * steps, actions)[alive],
        log.action.reshape(-1)[alive],
        None,
        stepped.rho.reshape(-1)[alive],
        _repeated(units, steps, alive),
        asked.level,
    )
    return prepared


@dataclass(frozen=True, slots=True)
class Propensities:
    """Propensities of a log that has none.

    Attributes:
        pscore: [n] estimated propensity of the logged action.
        reasons: why estimates that rest on them are withheld (rules W6, W7).
        diagnostics: calibration and slope.
    """

    pscore: Floats
    reasons: tuple[str, ...]
    diagnostics: dict[str, Any]

    @classmethod
    def of(cls, rounds: Rounds, n_actions: int, units: Units, rng: np.random.Generator, level: float) -> Propensities:
        """Estimate them from the context and check them (section 2 of EVALUATION)."""
        all_, floored = estimate_propensities(rounds, n_actions, rng)
        rows, slope, limits, why = propensity_calibration(all_, rounds.action, units, level)
        if floored > MAX_FLOORED:
            why.append(
                f"W6: the estimated propensity of {floored:.1%} of rounds is below {FLOOR:g}, needs at most "
                f"{MAX_FLOORED:.0%}; log propensities"
            )
        found = {"propensity_calibration": rows, "propensity_slope": [slope, *limits]}
        return cls(np.maximum(all_[np.arange(len(rounds)), rounds.action], 1e-9), tuple(why), found)


def _prepare_rounds(rounds: Rounds, pi_e: Any, asked: Asked, q_hat: Any, q_hat_source: str) -> Prepared:
    policy = bandit.Matrix.of(rounds, pi_e, "pi_e")
    units = Units.of(rounds.cluster, rounds.n_users, len(rounds))
    root = np.random.SeedSequence(asked.seed)
    span = known_range(rounds.reward, asked.reward_range)

    def rng(*name: str) -> np.random.Generator:
        return stream(root, "off_policy", *name)

    propensities = None
    if rounds.pscore is None:
        propensities = Propensities.of(rounds, policy.shape[1], units, rng("folds", "propensity"), asked.level)
        rounds = replace(rounds, pscore=propensities.pscore)
    no_model, diagnostics, model = None, {}, None
    if q_hat is not None:
        model = bandit.Matrix.of(rounds, q_hat, "q_hat")
        diagnostics["q_hat"] = q_hat_source
    elif asked.needs_model:
        if rounds.context is None and rounds.action_features is None:
            no_model = "q_hat: not given, and no context to fit it from; give q_hat, or context in the log"
        else:
            weights = _row_weights(rounds, policy, asked.q_weights)
            fitted, how = cross_fit_q(
                rounds, policy.shape[1], rng("folds", "q_hat"), model=asked.reward_model, folds=asked.folds,
                weights=weights,
            )  # fmt: skip
            model = bandit.Matrix.of(rounds, fitted, "q_hat")
            diagnostics["q_hat"] = how if asked.q_weights is None else f"{how}, {Q_WEIGHTS[asked.q_weights]}"
    reduced = bandit.reduce_rounds(rounds, policy, model, span)
    return prepare_reduced(
        rounds, reduced, level=asked.level, seed=asked.seed, propensities=propensities, no_model=no_model,
        diagnostics=diagnostics, pi_e=policy, model=model,
    )  # fmt: skip


def prepare_continuous(rounds: ContinuousRounds, pi_e: Any, bandwidth: float, asked: Asked) -> Prepared:
    """Rounds with a continuous action under the policy that a kernel blurs."""
    policy = blur(rounds, pi_e, bandwidth)
    values, diagnostics = None, {}
    if asked.needs_model:
        rng = stream(np.random.SeedSequence(asked.seed), "off_policy", "folds", "q_hat")
        values, how = cross_fit_values(rounds, policy, rng, model=asked.reward_model, folds=asked.folds)
        diagnostics["q_hat"] = how
    reduced = reduce_continuous(rounds, policy, values, known_range(rounds.reward, asked.reward_range))
    note = f"the policy blurred by an Epanechnikov kernel of half-width {bandwidth:g}"
    return prepare_reduced(
        as_rounds(rounds), reduced, level=asked.level, seed=asked.seed, diagnostics=diagnostics, notes=[note]
    )


Q_WEIGHTS = {
    "importance": "rows weighted by w",
    "mrdr": "rows weighted by w (1 - p) / p (more robust doubly robust)",
}
"""How the rows of a reward model may be weighted towards the policy (Farajtabar, Chow, Ghavamzadeh 2018)."""


def _row_weights(rounds: Rounds, policy: bandit.Matrix, how: str | None) -> Floats | None:
    if how is None:
        return None
    if how not in Q_WEIGHTS:
        raise InputError(f"q_weights: '{how}' is none of {', '.join(Q_WEIGHTS)}")
    w = bandit.reduce_rounds(rounds, policy, None, None).weighted.w
    assert rounds.pscore is not None
    return w if how == "importance" else w * (1 - rounds.pscore) / rounds.pscore


def prepare_reduced(
    rounds: Rounds,
    reduced: bandit.Reduced,
    *,
    level: float,
    seed: int,
    propensities: Propensities | None = None,
    no_model: str | None = None,
    diagnostics: dict[str, Any] | None = None,
    notes: Sequence[str] = (),
    reasons: Sequence[str] = (),
    pi_e: bandit.Matrix | None = None,
    model: bandit.Matrix | None = None,
) -> Prepared:
    """A policy that was reduced to columns before: the same estimates without its n x A probabilities."""
    units = Units.of(rounds.cluster, rounds.n_users, len(rounds))
    prepared = Prepared(
        "bandit",
        units,
        level,
        np.random.SeedSequence(seed),
        reduced.weighted.reward_range,
        rounds=rounds,
        weighted=reduced.weighted,
        pi_e=pi_e,
        model=model,
        support=support_of(reduced.unsupported, units, level, exact=rounds.pi_b is not None),
        no_model=no_model,
        diagnostics=dict(diagnostics or {}),
        notes=list(notes),
        reasons=list(reasons),
    )
    if propensities is not None:
        prepared.estimated = True
        prepared.notes.append(METHOD)
        prepared.reasons += propensities.reasons
        prepared.diagnostics |= propensities.diagnostics
        x = reduced.weighted
        prepared.diagnostics["sensitivity"] = sensitivity_range(
            x.w * propensities.pscore, propensities.pscore, x.r, SENSITIVITY
        )
    return prepared
