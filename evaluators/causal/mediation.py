"""How a treatment acts: by way of what it changes first, or not.

Stated graph, in logs: covariates -> treatment -> mediators -> outcome, covariates -> all, treatment -> outcome, and no
unmeasured cause of both a mediator and the outcome.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from evaluators.causal.scores import Trial
from evaluators.estimate import Estimate
from evaluators.fairness.decomposition import decompose
from simulator.streams import stream

Floats = NDArray[np.float64]


def mediated_parts(
    trial: Trial, mediators: Floats, root: np.random.SeedSequence, *, level: float = 0.95
) -> Mapping[str, Estimate]:
    """Parts of the difference between the arms: direct, by way of the mediators, and spurious; they add up to it.

    Natural effects of the rows of the control arm (Pearl, 2001), by cross-fitted doubly robust plug-in with linear and
    logistic models. `spurious` is what the covariates explain: about 0 in an experiment.

    Args:
        trial: the rows.
        mediators: [n, m] measured after the treatment and before the outcome.
        root: root of the streams.
        level: of the intervals.
    """
    found = decompose(
        trial.y,
        trial.treated == 1,
        trial.clusters,
        stream(root, "causal", "mediation"),
        confounders=trial.x,
        mediators=mediators,
        level=level,
    )
    assert found.direct is not None
    assert found.indirect is not None
    assert found.spurious is not None
    return {
        "difference of the arms": found.total,
        "direct": found.direct,
        "by way of the mediators": _turned(found.indirect),
        "spurious": _turned(found.spurious),
    }


def _turned(part: Estimate) -> Estimate:
    """The part with its sign turned: first to second, so that all parts add up."""
    assert part.value is not None
    assert part.low is not None
    assert part.high is not None
    method = part.method.replace("second to first", "first to second")
    return Estimate(-part.value, -part.high, -part.low, part.level, part.n, method)
