"""What may follow a click: like, purchase, dwell time, rating. One calibrated head each, fitted on the clicked rows.

A head reads the logit z that the click had (calibrated appeal, see `simulator.preference`): like and purchase by a
logistic regression, dwell by a regression of its logarithm with the residuals' own distribution, rating by a
proportional-odds model. Every draw is one uniform through an inverse distribution function, so that two agents meet the
same luck.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from simulator.behaviour.assumptions import Assumption
from simulator.errors import LogError

Kind = Literal["like", "purchase", "dwell", "rating"]
Floats = NDArray[np.float64]

LEVELS = 256
"""Equally likely values to which a dwell time's residual is discretised."""
FEWEST_ROWS = 50
_MOST_VALUES = 11


@dataclass(frozen=True, slots=True)
class Head:
    """One behaviour after a click, as a function of the click's logit z and a uniform u.

    Attributes:
        kind: like and purchase: 1 where u < sigma(intercept + slope z). dwell: exp(intercept + slope z +
            levels[u * LEVELS]) seconds. rating: values[r], r the number of cuts c with u >= sigma(c - slope z).
        column: column of the log that it was fitted on.
        intercept, slope: coefficients; their standard errors cluster by user.
        intercept_se, slope_se: standard errors.
        levels: [LEVELS] residuals of log dwell, rising, for dwell; [R - 1] cuts for rating; else empty.
        values: [R] ratings, rising; else empty.
        n: clicked rows that it was fitted on.
    """

    kind: Kind
    column: str
    intercept: float
    slope: float
    intercept_se: float
    slope_se: float
    levels: tuple[float, ...] = ()
    values: tuple[float, ...] = ()
    n: int = 0

    def assumptions(self) -> tuple[Assumption, ...]:
        """Rows of the report."""
        own = Assumption(self.kind, "slope", self.slope, "fitted", self.slope_se)
        if self.kind == "rating":
            return (own,)
        return (Assumption(self.kind, "intercept", self.intercept, "fitted", self.intercept_se), own)

    def draw(self, z: Floats, u: Floats) -> Floats:
        """[n] the behaviour of n clicks: what the kernel does, in numpy."""
        if self.kind in ("like", "purchase"):
            return (u < _sigma(self.intercept + self.slope * z)).astype(np.float64)
        if self.kind == "dwell":
            return np.exp(self.intercept + self.slope * z + np.asarray(self.levels)[(u * LEVELS).astype(np.int64)])
        above = u[:, None] >= _sigma(np.asarray(self.levels)[None, :] - self.slope * z[:, None])
        return np.asarray(self.values)[above.sum(axis=1)]

    def mean(self, z: Floats) -> Floats:
        """[n] expected value of the behaviour at logits z."""
        if self.kind in ("like", "purchase"):
            return _sigma(self.intercept + self.slope * z)
        if self.kind == "dwell":
            return np.exp(self.intercept + self.slope * z) * np.exp(np.asarray(self.levels)).mean()
        below = _sigma(np.asarray(self.levels)[None, :] - self.slope * z[:, None])
        share = np.diff(np.hstack([np.zeros((len(z), 1)), below, np.ones((len(z), 1))]), axis=1)
        return share @ np.asarray(self.values)


def fit_head(kind: Kind, column: str, value: Floats, z: Floats, user: NDArray[np.int64]) -> Head:
    """Fit one head on clicked rows.

    Args:
        kind: what the column is.
        column: its name, for messages and the report.
        value: [n] the behaviour; NaN where the log does not say (such rows are left out).
        z: [n] logit of the click, from a model that has not seen these rows.
        user: [n] who, the cluster of the standard errors.

    Raises:
        LogError: too few rows, or values that are no such behaviour.
    """
    known = np.isfinite(value)
    value, z, user = value[known], z[known], user[known]
    if len(value) < FEWEST_ROWS:
        raise LogError(
            f"simulator.behaviours.{column}: {len(value)} clicked rows have a value, {FEWEST_ROWS} are needed; "
            "leave the column out"
        )
    return _FITS[kind](kind, column, value, z, user)


def _fit_yes_no(kind: Kind, column: str, value: Floats, z: Floats, user: NDArray[np.int64]) -> Head:
    import statsmodels.api as sm

    if not np.isin(value, (0.0, 1.0)).all() or value.min() == value.max():
        raise LogError(
            f"simulator.behaviours.{column}: a {kind} is 0 or 1 and both must occur among clicked rows; name another"
        )
    found = sm.GLM(value, sm.add_constant(z, has_constant="add"), family=sm.families.Binomial()).fit(
        cov_type="cluster", cov_kwds={"groups": user}
    )
    (intercept, slope), (intercept_se, slope_se) = found.params, found.bse
    return Head(kind, column, float(intercept), float(slope), float(intercept_se), float(slope_se), n=len(value))


def _fit_dwell(kind: Kind, column: str, value: Floats, z: Floats, user: NDArray[np.int64]) -> Head:
    import statsmodels.api as sm

    if value.min() < 0:
        raise LogError(f"simulator.behaviours.{column}: a dwell time is {value.min():g} seconds; none may be below 0")
    logs = np.log(np.maximum(value, _smallest(value)))
    found = sm.OLS(logs, sm.add_constant(z, has_constant="add")).fit(cov_type="cluster", cov_kwds={"groups": user})
    (intercept, slope), (intercept_se, slope_se) = found.params, found.bse
    levels = np.quantile(found.resid, (np.arange(LEVELS) + 0.5) / LEVELS)
    # The mean, not only the distribution's shape, is to be right: dwell is a metric that sums seconds.
    levels += np.log(value.mean() / np.mean(np.exp(intercept + slope * z) * np.exp(levels).mean()))
    return Head(
        kind, column, float(intercept), float(slope), float(intercept_se), float(slope_se),
        tuple(float(level) for level in levels), n=len(value),
    )  # fmt: skip


def _smallest(value: Floats) -> float:
    """What stands for 0 seconds: half of the least time above it."""
    above = value[value > 0]
    return float(above.min()) / 2 if len(above) else 1.0


def _fit_rating(kind: Kind, column: str, value: Floats, z: Floats, user: NDArray[np.int64]) -> Head:
    import statsmodels.api as sm
    from statsmodels.miscmodels.ordinal_model import OrderedModel

    values, place = np.unique(value, return_inverse=True)
    if not 2 <= len(values) <= _MOST_VALUES:
        raise LogError(
            f"simulator.behaviours.{column}: {len(values)} different ratings among clicked rows, 2 to {_MOST_VALUES} "
            "are needed; name another column"
        )
    if len(values) == 2:  # the same model, without the general one's search
        two = sm.GLM(place.astype(np.float64), sm.add_constant(z, has_constant="add"), family=sm.families.Binomial())
        found = two.fit(cov_type="cluster", cov_kwds={"groups": user})
        cuts: tuple[float, ...] = (-float(found.params[0]),)
        slope, slope_se = float(found.params[1]), float(found.bse[1])
    else:
        model = OrderedModel(place, z[:, None], distr="logit")
        found = model.fit(method="bfgs", disp=False)
        slope = float(found.params[0])
        cuts = tuple(float(cut) for cut in model.transform_threshold_params(found.params[1:])[1:-1])
        slope_se = _ordinal_slope_se(place, z, user, slope, np.asarray(cuts))
    return Head(kind, column, 0.0, slope, 0.0, slope_se, cuts, tuple(float(v) for v in values), len(value))


def _ordinal_slope_se(
    place: NDArray[np.int64], z: Floats, user: NDArray[np.int64], slope: float, cuts: Floats
) -> float:
    """Standard error of the slope, the user as cluster: statsmodels' ordered model has none that clusters."""
    edges = np.concatenate([[-np.inf], cuts, [np.inf]])
    upper, lower = _sigma(edges[place + 1] - slope * z), _sigma(edges[place] - slope * z)
    d_upper, d_lower = upper * (1 - upper), lower * (1 - lower)
    mass = np.maximum(upper - lower, 1e-300)
    score = np.zeros((len(z), len(cuts) + 1))
    score[:, -1] = -z * (d_upper - d_lower) / mass
    rows = np.arange(len(z))
    top, bottom = place < len(cuts), place > 0
    score[rows[top], place[top]] += (d_upper / mass)[top]
    score[rows[bottom], place[bottom] - 1] -= (d_lower / mass)[bottom]
    clusters, of_user = np.unique(user, return_inverse=True)
    summed = np.zeros((len(clusters), score.shape[1]))
    np.add.at(summed, of_user, score)
    inverse = np.linalg.pinv(score.T @ score, hermitian=True)  # information as the scores' outer product
    covariance = inverse @ (summed.T @ summed) @ inverse
    return float(np.sqrt(covariance[-1, -1]))


_FITS = {"like": _fit_yes_no, "purchase": _fit_yes_no, "dwell": _fit_dwell, "rating": _fit_rating}


def _sigma(x: Floats) -> Floats:
    from scipy.special import expit

    return np.asarray(expit(x), np.float64)
