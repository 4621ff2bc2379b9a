"""Does the simulator put policies in the order that off-policy or on-line values put them in?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from evaluators.estimate import Estimate
from evaluators.fidelity.checks import Check, Floats, Ints, judged, not_made
from evaluators.intervals import t_quantile

RANKING = "ranking agreement"
FEWEST_PAIRS = 6
"""Of four policies all pairs, and then only tau = 1 has a chance below .05 under a random order."""


class Reference(Protocol):
    """Values of P policies from outside the simulator."""

    @property
    def value(self) -> Floats:
        """[P] value of each policy."""
        ...

    def separated(self, a: int, b: int, level: float) -> bool:
        """Whether the interval of the difference of two policies excludes 0."""
        ...

    def draws(self, rng: np.random.Generator, n: int) -> Floats:
        """[n, P] values as they might have come out."""
        ...


@dataclass(frozen=True, slots=True)
class UserValues:
    """Ratios of sums over V users on one log: value p is numerator[p] over weight[p].

    Attributes:
        numerator: [P, V] what each user adds, e.g. weighted rewards.
        weight: [P, V] what each user adds below the line.
    """

    numerator: Floats
    weight: Floats

    @property
    def value(self) -> Floats:
        """[P] value of each policy."""
        return self.numerator.sum(1) / self.weight.sum(1)

    def separated(self, a: int, b: int, level: float) -> bool:
        """Paired by user: two policies valued on one log share its luck."""
        n = self.numerator.shape[1]
        value = self.value
        score = (self.numerator - value[:, None] * self.weight) / self.weight.sum(1, keepdims=True)
        error = math.sqrt(n / max(1, n - 1) * float(((score[a] - score[b]) ** 2).sum()))
        return bool(abs(value[a] - value[b]) > t_quantile(level, max(1, n - 1)) * error)

    def draws(self, rng: np.random.Generator, n: int) -> Floats:
        """Bootstrap of users, normalisers recomputed."""
        return self.resampled(resampled_users(self.numerator.shape[1], n, rng))

    def resampled(self, counts: Ints) -> Floats:
        """[n, P] values where each user comes as often as a column of counts [V, n] says."""
        return (self.numerator @ counts / np.maximum(self.weight @ counts, 1e-300)).T


def resampled_users(users: int, n: int, rng: np.random.Generator) -> Ints:
    """[users, n] how often each user comes in n bootstrap samples."""
    return np.asarray(rng.multinomial(users, np.full(users, 1 / users), size=n).T)


@dataclass(frozen=True, slots=True)
class MeasuredValues:
    """Values with 95 % limits that were measured apart from one another, each taken as normal within its limits.

    Attributes:
        value: [P]; low, high: [P] limits (equal to the value where none were given).
    """

    value: Floats
    low: Floats
    high: Floats

    @classmethod
    def of(cls, estimates: Sequence[Estimate]) -> MeasuredValues:
        """From published estimates with both limits."""
        columns = np.array([[e.value, e.low, e.high] for e in estimates], np.float64).T
        return cls(columns[0], columns[1], columns[2])

    @property
    def _error(self) -> Floats:
        return (self.high - self.low) / (2 * t_quantile(0.95, math.inf))

    def separated(self, a: int, b: int, level: float) -> bool:
        """Taken as independent; values of one log covary, which only makes this stricter."""
        error = math.hypot(self._error[a], self._error[b])
        return bool(abs(self.value[a] - self.value[b]) > t_quantile(level, math.inf) * error)

    def draws(self, rng: np.random.Generator, n: int) -> Floats:
        """Normal draws."""
        return self.value + self._error * rng.standard_normal((n, len(self.value)))


def ranking_agreement(
    simulated: Floats,
    reference: Reference,
    rng: np.random.Generator,
    *,
    same_users: bool = False,
    resamples: int = 1000,
    level: float = 0.95,
) -> Check:
    """Kendall's tau-b of policies' values between simulator and an off-policy or on-line reference; lower > 0.

    Pairs of policies that the reference does not separate (95 % interval of their difference contains 0) are left
    out; six pairs have to be left. Five policies need tau >= .8, four need 1.

    Args:
        simulated: [P, U] value of each policy for each simulated user.
        reference: what is known of the same policies elsewhere.
        rng: draws resamples of both sides.
        same_users: the reference is of the same users in the same order, so that both sides are resampled together.
        resamples: bootstrap resamples.
        level: of the interval.
    """
    threshold = "lower > 0, tau >= .8 (K = 5), 1 (K = 4)"
    n_policies, n_users = simulated.shape
    value = reference.value
    pairs = [(a, b) for a in range(n_policies) for b in range(a) if reference.separated(a, b, level)]
    if len(pairs) < FEWEST_PAIRS:
        why = f"{len(pairs)} of {n_policies * (n_policies - 1) // 2} pairs of policies are separated by the reference"
        return not_made(RANKING, threshold, f"{why}; needs {FEWEST_PAIRS}")
    first, second = (np.array(side) for side in zip(*pairs, strict=True))

    def tau(sim: Floats, ref: Floats) -> Floats:
        """[n] tau-b of rows [n, P] of both sides over the separated pairs."""
        a, b = np.sign(sim[:, first] - sim[:, second]), np.sign(ref[:, first] - ref[:, second])
        scale = np.sqrt((a != 0).sum(1) * (b != 0).sum(1))
        return np.asarray((a * b).sum(1) / np.maximum(scale, 1))

    counts = resampled_users(n_users, resamples, rng)
    if same_users:
        assert isinstance(reference, UserValues)
        drawn = reference.resampled(counts)
    else:
        drawn = reference.draws(rng, resamples)
    replicates = tau((simulated @ counts / n_users).T, drawn)
    observed = float(tau(simulated.mean(1)[None], value[None])[0])
    low, high = np.quantile(replicates, [0.5 - level / 2, 0.5 + level / 2])
    sides = "users of both sides resampled together" if same_users else "both sides resampled"
    needed = 1.0 if n_policies <= 4 else 0.8 if n_policies == 5 else -1.0
    estimate = Estimate(
        observed,
        min(float(low), observed),
        max(float(high), observed),
        level,
        n_users,
        f"Kendall tau-b over {len(pairs)} separated pairs of {n_policies} policies, {sides}",
    )
    check = judged(RANKING, estimate, threshold, above=0.0, strict=True)
    if check.passed and observed < needed - 1e-9:
        why = f"tau {observed:.2f} is below the {needed:g} that {n_policies} policies need"
        return replace(check, verdict="undecided", reason=why)
    return check
