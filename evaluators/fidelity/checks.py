"""One question to a simulator and its answer: the equivalence rule that every check obeys (EVALUATION, section 6).

A check has an estimate with a user-cluster interval and a band. It passes when the whole interval lies in the band,
fails when the whole interval lies outside, and is undecided otherwise, which counts as not passed: too little data is
never a proof. A check that the data do not allow has `passed` None and the reason.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from evaluators.estimate import Estimate
from evaluators.intervals import Ratios, cluster_index, t_interval, user_sums

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Verdict = Literal["pass", "fail", "undecided", "not made"]
FUTURE_ROWS, HELD_OUT_USERS = "future rows", "held-out users"


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
        counts: whether trust hangs on it; False where it is about what the simulator does not simulate.
        mandatory: whether it blocks trust where it is not made although the data allow it.
    """

    name: str
    estimate: Estimate
    threshold: str
    verdict: Verdict
    reason: str = ""
    world: int | None = None
    rows: str | None = None
    counts: bool = True
    mandatory: bool = False

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


def ratio_by_user(a: Floats, b: Floats, user: Ints, *, level: float = 0.95, method: str) -> Estimate:
    """Ratio sum a / sum b over n rows with the user-cluster t interval; `b` is positive or zero."""
    index, n_users = cluster_index(user, len(a))
    ratio = Ratios(user_sums(a, index, n_users)[None], user_sums(b, index, n_users)[None])
    if n_users < 2 or ratio.denominator.sum() <= 0:
        why = f"users: {n_users} with a denominator of {ratio.denominator.sum():g}; needs 2 and more than 0"
        return Estimate.withhold(method, why, n=n_users, level=level)
    low, high = t_interval(ratio.value, ratio.scores(), level)
    return Estimate(ratio.value, low, high, level, n_users, method)
