"""How numbers, intervals and verdicts are written, alike in the terminal, on the page and in the leaderboard."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Protocol

SCOPE = re.compile(r" \((?P<scope>(?:world \d+)?(?:, )?(?:held-out users)?)\)$")
"""Where a check was made, behind its name: "slope (world 2, held-out users)"; nothing for world 1's future rows."""
VERDICT_WORDS = {"pass": "Pass", "fail": "Fail", "undecided": "Undecided"}


class Interval(Protocol):
    """What is read of an estimate."""

    @property
    def value(self) -> float | None:
        """Point estimate; None where withheld."""

    @property
    def low(self) -> float | None:
        """Lower limit; None where there is none."""

    @property
    def high(self) -> float | None:
        """Upper limit; None where there is none."""


def decimals(*numbers: float | None) -> int:
    """Decimals that show half the spread of the numbers with two digits; of a lone number, four digits."""
    known = [x for x in numbers if x is not None]
    spread = (max(known) - min(known)) / 2 if known else 0.0
    if spread > 0:
        return min(max(1 - math.floor(math.log10(spread)), 0), 8)
    size = max((abs(x) for x in known), default=0.0)
    return min(max(3 - math.floor(math.log10(size)), 0), 8) if size > 0 else 0


def column_decimals(estimates: Iterable[Interval | None]) -> int | None:
    """Decimals for a whole column: what the median interval needs, so that the digits stand under one another."""
    needed = sorted(
        decimals(e.value, e.low, e.high)
        for e in estimates
        if e is not None and e.value is not None and (e.low, e.high) != (None, None) and e.low != e.high
    )
    return needed[len(needed) // 2] if needed else None


def number(x: float | None, places: int | None = None, *, signed: bool = False) -> str:
    """A number with a fixed count of decimals, thousands apart; "none" for None."""
    if x is None:
        return "none"
    places = decimals(x) if places is None else places
    text = f"{x:+,.{places}f}" if signed else f"{x:,.{places}f}"
    # A rounded zero has no sign: -0.00 would read as a direction.
    return text.lstrip("+-") if not any(c in "123456789" for c in text) else text


def with_interval(estimate: Interval, places: int | None = None, *, signed: bool = False) -> str:
    """'4.12 [3.98, 4.26]'; a value without an interval alone; "withheld" where there is no value.

    Args:
        estimate: value and limits.
        places: decimals; by default what the interval's width asks for.
        signed: writes the sign of a value above 0 too, as a difference needs.
    """
    if estimate.value is None:
        return "withheld"
    if estimate.low is None and estimate.high is None:
        return number(estimate.value, places, signed=signed)
    places = decimals(estimate.value, estimate.low, estimate.high) if places is None else places
    return f"{number(estimate.value, places, signed=signed)} {limits(estimate, places)}"


def limits(estimate: Interval, places: int | None = None) -> str:
    """'[3.98, 4.26]', with "none" for a limit that is not valid."""
    places = decimals(estimate.value, estimate.low, estimate.high) if places is None else places
    return f"[{number(estimate.low, places)}, {number(estimate.high, places)}]"


def p_value(p: float | None) -> str:
    """A p value with three decimals, '< 0.001' below that, and an empty string for None."""
    if p is None:
        return ""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def places_held(rank_low: int, rank_high: int) -> str:
    """'2' or '2 to 4'."""
    return str(rank_low) if rank_low == rank_high else f"{rank_low} to {rank_high}"


def listing(words: Iterable[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    words = list(words)
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1] if words else ""


def counted(n: int, noun: str) -> str:
    """'1 gate', '3 gates'."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def gate_summary(verdicts: Iterable[str], asked: int) -> str:
    """'2 of 4 gates pass, 1 fails, 1 is undecided'; says so where the scenario asks none, or none of any agent.

    Args:
        verdicts: of each gate for each agent that it holds for.
        asked: gates that stand in the scenario.
    """
    verdicts = list(verdicts)
    if not verdicts:
        nobody = f"{'the gate holds' if asked == 1 else f'all {asked} gates hold'} for no agent of this run"
        return f"{nobody}: name agents under it, or fly a policy with vet" if asked else "the scenario has no gates"
    passed, failed, open_ = (verdicts.count(verdict) for verdict in ("pass", "fail", "undecided"))
    if passed == len(verdicts):
        return "the gate passes" if passed == 1 else f"all {passed} gates pass"
    parts = [f"{passed} of {counted(len(verdicts), 'gate')} {'passes' if passed == 1 else 'pass'}"]
    if failed:
        parts.append(f"{failed} {'fails' if failed == 1 else 'fail'}")
    if open_:
        parts.append(f"{open_} {'is' if open_ == 1 else 'are'} undecided")
    return ", ".join(parts)


def threshold_in_words(threshold: tuple[float | None, float | None] | str | float | None) -> str:
    """'[0.9, 1.1]', the words themselves, or 'none'."""
    if isinstance(threshold, tuple):
        return f"[{number(threshold[0])}, {number(threshold[1])}]"
    return "none" if threshold is None else str(threshold)
