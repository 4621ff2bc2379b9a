"""Performance profiles: which share of users does at least so well, for every level of a metric.

A mean hides whom it comes from; a profile shows the whole distribution over users, so that an agent which serves half
of them better and half worse is seen (Agarwal, Schwarzer, Castro, Courville, Bellemare, Deep reinforcement learning at
the edge of the statistical precipice, 2021). Here the runs are users crossed with training seeds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from evaluators.comparison import SeedPool, cross
from evaluators.flights import Flights
from evaluators.metrics import METRICS

LEVELS = 21


@dataclass(frozen=True, slots=True)
class Profile:
    """Distribution of one agent's values over users.

    Attributes:
        agent: its name.
        points: (level of the metric, share of users at that level or better, low, high), each point with its own 95 %
            interval: users and training seeds crossed, these worlds.
    """

    agent: str
    points: tuple[tuple[float, float, float, float], ...]


def profiles(flights: Flights, metric: str) -> tuple[Profile, ...]:
    """A profile of every agent with numbers, on levels that all share; none of a metric of the set.

    A user's value in each judge world and training seed counts by itself, averaged over what was flown there, so that
    luck within a session is part of the distribution.
    """
    usable = {name: values for name, values in flights.usable(metric).items() if values.n_users > 1}
    if not usable or METRICS[metric].of == "set":
        return ()
    everything = np.concatenate([values.per_user.ravel() for values in usable.values()])
    levels = np.unique(np.quantile(everything, np.linspace(0, 1, LEVELS), method="inverted_cdf"))
    sign = 1.0 if METRICS[metric].higher_is_better else -1.0
    found: dict[str, list[tuple[float, float, float, float]]] = {name: [] for name in usable}
    for level in levels:
        reached = {
            name: replace(values, per_user=(sign * values.per_user >= sign * level).astype(np.float64))
            for name, values in usable.items()
        }
        pool = SeedPool.of(reached.values())
        for name, values in reached.items():
            crossed = cross(values, None, pool)
            half = crossed.half_width(0.95)
            found[name].append(
                (float(level), crossed.value, max(0.0, crossed.value - half), min(1.0, crossed.value + half))
            )
    return tuple(Profile(name, tuple(points)) for name, points in found.items())
