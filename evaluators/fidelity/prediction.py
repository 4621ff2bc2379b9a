"""What predictions are worth: skill, discrimination, the top of the list, rare items, rows of random exposure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from evaluators.estimate import Estimate
from evaluators.fidelity.calibration import (
    calibration_error,
    calibration_in_the_large,
    calibration_slope,
    observed_over_expected,
)
from evaluators.fidelity.checks import Check, Floats, Ints, judged, not_made, ratio_by_user
from evaluators.fidelity.scored_rows import ScoredRows, log_loss

FEWEST_EXPECTED = 30
"""Expected events under which a stratum of rows identifies no O/E."""


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


def behaviour_predictions(name: str, rows: ScoredRows, rng: Callable[[str], np.random.Generator]) -> tuple[Check, ...]:
    """Calibration and skill of the predictions of a further behaviour (purchase, return, ...), its name in front."""
    checks = (
        calibration_in_the_large(rows),
        calibration_slope(rows),
        calibration_error(rows, rng(f"{name}: calibration error")),
        skill(rows)[0],
        discrimination(rows),
    )
    return tuple(replace(check, name=f"{name}: {check.name}") for check in checks)


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
    order = np.argsort(rows.item_exposure, kind="stable")
    parts = {
        f"stratum {k} of {strata} by item exposure": part for k, part in enumerate(np.array_split(order, strata), 1)
    }
    return worst_stratum("popularity strata", parts, rows.p, rows.y, rows.user, level=level)


def worst_stratum(
    name: str,
    parts: Mapping[str, NDArray[np.generic]],
    p: Floats,
    y: Floats,
    user: Ints,
    *,
    level: float = 0.95,
) -> Check:
    """O/E in parts of n rows, each in [0.8, 1.25], Bonferroni; the worst part is the estimate, all are diagnostics.

    Args:
        name: of the check.
        parts: what a part is called -> its rows, as numbers or as a mask [n].
        p: [n] expected.
        y: [n] observed.
        user: [n] the cluster.
        level: of all intervals together.
    """
    threshold = "each [0.8, 1.25]"
    simultaneous = 1 - (1 - level) / len(parts)
    table: list[dict[str, Any]] = []
    checks: list[Check] = []
    for k, (which, part) in enumerate(parts.items(), 1):
        expected = float(p[part].sum())
        if expected < FEWEST_EXPECTED:
            why = f"under {FEWEST_EXPECTED} expected events"
            table.append({"stratum": k, "expected": expected, "not_identifiable": why})
            continue
        method = f"O/E, {which}, Bonferroni"
        estimate = observed_over_expected(p[part], y[part], user[part], level=simultaneous, method=method)
        check = judged(name, estimate, threshold, above=0.8, below=1.25)
        checks.append(replace(check, reason=check.reason and f"{which}: {check.reason}"))
        limits = {"value": estimate.value, "low": estimate.low, "high": estimate.high}
        table.append({"stratum": k, "expected": expected, **limits})
    if not checks:
        return not_made(name, threshold, f"all {len(parts)} strata hold under {FEWEST_EXPECTED} expected events")
    worst = max(
        checks,
        key=lambda c: ({"fail": 2, "undecided": 1}.get(c.verdict, 0), abs(math.log(max(c.estimate.value or 0, 1e-9)))),
    )
    return replace(worst, estimate=replace(worst.estimate, diagnostics={**worst.estimate.diagnostics, "strata": table}))


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
