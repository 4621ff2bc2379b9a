"""A behaviour of degree (a watch ratio, a rating, seconds) as a distribution: one calibrated model a threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.errors import InputError
from simulator.log import InteractionLog, Split
from simulator.preference.fitting import TextTower, fit_preference
from simulator.preference.model import PreferenceModel
from simulator.preference.settings import PreferenceSettings

QUANTILES = 51
"""Levels at which a behaviour's values within an interval are kept."""


@dataclass(frozen=True, slots=True)
class GradedModel:
    """P(behaviour >= threshold | user, item, examined) at each of k thresholds.

    Attributes:
        behaviour: name of the log's column.
        thresholds: [k] rising, in the behaviour's unit.
        models: one for each threshold, each calibrated by itself.
        between: [k + 1] mean of the behaviour below the first threshold, between two, and from the last on.
        within: [k + 1, q] its quantiles at q even levels in each of these, from the fitted rows.
    """

    behaviour: str
    thresholds: NDArray[np.float64]
    models: tuple[PreferenceModel, ...]
    between: NDArray[np.float64]
    within: NDArray[np.float64]

    def survival(self, log: InteractionLog, split: Split, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """[m, k] probability of reaching each threshold, for late rows.

        The models were fitted apart, so where a higher threshold came out likelier than a lower one, both are moved to
        what keeps the order (the nearest falling sequence of the row).

        Raises:
            SeenRowsError: a row was fitted, tuned or calibrated on.
        """
        apart = np.stack(
            [one.predict(log_at(log, self.behaviour, t), split, rows)
             for one, t in zip(self.models, self.thresholds, strict=True)], axis=1,
        )  # fmt: skip
        return falling(apart)

    def mean(self, survival: NDArray[np.float64]) -> NDArray[np.float64]:
        """[m] expected value of the behaviour, from the probabilities of its intervals and their fitted means."""
        whole = np.column_stack([np.ones(len(survival)), survival, np.zeros(len(survival))])
        return np.asarray(-np.diff(whole, axis=1) @ self.between)

    def draw(self, survival: NDArray[np.float64], u: NDArray[np.float64]) -> NDArray[np.float64]:
        """[m] the behaviour at uniforms u [m]: where u falls among the intervals, then within it as fitted rows do."""
        below = 1 - np.column_stack([np.ones(len(survival)), survival, np.zeros(len(survival))])  # [m, k + 2]
        place = np.minimum((u[:, None] >= below[:, 1:]).sum(1), survival.shape[1])
        row = np.arange(len(u))
        low, high = below[row, place], below[row, place + 1]
        level = np.clip((u - low) / np.maximum(high - low, 1e-12), 0, 1) * (self.within.shape[1] - 1)
        at = np.minimum(level.astype(np.int64), self.within.shape[1] - 2)
        first, second = self.within[place, at], self.within[place, at + 1]
        return np.asarray(first + (level - at) * (second - first))


def falling(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    """[m, k] the nearest sequence of each row, by squares, that does not rise (isotonic regression in closed form).

    Value k of the projection is min over a <= k of max over b >= k of the mean from a to b, with order reversed.
    """
    k = probability.shape[1]
    sums = np.concatenate([np.zeros((len(probability), 1)), np.cumsum(probability, axis=1)], axis=1)
    out = np.empty_like(probability)
    for at in range(k):
        best = np.full(len(probability), np.inf)
        for a in range(at + 1):
            means = np.stack([(sums[:, b + 1] - sums[:, a]) / (b + 1 - a) for b in range(at, k)], axis=1)
            best = np.minimum(best, means.max(axis=1))
        out[:, at] = best
    return out


def log_at(log: InteractionLog, behaviour: str, threshold: float) -> InteractionLog:
    """The same log with `behaviour >= threshold` as its primary behaviour.

    Raises:
        InputError: the log has no such column, or the threshold is always or never reached.
    """
    if behaviour not in log.behaviours:
        known = ", ".join(log.behaviours) or "none"
        raise InputError(f"data.behaviours: '{behaviour}' is not a column of '{log.source}'; there are {known}")
    return replace(log, primary=(log.behaviours[behaviour] >= threshold).astype(np.float32))


def fit_graded(
    log: InteractionLog,
    split: Split,
    role: int,
    tower: TextTower,
    settings: PreferenceSettings,
    root: np.random.SeedSequence,
    behaviour: str,
    thresholds: Sequence[float],
    **options: Any,
) -> GradedModel:
    """Fit one model a threshold on a role's users, all by the same settings.

    Args:
        log: the log, with the behaviour among its columns.
        split: who may see which rows.
        role: WORLD_A or JUDGE.
        tower: item text vectors of the same role.
        settings: the scenario's `preference:`.
        root: root of the scenario's streams.
        behaviour: name of the column.
        thresholds: in the behaviour's unit.
        options: as `fit_preference` takes them.

    Raises:
        InputError: the column is not there, or thresholds do not rise.
    """
    limits = np.asarray(thresholds, np.float64)
    if len(limits) == 0 or np.any(np.diff(limits) <= 0):
        raise InputError(f"thresholds: {list(thresholds)} do not rise; give e.g. [0.5, 1, 2]")
    models = tuple(
        fit_preference(log_at(log, behaviour, t), split, role, tower, settings, root, **options) for t in limits
    )
    early = split.rows(log, split.users(role, tuning=False), late=False)
    value = log.behaviours[behaviour][early]
    place = np.searchsorted(limits, value, side="right")
    count = np.bincount(place, minlength=len(limits) + 1)
    between = np.bincount(place, value, len(limits) + 1) / np.maximum(count, 1)
    levels = np.linspace(0, 1, QUANTILES)
    within = np.stack(
        [
            np.quantile(value[place == k], levels) if count[k] else np.full(QUANTILES, limits[max(k - 1, 0)])
            for k in range(len(limits) + 1)
        ]
    )
    return GradedModel(behaviour, limits, models, between, within)
