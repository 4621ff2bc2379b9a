"""The training loop of the two-tower model, in torch: item text tower, item id residuals, closed-form user head.

Only `simulator.preference.fitting` imports this module, inside its functions, so that the rest starts without torch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from simulator.preference._objectives import Group, Objective, SearchObjective
from simulator.preference.calibration import regression
from simulator.preference.model import ItemMap, Member
from simulator.preference.problem import Problem
from simulator.preference.settings import PreferenceSettings

Kept = TypeVar("Kept")
Weights = tuple[NDArray[np.float32], ...]

NEWTON_STEPS = 2
LEAST_STEPS = 12
"""Steps of a pass at least: a log of few users is taken in smaller batches, so that a pass moves the weights as far."""
FEATURES_PENALTY, IDS_PENALTY = 40.0, 16.0
"""Penalties on item vectors that were best on MovieLens 100k's tuning users, with item features and without."""
SEARCH_DIM = 16
"""Width of what a joint fit knows of an item by the queries that it answers."""
LEAST_SQUARE = 0.01
"""Mean squared length below which what ids tell a search is taken for nothing yet."""
GROUP = 8
"""Users of like length that are padded together; a batch of 32 padded as a whole would be three quarters padding."""


class TrainableText(Protocol):
    """An encoder in training."""

    def train_pass(self, heads: Heads, features: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """Train for one pass, the heads held fixed; the items' features [I, p] as they were, and are now."""
        ...

    def vectors(self) -> NDArray[np.float32]:
        """[I, p] unit-length vectors as the encoder gives them now."""
        ...

    def queries(self) -> NDArray[np.float32]:
        """[Q, p] the same of the queries."""
        ...

    def query_features(self) -> NDArray[np.float32]:
        """[Q, p] the same, through the shift and scale that the queries' features went through at first."""
        ...

    def weights(self) -> Weights:
        """Copies of the weights in training that give these vectors."""
        ...


class SearchTower(torch.nn.Module):
    """What a joint fit knows of items by the queries that they answer: s_i = E e_i + S_i, to which v_i adds s_i T.

    A query with features q scores <M q, s_i>, so the item's s_i is shared by both losses. It is not v_i itself: what
    tells one item from another in a search would there be dimensions in which users differ by chance only. T starts
    at 0, so that what queries say has no say until rows bear it out, and its penalty is that of W.
    """

    def __init__(self, n_query: int, n_items: int, n_features: int, dim: int, generator: torch.Generator) -> None:
        super().__init__()
        self.of_query = torch.nn.Parameter(torch.randn(n_query, SEARCH_DIM, generator=generator) * 0.1)
        self.of_features = torch.nn.Parameter(torch.randn(n_features, SEARCH_DIM, generator=generator) * 0.1)
        self.of_item = torch.nn.Parameter(torch.zeros(n_items, SEARCH_DIM))
        self.vector = torch.nn.Parameter(torch.zeros(SEARCH_DIM, dim))
        self.offset = torch.nn.Parameter(torch.zeros(SEARCH_DIM))

    def told(self, search: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What search vectors [k, s] add to preference vectors [k, d] and offsets [k], their mean length taken as 1."""
        search = search / (self.of_item.detach().square().sum(1).mean() + LEAST_SQUARE).sqrt()
        return search @ self.vector, search @ self.offset

    def items(self, features: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
        """[k, s] search vectors of items from their features [k, p]."""
        return features @ self.of_features + functional.embedding(which, self.of_item)

    def prior(self, n_queries: int) -> torch.Tensor:
        """Squares of what queries, features and ids tell (normal priors), a query."""
        squares = self.of_item.square().sum() + self.of_query.square().sum() + self.of_features.square().sum()
        return squares / (2 * n_queries)

    def loss(self, objective: SearchObjective, features: torch.Tensor) -> torch.Tensor:
        """L_s of the queries of one step."""
        queries, items = objective.draw()
        index = torch.from_numpy(items)
        query = torch.from_numpy(objective.searches.vectors[queries]) @ self.of_query
        score = objective.scores(queries, items, query, self.items(features[index], index))
        return objective.loss(queries, items, score) + self.prior(objective.n)


class Heads(torch.nn.Module):
    """What turns item features e (text, categories) into item vectors and biases, and the prior of a user.

    v_i = W e_i + R_i, c_i = <w, e_i> + k n_i + r_i, n_i the item's popularity; a user's bias and
    vector have prior precisions exp(l_b) and exp(l_u).
    """

    popularity: torch.Tensor
    popularity_fitted: torch.Tensor

    def __init__(self, problem: Problem, width: int, dim: int, vector_scale: float, generator: torch.Generator) -> None:
        super().__init__()
        n_items, n_features = problem.n_items, problem.features.shape[1]
        random = torch.randn(width, dim, generator=generator)
        # Without features the ids alone must break the symmetry; with them an item starts as its features say.
        residual = torch.randn(n_items, dim, generator=generator) * (0.0 if width else vector_scale)
        self.feature_vector = torch.nn.Parameter(random * vector_scale)
        self.item_vector = torch.nn.Parameter(residual)
        self.feature_bias = torch.nn.Parameter(torch.zeros(width))
        self.item_bias = torch.nn.Parameter(torch.zeros(n_items))
        self.popularity_weight = torch.nn.Parameter(torch.tensor(0.0))
        self.register_buffer("popularity", torch.from_numpy(problem.popularity))
        self.register_buffer("popularity_fitted", torch.from_numpy(problem.popularity_fitted))
        self.user_weights = torch.nn.Parameter(torch.zeros(n_features))
        self.intercept = torch.nn.Parameter(torch.tensor(problem.base_logit))
        self.log_bias_precision = torch.nn.Parameter(torch.tensor(0.0))
        self.log_vector_precision = torch.nn.Parameter(torch.tensor(0.0))
        self.search = None
        if problem.searches is not None:
            self.search = SearchTower(problem.searches.vectors.shape[1], n_items, width, dim, generator)

    def items(self, features: torch.Tensor, which: torch.Tensor, *, fitted: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Vectors [k, d] and offsets [k] of these items in fitted rows, or in new ones, from their features [k, p]."""
        vector, offset = self.by_features()
        known, known_offset = self.by_id(which, fitted=fitted)
        return features @ vector + known, features @ offset + known_offset

    def by_features(self) -> tuple[torch.Tensor, torch.Tensor]:
        """What turns an item's features into its vector [p, d] and its offset [p]."""
        if self.search is None:
            return self.feature_vector, self.feature_bias
        vector, offset = self.search.told(self.search.of_features)
        return self.feature_vector + vector, self.feature_bias + offset

    def by_id(self, which: torch.Tensor, *, fitted: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Vectors [k, d] and offsets [k] of these items but for their features: popularity and what their ids tell."""
        popularity = self.popularity_fitted if fitted else self.popularity
        vector = functional.embedding(which, self.item_vector)
        offset = (self.item_bias + self.popularity_weight * popularity + self.intercept)[which]
        if self.search is None:
            return vector, offset
        more, more_offset = self.search.told(functional.embedding(which, self.search.of_item))
        return vector + more, offset + more_offset

    def precision(self) -> torch.Tensor:
        """[d + 1] prior precisions."""
        vector = torch.ones(self.item_vector.shape[1])
        return torch.cat([self.log_bias_precision.exp().reshape(1), vector])

    def penalty(self, settings: PreferenceSettings) -> torch.Tensor:
        """Squared weights, per item and not per occurrence: popular items are not shrunk more than rare ones."""
        bias = self.item_bias.square().sum() + self.feature_bias.square().sum() + self.user_weights.square().sum()
        bias = bias + self.popularity_weight.square()
        vector = self.item_vector.square().sum() + self.feature_vector.square().sum()
        strength = settings.vector_penalty
        if strength is None:
            strength = FEATURES_PENALTY if len(self.feature_bias) else IDS_PENALTY
        if self.search is not None:
            bias = bias + self.search.offset.square().sum()
            vector = vector + self.search.vector.square().sum()
        return settings.bias_penalty * bias + strength * vector

    def export(self, features: torch.Tensor) -> Member:
        """The same model as numpy arrays."""
        with torch.no_grad():
            vector, offset = self.items(features, torch.arange(len(self.item_bias)), fitted=False)
            by_features = self.by_features()
            return Member(
                vector.numpy().copy(),
                offset.numpy().copy(),
                self.user_weights.numpy().copy(),
                self.precision().numpy().copy(),
                NEWTON_STEPS,
                ItemMap(
                    by_features[0].numpy().copy(),
                    by_features[1].numpy().copy(),
                    float(self.popularity_weight),
                    float(self.intercept),
                ),
            )

    @torch.no_grad()
    def take(self, member: Member, features: torch.Tensor, known: NDArray[np.int64]) -> None:
        """Go on from a trained model: its vectors and offsets exactly, whatever features and popularity are now.

        Args:
            member: a member with an item map, of the same width.
            features: [I, p] features of the items as they are now.
            known: [I] row of each item in the member, -1 for an item that it does not know: that starts as its
                features say.
        """
        assert member.item_map is not None
        self.feature_vector.copy_(torch.from_numpy(member.item_map.vector))
        self.feature_bias.copy_(torch.from_numpy(member.item_map.offset))
        self.popularity_weight.fill_(member.item_map.popularity)
        self.intercept.fill_(member.item_map.intercept)
        self.user_weights.copy_(torch.from_numpy(member.feature_weights))
        self.log_bias_precision.fill_(float(np.log(member.precision[0])))
        self.item_vector.zero_()
        self.item_bias.zero_()
        vector, offset = self.items(features, torch.arange(len(self.item_bias)), fitted=False)
        old, new = torch.from_numpy(known[known >= 0]), torch.from_numpy(np.flatnonzero(known >= 0))
        self.item_vector[new] = torch.from_numpy(member.item_vectors)[old] - vector[new]
        self.item_bias[new] = torch.from_numpy(member.item_offset)[old] - offset[new]


def map_head(
    design: torch.Tensor, known: torch.Tensor, outcome: torch.Tensor, kept: torch.Tensor, precision: torch.Tensor
) -> torch.Tensor:
    """[b, d + 1] MAP states by Newton steps from zero, differentiable; the twin of `map_head.newton_map`.

    design: [b, H, d + 1] ones, then item vectors; known: [b, H] logit without the user; outcome: [b, H] 0 or 1;
    kept: [b, H] 1.0 for rows that may be used.
    """
    theta = torch.zeros(design.shape[0], design.shape[2])
    prior = torch.diag(precision)
    for _ in range(NEWTON_STEPS):
        p = torch.sigmoid(known + torch.matmul(design, theta.unsqueeze(2)).squeeze(2))
        gradient = torch.matmul(((outcome - p) * kept).unsqueeze(1), design).squeeze(1) - precision * theta
        curvature = torch.matmul((design * (p * (1 - p) * kept).unsqueeze(2)).transpose(1, 2), design) + prior
        factor = torch.linalg.cholesky(curvature)
        theta = theta + torch.cholesky_solve(gradient.unsqueeze(2), factor).squeeze(2)
    return theta


@dataclass(slots=True)
class Averaged:
    """Exponential running mean of a module's weights; its start is forgotten as fast as it may be."""

    module: Heads
    decay: float
    steps: int = 0

    @classmethod
    def of(cls, module: Heads, decay: float) -> Averaged:
        """A running mean that starts at the module's weights."""
        return cls(copy.deepcopy(module), decay)

    def update(self, module: Heads) -> None:
        """Take a step's weights in."""
        self.steps += 1
        share = 1 - min(self.decay, self.steps / (self.steps + 9))
        with torch.no_grad():
            for mean, now in zip(self.module.parameters(), module.parameters(), strict=True):
                mean.lerp_(now, share)


@dataclass(frozen=True, slots=True)
class Anchor:
    """Elastic weight consolidation (Kirkpatrick et al., 2017): the older rows' likelihood, to second order.

    Attributes:
        weights: the weights that older rows led to.
        importance: diagonal Fisher information of those rows, times the strength.
    """

    weights: tuple[torch.Tensor, ...]
    importance: tuple[torch.Tensor, ...]

    @classmethod
    def of(
        cls,
        heads: Heads,
        problem: Problem,
        features: torch.Tensor,
        settings: PreferenceSettings,
        strength: float,
        rng: np.random.Generator,
    ) -> Anchor:
        """Measure it on the rows that the problem weighs above 0: squared gradients of single users, summed."""
        history, weights = problem.histories, list(heads.parameters())
        user = np.repeat(np.arange(len(history)), np.diff(history.start))
        rows = np.bincount(user, problem.weight, minlength=len(history))
        total = [torch.zeros_like(weight) for weight in weights]
        for users, loss, weight in batch_losses(heads, problem, features, settings, rng, size=1):
            # Only some rows are hidden and so seen in the loss; they stand for the user's others.
            whole = loss * float(rows[users].sum() / weight)
            gradients = torch.autograd.grad(whole, weights, allow_unused=True)
            for so_far, gradient in zip(total, gradients, strict=True):
                if gradient is not None:
                    so_far += gradient.square()
        return cls(tuple(weight.detach().clone() for weight in weights), tuple(strength * one for one in total))

    def pull(self, heads: Heads) -> torch.Tensor:
        """Half the squared distance from the older weights, each counted by its importance."""
        parts = zip(heads.parameters(), self.weights, self.importance, strict=True)
        return 0.5 * torch.stack([(f * (now - then).square()).sum() for now, then, f in parts]).sum()


def draw_hidden(start: NDArray[np.int64], share: tuple[float, float], rng: np.random.Generator) -> NDArray[np.bool_]:
    """[m] rows hidden as targets: a share drawn anew for each user, at least one row of every user who has rows."""
    length = np.diff(start)
    chance = np.repeat(rng.uniform(*share, size=len(length)), length)
    noise = rng.random(len(chance))
    hidden = noise < chance
    some = length > 0
    least = np.full(len(length), np.inf)
    least[some] = np.minimum.reduceat(noise, start[:-1][some])
    return hidden | (noise == np.repeat(least, length))


def batch_losses(
    heads: Heads,
    problem: Problem,
    features: torch.Tensor,
    settings: PreferenceSettings,
    rng: np.random.Generator,
    *,
    size: int,
    imputation: Member | None = None,
) -> Iterator[tuple[NDArray[np.int64], torch.Tensor, float]]:
    """One pass over the fitting users, `size` at once: the users, their hidden rows' summed loss, and its weight."""
    start, item = problem.histories.start, problem.histories.item
    hidden = draw_hidden(start, settings.hidden_share, rng)
    length = np.diff(start)
    order = rng.permutation(np.flatnonzero(length > 0))
    objective = Objective(problem, settings, heads, features, hidden, imputation, rng)
    for first in range(0, len(order), size):
        users = order[first : first + size]
        users = users[np.argsort(length[users], kind="stable")]
        rows = np.concatenate([np.arange(start[u], start[u + 1]) for u in users])
        which, local = np.unique(item[rows], return_inverse=True)
        chosen = torch.from_numpy(which)
        vector, offset = heads.items(features[chosen], chosen, fitted=True)
        known_items = torch.cat([torch.ones(len(which), 1), vector], dim=1)  # [k, d + 1]
        precision = heads.precision()
        bounds = np.concatenate([[0], np.cumsum(length[users])])
        losses, weight = [], 0.0
        for low in range(0, len(users), GROUP):
            high = min(low + GROUP, len(users))
            column = np.arange(length[users[high - 1]])
            there = column < length[users[low:high], None]  # [b, H]
            place = np.where(there, bounds[low:high, None] + column, bounds[low:high, None])
            index = torch.from_numpy(local[place])
            target = torch.from_numpy((hidden[rows[place]] & there).astype(np.float32))
            kept = torch.from_numpy((~hidden[rows[place]] & there).astype(np.float32))
            outcome = torch.from_numpy(problem.histories.primary[rows[place]])
            design = functional.embedding(index, known_items)
            known, known_user = offset[index], None
            if len(heads.user_weights):
                known_user = torch.from_numpy(problem.features[users[low:high]]) @ heads.user_weights
                known = known + known_user[:, None]
            theta = map_head(design, known, outcome, kept, precision)
            logit = known + torch.matmul(design, theta.unsqueeze(2)).squeeze(2)
            loss, summed = objective(Group(users[low:high], theta, known_user, rows[place], logit, outcome, target))
            losses.append(loss)
            weight += summed
        if weight > 0:  # a ranking loss has nothing to say of users without a liked and another hidden row
            yield users, torch.stack(losses).sum(), weight


def heads_pass(
    heads: Heads,
    averaged: Averaged,
    optimiser: torch.optim.Optimizer,
    problem: Problem,
    features: torch.Tensor,
    settings: PreferenceSettings,
    rng: np.random.Generator,
    imputation: Member | None = None,
    anchor: Anchor | None = None,
) -> float:
    """One pass over the fitting users in batches; the mean training loss of the hidden rows."""
    total, count = 0.0, 0.0
    some = int(np.count_nonzero(np.diff(problem.histories.start)))
    size = max(1, min(settings.batch_users, -(-some // LEAST_STEPS)))
    search = None
    if problem.searches is not None and settings.search is not None:
        # From a stream of its own, so that users and masks are drawn as without queries.
        search = SearchObjective(problem.searches, settings.search.batch_queries, rng.spawn(1)[0])
    for _, data_loss, weight in batch_losses(heads, problem, features, settings, rng, size=size, imputation=imputation):
        loss = data_loss / weight + heads.penalty(settings) / problem.distinct_rows
        if search is not None and heads.search is not None and settings.search is not None:
            loss = loss + settings.search.weight * heads.search.loss(search, features)
        if anchor is not None:
            loss = loss + anchor.pull(heads) / problem.distinct_rows
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        averaged.update(heads)
        total, count = total + float(data_loss.detach()), count + weight
    return total / max(count, 1.0)


@dataclass(frozen=True, slots=True)
class Passes(Generic[Kept]):
    """Result of training pass by pass.

    Attributes:
        kept: what was kept of the best pass.
        best: number of that pass, 0 for the start.
        losses: [passes + 1, T] summed log-loss of each tuning user before training and after each pass.
        training: [passes] mean training loss.
    """

    kept: Kept
    best: int
    losses: NDArray[np.float64]
    training: list[float]


def keep_best(
    one_pass: Callable[[], float],
    tuning_losses: Callable[[], NDArray[np.float64]],
    keep: Callable[[], Kept],
    *,
    epochs: int,
    patience: int | None,
    targets: int,
    progress: Callable[[float, str], None] | None = None,
) -> Passes[Kept]:
    """Train pass by pass, and keep what is best on the tuning users; the loop of every architecture.

    Args:
        one_pass: trains for a pass; its mean training loss.
        tuning_losses: [T] summed log-loss of each tuning user as the model is now.
        keep: copies what is to be kept of the model as it is now.
        epochs: passes at most.
        patience: passes without a better loss before stopping; None never stops early.
        targets: rows that the tuning losses are summed over.
        progress: told the fraction done.
    """
    losses, training = [tuning_losses()], []
    best, kept = 0, keep()
    for epoch in range(1, epochs + 1):
        training.append(one_pass())
        losses.append(tuning_losses())
        if losses[-1].sum() < losses[best].sum():
            best, kept = epoch, keep()
        if progress is not None:
            progress(epoch / epochs, f"round {epoch}, tuning log-loss {losses[-1].sum() / targets:.4f}")
        if patience is not None and epoch - best >= patience:
            break
    return Passes(kept, best, np.array(losses), training)


@dataclass(frozen=True, slots=True)
class Trained:
    """Result of the training loop.

    Attributes:
        member: the best model by the tuning users, as numpy arrays.
        heads: its heads, to go on from.
        vectors: [I, p] and [Q, p] its vectors of items and queries, unit length, where the encoder was trained; else
            None.
        weights: the encoder's weights in training; none where it was not trained.
        losses: [epochs + 1, T] summed log-loss of each tuning user before training and after each pass.
        best: row of `losses` that was kept.
        training: [epochs] mean training log-loss.
    """

    member: Member
    heads: Heads
    vectors: tuple[NDArray[np.float32], NDArray[np.float32]] | None
    weights: Weights
    losses: NDArray[np.float64]
    best: int
    training: list[float]


def comparable(problem: Problem, member: Member, settings: PreferenceSettings) -> NDArray[np.float64]:
    """[k] logit of the tuning users' targets; after a ranking loss, which fixes no scale, on the best scale there."""
    logit = problem.tuning_logit(member)
    if settings.loss == "cross_entropy":
        return logit
    slope, intercept = regression(logit, problem.target, problem.target_user)[0]
    return slope * logit + intercept


def train(
    problem: Problem,
    features: torch.Tensor,
    settings: PreferenceSettings,
    rng: np.random.Generator,
    *,
    dim: int,
    start: Heads | None = None,
    learning_rate: float,
    epochs: int,
    heads_passes: int = 1,
    patience: int | None,
    encode: TrainableText | None = None,
    imputation: Member | None = None,
    anchor: Anchor | None = None,
    progress: Callable[[float, str], None] | None = None,
) -> Trained:
    """Train heads on item features, the encoder beside them where `encode` is given; keep the best by the tuning users.

    Args:
        problem: what to fit and to tune on.
        features: [I, p] standardised features of the items, text first; p = 0 where nothing is known of them.
        settings: rates, penalties, batch sizes.
        rng: draws batches, masks and starting weights.
        dim: width of the item vectors.
        learning_rate: AdamW rate of the heads.
        start: heads to go on from; new ones where left out.
        epochs: rounds at most: one pass of the encoder, then those of the heads.
        heads_passes: passes of the heads in a round.
        patience: rounds without a better loss before stopping; None never stops early.
        encode: the encoder in training; None keeps it frozen.
        imputation: model of the outcome of every pair, for doubly robust learning.
        anchor: weights to stay near to, where training goes on from a saved model.
        progress: told the fraction done.
    """
    if start is None:
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        heads = Heads(problem, features.shape[1], dim, 0.1, generator)
    else:
        heads = copy.deepcopy(start)
    averaged = Averaged.of(heads, settings.averaging)
    optimiser = torch.optim.AdamW(heads.parameters(), lr=learning_rate, weight_decay=0.0)

    def one_pass() -> float:
        nonlocal features, problem
        if encode is not None:
            features = encode.train_pass(averaged.module, features, rng)
            if problem.searches is not None:
                problem = replace(problem, searches=replace(problem.searches, vectors=encode.query_features()))
        for _ in range(heads_passes):
            loss = heads_pass(heads, averaged, optimiser, problem, features, settings, rng, imputation, anchor)
        return loss

    def tuning_losses() -> NDArray[np.float64]:
        return problem.tuning_loss(comparable(problem, averaged.module.export(features), settings))

    def keep() -> tuple[Member, Heads, tuple[NDArray[np.float32], NDArray[np.float32]] | None, Weights]:
        module = averaged.module
        text = (None, ()) if encode is None else ((encode.vectors(), encode.queries()), encode.weights())
        return module.export(features), copy.deepcopy(module), *text

    found = keep_best(
        one_pass, tuning_losses, keep, epochs=epochs, patience=patience, targets=len(problem.target), progress=progress
    )
    return Trained(*found.kept, found.losses, found.best, found.training)
