"""Comparisons against formulas worked by hand, coverage of each interval, and what is withheld."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from evaluators.comparison import (
    AgentValues,
    Rules,
    SeedPool,
    compare_with,
    cross,
    holm,
    optimism,
    paired_difference,
    paired_ratio,
    pairing_gain,
    ratio_between_worlds,
    simulated_mean,
)
from evaluators.power import Components, seeds_needed, smallest_difference, users_needed
from evaluators.ranking import rank_agents

Array = NDArray[np.float64]


def learner(values: Array) -> AgentValues:
    """An agent that trains, from [T, U] or [T, M, U]."""
    return AgentValues(values if values.ndim == 3 else values[:, None, :], trains=True)


def fixed(values: Array) -> AgentValues:
    """An agent that does not learn, from [U] or [M, U]."""
    return AgentValues(np.atleast_2d(values)[None])


# ------------------------------------------------------------------------------------------------ variance


def test_variance_of_two_learners_is_the_documents_formula(rng: np.random.Generator) -> None:
    """Mean squares written out: V = MST_a + MST_b + MSU - MSE, se = sqrt(V / (T U)), df by Satterthwaite."""
    n_seeds, n_users = 4, 50
    a, b, c = (
        rng.standard_normal((n_seeds, n_users)) + rng.standard_normal((n_seeds, 1)) + 2 * rng.standard_normal(n_users)
        for _ in range(3)
    )
    d = a - b
    mst = [n_users * x.mean(axis=1).var(ddof=1) for x in (a, b, c)]
    msu = n_seeds * d.mean(axis=0).var(ddof=1)
    residual = d - d.mean(axis=0) - d.mean(axis=1)[:, None] + d.mean()
    df_rest = (n_seeds - 1) * (n_users - 1)
    mse = (residual**2).sum() / df_rest
    forms = []
    for seeds, df in (
        ([mst[0], mst[1]], n_seeds - 1),
        ([2 * np.mean(mst)], 3 * (n_seeds - 1)),
    ):
        v = max(sum(seeds) + msu - mse, msu, sum(seeds))
        below = sum(x**2 / df for x in seeds) + msu**2 / (n_users - 1) + mse**2 / df_rest
        forms.append((np.sqrt(v / (n_seeds * n_users)), v**2 / below))

    found = paired_difference(learner(a), learner(b), SeedPool.of([learner(a), learner(b), learner(c)]))
    half = max(stats.t.ppf(0.975, df) * se for se, df in forms)
    p_value = max(2 * stats.t.sf(abs(d.mean()) / se, df) for se, df in forms)
    assert found.estimate.value == pytest.approx(d.mean())
    assert found.estimate.high == pytest.approx(d.mean() + half)
    assert found.p_value == pytest.approx(p_value)


def test_without_training_it_is_the_paired_t_test(rng: np.random.Generator) -> None:
    a, b = rng.standard_normal(80) + 0.3, rng.standard_normal(80)
    found = paired_difference(fixed(a), fixed(b), SeedPool())
    expected = stats.ttest_rel(a, b)
    interval = expected.confidence_interval(0.95)
    assert found.p_value == pytest.approx(expected.pvalue)
    assert (found.estimate.low, found.estimate.high) == (pytest.approx(interval.low), pytest.approx(interval.high))
    assert "this trained model" not in found.scope


def test_a_fixed_agent_has_no_training_part(rng: np.random.Generator) -> None:
    """Copied for every seed it changes nothing: equal rows have no variance between them."""
    a, b = learner(rng.standard_normal((3, 60)) + rng.standard_normal((3, 1))), rng.standard_normal(60)
    once = paired_difference(a, fixed(b), SeedPool.of([a]))
    copied = paired_difference(a, AgentValues(np.tile(b, (3, 1, 1)).reshape(3, 1, 60)), SeedPool.of([a]))
    assert once.p_value == pytest.approx(copied.p_value)
    assert once.estimate.low == pytest.approx(copied.estimate.low)


def test_one_training_speaks_for_the_trained_model_only(rng: np.random.Generator) -> None:
    found = paired_difference(learner(rng.standard_normal((1, 60))), fixed(rng.standard_normal(60)), SeedPool())
    assert "this trained model" in found.scope
    assert "this trained model" in found.estimate.method


@pytest.mark.parametrize(("seeds_a", "seeds_b"), [(3, 5), (2, 6)])
def test_unequal_numbers_of_trainings_still_cover(seeds_a: int, seeds_b: int) -> None:
    """Both trained, truth 0: at most .07 called, right code exceeds .095 of 800 once in 500."""
    called = 0
    for i in range(800):
        rng = np.random.default_rng([5, i])
        user = rng.standard_normal(150)
        a, b = (
            learner(
                user
                + 0.5 * rng.standard_normal(150)
                + 0.7 * rng.standard_normal((n, 150))
                + 0.15 * rng.standard_normal((n, 1))
            )
            for n in (seeds_a, seeds_b)
        )
        p_value = paired_difference(a, b, SeedPool.of([a, b])).p_value
        called += p_value is not None and p_value < 0.05
    assert called / 800 <= 0.095


def test_components_are_those_of_the_process() -> None:
    """Standard deviations .6 (trainings, both agents), .9 (users) and 1.1 (rest), averaged over 200 runs."""
    found = []
    for i in range(200):
        rng = np.random.default_rng([6, i])
        d = 0.9 * rng.standard_normal(100) + 1.1 * rng.standard_normal((4, 100))
        a = learner(d + 0.6 * rng.standard_normal((4, 1)))
        found.append(cross(a, fixed(np.zeros(100)), SeedPool.of([a])).components)
    assert np.mean([c.seeds for c in found]) == pytest.approx(0.36, abs=0.06)
    assert np.mean([c.users for c in found]) == pytest.approx(0.81, abs=0.06)
    assert np.mean([c.rest for c in found]) == pytest.approx(1.21, abs=0.06)


@given(shift=st.floats(-50, 50), factor=st.floats(0.1, 20))
@settings(max_examples=25)
def test_a_difference_moves_and_stretches_with_the_metric(shift: float, factor: float) -> None:
    rng = np.random.default_rng(3)
    a, b = (learner(rng.standard_normal((3, 2, 80))) for _ in range(2))
    before = paired_difference(a, b, SeedPool.of([a, b]))
    moved, other = learner(factor * a.per_user + shift), learner(factor * b.per_user + shift)
    after = paired_difference(moved, other, SeedPool.of([moved, other]))
    assert before.estimate.low is not None
    assert after.estimate.low == pytest.approx(factor * before.estimate.low, abs=1e-9 * (1 + abs(shift)))
    assert after.p_value == pytest.approx(before.p_value, rel=1e-5)


# ------------------------------------------------------------------------------------------------ worlds


def flown(rng: np.random.Generator, n_worlds: int, world_sd: float, *, n_seeds: int = 3, n_users: int = 150) -> Array:
    """[T, M, U] values around 2: users and trainings shared by the worlds, each world with its own error."""
    return (
        2
        + rng.standard_normal((1, 1, n_users))
        + 0.15 * rng.standard_normal((n_seeds, 1, 1))
        + world_sd * rng.standard_normal((1, n_worlds, 1))
        + 0.3 * rng.standard_normal((n_seeds, n_worlds, n_users))
    )


def test_simulated_value_covers_over_users_trainings_and_worlds() -> None:
    """Truth 2; at least .93 of 600 runs (right code at .95 falls below .925 once in 300). Worlds left out: .4."""
    covered, without_worlds = 0, 0
    for i in range(600):
        agent = learner(flown(np.random.default_rng([8, i]), 5, 0.2))
        found = simulated_mean(agent, SeedPool.of([agent]))
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 2 <= found.high
        half = cross(agent, None, SeedPool.of([agent])).half_width(0.95)
        without_worlds += abs(agent.value - 2) <= half
    assert covered / 600 >= 0.925
    assert without_worlds < covered


def test_one_world_says_that_it_knows_nothing_of_its_own_error(rng: np.random.Generator) -> None:
    agent = learner(flown(rng, 1, 0.2))
    assert "within one world" in simulated_mean(agent, SeedPool.of([agent])).method


def test_a_difference_is_of_these_worlds_and_names_a_further_ones_limits(rng: np.random.Generator) -> None:
    a, b = learner(flown(rng, 5, 0.3)), learner(flown(rng, 5, 0.3))
    found = paired_difference(a, b, SeedPool.of([a, b]))
    low, high = found.estimate.diagnostics["further_world"]
    assert found.scope == ("these 5 worlds",)
    assert low < found.estimate.low
    assert high > found.estimate.high
    assert found.worlds == pytest.approx((a.per_user - b.per_user).mean(axis=(0, 2)))


@given(seed=st.integers(0, 10_000), n_worlds=st.integers(2, 6), n_seeds=st.integers(1, 3))
def test_a_further_world_is_never_better_known_than_these(seed: int, n_worlds: int, n_seeds: int) -> None:
    """Two trainings have one degree of freedom; with the worlds' own the quantile fell from 12.7 to 4.3."""
    rng = np.random.default_rng(seed)
    a, b = (learner(rng.standard_normal((n_seeds, n_worlds, 60)) + rng.standard_normal((n_seeds, 1, 1))) for _ in "ab")
    found = paired_difference(a, b, SeedPool.of([a, b])).estimate
    low, high = found.diagnostics["further_world"]
    if found.value is not None:
        assert low <= found.low
        assert high >= found.high


# ------------------------------------------------------------------------------------------------ publication


def test_too_few_users_are_withheld(rng: np.random.Generator) -> None:
    found = paired_difference(fixed(rng.standard_normal(29)), fixed(rng.standard_normal(29)), SeedPool())
    assert found.estimate.withheld is not None
    assert "W3: 29 users, needs 30" in found.estimate.withheld
    assert found.p_value is None


def test_a_mean_that_a_handful_of_users_make_is_withheld() -> None:
    """Five users of 400 have all the reward: no interval knows what the sixth would bring."""
    values = np.zeros(400)
    values[:5] = 100.0
    withheld = simulated_mean(fixed(values), SeedPool()).withheld
    assert withheld is not None
    assert "W1" in withheld
    assert "W2" in withheld


def test_nobody_rewarded_is_no_proof_of_nothing() -> None:
    assert simulated_mean(fixed(np.zeros(400)), SeedPool()).withheld is not None


def test_a_rare_rate_has_clopper_pearson_limits(rng: np.random.Generator) -> None:
    """Independent clicks, 20 of 4,000: no design effect to speak of, so the plain Clopper-Pearson within a tenth."""
    clicks = np.zeros(200)
    clicks[rng.permutation(200)[:20]] = 1
    found = simulated_mean(fixed(clicks / 20), SeedPool(), rules=Rules(rate=True, events=20, trials=4000))
    plain = stats.binomtest(20, 4000).proportion_ci(0.95, "exact")
    assert (found.low, found.high) == (pytest.approx(plain.low, rel=0.1), pytest.approx(plain.high, rel=0.1))


def test_a_rate_without_any_event_has_an_upper_limit() -> None:
    """Rule of three at the effective size: 1 - .025^(1 / (4,000 / 2))."""
    rules = Rules(rate=True, events=0, trials=4000, design_effect=2.0)
    found = simulated_mean(fixed(np.zeros(200)), SeedPool(), rules=rules)
    assert (found.value, found.low) == (0.0, 0.0)
    assert found.high == pytest.approx(1 - 0.025 ** (1 / 2000))


def test_twins_have_no_difference_and_a_ratio_of_one(rng: np.random.Generator) -> None:
    one, other = (fixed(np.full((5, 40), 3.0) + np.arange(40)) for _ in range(2))
    difference = paired_difference(one, other, SeedPool()).estimate
    ratio = paired_ratio(one, other, [one, other]).estimate
    assert (difference.value, difference.low, difference.high) == (0.0, 0.0, 0.0)
    assert (ratio.value, ratio.low, ratio.high) == (1.0, 1.0, 1.0)


def test_a_learner_that_never_differs_from_what_does_not_learn_has_no_difference(rng: np.random.Generator) -> None:
    """Where nothing that is shown moves a metric, every training has the one value of the baseline."""
    values = rng.integers(0, 5, (1, 2, 80)) / 7.0
    for same in (values, np.full_like(values, 0.1)):  # sums of thirds are not those of wholes to the last bit
        learned = AgentValues(np.repeat(same, 3, axis=0), trains=True)
        paired = paired_difference(learned, AgentValues(same), SeedPool.of([learned]))
        found = paired.estimate
        assert (found.value, found.low, found.high, paired.p_value) == (0.0, 0.0, 0.0, 1.0)
        assert found.diagnostics["pairing_gain"] is None
        ranks = rank_agents({"learned": learned, "fixed": AgentValues(same)})
        assert [(rank.rank_low, rank.rank_high) for rank in ranks] == [(1, 2), (1, 2)]
    moved = np.repeat(values, 3, axis=0)
    moved[2, 0, 7] += 1.0
    apart = paired_difference(AgentValues(moved, trains=True), AgentValues(values), SeedPool()).estimate
    assert (apart.low, apart.high) != (0.0, 0.0)


def test_users_who_only_cancel_out_are_no_proof_of_equality(rng: np.random.Generator) -> None:
    """Two trainings that move every user by +1 and -1: the mean is 0, the agents are not the same."""
    base = rng.standard_normal(60)
    a = learner(np.stack([base + 1, base - 1]))
    found = paired_difference(a, fixed(base), SeedPool.of([a])).estimate
    assert found.value is None or (found.low, found.high) != (0.0, 0.0)


# ------------------------------------------------------------------------------------------------ ratio, optimism


def test_ratio_covers_the_ratio_of_the_means() -> None:
    """Truth 1.5; .93 or more of 500 runs. Users of much reward have much with both, so the pairing matters."""
    covered = 0
    for i in range(500):
        rng = np.random.default_rng([9, i])
        user = rng.gamma(3.0, 1.0, 200)
        a, b = (
            learner(mean * (user / 3 + 0.3 * rng.standard_normal((3, 200))) * (1 + 0.03 * rng.standard_normal((3, 1))))
            for mean in (1.5, 1.0)
        )
        found = paired_ratio(a, b, [a, b]).estimate
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 1.5 <= found.high
    assert covered / 500 >= 0.93


@pytest.mark.parametrize("n_seeds", [1, 3])
def test_a_ratio_between_worlds_covers_and_gains_by_what_users_and_trainings_share(n_seeds: int) -> None:
    """Users and trainings move both values alike, so limits of the two values joined as if apart are far too wide."""
    rng = np.random.default_rng(12)
    true_ratio, covered, widths, apart = 1.1, [], [], []
    for _ in range(400):
        user, seed = rng.gamma(2.0, 2.0, 150), 0.05 * rng.standard_normal((3, n_seeds, 1))
        shown = user * (1 + seed) + 0.5 * rng.standard_normal((2, 3, n_seeds, 150))
        here, there = shown[0] * true_ratio, shown[1]
        sides = [
            (AgentValues(a[:, None], trains=n_seeds > 1), AgentValues(b[:, None], trains=n_seeds > 1))
            for a, b in zip(here, there, strict=True)
        ]
        found = ratio_between_worlds(*sides[0], sides)
        assert found.low is not None
        assert found.high is not None
        covered.append(found.low <= true_ratio <= found.high)
        widths.append(found.high - found.low)
        apart.append(paired_ratio(*sides[0], sides[0]).estimate)
    assert 0.92 <= np.mean(covered) <= 0.995
    same = ratio_between_worlds(sides[0][0], sides[0][0], sides)  # a simulator that says the truth
    assert (same.value, same.low, same.high) == (1.0, 1.0, 1.0)
    value = simulated_mean(sides[0][0], SeedPool())
    assert value.low is not None
    assert value.high is not None
    assert np.mean(widths) < 0.3 * (value.high - value.low) / value.value * true_ratio
    if n_seeds > 1:  # of two policies' trainings nothing is shared
        assert np.mean(widths) < 0.5 * np.mean([one.high - one.low for one in apart])


def test_a_ratio_to_nothing_is_withheld(rng: np.random.Generator) -> None:
    a, b = fixed(rng.random(60)), fixed(np.zeros(60))
    assert paired_ratio(a, b, [a, b]).estimate.withheld is not None


def test_optimism_is_what_the_training_world_claims_beyond_the_judges(rng: np.random.Generator) -> None:
    judged = learner(flown(rng, 5, 0.05))
    claimed = AgentValues(judged.per_user.mean(axis=1, keepdims=True) * 1.3, trains=True)
    found = optimism(claimed, judged)
    assert found.value == pytest.approx(0.3 * judged.value)
    assert found.low is not None
    assert found.low > 0
    assert found.diagnostics["flag"] is True
    assert found.diagnostics["ratio"] == pytest.approx(1.3)
    assert optimism(AgentValues(judged.per_user[:, :1] * 1.1, trains=True), judged).diagnostics["flag"] is False


def test_pairing_gain_is_how_many_times_fewer_users_are_needed(rng: np.random.Generator) -> None:
    """Users' own variance 4, agents' own 1 each: (5 + 5) / 2."""
    user = 2 * rng.standard_normal(20_000)
    a, b = (fixed(user + rng.standard_normal(20_000)) for _ in range(2))
    assert pairing_gain(a, b) == pytest.approx(5, rel=0.05)
    assert pairing_gain(a, a) is None


# ------------------------------------------------------------------------------------------------ families, power


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_rejects_what_stepping_down_rejects(p_values: list[float]) -> None:
    """At each alpha: from the smallest p on, reject while p <= alpha / (number left), then stop."""
    adjusted = holm(p_values)
    for alpha in (0.01, 0.05, 0.3):
        rejected = set()
        for left, i in zip(range(len(p_values), 0, -1), np.argsort(p_values, kind="stable"), strict=True):
            if p_values[i] * left > alpha:
                break
            rejected.add(int(i))
        assert {i for i, p in enumerate(adjusted) if p is not None and p <= alpha} == rejected


def test_a_withheld_comparison_still_counts_in_its_family() -> None:
    assert holm([0.01, None, 0.04]) == [pytest.approx(0.03), None, pytest.approx(0.08)]


def test_a_family_prints_bonferroni_intervals_and_holm_p_values(rng: np.random.Generator) -> None:
    agents = {name: fixed(rng.standard_normal((5, 100)) + 0.1 * i) for i, name in enumerate("abcd")}
    found = compare_with("reward", "a", agents)
    assert [row.agent for row in found] == ["b", "c", "d"]
    for row in found:
        alone = paired_difference(agents[row.agent], agents["a"], SeedPool(), level=1 - 0.05 / 3)
        assert row.difference == alone.estimate
        assert row.p_value == alone.p_value
    assert [row.p_adjusted for row in found] == holm([row.p_value for row in found])


def test_users_and_seeds_needed_are_the_documents() -> None:
    """7.85 s^2 / delta^2 users for one comparison, 13.3 for ten."""
    parts = Components(seeds=0.0, users=1.0, rest=0.0, n_seeds=1, n_users=100)
    assert users_needed(parts, 0.05) == pytest.approx(7.85 / 0.05**2, rel=0.002)
    assert users_needed(parts, 0.05, level=1 - 0.05 / 10) == pytest.approx(13.3 / 0.05**2, rel=0.005)
    trained = replace(parts, seeds=0.01)
    seeds = seeds_needed(trained, 0.1)
    assert (stats.t.ppf(0.975, seeds - 1) + 0.84) ** 2 * 0.01 / seeds <= 0.1**2
    assert (stats.t.ppf(0.975, seeds - 2) + 0.84) ** 2 * 0.01 / (seeds - 1) > 0.1**2


def test_the_smallest_difference_is_found_with_a_power_of_four_fifths() -> None:
    """In 600 paired runs; .8 lies outside [.74, .87] once in 1,000."""
    parts = Components(seeds=0.0, users=2.0, rest=0.0, n_seeds=1, n_users=120)
    truth = smallest_difference(parts, 120, 1)
    found = 0
    for i in range(600):
        rng = np.random.default_rng([10, i])
        user = rng.standard_normal(120)
        a, b = user + truth + rng.standard_normal(120), user + rng.standard_normal(120)
        p_value = paired_difference(fixed(a), fixed(b), SeedPool()).p_value
        found += p_value is not None and p_value < 0.05
    assert 0.74 < found / 600 < 0.87
