"""Few labels: no more are read than were bought, the unsure rows are bought, and what a model is sure of is made up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from evaluators.intervals import t_quantile
from simulator.log import HELD_OUT, WORLD_A, Catalogue, Histories, InteractionLog, split_users
from simulator.preference import Member, PreferenceSettings, TextTower, fit_preference
from simulator.preference.labels import with_few_labels
from simulator.preference.problem import Problem, build_problem

N_USERS, N_ITEMS, ROWS = 200, 30, 20
QUICK = PreferenceSettings(members=1, dims=(2,), epochs=6, patience=3, vector_penalty=20)
IDS = TextTower(np.zeros((N_ITEMS, 0), np.float32), "ids only")


def sure_and_unsure_log() -> tuple[InteractionLog, np.ndarray]:
    """Items 0 to 19 are liked or not almost always, items 20 to 29 by their users' halves; p of each row."""
    rng = np.random.default_rng(8)
    user = np.repeat(np.arange(N_USERS), ROWS)
    item = np.concatenate([rng.choice(N_ITEMS, ROWS, replace=False) for _ in range(N_USERS)])
    quality = np.where(
        np.arange(N_ITEMS) < 20, np.where(np.arange(N_ITEMS) % 2, 4.0, -4.0), rng.normal(0, 0.5, N_ITEMS)
    )
    p = 1 / (1 + np.exp(-quality[item]))
    catalogue = Catalogue(
        tuple(f"i{k}" for k in range(N_ITEMS)), ("",) * N_ITEMS, np.zeros((N_ITEMS, 0), np.float32), (),
        tuple(f"u{k}" for k in range(N_USERS)), np.zeros((N_USERS, 0), np.float32), (),
    )  # fmt: skip
    liked = (rng.random(len(user)) < p).astype(np.float32)
    return InteractionLog(user, item, np.tile(np.arange(ROWS, dtype=float), N_USERS), liked, catalogue, "made"), p


@pytest.fixture(scope="module")
def problem() -> Problem:
    log, _ = sure_and_unsure_log()
    return build_problem(log, split_users(log, np.random.SeedSequence(1)), WORLD_A)


def knows_the_items(few: Problem, number: int) -> Member:
    """Stands for a fit: the rate of each item among the labels."""
    history = few.histories
    met = np.bincount(history.item, minlength=N_ITEMS) + 2
    rate = (np.bincount(history.item, history.primary, N_ITEMS) + 1) / met
    return Member(
        np.zeros((N_ITEMS, 1), np.float32), np.log(rate / (1 - rate)).astype(np.float32), np.zeros(0, np.float32),
        np.array([1e6, 1], np.float32),
    )  # fmt: skip


def test_labels_go_to_rows_whose_outcome_would_tell_most(problem: Problem, rng: np.random.Generator) -> None:
    settings = QUICK.model_copy(update={"label_budget": 600})
    some, counts = with_few_labels(problem, settings, knows_the_items, rng)
    assert counts == {"labels_read": 600}
    assert len(some.histories.item) == 600
    assert (
        np.mean(some.histories.item >= 20) > 0.4
    )  # a third of all rows are of these items, and of the first quarter bought
    any_rows, _ = with_few_labels(problem, settings.model_copy(update={"label_choice": "random"}), knows_the_items, rng)
    assert np.mean(any_rows.histories.item >= 20) == pytest.approx(1 / 3, abs=0.08)


def test_pseudo_labels_are_the_models_where_it_is_sure_and_no_row_else(
    problem: Problem, rng: np.random.Generator
) -> None:
    """Outcomes that were not bought are turned over: nothing of them may come through."""
    settings = QUICK.model_copy(update={"label_budget": 500, "pseudo_labels": 0.9, "label_choice": "random"})
    state = rng.bit_generator.state
    some, counts = with_few_labels(problem, settings, knows_the_items, rng)
    assert counts["labels_made"] > 300
    assert len(some.histories.item) == 500 + counts["labels_made"]
    made = some.histories.item < 20
    assert some.guessed is not None
    assert some.guessed.sum() == counts["labels_made"]
    assert made[some.guessed].all()
    right = some.histories.primary[made] == some.histories.item[made] % 2
    assert right.mean() > 0.95
    rng.bit_generator.state = state
    bought = np.isin(problem.rows, with_few_labels(problem, replace_floor(settings), knows_the_items, rng)[0].rows)
    history = problem.histories
    lies = np.where(bought, history.primary, 1 - history.primary).astype(np.float32)
    turned = replace(problem, histories=Histories(history.start, history.item, lies))
    rng.bit_generator.state = state
    again, _ = with_few_labels(turned, settings, knows_the_items, rng)
    assert np.array_equal(again.histories.primary, some.histories.primary)


def replace_floor(settings: PreferenceSettings) -> PreferenceSettings:
    return settings.model_copy(update={"pseudo_labels": None})


def test_a_budget_is_a_setting_of_the_fit() -> None:
    pytest.importorskip("torch")
    log, _ = sure_and_unsure_log()
    root = np.random.SeedSequence(1)
    split = split_users(log, root)
    settings = QUICK.model_copy(update={"label_budget": 300, "pseudo_labels": 0.8})
    model = fit_preference(log, split, WORLD_A, IDS, settings, root)
    assert model.measures["labels_read"] == 300
    assert model.measures["labels_read_for_tuning"] == ROWS * len(split.users(WORLD_A, tuning=True)) > 0
    assert model.measures["rows_fitted"] == 300 + model.measures["labels_made"]


@pytest.mark.slow
def test_chosen_labels_are_no_worse_than_random_ones_by_more_than_a_fiftieth() -> None:
    """Eight seeds, each with its own split, labels and fits; the gain is paired by seed, against the truth, t interval.

    Which of the two is better is not resolved (docs/preference.md: gain .0025 [-.0091, .0141]). Labels bought for the
    rows nearest to probability 1/2 lose .02, lower limit -.03, and fail; less blunt faults of the choice pass.
    """
    pytest.importorskip("torch")
    log, p = sure_and_unsure_log()
    gains = []
    for seed in range(8):
        root = np.random.SeedSequence(seed)
        split = split_users(log, root)
        rows = split.rows(log, split.users(HELD_OUT), late=True)
        loss = {}
        for choice in ("uncertainty", "random"):
            settings = QUICK.model_copy(update={"label_budget": 150, "label_choice": choice, "epochs": 20})
            q = fit_preference(log, split, WORLD_A, IDS, settings, root).predict(log, split, rows)
            loss[choice] = -float(np.mean(p[rows] * np.log(q) + (1 - p[rows]) * np.log(1 - q)))
        gains.append(loss["random"] - loss["uncertainty"])
    found = np.array(gains)
    low = float(found.mean()) - t_quantile(0.95, len(found) - 1) * float(found.std(ddof=1)) / np.sqrt(len(found))
    assert low > -0.02, gains
