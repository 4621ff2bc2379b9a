"""Off-policy evaluation: what a policy would have earned, from a log that another policy made.

from evaluators import off_policy
rounds = off_policy.Rounds(action, reward, pscore, user=user, context=context)
off_policy.estimate(rounds, pi_e, estimators=["snips", "dr", "ips(clip=10)"])
"""

from evaluators.off_policy.continuous import ContinuousRounds
from evaluators.off_policy.estimation import difference, estimate, estimate_continuous
from evaluators.off_policy.names import ESTIMATORS, about_estimators, parse
from evaluators.off_policy.records import Rounds, Slates, Trajectories
from evaluators.off_policy.selection import select, sharpe_ratio, sharpe_ratio_interval

__all__ = [
    "ESTIMATORS",
    "ContinuousRounds",
    "Rounds",
    "Slates",
    "Trajectories",
    "about_estimators",
    "difference",
    "estimate",
    "estimate_continuous",
    "parse",
    "select",
    "sharpe_ratio",
    "sharpe_ratio_interval",
]
