"""Each named test world: who handles its difficulty wins or covers the truth, who ignores it does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import spearmanr

from agents.base import Observation
from agents.baselines import NoSettings, Random
from evaluators.logged_rounds import OffPolicyEvidence, log_rounds_of, policy_on_log
from evaluators.metrics import Reference, user_metric
from evaluators.rollout import fly, fly_visits
from simulator.behaviour import SimulatorSettings
from simulator.behaviour.examination import LoggedSlates, fit_examination
from simulator.datasets import load_dataset
from simulator.datasets.settings import DataSettings
from simulator.errors import LogError
from simulator.known_worlds import (
    CATEGORIES,
    DATA_DEFAULTS,
    HISTORY,
    ITEMS,
    KNOWN_WORLDS,
    SLATE,
    KnownWorld,
    known_tables,
    known_world,
)
from simulator.log import JUDGE, split_users
from simulator.world import World
from tests.simulator.small_world import TruePreference

Floats = NDArray[np.float64]
CATEGORY = np.arange(ITEMS) % CATEGORIES
REFERENCE = Reference(np.ones(ITEMS, np.int64), np.ones(ITEMS, bool))


class Scoring:
    """Shows the candidates of highest score."""

    def __init__(self, score: Callable[[Observation], NDArray[np.floating]]) -> None:
        self.score = score

    def act(self, observation: Observation, rng: np.random.Generator) -> NDArray[np.int64]:
        score = np.broadcast_to(self.score(observation), (len(observation), ITEMS))
        assert observation.candidates is not None
        order = np.argsort(np.where(observation.candidates, -score, np.inf), axis=1, kind="stable")
        return order[:, : observation.slate_size]


def gain(
    known: KnownWorld, one: Scoring | KnowsAll, other: Scoring | KnowsAll, *, sessions: int = 1
) -> tuple[float, float]:
    """Paired difference of the reward a session, and its standard error over users."""
    both = []
    for agent in (one, other):
        where = {"name": "a", "world_number": 1, "seed": 5, "training_seed": 0}
        flown = fly_visits(agent, known.world, sessions=sessions, **where) if sessions > 1 else fly(
            agent, known.world, **where
        )  # fmt: skip
        both.append(user_metric("reward", flown, REFERENCE))
    difference = both[0] - both[1]
    return float(difference.mean()), float(difference.std(ddof=1) / np.sqrt(len(difference)))


def category_rates(observation: Observation, part: slice, prior: float = 2.0) -> Floats:
    """[n, C] share of clicks among the interactions in a part of the history, by category."""
    items, clicks = observation.history_items[:, part], observation.history_feedback[:, part]
    of = CATEGORY[np.maximum(items, 0)]
    own = (of[..., None] == np.arange(CATEGORIES)) & (items >= 0)[..., None]
    return (own * clicks[..., None]).sum(axis=1) / (own.sum(axis=1) + prior)


def profile(observation: Observation) -> Floats:
    """[n, I] taste as the log tells it: blind to what the session has brought."""
    session = SLATE * int(observation.step[0])
    return category_rates(observation, slice(0, HISTORY - session))[:, CATEGORY]


def test_position_bias_is_undone_by_the_fitted_examination_and_fools_the_click_rate() -> None:
    known = known_world("position_bias")
    rows = known.rows
    shown = LoggedSlates.of_rows(rows.item, rows.position, rows.click.astype(float), rows.user, rows.impression)
    fit = fit_examination(shown, "position", n_items=ITEMS)
    z = [(fit.value[f"place_{k}"] - 0.6**k) / fit.se[f"place_{k}"] for k in range(1, 6)]
    assert np.mean(np.abs(z) < 2) >= 0.8
    assert max(np.abs(z)) < 3.5
    rate = np.bincount(rows.item, rows.click, ITEMS) / np.bincount(rows.item, minlength=ITEMS)
    truth = known.world.item_bias
    assert spearmanr(fit.attraction, truth).statistic > spearmanr(rate, truth).statistic + 0.2
    difference, error = gain(known, Scoring(lambda _: fit.attraction), Scoring(lambda _: rate))
    assert difference > 3 * error


def test_boredom_rewards_variety_and_punishes_the_favourite() -> None:
    known = known_world("boredom")

    def varied(observation: Observation) -> Floats:
        """The same, less what was clicked in the last three slates."""
        session = min(3, int(observation.step[0])) * SLATE
        recent = category_rates(observation, slice(HISTORY - session, None), prior=1.0)
        return profile(observation) - 0.8 * recent[:, CATEGORY]

    difference, error = gain(known, Scoring(varied), Scoring(profile))
    assert difference > 3 * error


class KnowsAll:
    """Shows what will most likely be clicked now, less a price for repeating the categories shown lately."""

    privileged = True

    def __init__(self, price: float) -> None:
        self.price = price

    def act(self, observation: Observation, rng: np.random.Generator) -> NDArray[np.int64]:
        assert observation.appeal is not None
        n, steps = len(observation), int(observation.step[0])
        chance = np.where(observation.candidates, 1 / (1 + np.exp(-observation.appeal.astype(float))), -9)
        recent = np.zeros((n, CATEGORIES))
        for back in range(min(3, steps)):
            shown = observation.history_items[:, HISTORY - (back + 1) * SLATE : HISTORY - back * SLATE]
            recent += 0.8**back * (CATEGORY[shown][..., None] == np.arange(CATEGORIES)).mean(axis=1)
        slates = np.zeros((n, SLATE), np.int64)
        for place in range(SLATE):
            best = (chance - self.price * recent[:, CATEGORY]).argmax(axis=1)
            slates[:, place] = best
            chance[np.arange(n), best] = -9
            recent[np.arange(n), CATEGORY[best]] += 0.5 / SLATE
        return slates


def test_tedium_rewards_restraint_and_boredom_does_not() -> None:
    """Who knows every chance of a click and is greedy: best for boredom, which passes, and not where users leave."""
    difference, error = gain(known_world("tedium"), KnowsAll(0.3), KnowsAll(0.0))
    assert difference > 2 + 3 * error
    for price in (0.1, 0.3, 1.0):
        difference, error = gain(known_world("boredom"), KnowsAll(price), KnowsAll(0.0))
        assert difference < 3 * error


def test_selection_bias_is_weighed_out_and_misleads_the_mean() -> None:
    known = known_world("selection_bias")
    rows, n_users = known.rows, len(known.world.starts)
    truth = float(np.mean(1 / (1 + np.exp(-known.appeal()))))
    naive = np.bincount(rows.user, rows.click, n_users), np.bincount(rows.user, minlength=n_users)
    weighed = np.bincount(rows.user, rows.click / rows.propensity, n_users) / ITEMS
    se = weighed.std(ddof=1) / np.sqrt(n_users)
    assert abs(weighed.mean() - truth) < 2.5 * se
    rate = naive[0].sum() / naive[1].sum()
    residual = (naive[0] - rate * naive[1]) / naive[1].mean()
    assert rate - truth > 10 * residual.std(ddof=1) / np.sqrt(n_users)
    # Items: what users find by themselves is worse, and its ratings are better.
    shown = np.bincount(rows.item, minlength=ITEMS)
    mean = np.bincount(rows.item, rows.click, ITEMS) / shown
    weight = np.bincount(rows.item, 1 / rows.propensity, ITEMS)
    right = np.bincount(rows.item, rows.click / rows.propensity, ITEMS) / weight
    quality = known.world.item_bias
    assert spearmanr(right, quality).statistic > 0.6
    assert spearmanr(mean, quality).statistic < 0
    difference, error = gain(known, Scoring(lambda _: right), Scoring(lambda _: mean))
    assert difference > 3 * error


def test_drift_is_followed_by_what_was_clicked_lately_and_missed_by_the_old_profile() -> None:
    known = known_world("drift")

    def lately(observation: Observation) -> Floats:
        return category_rates(observation, slice(HISTORY - 12, None))[:, CATEGORY]

    difference, error = gain(known, Scoring(lately), Scoring(profile))
    assert difference > 3 * error


def test_cold_start_is_overcome_by_optimism_and_not_by_popularity() -> None:
    known = known_world("cold_start")
    rows = known.rows
    clicks, shown = np.bincount(rows.item, rows.click, ITEMS), np.bincount(rows.item, minlength=ITEMS)
    assert (shown == 0).sum() == ITEMS // 4
    optimistic = (clicks + 1) / (shown + 1) + np.sqrt(2 / (shown + 1))
    difference, error = gain(known, Scoring(lambda _: optimistic), Scoring(lambda _: clicks))
    assert difference > 3 * error


def test_a_feedback_loop_is_undone_by_its_own_history_and_deceives_the_counts() -> None:
    """The lift of each session follows from the clicks before it, which the log has: an offset of each row's logit."""
    known = known_world("feedback_loop")
    rows, world = known.rows, known.world
    number = rows.session // len(world.starts)
    counts, offset = np.zeros(ITEMS), np.zeros(len(rows.item))
    for session in range(number.max() + 1):
        here = number == session
        lift = world.popularity_bias(counts) - world.popularity_bias(np.zeros(ITEMS))
        offset[here] = lift[rows.item[here]]
        counts += np.bincount(rows.item[here], rows.click[here], ITEMS)
    quality = np.full(ITEMS, -1.0)
    for _ in range(30):  # Newton, each item by itself, with half a click and half a miss so that none is infinite
        p = 1 / (1 + np.exp(-(quality[rows.item] + offset)))
        own = 1 / (1 + np.exp(-quality))
        slope = np.bincount(rows.item, rows.click - p, ITEMS) + 0.5 - own
        quality += np.clip(slope / (np.bincount(rows.item, p * (1 - p), ITEMS) + own * (1 - own)), -1, 1)
    truth = world.item_bias
    assert spearmanr(quality, truth).statistic > spearmanr(counts, truth).statistic + 0.2
    difference, error = gain(known, Scoring(lambda _: quality), Scoring(lambda _: counts), sessions=3)
    assert difference > 3 * error


@pytest.mark.parametrize("name", KNOWN_WORLDS)
def test_a_known_world_is_the_same_for_everybody_and_its_log_can_be_read(name: str) -> None:
    one, two = known_world(name), known_world(name)
    assert one.world.digest == two.world.digest
    assert np.array_equal(one.rows.click, two.rows.click)
    tables = known_tables(name)
    assert len(tables.log) == len(one.rows.user)
    assert ((one.rows.propensity > 0) & (one.rows.propensity <= 1)).all()
    # The weights 1 / propensity of a place add up to the candidates there were, if the propensities are true.
    for place in range(SLATE if name not in ("selection_bias", "cold_start") else 0):
        here = one.rows.position == place
        seen_before = SLATE * (one.rows.time[here] % 864_000 // 60)
        above = 0 if name == "position_bias" else place
        weight = 1 / one.rows.propensity[here] / (ITEMS - seen_before - above)
        assert abs(weight.mean() - 1) <= 4 * weight.std() / np.sqrt(here.sum()) + 1e-9


def test_the_true_world_of_a_run_has_the_users_and_items_that_were_read() -> None:
    """A run that reads a part of the log numbers them anew. Sabotage: items, or users, by the world's own numbers."""
    known = known_world("selection_bias")
    part = {"source": "world:selection_bias", **DATA_DEFAULTS, "max_users": 150, "max_items": 90}
    log = load_dataset(DataSettings.model_validate(part), Path(), seed=3)
    n_items = log.catalogue.n_items
    split = split_users(log, np.random.SeedSequence(3))
    settings = SimulatorSettings(slate_size=4, horizon=5, history_length=7)
    model = TruePreference(np.ones((n_items, 2), np.float32), np.zeros(n_items, np.float32))
    fitted = World.build(model, log, split, split.users(JUDGE), settings, name="B1")
    true = known.beside(fitted, log.catalogue)
    user, item = (np.array([int(name[1:]) for name in ids]) for ids in (log.catalogue.user_ids, log.catalogue.item_ids))
    assert n_items == 90 < item.max()
    assert len(user) == 150 < user.max()
    appeal = true.starts.vector.astype(float) @ true.item_vectors.astype(float).T + true.item_bias
    np.testing.assert_allclose(appeal, known.appeal()[user[split.users(JUDGE)]][:, item], atol=1e-6)
    assert np.array_equal(true.item_categories.argmax(axis=1), CATEGORY[item])
    assert (true.slate_size, true.horizon, true.history_length) == (4, 5, 7)
    for name in ("user", "history_items", "history_feedback", "user_features"):
        assert np.array_equal(getattr(true.starts, name), getattr(fitted.starts, name))
    assert np.array_equal(true.barred.item, fitted.barred.item)
    assert true.value("leave", "base_rate") == known.world.value("leave", "base_rate")


@pytest.mark.parametrize("name", ["boredom", "drift", "tedium"])
def test_random_is_worth_what_the_log_of_a_random_policy_earned(name: str) -> None:
    """Each round's candidates leave out what stood above, and so does the chance that was logged with it."""
    root = np.random.SeedSequence(3)
    log = load_dataset(DataSettings.model_validate({"source": f"world:{name}", **DATA_DEFAULTS}), Path(), seed=3)
    asked = log_rounds_of(
        log, split_users(log, root), root, feature_names=(), history_length=20, slate_size=SLATE, need_model=False
    )
    found = OffPolicyEvidence(asked, {"random": policy_on_log(asked, [Random(NoSettings())], root, name="random")})
    for estimator in ("ips", "snips"):
        estimate = found.estimate("random", estimator)
        assert estimate.withheld is None
        assert estimate.value == pytest.approx(asked.rounds.reward.mean())


def test_a_world_that_is_not_known_is_named_with_its_nearest() -> None:
    with pytest.raises(LogError, match=r"'world:bordom' is not a known world; did you mean 'boredom'\?"):
        known_world("bordom")
