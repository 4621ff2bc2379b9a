"""A number that may be believed, or the reason why it is withheld."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with an interval, or no value and the reason.

    Attributes:
        value: point estimate in the unit of the metric; None where withheld.
        low, high: limits of the interval; None where there is no valid limit on that side.
        level: coverage that the interval claims, in (0, 1).
        n: independent units (users, clusters) it rests on.
        method: how value and interval were made, scope and assumptions included.
        withheld: "<rule>: measured x, needs y; what would help", or None.
        diagnostics: further figures (`ess`, `n_inf`, ...), JSON-ready.
    """

    value: float | None
    low: float | None
    high: float | None
    level: float
    n: int
    method: str
    withheld: str | None = None
    diagnostics: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.value is None) != (self.withheld is not None):
            raise ValueError(f"{self.method}: an estimate has either a value or a reason why it is withheld")
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(f"{self.method}: value {self.value} is not finite; withhold it with the reason")

    @classmethod
    def withhold(
        cls, method: str, why: str, *, n: int = 0, level: float = 0.95, diagnostics: Mapping[str, Any] | None = None
    ) -> Estimate:
        """An estimate that is not given, with the reason."""
        return cls(None, None, None, level, n, method, why, dict(diagnostics or {}))

    def note(self, text: str) -> Estimate:
        """The same estimate with a remark added to its method."""
        return replace(self, method=f"{self.method}; {text}")

    def to_json(self, *, diagnostics: bool = True) -> dict[str, Any]:
        """JSON-ready dictionary with the keys of the report; infinite limits become null."""

        def finite(x: float | None) -> float | None:
            return None if x is None or not math.isfinite(x) else float(x)

        out: dict[str, Any] = {
            "value": finite(self.value),
            "low": finite(self.low),
            "high": finite(self.high),
            "level": self.level,
            "n": int(self.n),
            "method": self.method,
        }
        if self.withheld is not None:
            out["withheld"] = self.withheld
        if diagnostics and self.diagnostics:
            out["diagnostics"] = dict(self.diagnostics)
        return out
