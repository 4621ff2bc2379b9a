"""Friends' influence, fitted on rows that the preference model has not learned from; and whether the log can tell it.

The logit of the preference model is an offset, and whether a friend liked the item is the one regressor. Friends are
alike before they influence each other, so what is fitted is what a friend's liking says beyond the model, which is what
a world needs to predict, and no effect of showing friends' likes. Where the log has times a friend's like counts only
where it is earlier than the row: who copies the user is no influence. Without times who followed whom is not known.
It counts as identified only where it predicts users whom it was not fitted on, and stands out from *placebos*: as many
strangers in place of each user's friends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from simulator.behaviour.assumptions import Assumption
from simulator.log import InteractionLog, Split

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FEWEST_ROWS = 50
"""Rows with an item that a friend liked, and rows without, under which nothing is fitted."""
_PLACEBOS, _FOLDS = 100, 10
_SEED = 20_260


@dataclass(frozen=True, slots=True)
class Friends:
    """What the friends of U start users liked in the log.

    Attributes:
        start: [U + 1] row u is `start[u]:start[u + 1]` of item.
        item: [m] items, rising within a row.
        level: logits that all items gain (lose, below 0) for each logit of the strength, so that as much is liked.
    """

    start: NDArray[np.int64]
    item: NDArray[np.int64]
    level: float = 0.0

    def liked(self, row: Ints, item: Ints) -> NDArray[np.bool_]:
        """[n, A] whether a friend of start user `row` [n] liked these items."""
        n_items = int(max(self.item.max(initial=0), item.max(initial=0))) + 1
        key = np.repeat(np.arange(len(self.start) - 1), np.diff(self.start)) * n_items + self.item
        wanted = row[:, None] * n_items + item
        at = np.minimum(np.searchsorted(key, wanted), max(len(key) - 1, 0))
        return key[at] == wanted if len(key) else np.zeros(wanted.shape, bool)


@dataclass(frozen=True, slots=True)
class FriendsFit:
    """What an item gains in logits where a friend liked it.

    Attributes:
        strength, se: estimate and standard error, the user as cluster.
        level: what all items lose beside it, so that as much is liked as before.
        gain, gain_se: log-loss a row, of users left out of the fit, that the term saves; the user as cluster.
        placebo_z: [P] |z| with strangers in place of friends; z: that of the friends.
        identified: whether z exceeds 1.96 and 95 % of the placebos, and the gain two standard errors.
        n: rows; touched: rows whose item a friend liked.
        earlier: whether friends' likes are known to be earlier than the rows.
    """

    strength: float
    se: float
    level: float
    gain: float
    gain_se: float
    placebo_z: Floats
    z: float
    identified: bool
    n: int
    touched: int
    earlier: bool = True

    @property
    def why(self) -> str:
        """In words."""
        low, high = self.gain - 1.96 * self.gain_se, self.gain + 1.96 * self.gain_se
        return (
            f"{'fitted' if self.identified else 'assumed; not identified'}: {self.strength:.2f} (standard error "
            f"{self.se:.2f}) logits on {self.touched} of {self.n} rows; log-loss of users left out falls by "
            f"{self.gain:.4f} [{low:.4f}, {high:.4f}] a row; z {self.z:.1f}, 95 % of placebos below "
            f"{np.quantile(self.placebo_z, 0.95):.1f}"
            f"{'' if self.earlier else '; the log has no times, so who followed whom is not known'}"
        )

    def assumptions(self) -> tuple[Assumption, ...]:
        """What a world takes from the fit: nothing where the log does not identify it."""
        return (Assumption("friends", "strength", self.strength, "fitted", self.se),) * self.identified


def friends_of(
    log: InteractionLog, users: NDArray[np.int64], rows: NDArray[np.int64], pairs: NDArray[np.int64]
) -> Friends:
    """What the friends of the given users liked in the given rows of the log.

    Args:
        log: the log.
        users: [U] whose friends.
        rows: which rows may be read.
        pairs: [m, 2] users who are friends of each other.
    """
    place = np.full(log.catalogue.n_users, -1)
    place[users] = np.arange(len(users))
    links = _links(pairs)
    links = links[place[links[:, 0]] >= 0]
    link, row = _Likes(log, rows).of(links[:, 1])
    n_items = log.catalogue.n_items
    edges = np.unique(place[links[link, 0]] * n_items + log.item[row])
    start = np.searchsorted(edges, np.arange(len(users) + 1) * n_items)
    return Friends(start.astype(np.int64), edges % n_items)


def _links(pairs: Ints) -> Ints:
    """[m, 2] each friendship both ways, once; nobody is a friend of theirs."""
    both = np.unique(np.vstack([pairs, pairs[:, ::-1]]), axis=0)
    return np.asarray(both[both[:, 0] != both[:, 1]])


class _Likes:
    """Rows of the log with the primary behaviour, by user."""

    def __init__(self, log: InteractionLog, rows: Ints) -> None:
        self._rows = rows[log.primary[rows] > 0]
        self._start = np.searchsorted(log.user[self._rows], np.arange(log.catalogue.n_users + 1))

    def of(self, users: Ints) -> tuple[Ints, Ints]:
        """Place among the given users [m], who may stand there twice, and row of each of their likes."""
        first, count = self._start[users], np.diff(self._start)[users]
        place = np.repeat(np.arange(len(users)), count)
        within = np.arange(len(place)) - np.repeat(np.cumsum(count) - count, count)
        return place, self._rows[first[place] + within]


def friends_in_log(
    log: InteractionLog, split: Split, role: int, pairs: Ints, logits: Callable[[Ints], Floats]
) -> FriendsFit:
    """Fit friends' influence on the late rows of a role's tuning users, by what friends of that role liked.

    Only likes among the friends' early rows are read, and where the log has times only those earlier than the row.

    Args:
        log: the log.
        split: roles, and which rows are late.
        role: whose users may be read.
        pairs: [m, 2] users who are friends of each other.
        logits: the preference model on rows of the log.

    Raises:
        ValueError: too few rows with or without an item that a friend liked.
    """
    rng = np.random.default_rng(_SEED)
    users, everybody = split.users(role, tuning=True), split.users(role)
    rows, early = split.rows(log, users, late=True), split.rows(log, everybody, late=False)
    likes = _Likes(log, early)
    pair = log.user[rows] * log.catalogue.n_items + log.item[rows]
    distinct, of_row = np.unique(pair, return_inverse=True)

    def liked(links: Ints) -> NDArray[np.bool_]:
        link, row = likes.of(links[:, 1])
        wanted = links[link, 0] * log.catalogue.n_items + log.item[row]
        at = np.minimum(np.searchsorted(distinct, wanted), len(distinct) - 1)
        there = distinct[at] == wanted
        if not log.has_time:
            return np.bincount(at[there], minlength=len(distinct))[of_row] > 0
        first = np.full(len(distinct), np.inf)  # time at which a friend first liked it
        np.minimum.at(first, at[there], log.time[row[there]])
        return first[of_row] < log.time[rows]

    links = _links(pairs)
    own = links[np.isin(links[:, 0], users) & np.isin(links[:, 1], everybody)]
    strangers = (liked(np.column_stack([own[:, 0], rng.choice(everybody, len(own))])) for _ in range(_PLACEBOS))
    y = log.primary[rows].astype(np.float64)
    fit = fit_friends(y, logits(rows), liked(own), log.user[rows], strangers, rng)
    return replace(fit, earlier=log.has_time)


def fit_friends(
    y: Floats,
    offset: Floats,
    liked: NDArray[np.bool_],
    user: Ints,
    placebos: Iterable[NDArray[np.bool_]],
    rng: np.random.Generator,
) -> FriendsFit:
    """Logistic regression of the primary behaviour on a friend's liking, the preference model's logit as offset.

    Args:
        y: [n] 0 or 1.
        offset: [n] logit by the preference model.
        liked: [n] whether a friend liked the row's item.
        user: [n] cluster.
        placebos: P of [n], the same with strangers in place of friends.
        rng: deals users to folds.

    Raises:
        ValueError: too few rows of either kind.
    """
    touched = int(liked.sum())
    if min(touched, len(y) - touched) < FEWEST_ROWS:
        raise ValueError(
            f"{touched} of {len(y)} rows have an item that a friend liked; {FEWEST_ROWS} of each kind are needed"
        )
    clusters, of_user = np.unique(user, return_inverse=True)
    theta, error = _fit(y, offset, liked, of_user)
    z = abs(theta[1]) / error
    strange = [_fit(y, offset, placebo, of_user) for placebo in placebos if placebo.any() and not placebo.all()]
    placebo_z = np.array([0.0, *(abs(at[1]) / se for at, se in strange)])
    fold = rng.permutation(np.arange(len(clusters)) % _FOLDS)[of_user]
    saved = np.zeros(len(y))
    for one in range(_FOLDS):
        out, own = fold == one, fold != one
        if not out.any() or not liked[own].any():
            continue
        level = _level(y[own], offset[own])
        at, _ = _fit(y[own], offset[own], liked[own], of_user[own])
        saved[out] = _loss(y[out], offset[out] + level) - _loss(y[out], offset[out] + at[0] + at[1] * liked[out])
    sums = np.bincount(of_user, saved - saved.mean())
    gain, gain_se = float(saved.mean()), float(np.sqrt((sums**2).sum()) / len(y))
    found = z > 1.96 and z > np.quantile(placebo_z, 0.95) and gain > 1.96 * gain_se
    return FriendsFit(
        float(theta[1]), error, float(theta[0]), gain, gain_se, placebo_z, z, bool(found), len(y), touched
    )


def _fit(y: Floats, offset: Floats, liked: NDArray[np.bool_], cluster: Ints) -> tuple[Floats, float]:
    """Level and strength [2] by Newton's method with a prior of one logit's spread, and the strength's error."""
    design = np.column_stack([np.ones(len(y)), liked])
    theta, prior = np.zeros(2), np.diag([0.0, 1.0])
    for _ in range(12):
        p = 1 / (1 + np.exp(-(offset + design @ theta)))
        information = (design * (p * (1 - p))[:, None]).T @ design + prior
        theta = theta + np.linalg.solve(information, design.T @ (y - p) - prior @ theta)
    scores = design * (y - 1 / (1 + np.exp(-(offset + design @ theta))))[:, None]
    sums = np.column_stack([np.bincount(cluster, scores[:, k]) for k in range(2)])
    inverse = np.linalg.inv(information)
    return theta, float(np.sqrt((inverse @ (sums.T @ sums) @ inverse)[1, 1]))


def _level(y: Floats, offset: Floats) -> float:
    """Shift of all logits that fits best without friends."""
    level = 0.0
    for _ in range(12):
        p = 1 / (1 + np.exp(-(offset + level)))
        level += float((y - p).sum() / (p * (1 - p)).sum())
    return level


def _loss(y: Floats, logit: Floats) -> Floats:
    return np.logaddexp(0, logit) - y * logit
