"""Limits without asymptotics: they cover where a t interval does not, and at all looks together."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from evaluators import off_policy
from evaluators.intervals import Ratios, t_interval
from evaluators.off_policy.guaranteed import betting_lower
from simulator.errors import InputError
from simulator.streams import stream

Floats = NDArray[np.float64]
ROOT = np.random.SeedSequence(23)


def rare(rng: np.random.Generator, n: int) -> tuple[off_policy.Rounds, Floats, float]:
    """A tenth of the weights is 10, the rest 0; one reward in ten: the stream of EVALUATION, section 5."""
    pi_b, pi_e = np.tile([0.1, 0.9], (n, 1)), np.tile([1.0, 0.0], (n, 1))
    action = (rng.random(n) >= 0.1).astype(np.int64)
    reward = (rng.random(n) < 0.1).astype(float)
    return off_policy.Rounds(action, reward, pi_b=pi_b), pi_e, 0.1


def test_23_twenty_looks_at_betting_limits_miss_less_often_than_one_look_may() -> None:
    """At some look: betting at most .05 (+ 2 se), repeated t intervals in a fifth of the logs and more."""
    runs, missed, t_missed = 120, 0, 0
    for k in range(runs):
        rounds, pi_e, truth = rare(stream(ROOT, "looks", k), 4000)
        e = off_policy.estimate(rounds, pi_e, estimators=["ips"], interval="betting")["ips"]
        looks = e.diagnostics["looks"]
        assert len(looks) == 20
        missed += any(not look["low"] <= truth <= look["high"] for look in looks)
        rows = rounds.reward * (rounds.action == 0) * 10.0
        at_look = [Ratios.mean(rows[: look["users"]]) for look in looks]
        limits = [t_interval(r.value, r.scores()) for r in at_look]
        t_missed += any(not low <= truth <= high for low, high in limits)
    assert missed <= 0.05 * runs + 2 * np.sqrt(0.05 * 0.95 * runs)
    assert t_missed > 0.2 * runs


def test_limits_narrow_as_the_log_grows_and_never_widen_again() -> None:
    rounds, pi_e, truth = rare(stream(ROOT, "narrow"), 60_000)
    e = off_policy.estimate(rounds, pi_e, estimators=["ips"], interval="betting")["ips"]
    looks = e.diagnostics["looks"]
    assert all(a["low"] <= b["low"] and a["high"] >= b["high"] for a, b in pairwise(looks))
    assert e.low < truth < e.high  # type: ignore[operator]
    t = off_policy.estimate(rounds, pi_e, estimators=["ips"])["ips"]
    assert 1 < (e.value - e.low) / (t.value - t.low) < 1.8  # type: ignore[operator]
    assert 1 < (e.high - e.value) / (t.high - t.value) < 5  # type: ignore[operator]  # the weights' own noise is in it


def test_a_value_that_was_seldom_rewarded_has_limits_where_no_other_interval_is_given() -> None:
    """500 rounds, weights of 100: t covers a few per cent there (EVALUATION, section 3)."""
    covered = count = 0
    for k in range(60):
        rng = stream(ROOT, "rare", k)
        pi_b, pi_e = np.tile([0.01, 0.99], (500, 1)), np.tile([1.0, 0.0], (500, 1))
        action = (rng.random(500) >= 0.01).astype(np.int64)
        reward = (rng.random(500) < 0.05).astype(float)
        rounds = off_policy.Rounds(action, reward, pi_b=pi_b)
        found = off_policy.estimate(rounds, pi_e, estimators=["ips", "ips(clip=10)"], interval="betting")
        given = [e for e in found.values() if e.value is not None]  # W5 withholds what saw far too little weight
        count += len(given)
        covered += sum(e.low <= 0.05 <= e.high for e in given)  # type: ignore[operator, misc]
    assert count >= 100
    assert covered >= 0.95 * count


@pytest.mark.parametrize("kind", ["bernstein", "betting"])
def test_clipped_limits_hold_the_value_that_clipping_shrinks(kind: str) -> None:
    for k in range(20):
        rng = stream(ROOT, "clip", kind, k)
        n = 3000
        pi_b, pi_e = np.tile([0.05, 0.95], (n, 1)), np.tile([0.9, 0.1], (n, 1))
        action = (rng.random(n) >= 0.05).astype(np.int64)
        reward = (rng.random(n) < np.where(action == 0, 0.7, 0.3)).astype(float)
        rounds = off_policy.Rounds(action, reward, pi_b=pi_b, user=np.arange(n) // 3)
        e = off_policy.estimate(rounds, pi_e, estimators=["ips(clip=10)"], interval=kind)["ips(clip=10)"]
        assert e.low <= 0.9 * 0.7 + 0.1 * 0.3 <= e.high  # type: ignore[operator]
        assert e.value < 0.5  # type: ignore[operator]  # the clipped estimand itself is far below the value


def test_betting_on_a_constant_closes_in_on_it_and_zeros_refute_nothing() -> None:
    looks = np.array([100, 1000, 10_000])
    found = betting_lower(np.full(10_000, 0.3), 0.025, looks)
    assert np.all(np.diff(found) >= 0)
    assert 0.29 < found[-1] < 0.3
    assert betting_lower(np.zeros(100), 0.025, np.array([100])).tolist() == [0.0]


def test_what_cannot_have_such_limits_says_so() -> None:
    rounds, pi_e, _ = rare(stream(ROOT, "why"), 200)
    found = off_policy.estimate(rounds, pi_e, estimators=["ips", "snips"], interval="bernstein")
    assert "largest weight" in (found["ips"].withheld or "")
    assert "ips(clip=..)" in (found["snips"].withheld or "")
    seconds = off_policy.Rounds(rounds.action, 30 * rounds.reward, pi_b=rounds.pi_b)
    unknown = off_policy.estimate(seconds, pi_e, estimators=["ips"], interval="betting")["ips"]
    assert "reward_range" in (unknown.withheld or "")
    with pytest.raises(InputError, match="none of default, bernstein, betting"):
        off_policy.estimate(rounds, pi_e, estimators=["ips"], interval="wald")
