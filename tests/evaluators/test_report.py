"""The model of report.json, how numbers are worded, and the summary for a terminal."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from evaluators.estimate import Estimate
from evaluators.page.evidence import estimators_of
from evaluators.report import AgentSection, ComparisonSection, EstimateModel, RankingRow, Report, estimates, plain
from evaluators.run_folder import render_again, write_fidelity, write_run
from evaluators.wording import column_decimals, decimals, gate_summary, number, p_value, with_interval
from simulator.errors import InputError
from tests.evaluators.example_report import about, example_report, withheld

CONTRACT_KEYS = {
    "schema_version", "name", "digest", "world_digest", "seed", "versions", "seconds", "data", "fidelity", "agents",
    "assumptions", "comparisons", "ranking", "gates", "verdict",
}  # fmt: skip
AGENT_KEYS = {
    "name", "kind", "trained_on", "simulated", "simulated_corrected", "picks", "optimism", "off_policy",
    "off_policy_check", "fairness", "causal", "training",
}  # fmt: skip


def test_a_report_has_every_key_of_the_contract() -> None:
    document = json.loads(example_report().to_json_text())
    assert set(document) >= CONTRACT_KEYS
    assert set(document["agents"][0]) >= AGENT_KEYS
    assert set(document["agents"][0]["simulated"]["reward"]) == {"value", "low", "high", "level", "n", "method"}
    assert set(document["fidelity"]["checks"][0]) >= {"name", "estimate", "threshold", "passed"}
    assert set(document["gates"][0]) >= {"name", "rule", "agent", "verdict", "reason"}
    assert set(document["assumptions"][0]) >= {"part", "parameter", "value", "source", "se", "sweep", "effect"}
    assert set(document["comparisons"][0]) >= {"metric", "agent", "baseline", "difference", "p_value", "p_adjusted"}
    assert set(document["ranking"][0]) == {"agent", "rank_low", "rank_high"}


def test_a_failed_agent_says_so_and_only_a_failed_one() -> None:
    agents = {agent["name"]: agent for agent in json.loads(example_report().to_json_text())["agents"]}
    assert agents["mine"]["failed"].startswith("act: a slate of shape")
    assert [name for name, agent in agents.items() if "failed" in agent] == ["mine"]
    with pytest.raises(ValidationError, match="failed and has numbers"):
        AgentSection(name="a", kind="b", failed="why", simulated={"reward": about(1.0, 0.1)})


def test_a_report_reads_back_to_itself(tmp_path: Path) -> None:
    report = example_report()
    path = tmp_path / "report.json"
    path.write_text(report.to_json_text(), encoding="utf-8")
    assert Report.read(path) == report
    assert Report.read(path).to_json_text() == report.to_json_text()


def test_the_text_of_a_report_does_not_depend_on_the_order_of_its_tables() -> None:
    report = example_report()
    backwards = report.model_copy(update={"versions": dict(reversed(report.versions.items()))})
    assert backwards.to_json_text() == report.to_json_text()


def test_without_seconds_two_reports_are_equal_that_differ_in_time_alone() -> None:
    slow = example_report(seconds={"load": 99.0})
    assert slow.without_seconds() == example_report().without_seconds()
    assert slow.to_json_text() != example_report().to_json_text()
    assert example_report(seed=8).without_seconds() != example_report().without_seconds()


def test_an_estimate_becomes_its_model_with_numpy_and_infinite_numbers_made_plain() -> None:
    odd = Estimate(
        np.float64(0.5), -math.inf, 0.7, 0.95, np.int64(3), "m", diagnostics={"k": np.arange(2), "x": math.nan}
    )  # type: ignore[arg-type]
    model = estimates({"a": odd})["a"]
    assert (model.value, model.low, model.high, model.n) == (0.5, None, 0.7, 3)
    assert model.diagnostics == {"k": [0, 1], "x": None}
    assert plain({"s": {2, 1}, "t": (np.float32(0.5),)}) == {"s": [1, 2], "t": [0.5]}


def test_an_estimate_with_neither_value_nor_reason_is_refused() -> None:
    with pytest.raises(ValidationError, match="either a value or a reason"):
        EstimateModel(value=None, method="m")
    with pytest.raises(ValidationError, match="either a value or a reason"):
        EstimateModel(value=1.0, withheld="why", method="m")
    assert "withheld" not in about(1.0, 0.1).model_dump()
    assert withheld("why").model_dump()["withheld"] == "why"


def test_a_comparison_shows_the_limits_in_a_further_world_that_the_difference_brings() -> None:
    difference = about(2.0, 0.5).model_copy(update={"diagnostics": {"further_world": [1.0, 3.0]}})
    found = ComparisonSection(metric="reward", agent="a", baseline="b", difference=difference)
    assert found.further_world is not None
    assert (found.further_world.value, found.further_world.low, found.further_world.high) == (2.0, 1.0, 3.0)
    assert ComparisonSection(metric="reward", agent="a", baseline="b", difference=about(2.0, 0.5)).further_world is None
    assert ComparisonSection.model_validate_json(found.model_dump_json()) == found


def test_an_unknown_key_and_a_number_that_is_not_finite_are_refused() -> None:
    with pytest.raises(ValidationError):
        example_report(verdit="pass")
    with pytest.raises(ValidationError):
        EstimateModel(value=math.nan, method="m")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "is not there; give the folder"),
        ("{", "cannot be read"),
        ("[]", "has schema version None"),
        ('{"schema_version": 99}', "has schema version 99"),
        ('{"schema_version": 1}', "at name: Field required"),
    ],
)
def test_a_report_that_cannot_be_read_is_one_line(tmp_path: Path, content: str | None, said: str) -> None:
    path = tmp_path / "report.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError) as error:
        Report.read(path)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_the_verdict_has_the_exit_code_of_the_contract() -> None:
    codes = {verdict: example_report(verdict=verdict).exit_code for verdict in ("pass", "fail", "undecided")}
    assert codes == {"pass": 0, "fail": 1, "undecided": 3}


def test_agents_are_ordered_by_place_the_bound_first_and_failures_last() -> None:
    names = [agent.name for agent in example_report().ordered_agents()]
    assert names == ["oracle", "ease", "linucb", "bpr", "popularity", "dqn", "ppo", "random", "mine"]
    swapped = example_report(
        ranking=[RankingRow(agent="ppo", rank_low=1, rank_high=1), RankingRow(agent="ease", rank_low=2, rank_high=2)]
    )
    assert [agent.name for agent in swapped.ordered_agents()][1:3] == ["ppo", "ease"]


# ------------------------------------------------------------------------------------------------------------ wording


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [
        (52.93, 51.2, 54.6, "52.9 [51.2, 54.6]"),
        (0.11234, 0.1, 0.125, "0.112 [0.100, 0.125]"),
        (1234.5, 1000.0, 1500.0, "1,234 [1,000, 1,500]"),
        (1.5, None, None, "1.500"),
        (1.5, 1.25, None, "1.50 [1.25, none]"),
        (0.0, 0.0, 0.0, "0 [0, 0]"),
    ],
)
def test_an_interval_is_written_with_two_digits_of_its_half_width(
    value: float, low: float | None, high: float | None, text: str
) -> None:
    assert with_interval(EstimateModel(value=value, low=low, high=high, method="m")) == text


def test_a_withheld_number_is_never_blank_and_a_rounded_zero_has_no_sign() -> None:
    assert with_interval(withheld("why")) == "withheld"
    assert number(-0.0001, 2, signed=True) == "0.00"
    assert number(0.014, 2, signed=True) == "+0.01"
    assert [p_value(p) for p in (None, 0.0004, 0.25)] == ["", "< 0.001", "0.250"]


@given(st.floats(-1e6, 1e6), st.floats(1e-4, 1e4))
def test_rounding_never_moves_a_number_by_more_than_a_twentieth_of_the_half_width(value: float, half: float) -> None:
    places = decimals(value - half, value + half)
    shown = float(number(value, places).replace(",", ""))
    assert abs(shown - value) <= max(half / 20, 0.5) * (1 + 1e-6)


def test_a_column_has_the_decimals_of_its_median_interval() -> None:
    column = [about(50.0, 2.0), about(50.0, 3.0), about(50.0, 0.0001), None, withheld("why")]
    assert column_decimals(column) == 1
    assert column_decimals([None, withheld("why")]) is None


@pytest.mark.parametrize(
    ("verdicts", "asked", "text"),
    [
        ([], 0, "the scenario has no gates"),
        ([], 1, "the gate holds for no agent of this run: name agents under it, or fly a policy with vet"),
        ([], 2, "all 2 gates hold for no agent of this run: name agents under it, or fly a policy with vet"),
        (["pass"], 1, "the gate passes"),
        (["pass", "pass"], 2, "all 2 gates pass"),
        (["pass", "fail", "undecided"], 3, "1 of 3 gates passes, 1 fails, 1 is undecided"),
        (["fail", "fail"], 2, "0 of 2 gates pass, 2 fail"),
    ],
)
def test_gates_are_counted_in_words(verdicts: list[str], asked: int, text: str) -> None:
    """A run whose gates all hold for nobody said that its scenario has none."""
    assert gate_summary(verdicts, asked) == text


def test_gates_that_hold_for_nobody_are_counted_as_asked() -> None:
    text = example_report(gates=[], scenario={"gates": [{"name": "better"}]}).as_text()
    assert "the gate holds for no agent of this run" in " ".join(text.split())


# ----------------------------------------------------------------------------------------------------------- terminal


def test_the_summary_fits_80_columns_without_control_sequences_and_has_what_a_person_needs() -> None:
    text = example_report().as_text(html="runs/movielens/4be1d6f02f8a/report.html")
    lines = text.splitlines()
    assert max(len(line) for line in lines) <= 80
    assert "\x1b" not in text
    assert "ease 52.9 [51.2, 54.6] +8.1 [4.7, 11.5] 1-2" in [" ".join(line.split()) for line in lines]
    assert any(line.startswith("Simulator  trusted;") for line in lines)
    swept = "Assumed examination.decay at 0.7, 0.85, 1: reward of linucb 31 to 59, the widest of 2 sweeps"
    assert swept in " ".join(text.split())
    assert "Verdict    FAIL: 2 of 5 gates pass, 1 fails, 2 are undecided" in lines
    assert sum(line.startswith(("pass  ", "fail  ", "undecided  ")) for line in lines) == 5
    assert "failed     mine: act: a slate of shape [64, 9], needs [64, 10]" in lines
    assert "Report     runs/movielens/4be1d6f02f8a/report.html" in lines


def test_the_summary_says_why_a_number_is_withheld_and_that_a_simulator_is_not_trusted() -> None:
    report = example_report()
    fidelity = report.fidelity.model_copy(update={"trusted": False, "reasons": ["world 1: slope: 0.5 lies outside"]})
    text = example_report(fidelity=fidelity).as_text()
    assert "NOT TRUSTED: world 1: slope: 0.5 lies outside" in text
    assert "reward, corrected: given that the user chose to rate" in text


def test_a_summary_with_corrected_values_keeps_each_interval_on_one_line_and_cuts_long_reasons() -> None:
    report = example_report()
    agents = [
        a.model_copy(update={"simulated_corrected": {"reward": about(47.5, 9.5)}}) if a.name == "ease" else a
        for a in report.agents
    ]
    reasons = [f"check {k}: {'undecided, ' * 30}" for k in range(30)]
    fidelity = report.fidelity.model_copy(update={"trusted": False, "reasons": reasons})
    lines = example_report(agents=agents, fidelity=fidelity).as_text().splitlines()
    assert max(len(line) for line in lines) <= 80
    assert "ease 52.9 [51.2, 54.6] 47.5 [38.0, 57.0] +8.1 [4.7, 11.5] 1-2" in [" ".join(line.split()) for line in lines]
    assert any("and 26 more in the report" in line for line in lines)
    assert len(lines) < 50


def test_names_are_shown_as_they_are_not_as_markup() -> None:
    agents = [AgentSection(name="[bold red]x[/]", kind="random", simulated={"reward": about(1.0, 0.1)})]
    text = example_report(agents=agents, ranking=[], comparisons=[], gates=[]).as_text()
    assert "[bold red]x[/]" in text


def test_a_report_without_agents_is_that_of_fidelity_and_lists_every_check_of_the_first_world() -> None:
    report = example_report(agents=[], gates=[], comparisons=[], ranking=[])
    text = report.as_text(width=120)
    for check in report.fidelity.checks:
        assert (check.name in text) == ("(" not in check.name), check.name
    assert "checks of further worlds and of held-out users passed" in text
    assert "gates" not in text


def test_the_example_of_the_documentation_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "report.md").read_text(encoding="utf-8")
    code = page.split("```python\n")[1].split("```")[0]
    folder = tmp_path / "runs" / "smoke" / "0a1b2c3d4e5f"
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(example_report().to_json_text(), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "docs/report.md", "exec"), {})
    assert capsys.readouterr().out.startswith("fail reward ['oracle', 'ease', 'linucb'")


def test_a_page_rendered_again_is_the_page_of_the_run(tmp_path: Path) -> None:
    report = example_report()
    agents = [
        a.model_copy(update={"off_policy": dict(sorted(a.off_policy.items(), reverse=True))}) for a in report.agents
    ]
    backwards = report.model_copy(update={"agents": agents})
    write_run(tmp_path, backwards, {}, scenario_text="name: smoke\n")
    page = (tmp_path / "report.html").read_bytes()
    render_again(tmp_path)
    assert (tmp_path / "report.html").read_bytes() == page
    write_fidelity(tmp_path, report)
    assert (tmp_path / "fidelity.html").stat().st_size > 0


def test_estimators_stand_on_the_page_in_the_order_of_the_scenario() -> None:
    report = example_report()
    names = sorted({name for agent in report.agents for name in agent.off_policy})
    for order in (names, names[::-1]):
        asked = report.model_copy(update={"scenario": {"evaluate": {"off_policy": list(order)}}})
        assert estimators_of(asked) == order
