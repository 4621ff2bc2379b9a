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
from simulator.behaviour.leaving import SESSION_GAP, in_slates, logged_gaps, session_numbers
from simulator.log import InteractionLog, Split

if TYPE_CHECKING:
    from simulator.users import SimulatedUsers
    from simulator.world import World

BURST_SHARE = 0.2
"""Share of zero gaps within users above which time stamps are bursts of entry, not of viewing (ml-100k: .51)."""
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
    gaps = gaps_within_users(log)
    if not len(gaps):
        return f"no user has two {'rows' if log.impression is None else 'slates'}"
    zero = float((gaps == 0).mean())
    if zero > BURST_SHARE:
        return f"not identifiable: {zero:.0%} of the gaps within users are 0 s: bursts of entry, not viewing"
    return None


def gaps_within_users(log: InteractionLog) -> Floats:
    """Seconds between rows that follow one another of one user; between slates where the log says what stood on one."""
    rows = np.arange(len(log))
    if log.impression is not None:
        rows = in_slates(log, rows)
        rows = rows[np.diff(log.impression[rows], prepend=-1) != 0]
    return np.diff(log.time[rows])[np.diff(log.user[rows]) == 0]


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
    """Sessions of the log, and as many that the world flies: feature -> both, or why not.

    `length`: slates. `diversity`: chance that two clicks of a session differ in category, of sessions with two clicks
    at least on the logged session's own slates; it does not grow with the number of clicks. Both of the sessions that
    reach into unseen rows. `gap`: days until the user's next session, cut on both sides where the log ends or the
    world's users count as gone; of all sessions.

    A simulated session is shown the slates of the logged one, and when it outlasts it, slates drawn from all of these
    sessions: so what is shown is the log's own, and how long users stay is the simulator's. Items met in an earlier
    session may be shown again, as the log does. What a session shows a second time is left out of both sides, as the
    simulator shows nothing twice in a session; a slate of nothing else is none. Both sides are cut at the world's
    horizon.

    The session in which a user's late rows begin is taken whole. Counted back from a user's end until so many rows are
    covered, sessions are as long as any (Wald, 1944); without that one, which is rather a long one, they would be too
    short. No fit of leaving has seen its end. A session that may go on after the log's end is left out.

    Gaps are of all sessions, since to be among a user's last rows is to be followed by few: gaps after late rows are
    longer than gaps. No fit of gaps has read these users' rows.

    Args:
        world: a judge world.
        log: the interaction log.
        split: which rows are late.
        users: whose sessions are read, of none of whom gaps were fitted; those from whom no session of the world starts
            are left out.
        rng: draws the slates behind a session's end.
        seed: of the users' luck.
    """

    def none(why: str) -> dict[str, Pair | str]:
        return dict.fromkeys(FLOWN_FEATURES, why)

    why = why_no_sessions(log)
    if why is not None:
        return none(why)
    if log.impression is None:
        return none("the log does not say which rows were shown together (data.columns.impression)")
    keep = np.zeros(log.catalogue.n_users, bool)
    keep[np.intersect1d(users, world.starts.user)] = True
    rows = in_slates(log, np.flatnonzero(keep[log.user]))
    session = session_numbers(log, rows)
    reaches = np.bincount(session, split.late[rows]) > 0
    if log.session is None:
        last = np.flatnonzero(np.r_[session[1:] != session[:-1], True])
        reaches &= log.time.max() - log.time[rows][last] > SESSION_GAP
    _, new = np.unique(session * log.catalogue.n_items + log.item[rows], return_index=True)
    new.sort()
    logged = _LoggedSlates.of_rows(log, rows[new], session[new])
    late = evenly(np.flatnonzero(reaches), MOST_FLOWN)
    n_users = len(np.unique(log.user[rows][np.isin(session, late)]))
    if n_users < FEWEST_USERS:
        return none(f"{len(late)} sessions of {n_users} users reach into unseen rows; needs {FEWEST_USERS} users")
    flight = _fly(world, logged, late, rng, seed)
    lasted = np.minimum(flight.logged, world.horizon).astype(np.float64)
    return {
        "length": (SessionTable(flight.user, {"length": lasted}), SessionTable(flight.user, {"length": flight.steps})),
        "gap": _gaps(world, log, rows, logged, rng, seed),
        "diversity": _diversities(log, flight.user, logged.clicked(late, world.horizon), flight.clicked),
    }


@dataclass(frozen=True, slots=True)
class _LoggedSlates:
    """Rows of the log as s slates of sessions, in the order of users, then time.

    Attributes:
        session: [s] number of the slate's session; user: [s] whose.
        begins: [s + 1] slate k is rows `begins[k]:begins[k + 1]` of item [n] and click [n].
    """

    session: Ints
    user: Ints
    begins: Ints
    item: Ints
    click: Floats

    @classmethod
    def of_rows(cls, log: InteractionLog, rows: Ints, session: Ints) -> _LoggedSlates:
        assert log.impression is not None
        impression = log.impression[rows]
        first = np.flatnonzero(np.r_[True, (impression[1:] != impression[:-1]) | (session[1:] != session[:-1])])
        click = log.primary[rows].astype(np.float64)
        return cls(session[first], log.user[rows][first], np.r_[first, len(rows)], log.item[rows], click)

    def clicked(self, chosen: Ints, horizon: int) -> tuple[Ints, Ints]:
        """What was clicked in the first slates of each chosen session: its place among the chosen, and the item."""
        slate = np.repeat(np.arange(len(self.session)), np.diff(self.begins))
        number = slate - np.searchsorted(self.session, self.session[slate])  # of the slate within its session
        there = np.flatnonzero((self.click > 0) & np.isin(self.session[slate], chosen) & (number < horizon))
        return np.searchsorted(chosen, self.session[slate[there]]), self.item[there]


@dataclass(frozen=True, slots=True)
class _Flight:
    """m sessions flown in place of logged ones.

    Attributes:
        user: [m]; logged: [m] slates of the logged session; steps: [m] of the flown one.
        clicked: session and item of each click on the logged session's own slates.
        users: the simulated users after their sessions.
    """

    user: Ints
    logged: Ints
    steps: Floats
    clicked: tuple[Ints, Ints]
    users: SimulatedUsers


def evenly(there: Ints, most: int) -> Ints:
    """`most` of these, or all where they are fewer, evenly from all."""
    return there[np.linspace(0, len(there) - 1, min(len(there), most)).astype(np.int64)]


def _fly(world: World, logged: _LoggedSlates, chosen: Ints, rng: np.random.Generator, seed: int) -> _Flight:
    """Fly the chosen sessions' slates past their users."""
    from simulator.users import SimulatedUsers

    ours = np.flatnonzero(np.isin(logged.session, chosen))  # slates
    begin, size = logged.begins[ours], np.diff(logged.begins)[ours]
    width = int(size.max())
    # Places behind a slate's end repeat its first item, which leaves them empty.
    place = np.arange(width)[None, :]
    slates = logged.item[begin[:, None] + np.where(place < size[:, None], place, 0)]
    length = np.bincount(np.searchsorted(chosen, logged.session[ours]))
    first = np.cumsum(length) - length
    user = logged.user[ours[first]]
    users = SimulatedUsers(replace(world, shown_again=True), len(chosen), seed=seed, slate_size=width)
    users.start(np.searchsorted(world.starts.user, user), np.arange(len(chosen)))
    steps, active = np.zeros(len(chosen)), np.ones(len(chosen), bool)
    sessions, items = [], []
    for at in range(world.horizon):
        shown = np.where(at < length, first + np.minimum(at, length - 1), rng.integers(len(ours), size=len(chosen)))
        outcome = users.step(slates[shown])
        steps += active
        one, place_of = np.nonzero((outcome.clicks > 0) & (active & (at < length))[:, None])
        sessions.append(one)
        items.append(outcome.shown[one, place_of].astype(np.int64))
        active &= ~outcome.done
        if not active.any():
            break
    return _Flight(user, length, steps, (np.concatenate(sessions), np.concatenate(items)), users)


def _gaps(
    world: World, log: InteractionLog, rows: Ints, logged: _LoggedSlates, rng: np.random.Generator, seed: int
) -> Pair | str:
    """Days after each session that the log goes on behind, logged and as the users who flew it would have it."""
    if not world.returns:
        return "the world's users do not come back (simulator.returning)"
    if not log.has_time:
        return "the log has no time stamps"
    found = logged_gaps(log, rows)
    chosen = evenly(np.flatnonzero(found.left > 0), MOST_FLOWN)
    if len(np.unique(found.user[chosen])) < FEWEST_USERS:
        return f"the log goes on behind sessions of fewer than {FEWEST_USERS} users"
    bound = np.minimum(found.left[chosen], world.value("returning", "window"))
    flown = _fly(world, logged, chosen, rng, seed).users.gap_days()
    real, simulated = (
        SessionTable(found.user[chosen], {"gap": np.minimum(days, bound)}) for days in (found.days[chosen], flown)
    )
    return real, simulated


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
