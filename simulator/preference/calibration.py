"""Calibration of a logit on users left out of the fit, shrunk by how little a few dozen users can tell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

SLOPE_SD, INTERCEPT_SD = 0.03, 0.05
"""Prior standard deviations about 1 and about the drift. Forty tuning users leave the slope uncertain by .13 and the
intercept by .14 (clustered by user); taken as they come they did more harm than good on unseen users, see docs."""
WEAK = 1.0
FEWEST_CLUSTERS = 10
LEAST_SLOPE = 0.05


@dataclass(frozen=True, slots=True)
class Calibration:
    """Calibrated logit = slope * logit + intercept."""

    slope: float
    intercept: float


def calibrate(
    logit: NDArray[np.float64], outcome: NDArray[np.float32], user: NDArray[np.int64], *, drift: float = 0.0
) -> Calibration:
    """Posterior mean of slope and intercept of the outcome on the logit (Platt, 2000, with users as clusters).

    The likelihood is the normal one of the maximum-likelihood estimate with its covariance clustered by user, so that
    many tuning users overrule the prior and few do not.

    Args:
        logit: [k] uncalibrated logit of the tuning users' late rows.
        outcome: [k] 0 or 1.
        user: [k] tuning user of each row.
        drift: centre of the intercept's prior, from `drift_of`.
    """
    design = np.column_stack([logit, np.ones_like(logit)])
    centre = np.array([1.0, drift])
    theta = centre.copy()
    for _ in range(50):
        p = expit(design @ theta)
        curvature = (design * (p * (1 - p))[:, None]).T @ design + np.eye(2) / WEAK**2
        step = np.linalg.solve(curvature, design.T @ (outcome - p) - (theta - centre) / WEAK**2)
        theta = theta + step
        if np.abs(step).max() < 1e-9:
            break
    score = design * (outcome - p)[:, None]
    n_users = len(np.unique(user))
    if n_users >= FEWEST_CLUSTERS:
        by_user = np.column_stack([np.bincount(user, column) for column in score.T])
        meat = by_user.T @ by_user * n_users / (n_users - 1)
    else:  # too few to see how rows of one user go together: as if they all said the same
        meat = (design * (p * (1 - p))[:, None]).T @ design * (len(logit) / n_users)
    bread = np.linalg.inv(curvature)
    precision = np.linalg.inv(bread @ meat @ bread + 1e-12 * np.eye(2))
    prior = np.diag([1 / SLOPE_SD**2, 1 / INTERCEPT_SD**2])
    slope, intercept = np.linalg.solve(precision + prior, precision @ theta + prior @ centre)
    # A model that ranks the wrong way round on the tuning users is not turned over.
    return Calibration(float(max(slope, LEAST_SLOPE)), float(intercept))


def drift_of(logit: NDArray[np.float64], outcome: NDArray[np.float32]) -> float:
    """Intercept by which predictions made in time order are off, from the fitting users themselves.

    Training hides rows at random, but later rows are liked less (or more) than earlier ones say. The second half of
    every fitting user's early rows, predicted from the first half, shows by how much; 0 where there are no such rows.
    """
    shift = 0.0
    for _ in range(25):
        if len(logit) == 0:
            break
        p = expit(logit + shift)
        step = float(np.sum(outcome - p) / (np.sum(p * (1 - p)) + 1 / WEAK**2))
        shift += step
        if abs(step) < 1e-9:
            break
    return shift
