"""Choosing an estimator on users that it is not reported on, and scoring the policies that an estimator would test."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from evaluators import off_policy
from simulator.errors import InputError
from simulator.streams import stream
from tests.known_truth.test_off_policy_bandit import enumerated, softmax_log

Floats = NDArray[np.float64]
ROOT = np.random.SeedSequence(37)


def chosen_in(e: off_policy.Rounds | object) -> list[str]:
    return [one["chosen"] for one in e.diagnostics["selection"]]  # type: ignore[attr-defined]


def test_a_model_that_is_wrong_is_not_chosen_and_weights_that_are_wild_are_not() -> None:
    wrong_model = wild = 0
    for k in range(20):
        rounds, pi_e, _, q = enumerated(stream(ROOT, "model", k), 3000)
        e = off_policy.select(rounds, pi_e, candidates=["ips", "dr", "dm"], q_hat=1 - q, force=True)
        wrong_model += chosen_in(e).count("dm")
        heavy, target, _ = softmax_log(stream(ROOT, "wild", k), 600, target=3.0)
        e = off_policy.select(heavy, target, candidates=["ips", "dm", "dr(clip=10)"], force=True, seed=k)
        wild += chosen_in(e).count("ips")
    assert wrong_model == 0
    assert wild <= 8  # of 40 halves


def test_the_reported_interval_covers_what_was_chosen_elsewhere() -> None:
    """50 logs: at least .88. Losses that do not differ beyond their noise are said so."""
    covered, clear = [], []
    for k in range(50):
        rounds, pi_e, truth = softmax_log(stream(ROOT, "cover", k), 1000, target=0.6)
        e = off_policy.select(rounds, pi_e, candidates=["ips", "snips", "dr", "ips(clip=2)"], force=True, seed=k)
        covered.append(e.low <= truth <= e.high)  # type: ignore[operator]
        clear += [one["clear"] for one in e.diagnostics["selection"]]
    assert np.mean(covered) >= 0.88
    assert 0 < np.mean(clear) < 1
    assert "different users" in e.method


def test_a_choice_of_the_model_has_no_interval_and_names_must_be_means() -> None:
    rounds, pi_e, truth, q = enumerated(stream(ROOT, "only model"), 1500)
    e = off_policy.select(rounds, pi_e, candidates=["dm", "switch_dr(lambda=0)"], q_hat=q)
    assert (e.low, e.high) == (None, None)
    assert "no coverage claim" in e.method
    assert e.value == pytest.approx(truth, abs=0.03)
    with pytest.raises(InputError, match="cannot be chosen"):
        off_policy.select(rounds, pi_e, candidates=["cvar", "ips"])
    bare = off_policy.Rounds(rounds.action, rounds.reward, rounds.pscore)
    alone = off_policy.select(bare, pi_e, candidates=["ips", "dm"])
    assert "fewer than two" in (alone.withheld or "")


def test_the_portfolio_of_an_estimator_is_scored_by_true_values() -> None:
    """Of three sent on-line: best 4 over the logged 1, standard deviation of (4, 1, 1) is sqrt 2."""
    truth = {"a": 4.0, "b": 1.0, "c": 1.0, "d": 5.0}
    found = off_policy.sharpe_ratio({"a": 3.0, "b": 2.9, "c": 2.8, "d": 0.0}, truth, logged=1.0, k=3)
    assert found.ratio == pytest.approx(3 / np.sqrt(2))
    assert (found.best, found.regret) == (4.0, 1.0)
    equal = off_policy.sharpe_ratio({"b": 2.0, "c": 1.0}, truth, logged=1.0, k=2)
    assert equal.ratio is None
    with pytest.raises(InputError, match="2 policies have an estimate"):
        off_policy.sharpe_ratio({"b": 2.0, "c": 1.0}, truth, logged=1.0, k=3)
