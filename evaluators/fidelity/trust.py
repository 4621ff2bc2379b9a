"""Everything that was checked, and whether the simulator is trusted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from evaluators.estimate import Estimate
from evaluators.fidelity.agreement import RANKING
from evaluators.fidelity.behaviours import GradedRows, graded_predictions
from evaluators.fidelity.calibration import CalibrationFloor, ReliabilityBin, calibration_floor, reliability_curve
from evaluators.fidelity.checks import FUTURE_ROWS, HELD_OUT_USERS, Check, Ints, not_made
from evaluators.fidelity.flown_clicks import FlownClicks, flown_click_checks
from evaluators.fidelity.prediction import (
    behaviour_predictions,
    compare_predictions,
    prediction_checks,
    unbiased_test,
)
from evaluators.fidelity.scored_rows import ScoredRows
from evaluators.fidelity.sessions import FLOWN_FEATURES, Pair, session_checks, why_no_sessions
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
    "world against model",
)
"""Checks without which no world is trusted; where the log has sessions, those of sessions beside."""
WEAKER = ("calibration in the large", "slope", "skill over base rate")
"""What worlds other than B_1 have to pass: they are refits on resamples and another class, weaker by design."""
EVERYWHERE = (*WEAKER, "splits", "world against model", "determinism", "terminal observation", "global random state")
"""What is asked of every world: the weaker predictions, and what holds exactly or not at all."""


@dataclass(frozen=True, slots=True)
class WorldEvidence:
    """What there is to judge one judge world by.

    Attributes:
        number: 1 for B_1 (fitted on all judge users), 2.. for the refits.
        future: predictions for the judge users' future rows.
        held_out: predictions for the held-out users' later half, or None.
        behaviour: checks of the world itself: that it is the model's, responsiveness, determinism.
        sessions: sessions of the log and of the model's answers to the same rows, where the log has them;
            B_1's suffice, of these and of flown ones.
        flown: feature -> whole sessions of the log and as the simulator flies them, or why there are none.
        clicks: the log's slates flown again, or why they were not; B_1's suffice.
        unbiased: predictions for rows of random exposure, where the log has them.
        further: name of a further yes/no behaviour -> its predictions for rows that nothing has seen.
        graded: name of a graded behaviour (dwell, rating) -> its predicted distributions for such rows.
        comparisons: further named gains for the report.
    """

    number: int
    future: ScoredRows
    held_out: ScoredRows | None = None
    behaviour: tuple[Check, ...] = ()
    sessions: Pair | None = None
    flown: Mapping[str, Pair | str] = field(
        default_factory=lambda: dict.fromkeys(FLOWN_FEATURES, "no session was flown")
    )
    clicks: FlownClicks | str = "no slate was flown"
    unbiased: ScoredRows | None = None
    further: Mapping[str, ScoredRows] = field(default_factory=dict)
    graded: Mapping[str, GradedRows] = field(default_factory=dict)
    comparisons: Mapping[str, Estimate] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CheckedWorld:
    """All checks of one judge world; of B_1 also the reliability curve, the calibration floor and gains."""

    number: int
    checks: tuple[Check, ...]
    reliability: tuple[ReliabilityBin, ...] = ()
    floor: CalibrationFloor | None = None
    comparisons: Mapping[str, Estimate] = field(default_factory=dict)


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

    @property
    def mistrust(self) -> str | None:
        """The checks that keep the simulator from being trusted in a few words, or None where it is trusted."""
        if self.trusted:
            return None
        names = self.blocked_by
        return f"{', '.join(names[:4])}{f' and {len(names) - 4} more' if len(names) > 4 else ''} did not pass"

    def with_checks(self, further: Iterable[Check]) -> Fidelity:
        """The same with checks that were made later, such as those of policies that were flown since."""
        checks = (*self.checks, *further)
        return replace(self, **_verdict(checks), checks=checks)

    def to_json(self) -> dict[str, Any]:
        """The `fidelity` block of the report."""
        orders = [check.estimate for check in self.checks if check.name.startswith(RANKING)]
        agreement = next((order for order in orders if order.value is not None), orders[0] if orders else None)
        return {
            "trusted": self.trusted,
            "reasons": list(self.reasons),
            "checks": [check.to_json() for check in self.checks],
            "ranking_agreement": None if agreement is None else agreement.to_json(),
            "reliability": [
                {"predicted": b.predicted, "observed": b.observed, "low": b.low, "high": b.high, "n": b.n}
                for b in self.reliability
            ],
            "calibration_floor": None if self.floor is None else asdict(self.floor),
            "comparisons": {name: estimate.to_json() for name, estimate in self.comparisons.items()},
        }


def check_world(
    evidence: WorldEvidence, *, log: InteractionLog, split: Split, fitted_users: Ints, root: np.random.SeedSequence
) -> CheckedWorld:
    """Every check of one judge world, on the future rows of its users and on those of users held out.

    Args:
        evidence: what there is to judge the world by.
        log: the interaction log, for what its times identify.
        split: the split, to check who was fitted on.
        fitted_users: users that the world was fitted on.
        root: root of the scenario's streams; the streams "fidelity" are used.
    """
    number, future, held_out = evidence.number, evidence.future, evidence.held_out
    draw = partial(stream, root, "fidelity", number)
    own = [splits(split, log, fitted_users), *prediction_checks(future, partial(draw, FUTURE_ROWS))]
    for name, predicted in evidence.further.items():
        own += behaviour_predictions(name, predicted, partial(draw, FUTURE_ROWS))
    for name, distribution in evidence.graded.items():
        own += graded_predictions(name, distribution, draw(FUTURE_ROWS, name))
    if number == 1:
        own += [
            *unbiased_test(evidence.unbiased),
            *flown_click_checks(evidence.clicks),
            *_session_checks(log, evidence.sessions, evidence.flown, future, draw("sessions")),
        ]
    checks = [replace(c, world=number, rows=FUTURE_ROWS) for c in [*own, *evidence.behaviour]]
    if held_out is not None:
        held = prediction_checks(held_out, partial(draw, HELD_OUT_USERS))
        checks += [replace(c, world=number, rows=HELD_OUT_USERS) for c in held]
    if number != 1:
        return CheckedWorld(number, tuple(checks))
    gains = dict(evidence.comparisons)
    for place, rows in ((FUTURE_ROWS, future), (HELD_OUT_USERS, held_out)):
        if rows is not None and rows.p_bias is not None:
            gain = compare_predictions("over the bias model", rows.p, rows.p_bias, rows.y, rows.user)
            gains.setdefault(f"bias model, {place}", gain)
    return CheckedWorld(
        number, tuple(checks), reliability_curve(future), calibration_floor(future, draw("floor")), gains
    )


def conclude(worlds: Sequence[CheckedWorld], further: Iterable[Check] = ()) -> Fidelity:
    """Whether the simulator is trusted after all checks of its judge worlds.

    Trusted means: B_1 passes every check that the data allow, the other worlds pass O/E, slope and skill over the
    base rate, and the mandatory checks exist. A check that cannot be made does not block, unless it is mandatory; it
    is a reason that is shown. A check failing on held-out users does not block; it is named among the reasons.

    Args:
        worlds: the checked judge worlds, B_1 among them.
        further: checks of the simulator as a whole, such as its agreement with values measured on-line.
    """
    ordered = sorted(worlds, key=lambda world: world.number)
    first = next(world for world in ordered if world.number == 1)
    checks = (*(check for world in ordered for check in world.checks), *further)
    return Fidelity(
        **_verdict(checks),
        checks=checks,
        reliability=first.reliability,
        floor=first.floor,
        comparisons=first.comparisons,
    )


def _verdict(checks: Sequence[Check]) -> dict[str, Any]:
    """`trusted`, `reasons` and `blocked_by` of these checks."""
    beside = [c for c in checks if not c.counts and c.rows != HELD_OUT_USERS and c.passed is False]
    checks = [c for c in checks if c.counts]
    own = [c for c in checks if c.rows != HELD_OUT_USERS]
    blocking = [c for c in own if c.world in (None, 1) or c.name in EVERYWHERE]
    failed = [c for c in blocking if c.passed is False]
    made = {c.name for c in blocking if c.passed is not None and c.world == 1}
    missing = [name for name in MANDATORY if name not in made]
    missing += [c.name for c in blocking if c.mandatory and c.passed is None and c.name not in missing]
    reasons = [f"{c.label}: {c.reason}" for c in failed]
    reasons += [f"{name} could not be made, and it is mandatory" for name in missing]
    unbiased = next((c for c in blocking if c.name == "unbiased test: O/E"), None)
    if unbiased is None or unbiased.passed is None:
        why = "the log has no rows with random exposure" if unbiased is None else unbiased.reason
        reasons.append(f"off-policy extrapolation unverified: {why}")
    unverified = [c for c in blocking if c.passed is None and not c.name.startswith("unbiased test")]
    reasons += [f"{c.label}, not verified: {c.reason}" for c in unverified]
    held = [c for c in checks if c.rows == HELD_OUT_USERS and c.passed is False]
    reasons += [f"{c.label}: {c.reason}" for c in held if c.world == 1 or c.name in WEAKER]
    reasons += [f"{c.label}, not counted: {c.reason}" for c in beside]
    return {
        "trusted": not failed and not missing,
        "reasons": tuple(reasons),
        "blocked_by": (*(c.label for c in failed), *missing),
    }


def _session_checks(
    log: InteractionLog,
    sessions: Pair | None,
    flown: Mapping[str, Pair | str],
    rows: ScoredRows,
    rng: np.random.Generator,
) -> tuple[Check, ...]:
    why = why_no_sessions(log)
    if why is not None or sessions is None:
        (none,) = session_checks(None, None, rng, why=why or "the log's sessions were not simulated")
        return replace(none, mandatory=why is None), answers_classifier(rows, rng)
    real, simulated = sessions
    names = sorted(set(real.features) & set(simulated.features))
    tables = [np.column_stack([*(t.features[n] for n in names), *map(np.log1p, t.given.values())]) for t in sessions]
    told = two_sample_classifier(tables[0], real.user, tables[1], simulated.user, rng)
    own = session_checks(real, simulated, rng)
    for feature, found in flown.items():
        if isinstance(found, str):
            own += (not_made(f"sessions: {feature}", "upper <= 0.15", found),)
        else:
            own += session_checks(*found, rng)
    return (*own, told)


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
