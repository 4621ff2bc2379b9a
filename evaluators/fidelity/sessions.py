"""Are simulated sessions like those of the log: in length, clicks, gaps?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from evaluators.estimate import Estimate
from evaluators.fidelity.checks import Check, Floats, Ints, judged, not_made
from evaluators.intervals import recentred_interval
from simulator.log import InteractionLog

BURST_SHARE = 0.2
"""Share of zero gaps within users above which time stamps are bursts of entry, not of viewing (ml-100k: .51)."""
SESSION_GAP_SECONDS = 1800.0


@dataclass(frozen=True, slots=True)
class SessionTable:
    """n sessions as features, one row a session.

    Attributes:
        user: [n] the cluster.
        features: name -> [n], e.g. length, clicks, gap (seconds to the next session), diversity.
    """

    user: Ints
    features: Mapping[str, Floats]


def why_no_sessions(log: InteractionLog) -> str | None:
    """Why sessions cannot be read off the log's times, or None where they can."""
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


def log_sessions(log: InteractionLog, users: Ints, *, gap_seconds: float = SESSION_GAP_SECONDS) -> SessionTable:
    """Sessions of these users, cut where a gap exceeds `gap_seconds`: length, clicks, and gap to the next (0: none)."""
    keep = np.zeros(log.catalogue.n_users, bool)
    keep[users] = True
    rows = np.flatnonzero(keep[log.user])
    user, time = log.user[rows], log.time[rows]
    new_user = np.r_[True, user[1:] != user[:-1]]
    step = np.r_[0.0, np.diff(time)]
    new = new_user | (step > gap_seconds)
    session = np.cumsum(new) - 1
    gap = np.zeros(session[-1] + 1 if len(session) else 0)
    later = np.flatnonzero(new & ~new_user)
    gap[session[later] - 1] = step[later]
    features: dict[str, Floats] = {
        "length": np.bincount(session).astype(np.float64),
        "clicks": np.bincount(session, log.primary[rows]).astype(np.float64),
    }
    if gap.any():
        features["gap"] = gap
    return SessionTable(user[new], features)


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
