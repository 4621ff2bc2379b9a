"""Training of the meta-learned agents by torch.func: tasks from the train rows, gradients through gradient steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch.func import grad, vmap
from torch.nn.functional import binary_cross_entropy_with_logits as log_loss

from agents.base import Training
from agents.meta import LOCAL, Learned, MetaLearner, MetaSettings, Support, score
from agents.meta_domains import Ground, Told, other_domains, own_users
from agents.slates import top_slates
from agents.teaching import teach, teach_unwatched
from agents.train_world import Act

F32 = NDArray[np.float32]
Ints = NDArray[np.int64]
Tensors = dict[str, torch.Tensor]

DEFAULT_TASKS = 9_600
SHOTS = (0, 1, 2, 5, 10, 20, 50)
"""Interactions that a task is adapted to, each as often as the others: histories in a session are short and long."""
QUERY = 32
"""Interactions after those, at most, whose loss is what the start is learned for."""
STEPS, RATES, DECAYS = (1, 3, 10, 30), (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0), (0.01, 0.3, 3.0)
"""Gradient steps, their sizes and the weight decay that are tried where steps are not part of what is learned."""
CHOSEN_ON = 512
"""Tasks of users left out on which they are tried."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread, so that sums do not depend on the machine; as before afterwards."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@dataclass(frozen=True, slots=True)
class Tasks:
    """B users as tasks: some interactions to adapt to, and those that came next.

    Attributes:
        support: [B, H] of them.
        items: [B, Q]; liked: [B, Q]; there: [B, Q] float32 how far each counts, 0 for an empty place.
    """

    support: Support
    items: Ints
    liked: F32
    there: F32


def draw_tasks(told: Told, users: Ints, n: int, rng: np.random.Generator) -> Tasks:
    """Tasks: a user, a place in his rows, the interactions right before it (SHOTS) and right after it (QUERY)."""
    user = rng.choice(users, n)
    first, length = told.start[user], told.start[user + 1] - told.start[user]
    shots = np.minimum(rng.choice(SHOTS, n), length - 1)
    place = first + shots + np.floor(rng.random(n) * (length - shots)).astype(np.int64)  # first row of the query
    before = place[:, None] - np.arange(max(SHOTS), 0, -1)
    known = before >= (place - shots)[:, None]
    before = np.maximum(before, 0)
    weight = told.weight[before] * known
    after = place[:, None] + np.arange(QUERY)
    there = after < (first + length)[:, None]
    after = np.minimum(after, len(told.item) - 1)
    return Tasks(
        Support(told.item[before], told.liked[before] * known, weight, told.user_features[user]),
        told.item[after],
        told.liked[after],
        told.weight[after] * there,
    )


class Network(torch.nn.Module):
    """The item tower, shared by all users, and the start of the decision layers.

    Args:
        ground: gives the items that are learned from, and the number of a user's features.
        rng: draws the first weights.
    """

    def __init__(
        self, ground: Ground, settings: MetaSettings, kind: type[MetaLearner], rng: np.random.Generator
    ) -> None:
        super().__init__()
        inputs, n_features = ground.inputs, ground.told.user_features.shape[1]
        p, e, h, m = inputs.shape[1], settings.embedding_size, settings.hidden_size, settings.layer_size

        def drawn(*shape: int, scale: float) -> torch.nn.Parameter:
            return torch.nn.Parameter(torch.as_tensor(scale * rng.standard_normal(shape), dtype=torch.float32))

        def zeros(*shape: int) -> torch.nn.Parameter:
            return torch.nn.Parameter(torch.zeros(shape))

        self.inputs: torch.Tensor
        self.register_buffer("inputs", torch.as_tensor(inputs))
        self.direct = drawn(p, e, scale=p**-0.5)
        self.first, self.first_bias = drawn(p, h, scale=(2 / p) ** 0.5), zeros(h)
        self.second = drawn(h, e, scale=0.3 * h**-0.5)
        self.bias_direct, self.bias_hidden = zeros(p), zeros(h)
        self.local = torch.nn.ParameterDict(
            {
                "layer": drawn(e, m, scale=e**-0.5),
                "head": drawn(m, scale=0.1 * m**-0.5),
                "level": zeros(1),
                "of_features": zeros(n_features, m),
            }
        )
        shape = {name: self.local[name].shape if kind.learns_rates else () for name in LOCAL}
        self.rates = torch.nn.ParameterDict(
            {name: torch.full(shape[name], float(settings.inner_rate)) for name in kind.adapts}
        )
        self.rates.requires_grad_(kind.learns_rates)
        self.prototypes = drawn(2, e, scale=0.1 * e**-0.5)

    def tower(self, items: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Vectors [..., e] and logits for anyone [...] of the items [...] that are learned from."""
        return self.read(self.inputs[items])

    def read(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Vectors [..., e] and logits for anyone [...] of items of which this is known [..., p]."""
        hidden = torch.relu(x @ self.first + self.first_bias)
        return x @ self.direct + hidden @ self.second, x @ self.bias_direct + hidden @ self.bias_hidden

    def learned(self, kind: type[MetaLearner], settings: MetaSettings, items: F32) -> Learned:
        """What acting among items needs, of which this is known [I, p], as arrays."""
        with torch.no_grad():
            vectors, bias = self.read(torch.as_tensor(items))
        return Learned(
            vectors=vectors.numpy().copy(),
            bias=bias.numpy().copy(),
            start={name: self.local[name].detach().numpy().copy() for name in LOCAL},
            rate={
                name: _rate(self.rates[name], settings, kind) if name in kind.adapts else np.zeros((), np.float32)
                for name in LOCAL
            },
            prototypes=self.prototypes.detach().numpy().copy() if kind.by_prototypes else None,
            steps=settings.inner_steps,
            prior_rows=settings.prior_rows,
        )


def _rate(learned: torch.Tensor, settings: MetaSettings, kind: type[MetaLearner]) -> F32:
    return learned.detach().numpy().copy() if kind.learns_rates else np.full((), settings.inner_rate, np.float32)


def logits(local: Tensors, phi: torch.Tensor, bias: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """[H] logits of one user for items of vectors phi [H, e], given features [f]."""
    head = local["head"] + features @ local["of_features"]
    return phi @ (local["layer"] @ head) + local["level"] + bias


def adapted(
    local: Tensors,
    rates: Tensors,
    phi: torch.Tensor,
    bias: torch.Tensor,
    liked: torch.Tensor,
    weight: torch.Tensor,
    features: torch.Tensor,
    *,
    steps: int,
    prior_rows: float,
    second_order: bool,
) -> Tensors:
    """The decision layers of one user after gradient steps on [H] interactions; as `Learned.adapt` does for many."""

    def loss(some: Tensors) -> torch.Tensor:
        each = log_loss(logits({**local, **some}, phi, bias, features), liked, weight, reduction="sum")
        return each / (prior_rows + weight.sum()).clamp(min=1e-9)

    now = {name: local[name] for name in rates}
    for _ in range(steps):
        gradient = grad(loss)(now)
        if not second_order:
            gradient = {name: value.detach() for name, value in gradient.items()}
        now = {name: now[name] - rates[name] * gradient[name] for name in now}
    return {**local, **now}


def by_prototypes(
    network: Network, phi: torch.Tensor, liked: torch.Tensor, weight: torch.Tensor, query: torch.Tensor, prior: float
) -> torch.Tensor:
    """[B, Q] logits of queries [B, Q, e] by the nearer of two prototypes of the support phi [B, H, e]."""
    distance = []
    for wanted in (0, 1):
        of_class = weight * (liked == wanted)
        total = torch.einsum("bh,bhe->be", of_class, phi) + prior * network.prototypes[wanted]
        mean = total / (of_class.sum(1, keepdim=True) + prior)
        distance.append(((query - mean[:, None]) ** 2).sum(2))
    return distance[0] - distance[1] + network.local["level"]


def train_meta(training: Training, settings: MetaSettings, kind: type[MetaLearner]) -> Learned:
    """Learn in the way of this kind of meta-learner, for `budget` tasks."""
    budget = DEFAULT_TASKS if training.budget is None else training.budget
    ground = other_domains(training, settings.learned_in) if settings.learned_in else own_users(training)
    users, rng = ground.told.users(), training.rng
    with one_thread():
        acting, learning = settings, settings
        if kind.chooses_steps:
            owners = np.unique(ground.told.owner[users])
            apart = owners[rng.permutation(len(owners)) < len(owners) / 5]
            rest = ground.without(apart)
            start = Network(rest, settings, kind, rng)
            tasks = draw_tasks(ground.told, users[np.isin(ground.told.owner[users], apart)], CHOSEN_ON, rng)
            tried = []
            for decay in DECAYS if kind.trains else (settings.weight_decay,):
                wanted = settings.model_copy(update={"weight_decay": decay})
                first = start.learned(kind, wanted, rest.inputs)
                if kind.trains:
                    learner = partial(_Tasks, deepcopy(start), rest, wanted, wanted, kind, budget, rng, rest.inputs)
                    first = teach_unwatched(training, learner, budget=budget)
                tried.append(_best_order(first, tasks, wanted))
            acting = max(tried, key=lambda one: one[0])[1]
            learning = settings.model_copy(update={"weight_decay": acting.weight_decay})
        made = Network(ground, settings, kind, rng)
        learner = partial(_Tasks, made, ground, learning, acting, kind, budget, rng, ground.acting)
        return teach(training, learner, _act, budget=budget if kind.trains else 0)


def _act(learned: Learned) -> Act:
    return lambda observation, rng: top_slates(score(learned, observation), observation)


class _Tasks:
    """Meta-learning from tasks.

    Args:
        network: the item tower and the start, which are moved.
        ground: what is learned from.
        settings: by which it learns; acting: by which it adapts to users when it is asked.
        kind: of the meta-learner.
        budget: tasks of the whole training.
        rng: draws them.
        shown: [I, p] what the tower reads of the items that are acted among.
    """

    def __init__(
        self,
        network: Network,
        ground: Ground,
        settings: MetaSettings,
        acting: MetaSettings,
        kind: type[MetaLearner],
        budget: int,
        rng: np.random.Generator,
        shown: F32,
    ) -> None:
        self.steps = 0
        self._network, self._ground, self._kind, self._budget = network, ground, kind, budget
        self._settings, self._acting, self._rng, self._shown = settings, acting, rng, shown
        self._users = ground.told.users()
        # The start is where users differ from: shrunk to nothing, no gradient step would leave it.
        start = [*network.local.parameters(), *network.rates.parameters()]
        tower = [one for name, one in network.named_parameters() if name.partition(".")[0] not in ("local", "rates")]
        self._optimiser = torch.optim.AdamW(
            [{"params": tower, "weight_decay": settings.weight_decay}, {"params": start, "weight_decay": 0.0}],
            lr=settings.learning_rate,
        )

    def advance(self) -> bool:
        """One gradient step on a batch of tasks."""
        settings = self._settings
        drawn = draw_tasks(self._ground.told, self._users, settings.meta_batch_size, self._rng)
        for group in self._optimiser.param_groups:  # to a tenth, so that the last batches decide little
            group["lr"] = settings.learning_rate * (1 - 0.9 * self.steps / self._budget)
        self._optimiser.zero_grad()
        _loss(self._network, drawn, settings, self._kind).backward()
        self._optimiser.step()
        self.steps += settings.meta_batch_size
        return True

    def policy(self) -> Learned:
        return self._network.learned(self._kind, self._acting, self._shown)


def _loss(network: Network, tasks: Tasks, settings: MetaSettings, kind: type[MetaLearner]) -> torch.Tensor:
    """Mean log-loss of what came after the support, for users adapted to it."""
    support = tasks.support
    query, query_bias = network.tower(torch.as_tensor(tasks.items))
    liked, there = torch.as_tensor(tasks.liked), torch.as_tensor(tasks.there)
    features = torch.as_tensor(support.user_features)
    local: Tensors = dict(network.local.items())
    if kind.pools:
        local = {name: value.expand(len(query), *value.shape) for name, value in local.items()}
    else:
        phi, bias = network.tower(torch.as_tensor(support.items))
        weight, support_liked = torch.as_tensor(support.weight), torch.as_tensor(support.liked)
        if kind.by_prototypes:
            value = by_prototypes(network, phi, support_liked, weight, query, settings.prior_rows)
            return _mean(log_loss(value + query_bias, liked, there, reduction="none"), there)
        if kind.moves:  # what is adapted to is all that the task has, and no gradient goes through it
            phi, bias = torch.cat([phi, query], 1).detach(), torch.cat([bias, query_bias], 1).detach()
            weight = torch.cat([weight, there], 1)
            support_liked = torch.cat([support_liked, liked], 1)

        def one(phi: torch.Tensor, bias: torch.Tensor, *rest: torch.Tensor) -> Tensors:
            return adapted(
                start,
                rates,
                phi,
                bias,
                *rest,
                steps=settings.inner_steps,
                prior_rows=settings.prior_rows,
                second_order=kind.second_order,
            )

        start = {name: value.detach() for name, value in local.items()} if kind.moves else local
        rates: Tensors = dict(network.rates.items())
        local = vmap(one)(phi, bias, support_liked, weight, features)
    value = vmap(logits)(local, query, query_bias, features)
    loss = _mean(log_loss(value, liked, there, reduction="none"), there)
    if kind.moves:
        # A loss whose gradient with respect to the start is the start less where the users' steps end.
        for name, where in network.local.items():
            loss = loss + (where * (where - local[name].mean(0)).detach()).sum()
    return loss


def _mean(loss: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
    """Mean over tasks of their mean over interactions."""
    return (loss.sum(1) / there.sum(1)).mean()


def _best_order(learned: Learned, tasks: Tasks, settings: MetaSettings) -> tuple[float, MetaSettings]:
    """Best AUC within users after adaptation, and the settings with the number and size of steps that give it."""
    pairs = (tasks.liked * tasks.there)[:, :, None] * ((1 - tasks.liked) * tasks.there)[:, None, :]  # [B, Q, Q]
    share = pairs / np.maximum(pairs.sum(axis=(1, 2), keepdims=True), 1)

    def auc(steps: int, rate: float) -> float:
        tried = replace(learned, steps=steps, rate={name: np.full((), rate, np.float32) for name in LOCAL})
        with np.errstate(over="ignore", invalid="ignore"):  # steps too large run away
            vector, _ = tried.adapt(tasks.support)
            value = np.einsum("be,bqe->bq", vector, learned.vectors[tasks.items]) + learned.bias[tasks.items]
            ahead = np.sign(value[:, :, None] - value[:, None, :])
        if not np.isfinite(value).all():
            return -1.0
        return float((share * (1 + ahead) / 2).sum() / max((share.sum(axis=(1, 2)) > 0).sum(), 1))

    best, steps, rate = max((auc(steps, rate), -steps, rate) for steps, rate in product(STEPS, RATES))
    return best, settings.model_copy(update={"inner_steps": -steps, "inner_rate": rate})
