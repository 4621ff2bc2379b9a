"""`rerank:AGENT`: any agent under a constraint of fairness to items, a policy of its own name and price.

The wrapped agent is only ever asked for slates, among candidates that are narrowed for it, so it may be of any kind: a
built-in one, a user's class in its process, a ranking service. What the constraint costs is the paired difference to
the agent without it, where that one flies too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from agents.base import Agent, AgentError, Observation, Training
from agents.features import SHRINK
from agents.needs import lacking
from agents.settings import AgentSettings
from agents.train_world import VALUE_SEED, VALUE_SESSIONS, Lanes
from agents.wrapping import Wrapping, best_of, slates_of

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

HEAD, TAIL = 0, 1
PEELS = 3
"""Slates taken from the wrapped agent, one below the other, among which calibration chooses."""
RANDOM_STEPS = 8_000
"""User-steps with a random number of tail items, from which the reduction learns what they cost whom."""
SMOOTH = 0.01
"""Weight of the user's own categories in the slate's, so that its divergence stays finite (Steck, 2018)."""
RIDGE = 10.0


class RerankSettings(BaseModel):
    """Parameters of a wrapped agent."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    agent: str = Field(min_length=1, description="kind of the wrapped agent; `rerank:AGENT` names it")
    params: dict[str, Any] = Field(default_factory=dict, description="parameters of the wrapped agent")
    constraint: Literal["exposure_parity", "calibration", "reduction"] = Field(
        default="exposure_parity",
        description="exposure_parity: exposure of head and tail items moves towards their merit. calibration: the "
        "categories of a slate move towards those of the user's liked items. reduction: exposure per merit of the tail "
        "reaches `bound` of the head's, spent on the users whom it costs least",
    )
    strength: float = Field(
        default=0.25, ge=0, le=1, description="share of the way from the agent's own slates to the constraint"
    )
    bound: float = Field(
        default=0.2, gt=0, le=1, description="reduction only: least exposure per merit of the tail over the head's"
    )
    head: float = Field(
        default=0.5, gt=0, lt=1, description="share of the likes in the train rows that the head items hold"
    )

    @property
    def needs(self) -> str:
        """What the log must hold, see `agents.needs`."""
        return "item categories" if self.constraint == "calibration" else ""

    def wrapped(self) -> tuple[AgentSettings, ...]:
        """The entry of the wrapped agent."""
        return (AgentSettings(name="wrapped", kind=self.agent, params=self.params),)


class Rerank(Wrapping):
    """Shows the wrapped agent's slates, changed as little as the constraint asks.

    exposure_parity follows Singh and Joachims (2018), calibration Steck (2018), reduction the exponentiated-gradient
    reduction of Agarwal et al. (2018) with one multiplier: best responses to a price of tail exposure, mixed from the
    two prices between which the train world's users meet the bound. Groups of users are none of its inputs, for agents
    see no sensitive attribute.
    """

    def __init__(self, settings: RerankSettings, wrapped: Sequence[Agent]) -> None:
        super().__init__(wrapped)
        self.settings = settings
        self.agent = wrapped[0]
        self._group = np.zeros(0, np.int64)  # [I] HEAD or TAIL
        self._categories = np.zeros((0, 0))  # [I, C] rows sum to 1
        self._tail_share = 0.0
        self._cost: Floats = np.zeros(0)
        self._prices = (0.0, 0.0)
        self._mix = 0.0

    def fit(self, training: Training) -> None:
        """Fit the wrapped agent, then what the constraint needs: groups, merit and the agent's own exposure."""
        self.fit_wrapped(training)
        log = training.log
        n_items = log.catalogue.n_items
        likes: Floats = np.bincount(log.item, weights=log.primary, minlength=n_items).astype(np.float64)
        self._group = head_and_tail(likes, self.settings.head)
        if self.settings.constraint == "calibration":
            if lack := lacking(self.settings.needs, log):
                raise AgentError(f"calibration needs {self.settings.needs}: {lack}")
            shares = log.catalogue.item_categories.astype(np.float64)
            self._categories = shares / np.maximum(shares.sum(axis=1, keepdims=True), 1)
            return
        if self.privileged:
            raise AgentError("a bound reads the judge world's appeal, which the train world has not; wrap a policy")
        rows = np.bincount(log.item, minlength=n_items)
        merit = (likes + SHRINK * log.primary.mean()) / (rows + SHRINK)  # [I] like rate
        of_group = np.bincount(self._group, merit, 2)
        own = self._own_tail_share(training)
        if self.settings.constraint == "exposure_parity":
            target = of_group[TAIL] / of_group.sum()
            self._tail_share = own + self.settings.strength * (target - own)
        else:
            ratio = self.settings.bound * of_group[TAIL] / of_group[HEAD]  # of tail to head exposure
            self._learn_price(training, max(own, ratio / (1 + ratio)))

    def act(self, observation: Observation, rng: np.random.Generator) -> Ints:
        """The wrapped agent's slates under the constraint."""
        if self.settings.constraint == "calibration":
            return self._calibrated(observation, rng)
        if self.settings.constraint == "exposure_parity":
            wanted = np.full(len(observation), self._tail_share * observation.slate_size)
        else:
            wanted = self._mixed_response(self._users(observation), observation.slate_size)
        whole = np.floor(wanted).astype(np.int64)
        n_tail = whole + (rng.random(len(wanted)) < wanted - whole)
        return self._with_tail(observation, rng, n_tail)

    # ------------------------------------------------------------------------------------------- head and tail

    def _with_tail(self, observation: Observation, rng: np.random.Generator, n_tail: Ints) -> Ints:
        """[n, K] slates with n_tail [n] tail items: the agent's best of each group, its own order where it has one."""
        n, size = len(observation), observation.slate_size
        state = rng.bit_generator.state

        def ask(allowed: NDArray[np.bool_] | None) -> Ints:
            rng.bit_generator.state = state  # the same draws whichever candidates: a drawing agent stays itself
            candidates = observation.candidates
            if allowed is not None:
                candidates = allowed[None, :] if candidates is None else candidates & allowed
                candidates = np.broadcast_to(candidates, (n, len(self._group)))
            return slates_of(self.agent, replace(observation, candidates=candidates), rng)

        own, head, tail = ask(None), ask(self._group == HEAD), ask(self._group == TAIL)
        # A group that has too few candidates leaves its places to the other one.
        there_head, there_tail = (head >= 0).sum(axis=1), (tail >= 0).sum(axis=1)
        n_tail = np.clip(n_tail, np.maximum(0, size - there_head), there_tail)
        place = np.arange(size)[None, :]
        chosen_tail = np.where(place < n_tail[:, None], tail, -1)
        chosen_head = np.where(place < np.minimum(size - n_tail, there_head)[:, None], head, -1)
        both = np.concatenate([chosen_head, chosen_tail], axis=1)  # [n, 2K]
        # Rank in the agent's own slate; what it would not have shown follows below, in the order of its group.
        rank = np.full((n, len(self._group) + 1), 2 * size, np.int64)
        shown = np.where(own >= 0, own, len(self._group))
        np.put_along_axis(rank, shown, np.broadcast_to(place, own.shape), axis=1)
        key = np.take_along_axis(rank, np.where(both >= 0, both, len(self._group)), axis=1).astype(np.float64)
        key += np.concatenate([place, place + 0.5], axis=1) * (key >= 2 * size)
        key[both < 0] = np.inf
        order = np.argsort(key, axis=1, kind="stable")[:, :size]
        return np.take_along_axis(both, order, axis=1)

    def _own_tail_share(self, training: Training) -> float:
        """Share of attention that the wrapped agent gives to the tail in the train world."""
        lanes = Lanes(training, VALUE_SESSIONS, seed=(training.seed + VALUE_SEED) % 2**31)
        rng = np.random.default_rng(training.seed)
        observation = lanes.reset()
        attention = 1 / np.log2(2 + np.arange(training.slate_size))
        exposure = np.zeros(2)
        running = np.ones(lanes.num_envs, bool)
        while running.any():
            slates = slates_of(self.agent, observation, rng)
            there = (slates >= 0) & running[:, None]
            row, place = np.nonzero(there)
            exposure += np.bincount(self._group[slates[row, place]], attention[place], 2)
            step = lanes.step(slates)
            running &= ~step.done
            observation = step.observation
        lanes.close()
        return float(exposure[TAIL] / exposure.sum())

    # --------------------------------------------------------------------------------------------- reduction

    def _users(self, observation: Observation) -> Floats:
        """[n, 4] what decides to whom a tail item costs little: own liking of the tail, of anything, history, step."""
        items = observation.history_items
        there = items >= 0
        liked = there & (observation.history_feedback > 0)
        tail = self._group[np.where(there, items, 0)] == TAIL
        n_liked = liked.sum(axis=1)
        return np.column_stack(
            [
                ((liked & tail).sum(axis=1) + 1) / (n_liked + 2),
                (n_liked + 1) / (there.sum(axis=1) + 2),
                np.log1p(there.sum(axis=1)) / 4,
                np.minimum(observation.step, 20) / 20,
            ]
        )

    def _learn_price(self, training: Training, share: float) -> None:
        """Learn clicks by user and number of tail items from random numbers; then the price that meets the share."""
        size = training.slate_size
        lanes = Lanes(training, 128, seed=training.seed)
        rng = np.random.default_rng(training.seed)
        observation = lanes.reset()
        users, counts, clicks = [], [], []
        for _ in range(max(1, RANDOM_STEPS // lanes.num_envs)):
            n_tail = rng.integers(0, size + 1, len(observation))
            users.append(self._users(observation))
            counts.append(n_tail)
            step = lanes.step(self._with_tail(observation, rng, n_tail))
            clicks.append(step.clicks.sum(axis=1))
            observation = step.observation
        lanes.close()
        x, a = np.concatenate(users), np.concatenate(counts) / size
        design = _design(x, a)
        gram = design.T @ design + RIDGE * np.eye(design.shape[1])
        self._cost = np.asarray(np.linalg.solve(gram, design.T @ np.concatenate(clicks)), np.float64)
        low, high = -float(size), float(size)
        for _ in range(40):
            middle = (low + high) / 2
            reached = float(self._best_response(x, size, middle).mean()) / size
            low, high = (middle, high) if reached < share else (low, middle)
        self._prices = (low, high)
        below, above = (float(self._best_response(x, size, price).mean()) / size for price in (low, high))
        self._mix = float(np.clip((share - below) / (above - below), 0, 1)) if above > below else 1.0

    def _mixed_response(self, users: Floats, size: int) -> Floats:
        """[n] tail items, in the mean: responses to the last two prices, mixed so that the bound is met exactly."""
        low, high = (self._best_response(users, size, price) for price in self._prices)
        return (1 - self._mix) * low + self._mix * high

    def _best_response(self, users: Floats, size: int, price: float) -> Floats:
        """[n] tail items that earn most clicks when each share of the slate given to the tail is paid `price`."""
        shares = np.arange(size + 1) / size
        value = np.stack([_design(users, np.full(len(users), a)) @ self._cost + price * a for a in shares], axis=1)
        return np.asarray(value.argmax(axis=1), np.float64)

    # ------------------------------------------------------------------------------------------- calibration

    def _calibrated(self, observation: Observation, rng: np.random.Generator) -> Ints:
        """Greedy: rank by the agent against divergence of the slate's categories from those of the liked items."""
        n, size = len(observation), observation.slate_size
        pool = best_of(self.agent, observation, rng, len(self._group), PEELS)  # [n, L]
        liked = (observation.history_items >= 0) & (observation.history_feedback > 0)
        of_history = self._categories[np.where(liked, observation.history_items, 0)] * liked[..., None]
        wanted = of_history.sum(axis=1)
        total = wanted.sum(axis=1, keepdims=True)
        wanted = np.where(total > 0, wanted / np.maximum(total, 1e-12), 1 / wanted.shape[1])  # [n, C]
        categories = self._categories[np.maximum(pool, 0)]  # [n, L, C]
        appeal = np.where(pool >= 0, 1 / np.log2(2 + np.arange(pool.shape[1])), -np.inf)  # [n, L]
        slate = np.full((n, size), -1, np.int64)
        sums = np.zeros_like(wanted)
        rows = np.arange(n)
        s = self.settings.strength
        for place in range(size):
            shown = (sums[:, None, :] + categories) / (place + 1)
            mixed = (1 - SMOOTH) * shown + SMOOTH * wanted[:, None, :]
            ratio = np.where(wanted[:, None, :] > 0, wanted[:, None, :] / np.maximum(mixed, 1e-12), 1.0)
            divergence = (wanted[:, None, :] * np.log(ratio)).sum(axis=2)
            best = ((1 - s) * appeal - s * divergence).argmax(axis=1)
            there = np.isfinite(appeal[rows, best])
            slate[there, place] = pool[rows, best][there]
            sums += categories[rows, best] * there[:, None]
            appeal[rows, best] = -np.inf
        return slate


def head_and_tail(likes: Floats, share: float) -> Ints:
    """[I] HEAD for the most liked items that together hold `share` of all likes, TAIL for the rest."""
    order = np.argsort(-likes, kind="stable")
    before = np.cumsum(likes[order]) - likes[order]
    group = np.full(len(likes), TAIL, np.int64)
    group[order[before < share * likes.sum()]] = HEAD
    return group


def _design(users: Floats, share: Floats) -> Floats:
    """[n, 2 + 2 f + 1] clicks as a curve in the tail's share that differs between users."""
    a = share[:, None]
    return np.concatenate([np.ones_like(a), users, a, users * a, a * a], axis=1)
