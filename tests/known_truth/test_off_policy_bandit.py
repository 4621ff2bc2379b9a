"""Numbered known-truth tests 2 to 8 and 16 to 19 of bandit estimates: processes whose value is known."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.interval_coverage import binding_scores, by_doors, grid_counts
from benchmarks.processes import p1_rows, p1_sums
from evaluators import off_policy
from evaluators.estimate import Estimate
from evaluators.off_policy.bandit import Weighted, bandit_terms, reduce_policy
from evaluators.off_policy.names import parse
from evaluators.off_policy.reward_model import cross_fit_q
from simulator.streams import stream

Floats = NDArray[np.float64]
ROOT = np.random.SeedSequence(20)


@dataclass(frozen=True)
class P1:
    """One log of process P1 (EVALUATION.md section 10): weights and rewards of G users, and the policy's value."""

    rounds: off_policy.Rounds
    pi_e: Floats
    q_hat: Floats
    truth: float


def p1(rng: np.random.Generator, users: int, f: float, p: float, family: str) -> P1:
    """Draw a log whose logged actions have exactly the weights of the process.

    The estimators take policies, so each weight is laid out over two actions, both of them logged: pi_e gives the
    logged one w * pscore and the other the rest.
    """
    rows = p1_rows(rng, users, f, p, family)
    user, w, reward, n = rows.user, rows.w, rows.r, len(rows.user)
    pscore = 0.5 / max(w.max(), 1.0) * np.ones(n)
    action = rng.integers(0, 2, n)
    chosen = w * pscore
    pi_e = np.empty((n, 2))
    pi_e[np.arange(n), action], pi_e[np.arange(n), 1 - action] = chosen, 1 - chosen
    q_hat = np.empty((n, 2))
    q_hat[np.arange(n), action], q_hat[np.arange(n), 1 - action] = rows.q, (rows.v - chosen * rows.q) / (1 - chosen)
    return P1(off_policy.Rounds(action, reward, pscore, user=user), pi_e, q_hat, rows.truth)


def coverage(
    replications: int, estimators: list[str], *, name: str, force: bool = False, **cell: object
) -> dict[str, tuple[int, int]]:
    """(published, covered) of each estimator."""
    count = {e: [0, 0] for e in estimators}
    for k in range(replications):
        log = p1(stream(ROOT, name, k), **cell)  # type: ignore[arg-type]
        found = off_policy.estimate(log.rounds, log.pi_e, estimators=estimators, q_hat=log.q_hat, seed=k, force=force)
        for e, estimate in found.items():
            if estimate.value is not None and estimate.low is not None and estimate.high is not None:
                count[e][0] += 1
                count[e][1] += estimate.low <= log.truth <= estimate.high
    return {e: (a, b) for e, (a, b) in count.items()}


CELLS = [("logn", 1.0, 0.05), ("det", 0.3, 0.05), ("det", 1.0, 0.5)]


@pytest.mark.parametrize(("family", "f", "p"), CELLS)
def test_02_default_intervals_cover_as_often_as_they_claim(family: str, f: float, p: float) -> None:
    """[.90, .99] over 400 logs; the cells that go through the bootstrap of door 3 are in the slow suite alone."""
    runs = 400
    names = ["ips", "snips", "dr", "sndr"]
    found = coverage(runs, names, name=f"2 {family} {f} {p}", users=1000, f=f, p=p, family=family)
    for name, (published, covered) in found.items():
        assert published >= 0.95 * runs, name
        assert 0.90 <= covered / published <= 0.99, (name, covered / published)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["logn", "det"])
@pytest.mark.parametrize("f", [1.0, 0.3])
@pytest.mark.parametrize("p", [0.05, 0.5])
def test_02_default_intervals_cover_within_monte_carlo_error(family: str, f: float, p: float) -> None:
    """R = 1,000, [.92, .975] ([.93, .975] where weights are 1)."""
    found = coverage(
        1000, ["ips", "snips", "dr", "sndr"], name=f"2s {family} {f} {p}", users=1000, f=f, p=p, family=family
    )
    for name, (published, covered) in found.items():
        if published < 300:  # the rule withholds this cell (lognormal f = .3, p = .05)
            continue
        assert (0.93 if f == 1.0 else 0.92) <= covered / published <= 0.975, (name, covered / published)


def test_02_rows_as_units_would_be_too_narrow() -> None:
    """The same logs without users: limits narrower by a tenth, or test 2 could not see clustering at all."""
    ratios = []
    for k in range(20):
        log = p1(stream(ROOT, "2 rows", k), 1000, 1.0, 0.5, "det")
        flat = off_policy.Rounds(log.rounds.action, log.rounds.reward, log.rounds.pscore)
        rows, users = (off_policy.estimate(r, log.pi_e, estimators=["ips"])["ips"] for r in (flat, log.rounds))
        ratios.append((users.high - users.low) / (rows.high - rows.low))  # type: ignore[operator]
    assert np.mean(ratios) > 1.1


@pytest.mark.slow
def test_03_published_estimates_cover_over_the_whole_grid() -> None:
    """162 cells x 400 logs: each with 300 published covers .90, all together .935; without the rule .71 to .76."""
    found = grid_counts(400, by_doors, "test 3")
    assert len(found) == 3 * 162
    for cell, (published, covered) in found.items():
        if published >= 300:
            # A cell of 300 to 400 whose true coverage is the document's worst, .916, falls below .90 in one of eight.
            assert covered / published >= 0.90 - 2 * math.sqrt(0.09 / published), cell
    published, covered = (sum(count[i] for count in found.values()) for i in (0, 1))
    assert covered / published >= 0.935
    worst = [c / a for a, c in found.values() if a >= 300]
    assert np.mean(np.array(worst) >= 0.90) >= 0.97


def test_03_the_grid_is_judged_by_what_the_product_gives() -> None:
    """The vectorised logs of the grid and `estimate` on the same rounds: equal doors and limits."""
    doors = set()
    for users, f, p, family in ((100, 1.0, 0.5, "logn"), (1000, 0.3, 0.5, "det"), (300, 0.01, 0.5, "det")):
        log = p1(stream(ROOT, "3 same", users, str(f)), users, f, p, family)
        logs = p1_sums(p1_rows(stream(ROOT, "3 same", users, str(f)), users, f, p, family), 1, users)
        found = off_policy.estimate(log.rounds, log.pi_e, estimators=["ips", "snips", "dr"], q_hat=log.q_hat)
        for name, e in found.items():
            limits = by_doors(logs, name, 0, logs.ratios(name, 0).scores(), binding_scores(logs, 0)[name])
            assert (limits is None) == (e.value is None), (name, users)
            doors.add(e.diagnostics["door"])
            if limits is not None and e.diagnostics["door"] != 3:  # the hull's resamples differ
                assert (e.low, e.high) == pytest.approx(limits, rel=1e-9)
    assert doors >= {1, None}


def test_a_large_weight_whose_reward_happens_to_be_0_is_seen() -> None:
    """The policy takes half of the time what is logged once in 500 rounds, for a reward of .3 a time.

    Where none of the few such rounds was rewarded, the scores of w r show nothing: `ips` was published in 64 of 200 of
    these logs and never held the value; `tis`, `pdis` and `sips` are the same sum.
    """
    n, rare = 2000, 0.002
    published: dict[str, int] = {}
    for k in range(30):
        rng = stream(ROOT, "isolated", k)
        action = (rng.random(n) < rare).astype(np.int64)
        reward = (rng.random(n) < np.where(action == 1, 0.3, 0.05)).astype(float)
        pi_b, pi_e = np.tile([1 - rare, rare], (n, 1)), np.full((n, 2), 0.5)
        pscore = pi_b[np.arange(n), action]
        trajectories = off_policy.Trajectories.from_rows(
            {"step_per_trajectory": 1, "action": action, "reward": reward, "pscore": pscore}
            | {"evaluation_policy_action_dist": pi_e}
        )
        slates = off_policy.Slates.from_rows(
            {"slate_id": np.arange(n), "position": np.zeros(n), "action": action, "reward": reward, "pscore": pscore}
            | {"evaluation_policy_pscore": np.full(n, 0.5)}
        )
        rounds = off_policy.Rounds(action, reward, pi_b=pi_b)
        found = off_policy.estimate(
            rounds, pi_e, estimators=["ips", "dr", "sndr", "ips(clip=10)"], q_hat=np.tile(reward.mean(), (n, 2))
        )
        found |= off_policy.estimate(trajectories, estimators=["tis", "pdis"])
        found |= off_policy.estimate(slates, estimators=["sips"])
        found["difference"] = off_policy.difference(rounds, pi_e, estimators=["ips"])["ips"]
        for name, e in found.items():
            published[name] = published.get(name, 0) + (e.value is not None)
    bounded = published.pop("ips(clip=10)")
    assert bounded >= 25
    assert set(published.values()) == {0}, published


def softmax_log(
    rng: np.random.Generator, n: int, *, actions: int = 4, target: float = 1.0
) -> tuple[off_policy.Rounds, Floats, float]:
    """Softmax logging policy on a 3-dimensional context, logistic reward: rounds (five a user), pi_e, value."""
    draw = np.random.default_rng(5)
    logging, aim, taste = (draw.normal(size=(3, actions)) for _ in range(3))
    x = rng.normal(size=(n, 3))

    def soft(z: Floats) -> Floats:
        e = np.exp(z - z.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)

    pi_b, pi_e = soft(0.5 * x @ logging), soft(target * x @ aim)
    q = 1 / (1 + np.exp(1.0 - x @ taste))
    action = (pi_b.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    reward = (rng.random(n) < q[np.arange(n), action]).astype(float)
    rounds = off_policy.Rounds(action, reward, user=np.arange(n) // 5, context=x, pi_b=pi_b)
    return rounds, pi_e, float((pi_e * q).sum(axis=1).mean())


def test_04_on_policy_weights_are_one_and_ips_is_the_mean_reward() -> None:
    rounds, _, _ = softmax_log(stream(ROOT, "4"), 4000)
    assert rounds.pi_b is not None
    found = off_policy.estimate(rounds, rounds.pi_b, estimators=["ips", "snips", "dr"])
    mean = rounds.reward.mean()
    assert found["ips"].value == pytest.approx(mean, abs=1e-12)
    assert found["snips"].value == pytest.approx(mean, abs=1e-12)
    assert found["ips"].diagnostics["ess"] == pytest.approx(4000)
    low, high = found["dr"].low, found["dr"].high
    assert low is not None
    assert high is not None
    assert abs(found["dr"].value - mean) < (high - low)  # type: ignore[operator]  # about 4 se


def enumerated(rng: np.random.Generator, n: int) -> tuple[off_policy.Rounds, Floats, float, Floats]:
    """3 contexts x 4 actions with every probability written down."""
    pi_b = np.array([[0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4], [0.25, 0.25, 0.25, 0.25]])
    pi_e = np.array([[0.1, 0.2, 0.3, 0.4], [0.4, 0.1, 0.1, 0.4], [0.7, 0.1, 0.1, 0.1]])
    q = np.array([[0.1, 0.5, 0.3, 0.9], [0.7, 0.2, 0.4, 0.1], [0.3, 0.6, 0.9, 0.2]])
    truth = float((pi_e * q).sum(axis=1).mean())
    x = rng.integers(0, 3, n)
    action = (pi_b[x].cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    reward = (rng.random(n) < q[x, action]).astype(float)
    rounds = off_policy.Rounds(
        action,
        reward,
        pi_b=pi_b[x],
        context=np.eye(3)[x],
        action_embed=action[:, None],
        p_e_a=np.eye(4)[:, :, None],
    )
    return rounds, pi_e[x], truth, q[x]


def test_05_unbiased_estimators_average_to_the_enumerated_value() -> None:
    """|z| <= 4 over 2,000 logs of 200 rounds; a permuted column of pi_e is off by many standard errors."""
    names = [parse(n) for n in ("ips", "dr", "switch_dr(lambda=inf)")]
    values = {name.asked: [] for name in names} | {"permuted": []}  # type: ignore[var-annotated]
    truth = 0.0
    for k in range(2000):
        rounds, pi_e, truth, q = enumerated(stream(ROOT, "5", k), 200)
        x = reduce_policy(rounds, pi_e, 0.5 * q, (0.0, 1.0))
        for name in names:
            values[name.asked].append(bandit_terms(name, x).per_unit().mean())
        wrong = reduce_policy(rounds, np.roll(pi_e, 1, axis=1), None, None)
        values["permuted"].append(bandit_terms(parse("ips"), wrong).per_unit().mean())
    z = {k: (np.mean(v) - truth) / (np.std(v) / math.sqrt(len(v))) for k, v in values.items()}
    assert abs(z.pop("permuted")) > 10
    assert all(abs(value) <= 4 for value in z.values()), z


def test_05_mips_with_one_hot_embeddings_is_ips() -> None:
    rounds, pi_e, _, _ = enumerated(stream(ROOT, "5 mips"), 3000)
    found = off_policy.estimate(rounds, pi_e, estimators=["ips", "mips", "snips", "snmips"])
    assert found["mips"].value == pytest.approx(found["ips"].value, abs=1e-10)
    assert found["snmips"].value == pytest.approx(found["snips"].value, abs=1e-10)


def test_06_dr_is_right_if_either_part_is_and_wrong_if_both_are_wrong() -> None:
    shift = {"q right": [], "pscore right": [], "both wrong": []}  # type: ignore[var-annotated]
    truth = 0.0
    for k in range(1000):
        rounds, pi_e, truth, q = enumerated(stream(ROOT, "6", k), 300)
        for case, model, factor in (("q right", q, 1.5), ("pscore right", q**2, 1.0), ("both wrong", q**2, 1.5)):
            x = reduce_policy(rounds, pi_e, model, (0.0, 1.0))
            x = Weighted(x.w / factor, x.r, x.q, x.v, x.reward_range, x.q_range)
            shift[case].append(bandit_terms(parse("dr"), x).per_unit().mean() - truth)
    z = {k: np.mean(v) / (np.std(v) / math.sqrt(len(v))) for k, v in shift.items()}
    assert abs(z["q right"]) <= 4
    assert abs(z["pscore right"]) <= 4
    assert abs(z["both wrong"]) > 8


def test_07_cross_fitting_saves_dr_from_a_model_that_memorises() -> None:
    """1-nearest-neighbour in sample makes all residuals 0; cross-fitted by user, DR stays unbiased and covers."""
    from sklearn.neighbors import KNeighborsRegressor

    errors, covered, in_sample = [], 0, 0
    model = KNeighborsRegressor(1)
    for k in range(60):
        rounds, pi_e, truth = softmax_log(stream(ROOT, "7", k), 1000, target=0.6)
        q, _ = cross_fit_q(rounds, 4, stream(ROOT, "7 folds", k), model=model)
        dr = off_policy.estimate(rounds, pi_e, estimators=["dr"], q_hat=q, force=True)["dr"]
        errors.append(dr.value - truth)  # type: ignore[operator]
        covered += dr.low <= truth <= dr.high  # type: ignore[operator]
        if k < 24:
            design = np.c_[rounds.context, np.eye(4)[rounds.action]]
            fitted = KNeighborsRegressor(1).fit(design, rounds.reward)
            seen = np.stack(
                [fitted.predict(np.c_[rounds.context, np.tile(np.eye(4)[a], (1000, 1))]) for a in range(4)], 1
            )
            bad = off_policy.estimate(rounds, pi_e, estimators=["dr"], q_hat=seen, force=True)["dr"]
            in_sample += bad.low <= truth <= bad.high  # type: ignore[operator]
    assert abs(np.mean(errors)) <= 4 * np.std(errors) / math.sqrt(60)
    assert covered >= 52
    assert in_sample <= 19


def test_08_bias_aware_limits_of_a_clipped_estimate_cover_where_plain_ones_never_do() -> None:
    aware = plain = 0
    for k in range(150):
        log = p1(stream(ROOT, "8", k), 1000, 0.05, 0.5, "logn")
        e = off_policy.estimate(log.rounds, log.pi_e, estimators=["ips(clip=10)"], force=True)["ips(clip=10)"]
        aware += e.low <= log.truth <= e.high  # type: ignore[operator]
        x = reduce_policy(log.rounds, log.pi_e, None, None)
        clipped = off_policy.estimate(
            off_policy.Rounds(
                np.zeros(len(x.r), int), x.r * np.minimum(x.w, 10), np.ones(len(x.r)), user=log.rounds.user
            ),
            np.ones((len(x.r), 1)),
            estimators=["ips"],
            force=True,
        )["ips"]
        plain += clipped.low <= log.truth <= clipped.high  # type: ignore[operator]
    assert aware >= 141
    assert plain < 75


@pytest.mark.parametrize(
    "name",
    [
        "dr(clip=5)",
        "switch_dr(lambda=5)",
        "dros(lambda=20)",
        "sgips(lambda=0.1)",
        "sgdr(lambda=0.1)",
        "tuned(dr, slope)",
    ],
)
def test_08_every_shrunk_estimator_has_limits_that_hold_its_bias(name: str) -> None:
    found = coverage(60, [name], name=f"8 {name}", users=300, f=0.05, p=0.5, family="logn", force=True)[name]
    assert found[0] == 60
    assert found[1] >= 56


def reason(estimate: Estimate) -> str:
    assert estimate.value is None
    assert estimate.withheld is not None
    return estimate.withheld


def test_16_a_log_that_has_not_seen_the_weights_is_withheld() -> None:
    log = p1(stream(ROOT, "16a"), 100, 0.01, 0.5, "logn")
    found = off_policy.estimate(log.rounds, log.pi_e, estimators=["ips", "snips", "dr"], q_hat=log.q_hat)
    assert all("W1" in reason(e) for e in found.values())


def test_16_two_clicks_are_withheld() -> None:
    log = p1(stream(ROOT, "16b"), 400, 0.3, 0.5, "det")
    reward = np.zeros(len(log.rounds))
    reward[np.flatnonzero(log.pi_e[np.arange(len(reward)), log.rounds.action] > 0)[:2]] = 1.0
    rounds = off_policy.Rounds(log.rounds.action, reward, log.rounds.pscore, user=log.rounds.user)
    found = off_policy.estimate(rounds, log.pi_e, estimators=["ips", "snips", "dr"], q_hat=log.q_hat)
    assert all("W2" in reason(e) for e in found.values())


def test_16_one_tiny_propensity_is_withheld() -> None:
    rounds, pi_e, _ = softmax_log(stream(ROOT, "16c"), 5000)
    assert rounds.pscore is not None
    pscore = rounds.pscore.copy()
    pscore[np.flatnonzero(rounds.reward == 1)[0]] = 1e-6
    log = off_policy.Rounds(rounds.action, rounds.reward, pscore, user=rounds.user, context=rounds.context)
    found = off_policy.estimate(log, pi_e, estimators=["ips", "snips", "dr", "sndr"])
    assert all("W1" in reason(e) for e in found.values())


def test_16_mass_on_actions_never_logged_is_withheld() -> None:
    rounds, pi_e, _ = softmax_log(stream(ROOT, "16d"), 5000, target=0.4)
    wider = np.c_[0.95 * pi_e, np.full(len(pi_e), 0.05)]
    log = off_policy.Rounds(rounds.action, rounds.reward, rounds.pscore, user=rounds.user, context=rounds.context)
    found = off_policy.estimate(log, wider, estimators=["ips", "snips", "dr", "dm"])
    assert all("W4" in reason(e) for e in found.values())
    assert rounds.pi_b is not None
    exact = off_policy.Rounds(rounds.action, rounds.reward, pi_b=np.c_[rounds.pi_b, np.zeros(5000)], user=rounds.user)
    assert "W4" in reason(off_policy.estimate(exact, wider, estimators=["snips"])["snips"])


def test_16_propensities_a_fifth_too_large_are_withheld() -> None:
    log = p1(stream(ROOT, "16e"), 1000, 0.3, 0.5, "det")
    wrong = off_policy.Rounds(log.rounds.action, log.rounds.reward, 1.2 * log.rounds.pscore, user=log.rounds.user)  # type: ignore[operator]
    found = off_policy.estimate(wrong, log.pi_e, estimators=["ips", "snips", "dr", "ips(clip=10)"], q_hat=log.q_hat)
    assert all("W5" in reason(e) for e in found.values())


@pytest.mark.parametrize(("users", "f", "p"), [(200, 1.0, 0.5), (200, 0.3, 0.5), (2000, 0.3, 0.05)])
def test_17_a_log_that_can_answer_is_not_withheld(users: int, f: float, p: float) -> None:
    found = coverage(100, ["ips", "snips", "dr"], name=f"17 {users} {f} {p}", users=users, f=f, p=p, family="det")
    assert all(published >= 99 for published, _ in found.values()), found


def test_18_right_propensities_are_not_accused() -> None:
    accused = 0
    for k in range(300):
        log = p1(stream(ROOT, "18", k), 1000, 0.3, 0.5, "logn" if k % 2 else "det")
        z = off_policy.estimate(log.rounds, log.pi_e, estimators=["snips"])["snips"].diagnostics["mean_weight_z"]
        accused += abs(z) > 4
    assert accused <= 1


@pytest.mark.slow
def test_19_estimated_propensities_are_nearly_unbiased_and_plain_ips_is_withheld() -> None:
    """|bias| < .02 V and cover >= .9 over 60 logs, five actions, ESS a third: the document's own tolerances."""
    errors, covered, values = [], 0, []
    for k in range(60):
        rounds, pi_e, truth = softmax_log(stream(ROOT, "19", k), 3000, actions=5, target=0.8)
        values.append(truth)
        dropped = off_policy.Rounds(rounds.action, rounds.reward, user=rounds.user, context=rounds.context)
        found = off_policy.estimate(dropped, pi_e, estimators=["snips", "ips", "ips(clip=10)"], force=True)
        assert "estimated propensities" in found["ips"].diagnostics["forced"]
        assert "estimated propensities" in found["ips(clip=10)"].diagnostics["forced"]
        snips = found["snips"]
        errors.append(snips.value - truth)  # type: ignore[operator]
        covered += snips.low <= truth <= snips.high  # type: ignore[operator]
    assert abs(np.mean(errors)) < 0.02 * np.mean(values)
    assert covered >= 54


def test_19_propensities_that_are_not_logged_are_estimated_and_said_so() -> None:
    rounds, pi_e, truth = softmax_log(stream(ROOT, "19 one"), 3000, actions=3, target=0.6)
    dropped = off_policy.Rounds(rounds.action, rounds.reward, user=rounds.user, context=rounds.context)
    found = off_policy.estimate(dropped, pi_e, estimators=["snips", "ips"])
    assert "causalml" in found["snips"].method
    assert abs(found["snips"].value - truth) < 0.06  # type: ignore[operator]
    assert "estimated propensities" in reason(found["ips"])
    assert found["snips"].diagnostics["sensitivity"]["1"][0] == pytest.approx(found["snips"].value)


def test_35_a_hidden_confounder_is_missed_by_the_interval_and_held_by_the_range_for_its_odds() -> None:
    """A hidden cause doubles the odds of action 1 and raises the reward: SNIPS on context alone is too high."""
    missed = held = alone = 0
    runs = 3
    for k in range(runs):
        rng = stream(ROOT, "35", k)
        n = 4000
        x, hidden = rng.normal(size=(n, 1)), rng.integers(0, 2, n)
        chance = 1 / (1 + np.exp(-0.3 * x[:, 0] - math.log(2) * (2 * hidden - 1)))
        action = (rng.random(n) < chance).astype(np.int64)
        reward = (rng.random(n) < 0.2 + 0.5 * hidden).astype(float)
        log = off_policy.Rounds(action, reward, context=x)
        e = off_policy.estimate(log, np.tile([0.0, 1.0], (n, 1)), estimators=["snips"], force=True)["snips"]
        ranges = e.diagnostics["sensitivity"]
        missed += not e.low <= 0.45 <= e.high  # type: ignore[operator]
        held += ranges["2"][0] <= 0.45 <= ranges["2"][1]
        alone += ranges["1"][0] <= 0.45 <= ranges["1"][1]
    assert (missed, held, alone) == (runs, runs, 0)
