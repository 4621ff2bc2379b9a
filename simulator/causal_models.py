"""The one importer of causalml: propensities and effect learners from arrays."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def elastic_net_propensity(x: Floats, treated: NDArray[np.int64], *, seed: int) -> Callable[[Floats], Floats]:
    """Fit causalml's elastic-net propensity model and return its predictor of P(treated = 1 | x).

    Features are scaled first (unscaled ones cost the solver fifteen times as long). Isotonic calibration is off: on
    small samples its empty steps sit at the floor and blow up the weights.

    Args:
        x: [n, d] features.
        treated: [n] 0 or 1; both must occur at least four times (the solver's own folds).
        seed: of folds and solver.
    """
    from causalml.propensity import ElasticNetPropensityModel
    from sklearn.exceptions import ConvergenceWarning

    centre, spread = x.mean(axis=0), x.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    model = ElasticNetPropensityModel(calibrate=False, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # causalml passes arguments that scikit-learn has renamed
        warnings.simplefilter("ignore", ConvergenceWarning)  # a saga fit cut at its iterations is good to three digits
        model.fit((x - centre) / spread, treated)

    def predict(rows: Floats) -> Floats:
        return np.asarray(model.predict((rows - centre) / spread), dtype=np.float64)

    return predict
