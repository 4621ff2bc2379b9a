"""Preference models: what a user likes, learned from a log, as arrays that a simulator can read."""

from simulator.preference.fitting import ARCHITECTURES, Gain, TextTower, fine_tune, fit_preference
from simulator.preference.model import Member, PreferenceModel, UserStates, row_hashes
from simulator.preference.settings import PreferenceSettings, TuningSettings

__all__ = [
    "ARCHITECTURES",
    "Gain",
    "Member",
    "PreferenceModel",
    "PreferenceSettings",
    "TextTower",
    "TuningSettings",
    "UserStates",
    "fine_tune",
    "fit_preference",
    "row_hashes",
]
