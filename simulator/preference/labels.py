"""Few labels: which rows to have labelled, and what may be read into rows that are not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from simulator.log import Histories
from simulator.preference.model import Member
from simulator.preference.problem import Problem, only
from simulator.preference.settings import PreferenceSettings

ROUNDS = 4
"""Times that labels are bought: the first at random, the others by what the labels so far leave uncertain."""
PRIOR = 1.0
"""Information about an item or a user before any label."""


def with_few_labels(
    problem: Problem,
    settings: PreferenceSettings,
    fit: Callable[[Problem, int], Member],
    rng: np.random.Generator,
) -> tuple[Problem, dict[str, Any]]:
    """The problem with the outcomes of `label_budget` rows, and with those that a model is sure of (`pseudo_labels`).

    Active learning by the uncertainty of the *estimate*: a row counts by what its label would tell of its item and its
    user. Nearness to 1/2 alone buys coin flips of items that are known well already, and did worse than chance.
    Pseudo-labels (Lee, 2013): a row that is left gets the outcome that is more probable, if it is at least that
    probable. Which item a user met is known of every row; a row without a label takes no part in history or loss.

    Args:
        problem: rows to fit, all of which have an outcome; only the chosen ones are looked at.
        settings: `label_budget`, `label_choice` and `pseudo_labels`.
        fit: fits one model to a problem; told the number of the round.
        rng: draws rows.

    Returns:
        The problem that is left, and JSON-ready counts of labels read and made.
    """
    m = len(problem.rows)
    budget = m if settings.label_budget is None else min(settings.label_budget, m)
    order = rng.permutation(m)
    labelled = np.zeros(m, bool)
    if settings.label_choice == "random":
        labelled[order[:budget]] = True
    else:
        for number in range(ROUNDS):
            more = (budget * (number + 1)) // ROUNDS - int(labelled.sum())
            if number == 0:
                labelled[order[:more]] = True
                continue
            p = predict_rows(problem, labelled, fit(only(problem, labelled), number))
            gain = np.where(labelled, 0.0, _information(problem, labelled, p))
            # Drawn in proportion (Gumbel's top k), not the first k: those would all be rows of the same few items.
            with np.errstate(divide="ignore"):
                key = np.log(gain) + rng.gumbel(size=m)
            labelled[np.argpartition(-key, more - 1)[:more]] = True
    counts = {"labels_read": int(labelled.sum())}
    if settings.pseudo_labels is None or labelled.all():
        return only(problem, labelled), counts
    p = predict_rows(problem, labelled, fit(only(problem, labelled), ROUNDS))
    sure = ~labelled & (np.maximum(p, 1 - p) >= settings.pseudo_labels)
    history = problem.histories
    primary = np.where(sure, p >= 0.5, history.primary).astype(np.float32)
    guessed = replace(problem, histories=Histories(history.start, history.item, primary), guessed=sure)
    return only(guessed, labelled | sure), {**counts, "labels_made": int(sure.sum())}


def _information(problem: Problem, labelled: NDArray[np.bool_], p: NDArray[np.float64]) -> NDArray[np.float64]:
    """[m] gain of a label in the log-determinant of a model of user and item biases (D-optimality), to first order."""
    history = problem.histories
    user = np.repeat(np.arange(len(history)), np.diff(history.start))
    each = p * (1 - p)
    of_item = np.bincount(history.item, each * labelled, minlength=problem.n_items) + PRIOR
    of_user = np.bincount(user, each * labelled, minlength=len(history)) + PRIOR
    return np.asarray(each * (1 / of_item[history.item] + 1 / of_user[user]))


def predict_rows(problem: Problem, labelled: NDArray[np.bool_], member: Member) -> NDArray[np.float64]:
    """[m] probability of each row, the users folded in from their labelled rows."""
    history = problem.histories
    user = np.repeat(np.arange(len(history)), np.diff(history.start))
    theta = member.fold_in(only(problem, labelled).histories, problem.features)
    inner = np.einsum("kd,kd->k", theta[user, 1:], member.item_vectors[history.item])
    logit = inner.astype(np.float64) + theta[user, 0] + member.item_offset[history.item]
    return np.asarray(expit(logit))
