"""Effects of a treatment on an outcome: logged (`windtunnel effect`), or agent against baseline, simulated.

Values are means of cross-fitted doubly robust (AIPW) scores whose outcome models are causalml's learners; intervals
are user-cluster t. Not the mean of predicted effects: that one's error is six times its naive standard error
(EVALUATION, section 7). Refutations run always, and a failed one withholds the number.
"""

from evaluators.causal.learners import LearnerResult, compare_learners
from evaluators.causal.logged import run_effect
from evaluators.causal.mediation import mediated_parts
from evaluators.causal.refutations import Refutation, covariate_balance, refute
from evaluators.causal.results import Driver, Effect, EffectResult, GroupEffect
from evaluators.causal.scores import Scores, Trial, doubly_robust, mean_effect
from evaluators.causal.sensitivity import confounding_range, e_value, sensitivity
from evaluators.causal.served import ServedEffect, served_effect
from evaluators.causal.targeting import qini, qini_area

__all__ = [
    "Driver",
    "Effect",
    "EffectResult",
    "GroupEffect",
    "LearnerResult",
    "Refutation",
    "Scores",
    "ServedEffect",
    "Trial",
    "compare_learners",
    "confounding_range",
    "covariate_balance",
    "doubly_robust",
    "e_value",
    "mean_effect",
    "mediated_parts",
    "qini",
    "qini_area",
    "refute",
    "run_effect",
    "sensitivity",
    "served_effect",
]
