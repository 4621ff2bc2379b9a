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


def elastic_net_propensity(
    x: Floats, treated: NDArray[np.int64], *, seed: int, mixings: tuple[float, ...] | None = None
) -> Callable[[Floats], Floats]:
    """Fit causalml's elastic-net propensity model and return its predictor of P(treated = 1 | x).

    Features are scaled first (unscaled ones cost the solver fifteen times as long). Isotonic calibration is off: on
    small samples its empty steps sit at the floor and blow up the weights.

    Args:
        x: [n, d] features.
        treated: [n] 0 or 1; both must occur at least four times (the solver's own folds).
        seed: of folds and solver.
        mixings: shares of the first norm in the penalty that are searched; None: causalml's four. The solver's time is
            in proportion to their number.
    """
    from causalml.propensity import ElasticNetPropensityModel
    from sklearn.exceptions import ConvergenceWarning

    if not x.size or not np.ptp(x, axis=0).any():
        # The solver's steps have no length on features that do not vary, and its intercept ends anywhere.
        share = float(treated.mean())
        return lambda rows: np.full(len(rows), share)
    centre, spread = x.mean(axis=0), x.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    searched = {} if mixings is None else {"l1_ratios": list(mixings)}
    model = ElasticNetPropensityModel(calibrate=False, random_state=seed, scoring=_log_likelihood, **searched)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # causalml passes arguments that scikit-learn has renamed
        warnings.simplefilter("ignore", ConvergenceWarning)  # a saga fit cut at its iterations is good to three digits
        model.fit((x - centre) / spread, treated)

    def predict(rows: Floats) -> Floats:
        return np.asarray(model.predict((rows - centre) / spread), dtype=np.float64)

    return predict


def _log_likelihood(model: Any, x: Floats, treated: NDArray[np.int64]) -> float:
    """Mean log-likelihood of a fitted logistic model: "neg_log_loss" without its checks, nine tenths of it."""
    margin = x @ np.ravel(model.coef_) + np.ravel(model.intercept_)
    return -float(np.logaddexp(0.0, np.where(treated == 1, -margin, margin)).mean())


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


META_LEARNERS = ("s", "t", "x", "r", "dr")
FORESTS = ("uplift_forest", "causal_forest")
LEARNERS = (*META_LEARNERS, *FORESTS)
FOREST_ROWS = 20_000
"""Rows that a forest is grown on at most: causalml's uplift trees take minutes for more."""
TREES = 20


@dataclass(frozen=True, slots=True)
class CateModel:
    """A fitted learner of the conditional effect: call it with features [n, d] and propensities [n]. Can be pickled.

    Attributes:
        learner: name of the learner.
        centre, spread: [d] moments of the fitted rows, by which features are scaled.
        model: causalml's learner.
    """

    learner: str
    centre: Floats
    spread: Floats
    model: Any

    def __call__(self, x: Floats, p: Floats) -> Floats:
        """[n] expected effect: for ranking, not for averaging."""
        scaled = (x - self.centre) / self.spread
        with _quiet():
            if self.learner in FORESTS:
                effect = self.model.predict(scaled)
            elif self.learner == "r":
                effect = self.model.predict(scaled)  # its effect model alone: the propensity was divided out
            else:
                effect = self.model.predict(scaled, p=p, verbose=False)
        return np.asarray(effect, dtype=np.float64).reshape(-1)


@dataclass(frozen=True, slots=True)
class EffectModel:
    """Fitted outcome models and a learner of the effect: call it with features [n, d] and propensities [n].

    Attributes:
        centre, spread: [d] moments of the fitted rows, by which features are scaled.
        outcome: causalml's T-learner.
        cate: learner of the conditional effect; None: the T-learner's own.
    """

    centre: Floats
    spread: Floats
    outcome: Any
    cate: CateModel | None

    def __call__(self, x: Floats, p: Floats) -> OutcomeModels:
        """Expected outcomes and effect of n rows."""
        with _quiet():
            scaled = (x - self.centre) / self.spread
            effect, control, treatment = self.outcome.predict(scaled, return_components=True, verbose=False)
        arms = [np.asarray(next(iter(part.values())), dtype=np.float64).reshape(-1) for part in (control, treatment)]
        own = np.asarray(effect, dtype=np.float64).reshape(-1)
        return OutcomeModels(arms[0], arms[1], own if self.cate is None else self.cate(x, p))


def fit_effect_learner(
    x: Floats, treated: NDArray[np.int64], y: Floats, p: Floats, *, learner: str = "x", trees: bool, seed: int
) -> EffectModel:
    """Fit causalml's T-learner for the outcomes of both arms, and the named learner for the conditional effect.

    Features are scaled with the fitted rows' moments. One thread, one seed: same result.

    Args:
        x: [n, d] features measured before the treatment.
        treated: [n] 0 or 1; both occur.
        y: [n] outcome; 0/1 outcomes are modelled by classifiers.
        p: [n] probability of the treatment.
        learner: a name of LEARNERS, for the conditional effect.
        trees: gradient-boosted trees (large logs), or penalised linear models (small ones).
        seed: of the trees and causalml's own folds.
    """
    binary = is_binary(treated, y)
    centre, spread = _moments(x)
    with _quiet():
        outcome = _learner("t", binary=binary, trees=trees, seed=seed)
        outcome.fit((x - centre) / spread, treated, y.astype(np.int64) if binary else y)
    cate = None if learner == "t" else fit_cate(x, treated, y, p, learner=learner, trees=trees, seed=seed)
    return EffectModel(centre, spread, outcome, cate)


def fit_cate(
    x: Floats, treated: NDArray[np.int64], y: Floats, p: Floats, *, learner: str, trees: bool, seed: int
) -> CateModel:
    """Fit one of causalml's learners of the conditional effect.

    The arguments are those of `fit_effect_learner`; `uplift_forest` needs a 0/1 outcome.
    """
    binary = is_binary(treated, y)
    centre, spread = _moments(x)
    scaled = (x - centre) / spread
    if learner in FORESTS and len(y) > FOREST_ROWS:
        some = np.sort(np.random.default_rng(seed).choice(len(y), FOREST_ROWS, replace=False))
        scaled, treated, y, p = scaled[some], treated[some], y[some], p[some]
    # causalml's DR learner has no classifier form for the effect: it regresses in both cases.
    as_classes = binary and learner != "dr"
    target = y.astype(np.int64) if as_classes else y
    with _quiet():
        model = _learner(learner, binary=as_classes, trees=trees, seed=seed)
        if learner == "r":
            model.cv_n_jobs = 1  # else its folds wait for processes of their own
        if learner == "uplift_forest":
            model.fit(scaled, np.where(treated == 1, "treatment", "control"), target)
        elif learner == "causal_forest":
            model.fit(scaled, treated, y)
        elif learner == "dr":
            model.fit(scaled, treated, target, p=p, seed=seed)
        elif learner == "r":
            model.fit(scaled, treated, target, p=p, verbose=False)
        else:
            model.fit(scaled, treated, target, p=p)
    return CateModel(learner, centre, spread, model)


def is_binary(treated: NDArray[np.int64], y: Floats) -> bool:
    """Whether outcomes are 0 and 1, both in each arm, so that classifiers model them."""
    return bool(np.isin(y, (0.0, 1.0)).all()) and all(len(np.unique(y[treated == arm])) == 2 for arm in (0, 1))


def _moments(x: Floats) -> tuple[Floats, Floats]:
    spread = x.std(axis=0)
    return x.mean(axis=0), np.where(spread > 0, spread, 1.0)


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
    if kind in FORESTS:
        return _forest(kind, binary=binary, seed=seed)
    if kind == "dr":
        return meta.BaseDRRegressor(learner=base(classes=False), control_name=0)
    if kind in ("x", "r"):
        of_two = {"x": meta.BaseXClassifier, "r": meta.BaseRClassifier}[kind]
        of_any = {"x": meta.BaseXRegressor, "r": meta.BaseRRegressor}[kind]
        drawn = {"random_state": seed} if kind == "r" else {}
        if not binary:
            return of_any(learner=base(classes=False), control_name=0, **drawn)
        return of_two(outcome_learner=base(classes=True), effect_learner=base(classes=False), control_name=0, **drawn)
    if kind == "s":
        made = meta.BaseSClassifier if binary else meta.BaseSRegressor
    else:
        made = meta.BaseTClassifier if binary else meta.BaseTRegressor
    return made(learner=base(classes=binary), control_name=0)


def _forest(kind: str, *, binary: bool, seed: int) -> Any:
    from causalml.inference.tree import CausalRandomForestRegressor, UpliftRandomForestClassifier

    if kind == "causal_forest":
        return CausalRandomForestRegressor(
            n_estimators=TREES, min_samples_leaf=50, min_group_samples=20, max_depth=6, n_jobs=1, random_state=seed
        )
    if not binary:
        raise ValueError("uplift_forest: its splits compare shares of yes, so the outcome has to be 0 or 1")
    return UpliftRandomForestClassifier(
        control_name="control", n_estimators=TREES, max_depth=5, min_samples_leaf=100, min_samples_treatment=20,
        evaluationFunction="KL", n_jobs=1, random_state=seed,
    )  # fmt: skip


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
    # duecredit is an optional citation recorder of causalml's forests, whose absence it logs as an error.
    levels = {"causalml": logging.WARNING, "duecredit": logging.CRITICAL}
    before = {name: logging.getLogger(name).level for name in levels}
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            for name, level in before.items():
                logging.getLogger(name).setLevel(level)
