"""Metrics read off simulated sessions: one number a user, or one of the whole set of users.

A metric of the set (coverage, Gini) also comes as one number a user, its *score*: the mean of the scores is the metric
and their spread is its sampling variance (infinitesimal or delete-one jackknife). So differences, training seeds and
worlds are treated by one code for all metrics, and users stay the unit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from evaluators.sessions import Sessions
from simulator.errors import InputError, did_you_mean

FEWEST_IMPRESSIONS_PER_ITEM = 10
"""Below this the Gini of even exposure itself is above .17 by chance, so an observed one says little."""


@dataclass(frozen=True, slots=True)
class Reference:
    """What metrics need beside the sessions, the same for all agents.

    Attributes:
        item_rows: [I] rows of each item in the log's train rows; novelty counts an item without rows as one row.
        eligible: [I] bool, items that may be shown.
        content: [I, d] float32 content vectors of unit length, or None where the items have none.
        oracle_reward: [G] the oracle's reward on the same users, world and seed, or None where it did not fly.
    """

    item_rows: NDArray[np.int64]
    eligible: NDArray[np.bool_]
    content: NDArray[np.float32] | None = None
    oracle_reward: NDArray[np.float64] | None = None


@dataclass(frozen=True, slots=True)
class Metric:
    """A row of the table of metrics.

    Attributes:
        about: what it says, in one line.
        unit: unit of the value.
        of: "user" where each user has a value of their own, "set" where only all users together do.
        per_user: computes [G] values (of the real users, in order of first appearance) or scores.
        higher_is_better: direction in which agents are ranked.
        behaviour: True where the value is made of users' acts, so that the picks check may correct it; False where it
            only says what was shown.
        rate: True for a share of yes/no events among the shown positions.
        needs: says why the metric is undefined on these sessions, or None.
        graded: whether it reads the relevance of what was shown, which a flight has to record.
    """

    about: str
    unit: str
    of: Literal["user", "set"]
    per_user: Callable[[Sessions, Reference], NDArray[np.float64]]
    higher_is_better: bool = True
    behaviour: bool = True
    rate: bool = False
    needs: Callable[[Sessions, Reference], str | None] = lambda sessions, reference: None
    graded: bool = False


def user_metric(name: str, sessions: Sessions, reference: Reference) -> NDArray[np.float64]:
    """[G] value of each real user (or score, for a metric of the set), in order of first appearance.

    A user with several rows gets the mean of them. NaN where the metric is undefined; `why_undefined` says why.
    """
    metric = metric_named(name)
    if metric.needs(sessions, reference) is not None:
        return np.full(len(real_users(sessions)[0]), np.nan)
    return metric.per_user(sessions, reference)


def why_undefined(name: str, sessions: Sessions, reference: Reference) -> str | None:
    """Why a metric has no value on these sessions, in words; None where it has."""
    return metric_named(name).needs(sessions, reference)


def graded(metrics: Iterable[str]) -> bool:
    """Whether one of the metrics reads relevances."""
    return any(metric_named(name).graded for name in metrics)


def metric_named(name: str) -> Metric:
    """The table's row.

    Raises:
        InputError: there is no such metric.
    """
    if name not in METRICS:
        raise InputError(f"metric: '{name}' is not a metric{did_you_mean(name, METRICS)} (`windtunnel list metrics`)")
    return METRICS[name]


def real_users(sessions: Sessions) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Real users [G] in order of first appearance, and the place [U] of each row's user among them."""
    users, first, place = np.unique(sessions.user, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return users[order], rank[place]


def _by_user(of_row: NDArray[np.float64], sessions: Sessions) -> NDArray[np.float64]:
    """Mean over the rows of each real user."""
    users, place = real_users(sessions)
    if len(users) == len(of_row):
        return of_row
    return np.bincount(place, of_row, len(users)) / np.bincount(place, minlength=len(users))


def session_reward(sessions: Sessions) -> NDArray[np.float64]:
    """[U] sum of `simulator.reward` over each session."""
    return (
        (sessions.clicks if sessions.reward is None else sessions.reward)
        .reshape(len(sessions), -1)
        .sum(axis=1, dtype=np.float64)
    )


def _reward(sessions: Sessions, reference: Reference) -> NDArray[np.float64]:
    return _by_user(session_reward(sessions), sessions)


def _regret(sessions: Sessions, reference: Reference) -> NDArray[np.float64]:
    assert reference.oracle_reward is not None
    return reference.oracle_reward - _reward(sessions, reference)


def click_counts(sessions: Sessions) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """[U] primary behaviours and [U] shown positions of each session."""
    shown = (sessions.slate >= 0).sum(axis=(1, 2), dtype=np.float64)
    return sessions.clicks.sum(axis=(1, 2), dtype=np.float64), shown


def _click_rate(sessions: Sessions, reference: Reference) -> NDArray[np.float64]:
    clicks, shown = click_counts(sessions)
    return _by_user(clicks / shown, sessions)


def _session_length(sessions: Sessions, reference: Reference) -> NDArray[np.float64]:
    return _by_user(sessions.length.astype(np.float64), sessions)


def _mean_over(part: NDArray[np.float64], whole: NDArray[np.float64], sessions: Sessions) -> NDArray[np.float64]:
    """Scores of sum(part) / sum(whole) over users, where many users have nothing in the denominator.

    A user without a click has no share of likes. The ratio's influence of each user stands for the user's value, so
    that the mean is the ratio over all users, and its spread is that of a ratio.
    """
    users, place = real_users(sessions)
    rows = np.bincount(place, minlength=len(users))
    part, whole = np.bincount(place, part, len(users)) / rows, np.bincount(place, whole, len(users)) / rows
    ratio = part.sum() / whole.sum()
    return np.asarray(ratio + (part - ratio * whole) / whole.mean())


def _like_rate(sessions: Sessions, reference: Reference) -> NDArray[np.float64]:
    likes = sessions.after["like"].sum(axis=(1, 2), dtype=np.float64)
    return _mean_over(likes, sessions.clicks.sum(axis=(1, 2), dtype=np.float64), sessions)


def _dwell(sessions: Sessions, reference: Reference) -> NDArray[np.float64]:
    return _by_user(sessions.after["dwell"].sum(axis=(1, 2), dtype=np.float64), sessions)


def _return_rate(sessions: Sessions, reference: Reference) -> NDArray[np.float64]:
    assert sessions.followed is not None
    assert sessions.could_follow is not None
    users, place = real_users(sessions)
    could = np.bincount(place, sessions.could_follow, len(users))
    return np.asarray(np.bincount(place, sessions.followed, len(users)) / could)


def _mean_of_slates(of_slate: Any, sessions: Sessions) -> NDArray[np.float64]:
    """Mean over the slates [U, T] that showed something, then over the rows of each real user."""
    there = sessions.shown.any(axis=2)
    return _by_user((of_slate * there).sum(axis=1, dtype=np.float64) / there.sum(axis=1), sessions)


def _gain(relevance: NDArray[np.float32]) -> NDArray[np.float64]:
    """[U, T] discounted gain of each slate [U, T, K]: 2^grade - 1 over log2(1 + place), places from 1."""
    return np.asarray(np.expm1(np.log(2.0) * relevance) @ (1 / np.log2(2 + np.arange(relevance.shape[2]))))


def _ndcg(sessions: Sessions, reference: Reference) -> NDArray[np.float64]:
    assert sessions.relevance is not None
    assert sessions.best_relevance is not None
    best = _gain(sessions.best_relevance)
    return _mean_of_slates(_gain(sessions.relevance) / np.where(best > 0, best, 1.0), sessions)


def _err(sessions: Sessions, reference: Reference) -> NDArray[np.float64]:
    assert sessions.relevance is not None
    relevance = sessions.relevance.astype(np.float64)
    not_yet = np.cumprod(1 - relevance, axis=2)
    not_yet = np.concatenate([np.ones_like(not_yet[:, :, :1]), not_yet[:, :, :-1]], axis=2)
    return _mean_of_slates((not_yet * relevance) @ (1 / np.arange(1, relevance.shape[2] + 1)), sessions)


def _mrr(sessions: Sessions, reference: Reference) -> NDArray[np.float64]:
    clicked = sessions.clicks > 0
    first = np.where(clicked.any(axis=2), 1 / (1 + clicked.argmax(axis=2)), 0.0)
    return _mean_of_slates(first, sessions)


def _abandonment(sessions: Sessions, reference: Reference) -> NDArray[np.float64]:
    return _mean_of_slates(1.0 - (sessions.clicks > 0).any(axis=2), sessions)


def _diversity(sessions: Sessions, reference: Reference) -> NDArray[np.float64]:
    assert reference.content is not None
    from evaluators.slate_distance import mean_slate_distance  # numba is slow to import, and most need no metric

    return _by_user(mean_slate_distance(sessions.slate, reference.content), sessions)


def _novelty(sessions: Sessions, reference: Reference) -> NDArray[np.float64]:
    rows = np.maximum(reference.item_rows, 1)
    bits = -np.log2(rows / reference.item_rows.sum())
    shown = sessions.slate >= 0
    total = np.where(shown, bits[np.where(shown, sessions.slate, 0)], 0.0).sum(axis=(1, 2))
    return _by_user(total / shown.sum(axis=(1, 2)), sessions)


def _coverage(sessions: Sessions, reference: Reference) -> NDArray[np.float64]:
    """Scores of the share of eligible items shown to anyone.

    Without user u the coverage falls by the items that only u was shown, so the delete-one jackknife is exact and
    needs no resampling. (A bootstrap of users would repeat users, lose items and be biased downwards.)
    """
    users, place = real_users(sessions)
    seen = np.zeros((len(users), len(reference.item_rows)), bool)
    row, step, k = np.nonzero(sessions.slate >= 0)
    seen[place[row], sessions.slate[row, step, k]] = True
    seen &= reference.eligible
    shown_to = seen.sum(axis=0)
    only = seen[:, shown_to == 1].sum(axis=1)
    n, n_items = len(users), reference.eligible.sum()
    return ((shown_to > 0).sum() + (n - 1) * (only - only.mean())) / n_items


def _exposure_gini(sessions: Sessions, reference: Reference) -> NDArray[np.float64]:
    users, place = real_users(sessions)
    row, slate, attention = _exposures(sessions, reference)
    return gini_scores(place[row], slate, attention, len(users), reference.eligible)


def gini_scores(
    user: NDArray[np.integer[Any]],
    item: NDArray[np.integer[Any]],
    attention: NDArray[np.float64],
    n_users: int,
    eligible: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """[n_users] scores of the Gini of exposure: its derivative by the weight of each user (infinitesimal jackknife).

    Args:
        user: [m] of every impression of an eligible item.
        item: [m] that was shown.
        attention: [m] that it had.
        n_users: users.
        eligible: [I] True for items that may be shown.
    """
    exposure: NDArray[np.float64] = np.bincount(item, attention, len(eligible))[eligible].astype(np.float64)
    place_of_item = np.zeros(len(eligible))
    place_of_item[eligible] = gini_places(exposure)
    value = gini(exposure)
    of_user = np.bincount(user, attention * (place_of_item[item] - value), n_users)
    return value + n_users * of_user / exposure.sum()


def gini_places(exposure: NDArray[np.float64]) -> NDArray[np.float64]:
    """[I] (2 rank - I - 1) / I, ranks from 1: the derivative of the Gini coefficient by an item's share of exposure.

    Items of equal exposure get their mean rank, so that nothing depends on the order of the catalogue, or of a sum.
    """
    n = len(exposure)
    equal = np.round(exposure / max(float(exposure.max(initial=0.0)), 1e-300), 12)
    _, group, count = np.unique(equal, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[group]
    places: NDArray[np.float64] = (2 * rank - n - 1) / n
    return places


def gini(exposure: NDArray[np.float64]) -> float:
    """Gini coefficient of non-negative exposures [I]: 0 even, towards 1 when one item has all."""
    total = float(exposure.sum())
    return float(gini_places(exposure) @ exposure) / total if total > 0 else 0.0


def _exposures(
    sessions: Sessions, reference: Reference
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Row, item and attention (1/log2(1 + slot), slots from 1) of every shown eligible item."""
    row, step, k = np.nonzero(sessions.slate >= 0)
    item = sessions.slate[row, step, k].astype(np.int64)
    keep = reference.eligible[item]
    return row[keep], item[keep], 1 / np.log2(2 + k[keep])


def _needs_shown(sessions: Sessions, reference: Reference) -> str | None:
    empty = int((~(sessions.slate >= 0).any(axis=(1, 2))).sum())
    return f"shown positions: {empty} users were shown nothing, needs 0; show each at least one item" if empty else None


def _needs_after(kind: str) -> Callable[[Sessions, Reference], str | None]:
    def why(sessions: Sessions, reference: Reference) -> str | None:
        if kind in sessions.after:
            return None
        return f"{kind}: users do nothing of the kind here; name a column of the log in simulator.behaviours"

    return why


def _needs_liked_clicks(sessions: Sessions, reference: Reference) -> str | None:
    if "like" in sessions.after and not sessions.clicks.any():
        return "clicks: 0, needs 1; a share of likes among clicks needs clicks"
    return _needs_after("like")(sessions, reference)


def _needs_returns(sessions: Sessions, reference: Reference) -> str | None:
    if sessions.followed is None:
        return "returning: users do not come back here; give simulator.returning and evaluate.sessions_per_user above 1"
    assert sessions.could_follow is not None
    return None if sessions.could_follow.any() else "sessions: 1 a user, needs 2; raise evaluate.sessions_per_user"


def _needs_relevance(sessions: Sessions, reference: Reference) -> str | None:
    if sessions.relevance is None:
        return "relevance: users of one's own class have no probability that could be asked for; use mrr or click_rate"
    return _needs_shown(sessions, reference)


def _needs_content(sessions: Sessions, reference: Reference) -> str | None:
    if reference.content is None:
        return "content vectors: the items have none; name data.item_text"
    if sessions.slate.shape[2] < 2:
        return "slate size: 1, needs 2; diversity is one between the items of a slate"
    single = int((~((sessions.slate >= 0).sum(axis=2) > 1).any(axis=1)).sum())
    return f"slates: {single} users saw no slate of two items, needs 0; show more than one" if single else None


def _needs_impressions(sessions: Sessions, reference: Reference) -> str | None:
    impressions = int((sessions.slate >= 0).sum())
    each = impressions / max(int(reference.eligible.sum()), 1)
    if each >= FEWEST_IMPRESSIONS_PER_ITEM:
        return None
    return f"impressions an item: {each:.2g}, needs {FEWEST_IMPRESSIONS_PER_ITEM}; fly more users"


def _needs_oracle(sessions: Sessions, reference: Reference) -> str | None:
    return "oracle: it did not fly; add an agent of kind oracle" if reference.oracle_reward is None else None


METRICS: dict[str, Metric] = {
    "reward": Metric("sum of simulator.reward over a session", "reward a session", "user", _reward),
    "click_rate": Metric(
        "primary behaviours / shown positions", "share", "user", _click_rate, rate=True, needs=_needs_shown
    ),
    "session_length": Metric("slates until the user leaves or the horizon ends", "slates", "user", _session_length),
    "like_rate": Metric("likes / clicks, over all users", "share", "set", _like_rate, needs=_needs_liked_clicks),
    "dwell": Metric(
        "seconds spent on what was clicked", "seconds a session", "user", _dwell, needs=_needs_after("dwell")
    ),
    "return_rate": Metric(
        "share of sessions followed by another, of those that could be",
        "share",
        "user",
        _return_rate,
        needs=_needs_returns,
    ),
    "ndcg": Metric(
        "discounted gain of a slate over that of the best candidates in the best order, mean over slates; gain 2^grade "
        "- 1, discount log2, grade: the judge world's own probability of the primary behaviour",
        "0 to 1, the best slate",
        "user",
        _ndcg,
        needs=_needs_relevance,
        graded=True,
    ),
    "err": Metric(
        "expected 1 / place at which a user who reads down a slate is first satisfied, by the judge world's own "
        "probabilities, mean over slates",
        "0 to 1",
        "user",
        _err,
        needs=_needs_relevance,
        graded=True,
    ),
    "mrr": Metric(
        "1 / place of the first primary behaviour in a slate, 0 where there is none, mean over slates",
        "0 to 1",
        "user",
        _mrr,
        needs=_needs_shown,
    ),
    "abandonment": Metric(
        "share of slates without a primary behaviour",
        "share of slates",
        "user",
        _abandonment,
        higher_is_better=False,
        needs=_needs_shown,
    ),
    "diversity": Metric(
        "mean over slates of the mean pairwise cosine distance of content vectors",
        "cosine distance",
        "user",
        _diversity,
        behaviour=False,
        needs=_needs_content,
    ),
    "novelty": Metric(
        "mean of -log2(share of the item in the train rows) over shown items",
        "bits",
        "user",
        _novelty,
        behaviour=False,
        needs=_needs_shown,
    ),
    "coverage": Metric(
        "share of the eligible catalogue shown to at least one of the users",
        "share",
        "set",
        _coverage,
        behaviour=False,
    ),
    "exposure_gini": Metric(
        "Gini of exposure (attention 1/log2(1 + slot)) over the eligible catalogue",
        "0 even to 1 all on one item",
        "set",
        _exposure_gini,
        higher_is_better=False,
        behaviour=False,
        needs=_needs_impressions,
    ),
    "regret": Metric(
        "oracle's reward minus the agent's, same user and noise",
        "reward a session",
        "user",
        _regret,
        higher_is_better=False,
        needs=_needs_oracle,
    ),
}
"""Metric by name."""
