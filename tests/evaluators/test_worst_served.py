"""The mean of the worst-served users: what it is, how far it is known, and gates on it."""

from __future__ import annotations

import numpy as np
import pytest

from evaluators.comparison import AgentValues
from evaluators.evidence import SimulatedEvidence
from evaluators.flights import Flights
from evaluators.gates import GateSettings, Term, comparisons_of, decide_gates, parse_rule
from evaluators.picks import CHOSE_TO_RATE
from simulator.errors import InputError


def flown(values: np.ndarray, *, metric: str = "reward", trains: bool = False) -> Flights:
    n_users = values.shape[2]
    table = {metric: {"mine": AgentValues(values, trains)}}
    return Flights(
        np.arange(n_users), (metric,), table,
        clicks={"mine": np.full(n_users, 4.0)}, shown={"mine": np.full(n_users, 40.0)},
    )  # fmt: skip


def test_it_is_the_mean_of_those_below_the_quantile() -> None:
    values = np.tile(np.arange(1.0, 101.0), 20)[None, None, :]
    assert flown(values).cvar("mine", "reward", 0.1).value == pytest.approx(np.arange(1, 11).mean())
    # Where little is good, the worst served are those with most.
    most = flown(values, metric="regret").cvar("mine", "regret", 0.25)
    assert most.value == pytest.approx(np.arange(76, 101).mean())


def test_its_interval_covers_as_often_as_it_claims() -> None:
    """Lognormal users, the worst quarter: E[x; x < q] / .25 in closed form; the mean's own interval covers it never."""
    from scipy.stats import norm

    truth = np.exp(0.5) * norm.cdf(norm.ppf(0.25) - 1) / 0.25
    rng = np.random.default_rng(5)
    found = [flown(rng.lognormal(size=(1, 1, 800))).cvar("mine", "reward", 0.25) for _ in range(300)]
    covered = [e.low <= truth <= e.high for e in found if e.low is not None and e.high is not None]
    assert len(covered) == 300
    assert 0.91 <= np.mean(covered) <= 0.98


def test_training_seeds_widen_it() -> None:
    rng = np.random.default_rng(6)
    users = rng.normal(10, 2, 400)
    seeds = users + rng.normal(0, 1.0, (3, 1))
    alike = flown(np.broadcast_to(users, (3, 1, 400)).copy(), trains=True).cvar("mine", "reward", 0.25)
    differ = flown(seeds[:, None, :], trains=True).cvar("mine", "reward", 0.25)
    assert np.diff([differ.low, differ.high])[0] > 2 * np.diff([alike.low, alike.high])[0]


def test_a_rule_on_it_is_read_and_a_share_that_is_none_is_named() -> None:
    (comparison,) = comparisons_of(parse_rule("cvar(reward, 0.1) >= 3"))
    assert comparison.term == Term("cvar", "reward", share=0.1)
    assert str(comparison) == "cvar(reward, 0.1) >= 3"
    for wrong in ("cvar(reward, 1.5) >= 3", "cvar(reward, gender) >= 3", "cvar(reward) >= 3"):
        with pytest.raises(InputError, match=r"write cvar\(METRIC, SHARE\)"):
            parse_rule(wrong)


def test_a_gate_on_it_is_decided_as_one_on_a_mean() -> None:
    """Composition metrics need no correction; of behaviour it must be corrected, and no self-selected log decides."""
    rng = np.random.default_rng(7)
    novelty = SimulatedEvidence(flown(rng.normal(5, 1, (1, 5, 400)), metric="novelty"))
    gate = GateSettings(name="tail", rule="cvar(novelty, 0.25) >= 3", agents=("mine",))
    (passed,) = decide_gates([gate], [], novelty)
    assert passed.verdict == "pass"
    reward = SimulatedEvidence(flown(rng.normal(5, 1, (1, 5, 400))), given=CHOSE_TO_RATE)
    (blocked,) = decide_gates([gate.model_copy(update={"rule": "cvar(reward, 0.25) >= 3"})], [], reward)
    assert blocked.verdict == "undecided"
    assert CHOSE_TO_RATE in blocked.reason
