"""Losses and corrections: each minimises what it says, ranking losses are calibrated, weights undo self-selection."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from simulator.errors import InputError
from simulator.log import HELD_OUT, WORLD_A, Catalogue, InteractionLog, Split, split_users
from simulator.preference import PreferenceSettings, TextTower, fit_preference
from simulator.preference.calibration import calibrate, platt
from simulator.preference.debiasing import weigh
from simulator.preference.problem import build_problem

torch = pytest.importorskip("torch")

N_USERS, N_ITEMS = 300, 30
QUICK = PreferenceSettings(members=1, dims=(4,), epochs=15, patience=4, bias_penalty=0.5, vector_penalty=10)
IDS = TextTower(np.zeros((N_ITEMS, 0), np.float32), "ids only")


def chosen_log() -> tuple[InteractionLog, NDArray[np.float64]]:
    """People rate what they will like three times as often, and the propensity of each row is known; p [U, I]."""
    rng = np.random.default_rng(3)
    quality, mood = rng.normal(-0.5, 1, N_ITEMS), rng.normal(0, 0.7, N_USERS)
    p = 1 / (1 + np.exp(-(quality[None, :] + mood[:, None])))
    liked = rng.random(p.shape) < p
    propensity = np.where(liked, 0.45, 0.15)
    user, item = np.nonzero(rng.random(p.shape) < propensity)
    catalogue = Catalogue(
        tuple(f"i{k}" for k in range(N_ITEMS)), ("",) * N_ITEMS, np.zeros((N_ITEMS, 0), np.float32), (),
        tuple(f"u{k}" for k in range(N_USERS)), np.zeros((N_USERS, 0), np.float32), (),
    )  # fmt: skip
    log = InteractionLog(
        user, item, np.full(len(user), np.nan), liked[user, item].astype(np.float32), catalogue, "chosen",
        propensity=propensity[user, item],
    )  # fmt: skip
    return log, p


@pytest.fixture(scope="module")
def root() -> np.random.SeedSequence:
    return np.random.SeedSequence(5)


@pytest.fixture(scope="module")
def chosen() -> tuple[InteractionLog, NDArray[np.float64]]:
    return chosen_log()


@pytest.fixture(scope="module")
def split(chosen: tuple[InteractionLog, NDArray[np.float64]], root: np.random.SeedSequence) -> Split:
    return split_users(chosen[0], root)


def predicted(
    chosen: tuple[InteractionLog, NDArray[np.float64]], split: Split, root: np.random.SeedSequence, **changed: object
) -> NDArray[np.float64]:
    """[h, I] probability of every item for held-out users, folded in from their early rows."""
    log = chosen[0]
    model = fit_preference(log, split, WORLD_A, IDS, QUICK.model_copy(update=changed), root)
    users = split.users(HELD_OUT)
    states = model.user_states(split.histories(log, users), log.catalogue.user_features[users])
    logit = states.vector @ model.item_vectors.T + states.bias[:, None] + model.item_bias
    return np.asarray(1 / (1 + np.exp(-logit.astype(np.float64))))


@pytest.mark.parametrize("correction", ["ips", "doubly_robust"])
def test_inverse_propensities_undo_that_people_rate_what_they_like(
    chosen: tuple[InteractionLog, NDArray[np.float64]], split: Split, root: np.random.SeedSequence, correction: str
) -> None:
    """Over all pairs of held-out users the naive fit is a third too high; the truth is known, so is the loss."""
    truth = chosen[1][split.users(HELD_OUT)]
    naive = predicted(chosen, split, root)
    mended = predicted(chosen, split, root, debias=correction)

    def loss(p: NDArray[np.float64]) -> float:
        return float(-np.mean(truth * np.log(p) + (1 - truth) * np.log(1 - p)))

    assert naive.mean() / truth.mean() > 1.25
    assert abs(mended.mean() / truth.mean() - 1) < 0.1
    assert loss(mended) < loss(naive) - 0.02


@pytest.mark.parametrize("loss", ["pairwise", "sampled_softmax"])
def test_a_ranking_loss_ranks_and_is_calibrated_afterwards(
    chosen: tuple[InteractionLog, NDArray[np.float64]], split: Split, root: np.random.SeedSequence, loss: str
) -> None:
    log = chosen[0]
    model = fit_preference(log, split, WORLD_A, IDS, QUICK.model_copy(update={"loss": loss}), root)
    rows = split.rows(log, split.users(HELD_OUT), late=True)
    p, y = model.predict(log, split, rows), log.primary[rows]
    order = np.argsort(-p)
    assert y[order[: len(rows) // 4]].mean() > y[order[-len(rows) // 4 :]].mean() + 0.3
    assert y.sum() / p.sum() == pytest.approx(1, abs=0.12)


def test_scores_without_relation_to_the_outcome_are_not_called_probabilities(rng: np.random.Generator) -> None:
    user = np.repeat(np.arange(40), 5)
    outcome = rng.integers(0, 2, 200).astype(np.float32)
    with pytest.raises(InputError, match=r"^preference\.loss: 'pairwise' gives scores that cannot be calibrated"):
        platt(rng.normal(size=200), outcome, user, loss="pairwise")
    assert platt(3 * outcome + rng.normal(size=200), outcome, user, loss="pairwise").slope > 0.5


def test_a_row_of_weight_two_counts_as_two_rows(rng: np.random.Generator) -> None:
    logit, user = rng.normal(size=300), np.repeat(np.arange(60), 5)
    outcome = (rng.random(300) < 1 / (1 + np.exp(-logit))).astype(np.float32)
    twice = user % 2 == 0
    weighed = calibrate(logit, outcome, user, weight=np.where(twice, 2, 1).astype(np.float32))
    again = calibrate(*(np.concatenate([x, x[twice]]) for x in (logit, outcome, user)))
    assert (weighed.slope, weighed.intercept) == pytest.approx((again.slope, again.intercept), abs=1e-9)


def test_pairwise_loss_is_that_of_every_pair_of_a_user_by_hand() -> None:
    from simulator.preference._objectives import pairwise

    logit = torch.tensor([[1.0, 0.0, -1.0, 5.0]])
    outcome = torch.tensor([[1.0, 0.0, 0.0, 1.0]])
    target = torch.tensor([[1.0, 1.0, 1.0, 0.0]])  # the last row is not hidden, so it is no target
    total, count = pairwise(logit, outcome, target)
    by_hand = np.mean([np.log1p(np.exp(-1.0)), np.log1p(np.exp(-2.0))])
    assert float(total) == pytest.approx(by_hand, abs=1e-6)
    assert count == 1


@pytest.mark.parametrize("source", ["popularity", "fitted"])
def test_propensities_from_the_log_itself_say_which_items_are_met_often(
    root: np.random.SeedSequence, rng: np.random.Generator, source: str
) -> None:
    """Half of the items are met four times as often, whatever is liked: their rows must weigh about a quarter."""
    met = rng.random((200, N_ITEMS)) < np.where(np.arange(N_ITEMS) % 2 == 0, 0.4, 0.1)
    user, item = np.nonzero(met)
    catalogue = replace(
        chosen_log()[0].catalogue, user_ids=tuple(f"u{k}" for k in range(200)),
        user_features=np.zeros((200, 0), np.float32),
    )  # fmt: skip
    liked = rng.integers(0, 2, len(user)).astype(np.float32)
    log = InteractionLog(user, item, np.full(len(user), np.nan), liked, catalogue, "uneven")
    problem = build_problem(log, split_users(log, root), WORLD_A)
    settings = QUICK.model_copy(update={"debias": "ips", "propensities": source})
    weight = weigh(problem, log, settings, rng).weight
    assert weight is not None
    often = problem.histories.item % 2 == 0
    assert weight[~often].mean() / weight[often].mean() == pytest.approx(4, rel=0.3)
    assert weight.mean() == pytest.approx(1, abs=1e-5)


def test_logged_propensities_that_are_not_there_are_asked_for_in_one_line(
    chosen: tuple[InteractionLog, NDArray[np.float64]], split: Split, root: np.random.SeedSequence
) -> None:
    bare = replace(chosen[0], propensity=None)
    settings = QUICK.model_copy(update={"debias": "ips", "propensities": "logged"})
    with pytest.raises(InputError, match=r"^preference\.propensities: 'logged' needs a propensity a row"):
        fit_preference(bare, split, WORLD_A, IDS, settings, root)


def test_a_correction_of_a_ranking_loss_is_refused() -> None:
    with pytest.raises(ValueError, match="corrects cross_entropy alone"):
        PreferenceSettings(debias="ips", loss="pairwise")
