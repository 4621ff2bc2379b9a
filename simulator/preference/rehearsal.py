"""What a model gets wrong about later rows, learned before there are any: the fit is rehearsed on the rows so far.

Training hides rows at random, but a world asks about rows that come later, and those are liked less (or more) than
earlier ones say, of rare items above all. The fitting users' own rows tell by how much, if the same fit is made once
more without the last of them and then asked for these.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from simulator.log import InteractionLog
from simulator.preference.calibration import Rehearsed
from simulator.preference.model import Member
from simulator.preference.problem import Problem, only, popularity_of

KEPT = 0.8
"""Share of a user's rows that a rehearsal fits, as of all of a user's rows the fit itself (`split_users`)."""
FEWEST_USERS = 30
"""Users whose last rows are asked for; fewer leave the intercept uncertain by .2, and nothing is rehearsed."""


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """A problem that holds the last of its rows back.

    Attributes:
        problem: the rows that are left to fit.
        left: [m] of the whole problem's rows, those of `problem`.
        held: [m] those held back and asked for: no outcome that a model made (`pseudo_labels`), and no row that the
            saved model was fitted on which the fit goes on from.
        user: [h] whose each of them is, in the log's numbering (a user drawn twice by a bootstrap is one user).
        farther: how far the rows that a world will be asked about lie behind those fitted, in lengths of the way from
            the rehearsal's fitted rows to those it held back; 1 where rows have no times.
    """

    problem: Problem
    left: NDArray[np.bool_]
    held: NDArray[np.bool_]
    user: NDArray[np.int64]
    farther: float


def rehearsal_of(
    problem: Problem, log: InteractionLog, rng: np.random.Generator, *, seen: NDArray[np.bool_] | None = None
) -> Rehearsal | None:
    """Hold back the last fifth of every fitting user's rows, or a fifth at random where the log has no times.

    Args:
        problem: rows to fit.
        log: the log that they are rows of.
        rng: draws the rows of a log without times.
        seen: [m] rows that a saved model which the fit goes on from was fitted on; none where left out.

    Returns:
        None where too few users have rows to hold back.
    """
    history = problem.histories
    length = np.diff(history.start)
    user = np.repeat(np.arange(len(history)), length)
    key = np.arange(len(user), dtype=np.float64)
    if not log.has_time:
        # A user whom a bootstrap draws twice loses the same rows both times: none is fitted here and asked for there.
        distinct, row = np.unique(problem.rows, return_inverse=True)
        key = rng.random(len(distinct))[row]
    place = np.empty(len(user), np.int64)
    place[np.lexsort((key, user))] = np.arange(len(user)) - np.repeat(history.start[:-1], length)
    later = place >= np.maximum(1, np.floor(KEPT * length))[user]
    held = later if problem.guessed is None else later & ~problem.guessed
    held = held if seen is None else held & ~seen
    owner = log.user[problem.rows]
    if len(np.unique(owner[held])) < FEWEST_USERS:
        return None
    left = only(problem, ~later)
    popularity, popularity_fitted = popularity_of(owner[~later], left.histories.item, left.new)
    left = replace(left, popularity=popularity, popularity_fitted=popularity_fitted)
    # With n rows a user, .8 n of them fitted, the middle of the later ones lies .5 n behind the middle of the fitted
    # ones; in the rehearsal, which has .8 n, .4 n.
    return Rehearsal(left, ~later, held, owner[held], 1 / KEPT if log.has_time else 1.0)


def rehearse(
    problem: Problem,
    log: InteractionLog,
    fit: Callable[[Rehearsal], Member],
    rng: np.random.Generator,
    *,
    seen: NDArray[np.bool_] | None = None,
) -> Rehearsed | None:
    """What one member, fitted without the last of the fitting users' rows, says of these rows; beside what they were.

    Args:
        problem: rows to fit.
        log: the log that they are rows of.
        fit: fits one member to a rehearsal's problem, as the members of the fit itself are.
        rng: draws the rows that are held back from a log without times.
        seen: [m] rows that a saved model which the fit goes on from was fitted on; none where left out.
    """
    rehearsal = rehearsal_of(problem, log, rng, seen=seen)
    if rehearsal is None:
        return None
    member, held, history = fit(rehearsal), rehearsal.held, problem.histories
    who = np.repeat(np.arange(len(history)), np.diff(history.start))[held]
    item = history.item[held]
    theta = member.fold_in(rehearsal.problem.histories, problem.features)
    inner = np.einsum("kd,kd->k", theta[who, 1:], member.item_vectors[item])
    return Rehearsed(
        logit=inner.astype(np.float64) + theta[who, 0] + member.item_offset[item],
        outcome=history.primary[held],
        user=rehearsal.user,
        popularity=rehearsal.problem.popularity[item],
        weight=None if problem.weight is None else problem.weight[held],
        farther=rehearsal.farther,
    )
