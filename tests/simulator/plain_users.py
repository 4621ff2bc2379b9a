"""The simulated users again, in plain Python and float64, one user at a time: what the kernel is held against."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from simulator.behaviour.heads import Head
from simulator.world import World

MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15


def mix64(x: int) -> int:
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def fold(key: int, word: int) -> int:
    return mix64(((key ^ word) + GOLDEN) & MASK)


def high(bits: int) -> float:
    return (bits >> 40) / 2**24


def low(bits: int) -> float:
    return ((bits >> 16) & 0xFFFFFF) / 2**24


def sigma(z: float) -> float:
    return 1 / (1 + math.exp(-z))


@dataclass
class Step:
    shown: list[int]
    clicks: list[int]
    left: bool
    done: bool
    after: list[list[float]]
    reward: float
    margin: float
    """Smallest distance of a uniform from what it was compared with: below 1e-6 float32 may decide otherwise."""


@dataclass
class PlainUser:
    world: World
    row: int
    seed: int
    session: int
    step_number: int = 0
    done: bool = False
    satisfaction: float = 0.5
    history: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        starts = self.world.starts
        self.taste = starts.vector[self.row].astype(np.float64)
        self.bias = float(starts.bias[self.row]) + self.world.appeal_shift
        self.exposure = np.zeros(self.world.item_categories.shape[1])
        self.bored = np.zeros(self.world.item_categories.shape[1])
        friends = self.world.friends
        self.liked_by_friends = (
            set()
            if friends is None
            else set(friends.item[friends.start[self.row] : friends.start[self.row + 1]].tolist())
        )
        part = slice(starts.seen.start[self.row], starts.seen.start[self.row + 1])
        self.seen = set(starts.seen.item[part].tolist())
        self.history = list(zip(starts.history_items[self.row], starts.history_feedback[self.row], strict=True))
        key = mix64((self.seed + GOLDEN) & MASK)
        self.key = fold(fold(key, int(starts.user[self.row])), self.session)

    def appeal(self) -> np.ndarray:
        """[I] logit of a click on each item, were it examined now."""
        world = self.world
        categories = world.item_categories.astype(np.float64)
        shares = categories / np.maximum(categories.sum(axis=1, keepdims=True), 1)
        satiation = world.value("satiation", "strength") * (shares @ self.exposure)
        boredom = world.value("boredom", "depth") * (shares @ (self.bored > world.value("boredom", "threshold")))
        friends = np.zeros(world.n_items)
        friends[list(self.liked_by_friends)] = world.value("friends", "strength")
        taste = world.item_vectors.astype(np.float64) @ self.taste
        return taste + self.bias + world.item_bias - satiation - boredom + friends

    def step(self, slate: list[int]) -> Step:
        world, value, size = self.world, self.world.value, len(slate)
        moment = fold(self.key, self.step_number)
        margins = [1.0]

        def below(uniform: float, limit: float) -> bool:
            margins.append(abs(uniform - limit))
            return uniform < limit

        shown = []
        for item in slate:
            there = 0 <= item < world.n_items and item not in self.seen
            shown.append(item if there else -1)
            self.seen.add(item)
        vectors = world.item_vectors.astype(np.float64)
        categories = world.item_categories.astype(np.float64)
        shares = categories / np.maximum(categories.sum(axis=1, keepdims=True), 1)
        table = world.examination_table(size).astype(np.float64)
        clicks, drift, looking, last = [0] * size, np.zeros_like(self.taste), True, 0
        after = [[0.0] * len(world.heads) for _ in range(size)]
        rate = value("drift", "rate") / np.mean(np.sum(vectors**2, axis=1))
        appeal = self.appeal()
        examined: list[int] = []

        def click(k: int, bits: int) -> None:
            clicks[k] = 1
            for h, head in enumerate(world.heads):
                uniform = high(mix64((bits + GOLDEN * (h + 2)) & MASK))
                after[k][h] = follow(head, float(appeal[shown[k]]), uniform, below)

        def bits_of(k: int) -> int:
            return mix64(((moment ^ 1) + GOLDEN * (k + 1)) & MASK)

        for k, item in enumerate(shown):
            bits = bits_of(k)
            limit = table[k, last]
            sure = limit >= 1
            if world.examination == "cascade":
                looking = looking and (sure or below(high(bits), limit))
                looks = looking
            else:
                looks = sure or below(high(bits), limit)
            if item < 0 or not looks:
                continue
            examined.append(k)
            if world.choice != "independent":
                continue
            p = sigma(appeal[item])
            if below(low(bits), p):
                click(k, bits)
            drift += rate * (clicks[k] - p) * vectors[item]
            if clicks[k] and world.examination == "cascade":
                looking = below(high(mix64((bits + GOLDEN) & MASK)), value("examination", "continuation"))
            if clicks[k] and world.examination == "user_browsing":
                last = k + 1
        if world.choice != "independent":
            chances = self.chances([shown[k] for k in examined], appeal, shares)
            uniform, run, chosen = high(mix64(moment ^ 4)), 0.0, -1
            for k, chance in zip(examined, chances, strict=True):
                run += chance
                if chosen < 0 and below(uniform, run):
                    chosen = k
                    click(k, bits_of(k))
            for k, chance in zip(examined, chances, strict=True):
                drift += rate * (clicks[k] - chance) * vectors[shown[k]]
        self.taste = self.taste + drift
        self.bored *= value("boredom", "memory")
        for k in examined:
            self.bored += clicks[k] * shares[shown[k]]

        there = [item for item in shown if item >= 0]
        mean = shares[there].sum(axis=0) / max(len(there), 1)
        repetition = float(self.exposure @ mean)
        memory = value("satiation", "memory")
        self.exposure = memory * self.exposure + (1 - memory) * mean
        self.history += [(item, click) for item, click in zip(shown, clicks, strict=True) if item >= 0]

        pleased = min(1.0, sum(clicks) / (2 * world.expected_clicks(size)))
        h = world.reward_head
        reward = float(sum(clicks)) if h is None else sum(row[h] for row in after)
        keep = value("leave", "memory")
        self.satisfaction = keep * self.satisfaction + (1 - keep) * pleased
        base = value("leave", "base_rate")
        hazard = sigma(
            math.log(base / (1 - base))
            - value("leave", "satisfaction") * (self.satisfaction - 0.5)
            + value("leave", "repetition") * repetition
            + value("leave", "step") * self.step_number
        )
        left = below(high(mix64(moment ^ 2)), hazard)
        self.step_number += 1
        self.done = left or self.step_number >= world.horizon
        return Step(shown, clicks, left, self.done, after, reward, min(margins))

    def chances(self, items: list[int], appeal: np.ndarray, shares: np.ndarray) -> list[float]:
        """Chance of each examined item under the (nested) multinomial logit; what is left is no choice."""
        world = self.world
        scale = world.value("choice", "dissimilarity") if world.choice == "nested" else 1.0
        nests: dict[object, list[int]] = {}
        for at, item in enumerate(items):
            own = world.choice == "logit" or not shares[item].any()
            nests.setdefault(("own", at) if own else int(np.argmax(shares[item])), []).append(at)
        out = [0.0] * len(items)
        total = math.exp(world.value("choice", "no_choice"))
        for members in nests.values():
            within = sum(math.exp(appeal[items[at]] / scale) for at in members)
            weight = math.exp(scale * math.log(within))
            total += weight
            for at in members:
                out[at] = weight * math.exp(appeal[items[at]] / scale) / within
        return [one / total for one in out]


def follow(head: Head, z: float, uniform: float, below: Callable[[float, float], bool]) -> float:
    """One behaviour after a click."""
    if head.kind in ("like", "purchase"):
        return float(below(uniform, sigma(head.intercept + head.slope * z)))
    if head.kind == "dwell":
        return math.exp(head.intercept + head.slope * z + head.levels[int(uniform * 256)])
    return head.values[sum(not below(uniform, sigma(cut - head.slope * z)) for cut in head.levels)]
