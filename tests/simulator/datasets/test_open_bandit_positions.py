"""Open Bandit's positions, fitted: the figures of docs/behaviour.md."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from simulator.behaviour import LoggedSlates, fit_examination
from simulator.datasets import check_dataset, read_dataset

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "behaviour.md").read_text(encoding="utf-8")
USER_LEVELS = 46  # of the context's columns the last 46 are affinities, which change from row to row


@pytest.mark.parametrize(("policy", "clicks", "said"), [("random", 46, "1.00"), ("bts", 46, "0.89")])
def test_positions_of_open_bandit_are_as_the_page_says(policy: str, clicks: int, said: str) -> None:
    if check_dataset("obd-women").folder is None:
        pytest.skip("obd-women is in no folder of WINDTUNNEL_DATA")
    rounds = read_dataset("obd-women").rounds[policy]
    user = np.unique(rounds.context[:, :-USER_LEVELS], axis=0, return_inverse=True)[1].ravel()
    shown = LoggedSlates.of_rows(rounds.action, rounds.position, rounds.reward, user)
    fit = fit_examination(shown, "position", n_items=rounds.n_actions)
    assert fit.clicks == clicks
    for place in ("place_1", "place_2"):
        assert f"{fit.value[place]:.2f}" in PAGE
        assert f"({fit.se[place]:.2f})" in PAGE or f"(standard error {fit.se[place]:.2f})" in PAGE
    assert f"{fit.value['place_1']:.2f}" == said
