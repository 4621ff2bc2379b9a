"""Agents that RecBole trains on the train rows, and that serve users whom it never saw.

The one module that imports RecBole. Its traps are met here: names that NumPy 2 and SciPy dropped, its reading of the
command line and writing into the current folder, and the global state (random generators, threads, environment) that
it leaves changed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import pickle
import random  # noqa: TID251  only to restore the state that RecBole's seeding changes
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator
from scipy.sparse import csr_matrix

from agents.base import AgentError, Observation, Training
from agents.baselines import Ranking
from agents.teaching import teach
from agents.train_world import Act
from simulator.errors import did_you_mean
from simulator.log import InteractionLog

F32 = NDArray[np.float32]

READS = {
    "general_recommender": (),
    "sequential_recommender": ("order",),
    "context_aware_recommender": ("categories",),
    "knowledge_aware_recommender": ("graph",),
}
"""What models of RecBole's families read beside the likes: their order, the items' categories as a feature, or a graph
of which item is in which category. A family that is not here cannot be served."""

FEATURED = ("DIEN", "DIN", "FDSA", "GRU4RecF", "S3Rec", "SASRecF")
"""Sequential models that read the categories of items, too."""

SIMILARITY = {
    "ADMMSLIM": "item_similarity",
    "EASE": "item_similarity",
    "ItemKNN": "w",
    "SLIMElastic": "item_similarity",
}
"""Models that score a user by their history times an item-item matrix, and RecBole's name of that matrix."""

AT_ONCE = (*SIMILARITY, "AsymKNN", "Pop")
"""Models that are computed in one pass and draw nothing."""

VECTORS = ("BPR", "LightGCN")
"""Models that score by inner products of user and item vectors, of which a new user's is folded in."""

ENCODERS = ("DiffRec", "LDiffRec", "MacridVAE", "MultiDAE", "MultiVAE", "RaCT", "RecVAE")
"""Models that read a user's likes as one row and know no user by number."""

NEIGHBOURS = 20
"""Trained users of most alike likes, as whose mean a user is served by models that know users by number alone."""

MOST_CELLS = 150_000_000
"""Scores of trained users that are kept for their neighbours: users times items at most."""

REG = {"EASE": 4000.0}
"""Penalties that differ from RecBole's own. Its 250 is for ranking what users will rate next; slates are shown items
from everywhere, of which the rare ones need more shrinking (chosen in the train world of ml-100k)."""

UNKNOWN = np.float32(-1e6)
"""Score of items that no train user liked: RecBole has never seen them, so they are shown last."""

DATASET, PART = "windtunnel", "rows"
"""Names of the atomic file that RecBole reads: DATASET.PART.inter."""

OURS = ("model", "dataset", "data_path", "checkpoint_dir", "seed", "device", "gpu_id", "use_gpu", "state", "load_col")
"""RecBole settings that are this module's business and no user's."""


class RecBoleSettings(BaseModel):
    """Parameters of a RecBole model; what is left empty is RecBole's own default."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model: str = Field(description="RecBole's name of the model, from the agent's kind")
    epochs: int = Field(default=12, ge=0, description="passes over the liked rows, for models that learn by passes")
    embedding_size: int = Field(default=32, ge=1, description="dimensions of user and item vectors")
    learning_rate: float = Field(default=0.002, gt=0, description="step size of RecBole's optimiser")
    reg: float | None = Field(
        default=None, ge=0, description="RecBole's reg_weight (EASE: rows added to the diagonal, 4000 where empty)"
    )
    negatives: int = Field(default=128, ge=1, description="items that a folded-in user's likes are held against")
    options: dict[str, Any] = Field(default_factory=dict, description="further settings of RecBole by their own names")

    @field_validator("model")
    @classmethod
    def _known(cls, model: str) -> str:
        names = {name.lower(): name for name in published()}
        name = names.get(model.lower())
        if name is None:
            raise ValueError(f"no model of RecBole has that name{did_you_mean(model, published())}")
        if published()[name] not in READS:
            raise ValueError(
                "boosted trees learn from rows of both outcomes, some of them held back, and the likes are of one "
                "outcome; take DeepFM or another of RecBole's context-aware models"
            )
        return name

    @field_validator("options")
    @classmethod
    def _free(cls, options: dict[str, Any]) -> dict[str, Any]:
        taken = [name for name in options if name in OURS]
        if taken:
            raise ValueError(f"'{taken[0]}' is set by this program; leave it out")
        return options

    @property
    def deterministic(self) -> bool:
        """Whether training draws nothing, so that one training is enough."""
        return self.model in AT_ONCE


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

        For models that learn by passes, steps are liked rows shown, `budget` is rounded to whole passes, and a limit in
        seconds ends the training after a pass. The others take their one pass, whatever the budget.

        Raises:
            AgentError: RecBole refuses the settings or the rows, or the log lacks what the model reads.
        """
        self._n_items = training.catalogue.n_items
        with recbole_model(training.log, self.settings, training.seed) as fitted:
            self._known = fitted.known
            if self.settings.deterministic:
                train_passes(fitted, 1)
                self._served = self._serving(fitted)
            else:
                self._learn(training, fitted)

    def _learn(self, training: Training, fitted: Fitted) -> None:
        n_rows = fitted.n_rows
        passes = self.settings.epochs if training.budget is None else round(training.budget / n_rows)

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
            return ByMatrix(_on_catalogue(_dense(getattr(fitted.model, SIMILARITY[model])), fitted, n_items))
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


@dataclass(frozen=True, slots=True)
class ByMatrix:
    """Likes times an item-item matrix [I, I] in the catalogue's numbering."""

    similarity: F32

    def scores(self, observation: Observation) -> F32:
        """[n, I] scores."""
        return np.asarray(likes_of(observation, len(self.similarity)) @ self.similarity)


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
            with _asking():
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
        asked.user = model.USER_ID, lambda: torch.as_tensor(self._nearest(observation))
        try:
            return np.asarray(model.full_sort_predict(asked), np.float32)
        except NotImplementedError:  # then RecBole asks for every pair
            items = torch.arange(1 + len(self._known))
            known = {key: asked[key] for key in (model.USER_ID, model.ITEM_SEQ, model.ITEM_SEQ_LEN)}
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
    """What a sequential model reads; the user's number is looked for when a model asks for it, which few do."""

    user: tuple[str, Callable[[], Any]]

    def __missing__(self, key: str) -> Any:
        name, number = self.user
        if key != name:
            raise KeyError(key)
        return self.setdefault(key, number())


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
        """From a trained model.

        Raises:
            AgentError: there are too many users and items for a table of their scores.
        """
        users = np.arange(1, 1 + fitted.likes.shape[0])
        if len(users) * n_items > MOST_CELLS:
            raise AgentError(
                f"RecBole's {type(fitted.model).__name__} knows users by number alone, and the scores of {len(users)} "
                f"users for {n_items} items are more than the {MOST_CELLS} that are kept for their neighbours; take a "
                "model that reads histories, or fewer users"
            )
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


@dataclass(slots=True)
class Fitted:
    """A RecBole model with its data, valid inside `recbole_model` alone.

    Attributes:
        model, trainer, rows: RecBole's own objects.
        known: [m] catalogue indices of the items RecBole knows, known_rows: [m] its own numbers for them.
        users: RecBole's own number of each of our users who liked something.
        likes: [u, I] 1 for the likes of these users, in the order of their numbers, which begin at 1.
        n_rows: liked rows.
        dataset: RecBole's own, with what is known of items.
        passes: made so far.
    """

    model: Any
    trainer: Any
    rows: Any
    known: NDArray[np.int64]
    known_rows: NDArray[np.int64]
    users: dict[int, int]
    likes: csr_matrix
    n_rows: int
    dataset: Any
    passes: int = 0


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


def full_scores(fitted: Fitted, users: NDArray[np.int64]) -> F32:
    """[n, 1 + m] scores of all items for trained users, by RecBole's numbers of both."""
    import torch
    from recbole.data.interaction import Interaction

    found = []
    items = fitted.dataset.get_item_feature()
    with _asking():
        for user in users:
            asked = fitted.dataset.join(Interaction({"user_id": torch.as_tensor([user])}))
            try:
                scores = fitted.model.full_sort_predict(asked)
            except NotImplementedError:  # then RecBole asks for every pair
                pairs = asked.repeat_interleave(len(items))
                pairs.update(items)
                scores = fitted.model.predict(pairs)
            found.append(np.asarray(scores, np.float32).reshape(-1))
    return np.stack(found)


@contextlib.contextmanager
def _asking() -> Iterator[None]:
    """Ask a model without gradients; what some draw even then is the same each time, and no draw of a training."""
    import torch

    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def train_passes(fitted: Fitted, passes: int) -> None:
    """Let RecBole's trainer do so many passes, going on from where it is; the weights are those of the last."""
    trainer = fitted.trainer
    trainer.start_epoch = fitted.passes
    trainer.epochs = fitted.passes = fitted.passes + passes
    with refusals(type(fitted.model).__name__):
        trainer.fit(fitted.rows, None, verbose=False, saved=False, show_progress=False)
    fitted.model.eval()


@cache
def published() -> dict[str, str]:
    """RecBole's models, each with the folder of its family: read from file names, as `get_model` looks for them.

    Nothing of RecBole is imported, which would take seconds.
    """
    package = importlib.util.find_spec("recbole")
    assert package is not None
    assert package.submodule_search_locations is not None
    (root,) = package.submodule_search_locations
    found: dict[str, str] = {}
    for path in sorted(Path(root, "model").glob("*_recommender/*.py")):
        classes = re.findall(r"^class (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
        found |= {name: path.parent.name for name in classes if name.lower() == path.stem}
    return found


def reads(model: str) -> tuple[str, ...]:
    """What a model reads beside the likes, of `order`, `categories` and `graph`."""
    return (*READS[published()[model]], *(["categories"] if model in FEATURED else []))


@contextlib.contextmanager
def refusals(model: str) -> Iterator[None]:
    """Make one line of what RecBole raises.

    Raises:
        AgentError: RecBole raised something.
    """
    try:
        yield
    except AgentError:
        raise
    except Exception as error:
        said = " ".join(str(error).split())
        raise AgentError(f"RecBole cannot train {model}: {type(error).__name__}: {said}") from error


@contextlib.contextmanager
def recbole_model(log: InteractionLog, settings: RecBoleSettings, seed: int) -> Iterator[Fitted]:
    """Give the model, not yet trained, on the liked rows of a log; all global state is restored afterwards.

    Raises:
        AgentError: RecBole refuses the settings or the rows.
    """
    model = settings.model
    if {"categories", "graph"} & set(reads(model)) and not log.catalogue.item_categories.any():
        raise AgentError(f"RecBole's {model} reads the categories of items, and the log's catalogue has none")
    with contained() as folder:
        _write_rows(log, folder, model)
        with refusals(model):
            fitted = _build(settings, log, folder, seed)
        try:
            yield fitted
        finally:
            # Its thread would go on writing into the folder that is about to go.
            fitted.trainer.tensorboard.close()


def _build(settings: RecBoleSettings, log: InteractionLog, folder: Path, seed: int) -> Fitted:
    import torch
    from recbole.config import Config
    from recbole.data import create_dataset
    from recbole.data.utils import get_dataloader
    from recbole.sampler import KGSampler
    from recbole.utils import get_model, get_trainer, init_seed

    model = settings.model
    values: dict[str, Any] = {
        "data_path": str(folder),
        "checkpoint_dir": str(folder / "saved"),
        # One named part, so that RecBole does not split: users are judged elsewhere, and every row trains.
        "benchmark_filename": None if "order" in reads(model) else [PART],
        "load_col": _columns(model),
        "USER_ID_FIELD": "user_id",
        "ITEM_ID_FIELD": "item_id",
        "seed": seed % 2**31,
        "reproducibility": True,
        "use_gpu": False,
        "gpu_id": "",
        "state": "CRITICAL",
        "show_progress": False,
        "epochs": settings.epochs,
        "embedding_size": settings.embedding_size,
        "learning_rate": settings.learning_rate,
        "train_batch_size": 2048,
        **_way_of_learning(model),
        **settings.options,
    }
    if model in ENCODERS:
        del values["embedding_size"]  # their sizes have other names, or that name another meaning
    reg = REG.get(settings.model) if settings.reg is None else settings.reg
    if reg is not None:
        values["reg_weight"] = reg
    if "order" in reads(model) and "train_neg_sample_args" not in settings.options:
        values["train_neg_sample_args"] = None
        if Config(model=model, dataset=DATASET, config_dict=values)["loss_type"] != "CE":  # that loss has all items
            values["train_neg_sample_args"] = dict(ONE_NEGATIVE)
    config = Config(model=model, dataset=DATASET, config_dict=values)
    init_seed(config["seed"], config["reproducibility"])
    dataset = create_dataset(config)
    (rows,) = dataset.build()
    samplers = [_negative_sampler(config, dataset, rows)]
    if "graph" in reads(model):
        arguments = config["train_neg_sample_args"]
        samplers.append(KGSampler(dataset, arguments["distribution"], arguments["alpha"]))
    loader = get_dataloader(config, "train")(config, rows, *samplers, shuffle=config["shuffle"])
    of_that_name = get_model(config["model"])
    # RecBole's SINE turns it on for everyone when the sequential models are imported: ten times the time of a step.
    torch.autograd.set_detect_anomaly(False)
    network = of_that_name(config, rows).to(config["device"]).eval()  # it may be asked before it learns
    trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, network)
    tokens = dataset.field2id_token["item_id"][1:]
    known = np.array([int(token) for token in tokens], np.int64)
    users = {int(token): row for row, token in enumerate(dataset.field2id_token["user_id"]) if row}
    places = np.arange(1, len(known) + 1)
    pairs, _ = _likes_in(log)
    place = np.array([users[user] for user in pairs[:, 0].tolist()], np.int64) - 1
    shape = (len(users), log.catalogue.n_items)
    likes = csr_matrix((np.ones(len(pairs), np.float32), (place, pairs[:, 1])), shape=shape)
    return Fitted(network, trainer, loader, known, places, users, likes, len(rows.inter_feat), rows)


ONE_NEGATIVE = {"distribution": "uniform", "sample_num": 1}
"""RecBole's own default, which it does not have for models that it means to be given ratings."""


def _way_of_learning(model: str) -> dict[str, Any]:
    """What RecBole leaves to the user for a kind of model."""
    family = reads(model)
    if "order" in family:
        everything = {"order": "TO", "split": {"RS": [1.0]}, "group_by": None, "mode": "full"}
        # Nothing is evaluated, but those that are meant for labels name metrics that such an evaluation refuses.
        values = {"eval_args": everything, "metrics": ["Recall"], "valid_metric": "Recall@10"}
        return values | ({"selected_features": ["categories"]} if model in FEATURED else {})
    if model == "Pop":
        return {"train_batch_size": 1}  # it counts an item once a batch
    if "categories" in family:
        return {"train_neg_sample_args": dict(ONE_NEGATIVE)}
    return {}


def _negative_sampler(config: Any, dataset: Any, rows: Any) -> Any:
    from recbole.sampler import RepeatableSampler, Sampler

    arguments = config["train_neg_sample_args"]
    if arguments["distribution"] == "none":
        return None
    if config["repeatable"]:
        sampler = RepeatableSampler(["train"], dataset, arguments["distribution"], arguments["alpha"])
    else:
        sampler = Sampler(["train"], [rows], arguments["distribution"], arguments["alpha"])
    return sampler.set_phase("train")


def _columns(model: str) -> dict[str, list[str]]:
    """The columns that RecBole is to load for a model, by file."""
    family = reads(model)
    times = ["timestamp"] if "order" in family else []
    columns = {"inter": ["user_id", "item_id", *times]}
    if "categories" in family:
        columns["item"] = ["item_id", "categories"]
    if "graph" in family:
        columns |= {"kg": ["head_id", "relation_id", "tail_id"], "link": ["item_id", "entity_id"]}
    return columns


def _likes_in(log: InteractionLog) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """[n, 2] users and the items they liked, each pair once, and [n] the first row of the log that says so."""
    liked = np.flatnonzero(log.primary > 0)
    pairs, first = np.unique(np.stack([log.user[liked], log.item[liked]], axis=1), axis=0, return_index=True)
    return pairs, liked[first]


def _write_rows(log: InteractionLog, folder: Path, model: str) -> None:
    """Liked rows, and what the model reads beside them, as atomic files; tokens are the catalogue's own indices."""
    place = folder / DATASET
    place.mkdir()

    def write(suffix: str, header: str, lines: Iterable[str]) -> None:
        (place / f"{DATASET}.{suffix}").write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")

    family = reads(model)
    pairs, first = _likes_in(log)
    if "order" in family:
        # The order of a user's rows is all that is read of their times, which may be equal.
        rows = (f"{user}\t{item}\t{at}" for (user, item), at in zip(pairs.tolist(), first.tolist(), strict=True))
        write("inter", "user_id:token\titem_id:token\ttimestamp:float", rows)
    else:
        write(f"{PART}.inter", "user_id:token\titem_id:token", (f"{user}\t{item}" for user, item in pairs.tolist()))
    met = np.unique(pairs[:, 1])
    categories = {item: np.flatnonzero(log.catalogue.item_categories[item]).tolist() for item in met.tolist()}
    if "categories" in family:
        rows = (f"{item}\t{' '.join(map(str, of))}" for item, of in categories.items())
        write("item", "item_id:token\tcategories:token_seq", rows)
    if "graph" in family:
        triples = (f"i{item}\tin\tc{one}" for item, of in categories.items() for one in of)
        write("kg", "head_id:token\trelation_id:token\ttail_id:token", triples)
        write("link", "item_id:token\tentity_id:token", (f"{item}\ti{item}" for item, of in categories.items() if of))


def _dense(matrix: Any) -> F32:
    return np.asarray(matrix.todense() if hasattr(matrix, "todense") else matrix, np.float32)


def _on_catalogue(matrix: F32, fitted: Fitted, n_items: int) -> F32:
    """[I, I] item-item matrix in the catalogue's numbering; rows and columns of unknown items are 0."""
    out = np.zeros((n_items, n_items), np.float32)
    out[np.ix_(fitted.known, fitted.known)] = matrix[np.ix_(fitted.known_rows, fitted.known_rows)]
    return out


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


@contextlib.contextmanager
def contained() -> Iterator[Path]:
    """A temporary current folder in which RecBole finds what it needs; nothing of it outlasts the block."""
    import scipy.sparse
    import torch

    argv, here, environment = sys.argv, Path.cwd(), os.environ.get("CUDA_VISIBLE_DEVICES")
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002  to restore it
    threads, flags = torch.get_num_threads(), (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic)
    numpy_names, disabled = set(np.__dict__), logging.root.manager.disable
    anomaly = torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()
    for name, to in (("float_", np.float64), ("complex_", np.complex128), ("unicode_", np.str_)):
        if name not in np.__dict__:
            setattr(np, name, to)
    patched = not hasattr(scipy.sparse.dok_matrix, "_update")
    if patched:
        scipy.sparse.dok_matrix._update = lambda self, entries: self._dict.update(entries)
    with tempfile.TemporaryDirectory(prefix="windtunnel-recbole-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        sys.argv = sys.argv[:1] or [""]
        torch.set_num_threads(1)
        os.chdir(folder)
        try:
            yield Path(folder)
        finally:
            os.chdir(here)
            sys.argv = argv
            torch.set_num_threads(threads)
            torch.autograd.set_detect_anomaly(*anomaly)
            torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = flags
            logging.disable(disabled)
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002
            torch.set_rng_state(states[2])
            if environment is None:
                os.environ.pop("CUDA_VISIBLE_DEVICES", None)
            else:
                os.environ["CUDA_VISIBLE_DEVICES"] = environment
            for name in set(np.__dict__) - numpy_names:
                delattr(np, name)
            if patched:
                del scipy.sparse.dok_matrix._update
