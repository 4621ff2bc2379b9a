"""Values from outside the simulator: what confirms it, what contradicts it, and what is too weak to do either."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from evaluators.estimate import Estimate
from evaluators.fidelity import Check
from evaluators.known import (
    PolicyLog,
    Simulated,
    agreement_of_order,
    agreement_of_two_logs,
    agreement_with_known,
    known_check,
    order_on_log,
    ratio_of_estimates,
)
from evaluators.settings import KnownValue

Floats = NDArray[np.float64]


def simulated(value: float, half: float, swept: tuple[tuple[str, float, float], ...] = ()) -> Simulated:
    return Simulated(Estimate(value, value - half, value + half, 0.95, 300, "judge worlds"), swept)


def measured(value: float, half: float | None = None, policy: str = "popularity") -> KnownValue:
    limits = {} if half is None else {"low": value - half, "high": value + half}
    return KnownValue(policy=policy, metric="click_rate", value=value, **limits)


@pytest.mark.parametrize(
    ("known", "value", "verdict"),
    [
        (measured(0.11, 0.005), simulated(0.112, 0.004), "pass"),
        (measured(0.11), simulated(0.112, 0.004), "pass"),  # without limits: taken as exact
        (measured(0.11, 0.005), simulated(0.20, 0.01), "fail"),
        (measured(0.11, 0.005), simulated(0.06, 0.004), "fail"),
        (measured(0.11, 0.005), simulated(0.125, 0.004), "undecided"),
        (measured(0.11, 0.05), simulated(0.112, 0.004), "not made"),  # limits wider than the band confirm nothing
        (measured(0.11, 0.05), simulated(0.30, 0.01), "fail"),  # and can still contradict
    ],
)
def test_a_known_value_confirms_contradicts_or_is_too_weak(known: KnownValue, value: Simulated, verdict: str) -> None:
    check = known_check(known, value)
    assert check.verdict == verdict
    assert check.estimate.value == pytest.approx(value.estimate.value / known.value)
    assert ("contradicted" in check.reason) == (verdict == "fail")


def test_a_contradiction_names_the_assumption_that_would_remove_it() -> None:
    swept = (("examination.decay", 0.7, 0.55), ("leave.satisfaction", 0.0, 0.98))
    check = known_check(measured(0.11, 0.005), simulated(0.20, 0.01, swept))
    assert "examination.decay = 0.7 would give 1" in check.reason
    assert "leave.satisfaction" not in check.reason


def test_a_value_that_was_withheld_or_is_zero_makes_no_check() -> None:
    withheld = Simulated(Estimate.withhold("simulated", "mine: not flown with the metric dwell"))
    assert known_check(measured(0.1), withheld).passed is None
    assert known_check(measured(0.1), withheld).reason == "mine: not flown with the metric dwell"
    assert known_check(measured(0.0), simulated(0.1, 0.01)).passed is None


def test_the_interval_of_the_ratio_covers_as_often_as_it_claims(rng: np.random.Generator) -> None:
    """Both sides noisy, 4,000 draws: binomial sd .0034, so a right interval fails here for 1 seed in 30,000."""
    truth, error_s, error_k = 0.1, 0.004, 0.006
    inside = 0
    for _ in range(4000):
        s, k = truth + error_s * rng.standard_normal(), truth + error_k * rng.standard_normal()
        found = ratio_of_estimates(simulated(s, 1.96 * error_s).estimate, measured(k, 1.96 * error_k))
        inside += found.low <= 1 <= found.high
    assert abs(inside / 4000 - 0.95) < 0.014


def test_four_known_policies_are_put_in_order_and_a_turned_order_fails(rng: np.random.Generator) -> None:
    names = ["a", "b", "c", "d"]
    known = [measured(0.1 + 0.02 * k, 0.002, policy) for k, policy in enumerate(names)]
    right = {name: 0.1 + 0.02 * k + 0.01 * rng.standard_normal(400) for k, name in enumerate(names)}

    def checks(users: dict[str, Floats]) -> dict[str, str]:
        found = agreement_with_known(
            known, lambda p, _: simulated(users[p].mean(), 0.001), lambda p, _: users.get(p), rng
        )
        return {check.name: check.verdict for check in found}

    assert checks(right) == {**{f"known: click_rate of {n}": "pass" for n in names}, "ranking agreement": "pass"}
    turned = dict(zip(names, reversed(list(right.values())), strict=True))
    assert checks(turned)["ranking agreement"] == "fail"
    assert agreement_of_order({"a": simulated(0.1, 0.01).estimate}, right.get, rng) is None


def test_off_policy_values_give_an_order_that_counts_where_exposure_was_logged(rng: np.random.Generator) -> None:
    names = ["a", "b", "c", "d"]
    users = {name: 0.1 + 0.02 * k + 0.01 * rng.standard_normal(400) for k, name in enumerate(names)}
    values = {name: simulated(0.3 + 0.1 * k, 0.02).estimate for k, name in enumerate(names)}

    def order(of: dict[str, Estimate], *, given: str = "") -> Check | None:
        return order_on_log("snips", of, users.get, rng, given=given)

    found = order(values)
    assert found is not None
    assert (found.name, found.verdict) == ("ranking agreement, off-policy snips", "pass")
    turned = dict(zip(names, reversed(list(values.values())), strict=True))
    assert order(turned).verdict == "fail"  # type: ignore[union-attr]
    chosen = order(turned, given="given that they chose")
    assert chosen is not None
    assert chosen.verdict == "not made"
    assert "given that they chose, tau -1.00 is printed, not counted" in chosen.reason
    assert order({**values, "a": Estimate.withhold("snips", "W1: n_inf 3")}) is None


def two_logs(rng: np.random.Generator, *, wrong: float = 0.0) -> dict[str, PolicyLog]:
    """Two policies over 5 actions on one context; `wrong` moves the clicks of the second log's world."""
    rate = np.array([0.05, 0.1, 0.15, 0.2, 0.3])
    logs = {}
    for name, choice, shift in (
        ("random", np.full(5, 0.2), 0.0),
        ("greedy", np.array([0.02, 0.03, 0.1, 0.25, 0.6]), wrong),
    ):
        action = rng.choice(5, 20000, p=choice)
        logs[name] = PolicyLog(np.eye(5)[action], (rng.random(20000) < rate[action] + shift).astype(float))
    return logs


def by_action(log: PolicyLog):
    rate = (log.features.T @ log.reward) / np.maximum(log.features.sum(0), 1)
    return lambda features: np.clip(features @ rate, 1e-6, 1 - 1e-6)


def test_a_model_of_one_log_is_held_against_the_other_policys_own_rounds(rng: np.random.Generator) -> None:
    right = agreement_of_two_logs(two_logs(rng), by_action)
    assert [check.verdict for check in right] == ["pass", "pass", "not made"]
    assert "1 pair of policies" in right[-1].reason
    wrong = agreement_of_two_logs(two_logs(rng, wrong=0.1), by_action)
    assert [check.verdict for check in wrong[:2]] == ["fail", "fail"]
    few = {name: PolicyLog(log.features[:300], log.reward[:300]) for name, log in two_logs(rng).items()}
    weak = agreement_of_two_logs(few, by_action)
    assert {check.verdict for check in weak} == {"not made"}
    assert "weak evidence" in weak[0].reason


def test_open_bandits_two_policies_agree_as_far_as_46_clicks_can_tell() -> None:
    """EVALUATION, section 6: each model places the other policy's rate inside; weak evidence, printed as such."""
    from simulator.datasets import check_dataset, read_dataset

    if check_dataset("obd-women").folder is None:
        pytest.skip("obd-women is in no folder of WINDTUNNEL_DATA")
    rounds = read_dataset("obd-women").rounds
    checks = agreement_of_two_logs({name: PolicyLog.of(of) for name, of in rounds.items()})
    for check in checks[:2]:
        assert check.verdict == "not made"
        assert "weak evidence" in check.reason
        assert check.estimate.low < 1 < check.estimate.high
        assert check.estimate.value == pytest.approx(1, abs=0.15)
    assert "1 pair of policies, needs 6" in checks[2].reason


def test_the_example_of_the_documentation_runs(capsys: pytest.CaptureFixture[str]) -> None:
    from simulator.datasets import check_dataset

    if check_dataset("obd-women").folder is None:
        pytest.skip("obd-women is in no folder of WINDTUNNEL_DATA")
    page = (Path(__file__).parents[2] / "docs" / "fidelity.md").read_text(encoding="utf-8")
    exec(page.split("```python\n")[1].split("```")[0], {})
    assert "ranking agreement None 1 pair" in capsys.readouterr().out
