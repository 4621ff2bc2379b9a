"""What every estimator hands over: rows of a sum of ratios of means, and what the rules of publication look at."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evaluators.intervals import Ratios, user_sums

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

Family = Literal["ratio", "shrunk", "model"]


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
        if cluster is None:
            # One value seen as n of them: a column of ones would cost what a column of weights does.
            return cls(cluster, n_users, n, np.broadcast_to(np.ones(1), (n_users,)))
        return cls(cluster, n_users, n, np.bincount(cluster, minlength=n_users).astype(np.float64))

    def sums(self, rows: Floats) -> Floats:
        """[G] sums over the units of each user."""
        return user_sums(rows, self.cluster, self.n_users)

    def add(self, total: Floats, rows: Floats, part: slice) -> None:
        """Add the rows of some units to the sums [G] of their users."""
        if self.cluster is None:
            total[part] += rows
            return
        owner = self.cluster[part]
        first, last = int(owner.min()), int(owner.max()) + 1  # few users a part where the log is sorted by user
        total[first:last] += np.bincount(owner - first, weights=rows, minlength=last - first)

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
        assumes: label of the assumption on users, or "".
    """

    family: Family
    numerators: tuple[Floats, ...]
    denominators: tuple[Floats | None, ...]
    weighted: Floats | None = None
    weight: Floats | None = None
    own: bool = True
    low_rows: Floats | None = None
    high_rows: Floats | None = None
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


@dataclass(frozen=True, slots=True)
class Sums:
    """An estimator summed over users: all that value, interval and rules need, whatever the number of units.

    Attributes:
        family, own, assumes: as in `Terms`.
        ratios: the user sums.
        n_pos: effective number of rewarded units, or None for a model.
        low, high: user sums of the rows whose t limits hold the bias, or None.
    """

    family: Family
    ratios: Ratios
    n_pos: float | None
    own: bool
    assumes: str
    low: Ratios | None
    high: Ratios | None

    @property
    def bias(self) -> float | None:
        """Largest possible bias (B1) in the unit of the reward; None where nothing bounds it."""
        if self.low is None or self.high is None:
            return None
        return max(self.high.value - self.ratios.value, self.ratios.value - self.low.value, 0.0)


class _Spread:
    """Sum and sum of squares of sizes in one pass, scaled by the largest so far so that no square underflows."""

    def __init__(self) -> None:
        self.top = self.total = self.squares = 0.0

    def add(self, rows: Floats) -> None:
        size = np.abs(rows)
        top = float(size.max(initial=0.0))
        if top > self.top:
            shrink = self.top / top
            self.top, self.total, self.squares = top, self.total * shrink, self.squares * shrink**2
        if self.top > 0:
            size /= self.top
            self.total += float(size.sum())
            self.squares += float(size @ size)

    def effective(self) -> float:
        """(sum |x|)^2 / sum x^2."""
        return self.total**2 / self.squares if self.squares > 0 else 0.0


def sum_terms(parts: Iterable[tuple[slice, Terms]], units: Units) -> Sums:
    """Sum an estimator over users, part by part: no more than one part's rows is ever held."""
    tops: list[Floats] = []
    bottoms: list[Floats | None] = []
    low = high = None
    spread: _Spread | None = None
    terms = None
    for part, terms in parts:
        if not tops:
            tops = [np.zeros(units.n_users) for _ in terms.numerators]
            bottoms = [None if rows is None else np.zeros(units.n_users) for rows in terms.denominators]
            spread = None if terms.weighted is None else _Spread()
            if terms.low_rows is not None and terms.high_rows is not None:
                low, high = np.zeros(units.n_users), np.zeros(units.n_users)
        for total, rows in zip((*tops, *bottoms), (*terms.numerators, *terms.denominators), strict=True):
            if total is not None and rows is not None:
                units.add(total, rows, part)
        if low is not None and high is not None and terms.low_rows is not None and terms.high_rows is not None:
            units.add(low, terms.low_rows, part)
            units.add(high, terms.high_rows, part)
        if spread is not None and terms.weighted is not None:
            spread.add(terms.weighted)
    assert terms is not None, "a record has at least one unit"
    counts = units.counts

    def stacked(rows: list[Floats]) -> Floats:
        return rows[0][None] if len(rows) == 1 else np.stack(rows)

    return Sums(
        terms.family,
        Ratios(stacked(tops), stacked([counts if rows is None else rows for rows in bottoms])),
        None if spread is None else spread.effective(),
        terms.own,
        terms.assumes,
        None if low is None else Ratios(low[None], counts[None]),
        None if high is None else Ratios(high[None], counts[None]),
    )


def slices(n: int, rows: int) -> Iterable[slice]:
    """Consecutive parts of at most `rows` of n units."""
    return (slice(start, min(start + rows, n)) for start in range(0, n, max(1, rows)))


def json_number(x: float) -> float | None:
    """A number that JSON can hold, or None."""
    return x if math.isfinite(x) else None
