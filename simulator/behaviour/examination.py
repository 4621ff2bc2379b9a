"""Which places of a slate are looked at: the declared curves, and their fit by EM where positions are logged.

Three models. *Position* (Richardson, Dominowska and Ragno, 2007): place k is examined with its own probability.
*Cascade* (Craswell et al., 2008, going on after a click as in Guo, Liu and Wang, 2009): from the top to the first place
that is not gone on to. *User browsing* (Dupret and Piwowarski, 2008): the probability depends on the place and on the
place last clicked. All are fitted with a free attraction of each item, or with attractions that are given.

Clicks tell only products of attraction and examination, so the examinations of the position and the user-browsing model
are relative to the first place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Model = Literal["position", "cascade", "user_browsing"]
Floats = NDArray[np.float64]
_ROUNDS, _TOLERANCE = 2_000, 1e-9
_NEWTON_ROUNDS = 50
_MOST_FREE_ITEMS = 2_000
"""A cascade's standard errors invert a matrix of this size at most; further items' attractions count as known there."""


# ------------------------------------------------------------------------------------------------ what was declared


def examination_table(model: str, decay: float, continuation: float, slate_size: int) -> NDArray[np.float32]:
    """[K, K + 1] probability of examining place k; column 0 while nothing was clicked above, j + 1 after place j.

    In a cascade it is that of going on to k from the place above.
    """
    table = np.zeros((slate_size, slate_size + 1))
    if model == "cascade":
        table[:, :] = decay
        table[0, :] = 1.0
        return table.astype(np.float32)
    table[:, :] = (decay ** np.arange(slate_size))[:, None]
    if model == "user_browsing":
        k, j = np.meshgrid(np.arange(slate_size), np.arange(slate_size), indexing="ij")
        table[:, 1:] = continuation * decay ** np.maximum(k - j - 1, 0)
    return table.astype(np.float32)


def looks_at_all(model: str, table: NDArray[np.floating], continuation: float) -> bool:
    """Whether every place is examined for certain, whatever is clicked: then it matters not where an item stands."""
    return float(table.min()) == 1.0 and (model != "cascade" or continuation == 1.0)


def click_chances(model: str, table: NDArray[np.floating], continuation: float, rate: Floats) -> Floats:
    """[n, K] chance of a click at each place of n slates, whatever is clicked above, where items do not compete.

    Args:
        model: of examination.
        table: [K, K + 1] as `examination_table`.
        continuation: chance of going on after a click; cascade only.
        rate: [n, K] chance of a click once the place is examined; 0 where it is empty.
    """
    n, slate_size = rate.shape
    chances = np.zeros((n, slate_size))
    last = np.zeros((n, slate_size + 1))  # chance of each place last clicked; in a cascade of looking on, by column 0
    last[:, 0] = 1.0
    for k in range(slate_size):
        if model == "cascade":
            last[:, 0] *= float(table[k, 0])
            chances[:, k] = last[:, 0] * rate[:, k]
            last[:, 0] *= 1 - rate[:, k] + rate[:, k] * continuation
            continue
        clicked = last * table[k].astype(np.float64) * rate[:, k, None]
        chances[:, k] = clicked.sum(axis=1)
        last -= clicked
        last[:, k + 1] += chances[:, k]
    return chances


def expected_clicks(model: str, table: NDArray[np.floating], continuation: float, rate: float) -> float:
    """Clicks on a full slate of items that are each clicked with probability `rate` once examined, independently."""
    return float(click_chances(model, table, continuation, np.full((1, len(table)), rate)).sum())


def expected_choices(model: str, table: NDArray[np.floating], no_choice: float, rate: float) -> float:
    """Clicks on a full slate of such items where at most one of the examined is chosen (multinomial logit)."""
    chances = table[:, 0].astype(np.float64)
    if model == "cascade":  # m places are read where going on ends after the m-th
        reach = np.append(np.cumprod(chances), 0.0)
        examined = np.append(0.0, reach[:-1] - reach[1:])
    else:
        examined = np.array([1.0])  # probability of m examined places, m from 0
        for chance in chances:
            examined = np.append(examined * (1 - chance), 0.0) + np.append(0.0, examined * chance)
    appeal = np.arange(len(examined)) * rate / max(1 - rate, 1e-12)
    return float(examined @ (appeal / (appeal + np.exp(no_choice))))


# ---------------------------------------------------------------------------------------------------------- the fits


@dataclass(frozen=True, slots=True)
class LoggedSlates:
    """n logged slates of K places.

    Attributes:
        item: [n, K] item shown, -1 where the place was empty or is not in the log.
        click: [n, K] bool.
        user: [n] who saw it: the cluster of the standard errors.
    """

    item: NDArray[np.int64]
    click: NDArray[np.bool_]
    user: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.item.ndim != 2 or self.item.shape != self.click.shape or len(self.item) != len(self.user):
            raise ValueError(f"item {self.item.shape}, click {self.click.shape}, user {self.user.shape} do not match")

    @classmethod
    def of_rows(
        cls,
        item: NDArray[np.int64],
        position: NDArray[np.int64],
        click: NDArray[np.floating],
        user: NDArray[np.int64],
        slate: NDArray[np.int64] | None = None,
    ) -> LoggedSlates:
        """Slates from one row a place.

        Args:
            item: [m] item.
            position: [m] place from 0.
            click: [m] 1 where clicked.
            user: [m] who saw it.
            slate: [m] which rows were shown together; None: every row is a slate of its own, which suffices for the
                position model alone.
        """
        number = np.arange(len(item)) if slate is None else np.unique(slate, return_inverse=True)[1]
        n, size = int(number.max(initial=-1)) + 1, int(position.max(initial=0)) + 1
        items, clicks, users = np.full((n, size), -1), np.zeros((n, size), bool), np.zeros(n, np.int64)
        items[number, position], clicks[number, position], users[number] = item, click > 0, user
        return cls(items, clicks, users)

    @property
    def last_click(self) -> NDArray[np.int64]:
        """[n, K] 0 where nothing was clicked above the place, j + 1 where place j was the last."""
        places = np.where(self.click, np.arange(1, self.item.shape[1] + 1), 0)
        above = np.maximum.accumulate(places, axis=1)
        return np.hstack([np.zeros((len(above), 1), np.int64), above[:, :-1]])


@dataclass(frozen=True, slots=True)
class ExaminationFit:
    """A fitted examination model.

    Attributes:
        model: which.
        value: parameter -> estimate. Position: `place_k`, k from 1. User browsing: `place_k` where nothing was clicked
            above, `place_k_after_j` where place j was clicked last. Cascade: `decay`, `continuation`.
        se: parameter -> standard error with the user as cluster; infinite where the log says nothing.
        attraction: [I] probability of a click once the item is examined (position, user browsing: at the first place).
        n: slates; clicks: on them.
        rounds: EM steps taken.
    """

    model: Model
    value: dict[str, float]
    se: dict[str, float]
    attraction: Floats
    n: int
    clicks: int
    rounds: int


def fit_examination(
    shown: LoggedSlates, model: Model, *, n_items: int, attraction: Floats | None = None
) -> ExaminationFit:
    """Examination by expectation-maximisation, with standard errors clustered by user.

    Args:
        shown: what was shown where, and clicked.
        model: which model.
        n_items: I.
        attraction: [n, K] probabilities of a click once examined where they are known; None: each item has its own,
            fitted along. The random order of a randomised log, or items that stand at several places, identify them.

    Raises:
        ValueError: there is no click, so nothing can be told.
    """
    if not shown.click.any():
        raise ValueError("no click in the log; examination cannot be told from attraction")
    if model == "cascade":
        return _fit_cascade(shown, n_items, attraction)
    return _fit_products(shown, model, n_items, attraction)


def _fit_products(shown: LoggedSlates, model: Model, n_items: int, given: Floats | None) -> ExaminationFit:
    """Position and user browsing: a click has probability a_item * t_cell, the cell being known from the data."""
    n, size = shown.item.shape
    there = shown.item >= 0
    last = shown.last_click if model == "user_browsing" else np.zeros((n, size), np.int64)
    place = np.broadcast_to(np.arange(size), (n, size))
    code = (place * (size + 1) + last)[there]
    codes, cell = np.unique(code, return_inverse=True)  # the cells that occur
    item, click = shown.item[there], shown.click[there].astype(np.float64)
    user = np.broadcast_to(shown.user[:, None], (n, size))[there]
    if given is None:
        pairs, pair = np.unique(item * len(codes) + cell, return_inverse=True)
        of_item, of_cell = pairs // len(codes), pairs % len(codes)
        trials = np.bincount(pair).astype(np.float64)
        hits = np.bincount(pair, click).astype(np.float64)
    else:
        pair = np.arange(len(item))
        of_item, of_cell, trials, hits = pair, cell, np.ones(len(item)), click
    misses = trials - hits
    items = n_items if given is None else len(item)
    a = np.full(items, min(0.5, 2 * hits.sum() / trials.sum())) if given is None else given[there]
    t = np.full(len(codes), 0.5)
    seen_items, seen_cells = np.bincount(of_item, trials, items), np.bincount(of_cell, trials, len(codes))

    def em(a: Floats, t: Floats) -> tuple[Floats, Floats]:
        product = a[of_item] * t[of_cell]
        missed = misses / np.maximum(1 - product, 1e-12)
        examined = np.bincount(of_cell, hits + missed * t[of_cell] * (1 - a[of_item]), len(t)) / seen_cells
        if given is not None:
            return a, examined
        liked = np.bincount(of_item, hits + missed * a[of_item] * (1 - t[of_cell]), len(a)) / np.maximum(seen_items, 1)
        return liked, examined

    a, t, rounds = _until_still(em, a, t)
    base = int(np.flatnonzero(codes == 0)[0]) if (codes == 0).any() else 0
    if given is None:
        a, t = _newton(of_item, of_cell, trials, hits, a, t, base)
    se = _product_errors(of_item, of_cell, trials, a, t, base, pair, click, user, free=given is None)
    scale = t[base] if given is None else 1.0
    value, errors = {}, {}
    for at, one in enumerate(codes):
        k, after = divmod(int(one), size + 1)
        if given is None and at == base:
            continue
        name = f"place_{k}" if not after else f"place_{k}_after_{after - 1}"
        value[name], errors[name] = float(t[at] / scale), float(se[at])
    attractions = np.clip(a * scale, 0, 1) if given is None else np.zeros(0)
    return ExaminationFit(model, value, errors, attractions, n, int(click.sum()), rounds)


def _until_still(
    step: Callable[[Floats, Floats], tuple[Floats, Floats]], a: Floats, t: Floats
) -> tuple[Floats, Floats, int]:
    """Repeat a step of EM until nothing moves; the number of steps last."""
    moved, turns = np.inf, 0
    while moved >= _TOLERANCE and turns < _ROUNDS:
        new_a, new_t = step(a, t)
        moved = max(float(np.abs(new_a - a).max(initial=0)), float(np.abs(new_t - t).max(initial=0)))
        a, t, turns = new_a, new_t, turns + 1
    return a, t, turns


def _newton(
    of_item: NDArray[np.int64],
    of_cell: NDArray[np.int64],
    trials: Floats,
    hits: Floats,
    a: Floats,
    t: Floats,
    base: int,
) -> tuple[Floats, Floats]:
    """Fisher scoring on the logarithms, from where EM stopped: EM creeps along the last digits.

    Items and cells without a click have their maximum at 0 and stay where EM left them.
    """
    live_items = np.bincount(of_item, hits, len(a)) > 0
    live_cells = np.bincount(of_cell, hits, len(t)) > 0
    free = live_cells.copy()
    free[base] = False

    def log_likelihood(a: Floats, t: Floats) -> float:
        m = np.clip(a[of_item] * t[of_cell], 1e-300, 1 - 1e-12)
        return float(hits @ np.log(m) + (trials - hits) @ np.log1p(-m))

    a, t = a * t[base], t / t[base]
    best = log_likelihood(a, t)
    for _ in range(_NEWTON_ROUNDS):
        m = np.clip(a[of_item] * t[of_cell], 1e-12, 1 - 1e-6)
        score = (hits - trials * m) / (1 - m)
        weight = trials * m / (1 - m)
        s_item, s_cell = np.bincount(of_item, score, len(a)), np.bincount(of_cell, score, len(t))
        i_item = np.bincount(of_item, weight, len(a))
        cross = np.zeros((len(a), len(t)))
        np.add.at(cross, (of_item, of_cell), weight)
        cross, ratio = cross[live_items], (cross[live_items] / i_item[live_items, None])
        schur = (np.diag(np.bincount(of_cell, weight, len(t))) - cross.T @ ratio)[np.ix_(free, free)]
        move = np.zeros(len(t))
        move[free] = np.linalg.lstsq(schur, (s_cell - ratio.T @ s_item[live_items])[free], rcond=None)[0]
        item_move = np.zeros(len(a))
        item_move[live_items] = s_item[live_items] / i_item[live_items] - ratio @ move
        for halving in range(20):
            factor = 0.5**halving
            trial = (a * np.exp(np.clip(factor * item_move, -2, 2)), t * np.exp(np.clip(factor * move, -2, 2)))
            if (trial[0][of_item] * trial[1][of_cell]).max() < 1 and log_likelihood(*trial) >= best:
                break
        else:
            break
        gained = log_likelihood(*trial) - best
        (a, t), best = trial, best + gained
        if gained < 1e-10:
            break
    return a, t


def _product_errors(
    of_item: NDArray[np.int64],
    of_cell: NDArray[np.int64],
    trials: Floats,
    a: Floats,
    t: Floats,
    base: int,
    pair: NDArray[np.int64],
    click: Floats,
    user: NDArray[np.int64],
    *,
    free: bool,
) -> Floats:
    """Standard errors of t / t[base] (of t where attractions are given), the user as cluster.

    The score of a row in log a and log t is the same number; items are eliminated by the Schur complement of the
    expected information, so that what is left is a matrix of the cells alone.
    """
    m = np.clip(a[of_item] * t[of_cell], 1e-12, 1 - 1e-9)
    weight = trials * m / (1 - m)
    row_score = (click - m[pair]) / (1 - m[pair])
    information = np.diag(np.bincount(of_cell, weight, len(t)).astype(np.float64))
    direction = np.eye(len(t))[of_cell]  # [pairs, cells] how a pair's score moves the profile score of the cells
    if free:
        i_item = np.bincount(of_item, weight, len(a))
        cross = np.zeros((len(a), len(t)))
        np.add.at(cross, (of_item, of_cell), weight)
        ratio = cross / np.maximum(i_item, 1e-12)[:, None]
        information = information - cross.T @ ratio
        direction = direction - ratio[of_item]
    kept = np.bincount(of_cell, trials * a[of_item], len(t)) > 0
    if free:
        kept[base] = False
    clusters, of_user = np.unique(user, return_inverse=True)
    scores = np.zeros((len(clusters), int(kept.sum())))
    np.add.at(scores, of_user, row_score[:, None] * direction[pair][:, kept])
    inverse = np.linalg.pinv(information[np.ix_(kept, kept)], hermitian=True)
    covariance = inverse @ (scores.T @ scores) @ inverse * len(clusters) / max(len(clusters) - 1, 1)
    se = np.full(len(t), np.inf)
    scale = t[base] if free else 1.0
    log_se = np.sqrt(np.maximum(np.diag(covariance), 0))
    se[kept] = t[kept] / scale * log_se
    se[np.bincount(of_cell[pair], click, len(t)) == 0] = np.inf  # no click: the likelihood has its maximum at 0
    return se


def _fit_cascade(shown: LoggedSlates, n_items: int, given: Floats | None) -> ExaminationFit:
    """Cascade: how far the user read is hidden behind the last click; EM over where the reading stopped."""
    n, size = shown.item.shape
    there, click = shown.item >= 0, shown.click
    item = np.maximum(shown.item, 0)
    rate = click.sum() / there.sum()
    a = np.full(n_items, min(0.5, 2 * rate))
    going = np.array([0.8, 0.5])  # decay; continuation
    last = np.where(click.any(axis=1), size - 1 - np.argmax(click[:, ::-1], axis=1), -1)  # [n]
    k = np.arange(size)
    read = k[None, :] <= np.maximum(last, 0)[:, None]  # read for certain: to the last click, and the first place

    def expectation(a: Floats, going: Floats) -> tuple[Floats, Floats, Floats]:
        """[n, K] probability that place k was read; of going on after no click, after a click: [n, 2] passed, tried."""
        attraction = np.where(there, a[item] if given is None else given, 0.0)
        on = np.where(click, going[0] * going[1], going[0])  # [n, K] of going on from place k
        # After the last click nothing was clicked: weight of reading on to k and no further.
        survive = np.where(~read, 1 - attraction, 1.0)
        chance = np.ones((n, size))  # of passing from the last certain place to k without a click
        for place in range(1, size):
            step = on[:, place - 1] * survive[:, place]
            chance[:, place] = np.where(read[:, place], 1.0, chance[:, place - 1] * step)
        stop = np.where(np.arange(size) < size - 1, 1 - on, 1.0)
        ends = np.where(k[None, :] >= np.maximum(last, 0)[:, None], chance * stop, 0.0)
        ends /= np.maximum(ends.sum(axis=1, keepdims=True), 1e-300)
        reached = ends[:, ::-1].cumsum(axis=1)[:, ::-1]  # [n, K] P(read k), 1 for the certain places
        further = np.hstack([reached[:, 1:], np.zeros((n, 1))])
        tried = np.where(k < size - 1, reached, 0.0)
        passed = np.stack([(further * ~click).sum(axis=1), (further * click).sum(axis=1)], axis=1)
        trials = np.stack([(tried * ~click).sum(axis=1), (tried * click).sum(axis=1)], axis=1)
        return reached * there, passed, trials

    def step(a: Floats, going: Floats) -> tuple[Floats, Floats]:
        reached, passed, trials = expectation(a, going)
        after_none, after_click = passed.sum(axis=0) / np.maximum(trials.sum(axis=0), 1e-12)
        going = np.array([after_none, min(after_click / max(after_none, 1e-12), 1.0)])
        if given is None:
            read_of = np.bincount(item[there], reached[there], n_items)
            clicked = np.bincount(item[there], click[there].astype(np.float64), n_items)
            a = np.minimum(clicked / np.maximum(read_of, 1e-12), 1.0)
        return a, going

    a, going, rounds = _until_still(step, a, going)
    reached, passed, trials = expectation(a, going)
    decay, continuation = going
    chances = np.array([decay, decay * continuation])
    chances = np.clip(chances, 1e-9, 1 - 1e-9)
    # Fisher's identity: the score of what was seen is the expected score of what was hidden. In the two logits.
    clusters, of_user = np.unique(shown.user, return_inverse=True)
    scores = np.zeros((len(clusters), 2))
    np.add.at(scores, of_user, passed - trials * chances)
    information = scores.T @ scores
    if given is None:
        from scipy.sparse import csr_array

        logit_score = (click - reached * np.where(there, a[item], 0.0))[there]
        row = np.broadcast_to(of_user[:, None], (n, size))[there]
        by_item = csr_array((logit_score, (row, item[there])), shape=(len(clusters), n_items))
        often = np.argsort(-np.bincount(item[there], minlength=n_items), kind="stable")[:_MOST_FREE_ITEMS]
        by_item = by_item[:, np.sort(often)]
        own = (by_item.T @ by_item).toarray()
        cross = by_item.T @ scores
        information = information - cross.T @ np.linalg.pinv(own, hermitian=True) @ cross
    logit_covariance = np.linalg.pinv(information, hermitian=True)
    slope = chances * (1 - chances)  # of the chances in their logits
    covariance = logit_covariance * np.outer(slope, slope)
    gradient = np.array([-continuation / decay, 1 / decay])  # of continuation = second / first
    value = {"decay": float(decay), "continuation": float(continuation)}
    se = {
        "decay": float(np.sqrt(max(covariance[0, 0], 0))),
        "continuation": float(np.sqrt(max(gradient @ covariance @ gradient, 0))),
    }
    if trials[:, 1].sum() < 1:
        se["continuation"] = np.inf
    return ExaminationFit("cascade", value, se, a if given is None else np.zeros(0), n, int(click.sum()), rounds)
