"""The one importer of causalml: propensities and effect learners from arrays."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True, slots=True)
class OutcomeModels:
    """What causalml's learners say of n rows that they were not fitted on.

    Attributes:
        control: [n] expected outcome without the treatment.
        treated: [n] expected outcome with it.
        effect: [n] conditional effect by the learner asked for: for ranking, not for averaging.
    """

    control: Floats
    treated: Floats
    effect: Floats


LEARNERS = ("s", "t", "x", "dr")


def fit_effect_learner(
    x: Floats, treated: NDArray[np.int64], y: Floats, p: Floats, *, learner: str = "x", trees: bool, seed: int
) -> Callable[[Floats, Floats], OutcomeModels]:
    """Fit causalml's T-learner for the outcomes of both arms, and the named learner for the conditional effect.

    Returns `predict(x, p)`. Features are scaled with the fitted rows' moments. One thread, one seed: same result.

    Args:
        x: [n, d] features measured before the treatment.
        treated: [n] 0 or 1; both occur.
        y: [n] outcome; 0/1 outcomes are modelled by classifiers.
        p: [n] probability of the treatment.
        learner: s, t, x or dr, for the conditional effect.
        trees: gradient-boosted trees (large logs), or penalised linear models (small ones).
        seed: of the trees and causalml's own folds.
    """
    binary = bool(np.isin(y, (0.0, 1.0)).all()) and _both_in_each_arm(treated, y)
    centre, spread = x.mean(axis=0), x.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    with _quiet():
        scaled = (x - centre) / spread
        outcome = _learner("t", binary=binary, trees=trees, seed=seed)
        outcome.fit(scaled, treated, y.astype(np.int64) if binary else y)
        cate = None
        if learner != "t":
            # causalml's DR learner has no classifier form for the effect: it regresses in both cases.
            as_classes = binary and learner != "dr"
            cate = _learner(learner, binary=as_classes, trees=trees, seed=seed)
            target = y.astype(np.int64) if as_classes else y
            if learner == "dr":
                cate.fit(scaled, treated, target, p=p, seed=seed)
            else:
                cate.fit(scaled, treated, target, p=p)

    def predict(rows: Floats, p_rows: Floats) -> OutcomeModels:
        with _quiet():
            scaled_rows = (rows - centre) / spread
            effect, control, treatment = outcome.predict(scaled_rows, return_components=True, verbose=False)
            if cate is not None:
                effect = cate.predict(scaled_rows, p=p_rows, verbose=False)
        arms = [np.asarray(next(iter(part.values())), dtype=np.float64).reshape(-1) for part in (control, treatment)]
        return OutcomeModels(arms[0], arms[1], np.asarray(effect, dtype=np.float64).reshape(-1))

    return predict


def _both_in_each_arm(treated: NDArray[np.int64], y: Floats) -> bool:
    return all(len(np.unique(y[treated == arm])) == 2 for arm in (0, 1))


def _learner(kind: str, *, binary: bool, trees: bool, seed: int) -> Any:
    from causalml.inference import meta

    def base(*, classes: bool) -> Any:
        if trees:
            from lightgbm import LGBMClassifier, LGBMRegressor

            made = LGBMClassifier if classes else LGBMRegressor
            return made(
                n_estimators=80, learning_rate=0.05, num_leaves=8, min_child_samples=100, n_jobs=1,
                random_state=seed, deterministic=True, force_row_wise=True, verbose=-1,
            )  # fmt: skip
        from sklearn.linear_model import LogisticRegression, Ridge

        return LogisticRegression(C=0.1, max_iter=1000) if classes else Ridge(alpha=10.0)

    if kind not in LEARNERS:
        raise ValueError(f"learner: '{kind}' is none of {', '.join(LEARNERS)}")
    if kind == "dr":
        return meta.BaseDRRegressor(learner=base(classes=False), control_name=0)
    if kind == "x":
        if not binary:
            return meta.BaseXRegressor(learner=base(classes=False), control_name=0)
        return meta.BaseXClassifier(
            outcome_learner=base(classes=True), effect_learner=base(classes=False), control_name=0
        )
    if kind == "s":
        made = meta.BaseSClassifier if binary else meta.BaseSRegressor
    else:
        made = meta.BaseTClassifier if binary else meta.BaseTRegressor
    return made(learner=base(classes=binary), control_name=0)


def effect_drivers(x: Floats, score: Floats, *, trees: bool, seed: int) -> Floats:
    """[d] share of each feature in explaining per-row effect scores: gain of trees, or size of scaled coefficients."""
    spread = x.std(axis=0)
    scaled = (x - x.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    with _quiet():
        if trees:
            from lightgbm import LGBMRegressor

            model = LGBMRegressor(
                n_estimators=40, learning_rate=0.05, num_leaves=6, min_child_samples=max(100, len(x) // 50), n_jobs=1,
                random_state=seed, deterministic=True, force_row_wise=True, verbose=-1, importance_type="gain",
            )  # fmt: skip
            raw = np.asarray(model.fit(scaled, score).feature_importances_, dtype=np.float64)
        else:
            from sklearn.linear_model import Ridge

            raw = np.abs(np.asarray(Ridge(alpha=10.0).fit(scaled, score).coef_, dtype=np.float64))
    total = float(raw.sum())
    return raw / total if total > 0 else np.zeros(x.shape[1])


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what the learners say of their own insides: renamed arguments, lost feature names, progress."""
    level = logging.getLogger("causalml").level
    logging.getLogger("causalml").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.getLogger("causalml").setLevel(level)
