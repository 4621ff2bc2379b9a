"""The references a text model must beat: user+item biases and logistic matrix factorisation, by alternating MAP."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from simulator.log import Histories
from simulator.preference.map_head import newton_map
from simulator.preference.model import Member
from simulator.preference.problem import Problem

USER_RIDGES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
ITEM_RIDGES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0)
RARE_RIDGES = (8.0, 16.0, 32.0)
"""Strengths beyond those, for logs with hardly an outcome. Elsewhere a few dozen tuning users who choose among them
shrink too much as often as not: on MovieLens' split 7 the references lost .004 and .005 a row by it."""
VECTOR_RIDGES = (4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
SWEEPS = 12
LARGE, LARGE_SWEEPS = 500_000, 4
"""Rows to fit beyond which the strengths are chosen on so many rows of users drawn at random, and how many sweeps over
all rows then follow at most: a sweep over 36 million rows takes minutes, and the choice takes some hundred."""
ROWS_AT_ONCE = 1 << 20
"""Rows whose vectors are laid out side by side to compute their logits."""
FEW_OUTCOMES, FOLDS = 20, 5
"""Outcomes of the rarer kind among the tuning users' rows under which they choose no strength: then folds of the
fitting users do, who have ten times as many rows."""
PATIENCE = 2
LEAST_GAIN = 1e-5
"""Log-loss a row by which a sweep must be better than the best so far to count."""


@dataclass(frozen=True, slots=True)
class ReferenceFit:
    """A reference and how it was chosen.

    Attributes:
        member: the model that is best on the tuning users.
        loss: its log-loss a row there.
        chosen: the ridge strengths and sweeps that were kept.
        candidates: number of settings tried.
    """

    member: Member
    loss: float
    chosen: dict[str, float]
    candidates: int


def _by_item(problem: Problem) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The rows ordered by item: starts [I + 1], user of each row, and the order."""
    history = problem.histories
    user = np.repeat(np.arange(len(history)), np.diff(history.start))
    order = np.argsort(history.item, kind="stable")
    start = np.searchsorted(history.item[order], np.arange(problem.n_items + 1))
    return start, user[order], order


def _alternate(
    problem: Problem,
    dim: int,
    user_ridge: float,
    item_ridge: float,
    vector_ridge: float,
    rng: np.random.Generator,
    *,
    sweeps: int = SWEEPS,
    initial: NDArray[np.float32] | None = None,
) -> ReferenceFit:
    """Alternate users given items and items given users, each a batch of logistic MAP fits, until tuning stops it.

    An item's bias has the prior mean a + b n_i, n_i the item's popularity. The scale of user and item
    vectors is free but for their priors, so users' vectors keep precision 1.
    """
    history = problem.histories
    start, item_user, order = _by_item(problem)
    user = np.repeat(np.arange(len(history)), np.diff(history.start))
    by_item = history.primary[order]
    base = np.float32(problem.base_logit)
    popularity = np.column_stack([np.ones(problem.n_items, np.float32), problem.popularity_fitted])
    line = np.zeros(2, np.float32)  # a, b
    precision = np.concatenate([[user_ridge], np.ones(dim)]).astype(np.float32)
    item_precision = np.concatenate([[item_ridge], np.full(dim, vector_ridge)]).astype(np.float32)
    items = np.zeros((problem.n_items, dim + 1), np.float32)
    items[:, 1:] = rng.normal(0, 0.1, (problem.n_items, dim))
    if initial is not None:
        items[:, 1:] = np.where((initial != 0).any(axis=1, keepdims=True), initial, items[:, 1:])
    unmet = np.diff(start) == 0
    items[unmet] = 0  # nothing known of an item: the prior's mean, from which the biases here are counted
    none = np.zeros(problem.features.shape[1], np.float32)
    best: ReferenceFit | None = None
    since = 0
    states: NDArray[np.float32] | None = None
    for sweep in range(1, sweeps + 1):
        mean = base + popularity @ line
        offset = (mean + items[:, 0])[history.item]
        states = newton_map(history.start, history.item, history.primary, items[:, 1:], offset, precision)
        vectors = np.ascontiguousarray(states[:, 1:])
        logit = offset + states[user, 0]
        for first in range(0, len(user), ROWS_AT_ONCE):
            part = slice(first, first + ROWS_AT_ONCE)
            logit[part] += np.einsum("kd,kd->k", vectors[user[part]], items[history.item[part], 1:])
        moved = _prior_mean(logit, history, popularity, popularity @ line + items[:, 0], item_ridge)
        items[~unmet, 0] += (popularity @ (line - moved))[~unmet]
        line = moved
        known = (base + popularity @ line)[history.item[order]] + states[item_user, 0]
        items = newton_map(
            start,
            item_user,
            by_item,
            vectors,
            known,
            item_precision,
            steps=1,
            initial=items,
        )
        prior = base + line[0] + line[1] * problem.popularity
        member = Member(items[:, 1:].copy(), prior + items[:, 0], none, precision)
        loss = float(problem.tuning_loss(problem.tuning_logit(member)).sum()) / len(problem.target)
        if best is None or loss < best.loss - LEAST_GAIN:
            chosen = {"user_ridge": user_ridge, "item_ridge": item_ridge, "vector_ridge": vector_ridge, "sweeps": sweep}
            chosen["popularity"] = float(line[1])
            best, since = ReferenceFit(member, loss, chosen, 1), 0
        else:
            since += 1
            if since >= PATIENCE:
                break
    assert best is not None
    return best


def _prior_mean(
    logit: NDArray[np.float32],
    history: Histories,
    popularity: NDArray[np.float32],
    bias: NDArray[np.float32],
    ridge: float,
) -> NDArray[np.float32]:
    """[2] the line a + b n_i that the items' biases are shrunk to: Newton's step with every bias profiled out.

    An item's rows say that its bias is z with precision h; about the line it then has variance 1/h + 1/ridge.
    Fitting the line by turns with the biases instead would take a hundred sweeps where items are rare.

    Args:
        logit: [m] of each fitted row.
        history: the fitted rows.
        popularity: [I, 2] ones and the items' popularity.
        bias: [I] the items' biases as they are in `logit`.
        ridge: prior precision of a bias about the line.
    """
    p = expit(logit.astype(np.float64))
    n_items = len(bias)
    h = np.bincount(history.item, p * (1 - p), minlength=n_items)
    gradient = np.bincount(history.item, history.primary - p, minlength=n_items)
    share = ridge / (h + ridge)
    design = popularity.astype(np.float64)
    curvature = (design * (h * share)[:, None]).T @ design + ridge * np.diag([0.0, 1.0]) + 1e-9 * np.eye(2)
    return np.linalg.solve(curvature, design.T @ (share * (h * bias + gradient))).astype(np.float32)


def _climb(grid: Sequence[float], start: float, fit: Callable[[float], ReferenceFit]) -> ReferenceFit:
    """Walk along a sorted grid from `start` for as long as the next value is better on the tuning users."""
    place = grid.index(start)
    fits = {place: fit(start)}
    for step in (1, -1):
        here = place
        while 0 <= here + step < len(grid):
            fits[here + step] = fit(grid[here + step])
            if fits[here + step].loss >= fits[here].loss:
                break
            here += step
        if here != place:
            break
    best = min(fits.values(), key=lambda found: found.loss)
    return replace(best, candidates=sum(found.candidates for found in fits.values()))


def _biases(
    problems: Sequence[Problem], rng: np.random.Generator, user_ridge: float, item_ridge: float
) -> ReferenceFit:
    return _over([_alternate(problem, 0, user_ridge, item_ridge, 1.0, rng) for problem in problems], problems)


def _over(fits: Sequence[ReferenceFit], problems: Sequence[Problem]) -> ReferenceFit:
    """The first fit, with the loss a row over all of the problems."""
    rows = np.array([len(problem.target) for problem in problems])
    loss = float(np.sum([fit.loss for fit in fits] * rows) / rows.sum())
    return replace(fits[0], loss=loss, candidates=len(fits))


def _choosing(problem: Problem, rng: np.random.Generator) -> tuple[Problem, ...]:
    """Problems on whose tuning users strengths are chosen: the given one, or where these tell too little, its folds.

    In each fold a fifth of the fitting users stand in for the tuning users: the last fifth of their rows is scored.
    """
    liked = int((problem.target > 0.5).sum())
    start = problem.histories.start
    lengths = np.diff(start)
    if min(liked, len(problem.target) - liked) >= FEW_OUTCOMES or len(lengths) < 2 * FOLDS:
        return (problem,)
    _, same = np.unique(problem.rows[start[:-1]], return_inverse=True)  # a user drawn twice stays in one fold
    fold = (rng.permutation(same.max() + 1) % FOLDS)[same]
    of_row = np.repeat(np.arange(len(lengths)), lengths)
    late = np.arange(len(of_row)) - start[of_row] >= np.maximum(1, np.floor(0.8 * lengths))[of_row]
    return tuple(_fold(problem, fold == one, of_row, late) for one in range(FOLDS))


def _fold(problem: Problem, held: NDArray[np.bool_], of_row: NDArray[np.int64], late: NDArray[np.bool_]) -> Problem:
    """The problem with some of its fitting users [n] in place of the tuning users, their late rows as targets."""
    past, own = problem.histories, held[of_row]
    lengths = np.diff(past.start)
    known, target = own & ~late, own & late

    def cut(column: NDArray[Any] | None, kept: NDArray[np.bool_]) -> Any:
        return None if column is None else column[kept]

    number = np.cumsum(held) - 1
    return replace(
        problem,
        histories=Histories(_starts(lengths[~held]), past.item[~own], past.primary[~own]),
        features=problem.features[~held],
        rows=problem.rows[~own],
        weight=cut(problem.weight, ~own),
        taught=cut(problem.taught, ~own),
        guessed=cut(problem.guessed, ~own),
        tuning=Histories(
            _starts(np.bincount(of_row[known], minlength=len(lengths))[held]), past.item[known], past.primary[known]
        ),
        tuning_features=problem.features[held],
        target_user=number[of_row[target]],
        target_item=past.item[target],
        target=past.primary[target],
        target_rows=problem.rows[target],
        target_weight=cut(problem.weight, target),
    )


def _for_choosing(problem: Problem, rng: np.random.Generator) -> Problem:
    """The problem, or where it is large one of as many users, drawn at random, as have LARGE rows to fit.

    Of the tuning users so many are kept as have a quarter of that to score.
    """
    rows, past = np.diff(problem.histories.start), problem.histories
    if rows.sum() <= LARGE:
        return problem
    fitting, of_row = _draw_users(rows, LARGE, rng)
    tuning, of_target = _draw_users(np.bincount(problem.target_user, minlength=len(problem.tuning)), LARGE // 4, rng)
    of_tuning_row = np.repeat(tuning, np.diff(problem.tuning.start))
    number = np.cumsum(tuning) - 1

    def cut(column: NDArray[Any] | None, kept: NDArray[np.bool_]) -> Any:
        return None if column is None else column[kept]

    return replace(
        problem,
        histories=Histories(_starts(rows[fitting]), past.item[of_row], past.primary[of_row]),
        features=problem.features[fitting],
        rows=problem.rows[of_row],
        weight=cut(problem.weight, of_row),
        taught=cut(problem.taught, of_row),
        guessed=cut(problem.guessed, of_row),
        tuning=Histories(
            _starts(np.diff(problem.tuning.start)[tuning]),
            problem.tuning.item[of_tuning_row],
            problem.tuning.primary[of_tuning_row],
        ),
        tuning_features=problem.tuning_features[tuning],
        tuning_users=problem.tuning_users[tuning],
        target_user=number[problem.target_user[of_target]],
        target_item=problem.target_item[of_target],
        target=problem.target[of_target],
        target_rows=problem.target_rows[of_target],
        target_weight=cut(problem.target_weight, of_target),
    )


def _draw_users(
    rows: NDArray[np.int64], most: int, rng: np.random.Generator
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Of users with `rows` rows each: which are drawn until they have `most`, at least two; and the same by row."""
    order = rng.permutation(len(rows))
    kept = np.zeros(len(rows), bool)
    kept[order[: max(2, int(np.searchsorted(np.cumsum(rows[order]), most)))]] = True
    return kept, np.repeat(kept, rows)


def _starts(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(lengths)])


def fit_bias(problem: Problem, rng: np.random.Generator) -> ReferenceFit:
    """User and item biases with the ridge strengths that are best on the tuning users, one after the other, twice."""
    chosen = _choose_bias(_for_choosing(problem, rng), rng)
    if len(problem.histories.item) <= LARGE:
        return chosen
    user, item = chosen.chosen["user_ridge"], chosen.chosen["item_ridge"]
    best = _alternate(problem, 0, user, item, 1.0, rng, sweeps=LARGE_SWEEPS)
    return replace(best, candidates=chosen.candidates)


def _choose_bias(problem: Problem, rng: np.random.Generator) -> ReferenceFit:
    user, item, candidates = 2.0, 1.0, 0
    among = _choosing(problem, rng)
    rare = RARE_RIDGES if len(among) > 1 else ()
    items, users = (sorted({*ridges, *rare}) for ridges in (ITEM_RIDGES, USER_RIDGES))
    for _ in range(2):
        best = _climb(items, item, partial(_biases, among, rng, user))
        item, candidates = best.chosen["item_ridge"], candidates + best.candidates
        best = _climb(users, user, partial(_biases, among, rng, item_ridge=item))
        user, candidates = best.chosen["user_ridge"], candidates + best.candidates
    if len(among) > 1:
        best = _alternate(problem, 0, user, item, 1.0, rng)
    return replace(best, candidates=candidates)


def fit_matrix_factorisation(problem: Problem, dim: int, rng: np.random.Generator) -> ReferenceFit:
    """Logistic matrix factorisation without text, ridge strengths and sweeps chosen on the tuning users."""
    few = _for_choosing(problem, rng)
    bias = _choose_bias(few, rng)
    user, item = bias.chosen["user_ridge"], bias.chosen["item_ridge"]
    seed = int(rng.integers(2**62))  # every strength starts from the same vectors, so that they differ by it alone

    among = _choosing(few, rng)

    def fit(ridge: float) -> ReferenceFit:
        fits = [_alternate(one, dim, user, item, ridge, np.random.default_rng(seed)) for one in among]
        return _over(fits, among)

    best = _climb(VECTOR_RIDGES, 32.0, fit)
    candidates = best.candidates + bias.candidates
    if len(among) > 1:
        best = _alternate(few, dim, user, item, best.chosen["vector_ridge"], np.random.default_rng(seed))
    if few is not problem:
        strength = best.chosen["vector_ridge"]
        again = np.random.default_rng(seed)
        vectors = best.member.item_vectors
        best = _alternate(problem, dim, user, item, strength, again, sweeps=LARGE_SWEEPS, initial=vectors)
    return replace(best, candidates=candidates)
