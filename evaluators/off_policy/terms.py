"""What every estimator hands over: rows of a sum of ratios of means, and what the rules of publication look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evaluators.intervals import Ratios, n_pos, user_sums

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Units:
    """How N units (rounds, slates, trajectories) belong to G users; `cluster` is None where each is its own."""

    cluster: Ints | None
    n_users: int
    n: int
    counts: Floats

    @classmethod
    def of(cls, cluster: Ints | None, n_users: int, n: int) -> Units:
        """From the index of the user of each unit."""
        return cls(cluster, n_users, n, user_sums(np.ones(n), cluster, n_users))

    def sums(self, rows: Floats) -> Floats:
        """[G] sums over the units of each user."""
        return user_sums(rows, self.cluster, self.n_users)

    def mean(self, rows: Floats) -> Ratios:
        """Mean over units as a ratio of user sums."""
        return Ratios(self.sums(rows)[None], self.counts[None])


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """One estimator on N units: sum_k mean(numerators[k]) / mean(denominators[k]).

    Attributes:
        family: "ratio", "shrunk" (limits from `low_rows` and `high_rows`) or "model" (no coverage claim).
        numerators: [N] each; denominators: [N] each, or None for ones.
        weighted: [N] weighted reward of the weights that bind: n_pos is read off it. None for a model.
        weight: [N] or [N, S] importance weights that should average 1 (rule W5); None for a model.
        own: True where n_inf and n_pos of its own weights bind alone; False: those of IPS bind as well.
        low_rows, high_rows: [N] whose user-mean t limits hold the bias too; None where the range of reward is unknown.
        bias: largest possible bias (B1), in the unit of reward, or None.
        assumes: label of the assumption on users, or "".
    """

    family: Literal["ratio", "shrunk", "model"]
    numerators: tuple[Floats, ...]
    denominators: tuple[Floats | None, ...]
    weighted: Floats | None = None
    weight: Floats | None = None
    own: bool = True
    low_rows: Floats | None = None
    high_rows: Floats | None = None
    bias: float | None = None
    assumes: str = ""

    def per_unit(self) -> Floats:
        """[N] contribution of each unit; their mean is the value."""
        parts = [
            top if bottom is None else top / bottom.mean()
            for top, bottom in zip(self.numerators, self.denominators, strict=True)
        ]
        return sum(parts[1:], start=parts[0])

    def ratios(self, units: Units) -> Ratios:
        """The user sums."""
        return Ratios(
            np.stack([units.sums(top) for top in self.numerators]),
            np.stack([units.counts if bottom is None else units.sums(bottom) for bottom in self.denominators]),
        )

    def rewarded(self) -> float | None:
        """n_pos of the weights that bind, or None where there are none."""
        return None if self.weighted is None else n_pos(self.weighted)
