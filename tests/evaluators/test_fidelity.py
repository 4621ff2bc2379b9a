"""Fidelity checks: each passes a right model, and answers the wrong one that it is there for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from evaluators.estimate import Estimate
from evaluators.fidelity import (
    Check,
    Fidelity,
    MeasuredValues,
    ScoredRows,
    SessionTable,
    SlateFlight,
    UserValues,
    WorldEvidence,
    answer_blocks,
    answers_classifier,
    behaviour_checks,
    calibration_error,
    calibration_floor,
    calibration_in_the_large,
    calibration_slope,
    check_world,
    compare_predictions,
    conclude,
    debiased_calibration_error,
    determinism,
    discrimination,
    judged,
    observed_over_expected,
    popularity_strata,
    ranking_agreement,
    reliability_curve,
    replayed_sessions,
    responsiveness,
    responsiveness_of,
    score_random_rows,
    score_rows,
    session_checks,
    skill,
    splits,
    top_of_list,
    top_rows,
    two_sample_classifier,
    user_auc,
    why_no_sessions,
)
from simulator.behaviour.leaving import session_numbers
from simulator.log import JUDGE, WORLD_A, InteractionLog, RandomRows, split_users
from tests.simulator.small_world import small_log, small_world

Floats = NDArray[np.float64]


def sigmoid(z: Floats) -> Floats:
    return 1 / (1 + np.exp(-z))


def scored(rng: np.random.Generator, *, users: int = 400, rows: int = 30, items: int = 200) -> ScoredRows:
    """Rows of a right model whose users differ (random effects that it knows)."""
    user = np.repeat(np.arange(users), rows)
    item = np.minimum(rng.zipf(1.3, users * rows) - 1, items - 1)
    z = 0.7 * rng.standard_normal(users)[user] + rng.standard_normal(items)[item] + 0.4 * rng.standard_normal(len(user))
    p = sigmoid(z - 0.5)
    y = (rng.random(len(p)) < p).astype(np.float64)
    return ScoredRows(p, y, user, np.bincount(item, minlength=items)[item].astype(float))


def estimate(value: float, low: float, high: float) -> Estimate:
    return Estimate(value, low, high, 0.95, 100, "made up")


@pytest.mark.parametrize(
    ("low", "high", "verdict", "passed"),
    [
        (0.95, 1.05, "pass", True),
        (0.9, 1.1, "pass", True),
        (0.85, 1.05, "undecided", False),
        (0.5, 1.5, "undecided", False),
        (1.2, 1.3, "fail", False),
        (0.3, 0.8, "fail", False),
    ],
)
def test_a_check_passes_only_with_its_whole_interval_in_the_band(
    low: float, high: float, verdict: str, passed: bool
) -> None:
    check = judged("O/E", estimate((low + high) / 2, low, high), "[0.9, 1.1]", above=0.9, below=1.1)
    assert (check.verdict, check.passed) == (verdict, passed)
    assert (check.reason == "") == passed


def test_a_lower_limit_on_the_threshold_of_a_strict_rule_does_not_pass() -> None:
    assert judged("skill", estimate(0.0, 0.0, 0.0), "lower > 0", above=0.0, strict=True).verdict == "fail"
    assert judged("skill", estimate(0.1, 0.0, 0.2), "lower > 0", above=0.0, strict=True).verdict == "undecided"


def test_a_withheld_estimate_is_a_check_that_cannot_be_made() -> None:
    check = judged("O/E", Estimate.withhold("O/E", "users: 1, needs 2"), "[0.9, 1.1]", above=0.9, below=1.1)
    assert check.passed is None
    assert check.reason == "users: 1, needs 2"


def test_observed_over_expected_is_the_ratio_of_weighted_sums(rng: np.random.Generator) -> None:
    p, y, user = np.array([0.2, 0.4, 0.4]), np.array([1.0, 0.0, 1.0]), np.array([0, 0, 1])
    assert observed_over_expected(p, y, user).value == pytest.approx(2.0)
    assert observed_over_expected(p, y, user, weight=np.array([1.0, 0.0, 3.0])).value == pytest.approx(4 / 1.4)


def test_slope_and_intercept_are_those_of_statsmodels_with_clustered_errors(rng: np.random.Generator) -> None:
    import statsmodels.api as sm

    rows = scored(rng, users=80)
    logit = np.log(rows.p / (1 - rows.p))
    distorted = replace(rows, p=sigmoid(1.4 * logit + 0.3))
    check = calibration_slope(distorted)
    z = np.log(distorted.p / (1 - distorted.p))
    fit = sm.GLM(rows.y, sm.add_constant(z), family=sm.families.Binomial()).fit(
        cov_type="cluster", cov_kwds={"groups": rows.user, "use_correction": False}
    )
    found = check.estimate
    assert found.value == pytest.approx(fit.params[1], abs=1e-8)
    assert found.diagnostics["intercept"] == pytest.approx(fit.params[0], abs=1e-8)
    half = (found.high - found.low) / 2
    assert half == pytest.approx(fit.bse[1] * np.sqrt(80 / 79) * 1.990450, rel=1e-4)  # t quantile with 79 df


def test_an_overconfident_model_fails_the_slope_and_a_shifted_one_the_level(rng: np.random.Generator) -> None:
    rows = scored(rng)
    logit = np.log(rows.p / (1 - rows.p))
    assert calibration_slope(rows).passed
    assert calibration_slope(replace(rows, p=sigmoid(1.8 * logit))).verdict == "fail"
    assert calibration_in_the_large(rows).passed
    assert calibration_in_the_large(replace(rows, p=sigmoid(logit + 0.5))).verdict == "fail"


def test_the_calibration_error_of_a_perfect_model_is_near_zero_where_the_plain_one_is_not() -> None:
    """Debiasing takes off the noise of the bin means: plain .006 to .02, debiased near 0 in the median."""
    found = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        rows = scored(rng, users=200, rows=10)
        found.append(calibration_error(rows, rng, resamples=100).estimate)
    assert np.median([e.value for e in found]) < 0.008
    assert np.median([e.diagnostics["plain"] for e in found]) > 0.02


def test_the_calibration_error_of_a_wrong_model_is_its_distance(rng: np.random.Generator) -> None:
    rows = scored(rng, users=600)
    p = rows.p * 0.8
    found = calibration_error(replace(rows, p=p), rng)
    truth = np.sqrt(np.mean((rows.p - p) ** 2))
    assert found.verdict == "fail"
    assert found.estimate.low < truth < found.estimate.high + 0.01
    assert found.estimate.value == pytest.approx(truth, abs=0.01)


def test_skill_is_one_minus_the_ratio_of_losses_and_knows_no_better_constant(rng: np.random.Generator) -> None:
    rows = replace(scored(rng), p_bias=np.full(12000, 0.4))
    over_base, over_bias = skill(rows)
    rate = rows.y.mean()
    loss = -np.mean(np.where(rows.y > 0, np.log(rows.p), np.log1p(-rows.p)))
    base = -(rate * np.log(rate) + (1 - rate) * np.log(1 - rate))
    assert over_base.estimate.value == pytest.approx(1 - loss / base)
    assert over_base.passed
    assert over_bias.passed
    constant = replace(rows, p=np.full(len(rows), rate + 1e-6), p_bias=rows.p)
    assert not skill(constant)[0].passed
    assert skill(constant)[1].verdict == "fail"
    assert skill(replace(rows, p_bias=None))[1].passed is None


def test_a_gain_over_a_reference_is_paired_and_changes_sign_when_the_two_are_swapped(rng: np.random.Generator) -> None:
    rows = scored(rng)
    worse = sigmoid(np.log(rows.p / (1 - rows.p)) * 0.5)
    gain = compare_predictions("reference", rows.p, worse, rows.y, rows.user)
    loss = compare_predictions("reference", worse, rows.p, rows.y, rows.user)
    assert gain.low > 0
    assert gain.value == pytest.approx(-loss.value)
    assert compare_predictions("itself", rows.p, rows.p, rows.y, rows.user).high == 0


def test_auc_within_users_is_that_of_scikit_learn_with_ties(rng: np.random.Generator) -> None:
    from sklearn.metrics import roc_auc_score

    user = np.repeat(np.arange(30), 12)
    p = np.round(rng.random(360), 1)
    y = (rng.random(360) < 0.4).astype(float)
    y[:12] = 1.0  # a user with one outcome only
    shuffled = rng.permutation(360)
    auc, users = user_auc(p[shuffled], y[shuffled], user[shuffled])
    expected = {u: roc_auc_score(y[user == u], p[user == u]) for u in range(30) if 0 < y[user == u].mean() < 1}
    assert dict(zip(users, auc, strict=True)) == pytest.approx(expected)
    assert 0 not in users


def test_discrimination_says_how_many_users_were_left_out(rng: np.random.Generator) -> None:
    rows = scored(rng, users=50, rows=3)
    check = discrimination(rows)
    assert check.estimate.n + check.estimate.diagnostics["users_excluded"] == 50


def test_the_top_of_the_list_is_each_users_best_tenth() -> None:
    p = np.array([0.1, 0.9, 0.5, 0.2, 0.3, 0.8, 0.7])
    user = np.array([0, 0, 0, 1, 1, 1, 1])
    assert np.flatnonzero(top_rows(p, user)).tolist() == [1, 5]
    assert np.flatnonzero(top_rows(p, user, share=0.5)).tolist() == [1, 2, 5, 6]


def test_a_model_too_sure_of_its_favourites_fails_at_the_top_alone(rng: np.random.Generator) -> None:
    rows = scored(rng)
    flattered = replace(rows, p=np.where(top_rows(rows.p, rows.user), rows.p**0.2, rows.p))
    assert top_of_list(rows).passed
    assert top_of_list(flattered).verdict == "fail"


def test_popularity_strata_show_a_fault_in_rare_items_and_leave_out_strata_without_events(
    rng: np.random.Generator,
) -> None:
    rows = scored(rng)
    assert popularity_strata(rows).passed
    rare = rows.item_exposure <= np.quantile(rows.item_exposure, 0.2)
    check = popularity_strata(replace(rows, p=np.where(rare, rows.p * 0.5, rows.p)))
    assert check.verdict == "fail"
    assert check.estimate.diagnostics["strata"][0]["value"] > 1.3
    few = popularity_strata(ScoredRows(rows.p[:100], rows.y[:100], rows.user[:100], rows.item_exposure[:100]))
    assert few.passed is None


def test_the_reliability_curve_covers_a_right_model_and_the_floor_is_what_it_shows(rng: np.random.Generator) -> None:
    rows = scored(rng)
    curve = reliability_curve(rows)
    assert len(curve) == 10
    assert sum(b.n for b in curve) == len(rows)
    assert sum(b.low <= b.predicted <= b.high for b in curve) >= 7
    floor = calibration_floor(rows, rng, draws=100)
    assert floor.perfect < floor.perfect_95
    assert floor.error < floor.perfect_95 * 1.5
    assert floor.debiased is not None
    assert floor.debiased_95 is not None
    assert floor.debiased < floor.debiased_95 * 1.5
    assert floor.debiased == debiased_calibration_error(rows.p, rows.y, rows.user, rng, resamples=2).value
    wrong = calibration_floor(replace(rows, p=rows.p * 0.8), rng, draws=50)
    assert wrong.error > 3 * floor.perfect_95
    assert wrong.debiased is not None
    assert wrong.debiased > 3 * floor.debiased_95
    few = rows.user < 20
    small = ScoredRows(rows.p[few], rows.y[few], rows.user[few], rows.item_exposure[few])
    assert calibration_floor(small, rng, draws=5).debiased is None


def test_a_floor_knows_that_rows_of_one_user_are_off_together(rng: np.random.Generator) -> None:
    """A right model of users with moods: its floor from independent rows would be too low by a quarter."""
    n_users, rows, mood = 150, 40, 0.8
    user = np.repeat(np.arange(n_users), rows)
    z, floors, shown = rng.normal(-0.5, 1.2, len(user)), [], []
    node = mood * rng.standard_normal(20_000)
    grid = np.linspace(-6, 6, 400)
    p = np.interp(z, grid, (1 / (1 + np.exp(-(grid[:, None] + node)))).mean(1))
    for _ in range(30):
        truth = 1 / (1 + np.exp(-(z + mood * rng.standard_normal(n_users)[user])))
        y = (rng.random(len(z)) < truth).astype(float)
        floor = calibration_floor(ScoredRows(p, y, user, np.ones(len(p))), rng, draws=30)
        floors.append((floor.debiased_95, floor.mood, floor.error / floor.perfect))
        shown.append(floor.debiased)
    q95, found, ratio = np.mean(floors, axis=0)
    assert ratio == pytest.approx(1, abs=0.1)
    assert found == pytest.approx(mood, abs=0.1)
    assert np.mean(np.array(shown) > q95) < 0.13
    alone = [
        calibration_floor(
            ScoredRows(p, (rng.random(len(p)) < p).astype(float), user, np.ones(len(p))), rng, draws=30
        ).debiased_95
        for _ in range(10)
    ]
    assert np.mean(alone) < 0.9 * q95


def test_time_stamps_that_are_bursts_identify_no_sessions(rng: np.random.Generator) -> None:
    log = small_log(rng)
    assert why_no_sessions(log) is None
    burst = replace(log, time=np.floor(log.time / 3))
    why = why_no_sessions(burst)
    assert why is not None
    assert "bursts" in why
    assert session_checks(None, None, rng, why=why)[0].passed is None
    assert why_no_sessions(replace(log, time=np.full(len(log), np.nan))) == "the log has no time stamps"


def test_rows_of_one_slate_are_no_burst(rng: np.random.Generator) -> None:
    log = small_log(rng)
    begins = np.diff(log.user, prepend=-1) != 0
    begins |= np.arange(len(log)) % 4 == 0
    slate = np.cumsum(begins) - 1
    log = replace(log, time=log.time[begins][slate])
    assert "bursts" in (why_no_sessions(log) or "")
    assert why_no_sessions(replace(log, impression=slate)) is None
    assert "no user has two slates" in (why_no_sessions(replace(log, impression=log.user)) or "")


def test_sessions_are_cut_at_long_gaps(rng: np.random.Generator) -> None:
    log = small_log(rng, users=20)
    first = int(np.flatnonzero(log.user == 3)[0])
    time = log.time.copy()
    time[first + 2 :] += 5000
    rows = np.flatnonzero(np.isin(log.user, (3, 4)))
    found = np.bincount(session_numbers(replace(log, time=time), rows))
    assert found.tolist() == [2, int((log.user == 3).sum()) - 2, int((log.user == 4).sum())]


def test_logged_sessions_need_no_times_and_are_replayed_row_by_row(rng: np.random.Generator) -> None:
    log = small_log(rng, users=20)
    log = replace(log, time=np.full(len(log), np.nan), session=np.arange(len(log)) // 5)
    assert why_no_sessions(log) is None
    rows = np.arange(len(log))
    real, simulated = replayed_sessions(log, rows, np.full(len(rows), 1e-9), rng)
    assert real.given["length"].tolist() == simulated.given["length"].tolist()
    assert simulated.features["longest wait"].tolist() == simulated.given["length"].tolist()  # nobody clicks
    assert real.features["clicks"].sum() == log.primary.sum()
    starts = np.flatnonzero(np.r_[True, np.diff(log.user) != 0] | (rows % 5 == 0))
    for k, part in enumerate(np.split(log.primary, starts[1:])):
        runs = "".join(str(int(y)) for y in part).split("1")
        assert real.features["longest wait"][k] == max(len(run) for run in runs)
    assert replayed_sessions(replace(log, session=None), rows, np.full(len(rows), 0.5), rng) is None


def test_answers_of_a_session_that_hang_together_are_found_where_every_row_is_calibrated() -> None:
    """A mood of the session that the model does not know: O/E and slope pass, clicks a session are too even."""
    rng = np.random.default_rng(4)
    users, sessions, rows = 400, 3, 12
    session = np.repeat(np.arange(users * sessions), rows)
    mood = 2.0 * rng.standard_normal(users * sessions)[session]
    y = (rng.random(len(session)) < sigmoid(mood)).astype(np.float32)
    log = replace(
        small_log(rng, users=users),
        user=np.repeat(np.arange(users), sessions * rows),
        item=rng.integers(0, 130, len(session)),
        time=np.full(len(session), np.nan),
        primary=y,
        session=session,
    )
    half = np.full(len(y), 0.5)
    assert calibration_in_the_large(ScoredRows(half, y.astype(float), log.user, np.ones(len(y)))).passed
    found = replayed_sessions(log, np.arange(len(y)), half, rng)
    assert {check.verdict for check in session_checks(*found, rng, permutations=60)} == {"fail"}
    right = replayed_sessions(log, np.arange(len(y)), sigmoid(mood), rng)
    assert {check.verdict for check in session_checks(*right, rng, permutations=60)} == {"pass"}


def test_rows_of_random_exposure_are_scored_for_their_own_users_and_not_where_the_item_was_met(
    rng: np.random.Generator, root: np.random.SeedSequence
) -> None:
    log = small_log(rng, users=60)
    split = split_users(log, root)
    judges = split.users(JUDGE, tuning=False)
    early = np.flatnonzero((log.user == judges[0]) & ~split.late)[0]
    fresh = np.setdiff1d(np.arange(130), log.item[log.user == judges[0]])[:3]
    other = split.users(WORLD_A)[0]
    user, item = np.r_[np.repeat(judges[0], 4), other], np.r_[log.item[early], fresh, 0]
    primary = np.array([1, 0, 1, 0, 1], np.float32)
    asked = []

    class Model:
        def predict_pairs(self, log: object, split: object, user: Floats, item: Floats) -> Floats:
            asked.append((user.tolist(), item.tolist()))
            return np.full(len(user), 0.25)

    assert score_random_rows(Model(), log, split, judges) is None
    found = score_random_rows(Model(), replace(log, random=RandomRows(user, item, primary)), split, judges)
    assert asked == [([judges[0]] * 3, fresh.tolist())]
    assert found.y.tolist() == [0, 1, 0]
    assert found.p.tolist() == [0.25] * 3


def session_table(rng: np.random.Generator, scale: float) -> SessionTable:
    user = np.repeat(np.arange(300), 2)
    taste = rng.gamma(4, 1, 300)
    return SessionTable(user, {"length": 1.0 + rng.poisson(scale * taste[user])})


def test_sessions_a_third_longer_fail_and_sessions_drawn_alike_do_not(rng: np.random.Generator) -> None:
    real = session_table(rng, 2)
    assert session_checks(real, session_table(rng, 2), rng)[0].passed
    assert session_checks(real, session_table(rng, 2.8), rng)[0].verdict == "fail"


def test_the_classifier_finds_gross_fakes_only_and_respects_the_users(rng: np.random.Generator) -> None:
    user = np.arange(400)
    real = rng.standard_normal((400, 3)) + 0.8 * rng.standard_normal((400, 1))
    alike = rng.standard_normal((400, 3)) + 0.8 * rng.standard_normal((400, 1))
    same = two_sample_classifier(real, user, alike, user, rng)
    assert same.passed
    assert same.estimate.value == pytest.approx(0.5, abs=0.07)
    assert two_sample_classifier(real, user, alike + 1.0, user, rng).verdict == "fail"
    assert two_sample_classifier(real[:20], user[:20], alike[:20], user[:20], rng).passed is None


def test_answers_are_compared_in_blocks_of_ten_rows_however_long_the_log_is(rng: np.random.Generator) -> None:
    user = rng.permutation(np.repeat([3, 5, 9], [4, 30, 57]))
    block = answer_blocks(user, rng)
    sizes = np.bincount(block)
    assert sorted(np.unique(user[block == 0])) == [3]
    assert sizes.tolist() == [4, 10, 10, 10, *sizes[4:]]
    assert sizes[4:].sum() == 57
    assert set(sizes[4:]) <= {9, 10}
    for users, rows in ((400, 20), (100, 80)):
        right = scored(rng, users=users, rows=rows)
        assert answers_classifier(right, rng).passed
        coin = replace(right, p=np.full(len(right), right.y.mean()))
        coin = replace(
            coin, p=np.where(right.p > 0.5, coin.p * 1.001, coin.p)
        )  # knows who is better, says it too weakly
        assert answers_classifier(coin, rng).verdict == "fail"


@dataclass(frozen=True)
class Leave:
    value: float
    source: str = "assumed"
    se: float | None = None


def flights(rng: np.random.Generator, *, effect: float) -> tuple[SlateFlight, SlateFlight, SlateFlight]:
    user = np.arange(300)
    luck = rng.integers(2, 20, 300).astype(float)
    best = SlateFlight(user, luck + 5, luck + effect)
    return best, SlateFlight(user, luck, luck), best


def test_a_declared_leave_effect_that_changes_no_session_fails_by_identity(rng: np.random.Generator) -> None:
    checks = responsiveness_of(*flights(rng, effect=0.0), Leave(2.5))
    assert checks[0].passed
    assert checks[1].verdict == "fail"
    assert "ignores what is shown" in checks[1].reason


def test_an_assumed_leave_effect_is_printed_and_not_counted_and_a_fitted_one_counts(rng: np.random.Generator) -> None:
    flown = flights(rng, effect=3.0)
    assert responsiveness_of(*flown, Leave(2.5))[1].passed is None
    assert responsiveness_of(*flown, Leave(2.5))[1].estimate.value == pytest.approx(3.0)
    assert responsiveness_of(*flown, Leave(2.5, "fitted", 0.3))[1].passed
    assert responsiveness_of(*flown, Leave(0.1, "fitted", 0.3))[1].passed is None
    assert responsiveness_of(*flown, Leave(0.0))[1].passed is None
    assert responsiveness_of(*flown, Leave(2.5, "fitted", 0.3), longer_is_better=False)[1].verdict == "fail"


def test_a_world_answers_to_what_it_is_shown_and_repeats_itself_to_the_last_bit(root: np.random.SeedSequence) -> None:
    world = small_world(0, users=120, items=150, slate_size=5, horizon=8)
    clicks, length, leaving, same, *environment = behaviour_checks(world, root)
    assert all(check.passed for check in environment)
    assert clicks.passed
    assert length.passed is leaving.passed is None  # the leave effect is assumed
    assert leaving.estimate.value is not None
    assert same.passed
    dull = replace(world, item_vectors=world.item_vectors * 0, item_bias=world.item_bias * 0)
    dull = replace(dull.with_parameter("satiation", "strength", 0.0), name="no taste")
    assert responsiveness(dull, seed=1)[0].passed is False


def test_determinism_fails_when_noise_depends_on_the_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import simulator.users

    class Careless(simulator.users.SimulatedUsers):
        def __init__(self, world: object, n: int, *, seed: int, slate_size: int | None = None) -> None:
            super().__init__(world, n, seed=seed + n, slate_size=slate_size)  # type: ignore[arg-type]

    monkeypatch.setattr(simulator.users, "SimulatedUsers", Careless)
    assert determinism(small_world(0, users=60, slate_size=4, horizon=5), seed=1).verdict == "fail"


def test_ranking_agreement_needs_six_pairs_that_the_reference_separates(rng: np.random.Generator) -> None:
    level = np.array([0.1, 0.2, 0.3, 0.4, 0.5])[:, None]
    simulated = level + 0.1 * rng.standard_normal((5, 300))
    on_users = UserValues(level + 0.1 * rng.standard_normal((5, 400)), np.ones((5, 400)))
    value = level[:, 0]
    measured = MeasuredValues(value, value - 0.01, value + 0.01)
    for reference in (on_users, measured):
        assert ranking_agreement(simulated, reference, rng, resamples=200).passed
        assert ranking_agreement(simulated[::-1], reference, rng, resamples=200).verdict == "fail"
    three = MeasuredValues(value[:3], value[:3] - 0.01, value[:3] + 0.01)
    assert ranking_agreement(simulated[:3], three, rng).passed is None
    vague = MeasuredValues(value, value - 0.3, value + 0.3)
    assert ranking_agreement(simulated, vague, rng).passed is None
    tied = UserValues(0.3 + 0.1 * rng.standard_normal((5, 400)), np.ones((5, 400)))
    assert ranking_agreement(simulated, tied, rng).passed is None
    one_swap = simulated[[1, 0, 2, 3]]
    four = MeasuredValues(value[:4], value[:4] - 0.01, value[:4] + 0.01)
    assert ranking_agreement(simulated[:4], four, rng).passed
    assert not ranking_agreement(one_swap, four, rng).passed  # four policies need all six pairs right


def test_the_order_of_one_crowd_of_users_in_two_worlds_shares_their_luck(rng: np.random.Generator) -> None:
    """Policies that these users hardly tell apart are in one order in every resample of both sides together."""
    values = np.array([0.0, 0.2, 0.4, 0.6, 0.8])[:, None] + rng.standard_normal((5, 300))
    reference = UserValues(values, np.ones_like(values))
    together = ranking_agreement(values, reference, rng, same_users=True).estimate
    apart = ranking_agreement(values, reference, rng).estimate
    assert (together.low, together.high) == (1.0, 1.0)
    assert apart.low is not None
    assert apart.low < 1.0


def evidence(rng: np.random.Generator, number: int, rows: ScoredRows | None = None) -> WorldEvidence:
    rows = replace(scored(rng), p_bias=np.full(12000, 0.4)) if rows is None else rows
    exact = ("world against model", "responsiveness", "determinism")
    fine = [Check(name, estimate(1, 1, 1), "", "pass") for name in exact]
    return WorldEvidence(number, rows, None, tuple(fine))


def assess(worlds: list[WorldEvidence], *, fitted_users: dict[int, NDArray[np.int64]], **shared: Any) -> Fidelity:
    return conclude([check_world(one, fitted_users=fitted_users[one.number], **shared) for one in worlds])


def test_a_simulator_is_trusted_when_b1_passes_all_and_the_others_the_weaker_set(
    rng: np.random.Generator, root: np.random.SeedSequence
) -> None:
    log = small_log(rng, users=200)
    split = split_users(log, root)
    judges = split.users(JUDGE)
    log = replace(log, time=np.floor(log.time / 3))
    fitted = {1: judges, 2: judges}
    first, second = evidence(rng, 1), evidence(rng, 2)
    found = assess([second, first], log=log, split=split, fitted_users=fitted, root=root)
    assert found.trusted
    assert any("bursts" in reason for reason in found.reasons)
    told = next(check for check in found.checks if check.name == "two-sample classifier" and check.world == 1)
    assert told.passed  # the answers to logged rows are compared where there are no sessions
    assert "blocks of 10" in told.estimate.method
    assert any("off-policy extrapolation unverified" in reason for reason in found.reasons)
    assert len({check.label for check in found.checks}) == len(found.checks)

    rows = second.future
    up = sigmoid(np.log(rows.p / (1 - rows.p)) + 1.0)
    flattering = replace(rows, p=np.where(top_rows(rows.p, rows.user), up, rows.p))
    weak = assess([first, replace(second, future=flattering)], log=log, split=split, fitted_users=fitted, root=root)
    assert weak.trusted  # the top of the list is asked of B_1 alone
    own = assess([replace(first, future=flattering), second], log=log, split=split, fitted_users=fitted, root=root)
    assert not own.trusted
    assert any(reason.startswith("top of the list:") for reason in own.reasons)

    held = assess([replace(first, held_out=flattering)], log=log, split=split, fitted_users=fitted, root=root)
    assert held.trusted
    assert any("held-out users" in reason and "top of the list" in reason for reason in held.reasons)

    silent = assess([replace(first, behaviour=())], log=log, split=split, fitted_users=fitted, root=root)
    assert not silent.trusted
    assert any("responsiveness could not be made" in reason for reason in silent.reasons)


def test_sessions_count_where_the_log_has_them(rng: np.random.Generator, root: np.random.SeedSequence) -> None:
    log = small_log(rng, users=200)
    split = split_users(log, root)
    fitted = {1: split.users(JUDGE)}
    real, alike, longer = session_table(rng, 2), session_table(rng, 2), session_table(rng, 3.5)

    def names_of_failed(simulated: SessionTable) -> set[str]:
        answers = [replace(t, features={"longest wait": t.features["length"]}) for t in (real, simulated)]
        one = replace(evidence(rng, 1), sessions=(answers[0], answers[1]), flown={"length": (real, simulated)})
        found = assess([one], log=log, split=split, fitted_users=fitted, root=root)
        asked = [c for c in found.checks if c.name in ("sessions: length", "two-sample classifier")]
        assert all(c.passed is not None for c in asked)
        assert len(asked) == 2
        return {c.name for c in asked if not c.passed}

    assert names_of_failed(alike) == set()
    assert names_of_failed(longer) >= {"sessions: length", "two-sample classifier"}


def test_a_log_with_sessions_of_which_none_was_simulated_is_not_trusted(
    rng: np.random.Generator, root: np.random.SeedSequence
) -> None:
    """EVALUATION, section 6: sessions are mandatory where the log has them. Where it has none, that is a reason."""
    log = small_log(rng, users=200)
    split = split_users(log, root)
    fitted = {1: split.users(JUDGE)}

    def found(log: InteractionLog) -> Fidelity:
        return assess([evidence(rng, 1)], log=log, split=split, fitted_users=fitted, root=root)

    with_sessions = found(log)
    assert not with_sessions.trusted
    assert with_sessions.blocked_by == ("sessions",)
    assert "sessions could not be made, and it is mandatory" in with_sessions.reasons
    assert any("sessions were not simulated" in reason for reason in with_sessions.reasons)
    assert found(replace(log, time=np.floor(log.time / 3))).trusted


def test_a_judge_world_fitted_on_training_users_fails_the_split_check(
    rng: np.random.Generator, root: np.random.SeedSequence
) -> None:
    log = small_log(rng, users=100)
    split = split_users(log, root)
    assert splits(split, log, split.users(JUDGE)).passed
    assert splits(split, log, split.users(WORLD_A)).verdict == "fail"


def test_rows_are_scored_beside_what_happened_and_with_their_items_exposure(
    rng: np.random.Generator, root: np.random.SeedSequence
) -> None:
    log = small_log(rng)
    split = split_users(log, root)

    class Constant:
        def predict(self, log: object, split: object, rows: NDArray[np.int64]) -> Floats:
            return np.zeros(len(rows))  # pushed inside (0, 1)

    users = split.users(JUDGE)
    found = score_rows(Constant(), log, split, users, p_bias=np.zeros(len(split.rows(log, users, late=True))))
    rows = split.rows(log, users, late=True)
    assert found.y.tolist() == log.primary[rows].tolist()
    early = log.item[~split.late]
    assert found.item_exposure[0] == (early == log.item[rows[0]]).sum()
    assert (found.p > 0).all()
