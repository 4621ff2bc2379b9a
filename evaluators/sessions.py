"""Simulated sessions as columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

BY_ROW = ("user", "slate", "clicks", "length", "left", "reward", "followed", "could_follow", "relevance",
          "best_relevance")  # fmt: skip
"""Arrays of `Sessions` that have a row for each session, beside those in `after`."""


@dataclass(frozen=True, slots=True)
class Sessions:
    """One flight: U sessions of at most T slates of K positions; one session a user, or each that a user came back for.

    Rows of the arrays are the judge users in the order of the world's starts, so flights of two agents in one world
    and seed are paired row by row.

    Attributes:
        agent: name of the agent; world: number of the judge world; seed: simulation seed; training_seed: which
            training of the agent flew (0 where it does not learn).
        user: [U] index of the real user in the log: the cluster.
        slate: [U, T, K] int32 items shown; -1 where nothing was shown (left already, or an empty position).
        clicks: [U, T, K] uint8 primary behaviour.
        length: [U] int64 slates shown.
        left: [U] bool the user left before the horizon.
        reward: [U, T] float32 `simulator.reward` of each slate, 0 after the user left; None: one unit a click.
        session: number of the session, where several are flown for each user.
        after: like, purchase, dwell (seconds) or rating -> [U, T, K] float32 what followed each click, 0 elsewhere.
        followed: [U] bool the user came back for another session; None where users do not come back.
        could_follow: [U] bool another session was to be flown, had the user come back; None likewise.
        relevance: [U, T, K] float32 the world's own probability of the primary behaviour on each shown item, were it
            looked at alone at that moment; 0 where nothing was shown. None: not asked for, or a user's own class
            decides.
        best_relevance: [U, T, K] float32 the same of the K candidates of highest relevance, best first; None likewise.
    """

    agent: str
    world: int
    seed: int
    training_seed: int
    user: NDArray[np.int64]
    slate: NDArray[np.int32]
    clicks: NDArray[np.uint8]
    length: NDArray[np.int64]
    left: NDArray[np.bool_]
    reward: NDArray[np.float32] | None = None
    session: int = 0
    after: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    followed: NDArray[np.bool_] | None = None
    could_follow: NDArray[np.bool_] | None = None
    relevance: NDArray[np.float32] | None = None
    best_relevance: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.user)

    def first_rows(self, n: int) -> Sessions:
        """The first n sessions: of users who come back, those of the first visit."""
        if n == len(self):
            return self
        arrays = {name: value[:n] for name in BY_ROW if (value := getattr(self, name)) is not None}
        return replace(self, **arrays, after={kind: values[:n] for kind, values in self.after.items()})

    @property
    def shown(self) -> NDArray[np.bool_]:
        """[U, T, K] True where an item was shown."""
        return self.slate >= 0
