"""`multimodal`: items known by text, categories, numbers, pictures and sounds, fused into one vector each.

Training is in `agents.fusion`, which alone imports torch. A trained agent holds the fused vectors of all items as plain
arrays; a user's vector is pooled from those of the history, so acting is a matrix product.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy.sparse import csr_matrix

from agents.base import AgentError, Observation, Training
from agents.baselines import Ranking
from agents.features import in_session, main_directions
from agents.teaching import teach
from agents.train_world import Act
from simulator.errors import did_you_mean
from simulator.log import Catalogue, InteractionLog

F32 = NDArray[np.float32]

DIRECTIONS = 64
"""Main directions kept of a modality's vectors."""
SHRINK = 20.0
"""Rows that an item's like rate is shrunk by, where its own bias starts: the highest of many must not be luck."""
KNOTS = 8
"""Quantiles at which the effect of a number may bend."""


class MultimodalSettings(BaseModel):
    """Parameters of the multimodal recommender."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    modalities: tuple[str, ...] = Field(
        default=(),
        description="which of `id` (what the log tells of an item), `text`, `category` and the names of "
        "data.modalities are used; empty: all that there are",
    )
    fusion: Literal["concatenation", "gated", "cross_attention", "transformer"] = Field(
        default="gated", description="how an item's modalities become one vector"
    )
    loss: Literal["bce", "bpr"] = Field(
        default="bce",
        description="bce: whether a row of the log was a like. bpr: likes above items drawn at random",
    )
    embedding_size: int = Field(default=32, ge=2, description="dimensions of a fused vector; even")
    modality_dropout: float = Field(
        default=0.3, ge=0, lt=1, description="chance that a modality of an item is hidden in a training step"
    )
    epochs: int = Field(default=40, ge=0, description="passes over the train rows at most")
    patience: int = Field(default=6, ge=1, description="passes without gain on the validation users before it stops")
    learning_rate: float = Field(default=3e-3, gt=0, description="AdamW's step")
    reg: float = Field(default=0.05, ge=0, description="AdamW's weight decay")
    batch_size: int = Field(default=64, ge=1, description="users in a gradient step")


@dataclass(frozen=True, slots=True)
class Inputs:
    """What is fused: M modalities of I items.

    Attributes:
        names: [M] of the modalities.
        vectors: M times [I, d_m] float32 standardised inputs, zero where an item has none.
        there: [I, M] whether the item has it.
        rate: [I] log-odds of a like in the train rows, shrunk, less the mean's: where the item's own bias starts.
        mean: log-odds of a like in the train rows.
    """

    names: tuple[str, ...]
    vectors: tuple[F32, ...]
    there: NDArray[np.bool_]
    rate: F32
    mean: float


def fusion_inputs(log: InteractionLog, catalogue: Catalogue, wanted: tuple[str, ...]) -> Inputs:
    """Inputs of the wanted modalities, or of all that there are.

    Raises:
        AgentError: a modality is not there.
    """
    known: dict[str, F32] = {"id": np.zeros((catalogue.n_items, 0), np.float32)}
    if catalogue.content is not None and any(text.strip() for text in catalogue.item_text):
        said = np.array([bool(text.strip()) for text in catalogue.item_text])
        known["text"] = np.where(said[:, None], catalogue.content, np.nan).astype(np.float32)
    if catalogue.item_categories.shape[1]:
        some = np.asarray(catalogue.item_categories.any(axis=1))
        known["category"] = np.where(some[:, None], catalogue.item_categories, np.nan).astype(np.float32)
    known |= catalogue.modalities
    names = wanted or tuple(known)
    for name in names:
        if name not in known:
            hint = did_you_mean(name, known) or f"; there are {', '.join(known)}"
            raise AgentError(f"multimodal.modalities: the items have no '{name}'{hint} (data.modalities adds more)")
    rows = np.bincount(log.item, minlength=catalogue.n_items)
    likes = np.bincount(log.item, weights=log.primary, minlength=catalogue.n_items)
    mean = float(log.primary.mean())
    shrunk = (likes + SHRINK * mean) / (rows + SHRINK)
    odds = np.log(np.clip(shrunk, 1e-3, 1 - 1e-3)) - np.log1p(-np.clip(shrunk, 1e-3, 1 - 1e-3))
    middle = float(np.log(mean / (1 - mean)))
    there = [np.asarray(rows > 0 if name == "id" else np.isfinite(known[name]).all(axis=1)) for name in names]
    return Inputs(
        names=names,
        vectors=tuple(_standardised(known[name], held) for name, held in zip(names, there, strict=True)),
        there=np.stack(there, axis=1),
        rate=(odds - middle).astype(np.float32),
        mean=middle,
    )


def _standardised(vectors: F32, there: NDArray[np.bool_]) -> F32:
    """[I, d] inputs of unit size, zero where missing: a number as bends at its quantiles, others by main directions."""
    out = np.zeros((len(vectors), max(1, min(vectors.shape[1], DIRECTIONS))), np.float32)
    if not there.any() or not vectors.shape[1]:
        return out
    held = vectors[there]
    if held.shape[1] == 1:
        # Piecewise-linear encoding (Gorishniy, Rubachev, Babenko, 2022): each quantile step is filled from 0 to 1.
        edges = np.unique(np.quantile(held[:, 0].astype(np.float64), np.linspace(0, 1, KNOTS + 1)))
        if len(edges) < 2:
            return out
        low, high = edges[:-1], edges[1:]
        steps = np.clip((held.astype(np.float64) - low) / (high - low), 0, 1)
        out = np.zeros((len(vectors), steps.shape[1]), np.float32)
        out[there] = 2 * steps - 1
        return out
    spread = held.std(axis=0)
    scaled = (held - held.mean(axis=0)) / np.where(spread > 1e-6, spread, 1)
    if scaled.shape[1] > DIRECTIONS:
        scaled = main_directions(scaled, DIRECTIONS) * np.sqrt(DIRECTIONS)
        out = np.zeros((len(vectors), scaled.shape[1]), np.float32)
    out[there] = np.clip(scaled, -5, 5)
    return out


@dataclass(frozen=True, slots=True)
class ItemTables:
    """Fused items as plain arrays, and what makes a user's vector of them.

    Attributes:
        items: [I, e] vectors that a user's is multiplied with.
        bias: [I] log-odds of a like that is the same for all users.
        liked, other: [I, e] what an item adds to a user's vector when it was liked, and when it was not.
        shrink: rows that few likes, and few rows without one, are shrunk by.
        origin: [e] vector of a user without history.
        features: [f, e] what public user features add.
    """

    items: F32
    bias: F32
    liked: F32
    other: F32
    shrink: tuple[float, float]
    origin: F32
    features: F32

    def users(self, observation: Observation) -> F32:
        """[n, e] vectors of users, pooled from what they liked and what the log says that they did not.

        What was shown in the session and not clicked is left out: most of it was never looked at, and the log that the
        vectors were learned from has nothing like it.
        """
        items = observation.history_items
        liked = (items >= 0) & (observation.history_feedback > 0)
        other = (items >= 0) & ~liked & ~in_session(observation)
        out = np.repeat(self.origin[None, :], len(observation), axis=0)
        for chosen, vectors, shrink in ((liked, self.liked, self.shrink[0]), (other, self.other, self.shrink[1])):
            row, place = np.nonzero(chosen)
            one = np.ones(len(row), np.float32)
            pooled = csr_matrix((one, (row, items[row, place])), shape=(len(items), len(self.items))) @ vectors
            out += pooled / (chosen.sum(axis=1, keepdims=True) + shrink)
        if len(self.features):
            out += observation.user_features @ self.features
        return out.astype(np.float32)


class Multimodal(Ranking):
    """Ranks by the inner product of a user's vector with fused vectors of the items, plus the item's bias.

    Each modality of an item becomes a token; tokens are fused by concatenation, by gates (Arevalo et al., 2017), by
    attention of a learned query (cross-attention) or by a transformer over the tokens. A missing modality is masked,
    and in training modalities are hidden at random, so that an item without a history, a text or a picture is
    served by what it has (Volkovs, Yu and Poutanen, 2017, for `id`). Trained on the train rows alone: from a part of
    each user's rows to the rest of them. The public user features add to the user's vector.
    """

    def __init__(self, settings: MultimodalSettings) -> None:
        self.settings = settings
        self.prior = "like rate of the items in the train rows"
        self._tables: ItemTables | None = None

    def fit(self, training: Training) -> None:
        """Learn from the train rows; a step is a row shown, `budget` is rounded to whole passes.

        Raises:
            AgentError: a modality that is named is not there.
        """
        from agents.fusion import Passes

        inputs = fusion_inputs(training.log, training.catalogue, self.settings.modalities)
        n_rows = len(training.log)
        most = self.settings.epochs if training.budget is None else round(training.budget / n_rows)

        def begin() -> Passes:
            return Passes(training.log, inputs, self.settings, training.seed)

        def act(tables: ItemTables) -> Act:
            self._tables = tables
            return self.act

        self._tables = teach(training, begin, act, budget=most * n_rows)

    def scores(self, observation: Observation) -> F32:
        """[n, I] log-odds of a like, less what is the same for all items.

        Raises:
            AgentError: before fit.
        """
        if self._tables is None:
            raise AgentError("multimodal: the agent was asked before fit")
        return self._tables.users(observation) @ self._tables.items.T + self._tables.bias
