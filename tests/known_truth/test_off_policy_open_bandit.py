"""Open Bandit, campaign women: both policies' on-line click rates are known, so every number given must hold them."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from evaluators import off_policy
from evaluators.estimate import Estimate
from simulator.datasets import Dataset, check_dataset, read_dataset

ONLINE = 0.0046  # of either policy; Clopper-Pearson .0034 to .0061
PLAIN = ("ips", "snips", "dr", "sndr")
BOUNDED = ("ips(clip=10)", "dr(clip=10)", "switch_dr(lambda=5)", "dros(lambda=100)", "sgips(lambda=0.1)")


@cache
def women() -> Dataset:
    if check_dataset("obd-women").folder is None:
        pytest.skip("obd-women is in no folder of WINDTUNNEL_DATA")
    return read_dataset("obd-women")


def rounds_of(policy: str) -> off_policy.Rounds:
    return off_policy.Rounds(**women().rounds[policy].columns())


def given_or_explained(found: dict[str, Estimate]) -> None:
    """The on-line rate lies inside, or the estimate is withheld by a rule that is named."""
    for name, e in found.items():
        if e.value is None:
            assert (e.withheld or "").startswith("W"), name
        else:
            assert e.low <= ONLINE <= e.high, name  # type: ignore[operator]


def test_the_log_of_thompson_sampling_cannot_value_the_uniform_policy_and_says_so() -> None:
    """One row has 69 % of the weight (EVALUATION, section 4): W1 and W2; what is bounded holds the on-line rate."""
    rounds = rounds_of("bts")
    uniform = np.full((len(rounds), 46), 1 / 46)
    found = off_policy.estimate(rounds, uniform, estimators=[*PLAIN, *BOUNDED])
    given_or_explained(found)
    for name in PLAIN:
        assert "W1" in (found[name].withheld or "")
        assert "W2" in (found[name].withheld or "")
    d = found["ips"].diagnostics
    assert (d["ess"], d["n_pos"], d["n_inf"]) == (
        pytest.approx(2.1, abs=0.05), pytest.approx(3.3, abs=0.05), pytest.approx(1.3, abs=0.05),
    )  # fmt: skip
    assert d["max_weight_share"] == pytest.approx(0.69, abs=0.005)
    assert d["mean_weight_z"] == pytest.approx(0.98, abs=0.01)
    bounded = found["ips(clip=10)"]
    assert (bounded.low, bounded.high) == (pytest.approx(0.0013, abs=5e-5), pytest.approx(0.277, abs=5e-4))
    betting = off_policy.estimate(rounds, uniform, estimators=["ips"], interval="betting")["ips"]
    given_or_explained({"betting": betting})
    assert betting.high < 0.1 < bounded.high  # type: ignore[operator]
    forced = off_policy.estimate(rounds, uniform, estimators=["ips", "snips"], force=True)
    assert (forced["ips"].value, forced["snips"].value) == (
        pytest.approx(0.0074, abs=5e-5), pytest.approx(0.0024, abs=5e-5),
    )  # fmt: skip


def averaged() -> NDArray[np.float64]:
    """[positions, 46] how often Thompson sampling showed each item at each position.

    Its own propensities in the random log's rounds were not published: this is its average over the campaign.
    """
    logged = women().rounds["bts"]
    shown = np.zeros((logged.n_positions, logged.n_actions))
    np.add.at(shown, (logged.position, logged.action), 1.0)
    return shown / shown.sum(axis=1, keepdims=True)


def test_the_random_log_holds_the_rate_of_thompson_sampling_averaged_over_the_campaign() -> None:
    """Its 46 clicks are 23 effective ones under that policy: W2; what is bounded holds the on-line rate."""
    rounds = rounds_of("random")
    assert rounds.position is not None
    policy = averaged()[rounds.position]
    found = off_policy.estimate(rounds, policy, estimators=[*PLAIN, *BOUNDED])
    given_or_explained(found)
    assert all("W2" in (found[name].withheld or "") for name in PLAIN)
    forced = off_policy.estimate(rounds, policy, estimators=PLAIN, force=True)
    for name, e in forced.items():
        assert e.low <= ONLINE <= e.high, name  # type: ignore[operator]  # even withheld, none misses it
    assert off_policy.estimate(rounds, policy, estimators=["ips"], interval="betting")["ips"].low < ONLINE  # type: ignore[operator]
