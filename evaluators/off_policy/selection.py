"""Choosing among estimators and among policies, and how far either choice may be believed.

`select` chooses an estimator by cross-validation (Cief, Kveton, Kompan 2024: on random splits of the users an estimate
from one part is held against an unbiased one from the other) or by importance fitting (PAS-IF, Udagawa et al. 2023: on
random deals of the rounds an estimate from a pseudo log is held against a pseudo on-line test). It chooses on one half
of the users what it reports on the other, and says by how much the choice was better than the next one, and with other
users. `sharpe_ratio` scores an estimator by the policies that it would send to an on-line test (SharpeRatio@k, Kiyohara
et al. 2024); that needs their true values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from evaluators.estimate import Estimate
from evaluators.intervals import Ratios, door_interval, find_door, percentile_interval, t_interval
from evaluators.off_policy.bandit import bandit_terms
from evaluators.off_policy.estimation import WITH_ESTIMATED, weight_reason
from evaluators.off_policy.importance_fitting import PseudoExperiment
from evaluators.off_policy.names import parse
from evaluators.off_policy.prepared import Asked, Prepared, Withheld, prepare
from evaluators.off_policy.records import Rounds
from evaluators.off_policy.terms import Sums, json_number
from simulator.errors import InputError, did_you_mean

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

Method = Literal["cross_validation", "importance_fitting"]
METHODS: tuple[Method, ...] = get_args(Method)
SPLITS = 40
"""Random splits of the choosing users, or deals of their rounds, into one part to estimate and one to validate."""
RESAMPLES = 20
"""Resamples of the choosing users: would others have made the same choice?"""
CANDIDATES = ("ips", "snips", "dm", "dr", "ips(clip=10)", "dr(clip=10)", "switch_dr(lambda=5)")


@dataclass(frozen=True, slots=True)
class Choice:
    """What one half of the users said.

    Attributes:
        name: the estimator chosen.
        losses: estimator -> mean squared distance from what it is held against, in the squared unit of the reward.
        margin: next best loss minus the chosen one.
        error: standard deviation of the margin over resamples of the users: its sampling error, not only that of the
            random splits.
        stability: share of the resamples that choose the same.
        apart: how far the pseudo experiment is from what is asked (importance fitting): of weights, of policies.
    """

    name: str
    losses: Mapping[str, float]
    margin: float
    error: float
    stability: float
    apart: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, losses: Mapping[str, Floats], apart: Mapping[str, float] | None = None) -> Choice:
        """From estimator -> [1 + resamples, splits] squared distances, the users as they are first."""
        means = {name: np.where(np.isfinite(loss), loss, np.inf).mean(axis=1) for name, loss in losses.items()}
        names = sorted(means, key=lambda name: means[name][0])
        best, second = names[:2]
        table = np.stack([means[name] for name in names])
        with np.errstate(invalid="ignore"):
            margins = means[second] - means[best]
            # Resampling adds its own variance to every loss, more to those of wild weights: only the spread is of use.
            table[:, 1:] += table[:, :1] - table[:, 1:].mean(axis=1, keepdims=True)
        known = bool(np.isfinite(margins).all())
        finite = {name: float(value[0]) if math.isfinite(value[0]) else -1.0 for name, value in means.items()}
        return cls(
            best,
            {name: finite[name] for name in losses},
            float(margins[0]) if known else 0.0,
            float(margins[1:].std(ddof=1)) if known else 0.0,
            float((table[:, 1:].argmin(axis=0) == 0).mean()),
            apart or {},
        )

    def to_json(self) -> dict[str, Any]:
        """JSON-ready dictionary; `clear` where the margin is more than two of its errors."""
        out = {"chosen": self.name, "losses": dict(self.losses), "margin": self.margin, "error": self.error,
               "stability": self.stability, "clear": bool(self.margin > 2 * self.error)}  # fmt: skip
        return {**out, **self.apart}


def chosen_method(text: str) -> Method:
    """A method of choosing by its name.

    Raises:
        InputError: there is no such method.
    """
    for method in METHODS:
        if text == method:
            return method
    raise InputError(f"method: '{text}' is none of {', '.join(METHODS)}{did_you_mean(text, METHODS)}")


def select(
    rounds: Rounds,
    pi_e: Any,
    *,
    candidates: Sequence[str] = CANDIDATES,
    method: Method = "cross_validation",
    q_hat: Any = None,
    q_hat_source: str = "given",
    reward_range: tuple[float, float] | None = None,
    level: float = 0.95,
    force: bool = False,
    seed: int = 0,
    reward_model: Any = None,
    folds: int = 3,
) -> Estimate:
    """Value of a policy by the estimator that a method chooses, chosen and reported on different users.

    Arguments as in `estimate`. Candidates are bandit estimators without a tuned parameter. Where the choice falls on
    the model alone there is no interval; where it falls on smaller weights the limits hold their bias.

    `cross_validation` compares with an unbiased estimate, so it sees little where weights are wild.
    `importance_fitting` compares with rewards as they came, under a pseudo policy with like weights; it needs the
    logging policy's probability of every action (`pi_b`), and says how far its weights are from those in question.

    Raises:
        InputError: a candidate or the method is unknown or cannot be used on this log.
    """
    method = chosen_method(method)
    names = [parse(text, "bandit") for text in dict.fromkeys(candidates)]
    for name in names:
        if name.tuner is not None or name.info.family == "distribution":
            raise InputError(f"candidates: '{name.asked}' cannot be chosen; give estimators of the mean, untuned")
        if method == "importance_fitting" and name.base in ("mips", "snmips"):
            raise InputError(f"candidates: '{name.asked}' has weights of embeddings; choose it by cross_validation")
    if method == "importance_fitting" and rounds.pi_b is None:
        raise InputError(
            "method: importance_fitting needs pi_b [n, A] in the log, the logging policy's probability of every action;"
            " add it, or choose by cross_validation"
        )
    asked = Asked((*names, parse("dr")), reward_range, 1.0, level, seed, reward_model, folds)
    prepared = prepare(rounds, pi_e, asked, q_hat=q_hat, q_hat_source=q_hat_source)
    sums: dict[str, Sums] = {}
    for name in names:
        try:
            found = prepared.sums(name)[0]
        except Withheld:
            continue  # what the log lacks is no candidate
        usable = not prepared.estimated or (name.base in WITH_ESTIMATED and not name.shrunk)
        if found.ratios.defined and usable:
            sums[name.asked] = found
    if len(sums) < 2:
        why = "select: fewer than two candidates can be computed on this log; add context or q_hat"
        return Estimate.withhold(f"selected by {_SAID[method]}", why, n=prepared.units.n_users, level=level)
    return _reported(prepared, sums, method, force=force)


_SAID: Mapping[Method, str] = {
    "cross_validation": "cross-validation",
    "importance_fitting": "importance fitting (PAS-IF)",
}


def _reported(prepared: Prepared, sums: Mapping[str, Sums], how: Method, *, force: bool) -> Estimate:
    units, level = prepared.units, prepared.level
    half = prepared.rng("select", "halves").permutation(units.n_users) % 2 == 0
    experiment = None
    if how == "importance_fitting":
        assert prepared.rounds is not None
        assert prepared.pi_e is not None
        assert prepared.weighted is not None
        experiment = PseudoExperiment.of(prepared.rounds, prepared.pi_e, prepared.weighted, prepared.model)
    unbiased = _unbiased(prepared)
    total = float(units.counts.sum())
    scores, low_scores, high_scores = (np.zeros(units.n_users) for _ in range(3))
    value = low_value = high_value = 0.0
    choices = []
    for number, here in enumerate((half, ~half)):
        rng = prepared.rng("select", "splits", number)
        if experiment is None:
            choice = Choice.of(_cross_validated(sums, unbiased, ~here, rng))
        else:
            apart = {"weights_apart": experiment.weights_apart, "policies_apart": experiment.policies_apart}
            choice = Choice.of(_pseudo_losses(prepared, experiment, list(sums), ~here, rng), apart)
        choices.append(choice)
        chosen, share = sums[choice.name], float(units.counts[here].sum()) / total
        ratios = _part(chosen.ratios, here)
        low, high = (_part(part, here) if part is not None else ratios for part in (chosen.low, chosen.high))
        value, low_value, high_value = (
            value + share * ratios.value, low_value + share * low.value, high_value + share * high.value,
        )  # fmt: skip
        scores[here], low_scores[here], high_scores[here] = (share * part.scores() for part in (ratios, low, high))
    picked = [sums[choice.name] for choice in choices]
    names = [parse(choice.name) for choice in choices]
    weights = [prepared.facts(prepared.weighted.w)] if prepared.weighted is not None else []
    base: dict[str, Any] = {"n": units.n, "users": units.n_users, "selection": [c.to_json() for c in choices]}
    method = f"selected by {_SAID[how]}: {choices[0].name} for one half of the users, {choices[1].name} for the other"
    if any(part.family == "model" for part in picked):
        method += "; model only, no coverage claim"
        return _settled(prepared, method, value, None, None, _supports(prepared), base, force=force)
    why_weights = weight_reason(weights[0], prepared.weight_source(names[0]))
    reasons = [*prepared.reasons, *([why_weights] if why_weights else [])]
    if any(name.shrunk and part.low is None for name, part in zip(names, picked, strict=True)):
        method += "; limits withheld: no reward_range"
        return _settled(prepared, method, value, None, None, reasons, base, force=force)
    low_end = t_interval(low_value, low_scores, level)[0]
    high_end = t_interval(high_value, high_scores, level)[1]
    if not all(name.shrunk for name in names):
        own = all(part.own for part in picked)
        weight = None if prepared.weighted is None else prepared.weighted.w
        binding = (scores, *prepared.binding_scores(parse("ips"), weight, own=own))
        least = min(part.n_pos for part in picked if part.n_pos is not None)
        door = find_door(binding, least, weights[0].ratio)
        reasons += [*door.reasons, *_supports(prepared)]
        base |= {"n_inf": json_number(door.n_inf), "n_pos": door.n_pos, "door": door.number}
        if door.number == 3:
            both = Ratios(np.stack([scores * units.n_users + value]), np.ones((1, units.n_users)))
            a, b, _ = door_interval(both, scores, 3, level, prepared.rng("bootstrap", "select"))
            low_end, high_end = min(low_end, a), max(high_end, b)
    method += "; user-cluster t, chosen and reported on different users"
    return _settled(prepared, method, value, min(low_end, value), max(high_end, value), reasons, base, force=force)


def _supports(prepared: Prepared) -> list[str]:
    return [prepared.support.reason] if prepared.support.reason else []


def _settled(
    prepared: Prepared,
    method: str,
    value: float,
    low: float | None,
    high: float | None,
    reasons: list[str],
    base: dict[str, Any],
    *,
    force: bool,
) -> Estimate:
    n, level = prepared.units.n_users, prepared.level
    method = "; ".join([method, *prepared.notes])
    if not reasons:
        return Estimate(value, low, high, level, n, method, None, base)
    why = " | ".join(reasons)
    if force:
        return Estimate(value, low, high, level, n, f"{method}; forced although {why}", None, base | {"forced": why})
    return Estimate.withhold(method, why, n=n, level=level, diagnostics=base)


def _unbiased(prepared: Prepared) -> Ratios:
    """What candidates are held against: dr where there is a model, else ips (snips for estimated propensities)."""
    try:
        return prepared.sums(parse("dr"))[0].ratios
    except Withheld:
        return prepared.sums(parse("snips" if prepared.estimated else "ips"))[0].ratios


def _part(ratios: Ratios, users: Bools) -> Ratios:
    return Ratios(ratios.numerator[:, users], ratios.denominator[:, users])


def _resampled(n_users: int, rng: np.random.Generator) -> Floats:
    """[1 + RESAMPLES, n_users] how often each user counts: once, then as drawn with replacement."""
    drawn = rng.multinomial(n_users, np.full(n_users, 1 / n_users), RESAMPLES)
    return np.concatenate([np.ones((1, n_users)), drawn.astype(np.float64)])


def _cross_validated(
    sums: Mapping[str, Sums], unbiased: Ratios, users: Bools, rng: np.random.Generator
) -> dict[str, Floats]:
    """[1 + RESAMPLES, SPLITS] squared distance of each candidate from the unbiased estimate of other users."""
    who = np.flatnonzero(users)
    splits = np.zeros((SPLITS, len(who)))
    for k in range(SPLITS):
        splits[k, rng.permutation(len(who))[: len(who) // 2]] = 1.0
    counts = _resampled(len(who), rng)

    def values(ratios: Ratios, weight: Floats) -> Floats:
        parts = zip(ratios.numerator[:, who], ratios.denominator[:, who], strict=True)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(
                sum(((counts * top) @ weight.T) / ((counts * bottom) @ weight.T) for top, bottom in parts)
            )

    truth = values(unbiased, 1 - splits)
    return {name: (values(one.ratios, splits) - truth) ** 2 for name, one in sums.items()}


def _pseudo_losses(
    prepared: Prepared, experiment: PseudoExperiment, names: Sequence[str], users: Bools, rng: np.random.Generator
) -> dict[str, Floats]:
    """[1 + RESAMPLES, SPLITS] squared distance of each candidate from the pseudo on-line test of the same users."""
    units, x = prepared.units, experiment.weighted
    counts = np.zeros((1 + RESAMPLES, units.n_users))
    counts[:, users] = _resampled(int(users.sum()), rng)

    def mean(rows: Floats | None, kept: Bools) -> Floats:
        return counts @ units.sums(kept.astype(np.float64) if rows is None else np.where(kept, rows, 0.0))

    terms = {name: bandit_terms(parse(name, "bandit"), x) for name in names}
    losses = {name: np.empty((1 + RESAMPLES, SPLITS)) for name in names}
    for k, tested in enumerate(experiment.deals(rng, SPLITS)):
        with np.errstate(divide="ignore", invalid="ignore"):
            online = mean(x.r, tested) / mean(None, tested)
            for name, one in terms.items():
                parts = zip(one.numerators, one.denominators, strict=True)
                found = sum(mean(top, ~tested) / mean(bottom, ~tested) for top, bottom in parts)
                losses[name][:, k] = (found - online) ** 2
    return losses


@dataclass(frozen=True, slots=True)
class Portfolio:
    """The k policies that an estimator would send to an on-line test, scored by what they are truly worth.

    Attributes:
        k: policies tested.
        best: true value of the best of them; spread: standard deviation of their true values.
        ratio: (best - logged) / spread, SharpeRatio@k; None where the k are worth the same.
        regret: true value of the best policy of all minus `best`.
        low, high: limits of the ratio, None where there are none.
    """

    k: int
    best: float
    spread: float
    ratio: float | None
    regret: float
    low: float | None = None
    high: float | None = None


def sharpe_ratio(estimated: Mapping[str, float], truth: Mapping[str, float], *, logged: float, k: int) -> Portfolio:
    """SharpeRatio@k of an estimator over a candidate set of policies (Kiyohara et al. 2024).

    Args:
        estimated: policy -> its estimate; policies without one cannot be chosen.
        truth: policy -> its true value.
        logged: true value of the logging policy, the safe alternative to testing.
        k: policies that may be tested.

    Raises:
        InputError: fewer than k policies have an estimate, or k is below 2.
    """
    if k < 2 or len(estimated) < k:
        raise InputError(f"k: {k} must be 2 or more, and {len(estimated)} policies have an estimate")
    chosen = sorted(estimated, key=lambda name: (-estimated[name], name))[:k]
    values = np.array([truth[name] for name in chosen])
    best, spread = float(values.max()), float(values.std())
    ratio = (best - logged) / spread if spread > 1e-12 else None
    return Portfolio(k, best, spread, ratio, max(truth.values()) - best)


PORTFOLIO_RESAMPLES = 1000
MOST_UNDEFINED = 0.05
"""Share of resamples in which the k policies may be worth the same, so that the ratio is none."""


def sharpe_ratio_interval(
    estimated: Mapping[str, Ratios],
    truth: Mapping[str, Ratios],
    rng: np.random.Generator,
    *,
    logged: Ratios,
    k: int,
    level: float = 0.95,
) -> Portfolio:
    """SharpeRatio@k with limits: user-cluster percentile bootstrap, estimates, choice and true values recomputed.

    It is about SharpeRatio@k of all users, of whom those of the log are a sample. No limits where more than a twentieth
    of the resamples choose policies that are worth the same.

    Args:
        estimated: policy -> its estimate as user sums; policies without one cannot be chosen.
        truth: policy -> its true value as user sums, on the same users.
        rng: draws the resamples.
        logged: true value of the logging policy likewise.
        k: policies that may be tested.
        level: coverage.

    Raises:
        InputError: as `sharpe_ratio`.
    """
    found = sharpe_ratio(
        {name: one.value for name, one in estimated.items()},
        {name: one.value for name, one in truth.items()},
        logged=logged.value,
        k=k,
    )
    if found.ratio is None:
        return found
    n = logged.n_users
    counts = rng.multinomial(n, np.full(n, 1 / n), PORTFOLIO_RESAMPLES).astype(np.float64)

    def values(ratios: Ratios) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(((counts @ ratios.numerator.T) / (counts @ ratios.denominator.T)).sum(axis=1))

    names = sorted(estimated)  # equal estimates are chosen by name, as in `sharpe_ratio`
    estimates = np.stack([values(estimated[name]) for name in names], axis=1)  # [resamples, policies]
    worth = np.stack([values(truth[name]) for name in names], axis=1)
    chosen = np.argsort(-estimates, axis=1, kind="stable")[:, :k]
    sent = np.take_along_axis(worth, chosen, axis=1)
    spread = sent.std(axis=1)
    defined = spread > 1e-12
    if np.mean(~defined) > MOST_UNDEFINED:
        return found
    ratios = ((sent.max(axis=1) - values(logged)) / np.where(defined, spread, 1.0))[defined]
    low, high = percentile_interval(ratios, level)
    return replace(found, low=min(low, found.ratio), high=max(high, found.ratio))
