"""Who is served how well: metrics by group of users, exposure of items and providers, counterfactual flips.

Statements are about the simulator or the log named in `method`, never about intent: "agent - baseline, group g:
+x [l, h], simulated" (EVALUATION, section 7). Groups that are too small are withheld and listed, never merged.
"""

from evaluators.fairness.counterfactual import (
    CounterfactualFlip,
    FlippedAgent,
    counterfactual_flip,
    flipped_world,
    swap_columns,
)
from evaluators.fairness.decomposition import Decomposition, decompose
from evaluators.fairness.exposure import (
    amortised_rank_unfairness,
    exposure_by_user,
    exposure_gini,
    gini,
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

__all__ = [
    "FEWEST_USERS",
    "UNKNOWN",
    "CounterfactualFlip",
    "Decomposition",
    "FlippedAgent",
    "Group",
    "GroupDifference",
    "GroupTable",
    "amortised_rank_unfairness",
    "by_group",
    "counterfactual_flip",
    "decompose",
    "difference_by_group",
    "exposure_by_user",
    "exposure_gini",
    "flipped_world",
    "gap_change",
    "gap_interval",
    "gini",
    "intersection",
    "provider_ratio",
    "ratio_interval",
    "swap_columns",
]
