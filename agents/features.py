"""What a production policy can compute of users and items: from the train rows, the catalogue and the history alone.

Nothing here reads a world: neither its item vectors nor its user states. Every feature of a (user, item) pair is one
inner product of a user's and an item's block, so that all items are scored for all users by a matrix product.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from agents.base import Observation, Training
from simulator.log import Catalogue, InteractionLog, histories_of

F32 = NDArray[np.float32]

PAIR_NAMES = ("taste", "content", "categories", "repetition")
"""Features of a pair: predicted like from the folded-in taste; likeness to what was liked rather than not, by content
and by category; likeness of categories to the last slates (what a rule against monotony would look at)."""

ITEM_NAMES = ("like_rate", "popularity")
USER_NAMES = ("level", "like_share", "history", "step")

SHRINK = 5.0
"""Rows that an item's like rate is shrunk by: the prior weight of the log's mean."""

LEVEL_PRECISION, CONTENT_PRECISION, LEARNED_PRECISION, ITEM_PRECISION = 5.0, 20.0, 50.0, 10.0
"""Prior precisions of the ridge regressions, in rows: chosen, as SHRINK and the sizes, on a third of ml-100k's train
users that were left out (squared error .1887 against .2057 for like rates alone)."""

ROUNDS = 6
"""Alternations between user and item side; the loss on rows left out of ml-100k's train users is flat after five."""


@dataclass(frozen=True, slots=True)
class UserBlocks:
    """n users as vectors that item blocks are multiplied with.

    Attributes:
        values: [n, s] what the properties name, side by side: USER_NAMES, then the block of each pair feature.
        parts: where each pair feature's block stands in it.
    """

    values: F32
    parts: tuple[slice, ...]

    @property
    def level(self) -> F32:
        """[n] how much more than usual the user likes what he consumes, probability."""
        return self.values[:, 0]

    @property
    def taste(self) -> F32:
        """[n, r] coefficients of the item vectors: closed-form ridge fit to the history."""
        return self.values[:, self.parts[0]]

    @property
    def content(self) -> F32:
        """[n, p] mean content vector of liked minus of not liked items."""
        return self.values[:, self.parts[1]]

    @property
    def categories(self) -> F32:
        """[n, C] mean categories of liked minus of not liked items."""
        return self.values[:, self.parts[2]]

    @property
    def recent(self) -> F32:
        """[n, C] mean categories of the newest items."""
        return self.values[:, self.parts[3]]

    def user_features(self) -> F32:
        """[n, 4] features that are the same for all items, in the order of USER_NAMES.

        Level; share of the history that was liked; log of 1 + length of the history, over 4; slates shown before, in
        units of the horizon.
        """
        return self.values[:, : len(USER_NAMES)]

    def pair_blocks(self) -> tuple[F32, ...]:
        """User block [n, k] of each pair feature, in the order of PAIR_NAMES."""
        return self.taste, self.content, self.categories, self.recent

    def of(self, rows: slice) -> UserBlocks:
        """The blocks of some of the users."""
        return UserBlocks(self.values[rows], self.parts)

    def state(self) -> F32:
        """[n, s] everything of a user, for a network; not to be written to."""
        return self.values


@dataclass(frozen=True, slots=True)
class Features:
    """Tables fitted on the train rows.

    Attributes:
        mean: like rate of the train rows.
        like_rate: [I] shrunk like rate of the item less the mean.
        popularity: [I] log(1 + likes), standardised.
        vectors: [I, r] the content directions beside a vector learned from who liked what.
        content: [I, p] main directions of the content vectors, mean square length 1.
        categories: [I, C] categories, unit length; the content directions where the catalogue names no categories.
        precision: [1 + r] prior precision of a user's level and taste, in rows.
        pair_scale: [4] standard deviation of the pair features over train users and items.
        window: newest items that count as recent: two slates.
        horizon: T.
    """

    mean: float
    like_rate: F32
    popularity: F32
    vectors: F32
    content: F32
    categories: F32
    precision: F32
    pair_scale: F32
    window: int
    horizon: int
    _pair_items: tuple[F32, ...] = field(init=False, repr=False, compare=False)
    _items: F32 = field(init=False, repr=False, compare=False)
    _design: F32 = field(init=False, repr=False, compare=False)
    _expected: F32 = field(init=False, repr=False, compare=False)
    _slices: tuple[slice, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        from agents.folding import design_of  # numba is slow to import, and who lists agents folds nobody in

        object.__setattr__(self, "_design", design_of(self.vectors, self.categories))
        object.__setattr__(self, "_expected", (self.mean + self.like_rate).astype(np.float32))
        blocks = zip((self.vectors, self.content, self.categories, self.categories), self.pair_scale, strict=True)
        object.__setattr__(self, "_pair_items", tuple((block / scale).astype(np.float32) for block, scale in blocks))
        items = [self.like_rate[:, None] / 0.15, self.popularity[:, None], self.content]
        object.__setattr__(self, "_items", np.concatenate(items, axis=1))
        ends = len(USER_NAMES) + np.cumsum([0] + [block.shape[1] for block in self._pair_items])
        object.__setattr__(self, "_slices", tuple(slice(int(low), int(high)) for low, high in pairwise(ends)))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), tuple(getattr(self, one.name) for one in fields(self) if one.init)

    @property
    def n_items(self) -> int:
        """I."""
        return len(self.like_rate)

    def users(self, observation: Observation) -> UserBlocks:
        """Blocks of the users of an observation."""
        from agents.folding import describe, scratch_of

        items = np.ascontiguousarray(observation.history_items, np.int64)
        parts = self.pair_slices()
        values = np.empty((len(items), parts[-1].stop), np.float32)
        describe(
            items,
            np.ascontiguousarray(observation.history_feedback, np.float32),
            np.ascontiguousarray(observation.step * observation.slate_size, np.int64),
            (observation.step / self.horizon).astype(np.float32),
            self._design,
            self._expected,
            place_discounts(items.shape[1], observation.slate_size),
            self.precision,
            self.content.shape[1],
            self.categories.shape[1],
            self.window,
            scratch_of(items.shape[1], self._design.shape[1], len(self.precision)),
            values,
        )
        return UserBlocks(values, parts)

    def pair_blocks(self, users: UserBlocks) -> tuple[tuple[F32, F32], ...]:
        """(user block [n, k], item block [I, k]) of each pair feature; their product has unit standard deviation."""
        return tuple(zip(users.pair_blocks(), self.pair_item_blocks(), strict=True))

    def pair_item_blocks(self) -> tuple[F32, ...]:
        """Item block [I, k] of each pair feature; not to be written to."""
        return self._pair_items

    def pair_slices(self) -> tuple[slice, ...]:
        """Where each pair feature's user block stands in `UserBlocks.state`."""
        return self._slices

    def item_features(self) -> F32:
        """[I, 2 + p] features of items alone, ITEM_NAMES, then the content directions; not to be written to."""
        return self._items


def fit_features(
    training: Training, *, content_size: int = 16, learned_size: int = 8, category_size: int | None = None
) -> Features:
    """Fit the tables on the train rows.

    Args:
        training: gives the log, the catalogue and the sizes of slate and session.
        content_size: directions kept of the content vectors.
        learned_size: dimensions learned from who liked what.
        category_size: main directions kept of the categories; None, or as many as there are categories: all of them.
    """
    log = training.log
    n_items = log.catalogue.n_items
    mean = float(log.primary.mean())
    rows = np.bincount(log.item, minlength=n_items)
    likes = np.bincount(log.item, weights=log.primary, minlength=n_items)
    like_rate = ((likes - mean * rows) / (rows + SHRINK)).astype(np.float32)
    popularity = np.log1p(likes)
    popularity = (popularity - popularity.mean()) / max(float(popularity.std()), 1e-6)
    content = content_directions(log.catalogue, content_size)
    surprise = log.primary - mean - like_rate[log.item]
    learned = _learn_vectors(log, surprise, content, learned_size, training.rng)
    vectors = np.concatenate([content, learned], axis=1, dtype=np.float32)
    categories = unit_rows(log.catalogue.item_categories) if log.catalogue.item_categories.shape[1] else content
    if category_size is not None and category_size < categories.shape[1]:
        categories = main_directions(categories, category_size)
    unscaled = Features(
        mean=mean,
        like_rate=like_rate,
        popularity=popularity.astype(np.float32),
        vectors=vectors,
        content=content,
        categories=categories.astype(np.float32),
        precision=_precision(content.shape[1], learned.shape[1]),
        pair_scale=np.ones(len(PAIR_NAMES), np.float32),
        window=2 * training.slate_size,
        horizon=training.horizon,
    )
    users = unscaled.users(newest_rows(log, length=50, slate_size=training.slate_size))
    spread = [_product_spread(user, item) for user, item in unscaled.pair_blocks(users)]
    return replace(unscaled, pair_scale=np.maximum(np.array(spread, np.float32), 1e-6))


def _product_spread(user: F32, item: F32) -> float:
    """Standard deviation of all inner products of n users and I items, from moments: the product itself is [n, I]."""
    left, right = user.astype(np.float64), item.astype(np.float64)
    square = np.sum((left.T @ left / len(left)) * (right.T @ right / len(right)))
    return float(np.sqrt(max(square - (left.mean(axis=0) @ right.mean(axis=0)) ** 2, 0.0)))


def newest_rows(log: InteractionLog, *, length: int, slate_size: int) -> Observation:
    """What would be observed of each user who has rows, after all of them."""
    users = np.unique(log.user)
    items, feedback = histories_of(log, users, keep=np.ones(len(log), bool)).last(length)
    return Observation(
        user_features=log.catalogue.user_features[users],
        history_items=items,
        history_feedback=feedback,
        context=np.zeros((len(users), 0), np.float32),
        candidates=None,
        step=np.zeros(len(users), np.int64),
        slate_size=slate_size,
    )


def content_directions(catalogue: Catalogue, size: int) -> F32:
    """[I, p] main directions of the items' content vectors (categories where there are none)."""
    return main_directions(catalogue.item_categories if catalogue.content is None else catalogue.content, size)


def main_directions(vectors: F32, size: int) -> F32:
    """[m, p] main directions of the vectors [m, d], mean square length 1; one column of zeros where all are alike."""
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    if not centred.any():
        return np.zeros((len(vectors), 1), np.float32)
    values, directions = np.linalg.eigh(centred.T @ centred)
    kept = directions[:, np.argsort(-values)[: min(size, int((values > 1e-9 * values.max()).sum()))]]
    # The sign of a direction is arbitrary; fix it by its largest loading.
    kept *= np.sign(kept[np.abs(kept).argmax(axis=0), np.arange(kept.shape[1])])
    reduced = centred @ kept
    return (reduced / np.sqrt((reduced**2).sum(axis=1).mean())).astype(np.float32)


def fold_in(items: NDArray[np.int64], trust: F32, surprise: F32, design: F32, precision: F32) -> tuple[F32, F32]:
    """Level [n] and taste [n, r] of users in closed form: ridge regression of surprise on the items' vectors.

    Args:
        items: [n, H] items of the history; -1 is empty.
        trust: [n, H] weight of each.
        surprise: [n, H] feedback less what the item's like rate would say.
        design: [I, w] vectors of the items, from `agents.folding.design_of`.
        precision: [1 + r] prior precision of the level and each coefficient, in rows, above 0.
    """
    from agents.folding import ridge, scratch_of

    out = np.empty((len(items), len(precision)), np.float32)
    ridge(items, trust, surprise, design, precision, scratch_of(items.shape[1], design.shape[1], len(precision)), out)
    return out[:, 0], out[:, 1:]


def _precision(content_size: int, learned_size: int) -> F32:
    """Prior precision of level, content and learned coefficients."""
    return np.concatenate(
        [[LEVEL_PRECISION], np.full(content_size, CONTENT_PRECISION), np.full(learned_size, LEARNED_PRECISION)]
    ).astype(np.float32)


def _learn_vectors(
    log: InteractionLog, surprise: NDArray[np.floating], content: F32, size: int, rng: np.random.Generator
) -> F32:
    """[I, q] item vectors by alternating ridge regressions (Hu, Koren and Volinsky, 2008, without confidence).

    Users have a level and coefficients of the content and of the learned vectors; the learned ones take what content
    leaves. Sums over a user's or an item's rows are one sparse product.
    """
    users, user = np.unique(log.user, return_inverse=True)
    n_items = log.catalogue.n_items
    shape = (len(users), n_items)
    seen = csr_matrix((np.ones(len(log)), (user, log.item)), shape=shape)
    value = csr_matrix((surprise.astype(np.float64), (user, log.item)), shape=shape)
    precision = _precision(content.shape[1], size).astype(np.float64)
    learned = rng.normal(0.0, 1 / np.sqrt(size), (n_items, size))
    for _ in range(ROUNDS):
        items = np.concatenate([np.ones((n_items, 1)), content, learned], axis=1)
        taste = _ridge(seen, value @ items, items, precision)
        fixed, free = taste[:, : 1 + content.shape[1]], taste[:, 1 + content.shape[1] :]
        left = value.tocoo()
        explained = np.einsum("ij,ij->i", fixed[left.row], items[left.col, : fixed.shape[1]])
        rest = csr_matrix((left.data - explained, (left.row, left.col)), shape=shape)
        learned = _ridge(seen.T.tocsr(), rest.T @ free, free, np.full(size, ITEM_PRECISION))
        # Only products of both sides are identified: keep the items' mean square length at 1, as the content's is.
        learned /= max(np.sqrt((learned**2).sum(axis=1).mean()), 1e-9)
    return learned.astype(np.float32)


def _ridge(
    seen: csr_matrix, right: NDArray[np.float64], design: NDArray[np.float64], precision: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Solve one ridge regression for each row of `seen`, on the design rows that it names."""
    size = design.shape[1]
    squares = (design[:, :, None] * design[:, None, :]).reshape(len(design), -1)
    gram = (seen @ squares).reshape(-1, size, size) + np.diag(precision)
    return np.asarray(np.linalg.solve(gram, right[..., None])[..., 0])


def attention(observation: Observation) -> F32:
    """[n, H] how far "not clicked" means "not liked": 1 for logged rows; on slates it falls as NDCG's discount does.

    An item far down a slate was perhaps never looked at; that this is so is known to whoever builds slates, how much
    it is so is not, hence the general discount and not the simulator's examination.
    """
    discounts = place_discounts(observation.history_items.shape[1], observation.slate_size)
    return np.where(in_session(observation), discounts, np.float32(1.0))


@cache
def place_discounts(length: int, slate_size: int) -> F32:
    """[H] NDCG's discount of the place of a slate that each place of a history was, were it shown in this session.

    Not to be written to: everybody gets the same array.
    """
    position = slate_size - 1 - np.arange(length)[::-1] % slate_size
    return discount(position).astype(np.float32)


def discount(position: NDArray[np.int64]) -> NDArray[np.float64]:
    """How far "not clicked" means "not liked" at places of a slate, 0 the first."""
    return np.asarray(1 / np.log2(2 + position))


def in_session(observation: Observation) -> NDArray[np.bool_]:
    """[n, H] places of the history that were shown in this session, not logged before it."""
    back = np.arange(observation.history_items.shape[1])[::-1]  # 0 is the newest
    return np.asarray(back[None, :] < (observation.step * observation.slate_size)[:, None])


def unit_rows(matrix: F32) -> F32:
    """Rows scaled to length 1; rows of zeros stay so."""
    return matrix / np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-9)
