"""What a report is made of beside the flights."""

from __future__ import annotations

import numpy as np
import pytest

from evaluators.page import render_page
from evaluators.report import PreferenceSection
from scenarios.stages.reporting import forgetting_row, tower_seconds
from simulator.preference.continual import Forgetting
from simulator.preference.fitting import TextTower
from tests.evaluators.example_report import example_report


def test_what_was_forgotten_is_loss_before_after_and_their_difference_each_with_an_interval() -> None:
    """Paired by row, the difference is known far better than either loss: 0.1 more on every row of every user."""
    before = np.repeat(np.linspace(0.2, 1.0, 30), 4)
    lost = Forgetting(before, before + 0.1 + np.tile([-0.01, 0.01], 60), np.repeat(np.arange(30), 4))
    row = forgetting_row("world A", lost)
    assert (row.before.value, row.after.value, row.difference.value) == pytest.approx((0.6, 0.7, 0.1))
    assert row.before.n == 30
    widths = [one.high - one.low for one in (row.before, row.after, row.difference)]  # type: ignore[operator]
    assert widths[0] == pytest.approx(widths[1], rel=0.1)
    assert widths[2] < 0.01 < widths[0]
    nobody = forgetting_row("world A", Forgetting(np.zeros(0), np.zeros(0), np.zeros(0, np.int64)))
    assert nobody.difference.withheld is not None
    page = render_page(example_report(preference=PreferenceSection(forgetting=[row])))
    assert "Older rows' loss before" in page
    assert all(f">{value}" in page or f"{value} " in page for value in ("0.60", "0.70", "+0.1"))


def test_the_parts_of_fine_tuning_are_times_like_the_others() -> None:
    tower = TextTower(np.zeros((2, 3), np.float32), "fine-tuned", seconds={"encode": 0.5, "heads": 2.0})
    assert tower_seconds({"world A": tower}) == {
        "fine-tune/encoder of world A, encode (cpu)": 0.5,
        "fine-tune/encoder of world A, heads (cpu)": 2.0,
    }
