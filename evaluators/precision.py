"""How many users to fly: in growing numbers until the differences are known well enough, or all that there are.

Looking and then deciding whether to go on voids an interval made for one look, so the numbers of such a run carry the
limits of a confidence sequence (`comparison.confidence_sequence`), about 1.6 times as wide as a t interval's.
"""

from __future__ import annotations

from collections.abc import Sequence

from evaluators.comparison import SeedPool, cross
from evaluators.flights import Flight, gather
from evaluators.settings import EvaluateSettings

FIRST_LOOK = 200
"""Users before the first look: a sequence is asymptotic, and misses more often when it is looked at earlier."""


def planned_users(evaluate: EvaluateSettings) -> int | None:
    """Users planned where their number is decided by looking, else None."""
    return None if evaluate.precision is None else evaluate.users


def looks(n_users: int, evaluate: EvaluateSettings) -> tuple[int, ...]:
    """Numbers of users after which the differences are looked at; the last is all of them.

    They double, so that what is flown again at every look costs no more than the last look itself.
    """
    if evaluate.precision is None:
        return (n_users,)
    numbers = []
    number = FIRST_LOOK
    while number < n_users:
        numbers.append(number)
        number *= 2
    return (*numbers, n_users)


def precise_enough(
    flights: Sequence[Flight], evaluate: EvaluateSettings, *, learners: set[str], bounds: set[str]
) -> bool:
    """Whether every agent's difference to the first baseline has the half-width that was asked for.

    Args:
        flights: in the judge worlds, of all agents that have not failed.
        evaluate: with `precision`.
        learners: agents whose training is one draw of many.
        bounds: agents that only bound what is reachable.
    """
    metric = evaluate.metrics[0]
    table = gather(flights, [metric], learners=learners, planned=planned_users(evaluate))
    values = table.usable(metric)
    baseline = next((name for name in evaluate.baseline if name in values), None)
    others = [name for name in values if name != baseline and name not in bounds]
    if evaluate.precision is None or baseline is None:
        return False
    pool = SeedPool.of(values.values())
    return all(cross(values[name], values[baseline], pool).half_width(0.95) <= evaluate.precision for name in others)
