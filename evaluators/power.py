"""How many users and training seeds a difference needs, and what the present ones can see.

The smallest difference seen with power 0.8 is (t + .84) sqrt(s_T^2/T + s_U^2/U + s_E^2/(T U)), from the variance
components of a pilot or of the run itself; before anything has run, of `TYPICAL`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtrit

from evaluators.estimate import Estimate

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
    rest = components.rest / (n_seeds * n_users)
    of_seeds, of_users = components.seeds / n_seeds, components.users / n_users
    variance = of_seeds + of_users + rest
    # The same mean squares as the interval's (comparison.cross), at their expected values.
    parts = [(of_users + rest, n_users - 1.0)]
    if n_seeds > 1 and of_seeds + rest > 0:
        parts += [(of_seeds + rest, n_seeds - 1.0), (rest, (n_seeds - 1.0) * (n_users - 1))]
    df = satterthwaite(variance, parts)
    return (float(stdtrit(df, (1 + level) / 2)) + POWER_Z) * math.sqrt(variance)


def satterthwaite(variance: float, parts: Sequence[tuple[float, float]]) -> float:
    """Degrees of freedom of a sum of mean squares: V^2 / sum(MS^2 / df), at least 1."""
    below = sum(part**2 / df for part, df in parts if part > 0 and df > 0)
    return max(1.0, variance**2 / below) if below > 0 else math.inf


def users_needed(components: Components, difference: float, *, level: float = 0.95) -> int:
    """Users that a difference needs at power 0.8: (z + .84)^2 s_U^2 / difference^2."""
    z = float(ndtri((1 + level) / 2)) + POWER_Z
    # With T seeds each user is seen T times, so the seed-by-user part counts with the users it is averaged over.
    per_user = components.users + components.rest / components.n_seeds
    return max(2, math.ceil(z**2 * per_user / difference**2))


def seeds_needed(components: Components, difference: float, *, level: float = 0.95) -> int:
    """Training seeds that a difference needs at power 0.8; more users never pay for too few of them."""
    if components.seeds <= 0:
        return 1
    seeds = np.arange(2, 1000)
    t = stdtrit(seeds - 1, (1 + level) / 2) + POWER_Z
    enough = t**2 * components.seeds / seeds <= difference**2
    if enough.any():
        return int(seeds[enough.argmax()])
    return math.ceil((float(ndtri((1 + level) / 2)) + POWER_Z) ** 2 * components.seeds / difference**2)


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


# ------------------------------------------------------------------------------------------- before anything has run


TYPICAL_AGENT_BY_USER = 0.5
TYPICAL_AGENT_BY_USER_BY_TRAINING = 0.7
TYPICAL_TRAINING = 0.1
"""Assumed, in standard deviations between users of the metric itself: how an agent's value for a user departs from
the user's own level (by agent; by agent and training; by training for all users alike). They are those of process P3
of EVALUATION, section 10; a run's own components replace them."""


def typical_components(n_users: int, n_seeds: int, *, learners: int) -> Components:
    """Assumed variance components of a difference of two agents, in squared standard deviations between users.

    Args:
        n_users: U.
        n_seeds: T of those that learn.
        learners: how many of the two agents learn: 0, 1 or 2. Of one that does not, the part that changes with the
            training is a constant of the agent and the user.
    """
    own, trained = TYPICAL_AGENT_BY_USER**2, TYPICAL_AGENT_BY_USER_BY_TRAINING**2
    one_training = learners == 0 or n_seeds == 1
    return Components(
        # One training says nothing of others: the statement is on the trained model, and its luck is part of it.
        seeds=0.0 if one_training else learners * TYPICAL_TRAINING**2,
        users=2 * (own + trained) if one_training else 2 * own + (2 - learners) * trained,
        rest=0.0 if one_training else learners * trained,
        n_seeds=1 if one_training else n_seeds,
        n_users=n_users,
    )


def planned_difference(n_users: int, n_seeds: int, *, learners: int, comparisons: int = 1) -> float:
    """Smallest difference that a planned run would see, in standard deviations between users (`TYPICAL_*` assumed).

    Args:
        n_users: users that will be flown.
        n_seeds: training seeds.
        learners: how many of the two agents learn.
        comparisons: agents compared with one baseline: the family of the printed interval, level 1 - .05/m.
    """
    components = typical_components(n_users, n_seeds, learners=learners)
    level = 1 - 0.05 / max(comparisons, 1)
    return smallest_difference(components, components.n_users, components.n_seeds, level=level)


def planning_advice(n_users: int, n_seeds: int, *, learners: int, comparisons: int = 1) -> str:
    """One line for `validate`: what the planned run could see, and of what that is a statement."""
    if n_users < 2:
        return f"smallest detectable difference: none with {n_users} users; simulate more"
    smallest = planned_difference(n_users, n_seeds, learners=learners, comparisons=comparisons)
    trained = f" x {n_seeds} training seed{'s' if n_seeds > 1 else ''}" if learners else ""
    family = f"{comparisons} comparisons" if comparisons > 1 else "one comparison"
    about = "; of these trained models only, 3 training seeds speak for the algorithm" if n_seeds == 1 else ""
    return (
        f"smallest detectable difference: about {smallest:.2g} of a metric's standard deviation between users "
        f"(power 0.8, {n_users:,} users{trained}, {family}, typical variances assumed)"
        f"{about if learners else ''}"
    )


# ------------------------------------------------------------------------------------------------ after the run


@dataclass(frozen=True, slots=True)
class Power:
    """What a run could have seen of one difference; the fields are those of a row of the report.

    Attributes:
        metric, agent, baseline: which difference.
        users, training_seeds: what the run had.
        detectable: smallest difference seen with power 0.8 at the level of the printed interval.
        users_needed: users that would decide at the present estimate; None where it is decided or there are enough.
        seeds_needed: training seeds, likewise.
        pairing_gain: variance unpaired / variance paired; None where the two never differ.
        note: None, or why no size is given.
    """

    metric: str
    agent: str
    baseline: str
    users: int
    training_seeds: int
    detectable: float
    users_needed: int | None
    seeds_needed: int | None
    pairing_gain: float | None
    note: str | None = None


def power_of(
    metric: str,
    agent: str,
    baseline: str,
    difference: Estimate,
    components: Components,
    *,
    pairing_gain: float | None = None,
) -> Power:
    """What a run could have seen of a difference of which this much is known."""
    level, users, seeds = difference.level, components.n_users, components.n_seeds
    users_more: int | None = None
    seeds_more: int | None = None
    note = difference.withheld
    undecided = difference.value is not None and (difference.low or 0.0) <= 0 <= (difference.high or 0.0)
    if undecided and difference.value:
        needed = users_needed(components, abs(difference.value), level=level)
        users_more = needed if needed > users else None
        needed = seeds_needed(components, abs(difference.value), level=level)
        seeds_more = needed if needed > seeds else None
    elif undecided:
        note = "no difference at all: no size would decide"
    smallest = smallest_difference(components, users, seeds, level=level)
    return Power(metric, agent, baseline, users, seeds, smallest, users_more, seeds_more, pairing_gain, note)
