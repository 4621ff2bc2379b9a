"""Choosing an estimator on users that it is not reported on, and scoring the policies that an estimator would test."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from evaluators import off_policy
from evaluators.intervals import Ratios
from evaluators.off_policy.importance_fitting import fitted_weights
from evaluators.off_policy.selection import Choice, _cross_validated
from evaluators.off_policy.terms import Sums
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


def portfolio_log(rng: np.random.Generator, users: int, policies: Floats) -> tuple[dict[str, Ratios], ...]:
    """IPS of policies [P, 4] on ten uniform rounds a user, their true values, and the logging policy's (as "b").

    There are two kinds of users, equally many, who like different actions.
    """
    likes = np.array([[0.3, 0.4, 0.5, 0.6], [0.6, 0.5, 0.3, 0.35]])
    kind = rng.integers(0, 2, users)
    action = rng.integers(0, 4, (users, 10))
    reward = rng.random((users, 10)) < likes[kind[:, None], action]
    rounds = np.full((1, users), 10.0)

    def of(rows: Floats) -> Ratios:
        return Ratios(rows[None], rounds)

    estimated = {f"p{k}": of((4 * pi[action] * reward).sum(axis=1)) for k, pi in enumerate(policies)}
    truth = {f"p{k}": of(10 * likes[kind] @ pi) for k, pi in enumerate(policies)}
    return estimated, truth, {"b": of(10 * likes[kind].mean(axis=1))}


def test_the_interval_of_the_sharpe_ratio_covers_that_of_all_users(monkeypatch: pytest.MonkeyPatch) -> None:
    """150 logs of 200 users and six policies; limits for the three that were chosen, not made anew, cover .83."""
    monkeypatch.setattr("evaluators.off_policy.selection.PORTFOLIO_RESAMPLES", 300)
    policies = np.random.default_rng((6, 7)).dirichlet(np.full(4, 0.6), 6)
    value = np.array([0.45, 0.45, 0.4, 0.475]) @ policies.T
    best = np.sort(value)[::-1][:3]
    theta = (best[0] - 0.44375) / best.std()
    covered, widths = [], []
    for k in range(150):
        rng = stream(ROOT, "sharpe", k)
        estimated, truth, logged = portfolio_log(rng, 200, policies)
        found = off_policy.sharpe_ratio_interval(estimated, truth, rng, logged=logged["b"], k=3)
        covered.append(found.low <= theta <= found.high)
        widths.append(found.high - found.low)
    assert np.mean(covered) >= 0.88
    assert np.median(widths) < 6


def test_the_sharpe_ratio_of_policies_that_are_worth_the_same_has_no_interval(rng: np.random.Generator) -> None:
    estimated, truth, logged = portfolio_log(rng, 50, np.eye(4)[[0, 0, 0]])
    found = off_policy.sharpe_ratio_interval(estimated, truth, rng, logged=logged["b"], k=3)
    assert (found.ratio, found.low, found.high) == (None, None, None)
    # Two are one, and the third is about as good: half of the resamples choose the two.
    for k in range(10):
        estimated, truth, logged = portfolio_log(stream(ROOT, "doubtful", k), 50, np.eye(4)[[0, 0, 1]])
        found = off_policy.sharpe_ratio_interval(estimated, truth, rng, logged=logged["b"], k=2)
        assert found.low is None
        if found.ratio is not None:
            return
    pytest.fail("no log chose two different policies")


@pytest.mark.parametrize("concentration", [0.3, 5.0])
def test_pseudo_policies_are_exact_and_as_near_as_can_be(concentration: float) -> None:
    """Every context keeps its share; IPS with pseudo weights is the pseudo value; no other deal has nearer weights."""
    rng = stream(ROOT, "fit", str(concentration))
    pi_b, pi_e = rng.dirichlet(np.full(6, concentration), 40), rng.dirichlet(np.full(6, concentration), 40)
    w, k = pi_e / pi_b, 0.2
    pseudo = fitted_weights(w, pi_b, k)
    rho = k * pseudo / (1 - k + k * pseudo)
    np.testing.assert_allclose((pi_b * rho).sum(1), k, atol=1e-10)
    reward = rng.random((40, 6))
    log, test = pi_b * (1 - rho) / (1 - k), pi_b * rho / k  # the two pseudo policies
    np.testing.assert_allclose((log * pseudo * reward).sum(1), (test * reward).sum(1), atol=1e-9)
    apart = (pi_b * (w - pseudo) ** 2).sum(1)
    for _ in range(200):
        moved = rho + 1e-4 * rng.standard_normal(rho.shape)
        moved -= pi_b * ((pi_b * moved).sum(1, keepdims=True) - k) / (pi_b**2).sum(1, keepdims=True)
        inside = ((moved > 0) & (moved < 1)).all(1)
        other = moved / np.where(inside[:, None], 1 - moved, 1.0) * (1 - k) / k
        assert ((pi_b * (w - other) ** 2).sum(1) >= apart - 1e-12)[inside].all()


def two_targets(rng: np.random.Generator, far: bool) -> tuple[off_policy.Rounds, Floats, Floats]:
    """2,000 rounds of 10 actions, a model that is .04 too high, and a policy near the logging one or far from it."""
    n = 2000
    pi_b = np.tile(np.r_[0.45, 0.32, 0.2, np.full(7, 0.03 / 7)], (n, 1))
    pi_e = np.tile(np.r_[0.1, 0.1, 0.1, np.full(7, 0.1)], (n, 1)) if far else 0.9 * pi_b + 0.01
    chance = np.tile(np.linspace(0.4, 0.6, 10), (n, 1))
    action = (pi_b.cumsum(1) < rng.random((n, 1))).sum(1).clip(max=9)
    reward = (rng.random(n) < chance[np.arange(n), action]).astype(float)
    return off_policy.Rounds(action, reward, pi_b=pi_b), pi_e, chance + 0.04


def test_importance_fitting_estimates_the_errors_of_the_pseudo_pair_and_chooses_by_the_policy() -> None:
    """Loss of ips minus that of the model, 40 logs a policy: within 4 standard errors of its closed form.

    Near the log ips errs less than the model (.04 too high), far from it more: one log, two policies, two answers.
    """
    p = np.linspace(0.4, 0.6, 10)
    chosen = {}
    for distant in (False, True):
        found, names = [], []
        for k in range(40):
            rounds, pi_e, q = two_targets(stream(ROOT, "targets", k), distant)
            e = off_policy.select(rounds, pi_e, candidates=["ips", "dm"], method="importance_fitting", q_hat=q, seed=k)
            names += chosen_in(e)
            found.append(np.mean([c["losses"]["ips"] - c["losses"]["dm"] for c in e.diagnostics["selection"]]))
        assert rounds.pi_b is not None
        pi_b, target = rounds.pi_b[0], pi_e[0]
        pseudo = fitted_weights((target / pi_b)[None], pi_b[None], 0.2)[0]
        rho = 0.2 * pseudo / (0.8 + 0.2 * pseudo)
        variance = (pi_b * (1 - rho) / 0.8 * pseudo**2 * p).sum() - (pi_b * rho / 0.2 * p).sum() ** 2
        error = np.std(found, ddof=1) / np.sqrt(len(found))
        assert np.mean(found) == pytest.approx(variance / 800 - 0.04**2, abs=4 * error)
        chosen[distant] = names.count("ips") / len(names)
        diagnostics = e.diagnostics["selection"][0]
        assert diagnostics["weights_apart"] == pytest.approx(
            np.sqrt((pi_b * (target / pi_b - pseudo) ** 2).sum() / (target**2 / pi_b).sum())
        )
        assert diagnostics["policies_apart"] == pytest.approx(np.abs(pi_b * rho / 0.2 - target).sum() / 2)
    assert chosen[False] > chosen[True] + 0.2
    assert diagnostics["policies_apart"] > 0.4  # the log has too little of what the far policy does


def test_a_choice_between_equals_is_seldom_called_clear() -> None:
    """Two estimates with errors of one size, each user's own: at most one choice of ten is clear (100 logs).

    With the spread over the splits alone as the error of the margin, which has nothing of the users' own luck, four of
    ten are.
    """
    clear = []
    for k in range(100):
        rng = stream(ROOT, "equals", k)
        reward, noise = rng.random(400), rng.standard_normal((2, 400))
        ones = np.ones((1, 400))
        sums = {
            str(j): Sums("ratio", Ratios((reward + noise[j])[None], ones), None, True, "", None, None) for j in (0, 1)
        }
        everyone = np.ones(400, bool)
        found = Choice.of(_cross_validated(sums, Ratios(reward[None], ones), everyone, rng))
        clear.append(found.margin > 2 * found.error)
        assert 0 <= found.stability <= 1
    assert np.mean(clear) <= 0.1


def test_importance_fitting_needs_the_whole_logging_policy_and_says_so() -> None:
    rounds, pi_e, q = two_targets(stream(ROOT, "needs"), far=False)
    assert rounds.pi_b is not None
    bare = off_policy.Rounds(rounds.action, rounds.reward, rounds.pi_b[np.arange(len(rounds)), rounds.action])
    with pytest.raises(InputError, match=r"method: importance_fitting needs pi_b"):
        off_policy.select(bare, pi_e, q_hat=q, method="importance_fitting")
    with pytest.raises(InputError, match=r"'importance_fiting' is none of .* did you mean 'importance_fitting'"):
        off_policy.select(rounds, pi_e, q_hat=q, method="importance_fiting")  # type: ignore[arg-type]
