"""The log's rows as decisions: what was known before each, what was taken, what came of it and what was known next."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from agents.base import Observation, Training
from agents.features import Features
from simulator.log import InteractionLog

F32 = NDArray[np.float32]
Ints = NDArray[np.int64]

KEPT = 1 << 28
"""Numbers of states that are kept once computed (1 GB); where the log has more, each batch computes its own anew."""


@dataclass(frozen=True, slots=True)
class Transitions:
    """m decisions of the log, each with what came within the next rows of its user.

    Attributes:
        item: [m] item taken.
        reward: [m] primary behaviour of this row and, discounted, of the next `n_steps - 1`.
        following: [m] row at which the user is next decided for: `n_steps` further on.
        discount: [m] what the value there counts: gamma to the power `n_steps`; 0 where the user's rows end before.
    """

    item: Ints
    reward: F32
    following: Ints
    discount: F32


class LoggedChoices:
    """The log's rows as decisions of a policy that took one item at a time.

    Args:
        log: the train rows.
        features: tables by which users are described.
        slate_size: K, for the observation.
        length: rows before a decision that are looked at.
        shown_again: whether users may be shown again what they have met, as in the train world.
    """

    def __init__(
        self,
        log: InteractionLog,
        features: Features,
        *,
        slate_size: int,
        length: int = 50,
        shown_again: bool = False,
    ) -> None:
        self.log = log
        self._shown_again = shown_again
        self._features, self._slate_size, self._length = features, slate_size, length
        starts = log.row_starts()
        self._first, self._end = starts[log.user], starts[log.user + 1]
        width = features.users(self.before(np.zeros(0, np.int64))).state().shape[1]
        kept = len(log) if len(log) * width <= KEPT else 0
        self._states = np.empty((kept, width), np.float32)
        self._known = np.zeros(kept, bool)

    @classmethod
    def of(cls, training: Training, features: Features) -> LoggedChoices:
        """The choices of a training's log."""
        return cls(training.log, features, slate_size=training.slate_size, shown_again=training.shown_again)

    def before(self, rows: Ints) -> Observation:
        """What was known of the users of these rows just before them."""
        place, there = self.places(rows, self._length)
        return Observation(
            user_features=self.log.catalogue.user_features[self.log.user[rows]],
            history_items=np.where(there, self.log.item[place], -1),
            history_feedback=np.where(there, self.log.primary[place], 0).astype(np.float32),
            context=np.zeros((len(rows), 0), np.float32),
            candidates=None,
            step=np.zeros(len(rows), np.int64),
            slate_size=self._slate_size,
        )

    def places(self, rows: Ints, length: int, *, own: bool = False) -> tuple[Ints, NDArray[np.bool_]]:
        """[m, length] rows of the same user before each row (`own`: up to it), newest last, and whether they exist."""
        place = rows[:, None] - length + own + np.arange(length)[None, :]
        there = place >= self._first[rows, None]
        return np.where(there, place, 0), there

    def states(self, rows: Ints) -> F32:
        """[m, s + 1] state before each row, with the discount of the top place, which the networks read too."""
        if len(self._known):
            new = np.unique(rows[~self._known[rows]])
            if len(new):
                self._states[new] = self._features.users(self.before(new)).state()
                self._known[new] = True
            state = self._states[rows]
        else:
            state = self._features.users(self.before(rows)).state()
        return np.concatenate([state, np.zeros((len(rows), 1), np.float32)], axis=1)

    @cached_property
    def _once(self) -> bool:
        """Whether nobody meets an item twice, in the log or where it is learned for."""
        cells = self.log.user.astype(np.int64) * self.log.catalogue.n_items + self.log.item
        return not self._shown_again and len(np.unique(cells)) == len(self.log)

    def met(self, rows: Ints) -> NDArray[np.bool_]:
        """[m, I] items that the users of these rows had met before, where nobody meets one twice; else none.

        Such an item cannot come next. Whoever takes it for one that was not chosen learns that users of long histories
        shun what is popular, which they have behind them.
        """
        out = np.zeros((len(rows), self.log.catalogue.n_items), bool)
        if self._once:
            length = rows - self._first[rows]
            owner = np.repeat(np.arange(len(rows)), length)
            place = np.arange(len(owner)) - np.repeat(np.cumsum(length) - length, length)
            out[owner, self.log.item[self._first[rows][owner] + place]] = True
        return out

    def transitions(self, rows: Ints, *, gamma: float, n_steps: int = 1) -> Transitions:
        """What came of these rows."""
        ahead = rows[:, None] + np.arange(n_steps)[None, :]
        there = ahead < self._end[rows, None]
        clicks = np.where(there, self.log.primary[np.where(there, ahead, 0)], 0)
        goes_on = rows + n_steps < self._end[rows]
        return Transitions(
            item=self.log.item[rows].astype(np.int64),
            reward=(clicks @ gamma ** np.arange(n_steps)).astype(np.float32),
            following=np.where(goes_on, rows + n_steps, rows),
            discount=np.where(goes_on, gamma**n_steps, 0).astype(np.float32),
        )


def in_order(training: Training) -> Training:
    """The training; in a log without times each user's rows (or slates) come in an order drawn at random.

    That of the file then says nothing of who met what first, and may say much else: Last.fm's goes by the number of the
    artist, so that what comes next would be the next higher number, and what is popular would come first.
    """
    log = training.log
    if log.has_time:
        return training
    together = np.arange(len(log)) if log.impression is None else log.impression
    drawn = training.rng.random(together.max() + 1)[together]
    order = np.lexsort((drawn, log.user))
    return replace(training, log=replace(log, **log.columns_of(order)))


def discounted_rows(log: InteractionLog, gamma: float) -> F32:
    """[n] primary behaviour of each row and, discounted, of the user's later ones."""
    returns = log.primary.astype(np.float64)
    same_user = log.user[:-1] == log.user[1:]
    # Doubling: after j rounds each row holds 2^j terms. Terms below 1e-4 are left out.
    reach, follows = 1, np.concatenate([same_user, [False]])
    while gamma**reach > 1e-4:
        later = np.zeros_like(returns)
        later[:-reach] = returns[reach:]
        returns = returns + gamma**reach * np.where(follows, later, 0)
        beyond = np.zeros_like(follows)
        beyond[:-reach] = follows[reach:]
        follows = follows & beyond
        reach *= 2
    return returns.astype(np.float32)
