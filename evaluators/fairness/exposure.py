"""Exposure of items and providers, against merit."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from evaluators.estimate import Estimate
from evaluators.intervals import (
    Ratios,
    recentred_interval,
    standard_error,
    t_quantile,
)
from evaluators.metrics import FEWEST_IMPRESSIONS_PER_ITEM, gini, gini_scores
from evaluators.sessions import Sessions

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def exposure_by_user(
    sessions: Sessions, n_items: int, *, attention: Literal["log", "even"] | Floats = "log"
) -> tuple[Any, Floats]:
    """Attention that each item got from each user: sparse [U, I], and impressions of each user [U].

    Args:
        sessions: one flight.
        n_items: items I of the catalogue.
        attention: 1/log2(2 + position) ("log"), 1 ("even"), or [K] the simulator's own examination probabilities.
    """
    from scipy.sparse import csr_matrix

    n_users, steps, size = sessions.slate.shape
    if isinstance(attention, str):
        of_position = 1 / np.log2(2 + np.arange(size)) if attention == "log" else np.ones(size)
    else:
        of_position = np.asarray(attention, np.float64)
    item = sessions.slate.reshape(n_users, steps * size)
    shown = item >= 0
    user = np.broadcast_to(np.arange(n_users)[:, None], item.shape)[shown]
    weight = np.broadcast_to(np.tile(of_position, steps), item.shape)[shown]
    exposure = csr_matrix((weight, (user, item[shown])), shape=(n_users, n_items))
    return exposure, shown.sum(1).astype(np.float64)


def _too_few_impressions(impressions: int, n_items: int) -> str:
    each = impressions / max(1, n_items)
    return f"exposure: {each:.1f} impressions an item, needs {FEWEST_IMPRESSIONS_PER_ITEM}; fly more users"


def exposure_gini(
    exposure: Any,
    impressions: Floats,
    rng: np.random.Generator,
    *,
    eligible: NDArray[np.bool_] | None = None,
    level: float = 0.95,
) -> Estimate:
    """Gini of exposure over the catalogue, or over the eligible items: the metric `exposure_gini` of one flight.

    A handful of impressions is uneven by chance: under 10 impressions an item the value is withheld, and `by_chance` of
    the diagnostics is the mean Gini of multinomial draws of *even* exposure with the same number of impressions.

    Args:
        exposure: [U, I] sparse, from `exposure_by_user`.
        impressions: [U] impressions of each user.
        rng: draws the even exposure.
        eligible: [I] True for items that may be shown; None for the whole catalogue.
        level: of the interval.
    """
    n_users = exposure.shape[0]
    chosen = np.ones(exposure.shape[1], bool) if eligible is None else eligible
    n_items = int(chosen.sum())
    over = "the catalogue" if eligible is None else "eligible items"
    method = f"Gini of exposure over {over}, user t of jackknife scores"
    total = int(impressions.sum())
    if total < FEWEST_IMPRESSIONS_PER_ITEM * n_items:
        why = _too_few_impressions(total, n_items)
        return Estimate.withhold(method, why, n=n_users, level=level)
    shown = exposure.tocoo()
    kept = chosen[shown.col]
    scores = gini_scores(shown.row[kept], shown.col[kept], shown.data[kept], n_users, chosen)
    even = [gini(rng.multinomial(total, np.full(n_items, 1 / n_items)).astype(float)) for _ in range(20)]
    value, half = float(scores.mean()), t_quantile(level, n_users - 1) * float(scores.std(ddof=1)) / math.sqrt(n_users)
    found = {"by_chance": float(np.mean(even))}
    return Estimate(value, value - half, value + half, level, n_users, method, diagnostics=found)


def exposure_share(exposure: Any, chosen: NDArray[np.bool_], *, level: float = 0.95) -> Estimate:
    """Share of all attention that a group of items gets: a ratio of user sums, delta-method interval.

    Args:
        exposure: [U, I] sparse, from `exposure_by_user`.
        chosen: [I] True for the items of the group.
        level: of the interval.
    """
    mine = np.asarray(exposure[:, np.flatnonzero(chosen)].sum(1)).ravel()
    ratios = Ratios(mine[None], np.asarray(exposure.sum(1)).ravel()[None])
    method = "share of attention, ratio of user sums, user t"
    if not ratios.defined or ratios.n_users < 2:
        why = f"exposure: {ratios.n_users} users who were shown something, needs 2; fly more users"
        return Estimate.withhold(method, why, n=ratios.n_users, level=level)
    half = t_quantile(level, ratios.n_users - 1) * standard_error(ratios.scores())
    return Estimate(ratios.value, ratios.value - half, ratios.value + half, level, ratios.n_users, method)


def provider_ratio(
    exposure: Any,
    merit: Any,
    provider: NDArray[np.str_],
    first: str,
    second: str,
    rng: np.random.Generator,
    *,
    resamples: int = 1000,
    level: float = 0.95,
) -> Estimate:
    """Exposure per merit of one provider group over another's: disparate treatment (Singh, Joachims 2018); 1 is even.

    Args:
        exposure: [U, I] sparse attention, from `exposure_by_user`.
        merit: [U, I] relevance in the *judge world*, not the agent's own score.
        provider: [I] provider group of each item.
        first: group in the numerator.
        second: group in the denominator.
        rng: draws the user bootstrap.
        resamples: of the bootstrap.
        level: of the interval.
    """
    method = f"exposure per merit (judge world's) of {first} over that of {second}, user bootstrap of {resamples}"
    n_users = exposure.shape[0]
    columns = []
    for name in (first, second):
        items = np.flatnonzero(provider == name)
        columns += [np.asarray(exposure[:, items].sum(1)).ravel(), np.asarray(merit[:, items].sum(1)).ravel()]
    table = np.stack(columns)  # [4, U]
    total = table.sum(1)
    if (total <= 0).any():
        return Estimate.withhold(
            method, f"provider ratio: {first} or {second} has no exposure or no merit", n=n_users, level=level
        )

    def ratio(sums: Floats) -> Floats:
        # A resample in which the second group was never shown has no upper limit.
        with np.errstate(divide="ignore", invalid="ignore"):
            return (sums[..., 0] / sums[..., 1]) / (sums[..., 2] / np.maximum(sums[..., 3], 1e-300))

    weight = rng.multinomial(n_users, np.full(n_users, 1 / n_users), size=resamples)
    drawn = ratio(weight @ table.T)
    value = float(ratio(total))
    low, high = np.nanquantile(drawn, [0.5 - level / 2, 0.5 + level / 2])
    return Estimate(value, min(float(low), value), max(float(high), value), level, n_users, method)


def amortised_rank_unfairness(
    exposure: Any, relevance: Any, rng: np.random.Generator, *, resamples: int = 200, level: float = 0.95
) -> Estimate:
    """Sum over items of |share of attention - share of relevance| (Biega, Gummadi, Weikum 2018); 0 is fair, at most 2.

    Less the same sum under multinomial draws of the relevance shares: with few impressions it is large by chance.
    """
    method = f"sum |attention share - relevance share|, less its mean by chance, user bootstrap of {resamples}"
    n_users, n_items = exposure.shape
    attention = np.asarray(exposure.sum(0)).ravel()
    merit = np.asarray(relevance.sum(0)).ravel()
    impressions = int(exposure.getnnz())
    if impressions < FEWEST_IMPRESSIONS_PER_ITEM * n_items:
        why = _too_few_impressions(impressions, n_items)
        return Estimate.withhold(method, why, n=n_users, level=level)
    share = merit / merit.sum()
    by_chance = float(
        np.mean([np.abs(rng.multinomial(impressions, share) / impressions - share).sum() for _ in range(20)])
    )
    value = float(np.abs(attention / attention.sum() - share).sum()) - by_chance
    weight = rng.multinomial(n_users, np.full(n_users, 1 / n_users), size=resamples).astype(np.float64)
    a, r = (np.asarray(table.T @ weight.T) for table in (exposure, relevance))  # [I, resamples]
    drawn = np.abs(a / a.sum(axis=0) - r / r.sum(axis=0)).sum(axis=0) - by_chance
    low, high = recentred_interval(value, drawn, level)
    return Estimate(value, low, high, level, n_users, method, diagnostics={"by_chance": by_chance})
