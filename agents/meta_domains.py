"""Where meta-learned agents have their tasks from: this scenario's train users, or sessions in the worlds of others.

What a tower reads of an item is the same in all domains: directions of its content vector, by one encoder. Nothing
here needs torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from agents.base import Training
from agents.features import discount, fit_features, main_directions
from agents.train_world import Lanes, shown_places
from simulator.log import InteractionLog

F32 = NDArray[np.float32]
Ints = NDArray[np.int64]

LANES, ROUNDS = 256, 8
"""Users at a time in a domain's train world, and sessions of each of these."""
DIRECTIONS = 32
"""Main directions kept of content vectors that several domains share."""


@dataclass(frozen=True, slots=True)
class Told:
    """Interactions in the order in which users had them: what tasks are drawn from.

    Attributes:
        start: [U + 1] user u has the rows `start[u]:start[u + 1]`; a session of a domain's world is a user of its own.
        item: [m] int64; liked: [m] float32.
        weight: [m] float32 how far each counts, in (0, 1].
        user_features: [U, f] float32.
        owner: [U] whose rows they are: what is chosen on one of an owner's is not learned from another.
    """

    start: Ints
    item: Ints
    liked: F32
    weight: F32
    user_features: F32
    owner: Ints

    @classmethod
    def of(cls, log: InteractionLog) -> Told:
        """The rows of a log, each user the owner of his own."""
        return cls(
            start=log.row_starts(),
            item=log.item,
            liked=log.primary.astype(np.float32),
            weight=np.ones(len(log), np.float32),
            user_features=log.catalogue.user_features.astype(np.float32),
            owner=np.arange(log.catalogue.n_users),
        )

    def users(self) -> Ints:
        """Those who have rows."""
        return np.flatnonzero(np.diff(self.start))

    def without(self, owners: Ints) -> Told:
        """The same, with no rows of these owners."""
        length = np.where(np.isin(self.owner, owners), 0, np.diff(self.start))
        kept = np.repeat(length > 0, np.diff(self.start))
        start = np.append(0, np.cumsum(length))
        return replace(self, start=start, item=self.item[kept], liked=self.liked[kept], weight=self.weight[kept])


@dataclass(frozen=True, slots=True)
class Ground:
    """What is learned from, and what is acted among.

    Attributes:
        told: interactions with the items of `inputs`.
        inputs: [J, p] what the tower reads of the items that are learned from, of unit spread.
        acting: [I, p] the same of the items of this scenario.
        without: the ground that knows nothing of these owners.
    """

    told: Told
    inputs: F32
    acting: F32
    without: Callable[[Ints], Ground]


def own_users(training: Training) -> Ground:
    """The rows of this scenario's train users; items are known by the features of these rows and of the catalogue."""
    log = training.log
    features = fit_features(training)
    inputs = _unit_spread(np.concatenate([features.item_features(), features.vectors], axis=1))
    return Ground(Told.of(log), inputs, inputs, lambda owners: own_users(replace(training, log=_without(log, owners))))


def other_domains(training: Training, names: Sequence[str]) -> Ground:
    """Sessions in the train worlds of other scenarios, as many of each; items are known by their content alone.

    Directions are those in which the items of all domains lie, this scenario's among them. User features are not read:
    each domain has its own.
    """
    domains = [training.domains[name] for name in names]
    contents = [one.catalogue.content for one in (*domains, training)]
    assert all(content is not None for content in contents)  # seen to where the other scenarios are opened
    table = _unit_spread(main_directions(np.concatenate(contents), DIRECTIONS))  # type: ignore[arg-type]
    ends = np.cumsum([len(content) for content in contents])  # type: ignore[arg-type]
    parts = [sessions(one, int(training.rng.integers(2**31))) for one in domains]
    told = _together(parts, [0, *ends[: len(domains) - 1]])

    def ground(told: Told) -> Ground:
        return Ground(told, table[: ends[-2]], table[ends[-2] :], lambda owners: ground(told.without(owners)))

    return ground(told)


def sessions(domain: Training, seed: int) -> Told:
    """What users of a train world did with slates of items drawn at random, each session a stranger's.

    A slate's item that was not clicked counts the less the further down it stood, as it does in what agents observe.
    """
    item, liked, weight, owner, length = [], [], [], [], []
    rng = np.random.default_rng(seed)
    trust = discount(np.arange(domain.slate_size))
    for _ in range(ROUNDS):
        lanes = Lanes(domain, LANES, seed=int(rng.integers(2**31)))
        seen = lanes.reset()
        owner.append(seen.history_items)  # users can be told apart by what they met before
        running = np.ones(LANES, bool)
        items, likes = [], []
        while running.any():
            assert seen.candidates is not None
            drawn = rng.integers(domain.catalogue.n_items, size=(LANES, domain.slate_size))
            slates = shown_places(drawn, seen.candidates)
            step = lanes.step(slates)
            items.append(np.where(running[:, None], slates, -1))
            likes.append(step.clicks)
            running &= ~step.done
            seen = step.observation
        lanes.close()
        shown, clicked = np.concatenate(items, axis=1), np.concatenate(likes, axis=1)
        there = shown >= 0
        item.append(shown[there])
        liked.append(clicked[there])
        weight.append(np.where(clicked > 0, 1, np.tile(trust, len(items)))[there])
        length.append(there.sum(axis=1))
    _, whose = np.unique(np.concatenate(owner), axis=0, return_inverse=True)
    count = np.concatenate(length)
    return Told(
        start=np.append(0, np.cumsum(count)),
        item=np.concatenate(item),
        liked=np.concatenate(liked).astype(np.float32),
        weight=np.concatenate(weight).astype(np.float32),
        user_features=np.zeros((len(count), 0), np.float32),
        owner=whose.reshape(-1).astype(np.int64),
    )


def _together(parts: Sequence[Told], first_item: Sequence[int]) -> Told:
    """Several domains as one: items of each are counted from its first, owners are told apart."""
    rows = np.cumsum([0, *(len(one.item) for one in parts)])
    owners = np.cumsum([0, *(int(one.owner.max(initial=-1)) + 1 for one in parts)])
    return Told(
        start=np.concatenate([*(one.start[:-1] + row for one, row in zip(parts, rows, strict=False)), rows[-1:]]),
        item=np.concatenate([one.item + first for one, first in zip(parts, first_item, strict=True)]),
        liked=np.concatenate([one.liked for one in parts]),
        weight=np.concatenate([one.weight for one in parts]),
        user_features=np.concatenate([one.user_features for one in parts]),
        owner=np.concatenate([one.owner + owner for one, owner in zip(parts, owners, strict=False)]),
    )


def _unit_spread(inputs: F32) -> F32:
    spread = np.maximum(inputs.std(axis=0), 1e-6)
    return np.asarray((inputs - inputs.mean(axis=0)) / spread, np.float32)


def _without(log: InteractionLog, users: Ints) -> InteractionLog:
    """The rows of all but these users."""
    kept = ~np.isin(log.user, users)
    return InteractionLog(log.user[kept], log.item[kept], log.time[kept], log.primary[kept], log.catalogue, log.source)
