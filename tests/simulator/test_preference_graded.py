"""A behaviour of degree: its distribution is right at every threshold, never rises, and its mean follows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.isotonic import isotonic_regression

from simulator.errors import InputError
from simulator.log import HELD_OUT, WORLD_A, Catalogue, InteractionLog, split_users
from simulator.preference import PreferenceSettings, TextTower
from simulator.preference.graded import falling, fit_graded

N_USERS, N_ITEMS, ROWS = 800, 30, 20
SETTINGS = PreferenceSettings(architecture="bias")


def watched() -> tuple[InteractionLog, np.ndarray]:
    """Exponential watch ratios whose mean depends on item and user; the mean of each row."""
    rng = np.random.default_rng(6)
    user = np.repeat(np.arange(N_USERS), ROWS)
    item = np.concatenate([rng.choice(N_ITEMS, ROWS, replace=False) for _ in range(N_USERS)])
    mean = np.exp(rng.normal(0, 0.6, N_ITEMS)[item] + rng.normal(0, 0.3, N_USERS)[user])
    ratio = rng.exponential(mean)
    catalogue = Catalogue(
        tuple(f"i{k}" for k in range(N_ITEMS)), ("",) * N_ITEMS, np.zeros((N_ITEMS, 0), np.float32), (),
        tuple(f"u{k}" for k in range(N_USERS)), np.zeros((N_USERS, 0), np.float32), (),
    )  # fmt: skip
    log = InteractionLog(
        user, item, np.full(len(user), np.nan), (ratio >= 1).astype(np.float32), catalogue, "watched",
        behaviours={"watch_ratio": ratio},
    )  # fmt: skip
    return log, mean


def test_each_threshold_is_calibrated_and_the_mean_is_that_of_the_truth() -> None:
    log, mean = watched()
    root = np.random.SeedSequence(2)
    split = split_users(log, root)
    tower = TextTower(np.zeros((N_ITEMS, 0), np.float32), "ids only")
    model = fit_graded(log, split, WORLD_A, tower, SETTINGS, root, "watch_ratio", [0.5, 1, 2])
    rows = split.rows(log, split.users(HELD_OUT), late=True)
    survival = model.survival(log, split, rows)
    assert np.all(np.diff(survival, axis=1) <= 1e-12)
    truth = np.exp(-model.thresholds / mean[rows, None])
    assert survival.mean(0) == pytest.approx(truth.mean(0), rel=0.1)
    assert all(np.corrcoef(survival[:, k], truth[:, k])[0, 1] > 0.8 for k in range(3))
    assert model.mean(survival).mean() == pytest.approx(mean[rows].mean(), rel=0.12)
    assert np.corrcoef(model.mean(survival), mean[rows])[0, 1] > 0.8
    # What is drawn reaches each threshold as often as is predicted, and lies within an interval as fitted rows do.
    u = np.random.default_rng(3).random((200, len(rows)))
    drawn = np.stack([model.draw(survival, one) for one in u])
    reached = (drawn[..., None] >= model.thresholds).mean(0)
    assert np.abs(reached - survival).max() < 0.15
    assert reached.mean(0) == pytest.approx(survival.mean(0), abs=0.005)
    middle = (drawn >= 1) & (drawn < 2)
    fitted = log.behaviours["watch_ratio"][split.rows(log, split.users(WORLD_A, tuning=False), late=False)]
    assert drawn[middle].mean() == pytest.approx(fitted[(fitted >= 1) & (fitted < 2)].mean(), abs=0.02)
    assert np.all(np.diff([model.draw(survival, np.full(len(rows), q)) for q in (0.05, 0.3, 0.6, 0.95)], axis=0) >= 0)


def test_falling_is_the_isotonic_projection_of_each_row(rng: np.random.Generator) -> None:
    p = rng.random((50, 5))
    assert falling(p) == pytest.approx(np.stack([isotonic_regression(row, increasing=False) for row in p]), abs=1e-12)


def test_what_cannot_be_graded_is_one_line() -> None:
    log, _ = watched()
    root = np.random.SeedSequence(2)
    split = split_users(log, root)
    tower = TextTower(np.zeros((N_ITEMS, 0), np.float32), "ids only")
    with pytest.raises(InputError, match=r"^thresholds: \[1, 1\] do not rise"):
        fit_graded(log, split, WORLD_A, tower, SETTINGS, root, "watch_ratio", [1, 1])
    with pytest.raises(InputError, match=r"^data\.behaviours: 'dwell' is not a column"):
        fit_graded(replace(log, behaviours={}), split, WORLD_A, tower, SETTINGS, root, "dwell", [1])
