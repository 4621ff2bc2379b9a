"""Numbered known-truth tests 12 to 15: a chain and a small decision process with enumerated values; distributions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from evaluators import off_policy
from evaluators.off_policy.distribution import value_and_interval
from evaluators.off_policy.names import parse
from evaluators.off_policy.state_models import fitted_q, marginal_ratios
from evaluators.off_policy.terms import Units
from evaluators.off_policy.trajectory import Stepped, reduce_steps, trajectory_terms
from simulator.streams import stream

Floats = NDArray[np.float64]
ROOT = np.random.SeedSequence(21)


@pytest.mark.parametrize(
    "name", ["dm", "dr", "sndr", "sm_dr", "sm_sndr", "sam_dr", "sam_sndr", "drl", "sm_dr(n_step_pdis=1)"]
)
def test_12_a_deterministic_chain_has_its_value_under_every_estimator_with_a_model(name: str) -> None:
    """V shifted one step gives 12.9059, V(s_1) as a start 12.5432, no discount 15."""
    steps, gamma, value = 8, 0.95, 13.10953125
    rewards = np.array([1.0, 2.0, 1.0, 3.0, 2.0, 1.0, 2.0, 3.0])
    rewards *= value / float(rewards @ gamma ** np.arange(steps))
    v = np.array([float(rewards[t:] @ gamma ** np.arange(steps - t)) for t in range(steps)])
    tile = np.ones((5, 1))
    x = Stepped(
        np.ones((5, steps)),
        rewards * tile,
        gamma,
        v * tile,
        v * tile,
        v[0] * tile[:, 0],
        np.ones((5, steps)),
        np.ones((5, steps)),
    )
    assert trajectory_terms(parse(name, "trajectory"), x).per_unit().mean() == pytest.approx(value, abs=1e-9)


STATES, ACTIONS, STEPS, GAMMA = 4, 3, 6, 0.9
_DRAW = np.random.default_rng(11)
MOVE = _DRAW.dirichlet(np.full(STATES, 0.7), (STATES, ACTIONS))  # [S, A, S]
PAY = _DRAW.uniform(0, 1, (STATES, ACTIONS))
START = np.array([0.4, 0.3, 0.2, 0.1])
PI_B = _DRAW.dirichlet(np.full(ACTIONS, 3.0), STATES)
PI_E = PI_B * np.exp(2 * PAY)
PI_E /= PI_E.sum(axis=1, keepdims=True)  # prefers what pays, so its value is well above the logged one


def exact() -> tuple[float, Floats, Floats]:
    """Value of pi_e, Q [T, S, A], state marginal ratios [T, S]."""
    v = np.zeros(STATES)
    q = np.empty((STEPS, STATES, ACTIONS))
    for t in range(STEPS - 1, -1, -1):
        q[t] = PAY + GAMMA * MOVE @ v
        v = (PI_E * q[t]).sum(axis=1)
    ratio = np.empty((STEPS, STATES))
    e = b = START
    for t in range(STEPS):
        ratio[t] = e / b
        e, b = (np.einsum("s,sa,sat->t", d, pi, MOVE) for d, pi in ((e, PI_E), (b, PI_B)))
    return float(START @ v), q, ratio


def draw(rng: np.random.Generator, n: int) -> tuple[Floats, NDArray[np.int64], Floats]:
    """States, actions, rewards [n, T] under pi_b; rewards are Bernoulli(PAY)."""
    state = np.empty((n, STEPS), dtype=np.int64)
    action = np.empty((n, STEPS), dtype=np.int64)
    now = (START.cumsum() > rng.random((n, 1))).argmax(axis=1)
    for t in range(STEPS):
        state[:, t] = now
        action[:, t] = (PI_B[now].cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
        now = (MOVE[now, action[:, t]].cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    reward = (rng.random((n, STEPS)) < PAY[state, action]).astype(float)
    return state, action, reward


def test_13_estimators_average_to_the_enumerated_value_and_variance_falls_with_the_weights() -> None:
    """|z| <= 4 over 2,000 logs; weights w_{t-1} for w_t are off by far more."""
    truth, q, ratio = exact()
    values: dict[str, list[float]] = {
        k: [] for k in ("tis", "pdis", "dr", "sam_is", "sm_is", "sam_dr", "drl", "late weights")
    }
    for k in range(2000):
        state, action, reward = draw(stream(ROOT, "13", k), 50)
        rho = PI_E[state, action] / PI_B[state, action]
        t = np.arange(STEPS)
        marginal = ratio[t, state]
        wrong = 0.8 * q  # a model that is not right: dr must not need it
        v = (PI_E[state] * wrong[t, state]).sum(axis=2)
        x = Stepped(rho, reward, GAMMA, wrong[t, state, action], v, v[:, 0], marginal, marginal * rho)
        for name in values:
            if name != "late weights":
                values[name].append(float(trajectory_terms(parse(name, "trajectory"), x).per_unit().mean()))
        late = np.concatenate([np.ones((50, 1)), np.cumprod(rho, axis=1)[:, :-1]], axis=1)
        values["late weights"].append(float(((x.discount * late * reward).sum(axis=1)).mean()))
    z = {k: (np.mean(v) - truth) / (np.std(v) / math.sqrt(len(v))) for k, v in values.items()}
    assert abs(z.pop("late weights")) > 10
    assert all(abs(value) <= 4 for value in z.values()), z
    assert np.var(values["sam_is"]) < np.var(values["pdis"]) < np.var(values["tis"])


def log_of(n: int, name: str) -> off_policy.Trajectories:
    state, action, reward = draw(stream(ROOT, name), n)
    return off_policy.Trajectories(action, reward, PI_B[state, action], PI_E[state], state=state)


def test_14_tabular_fitted_q_evaluation_finds_the_value() -> None:
    """Mean of 8 logs of 20,000 within 4 of its own standard errors; a target under pi_b gives the logged value."""
    truth, q, _ = exact()
    found, logged = [], []
    for k in range(8):
        log = log_of(20000, f"14 {k}")
        fitted = fitted_q(log, GAMMA, stream(ROOT, "14 folds", k))
        assert abs(fitted.bellman_residual) <= 4 * fitted.bellman_error
        found.append(
            trajectory_terms(parse("dm", "trajectory"), reduce_steps(log, GAMMA, fitted.q_hat)).per_unit().mean()
        )
        logged.append(float((log.reward @ GAMMA ** np.arange(STEPS)).mean()))
        assert np.abs(fitted.q_hat[:, 0] - q[0][log.state[:, 0]]).max() < 0.15  # type: ignore[index]
    error = np.std(found, ddof=1) / math.sqrt(8)
    assert abs(np.mean(found) - truth) <= 4 * error
    assert abs(np.mean(logged) - truth) > 20 * error


def test_14_marginal_ratios_by_counts_approach_the_exact_ones() -> None:
    _, _, ratio = exact()
    log = log_of(20000, "14 marginal")
    assert log.state is not None
    rho = PI_E[log.state, log.action] / PI_B[log.state, log.action]
    state, state_action, _ = marginal_ratios(log, rho, stream(ROOT, "14 marginal folds"))
    assert np.abs(state - ratio[np.arange(STEPS), log.state]).max() < 0.15
    np.testing.assert_allclose(state_action, state * rho)


def test_14_a_log_with_states_alone_is_estimated_whole() -> None:
    """60 logs of 500: each interval covers at least .87 (a right one fails so once in 500).

    That of `sam_is` on ratios from the same log does not (.70): it is withheld.
    """
    truth, _, _ = exact()
    names = ("pdis", "dr", "sam_dr", "drl")
    covered = dict.fromkeys(names, 0)
    runs = 60
    for k in range(runs):
        found = off_policy.estimate(
            log_of(500, f"14 whole {k}"), estimators=["dm", *names, "sam_is"], gamma=GAMMA, force=True, seed=k
        )
        for name in names:
            covered[name] += found[name].low <= truth <= found[name].high  # type: ignore[operator]
    assert all(count >= 0.87 * runs for count in covered.values()), covered
    assert "fitted-Q" in found["dm"].diagnostics["q_hat"]
    assert found["dm"].low is None
    assert "marginal ratios: estimated" in found["sam_is"].diagnostics["forced"]


def tail_of(f: float) -> tuple[float, dict[str, float]]:
    """Spread of the weight's logarithm, and true median, 10 % quantile and CVaR under the policy."""
    s = math.sqrt(math.log(1 / f))
    spread, centre, z10 = math.sqrt(1 + 0.25), 0.5 * s, -1.2815515655446004
    shift = float(0.5 * (1 + math.erf((z10 - spread) / math.sqrt(2))))
    return s, {
        "quantile(q=0.5)": math.exp(centre),
        "quantile(q=0.1)": math.exp(centre + spread * z10),
        "cvar(alpha=0.1)": math.exp(centre + spread**2 / 2) * shift / 0.1,
    }


# Table D's own figures are .92 to .96 (+- .015): a band that ends at .92 would fail right code every other time.
@pytest.mark.parametrize("f", [1.0, 0.3])
@pytest.mark.parametrize(("runs", "least"), [(12, 0.75), pytest.param(300, 0.9, marks=pytest.mark.slow)])
def test_15_median_quantile_and_cvar_are_covered(f: float, runs: int, least: float) -> None:
    """Lognormal reward whose log mean moves with the weight's normal: under pi_e it is shifted by a known amount."""
    s, truth = tail_of(f)
    hit = dict.fromkeys(truth, 0)
    for k in range(runs):
        rng = stream(ROOT, "15", str(f), k)
        n = 1500
        x = rng.normal(size=n)
        reward = np.exp(0.5 * x + rng.normal(size=n))
        w = np.exp(s * x - s * s / 2)
        pscore = np.full(n, 0.5 / w.max())
        action = rng.integers(0, 2, n)
        pi_e = np.empty((n, 2))
        pi_e[np.arange(n), action], pi_e[np.arange(n), 1 - action] = w * pscore, 1 - w * pscore
        rounds = off_policy.Rounds(action, reward, pscore, user=np.arange(n) // 3)
        found = off_policy.estimate(rounds, pi_e, estimators=truth, force=True, seed=k)
        for name, value in truth.items():
            hit[name] += found[name].low <= value <= found[name].high  # type: ignore[operator]
    assert runs < 100 or all(count <= 0.99 * runs for count in hit.values()), hit
    assert all(count >= least * runs for count in hit.values()), hit


def test_15_without_its_weights_the_distribution_is_that_of_the_log() -> None:
    """The median of the log lies far outside the interval of the policy's."""
    s, truth = tail_of(0.3)
    rng = stream(ROOT, "15 unweighted")
    x = rng.normal(size=3000)
    reward, w = np.exp(0.5 * x + rng.normal(size=3000)), np.exp(s * x - s * s / 2)
    units = Units.of(None, 3000, 3000)
    value, (low, high), _ = value_and_interval("quantile", 0.5, reward, w, units, 0.95, rng)
    assert low <= truth["quantile(q=0.5)"] <= high
    assert not low <= np.median(reward) <= high
    assert value != np.median(reward)
