"""What a preference model is fitted to: early rows of fitting users, and tuning users that stop and calibrate."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from simulator.errors import InputError
from simulator.log import Histories, InteractionLog, Split, history_rows
from simulator.preference.model import Member

ROLE_NAMES = ("world A", "judge", "held out")


@dataclass(frozen=True, slots=True)
class Searches:
    """Queries whose answers a joint fit learns beside the users' rows.

    Attributes:
        vectors: [Q, p] text features of the queries, through the very shift and scale that made the items'.
        start: [Q + 1] judged items of query k are `start[k]:start[k + 1]` of the columns below.
        item: [q] the items.
        target: [q] share of the query's relevance that an item has: grades, scaled to a sum of 1.
    """

    vectors: NDArray[np.float32]
    start: NDArray[np.int64]
    item: NDArray[np.int64]
    target: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Problem:
    """Rows to fit and users to tune on.

    Attributes:
        histories: early rows of the fitting users; a user drawn twice by a bootstrap is there twice.
        features: [n, f] public features of the fitting users.
        n_items: number of items I.
        popularity: [I] centred log(1 + users in the fitted rows who met the item): what is known of a new row's item;
            0 of an item that is new.
        popularity_fitted: [I] the same of a fitted row's item, that row's own user left out.
        new: [I] whether the item stands in nobody's early rows, be it of other users than these.
        distinct_rows: rows to fit, a user drawn twice counted once; the penalty is weighed against them.
        tuning: early rows of the tuning users, with which they are folded in.
        tuning_features: [T, f].
        target_user: [k] tuning user (in [0, T)) of each target row: their late rows.
        target_item: [k].
        target: [k] 1.0 where the primary behaviour occurred.
        fitted_users, tuning_users: log indices, each once.
        rows, target_rows: [m], [k] row numbers in the log of the rows to fit and of the targets.
        taught: [m] probability that another model gives a row to fit, NaN where it says nothing; None: nowhere. Half
            of what such a row is fitted to.
        guessed: [m] whether a row's outcome is one that a model took for granted (`pseudo_labels`); None: nowhere.
        weight, target_weight: [m], [k] weight of each of them in the loss, of mean 1; None where all weigh the same.
        searches: queries that are learned beside the rows (`preference.search`); None: no queries.
    """

    histories: Histories
    features: NDArray[np.float32]
    n_items: int
    popularity: NDArray[np.float32]
    popularity_fitted: NDArray[np.float32]
    new: NDArray[np.bool_]
    distinct_rows: int
    tuning: Histories
    tuning_features: NDArray[np.float32]
    target_user: NDArray[np.int64]
    target_item: NDArray[np.int64]
    target: NDArray[np.float32]
    fitted_users: NDArray[np.int64]
    tuning_users: NDArray[np.int64]
    rows: NDArray[np.int64]
    target_rows: NDArray[np.int64]
    weight: NDArray[np.float32] | None = None
    target_weight: NDArray[np.float32] | None = None
    taught: NDArray[np.float32] | None = None
    guessed: NDArray[np.bool_] | None = None
    searches: Searches | None = None

    @property
    def base_logit(self) -> float:
        """Logit of the (weighted) rate in the rows to fit, one row of each kind added so that it is finite."""
        primary = self.histories.primary
        liked = float(primary.sum() if self.weight is None else primary @ self.weight)
        return float(np.log((liked + 1) / (len(self.histories.primary) - liked + 1)))

    def tuning_logit(self, member: Member) -> NDArray[np.float64]:
        """[k] logit of each target row of the tuning users, uncalibrated."""
        theta = member.fold_in(self.tuning, self.tuning_features)
        inner = np.einsum("kd,kd->k", theta[self.target_user, 1:], member.item_vectors[self.target_item])
        return inner.astype(np.float64) + theta[self.target_user, 0] + member.item_offset[self.target_item]

    def tuning_loss(self, logit: NDArray[np.float64]) -> NDArray[np.float64]:
        """[T] summed (weighted) log-loss of each tuning user's target rows."""
        loss = log_loss(logit, self.target)
        if self.target_weight is not None:
            loss = loss * self.target_weight
        return np.bincount(self.target_user, loss, minlength=len(self.tuning_users)).astype(np.float64)


def only(problem: Problem, keep: NDArray[np.bool_]) -> Problem:
    """The problem with these of its rows [m] alone."""
    history = problem.histories
    user = np.repeat(np.arange(len(history)), np.diff(history.start))
    start = np.concatenate([[0], np.cumsum(np.bincount(user[keep], minlength=len(history)))])
    return replace(
        problem,
        histories=Histories(start, history.item[keep], history.primary[keep]),
        rows=problem.rows[keep],
        distinct_rows=len(np.unique(problem.rows[keep])),
        weight=None if problem.weight is None else problem.weight[keep],
        guessed=None if problem.guessed is None else problem.guessed[keep],
    )


def popularity_of(
    user: NDArray[np.int64], item: NDArray[np.int64], new: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """How many users met each item, log(1 + count): for a new row's item, and for that of a fitted row.

    A fitted row's item was met by the row's own user, so its count says less than the same count of a new row's item:
    the own user is left out there. A user whom a bootstrap draws twice, or who met an item twice, counts once. Both
    are centred at the fitted rows' mean, and not scaled: counts that hardly differ should not matter.

    An item that others of the log met and these users did not is rare. One that nobody met is not thereby the rarest of
    all: it may have come in yesterday, so it stands at the centre.

    Args:
        user: [m] of the fitted rows.
        item: [m] of the fitted rows.
        new: [I] whether the item stands in nobody's early rows.
    """
    n_items = len(new)
    met = np.bincount(np.unique(user * n_items + item) % n_items, minlength=n_items).astype(np.float64)
    others = np.log1p(np.maximum(met - 1, 0))
    centre = others[item].mean()
    return np.where(new, 0.0, np.log1p(met) - centre).astype(np.float32), (others - centre).astype(np.float32)


def log_loss(logit: NDArray[np.float64], outcome: NDArray[np.float32]) -> NDArray[np.float64]:
    """Log-loss of each row, from logits."""
    return np.logaddexp(0.0, logit) - outcome * logit


def build_problem(
    log: InteractionLog, split: Split, role: int, *, resample: np.random.Generator | None = None
) -> Problem:
    """Collect what a role's preference model may be fitted to.

    Args:
        log: the log.
        split: who may see which rows.
        role: WORLD_A or JUDGE.
        resample: draws the fitting users with replacement where given.

    Raises:
        InputError: the role's users have no rows to fit, or none to tune on.
    """
    fitting, tuning = split.users(role, tuning=False), split.users(role, tuning=True)
    drawn = fitting if resample is None else np.sort(resample.choice(fitting, len(fitting)))
    start, rows = history_rows(log, drawn, keep=~split.late)
    histories = Histories(start, log.item[rows], log.primary[rows])
    late_start, target_rows = history_rows(log, tuning, keep=split.late)
    late = Histories(late_start, log.item[target_rows], log.primary[target_rows])
    if len(histories.item) == 0 or len(late.item) == 0:
        raise InputError(
            f"data.source: '{log.source}' leaves no rows to {'fit' if len(late.item) else 'tune'} the preference model "
            f"of the {ROLE_NAMES[role]} users; a log with more rows a user is needed"
        )
    new = np.bincount(log.item[~split.late], minlength=log.catalogue.n_items) == 0
    popularity, popularity_fitted = popularity_of(np.repeat(drawn, np.diff(histories.start)), histories.item, new)
    return Problem(
        histories=histories,
        features=log.catalogue.user_features[drawn],
        n_items=log.catalogue.n_items,
        popularity=popularity,
        popularity_fitted=popularity_fitted,
        new=new,
        distinct_rows=len(split.rows(log, np.unique(drawn), late=False)),
        tuning=split.histories(log, tuning),
        tuning_features=log.catalogue.user_features[tuning],
        target_user=np.repeat(np.arange(len(tuning)), np.diff(late.start)),
        target_item=late.item,
        target=late.primary,
        fitted_users=np.unique(drawn),
        tuning_users=tuning,
        rows=rows,
        target_rows=target_rows,
    )
