"""Flying more users until the differences are known well enough, and what that costs the intervals."""

from __future__ import annotations

import numpy as np
import pytest

from evaluators.comparison import AgentValues, SeedPool, cross, paired_difference, sequence_over_t
from evaluators.flights import Flight
from evaluators.precision import looks, precise_enough
from evaluators.settings import EvaluateSettings


def flight(agent: str, values: np.ndarray) -> Flight:
    ones = np.ones(len(values))
    return Flight(agent, 0, 1, 0, 0, np.arange(len(values)), {"reward": values}, {}, ones, ones)


def test_looks_double_and_end_with_all_users() -> None:
    assert looks(1000, EvaluateSettings()) == (1000,)
    assert looks(1000, EvaluateSettings(precision=0.1)) == (200, 400, 800, 1000)
    assert looks(150, EvaluateSettings(precision=0.1)) == (150,)


def test_it_is_enough_when_every_policy_is_known_to_the_half_width_and_the_bound_does_not_count() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(10, 3, 400)
    flights = [
        flight("popularity", base),
        flight("close", base + rng.normal(0, 0.5, 400)),
        flight("oracle", base + rng.normal(5, 9, 400)),
    ]

    def enough(precision: float, *, bounds: set[str]) -> bool:
        wanted = EvaluateSettings(baseline="popularity", precision=precision, users=1000)
        return precise_enough(flights, wanted, learners=set(), bounds=bounds)

    half = 0.5 / np.sqrt(400) * 1.96 * sequence_over_t(400, 1000)
    assert enough(1.1 * half, bounds={"oracle"})
    assert not enough(0.9 * half, bounds={"oracle"})
    assert not enough(1.1 * half, bounds=set())


def test_an_interval_that_was_looked_at_is_as_wide_as_a_sequence_and_says_so() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(1, 1, (2, 1, 1, 400))
    fixed = paired_difference(AgentValues(a), AgentValues(b), SeedPool()).estimate
    watched = paired_difference(AgentValues(a, planned=1000), AgentValues(b, planned=1000), SeedPool()).estimate
    widening = np.diff([watched.low, watched.high])[0] / np.diff([fixed.low, fixed.high])[0]
    assert widening == pytest.approx(sequence_over_t(400, 1000), rel=1e-9)
    assert 1.5 < widening < 1.8
    assert "confidence sequence, 1,000 users planned" in watched.method


def test_stopping_at_the_first_look_that_excludes_nothing_misses_no_more_than_it_may() -> None:
    """Equal agents, looks at 200 to 3,200 users, stopped where the interval excludes 0: a t interval misses in 14 %."""
    rng = np.random.default_rng(2)
    missed = {"watched": 0, "t": 0}
    runs = 600
    for _ in range(runs):
        difference = rng.normal(0, 1, 3200)
        for name, planned in (("watched", 3200), ("t", None)):
            for number in (200, 400, 800, 1600, 3200):
                found = cross(AgentValues(difference[None, None, :number], planned=planned), None, SeedPool())
                if abs(found.value) > found.half_width(0.95):
                    missed[name] += 1
                    break
    assert missed["watched"] / runs <= 0.03
    assert missed["t"] / runs > 0.08
