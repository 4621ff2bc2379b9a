"""The simulated users again, in plain Python and float64, one user at a time: what the kernel is held against."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

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
        return world.item_vectors.astype(np.float64) @ self.taste + self.bias + world.item_bias - satiation

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
        decay = value("examination", "decay")
        clicks, drift, looking = [0] * size, np.zeros_like(self.taste), True
        rate = value("drift", "rate") / np.mean(np.sum(vectors**2, axis=1))
        for k, item in enumerate(shown):
            bits = mix64(((moment ^ 1) + GOLDEN * (k + 1)) & MASK)
            if world.examination == "cascade":
                looking = looking and (k == 0 or below(high(bits), decay))
                examined = looking
            else:
                examined = k == 0 or below(high(bits), decay**k)
            if item < 0 or not examined:
                continue
            satiation = value("satiation", "strength") * (self.exposure @ shares[item])
            p = sigma(self.taste @ vectors[item] + self.bias + float(world.item_bias[item]) - satiation)
            clicks[k] = int(below(low(bits), p))
            drift += rate * (clicks[k] - p) * vectors[item]
            if clicks[k] and world.examination == "cascade":
                looking = below(high(mix64((bits + GOLDEN) & MASK)), value("examination", "continuation"))
        self.taste = self.taste + drift

        there = [item for item in shown if item >= 0]
        mean = shares[there].sum(axis=0) / max(len(there), 1)
        repetition = float(self.exposure @ mean)
        memory = value("satiation", "memory")
        self.exposure = memory * self.exposure + (1 - memory) * mean
        self.history += [(item, click) for item, click in zip(shown, clicks, strict=True) if item >= 0]

        pleased = min(1.0, sum(clicks) / (2 * world.expected_clicks(size)))
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
        return Step(shown, clicks, left, self.done, min(margins))
