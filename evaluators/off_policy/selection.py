"""Choosing among estimators and among policies, and how far either choice may be believed.

`select` chooses an estimator by cross-validation (Cief, Kveton, Kompan 2024): on random splits of the users an estimate
from one part is held against an unbiased one from the other. It chooses on one half of the users what it reports on the
other, and says by how much the choice was better than the next one. `sharpe_ratio` scores an estimator by the policies
that it would send to an on-line test (SharpeRatio@k, Kiyohara et al. 2024); that needs their true values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluators.estimate import Estimate
from evaluators.intervals import Ratios, door_interval, find_door, t_interval
from evaluators.off_policy.estimation import WITH_ESTIMATED, weight_reason
from evaluators.off_policy.names import parse
from evaluators.off_policy.prepared import Asked, Prepared, Withheld, prepare
from evaluators.off_policy.records import Rounds
from evaluators.off_policy.terms import Sums, json_number
from simulator.errors import InputError

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

SPLITS = 40
"""Random splits of the choosing users into one part to estimate and one to validate."""
CANDIDATES = ("ips", "snips", "dm", "dr", "ips(clip=10)", "dr(clip=10)", "switch_dr(lambda=5)")


@dataclass(frozen=True, slots=True)
class Choice:
    """What cross-validation said on one half of the users.

    Attributes:
        name: the estimator chosen.
        losses: estimator -> mean squared distance from the unbiased estimate of the validating part.
        margin: mean of the next best loss minus the chosen one, over the splits; error: its standard error over splits.
    """

    name: str
    losses: Mapping[str, float]
    margin: float
    error: float

    def to_json(self) -> dict[str, Any]:
        """JSON-ready dictionary; `clear` where the margin is more than two of its errors."""
        clear = self.margin > 2 * self.error
        return {"chosen": self.name, "losses": dict(self.losses), "margin": self.margin, "clear": bool(clear)}


def select(
    rounds: Rounds,
    pi_e: Any,
    *,
    candidates: Sequence[str] = CANDIDATES,
    q_hat: Any = None,
    q_hat_source: str = "given",
    reward_range: tuple[float, float] | None = None,
    level: float = 0.95,
    force: bool = False,
    seed: int = 0,
    reward_model: Any = None,
    folds: int = 3,
) -> Estimate:
    """Value of a policy by the estimator that cross-validation chooses, chosen and reported on different users.

    Arguments as in `estimate`. Candidates are bandit estimators without a tuned parameter. Where the choice falls on
    the model alone there is no interval; where it falls on smaller weights the limits hold their bias.
    """
    names = [parse(text, "bandit") for text in dict.fromkeys(candidates)]
    for name in names:
        if name.tuner is not None or name.info.family == "distribution":
            raise InputError(f"candidates: '{name.asked}' cannot be chosen; give estimators of the mean, untuned")
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
        return Estimate.withhold("selected by cross-validation", why, n=prepared.units.n_users, level=level)
    return _reported(prepared, sums, force=force)


def _reported(prepared: Prepared, sums: Mapping[str, Sums], *, force: bool) -> Estimate:
    units, level = prepared.units, prepared.level
    half = prepared.rng("select", "halves").permutation(units.n_users) % 2 == 0
    unbiased = _unbiased(prepared)
    total = float(units.counts.sum())
    scores, low_scores, high_scores = (np.zeros(units.n_users) for _ in range(3))
    value = low_value = high_value = 0.0
    choices = []
    for number, here in enumerate((half, ~half)):
        choice = _choose(sums, unbiased, ~here, prepared.rng("select", "splits", number))
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
    method = (
        f"selected by cross-validation: {choices[0].name} for one half of the users, {choices[1].name} for the other"
    )
    if any(part.family == "model" for part in picked):
        method += "; model only, no coverage claim"
        return _settled(prepared, method, value, None, None, _supports(prepared), base, force=force)
    reasons = [*prepared.reasons, *(why for why in [weight_reason(weights[0], estimated=prepared.estimated)] if why)]
    if any(name.shrunk and part.low is None for name, part in zip(names, picked, strict=True)):
        method += "; limits withheld: no reward_range"
        return _settled(prepared, method, value, None, None, reasons, base, force=force)
    low_end = t_interval(low_value, low_scores, level)[0]
    high_end = t_interval(high_value, high_scores, level)[1]
    if not all(name.shrunk for name in names):
        binding = (scores,) if all(part.own for part in picked) else (scores, prepared.binding_scores(parse("ips")))
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


def _choose(sums: Mapping[str, Sums], unbiased: Ratios, users: Bools, rng: np.random.Generator) -> Choice:
    """The candidate that is nearest to the unbiased estimate of users that it has not seen, over random splits."""
    who = np.flatnonzero(users)
    splits = np.zeros((SPLITS, len(who)))
    for k in range(SPLITS):
        splits[k, rng.permutation(len(who))[: len(who) // 2]] = 1.0

    def values(ratios: Ratios, weight: Floats) -> Floats:
        tops, bottoms = weight @ ratios.numerator[:, who].T, weight @ ratios.denominator[:, who].T
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray((tops / bottoms).sum(axis=1))

    truth = values(unbiased, 1 - splits)
    losses = {name: (values(one.ratios, splits) - truth) ** 2 for name, one in sums.items()}
    losses = {name: np.where(np.isfinite(loss), loss, np.inf) for name, loss in losses.items()}
    means = {name: float(loss.mean()) for name, loss in losses.items()}
    best, second = sorted(means, key=lambda name: means[name])[:2]
    gap = losses[second] - losses[best]
    error = float(gap.std(ddof=1)) / math.sqrt(SPLITS) if np.isfinite(gap).all() else 0.0
    finite = {name: value if math.isfinite(value) else -1.0 for name, value in means.items()}
    return Choice(best, finite, float(gap.mean()) if math.isfinite(float(gap.mean())) else 0.0, error)


@dataclass(frozen=True, slots=True)
class Portfolio:
    """The k policies that an estimator would send to an on-line test, scored by what they are truly worth.

    Attributes:
        k: policies tested.
        best: true value of the best of them; spread: standard deviation of their true values.
        ratio: (best - logged) / spread, SharpeRatio@k; None where the k are worth the same.
        regret: true value of the best policy of all minus `best`.
    """

    k: int
    best: float
    spread: float
    ratio: float | None
    regret: float


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
