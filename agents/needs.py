"""What a log must hold for a kind of agent, and what to do where it does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from simulator.log import InteractionLog

__all__ = ["NEEDS", "lacking"]


@dataclass(frozen=True, slots=True)
class Need:
    """One thing that a log may hold.

    Attributes:
        held: whether a log does.
        mend: what is wrong where it does not, and what to do.
    """

    held: Callable[[InteractionLog], bool]
    mend: str


def _has_text(log: InteractionLog) -> bool:
    return any(text.strip() for text in log.catalogue.item_text)


def _has_categories(log: InteractionLog) -> bool:
    return bool(log.catalogue.item_categories.any())


def _is_shown(log: InteractionLog) -> bool:
    from simulator.datasets.build import UNLOGGED_POLICY

    return not log.self_selected or log.exposure == UNLOGGED_POLICY


NEEDS = {
    "times": Need(lambda log: log.has_time, "the log has no times; use popularity"),
    "user features": Need(
        lambda log: bool(np.ptp(log.catalogue.user_features, axis=0).any()),
        "the log's users have none that tells them apart; name data.policy_inputs, or use popularity",
    ),
    "item text": Need(_has_text, "the items have no text; name data.item_text"),
    "item categories": Need(_has_categories, "the log's catalogue has none; name data.item_categories"),
    "item text or categories": Need(
        lambda log: _has_text(log) or _has_categories(log),
        "the items have neither; name data.item_text or data.item_categories",
    ),
    "text, categories or data.modalities": Need(
        lambda log: _has_text(log) or _has_categories(log) or bool(log.catalogue.modalities),
        "the items have nothing to fuse; name data.item_text, data.item_categories or data.modalities",
    ),
    "a log of exposure": Need(
        _is_shown, "users chose what to rate, so the log has no policy of its own; use popularity"
    ),
}
"""By the words in which `list agents` says them."""


def lacking(needs: str, log: InteractionLog) -> str:
    """What a log lacks of what an agent needs, with what to do; empty where it lacks nothing.

    Args:
        needs: a key of `NEEDS`, or empty.
        log: whole, or the rows that the agent learns from.
    """
    return "" if not needs or NEEDS[needs].held(log) else NEEDS[needs].mend
