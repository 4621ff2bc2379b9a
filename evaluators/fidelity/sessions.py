"""Are simulated sessions like those of the log: in length, clicks, gaps, and what is clicked together?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from evaluators.estimate import Estimate
from evaluators.fidelity.checks import Check, Floats, Ints, judged, not_made
from evaluators.intervals import recentred_interval
from simulator.log import InteractionLog, Split

if TYPE_CHECKING:
    from simulator.users import SimulatedUsers
    from simulator.world import World

BURST_SHARE = 0.2
"""Share of zero gaps within users above which time stamps are bursts of entry, not of viewing (ml-100k: .51)."""
SESSION_GAP_SECONDS = 1800.0
DAY = 86_400.0
FEWEST_USERS, MOST_FLOWN = 30, 5000
"""Users with a whole unseen session under whom nothing is flown, and sessions that are flown at most."""
FLOWN_FEATURES = ("length", "gap", "diversity")
Pair = tuple["SessionTable", "SessionTable"]
"""Sessions of the log, and of the simulator for the same users."""


@dataclass(frozen=True, slots=True)
class SessionTable:
    """n sessions as features, one row a session.

    Attributes:
        user: [n] the cluster.
        features: name -> [n], e.g. length, clicks, gap (to the next session), diversity.
        given: name -> [n] what was not simulated and is the same on both sides; a classifier may use it.
    """

    user: Ints
    features: Mapping[str, Floats]
    given: Mapping[str, Floats] = field(default_factory=dict)


def why_no_sessions(log: InteractionLog) -> str | None:
    """Why sessions cannot be read off the log, or None where they are logged or can be told by its times."""
    if log.session is not None:
        return None
    if not log.has_time:
        return "the log has no time stamps"
    same = log.user[1:] == log.user[:-1]
    gaps = np.diff(log.time)[same]
    if not len(gaps):
        return "no user has two rows"
    zero = float((gaps == 0).mean())
    if zero > BURST_SHARE:
        return f"not identifiable: {zero:.0%} of the gaps within users are 0 s: bursts of entry, not viewing"
    return None


def session_numbers(log: InteractionLog, rows: Ints, *, gap_seconds: float = SESSION_GAP_SECONDS) -> Ints:
    """[n] session of each of the given rows (sorted), from 0: as logged, else cut where a gap is too long."""
    user = log.user[rows]
    new = np.r_[True, user[1:] != user[:-1]]
    if log.session is not None:
        new |= np.r_[True, log.session[rows][1:] != log.session[rows][:-1]]
    else:
        new |= np.r_[0.0, np.diff(log.time[rows])] > gap_seconds
    return np.cumsum(new) - 1


def replayed_sessions(
    log: InteractionLog, rows: Ints, p: Floats, rng: np.random.Generator
) -> tuple[SessionTable, SessionTable] | None:
    """Sessions of scored rows as they were, and as the model answers to the same rows; None without sessions.

    What was shown is given, so its length is no feature: clicks, and the longest run of rows without one, are the
    simulator's own. They find what calibration of single rows cannot: answers of one session that hang together.

    Args:
        log: the interaction log.
        rows: [n] rows that the model has not seen, sorted.
        p: [n] its probability of the primary behaviour.
        rng: draws the answers.
    """
    if why_no_sessions(log) is not None or not len(rows):
        return None
    session = session_numbers(log, rows)
    first = np.flatnonzero(np.r_[True, session[1:] != session[:-1]])

    def table(y: Floats) -> SessionTable:
        clicks: Floats = np.bincount(session, y).astype(np.float64, copy=False)
        features = {"clicks": clicks, "longest wait": _longest_wait(y, session)}
        given = {"length": np.bincount(session).astype(np.float64)}
        return SessionTable(log.user[rows][first], features, given)

    drawn = (rng.random(len(rows)) < p).astype(np.float64)
    return table(log.primary[rows].astype(np.float64)), table(drawn)


def flown_sessions(
    world: World, log: InteractionLog, split: Split, users: Ints, rng: np.random.Generator, *, seed: int
) -> dict[str, Pair | str]:
    """The sessions that reach into unseen rows, and as many that the world flies: feature -> both, or why not.

    `length`: slates. `gap`: days until the user's next session, cut on both sides where the log ends or the world's
    users count as gone. `diversity`: chance that two clicks of a session differ in category, of sessions with two
    clicks at least on the logged session's own slates; it does not grow with the number of clicks.

    A simulated session is shown the slates of the logged one, and when it outlasts it, slates drawn from all of these
    sessions: so what is shown is the log's own, and how long users stay is the simulator's. Items met before may be
    shown again, as the log does. Both sides are cut at the world's horizon.

    The session in which a user's late rows begin is taken whole. Counted back from a user's end until so many rows are
    covered, sessions are as long as any (Wald, 1944); without that one, which is rather a long one, they would be too
    short. No fit of leaving has seen its end. A session that may go on after the log's end is left out.

    Args:
        world: a judge world.
        log: the interaction log.
        split: which rows are late.
        users: whose late rows are read; those from whom no session of the world starts are left out.
        rng: draws the slates behind a session's end.
        seed: of the users' luck.
    """
    from simulator.users import SimulatedUsers

    def none(why: str) -> dict[str, Pair | str]:
        return dict.fromkeys(FLOWN_FEATURES, why)

    why = why_no_sessions(log)
    if why is not None:
        return none(why)
    if log.impression is None:
        return none("the log does not say which rows were shown together (data.columns.impression)")
    keep = np.zeros(log.catalogue.n_users, bool)
    keep[np.intersect1d(users, world.starts.user)] = True
    rows = np.flatnonzero(keep[log.user])
    session = session_numbers(log, rows)
    impression = log.impression[rows]
    begins = np.flatnonzero(np.r_[True, (impression[1:] != impression[:-1]) | (session[1:] != session[:-1])])
    size = np.diff(np.r_[begins, len(rows)])
    reaches = np.bincount(session, split.late[rows]) > 0
    if log.session is None:
        last = np.flatnonzero(np.r_[session[1:] != session[:-1], True])
        reaches &= log.time.max() - log.time[rows][last] > SESSION_GAP_SECONDS
    there = np.flatnonzero(reaches)  # in the order of users
    chosen = there[np.linspace(0, len(there) - 1, min(len(there), MOST_FLOWN)).astype(np.int64)]  # evenly from all
    n_users = len(np.unique(log.user[rows][np.isin(session, chosen)]))
    if n_users < FEWEST_USERS:
        return none(f"{len(chosen)} sessions of {n_users} users reach into unseen rows; needs {FEWEST_USERS} users")
    ours = np.flatnonzero(np.isin(session[begins], chosen))  # slates
    width = int(size[ours].max())
    # Places behind a slate's end repeat its first item, which leaves them empty.
    place = np.arange(width)[None, :]
    slates = log.item[rows][begins[ours, None] + np.where(place < size[ours, None], place, 0)]
    of = np.searchsorted(chosen, session[begins[ours]])
    length = np.bincount(of)
    first = np.cumsum(length) - length
    user = log.user[rows][begins[ours[first]]]
    world = replace(world, shown_again=True)
    flown = SimulatedUsers(world, len(chosen), seed=seed, slate_size=width)
    flown.start(np.searchsorted(world.starts.user, user), np.arange(len(chosen)))
    steps, active = np.zeros(len(chosen)), np.ones(len(chosen), bool)
    clicked: list[tuple[Ints, Ints]] = []
    for at in range(world.horizon):
        shown = np.where(at < length, first + np.minimum(at, length - 1), rng.integers(len(ours), size=len(chosen)))
        outcome = flown.step(slates[shown])
        steps += active
        one, place_of = np.nonzero((outcome.clicks > 0) & (active & (at < length))[:, None])
        clicked.append((one, outcome.shown[one, place_of].astype(np.int64)))
        active &= ~outcome.done
        if not active.any():
            break
    lasted = np.minimum(length, world.horizon).astype(np.float64)
    return {
        "length": (SessionTable(user, {"length": lasted}), SessionTable(user, {"length": steps})),
        "gap": _gaps(world, flown, log, rows, session, chosen),
        "diversity": _diversities(
            log, user, _clicked_in(log, rows, session, begins, chosen, world.horizon), _joined(clicked)
        ),
    }


def _joined(parts: list[tuple[Ints, Ints]]) -> tuple[Ints, Ints]:
    one, item = zip(*parts, strict=True)
    return np.concatenate(one), np.concatenate(item)


def _gaps(
    world: World, flown: SimulatedUsers, log: InteractionLog, rows: Ints, session: Ints, chosen: Ints
) -> Pair | str:
    """Days after each of the chosen sessions, logged and as the users who flew them would have it."""
    if not world.returns:
        return "the world's users do not come back (simulator.returning)"
    if not log.has_time:
        return "the log has no time stamps"
    first = np.flatnonzero(np.r_[True, session[1:] != session[:-1]])
    last = np.r_[first[1:], len(rows)] - 1
    user, begin, end = log.user[rows][first], log.time[rows][first], log.time[rows][last]
    following = np.r_[np.where(user[1:] == user[:-1], begin[1:], np.inf), np.inf][chosen]
    bound = np.minimum((log.time.max() - end[chosen]) / DAY, world.value("returning", "window"))
    there = bound > 0
    if len(np.unique(user[chosen][there])) < FEWEST_USERS:
        return f"after the flown sessions the log goes on for fewer than {FEWEST_USERS} users"
    real, simulated = (
        SessionTable(user[chosen][there], {"gap": np.minimum(days, bound)[there]})
        for days in ((following - end[chosen]) / DAY, flown.gap_days())
    )
    return real, simulated


def _clicked_in(
    log: InteractionLog, rows: Ints, session: Ints, begins: Ints, chosen: Ints, horizon: int
) -> tuple[Ints, Ints]:
    """What was clicked in the first slates of each chosen session: its place among the chosen, and the item."""
    slate = np.repeat(np.arange(len(begins)), np.diff(np.r_[begins, len(rows)]))
    number = slate - np.searchsorted(session[begins], session)  # of the slate within its session
    there = np.flatnonzero((log.primary[rows] > 0) & np.isin(session, chosen) & (number < horizon))
    return np.searchsorted(chosen, session[there]), log.item[rows][there]


def _diversities(log: InteractionLog, user: Ints, logged: tuple[Ints, Ints], flown: tuple[Ints, Ints]) -> Pair | str:
    """Mean distance of two clicks of a session, one less the cosine of their categories."""
    categories = log.catalogue.item_categories.astype(np.float64)
    size = np.linalg.norm(categories, axis=1)
    if not size.any():
        return "the items have no categories (data.item_categories)"
    unit = categories / np.where(size > 0, size, 1)[:, None]
    tables = []
    for of, item in (logged, flown):
        known = size[item] > 0
        count = np.bincount(of[known], minlength=len(user)).astype(np.float64)
        total = np.zeros((len(user), unit.shape[1]))
        np.add.at(total, of[known], unit[item[known]])
        two = count >= 2
        alike = ((total**2).sum(1)[two] - count[two]) / (count[two] * (count[two] - 1))
        tables.append(SessionTable(user[two], {"diversity": 1 - alike}))
    fewest = min(len(np.unique(table.user)) for table in tables)
    if fewest < FEWEST_USERS:
        return f"{fewest} users have a session with two clicks on items with categories; needs {FEWEST_USERS}"
    return tables[0], tables[1]


def _longest_wait(y: Floats, session: Ints) -> Floats:
    """Rows in the longest run without a click, by session."""
    at = np.arange(len(y))
    start = np.r_[True, session[1:] != session[:-1]]
    # The last row before this one that held a click, or the row before the session.
    barrier = np.maximum.accumulate(np.where(y > 0, at, np.where(start, at - 1, -1)))
    wait = np.zeros(session[-1] + 1)
    np.maximum.at(wait, session, (at - barrier).astype(np.float64))
    return wait


def session_checks(
    real: SessionTable | None,
    simulated: SessionTable | None,
    rng: np.random.Generator,
    *,
    why: str | None = None,
    permutations: int = 200,
    level: float = 0.95,
) -> tuple[Check, ...]:
    """Wasserstein distance of session features, less its mean under permuted labels of whole users, upper <= .15.

    Args:
        real: sessions of the log, or None where it has none.
        simulated: sessions of the simulator for users like these.
        rng: draws permutations and resamples.
        why: the reason when either is None.
        permutations: label permutations, and bootstrap resamples.
        level: level of the user-bootstrap interval.
    """
    threshold = "upper <= 0.15"
    if real is None or simulated is None:
        return (not_made("sessions", threshold, why or "the log has no sessions"),)
    checks = []
    for feature in sorted(set(real.features) & set(simulated.features)):
        estimate = _excess_distance(
            real.features[feature],
            real.user,
            simulated.features[feature],
            simulated.user,
            rng,
            permutations,
            level,
            method=f"W1 distance of session {feature} / mean, less its mean under permuted users, user bootstrap",
        )
        checks.append(judged(f"sessions: {feature}", estimate, threshold, below=0.15))
    return tuple(checks)


def _excess_distance(
    x: Floats, x_user: Ints, z: Floats, z_user: Ints, rng: np.random.Generator, draws: int, level: float, *, method: str
) -> Estimate:
    values = np.r_[x, z]
    scale = float(np.mean(x))
    if scale == 0:
        return Estimate.withhold(method, "the log's mean is 0: a relative distance is not defined", level=level)
    order = np.argsort(values, kind="stable")
    sorted_values = values[order]
    width = np.diff(sorted_values)
    # A whole user of either side is one unit: labels and resamples move units, never rows.
    _, unit = np.unique(np.r_[x_user.astype(np.int64) * 2, z_user.astype(np.int64) * 2 + 1], return_inverse=True)
    is_real_row = np.r_[np.ones(len(x), bool), np.zeros(len(z), bool)]
    n_units = int(unit.max()) + 1
    unit_real = np.zeros(n_units, bool)
    unit_real[unit[is_real_row]] = True
    unit_sorted = unit[order]

    def distance(weight_real: Floats, weight_sim: Floats) -> float:
        a, b = np.cumsum(weight_real[unit_sorted]), np.cumsum(weight_sim[unit_sorted])
        if a[-1] == 0 or b[-1] == 0:
            return math.nan
        return float((np.abs(a[:-1] / a[-1] - b[:-1] / b[-1]) * width).sum() / scale)

    observed = distance(unit_real.astype(float), (~unit_real).astype(float))
    permuted = []
    for _ in range(draws):
        label = rng.permutation(unit_real)
        permuted.append(distance(label.astype(float), (~label).astype(float)))
    n_real = int(unit_real.sum())
    resampled = []
    for _ in range(draws):
        weight = np.zeros(n_units)
        weight[unit_real] = rng.multinomial(n_real, np.full(n_real, 1 / n_real))
        weight[~unit_real] = rng.multinomial(n_units - n_real, np.full(n_units - n_real, 1 / (n_units - n_real)))
        resampled.append(distance(weight * unit_real, weight * ~unit_real))
    excess = observed - float(np.nanmean(permuted))
    low, high = recentred_interval(excess, np.array(resampled), level)
    return Estimate(excess, low, high, level, n_real, method, diagnostics={"distance": observed})
