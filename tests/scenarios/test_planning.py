"""What a scenario could find out, before anything is trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from evaluators.power import planned_difference
from scenarios.checking import check_scenario
from scenarios.planning import planning_lines
from simulator.errors import InputError

SCENARIO = """\
name: a
data: {source: log.csv, positive: click, sensitive: [sex]}
simulator: {slate_size: 2}
agents:
  - {name: random, kind: random}
  - {name: popularity, kind: popularity}
  - {name: linucb, kind: linucb, train: {seeds: 3}}
  - {name: dqn, kind: dqn, train: {seeds: 1}}
evaluate: {baseline: popularity, fairness: {attributes: [sex]}}
gates: [{name: better, rule: "mean(reward) > 1 and difference(reward, vs=popularity) > 0", agents: [linucb]}]
"""


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    rows = [f"u{user},i{row},{row % 2},{'f' if user % 4 else 'm'}" for user in range(200) for row in range(4)]
    (tmp_path / "log.csv").write_text("user,item,click,sex\n" + "\n".join(rows) + "\n")
    path = tmp_path / "a.yaml"
    path.write_text(SCENARIO)
    return path


def test_agents_are_told_what_their_number_of_trainings_can_find(scenario: Path) -> None:
    lines = planning_lines(scenario)
    still, trained, once = lines[:3]
    assert still.startswith("random: ")
    assert trained.startswith("linucb: ")
    assert once.startswith("dqn: ")
    assert f"about {planned_difference(80, 3, learners=1, comparisons=3):.2g} of" in trained
    assert "80 users x 3 training seeds, 3 comparisons" in trained
    assert "of these trained models only" in once
    assert "trained" not in still


def test_a_baseline_that_learns_limits_the_rest_by_its_trainings(scenario: Path) -> None:
    line = planning_lines(scenario, overrides=["evaluate.baseline=dqn"])[1]
    assert line.startswith("linucb: ")
    assert "x 1 training seed," in line


def test_fewer_users_are_planned_with_where_the_scenario_says_so(scenario: Path) -> None:
    assert "40 users" in planning_lines(scenario, overrides=["evaluate.users=40"])[0]


def test_a_gate_on_a_difference_in_too_few_worlds_is_foretold(scenario: Path) -> None:
    said = "evaluate.worlds: 3 judge worlds decide no difference"
    assert not any(said in line for line in planning_lines(scenario))
    assert any(said in line for line in planning_lines(scenario, overrides=["evaluate.worlds=3"]))
    without = ["evaluate.worlds=3", 'gates[0].rule="mean(reward) > 1"']
    assert not any(said in line for line in planning_lines(scenario, overrides=without))


def test_a_gate_that_holds_for_nobody_is_foretold(scenario: Path) -> None:
    """A run of baselines alone passes whatever its gates are."""
    assert not any(line.startswith("gates[") for line in planning_lines(scenario))
    everyone = "evaluate.baseline=[popularity, linucb, dqn]"
    (line,) = (
        line for line in planning_lines(scenario, overrides=["gates[0].agents=null", everyone]) if "gates" in line
    )
    assert line.startswith("gates[0].agents: 'better' holds for no agent of this scenario, so a run passes without it")
    assert not any(line.startswith("gates[") for line in planning_lines(scenario, overrides=["gates[0].agents=null"]))


def test_groups_that_are_too_small_for_a_gap_are_foretold(scenario: Path) -> None:
    (line,) = (line for line in planning_lines(scenario) if line.startswith("evaluate.fairness"))
    assert "groups of sex with fewer than 30 flown users (m " in line
    assert "(f " not in line
    (line,) = (
        line for line in planning_lines(scenario, overrides=["evaluate.users=30"]) if line.startswith("evaluate.fair")
    )
    assert "(f " in line


def test_a_catalogue_that_users_know_is_foretold_and_refused_where_no_slate_is_left(scenario: Path) -> None:
    """Histories hold three of the four items; with 20 more, sessions run out of what nobody has met."""
    said = "simulator.shown_again: "
    (mistake,) = check_scenario(scenario)
    assert mistake.startswith(
        f"{said}'false' leaves half of the users 1 of 4 items that they have not met, and a slate"
    )
    again = ["simulator.shown_again=true"]
    assert not any(line.startswith(said) for line in planning_lines(scenario, overrides=again))
    more = [f"v{user},j{user % 20},1,f" for user in range(40)]
    log = scenario.parent / "log.csv"
    log.write_text(log.read_text() + "\n".join(more) + "\n")
    (line,) = (line for line in planning_lines(scenario) if line.startswith(said))
    assert "false leaves half of the users 21 of 24 items that they have not met, and a session shows up to 40" in line
    assert not any(line.startswith(said) for line in planning_lines(scenario, overrides=again))


def test_a_scenario_that_is_wrong_gets_no_plan(scenario: Path) -> None:
    with pytest.raises(InputError, match=r"evaluate\.usres"):
        planning_lines(scenario, overrides=["evaluate.usres=3"])
