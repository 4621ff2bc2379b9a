"""Does the simulator put policies in the order that off-policy or on-line values put them in?"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from evaluators.estimate import Estimate
from evaluators.fidelity.checks import Check, Floats, judged, not_made
from evaluators.intervals import t_quantile


def ranking_agreement(
    simulated: NDArray[np.float64],
    reference: NDArray[np.float64],
    rng: np.random.Generator,
    *,
    reference_weight: NDArray[np.float64] | None = None,
    resamples: int = 1000,
    level: float = 0.95,
) -> Check:
    """Kendall's tau-b of policies' values between simulator and an off-policy or on-line reference; lower > 0.

    Pairs of policies that the reference does not separate (95 % interval of their difference contains 0) are left
    out; six pairs have to be left. Five policies need tau >= .8, four need 1.

    Args:
        simulated: [P, U] value of each policy for each simulated user.
        reference: [P, V] numerators of each policy's reference value by user.
        rng: draws the user bootstrap of both sides.
        reference_weight: [P, V] denominators (1 where not given).
        resamples: bootstrap resamples.
        level: of the interval.
    """
    name, threshold = "ranking agreement", "lower > 0, tau >= .8 (K = 5), 1 (K = 4)"
    n_policies, n_sim = simulated.shape
    n_ref = reference.shape[1]
    weight = np.ones_like(reference) if reference_weight is None else reference_weight
    value = reference.sum(1) / weight.sum(1)
    score = (reference - value[:, None] * weight) / weight.sum(1, keepdims=True)
    pairs = []
    t = t_quantile(level, max(1, n_ref - 1))
    for a in range(n_policies):
        for b in range(a):
            se = math.sqrt(n_ref / max(1, n_ref - 1) * float(((score[a] - score[b]) ** 2).sum()))
            if abs(value[a] - value[b]) > t * se:
                pairs.append((a, b))
    if len(pairs) < 6:
        return not_made(name, threshold, f"{len(pairs)} pairs of policies are separated by the reference; needs 6")
    first, second = (np.array(side) for side in zip(*pairs, strict=True))

    def tau(sim: Floats, ref: Floats) -> float:
        a, b = np.sign(sim[first] - sim[second]), np.sign(ref[first] - ref[second])
        scale = math.sqrt(float((a != 0).sum()) * float((b != 0).sum()))
        return float((a * b).sum() / scale) if scale else 0.0

    replicates = []
    for _ in range(resamples):
        w_sim = rng.multinomial(n_sim, np.full(n_sim, 1 / n_sim))
        w_ref = rng.multinomial(n_ref, np.full(n_ref, 1 / n_ref))
        replicates.append(tau(simulated @ w_sim / n_sim, (reference @ w_ref) / np.maximum(weight @ w_ref, 1e-300)))
    observed = tau(simulated.mean(1), value)
    low, high = np.quantile(replicates, [0.5 - level / 2, 0.5 + level / 2])
    needed = 1.0 if n_policies <= 4 else 0.8 if n_policies == 5 else -1.0
    estimate = Estimate(
        observed,
        min(float(low), observed),
        max(float(high), observed),
        level,
        min(n_sim, n_ref),
        f"Kendall tau-b over {len(pairs)} separated pairs of {n_policies} policies, user bootstrap of both sides",
    )
    check = judged(name, estimate, threshold, above=0.0, strict=True)
    if check.passed and observed < needed - 1e-9:
        return replace(
            check,
            verdict="undecided",
            reason=f"tau {observed:.2f} is below the {needed} that {n_policies} policies need",
        )
    return check
