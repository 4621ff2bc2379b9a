"""Agents on the log's own rounds: what they see, what their weights are, and when a number may be had."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from agents.base import Observation
from agents.baselines import NoSettings, Random
from agents.slates import top_slates
from evaluators import logged_rounds
from evaluators.gates import Term
from evaluators.logged_rounds import LogRounds, OffPolicyEvidence, log_rounds_of, policy_on_log
from evaluators.picks import CHOSE_TO_RATE
from simulator.errors import LogError
from simulator.log import InteractionLog, split_users
from tests.simulator.small_world import small_log

ITEMS = 12
LIKED = np.linspace(0.1, 0.8, ITEMS)


class Softmax:
    """Prefers items of high number; says with what probability, or only shows."""

    def __init__(self, heat: float = 0.2) -> None:
        self.chance = np.exp(heat * np.arange(ITEMS))
        self.chance /= self.chance.sum()

    def act(self, observation: Observation, rng: np.random.Generator) -> NDArray[np.int64]:
        noise = rng.gumbel(size=(len(observation), ITEMS))
        return top_slates(np.log(self.chance) + noise, observation)

    def action_probabilities(self, observation: Observation) -> NDArray[np.float64]:
        return np.tile(self.chance, (len(observation), 1))


class OnlyShows:
    """The same without a word on its probabilities."""

    def __init__(self) -> None:
        self._agent = Softmax()

    def act(self, observation: Observation, rng: np.random.Generator) -> NDArray[np.int64]:
        return self._agent.act(observation, rng)


def shown_log(users: int = 500, rows: int = 30, *, seed: int = 0) -> InteractionLog:
    """Items drawn by a policy of known propensities, the same item more than once; a like depends on the item alone."""
    rng = np.random.default_rng(seed)
    pi_b = rng.dirichlet(np.full(ITEMS, 5.0))
    item = rng.choice(ITEMS, (users, rows), p=pi_b).ravel()
    base = small_log(rng, users=users, items=ITEMS + 13)
    catalogue = replace(
        base.catalogue,
        item_ids=base.catalogue.item_ids[:ITEMS],
        item_text=base.catalogue.item_text[:ITEMS],
        item_categories=base.catalogue.item_categories[:ITEMS],
        content=base.catalogue.content[:ITEMS],  # type: ignore[index]
    )
    liked = (rng.random(len(item)) < LIKED[item]).astype(np.float32)
    user = np.repeat(np.arange(users), rows)
    time = np.arange(len(user), dtype=np.float64)
    return InteractionLog(user, item, time, liked, catalogue, "shown", propensity=pi_b[item], self_selected=False)


def rounds_of(log: InteractionLog, root: np.random.SeedSequence, *, need_model: bool = True) -> LogRounds:
    split = split_users(log, root)
    return log_rounds_of(log, split, root, feature_names=["age"], history_length=6, slate_size=3, need_model=need_model)


def test_values_of_agents_hold_the_truth_where_propensities_were_logged(root: np.random.SeedSequence) -> None:
    asked = rounds_of(shown_log(), root)
    agents = {"softmax": Softmax(), "random": Softmax(0.0), "shows": OnlyShows()}
    policies = {name: policy_on_log(asked, [agent], root, name=name) for name, agent in agents.items()}
    found = OffPolicyEvidence(asked, policies)
    truth = {"softmax": Softmax().chance @ LIKED, "random": LIKED.mean(), "shows": Softmax().chance @ LIKED}
    for agent, value in truth.items():
        for estimator in ("ips", "snips", "dr"):
            estimate = found.estimate(agent, estimator)
            assert estimate.low < value < estimate.high, (agent, estimator)  # type: ignore[operator]
    gap = found(Term("off_policy_difference", "snips", vs="random"), "softmax", 0.95)
    assert gap.low < truth["softmax"] - truth["random"] < gap.high  # type: ignore[operator]
    one, two = (found.estimate(name, "snips") for name in ("softmax", "random"))
    assert gap.value == pytest.approx(one.value - two.value)  # type: ignore[operator]
    apart = np.hypot(one.high - one.low, two.high - two.low)  # type: ignore[operator]
    assert gap.high - gap.low < 0.9 * apart  # type: ignore[operator]  # the covariance is kept
    logged = found.estimate("softmax", "snips", vs="logged")
    assert logged.value == pytest.approx(one.value - asked.rounds.reward.mean())  # type: ignore[operator]
    assert found.estimate("softmax", "snips", vs="softmax").value == 0.0


def test_an_agent_that_only_shows_is_asked_by_draws_whose_noise_is_said(root: np.random.SeedSequence) -> None:
    """The spread of values over other draws is the error that stands in the diagnostics."""
    asked = rounds_of(shown_log(), root, need_model=False)
    found = [
        OffPolicyEvidence(asked, {"a": policy_on_log(asked, [OnlyShows()], root, name=f"draw {k}")}).estimate(
            "a", "ips"
        )
        for k in range(30)
    ]
    said = float(np.mean([e.diagnostics["monte_carlo_se"] for e in found]))
    assert np.std([e.value for e in found]) == pytest.approx(said, rel=0.45)  # type: ignore[arg-type]
    exact = OffPolicyEvidence(asked, {"a": policy_on_log(asked, [Softmax()], root, name="a")}).estimate("a", "ips")
    assert "monte_carlo_se" not in exact.diagnostics
    assert abs(np.mean([e.value for e in found]) - exact.value) < 4 * said / np.sqrt(30)  # type: ignore[arg-type, operator]
    assert found[0].high - found[0].low > exact.high - exact.low  # type: ignore[operator]  # the interval holds it


def test_parts_change_nothing(root: np.random.SeedSequence, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = rounds_of(shown_log(60), root)
    whole = policy_on_log(asked, [Softmax(), Softmax(0.4)], root, name="a").reduced.weighted
    monkeypatch.setattr(logged_rounds, "PART_CELLS", 40)
    parts = policy_on_log(asked, [Softmax(), Softmax(0.4)], root, name="a").reduced.weighted
    np.testing.assert_array_equal(whole.w, parts.w)
    np.testing.assert_allclose(whole.v, parts.v)  # type: ignore[arg-type]


def test_a_round_sees_what_came_before_it_and_nothing_else(root: np.random.SeedSequence) -> None:
    log = small_log(np.random.default_rng(4), users=200, items=60)
    split = split_users(log, root)
    asked = log_rounds_of(log, split, root, feature_names=["age"], history_length=6, slate_size=3, need_model=False)
    starts = log.row_starts()
    rows = split.rows(log, np.flatnonzero(split.role != 0), late=True)
    assert len(rows) == len(asked)
    for at in (0, 57, len(rows) - 1):
        seen = asked.observation(slice(at, at + 1))
        before = log.item[starts[log.user[rows[at]]] : rows[at]]
        kept = seen.history_items[0][seen.history_items[0] >= 0]
        assert kept.tolist() == before[-6:].tolist()
        assert seen.candidates is not None
        assert np.flatnonzero(~seen.candidates[0]).tolist() == sorted(before)
        assert seen.candidates[0, log.item[rows[at]]]
    timeless = replace(log, time=np.full(len(log), np.nan))
    other = log_rounds_of(
        timeless, split, root, feature_names=["age"], history_length=6, slate_size=3, need_model=False
    )
    early = split.histories(timeless, np.array([other.rounds.user[0]]))  # type: ignore[index]
    kept = other.history_items[0][other.history_items[0] >= 0]
    assert kept.tolist() == early.item[-6:].tolist()
    assert rounds_of(shown_log(60), root, need_model=False).observation(slice(0, 2)).candidates is None


def test_a_self_selected_log_is_grouped_estimated_and_said_so(root: np.random.SeedSequence) -> None:
    """A column of propensities there is no policy's: it is not what weights are made of."""
    log = small_log(np.random.default_rng(5), users=400, items=60)
    log = replace(log, propensity=np.full(len(log), 0.001), self_selected=True)
    asked = rounds_of(log, root)
    assert asked.rounds.pscore is None
    assert asked.propensities is not None
    assert 2 <= asked.n_actions <= 50
    assert asked.propensities.pscore.mean() > 1 / 60
    found = OffPolicyEvidence(asked, {"random": policy_on_log(asked, [Random(NoSettings())], root, name="random")})
    snips = found.estimate("random", "snips")
    assert CHOSE_TO_RATE in snips.method
    assert "groups of items" in snips.method
    assert "causalml" in snips.method
    assert "estimated propensities" in (found.estimate("random", "ips").withheld or "")
    assert set(snips.diagnostics["sensitivity"]) == {"1", "1.25", "1.5", "2"}


def test_reasons_stand_where_numbers_cannot(root: np.random.SeedSequence) -> None:
    log = replace(small_log(np.random.default_rng(6), users=60, items=60))
    bare = replace(log.catalogue, content=None, item_categories=np.zeros((60, 0), np.float32), category_names=())
    with pytest.raises(LogError, match="neither content vectors nor categories"):
        rounds_of(replace(log, catalogue=bare), root)
    none = OffPolicyEvidence("off_policy: no rounds", {})
    assert none.estimate("a", "dr").withheld == "off_policy: no rounds"
    asked = rounds_of(shown_log(60), root, need_model=False)
    found = OffPolicyEvidence(
        asked, {"a": policy_on_log(asked, [Softmax()], root, name="a"), "b": "off-policy: act raised"}
    )
    assert found.estimate("b", "ips").withheld == "off-policy: act raised"
    assert found.estimate("a", "ips", vs="b").withheld == "off-policy: act raised"
    assert "no c on the log" in (found.estimate("c", "ips").withheld or "")
    assert "evaluate.off_policy" in (found.estimate("a", "dr").withheld or "")
    assert "no paired difference" in (found.estimate("a", "cvar", vs="logged").withheld or "")
