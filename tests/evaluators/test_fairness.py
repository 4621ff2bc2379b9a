"""Groups, gaps, exposure and counterfactual flips."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from scipy.sparse import csr_matrix
from scipy.special import expit

from agents.base import Feedback, Observation
from agents.slates import top_slates
from evaluators.comparison import AgentValues
from evaluators.fairness import (
    CASES,
    Flip,
    GroupTable,
    ShiftValues,
    amortised_rank_unfairness,
    by_group,
    decompose,
    difference_by_group,
    exposure_by_user,
    exposure_gini,
    flips_of,
    gap_change,
    gap_interval,
    intersection,
    provider_ratio,
    ratio_interval,
)
from evaluators.fairness.counterfactual import flip_effect
from evaluators.intervals import t_quantile
from evaluators.metrics import Reference, gini, user_metric
from evaluators.rollout import fly
from evaluators.sessions import Sessions
from simulator.behaviour import SimulatorSettings
from simulator.log import Histories, split_users
from simulator.world import World
from tests.simulator.small_world import TruePreference, TrueStates, small_log

Floats = NDArray[np.float64]


def test_group_means_are_means_of_users_with_t_intervals(rng: np.random.Generator) -> None:
    value, group = rng.random(100), np.array(["F"] * 40 + ["M"] * 60)
    table = by_group(value, group, metric="click_rate", attribute="gender")
    assert [g.name for g in table.groups] == ["F", "M"]
    first = table.groups[0].estimate
    low, high = stats.t.interval(0.95, 39, value[:40].mean(), stats.sem(value[:40]))
    assert (first.value, first.low, first.high) == pytest.approx((value[:40].mean(), low, high))
    both = table.groups[0].simultaneous
    assert both.high - both.low > high - low


def test_small_and_eventless_groups_are_withheld_and_listed_and_unknown_users_left_out(
    rng: np.random.Generator,
) -> None:
    group = np.array(["F"] * 40 + ["M"] * 60 + ["X"] * 12 + ["Y"] * 40 + [""] * 50)
    value = rng.random(len(group))
    events = np.where(group == "Y", 0.0, 1.0)
    table = by_group(value, group, metric="click_rate", attribute="gender", events=events)
    withheld = {g.name: g.estimate.withheld for g in table.groups if g.estimate.value is None}
    assert set(withheld) == {"X", "Y"}
    assert "12 users, needs 30" in withheld["X"]
    assert "0 users with an event, needs 10" in withheld["Y"]
    assert "not reported: X, Y" in table.gap.method
    assert table.gap.n == 100
    alone = by_group(value[:52], group[:52].copy(), metric="click_rate", attribute="gender")
    one = by_group(value[28:52], group[28:52], metric="click_rate", attribute="gender")
    assert alone.gap.value is not None or alone.gap.withheld is not None
    assert one.gap.value is None
    assert one.worst_name is None


def test_the_gap_of_two_groups_is_welchs_interval_cut_at_zero(rng: np.random.Generator) -> None:
    a, b = rng.normal(0.4, 0.1, 50), rng.normal(0.3, 0.3, 80)
    mean, sd, n = (np.array([f(x) for x in (a, b)]) for f in (np.mean, lambda x: np.std(x, ddof=1), len))
    found = gap_interval(mean, sd, n.astype(float))
    welch = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((max(0.0, welch.low), welch.high))
    assert found.value == pytest.approx(a.mean() - b.mean())


def test_the_gap_of_many_groups_uses_the_studentised_range_of_all_pairs(rng: np.random.Generator) -> None:
    k, m = 5, 40
    values = rng.normal(0, 1, (k, m)) + np.array([0, 0, 0, 0, 2.0])[:, None]
    mean, sd = values.mean(1), values.std(1, ddof=1)
    found = gap_interval(mean, sd, np.full(k, float(m)))
    lows, highs = [0.0], [0.0]
    for i in range(k):
        for j in range(i):
            part = sd[[i, j]] ** 2 / m
            df = part.sum() ** 2 / (part**2 / (m - 1)).sum()
            half = stats.studentized_range.ppf(0.95, k, df) / np.sqrt(2) * np.sqrt(part.sum())
            d = abs(mean[i] - mean[j])
            lows.append(d - half)
            highs.append(d + half)
    assert (found.low, found.high) == pytest.approx((max(lows), max(highs)), rel=1e-5)


def test_the_ratio_is_the_gap_on_logs(rng: np.random.Generator) -> None:
    mean, sd, n = np.array([0.2, 0.3]), np.array([0.05, 0.06]), np.array([50.0, 70.0])
    ratio = ratio_interval(mean, sd, n)
    logs = gap_interval(np.log(mean), sd / mean, n)
    assert ratio.value == pytest.approx(2 / 3)
    assert (ratio.low, ratio.high) == pytest.approx((np.exp(-logs.high), np.exp(-logs.low)))
    assert ratio_interval(np.array([0.0, 0.3]), sd, n).value is None


def test_the_worst_group_has_the_smallest_lower_limit_not_the_smallest_mean(rng: np.random.Generator) -> None:
    wide = np.r_[rng.normal(0.42, 0.5, 30)]
    narrow = np.r_[rng.normal(0.4, 0.01, 300)]
    wide += 0.42 - wide.mean()
    table = by_group(np.r_[wide, narrow], np.array(["w"] * 30 + ["n"] * 300), metric="m", attribute="a")
    assert table.worst_name == "w"
    assert table.worst.low == table.groups[1].simultaneous.low


def test_what_worlds_and_trainings_add_is_in_every_interval_and_cancels_in_a_gap_that_they_move_alike(
    rng: np.random.Generator,
) -> None:
    group = np.repeat(["a", "b"], 80)
    users = rng.random((1, 1, 160)) + 0.01 * rng.standard_normal((3, 4, 160))
    worlds = 0.3 * np.arange(4.0)[None, :, None]

    def table(values: Floats) -> GroupTable:
        return by_group(AgentValues(values, trains=True), group, metric="m", attribute="g")

    plain, alike = table(users), table(users + worlds)
    apart = table(users + worlds * (group == "a"))
    for found, wider in ((alike, plain), (apart, plain)):
        assert found.groups[0].estimate.high - found.groups[0].estimate.low > 2 * (
            wider.groups[0].estimate.high - wider.groups[0].estimate.low
        )
    assert alike.gap.high - alike.gap.value == pytest.approx(plain.gap.high - plain.gap.value)
    assert apart.gap.high - apart.gap.value > 2 * (plain.gap.high - plain.gap.value)
    assert "users x 3 trainings x 4 judge worlds" in alike.groups[0].estimate.method


def test_where_less_is_better_the_worst_group_has_the_largest_upper_limit(rng: np.random.Generator) -> None:
    value = np.r_[rng.normal(0.2, 0.1, 60), rng.normal(0.5, 0.1, 60)]
    group = np.array(["low"] * 60 + ["high"] * 60)
    assert by_group(value, group, metric="m", attribute="a").worst_name == "low"
    regret = by_group(value, group, metric="regret", attribute="a", higher_is_better=False)
    assert regret.worst_name == "high"
    assert regret.worst.value == pytest.approx(value[60:].mean())


def test_agent_minus_baseline_is_paired_and_wider_for_more_agents(rng: np.random.Generator) -> None:
    baseline = rng.random(120)
    agent = baseline + 0.1 + 0.01 * rng.standard_normal(120)
    group = np.array(["F", "M"] * 50 + ["X"] * 20)
    one = difference_by_group(agent, baseline, group, metric="m", attribute="gender")
    many = difference_by_group(agent, baseline, group, metric="m", attribute="gender", agents=10)
    assert [d.group for d in one] == ["F", "M", "X"]
    assert one[0].estimate.value == pytest.approx(0.1, abs=0.01)
    assert one[0].estimate.high - one[0].estimate.low < 0.02
    assert many[0].estimate.high > one[0].estimate.high
    assert one[2].estimate.value is None


def test_a_gap_that_grew_is_found_and_one_that_did_not_is_not(rng: np.random.Generator) -> None:
    group = np.array(["F", "M"] * 150)
    baseline = rng.normal(0.3, 0.05, 300)
    grown = gap_change(baseline + 0.1 * (group == "F"), baseline, group, rng)
    assert grown.low > 0
    same = gap_change(baseline + 0.1 + 0.01 * rng.standard_normal(300), baseline, group, rng)
    assert same.low <= 0 <= same.high
    assert gap_change(baseline, baseline, np.array(["F"] * 290 + ["M"] * 10), rng).value is None


def test_an_intersection_of_attributes_is_unknown_where_a_part_is() -> None:
    crossed = intersection([np.array(["F", "M", ""]), np.array(["old", "", "old"])])
    assert crossed.tolist() == ["F x old", "", ""]


def sessions(slate: NDArray[np.int64]) -> Sessions:
    n = len(slate)
    return Sessions(
        "a", 1, 0, 0, np.arange(n), slate.astype(np.int32), np.zeros(slate.shape, np.uint8), np.full(n, slate.shape[1]),
        np.zeros(n, bool),
    )  # fmt: skip


def test_exposure_counts_attention_by_position_and_skips_empty_places() -> None:
    slate = np.array([[[0, 1], [2, -1]], [[1, 0], [-1, -1]]])
    exposure, impressions = exposure_by_user(sessions(slate), 4)
    second = 1 / np.log2(3)
    assert exposure.toarray() == pytest.approx(np.array([[1, second, 1, 0], [second, 1, 0, 0]]))
    assert impressions.tolist() == [3, 2]


def test_gini_is_zero_when_even_and_near_one_when_one_item_has_all() -> None:
    assert gini(np.ones(50)) == pytest.approx(0.0)
    assert gini(np.eye(1, 50)[0]) == pytest.approx(0.98)
    assert gini(np.array([1.0, 3.0])) == pytest.approx(0.25)


def test_the_gini_of_a_flight_is_that_of_the_metric_beside_what_chance_makes(rng: np.random.Generator) -> None:
    """The Gini of uniform slates at 10 impressions an item is about .17, and that of even exposure stands beside it."""
    slate = rng.integers(0, 40, (200, 1, 2))
    exposure, impressions = exposure_by_user(sessions(slate), 40, attention="even")
    found = exposure_gini(exposure, impressions, rng)
    assert found.value == pytest.approx(gini(np.asarray(exposure.sum(0)).ravel()))
    assert found.value > 0.12
    assert abs(found.value - found.diagnostics["by_chance"]) < 0.05
    assert exposure_gini(exposure[:20], impressions[:20], rng).value is None
    popular, seen = exposure_by_user(sessions(np.minimum(slate, 4)), 40, attention="even")
    unequal = exposure_gini(popular, seen, rng)
    assert unequal.low > 0.5
    reference = Reference(item_rows=np.ones(40), eligible=np.ones(40, bool))
    flown = sessions(slate)
    scores = user_metric("exposure_gini", flown, reference)
    weighted = exposure_gini(*exposure_by_user(flown, 40), rng)
    assert weighted.value == pytest.approx(scores.mean())
    assert weighted.high - weighted.value == pytest.approx(t_quantile(0.95, 199) * scores.std(ddof=1) / np.sqrt(200))
    half = np.arange(40) < 20
    over_half = exposure_gini(exposure, impressions, rng, eligible=half)
    assert "eligible" in over_half.method


def test_provider_exposure_is_set_against_merit_in_the_world(rng: np.random.Generator) -> None:
    provider = np.array(["a"] * 10 + ["b"] * 10)
    merit = rng.random((100, 20))
    exposure = csr_matrix(merit * np.where(provider == "a", 2.0, 1.0))
    found = provider_ratio(exposure, merit, provider, "a", "b", rng, resamples=200)
    assert found.value == pytest.approx(2.0)
    assert found.low <= 2 <= found.high
    assert provider_ratio(exposure, merit, provider, "a", "c", rng).value is None
    fair = amortised_rank_unfairness(csr_matrix(merit), csr_matrix(merit), rng, resamples=50)
    unfair = amortised_rank_unfairness(exposure, csr_matrix(merit), rng, resamples=50)
    assert fair.value <= 0
    assert unfair.low > fair.value


class Blind:
    """Shows the same items to everyone."""

    def act(self, observation: Observation, rng: np.random.Generator) -> NDArray[np.int64]:
        return top_slates(np.arange(observation.candidates.shape[1], dtype=np.float32), observation)


class Reads(Blind):
    """Turns its list round for users of the first value."""

    def act(self, observation: Observation, rng: np.random.Generator) -> NDArray[np.int64]:
        scores = np.arange(observation.candidates.shape[1], dtype=np.float32)
        sign = np.where(observation.user_features[:, :1] > 0, 1.0, -1.0)
        return top_slates((sign * scores[None, :]).astype(np.float32), observation)


class BlindLearner(Blind):
    """Shows the same items to everyone, others after each slate that it is told of."""

    def __init__(self) -> None:
        self.told = 0

    def act(self, observation: Observation, rng: np.random.Generator) -> NDArray[np.int64]:
        return top_slates(np.roll(np.arange(observation.candidates.shape[1]), 7 * self.told), observation)

    def observe(self, feedback: Feedback) -> None:
        self.told += 1


class ReadsFeatures(TruePreference):
    """A preference model whose user bias depends on the first feature."""

    def user_states(self, histories: Histories, user_features: NDArray[np.float32]) -> TrueStates:
        states = super().user_states(histories, user_features)
        return TrueStates(states.vector, (states.bias + 2 * (user_features[:, 0] > 0)).astype(np.float32))


def world_of(
    preference: type, rng: np.random.Generator, root: np.random.SeedSequence, values: int
) -> tuple[World, Any, tuple[Flip, ...]]:
    """80 users, each of one of some values of gender, in a world of this preference model."""
    log = small_log(rng, users=80)
    one_hot = np.eye(values, dtype=np.float32)[rng.integers(0, values, 80)]
    names = tuple(f"gender={k}" for k in range(values))
    log = replace(log, catalogue=replace(log.catalogue, user_features=one_hot, user_feature_names=names))
    model = preference(
        (rng.standard_normal((130, 8)) / 3).astype(np.float32), np.linspace(-2, 1, 130).astype(np.float32)
    )
    settings = SimulatorSettings(slate_size=4, horizon=6)
    world = World.build(model, log, split_users(log, root), np.arange(80), settings, name="w")
    return world, model, flips_of(world, model, one_hot, names, "gender", np.random.default_rng(3))


def clicks_of(agent: Any, where: World) -> Floats:
    found = fly(agent, where, name="a", world_number=1, seed=3, training_seed=0)
    return found.clicks.sum((1, 2)).astype(float)


class FollowsLikes(TruePreference):
    """Users' features matter before their first row alone; from then on who liked more likes more."""

    def user_states(self, histories: Histories, user_features: NDArray[np.float32]) -> TrueStates:
        length = np.diff(histories.start)
        owner = np.repeat(np.arange(len(length)), length)
        liked = np.bincount(owner, histories.primary, len(length)) / np.maximum(length, 1)
        bias = np.where(length > 0, 4 * liked - 2, np.where(user_features[:, 0] > 0, 3, -3))
        return TrueStates(np.zeros((len(length), self.item_vectors.shape[1]), np.float32), bias.astype(np.float32))


def test_what_is_liked_otherwise_changes_what_is_liked_later(
    rng: np.random.Generator, root: np.random.SeedSequence
) -> None:
    """The attribute acts on the first tenth of a history; the last half changes by way of it alone."""
    world, _, (flip,) = world_of(FollowsLikes, rng, root, 2)
    before, after = world.starts.seen, flip.replayed.starts.seen
    owner = np.repeat(np.arange(80), np.diff(before.start))
    late = np.arange(len(owner)) - before.start[owner] >= np.diff(before.start)[owner] / 2
    changed = before.primary != after.primary
    assert changed[late].mean() > 0.02
    early = np.bincount(owner, changed & ~late, 80) > 0
    assert not changed[late & ~early[owner]].any()


def test_shifts_of_values_are_all_ways_to_give_everybody_another_one() -> None:
    features = np.array([[0.5, 1, 0, 0], [0.5, 0, 1, 0], [0.5, 0, 0, 1], [0.5, 0, 0, 0]], np.float32)
    got = [ShiftValues((1, 2, 3), by)(features) for by in (1, 2)]
    for shifted in got:
        assert (shifted[:, 0] == 0.5).all()
        assert not shifted[3, 1:].any()  # an unknown value stays one
    assert [[int(row.argmax()) for row in shifted[:3, 1:]] for shifted in got] == [[1, 2, 0], [2, 0, 1]]


@pytest.mark.parametrize(
    ("agent", "preference", "moved"),
    [
        (Blind, TruePreference, (False, False, False, False)),
        (BlindLearner, TruePreference, (False, False, False, False)),
        (Reads, TruePreference, (True, False, True, True)),
        (Blind, ReadsFeatures, (False, True, True, True)),
    ],
)
@pytest.mark.parametrize("values", [2, 3])
def test_a_flip_moves_only_what_reads_the_attribute(
    rng: np.random.Generator, root: np.random.SeedSequence, agent: type, preference: type,
    moved: tuple[bool, ...], values: int,
) -> None:  # fmt: skip
    world, _, flips = world_of(preference, rng, root, values)
    assert [flip.shift.by for flip in flips] == list(range(1, values))
    for flip in flips:
        for case, which, expected in zip(flip.cases(agent(), world), CASES, moved, strict=True):
            estimate = flip_effect(clicks_of(*case) - clicks_of(agent(), world), world.starts.user, which)
            if expected:
                assert estimate.high - estimate.low > 0
            else:
                assert (estimate.value, estimate.low, estimate.high) == (0.0, 0.0, 0.0)
                assert "exactly 0" in estimate.method


class ReadsHistory(Blind):
    """Turns its list round for users who liked less than half of their newest items."""

    def act(self, observation: Observation, rng: np.random.Generator) -> NDArray[np.int64]:
        scores = np.arange(observation.candidates.shape[1], dtype=np.float32)
        there = observation.history_items >= 0
        liked = (observation.history_feedback * there).sum(axis=1) / np.maximum(there.sum(axis=1), 1)
        return top_slates((np.where(liked < 0.5, -1, 1)[:, None] * scores[None, :]).astype(np.float32), observation)


class FeaturesAlone(TruePreference):
    """Whoever has the first value likes by two logits more; nothing else tells users apart."""

    def user_states(self, histories: Histories, user_features: NDArray[np.float32]) -> TrueStates:
        vector = np.zeros((len(histories), self.item_vectors.shape[1]), np.float32)
        return TrueStates(vector, np.where(user_features[:, 0] > 0, np.float32(1), np.float32(-1)))


def test_only_the_total_flip_reaches_an_agent_that_reads_what_users_liked(
    rng: np.random.Generator, root: np.random.SeedSequence
) -> None:
    """It sees no attribute, so flipping its features moves nothing; histories replayed under the flip move it.

    Users of the first value lose likes and win none, the others win and lose none, as many as the probabilities say.
    """
    world, model, (flip,) = world_of(FeaturesAlone, rng, root, 2)
    before = world.starts.seen
    first = world.starts.user_features[:, 0] > 0
    owner = np.repeat(np.arange(80), np.diff(before.start))
    p = {sign: expit(np.where(first[owner], sign, -sign) + model.item_bias[before.item]) for sign in (1.0, -1.0)}
    as_modelled = replace(before, primary=(rng.random(len(owner)) < p[1.0]).astype(np.float32))
    world = replace(world, starts=replace(world.starts, seen=as_modelled))
    features = np.eye(2, dtype=np.float32)[(~first).astype(int)]
    (flip,) = flips_of(world, model, features, ("gender=0", "gender=1"), "gender", rng)
    after = flip.replayed.starts.seen
    change = after.primary - as_modelled.primary
    assert np.array_equal(after.item, before.item)
    assert (change <= 0)[first[owner]].all()
    assert (change >= 0)[~first[owner]].all()
    for moved, expected in ((np.abs(change), np.abs(p[1.0] - p[-1.0])), (after.primary, p[-1.0])):
        assert abs((moved - expected).sum()) < 4 * np.sqrt((expected * (1 - expected)).sum())
    shown = [clicks_of(*case) for case in flip.cases(ReadsHistory(), world)]
    assert np.array_equal(shown[0], clicks_of(ReadsHistory(), world))
    assert np.array_equal(shown[1], shown[2])
    assert not np.array_equal(shown[3], shown[2])
    newest = flip.replayed.starts
    np.testing.assert_array_equal(newest.history_feedback, after.last(world.history_length)[1])


def test_without_named_confounders_and_mediators_only_the_total_is_given(rng: np.random.Generator) -> None:
    y, second = rng.random(200), rng.random(200) < 0.5
    found = decompose(y, second, np.arange(200), rng, resamples=50)
    assert found.total.value == pytest.approx(y[second].mean() - y[~second].mean())
    assert found.direct is None
