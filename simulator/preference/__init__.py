"""Preference models: what a user likes, learned from a log, as arrays that a simulator can read."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simulator.preference.architectures import ARCHITECTURES
    from simulator.preference.fitting import Gain, TextTower, fine_tune, fit_preference
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

_HOME = {
    "architectures": ("ARCHITECTURES",),
    "fitting": ("Gain", "TextTower", "fine_tune", "fit_preference"),
    "model": ("Member", "PreferenceModel", "UserStates", "row_hashes"),
    "settings": ("PreferenceSettings", "TuningSettings"),
}


def __getattr__(name: str) -> Any:
    # Resolved on use: the settings are read by every command, and scipy alone would take a quarter of `--help`'s time.
    for module, names in _HOME.items():
        if name in names:
            return getattr(import_module(f"simulator.preference.{module}"), name)
    raise AttributeError(f"module 'simulator.preference' has no attribute '{name}'")
