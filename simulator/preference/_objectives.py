"""What the heads minimise on hidden rows, in torch: each loss is a function of the logits that the user head gives.

Only `simulator.preference._two_tower` imports this module.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from simulator.log import Histories
from simulator.preference.model import Member
from simulator.preference.settings import PreferenceSettings

if TYPE_CHECKING:
    from simulator.preference._two_tower import Heads
    from simulator.preference.problem import Problem, Searches


@dataclass(frozen=True, slots=True)
class Group:
    """Users padded together, folded in from what is left of their histories.

    Attributes:
        users: [b] rows of the problem's histories.
        theta: [b, d + 1] their states, features of the user not included.
        known_user: [b] what their features say, or None.
        row: [b, H] place of each row in the histories; anything where no row is.
        logit, outcome: [b, H].
        target: [b, H] 1.0 where a row is hidden: these are what is predicted.
    """

    users: NDArray[np.int64]
    theta: torch.Tensor
    known_user: torch.Tensor | None
    row: NDArray[np.int64]
    logit: torch.Tensor
    outcome: torch.Tensor
    target: torch.Tensor

    def score(self, vector: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
        """[b, S] logits of items with vectors [b, S, d] and offsets [b, S]."""
        inner = torch.matmul(vector, self.theta[:, 1:, None])[:, :, 0] + self.theta[:, :1] + offset
        return inner if self.known_user is None else inner + self.known_user[:, None]


class Objective:
    """The data part of the loss over one pass.

    Args:
        problem: the rows and their weights.
        settings: which loss and which correction.
        heads: the heads in training.
        features: [I, p] features of the items.
        hidden: [m] which rows are hidden in this pass.
        imputation: model of the outcome of every pair, for doubly robust learning.
        rng: draws items.
    """

    def __init__(
        self,
        problem: Problem,
        settings: PreferenceSettings,
        heads: Heads,
        features: torch.Tensor,
        hidden: NDArray[np.bool_],
        imputation: Member | None,
        rng: np.random.Generator,
    ) -> None:
        self.problem, self.settings, self.heads, self.features, self.rng = problem, settings, heads, features, rng
        self.weight = problem.weight
        self.imputation, self.imputed = imputation, None
        if imputation is not None:
            # The imputed outcome of a hidden row must not have seen it, so its user is folded in from the rest.
            history = problem.histories
            user = np.repeat(np.arange(len(history)), np.diff(history.start))
            kept = ~hidden
            start = np.concatenate([[0], np.cumsum(np.bincount(user[kept], minlength=len(history)))])
            rest = Histories(start, history.item[kept], history.primary[kept])
            self.imputed = imputation.fold_in(rest, problem.features)
        if settings.loss == "sampled_softmax":
            met = np.bincount(problem.histories.item, problem.histories.primary, problem.n_items) + 1.0
            self.chance = met / met.sum()  # items are drawn as often as they are liked, so that easy ones are few
            self.log_chance = torch.from_numpy(np.log(self.chance).astype(np.float32))

    def __call__(self, group: Group) -> tuple[torch.Tensor, float]:
        """Summed loss of a group's hidden rows, and the weight of what it sums over."""
        if self.settings.loss == "pairwise":
            return pairwise(group.logit, group.outcome, group.target)
        if self.settings.loss == "sampled_softmax":
            return self._sampled_softmax(group)
        target = group.target
        if self.weight is not None:
            target = target * torch.from_numpy(self.weight[group.row])
        if self.imputation is not None:
            return self._doubly_robust(group, target)
        outcome = group.outcome
        if self.problem.taught is not None:
            taught = torch.from_numpy(self.problem.taught[group.row])
            outcome = torch.where(torch.isnan(taught), outcome, (outcome + taught) / 2)
        each = functional.binary_cross_entropy_with_logits(group.logit, outcome, reduction="none")
        return (each * target).sum(), float(target.sum())

    def _doubly_robust(self, group: Group, target: torch.Tensor) -> tuple[torch.Tensor, float]:
        """Cross-entropy with the imputed outcome q over drawn pairs, corrected on the rows (Guo et al., 2021: MRDR).

        Cross-entropy is linear in the outcome, so the correction of each row, CE(z, y) - CE(z, q), is (q - y) z.
        """
        assert self.imputation is not None
        assert self.imputed is not None
        state = self.imputed[group.users]
        drawn = self.rng.integers(0, self.problem.n_items, (len(group.users), self.settings.sampled_items))
        vector, offset = self._items(drawn)
        logit = group.score(vector, offset)
        q = torch.from_numpy(_probability(self.imputation, state, drawn))
        count = target.sum()
        pairs = functional.binary_cross_entropy_with_logits(logit, q)
        item = self.problem.histories.item[group.row]
        q_row = torch.from_numpy(_probability(self.imputation, state, item))
        return pairs * count + (target * (q_row - group.outcome) * group.logit).sum(), float(count)

    def _sampled_softmax(self, group: Group) -> tuple[torch.Tensor, float]:
        """Each liked hidden row's item against drawn ones, chances of the draw taken out (Yi et al., 2019: logQ)."""
        liked = group.target * group.outcome
        if not bool(liked.any()):
            return group.logit.sum() * 0, 0.0
        drawn = self.rng.choice(self.problem.n_items, (len(group.users), self.settings.sampled_items), p=self.chance)
        vector, offset = self._items(drawn)
        others = group.score(vector, offset) - self.log_chance[drawn]  # [b, S]
        item = self.problem.histories.item[group.row]
        own = group.logit - self.log_chance[item]  # [b, H]
        same = torch.from_numpy(drawn[:, None, :] == item[:, :, None])  # a draw of the liked item itself is no rival
        rivals = others[:, None, :].masked_fill(same, -torch.inf)
        each = torch.logsumexp(torch.cat([own[:, :, None], rivals], dim=2), dim=2) - own
        return (each * liked).sum(), float(liked.sum())

    def _items(self, which: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        """Vectors [b, S, d] and offsets [b, S] of items as in new rows."""
        chosen, place = np.unique(which, return_inverse=True)
        index = torch.from_numpy(chosen)
        vector, offset = self.heads.items(self.features[index], index, fitted=False)
        local = torch.from_numpy(place.reshape(which.shape))
        return functional.embedding(local, vector), offset[local]


class SearchObjective:
    """L_s of a joint loss (Zamani and Croft, 2018): each query's items against those of the other queries in a step.

    A softmax over the catalogue, of which a step sees a sample: items judged for the query itself are always in it,
    another item is by the chance that one of the other queries in the step is judged for it. The log of that chance is
    taken off (logQ). What the softmax is fitted to are the grades, scaled to a sum of 1 (ListNet: Cao et al., 2007); an
    item judged irrelevant is a rival like any other, only a surer one.

    Of a query with more judged items than `most` some are drawn, half of them or more of those with a grade. Then its
    own items have a chance too: it is taken off as a rival's is, and grades are divided by it before they are scaled.

    Args:
        searches: the queries.
        size: queries a step.
        rng: draws them.
        most: judged items of a query in a step at most, 1 or more; None: all.
    """

    def __init__(self, searches: Searches, size: int, rng: np.random.Generator, most: int | None = None) -> None:
        self.searches, self.rng = searches, rng
        self.n = len(searches.vectors)
        self.size = min(size, self.n)
        length = np.diff(searches.start)
        graded = searches.target > 0
        query = np.repeat(np.arange(self.n), length)
        of_kind = np.bincount(2 * query + graded, minlength=2 * self.n).reshape(-1, 2)  # [Q, 2] without a grade, with
        most = int(length.max()) if most is None else most
        with_grade = np.minimum(of_kind[:, 1], np.maximum(most - of_kind[:, 0], (most + 1) // 2))
        self.taken = np.stack([np.minimum(of_kind[:, 0], most - with_grade), with_grade], axis=1)  # [Q, 2]
        share = self.taken / np.maximum(of_kind, 1)
        share = share[query, graded.astype(np.int64)]  # [q] chance of a judged item once its query is drawn
        self.some_left_out = share.min() < 1
        with np.errstate(divide="ignore", invalid="ignore"):
            left_out = np.log1p(-share * (self.size - 1) / max(self.n - 1, 1))
            by_any = np.bincount(searches.item, left_out)[searches.item]
            by_others = -np.expm1(by_any - left_out)
            own = np.where(share < 1, 1 - (1 - share) * (1 - by_others), 1.0)
            self.log_chance = np.log(-np.expm1(by_any)).astype(np.float32)
            self.own_log_chance = np.log(own).astype(np.float32)
        self.target = (searches.target / np.where(graded, own, 1.0)).astype(np.float32)

    def draw(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Queries of a step [b], and the distinct items [c] judged for them."""
        queries = self.rng.choice(self.n, self.size, replace=False)
        rows = self._rows(queries)
        if self.some_left_out:
            rows = np.concatenate([self._some(int(query)) for query in queries])
        return queries, np.unique(self.searches.item[rows])

    def scores(
        self, queries: NDArray[np.int64], items: NDArray[np.int64], query: torch.Tensor, item: torch.Tensor
    ) -> torch.Tensor:
        """[b, c] logits of queries with vectors [b, s] for items with vectors [c, s], less the log of their chance."""
        who, place, rows = self._places(queries, items)
        chance = np.zeros(len(items), np.float32)
        chance[place] = self.log_chance[rows]
        log_chance = np.tile(chance, (len(queries), 1))
        log_chance[who, place] = self.own_log_chance[rows]
        return query @ item.T - torch.from_numpy(log_chance)

    def loss(self, queries: NDArray[np.int64], items: NDArray[np.int64], score: torch.Tensor) -> torch.Tensor:
        """Mean over the queries, from their scores [b, c]."""
        target = np.zeros((len(queries), len(items)), np.float32)
        who, place, rows = self._places(queries, items)
        target[who, place] = self.target[rows]
        if self.some_left_out:
            target /= target.sum(1, keepdims=True)
        return -(torch.from_numpy(target) * functional.log_softmax(score, dim=1)).sum(1).mean()

    def _places(
        self, queries: NDArray[np.int64], items: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Row and column, in scores [b, c], of each pair that is judged, and its place among all judged pairs."""
        rows = self._rows(queries)
        who = np.repeat(np.arange(len(queries)), np.diff(self.searches.start)[queries])
        place = np.minimum(np.searchsorted(items, self.searches.item[rows]), len(items) - 1)
        here = items[place] == self.searches.item[rows]
        return who[here], place[here], rows[here]

    def _some(self, query: int) -> NDArray[np.int64]:
        """Judged pairs of a query that a step takes."""
        rows = np.arange(self.searches.start[query], self.searches.start[query + 1])
        if self.taken[query].sum() == len(rows):
            return rows
        graded = self.searches.target[rows] > 0
        parts = [rows[~graded], rows[graded]]
        return np.concatenate(
            [self.rng.choice(part, k, replace=False) for part, k in zip(parts, self.taken[query], strict=True)]
        )

    def _rows(self, queries: NDArray[np.int64]) -> NDArray[np.int64]:
        start = self.searches.start
        return np.concatenate([np.arange(start[q], start[q + 1]) for q in queries])


def pairwise(logit: torch.Tensor, outcome: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Bayesian personalised ranking (Rendle et al., 2009) over each user's hidden rows: liked above not liked.

    logit, outcome, target: [b, H]. A user's pairs are averaged and count as often as the user has liked hidden rows.
    """
    liked, rest = target * outcome, target * (1 - outcome)
    each = functional.softplus(logit[:, None, :] - logit[:, :, None])  # [b, liked, rest]
    total = (each * liked[:, :, None] * rest[:, None, :]).sum(dim=(1, 2))
    pairs = liked.sum(1) * rest.sum(1)
    share = torch.where(pairs > 0, liked.sum(1) / pairs.clamp(min=1), torch.zeros_like(pairs))
    return (total * share).sum(), float((liked.sum(1) * (pairs > 0)).sum())


def _probability(member: Member, state: NDArray[np.float32], item: NDArray[np.int64]) -> NDArray[np.float32]:
    """[b, S] probabilities of items [b, S] for users with states [b, d + 1]."""
    logit = np.einsum("bd,bsd->bs", state[:, 1:], member.item_vectors[item]) + state[:, :1] + member.item_offset[item]
    return (1 / (1 + np.exp(-logit))).astype(np.float32)
