"""How far a world's appeal stands above its preference model's, so that its users click as often as the log's.

A preference model that knows no slates learns rates of what was shown: of places that were not all looked at, of items
that competed with others for one click. The world looks at places and lets items compete by itself, so on top of these
rates it would do so twice. One shift of all appeals takes both back together: with it the clicks that the world is
expected to make on the logged slates are as many as the log has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit, logsumexp

from simulator.behaviour.examination import click_chances, expected_choices, expected_clicks, looks_at_all
from simulator.log import InteractionLog

Floats = NDArray[np.float64]
Logits = Callable[[NDArray[np.int64]], Floats]
"""Rows of the log -> logit of the primary behaviour in each, by the preference model."""
_MOST_SLATES = 100_000
"""Slates that are replayed at most, evenly from all."""
_MOST_PLACES = 1 << 20
"""Places on them at most: fewer slates are replayed where slates are long."""
_FEWEST_DRAWN = 20_000
"""Slates for which it is drawn what is looked at, where it cannot be summed over: few slates are drawn repeatedly."""
_WIDEST = 20.0
"""Logits of a shift at most."""


@dataclass(frozen=True, slots=True)
class SlateBehaviour:
    """How users look at slates and choose from them.

    Attributes:
        examination: "position", "cascade" or "user_browsing".
        table: [K, K + 1] as `examination_table`.
        continuation: chance of going on after a click.
        choice: "independent", "logit" or "nested".
        no_choice: logit of choosing none; dissimilarity: of a nest.
    """

    examination: str
    table: NDArray[np.floating]
    continuation: float
    choice: str = "independent"
    no_choice: float = 0.0
    dissimilarity: float = 1.0

    @property
    def takes_rates_as_they_are(self) -> bool:
        """Whether an item is clicked as often as if it alone were shown and looked at: nothing is to be shifted."""
        return self.choice == "independent" and self.looks_at_all

    @property
    def looks_at_all(self) -> bool:
        """Whether users look at every place, so that it does not matter where an item stands."""
        if self.choice != "independent":  # who chooses has read the whole slate before the click
            return looks_at_all(self.examination, self.table[:, :1], 1.0)
        return looks_at_all(self.examination, self.table, self.continuation)

    def clicks(self, logit: Floats, nest: NDArray[np.int64], rng: np.random.Generator) -> Callable[[float], float]:
        """Shift of all logits -> expected clicks on n slates.

        Args:
            logit: [n, K] of a click on each item once it is looked at, -inf where a place is empty.
            nest: [n, K] nest of each item, -1 for one of its own.
            rng: draws what is looked at, where items compete; the same for every shift.
        """
        if self.choice == "independent":
            return lambda shift: float(
                click_chances(self.examination, self.table, self.continuation, expit(logit + shift)).sum()
            )
        repeats = 1 if self.table.min() == 1 else -(-_FEWEST_DRAWN // len(logit))
        logit, nest = np.tile(logit, (repeats, 1)), np.tile(nest, (repeats, 1))
        # While nothing is chosen no click stands above any place.
        looked_at = rng.random(logit.shape) < self.table[:, 0]
        if self.examination == "cascade":
            looked_at = np.logical_and.accumulate(looked_at, axis=1)
        odds = self._log_odds(np.where(looked_at, logit, -np.inf), nest) - self.no_choice
        return lambda shift: float(expit(odds + shift).sum() / repeats)

    def _log_odds(self, logit: Floats, nest: NDArray[np.int64]) -> Floats:
        """[n] log of the summed weights of the items that are looked at, the others having the logit -inf.

        A shift of all logits moves it by as much, in nests too: what lies between items of one nest stays.
        """
        if self.choice != "nested":
            return np.asarray(logsumexp(logit, axis=1))
        row, place = np.nonzero(np.isfinite(logit))
        of_nest = nest[row, place]
        of_nest = np.where(of_nest < 0, -1 - place, of_nest)  # one of its own
        order = np.lexsort((of_nest, row))
        row, of_nest, scaled = row[order], of_nest[order], logit[row, place][order] / self.dissimilarity
        begins = np.flatnonzero((np.diff(row, prepend=-1) != 0) | (np.diff(of_nest, prepend=0) != 0))
        inclusive = self.dissimilarity * _log_sums(scaled, begins)
        slates = np.flatnonzero(np.diff(row[begins], prepend=-1) != 0)
        out = np.full(len(logit), -np.inf)
        out[row[begins][slates]] = _log_sums(inclusive, slates)
        return out

    def usual_clicks(self, rate: float) -> float:
        """Clicks on a full slate of items that are each clicked with probability `rate` where they alone are looked at.

        Nests are not known of such items: each has one of its own.
        """
        if self.choice != "independent":
            return expected_choices(self.examination, self.table, self.no_choice, rate)
        return expected_clicks(self.examination, self.table, self.continuation, rate)


def _log_sums(values: Floats, begins: NDArray[np.int64]) -> Floats:
    """Logarithm of the sum of exp in each part of `values` that begins where `begins` says."""
    if not len(begins):
        return np.zeros(0)
    top = np.maximum.reduceat(values, begins)
    spread = np.repeat(top, np.diff(np.append(begins, len(values))))
    return np.asarray(top + np.log(np.add.reduceat(np.exp(values - spread), begins)))


@dataclass(frozen=True, slots=True)
class Calibration:
    """A shift of all appeals.

    Attributes:
        shift: logits.
        note: what it was found on, or why none could be found; "" where none is needed.
        usual_rate: chance of a click on an item that alone is looked at, were all items alike and the clicks on the
            logged slates as many; None where the log's share of clicks is that rate, or nothing was calibrated.
    """

    shift: float
    note: str
    usual_rate: float | None = None


def calibrate_appeal(
    log: InteractionLog,
    rows: NDArray[np.int64],
    behaviour_of: Callable[[int], SlateBehaviour],
    slate_size: int,
    logits: Logits,
    rng: np.random.Generator,
) -> Calibration:
    """The shift with which the world's users are expected to click as often on logged slates as the log's did.

    Only slates count of which all rows are given, but where places are looked at, and clicked, each by itself. There
    places below the world's own slate are left out, as no click of theirs is the world's.

    Args:
        log: the log.
        rows: [m] rows that may be read, by user, then time.
        behaviour_of: slate size -> how the world's users act on such a slate.
        slate_size: the world's own.
        logits: the preference model on rows of the log.
        rng: draws what is looked at, where items compete.
    """
    own = behaviour_of(slate_size)
    if own.takes_rates_as_they_are:
        return Calibration(0.0, "")
    apart = own.choice == "independent" and own.examination == "position"
    if log.impression is None and not (apart and log.position is not None):
        return _none("the log does not say which rows were shown together (data.columns.impression)")
    if log.impression is None:
        rows = rows[_evenly(len(rows), _MOST_SLATES)]
        number = np.arange(len(rows))
    else:
        number = log.impression[rows]
        if not apart:
            whole = np.bincount(number, minlength=int(log.impression.max()) + 1) == np.bincount(log.impression)
            rows, number = rows[whole[number]], number[whole[number]]
        slates, number, places = np.unique(number, return_inverse=True, return_counts=True)
        if not len(slates):
            return _none("no slate of the log lies whole in the rows that are fitted")
        taken = _evenly(len(slates), min(_MOST_SLATES, max(1, _MOST_PLACES // int(places.max()))))
        new = np.full(len(slates), -1)
        new[taken] = np.arange(len(taken))
        kept = new[number] >= 0
        rows, number = rows[kept], new[number[kept]]
    place = _places(number) if log.position is None else log.position[rows]
    size = int(place.max()) + 1
    if log.position is None and not behaviour_of(size).looks_at_all:
        return _none("the log does not say at which place an item stood (data.columns.position)")
    if own.choice == "independent":
        size = min(size, slate_size)
        rows, number, place = rows[place < size], number[place < size], place[place < size]
    shape = (int(number.max(initial=-1)) + 1, size)
    logit, click, nest = np.full(shape, -np.inf), np.zeros(shape), np.full(shape, -1)
    logit[number, place], click[number, place] = logits(rows), log.primary[rows]
    categories = log.catalogue.item_categories
    if categories.shape[1]:
        item = log.item[rows]
        nest[number, place] = np.where(categories[item].any(axis=1), np.argmax(categories[item], axis=1), -1)
    behaviour, clicks = behaviour_of(size), float(click.sum())
    alike = replace(behaviour, choice="logit" if behaviour.choice == "nested" else behaviour.choice)
    shift = _shift_for(clicks, behaviour.clicks(logit, nest, rng))
    usual = _shift_for(clicks, alike.clicks(np.where(np.isfinite(logit), 0.0, -np.inf), nest, rng))
    if shift is None or usual is None:
        most = behaviour.clicks(logit, nest, rng)(_WIDEST)
        return _none(f"the log has {clicks:g} clicks on {shape[0]} slates, where these users make {most:g} at most")
    on = f"{shape[0]} logged {'rows' if log.impression is None else 'slates'}"
    note = f"appeal: {shift:+.3f} logits, with which users click as often on {on} as in the log"
    return Calibration(shift, note, float(expit(usual)))


def _shift_for(clicks: float, expected: Callable[[float], float]) -> float | None:
    """The shift with which so many clicks are expected; None where none within `_WIDEST` does it."""
    if not expected(-_WIDEST) < clicks < expected(_WIDEST):
        return None
    return float(brentq(lambda shift: expected(shift) - clicks, -_WIDEST, _WIDEST, xtol=1e-4))


def _evenly(n: int, most: int) -> NDArray[np.int64]:
    """`most` of the numbers below n, evenly from all."""
    return np.linspace(0, n - 1, min(n, most)).astype(np.int64)


def _none(why: str) -> Calibration:
    return Calibration(0.0, f"appeal: examination and choice are not calibrated; {why}")


def _places(number: NDArray[np.int64]) -> NDArray[np.int64]:
    """[m] place of each row within its slate, in the order of the rows."""
    order = np.argsort(number, kind="stable")
    ordered = number[order]
    place = np.empty(len(number), np.int64)
    place[order] = np.arange(len(number)) - np.searchsorted(ordered, ordered)
    return place
