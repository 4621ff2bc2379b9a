"""May a simulator be believed? Checks of its judge worlds on rows that no model has seen (EVALUATION, section 6).

Every check has an estimate with a user-cluster interval and an *equivalence* rule: it passes when the whole interval
lies in the band, fails when the whole interval lies outside, and is undecided otherwise, which counts as not passed:
too little data is never a proof. A check that the data do not allow has `passed` None and the reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from evaluators.estimate import Estimate
from evaluators.intervals import Ratios, cluster_index, recentred_interval, t_interval, t_quantile, user_sums
from simulator.log import JUDGE, InteractionLog, Split
from simulator.streams import stream, stream_word

if TYPE_CHECKING:
    from simulator.world import World

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
FUTURE_ROWS, HELD_OUT_USERS = "future rows", "held-out users"
Verdict = Literal["pass", "fail", "undecided", "not made"]

EPSILON = 1e-12
"""Predictions are kept this far from 0 and 1 before a logarithm."""
BURST_SHARE = 0.2
"""Share of zero gaps within users above which time stamps are bursts of entry, not of viewing (ml-100k: .51)."""
SESSION_GAP_SECONDS = 1800.0
MANDATORY = (
    "splits",
    "calibration in the large",
    "slope",
    "skill over base rate",
    "top of the list",
    "responsiveness",
    "determinism",
)
WEAKER = ("calibration in the large", "slope", "skill over base rate")
"""What worlds other than B_1 have to pass: they are refits on resamples and another class, weaker by design."""


@dataclass(frozen=True, slots=True)
class Check:
    """One question to a simulator and the answer.

    Attributes:
        name: what is checked, the scope in front where there are several worlds.
        estimate: the statistic with its user-cluster interval, or withheld.
        threshold: the band for a pass, as text.
        verdict: pass, fail, undecided (the interval straddles the band) or not made (the data do not allow it).
        reason: why it did not pass, or why it cannot be made; "" where it passed.
        world: number of the judge world, None outside `assess`.
        rows: "future rows" or "held-out users", None outside `assess`.
    """

    name: str
    estimate: Estimate
    threshold: str
    verdict: Verdict
    reason: str = ""
    world: int | None = None
    rows: str | None = None

    @property
    def passed(self) -> bool | None:
        """True, False (undecided counts as not passed), or None where the check cannot be made."""
        return None if self.verdict == "not made" else self.verdict == "pass"

    @property
    def label(self) -> str:
        """The name, with world and rows behind it unless they are B_1's future rows: unique in a report."""
        where = [] if self.world in (None, 1) else [f"world {self.world}"]
        where += [self.rows] if self.rows == HELD_OUT_USERS else []
        return f"{self.name} ({', '.join(where)})" if where else self.name

    def to_json(self) -> dict[str, Any]:
        """JSON-ready dictionary with the keys of the report."""
        return {
            "name": self.label,
            "estimate": self.estimate.to_json(),
            "threshold": self.threshold,
            "passed": self.passed,
            "verdict": self.verdict,
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class ScoredRows:
    """n rows that a model predicted without having seen them.

    Attributes:
        p: [n] predicted probability of the primary behaviour, in (0, 1).
        y: [n] 1.0 where it occurred, else 0.0.
        user: [n] the cluster of each row.
        item_exposure: [n] how often the row's item occurs in the log's fitted rows: its exposure.
        p_bias: [n] predictions of the shrunk user + item bias model, or None.
    """

    p: Floats
    y: Floats
    user: Ints
    item_exposure: Floats
    p_bias: Floats | None = None

    def __post_init__(self) -> None:
        n = len(self.y)
        lengths = [
            len(self.p),
            len(self.user),
            len(self.item_exposure),
            *([] if self.p_bias is None else [len(self.p_bias)]),
        ]
        if any(length != n for length in lengths):
            raise ValueError(f"scored rows: columns of {lengths} values beside {n} outcomes")
        if not ((self.p > 0) & (self.p < 1)).all():
            raise ValueError("scored rows: a predicted probability lies outside (0, 1)")

    def __len__(self) -> int:
        return len(self.y)


class Predicts(Protocol):
    """A preference model, as far as fidelity needs it."""

    def predict(self, log: InteractionLog, split: Split, rows: NDArray[np.int64]) -> Floats:
        """Probability of the primary behaviour for each row, from the early rows of its user."""
        ...


def score_rows(
    model: Predicts, log: InteractionLog, split: Split, users: Ints, *, bias_model: Predicts | None = None
) -> ScoredRows:
    """Predictions of a model for the late rows of the given users, beside what happened.

    An item's exposure is its share of all early rows: what a user of this log was likely to meet.

    Raises:
        SeenRowsError: the model was fitted on one of these rows.
    """
    rows = split.rows(log, users, late=True)
    exposure = np.bincount(log.item[~split.late], minlength=log.catalogue.n_items).astype(np.float64)
    bias = None if bias_model is None else _inside(bias_model.predict(log, split, rows))
    return ScoredRows(
        _inside(model.predict(log, split, rows)),
        log.primary[rows].astype(np.float64),
        log.user[rows],
        exposure[log.item[rows]],
        bias,
    )


def _inside(p: Floats) -> Floats:
    return np.clip(np.asarray(p, np.float64), EPSILON, 1 - EPSILON)


def ratio_by_user(a: Floats, b: Floats, user: Ints, *, level: float = 0.95, method: str) -> Estimate:
    """Ratio sum a / sum b over n rows with the user-cluster t interval; `b` is positive or zero."""
    index, n_users = cluster_index(user, len(a))
    ratio = Ratios(user_sums(a, index, n_users)[None], user_sums(b, index, n_users)[None])
    if n_users < 2 or ratio.denominator.sum() <= 0:
        why = f"users: {n_users} with a denominator of {ratio.denominator.sum():g}; needs 2 and more than 0"
        return Estimate.withhold(method, why, n=n_users, level=level)
    low, high = t_interval(ratio.value, ratio.scores(), level)
    return Estimate(ratio.value, low, high, level, n_users, method)


# ---------------------------------------------------------------------------------------------- the equivalence rule


def judged(
    name: str,
    estimate: Estimate,
    threshold: str,
    *,
    above: float = -math.inf,
    below: float = math.inf,
    strict: bool = False,
) -> Check:
    """Apply the equivalence rule: pass iff the whole interval is in [above, below], fail iff it is all outside.

    Args:
        name: name of the check.
        estimate: statistic with its interval; withheld means the check cannot be made.
        threshold: the band as text.
        above: lower end of the band.
        below: upper end of the band.
        strict: the lower end itself is outside (rules such as `lower > 0`).
    """
    if estimate.value is None:
        return Check(name, estimate, threshold, "not made", estimate.withheld or "")
    low = -math.inf if estimate.low is None else estimate.low
    high = math.inf if estimate.high is None else estimate.high
    inside = (low > above if strict else low >= above) and high <= below
    outside = (high <= above if strict else high < above) or low > below
    shown = f"{estimate.value:.3g} [{low:.3g}, {high:.3g}]"
    if inside:
        return Check(name, estimate, threshold, "pass")
    if outside:
        return Check(name, estimate, threshold, "fail", f"{shown} lies outside {threshold}")
    return Check(
        name, estimate, threshold, "undecided", f"undecided: {shown} straddles {threshold}; more users would decide"
    )


def not_made(name: str, threshold: str, why: str) -> Check:
    """A check that the data do not allow, with the reason."""
    return Check(name, Estimate.withhold(name, why), threshold, "not made", why)


# ------------------------------------------------------------------------------------------------- prediction checks


def log_loss(p: Floats, y: Floats) -> Floats:
    """[n] minus the log-likelihood of each outcome, in nats."""
    return -np.where(y > 0.5, np.log(_inside(p)), np.log1p(-_inside(p)))


def calibration_in_the_large(rows: ScoredRows, *, level: float = 0.95) -> Check:
    """O/E = sum of outcomes / sum of predictions, passed in [0.9, 1.1]."""
    estimate = observed_over_expected(rows.p, rows.y, rows.user, level=level)
    return judged("calibration in the large", estimate, "[0.9, 1.1]", above=0.9, below=1.1)


def observed_over_expected(
    p: Floats, y: Floats, user: Ints, *, weight: Floats | None = None, level: float = 0.95, method: str = "O/E"
) -> Estimate:
    """Ratio of the (weighted) outcomes to the (weighted) predictions, user-cluster t interval."""
    w = np.ones(len(y)) if weight is None else weight
    return ratio_by_user(w * y, w * p, user, level=level, method=f"{method}, user-cluster t")


def calibration_slope(rows: ScoredRows, *, level: float = 0.95) -> Check:
    """Slope of the logistic regression of outcomes on logit p, cluster-robust; the intercept is in the diagnostics."""
    fit = logistic_recalibration(rows.p, rows.y, rows.user, level=level)
    return judged("slope", fit, "[0.8, 1.25]", above=0.8, below=1.25)


def logistic_recalibration(p: Floats, y: Floats, user: Ints, *, level: float = 0.95) -> Estimate:
    """Cox's calibration slope (logit y on logit p) with a user-cluster sandwich interval; 1 and 0 are perfect."""
    method = "calibration slope, logistic regression, user-cluster sandwich t"
    clusters, index = np.unique(user, return_inverse=True)
    n_users = len(clusters)
    x = np.log(_inside(p)) - np.log1p(-_inside(p))
    if n_users < 2 or y.min() == y.max() or np.ptp(x) < 1e-9:
        why = f"slope: {n_users} users, outcomes {y.min():g}..{y.max():g}; needs 2, both, varying predictions"
        return Estimate.withhold(method, why, n=n_users, level=level)
    design = np.column_stack([np.ones(len(x)), x])
    beta = np.array([0.0, 1.0])
    for _ in range(50):
        mean = 1 / (1 + np.exp(-design @ beta))
        hessian = (design * (mean * (1 - mean))[:, None]).T @ design
        step = np.linalg.solve(hessian + 1e-12 * np.eye(2), design.T @ (y - mean))
        # Damped so that a nearly separable sample cannot throw the next step to infinity.
        beta = beta + step * min(1.0, 5.0 / max(1e-300, float(np.abs(step).max())))
        if np.abs(step).max() < 1e-10:
            break
    mean = 1 / (1 + np.exp(-design @ beta))
    bread = np.linalg.inv((design * (mean * (1 - mean))[:, None]).T @ design)
    residual = y - mean
    scores = np.column_stack([np.bincount(index, residual * design[:, k], minlength=n_users) for k in range(2)])
    covariance = bread @ (scores.T @ scores * n_users / (n_users - 1)) @ bread
    t = t_quantile(level, n_users - 1)
    se = np.sqrt(np.diag(covariance))
    details = {
        "intercept": float(beta[0]),
        "intercept_low": float(beta[0] - t * se[0]),
        "intercept_high": float(beta[0] + t * se[0]),
    }
    return Estimate(
        float(beta[1]),
        float(beta[1] - t * se[1]),
        float(beta[1] + t * se[1]),
        level,
        n_users,
        method,
        diagnostics=details,
    )


def calibration_error(
    rows: ScoredRows, rng: np.random.Generator, *, bins: int = 10, resamples: int = 1000, level: float = 0.95
) -> Check:
    """Root of the debiased squared calibration error over equal-count bins (Kumar, Liang, Ma 2019), user bootstrap.

    The square of a noisy bin mean is too large by its variance, so that is taken off: a perfect model shows 0, where
    the plain error of a perfect model shows .013 at n = 2,000 and a base rate of .05.
    """
    band = max(0.01, 0.15 * float(rows.y.mean()))
    threshold = f"upper <= {band:.3g}"
    estimate = debiased_calibration_error(rows.p, rows.y, rows.user, rng, bins=bins, resamples=resamples, level=level)
    return judged("calibration error", estimate, threshold, below=band)


def debiased_calibration_error(
    p: Floats,
    y: Floats,
    user: Ints,
    rng: np.random.Generator,
    *,
    bins: int = 10,
    resamples: int = 1000,
    level: float = 0.95,
) -> Estimate:
    """Debiased calibration error with its user-bootstrap interval; the bins stay those of the predictions."""
    method = f"debiased calibration error, {bins} equal-count bins, user bootstrap of {resamples}"
    clusters, index = np.unique(user, return_inverse=True)
    n_users = len(clusters)
    if n_users < 30 or len(p) < 10 * bins:
        why = f"calibration error: {n_users} users and {len(p)} rows; needs 30 users and {10 * bins} rows"
        return Estimate.withhold(method, why, n=n_users, level=level)
    cell = index * bins + _equal_count_bins(p, bins)
    shape = (n_users, bins)
    count = np.bincount(cell, minlength=n_users * bins).reshape(shape).astype(np.float64)
    residual = np.bincount(cell, y - p, minlength=n_users * bins).reshape(shape)

    def squared(weight: Floats) -> tuple[Floats, Floats]:
        """Per resample: plain squared error and the sum of the bins' variances, both weighted by rows."""
        n_b = np.maximum(weight @ count, 1e-100)  # [r, bins]; its square must not underflow
        r_b = weight @ residual
        mean = r_b / n_b
        spread = weight @ residual**2 - 2 * mean * (weight @ (residual * count)) + mean**2 * (weight @ count**2)
        variance = np.maximum(spread, 0) / n_b**2 * n_users / (n_users - 1)
        share = n_b / n_b.sum(1, keepdims=True)
        return (share * mean**2).sum(1), (share * variance).sum(1)

    plain, variance = (float(part[0]) for part in squared(np.ones((1, n_users))))
    weight = rng.multinomial(n_users, np.full(n_users, 1 / n_users), size=resamples).astype(np.float64)
    plain_r, variance_r = squared(weight)
    # A resample carries the sample's noise and its own: both variances come off, so replicates centre on the value.
    replicates = np.sqrt(np.maximum(plain_r - variance_r - variance, 0))
    low, high = np.quantile(replicates, [0.5 - level / 2, 0.5 + level / 2])
    value = math.sqrt(max(plain - variance, 0.0))
    details = {"plain": math.sqrt(plain), "noise": math.sqrt(variance)}
    return Estimate(value, min(float(low), value), max(float(high), value), level, n_users, method, diagnostics=details)


def _equal_count_bins(p: Floats, bins: int) -> NDArray[np.int64]:
    """[n] bin of each row: ranks cut into equal counts; equal predictions stay in one bin."""
    order = np.sort(p)
    edges = order[np.minimum((np.arange(1, bins) * len(p)) // bins, len(p) - 1)]
    return np.searchsorted(edges, p, side="right").astype(np.int64)


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """One point of the reliability curve: mean prediction, mean outcome with its user-cluster interval, rows."""

    predicted: float
    observed: float
    low: float
    high: float
    n: int


def reliability_curve(rows: ScoredRows, *, bins: int = 10, level: float = 0.95) -> tuple[ReliabilityBin, ...]:
    """Predicted against observed by tenths of the predictions, for the report's picture."""
    which = _equal_count_bins(rows.p, bins)
    points = []
    for b in np.unique(which):
        mine = which == b
        mean = ratio_by_user(rows.y[mine], np.ones(int(mine.sum())), rows.user[mine], level=level, method="bin mean")
        if mean.value is None:
            continue
        points.append(
            ReliabilityBin(
                float(rows.p[mine].mean()),
                mean.value,
                max(0.0, mean.low if mean.low is not None else 0.0),
                min(1.0, mean.high if mean.high is not None else 1.0),
                int(mine.sum()),
            )
        )
    return tuple(points)


@dataclass(frozen=True, slots=True)
class CalibrationFloor:
    """Plain calibration error (mean |observed - predicted|) beside what a *perfect* model shows on such rows.

    Attributes:
        error: the model's plain error.
        perfect: mean error when outcomes are drawn from the predictions themselves.
        perfect_95: its 95 % quantile: the simulated floor.
    """

    error: float
    perfect: float
    perfect_95: float


def calibration_floor(
    rows: ScoredRows, rng: np.random.Generator, *, bins: int = 10, draws: int = 500
) -> CalibrationFloor:
    """The calibration error that a perfect model would show on these rows (outcomes drawn from p)."""
    which = _equal_count_bins(rows.p, bins)
    expected = np.bincount(which, rows.p, minlength=bins)

    def error(y: Floats) -> float:
        return float(np.abs(np.bincount(which, y, minlength=bins) - expected).sum() / len(rows))

    perfect = [error((rng.random(len(rows)) < rows.p).astype(np.float64)) for _ in range(draws)]
    return CalibrationFloor(error(rows.y), float(np.mean(perfect)), float(np.quantile(perfect, 0.95)))


def skill(
    rows: ScoredRows, *, loss: Literal["log-loss", "Brier"] = "log-loss", level: float = 0.95
) -> tuple[Check, ...]:
    """Skill 1 - loss/loss(reference) over the base rate (lower > 0) and over the bias model (lower > -.005).

    The base rate is the rows' own mean, the strictest constant there is: no fitted constant can beat it.
    """
    constant = np.full(len(rows), rows.y.mean())
    over_base = skill_over(rows.p, constant, rows.y, rows.user, loss=loss, level=level)
    suffix = "" if loss == "log-loss" else f" ({loss})"
    checks = [judged(f"skill over base rate{suffix}", over_base, "lower > 0", above=0.0, strict=True)]
    name, threshold = f"skill over bias model{suffix}", "lower > -0.005"
    if rows.p_bias is None:
        checks.append(not_made(name, threshold, "no bias model was given"))
    else:
        over_bias = skill_over(rows.p, rows.p_bias, rows.y, rows.user, loss=loss, level=level)
        checks.append(judged(name, over_bias, threshold, above=-0.005, strict=True))
    return tuple(checks)


def skill_over(
    p: Floats,
    reference: Floats,
    y: Floats,
    user: Ints,
    *,
    loss: Literal["log-loss", "Brier"] = "log-loss",
    level: float = 0.95,
) -> Estimate:
    """1 - loss(model) / loss(reference), user-cluster t interval of the ratio."""

    def of(q: Floats) -> Floats:
        return log_loss(q, y) if loss == "log-loss" else (y - q) ** 2

    ratio = ratio_by_user(of(p), of(reference), user, level=level, method=f"{loss} skill, user-cluster t")
    if ratio.value is None or ratio.low is None or ratio.high is None:
        return ratio
    return replace(ratio, value=1 - ratio.value, low=1 - ratio.high, high=1 - ratio.low)


def compare_predictions(
    name: str, p_model: Floats, p_ref: Floats, y: Floats, user: Ints, *, level: float = 0.95
) -> Estimate:
    """Gain of a model over a reference in log-loss per row (nats; positive: the model is better), user-cluster t."""
    gain = log_loss(p_ref, y) - log_loss(p_model, y)
    return ratio_by_user(
        gain, np.ones(len(y)), user, level=level, method=f"{name}: log-loss gain a row, paired, user-cluster t"
    )


def discrimination(rows: ScoredRows, *, level: float = 0.95) -> Check:
    """Mean over users of the AUC within a user's rows (users with both outcomes), passed when its lower limit > .5."""
    auc, users = user_auc(rows.p, rows.y, rows.user)
    excluded = len(np.unique(rows.user)) - len(users)
    method = f"mean of per-user AUC, user t; {excluded} users with one outcome only left out"
    if len(users) < 2:
        return not_made("discrimination", "lower > 0.5", f"AUC: {len(users)} users have both outcomes; needs 2")
    estimate = ratio_by_user(auc, np.ones(len(auc)), users, level=level, method=method)
    estimate = replace(estimate, diagnostics={**estimate.diagnostics, "users_excluded": excluded})
    return judged("discrimination", estimate, "lower > 0.5", above=0.5, strict=True)


def user_auc(p: Floats, y: Floats, user: Ints) -> tuple[Floats, Ints]:
    """AUC within each user that has both outcomes (ties count half), and these users."""
    order = np.lexsort((p, user))
    p, y, user = p[order], y[order], user[order]
    n = len(p)
    new_user = np.r_[True, user[1:] != user[:-1]]
    new_tie = new_user | np.r_[True, p[1:] != p[:-1]]
    start = np.flatnonzero(new_user)
    position = np.arange(n) - start[np.cumsum(new_user) - 1]
    tie = np.cumsum(new_tie) - 1
    rank = (np.bincount(tie, position) / np.bincount(tie))[tie] + 1  # mid-ranks within the user
    which = np.cumsum(new_user) - 1
    positives = np.bincount(which, y)
    negatives = np.bincount(which) - positives
    rank_sum = np.bincount(which, rank * y)
    both = (positives > 0) & (negatives > 0)
    auc = (rank_sum[both] - positives[both] * (positives[both] + 1) / 2) / (positives[both] * negatives[both])
    return auc, user[start][both]


def top_of_list(rows: ScoredRows, *, share: float = 0.1, level: float = 0.95) -> Check:
    """O/E among each user's top tenth of scored rows (at least one), where an agent will pick; [0.85, 1.15]."""
    top = top_rows(rows.p, rows.user, share=share)
    estimate = observed_over_expected(
        rows.p[top], rows.y[top], rows.user[top], level=level, method=f"O/E in the top {share:.0%} of each user's rows"
    )
    return judged("top of the list", estimate, "[0.85, 1.15]", above=0.85, below=1.15)


def top_rows(p: Floats, user: Ints, *, share: float = 0.1) -> NDArray[np.bool_]:
    """[n] True for each user's best-scored rows: ceil(share x their rows)."""
    order = np.lexsort((-p, user))
    sorted_user = user[order]
    new_user = np.r_[True, sorted_user[1:] != sorted_user[:-1]]
    which = np.cumsum(new_user) - 1
    start = np.flatnonzero(new_user)
    length = np.diff(np.r_[start, len(p)])
    position = np.arange(len(p)) - start[which]
    out = np.zeros(len(p), bool)
    out[order] = position < np.ceil(share * length[which] - 1e-9)
    return out


def popularity_strata(rows: ScoredRows, *, strata: int = 5, level: float = 0.95) -> Check:
    """O/E in fifths of the rows ordered by their item's exposure, Bonferroni; the worst stratum is the estimate.

    A stratum with fewer than 30 expected events is not identifiable and is listed so in the diagnostics.
    """
    name, threshold = "popularity strata", "each [0.8, 1.25]"
    order = np.argsort(rows.item_exposure, kind="stable")
    simultaneous = 1 - (1 - level) / strata
    table: list[dict[str, Any]] = []
    checks: list[Check] = []
    for k, part in enumerate(np.array_split(order, strata)):
        expected = float(rows.p[part].sum())
        if expected < 30:
            table.append({"stratum": k + 1, "expected": expected, "not_identifiable": "under 30 expected events"})
            continue
        estimate = observed_over_expected(
            rows.p[part],
            rows.y[part],
            rows.user[part],
            level=simultaneous,
            method=f"O/E, stratum {k + 1} of {strata} by item exposure, Bonferroni",
        )
        checks.append(judged(name, estimate, threshold, above=0.8, below=1.25))
        table.append(
            {
                "stratum": k + 1,
                "expected": expected,
                "value": estimate.value,
                "low": estimate.low,
                "high": estimate.high,
            }
        )
    if not checks:
        return not_made(name, threshold, f"all {strata} strata hold under 30 expected events")
    worst = max(
        checks,
        key=lambda c: ({"fail": 2, "undecided": 1}.get(c.verdict, 0), abs(math.log(max(c.estimate.value or 0, 1e-9)))),
    )
    estimate = replace(worst.estimate, diagnostics={**worst.estimate.diagnostics, "strata": table})
    return replace(worst, estimate=estimate)


def unbiased_test(rows: ScoredRows | None, *, level: float = 0.95) -> tuple[Check, ...]:
    """O/E and skill on rows whose exposure was random; not made where the log has none."""
    if rows is None:
        why = "the log has no rows with random exposure"
        return (not_made("unbiased test: O/E", "[0.85, 1.15]", why), not_made("unbiased test: skill", "lower > 0", why))
    estimate = observed_over_expected(rows.p, rows.y, rows.user, level=level, method="O/E under random exposure")
    base = skill_over(rows.p, np.full(len(rows), rows.y.mean()), rows.y, rows.user, level=level)
    return (
        judged("unbiased test: O/E", estimate, "[0.85, 1.15]", above=0.85, below=1.15),
        judged("unbiased test: skill", base, "lower > 0", above=0.0, strict=True),
    )


# -------------------------------------------------------------------------------------------------- session checks


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


# -------------------------------------------------------------------------------------------- two-sample classifier


def two_sample_classifier(
    real: NDArray[np.float64],
    real_user: Ints,
    simulated: NDArray[np.float64],
    simulated_user: Ints,
    rng: np.random.Generator,
    *,
    folds: int = 5,
    level: float = 0.95,
    what: str = "session features",
) -> Check:
    """AUC of a classifier that tells real units from simulated ones (Lopez-Paz, Oquab 2017); upper <= .60.

    Cross-fitted by user, so that a user's real and simulated units are scored by a model that saw neither, with a
    user-cluster interval. A weak filter: a 20 % wrong click rate gives an AUC of .54; it refuses gross fakes only.

    Args:
        real: [n, d] features of the log's units. simulated: [m, d] the same of the simulator.
        real_user: [n] user of each real unit.
        simulated: [m, d] features of the simulated units.
        simulated_user: [m] user whose state the unit was simulated from.
        rng: deals users into folds.
        folds: number of folds.
        level: of the interval.
        what: kind of feature, for the method.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PolynomialFeatures, StandardScaler

    name, threshold = "two-sample classifier", "upper <= 0.6"
    features = np.vstack([real, simulated])
    label = np.r_[np.ones(len(real)), np.zeros(len(simulated))]
    users, index = np.unique(np.r_[real_user, simulated_user], return_inverse=True)
    n_users = len(users)
    if n_users < 30:
        return not_made(name, threshold, f"classifier: {n_users} users; needs 30")
    fold_of = rng.permutation(n_users) % folds
    fold = fold_of[index]
    influence = np.zeros(n_users)
    total_pairs, auc_sum = 0.0, 0.0
    parts = []
    for k in range(folds):
        test = fold == k
        train = ~test
        n1, n0 = int(label[test].sum()), int((1 - label[test]).sum())
        if n1 == 0 or n0 == 0 or len(np.unique(label[train])) < 2:
            continue
        model = make_pipeline(
            StandardScaler(),
            PolynomialFeatures(2, include_bias=False),
            StandardScaler(),
            LogisticRegression(C=0.1, max_iter=500),
        )
        model.fit(features[train], label[train])
        value, psi = _auc_placements(model.decision_function(features[test]), label[test])
        parts.append((n1 * n0, value, psi, index[test]))
        total_pairs += n1 * n0
        auc_sum += n1 * n0 * value
    if not total_pairs:
        return not_made(name, threshold, "classifier: no fold holds real and simulated units")
    auc = auc_sum / total_pairs
    # Scores of different folds are on different scales: AUC within folds, averaged by pairs.
    for pairs, _, psi, where in parts:
        influence += np.bincount(where, psi * pairs / total_pairs, minlength=n_users)
    se = math.sqrt(n_users / (n_users - 1) * float((influence**2).sum()))
    t = t_quantile(level, n_users - 1)
    method = (
        f"AUC real against simulated, {what}, logistic on squares and products, {folds} folds by user, user-cluster t"
    )
    return judged(name, Estimate(auc, auc - t * se, auc + t * se, level, n_users, method), threshold, below=0.60)


def _auc_placements(score: Floats, label: Floats) -> tuple[float, Floats]:
    """AUC and each unit's contribution to its error (DeLong placements, centred, divided by the class size)."""
    positive, negative = np.sort(score[label == 1]), np.sort(score[label == 0])
    above = (np.searchsorted(negative, score, "left") + np.searchsorted(negative, score, "right")) / (2 * len(negative))
    below = 1 - (np.searchsorted(positive, score, "left") + np.searchsorted(positive, score, "right")) / (
        2 * len(positive)
    )
    auc = float(above[label == 1].mean())
    return auc, np.where(label == 1, (above - auc) / len(positive), (below - auc) / len(negative))


def outcome_features(p: Floats, y: Floats, user: Ints) -> tuple[NDArray[np.float64], Ints]:
    """Features of each user's answers to the rows that they were shown: [users, 3], and the users.

    Mean outcome, mean outcome in the better-scored half, log number of rows. Nothing about the order of the rows: where
    time stamps are bursts of entry (like films rated in a row) the log does not identify it.
    """
    users, index, count = np.unique(user, return_inverse=True, return_counts=True)
    n = len(users)
    half = top_rows(p, user, share=0.5)
    top = np.bincount(index, y * half, minlength=n) / np.bincount(index, half, minlength=n)
    return np.column_stack([np.bincount(index, y, minlength=n) / count, top, np.log(count)]), users


def answers_classifier(rows: ScoredRows, rng: np.random.Generator, *, level: float = 0.95) -> Check:
    """The classifier on users' answers to the logged rows, where there are no sessions: printed, not counted.

    Real outcomes against outcomes drawn from p. Its band was measured for sessions; sums over a user's rows tell more
    the more rows there are, so that band would judge the length of the log.
    """
    drawn = (rng.random(len(rows)) < rows.p).astype(np.float64)
    real, users = outcome_features(rows.p, rows.y, rows.user)
    simulated, _ = outcome_features(rows.p, drawn, rows.user)
    check = two_sample_classifier(real, users, simulated, users, rng, level=level, what="users' answers to logged rows")
    if check.estimate.value is None:
        return check
    shown = f"AUC {check.estimate.value:.3f} on users' answers to the logged rows is printed, not counted"
    return replace(check, verdict="not made", reason=f"the log has no sessions to tell apart; {shown}")


# ---------------------------------------------------------------------------------------- responsiveness, determinism


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
    elif leave.source != "fitted":
        checks.append(Check(name, estimate, threshold, "not made", "the leave effect is assumed: printed, not counted"))
    elif leave.se is None or abs(float(leave.value)) <= float(ndtri(0.5 + level / 2)) * leave.se:
        checks.append(Check(name, estimate, threshold, "not made", "the fitted leave effect's interval contains 0"))
    else:
        checks.append(judged(name, estimate, threshold, above=length_floor, strict=True))
    return tuple(checks)


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


def splits(split: Split, log: InteractionLog, fitted_users: Ints) -> Check:
    """The users a judge world was fitted on are judge users, none is held out, and late rows exist to score."""
    name, threshold = "splits", "exactly 0"
    foreign = int((split.role[fitted_users] != JUDGE).sum())
    estimate = Estimate(
        float(foreign), float(foreign), float(foreign), 1.0, len(fitted_users), "fitted users who are no judge users"
    )
    if foreign:
        return Check(name, estimate, threshold, "fail", f"{foreign} fitted users are not judge users")
    if not len(split.rows(log, split.users(JUDGE), late=True)):
        return Check(name, estimate, threshold, "fail", "the judge users have no future rows to score")
    return Check(name, estimate, threshold, "pass")


# ------------------------------------------------------------------------------------------------- ranking agreement


def ranking_agreement(
    simulated: NDArray[np.float64],
    reference: NDArray[np.float64],
    rng: np.random.Generator,
    *,
    reference_weight: NDArray[np.float64] | None = None,
    resamples: int = 1000,
    level: float = 0.95,
) -> Check:
    """Kendall's tau-b of policies' values between simulator and an off-policy or on-line reference; lower > 0.

    Pairs of policies that the reference does not separate (95 % interval of their difference contains 0) are left
    out; six pairs have to be left. Five policies need tau >= .8, four need 1.

    Args:
        simulated: [P, U] value of each policy for each simulated user.
        reference: [P, V] numerators of each policy's reference value by user.
        rng: draws the user bootstrap of both sides.
        reference_weight: [P, V] denominators (1 where not given).
        resamples: bootstrap resamples.
        level: of the interval.
    """
    name, threshold = "ranking agreement", "lower > 0, tau >= .8 (K = 5), 1 (K = 4)"
    n_policies, n_sim = simulated.shape
    n_ref = reference.shape[1]
    weight = np.ones_like(reference) if reference_weight is None else reference_weight
    value = reference.sum(1) / weight.sum(1)
    score = (reference - value[:, None] * weight) / weight.sum(1, keepdims=True)
    pairs = []
    t = t_quantile(level, max(1, n_ref - 1))
    for a in range(n_policies):
        for b in range(a):
            se = math.sqrt(n_ref / max(1, n_ref - 1) * float(((score[a] - score[b]) ** 2).sum()))
            if abs(value[a] - value[b]) > t * se:
                pairs.append((a, b))
    if len(pairs) < 6:
        return not_made(name, threshold, f"{len(pairs)} pairs of policies are separated by the reference; needs 6")
    first, second = (np.array(side) for side in zip(*pairs, strict=True))

    def tau(sim: Floats, ref: Floats) -> float:
        a, b = np.sign(sim[first] - sim[second]), np.sign(ref[first] - ref[second])
        scale = math.sqrt(float((a != 0).sum()) * float((b != 0).sum()))
        return float((a * b).sum() / scale) if scale else 0.0

    replicates = []
    for _ in range(resamples):
        w_sim = rng.multinomial(n_sim, np.full(n_sim, 1 / n_sim))
        w_ref = rng.multinomial(n_ref, np.full(n_ref, 1 / n_ref))
        replicates.append(tau(simulated @ w_sim / n_sim, (reference @ w_ref) / np.maximum(weight @ w_ref, 1e-300)))
    observed = tau(simulated.mean(1), value)
    low, high = np.quantile(replicates, [0.5 - level / 2, 0.5 + level / 2])
    needed = 1.0 if n_policies <= 4 else 0.8 if n_policies == 5 else -1.0
    estimate = Estimate(
        observed,
        min(float(low), observed),
        max(float(high), observed),
        level,
        min(n_sim, n_ref),
        f"Kendall tau-b over {len(pairs)} separated pairs of {n_policies} policies, user bootstrap of both sides",
    )
    check = judged(name, estimate, threshold, above=0.0, strict=True)
    if check.passed and observed < needed - 1e-9:
        return replace(
            check,
            verdict="undecided",
            reason=f"tau {observed:.2f} is below the {needed} that {n_policies} policies need",
        )
    return check


# ------------------------------------------------------------------------------------------------------------ verdict


@dataclass(frozen=True, slots=True)
class WorldEvidence:
    """What there is to judge one judge world by.

    Attributes:
        number: 1 for B_1 (fitted on all judge users), 2.. for the refits.
        future: predictions for the judge users' future rows.
        held_out: predictions for the held-out users' later half, or None.
        behaviour: responsiveness and determinism checks of the world (same behaviour in all worlds: B_1's suffice).
    """

    number: int
    future: ScoredRows
    held_out: ScoredRows | None = None
    behaviour: tuple[Check, ...] = ()


@dataclass(frozen=True, slots=True)
class Fidelity:
    """Whether simulated numbers may be believed, why not, and every check.

    Attributes:
        trusted: every check that the data allow passed, and the mandatory ones could be made.
        reasons: what failed, what is undecided, what could not be verified; shown beside every simulated number.
        checks: all checks; those that do not count (held-out users) are among them.
        reliability: curve of B_1 on the future rows.
        floor: plain calibration error of B_1 beside that of a perfect model.
        comparisons: named log-loss gains (over the bias model, matrix factorisation, the frozen encoder).
        blocked_by: the checks that keep the simulator from being trusted.
    """

    trusted: bool
    reasons: tuple[str, ...]
    checks: tuple[Check, ...]
    reliability: tuple[ReliabilityBin, ...] = ()
    floor: CalibrationFloor | None = None
    comparisons: Mapping[str, Estimate] = field(default_factory=dict)
    blocked_by: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The `fidelity` block of the report."""
        return {
            "trusted": self.trusted,
            "reasons": list(self.reasons),
            "checks": [check.to_json() for check in self.checks],
            "reliability": [
                {"predicted": b.predicted, "observed": b.observed, "low": b.low, "high": b.high, "n": b.n}
                for b in self.reliability
            ],
            "calibration_floor": None
            if self.floor is None
            else {"error": self.floor.error, "perfect": self.floor.perfect, "perfect_95": self.floor.perfect_95},
            "comparisons": {name: estimate.to_json() for name, estimate in self.comparisons.items()},
        }


def prediction_checks(rows: ScoredRows, rng: Callable[[str], np.random.Generator]) -> tuple[Check, ...]:
    """All checks of one world on one set of rows."""
    return (
        calibration_in_the_large(rows),
        calibration_slope(rows),
        calibration_error(rows, rng("calibration error")),
        *skill(rows),
        *skill(rows, loss="Brier"),
        discrimination(rows),
        top_of_list(rows),
        popularity_strata(rows),
    )


def assess(
    worlds: Sequence[WorldEvidence],
    *,
    log: InteractionLog,
    split: Split,
    fitted_users: Mapping[int, Ints],
    root: np.random.SeedSequence,
    sessions: tuple[SessionTable, SessionTable] | None = None,
    unbiased: ScoredRows | None = None,
    ranking: Check | None = None,
    comparisons: Mapping[str, Estimate] | None = None,
) -> Fidelity:
    """Check every judge world and say whether the simulator is trusted.

    Trusted means: B_1 passes every check that the data allow, the other worlds pass O/E, slope and skill over the
    base rate, and the mandatory checks exist. A check that cannot be made does not block, unless it is mandatory; it
    is a reason that is shown. A check failing on held-out users does not block; it is named among the reasons.

    Args:
        worlds: evidence for each judge world, B_1 among them.
        log: the interaction log, for what its times identify.
        split: the split, to check who was fitted on.
        fitted_users: number of a world -> users it was fitted on.
        root: root of the scenario's streams; the streams "fidelity" are used.
        sessions: sessions of the log and of the simulator, where the log has them.
        unbiased: B_1's predictions for rows of random exposure, where the log has them.
        ranking: the ranking-agreement check, where an off-policy or on-line reference exists.
        comparisons: further named gains for the report.
    """
    checks: list[Check] = []
    blocking: list[Check] = []
    notes: list[str] = []
    for evidence in sorted(worlds, key=lambda e: e.number):
        number = evidence.number
        draw = partial(stream, root, "fidelity", number)
        own = [
            splits(split, log, fitted_users[number]),
            *prediction_checks(evidence.future, partial(draw, FUTURE_ROWS)),
        ]
        if number == 1:
            own += [*unbiased_test(unbiased), *_session_checks(log, sessions, evidence.future, draw("sessions"))]
            own += [ranking] if ranking is not None else []
        own = [replace(c, world=number, rows=FUTURE_ROWS) for c in [*own, *evidence.behaviour]]
        checks += own
        blocking += [c for c in own if number == 1 or c.name in (*WEAKER, "splits", "determinism")]
        if evidence.held_out is not None:
            held = prediction_checks(evidence.held_out, partial(draw, HELD_OUT_USERS))
            held = tuple(replace(c, world=number, rows=HELD_OUT_USERS) for c in held)
            checks += held
            notes += [f"{c.label}: {c.reason}" for c in held if c.passed is False and (number == 1 or c.name in WEAKER)]

    reasons = [f"{c.label}: {c.reason}" for c in blocking if c.passed is False]
    made = {c.name for c in blocking if c.passed is not None and c.world == 1}
    missing = [name for name in MANDATORY if name not in made]
    reasons += [f"{name} could not be made, and it is mandatory" for name in missing]
    trusted = not reasons
    blocked_by = (*(c.label for c in blocking if c.passed is False), *missing)
    if unbiased is None:
        reasons.append("off-policy extrapolation unverified: the log has no rows with random exposure")
    unverified = [c for c in blocking if c.passed is None and not c.name.startswith("unbiased test")]
    reasons += [f"{c.label}, not verified: {c.reason}" for c in unverified]
    reasons += notes
    first = next(e for e in worlds if e.number == 1)
    gains = dict(comparisons or {})
    for place, rows in (("future rows", first.future), ("held-out users", first.held_out)):
        if rows is not None and rows.p_bias is not None:
            gain = compare_predictions("over the bias model", rows.p, rows.p_bias, rows.y, rows.user)
            gains.setdefault(f"bias model, {place}", gain)
    return Fidelity(
        trusted,
        tuple(reasons),
        tuple(checks),
        reliability_curve(first.future),
        calibration_floor(first.future, stream(root, "fidelity", 1, "floor")),
        gains,
        blocked_by,
    )


def behaviour_checks(world: World, root: np.random.SeedSequence, *, longer_is_better: bool = True) -> tuple[Check, ...]:
    """Responsiveness and determinism of one world."""
    seed = stream_word(root, "fidelity", "behaviour", bits=63)
    return (*responsiveness(world, seed=seed, longer_is_better=longer_is_better), determinism(world, seed=seed))


def _session_checks(
    log: InteractionLog,
    sessions: tuple[SessionTable, SessionTable] | None,
    rows: ScoredRows,
    rng: np.random.Generator,
) -> tuple[Check, ...]:
    why = why_no_sessions(log)
    if why is not None or sessions is None:
        why = why or "the log's sessions were not simulated"
        return (*session_checks(None, None, rng, why=why), answers_classifier(rows, rng))
    real, simulated = sessions
    names = sorted(set(real.features) & set(simulated.features))
    tables = [np.column_stack([table.features[name] for name in names]) for table in sessions]
    told = two_sample_classifier(tables[0], real.user, tables[1], simulated.user, rng)
    return (*session_checks(real, simulated, rng), told)
