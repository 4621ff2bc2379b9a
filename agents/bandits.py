"""Bandits that learn online in the train world, many users at a time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from agents.base import Observation, Training
from agents.features import PAIR_NAMES, USER_NAMES, Features, UserBlocks, fit_features
from agents.slates import greedy_probabilities, top_slates, uniform_probabilities
from agents.train_world import Curve, Lanes

F32 = NDArray[np.float32]


class LinUCBSettings(BaseModel):
    """Parameters of LinUCB."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    alpha: float = Field(default=0.5, ge=0, description="width of the confidence bound while it learns, in clicks")
    reg: float = Field(default=1.0, gt=0, description="ridge penalty, in observed clicks")
    num_envs: int = Field(default=128, ge=1, description="users who are served at once")
    content_size: int = Field(default=16, ge=1, description="directions of the content vectors used as features")


class LinUCB:
    """LinUCB with features shared by all items (Li, Chu, Langford and Schapire, 2010), slates by highest bound.

    The click at each place of a slate is regressed on features of user, item, pair and place; all users of a step are
    served by one bound and update it together. It explores in the train world only: a trained agent shows the
    items of highest mean and, as `act` must, learns nothing more. Untrained, it has no preference and shows any.
    """

    def __init__(self, settings: LinUCBSettings) -> None:
        self.settings = settings
        self._features: Features | None = None
        self._theta = np.zeros(0, np.float32)
        self._seen = 0

    def fit(self, training: Training) -> None:
        """Learn online for `budget` user-steps (default 50,000)."""
        budget = 50_000 if training.budget is None else training.budget
        self._features = fit_features(training, content_size=self.settings.content_size)
        item = self._features.item_features()  # [I, a]
        n_pair, n_user = len(PAIR_NAMES), len(USER_NAMES)
        size = 1 + item.shape[1] + n_pair + n_user + 1
        gram, right = np.eye(size) * self.settings.reg, np.zeros(size)
        self._theta = np.zeros(size, np.float32)
        curve = Curve(training, budget)
        curve.measure(0, self.act)
        lanes = Lanes(training, self.settings.num_envs, seed=training.seed)
        observation = lanes.reset()
        discount = (1 / np.log2(2 + np.arange(training.slate_size)) - 1).astype(np.float32)
        while self._seen < budget and not curve.out_of_time():
            users = self._features.users(observation)
            bound = self._mean(users) + self.settings.alpha * _width(np.linalg.inv(gram), self._features, users)
            slates = top_slates(bound, observation)
            step = lanes.step(slates)
            rows, places = np.nonzero(slates >= 0)
            chosen = slates[rows, places]
            x = np.concatenate(
                [
                    np.ones((len(rows), 1)),
                    item[chosen],
                    _pairs_at(self._features, users, rows, chosen),
                    users.user_features()[rows],
                    discount[places, None],
                ],
                axis=1,
            )
            gram += x.T @ x
            right += x.T @ step.clicks[rows, places]
            self._theta = np.linalg.solve(gram, right).astype(np.float32)
            self._seen += len(observation)
            observation = step.observation
            curve.measure(self._seen, self.act, last=self._seen >= budget)
        lanes.close()
        curve.close()

    def act(self, observation: Observation, rng: np.random.Generator) -> NDArray[np.int64]:
        """The candidates of highest expected click; before any training, any candidates."""
        if self._seen == 0:
            return top_slates(rng.random((len(observation), self._n_items(observation)), dtype=np.float32), observation)
        return top_slates(self._scores(observation), observation)

    def action_probabilities(self, observation: Observation) -> NDArray[np.float64]:
        """One for the candidate of highest expected click; equal before any training."""
        if self._seen == 0:
            return uniform_probabilities(observation, self._n_items(observation))
        return greedy_probabilities(self._scores(observation), observation)

    def _n_items(self, observation: Observation) -> int:
        if observation.candidates is not None:
            return observation.candidates.shape[1]
        return self._features.n_items if self._features is not None else 0

    def _scores(self, observation: Observation) -> F32:
        assert self._features is not None
        return self._mean(self._features.users(observation))

    def _mean(self, users: UserBlocks) -> F32:
        """[n, I] expected click at the top of a slate: one matrix product. What is equal for all items is left out."""
        assert self._features is not None
        item = self._features.item_features()
        weights = self._theta[1 + item.shape[1] :]
        blocks = self._features.pair_blocks(users)
        left = np.concatenate([user * weight for (user, _), weight in zip(blocks, weights, strict=False)], axis=1)
        right = np.concatenate([block for _, block in blocks], axis=1)
        return left @ right.T + item @ self._theta[1 : 1 + item.shape[1]]


def _pairs_at(features: Features, users: UserBlocks, rows: NDArray[np.int64], items: NDArray[np.int64]) -> F32:
    """[m, 4] pair features of some pairs only."""
    return np.stack(
        [np.einsum("mk,mk->m", user[rows], item[items]) for user, item in features.pair_blocks(users)], axis=1
    )


def _width(inverse: NDArray[np.floating], features: Features, users: UserBlocks) -> F32:
    """[n, I] standard error of the expected click at the top of a slate, in units of the noise.

    x is (item part, pair part, user part), so the quadratic form falls into products that are all cheap.
    """
    item = np.concatenate([np.ones((features.n_items, 1)), features.item_features()], axis=1)
    user = users.user_features()
    a, p = item.shape[1], len(PAIR_NAMES)
    spread = inverse[:-1, :-1]  # the feature of the place is 0 at the top
    by_item, by_pair, by_user = slice(0, a), slice(a, a + p), slice(a + p, None)
    total = np.einsum("ij,jk,ik->i", item, spread[by_item, by_item], item, optimize=True)[None, :].astype(np.float32)
    total = total + np.einsum("nj,jk,nk->n", user, spread[by_user, by_user], user, optimize=True)[:, None]
    total = total + 2 * (user @ spread[by_user, by_item]) @ item.T
    pairs = [block @ other.T for block, other in features.pair_blocks(users)]  # 4 of [n, I]
    with_item = item @ spread[by_item, by_pair]  # [I, 4]
    with_user = user @ spread[by_user, by_pair]  # [n, 4]
    for j, pair in enumerate(pairs):
        total += 2 * pair * (with_item[:, j] + with_user[:, j, None])
        for k, other in enumerate(pairs):
            total += spread[a + j, a + k] * pair * other
    return np.sqrt(np.maximum(total, 0)).astype(np.float32)
