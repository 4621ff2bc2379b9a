"""Rankings that are read off the train rows: what is new, what a user's kind likes, what goes with what was liked."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy.sparse import csr_matrix

from agents.base import AgentError, Observation, Training
from agents.baselines import NoSettings, Ranking
from agents.needs import lacking
from agents.slates import masked, top_slates

F32 = NDArray[np.float32]

NEVER_SHOWN = 1e-6
"""Rows for which an item counts that the log never showed: it fills a slate when all others are gone."""

LEAST_POPULARITY = 1e-6
"""Weight of popularity in the scores of the neighbours: it orders items that nothing else tells apart."""


class RecentSettings(BaseModel):
    """What counts as recent."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    half_life: float = Field(
        default=0.1, gt=0, description="time in which a like loses half its weight, in spans of the train rows"
    )


class Recent(Ranking):
    """Shows what was liked lately: a like of the train rows loses half its weight with every half-life."""

    def __init__(self, settings: RecentSettings) -> None:
        self.settings = settings
        self._weight = np.zeros(0, np.float32)

    def fit(self, training: Training) -> None:
        """Count likes by age.

        Raises:
            AgentError: the log has no times.
        """
        log = training.log
        if lack := lacking("times", log):
            raise AgentError(f"recent: {lack}")
        span = max(float(np.ptp(log.time)), 1e-9)
        age = (log.time.max() - log.time) / span / self.settings.half_life
        likes = np.bincount(log.item, weights=log.primary * 0.5**age, minlength=log.catalogue.n_items)
        self._weight = likes.astype(np.float32)

    def scores(self, observation: Observation) -> NDArray[np.floating]:
        """[I] weighted likes."""
        return self._weight


class SegmentPopularitySettings(BaseModel):
    """How users are grouped."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    segments: int = Field(default=8, ge=1, description="groups of users with alike public features (k-means)")
    shrink: float = Field(
        default=50.0, gt=0, description="likes of all users that each segment's own are shrunk to, count"
    )


class SegmentPopularity(Ranking):
    """Shows what users of the same segment liked, shrunk to what everyone liked.

    Segments are groups of public user features; the sensitive attributes that the scenario does not list as policy
    inputs are not among them. A user without features is in the segment of the average.
    """

    def __init__(self, settings: SegmentPopularitySettings) -> None:
        self.settings = settings
        self._centres = np.zeros((1, 0), np.float32)  # [s, f]
        self._mean = np.zeros(0, np.float32)
        self._scale = np.ones(0, np.float32)
        self._share = np.zeros((1, 0), np.float32)  # [s, I]

    def fit(self, training: Training) -> None:
        """Group the train users and count each group's likes."""
        from sklearn.cluster import KMeans

        log = training.log
        users, user = np.unique(log.user, return_inverse=True)
        features = log.catalogue.user_features[users]
        self._mean, scale = features.mean(axis=0), features.std(axis=0)
        self._scale = np.where(scale > 0, scale, 1).astype(np.float32)
        scaled = (features - self._mean) / self._scale
        count = min(self.settings.segments, len(np.unique(scaled, axis=0)))
        if scaled.shape[1] and count > 1:
            grouped = KMeans(count, n_init=4, random_state=training.seed).fit(scaled)
            self._centres, segment = grouped.cluster_centers_.astype(np.float32), grouped.labels_
        else:
            self._centres, segment = np.zeros((1, scaled.shape[1]), np.float32), np.zeros(len(users), np.int64)
        n_items = log.catalogue.n_items
        cell = segment[user].astype(np.int64) * n_items + log.item
        likes = np.bincount(cell, weights=log.primary, minlength=len(self._centres) * n_items).reshape(-1, n_items)
        everyone = likes.sum(axis=0) / max(likes.sum(), 1.0)
        own = likes.sum(axis=1, keepdims=True)
        self._share = ((likes + self.settings.shrink * everyone) / (own + self.settings.shrink)).astype(np.float32)

    def scores(self, observation: Observation) -> NDArray[np.floating]:
        """[n, I] share of the segment's likes that each item has."""
        scaled = (observation.user_features - self._mean) / self._scale
        distance = (self._centres**2).sum(axis=1) - 2 * scaled @ self._centres.T  # [n, s]
        return self._share[distance.argmin(axis=1)]


class CooccurrenceSettings(BaseModel):
    """Which likes count, and how many neighbours."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    last: int = Field(default=10, ge=1, description="newest likes of a user whose neighbours are shown, count")
    neighbours: int = Field(default=100, ge=1, description="neighbours kept of each item, count")
    shrink: float = Field(
        default=10.0, ge=0, description="users added to each pair's norm, so that rare pairs weigh less"
    )


class Cooccurrence(Ranking):
    """Shows what others liked who liked the user's newest likes (item-to-item; Linden, Smith, York 2003).

    Likeness of two items: users who liked both over the root of the product of their likes, shrunk.
    """

    def __init__(self, settings: CooccurrenceSettings) -> None:
        self.settings = settings
        self._likeness = csr_matrix((0, 0), dtype=np.float32)  # [I, I]
        self._popular = np.zeros(0, np.float32)

    def fit(self, training: Training) -> None:
        """Count which items were liked together."""
        log = training.log
        liked = log.primary > 0
        n_items = log.catalogue.n_items
        table = csr_matrix(
            (np.ones(int(liked.sum()), np.float32), (log.user[liked], log.item[liked])),
            shape=(log.catalogue.n_users, n_items),
        )
        table.data[:] = 1.0  # a pair that was logged twice is one user
        count = np.asarray(table.sum(axis=0)).ravel()
        together = (table.T @ table).tocsr()
        together.setdiag(0)
        together.eliminate_zeros()
        row = np.repeat(np.arange(n_items), np.diff(together.indptr))
        norm = np.sqrt(count[row] * count[together.indices]) + self.settings.shrink
        together.data = (together.data / norm).astype(np.float32)
        self._likeness = _strongest(together, self.settings.neighbours)
        self._popular = (count / max(count.max(), 1.0)).astype(np.float32)

    def scores(self, observation: Observation) -> NDArray[np.floating]:
        """[n, I] likeness to the newest likes; where there are none, popularity."""
        newest = newest_likes(observation, self.settings.last, len(self._popular))
        return np.asarray((newest @ self._likeness).todense()) + LEAST_POPULARITY * self._popular


class ContentSettings(BaseModel):
    """Which likes count."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    last: int = Field(default=10, ge=1, description="newest likes of a user whose likes are shown, count")


class Content(Ranking):
    """Shows the items whose content vectors are nearest to those of the user's newest likes (mean cosine)."""

    def __init__(self, settings: ContentSettings) -> None:
        self.settings = settings
        self._content = np.zeros((0, 0), np.float32)  # [I, d]
        self._popular = np.zeros(0, np.float32)

    def fit(self, training: Training) -> None:
        """Take the catalogue's content vectors.

        Raises:
            AgentError: the items have neither text nor categories.
        """
        content = training.catalogue.content
        if content is None:
            raise AgentError("content: the items have no content vectors; name data.item_text or data.item_categories")
        centred = content - content.mean(axis=0)  # what all texts share says nothing about likeness
        length = np.linalg.norm(centred, axis=1, keepdims=True)
        self._content = (centred / np.where(length > 0, length, 1)).astype(np.float32)
        likes = np.bincount(training.log.item, weights=training.log.primary, minlength=len(content))
        self._popular = (likes / max(likes.max(), 1.0)).astype(np.float32)

    def scores(self, observation: Observation) -> NDArray[np.floating]:
        """[n, I] mean cosine with the newest likes; where there are none, popularity."""
        newest = newest_likes(observation, self.settings.last, len(self._popular))
        return (newest @ self._content) @ self._content.T + LEAST_POPULARITY * self._popular


class Logged:
    """The log's own policy as far as the rows tell it: each item is shown as often as the log showed it.

    A stand-in for a policy that looked at the user: it has that policy's exposure of the catalogue, not its taste.
    """

    def __init__(self, settings: NoSettings) -> None:
        self._shown: NDArray[np.float64] = np.zeros(0)

    def fit(self, training: Training) -> None:
        """Count what was shown.

        Raises:
            AgentError: users chose what to rate, so that no policy showed it.
        """
        log = training.log
        if lack := lacking("a log of exposure", log):
            raise AgentError(f"logged: {lack}")
        self._shown = np.asarray(np.bincount(log.item, minlength=log.catalogue.n_items) + NEVER_SHOWN, np.float64)

    def act(self, observation: Observation, rng: np.random.Generator) -> NDArray[np.int64]:
        """A draw without repeats in proportion to exposure (Plackett-Luce: who comes first at rates of his weight)."""
        # In single precision one wait in 10^7 is 0, and its item would stand first whatever its weight.
        waiting = rng.standard_exponential((len(observation), len(self._shown)))
        return top_slates(np.divide(self._shown, waiting, out=waiting), observation)

    def action_probabilities(self, observation: Observation) -> NDArray[np.float64]:
        """Exposure among the candidates."""
        weight = np.exp(masked(np.log(self._shown), observation)).astype(np.float64)
        return np.asarray(weight / np.maximum(weight.sum(axis=1, keepdims=True), 1e-300))


def newest_likes(observation: Observation, last: int, n_items: int) -> csr_matrix:
    """[n, I] equal weights that sum to 1 on each user's newest `last` likes; empty rows where there are none."""
    liked = (observation.history_items >= 0) & (observation.history_feedback > 0)  # [n, H]
    rank = np.cumsum(liked[:, ::-1], axis=1)[:, ::-1]  # 1 is the newest
    kept = liked & (rank <= last)
    row, place = np.nonzero(kept)
    weight = (1 / np.maximum(kept.sum(axis=1), 1))[row].astype(np.float32)
    return csr_matrix((weight, (row, observation.history_items[row, place])), shape=(len(observation), n_items))


def _strongest(table: csr_matrix, kept: int) -> csr_matrix:
    """The table with the `kept` largest entries of each row."""
    row = np.repeat(np.arange(table.shape[0]), np.diff(table.indptr))
    order = np.lexsort((table.indices, -table.data, row))
    place = np.arange(len(order)) - table.indptr[row[order]]
    chosen = order[place < kept]
    return csr_matrix((table.data[chosen], (row[chosen], table.indices[chosen])), shape=table.shape)
