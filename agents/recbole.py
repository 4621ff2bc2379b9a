"""Agents that RecBole trains: its general recommenders, taught on the train rows, folded in for users it never saw.

The one module that imports RecBole. Its traps are met here: names that NumPy 2 and SciPy dropped, its reading of the
command line and writing into the current folder, and the global state (random generators, threads, environment) that
it leaves changed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random  # noqa: TID251  only to restore the state that RecBole's seeding changes
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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

SIMILARITY = {"EASE": "item_similarity", "ItemKNN": "w", "SLIMElastic": "item_similarity"}
"""Models that score a user by their history times an item-item matrix, and RecBole's name of that matrix."""

VECTORS = ("BPR", "LightGCN")
"""Models that score by inner products of user and item vectors."""

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
        known = (*SIMILARITY, *VECTORS)
        if model not in known:
            raise ValueError(f"unseen users can be folded in for {', '.join(known)}{did_you_mean(model, known)}")
        return model

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
        return self.model in SIMILARITY


class RecBole(Ranking):
    """Ranks by a RecBole model that learned from the liked rows of the train users.

    No user that it meets was in the training. Item-item models (EASE, ItemKNN, SLIMElastic) take the user's likes
    times their matrix, as RecBole itself does. Models of vectors (BPR, LightGCN) keep their item vectors; the user's
    vector is folded in: a Newton step on the BPR loss of the likes, from a normal prior fitted to the trained users.
    Items that no train user liked are unknown to RecBole and come last.
    """

    def __init__(self, settings: RecBoleSettings) -> None:
        self.settings = settings
        self._known = np.zeros(0, np.int64)
        self._similarity: F32 | None = None
        self._fold: FoldIn | None = None
        self._n_items = 0

    def fit(self, training: Training) -> None:
        """Let RecBole train on the liked rows.

        For models that learn by passes, steps are liked rows shown, `budget` is rounded to whole passes, and a limit in
        seconds ends the training after a pass. The others take their one pass, whatever the budget.
        """
        self._n_items = training.catalogue.n_items
        with recbole_model(training.log, self.settings, training.seed) as fitted:
            self._known = fitted.known
            if self.settings.model in SIMILARITY:
                train_passes(fitted, 1)
                matrix = _dense(getattr(fitted.model, SIMILARITY[self.settings.model]))
                self._similarity = _on_catalogue(matrix, fitted, self._n_items)
            else:
                self._learn(training, fitted)

    def _learn(self, training: Training, fitted: Fitted) -> None:
        n_rows = fitted.n_rows
        passes = self.settings.epochs if training.budget is None else round(training.budget / n_rows)

        def act(fold: FoldIn) -> Act:
            self._fold = fold
            return self.act

        self._fold = teach(training, lambda: _Passes(fitted, self._fold_in), act, budget=passes * n_rows, kept=False)

    def scores(self, observation: Observation) -> F32:
        """[n, I] RecBole's scores for the users' likes; far below all others for items it does not know."""
        if not self._n_items:
            raise AgentError("the agent was asked before fit")
        liked = likes_of(observation, self._n_items)
        if self._similarity is not None:
            found = np.asarray(liked @ self._similarity)
        else:
            assert self._fold is not None
            found = self._fold.user_vectors(liked) @ self._fold.items.T
        unknown = np.ones(self._n_items, bool)
        unknown[self._known] = False
        found[:, unknown] = UNKNOWN
        return found

    def _fold_in(self, fitted: Fitted) -> FoldIn:
        users, items = _vectors_of(fitted)
        table = np.zeros((self._n_items, items.shape[1]))
        table[fitted.known] = items[fitted.known_rows]
        return FoldIn.of(users, table, fitted.known, self.settings.negatives)


class _Passes:
    """RecBole's own training, pass by pass; its objects hold what no pickle takes."""

    def __init__(self, fitted: Fitted, policy: Callable[[Fitted], FoldIn]) -> None:
        self._fitted, self._policy = fitted, policy

    @property
    def steps(self) -> int:
        return self._fitted.passes * self._fitted.n_rows

    def advance(self) -> bool:
        train_passes(self._fitted, 1)
        return True

    def policy(self) -> FoldIn:
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
        n_rows: liked rows.
        passes: made so far.
    """

    model: Any
    trainer: Any
    rows: Any
    known: NDArray[np.int64]
    known_rows: NDArray[np.int64]
    users: dict[int, int]
    n_rows: int
    passes: int = 0


def likes_of(observation: Observation, n_items: int) -> csr_matrix:
    """[n, I] 1 where an item in the user's history was liked."""
    rows, places = np.nonzero((observation.history_items >= 0) & (observation.history_feedback > 0))
    items = observation.history_items[rows, places]
    liked = csr_matrix((np.ones(len(rows), np.float32), (rows, items)), shape=(len(observation), n_items))
    liked.data[:] = 1.0  # an item that stands there twice is liked once
    return liked


def train_passes(fitted: Fitted, passes: int) -> None:
    """Let RecBole's trainer do so many passes, going on from where it is; the weights are those of the last."""
    trainer = fitted.trainer
    trainer.start_epoch = fitted.passes
    trainer.epochs = fitted.passes = fitted.passes + passes
    trainer.fit(fitted.rows, None, verbose=False, saved=False, show_progress=False)
    fitted.model.eval()


@contextlib.contextmanager
def recbole_model(log: InteractionLog, settings: RecBoleSettings, seed: int) -> Iterator[Fitted]:
    """Give the model, not yet trained, on the liked rows of a log; all global state is restored afterwards.

    Raises:
        AgentError: RecBole refuses the settings or the rows.
    """
    with _contained() as folder:
        _write_rows(log, folder)
        try:
            fitted = _build(settings, folder, seed)
        except (ValueError, KeyError, TypeError, NotImplementedError, AttributeError) as error:
            said = " ".join(str(error).split())
            raise AgentError(f"RecBole cannot train {settings.model}: {type(error).__name__}: {said}") from error
        try:
            yield fitted
        finally:
            # Its thread would go on writing into the folder that is about to go.
            fitted.trainer.tensorboard.close()


def _build(settings: RecBoleSettings, folder: Path, seed: int) -> Fitted:
    from recbole.config import Config
    from recbole.data import create_dataset
    from recbole.data.utils import get_dataloader
    from recbole.utils import get_model, get_trainer, init_seed

    values: dict[str, Any] = {
        "data_path": str(folder),
        "checkpoint_dir": str(folder / "saved"),
        "benchmark_filename": [PART],
        "load_col": {"inter": ["user_id", "item_id"]},
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
        **settings.options,
    }
    reg = REG.get(settings.model) if settings.reg is None else settings.reg
    if reg is not None:
        values["reg_weight"] = reg
    config = Config(model=settings.model, dataset=DATASET, config_dict=values)
    init_seed(config["seed"], config["reproducibility"])
    dataset = create_dataset(config)
    # One named part, so that RecBole does not split: users are judged elsewhere, and every row trains.
    (rows,) = dataset.build()
    sampler = _negative_sampler(config, rows)
    loader = get_dataloader(config, "train")(config, rows, sampler, shuffle=config["shuffle"])
    model = get_model(config["model"])(config, rows).to(config["device"])
    trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
    tokens = dataset.field2id_token["item_id"][1:]
    known = np.array([int(token) for token in tokens], np.int64)
    users = {int(token): row for row, token in enumerate(dataset.field2id_token["user_id"]) if row}
    return Fitted(model, trainer, loader, known, np.arange(1, len(known) + 1), users, len(dataset.inter_feat))


def _negative_sampler(config: Any, rows: Any) -> Any:
    from recbole.sampler import Sampler

    arguments = config["train_neg_sample_args"]
    if arguments["distribution"] == "none":
        return None
    return Sampler(["train"], [rows], arguments["distribution"], arguments["alpha"]).set_phase("train")


def _write_rows(log: InteractionLog, folder: Path) -> None:
    """Liked rows as an atomic file; tokens are the catalogue's own indices."""
    liked = log.primary > 0
    place = folder / DATASET
    place.mkdir()
    lines = ["user_id:token\titem_id:token"]
    pairs = np.unique(np.stack([log.user[liked], log.item[liked]], axis=1), axis=0)
    lines += [f"{user}\t{item}" for user, item in pairs.tolist()]
    (place / f"{DATASET}.{PART}.inter").write_text("\n".join(lines) + "\n", encoding="utf-8")


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
def _contained() -> Iterator[Path]:
    """A temporary current folder in which RecBole finds what it needs; nothing of it outlasts the block."""
    import scipy.sparse
    import torch

    argv, here, environment = sys.argv, Path.cwd(), os.environ.get("CUDA_VISIBLE_DEVICES")
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002  to restore it
    threads, flags = torch.get_num_threads(), (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic)
    numpy_names, disabled = set(np.__dict__), logging.root.manager.disable
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
