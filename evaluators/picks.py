"""What judge worlds cannot know of an agent's own choices: the picks check, and the value corrected by it.

A judge world is right on average over logged rows and still wrong on what an agent seeks out: shrunk, it undersells a
good agent by 13 to 32 % (measured in EVALUATION, section 5). So on users held out of every world, the logged rows
whose item is among the agent's own top choices are scored: observed over expected, weighted by 1 / item exposure. One
further flight with the appeal logit shifted until that ratio is 1 gives the corrected value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from agents.base import Observation
from evaluators.estimate import Estimate
from evaluators.fidelity import Check, Floats, Ints, judged, observed_over_expected
from evaluators.intervals import t_interval
from simulator.log import InteractionLog, Split

FEWEST_EVENTS = 25
TOP = 10
"""Choices counted as picks: the top 10, or the slate where that is longer."""
LARGEST_SHIFT = 30.0
CHOSE_TO_RATE = "given that the user chose to rate"
POLICY_CHOSE = "given what an unlogged policy chose to show"
UNLOGGED_CHOICE = (CHOSE_TO_RATE, POLICY_CHOSE)
"""Conditions under which picks decide nothing: somebody chose the rows by what the log does not hold."""


def said_of(log: InteractionLog) -> str:
    """The condition under which a log's rows speak of an agent's picks; "" where exposure was logged or drawn."""
    if not log.self_selected:
        return ""
    return POLICY_CHOSE if log.exposure == "unlogged policy" else CHOSE_TO_RATE


@dataclass(frozen=True, slots=True)
class PickedRows:
    """n held-out rows whose item an agent would have picked for their user.

    Attributes:
        p: [n] the judge worlds' probability of the primary behaviour.
        y: [n] whether it occurred.
        user: [n] the cluster.
        weight: [n] 1 / item exposure.
    """

    p: Floats
    y: Floats
    user: Ints
    weight: Floats


@dataclass(frozen=True, slots=True)
class Picks:
    """The picks check of one agent.

    Attributes:
        estimate: O/E on the agent's own choices, user-cluster interval; withheld under 25 events.
        events: primary behaviours among the picked rows.
        rows: the picked rows.
        shift: logits to add to every appeal so that O/E is 1 (None where withheld).
        shift_low: the same for the lower limit of O/E; None where there is none.
        shift_high: the same for the upper limit; None where no probability could reach it.
        given: the condition under which the check holds: who chose the rows by what the log does not hold.
    """

    estimate: Estimate
    events: int
    rows: PickedRows
    shift: float | None
    shift_low: float | None
    shift_high: float | None
    given: str = ""

    @property
    def check(self) -> Check:
        """The band [0.85, 1.15]: outside it the agent's simulated numbers are marked."""
        return judged("picks", self.estimate, "[0.85, 1.15]", above=0.85, below=1.15)


def held_out_observation(
    log: InteractionLog,
    split: Split,
    users: Ints,
    *,
    feature_names: Sequence[str],
    history_length: int,
    slate_size: int,
    shown_again: bool = False,
) -> Observation:
    """What an agent sees of users after their early rows: a first step, in a state that no world simulated.

    Args:
        log: the interaction log.
        split: which rows are early.
        users: [n] users in the log's numbering.
        feature_names: user features that agents see, as `World.feature_names`.
        history_length: H.
        slate_size: K of the scenario; picks are the top max(10, K).
        shown_again: whether what a user met in the log may be picked too, as in the world.
    """
    histories = split.histories(log, users)
    items, feedback = histories.last(history_length)
    candidates = np.ones((len(users), log.catalogue.n_items), bool)
    if not shown_again:
        candidates[np.repeat(np.arange(len(users)), np.diff(histories.start)), histories.item] = False
    columns = [log.catalogue.user_feature_names.index(name) for name in feature_names]
    return Observation(
        user_features=np.ascontiguousarray(log.catalogue.user_features[users][:, columns], np.float32),
        history_items=items.astype(np.int64),
        history_feedback=feedback.astype(np.float32),
        context=np.zeros((len(users), 0), np.float32),
        candidates=candidates,
        step=np.zeros(len(users), np.int64),
        slate_size=min(max(TOP, slate_size), log.catalogue.n_items),
    )


def times_picked(slates: Sequence[NDArray[np.int64]], users: Ints, log: InteractionLog, rows: Ints) -> Floats:
    """[n] share of the slate sets (one for each training seed) that hold the row's item for the row's user.

    Args:
        slates: for each training seed [U, L] items; -1 is none.
        users: [U] user of each line of the slates.
        log: the interaction log.
        rows: [n] rows of these users.
    """
    n_items = log.catalogue.n_items
    line = np.full(log.catalogue.n_users, -1)
    line[users] = np.arange(len(users))
    where = line[log.user[rows]] * n_items + log.item[rows]
    total = np.zeros(len(rows))
    for slate in slates:
        keys = (np.arange(len(users))[:, None] * n_items + slate)[slate >= 0]
        total += np.isin(where, keys)
    return total / max(1, len(slates))


def item_exposure(log: InteractionLog) -> Floats:
    """[I] how often each item was met in the log: what picks are weighted by the inverse of."""
    return np.bincount(log.item, minlength=log.catalogue.n_items).astype(np.float64)


def picks_of(
    slates: Sequence[NDArray[np.int64]],
    users: Ints,
    log: InteractionLog,
    rows: Ints,
    p: Floats,
    *,
    level: float = 0.95,
) -> Picks:
    """The picks check of one agent on users held out of every world.

    It assumes that exposure depends on the item and the logged state, not on unlogged taste. That is so where
    exposure was logged or drawn; elsewhere the estimate says `given that the user chose to rate`, or that an
    unlogged policy chose.

    Args:
        slates: for each training seed the agent's top max(10, K) [U, L] from `held_out_observation`.
        users: [U] the held-out users, in the order of the slates.
        log: the interaction log.
        rows: [n] late rows of these users.
        p: [n] the judge worlds' probability of the primary behaviour for these rows (mean over worlds).
        level: of the interval.
    """
    share = times_picked(slates, users, log, rows)
    picked = share > 0
    exposure = item_exposure(log)[log.item[rows]] if log.propensity is None else log.propensity[rows]
    weight = share / exposure
    y = log.primary[rows].astype(np.float64)
    rows_picked = PickedRows(p[picked], y[picked], log.user[rows][picked], weight[picked])
    return picks_from_rows(rows_picked, given=said_of(log), level=level)


def picks_from_rows(rows: PickedRows, *, given: str = "", level: float = 0.95) -> Picks:
    """The picks check from the picked rows."""
    label = f"; {given}" if given else ""
    method = f"O/E on the agent's own picks, held-out users, rows weighted by 1 / item exposure{label}"
    events, n = int(rows.y.sum()), len(rows.y)
    if events < FEWEST_EVENTS:
        why = (
            f"picks: {events} events among {n} held-out rows that the agent would have picked, "
            f"needs {FEWEST_EVENTS}; more held-out users would help"
        )
        estimate = Estimate.withhold(method, why, n=len(np.unique(rows.user)), level=level)
        return Picks(estimate, events, rows, None, None, None, given)
    estimate = observed_over_expected(rows.p, rows.y, rows.user, weight=rows.weight, level=level, method=method)
    if estimate.value is None:
        return Picks(estimate, events, rows, None, None, None, given)
    estimate = replace(estimate, diagnostics={"events": events, "rows": n})
    low, high = estimate.low, estimate.high
    assert low is not None
    assert high is not None
    shift, shift_low, shift_high = (logit_shift(rows.p, rows.weight, x) for x in (estimate.value or 0.0, low, high))
    return Picks(estimate, events, rows, shift, shift_low, shift_high, given)


def picks_difference(first: Picks, second: Picks, *, level: float = 0.95) -> Estimate:
    """Log O/E of one agent's picks minus that of another's, paired by user: do the worlds flatter both alike?"""
    method = "difference of log O/E on the agents' own picks, paired by user, user-cluster t"
    why = first.estimate.withheld or second.estimate.withheld
    if why is not None:
        return Estimate.withhold(method, why, level=level)
    users = np.union1d(first.rows.user, second.rows.user)
    value, scores = 0.0, np.zeros(len(users))
    for sign, rows in ((1.0, first.rows), (-1.0, second.rows)):
        where = np.searchsorted(users, rows.user)
        for part, amount in ((sign, rows.weight * rows.y), (-sign, rows.weight * rows.p)):
            total = float(amount.sum())
            value += part * math.log(total)
            of_user = np.bincount(where, amount, len(users)) / total
            scores += part * of_user
    low, high = t_interval(value, scores, level)
    return Estimate(value, low, high, level, len(users), method)


def logit_shift(p: Floats, weight: Floats, ratio: float) -> float | None:
    """Logits x with sum w sigma(logit p + x) = ratio * sum w p; None where no shift does it."""
    target = ratio * float(weight @ p)
    if not 0 < target < float(weight.sum()):
        return None
    logit = np.log(p) - np.log1p(-p)

    def excess(x: float) -> float:
        return float(weight @ (1 / (1 + np.exp(-(logit + x))))) - target

    low, high = -LARGEST_SHIFT, LARGEST_SHIFT
    if excess(low) > 0 or excess(high) < 0:
        return None
    for _ in range(60):  # halving 60 logits sixty times leaves 5e-17
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) < 0 else (low, middle)
    return (low + high) / 2


def corrected(
    simulated: Estimate, picks: Picks, at_shift: float, at_low: float | None, at_high: float | None
) -> Estimate:
    """The value for users like the held-out ones, from flights with the agent's appeal logit shifted.

    Half-width: root of the squares of the picks part (half the distance between the flights at the two limits of O/E)
    and of the simulated half-width.

    Args:
        simulated: the uncorrected value with its interval over judge worlds.
        picks: the picks check that gave the shifts.
        at_shift: value flown with `picks.shift`.
        at_low: value flown with `picks.shift_low`.
        at_high: value flown with `picks.shift_high`.
    """
    label = f", {picks.given}" if picks.given else ""
    label += ": printed, decides no gate" if picks.given in UNLOGGED_CHOICE else ""
    method = (
        f"flight with the appeal logit shifted until the picks' O/E is 1; scope: users like the held-out ones{label}"
    )
    n, level = picks.estimate.n, simulated.level
    why = picks.estimate.withheld or simulated.withheld
    if why is None and (at_low is None or at_high is None):
        limits = f"O/E [{picks.estimate.low:.3g}, {picks.estimate.high:.3g}]"
        why = f"picks: no appeal reaches a limit of {limits}; more held-out users would narrow it"
    if why is None and (simulated.low is None or simulated.high is None):
        why = "picks: the simulated value has no interval to add to"
    if why is not None:
        return Estimate.withhold(method, why, n=n, level=level)
    assert simulated.low is not None
    assert simulated.high is not None
    assert at_low is not None
    assert at_high is not None
    half = math.hypot(abs(at_high - at_low) / 2, (simulated.high - simulated.low) / 2)
    details = {"picks": picks.estimate.value, "shift": picks.shift, "simulated": simulated.value}
    return Estimate(at_shift, at_shift - half, at_shift + half, level, n, method, diagnostics=details)


@dataclass(frozen=True, slots=True)
class ShiftedFlights:
    """Values of one metric flown with the three shifts of an agent's picks; None where a limit has no shift."""

    at_shift: float
    at_low: float | None
    at_high: float | None


def corrected_difference(
    simulated: Estimate, first: Picks, second: Picks, flown: ShiftedFlights, against: ShiftedFlights
) -> Estimate:
    """Difference of two corrected values: both picks parts and the half-width of the simulated difference in squares.

    Args:
        simulated: the uncorrected paired difference.
        first: picks of the agent.
        second: picks of the one that it is compared with.
        flown: the agent's shifted flights.
        against: those of the other.
    """
    no_spread = replace(simulated, low=simulated.value, high=simulated.value)
    one = corrected(no_spread, first, flown.at_shift, flown.at_low, flown.at_high)
    two = corrected(no_spread, second, against.at_shift, against.at_low, against.at_high)
    method = "difference of two corrected values; scope: users like the held-out ones"
    why = one.withheld or two.withheld
    if why is not None or simulated.low is None or simulated.high is None:
        return Estimate.withhold(
            method, why or "picks: the simulated difference has no interval", level=simulated.level
        )
    halves = [((part.high or 0.0) - (part.low or 0.0)) / 2 for part in (one, two, simulated)]
    value, half = flown.at_shift - against.at_shift, math.hypot(*halves)
    return Estimate(value, value - half, value + half, simulated.level, min(one.n, two.n), method)
