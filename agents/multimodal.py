"""`multimodal`: items known by text, categories, numbers, pictures and sounds, fused into one vector each.

Training is in `agents.fusion`, which alone imports torch. A trained agent holds the fused vectors of all items as plain
arrays; a user's vector is pooled from those of the history, so acting is a matrix product.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy.sparse import csr_matrix

from agents.base import AgentError, Observation, Training
from agents.baselines import Ranking
from agents.features import attention, in_session, main_directions, unit_rows
from agents.slates import top_slates
from agents.teaching import Clock, teach, whole_passes
from agents.train_world import Act, Lanes, session_value
from simulator.errors import did_you_mean
from simulator.log import Catalogue, InteractionLog

if TYPE_CHECKING:
    from agents.fusion import Passes

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

    @property
    def needs(self) -> str:
        """What the log must hold, see `agents.needs`; those that are named are looked for by the agent."""
        return "" if self.modalities else "text, categories or data.modalities"

    def mistakes_in(self, catalogue: Catalogue) -> list[str]:
        """Modalities that are named and that the catalogue does not have, one line each."""
        said, some = any(text.strip() for text in catalogue.item_text), catalogue.item_categories.shape[1]
        known = ["id", *["text"] * said, *["category"] * bool(some), *catalogue.modalities]
        return [_not_there(name, known) for name in self.modalities if name not in known]


@dataclass(frozen=True, slots=True)
class Inputs:
    """What is fused: M modalities of I items.

    Attributes:
        names: [M] of the modalities.
        vectors: M times [I, d_m] float32 standardised inputs, zero where an item has none.
        there: [I, M] whether the item has it.
        kinds: [I, c] unit vectors of the categories, where they are among the modalities; else c is 0.
        rate: [I] log-odds of a like in the train rows, shrunk to those of items with as many rows, less the mean's:
            where the item's own bias starts.
        mean: log-odds of a like in the train rows.
    """

    names: tuple[str, ...]
    vectors: tuple[F32, ...]
    there: NDArray[np.bool_]
    kinds: F32
    rate: F32
    mean: float


def _not_there(name: str, known: Collection[str]) -> str:
    """One line on a modality that is not among the known ones."""
    hint = did_you_mean(name, known) or f"; there are {', '.join(known)}"
    return f"modalities: the items have no '{name}'{hint} (data.modalities adds more)"


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
            raise AgentError(f"multimodal.{_not_there(name, known)}")
    rows = np.bincount(log.item, minlength=catalogue.n_items)
    likes = np.bincount(log.item, weights=log.primary, minlength=catalogue.n_items).astype(np.float64)
    mean = float(log.primary.mean())
    shrunk = np.clip((likes + SHRINK * _chance_by_rows(rows, likes)) / (rows + SHRINK), 1e-3, 1 - 1e-3)
    odds = np.log(shrunk) - np.log1p(-shrunk)
    middle = float(np.log(mean / (1 - mean)))
    there = [np.asarray(rows > 0 if name == "id" else np.isfinite(known[name]).all(axis=1)) for name in names]
    return Inputs(
        names=names,
        vectors=tuple(_standardised(known[name], held) for name, held in zip(names, there, strict=True)),
        there=np.stack(there, axis=1),
        kinds=unit_rows(catalogue.item_categories[:, slice(None if "category" in names else 0)]),
        rate=(odds - middle).astype(np.float32),
        mean=middle,
    )


def _chance_by_rows(rows: NDArray[np.int64], likes: NDArray[np.float64]) -> NDArray[np.float64]:
    """[I] chance of a like of an item with so many rows: logistic in their logarithm, an item counting SHRINK at most.

    People choose what they expect to like, so what few chose is liked less, and a like rate of few rows that is shrunk
    to the mean of all is too good. On ml-100k, splits 3 and 5, whoever shows the items of highest rate earns .4 and .5
    clicks a session more with rates that are shrunk to this.
    """
    design = np.stack([np.ones(len(rows)), np.log1p(rows)], axis=1)
    counts = rows * SHRINK / (rows + SHRINK)
    share = likes / np.maximum(rows, 1)
    weight = np.zeros(2)
    for _ in range(20):
        chance = 1 / (1 + np.exp(-design @ weight))
        curvature = (design * (counts * chance * (1 - chance))[:, None]).T @ design
        step = design.T @ (counts * (share - chance)) - weight
        weight = weight + np.linalg.solve(curvature + np.eye(2), step)
    return np.asarray(1 / (1 + np.exp(-design @ weight)))


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
        chance: [I] of a like by anyone: what is expected says little of who does it.
        shrink: rows that likes, and rows without one, are shrunk by.
        origin: [e] vector of a user without history.
        features: [f, e] what public user features add.
        kinds: [I, c] unit vectors: alike items have a high product.
        repetition: log-odds that being as what was shown in the last two slates costs.
    """

    items: F32
    bias: F32
    liked: F32
    other: F32
    chance: F32
    shrink: tuple[float, float]
    origin: F32
    features: F32
    kinds: F32
    repetition: float = 0.0

    def users(self, observation: Observation) -> F32:
        """[n, e] vectors of users, pooled from what they liked though few do and the other way round.

        Of a slate of this session what was not clicked counts the less the further down it stood.
        """
        items = np.maximum(observation.history_items, 0)
        liked = observation.history_feedback > 0
        trust = np.where(liked, 1, attention(observation)) * (observation.history_items >= 0)
        chance = self.chance[items]
        rows = trust.sum(axis=1, keepdims=True)
        out = np.repeat(self.origin[None, :], len(observation), axis=0)
        for surprise, vectors, shrink in (
            (trust * liked * (1 - chance), self.liked, self.shrink[0]),
            (trust * ~liked * chance, self.other, self.shrink[1]),
        ):
            row, place = np.nonzero(surprise)
            at = (row, items[row, place])
            pooled = csr_matrix((surprise[row, place], at), shape=(len(items), len(self.items))) @ vectors
            out += pooled / (rows + shrink)
        if len(self.features):
            out += observation.user_features @ self.features
        return out.astype(np.float32)

    def scores(self, observation: Observation) -> F32:
        """[n, I] log-odds of a like, less what is the same for all items."""
        return self._by_rows(observation)(slice(None))

    def slates(self, observation: Observation) -> NDArray[np.int64]:
        """[n, K] candidates of highest score, a block of users at a time."""
        return top_slates(self._by_rows(observation), observation)

    def _by_rows(self, observation: Observation) -> Callable[[slice], F32]:
        """Scores of the users in a slice when their turn comes; those of all would leave the processor's cache."""
        users = self.users(observation)
        costs = self.repetition * self._recent(observation) if self.repetition else None

        def scores(rows: slice) -> F32:
            found = users[rows] @ self.items.T
            found += self.bias
            if costs is not None:
                found -= costs[rows] @ self.kinds.T
            return found

        return scores

    def _recent(self, observation: Observation) -> F32:
        """[n, c] mean kind of what was shown in the last two slates of the session."""
        newest = slice(-2 * observation.slate_size, None)
        items = observation.history_items[:, newest]
        shown = in_session(observation)[:, newest] & (items >= 0)
        total = np.einsum("nh,nhc->nc", shown.astype(np.float32), self.kinds[np.maximum(items, 0)])
        return np.asarray(total / np.maximum(shown.sum(axis=1, keepdims=True), 1), np.float32)


TRIAL_SESSIONS, TRIAL_SEED = 512, 30_011
"""Sessions of the train world in which a choice is valued, the same users and luck for all; their seed's distance."""
REPETITION, SHARE, UNMET = (0.5, 1.0, 2.0), (0.5, 0.25, 0.0), (1.0, 2.0)
"""What is tried: log-odds that repetition costs, shares of what was learned, log-odds less of an item without rows."""


def balanced(tables: ItemTables, inputs: Inputs, value: Callable[[ItemTables], float | None]) -> ItemTables:
    """The tables with what was learned from the log held against how sessions go.

    The log has rows that people chose; the highest scores of a whole catalogue are picked out by error as well, and
    more of the same bores. One after the other, what repetition costs, the share of taste, the share of what the fusion
    adds to an item's rate, and what an item has less that nobody met are each set to what earns most.

    Args:
        tables: learned from the log.
        inputs: gives where items' biases start, and which have rows.
        value: what tables earn; None: there is no time to find out.
    """
    rated = "id" in inputs.names
    met = inputs.there[:, inputs.names.index("id")] if rated else np.ones(len(inputs.rate), bool)
    start = inputs.rate * (met & rated)
    choices: tuple[tuple[Callable[[ItemTables, float], ItemTables], tuple[float, ...]], ...] = (
        (lambda held, much: replace(held, repetition=much), REPETITION),
        (lambda held, share: replace(held, items=np.float32(share) * held.items), SHARE),
        (lambda held, share: replace(held, bias=(start + share * (held.bias - start)).astype(np.float32)), SHARE),
        (lambda held, much: replace(held, bias=(held.bias - much * ~met).astype(np.float32)), UNMET),
    )
    best, most = tables, value(tables)
    for change, tried in choices:
        held = best
        for much in tried:
            if most is None or (found := value(one := change(held, much))) is None:
                return best
            if found > most:
                best, most = one, found
    return best


class _Balancing:
    """Passes over the log whose tables are balanced before they are judged.

    Where training may stop early that is at every point of the learning curve, so that the validation world values what
    would be judged; else at the end alone, the curve's last point.

    Args:
        passes: learn from the log.
        inputs: of them.
        training: gives the train world.
        clock: ends the balancing where the training's seconds are over.
        budget: rows of the whole training.
    """

    def __init__(self, passes: Passes, inputs: Inputs, training: Training, clock: Clock, *, budget: int) -> None:
        self._passes, self._inputs, self._training, self._clock = passes, inputs, training, clock
        self._budget = budget
        self._goes_on = True
        self._balanced: tuple[ItemTables, ItemTables] | None = None  # what was balanced last, and what came of it

    @property
    def steps(self) -> int:
        return self._passes.steps

    def advance(self) -> bool:
        self._goes_on = self._passes.advance()
        return self._goes_on

    def policy(self) -> ItemTables:
        learned = self._passes.policy()
        judged = self._training.stopping is not None or not self._goes_on or self.steps >= self._budget
        if not self.steps or not judged:
            return learned
        if self._balanced is None or self._balanced[0] is not learned:
            self._balanced = learned, self._balance(learned)
        return self._balanced[1]

    def _balance(self, learned: ItemTables) -> ItemTables:
        training = self._training
        lanes = Lanes(training, TRIAL_SESSIONS, seed=(training.seed + TRIAL_SEED) % 2**31)

        def value(tables: ItemTables) -> float | None:
            if self._clock.out_of_time():
                return None
            return session_value(lanes, lambda seen, rng: tables.slates(seen))

        try:
            return balanced(learned, self._inputs, value)
        finally:
            lanes.close()


class Multimodal(Ranking):
    """Ranks by the inner product of a user's vector with fused vectors of the items, plus the item's bias.

    Each modality of an item becomes a token; tokens are fused by concatenation, by gates (Arevalo et al., 2017), by
    attention of a learned query (cross-attention) or by a transformer over the tokens. A missing modality is masked,
    and in training modalities are hidden at random, so that an item without a history, a text or a picture is
    served by what it has (Volkovs, Yu and Poutanen, 2017, for `id`). Trained on the train rows: from a part of each
    user's rows to the rest of them. Then four numbers (`balanced`) are chosen by sessions in the train world. The
    public user features add to the user's vector.
    """

    def __init__(self, settings: MultimodalSettings) -> None:
        self.settings = settings
        self.prior = "like rate of the items in the train rows"
        self._tables: ItemTables | None = None

    def fit(self, training: Training) -> None:
        """Learn from the train rows; a step is a row shown, `budget` is rounded to whole passes.

        A budget above 0 is one pass at least. What is chosen in the train world after that takes no step.

        Raises:
            AgentError: a modality that is named is not there.
        """
        from agents.fusion import Passes

        inputs = fusion_inputs(training.log, training.catalogue, self.settings.modalities)
        n_rows = len(training.log)
        most = self.settings.epochs if training.budget is None else whole_passes(training.budget, n_rows)
        clock = Clock(training)

        def begin() -> _Balancing:
            passes = Passes(training.log, inputs, self.settings, training.seed)
            return _Balancing(passes, inputs, training, clock, budget=most * n_rows)

        def act(tables: ItemTables) -> Act:
            self._tables = tables
            return self.act

        self._tables = teach(training, begin, act, budget=most * n_rows)

    def act(self, observation: Observation, rng: np.random.Generator) -> NDArray[np.int64]:
        """The K candidates of highest score.

        Raises:
            AgentError: before fit.
        """
        return self._fitted().slates(observation)

    def scores(self, observation: Observation) -> F32:
        """[n, I] log-odds of a like, less what is the same for all items.

        Raises:
            AgentError: before fit.
        """
        return self._fitted().scores(observation)

    def _fitted(self) -> ItemTables:
        if self._tables is None:
            raise AgentError("multimodal: the agent was asked before fit")
        return self._tables
