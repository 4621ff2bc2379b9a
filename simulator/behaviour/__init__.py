"""How appeal becomes acts: settings, what is assumed or fitted of each part, and the fits.

The formulas are in docs/world.md; `simulator.kernel` computes them.
"""

from simulator.behaviour.assumptions import Assumption, assumptions_of, replace_parameter, value_of
from simulator.behaviour.examination import (
    ExaminationFit,
    LoggedSlates,
    examination_curve,
    expected_clicks,
    fit_examination,
)
from simulator.behaviour.settings import REWARDS, SimulatorSettings

__all__ = [
    "REWARDS",
    "Assumption",
    "ExaminationFit",
    "LoggedSlates",
    "SimulatorSettings",
    "assumptions_of",
    "examination_curve",
    "expected_clicks",
    "fit_examination",
    "replace_parameter",
    "value_of",
]
