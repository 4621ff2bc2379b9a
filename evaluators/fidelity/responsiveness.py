"""Does the simulator answer to what it is shown, and the same way twice?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from evaluators.estimate import Estimate
from evaluators.fidelity.checks import Check, Floats, Ints, judged, not_made, ratio_by_user
from evaluators.fidelity.environment import environment_checks
from evaluators.intervals import t_quantile
from simulator.behaviour.leaving import FEWEST_LEAVINGS, clustered_logistic
from simulator.streams import stream_word

if TYPE_CHECKING:
    from simulator.world import World


LEAVING = "responsiveness: leaving, given step and clicks"


def behaviour_checks(world: World, root: np.random.SeedSequence, *, longer_is_better: bool = True) -> tuple[Check, ...]:
    """Responsiveness and determinism of one world, and of its environment what learning rests on."""
    seed = stream_word(root, "fidelity", "behaviour", bits=63)
    return (
        *responsiveness(world, seed=seed, longer_is_better=longer_is_better),
        leaving_given_clicks(world, seed=seed, longer_is_better=longer_is_better),
        determinism(world, seed=seed),
        *environment_checks(world, seed=seed),
    )


@dataclass(frozen=True, slots=True)
class SlateFlight:
    """Sessions flown with slates chosen from the world's own appeal: clicks [n] and slates shown [n] of each user."""

    user: Ints
    clicks: Floats
    length: Floats


def fly_by_appeal(
    world: World, choice: Literal["best", "worst", "shuffled"], *, seed: int, rows: Ints, slate_size: int, horizon: int
) -> SlateFlight:
    """Fly one session for each start with the world's best, worst, or best but shuffled slate; noise depends on `seed`.

    Two flights with one seed share every draw, so that a difference is the slate's doing.
    """
    from simulator.users import SimulatedUsers

    n = len(rows)
    users = SimulatedUsers(world, n, seed=seed)
    users.start(rows)
    clicks, length = np.zeros(n), np.zeros(n)
    active = np.ones(n, bool)
    rng = np.random.default_rng(seed)
    for _ in range(horizon):
        slate = _slate_by_appeal(users.appeal(), users.candidates(), choice, slate_size, rng)
        outcome = users.step(slate)
        length += active
        clicks += np.where(active, outcome.clicks.sum(1), 0)
        active &= ~outcome.done
        if not active.any():
            break
    return SlateFlight(np.asarray(world.starts.user)[rows], clicks, length)


def _slate_by_appeal(
    appeal: NDArray[np.float32], candidates: NDArray[np.bool_] | None, choice: str, k: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    sign = 1.0 if choice == "worst" else -1.0
    key = sign * appeal.astype(np.float64)
    if candidates is not None:
        key = np.where(candidates, key, np.inf)
    part = np.argpartition(key, k - 1, axis=1)[:, :k]
    order = np.argsort(np.take_along_axis(key, part, 1), axis=1, kind="stable")
    slate = np.take_along_axis(part, order, 1)
    return rng.permuted(slate, axis=1) if choice == "shuffled" else slate


def responsiveness(
    world: World, *, seed: int, n_users: int = 1000, longer_is_better: bool = True, level: float = 0.95
) -> tuple[Check, ...]:
    """Does what is shown change what users do? Best against worst slates under common noise, paired by user.

    Clicks must differ by more than 5 % of their mean. Session length is a check only where the leave effect is
    *fitted* and its interval excludes 0; an assumed effect is printed and not counted; an effect that is declared
    (not 0) and changes no session at all fails by identity: a leave model that ignores the policy.

    Args:
        world: a judge world.
        seed: seed of the noise, shared by the flights.
        n_users: users flown at most; under common noise 500 find a 5 % change of the leave hazard.
        longer_is_better: the sign of a better slate's effect on session length that the task declares.
        level: of the intervals.
    """
    rows = np.arange(min(n_users, len(world.starts.user)))
    size = {"slate_size": world.slate_size, "horizon": world.horizon}
    best = fly_by_appeal(world, "best", seed=seed, rows=rows, **size)
    worst = fly_by_appeal(world, "worst", seed=seed, rows=rows, **size)
    shuffled = fly_by_appeal(world, "shuffled", seed=seed, rows=rows, **size)
    leave = {a.parameter: a for a in world.assumptions if a.part == "leave"}
    return responsiveness_of(
        best, worst, shuffled, leave.get("satisfaction"), longer_is_better=longer_is_better, level=level
    )


class LeaveEffect(Protocol):
    """The effect of satisfaction on leaving, as `World.assumptions` gives it: value, fitted or assumed, its error."""

    @property
    def value(self) -> Any:
        """Coefficient of satisfaction in the logit of leaving."""
        ...

    @property
    def source(self) -> str:
        """`fitted` or `assumed`."""
        ...

    @property
    def se(self) -> float | None:
        """Standard error, where fitted."""
        ...


def responsiveness_of(
    best: SlateFlight,
    worst: SlateFlight,
    shuffled: SlateFlight,
    leave: LeaveEffect | None,
    *,
    longer_is_better: bool = True,
    level: float = 0.95,
) -> tuple[Check, ...]:
    """The responsiveness checks from three flights under common noise; `leave` is the leave effect, if there is one."""
    ones = np.ones(len(best.user))

    def paired(difference: Floats, method: str) -> Estimate:
        return ratio_by_user(difference, ones, best.user, level=level, method=f"{method}, common noise, user-cluster t")

    floor = 0.05 * float((best.clicks.mean() + worst.clicks.mean()) / 2)
    clicks = paired(best.clicks - worst.clicks, "clicks a session, best minus worst slates")
    order_effect = float((best.clicks - shuffled.clicks).mean())
    clicks = replace(
        clicks, diagnostics={**clicks.diagnostics, "order_effect": order_effect, "mean_best": float(best.clicks.mean())}
    )
    checks = [judged("responsiveness", clicks, f"lower > {floor:.3g} (5 % of the mean)", above=floor, strict=True)]

    name = "responsiveness: session length"
    sign = 1.0 if longer_is_better else -1.0
    difference = sign * (best.length - worst.length)
    length_floor = 0.05 * float((best.length.mean() + worst.length.mean()) / 2)
    threshold = f"lower > {length_floor:.3g} (5 % of the mean)"
    if leave is None or float(leave.value) == 0:
        checks.append(not_made(name, threshold, "the world declares no effect of satisfaction on leaving"))
        return tuple(checks)
    estimate = paired(difference, "slates a session, best minus worst slates")
    if not difference.any():
        why = "the declared leave effect changes no session: leaving ignores what is shown"
        checks.append(Check(name, estimate, threshold, "fail", why))
    elif (reason := _why_not_counted(leave, level)) is not None:
        checks.append(Check(name, estimate, threshold, "not made", reason))
    else:
        checks.append(judged(name, estimate, threshold, above=length_floor, strict=True))
    return tuple(checks)


def leaving_given_clicks(
    world: World, *, seed: int, n_users: int = 1000, longer_is_better: bool = True, level: float = 0.95
) -> Check:
    """Do better slates keep users, given the step and the clicks so far? The conditional form of responsiveness.

    Users are shown the world's best or worst slate, drawn by a coin at each step; leaving after a slate is regressed on
    the slate's mean appeal, the step and the clicks before it, users being the clusters. Whole sessions under best and
    under worst slates differ in what was clicked before; here that is held fixed.

    Args:
        world: a judge world.
        seed: seed of the noise and of the coins.
        n_users: users flown at most.
        longer_is_better: the sign of a better slate's effect on session length that the task declares.
        level: of the interval.
    """
    from simulator.users import SimulatedUsers

    leave = {a.parameter: a for a in world.assumptions if a.part == "leave"}.get("satisfaction")
    if leave is None or float(leave.value) == 0:
        why = "the world declares no effect of satisfaction on leaving"
        return not_made(LEAVING, _leaving_threshold(longer_is_better=longer_is_better), why)
    n = min(n_users, len(world.starts.user))
    users = SimulatedUsers(world, n, seed=seed)
    users.start(np.arange(n))
    rng = np.random.default_rng(seed)
    active, so_far = np.ones(n, bool), np.zeros(n)
    parts: list[tuple[NDArray[Any], ...]] = []
    for step in range(world.horizon):
        appeal, candidates = users.appeal(), users.candidates()
        best, worst = (
            _slate_by_appeal(appeal, candidates, choice, world.slate_size, rng) for choice in ("best", "worst")
        )
        slate = np.where(rng.random((n, 1)) < 0.5, best, worst)
        shown = (1 / (1 + np.exp(-np.take_along_axis(appeal, slate, 1).astype(np.float64)))).mean(1)
        outcome = users.step(slate)
        here = np.flatnonzero(active)
        parts.append(
            (here, shown[here], np.full(len(here), step), so_far[here].copy(), outcome.left[here].astype(float))
        )
        so_far += np.where(active, outcome.clicks.sum(1), 0)
        active &= ~outcome.done
        if not active.any():
            break
    who, shown, steps, clicks, left = (np.concatenate(column) for column in zip(*parts, strict=True))
    slates = ShownSlates(who, shown, steps, clicks, left)
    return leaving_of(slates, leave, longer_is_better=longer_is_better, level=level)


@dataclass(frozen=True, slots=True)
class ShownSlates:
    """n slates that users were shown, by a coin the best or the worst.

    Attributes:
        user: [n] who saw it: the cluster.
        appeal: [n] its mean chance of a click.
        step: [n] number of the slate in its session.
        clicks: [n] clicks in the session before it.
        left: [n] 1.0 where the user left after it.
    """

    user: Ints
    appeal: Floats
    step: Ints
    clicks: Floats
    left: Floats


def leaving_of(slates: ShownSlates, leave: LeaveEffect, *, longer_is_better: bool = True, level: float = 0.95) -> Check:
    """The check of leaving, given step and clicks, from slates that were shown; `leave` is the declared effect."""
    name, threshold = LEAVING, _leaving_threshold(longer_is_better=longer_is_better)
    left, appeal, n = slates.left, slates.appeal, len(np.unique(slates.user))
    covariates = [column for column in (slates.step, slates.clicks) if np.ptp(column) > 0]
    leavings = int(left.sum())
    if min(leavings, len(left) - leavings) < FEWEST_LEAVINGS or np.ptp(appeal) == 0:
        why = f"{leavings} of {len(left)} slates end a session; needs {FEWEST_LEAVINGS} of either kind"
        return not_made(name, threshold, why)
    design = np.column_stack([np.ones(len(left)), appeal / appeal.std(), *covariates])
    coefficient, covariance = clustered_logistic(design, left, slates.user)
    half = t_quantile(level, n - 1) * float(np.sqrt(covariance[1, 1]))
    value = float(coefficient[1])
    method = f"logistic regression of {leavings} leavings on {len(left)} slates, user-cluster sandwich t"
    estimate = Estimate(value, value - half, value + half, level, n, method)
    if (reason := _why_not_counted(leave, level)) is not None:
        return Check(name, estimate, threshold, "not made", reason)
    above, below = (-np.inf, 0.0) if longer_is_better else (0.0, np.inf)
    return judged(name, estimate, threshold, above=above, below=below, strict=True)


def _leaving_threshold(*, longer_is_better: bool) -> str:
    return f"{'upper < 0' if longer_is_better else 'lower > 0'} (log odds a standard deviation of appeal)"


def _why_not_counted(leave: LeaveEffect, level: float) -> str | None:
    """Why an effect on leaving is printed and not counted; None where it is fitted and its interval excludes 0."""
    if leave.source != "fitted":
        return "the leave effect is assumed: printed, not counted"
    if leave.se is None or abs(float(leave.value)) <= float(ndtri(0.5 + level / 2)) * leave.se:
        return "the fitted leave effect's interval contains 0"
    return None


def determinism(world: World, *, seed: int, n_users: int = 64) -> Check:
    """Same key, same result: whole batch, small batches and the reversed order of users agree to the last bit."""
    rows = np.arange(min(n_users, len(world.starts.user)))
    size = {"slate_size": world.slate_size, "horizon": world.horizon}

    def flight(parts: Sequence[Ints]) -> tuple[Floats, Floats]:
        clicks, length = np.zeros(len(rows)), np.zeros(len(rows))
        for part in parts:
            flown = fly_by_appeal(world, "best", seed=seed, rows=part, **size)
            clicks[part], length[part] = flown.clicks, flown.length
        return clicks, length

    whole = flight([rows])
    differing = 0
    for parts in ([rows], np.array_split(rows, max(1, len(rows) // 7)), [rows[::-1]]):
        again = flight(list(parts))
        differing += sum(int((a != b).sum()) for a, b in zip(whole, again, strict=True))
    estimate = Estimate(
        float(differing),
        float(differing),
        float(differing),
        1.0,
        len(rows),
        "sessions that differ between batch sizes and orders",
    )
    if differing:
        return Check("determinism", estimate, "exactly 0", "fail", f"{differing} values differ between batches")
    return Check("determinism", estimate, "exactly 0", "pass")
