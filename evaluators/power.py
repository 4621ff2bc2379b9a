"""How many users and training seeds a difference needs, and what the present ones can see."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy import stats

POWER_Z = 0.84
"""Normal quantile of a power of 0.8."""


@dataclass(frozen=True, slots=True)
class Components:
    """Variance components of a paired difference D[t, u] (or of one agent's value), from a pilot or the run itself.

    Attributes:
        seeds: variance between training seeds, summed over the agents that train; 0 where none does.
        users: variance between users.
        rest: variance of what is left, seed by user.
        n_seeds: training seeds T that the present run has.
        n_users: users U that the present run has.
    """

    seeds: float
    users: float
    rest: float
    n_seeds: int
    n_users: int


def smallest_difference(components: Components, n_users: int, n_seeds: int, *, level: float = 0.95) -> float:
    """Smallest difference that U users and T training seeds find with a power of 0.8, in the metric's unit."""
    variance = components.seeds / n_seeds + components.users / n_users + components.rest / (n_seeds * n_users)
    df = n_seeds - 1 if components.seeds > 0 and n_seeds > 1 else n_users - 1
    return float(stats.t.ppf((1 + level) / 2, max(df, 1)) + POWER_Z) * math.sqrt(variance)


def users_needed(components: Components, difference: float, *, level: float = 0.95) -> int:
    """Users that a difference needs at power 0.8: (z + .84)^2 s_U^2 / difference^2."""
    z = float(stats.norm.ppf((1 + level) / 2)) + POWER_Z
    # With T seeds each user is seen T times, so the seed-by-user part counts with the users it is averaged over.
    per_user = components.users + components.rest / components.n_seeds
    return max(2, math.ceil(z**2 * per_user / difference**2))


def seeds_needed(components: Components, difference: float, *, level: float = 0.95) -> int:
    """Training seeds that a difference needs at power 0.8; more users never pay for too few of them."""
    if components.seeds <= 0:
        return 1
    for seeds in (*range(2, 1_000), 10**4, 10**5, 10**6):
        t = float(stats.t.ppf((1 + level) / 2, seeds - 1)) + POWER_Z
        if t**2 * components.seeds / seeds <= difference**2:
            return seeds
    return 10**6


def advice(components: Components, difference: float, *, level: float) -> str:
    """What would decide at the present estimate, in words."""
    users, seeds = (need(components, difference, level=level) for need in (users_needed, seeds_needed))
    parts = []
    if users > components.n_users:
        parts.append(f"about {users:,} users in place of {components.n_users:,}")
    if seeds > components.n_seeds:
        parts.append(f"about {seeds:,} training seeds in place of {components.n_seeds}")
    if not parts:
        # Each part alone is small enough, their sum is not: twice both halves the variance.
        parts.append(f"about {2 * components.n_users:,} users and {2 * components.n_seeds} training seeds")
    return f"at the present estimate {' and '.join(parts)} would decide"
