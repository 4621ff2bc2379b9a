"""Agents that RecBole trains on the train rows, and that serve users whom it never saw."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, issparse

from agents.base import AgentError, Observation, Training
from agents.baselines import Ranking
from agents.recbole_training import (
    ENCODERS,
    SIMILARITY,
    Fitted,
    RecBoleSettings,
    asking,
    contained,
    full_scores,
    reads,
    recbole_model,
    refusals,
    train_passes,
)
from agents.teaching import teach, whole_passes
from agents.train_world import Act
from simulator.log import InteractionLog

F32 = NDArray[np.float32]

VECTORS = ("BPR", "LightGCN")
"""Models that score by inner products of user and item vectors, of which a new user's is folded in."""

NEIGHBOURS = 20
"""Trained users of most alike likes, as whose mean a user is served by models that know users by number alone."""

MOST_CELLS = 150_000_000
"""Scores of trained users that are kept for their neighbours: users times items at most."""

DENSE = ("ADMMSLIM", "EASE")
"""Models of `SIMILARITY` that compute every pair of items that someone liked."""

MOST_PAIRS = 400_000_000
"""Pairs of items of which these are let to: 1.6 GB are kept for 20,000 items, and several times that while it is
computed."""

UNKNOWN = np.float32(-1e6)
"""Score of items that no train user liked: RecBole has never seen them, so they are shown last."""


class Served(Protocol):
    """How a trained model scores users whom it was not trained on."""

    def scores(self, observation: Observation) -> F32:
        """[n, I] scores of the items for their histories; of no meaning for items that RecBole does not know."""
        ...


class RecBole(Ranking):
    """Ranks by a RecBole model that learned from the liked rows of the train users.

    No user that it meets was in the training. Item-item models (EASE, ItemKNN, ...) take the user's likes times their
    matrix, autoencoders (MultiVAE, RecVAE, ...) read them as a row, and sequential models (SASRec, NARM, ...) as a
    sequence, as RecBole itself does; where these read a user's number as well, it is that of the trained user with
    most alike likes. Models of vectors (BPR, LightGCN) keep their item vectors; the user's vector is folded in: a
    Newton step on the BPR loss of the likes, from a normal prior fitted to the trained users. All others (NeuMF,
    DeepFM, CFKG, ...) know users by number alone and serve a user as the trained users with most alike likes. Items
    that no train user liked are unknown to RecBole and come last.
    """

    def __init__(self, settings: RecBoleSettings) -> None:
        self.settings = settings
        self._known = np.zeros(0, np.int64)
        self._served: Served | None = None
        self._n_items = 0

    def fit(self, training: Training) -> None:
        """Let RecBole train on the liked rows.

        For models that learn by passes, steps are liked rows shown, `budget` is rounded to whole passes (one at least
        where it is above 0), and a limit in seconds ends the training after a pass. The others take their one pass,
        whatever the budget.

        Raises:
            AgentError: RecBole refuses the settings or the rows, or the log lacks what the model reads, or has more
                users and items than its tables can be kept for.
        """
        self._n_items = training.catalogue.n_items
        check_size(training.log, self.settings.model)
        with recbole_model(training.log, self.settings, training.seed) as fitted:
            self._known = fitted.known
            if self.settings.deterministic:
                train_passes(fitted, 1)
                self._served = self._serving(fitted)
            else:
                self._learn(training, fitted)

    def _learn(self, training: Training, fitted: Fitted) -> None:
        n_rows = fitted.n_rows
        passes = self.settings.epochs if training.budget is None else whole_passes(training.budget, n_rows)

        def act(served: Served) -> Act:
            self._served = served
            return self.act

        self._served = teach(training, lambda: _Passes(fitted, self._serving), act, budget=passes * n_rows, kept=False)

    def scores(self, observation: Observation) -> F32:
        """[n, I] RecBole's scores for the users' likes; far below all others for items it does not know."""
        if self._served is None:
            raise AgentError("the agent was asked before fit")
        found = self._served.scores(observation)
        unknown = np.ones(self._n_items, bool)
        unknown[self._known] = False
        found[:, unknown] = UNKNOWN
        return found

    def _serving(self, fitted: Fitted) -> Served:
        model, n_items = self.settings.model, self._n_items
        if model in SIMILARITY:
            return ByMatrix.of(getattr(fitted.model, SIMILARITY[model]), fitted, n_items)
        if model == "Pop":
            return ForAll(full_scores(fitted, np.array([1]))[0, fitted.known_rows], fitted.known, n_items)
        if model in VECTORS:
            users, items = _vectors_of(fitted)
            table = np.zeros((n_items, items.shape[1]))
            table[fitted.known] = items[fitted.known_rows]
            return FoldIn.of(users, table, fitted.known, self.settings.negatives)
        with refusals(model):
            if model in ENCODERS:
                return ByNetwork(pickle.dumps(fitted.model), fitted.known, n_items, trained=None)
            if "order" in reads(model):
                return ByNetwork(pickle.dumps(fitted.model), fitted.known, n_items, trained=fitted.likes)
            return ByNeighbours.of(fitted, n_items)


class _Passes:
    """RecBole's own training, pass by pass; its objects hold what no pickle takes."""

    def __init__(self, fitted: Fitted, policy: Callable[[Fitted], Served]) -> None:
        self._fitted, self._policy = fitted, policy

    @property
    def steps(self) -> int:
        return self._fitted.passes * self._fitted.n_rows

    def advance(self) -> bool:
        train_passes(self._fitted, 1)
        return True

    def policy(self) -> Served:
        return self._policy(self._fitted)


def check_size(log: InteractionLog, model: str) -> None:
    """Hold a log against what a model's tables take, before it is trained.

    Raises:
        AgentError: there are too many items, or users and items.
    """
    n_items = log.catalogue.n_items
    liked = log.primary > 0
    n_known = len(np.unique(log.item[liked]))
    if model in DENSE and n_known**2 > MOST_PAIRS:
        raise AgentError(
            f"RecBole's {model} computes all pairs of the {n_known} items that were liked, and {MOST_PAIRS} pairs are "
            f"the most, which is {math.isqrt(MOST_PAIRS)} items; take recbole:ItemKNN, recbole:BPR or "
            "recbole:MultiVAE, or fewer items"
        )
    if not (model in (*SIMILARITY, *VECTORS, *ENCODERS, "Pop") or "order" in reads(model)):
        n_users = len(np.unique(log.user[liked]))
        if n_users * n_items > MOST_CELLS:
            raise AgentError(
                f"RecBole's {model} knows users by number alone, and the scores of {n_users} users for {n_items} items "
                f"are more than the {MOST_CELLS} that are kept for their neighbours; take a model that reads "
                "histories, or fewer users"
            )


@dataclass(frozen=True, slots=True)
class ForAll:
    """The same scores for every user.

    Attributes:
        score: [m] of the items that RecBole knows; known: [m] their catalogue indices; n_items: I.
    """

    score: F32
    known: NDArray[np.int64]
    n_items: int

    def scores(self, observation: Observation) -> F32:
        """[n, I] scores."""
        out = np.zeros((len(observation), self.n_items), np.float32)
        out[:, self.known] = self.score
        return out


@dataclass(frozen=True, slots=True)
class ByMatrix:
    """Likes times an item-item matrix.

    Attributes:
        similarity: [m, m] among the items that RecBole knows; sparse where most pairs have none.
        known: [m] their catalogue indices; n_items: I.
    """

    similarity: F32 | csr_matrix
    known: NDArray[np.int64]
    n_items: int

    @classmethod
    def of(cls, matrix: Any, fitted: Fitted, n_items: int) -> ByMatrix:
        """From RecBole's own matrix [1 + m, 1 + m], dense or sparse."""
        if issparse(matrix):
            kept = csr_matrix(matrix, dtype=np.float32)[fitted.known_rows][:, fitted.known_rows]
        else:
            kept = np.asarray(matrix, np.float32)[np.ix_(fitted.known_rows, fitted.known_rows)]
        return cls(kept, fitted.known, n_items)

    def scores(self, observation: Observation) -> F32:
        """[n, I] scores."""
        found = likes_of(observation, self.n_items)[:, self.known] @ self.similarity
        out = np.zeros((len(observation), self.n_items), np.float32)
        out[:, self.known] = found.toarray() if issparse(found) else found
        return out


class ByNetwork:
    """RecBole's own network, asked for users of any history; it is unpickled where RecBole's traps are met.

    Args:
        network: the pickled model.
        known: [m] catalogue indices of the items that RecBole numbers from 1.
        n_items: I.
        trained: [u, I] likes of the users whom RecBole numbers from 1, for a network that reads likes one after
            another; None for one that reads them as one row.
    """

    def __init__(self, network: bytes, known: NDArray[np.int64], n_items: int, *, trained: csr_matrix | None) -> None:
        self._pickled, self._known, self._n_items, self._trained = network, known, n_items, trained
        self._network: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_network": None}

    def scores(self, observation: Observation) -> F32:
        """[n, I] scores."""
        import torch

        if self._network is None:
            with contained():
                self._network = pickle.loads(self._pickled)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with asking():
                found = self._of_rows(observation) if self._trained is None else self._of_sequences(observation)
        finally:
            torch.set_num_threads(threads)
        out = np.zeros((len(observation), self._n_items), np.float32)
        out[:, self._known] = found.reshape(len(observation), -1)[:, 1 : 1 + len(self._known)]
        return out

    def _of_rows(self, observation: Observation) -> F32:
        import torch

        model = self._network
        longest = max(observation.history_items.shape[1], 1)
        liked, _ = sequences_of(observation, self._known, self._n_items, longest)
        model.history_item_id = torch.as_tensor(liked)
        model.history_item_value = (model.history_item_id > 0).float()
        return np.asarray(model.full_sort_predict({model.USER_ID: torch.arange(len(observation))}), np.float32)

    def _of_sequences(self, observation: Observation) -> F32:
        import torch

        model = self._network
        sequence, length = sequences_of(observation, self._known, self._n_items, model.max_seq_length)
        asked = _Session({model.ITEM_SEQ: torch.as_tensor(sequence), model.ITEM_SEQ_LEN: torch.as_tensor(length)})
        asked.made = {
            model.USER_ID: lambda: torch.as_tensor(self._nearest(observation)),
            # Models of context partitions work out the loss of a next item on the way, which nothing is made of.
            model.ITEM_ID: lambda: torch.ones(len(observation), dtype=torch.int64),
        }
        try:
            return np.asarray(model.full_sort_predict(asked), np.float32)
        except NotImplementedError:  # then RecBole asks for every pair
            items = torch.arange(1 + len(self._known))
            known = {key: asked[key] for key in (model.USER_ID, model.ITEM_SEQ, model.ITEM_SEQ_LEN)}
            if hasattr(model, "NEG_ITEM_SEQ"):  # DIEN's, of which it makes a part of the loss and no score
                known[model.NEG_ITEM_SEQ] = asked[model.ITEM_SEQ]
            rows = (
                {key: value[row].expand(len(items), *value[row].shape) for key, value in known.items()}
                for row in range(len(observation))
            )
            return np.stack([np.asarray(model.predict({**one, model.ITEM_ID: items}), np.float32) for one in rows])

    def _nearest(self, observation: Observation) -> NDArray[np.int64]:
        """[n] RecBole's number of the trained user whose likes are most like a user's."""
        assert self._trained is not None
        return 1 + np.asarray(likeness(likes_of(observation, self._n_items), self._trained).argmax(axis=1), np.int64)


class _Session(dict[str, Any]):
    """What a sequential model reads; a field of `made`, such as the user's number, is made when a model asks for it."""

    made: dict[str, Callable[[], Any]]

    def __missing__(self, key: str) -> Any:
        return self.setdefault(key, self.made[key]())


@dataclass(frozen=True, slots=True)
class ByNeighbours:
    """Scores of the trained users whose likes are most like a user's, weighted by their cosine.

    A user who has the very likes of a trained one is that one. One who likes nothing that RecBole knows is served by
    the mean over all trained users.

    Attributes:
        likes: [u, I] of the trained users; table: [u, I] their scores by the model.
    """

    likes: csr_matrix
    table: F32

    @classmethod
    def of(cls, fitted: Fitted, n_items: int) -> ByNeighbours:
        """From a trained model."""
        users = np.arange(1, 1 + fitted.likes.shape[0])
        table = np.zeros((len(users), n_items), np.float32)
        table[:, fitted.known] = full_scores(fitted, users)[:, fitted.known_rows]
        return cls(fitted.likes, table)

    def scores(self, observation: Observation) -> F32:
        """[n, I] scores."""
        alike = likeness(likes_of(observation, self.table.shape[1]), self.likes)
        count = min(NEIGHBOURS, alike.shape[1])
        nearest = np.argpartition(-alike, count - 1, axis=1)[:, :count]
        weight = np.zeros_like(alike)
        np.put_along_axis(weight, nearest, np.take_along_axis(alike, nearest, axis=1), axis=1)
        same = alike > 1 - 1e-6
        weight = np.where(same.any(axis=1, keepdims=True), same, weight)
        total = weight.sum(axis=1, keepdims=True)
        weight = np.where(total > 0, weight / np.maximum(total, 1e-12), 1 / weight.shape[1])
        return np.asarray(weight @ self.table, np.float32)


@dataclass(frozen=True, slots=True)
class FoldIn:
    """Finds the vectors of users whom the training never saw, item vectors held fixed.

    BPR's user vector maximises the sum over liked i of the mean over others j of log sigma(<u, v_i - v_j>). Trained
    users give the prior, and one Newton step is made from its mean. The curvature is taken as equal for all liked items
    (their mean), so that it and the prior are diagonal in one basis and a user costs two small products.

    Attributes:
        items: [I, d] item vectors; zero for unknown items.
        mean: [d] of the trained users' vectors.
        pull: [I, d] a like's gradient at the mean, in the basis; zero for unknown items.
        bend: [d] a like's curvature in the basis, in units of the prior's.
        basis: [d, d].
    """

    items: F32
    mean: F32
    pull: F32
    bend: F32
    basis: F32

    @classmethod
    def of(
        cls, users: NDArray[np.float64], items: NDArray[np.float64], known: NDArray[np.int64], n_others: int
    ) -> FoldIn:
        """From trained user vectors [u, d] and item vectors [I, d], of which those `known` were trained."""
        size = items.shape[1]
        mean, spread = users.mean(axis=0), np.atleast_2d(np.cov(users.T))
        prior = spread + np.eye(size) * (1e-3 * np.trace(spread) / size + 1e-9)
        others = known[np.linspace(0, len(known) - 1, min(n_others, len(known))).astype(np.int64)]
        v, w = items[known], items[others]
        margin = items @ mean
        doubt = 1 / (1 + np.exp(margin[known][:, None] - margin[others][None, :]))  # chance that j beats i
        # Means over j of doubt (v_i - v_j), and over i and j of doubt (1 - doubt) (v_i - v_j)(v_i - v_j)'.
        slope = v * doubt.mean(axis=1, keepdims=True) - doubt @ w / len(others)
        weight = doubt * (1 - doubt) / doubt.size
        cross = v.T @ weight @ w
        curvature = (v * weight.sum(axis=1)[:, None]).T @ v + (w * weight.sum(axis=0)[:, None]).T @ w - cross - cross.T
        # In the basis where the prior is the identity and the curvature diagonal, each coordinate is divided alone.
        root = np.linalg.cholesky(prior)
        bend, turn = np.linalg.eigh(root.T @ curvature @ root)
        basis = root @ turn
        pull = np.zeros_like(items)
        pull[known] = slope @ basis
        f32 = np.float32
        return cls(
            items.astype(f32), mean.astype(f32), pull.astype(f32), np.maximum(bend, 0).astype(f32), basis.astype(f32)
        )

    def scores(self, observation: Observation) -> F32:
        """[n, I] scores."""
        return self.user_vectors(likes_of(observation, len(self.items))) @ self.items.T

    def user_vectors(self, liked: csr_matrix) -> F32:
        """[n, d] vectors of users who liked these items [n, I]."""
        count = np.asarray(liked.sum(axis=1)).reshape(-1, 1)
        moved = self.mean + (np.asarray(liked @ self.pull) / (1 + count * self.bend)) @ self.basis.T
        return np.asarray(moved, np.float32)


def likes_of(observation: Observation, n_items: int) -> csr_matrix:
    """[n, I] 1 where an item in the user's history was liked."""
    rows, places = np.nonzero((observation.history_items >= 0) & (observation.history_feedback > 0))
    items = observation.history_items[rows, places]
    liked = csr_matrix((np.ones(len(rows), np.float32), (rows, items)), shape=(len(observation), n_items))
    liked.data[:] = 1.0  # an item that stands there twice is liked once
    return liked


def likeness(liked: csr_matrix, trained: csr_matrix) -> F32:
    """[n, u] cosines of the likes of n users [n, I] with those of u trained ones, by items that one of these likes."""
    known = np.asarray(trained.sum(axis=0)).ravel() > 0
    liked = liked.multiply(known[None, :]).tocsr()
    size = np.sqrt(np.asarray(liked.sum(axis=1)))  # [n, 1]
    sizes = np.sqrt(np.asarray(trained.sum(axis=1))).T  # [1, u]
    return np.asarray((liked @ trained.T).todense() / np.maximum(size * sizes, 1e-9), np.float32)


def sequences_of(
    observation: Observation, known: NDArray[np.int64], n_items: int, longest: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """RecBole's numbers of the newest likes [n, longest], the oldest first and 0 behind them, and their number [n].

    A user without one has a sequence of length 1 of nothing, for which models have a score.
    """
    number = np.zeros(n_items + 1, np.int64)
    number[known] = 1 + np.arange(len(known))
    items = np.where(observation.history_feedback > 0, observation.history_items, -1)
    tokens = number[items]  # 0 for what is no like, padding or unknown
    # Likes to the right, in their order; then the newest `longest` of them to the left.
    order = np.argsort(tokens > 0, axis=1, kind="stable")
    tokens = np.take_along_axis(tokens, order, axis=1)[:, -longest:]
    count = (tokens > 0).sum(axis=1)
    out = np.zeros((len(tokens), longest), np.int64)
    row, place = np.nonzero(tokens)
    out[row, place - (tokens.shape[1] - count)[row]] = tokens[row, place]
    return out, np.maximum(count, 1)


def _vectors_of(fitted: Fitted) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """User vectors (without RecBole's padding row) and item vectors [1 + m, d] in RecBole's numbering."""
    import torch

    model = fitted.model
    with torch.no_grad():
        if hasattr(model, "norm_adj_matrix"):  # vectors are spread over the graph before they are multiplied
            users, items = model.forward()
        else:
            users, items = model.user_embedding.weight, model.item_embedding.weight
    return users.detach().numpy().astype(np.float64)[1:], items.detach().numpy().astype(np.float64)
