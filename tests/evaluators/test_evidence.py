"""What gates are told of simulated numbers: which are corrected, which are blocked, and what may be said of a log.

Sabotaged once, each seen red: the band of .15 not asked, self-selected means left to decide, the picks' part not
widened with the level, the sweep's factor left out, groups taken for all users of the log.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from evaluators.comparison import AgentValues
from evaluators.estimate import Estimate
from evaluators.evidence import Corrections, GroupGaps, SimulatedEvidence
from evaluators.flights import Flights
from evaluators.gates import GateSettings, Term, decide_gates
from evaluators.intervals import t_quantile
from evaluators.picks import UNLOGGED_CHOICE, PickedRows, Picks, picks_from_rows

USERS = 120
METRICS = ("reward", "coverage")


def flights_of(means: dict[str, float], *, worlds: int = 5, seed: int = 0, **changes: object) -> Flights:
    """Agents on the same users; an agent's mean is what it says in every world, up to little noise."""
    rng = np.random.default_rng(seed)
    level = rng.gamma(4.0, 1.0, USERS)
    values = {
        name: AgentValues(mean + level + 0.05 * rng.standard_normal((1, worlds, USERS))) for name, mean in means.items()
    }
    clicks = {name: np.full(USERS, 4.0) for name in means}
    shown = {name: np.full(USERS, 40.0) for name in means}
    base = Flights(np.arange(USERS) + 50, METRICS, dict.fromkeys(METRICS, values), clicks=clicks, shown=shown)
    return replace(base, **changes)  # type: ignore[arg-type]


TWO = flights_of({"mine": 2.0, "base": 1.0})


@dataclass(frozen=True)
class Answers:
    """Corrections that say what they were told to."""

    value: float = 1.0
    half: float = 0.1
    gap: float = 0.0
    gap_half: float = 0.05

    def corrected(
        self, flights: Flights, agent: str, metric: str, level: float, share: float | None = None
    ) -> Estimate:
        return Estimate(self.value, self.value - self.half, self.value + self.half, level, 100, "corrected")

    def difference(self, flights: Flights, agent: str, vs: str, metric: str, level: float) -> Estimate:
        return self.corrected(flights, agent, metric, level)

    def picks_difference(self, agent: str, vs: str, level: float) -> Estimate:
        return Estimate(self.gap, self.gap - self.gap_half, self.gap + self.gap_half, level, 100, "gap")


def evidence_of(flights: Flights = TWO, answers: Answers | None = None, **changes: object) -> SimulatedEvidence:
    found = SimulatedEvidence(flights)
    if answers is not None:
        found = replace(
            found,
            corrected=answers.corrected,
            corrected_difference=answers.difference,
            picks_difference=answers.picks_difference,
        )
    return replace(found, **changes)  # type: ignore[arg-type]


def verdict(evidence: SimulatedEvidence, rule: str, agent: str = "mine") -> tuple[str, str]:
    (result,) = decide_gates([GateSettings(name="gate", rule=rule)], [agent], evidence)
    return result.verdict, result.reason


# ---------------------------------------------------------------------------------------------------------- means


def test_a_mean_is_the_corrected_one_at_the_level_that_was_asked() -> None:
    found = evidence_of(answers=Answers(value=7.0)).look_up(Term("mean", "reward"), "mine", 0.99)
    assert (found.estimate.value, found.estimate.level) == (7.0, 0.99)
    assert found.usual is not None
    assert found.usual.level == 0.95
    assert found.scope == ("corrected by the picks check",)


def test_without_a_picks_check_a_mean_is_withheld() -> None:
    assert verdict(evidence_of(), "mean(reward) > 1") == (
        "undecided",
        "mean(reward) withheld: picks check: not made, and judge worlds alone undersell or flatter; "
        "gate on a difference",
    )


def test_what_was_shown_needs_no_correction() -> None:
    found = evidence_of().look_up(Term("mean", "coverage"), "mine", 0.95)
    assert found.estimate == TWO.simulated("mine", "coverage")
    assert found.blocked is None
    assert verdict(evidence_of(), "mean(coverage) > 1")[0] == "pass"


@pytest.mark.parametrize("given", UNLOGGED_CHOICE)
def test_where_exposure_was_not_logged_no_mean_decides_and_a_difference_does(given: str) -> None:
    evidence = evidence_of(answers=Answers(gap=3.0), given=given)
    said, reason = verdict(evidence, "mean(reward) > 1")
    assert said == "undecided"
    assert given in reason
    said, reason = verdict(evidence, "difference(reward, vs=base) > 0")
    assert said == "pass"
    assert given in reason
    assert given not in verdict(evidence, "mean(coverage) > 1")[1]


# ----------------------------------------------------------------------------------------------------- differences


def test_a_difference_decides_where_the_worlds_flatter_both_alike() -> None:
    evidence = evidence_of(answers=Answers(gap=0.05, gap_half=0.08))
    found = evidence.look_up(Term("difference", "reward", vs="base"), "mine", 0.95)
    assert found.blocked is None
    assert found.estimate == TWO.difference("mine", "base", "reward").estimate
    assert found.scale == pytest.approx(TWO.values["reward"]["base"].value)
    assert verdict(evidence, "difference(reward, vs=base) > 0.5")[0] == "pass"
    assert verdict(evidence, "ratio(reward, vs=base) > 1.5")[0] == "fail"


@pytest.mark.parametrize(
    "answers", [Answers(gap=0.1, gap_half=0.06), Answers(gap=-0.1, gap_half=0.06), Answers(gap=0.4)]
)
def test_a_difference_of_unequal_optimism_is_left_to_the_corrected_one(answers: Answers) -> None:
    passes = evidence_of(answers=replace(answers, value=0.7, half=0.1))
    said, reason = verdict(passes, "difference(reward, vs=base) > 0.5")
    assert said == "pass"
    assert "needs within 0.15" in reason
    turned = evidence_of(answers=replace(answers, value=0.3, half=0.1))
    assert verdict(turned, "difference(reward, vs=base) > 0.5")[0] == "fail"
    wide = evidence_of(answers=replace(answers, value=0.7, half=0.3))
    assert verdict(wide, "difference(reward, vs=base) > 0.5")[0] == "undecided"
    # A ratio has no corrected twin.
    assert verdict(passes, "ratio(reward, vs=base) > 1.01")[0] == "undecided"


def test_without_a_picks_check_a_difference_of_behaviour_decides_nothing_and_one_of_composition_does() -> None:
    assert verdict(evidence_of(), "difference(reward, vs=base) > 0")[0] == "undecided"
    assert verdict(evidence_of(), "difference(coverage, vs=base) > 0")[0] == "pass"


def test_worlds_that_disagree_hold_a_difference_up() -> None:
    values = dict(TWO.values["reward"])
    odd = values["mine"].per_user.copy()
    odd[:, 4] -= 1.5
    values["mine"] = AgentValues(odd)
    flights = replace(TWO, values={"reward": values, "coverage": values})
    said, reason = verdict(evidence_of(flights, Answers()), "difference(reward, vs=base) > 0")
    assert said == "undecided"
    assert "worlds disagree: 1 of 5" in reason


def test_the_same_question_is_answered_once() -> None:
    asked = []

    def corrected(flights: Flights, agent: str, metric: str, level: float, share: float | None) -> Estimate:
        asked.append(level)
        return Answers().corrected(flights, agent, metric, level)

    evidence = evidence_of(corrected=corrected)
    for _ in range(3):
        evidence.look_up(Term("mean", "reward"), "mine", 0.99)
    assert asked == [0.99, 0.95]


def test_a_sweep_answers_from_its_own_flights() -> None:
    swept = flights_of({"mine": 0.5, "base": 1.0}, worlds=1)
    evidence = evidence_of(answers=Answers(), swept=(("assumed leave.satisfaction", 5.0, swept),))
    said, reason = verdict(evidence, "difference(reward, vs=base) > 0")
    assert said == "undecided"
    assert "depends on assumed leave.satisfaction: PASS as it stands, FAIL at 5" in reason
    # The sweep comes from one world, and that alone holds nothing up.
    agrees = flights_of({"mine": 2.0, "base": 1.0}, worlds=1)
    evidence = evidence_of(answers=Answers(), swept=(("assumed leave.satisfaction", 5.0, agrees),))
    assert verdict(evidence, "difference(reward, vs=base) > 0")[0] == "pass"


# ---------------------------------------------------------------------------------------------------------- ranks


def test_a_rank_gate_takes_the_range_of_places() -> None:
    flights = flights_of({"mine": 2.0, "base": 1.0, "worst": 0.0})
    evidence = evidence_of(flights, Answers())
    found = evidence.look_up(Term("rank", "reward"), "base", 0.95)
    assert (found.estimate.value, found.estimate.low, found.estimate.high) == (2, 2, 2)
    assert found.worlds == (2.0,) * 5
    assert verdict(evidence, "rank(reward) <= 1")[0] == "pass"
    assert verdict(evidence, "rank(reward) <= 1", "base")[0] == "fail"


def test_agents_of_unequal_optimism_are_not_separated_in_a_rank_gate() -> None:
    assert verdict(evidence_of(answers=Answers(gap=0.5)), "rank(reward) <= 1")[0] == "undecided"
    assert verdict(evidence_of(answers=Answers(gap=0.5)), "rank(coverage) <= 1")[0] == "pass"


# ---------------------------------------------------------------------------------------------- barred, logged, groups


def test_an_agent_that_may_have_seen_the_rows_has_no_evidence() -> None:
    flights = replace(TWO, barred={"mine": "policy may have seen these rows"})
    for rule in (
        "mean(reward) > 0",
        "difference(reward, vs=base) > 0",
        "rank(reward) <= 2",
        "off_policy(dr) > 0",
        "worst_group(reward, gender) > 0",
    ):
        said, reason = verdict(evidence_of(flights, Answers()), rule)
        assert said == "undecided"
        assert "policy may have seen these rows" in reason


def test_logged_numbers_need_no_trust_and_say_when_there_are_none() -> None:
    assert "no logged exposure" in verdict(evidence_of(), "off_policy(dr) > 0")[1]

    def off_policy(term: Term, agent: str, level: float) -> Estimate:
        return Estimate(1.0, 0.5, 1.5, level, 100, str(term))

    evidence = evidence_of(off_policy=off_policy, mistrust="slope")
    assert verdict(evidence, "off_policy(dr) > 0")[0] == "pass"
    assert verdict(evidence, "difference(coverage, vs=base) > 0")[0] == "undecided"


def test_groups_are_those_of_the_users_who_flew() -> None:
    groups: NDArray[np.str_] = np.random.default_rng(2).choice(np.array(["f", "m"]), 200)
    value = np.where(groups[TWO.user] == "f", 3.0, 2.0) + 0.1 * np.random.default_rng(1).standard_normal(USERS)
    values = {"mine": AgentValues(np.broadcast_to(value, (1, 5, USERS)))}
    flights = replace(TWO, values={"reward": values, "coverage": values})
    evidence = evidence_of(flights, fairness=GroupGaps({"gender": groups}))
    gap = evidence.look_up(Term("fairness.gap", "reward", attribute="gender"), "mine", 0.95).estimate
    assert gap.value == pytest.approx(1.0, abs=0.06)
    worst = evidence.look_up(Term("worst_group", "reward", attribute="gender"), "mine", 0.95).estimate
    assert worst.value == pytest.approx(2.0, abs=0.05)
    assert verdict(evidence, "fairness.gap(reward, gender) <= 0.05")[0] == "fail"
    for rule, words in (
        ("fairness.gap(reward, age) <= 0.05", "no attribute age"),
        ("fairness.gap(coverage, gender) <= 0.05", "no group has its own"),
    ):
        said, reason = verdict(evidence, rule)
        assert said == "undecided"
        assert words in reason


# --------------------------------------------------------------------------------------------------- corrections


def picks_of(ratio: float) -> Picks:
    """Picks whose observed over expected is about this."""
    rng = np.random.default_rng(3)
    p = rng.uniform(0.2, 0.4, 2_000)
    y = (rng.random(2_000) < ratio * p).astype(np.float64)
    rows = PickedRows(p, y, np.repeat(np.arange(200), 10), np.ones(2_000))
    return picks_from_rows(rows)


def corrections_of(shifted: tuple[float, float, float] = (2.5, 2.2, 2.8)) -> Corrections:
    flown = tuple(flights_of({"mine": mean}, worlds=1) for mean in shifted)
    return Corrections(TWO, {"mine": picks_of(1.2)}, {"mine": (flown[0], flown[1], flown[2])})


def test_a_corrected_value_is_the_shifted_flights_with_both_errors_in_squares() -> None:
    corrections = corrections_of()
    simulated = TWO.simulated("mine", "reward")
    found = corrections.corrected(TWO, "mine", "reward", 0.95)
    assert found.value is not None
    assert found.low is not None
    assert found.high is not None
    assert simulated.low is not None
    assert simulated.high is not None
    assert found.value == pytest.approx(simulated.value + 0.5, abs=0.05)  # type: ignore[operator]
    expected = np.hypot(0.3, (simulated.high - simulated.low) / 2)
    assert (found.high - found.low) / 2 == pytest.approx(expected, rel=0.05)


def test_at_a_gates_level_the_picks_part_widens_as_well() -> None:
    corrections = replace(corrections_of((2.5, -1.5, 6.5)))  # the picks' part dwarfs the simulated one
    usual, strict = (corrections.corrected(TWO, "mine", "reward", level) for level in (0.95, 0.995))
    widths = [(one.high or 0.0) - (one.low or 0.0) for one in (usual, strict)]
    n = corrections.picks["mine"].estimate.n
    assert widths[1] / widths[0] == pytest.approx(t_quantile(0.995, n - 1) / t_quantile(0.95, n - 1), rel=0.02)


def test_under_a_swept_assumption_the_corrected_value_moves_as_the_uncorrected_one() -> None:
    corrections = corrections_of()
    assumed = corrections.corrected(TWO, "mine", "reward", 0.95)
    halved = {name: values.times(0.5) for name, values in TWO.values["reward"].items()}
    swept = corrections.corrected(replace(TWO, values={"reward": halved, "coverage": halved}), "mine", "reward", 0.95)
    assert assumed.value is not None
    assert swept.value == pytest.approx(assumed.value / 2)


def test_nothing_is_corrected_without_picks_or_flights_that_were_shifted() -> None:
    corrections = corrections_of()
    assert "base was not checked" in (corrections.corrected(TWO, "base", "reward", 0.95).withheld or "")
    assert "base was not checked" in (corrections.difference(TWO, "mine", "base", "reward", 0.95).withheld or "")
    assert "base was not checked" in (corrections.picks_difference("mine", "base", 0.95).withheld or "")
    unflown = replace(corrections, shifted={})
    assert "did not fly" in (unflown.corrected(TWO, "mine", "reward", 0.95).withheld or "")
    few = picks_from_rows(PickedRows(np.full(40, 0.3), np.zeros(40), np.arange(40), np.ones(40)))
    assert "25" in (replace(corrections, picks={"mine": few}).corrected(TWO, "mine", "reward", 0.95).withheld or "")
    no_limit = replace(corrections, shifted={"mine": (*corrections.shifted["mine"][:2], None)})
    assert "no appeal reaches a limit" in (no_limit.corrected(TWO, "mine", "reward", 0.95).withheld or "")
    elsewhere = {"mine": tuple(replace(f, values={"coverage": f.values["coverage"]}, metrics=("coverage",))
                               for f in corrections.shifted["mine"] if f is not None)}  # fmt: skip
    other = replace(corrections, shifted=elsewhere)  # type: ignore[arg-type]
    assert "not flown with the metric reward" in (other.corrected(TWO, "mine", "reward", 0.95).withheld or "")


def test_a_difference_of_corrected_values_holds_both_picks_parts() -> None:
    first, second = corrections_of(), corrections_of()
    flown = tuple(flights_of({"base": mean}, worlds=1) for mean in (1.5, 1.1, 1.9))
    both = Corrections(
        TWO,
        {"mine": first.picks["mine"], "base": second.picks["mine"]},
        {"mine": first.shifted["mine"], "base": (flown[0], flown[1], flown[2])},
    )
    found = both.difference(TWO, "mine", "base", "reward", 0.95)
    assert found.value == pytest.approx(1.0, abs=0.05)
    assert ((found.high or 0.0) - (found.low or 0.0)) / 2 == pytest.approx(np.hypot(0.3, 0.4), rel=0.05)
    assert both.picks_difference("mine", "base", 0.95).value == pytest.approx(0.0)
