"""What an agent's flight means for items: exposure against merit, and how much of it the popular ones get."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from evaluators.estimate import Estimate
from evaluators.fairness.exposure import (
    amortised_rank_unfairness,
    exposure_by_user,
    exposure_gini,
    exposure_share,
    provider_ratio,
)
from evaluators.fairness.groups import FEWEST_USERS
from evaluators.sessions import Sessions
from simulator.streams import stream

if TYPE_CHECKING:
    from simulator.world import World

Floats = NDArray[np.float64]

HEAD, TAIL = "head", "tail"
NAMES = ("exposure_share(head)", "exposure_per_merit(tail / head)", "exposure_gini", "attention_unfairness")


def item_groups(likes: Floats, share: float = 0.5) -> NDArray[np.str_]:
    """[I] `head` for the most liked items that hold this share of the train rows' likes, `tail` for the rest."""
    order = np.argsort(-likes, kind="stable")
    before = np.cumsum(likes[order]) - likes[order]
    group = np.full(len(likes), TAIL)
    group[order[before < share * likes.sum()]] = HEAD
    return group


def merit_of(world: World) -> NDArray[np.float64]:
    """[U, I] probability that each user likes each item at the start, as the judge world has it; 0 where barred."""
    starts = world.starts
    logit = starts.vector @ world.item_vectors.T + starts.bias[:, None] + world.item_bias[None, :]
    if world.friends is not None:
        liked = world.friends
        logit[np.repeat(np.arange(len(starts)), np.diff(liked.start)), liked.item] += world.value("friends", "strength")
    merit = expit(logit.astype(np.float64) + world.appeal_shift)
    histories = world.barred
    merit[np.repeat(np.arange(len(histories)), np.diff(histories.start)), histories.item] = 0.0
    return np.asarray(merit)


def item_fairness(
    sessions: Sessions, merit: Any, groups: NDArray[np.str_], root: np.random.SeedSequence, *, level: float = 0.95
) -> Mapping[str, Estimate]:
    """Exposure of items in one flight: Gini, head's share, exposure per merit of tail over head, amortised unfairness.

    Args:
        sessions: the flight.
        merit: [U, I] relevance in the judge world, in the order of its starts.
        groups: [I] `head` or `tail`.
        root: root of the streams.
        level: of the intervals; users are the unit, in one judge world.
    """
    if len(sessions) < FEWEST_USERS:
        why = f"users: {len(sessions)}, needs {FEWEST_USERS}; fly more users"
        return {name: Estimate.withhold(f"{name}; judge world 1", why, n=len(sessions), level=level) for name in NAMES}
    exposure, impressions = exposure_by_user(sessions, len(groups))

    def rng(name: str) -> np.random.Generator:
        return stream(root, "item fairness", name)

    found = (
        exposure_share(exposure, groups == HEAD, level=level),
        provider_ratio(exposure, merit, groups, TAIL, HEAD, rng("ratio"), resamples=500, level=level),
        exposure_gini(exposure, impressions, rng("gini"), level=level),
        amortised_rank_unfairness(exposure, merit, rng("amortised"), resamples=100, level=level),
    )
    return {name: estimate.note("judge world 1") for name, estimate in zip(NAMES, found, strict=True)}
