"""What `ope` can be asked for beside plain values: differences, other limits, reward models, non-factored slates."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluators import off_policy
from evaluators.off_policy import reading
from evaluators.off_policy.command import run_ope
from simulator.errors import InputError, LogError
from tests.known_truth.test_off_policy_slate import SLATES, everything, rewards


def trajectories(seed: int, *, heat: float, n: int = 600, steps: int = 5) -> dict[str, Any]:
    """Uniform logging over 2 actions, reward 1 where action 1; the policy takes it with probability `heat`."""
    rng = np.random.default_rng(seed)
    action = rng.integers(0, 2, n * steps)
    return {
        "step_per_trajectory": steps,
        "action": action,
        "reward": (rng.random(n * steps) < 0.2 + 0.4 * action).astype(float),
        "pscore": np.full(n * steps, 0.5),
        "evaluation_policy_action_dist": np.tile([1 - heat, heat], (n * steps, 1)),
        "gamma": 0.9,
    }


def save(path: Path, columns: dict[str, Any]) -> Path:
    np.savez(path, **columns)
    return path


def test_two_policies_on_one_log_of_trajectories_differ_by_what_is_true(tmp_path: Path) -> None:
    one = save(tmp_path / "one.npz", trajectories(0, heat=0.7))
    other = save(tmp_path / "other.npz", trajectories(0, heat=0.6))
    found = run_ope(one, None, ["pdis", "snpdis"], against=other)
    discounts = float((0.9 ** np.arange(5)).sum())
    for name in ("pdis", "snpdis"):
        gap = found.differences[name]
        assert gap.low < 0.04 * discounts < gap.high  # type: ignore[operator]
        alone = found.estimates[name]
        assert gap.high - gap.low < 0.6 * (alone.high - alone.low)  # type: ignore[operator]
    logged = run_ope(one, None, ["pdis"], against="logged").differences["pdis"]
    assert logged.low < 0.08 * discounts < logged.high  # type: ignore[operator]
    stranger = save(tmp_path / "stranger.npz", trajectories(1, heat=0.6))
    with pytest.raises(InputError, match="not the same trajectory log"):
        run_ope(one, None, ["pdis"], against=stranger)


def slate_rows(n: int, seed: int) -> tuple[dict[str, Any], float, float]:
    """Rows of slates drawn from a logging policy that does not factorise, both policies' marginals, and the values."""
    slates, pi_b, pi_e = everything(rewards("independent"), factored=False)
    drawn = np.random.default_rng(seed).choice(27, n, p=pi_b)
    rows = {
        "slate_id": np.repeat(np.arange(n), 3),
        "position": np.tile(np.arange(3), n),
        "action": SLATES[drawn].reshape(-1),
        "reward": rewards("independent")[drawn].reshape(-1),
        "pscore": np.repeat(pi_b[drawn], 3),
        "evaluation_policy_pscore": np.repeat(pi_e[drawn], 3),
    }
    for name, twin in (("pscore_item_position", "pi_e_item_position"), ("pscore_cascade", "pi_e_cascade")):
        rows[name] = getattr(slates, name)[drawn].reshape(-1)
        rows[f"evaluation_policy_{name}"] = getattr(slates, twin)[drawn].reshape(-1)
    assert slates.gamma_matrix is not None
    assert slates.target_marginal is not None
    rows["gamma_matrix"], rows["target_marginal"] = slates.gamma_matrix[0], slates.target_marginal[0]
    total = rewards("independent").sum(axis=1)
    return rows, float(pi_e @ total), float(pi_b @ total)


def test_the_pseudo_inverse_of_a_policy_that_does_not_factorise_is_had_from_a_file(tmp_path: Path) -> None:
    """Without the matrix it is withheld; one matrix for all slates and one for each give the same."""
    rows, truth, logged = slate_rows(4000, 2)
    path = save(tmp_path / "slates.npz", rows)
    found = run_ope(path, None, ["pi", "sips"], against="logged")
    for name in ("pi", "sips"):
        estimate, gap = found.estimates[name], found.differences[name]
        assert estimate.low < truth < estimate.high  # type: ignore[operator]
        assert gap.low < truth - logged < gap.high  # type: ignore[operator]
    each = dict(rows)
    each["gamma_matrix"] = np.tile(rows["gamma_matrix"], (4000, 1, 1))
    each["target_marginal"] = np.tile(rows["target_marginal"], (4000, 1))
    again = run_ope(save(tmp_path / "each.npz", each), None, ["pi"])
    assert again.estimates["pi"].value == pytest.approx(found.estimates["pi"].value, abs=1e-12)
    del rows["gamma_matrix"]
    bare = run_ope(save(tmp_path / "bare.npz", rows), None, ["pi"])
    assert "gamma_matrix" in (bare.estimates["pi"].withheld or "")
    with pytest.raises(LogError, match="do not sum to 1"):
        run_ope(save(tmp_path / "bad.npz", {**each, "target_marginal": 2 * each["target_marginal"]}), None, ["pi"])


def test_a_horizon_that_the_log_can_answer_is_offered_as_another_estimand(tmp_path: Path) -> None:
    """Weights of 20 steps are hopeless, those of the first few are not; asked for by name it is the same number."""
    path = save(tmp_path / "long.npz", trajectories(3, heat=0.95, n=500, steps=20))
    found = run_ope(path, None, ["pdis"])
    offered = found.estimates["pdis"].diagnostics["first_steps"]
    assert found.estimates["pdis"].value is None
    assert 1 <= offered["steps"] < 20
    truth = 0.58 * float((0.9 ** np.arange(offered["steps"])).sum())
    assert offered["low"] < truth < offered["high"]
    assert offered["estimator"] in found.as_text()
    asked = run_ope(path, None, [offered["estimator"]]).estimates[offered["estimator"]]
    assert asked.value == pytest.approx(offered["value"])
    with pytest.raises(InputError, match="steps is for trajectory logs"):
        off_policy.parse("dr(steps=2)", "bandit")
    with pytest.raises(InputError, match="clip is for bandit logs"):
        off_policy.parse("dr(clip=2)", "trajectory")


def bandit_files(folder: Path, n: int = 3000) -> tuple[Path, Path]:
    rng = np.random.default_rng(4)
    x = rng.normal(size=(n, 2))
    action = rng.integers(0, 3, n)
    reward = (rng.random(n) < np.where(x[:, 0] ** 2 > 0.5, 0.9, 0.1)).astype(float)
    log = save(folder / "log.npz", {"action": action, "reward": reward, "pscore": np.full(n, 1 / 3), "context": x})
    return log, save(folder / "policy.npz", {"pi_e": np.tile([0.1, 0.2, 0.7], (n, 1))})


def test_the_reward_model_may_be_any_of_scikit_learn_and_weighted_towards_the_policy(tmp_path: Path) -> None:
    """The reward is a square of the context: its neighbours see it, so its estimate is narrower than the line's."""
    log, policy = bandit_files(tmp_path)
    line = run_ope(log, policy, ["dr"]).estimates["dr"]
    near = run_ope(log, policy, ["dr"], reward_model="KNeighborsRegressor").estimates["dr"]
    assert near.high - near.low < 0.95 * (line.high - line.low)  # type: ignore[operator]
    assert "KNeighborsRegressor" in near.diagnostics["q_hat"]
    for how in ("importance", "mrdr"):
        weighted = run_ope(log, policy, ["dr"], q_weights=how).estimates["dr"]
        assert weighted.value == pytest.approx(line.value, abs=0.01)
        assert weighted.value != line.value
        assert "weighted" in weighted.diagnostics["q_hat"]
    with pytest.raises(InputError, match="did you mean 'Ridge'"):
        run_ope(log, policy, ["dr"], reward_model="Rigde")
    with pytest.raises(InputError, match="none of importance, mrdr"):
        run_ope(log, policy, ["dr"], q_weights="more")


def test_large_arrays_are_mapped_and_give_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, policy = bandit_files(tmp_path)
    held = run_ope(log, policy, ["snips"]).to_json()
    monkeypatch.setattr(reading, "LARGE", 1000)
    pi_e, _ = reading.read_policy(policy)
    assert isinstance(pi_e, np.memmap)
    assert run_ope(log, policy, ["snips"]).to_json() == held
    np.savez_compressed(tmp_path / "small.npz", pi_e=pi_e)
    assert run_ope(log, tmp_path / "small.npz", ["snips"]).to_json() == held


def test_limits_that_need_no_large_sample_come_from_the_command_too(tmp_path: Path) -> None:
    log, policy = bandit_files(tmp_path)
    found = run_ope(log, policy, ["ips"], interval="betting").estimates["ips"]
    assert "every look" in found.method
    with pytest.raises(InputError, match="leave out --interval"):
        run_ope(log, policy, ["ips"], interval="betting", against="logged")


def test_a_continuous_action_is_valued_from_a_file(tmp_path: Path) -> None:
    """Uniform prices in [0, 2], sold with chance 1 - price / 2: the blurred policy at 1 sells half of the time."""
    rng = np.random.default_rng(6)
    n = 4000
    price = 2 * rng.random(n)
    sold = (rng.random(n) < 1 - price / 2).astype(float)
    columns = {"action": price, "reward": sold, "pscore": np.full(n, 0.5), "action_range": np.array([0.0, 2.0])}
    log, policy = save(tmp_path / "prices.npz", columns), save(tmp_path / "one.npz", {"pi_e": np.ones(n)})
    found = run_ope(log, policy, ["snips", "dr"], bandwidth=0.3)
    for e in found.estimates.values():
        assert e.low < 0.5 < e.high  # type: ignore[operator]
    del columns["action_range"]
    with pytest.raises(LogError, match="action_range"):
        run_ope(save(tmp_path / "bare.npz", columns), policy, ["snips"], bandwidth=0.3)


def test_an_estimator_is_chosen_on_users_that_it_is_not_reported_on(tmp_path: Path) -> None:
    log, policy = bandit_files(tmp_path)
    found = run_ope(log, policy, ["ips", "snips", "dr"], choose="cross_validation")
    selected = found.to_json()["selected"]
    assert {one["chosen"] for one in selected["diagnostics"]["selection"]} <= {"ips", "snips", "dr"}
    assert selected["low"] < found.estimates["dr"].value < selected["high"]  # type: ignore[operator]
    assert "selected by cross-validation" in found.as_text()
    assert re.search(
        r"^(both choices are (clear|within their noise)|one choice is clear, the other)", found.as_text(), re.M
    )
    with np.load(log) as columns:
        whole = save(tmp_path / "whole.npz", {**columns, "pi_b": np.full((len(columns["action"]), 3), 1 / 3)})
    fitted = run_ope(whole, policy, ["ips", "snips", "dr"], choose="importance_fitting")
    assert "selected by importance fitting" in fitted.as_text()
    assert fitted.to_json()["selected"]["diagnostics"]["selection"][0]["policies_apart"] > 0
    with pytest.raises(InputError, match=r"method: 'crossvalidation' is none of .*did you mean 'cross_validation'"):
        run_ope(log, policy, ["ips", "snips"], choose="crossvalidation")
    with pytest.raises(
        InputError, match=r"reward_model: 'Fo' is no regressor of scikit-learn; give e\.g\. Ridge or Hist"
    ):
        run_ope(log, policy, ["dr"], reward_model="Fo")


def test_a_discount_of_a_log_without_steps_is_refused(tmp_path: Path) -> None:
    log, policy = bandit_files(tmp_path)
    with pytest.raises(InputError, match="--gamma: discounts the steps of trajectories, and this is a bandit log"):
        run_ope(log, policy, ["ips"], gamma=0.9)
    assert run_ope(log, policy, ["ips"], gamma=1.0).estimates["ips"].value is not None


@pytest.mark.parametrize("name", ["empty.npz", "empty.npy"])
def test_an_empty_file_is_bad_input_and_no_interruption(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(LogError, match="cannot be read as numbers"):
        reading.read_policy(tmp_path / name)


def test_weights_of_rows_are_named_right_even_where_no_reward_model_is_fitted(tmp_path: Path) -> None:
    log = save(tmp_path / "log.npz", {"action": np.arange(60) % 2, "reward": np.ones(60), "pscore": np.full(60, 0.5)})
    policy = save(tmp_path / "policy.npz", {"pi_e": np.full((60, 2), 0.5)})
    with pytest.raises(InputError, match="none of importance, mrdr"):
        run_ope(log, policy, ["ips"], q_weights="more")
