"""Platt calibration on users left out of the fit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SLOPE_SD, INTERCEPT_SD = 0.5, 0.5
"""Prior standard deviations of slope and intercept about 1 and 0: a handful of tuning rows cannot turn a model over."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Calibrated logit = slope * logit + intercept."""

    slope: float
    intercept: float


def platt(logit: NDArray[np.float64], outcome: NDArray[np.float32]) -> Calibration:
    """MAP slope and intercept of the outcome on the logit, by Newton's method (Platt, 2000, with a prior).

    A slope at or below .05 (a model without any skill on these rows) is held there: a calibrated model must not rank
    the other way round.
    """
    design = np.column_stack([logit, np.ones_like(logit)])
    prior = np.array([1 / SLOPE_SD**2, 1 / INTERCEPT_SD**2])
    centre = np.array([1.0, 0.0])
    theta = centre.copy()
    for _ in range(25):
        p = 1 / (1 + np.exp(-(design @ theta)))
        gradient = design.T @ (outcome - p) - prior * (theta - centre)
        curvature = (design * (p * (1 - p))[:, None]).T @ design + np.diag(prior)
        step = np.linalg.solve(curvature, gradient)
        theta = theta + step
        if np.abs(step).max() < 1e-9:
            break
    return Calibration(float(max(theta[0], 0.05)), float(theta[1]))
