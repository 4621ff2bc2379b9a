"""Calibration of a logit on users left out of the fit, shrunk by how little a few dozen users can tell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, stdtrit

from simulator.errors import InputError

SLOPE_SD, INTERCEPT_SD, POPULARITY_SD = 0.03, 0.05, 0.1
"""Prior standard deviations about 1, 0 and 0. Forty tuning users leave the slope uncertain by .13, the intercept by
.14, the effect of popularity by .09 (clustered by user); taken as they come they did more harm than good on unseen
users, see docs."""
REHEARSED_INTERCEPT_SD = 0.2
"""The intercept's prior where a rehearsal says more: wide, for the rehearsal is shrunk by its own uncertainty."""
TRANSFER_SD = (0.1, 0.03, 0.03)
"""How much slope, intercept and effect of popularity of the model may differ from those of its rehearsal, which has a
fifth fewer rows and one member."""
WEAK = 1.0
FEWEST_CLUSTERS = 10
FEWEST_EVENTS = 5
"""Outcomes of either kind under which rows calibrate nothing."""
LEAST_SLOPE = 0.05


@dataclass(frozen=True, slots=True)
class Calibration:
    """Calibrated logit = slope * logit + intercept + popularity * centred log popularity of the item."""

    slope: float
    intercept: float
    popularity: float = 0.0


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """Later rows of the fitting users, as a fit without them predicts them.

    Attributes:
        logit: [h] uncalibrated logit.
        outcome: [h] 0 or 1.
        user: [h] cluster.
        popularity: [h] centred log popularity of the row's item.
        weight: [h] weight of each row; None where all weigh the same.
        farther: what the intercept is multiplied by: how much farther off the rows lie that will be asked about.
    """

    logit: NDArray[np.float64]
    outcome: NDArray[np.float32]
    user: NDArray[np.int64]
    popularity: NDArray[np.float32]
    weight: NDArray[np.float32] | None = None
    farther: float = 1.0

    def says(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Slope, intercept and effect of popularity that the rows lack, for the model itself; their covariance."""
        theta, covariance = regression(self.logit, self.outcome, self.user, None, self.weight, self.popularity)
        scale = np.array([1.0, self.farther, 1.0])
        return scale * theta, scale[:, None] * covariance * scale + np.diag(np.square(TRANSFER_SD))


def calibrate(
    logit: NDArray[np.float64],
    outcome: NDArray[np.float32],
    user: NDArray[np.int64],
    *,
    popularity: NDArray[np.float32] | None = None,
    rehearsed: Rehearsed | None = None,
    weight: NDArray[np.float32] | None = None,
) -> Calibration:
    """Posterior mean of slope, intercept and effect of popularity on the logit (Platt, 2000, with users as clusters).

    Each likelihood is the normal one of the maximum-likelihood estimate with its covariance clustered by user, so that
    many users overrule the prior and few do not.

    Args:
        logit: [k] uncalibrated logit of the tuning users' late rows.
        outcome: [k] 0 or 1.
        user: [k] tuning user of each row.
        popularity: [k] centred log popularity of each row's item; without it the logit alone is calibrated.
        rehearsed: what the fitting users' own later rows say; needs `popularity`.
        weight: [k] weight of each row; all the same where left out.
    """
    if rehearsed is not None and not _both_occur(rehearsed.outcome):
        rehearsed = None  # it says nothing, so the narrow prior holds
    columns = 2 if popularity is None else 3
    centre = np.array([1.0, 0.0, 0.0])[:columns]
    level = INTERCEPT_SD if rehearsed is None else REHEARSED_INTERCEPT_SD
    precision = np.diag([1 / SLOPE_SD**2, 1 / level**2, 1 / POPULARITY_SD**2][:columns])
    pull = precision @ centre
    said = []
    if _both_occur(outcome):
        said.append(regression(logit, outcome, user, centre, weight, popularity))
    if rehearsed is not None:
        said.append(rehearsed.says())
    for theta, covariance in said:
        information = np.linalg.inv(covariance + 1e-12 * np.eye(columns))
        precision = precision + information
        pull = pull + information @ theta
    found = np.linalg.solve(precision, pull)
    # A model that ranks the wrong way round on the tuning users is not turned over.
    return Calibration(float(max(found[0], LEAST_SLOPE)), *(float(one) for one in found[1:]))


def _both_occur(outcome: NDArray[np.float32]) -> bool:
    """Whether rows tell a level at all: without events the likeliest one is minus infinity, and looks certain."""
    liked = float(outcome.sum())
    return min(liked, len(outcome) - liked) >= FEWEST_EVENTS


def platt(
    logit: NDArray[np.float64], outcome: NDArray[np.float32], user: NDArray[np.int64], *, loss: str
) -> Calibration:
    """Plain Platt scaling: a ranking loss leaves the scale and the level of a logit free, so no prior about 1 holds.

    Raises:
        InputError: the 95 % interval of the slope, clustered by user, reaches 0: no probability can be read off it.
    """
    theta, covariance = regression(logit, outcome, user)
    half = float(stdtrit(max(len(np.unique(user)) - 1, 1), 0.975) * np.sqrt(covariance[0, 0]))
    if theta[0] - half <= 0:
        raise InputError(
            f"preference.loss: '{loss}' gives scores that cannot be calibrated (slope {theta[0]:.2f} +- {half:.2f} on "
            "the tuning users); use cross_entropy, or a log with more users"
        )
    return Calibration(float(theta[0]), float(theta[1]))


def regression(
    logit: NDArray[np.float64],
    outcome: NDArray[np.float32],
    user: NDArray[np.int64],
    centre: NDArray[np.float64] | None = None,
    weight: NDArray[np.float32] | None = None,
    popularity: NDArray[np.float32] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Slope, intercept and effect of popularity, where given, by (weighted) logistic regression; their covariance.

    Hardly shrunk to `centre`; the covariance is clustered by user.
    """
    each = np.ones(len(logit)) if weight is None else weight.astype(np.float64)
    design = np.column_stack([logit, np.ones_like(logit), *([] if popularity is None else [popularity])])
    centre = np.eye(design.shape[1])[0] if centre is None else centre
    theta = centre.copy()
    for _ in range(50):
        p = expit(design @ theta)
        curvature = (design * (each * p * (1 - p))[:, None]).T @ design + np.eye(len(theta)) / WEAK**2
        step = np.linalg.solve(curvature, design.T @ (each * (outcome - p)) - (theta - centre) / WEAK**2)
        theta = theta + step
        if np.abs(step).max() < 1e-9:
            break
    score = design * (each * (outcome - p))[:, None]
    n_users = len(np.unique(user))
    if n_users >= FEWEST_CLUSTERS:
        by_user = np.column_stack([np.bincount(user, column) for column in score.T])
        meat = by_user.T @ by_user * n_users / (n_users - 1)
    else:  # too few to see how rows of one user go together: as if they all said the same
        meat = (design * (each**2 * p * (1 - p))[:, None]).T @ design * (len(logit) / n_users)
    bread = np.linalg.inv(curvature)
    bread_meat: NDArray[np.float64] = bread @ meat @ bread
    return theta, bread_meat
