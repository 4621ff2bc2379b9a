"""A pseudo experiment inside a log: part of the rounds as an on-line test of a pseudo policy, the rest as its log.

PAS-IF (Udagawa, Kiyohara, Narita, Saito, Tateno 2023, "Policy-adaptive estimator selection for off-policy evaluation"):
every round goes to the test part with a chance rho(x, a), else to the log part. Given x the rounds of the two parts
follow two policies that are known exactly, and rho is fitted so that their importance weights are those of the policies
in question. An estimator that is right for the pseudo pair at like weights should be right for the true one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from evaluators.off_policy.bandit import Matrix, Weighted
from evaluators.off_policy.records import Rounds

Floats = NDArray[np.float64]

TEST_SHARE = 0.2
"""Share k of the rounds that go to the pseudo on-line test, given any context; the paper's."""
_STEPS, _CLOSE = 100, 1e-12
_NEVER = 1e-12


@dataclass(frozen=True, slots=True)
class PseudoExperiment:
    """A log dealt into a pseudo on-line test and a pseudo log.

    Attributes:
        chance: [n] rho of the logged action: the chance that a round goes to the test.
        weighted: every round as the pseudo log has it: pseudo weight, reward, model values under the pseudo policy.
        weights_apart: root mean square, over rounds and actions of the logging policy, of pseudo less true weights, as
            a share of the root mean square of the true ones.
        policies_apart: total variation between the pseudo test's policy and the one in question, mean over rounds. The
            test is a part of the log, so a policy of which the log has little cannot be imitated, whatever the weights.
    """

    chance: Floats
    weighted: Weighted
    weights_apart: float
    policies_apart: float

    @classmethod
    def of(
        cls, rounds: Rounds, pi_e: Matrix, weighted: Weighted, model: Matrix | None, share: float = TEST_SHARE
    ) -> PseudoExperiment:
        """Fit rho to a policy on logged rounds.

        Args:
            rounds: with `pi_b` [n, A].
            pi_e: the policy in question.
            weighted: its columns.
            model: [n, A] model values, or None.
            share: of the rounds that go to the test.
        """
        assert rounds.pi_b is not None
        n = len(rounds)
        weight, chance = np.empty(n), np.empty(n)
        value = None if model is None else np.empty(n)
        apart = size = variation = 0.0
        for part in pi_e.parts():
            pi_b, target = np.asarray(rounds.pi_b[part], np.float64), pi_e.rows(part)
            w = np.divide(target, pi_b, out=np.zeros_like(pi_b), where=pi_b > _NEVER)
            pseudo = fitted_weights(w, pi_b, share)
            rho = _chance(pseudo, share)
            logged = np.arange(len(rho)), rounds.action[part]
            weight[part], chance[part] = pseudo[logged], rho[logged]
            if model is not None and value is not None:
                value[part] = (pi_b * rho * model.rows(part)).sum(1) / share
            apart += float((pi_b * (w - pseudo) ** 2).sum())
            size += float((pi_b * w**2).sum())
            variation += float(np.abs(pi_b * rho / share - target).sum()) / 2
        away = float(np.sqrt(apart / size)) if size > 0 else 1.0
        return cls(chance, replace(weighted, w=weight, v=value), away, variation / n)

    def deals(self, rng: np.random.Generator, times: int) -> Iterator[NDArray[np.bool_]]:
        """[n] True for the rounds of the test part, so many times anew."""
        for _ in range(times):
            yield rng.random(len(self.chance)) < self.chance


def _chance(weight: Floats, share: float) -> Floats:
    """Chance rho of a pseudo importance weight: pi~_e / pi~_b = rho / (1 - rho) x (1 - k) / k."""
    chance: Floats = share * weight / (1 - share + share * weight)
    return chance


def fitted_weights(w: Floats, pi_b: Floats, share: float) -> Floats:
    """[c, A] pseudo weights that minimise E_b (w - pseudo weight)^2 where E_b rho = share in every context.

    The constraint leaves the contexts of both parts as they are, and makes both pseudo policies exact. It keeps the
    pseudo weights o from being w: with a multiplier nu >= 0 of each context, o = w + nu / (1 - k + k o)^2.

    Args:
        w: [c, A] true weights, 0 where the logging policy never goes.
        pi_b: [c, A] of the logging policy.
        share: k, in (0, 1).
    """
    # Both o(nu) and E rho(nu) are concave and rise, so Newton's steps from nu = 0 come up to the root from below.
    o, nu = w.copy(), np.zeros((len(w), 1))
    for _ in range(_STEPS):
        for _ in range(3):
            base = 1 - share + share * o
            o += np.maximum(w + nu / base**2 - o, 0.0) / (1 + 2 * share * nu / base**3)
        base = 1 - share + share * o
        missing = share - (pi_b * share * o / base).sum(1, keepdims=True)
        if np.abs(missing).max() < _CLOSE:
            break
        slope = pi_b * share * (1 - share) / base**2 / (base**2 + 2 * share * nu / base)
        nu = np.maximum(nu + missing / np.maximum(slope.sum(1, keepdims=True), 1e-300), 0.0)
    return o
