"""Which share of users an agent serves at least so well."""

from __future__ import annotations

import numpy as np
import pytest

from evaluators.comparison import AgentValues
from evaluators.flights import Flights
from evaluators.profiles import profiles


def flights_of(values: dict[str, np.ndarray], metric: str = "reward") -> Flights:
    n_users = next(iter(values.values())).shape[2]
    return Flights(
        np.arange(n_users), (metric,), {metric: {name: AgentValues(of) for name, of in values.items()}},
        clicks={}, shown={},
    )  # fmt: skip


def test_a_profile_falls_from_all_users_to_the_best_and_its_area_is_the_mean() -> None:
    rng = np.random.default_rng(0)
    (found,) = profiles(flights_of({"mine": rng.gamma(2.0, 3.0, (1, 1, 4000))}), "reward")
    levels, shares, low, high = np.array(found.points).T
    assert shares[0] == 1.0
    assert (np.diff(shares) <= 0).all()
    assert ((low <= shares) & (shares <= high)).all()
    area = levels[0] + np.sum(np.diff(levels) * (shares[1:] + shares[:-1]) / 2)
    assert area == pytest.approx(6.0, rel=0.05)


def test_two_agents_of_one_mean_and_other_spread_are_told_apart() -> None:
    rng = np.random.default_rng(1)
    even, uneven = 10 + rng.normal(0, 1, (1, 1, 400)), 10 + rng.normal(0, 4, (1, 1, 400))
    found = {one.agent: one.points for one in profiles(flights_of({"even": even, "uneven": uneven}), "reward")}
    (at,) = [k for k, point in enumerate(found["even"]) if point[0] == min(p[0] for p in found["even"] if p[0] > 12)]
    assert found["even"][at][3] < found["uneven"][at][2]


def test_where_little_is_good_the_share_rises_with_the_level_and_a_metric_of_the_set_has_none() -> None:
    rng = np.random.default_rng(2)
    values = {"mine": rng.gamma(2.0, 1.0, (1, 2, 300))}
    (found,) = profiles(flights_of(values, "regret"), "regret")
    assert (np.diff([share for _, share, _, _ in found.points]) >= 0).all()
    assert profiles(flights_of(values, "coverage"), "coverage") == ()
