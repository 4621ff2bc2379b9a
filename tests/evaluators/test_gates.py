"""Gates: the grammar, what is refused before anything runs, and every way in which a verdict follows an interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from evaluators.estimate import Estimate
from evaluators.gates import (
    Comparison,
    Evidence,
    GateEvidence,
    GateSettings,
    Joined,
    Rule,
    Term,
    Verdict,
    check_rule,
    decide_gates,
    overall_verdict,
    parse_rule,
    verdict_of,
)
from evaluators.power import Components
from simulator.errors import InputError

# ------------------------------------------------------------------------------------------------ the rule, read


@pytest.mark.parametrize(
    ("text", "term"),
    [
        ("mean(click_rate) >= 0.1", Term("mean", "click_rate")),
        ("difference(reward, vs=popularity) >= 0.1", Term("difference", "reward", vs="popularity")),
        ("ratio( reward , vs = recbole:EASE ) >= 0.1", Term("ratio", "reward", vs="recbole:EASE")),
        ("fairness.gap(click_rate, gender) >= 0.1", Term("fairness.gap", "click_rate", attribute="gender")),
        ("worst_group(click_rate, 'age band') >= .1", Term("worst_group", "click_rate", attribute="age band")),
        ("off_policy(switch_dr(lambda=5)) >= 1e-1", Term("off_policy", "switch_dr(lambda=5)")),
        ("off_policy_difference(dr, vs=logged) >= +0.1", Term("off_policy_difference", "dr", vs="logged")),
        ("rank(reward) >= 0.1", Term("rank", "reward")),
        ("mean(dr(clip=10, fold=2)) >= 0.1", Term("mean", "dr(clip=10, fold=2)")),
    ],
)
def test_each_statistic_is_read_with_its_arguments(text: str, term: Term) -> None:
    assert parse_rule(text) == Comparison(term, ">=", 0.1)


def test_a_name_with_blanks_is_written_in_quotes_and_read_back() -> None:
    rule = parse_rule('fairness.gap(click_rate, "gender x age") <= 0.05')
    assert isinstance(rule, Comparison)
    assert rule.term.attribute == "gender x age"
    assert parse_rule(str(rule)) == rule
    assert '"gender x age"' in str(rule)


def test_and_binds_closer_than_or_and_parentheses_closer_than_both() -> None:
    a, b, c = (Comparison(Term("mean", name), ">", 0.0) for name in "abc")
    flat = "mean(a) > 0 or mean(b) > 0 and mean(c) > 0"
    assert parse_rule(flat) == Joined("or", (a, Joined("and", (b, c))))
    assert parse_rule("(mean(a) > 0 or mean(b) > 0) and mean(c) > 0") == Joined("and", (Joined("or", (a, b)), c))


def written(rule: Rule) -> str:
    if isinstance(rule, Comparison):
        return f"{rule.term} {rule.operator} {rule.threshold!r}"
    return f" {rule.word} ".join(f"({written(part)})" for part in rule.parts)


NAMES = st.from_regex(r"[a-z][a-z_:.0-9-]{0,8}", fullmatch=True).filter(lambda name: name not in ("and", "or"))
COMPARISONS = st.builds(
    Comparison,
    st.one_of(
        st.builds(lambda metric: Term("mean", metric), NAMES),
        st.builds(lambda metric, vs: Term("difference", metric, vs=vs), NAMES, NAMES),
        st.builds(lambda metric, attribute: Term("fairness.gap", metric, attribute=attribute), NAMES, NAMES),
    ),
    st.sampled_from([">", ">=", "<", "<="]),
    st.floats(-1e6, 1e6),
)
RULES = st.recursive(
    COMPARISONS,
    lambda rules: st.builds(
        lambda word, parts: Joined(word, tuple(parts)),
        st.sampled_from(["and", "or"]),
        st.lists(rules, min_size=2, max_size=3),
    ),
    max_leaves=6,
)


@given(RULES)
@settings(max_examples=100)
def test_a_rule_written_down_is_read_back_as_it_was(rule: Rule) -> None:
    assert parse_rule(written(rule)) == rule


@given(st.text(alphabet="mean(rewd,vs=) ><=0.1andor\"'", max_size=40))
@settings(max_examples=200)
def test_any_text_is_a_rule_or_one_line_that_says_why_not(text: str) -> None:
    why = ""
    try:
        parse_rule(text)
    except InputError as wrong:
        why = str(wrong)
    assert "\n" not in why


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "begin with one of mean"),
        ("men(reward) > 0", "did you mean 'mean'?"),
        ("mean(reward) = 0", "an interval is never exactly a number"),
        ("mean(reward) > many", "give a number"),
        ("mean(reward) > nan", "give a number"),
        ("mean(reward) > 0 mean(reward) < 1", "join comparisons"),
        ("mean(reward) > 0 and", "begin with one of mean"),
        ("(mean(reward) > 0", "close the parenthesis"),
        ("mean(reward", "close mean( with `)`"),
        ("mean()> 0", "write mean(METRIC)"),
        ("mean(a, b) > 0", "write mean(METRIC)"),
        ("difference(reward) > 0", "write difference(METRIC, vs=AGENT)"),
        ("difference(reward, popularity) > 0", "write difference(METRIC, vs=AGENT)"),
        ("difference(reward, vs=) > 0", "write difference(METRIC, vs=AGENT)"),
        ("fairness.gap(reward) > 0", "write fairness.gap(METRIC, ATTRIBUTE)"),
    ],
)
def test_a_rule_that_makes_no_sense_says_where_and_what_belongs_there(text: str, says: str) -> None:
    with pytest.raises(InputError) as wrong:
        parse_rule(text)
    assert says in str(wrong.value)
    with pytest.raises(ValidationError, match="cannot be read"):
        GateSettings(name="a gate", rule=text)


KNOWN = {
    "agents": ["popularity", "mine"],
    "metrics": ["reward", "click_rate"],
    "attributes": ["gender"],
    "estimators": ["dr", "ips(clip=10)", "dm"],
}


def test_a_rule_of_known_names_has_no_mistakes() -> None:
    rule = (
        "difference(reward, vs=popularity) > 0 and fairness.gap(click_rate, gender) <= 0.05 and rank(reward) <= 2 "
        "or off_policy_difference(dr, vs=logged) > 0 and off_policy(ips(clip = 10)) > 0"
    )
    assert check_rule(rule, **KNOWN) == []


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ("mean(rewrd) > 0", "metric 'rewrd' is not in evaluate.metrics; did you mean 'reward'?"),
        ("difference(reward, vs=popularty) > 0", "agent 'popularty' is not in agents; did you mean 'popularity'?"),
        ("difference(reward, vs=logged) > 0", "agent 'logged' is not in agents"),
        ("worst_group(reward, gendr) > 0", "attribute 'gendr' is not in evaluate.fairness.attributes"),
        ("off_policy(ddr) > 0", "estimator 'ddr' is not in evaluate.off_policy"),
        ("off_policy(dm) > 0", "has no interval that covers"),
        ("rank(reward) <= 3", "ranks go from 1 to 2"),
    ],
)
def test_a_name_that_there_is_not_is_a_mistake_before_anything_runs(rule: str, says: str) -> None:
    (mistake,) = check_rule(rule, **KNOWN)
    assert says in mistake


def test_all_mistakes_of_a_rule_are_named_at_once() -> None:
    assert len(check_rule("mean(a) > 0 or difference(b, vs=c) > 0", **KNOWN)) == 3


# ------------------------------------------------------------------------------------------------ verdicts


def estimate_of(low: float | None, high: float | None, *, level: float = 0.95) -> Estimate:
    inside = [x for x in (low, high) if x is not None]
    return Estimate(sum(inside) / len(inside), low, high, level, 100, "by hand")


@pytest.mark.parametrize(
    ("operator", "low", "high", "verdict"),
    [
        (">", 1.1, 2.0, "pass"),
        (">", 1.0, 2.0, "undecided"),  # the low limit at the threshold is not above it
        (">=", 1.0, 2.0, "pass"),
        (">", 0.0, 1.0, "fail"),  # no point of the interval is above
        (">=", 0.0, 1.0, "undecided"),
        (">=", 0.0, 0.9, "fail"),
        ("<", 0.0, 0.9, "pass"),
        ("<", 0.0, 1.0, "undecided"),
        ("<=", 0.0, 1.0, "pass"),
        ("<", 1.0, 2.0, "fail"),
        ("<=", 1.0, 2.0, "undecided"),
        ("<=", 1.1, 2.0, "fail"),
        (">", 0.5, 1.5, "undecided"),
        (">=", 1.0, None, "pass"),  # one valid limit passes one way
        ("<=", 0.0, None, "undecided"),
        ("<=", None, 1.0, "pass"),
        (">=", None, 2.0, "undecided"),
    ],
)
def test_the_interval_decides_and_its_ends_count(
    operator: str, low: float | None, high: float | None, verdict: Verdict
) -> None:
    assert verdict_of(estimate_of(low, high), operator, 1.0) == verdict


@dataclass(frozen=True)
class Known:
    """Evidence given by hand: the same for every agent, at every level."""

    found: Mapping[str, Evidence]
    mistrust: str | None = None
    swept: Sequence[tuple[str, float, GateEvidence]] = ()
    levels: list[float] = field(default_factory=list)

    def look_up(self, term: Term, agent: str, level: float) -> Evidence:
        self.levels.append(level)
        return self.found[term.subject]

    def sweeps(self) -> Sequence[tuple[str, float, GateEvidence]]:
        return self.swept


PASSES = Evidence(estimate_of(0.1, 0.3), worlds=(0.1, 0.2, 0.3, 0.2, 0.2), n_worlds=5)
FAILS = Evidence(estimate_of(-0.3, -0.1), worlds=(-0.1, -0.2, -0.3, -0.2, -0.2), n_worlds=5)
STRADDLES = Evidence(estimate_of(-0.1, 0.3), worlds=(0.1, 0.1, 0.1, 0.1, 0.1), n_worlds=5)


def decide(rule: str, **found: Evidence) -> tuple[Verdict, str]:
    return decide_by(rule, Known(found))


def decide_by(rule: str, evidence: GateEvidence) -> tuple[Verdict, str]:
    (result,) = decide_gates([GateSettings(name="a gate", rule=rule)], ["mine"], evidence)
    return result.verdict, result.reason


@pytest.mark.parametrize(
    ("word", "first", "second", "verdict"),
    [
        ("and", PASSES, PASSES, "pass"),
        ("and", PASSES, FAILS, "fail"),
        ("and", STRADDLES, FAILS, "fail"),
        ("and", STRADDLES, PASSES, "undecided"),
        ("or", FAILS, FAILS, "fail"),
        ("or", STRADDLES, PASSES, "pass"),
        ("or", STRADDLES, FAILS, "undecided"),
    ],
)
def test_joined_rules_follow_three_valued_logic(word: str, first: Evidence, second: Evidence, verdict: Verdict) -> None:
    assert decide(f"mean(a) > 0 {word} mean(b) > 0", a=first, b=second)[0] == verdict


def test_the_family_is_all_gates_times_their_agents_and_a_joined_rule_shares_its_part() -> None:
    """Two gates, one for both agents and one for the named one: m = 3; the joined one halves its .05/3."""
    evidence = Known({"a": PASSES})
    gates = [
        GateSettings(name="for all", rule="mean(a) > 0"),
        GateSettings(name="for one", rule="mean(a) > 0 and mean(a) < 1", agents=("mine",)),
    ]
    results = decide_gates(gates, ["mine", "yours"], evidence)
    assert [(r.name, r.agent) for r in results] == [("for all", "mine"), ("for all", "yours"), ("for one", "mine")]
    assert set(evidence.levels) == {1 - 0.05 / 3, 1 - 0.05 / 6}


def test_a_withheld_number_is_undecided_with_its_reason_never_a_pass() -> None:
    withheld = Evidence(Estimate.withhold("mean", "W3: 12 users, needs 30"))
    assert decide("mean(a) <= 1", a=withheld) == ("undecided", "mean(a) withheld: W3: 12 users, needs 30")


def test_a_simulator_that_is_not_trusted_decides_nothing_not_even_a_fail() -> None:
    verdict, reason = decide_by("mean(a) > 0", Known({"a": FAILS}, mistrust="calibration slope"))
    assert verdict == "undecided"
    assert reason.startswith("simulator not trusted: calibration slope; mean(a) = -0.2 [-0.3, -0.1]")


def test_a_number_from_the_log_needs_no_simulator() -> None:
    logged = replace(FAILS, simulated=False, n_worlds=0, worlds=None)
    swept = Known({"dr": replace(PASSES, simulated=False)})
    evidence = Known({"dr": logged}, mistrust="calibration slope", swept=[("leave", 0.0, swept)])
    assert decide_by("off_policy(dr) > 0", evidence)[0] == "fail"


def test_one_judge_world_decides_nothing() -> None:
    verdict, reason = decide("mean(a) > 0", a=replace(PASSES, n_worlds=1, worlds=None))
    assert verdict == "undecided"
    assert "one judge world" in reason


def test_a_difference_needs_five_worlds() -> None:
    verdict, reason = decide("mean(a) > 0", a=replace(PASSES, n_worlds=4, worlds=(0.2, 0.2, 0.2, 0.2)))
    assert verdict == "undecided"
    assert "4 judge worlds, a gate needs 5" in reason


def test_one_world_on_the_other_side_of_the_threshold_leaves_a_gate_undecided() -> None:
    verdict, reason = decide("mean(a) > 0", a=replace(PASSES, worlds=(0.3, 0.3, 0.3, 0.3, -0.05)))
    assert verdict == "undecided"
    assert "worlds disagree: 1 of 5" in reason
    assert decide("mean(a) > 0", a=replace(FAILS, worlds=(-0.3, -0.3, -0.3, -0.3, 0.05)))[0] == "undecided"


def test_a_verdict_that_turns_over_an_assumed_part_depends_on_it() -> None:
    swept = [("assumed examination", 0.7, Known({"a": FAILS})), ("leave", 0.0, Known({"a": PASSES}))]
    verdict, reason = decide_by("mean(a) > 0", Known({"a": PASSES}, swept=swept))
    assert verdict == "undecided"
    assert reason.startswith("depends on assumed examination: PASS as it stands, FAIL at 0.7")


def test_a_verdict_that_only_fades_over_an_assumed_part_depends_on_it_too() -> None:
    evidence = Known({"a": PASSES}, swept=[("assumed examination", 0.7, Known({"a": STRADDLES}))])
    verdict, reason = decide_by("mean(a) > 0", evidence)
    assert verdict == "undecided"
    assert "UNDECIDED at 0.7" in reason


def test_a_verdict_that_holds_over_every_sweep_stands_and_says_so() -> None:
    """A sweep comes from one world: it asks whether the assumption matters, not again whether worlds agree."""
    one_world = replace(PASSES, n_worlds=1, worlds=(0.2,))
    verdict, reason = decide_by("mean(a) > 0", Known({"a": PASSES}, swept=[("leave", 5.0, Known({"a": one_world}))]))
    assert verdict == "pass"
    assert "the same over the sweeps of leave" in reason


def test_a_blocked_number_decides_nothing_but_its_corrected_twin_may() -> None:
    blocked = replace(PASSES, blocked="the worlds may flatter one of the two")
    assert decide("mean(a) > 0", a=blocked)[0] == "undecided"
    assert decide("mean(a) > 0", a=replace(blocked, alternative=estimate_of(-0.1, 0.1)))[0] == "undecided"
    verdict, reason = decide("mean(a) > 0", a=replace(blocked, alternative=estimate_of(-0.4, -0.2)))
    assert verdict == "fail"
    assert "corrected -0.3 [-0.4, -0.2]" in reason


def test_a_value_without_limits_decides_no_gate_and_says_so() -> None:
    bare = Estimate(0.2, None, None, 0.95, 900, "bias-aware limits withheld: no reward_range")
    verdict, reason = decide("off_policy(a) > 0", a=Evidence(bare, simulated=False, n_worlds=0))
    assert verdict == "undecided"
    assert "it has no limits" in reason
    assert "no reward_range" in reason
    assert "inside" not in reason


def test_a_forced_value_decides_no_gate() -> None:
    forced = Estimate(0.2, 0.1, 0.3, 0.95, 9, "dr", None, {"forced": "W3: 9 users, needs 30"})
    verdict, reason = decide("off_policy(a) > 0", a=Evidence(forced, simulated=False, n_worlds=0))
    assert verdict == "undecided"
    assert "W3: 9 users" in reason


def test_scope_and_both_levels_stand_in_the_reason() -> None:
    found = replace(PASSES, usual=estimate_of(0.15, 0.25), scope=("this trained model",))
    found = replace(found, estimate=estimate_of(0.1, 0.3, level=0.99))
    assert (
        decide("mean(a) > 0", a=found)[1]
        == "mean(a) = 0.2 [0.1, 0.3] at level 0.99 (0.95: [0.15, 0.25]), this trained model"
    )


def test_an_undecided_gate_says_what_would_decide() -> None:
    """With z = 1.96 + .84, s_U = 2, difference .1: 28^2 x 4 = 3,136 users; no training part, so no seeds."""
    parts = Components(seeds=0.0, users=4.0, rest=0.0, n_seeds=1, n_users=400)
    _, reason = decide("mean(a) > 0", a=replace(STRADDLES, components=parts))
    assert "about 3,136 users in place of 400 would decide" in reason


def test_too_few_seeds_are_named_whatever_the_users() -> None:
    parts = Components(seeds=0.05, users=0.1, rest=0.0, n_seeds=3, n_users=4000)
    _, reason = decide("mean(a) > 0", a=replace(STRADDLES, components=parts))
    assert "training seeds in place of 3" in reason
    assert "users" not in reason.split("about")[1]


@pytest.mark.parametrize(("threshold", "scale"), [(0.1004, 0.0), (0.1, 1.0), (0.0, 11.0)])
def test_no_sample_size_decides_at_the_threshold_itself(threshold: float, scale: float) -> None:
    """Within 1 % of the threshold; where that is 0, of the baseline's value."""
    parts = Components(seeds=0.0, users=4.0, rest=0.0, n_seeds=1, n_users=400)
    _, reason = decide(f"mean(a) > {threshold}", a=replace(STRADDLES, components=parts, scale=scale))
    assert "no sample size will decide it" in reason


def test_a_rank_passes_by_its_worst_place_and_fails_by_its_best() -> None:
    rank = Evidence(Estimate(2, 1, 3, 0.95, 100, "rank range"), worlds=(1, 2, 2, 2, 3), n_worlds=5)
    assert decide("rank(a) <= 3", a=rank)[0] == "pass"
    assert decide("rank(a) <= 2", a=rank)[0] == "undecided"
    assert (
        decide("rank(a) <= 2", a=replace(rank, estimate=Estimate(4, 3, 5, 0.95, 100, "r"), worlds=(4.0,) * 5))[0]
        == "fail"
    )


@pytest.mark.parametrize(
    ("verdicts", "overall"),
    [([], "pass"), (["pass", "undecided"], "undecided"), (["undecided", "fail", "pass"], "fail"), (["pass"], "pass")],
)
def test_one_fail_fails_and_one_undecided_holds_up(verdicts: list[Verdict], overall: Verdict) -> None:
    found = {"pass": PASSES, "fail": FAILS, "undecided": STRADDLES}
    results = [
        decide_gates([GateSettings(name="a", rule="mean(a) > 0")], ["mine"], Known({"a": found[verdict]}))[0]
        for verdict in verdicts
    ]
    assert overall_verdict(results) == overall
