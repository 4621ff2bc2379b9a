"""Names, records, reading, withholding, differences and the `ope` document."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluators import intervals, off_policy
from evaluators.intervals import Ratios, below
from evaluators.off_policy.command import run_ope
from evaluators.off_policy.diagnostics import WeightFacts, sensitivity_range
from evaluators.off_policy.estimation import weight_reason
from evaluators.off_policy.reading import read_log
from simulator.errors import InputError, LogError

A = 4


def log(n: int = 3000, *, seed: int = 0, users: bool = True) -> tuple[off_policy.Rounds, np.ndarray, np.ndarray]:
    """Mild weights: (rounds, pi_e, q_hat)."""
    rng = np.random.default_rng(seed)
    pi_b, pi_e = rng.dirichlet(np.full(A, 8.0), n), rng.dirichlet(np.full(A, 8.0), n)
    q = rng.uniform(0.2, 0.8, (n, A))
    action = (pi_b.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    reward = (rng.random(n) < q[np.arange(n), action]).astype(float)
    user = np.arange(n) // 3 if users else None
    return off_policy.Rounds(action, reward, pi_b=pi_b, user=user, context=rng.normal(size=(n, 2))), pi_e, q


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("snipss", "did you mean 'snips'"),
        ("dr(clp=10)", "did you mean 'clip'"),
        ("dr(clip=ten)", "no number"),
        ("dr(clip=-1)", "0 or more"),
        ("dros(lambda=nan)", "lambda is nan"),
        ("tuned(snips, slope)", "cannot be tuned"),
        ("tuned(dr, sloppe)", "cannot be tuned"),
        ("pdis", "trajectory"),
        ("dr(clip=10", "is not a name"),
    ],
)
def test_a_wrong_name_is_one_line_with_the_nearest_right_one(text: str, expected: str) -> None:
    with pytest.raises(InputError, match=expected) as error:
        off_policy.parse(text, "bandit")
    assert "\n" not in str(error.value)


def test_estimates_are_named_as_they_were_asked() -> None:
    rounds, pi_e, q = log()
    names = [
        "ips",
        "ips(clip=10)",
        "dr( clip = 5 )",
        "switch_dr",
        "tuned(dr,mse)",
        "sgips(lambda=0.1)",
        "cvar(alpha=0.2)",
    ]
    assert list(off_policy.estimate(rounds, pi_e, estimators=names, q_hat=q)) == names


def test_every_row_of_the_table_can_be_estimated_or_says_what_it_lacks() -> None:
    rounds, pi_e, q = log()
    names = [name for name, row in off_policy.ESTIMATORS.items() if "bandit" in row.records]
    for name, e in off_policy.estimate(rounds, pi_e, estimators=names, q_hat=q).items():
        assert (e.value is None) == (name in ("mips", "snmips")), name
        assert e.value is not None or "pi_b" in (e.withheld or "")


@pytest.mark.parametrize("bad", [0.0, -0.1, 1.5, np.nan])
def test_a_propensity_outside_zero_and_one_is_an_error(bad: float) -> None:
    pscore = np.full(10, 0.5)
    pscore[3] = bad
    with pytest.raises(LogError, match=r"pscore\[3\]"):
        off_policy.Rounds(np.zeros(10, int), np.zeros(10), pscore)


@pytest.mark.parametrize(
    "missing",
    [
        np.array([0.0, np.nan, 1.0, np.nan]),
        np.array(["a", None, "b", None], dtype=object),
        pd.Series(["a", pd.NA, "b", pd.NA], dtype="string"),
    ],
)
def test_a_user_that_is_missing_is_no_user(missing: Any) -> None:
    """Rows without a user would count as the rows of one person."""
    action, reward, half = np.zeros(4, int), np.zeros(4), np.full(4, 0.5)
    slates = {"slate_id": np.arange(4), "position": action, "action": action, "reward": reward}
    trajectories = {"step_per_trajectory": 1, "action": action, "reward": reward, "pscore": half}
    trajectories["evaluation_policy_action_dist"] = np.full((4, 2), 0.5)
    for record in (
        lambda: off_policy.Rounds(action, reward, half, user=missing),
        lambda: off_policy.Slates.from_rows(slates | {"user": missing}),
        lambda: off_policy.Trajectories.from_rows(trajectories | {"user": missing}),
        lambda: off_policy.ContinuousRounds(half, reward, half, (0.0, 1.0), user=missing),
    ):
        with pytest.raises(LogError, match=r"user: missing at entry 1 \(2 such\)"):
            record()


def test_users_of_two_kinds_are_named_so() -> None:
    with pytest.raises(LogError, match="user: holds both numbers and text"):
        off_policy.Rounds(np.zeros(2, int), np.zeros(2), np.ones(2), user=np.array(["a", 1], dtype=object))
    for same in (["b", "a", "b"], [5, np.int64(7), np.int64(5)]):
        two = off_policy.Rounds(np.zeros(3, int), np.zeros(3), np.ones(3), user=np.array(same, dtype=object))
        assert two.n_users == 2


def test_the_logging_policy_by_position_is_read_where_the_action_stood(tmp_path: Path) -> None:
    """Open Bandit Pipeline's pi_b [n, A, positions]; a position that it has not is one line."""
    by_position = np.zeros((4, 2, 2))
    by_position[:, :, 0], by_position[:, :, 1] = [0.5, 0.5], [0.25, 0.75]
    columns = {"action": np.array([0, 1, 0, 1]), "reward": np.zeros(4), "pi_b": by_position}
    np.savez(tmp_path / "right.npz", position=np.array([0, 0, 1, 1]), **columns)
    assert read_log(tmp_path / "right.npz")[0].pscore.tolist() == [0.5, 0.5, 0.25, 0.75]  # type: ignore[union-attr]
    for name, position in (("beyond", np.array([0, 0, 1, 2])), ("short", np.zeros(3)), ("nan", np.full(4, np.nan))):
        np.savez(tmp_path / f"{name}.npz", position=position, **columns)
        with pytest.raises(LogError, match=r"^position: "):
            read_log(tmp_path / f"{name}.npz")


def test_embeddings_of_actions_have_chances_that_sum_to_1() -> None:
    action, reward, pi_b = np.array([0, 1]), np.zeros(2), np.full((2, 2), 0.5)
    right = np.array([[[1.0], [0.0]], [[0.0], [1.0]]])
    assert off_policy.Rounds(action, reward, pi_b=pi_b, action_embed=action, p_e_a=right).p_e_a is not None
    for wrong in (0 * right, 2 * right, right - 0.5, right * np.nan):
        with pytest.raises(LogError, match=r"p_e_a\[0\]: sums to"):
            off_policy.Rounds(action, reward, pi_b=pi_b, action_embed=action, p_e_a=wrong)
    with pytest.raises(LogError, match=r"pi_b: shape \(2,\) must be \[2, A\]"):
        off_policy.Rounds(action, reward, pi_b=np.ones(2))


def test_weights_that_do_not_average_1_are_blamed_on_where_they_come_from() -> None:
    facts = WeightFacts(mean=1.5, z=9.0, ess=100.0, share=0.1, ratio=5.0, k_hat=None)
    assert "wrong pscore); check how pscore was logged" in (weight_reason(facts, "logged") or "")
    assert "wrong estimated marginal ratios); give the ratios" in (weight_reason(facts, "ratios") or "")
    assert "logged" not in (weight_reason(facts, "estimated") or "")


def test_a_distribution_without_rewards_is_withheld_as_its_mean_is() -> None:
    """None or two of 200 rounds rewarded: resamples of them gave [0, 0] and [0, .025] as limits of the mean."""
    half = np.full((200, 2), 0.5)
    for events in (0, 2):
        reward = (np.arange(200) < events).astype(float)
        rounds = off_policy.Rounds(np.arange(200) % 2, reward, pi_b=half)
        for name, e in off_policy.estimate(rounds, half, estimators=["cdf_mean", "variance"]).items():
            assert e.value is None, name
            assert "W2" in (e.withheld or "")


def two_slates() -> dict[str, Any]:
    """Two slates of two slots, one row a slot."""
    half, pscore = np.full(4, 0.5), np.full(4, 0.25)
    return {
        "slate_id": np.array([7.0, 7.0, 9.0, 9.0]), "position": np.array([0, 1, 1, 0]), "action": np.arange(4) % 2,
        "reward": np.array([1.0, 0, 0, 1]), "pscore": pscore, "evaluation_policy_pscore": pscore,
        "pscore_item_position": half, "evaluation_policy_pscore_item_position": half,
    }  # fmt: skip


def test_users_and_context_of_slates_are_given_by_slate_or_by_slot() -> None:
    by_slate = two_slates() | {"user": np.array(["b", "a"]), "context": np.array([[1.0], [2.0]])}
    by_slot = two_slates() | {"user": np.array(["b", "b", "a", "a"]), "context": np.array([[1.0], [0.0], [0.0], [2.0]])}
    for columns in (by_slate, by_slot):
        slates = off_policy.Slates.from_rows(columns)
        assert list(slates.user) == ["b", "a"]  # type: ignore[call-overload]
        assert slates.context.tolist() == [[1.0], [2.0]]  # type: ignore[union-attr]
    for wrong in ({"user": np.arange(3)}, {"context": np.zeros((3, 1))}, {"context": np.full((2, 1), np.nan)}):
        with pytest.raises(LogError, match=next(iter(wrong))):
            off_policy.Slates.from_rows(two_slates() | wrong)


@pytest.mark.parametrize("name", ["pscore", "evaluation_policy_pscore", "user"])
def test_what_a_slate_has_once_does_not_differ_between_its_slots(name: str) -> None:
    """The first slot's value would stand for all, and the other would go unnoticed."""
    columns = two_slates() | {"user": np.array([0.0, 0.0, 1.0, 1.0])}
    columns[name] = columns[name].copy()
    columns[name][3] = 0.125
    with pytest.raises(LogError, match=rf"{name}: .*0\.125.* in one slate \(1 such slates\)"):
        off_policy.Slates.from_rows(columns)


def test_propensities_of_a_slate_may_differ_by_rounding() -> None:
    columns = two_slates()
    columns["pscore"] = np.nextafter(columns["pscore"], np.where(np.arange(4) % 2, 0.0, 1.0))
    assert off_policy.Slates.from_rows(columns).pscore is not None


def test_a_slate_without_a_number_is_no_slate() -> None:
    with pytest.raises(LogError, match="slate_id: missing at entry 0"):
        off_policy.Slates.from_rows(two_slates() | {"slate_id": np.array([np.nan, np.nan, 9, 9])})


def test_records_name_field_and_mend() -> None:
    action, reward = np.zeros(4, int), np.zeros(4)
    with pytest.raises(LogError, match="reward"):
        off_policy.Rounds(action, np.array([0, 1, np.inf, 0]), np.ones(4))
    with pytest.raises(LogError, match="reward: shape"):
        off_policy.Rounds(action, np.zeros(3), np.ones(4))
    with pytest.raises(LogError, match="user: shape"):
        off_policy.Rounds(action, reward, np.ones(4), user=np.zeros(5))
    with pytest.raises(LogError, match="whole number"):
        off_policy.Rounds(np.array([0.5, 1, 2, 3]), reward, np.ones(4))
    with pytest.raises(LogError, match=r"pi_e\[0\]: sums to 0.9"):
        off_policy.estimate(
            off_policy.Rounds(action, reward, np.ones(4)), np.tile([0.4, 0.5], (4, 1)), estimators=["ips"]
        )
    mask = np.tile([True, False], (4, 1))
    with pytest.raises(LogError, match="outside `mask`"):
        off_policy.estimate(
            off_policy.Rounds(action, reward, np.ones(4), mask=mask), np.tile([0.5, 0.5], (4, 1)), estimators=["ips"]
        )
    with pytest.raises(LogError, match=r"pscore\[0\]: 0.9 is not the 0.5"):
        off_policy.Rounds(action, reward, np.full(4, 0.9), pi_b=np.full((4, 2), 0.5))


def slate_columns() -> dict[str, np.ndarray]:
    cascade = np.array([0.5, 0.25, 0.5, 0.25])
    return {
        "slate_id": np.array([0, 0, 1, 1]), "position": np.array([0, 1, 0, 1]), "action": np.array([0, 1, 1, 0]),
        "reward": np.array([1.0, 0.0, 0.0, 1.0]), "pscore": np.full(4, 0.25), "pscore_cascade": cascade,
        "pscore_item_position": np.full(4, 0.5),
    }  # fmt: skip


def test_slates_are_checked_and_their_rows_may_come_in_any_order() -> None:
    columns = slate_columns()
    shuffled = {name: values[[2, 1, 3, 0]] for name, values in columns.items()}
    np.testing.assert_array_equal(
        off_policy.Slates.from_rows(shuffled).reward, off_policy.Slates.from_rows(columns).reward
    )
    with pytest.raises(LogError, match="grows from one slot"):
        off_policy.Slates.from_rows(columns | {"pscore_cascade": np.array([0.2, 0.25, 0.5, 0.25])})
    with pytest.raises(LogError, match="last slot"):
        off_policy.Slates.from_rows(columns | {"pscore": np.full(4, 0.3)})
    with pytest.raises(LogError, match="each slate must hold the slots"):
        off_policy.Slates.from_rows(columns | {"position": np.array([0, 0, 0, 1])})


def test_steps_after_the_end_of_a_trajectory_change_nothing() -> None:
    rng = np.random.default_rng(2)
    n, steps = 200, 4
    pi_e = rng.dirichlet(np.ones(2), (n, steps))
    done = np.zeros((n, steps), bool)
    done[::2, 1] = True
    args = {"action": rng.integers(0, 2, (n, steps)), "pscore": np.full((n, steps), 0.5), "pi_e": pi_e, "done": done}
    reward = rng.random((n, steps))
    other = np.where(np.arange(steps) > 1, 99.0, reward)
    mixed = np.where((np.arange(n) % 2 == 0)[:, None], other, reward)
    a, b = (
        off_policy.estimate(off_policy.Trajectories(reward=r, **args), estimators=["tis", "pdis"], force=True)
        for r in (reward, mixed)
    )
    assert a["tis"].value == b["tis"].value
    assert a["pdis"].value == b["pdis"].value


@settings(max_examples=25)
@given(shift=st.floats(-50, 50), scale=st.floats(0.1, 10))
def test_self_normalised_estimates_move_with_the_reward(shift: float, scale: float) -> None:
    """Equivariance, limits included: plain IPS moves by the mean weight times the shift."""
    rounds, pi_e, _ = log(400)
    moved = off_policy.Rounds(rounds.action, scale * rounds.reward + shift, rounds.pscore, user=rounds.user)
    before = off_policy.estimate(rounds, pi_e, estimators=["snips"], force=True)["snips"]
    after = off_policy.estimate(moved, pi_e, estimators=["snips"], force=True)["snips"]
    assert after.value == pytest.approx(scale * before.value + shift, abs=1e-8)  # type: ignore[operator]
    assert after.low == pytest.approx(scale * before.low + shift, abs=1e-7)  # type: ignore[operator]


def test_order_of_rows_and_names_of_users_do_not_matter() -> None:
    rounds, pi_e, q = log()
    order = np.random.default_rng(3).permutation(len(rounds))
    names = np.array([f"user {u}" for u in rounds.user])  # type: ignore[union-attr]
    other = off_policy.Rounds(rounds.action[order], rounds.reward[order], rounds.pscore[order], user=names[order])  # type: ignore[index]
    a = off_policy.estimate(rounds, pi_e, estimators=["snips", "dr"], q_hat=q)
    b = off_policy.estimate(other, pi_e[order], estimators=["snips", "dr"], q_hat=q[order])
    for name in a:
        assert b[name].value == pytest.approx(a[name].value, abs=1e-12)
        assert b[name].low == pytest.approx(a[name].low, abs=1e-12)


def test_the_same_seed_gives_the_same_numbers_and_folds_do_not_depend_on_what_else_is_asked() -> None:
    rounds, pi_e, _ = log()
    a = off_policy.estimate(rounds, pi_e, estimators=["dr"], seed=4)["dr"]
    b = off_policy.estimate(rounds, pi_e, estimators=["snips", "dr", "cvar"], seed=4)["dr"]
    assert (a.value, a.low, a.high) == (b.value, b.low, b.high)


def test_without_context_the_model_estimators_say_what_is_missing() -> None:
    rounds, pi_e, _ = log()
    bare = off_policy.Rounds(rounds.action, rounds.reward, rounds.pscore, user=rounds.user)
    found = off_policy.estimate(bare, pi_e, estimators=["dm", "dr", "snips"])
    assert "context" in (found["dr"].withheld or "")
    assert "context" in (found["dm"].withheld or "")
    assert found["snips"].value is not None


def test_no_simulator_enters_an_estimate_from_the_log() -> None:
    rounds, pi_e, q = log()
    with pytest.raises(InputError, match="simulator"):
        off_policy.estimate(rounds, pi_e, estimators=["dr"], q_hat=q, q_hat_source="simulator")


def test_the_model_alone_has_no_interval() -> None:
    rounds, pi_e, q = log()
    e = off_policy.estimate(rounds, pi_e, estimators=["dm"], q_hat=q)["dm"]
    assert (e.low, e.high) == (None, None)
    assert "no coverage claim" in e.method


def test_bias_aware_limits_need_the_range_of_the_reward() -> None:
    rounds, pi_e, _ = log()
    seconds = off_policy.Rounds(rounds.action, 30 * rounds.reward + 1, rounds.pscore, user=rounds.user)
    unknown = off_policy.estimate(seconds, pi_e, estimators=["ips(clip=1)"])["ips(clip=1)"]
    assert (unknown.low, unknown.high) == (None, None)
    assert "reward_range" in unknown.method
    known = off_policy.estimate(seconds, pi_e, estimators=["ips(clip=1)"], reward_range=(0, 60))["ips(clip=1)"]
    assert known.low is not None
    with pytest.raises(InputError, match="does not hold the observed"):
        off_policy.estimate(seconds, pi_e, estimators=["ips"], reward_range=(0, 10))


def test_rows_without_users_are_said_to_be_independent() -> None:
    rounds, pi_e, _ = log(users=False)
    assert "rows assumed independent" in off_policy.estimate(rounds, pi_e, estimators=["ips"])["ips"].method


def test_too_few_users_are_withheld_and_forced_with_the_reason() -> None:
    rounds, pi_e, _ = log(60)
    e = off_policy.estimate(rounds, pi_e, estimators=["snips"])["snips"]
    assert e.value is None
    assert "W3" in (e.withheld or "")
    forced = off_policy.estimate(rounds, pi_e, estimators=["snips"], force=True)["snips"]
    assert forced.value is not None
    assert "W3" in forced.diagnostics["forced"]
    assert "forced although" in forced.method


def test_a_withheld_estimate_brings_the_bounded_one_along() -> None:
    rng = np.random.default_rng(0)
    n = 1000
    pi_b, pi_e = np.tile([0.02, 0.98], (n, 1)), np.tile([0.98, 0.02], (n, 1))
    action = (rng.random(n) >= 0.02).astype(int)
    rounds = off_policy.Rounds(action, (rng.random(n) < 0.3).astype(float), pi_b=pi_b)
    e = off_policy.estimate(rounds, pi_e, estimators=["ips"])["ips"]
    assert e.value is None
    assert e.diagnostics["ips(clip=10)"]["low"] <= 0.3 <= e.diagnostics["ips(clip=10)"]["high"]


def test_a_difference_keeps_the_covariance_of_two_policies_on_one_log() -> None:
    rounds, pi_e, q = log(6000)
    near = 0.9 * pi_e + 0.1 / A
    apart = off_policy.difference(rounds, pi_e, near, estimators=["snips", "dr"], q_hat=q)
    one, two = (off_policy.estimate(rounds, p, estimators=["snips", "dr"], q_hat=q) for p in (pi_e, near))
    for name, d in apart.items():
        assert d.value == pytest.approx(one[name].value - two[name].value, abs=1e-12)  # type: ignore[operator]
        assert d.high - d.low < 0.3 * (one[name].high - one[name].low)  # type: ignore[operator]


def test_a_policy_differs_from_itself_by_exactly_nothing() -> None:
    rounds, pi_e, q = log()
    for name, d in off_policy.difference(
        rounds, pi_e, pi_e, estimators=["ips", "snips", "dr", "sndr"], q_hat=q
    ).items():
        assert (d.value, d.low, d.high) == (0.0, 0.0, 0.0), name


def test_the_difference_to_the_logged_policy_is_against_the_mean_reward() -> None:
    rounds, pi_e, q = log()
    d = off_policy.difference(rounds, pi_e, estimators=["dr"], q_hat=q)["dr"]
    e = off_policy.estimate(rounds, pi_e, estimators=["dr"], q_hat=q)["dr"]
    assert d.value == pytest.approx(e.value - rounds.reward.mean(), abs=1e-12)  # type: ignore[operator]


def test_a_per_round_candidate_set_takes_features_of_its_candidates() -> None:
    rounds, pi_e, _ = log()
    rng = np.random.default_rng(8)
    features = rng.normal(size=(len(rounds), A, 3))
    reward = (rng.random(len(rounds)) < 1 / (1 + np.exp(-features[np.arange(len(rounds)), rounds.action, 0]))).astype(
        float
    )
    candidates = off_policy.Rounds(rounds.action, reward, rounds.pscore, user=rounds.user, action_features=features)
    truth = (pi_e / (1 + np.exp(-features[:, :, 0]))).sum(axis=1).mean()
    e = off_policy.estimate(candidates, pi_e, estimators=["dr", "dm", "ips"])
    assert abs(e["dm"].value - truth) < 0.03  # type: ignore[operator]
    assert e["dr"].high - e["dr"].low < e["ips"].high - e["ips"].low  # type: ignore[operator]


def test_few_events_without_weights_take_clopper_pearson() -> None:
    n = 1200
    reward = np.zeros(n)
    pi = np.full((n, 2), 0.5)
    rounds = off_policy.Rounds(np.arange(n) % 2, reward, pi_b=pi, user=np.arange(n) // 2)
    e = off_policy.estimate(rounds, pi, estimators=["ips"])["ips"]
    assert (e.value, e.low) == (0.0, 0.0)
    assert 0.001 < e.high < 0.01  # type: ignore[operator]
    low, high = intervals.clopper_pearson(10, 100)
    assert (low, high) == (pytest.approx(0.04900469, abs=1e-7), pytest.approx(0.17622260, abs=1e-7))


def test_intervals_of_symmetric_scores_agree_and_skew_moves_the_corrected_ones_to_the_right() -> None:
    rng = np.random.default_rng(1)
    normal = Ratios.mean(rng.normal(size=2000))
    t = intervals.t_interval(normal.value, normal.scores())
    assert intervals.hall_interval(normal.value, normal.scores()) == pytest.approx(t, abs=0.003)
    skewed = Ratios.mean(rng.exponential(size=60) ** 2)
    t = intervals.t_interval(skewed.value, skewed.scores())
    draws = skewed.resample(rng)
    for low, high in (
        intervals.hall_interval(skewed.value, skewed.scores()),
        intervals.bca_interval(skewed.value, skewed.scores(), draws),
    ):
        assert high > t[1]
        assert low > t[0]


def test_the_bootstrap_recomputes_the_normaliser() -> None:
    """With reward 1 everywhere a self-normalised value is 1 in every resample."""
    rng = np.random.default_rng(0)
    w = rng.exponential(size=100)
    assert np.allclose(Ratios(w[None], w[None]).resample(rng, 50), 1.0)
    assert Ratios(w[None], np.ones((1, 100))).resample(rng, 50).std() > 0.05


def test_the_range_under_wrong_propensities_is_the_extreme_over_all_allowed_weights() -> None:
    rng = np.random.default_rng(0)
    n = 8
    pi, p, r = rng.random(n), rng.uniform(0.2, 0.8, n), rng.random(n)
    low, high = sensitivity_range(pi, p, r, (1.5,))["1.5"]
    values = []
    for bits in range(2**n):
        z = np.where((bits >> np.arange(n)) & 1, 1.5, 1 / 1.5)
        w = pi * (1 + (1 / p - 1) * z)
        values.append(float(w @ r / w.sum()))
    assert (low, high) == (pytest.approx(min(values)), pytest.approx(max(values)))


def test_a_log_is_read_from_parquet_as_from_npz(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rounds, pi_e, q = log(900)
    arrays = {
        "action": rounds.action,
        "reward": rounds.reward,
        "pi_b": rounds.pi_b,
        "user": rounds.user,
        "context": rounds.context,
    }
    np.savez(tmp_path / "log.npz", **arrays)  # type: ignore[arg-type]
    np.savez(tmp_path / "policy.npz", pi_e=pi_e, q_hat=q)
    np.save(tmp_path / "policy.npy", pi_e)
    columns = {k: pa.array(list(v)) if v.ndim == 2 else pa.array(v) for k, v in arrays.items()}  # type: ignore[union-attr]
    pq.write_table(pa.table(columns), tmp_path / "log.parquet")
    one = run_ope(tmp_path / "log.npz", tmp_path / "policy.npz", ["snips", "dr"])
    two = run_ope(tmp_path / "log.parquet", tmp_path / "policy.npz", ["snips", "dr"])
    assert one.to_json() == two.to_json()
    assert (
        run_ope(tmp_path / "log.npz", tmp_path / "policy.npy", ["snips"]).estimates["snips"].value
        == one.estimates["snips"].value
    )
    json.dumps(one.to_json(), allow_nan=False)
    assert one.exit_code == 0
    assert "snips" in one.as_text()


def test_the_document_names_what_the_contract_promises(tmp_path: Path) -> None:
    rounds, pi_e, _ = log(900)
    np.savez(tmp_path / "log.npz", action=rounds.action, reward=rounds.reward, pscore=rounds.pscore)  # type: ignore[arg-type]
    np.savez(tmp_path / "policy.npz", pi_e=pi_e)
    document = run_ope(tmp_path / "log.npz", tmp_path / "policy.npz", ["ips", "dr"], against="logged").to_json()
    assert (document["record"], document["n"]) == ("bandit", 900)
    ips = document["estimates"]["ips"]
    assert {"value", "low", "high", "level", "n", "method"} <= ips.keys()
    promised = {
        "ess",
        "ess_fraction",
        "max_weight_share",
        "mean_weight",
        "n_inf",
        "n_pos",
        "door",
        "k_hat",
        "unsupported_mass",
    }
    assert promised <= ips["diagnostics"].keys()
    assert document["estimates"]["dr"]["value"] is None
    assert "context" in document["estimates"]["dr"]["withheld"]
    assert document["difference"]["against"] == "logged"
    only_model = run_ope(tmp_path / "log.npz", tmp_path / "policy.npz", ["dr"])
    assert only_model.exit_code == 3


@pytest.mark.parametrize(
    ("log_name", "policy_name", "expected"),
    [
        ("absent.npz", "policy.npz", "is not there"),
        ("log.txt", "policy.npz", "ends in"),
        ("broken.npz", "policy.npz", "cannot be read"),
        ("nothing.npz", "policy.npz", "no such column"),
        ("log.npz", None, "--policy"),
        ("log.npz", "log.npz", "no array 'pi_e'"),
        ("log.npz", "short.npz", "must be"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(
    tmp_path: Path, log_name: str, policy_name: str | None, expected: str
) -> None:
    np.savez(tmp_path / "log.npz", action=np.zeros(5, int), reward=np.zeros(5), pscore=np.ones(5))
    np.savez(tmp_path / "nothing.npz", other=np.zeros(5))
    np.savez(tmp_path / "policy.npz", pi_e=np.ones((5, 1)))
    np.savez(tmp_path / "short.npz", pi_e=np.ones((4, 1)))
    (tmp_path / "broken.npz").write_bytes(b"no archive")
    (tmp_path / "log.txt").write_text("a")
    with pytest.raises(InputError, match=expected) as error:
        run_ope(tmp_path / log_name, None if policy_name is None else tmp_path / policy_name, ["ips"])
    assert "\n" not in str(error.value)


def test_the_command_starts_without_heavy_libraries() -> None:
    heavy = ("torch", "sklearn", "causalml", "pandas", "pyarrow")
    code = f"import sys; import evaluators.off_policy.command; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert out.stdout.strip() == "[]"


def test_what_is_exposed_is_what_is_listed() -> None:
    assert set(off_policy.__all__) <= set(dir(off_policy))
    assert {"estimate", "difference", "Rounds", "Slates", "Trajectories"} <= set(off_policy.__all__)


def test_the_example_of_the_page_runs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "evaluators-off-policy.md").read_text()
    exec(page.split("```python\n")[1].split("```")[0], {})


def test_the_page_names_every_estimator() -> None:
    page = (Path(__file__).parents[2] / "docs" / "evaluators-off-policy.md").read_text()
    for name in off_policy.ESTIMATORS:
        family = name.split("_")[0] if name.startswith(("sm_", "sam_")) else name.removeprefix("sn_")
        assert f"`{family}" in page or f"`{family.removeprefix('sn')}" in page, name


def test_a_number_just_under_a_threshold_does_not_read_as_the_threshold() -> None:
    assert [below(x) for x in (29.97, 30.0, 0.29999, 123.46, 7.0, 0.0, math.inf)] == [
        "29.9", "30", "0.299", "123", "7", "0", "inf",
    ]  # fmt: skip
