"""What `windtunnel effect` found, as records, as JSON and as text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from evaluators.causal.learners import LearnerResult
from evaluators.causal.refutations import Refutation
from evaluators.estimate import Estimate


@dataclass(frozen=True, slots=True)
class GroupEffect:
    """Effect in one group of rows."""

    group: str
    effect: Estimate


@dataclass(frozen=True, slots=True)
class Driver:
    """A feature that drives the effect.

    Attributes:
        feature: its name.
        importance: share in explaining the doubly robust scores, by trees or by size of coefficients.
        slope: change of the effect with one standard deviation of it, or None where it does not vary.
    """

    feature: str
    importance: float
    slope: Estimate | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON-ready dictionary."""
        out: dict[str, Any] = {"feature": self.feature, "importance": self.importance}
        return out if self.slope is None else {**out, "slope": self.slope.to_json()}


@dataclass(frozen=True, slots=True)
class Effect:
    """Effect of one treatment against the control.

    Attributes:
        treatment: value of the treatment. outcome: column.
        ate: average effect, or withheld.
        by: column -> effect in each of its groups, simultaneous over them.
        qini: what the ranking by predicted effect is worth.
        overlap: propensities: known or estimated, range, rows at the floor, rows and users of each arm.
        refutations: all that were tried.
        sensitivity: to unmeasured confounding.
        drivers: features by their share in explaining who is moved, and by how much the effect rises with each.
        trimmed: average effect where both arms occur, None where no row lies outside.
        learners: causalml's learners side by side.
        mediation: parts of the effect by way of the named mediators and not; None where none are named.
    """

    treatment: str
    outcome: str
    ate: Estimate
    by: Mapping[str, tuple[GroupEffect, ...]]
    qini: Estimate
    overlap: Mapping[str, Any]
    refutations: tuple[Refutation, ...]
    sensitivity: Mapping[str, Any]
    drivers: tuple[Driver, ...]
    trimmed: Estimate | None = None
    learners: tuple[LearnerResult, ...] = ()
    mediation: Mapping[str, Estimate] | None = None

    def to_json(self) -> dict[str, Any]:
        """One entry of `effects` in the document of `effect --json`."""
        out: dict[str, Any] = {
            "treatment": self.treatment,
            "outcome": self.outcome,
            "ate": self.ate.to_json(),
            "by": {
                column: [{"group": g.group, "effect": g.effect.to_json()} for g in groups]
                for column, groups in self.by.items()
            },
            "qini": self.qini.to_json(),
            "overlap": dict(self.overlap),
            "refutations": [r.to_json() for r in self.refutations],
            "sensitivity": dict(self.sensitivity),
            "drivers": [d.to_json() for d in self.drivers],
            "learners": [one.to_json() for one in self.learners],
        }
        if self.trimmed is not None:
            out["overlap"]["trimmed"] = self.trimmed.to_json()
        if self.mediation is not None:
            out["mediation"] = {name: part.to_json() for name, part in self.mediation.items()}
        return out

    def as_lines(self, control: str) -> list[str]:
        """Lines for a terminal."""
        lines = [f"{self.treatment} against {control}, effect on {self.outcome}: {_shown(self.ate)}"]
        if self.trimmed is not None:
            lines.append(f"  where both arms occur: {_shown(self.trimmed)}")
        for column, groups in self.by.items():
            lines += [f"  {column} = {g.group}: {_shown(g.effect)}" for g in groups]
        for name, part in (self.mediation or {}).items():
            lines.append(f"  {name}: {_shown(part)}")
        lines.append(f"  ranking by predicted effect (Qini - random): {_shown(self.qini)}")
        lines += [f"  {'passed' if r.passed else 'FAILED'}  {r.name}: {r.detail}" for r in self.refutations]
        if "e_value" in self.sensitivity:
            limit = self.sensitivity["e_value_limit"]
            lines.append(f"  E-value {self.sensitivity['e_value']:.2f} (of the limit nearer 1: {limit:.2f})")
        if "rosenbaum" in self.sensitivity:
            pairs = self.sensitivity["rosenbaum"]
            lines.append(
                f"  Rosenbaum: hidden odds of {pairs['gamma']:.2f} within {pairs['pairs']} matched pairs would explain "
                "it away (one-sided p .05)"
            )
        for bound, (low, high) in self.sensitivity.get("effect_if_odds_wrong_by", {}).items():
            lines.append(f"  if odds of the treatment are wrong by at most {bound}: [{low:.4g}, {high:.4g}]")
        if self.drivers:
            lines.append("  who is moved: " + ", ".join(f"{d.feature} {d.importance:.0%}" for d in self.drivers[:5]))
        return lines + self._learner_lines()

    def _learner_lines(self) -> list[str]:
        """A table of the learners, each column as wide as its widest entry; nothing where none was compared."""
        if not self.learners:
            return []
        table = [("learner", "mean", "slope", "Qini - random", "lowest fifth, highest fifth")]
        for one in self.learners:
            if one.mean.value is not None:
                ends = ", ".join(_shown(effect) for _, _, effect in (one.gates[0], one.gates[-1]))
                mean = f"{one.mean.value:+.4g}"
                table.append((one.learner, mean, _shown(one.calibration), _shown(one.qini), ends))
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        rows = ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in table]
        withheld = [one for one in self.learners if one.mean.value is None]
        return rows + [f"  {one.learner:<{widths[0]}}  withheld: {one.mean.withheld}" for one in withheld]


@dataclass(frozen=True, slots=True)
class EffectResult:
    """What `windtunnel effect` found.

    Attributes:
        n: rows. control: value of the treatment column that is the control.
        effects: one for each other value.
        notes: what was assumed.
    """

    n: int
    control: str
    effects: tuple[Effect, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def withheld(self) -> bool:
        """True where no effect is given: exit code 3."""
        return all(effect.ate.value is None for effect in self.effects)

    def to_json(self) -> dict[str, Any]:
        """The document of `effect --json`."""
        return {
            "n": self.n,
            "control": self.control,
            "effects": [e.to_json() for e in self.effects],
            "notes": list(self.notes),
        }

    def as_text(self) -> str:
        """A table for a terminal."""
        lines = [f"{self.n} rows, control: {self.control}", *(f"note: {note}" for note in self.notes)]
        for e in self.effects:
            lines += ["", *e.as_lines(self.control)]
        return "\n".join(lines)


def _shown(estimate: Estimate) -> str:
    if estimate.value is None:
        return f"withheld: {estimate.withheld}"
    return f"{estimate.value:+.4g} [{estimate.low:.4g}, {estimate.high:.4g}]"
