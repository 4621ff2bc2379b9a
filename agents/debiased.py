"""A recommender that learns from the log with inverse-propensity weights: what was rarely shown counts more."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy.sparse import csr_matrix

from agents.base import Observation, Training
from agents.baselines import Ranking
from agents.features import attention, fold_in

Floats = NDArray[np.float64]

ROUNDS = 10
MOST_USERS = 2_048
"""Users folded in at a time: their design is [n, H, r]."""


class DebiasedSettings(BaseModel):
    """Parameters of the debiased recommender."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    power: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="where the log has no propensities they are taken as (rows of the item / most rows)^power; "
        "0 weights all rows alike",
    )
    weighted: bool = Field(
        default=True, description="weigh each row by 1 / propensity; false: the same model, all rows alike"
    )
    clip: float = Field(default=10.0, ge=1, description="largest weight of a row, in mean weights")
    embedding_size: int = Field(default=8, ge=1, description="dimensions learned from who liked what")
    reg: float = Field(default=10.0, gt=0, description="ridge penalty of users and items, in rows of mean weight")


class Debiased(Ranking):
    """Matrix factorisation with inverse-propensity weights (Schnabel, Swaminathan, Singh, Chandak, Joachims, 2016).

    A log shows what was chosen or popular, so an unweighted model learns the taste of whoever met an item, not of
    everyone. Each row counts 1 / propensity: the logged one where there is one, else a power of the item's rows (Saito
    et al., 2020), which is an assumption. Users are folded in from their history in closed form with the same weights.
    """

    def __init__(self, settings: DebiasedSettings) -> None:
        self.settings = settings
        self._weight = np.zeros(0)  # [I] mean weight of the item's rows
        self._mean = 0.0
        self._bias = np.zeros(0)  # [I]
        self._vectors = np.zeros((0, 0))  # [I, r]
        self._design = np.zeros((0, 0), np.float32)  # [I, w] the same as the ridge regression reads them

    def fit(self, training: Training) -> None:
        """Fit to the train rows, alternating between users and items."""
        from agents.folding import design_of  # numba is slow to import, and who lists agents folds nobody in

        log = training.log
        n_items = log.catalogue.n_items
        rows = np.bincount(log.item, minlength=n_items)
        propensity = log.propensity if self.settings.weighted else np.ones(len(log))
        if propensity is None:
            propensity = ((rows / rows.max()) ** self.settings.power)[log.item]
        weight = 1 / propensity
        weight = np.minimum(weight / weight.mean(), self.settings.clip)
        weight = weight / weight.mean()
        total = np.bincount(log.item, weight, n_items)
        # An item that nobody met weighs as the rarest that somebody did: in a history it can only come from a session.
        of_item = total / np.maximum(rows, 1)
        self._weight = np.where(rows > 0, of_item, of_item[rows > 0].max())
        self._mean = float(np.average(log.primary, weights=weight))
        users, user = np.unique(log.user, return_inverse=True)
        shape = (len(users), n_items)
        reg, size = self.settings.reg, self.settings.embedding_size
        surprise = log.primary - self._mean
        seen = csr_matrix((weight, (user, log.item)), shape=shape)
        value = csr_matrix((weight * surprise, (user, log.item)), shape=shape)
        items = training.rng.normal(0.0, 1 / np.sqrt(size), (n_items, size))
        bias = np.asarray(value.sum(axis=0)).ravel() / (np.asarray(seen.sum(axis=0)).ravel() + reg)
        for _ in range(ROUNDS):
            # Users: level and taste, given the items; then items: bias and vector, given the users.
            taste = _solve(seen, value - seen.multiply(bias[None, :]).tocsr(), _with_one(items), reg)
            level, coefficients = taste[:, 0], taste[:, 1:]
            rest = value - seen.multiply(level[:, None]).tocsr()
            found = _solve(seen.T.tocsr(), rest.T.tocsr(), _with_one(coefficients), reg)
            bias, items = found[:, 0], found[:, 1:]
            # Only products of both sides are identified: keep the items' mean square length at 1.
            items = items / max(float(np.sqrt((items**2).sum(axis=1).mean())), 1e-9)
        self._bias, self._vectors = bias, items
        self._design = design_of(items.astype(np.float32))

    def scores(self, observation: Observation) -> NDArray[np.floating]:
        """[n, I] expected like of every item."""
        out = np.empty((len(observation), len(self._bias)), np.float32)
        looked = np.where(observation.history_feedback == 0, attention(observation), 1.0)
        for low in range(0, len(observation), MOST_USERS):
            rows = slice(low, low + MOST_USERS)
            out[rows] = self._bias + self._taste(observation, looked[rows], rows) @ self._vectors.T
        return out

    def _taste(self, observation: Observation, looked: Floats, rows: slice) -> Floats:
        items = np.ascontiguousarray(observation.history_items[rows])
        surprise = observation.history_feedback[rows] - self._mean - self._bias[items]  # of no weight where empty
        trust = self._weight[items] * (items >= 0) * looked
        precision = np.full(1 + self._vectors.shape[1], self.settings.reg, np.float32)
        _, taste = fold_in(items, trust.astype(np.float32), surprise.astype(np.float32), self._design, precision)
        return taste.astype(np.float64)


def _with_one(vectors: Floats) -> Floats:
    return np.concatenate([np.ones((len(vectors), 1)), vectors], axis=1)


def _solve(seen: csr_matrix, value: csr_matrix, design: Floats, reg: float) -> Floats:
    """Weighted ridge regression of each row of `value` on the design rows that `seen` weights."""
    size = design.shape[1]
    squares = (design[:, :, None] * design[:, None, :]).reshape(len(design), -1)
    gram = np.asarray(seen @ squares).reshape(-1, size, size) + reg * np.eye(size)
    return np.asarray(np.linalg.solve(gram, np.asarray(value @ design)[..., None])[..., 0])
