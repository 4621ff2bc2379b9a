"""Rows missing not at random: how likely each was to be in the log, and the weights that undo it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from simulator.errors import InputError
from simulator.log import InteractionLog
from simulator.preference.problem import Problem
from simulator.preference.settings import PreferenceSettings

UNSEEN_PER_ROW = 4
"""Pairs that are not in the log, drawn for each that is, to fit the exposure model on."""
STRENGTH = 1.0
"""Inverse ridge of the exposure model, on standardised features."""


def weigh(problem: Problem, log: InteractionLog, settings: PreferenceSettings, rng: np.random.Generator) -> Problem:
    """The problem with rows weighed by 1 / propensity, so that they stand for all pairs of a user and an item.

    Weights are cut at a multiple of their mean and scaled to a mean of 1 (self-normalised): what they change is whom
    the rows speak for, not how much they say against the penalty.

    Args:
        problem: rows to fit and to tune on.
        log: the log that they are rows of.
        settings: `debias`, `propensities` and `largest_weight`.
        rng: draws pairs that are not in the log, for a fitted exposure model.

    Raises:
        InputError: logged propensities are asked for and the log has none.
    """
    if settings.debias == "none":
        return problem
    source = settings.propensities or ("logged" if log.propensity is not None else "fitted")
    if source == "logged":
        if log.propensity is None:
            raise InputError(
                f"preference.propensities: 'logged' needs a propensity a row, which '{log.source}' lacks; map "
                "data.columns.propensity, or use fitted or popularity"
            )
        fitted, target = log.propensity[problem.rows], log.propensity[problem.target_rows]
    elif source == "popularity":
        fitted, target = _from_marginals(problem)
    else:
        fitted, target = _exposure_model(problem, log, rng)
    return replace(
        problem,
        weight=_weights(fitted, settings.largest_weight),
        target_weight=_weights(target, settings.largest_weight),
    )


def _weights(propensity: NDArray[np.float64], largest: float) -> NDArray[np.float32]:
    weight = 1 / propensity
    weight = np.minimum(weight, largest * weight.mean())
    return (weight / weight.mean()).astype(np.float32)


def _from_marginals(problem: Problem) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Propensities n_u n_i / N: exposure as if users and items met independently (up to a constant)."""
    history = problem.histories
    length = np.diff(history.start)
    others = np.expm1(problem.popularity_fitted - problem.popularity_fitted.min()) + 1
    met = np.expm1(problem.popularity - problem.popularity.min()) + 1
    late = np.bincount(problem.target_user, minlength=len(problem.tuning_users))
    return (
        np.repeat(length, length) * others[history.item].astype(np.float64),
        late[problem.target_user] * met[problem.target_item].astype(np.float64),
    )


def _exposure_model(
    problem: Problem, log: InteractionLog, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Logistic model of being in the log, on rows against drawn pairs (up to a constant: the share drawn)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    history, catalogue = problem.histories, log.catalogue
    user = np.repeat(np.arange(len(history)), np.diff(history.start))
    m = len(user) * UNSEEN_PER_ROW
    drawn_user, drawn_item = rng.choice(user, m), rng.integers(0, problem.n_items, m)
    known = np.isin(drawn_user * problem.n_items + drawn_item, user * problem.n_items + history.item)
    kept = ~known & ~problem.new[drawn_item]  # why a new item has no rows is not known
    drawn_user, drawn_item = drawn_user[kept], drawn_item[kept]

    def features(
        who: NDArray[np.float32], item: NDArray[np.int64], popularity: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        category = catalogue.item_categories[item]
        pairs = (who[:, :, None] * category[:, None, :]).reshape(len(item), -1)
        return np.column_stack([popularity[item], popularity[item] ** 2, category, pairs]).astype(np.float64)

    seen = features(problem.features[user], history.item, problem.popularity_fitted)
    unseen = features(problem.features[drawn_user], drawn_item, problem.popularity)
    scaler = StandardScaler().fit(unseen)
    model = LogisticRegression(C=STRENGTH, max_iter=500)
    model.fit(scaler.transform(np.concatenate([seen, unseen])), np.repeat([1, 0], [len(seen), len(unseen)]))
    late = features(problem.tuning_features[problem.target_user], problem.target_item, problem.popularity)
    # Odds against a draw are proportional to the chance of exposure: rows are all there, other pairs were thinned.
    fitted, target = (np.exp(model.decision_function(scaler.transform(x))) for x in (seen, late))
    return fitted, target
