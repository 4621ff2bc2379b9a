"""A rehearsal asks the fit for the last of the rows it knows: which rows, of whom, and what the model gains by it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from simulator.log import JUDGE, Catalogue, InteractionLog, split_users
from simulator.preference import PreferenceSettings, TextTower, fit_preference
from simulator.preference.problem import Problem, build_problem
from simulator.preference.rehearsal import Rehearsal, rehearsal_of

N_USERS, N_ITEMS, ROWS = 700, 80, 30
ROOT = np.random.SeedSequence(4)


def later_is_worse(fall: float) -> tuple[InteractionLog, np.ndarray]:
    """Items and users that differ, and rows whose logit falls by `fall` from a user's first row to the last."""
    rng = np.random.default_rng(8)
    user = np.repeat(np.arange(N_USERS), ROWS)
    item = np.concatenate([rng.choice(N_ITEMS, ROWS, replace=False) for _ in range(N_USERS)])
    time = np.tile(np.arange(ROWS, dtype=float), N_USERS)
    logit = rng.normal(0, 1, N_ITEMS)[item] + rng.normal(0, 0.5, N_USERS)[user] + fall * (0.5 - time / ROWS)
    p = 1 / (1 + np.exp(-logit))
    catalogue = Catalogue(
        tuple(f"i{k}" for k in range(N_ITEMS)), ("",) * N_ITEMS, np.zeros((N_ITEMS, 0), np.float32), (),
        tuple(f"u{k}" for k in range(N_USERS)), np.zeros((N_USERS, 0), np.float32), (),
    )  # fmt: skip
    liked = (rng.random(len(p)) < p).astype(np.float32)
    return InteractionLog(user, item, time, liked, catalogue, "made"), p


@pytest.fixture(scope="module")
def log() -> InteractionLog:
    return later_is_worse(1.0)[0]


def rehearsed(log: InteractionLog, *, resample: bool = False) -> tuple[Problem, Rehearsal]:
    drawn = np.random.default_rng(1) if resample else None
    problem = build_problem(log, split_users(log, ROOT), JUDGE, resample=drawn)
    found = rehearsal_of(problem, log, np.random.default_rng(2))
    assert found is not None
    return problem, found


def test_the_last_fifth_of_every_fitting_users_rows_is_held_back(log: InteractionLog) -> None:
    problem, found = rehearsed(log)
    held, left = problem.rows[found.held], problem.rows[~found.held]
    assert np.array_equal(found.problem.rows, left)
    assert np.unique(log.user[held], return_counts=True)[1].tolist() == [5] * len(problem.fitted_users)
    last_left = np.zeros(N_USERS)
    np.maximum.at(last_left, log.user[left], log.time[left])
    assert np.all(log.time[held] > last_left[log.user[held]])
    assert found.farther == 1.25
    met = np.bincount(log.item[left], minlength=N_ITEMS)
    assert np.array_equal(np.argsort(found.problem.popularity), np.argsort(np.log1p(met).astype(np.float32)))


def test_a_log_without_times_holds_a_fifth_back_at_random_for_its_order_means_nothing(log: InteractionLog) -> None:
    problem, found = rehearsed(replace(log, time=np.full(len(log), np.nan)))
    place = np.arange(len(problem.rows)) - np.repeat(problem.histories.start[:-1], np.diff(problem.histories.start))
    assert np.bincount(
        np.repeat(np.arange(len(problem.histories)), np.diff(problem.histories.start))[found.held]
    ).tolist() == [5] * len(problem.fitted_users)
    assert place[found.held].mean() == pytest.approx(11.5, abs=0.5)
    assert found.farther == 1


def test_a_user_whom_a_bootstrap_draws_twice_is_one_cluster_and_a_handful_of_users_rehearses_nothing(
    log: InteractionLog,
) -> None:
    problem, found = rehearsed(log, resample=True)
    assert len(np.unique(found.user)) == len(problem.fitted_users) < len(problem.histories)
    few = replace(log, user=log.user[: 70 * ROWS], item=log.item[: 70 * ROWS], time=log.time[: 70 * ROWS],
                  primary=log.primary[: 70 * ROWS],
                  catalogue=replace(log.catalogue, user_ids=log.catalogue.user_ids[:70],
                                    user_features=log.catalogue.user_features[:70]))  # fmt: skip
    problem = build_problem(few, split_users(few, ROOT), JUDGE)
    assert rehearsal_of(problem, few, np.random.default_rng(2)) is None


def test_a_row_that_a_bootstrap_draws_twice_is_never_fitted_and_asked_for(log: InteractionLog) -> None:
    problem, found = rehearsed(replace(log, time=np.full(len(log), np.nan)), resample=True)
    assert not np.intersect1d(problem.rows[found.held], found.problem.rows).size


def test_outcomes_that_a_model_made_are_not_asked_for(log: InteractionLog) -> None:
    problem, whole = rehearsed(log)
    made = np.random.default_rng(3).random(len(problem.rows)) < 0.5
    found = rehearsal_of(replace(problem, guessed=made), log, np.random.default_rng(2))
    assert found is not None
    assert np.array_equal(found.held, whole.held & ~made)
    assert np.array_equal(found.problem.rows, whole.problem.rows)
    assert np.array_equal(found.user, log.user[problem.rows[found.held]])


@pytest.mark.parametrize("fall", [0.0, 0.5])
def test_later_rows_that_are_liked_less_are_predicted_so_and_others_are_left_alone(fall: float) -> None:
    """Future rows lie half a log behind the fitted ones; without a rehearsal O/E is .91."""
    log, p = later_is_worse(fall)
    split = split_users(log, ROOT)
    tower = TextTower(np.zeros((N_ITEMS, 0), np.float32), "ids only")
    model = fit_preference(log, split, JUDGE, tower, PreferenceSettings(), ROOT, architecture="bias")
    rows = split.rows(log, split.users(JUDGE, tuning=False), late=True)
    assert p[rows].sum() / model.predict(log, split, rows).sum() == pytest.approx(1, abs=0.03)
    assert model.measures["rows_rehearsed"] == 5 * len(model.fitted_users)
