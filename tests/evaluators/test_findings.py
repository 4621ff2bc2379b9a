"""What a report says of assumptions."""

from __future__ import annotations

import numpy as np
import pytest

from evaluators.comparison import AgentValues
from evaluators.findings import assumption_section
from evaluators.flights import Flights
from simulator.behaviour import Assumption


def flown(**means: float) -> Flights:
    """Agents in two worlds, the second of which lies 100 higher."""
    values = {
        name: AgentValues(mean + np.array([0.0, 100.0])[None, :, None] + np.zeros(3)) for name, mean in means.items()
    }
    return Flights(np.arange(3), ("reward",), {"reward": values})


def test_the_range_over_a_sweep_is_of_the_one_policy_that_it_moves_most_in_the_first_world() -> None:
    """The policies differ by 20 and the sweep moves one by 3: a range over both of them would be 22."""
    decay = Assumption("examination", "decay", 0.85, "assumed", sweep=(0.7, 1.0))
    swept = [
        (("examination", "decay", 0.7), flown(mine=29.0, other=10.5, oracle=10.0)),
        (("examination", "decay", 1.0), flown(mine=31.0, other=11.0, oracle=99.0)),
        (("leave", "satisfaction", 0.0), flown(mine=0.0, other=0.0, oracle=0.0)),
    ]
    now = flown(mine=28.0, other=10.0, oracle=50.0)
    section = assumption_section(decay, swept, now, ["reward"], {"oracle"})
    assert section.effect["reward"] == pytest.approx((28.0, 31.0))
    assert section.moved == {"reward": "mine"}
    assert section.sweep == [0.7, 1.0]
    assert section.note is None
    unswept = assumption_section(Assumption("drift", "rate", 0.05, "assumed"), swept, now, ["reward"], {"oracle"})
    assert unswept.effect == unswept.moved == {}


def test_what_was_not_flown_is_no_sweep() -> None:
    """Users with one session each never come back: the report said "swept over 0, 0.6" of what nobody flew."""
    one = [(("drift", "rate", 0.0), flown(mine=1.0))]
    loop = Assumption("popularity", "strength", 0.3, "assumed", sweep=(0.0, 0.6))
    section = assumption_section(loop, one, flown(mine=2.0), ["reward"], ())
    assert section.sweep == []
    assert section.note == "acts between sessions, of which users have one each"
    rate = Assumption("drift", "rate", 0.05, "assumed", sweep=(0.0, 0.2))  # the second flight failed, say
    assert assumption_section(rate, one, flown(mine=2.0), ["reward"], ()).sweep == [0.0]
    several = [(("popularity", "strength", 0.6), flown(mine=1.0))]
    told = assumption_section(loop, several, flown(mine=2.0), ["reward"], ())
    assert (told.sweep, told.note) == ([0.6], None)
