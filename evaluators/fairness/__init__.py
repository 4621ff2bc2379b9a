"""Who is served how well: metrics by group of users, exposure of items and providers, counterfactual flips.

Statements are about the simulator or the log named in `method`, never about intent: "agent - baseline, group g:
+x [l, h], simulated" (EVALUATION, section 7). Groups that are too small are withheld and listed, never merged.
"""

from evaluators.fairness.counterfactual import CASES, Flip, FlippedAgent, ShiftValues, flips_of
from evaluators.fairness.decomposition import Decomposition, decompose
from evaluators.fairness.exposure import (
    amortised_rank_unfairness,
    exposure_by_user,
    exposure_gini,
    exposure_share,
    provider_ratio,
)
from evaluators.fairness.groups import (
    FEWEST_USERS,
    UNKNOWN,
    Group,
    GroupDifference,
    GroupTable,
    by_group,
    difference_by_group,
    gap_change,
    gap_interval,
    intersection,
    ratio_interval,
)
from evaluators.fairness.items import item_fairness, item_groups, merit_of

__all__ = [
    "CASES",
    "FEWEST_USERS",
    "UNKNOWN",
    "Decomposition",
    "Flip",
    "FlippedAgent",
    "Group",
    "GroupDifference",
    "GroupTable",
    "ShiftValues",
    "amortised_rank_unfairness",
    "by_group",
    "decompose",
    "difference_by_group",
    "exposure_by_user",
    "exposure_gini",
    "exposure_share",
    "flips_of",
    "gap_change",
    "gap_interval",
    "intersection",
    "item_fairness",
    "item_groups",
    "merit_of",
    "provider_ratio",
    "ratio_interval",
]
