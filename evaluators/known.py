"""What is known of policies from outside the simulator, beside what it says: the strongest evidence there is.

A team that once measured a policy on-line names the value in `evaluate.known`. The simulated value over the known one
is a ratio with an interval of both errors. Inside the band the simulator is confirmed, outside it is contradicted and
not trusted, whatever its other checks say. Limits that are themselves wider than the band can contradict a
simulator and never confirm it. With four policies or more of one metric their order is compared too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evaluators.estimate import Estimate
from evaluators.fidelity import Check, MeasuredValues, judged, not_made, ratio_by_user
from evaluators.fidelity.agreement import RANKING, ranking_agreement
from evaluators.settings import KnownValue

if TYPE_CHECKING:
    from simulator.datasets.parts import LoggedRounds

Floats = NDArray[np.float64]

LOW, HIGH = 0.85, 1.15
BAND = f"[{LOW}, {HIGH}]"
FEWEST_POLICIES = 4
ONLINE = "measured on-line"
"""Where a known value comes from, in words."""


Swept = tuple[tuple[str, float, float], ...]
"""(assumed parameter, its other value, factor by which it moves the simulated value)."""


@dataclass(frozen=True, slots=True)
class Simulated:
    """What the simulator says of one policy and metric.

    Attributes:
        estimate: the value that is compared: corrected by the picks check where that may be, else over judge worlds.
        swept: how assumptions that are swept move it.
    """

    estimate: Estimate
    swept: Swept = ()


def known_check(known: KnownValue, simulated: Simulated, measured: str = ONLINE) -> Check:
    """Ratio of the simulated value to one that was measured on-line, passed in [0.85, 1.15].

    Not made where the limits measured on-line are wider than the band, unless the whole interval lies outside: such
    evidence cannot confirm a simulator, and must not count against it for being weak.

    Args:
        known: the value that was measured, with its limits; without limits it is taken as exact.
        simulated: what the simulator says of the same policy and metric.
        measured: where the value comes from, in words.
    """
    name = f"known: {known.metric} of {known.policy}"
    found = ratio_of_estimates(simulated.estimate, known, measured)
    low, high = (known.value if limit is None else limit for limit in (known.low, known.high))
    said = f"{measured} {known.value:.4g} [{low:.4g}, {high:.4g}]"
    check = confirmed(name, found, simulated, said)
    if check.passed is not None and check.verdict != "fail" and (low < LOW * known.value or high > HIGH * known.value):
        weak = f"{measured}, limits [{low:.4g}, {high:.4g}] are wider than the band around {known.value:.4g}"
        return replace(check, verdict="not made", reason=f"weak evidence, printed, not counted: {weak}")
    return check


def confirmed(name: str, ratio: Estimate, simulated: Simulated, said: str) -> Check:
    """A simulated value over one from elsewhere: inside the band confirmed, outside it contradicted.

    Args:
        name: of the check.
        ratio: with its interval.
        simulated: what the simulator says.
        said: the value from elsewhere, in words.
    """
    check = judged(name, ratio, BAND, above=LOW, below=HIGH)
    if check.verdict == "fail":
        why = f"contradicted: simulated {with_limits(simulated.estimate)}, {said}"
        return replace(check, reason=f"{why}{_what_would_agree(ratio, simulated)}")
    if check.verdict == "undecided" and ratio.value is not None:
        return replace(check, reason=f"{check.reason}{_what_would_agree(ratio, simulated)}")
    return check


def with_limits(estimate: Estimate) -> str:
    """A value with its interval, in words."""
    value, low, high = (math.nan if x is None else x for x in (estimate.value, estimate.low, estimate.high))
    return f"{value:.4g} [{low:.4g}, {high:.4g}]"


def _what_would_agree(found: Estimate, simulated: Simulated) -> str:
    """Which swept assumption, if any, would bring the ratio into the band: where to look for the fault."""
    assert found.value is not None
    agreeing = [
        f"{parameter} = {value:g} would give {found.value * factor:.3g}"
        for parameter, value, factor in simulated.swept
        if LOW <= found.value * factor <= HIGH
    ]
    return f"; assumed {'; '.join(agreeing)}" if agreeing else ""


def ratio_of_estimates(simulated: Estimate, known: KnownValue, measured: str = ONLINE) -> Estimate:
    """Simulated over known with limits that hold both errors (MOVER on the log scale: Donner, Zou 2012)."""
    method = f"simulated / {measured}, limits of both joined on the log scale; simulated: {simulated.method}"
    if simulated.value is None:
        return Estimate.withhold(method, simulated.withheld or "no simulated value", level=simulated.level)
    if known.value <= 0 or simulated.value <= 0:
        why = f"known: a ratio of {simulated.value:.4g} to {known.value:.4g} is not defined; needs both above 0"
        return Estimate.withhold(method, why, level=simulated.level)
    if simulated.low is None or simulated.high is None:
        return Estimate.withhold(method, "known: the simulated value has no interval", level=simulated.level)

    def distance(value: float, limit: float | None) -> float:
        """Log distance of a limit from its value; without end where the limit is 0."""
        limit = value if limit is None else limit
        return abs(math.log(limit / value)) if limit > 0 else math.inf

    ratio = simulated.value / known.value
    below = math.hypot(distance(simulated.value, simulated.low), distance(known.value, known.high))
    above = math.hypot(distance(simulated.value, simulated.high), distance(known.value, known.low))
    low, high = ratio * math.exp(-below), ratio * math.exp(min(above, 700.0))
    details = {"simulated": simulated.value, "known": known.value}
    return Estimate(ratio, low, high, simulated.level, simulated.n, method, diagnostics=details)


def agreement_with_known(
    known: Sequence[KnownValue],
    simulated: Callable[[str, str], Simulated],
    per_user: Callable[[str, str], Floats | None],
    rng: np.random.Generator,
) -> tuple[Check, ...]:
    """A check for each known value, and one of the order where four policies of one metric are known.

    Args:
        known: values measured on-line.
        simulated: (policy, metric) -> what the simulator says.
        per_user: (policy, metric) -> [U] simulated value of each user, or None where there is none.
        rng: draws the resamples of the ranking.
    """
    checks = [known_check(one, simulated(one.policy, one.metric)) for one in known]
    by_metric: dict[str, dict[str, KnownValue]] = {}
    for one in known:
        by_metric.setdefault(one.metric, {})[one.policy] = one
    for metric, of in by_metric.items():
        estimates = {
            policy: Estimate(one.value, _or(one.low, one.value), _or(one.high, one.value), 0.95, 1, ONLINE)
            for policy, one in of.items()
        }
        ranked = agreement_of_order(estimates, lambda policy, metric=metric: per_user(policy, metric), rng)  # type: ignore[misc]
        if ranked is not None:
            name = RANKING if len(by_metric) == 1 else f"{RANKING}: {metric}"
            checks.append(replace(ranked, name=name))
    return tuple(checks)


def _or(limit: float | None, value: float) -> float:
    return value if limit is None else limit


def agreement_of_order(
    reference: Mapping[str, Estimate], per_user: Callable[[str], Floats | None], rng: np.random.Generator
) -> Check | None:
    """Ranking agreement with values from elsewhere (on-line, off-policy); None where fewer than four are known.

    Args:
        reference: policy -> its value from elsewhere; withheld ones are left out.
        per_user: policy -> [U] simulated value of each user, or None.
        rng: draws the resamples.
    """
    users = {name: per_user(name) for name, e in reference.items() if e.value is not None and e.low is not None}
    there = {name: values for name, values in users.items() if values is not None}
    if len(there) < FEWEST_POLICIES:
        return None
    return ranking_agreement(
        np.stack(list(there.values())), MeasuredValues.of([reference[name] for name in there]), rng
    )


def order_on_log(
    estimator: str,
    values: Mapping[str, Estimate],
    per_user: Callable[[str], Floats | None],
    rng: np.random.Generator,
    *,
    given: str = "",
) -> Check | None:
    """Ranking agreement with off-policy values on the log's own rounds; None where fewer than four are published.

    Where users, or a policy that nobody logged, chose the items (`given`) those values are about other rounds than a
    policy's own, so the order is printed and not counted.
    """
    check = agreement_of_order(values, per_user, rng)
    if check is None:
        return None
    check = replace(check, name=f"{RANKING}, off-policy {estimator}")
    if given and check.passed is not None:
        shown = "" if check.passed else f": {check.reason}"
        why = f"{given}, tau {check.estimate.value:.2f} is printed, not counted{shown}"
        return replace(check, verdict="not made", reason=why)
    return check


@dataclass(frozen=True, slots=True)
class PolicyLog:
    """What one policy did on-line: n rounds, each with what its context and action look like to a model.

    Attributes:
        features: [n, f] of context, action and position together.
        reward: [n] 0 or 1.
    """

    features: Floats
    reward: Floats

    @classmethod
    def of(cls, rounds: LoggedRounds) -> PolicyLog:
        """Action and position one-hot, then the context."""
        action = np.eye(rounds.n_actions)[rounds.action]
        return cls(
            np.column_stack([action, np.eye(rounds.n_positions)[rounds.position], rounds.context]), rounds.reward
        )


def logistic_clicks(log: PolicyLog) -> Callable[[Floats], Floats]:
    """Ridge-penalised logistic regression: strong enough for logs of a few dozen clicks (1 / C of 10 a column)."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=0.1, solver="newton-cholesky").fit(log.features, log.reward)
    return lambda features: np.asarray(model.predict_proba(features)[:, 1])


Fit = Callable[[PolicyLog], Callable[[Floats], Floats]]
"""Fits a click model to one log and returns its prediction for features [m, f]."""


def agreement_of_two_logs(logs: Mapping[str, PolicyLog], fit: Fit = logistic_clicks) -> tuple[Check, ...]:
    """Each policy's value as a model of the *other* policy's log simulates it, beside what it was on-line.

    The rounds that a policy really played are a sample of its own choices, so the mean prediction of a model that
    never saw them is the simulated value of that policy. Rounds count as independent. With two policies there is one
    pair to put in order, far from the six that an order needs: it is printed, and not counted.

    Args:
        logs: policy -> its rounds, two of them; `PolicyLog.of` makes one of a dataset's rounds.
        fit: the click model.
    """
    checks = []
    simulated: dict[str, float] = {}
    for one, other in zip(logs, reversed(list(logs)), strict=True):
        rounds = logs[one]
        p = fit(logs[other])(rounds.features)
        simulated[one] = float(p.mean())
        method = f"O/E of {one} under a model of the {other} log; clusters: rows assumed independent"
        checks.append(value_elsewhere(one, p, rounds.reward, np.arange(len(p)), method))
    first, second = logs
    pair = in_order(first, second, (logs[first].reward, logs[second].reward), simulated[first] - simulated[second])
    checks.append(not_made(RANKING, "lower > 0", pair))
    return tuple(checks)


def value_elsewhere(name: str, p: Floats, y: Floats, cluster: NDArray[np.int64], method: str) -> Check:
    """What a policy earned on rounds that no model has seen over what is predicted of them; weak evidence is printed.

    Args:
        name: of the policy.
        p: [n] predicted probability of a reward in each of its rounds.
        y: [n] 1.0 where there was one.
        cluster: [n] what counts as one unit.
        method: in words.
    """
    found = ratio_by_user(y, p, cluster, method=method)
    check = judged(f"other policy's value: {name}", found, BAND, above=LOW, below=HIGH)
    if check.verdict == "undecided":
        why = f"weak evidence, printed, not counted: {int(y.sum())} events give [{found.low:.3g}, {found.high:.3g}]"
        return replace(check, verdict="not made", reason=why)
    return check


def in_order(first: str, second: str, rewards: tuple[Floats, Floats], simulated: float) -> str:
    """Why one pair of policies is no order yet, with their difference on-line and as it is simulated."""
    difference = float(rewards[0].mean() - rewards[1].mean())
    error = math.sqrt(sum(float(r.var(ddof=1)) / len(r) for r in rewards))
    return (
        f"1 pair of policies, needs 6: {first} minus {second} is {difference:.2g} "
        f"[{difference - 1.96 * error:.2g}, {difference + 1.96 * error:.2g}] on-line, {simulated:.2g} simulated"
    )
