"""Are the behaviours after a click (like, purchase, dwell, rating) as likely and as large as the log says?

Yes/no behaviours are held to the checks of the click itself. A graded one (seconds, stars) is a whole distribution: its
mean by O/E, its spread by where the values fall in it (Gneiting, Balabdaoui, Raftery 2007), its worth by the continuous
ranked probability score, which is proper, over the values' own distribution.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from evaluators.fidelity.checks import Check, Floats, Ints, judged, ratio_by_user
from evaluators.fidelity.prediction import behaviour_predictions
from evaluators.fidelity.scored_rows import ScoredRows, inside
from simulator.log import InteractionLog

DRAWS = 64
"""Draws by which a predicted distribution is known; their error is a tenth of the values' own."""
CENTRE = (0.1, 0.9)


class Head(Protocol):
    """A behaviour after a click, as `simulator.behaviour.heads.Head` gives it."""

    @property
    def kind(self) -> str:
        """Like, purchase, dwell or rating."""
        ...

    @property
    def column(self) -> str:
        """Column of the log."""
        ...

    def mean(self, z: Floats) -> Floats:
        """[n] expected value at logits z of the click."""
        ...

    def draw(self, z: Floats, u: Floats) -> Floats:
        """[n] the behaviour at logits z and uniforms u."""
        ...


@dataclass(frozen=True, slots=True)
class GradedRows:
    """n values of a graded behaviour, and draws from the distribution predicted for each.

    Attributes:
        draws: [m, n] predicted. y: [n] observed, 0 or more. user: [n] the cluster.
    """

    draws: NDArray[np.float64]
    y: Floats
    user: Ints


def behaviour_rows(
    heads: Sequence[Head],
    log: InteractionLog,
    rows: Ints,
    p: Floats,
    rng: np.random.Generator,
    *,
    shift: float = 0.0,
) -> tuple[dict[str, ScoredRows], dict[str, GradedRows]]:
    """What heads predict for the clicked ones among scored rows: yes/no behaviours, and graded ones, by column.

    Args:
        heads: fitted on other rows.
        log: the interaction log.
        rows: [n] rows that no model has seen.
        p: [n] probability of the click.
        rng: draws from graded distributions.
        shift: logits by which the heads' own click logit stands above that of `p`.
    """
    yes_no, graded = {}, {}
    z_all = np.log(inside(p)) - np.log1p(-inside(p)) + shift
    for head in heads:
        value = np.asarray(log.behaviours[head.column], np.float64)[rows]
        there = np.flatnonzero((log.primary[rows] > 0) & np.isfinite(value))
        y, z, user = value[there], z_all[there], log.user[rows][there]
        if head.kind in ("like", "purchase"):
            happened = (y > 0).astype(np.float64)
            yes_no[head.column] = ScoredRows(inside(head.mean(z)), happened, user, np.ones(len(y)))
        else:
            graded[head.column] = GradedRows(
                np.stack([head.draw(z, rng.random(len(z))) for _ in range(DRAWS)]), y, user
            )
    return yes_no, graded


def graded_checks(
    name: str,
    thresholds: Floats,
    survival: NDArray[np.float64],
    rows: GradedRows,
    place: str,
    rng: Callable[[str], np.random.Generator],
) -> tuple[Check, ...]:
    """Checks of a behaviour of degree: each threshold as a yes/no behaviour, then the distribution as a whole.

    They are no part of trust: a world simulates the primary behaviour alone.

    Args:
        name: of the behaviour.
        thresholds: [k] rising.
        survival: [n, k] predicted probability of reaching each.
        rows: the values and draws from their predicted distributions.
        place: "future rows" or "held-out users".
        rng: makes the generator of a purpose.
    """
    checks: list[Check] = []
    for at, threshold in enumerate(thresholds):
        what = f"{name} >= {threshold:g}"
        reached = (rows.y >= threshold).astype(np.float64)
        scored = ScoredRows(inside(survival[:, at]), reached, rows.user, np.ones(len(reached)))
        checks += behaviour_predictions(what, scored, lambda purpose, what=what: rng(f"{what}: {purpose}"))  # type: ignore[misc]
    checks += graded_predictions(name, rows, rng(name))
    return tuple(replace(check, world=1, rows=place, counts=False) for check in checks)


def graded_predictions(name: str, rows: GradedRows, rng: np.random.Generator) -> tuple[Check, ...]:
    """O/E of the mean, share of values in the predicted centre, and skill of the whole distribution."""
    mean = ratio_by_user(rows.y, rows.draws.mean(0), rows.user, method="O/E of the mean, user-cluster t")
    checks = (
        judged("calibration in the large", mean, "[0.9, 1.1]", above=0.9, below=1.1),
        _spread(rows, rng),
        _skill(rows, rng),
    )
    return tuple(replace(check, name=f"{name}: {check.name}") for check in checks)


def _spread(rows: GradedRows, rng: np.random.Generator) -> Check:
    """Share of values between the predicted 10 % and 90 % points, .8 if right; ties are broken by a draw."""
    below, upto = (rows.draws < rows.y).mean(0), (rows.draws <= rows.y).mean(0)
    place = below + rng.random(len(rows.y)) * (upto - below)
    # With m draws a value's place among them is uniform on m + 1 steps, not on [0, 1].
    place = (place * DRAWS + rng.random(len(rows.y)) * (below == upto)) / (DRAWS + (below == upto))
    centre = ((place >= CENTRE[0]) & (place <= CENTRE[1])).astype(np.float64)
    method = "share of values between the predicted 10 % and 90 % points, user-cluster t"
    share = ratio_by_user(centre, np.ones(len(centre)), rows.user, method=method)
    return judged("spread", share, "[0.72, 0.88]", above=0.72, below=0.88)


def _skill(rows: GradedRows, rng: np.random.Generator) -> Check:
    """1 - CRPS / CRPS of the values' own distribution: the strictest that knows nothing of the row."""
    other = rng.choice(rows.y, (DRAWS, len(rows.y)))
    found = ratio_by_user(
        _crps(rows.draws, rows.y), _crps(other, rows.y), rows.user, method="CRPS skill, user-cluster t"
    )
    if found.value is not None and found.low is not None and found.high is not None:
        found = replace(found, value=1 - found.value, low=1 - found.high, high=1 - found.low)
    return judged("skill over own distribution", found, "lower > 0", above=0.0, strict=True)


def _crps(draws: NDArray[np.float64], y: Floats) -> Floats:
    """[n] continuous ranked probability score from draws: E|X - y| - E|X - X'| / 2, unbiased."""
    m = len(draws)
    ordered = np.sort(draws, axis=0)
    weight = 2 * np.arange(1, m + 1) - m - 1
    spread = (weight[:, None] * ordered).sum(0) * 2 / (m * (m - 1))  # mean of |X - X'| over pairs
    return np.asarray(np.abs(draws - y).mean(0) - spread / 2)
