"""How appeal becomes acts: settings, what is assumed or fitted of each part, and the fits.

The formulas are in docs/world.md; `simulator.kernel` computes them.
"""

from simulator.behaviour.assumptions import (
    BETWEEN_SESSIONS,
    Assumption,
    assumptions_of,
    replace_parameter,
    value_of,
)
from simulator.behaviour.examination import (
    ExaminationFit,
    LoggedSlates,
    examination_table,
    expected_choices,
    expected_clicks,
    fit_examination,
    looks_at_all,
)
from simulator.behaviour.settings import KINDS, REWARD_KINDS, REWARDS, SimulatorSettings

__all__ = [
    "BETWEEN_SESSIONS",
    "KINDS",
    "REWARDS",
    "REWARD_KINDS",
    "Assumption",
    "ExaminationFit",
    "LoggedSlates",
    "SimulatorSettings",
    "assumptions_of",
    "examination_table",
    "expected_choices",
    "expected_clicks",
    "fit_examination",
    "looks_at_all",
    "replace_parameter",
    "value_of",
]
