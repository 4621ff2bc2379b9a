"""Are a world's clicks those of the model that the other checks score, and those of the log?

Calibration and skill score the preference model's predictions. What agents meet is the world that was made of it: its
vectors, biases and start states as the kernel holds them, then examination and choice. Two checks tie the one to the
other. The world's own chance of a click on the scored rows must be the model's, exactly. And on logs that say what was
shown together, the kernel's clicks on the logged slates are held against the log's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from evaluators.estimate import Estimate
from evaluators.fidelity.calibration import observed_over_expected
from evaluators.fidelity.checks import Check, Floats, Ints, judged, not_made
from evaluators.fidelity.prediction import worst_stratum
from evaluators.fidelity.scored_rows import inside
from evaluators.fidelity.sessions import FEWEST_USERS, evenly
from simulator.behaviour.leaving import in_slates
from simulator.log import InteractionLog, Split

if TYPE_CHECKING:
    from simulator.world import World

TOLERANCE = 1e-3
"""Logits by which the world's appeal may differ from the model's: sums of float32 in another order differ by 1e-5."""
_FAR = 20.0
"""Logits beyond which a chance is 0 or 1 for every purpose."""
_APPEALS_AT_ONCE = 1 << 23
FLIGHTS = 8
"""Flights over which clicks on a logged slate are averaged: the flights' own noise is then an eighth of the log's."""
SLATES_AT_ONCE = 5_000
"""Slates that are flown at a time, evenly from all, until clicks are told closely enough or no slate is left."""
MOST_SLATES = 1_000_000
"""Slates that are flown at most."""
CLOSE, CLOSE_BY_PLACE = 0.05, 0.08
"""Half-widths of O/E, as shares of it, at which no more slates are flown: a right world then passes nearly always."""
GROUPS = 3
"""Groups of neighbouring places at most: each must hold some hundred clicks for its O/E to be told."""


def world_against_model(world: World, log: InteractionLog, rows: Ints, p: Floats) -> Check:
    """Is the world's own chance of a click on scored rows, were they looked at, the one that the model predicts?

    The world's is read from what the kernel steps users by, at the start of a session. The model's stands higher by the
    shift that the world declares and by what friends add.

    Args:
        world: a judge world.
        log: the interaction log.
        rows: [n] rows that the model has not seen.
        p: [n] its probability of the primary behaviour.
    """
    name, threshold = "world against model", f"at most {TOLERANCE:g} logits"
    ours = np.isin(log.user[rows], world.starts.user)
    if not ours.any():
        return not_made(name, threshold, "no scored row is of a user from whom a session of the world starts")
    who, item = np.searchsorted(world.starts.user, log.user[rows[ours]]), log.item[rows[ours]]
    declared = world.fitted_shift + world.friends_lift(who, item[:, None])[:, 0]
    wanted = np.clip(logit(inside(p[ours])) + declared, -_FAR, _FAR)
    found = np.clip(_appeal(world, who, item), -_FAR, _FAR)
    apart = np.nan_to_num(np.abs(found - wanted), nan=2 * _FAR)
    worst = round(float(apart.max()), 6)
    method = f"largest difference of the world's appeal from the model's logit, {len(item)} rows"
    estimate = Estimate(worst, worst, worst, 1.0, len(np.unique(who)), method)
    if worst <= TOLERANCE:
        return Check(name, estimate, threshold, "pass")
    at = int(np.argmax(apart))
    why = (
        f"the world clicks by another chance than the model's on {int((apart > TOLERANCE).sum())} of {len(item)} rows; "
        f"the largest difference is {worst:.3g} logits, {expit(found[at]):.3g} in place of {expit(wanted[at]):.3g}"
    )
    return Check(name, estimate, threshold, "fail", why)


def _appeal(world: World, who: Ints, item: Ints) -> Floats:
    """[n] logit of a click of start user `who` on an item at the start of a session, out of the kernel's own arrays."""
    from simulator.users import SimulatedUsers

    met, of_row = np.unique(who, return_inverse=True)
    lanes = min(len(met), max(1, _APPEALS_AT_ONCE // world.n_items))
    users = SimulatedUsers(world, lanes, seed=0)
    out = np.empty(len(item))
    for first in range(0, len(met), lanes):
        part = met[first : first + lanes]
        users.start(np.resize(part, lanes))
        rows = np.flatnonzero((of_row >= first) & (of_row < first + len(part)))
        out[rows] = users.appeal()[of_row[rows] - first, item[rows]]
    return out


@dataclass(frozen=True, slots=True)
class FlownClicks:
    """n places of logged slates, flown again.

    Attributes:
        observed: [n] 1.0 where the log has a click, else 0.0.
        expected: [n] clicks of the world's users there, mean over the flights.
        user: [n] the cluster.
        place: [n] place on the slate from 0, or None where the log does not say.
        capped: whether the log has more slates than are flown at most, and these did not tell clicks closely enough.
    """

    observed: Floats
    expected: Floats
    user: Ints
    place: Ints | None
    capped: bool = False


def fly_logged_slates(world: World, log: InteractionLog, split: Split, users: Ints, *, seed: int) -> FlownClicks | str:
    """Show the users' unseen slates to them again in the world, each at the start of a session; or why not.

    At the start of a session nothing has sated, bored or moved anybody, as in the model's predictions. So what is held
    against the log is appeal, examination and choice: all that the world fits of clicks.

    Slates are those whose rows are all late, as many as it takes to tell clicks as closely as the checks need. What
    stands below the world's own last place is left out: how it is looked at the world does not know. An item that
    stands twice on a slate is left out where it stands second, as the simulator shows it once.

    Args:
        world: a judge world.
        log: the interaction log.
        split: which rows are late.
        users: whose slates are read; those from whom no session of the world starts are left out.
        seed: of the users' luck.
    """
    from simulator.users import SimulatedUsers

    if log.impression is None:
        return "the log does not say which rows were shown together (data.columns.impression)"
    keep = np.zeros(log.catalogue.n_users, bool)
    keep[np.intersect1d(users, world.starts.user)] = True
    rows = in_slates(log, np.flatnonzero(keep[log.user]))
    begins = np.flatnonzero(np.diff(log.impression[rows], prepend=-1) != 0)
    whole = np.logical_and.reduceat(split.late[rows], begins) if len(rows) else np.zeros(0, bool)
    chosen = np.flatnonzero(whole)
    capped = len(chosen) > MOST_SLATES
    chosen = evenly(chosen, MOST_SLATES)
    user = log.user[rows[begins[chosen]]]
    if len(np.unique(user)) < FEWEST_USERS:
        return (
            f"{len(np.unique(user))} users have a slate of which no row was seen in a fit; needs {FEWEST_USERS} users"
        )
    size = np.diff(np.append(begins, len(rows)))[chosen]
    slate, within = _within(size)  # [m] of each row of these slates
    rows = rows[np.repeat(begins[chosen], size) + within]
    place = within if log.position is None else log.position[rows]
    if log.position is None and not world.looks_at_all(int(size.max())):
        return (
            "the log does not say at which place an item stood (data.columns.position), and the world's users look at "
            "some places more than at others"
        )
    width = int(place.max()) + 1
    if world.own is None and width > world.slate_size and not world.looks_at_all(width):
        if world.choice != "independent":
            return f"items compete on {width} places of the log's slates, and the world knows {world.slate_size}"
        width = world.slate_size
    kept = place < width
    slate, place, rows = slate[kept], place[kept], rows[kept]
    begin, start = np.searchsorted(slate, np.arange(len(chosen) + 1)), np.searchsorted(world.starts.user, user)
    # What the log showed may be shown, whatever the user met before and whenever the item is to arrive.
    open_world = replace(world, shown_again=True, entry=None, entry_session=None)
    parts = -(-len(chosen) // SLATES_AT_ONCE)
    lanes = -(-len(chosen) // parts)
    simulated = SimulatedUsers(open_world, lanes, seed=seed, slate_size=width)
    found: list[FlownClicks] = []
    for part in range(parts):
        number = np.arange(part, len(chosen), parts)  # evenly from all
        lane, at = _within(np.diff(begin)[number])
        row = begin[number][lane] + at
        items, logged = np.full((lanes, width), -1), np.zeros((lanes, width))
        items[lane, place[row]], logged[lane, place[row]] = log.item[rows[row]], log.primary[rows[row]]
        clicks = np.zeros((lanes, width))
        resident, session = np.resize(start[number], lanes), np.resize(number, lanes)
        for flight in range(FLIGHTS):
            simulated.start(resident, session + flight * len(chosen))
            clicks += simulated.step(items).clicks
        of, at = np.nonzero(simulated.outcome.shown >= 0)
        found.append(FlownClicks(logged[of, at], clicks[of, at] / FLIGHTS, user[number[of]], at))
        if part + 1 < parts and part & (part + 1):
            continue  # looked at after one part, two, four and so on: neither often nor long
        together = _joined(found, placed=log.position is not None)
        if _told_closely(together):
            return together
    return replace(together, capped=capped)


def _within(size: Ints) -> tuple[Ints, Ints]:
    """Of each row of parts of these sizes: [m] the part, and [m] its place within it."""
    part = np.repeat(np.arange(len(size)), size)
    return part, np.arange(len(part)) - np.repeat(np.cumsum(size) - size, size)


def _joined(parts: list[FlownClicks], *, placed: bool) -> FlownClicks:
    place = np.concatenate([np.asarray(part.place) for part in parts]) if placed else None
    observed, expected, user = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("observed", "expected", "user")
    )
    return FlownClicks(observed, expected, user, place)


def _told_closely(found: FlownClicks) -> bool:
    """Whether O/E of all, and of each group of places, is told so closely that no more slates are flown."""

    def close(value: float | None, low: float | None, high: float | None, enough: float) -> bool:
        return bool(value and low is not None and high is not None and high - low <= 2 * enough * value)

    overall, *by_place = (check.estimate for check in flown_click_checks(found))
    groups = [one for estimate in by_place for one in estimate.diagnostics.get("strata", ())]
    return close(overall.value, overall.low, overall.high, CLOSE) and all(
        close(one.get("value"), one.get("low"), one.get("high"), CLOSE_BY_PLACE) for one in groups
    )


def flown_click_checks(found: FlownClicks | str, *, level: float = 0.95) -> tuple[Check, ...]:
    """O/E of the log's clicks to those flown on its slates, [0.85, 1.15], and by place, each [0.8, 1.25].

    Neighbouring places are taken together, so that there are three groups at most with about as many clicks each: few
    are clicked far down, and a place by itself would tell nothing.
    """
    name, threshold = "flown clicks", "[0.85, 1.15]"
    if isinstance(found, str):
        return (not_made(name, threshold, found),)
    method = "O/E of the log's clicks to those flown on its slates"
    estimate = observed_over_expected(found.expected, found.observed, found.user, level=level, method=method)
    overall = _unless_capped(judged(name, estimate, threshold, above=0.85, below=1.15), found)
    name, threshold = "flown clicks by place", "each [0.8, 1.25]"
    if found.place is None:
        why = "the log does not say at which place an item stood (data.columns.position)"
        return overall, not_made(name, threshold, why)
    by_place = worst_stratum(
        name, _groups(found.place, found.expected), found.expected, found.observed, found.user, level=level
    )
    return overall, _unless_capped(by_place, found)


def _unless_capped(check: Check, found: FlownClicks) -> Check:
    """The check; not made where it is undecided although as many slates were flown as are at most."""
    if check.verdict != "undecided" or not found.capped:
        return check
    shown = f"{check.estimate.value:.3g} [{check.estimate.low:.3g}, {check.estimate.high:.3g}]"
    why = f"{MOST_SLATES:,} slates are flown at most, and they do not tell it: {shown} straddles {check.threshold}"
    return not_made(check.name, check.threshold, why)


def _groups(place: Ints, expected: Floats) -> dict[str, NDArray[np.bool_]]:
    """Neighbouring places -> which rows are theirs."""
    clicks = np.bincount(place, expected)
    middle = (np.cumsum(clicks) - clicks / 2) / max(float(clicks.sum()), 1e-12)
    group = np.minimum((GROUPS * middle).astype(np.int64), GROUPS - 1)
    out = {}
    for one in np.unique(group):
        first, last = np.flatnonzero(group == one)[[0, -1]]
        out[f"place {first}" if first == last else f"places {first} to {last}"] = group[place] == one
    return out
