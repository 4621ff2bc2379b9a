"""When users leave and come back, fitted on logged sessions; and what such a log can tell of the effect of slates.

Leaving is a discrete-time hazard, the kernel's own formula as a logistic regression. Whether satisfaction keeps people
is a causal question that most logs cannot answer: who is satisfied differs in other ways too. So the effect counts as
identified only where it stands out from *placebos*, the same regression with satisfaction permuted among the slates of
the same user. Gaps between sessions are lognormal, censored at the end of the log.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from simulator.behaviour.assumptions import Assumption
from simulator.log import InteractionLog

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SESSION_GAP = 1800.0
"""Seconds without a row after which a session counts as over, where the log does not name its sessions."""
_DAY = 86_400.0
FEWEST_LEAVINGS, FEWEST_SLATES = 50, 20
"""Slates of either kind, last of a session or not, for a regression; slates for how often users leave at all."""
_PLACEBOS = 100
_PARAMETERS = ("base_rate", "satisfaction", "repetition", "step")


@dataclass(frozen=True, slots=True)
class LoggedSteps:
    """m logged slates in their order, each with what the kernel's hazard reads.

    Attributes:
        user: [m] cluster; session: [m] number of the session; step: [m] slates before this one in its session.
        satisfaction: [m] running satisfaction after the slate, in [0, 1]; repetition: [m] in [0, 1].
        left: [m] bool the session ended with this slate; a session cut by the log's end is left out or never True.
    """

    user: Ints
    session: Ints
    step: Ints
    satisfaction: Floats
    repetition: Floats
    left: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class LeavingFit:
    """A fitted hazard of leaving: sigma(c0 - c1 (satisfaction - 1/2) + c2 repetition + c3 step).

    Attributes:
        value, se: parameter (base_rate, satisfaction, repetition, step) -> estimate and cluster standard error.
        placebo_z: [P] |z| of permuted satisfactions. z: that of the real one.
        identified: whether the effect of satisfaction stands out from the placebos and has the sign of the model.
        why: in words.
        n: slates; leavings: among them.
        sweep: base rates to fly again: two standard errors to either side, where few slates tell it.
    """

    value: dict[str, float]
    se: dict[str, float]
    placebo_z: Floats
    z: float
    identified: bool
    why: str
    n: int
    leavings: int
    sweep: tuple[float, ...] = ()

    def assumptions(self) -> tuple[Assumption, ...]:
        """What a world takes from the fit: the base rate, the step if it varies, the effect of slates if identified."""
        names = ["base_rate"]
        names += ["step"] if np.isfinite(self.se["step"]) else []
        names += ["satisfaction"] if self.identified else []
        names += ["repetition"] if self.value["repetition"] > 2 * self.se["repetition"] else []
        swept = {"base_rate": self.sweep}
        return tuple(
            Assumption("leave", name, self.value[name], "fitted", self.se[name], swept.get(name, ())) for name in names
        )


def running_satisfaction(session: Ints, clicks: Floats, *, usual: float, memory: float) -> Floats:
    """[m] the kernel's satisfaction after each slate of rows sorted by session, from 1/2 at each session's start."""
    pleased = np.minimum(1.0, clicks / (2 * usual))
    out = np.empty(len(clicks))
    now, before = 0.5, None
    for at, (one, number) in enumerate(zip(pleased.tolist(), session.tolist(), strict=True)):
        now = memory * (0.5 if number != before else now) + (1 - memory) * one
        out[at], before = now, number
    return out


def fit_leaving(
    steps: LoggedSteps,
    rng: np.random.Generator,
    assumed: tuple[float, float] = (0.0, 0.0),
    whole: LoggedSteps | None = None,
) -> LeavingFit:
    """Hazard of leaving by logistic regression, the user as cluster.

    An effect of slates that the log does not identify is taken for what is assumed, and the base rate fitted beside it.
    Where fewer than `FEWEST_LEAVINGS` slates end a session, or fewer don't (a site that users open once), the base rate
    alone is fitted.

    Args:
        steps: logged slates.
        rng: permutes satisfaction within users for the placebos.
        assumed: the effects of satisfaction and repetition where they are not identified.
        whole: slates of users who are read to the log's end, for how often users leave; default the same. Of users who
            are read up to a share of their rows, the last leaving is never among these: a rate of them is too low.

    Raises:
        ValueError: too few slates of sessions whose end is in the log.
    """
    leavings, n = int(steps.left.sum()), len(steps.left)
    whole = steps if whole is None else whole
    if len(whole.left) < FEWEST_SLATES:
        raise ValueError(f"{len(whole.left)} slates that tell whether a user left, {FEWEST_SLATES} are needed")
    if min(leavings, n - leavings) < FEWEST_LEAVINGS:
        why = f"{leavings} of {n} slates end a session: what makes users leave needs {FEWEST_LEAVINGS} of either kind"
        rate = _under_jeffreys(whole, _effects(whole, {}, assumed))
        value, error = dict.fromkeys(_PARAMETERS, 0.0) | rate.value, dict.fromkeys(_PARAMETERS, np.inf) | rate.se
        of_whole = len(whole.left), int(whole.left.sum())
        return LeavingFit(value, error, np.zeros(1), 0.0, False, why, *of_whole, rate.sweep)  # noqa: FBT003
    columns = {
        "satisfaction": steps.satisfaction - 0.5,
        "repetition": steps.repetition,
        "step": steps.step.astype(np.float64),
    }
    varied = [name for name, column in columns.items() if np.ptp(column) > 0]
    design = np.column_stack([np.ones(len(steps.left)), *(columns[name] for name in varied)])
    y = steps.left.astype(np.float64)
    coefficient, covariance = clustered_logistic(design, y, steps.user)
    se = np.sqrt(np.diag(covariance))
    base = 1 / (1 + np.exp(-coefficient[0]))
    value, error = {"base_rate": float(base)}, {"base_rate": float(se[0] * base * (1 - base))}
    for name in columns:
        at = varied.index(name) + 1 if name in varied else None
        sign = -1.0 if name == "satisfaction" else 1.0
        value[name] = 0.0 if at is None else float(sign * coefficient[at])
        error[name] = np.inf if at is None else float(se[at])
    z = value["satisfaction"] / error["satisfaction"]
    placebo = np.array([_placebo_z(design, y, steps.user, rng) for _ in range(_PLACEBOS)]) if z else np.zeros(1)
    limit = max(1.96, float(np.quantile(placebo, 0.95)))
    identified = bool(z > limit)
    taken = {"satisfaction": identified, "repetition": value["repetition"] > 2 * error["repetition"]}
    effects = {name: value[name] for name in taken if taken[name]}
    sweep: tuple[float, ...] = ()
    if whole is not steps or len(effects) < len(taken):
        few = min(whole.left.sum(), len(whole.left) - whole.left.sum()) < FEWEST_LEAVINGS
        rate = (_under_jeffreys if few else _regressed)(whole, _effects(whole, effects, assumed))
        value, error, sweep = value | rate.value, error | rate.se, rate.sweep
    side = "with" if z > 0 else "against"
    why = f"satisfaction has z = {abs(z):.2f} {side} the model's sign, placebos within users up to {limit:.2f}"
    return LeavingFit(value, error, placebo, float(z), identified, why, len(y), leavings, sweep)


def _effects(steps: LoggedSteps, fitted: Mapping[str, float], assumed: tuple[float, float]) -> Floats:
    """[m] logits that satisfaction and repetition add: by their fitted effects, else by the assumed ones."""
    of_satisfaction, of_repetition = (
        fitted.get(name, value) for name, value in zip(("satisfaction", "repetition"), assumed, strict=True)
    )
    return of_repetition * steps.repetition - of_satisfaction * (steps.satisfaction - 0.5)


@dataclass(frozen=True, slots=True)
class _Rate:
    """How often users leave beside given effects of slates.

    Attributes:
        value, se: base rate and step -> estimate and standard error.
        sweep: as in `LeavingFit`.
    """

    value: dict[str, float]
    se: dict[str, float]
    sweep: tuple[float, ...] = ()


def _regressed(steps: LoggedSteps, given: Floats) -> _Rate:
    """Base rate and step, if it varies, by logistic regression; `given` [m] logits are added."""
    step = steps.step.astype(np.float64)
    design = np.column_stack([np.ones(len(step)), step])[:, : 1 + (np.ptp(step) > 0)]
    coefficient, covariance = clustered_logistic(design, steps.left.astype(np.float64), steps.user, given)
    se, base = np.sqrt(np.diag(covariance)), float(expit(coefficient[0]))
    value, error = {"base_rate": base}, {"base_rate": float(se[0] * base * (1 - base))}
    if len(se) > 1:
        value["step"], error["step"] = float(coefficient[1]), float(se[1])
    return _Rate(value, error)


def _under_jeffreys(steps: LoggedSteps, given: Floats) -> _Rate:
    """What makes as many slates end a session as Jeffreys' prior says after these: neither 0 nor 1 is ever certain."""
    from scipy.optimize import brentq

    n, leavings = len(steps.left), int(steps.left.sum())
    rate = (leavings + 0.5) / (n + 1)
    residuals = np.bincount(np.unique(steps.user, return_inverse=True)[1], steps.left - leavings / n)
    se = max(np.sqrt(rate * (1 - rate) / (n + 2)), np.sqrt(np.sum(residuals**2)) / n)
    reach = 40.0 + float(np.abs(given).max())
    logit = float(brentq(lambda c0: float(expit(c0 + given).mean()) - rate, -reach, reach))
    chance, base = expit(logit + given), float(expit(logit))
    of_logit = float(se / np.mean(chance * (1 - chance)))
    between = (float(expit(logit - 2 * of_logit)), float(expit(logit + 2 * of_logit)))
    return _Rate({"base_rate": base, "step": 0.0}, {"base_rate": of_logit * base * (1 - base), "step": np.inf}, between)


def clustered_logistic(design: Floats, y: Floats, user: Ints, given: Floats | None = None) -> tuple[Floats, Floats]:
    """Coefficients and their covariance, clustered by user; `given` [n] logits are added to each row's."""
    import statsmodels.api as sm

    model = sm.GLM(y, design, family=sm.families.Binomial(), offset=given)
    found = model.fit(cov_type="cluster", cov_kwds={"groups": user})
    return np.asarray(found.params), np.asarray(found.cov_params())


def _placebo_z(design: Floats, y: Floats, user: Ints, rng: np.random.Generator) -> float:
    """|z| of satisfaction permuted within each user, by one Newton step from the fit without it (a score test)."""
    order = np.lexsort((rng.random(len(user)), user))
    by_user = np.argsort(user, kind="stable")
    permuted = design.copy()
    permuted[by_user, 1] = design[order, 1]
    nothing = np.delete(permuted, 1, axis=1)
    beta = np.zeros(nothing.shape[1])
    for _ in range(8):
        p = 1 / (1 + np.exp(-(nothing @ beta)))
        information = (nothing * (p * (1 - p))[:, None]).T @ nothing
        beta = beta + np.linalg.lstsq(information, nothing.T @ (y - p), rcond=None)[0]
    p = 1 / (1 + np.exp(-(nothing @ beta)))
    weight = p * (1 - p)
    weighted = (nothing * weight[:, None]).T
    projected = permuted[:, 1] - nothing @ np.linalg.lstsq(weighted @ nothing, weighted @ permuted[:, 1], rcond=None)[0]
    scores = np.bincount(np.unique(user, return_inverse=True)[1], projected * (y - p))
    return float(abs(scores.sum()) / np.sqrt(np.sum(scores**2)))


@dataclass(frozen=True, slots=True)
class GapFit:
    """A lognormal distribution of the days between the end of a session and the start of the next.

    Attributes:
        median_gap, spread: its median in days and the standard deviation of its logarithm; *_se: standard errors.
        n: sessions; returns: those followed by another in the log.
    """

    median_gap: float
    median_gap_se: float
    spread: float
    spread_se: float
    n: int
    returns: int

    def assumptions(self) -> tuple[Assumption, ...]:
        """What a world takes from the fit."""
        return (
            Assumption("returning", "median_gap", self.median_gap, "fitted", self.median_gap_se),
            Assumption("returning", "spread", self.spread, "fitted", self.spread_se),
        )


def fit_gaps(gap: Floats, seen: NDArray[np.bool_], user: Ints) -> GapFit:
    """Lognormal gaps by maximum likelihood, right-censored where the log ended first; the user as cluster.

    Args:
        gap: [n] days from a session's end to the next session's start, or to the end of the log.
        seen: [n] bool, the next session is in the log.
        user: [n] cluster.

    Raises:
        ValueError: fewer than 20 returns.
    """
    from scipy.optimize import minimize
    from scipy.stats import norm

    if seen.sum() < 20:
        raise ValueError(f"{int(seen.sum())} sessions are followed by another, 20 are needed")
    logs = np.log(np.maximum(gap, 1e-6))

    def rows(theta: Floats) -> tuple[Floats, Floats]:
        """Log-likelihood and its scores [n, 2] in (mean, log spread)."""
        spread = np.exp(theta[1])
        z = (logs - theta[0]) / spread
        hazard = np.exp(norm.logpdf(z) - norm.logsf(z))
        value = np.where(seen, norm.logpdf(z) - theta[1], norm.logsf(z))
        pull = np.where(seen, z, hazard)
        return value, np.column_stack([pull / spread, np.where(seen, z * z - 1, hazard * z)])

    def objective(theta: Floats) -> tuple[float, Floats]:
        value, score = rows(theta)
        return -float(value.mean()), -score.mean(axis=0)

    start = np.array([logs[seen].mean(), np.log(max(logs[seen].std(), 0.1))])
    theta = minimize(objective, start, jac=True, method="BFGS").x
    _, score = rows(theta)
    hessian = np.column_stack([_slope(rows, theta, e) for e in 1e-5 * np.eye(2)])
    clusters, of_user = np.unique(user, return_inverse=True)
    summed = np.zeros((len(clusters), 2))
    np.add.at(summed, of_user, score)
    inverse = np.linalg.inv(hessian)
    mean_se, log_spread_se = np.sqrt(np.diag(inverse @ (summed.T @ summed) @ inverse))
    median, spread = float(np.exp(theta[0])), float(np.exp(theta[1]))
    return GapFit(median, median * float(mean_se), spread, spread * float(log_spread_se), len(gap), int(seen.sum()))


def _slope(rows: Callable[[Floats], tuple[Floats, Floats]], theta: Floats, by: Floats) -> Floats:
    """Change of the summed scores along one coordinate, a unit of it."""
    return np.asarray((rows(theta + by)[1] - rows(theta - by)[1]).sum(axis=0) / (2 * by.sum()))


def in_slates(log: InteractionLog, rows: Ints) -> Ints:
    """[n] the same rows, those of a slate side by side: by user, then by when a slate's first row was logged.

    Args:
        log: a log that says what was shown together.
        rows: [n] its rows by user, then time.
    """
    assert log.impression is not None
    slate = log.impression[rows]
    began = np.full(int(log.impression.max()) + 1, np.inf)
    np.minimum.at(began, slate, log.time[rows])
    return rows[np.lexsort((slate, began[slate], log.user[rows]))]


def session_numbers(log: InteractionLog, rows: Ints) -> Ints:
    """[n] session of each of the given rows, from 0: as logged, else a new one after `SESSION_GAP` seconds' pause.

    Args:
        log: a log with sessions or times.
        rows: [n] its rows by user, then time.
    """
    user = log.user[rows]
    new = np.diff(user, prepend=-1) != 0
    if log.session is not None:
        new[1:] |= np.diff(log.session[rows]) != 0
    else:
        new[1:] |= np.diff(log.time[rows]) > SESSION_GAP
    return np.cumsum(new) - 1


@dataclass(frozen=True, slots=True)
class LoggedGaps:
    """n sessions of a log that has times, in the order of `session_numbers`, and what follows each.

    Attributes:
        user: [n] whose session.
        days: [n] from its end to the user's next session, or to the end of the log where there is none.
        followed: [n] bool, there is a next one.
        left: [n] days from its end to the end of the log.
    """

    user: Ints
    days: Floats
    followed: NDArray[np.bool_]
    left: Floats


def logged_gaps(log: InteractionLog, rows: Ints) -> LoggedGaps:
    """What follows each session of the given rows: all rows of their users, by user, then time."""
    session = session_numbers(log, rows)
    first = np.flatnonzero(np.diff(session, prepend=-1))
    last = np.append(first[1:], len(rows)) - 1
    user, begin, end = log.user[rows][first], log.time[rows][first], log.time[rows][last]
    followed = np.append(user[1:] == user[:-1], False)
    left = (log.time.max() - end) / _DAY
    return LoggedGaps(user, np.where(followed, (np.append(begin[1:], 0) - end) / _DAY, left), followed, left)
