"""Linear bandits that learn online in the train world, many users at a time.

They share one model, the click at each place of a slate regressed on features of user, item, pair and place, and
differ in how they explore with it and which places teach them. All users of a step are served by one posterior and
update it together. They explore in the train world only: a trained agent shows the items of highest mean and learns
nothing more, unless `online` is set: then it goes on exploring and learning in each flight. Untrained, it has no
preference and shows any.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from agents.base import AgentError, Feedback, Observation, Training
from agents.features import PAIR_NAMES, USER_NAMES, Features, UserBlocks, fit_features
from agents.slates import greedy_probabilities, top_slates, uniform_probabilities
from agents.teaching import own_act, teach
from agents.train_world import Lanes, Step

F32 = NDArray[np.float32]
Floats = NDArray[np.float64]

DEFAULT_STEPS = 50_000
"""User-steps of a training whose scenario names no budget."""


class BanditSettings(BaseModel):
    """Parameters that all linear bandits have."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    reg: float = Field(default=1.0, gt=0, description="ridge penalty, in observed clicks")
    num_envs: int = Field(default=128, ge=1, description="users who are served at once")
    content_size: int = Field(default=16, ge=1, description="directions of the content vectors used as features")
    online: bool = Field(default=False, description="go on exploring and learning while it is judged")


class LinUCBSettings(BanditSettings):
    """Parameters of LinUCB."""

    alpha: float = Field(default=0.5, ge=0, description="width of the confidence bound while it learns, in clicks")


class EpsilonGreedySettings(BanditSettings):
    """Parameters of the epsilon-greedy bandit."""

    epsilon: float = Field(default=0.1, ge=0, le=1, description="share of slates shown at random while it learns")


class ThompsonSettings(BanditSettings):
    """Parameters of Thompson sampling."""

    scale: float = Field(default=0.3, ge=0, description="standard deviation of the noise that is sampled, in clicks")


class LogisticThompsonSettings(BanditSettings):
    """Parameters of logistic Thompson sampling."""

    scale: float = Field(default=1.0, ge=0, description="sampled standard deviation, in those of the posterior")


class LinearBandit:
    """What the bandits share: features, ridge regression, and the loop in the train world."""

    def __init__(self, settings: BanditSettings) -> None:
        self.settings = settings
        self._features: Features | None = None
        self._theta = np.zeros(0, np.float32)
        self._gram: Floats = np.zeros((0, 0))
        self._right: Floats = np.zeros(0)
        self._seen = 0

    def explore(self, users: UserBlocks, observation: Observation, rng: np.random.Generator) -> NDArray[np.int64]:
        """The slates [n, K] that are shown while it learns."""
        raise NotImplementedError

    def fit(self, training: Training) -> None:
        """Learn online for `budget` user-steps (default 50,000)."""
        budget = DEFAULT_STEPS if training.budget is None else training.budget
        self._features = fit_features(training, content_size=self.settings.content_size)
        size = 1 + self._features.item_features().shape[1] + len(PAIR_NAMES) + len(USER_NAMES) + 1
        size += self.prepare(training)
        self._gram, self._right = np.eye(size) * self.settings.reg, np.zeros(size)
        self._theta = np.zeros(size, np.float32)
        learned = teach(training, lambda: _Serving(self, training), own_act, budget=budget)
        vars(self).update(vars(learned))

    def prepare(self, training: Training) -> int:
        """Ready what a bandit has beside the tables of features; returns how many features it adds to them."""
        return 0

    def returns(self, step: Step) -> F32:
        """[n, K] what each place of a slate is learned to bring: its click."""
        return step.clicks

    @property
    def online(self) -> bool:
        """Whether it goes on learning while it is judged."""
        return self.settings.online

    def observe(self, feedback: Feedback) -> None:
        """Learn from one slate of each user."""
        assert self._features is not None
        self._take_in(self._features.users(feedback.observation), feedback.slates, feedback.clicks)

    def _take_in(self, users: UserBlocks, slates: NDArray[np.int64], clicks: F32) -> None:
        rows, places = np.nonzero(self.teaches(slates, clicks))
        items = slates[rows, places]
        self.learn(self._design(users, rows, places, items), items, clicks[rows, places])
        self._seen += len(slates)

    def teaches(self, slates: NDArray[np.int64], clicks: F32) -> NDArray[np.bool_]:
        """[n, K] places whose click or none is learned from: all that showed an item."""
        return slates >= 0

    def learn(self, design: Floats, items: NDArray[np.int64], clicks: F32) -> None:
        """Take in the clicks [m] on rows of features [m, size] of the items [m]."""
        self._gram += design.T @ design
        self._right += design.T @ clicks
        self._theta = np.linalg.solve(self._gram, self._right).astype(np.float32)

    def act(self, observation: Observation, rng: np.random.Generator) -> NDArray[np.int64]:
        """The candidates of highest expected click, or those it explores if `online`; before any training, any."""
        if self._seen == 0:
            return top_slates(rng.random((len(observation), self._n_items(observation)), dtype=np.float32), observation)
        if self.online:
            assert self._features is not None
            return self.explore(self._features.users(observation), observation, rng)
        return top_slates(self._scores(observation), observation)

    def action_probabilities(self, observation: Observation) -> NDArray[np.float64]:
        """One for the candidate of highest expected click; equal before any training.

        Raises:
            AgentError: it is `online`, so its chances change with each slate.
        """
        if self.online:
            raise AgentError("it learns while it is judged, so its action probabilities are not fixed")
        if self._seen == 0:
            return uniform_probabilities(observation, self._n_items(observation))
        return greedy_probabilities(self._scores(observation), observation)

    def mean(self, users: UserBlocks, theta: NDArray[np.floating] | None = None) -> F32:
        """[n, I] expected click at the top of a slate, less what is equal for all items: one matrix product.

        Args:
            users: n users.
            theta: [size] coefficients, or [n, size] of each user; default the fitted ones.
        """
        assert self._features is not None
        item = self._features.item_features()
        theta = np.atleast_2d(self._theta if theta is None else theta).astype(np.float32)  # [1 or n, size]
        of_item, of_pair = theta[:, 1 : 1 + item.shape[1]], theta[:, 1 + item.shape[1] :]
        return np.asarray(self.pair_scores(users, of_pair) + of_item @ item.T, np.float32)

    def pair_scores(self, users: UserBlocks, weights: F32) -> F32:
        """[n, I] pair features weighted by [1 or n, 4] (further columns are left alone) and summed."""
        assert self._features is not None
        blocks = self._features.pair_blocks(users)
        left = np.concatenate([user * weights[:, [j]] for j, (user, _) in enumerate(blocks)], axis=1)
        right = np.concatenate([block for _, block in blocks], axis=1)
        return left @ right.T

    def covariance(self) -> Floats:
        """[size, size] inverse of the information gathered."""
        return np.asarray(np.linalg.inv(self._gram), np.float64)

    def _scores(self, observation: Observation) -> F32:
        assert self._features is not None
        return self.mean(self._features.users(observation))

    def _n_items(self, observation: Observation) -> int:
        if observation.candidates is not None:
            return observation.candidates.shape[1]
        return self._features.n_items if self._features is not None else 0

    def _design(
        self, users: UserBlocks, rows: NDArray[np.int64], places: NDArray[np.int64], items: NDArray[np.int64]
    ) -> Floats:
        """[m, size] features of some pairs: one, item, pair, user, and how far down the slate."""
        assert self._features is not None
        blocks = self._features.pair_blocks(users)
        pairs = [np.einsum("mk,mk->m", user[rows], item[items]) for user, item in blocks]
        parts: list[NDArray[np.floating]] = [
            np.ones((len(rows), 1)),
            self._features.item_features()[items],
            np.stack(pairs, axis=1),
            users.user_features()[rows],
            (1 / np.log2(2 + places) - 1)[:, None],
        ]
        return np.concatenate(parts, axis=1).astype(np.float64)


class _Serving:
    """A bandit that serves the users of the train world and learns from each slate."""

    def __init__(self, bandit: LinearBandit, training: Training) -> None:
        self._bandit, self._rng = bandit, training.rng
        self._lanes = Lanes(training, bandit.settings.num_envs, seed=training.seed)
        self._observation = self._lanes.reset()

    @property
    def steps(self) -> int:
        return self._bandit._seen

    def advance(self) -> bool:
        bandit = self._bandit
        assert bandit._features is not None
        users = bandit._features.users(self._observation)
        slates = bandit.explore(users, self._observation, self._rng)
        step = self._lanes.step(slates)
        bandit._take_in(users, slates, bandit.returns(step))
        self._observation = step.observation
        return True

    def policy(self) -> LinearBandit:
        return self._bandit


class LinUCB(LinearBandit):
    """LinUCB with features shared by all items (Li, Chu, Langford and Schapire, 2010), slates by highest bound."""

    settings: LinUCBSettings

    def explore(self, users: UserBlocks, observation: Observation, rng: np.random.Generator) -> NDArray[np.int64]:
        """The highest upper confidence bounds."""
        width = self.widths(users)

        def bounds(rows: slice) -> F32:
            out: F32 = width(rows)
            out *= np.float32(self.settings.alpha)
            out += self.mean(users.of(rows))
            return out

        return top_slates(bounds, observation)

    def widths(self, users: UserBlocks) -> Callable[[slice], F32]:
        """Function of some of n users: [m, I] standard error of `mean`, in units of the noise.

        A row is (item part, pair part, user part), so the quadratic form falls into products that are all cheap.
        """
        assert self._features is not None
        item = np.concatenate([np.ones((self._features.n_items, 1)), self._features.item_features()], axis=1)
        user, a, p = users.user_features(), item.shape[1], len(PAIR_NAMES)
        spread = self.covariance()[:-1, :-1]  # the feature of the place is 0 at the top
        by_item, by_pair, by_user = slice(0, a), slice(a, a + p), slice(a + p, None)
        ones = np.ones((len(user), 1)), np.ones((len(item), 1))
        return widths_of(
            self._features,
            users,
            rest=(
                np.hstack([2 * user @ spread[by_user, by_item], quadratic(user, spread[by_user, by_user]), ones[0]]),
                np.hstack([item, ones[1], quadratic(item, spread[by_item, by_item])]),
            ),
            linear=[
                (
                    np.hstack([2 * user @ spread[by_user, a + j, None], ones[0]]),
                    np.hstack([ones[1], 2 * item @ spread[by_item, a + j, None]]),
                )
                for j in range(p)
            ],
            spread=spread[by_pair, by_pair],
        )


def quadratic(rows: NDArray[np.floating], form: Floats) -> Floats:
    """[n, 1] x' S x of rows x [n, k] and a form S [k, k]."""
    return np.einsum("ij,jk,ik->i", rows, form, rows, optimize=True)[:, None]


def widths_of(
    features: Features,
    users: UserBlocks,
    *,
    rest: tuple[Floats, Floats],
    linear: Sequence[tuple[Floats, Floats]],
    spread: Floats,
) -> Callable[[slice], F32]:
    """Function of some of n users: [m, I] root of a quadratic form in the pair features x and others.

    The form is rest + sum_j x_j (linear_j + sum_k S_jk x_k).

    Args:
        features: of the catalogue.
        users: n users.
        rest: [n, k] and [I, k], whose product is what no pair feature has a part in.
        linear: for each of the p pair features the same, of what it is multiplied with alone.
        spread: S, [p, p].
    """
    from agents.confidence import confidence_widths  # numba is slow to import

    of_users = [np.asarray(user, np.float32) for user, _ in (rest, *linear)]
    of_items = [np.asarray(item, np.float32).T for _, item in (rest, *linear)]
    form = np.asarray(spread, np.float32)

    def of_some(rows: slice) -> F32:
        total: F32 = of_users[0][rows] @ of_items[0]
        pairs, alone = np.empty((2, len(linear), *total.shape), np.float32)
        for j, (block, other) in enumerate(features.pair_blocks(users.of(rows))):
            np.matmul(block, other.T, out=pairs[j])
            np.matmul(of_users[j + 1][rows], of_items[j + 1], out=alone[j])
        confidence_widths(total, pairs, alone, form)
        return total

    return of_some


class CascadeUCB(LinUCB):
    """CascadeLinUCB (Zong, Ni, Sung, Ke, Wen and Kveton, 2016): learns only from places that were surely looked at.

    A user who clicked has looked at everything above the last click (with several clicks, the dependent-click model);
    one who clicked nothing counts as having looked at the whole slate, as the cascade model says.
    """

    def teaches(self, slates: NDArray[np.int64], clicks: F32) -> NDArray[np.bool_]:
        """Places down to the last click, or all where there is none."""
        clicked = clicks > 0
        below = np.cumsum(clicked[:, ::-1], axis=1)[:, ::-1] == 0  # below the last click
        return (slates >= 0) & ~(below & clicked.any(axis=1, keepdims=True))


class EpsilonGreedy(LinearBandit):
    """Shows the highest mean, and now and then a slate at random."""

    settings: EpsilonGreedySettings

    def explore(self, users: UserBlocks, observation: Observation, rng: np.random.Generator) -> NDArray[np.int64]:
        """The highest means, or any candidates for a share of the users."""
        scores = self.mean(users)
        blind = rng.random(len(observation)) < self.settings.epsilon
        scores[blind] = rng.random((int(blind.sum()), scores.shape[1]), dtype=np.float32)
        return top_slates(scores, observation)


class LinearThompson(LinearBandit):
    """Thompson sampling with a linear model (Agrawal and Goyal, 2013): each user is served by one draw of it."""

    settings: ThompsonSettings

    def explore(self, users: UserBlocks, observation: Observation, rng: np.random.Generator) -> NDArray[np.int64]:
        """The highest means of a draw of the coefficients for each user."""
        return top_slates(self.mean(users, self.draw(len(observation), rng)), observation)

    def draw(self, n: int, rng: np.random.Generator) -> Floats:
        """[n, size] draws of the coefficients from their posterior."""
        root = np.linalg.cholesky(self.covariance())
        noise = rng.standard_normal((n, len(root))) @ root.T
        return self._theta + self._sampled_scale() * noise

    def _sampled_scale(self) -> float:
        return self.settings.scale


class SlateThompson(LinearThompson):
    """Thompson sampling for slates (Dimakopoulou, Vlassis and Jebara, 2019): a draw of its own for each place.

    One draw ranks a whole slate by one belief; a draw a place spreads the slate over beliefs, so that more is learned.
    """

    def explore(self, users: UserBlocks, observation: Observation, rng: np.random.Generator) -> NDArray[np.int64]:
        """For each place the best of the rest by its own draw."""
        n, slate_size = len(observation), observation.slate_size
        slates = np.full((n, slate_size), -1, np.int64)
        taken = np.zeros((n, self._n_items(observation)), bool)
        for place in range(slate_size):
            scores = self.mean(users, self.draw(n, rng))
            scores[taken] = -np.inf
            if observation.candidates is not None:
                scores[~observation.candidates] = -np.inf
            best = scores.argmax(axis=1)
            there = np.isfinite(scores[np.arange(n), best])
            slates[there, place] = best[there]
            taken[np.flatnonzero(there), best[there]] = True
        return slates


class LogisticThompson(LinearThompson):
    """Thompson sampling with a logistic model and a Gaussian posterior (Chapelle and Li, 2011), updated as it goes.

    Each step adds the curvature of its clicks to the information and makes one Newton step (online Laplace).
    """

    settings: LogisticThompsonSettings  # type: ignore[assignment]

    def learn(self, design: Floats, items: NDArray[np.int64], clicks: F32) -> None:
        """One Newton step on the new clicks, the posterior so far being the prior."""
        chance = 1 / (1 + np.exp(-(design @ self._theta)))
        self._gram += (design * (chance * (1 - chance))[:, None]).T @ design
        self._theta = self._theta + np.linalg.solve(self._gram, design.T @ (clicks - chance)).astype(np.float32)
