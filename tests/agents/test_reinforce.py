"""REINFORCE from the log: returns, what was known before a row, and better than the mixed policy that logged it.

Sabotaged once, each seen red: returns that run on into the next user's rows, a history that holds the row itself, the
sign of the advantage.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.features import fit_features
from agents.loading import AgentSettings, train
from agents.logged_choices import LoggedChoices, discounted_rows
from agents.train_world import Lanes, session_values
from simulator.log import InteractionLog
from simulator.world import World
from tests.agents.taught_world import taught_world, training_in


@pytest.fixture(scope="module")
def mixed() -> tuple[World, InteractionLog]:
    """Half of the users were led to good items, the others, further, to bad ones."""
    return taught_world(pull=0.7)


@pytest.mark.parametrize("gamma", [0.0, 0.3, 0.9])
def test_returns_are_discounted_within_a_user(mixed: tuple[World, InteractionLog], gamma: float) -> None:
    log = mixed[1]
    plain = np.zeros(len(log))
    for row in range(len(log) - 1, -1, -1):
        goes_on = row + 1 < len(log) and log.user[row + 1] == log.user[row]
        plain[row] = log.primary[row] + (gamma * plain[row + 1] if goes_on else 0)
    assert np.allclose(discounted_rows(log, gamma), plain, atol=2e-3)


def test_a_row_is_decided_from_what_stood_before_it(mixed: tuple[World, InteractionLog]) -> None:
    log = mixed[1]
    rows = np.array([0, 1, 30, len(log) - 1])
    seen = LoggedChoices(log, fit_features(training_in(*mixed)), slate_size=4, length=10).before(rows)
    for number, row in enumerate(rows):
        first = np.searchsorted(log.user, log.user[row])
        before = np.arange(max(first, row - 10), row)
        kept = 10 - len(before)
        assert np.array_equal(seen.history_items[number, kept:], log.item[before])
        assert np.array_equal(seen.history_feedback[number, kept:], log.primary[before])
        assert (seen.history_items[number, :kept] == -1).all()


@pytest.mark.parametrize(
    "imitation",
    [
        ("popularity", {"by": "interactions"}),  # what was shown most
        pytest.param(("behaviour_cloning", {}), marks=pytest.mark.slow),  # what was shown next
    ],
)
def test_reinforce_from_a_mixed_log_alone_beats_imitating_the_log(
    mixed: tuple[World, InteractionLog], imitation: tuple[str, dict[str, Any]]
) -> None:
    """The correction learns which of what was shown was good. Paired 95 % interval."""
    kinds = {"reinforce": ("reinforce", {"log_share": 1.0}), "imitation": imitation}
    lanes = Lanes(training_in(*mixed), 256, seed=99)
    values = {}
    for name, (kind, params) in kinds.items():
        settings = AgentSettings.model_validate({"name": "one", "kind": kind, "params": params})
        trained = train(settings, training_in(*mixed), Path())
        values[name] = session_values(lanes, trained.agent.act)
    lanes.close()
    difference = values["reinforce"] - values["imitation"]
    assert difference.mean() - 1.96 * difference.std() / np.sqrt(len(difference)) > 0
