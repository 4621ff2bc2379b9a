"""What a run can see: before it has run, from typical variances, and afterwards, from its own.

Sabotaged once, each seen red: the training part dropped, the family's level not passed on, one training taken as a
statement on the algorithm, needs printed where the run has decided.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from evaluators.comparison import AgentValues, SeedPool, cross, paired_difference
from evaluators.estimate import Estimate
from evaluators.power import (
    Components,
    planned_difference,
    planning_advice,
    power_of,
    smallest_difference,
    typical_components,
)

PILOT = Components(seeds=0.04, users=4.0, rest=1.0, n_seeds=3, n_users=200)


@pytest.mark.parametrize(("seeds", "learners"), [(1, 0), (1, 1), (3, 1), (3, 2)])
def test_typical_components_are_those_of_process_p3(seeds: int, learners: int) -> None:
    """Simulated: level 1 shared, agent .5, agent by training .7, training .1, in standard deviations of the users."""
    rng = np.random.default_rng([seeds, learners])
    found = []
    for _ in range(60):
        level = rng.standard_normal(300)
        agents = []
        for k in range(2):
            learns = k < learners
            n = seeds if learns else 1
            own = 0.5 * rng.standard_normal(300) + 0.7 * rng.standard_normal((n, 300))
            moved = 0.1 * rng.standard_normal((n, 1)) if learns else 0.0
            agents.append(AgentValues((level + own + moved)[:, None, :], learns))
        found.append(cross(agents[0], agents[1], SeedPool.of(agents)).components)
    typical = typical_components(300, seeds, learners=learners)
    assert np.mean([one.users for one in found]) == pytest.approx(typical.users, rel=0.05)
    assert np.mean([one.rest for one in found]) == pytest.approx(typical.rest, rel=0.05)
    # Fewer trainings estimate their own variance badly, and negative ones are cut at 0.
    assert np.mean([one.seeds for one in found]) == pytest.approx(typical.seeds, abs=0.01)
    assert (typical.n_seeds, typical.n_users) == (found[0].n_seeds, 300)


def test_a_plan_of_fixed_agents_is_the_textbooks_paired_test() -> None:
    spread = np.sqrt(2 * (0.5**2 + 0.7**2))
    expected = (stats.t.ppf(0.975, 399) + 0.84) * spread / 20
    assert planned_difference(400, 3, learners=0) == pytest.approx(expected)
    assert planned_difference(400, 3, learners=0, comparisons=5) == pytest.approx(
        (stats.t.ppf(0.995, 399) + 0.84) * spread / 20
    )


@settings(max_examples=60)
@given(st.integers(30, 5_000), st.integers(3, 10), st.integers(1, 2), st.integers(1, 9))
def test_more_users_more_trainings_and_fewer_comparisons_see_smaller_differences(
    users: int, seeds: int, learners: int, comparisons: int
) -> None:
    now = planned_difference(users, seeds, learners=learners, comparisons=comparisons)
    # Not so for users where trainings decide: hardly less variance, on fewer degrees of freedom.
    fixed = planned_difference(users, 1, learners=0, comparisons=comparisons)
    assert planned_difference(4 * users, 1, learners=0, comparisons=comparisons) < fixed / 1.9
    assert planned_difference(users, 2 * seeds, learners=learners, comparisons=comparisons) < now
    assert planned_difference(users, seeds, learners=learners, comparisons=comparisons + 1) > now


def test_more_users_never_pay_for_too_few_trainings() -> None:
    floor = smallest_difference(replace(PILOT, users=0.0, rest=0.0), 10**9, 3)
    assert smallest_difference(PILOT, 10**9, 3) == pytest.approx(floor, rel=0.01)
    assert floor == pytest.approx((stats.t.ppf(0.975, 2) + 0.84) * np.sqrt(0.04 / 3))


def test_the_advice_says_of_what_it_is_and_how_sure() -> None:
    line = planning_advice(300, 1, learners=2, comparisons=4)
    assert "300 users x 1 training seed, 4 comparisons" in line
    assert "of these trained models only" in line
    assert "typical variances assumed" in line
    assert f"{planned_difference(300, 1, learners=2, comparisons=4):.2g} of a metric's" in line
    assert "training" not in planning_advice(300, 1, learners=0)
    assert "trained models only" not in planning_advice(300, 3, learners=2)
    assert "simulate more" in planning_advice(1, 1, learners=0)


def test_a_run_names_what_would_decide_only_where_it_has_not() -> None:
    undecided = Estimate(0.2, -0.1, 0.5, 0.99, 200, "test")
    row = power_of("reward", "mine", "base", undecided, PILOT, pairing_gain=3.0)
    assert (row.users, row.training_seeds, row.pairing_gain) == (200, 3, 3.0)
    assert row.detectable == smallest_difference(PILOT, 200, 3, level=0.99)
    assert row.users_needed is not None
    assert row.users_needed > 200
    assert row.seeds_needed is not None
    assert row.seeds_needed > 3
    decided = power_of("reward", "mine", "base", Estimate(0.2, 0.1, 0.3, 0.99, 200, "test"), PILOT)
    assert (decided.users_needed, decided.seeds_needed, decided.note) == (None, None, None)
    nothing = power_of("reward", "mine", "base", Estimate(0.0, 0.0, 0.0, 0.99, 200, "test"), PILOT)
    assert nothing.note == "no difference at all: no size would decide"
    withheld = power_of("reward", "mine", "base", Estimate.withhold("test", "W1: n_inf 12"), PILOT)
    assert withheld.note == "W1: n_inf 12"


def test_what_a_run_could_have_seen_is_a_little_more_than_its_half_width(rng: np.random.Generator) -> None:
    level = rng.standard_normal(400)

    def agent(mean: float) -> AgentValues:
        own = 0.5 * rng.standard_normal((3, 400)) + 0.1 * rng.standard_normal((3, 1))
        return AgentValues((mean + level + own)[:, None], trains=True)

    a, b = agent(1.0), agent(0.0)
    paired = paired_difference(a, b, SeedPool.of([a, b]))
    assert paired.components is not None
    assert paired.estimate.low is not None
    assert paired.estimate.high is not None
    half = (paired.estimate.high - paired.estimate.low) / 2
    detectable = power_of("reward", "a", "b", paired.estimate, paired.components).detectable
    assert 1.0 < detectable / half < 1.6
