"""Everything that was checked, and whether the simulator is trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from evaluators.estimate import Estimate
from evaluators.fidelity.calibration import CalibrationFloor, ReliabilityBin, calibration_floor, reliability_curve
from evaluators.fidelity.checks import FUTURE_ROWS, HELD_OUT_USERS, Check, Ints
from evaluators.fidelity.prediction import compare_predictions, prediction_checks, unbiased_test
from evaluators.fidelity.scored_rows import ScoredRows
from evaluators.fidelity.sessions import SessionTable, session_checks, why_no_sessions
from evaluators.fidelity.two_samples import answers_classifier, two_sample_classifier
from simulator.log import JUDGE, InteractionLog, Split
from simulator.streams import stream

MANDATORY = (
    "splits",
    "calibration in the large",
    "slope",
    "skill over base rate",
    "top of the list",
    "responsiveness",
    "determinism",
)
WEAKER = ("calibration in the large", "slope", "skill over base rate")
"""What worlds other than B_1 have to pass: they are refits on resamples and another class, weaker by design."""


@dataclass(frozen=True, slots=True)
class WorldEvidence:
    """What there is to judge one judge world by.

    Attributes:
        number: 1 for B_1 (fitted on all judge users), 2.. for the refits.
        future: predictions for the judge users' future rows.
        held_out: predictions for the held-out users' later half, or None.
        behaviour: responsiveness and determinism checks of the world (same behaviour in all worlds: B_1's suffice).
    """

    number: int
    future: ScoredRows
    held_out: ScoredRows | None = None
    behaviour: tuple[Check, ...] = ()


@dataclass(frozen=True, slots=True)
class Fidelity:
    """Whether simulated numbers may be believed, why not, and every check.

    Attributes:
        trusted: every check that the data allow passed, and the mandatory ones could be made.
        reasons: what failed, what is undecided, what could not be verified; shown beside every simulated number.
        checks: all checks; those that do not count (held-out users) are among them.
        reliability: curve of B_1 on the future rows.
        floor: plain calibration error of B_1 beside that of a perfect model.
        comparisons: named log-loss gains (over the bias model, matrix factorisation, the frozen encoder).
        blocked_by: the checks that keep the simulator from being trusted.
    """

    trusted: bool
    reasons: tuple[str, ...]
    checks: tuple[Check, ...]
    reliability: tuple[ReliabilityBin, ...] = ()
    floor: CalibrationFloor | None = None
    comparisons: Mapping[str, Estimate] = field(default_factory=dict)
    blocked_by: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The `fidelity` block of the report."""
        return {
            "trusted": self.trusted,
            "reasons": list(self.reasons),
            "checks": [check.to_json() for check in self.checks],
            "reliability": [
                {"predicted": b.predicted, "observed": b.observed, "low": b.low, "high": b.high, "n": b.n}
                for b in self.reliability
            ],
            "calibration_floor": None
            if self.floor is None
            else {"error": self.floor.error, "perfect": self.floor.perfect, "perfect_95": self.floor.perfect_95},
            "comparisons": {name: estimate.to_json() for name, estimate in self.comparisons.items()},
        }


def assess(
    worlds: Sequence[WorldEvidence],
    *,
    log: InteractionLog,
    split: Split,
    fitted_users: Mapping[int, Ints],
    root: np.random.SeedSequence,
    sessions: tuple[SessionTable, SessionTable] | None = None,
    unbiased: ScoredRows | None = None,
    ranking: Check | None = None,
    comparisons: Mapping[str, Estimate] | None = None,
) -> Fidelity:
    """Check every judge world and say whether the simulator is trusted.

    Trusted means: B_1 passes every check that the data allow, the other worlds pass O/E, slope and skill over the
    base rate, and the mandatory checks exist. A check that cannot be made does not block, unless it is mandatory; it
    is a reason that is shown. A check failing on held-out users does not block; it is named among the reasons.

    Args:
        worlds: evidence for each judge world, B_1 among them.
        log: the interaction log, for what its times identify.
        split: the split, to check who was fitted on.
        fitted_users: number of a world -> users it was fitted on.
        root: root of the scenario's streams; the streams "fidelity" are used.
        sessions: sessions of the log and of the simulator, where the log has them.
        unbiased: B_1's predictions for rows of random exposure, where the log has them.
        ranking: the ranking-agreement check, where an off-policy or on-line reference exists.
        comparisons: further named gains for the report.
    """
    checks: list[Check] = []
    blocking: list[Check] = []
    notes: list[str] = []
    for evidence in sorted(worlds, key=lambda e: e.number):
        number = evidence.number
        draw = partial(stream, root, "fidelity", number)
        own = [
            splits(split, log, fitted_users[number]),
            *prediction_checks(evidence.future, partial(draw, FUTURE_ROWS)),
        ]
        if number == 1:
            own += [*unbiased_test(unbiased), *_session_checks(log, sessions, evidence.future, draw("sessions"))]
            own += [ranking] if ranking is not None else []
        own = [replace(c, world=number, rows=FUTURE_ROWS) for c in [*own, *evidence.behaviour]]
        checks += own
        blocking += [c for c in own if number == 1 or c.name in (*WEAKER, "splits", "determinism")]
        if evidence.held_out is not None:
            held = prediction_checks(evidence.held_out, partial(draw, HELD_OUT_USERS))
            held = tuple(replace(c, world=number, rows=HELD_OUT_USERS) for c in held)
            checks += held
            notes += [f"{c.label}: {c.reason}" for c in held if c.passed is False and (number == 1 or c.name in WEAKER)]

    reasons = [f"{c.label}: {c.reason}" for c in blocking if c.passed is False]
    made = {c.name for c in blocking if c.passed is not None and c.world == 1}
    missing = [name for name in MANDATORY if name not in made]
    reasons += [f"{name} could not be made, and it is mandatory" for name in missing]
    trusted = not reasons
    blocked_by = (*(c.label for c in blocking if c.passed is False), *missing)
    if unbiased is None:
        reasons.append("off-policy extrapolation unverified: the log has no rows with random exposure")
    unverified = [c for c in blocking if c.passed is None and not c.name.startswith("unbiased test")]
    reasons += [f"{c.label}, not verified: {c.reason}" for c in unverified]
    reasons += notes
    first = next(e for e in worlds if e.number == 1)
    gains = dict(comparisons or {})
    for place, rows in (("future rows", first.future), ("held-out users", first.held_out)):
        if rows is not None and rows.p_bias is not None:
            gain = compare_predictions("over the bias model", rows.p, rows.p_bias, rows.y, rows.user)
            gains.setdefault(f"bias model, {place}", gain)
    return Fidelity(
        trusted,
        tuple(reasons),
        tuple(checks),
        reliability_curve(first.future),
        calibration_floor(first.future, stream(root, "fidelity", 1, "floor")),
        gains,
        blocked_by,
    )


def _session_checks(
    log: InteractionLog,
    sessions: tuple[SessionTable, SessionTable] | None,
    rows: ScoredRows,
    rng: np.random.Generator,
) -> tuple[Check, ...]:
    why = why_no_sessions(log)
    if why is not None or sessions is None:
        why = why or "the log's sessions were not simulated"
        return (*session_checks(None, None, rng, why=why), answers_classifier(rows, rng))
    real, simulated = sessions
    names = sorted(set(real.features) & set(simulated.features))
    tables = [np.column_stack([table.features[name] for name in names]) for table in sessions]
    told = two_sample_classifier(tables[0], real.user, tables[1], simulated.user, rng)
    return (*session_checks(real, simulated, rng), told)


def splits(split: Split, log: InteractionLog, fitted_users: Ints) -> Check:
    """The users a judge world was fitted on are judge users, none is held out, and late rows exist to score."""
    name, threshold = "splits", "exactly 0"
    foreign = int((split.role[fitted_users] != JUDGE).sum())
    estimate = Estimate(
        float(foreign), float(foreign), float(foreign), 1.0, len(fitted_users), "fitted users who are no judge users"
    )
    if foreign:
        return Check(name, estimate, threshold, "fail", f"{foreign} fitted users are not judge users")
    if not len(split.rows(log, split.users(JUDGE), late=True)):
        return Check(name, estimate, threshold, "fail", "the judge users have no future rows to score")
    return Check(name, estimate, threshold, "pass")
