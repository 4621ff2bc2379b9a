"""`preference.graded`: a scenario asks for a behaviour of degree, and `fidelity` answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import pipeline
from scenarios.checking import check_scenario
from simulator.progress import Progress

SCENARIO = """
name: watched
seed: 3
data: {source: log.csv, columns: {user: user, item: item, time: time}, positive: ratio >= 1, behaviours: [ratio]}
preference: {architecture: bias, members: 1, refit_members: 1, dims: [4], factors: 4, graded: %s, examples: 0}
simulator: {slate_size: 3, horizon: 4}
agents: [{name: random, kind: random}, {name: popularity, kind: popularity}]
evaluate: {baseline: popularity, worlds: 2, metrics: [reward]}
"""


def written(folder: Path, graded: str) -> Path:
    rng = np.random.default_rng(2)
    quality, lines = np.exp(rng.normal(0, 0.6, 30)), ["user,item,time,ratio"]
    for user in range(200):
        for step, item in enumerate(rng.choice(30, 14, replace=False)):
            lines.append(f"u{user},i{item},{1000 * step},{rng.exponential(quality[item]):.4f}")
    (folder / "log.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    scenario = folder / "watched.yaml"
    scenario.write_text(SCENARIO % graded, encoding="utf-8")
    return scenario


@pytest.mark.parametrize(
    ("graded", "line"),
    [
        ("{ratio: [1, 1]}", "preference.graded: 'ratio' has thresholds [1.0, 1.0]; give one or more that rise"),
        ("{dwell: [1]}", "preference.graded.dwell: 'dwell' is not among data.behaviours; name it there"),
        ("{ratio: [1, 900]}", "preference.graded.ratio: no row reaches 900; give thresholds between its values"),
        ("{ratio: [-1, 1]}", "preference.graded.ratio: every row reaches -1; give thresholds between its values"),
    ],
)
def test_what_cannot_be_graded_is_one_line_before_anything_is_fitted(tmp_path: Path, graded: str, line: str) -> None:
    mistakes = check_scenario(written(tmp_path, graded))
    assert len(mistakes) == 1
    assert mistakes[0].startswith(line)


def test_a_behaviour_of_degree_is_needed_on_every_row(tmp_path: Path) -> None:
    scenario = written(tmp_path, "{dwell: [2, 4]}")
    rows = [
        f"u{user},i{item},{item},{user % 2},{3 * item if user % 2 else ''}"
        for user in range(30)
        for item in range(user % 20, 20 + user % 20)
    ]
    (tmp_path / "log.csv").write_text("\n".join(["user,item,time,clicked,dwell", *rows]) + "\n", encoding="utf-8")
    text = scenario.read_text(encoding="utf-8").replace(
        "ratio >= 1, behaviours: [ratio]", "clicked == 1, behaviours: [dwell]"
    )
    scenario.write_text(text, encoding="utf-8")
    (line,) = check_scenario(scenario)
    assert line.startswith("preference.graded.dwell: 'dwell' has no value on 300 rows")
    scenario.write_text(text.replace("graded: {dwell: [2, 4]}, ", ""), encoding="utf-8")
    assert not check_scenario(scenario)


@pytest.mark.slow
def test_fidelity_checks_a_behaviour_of_degree_that_a_scenario_names(tmp_path: Path) -> None:
    report = pipeline.fidelity(
        written(tmp_path, "{ratio: [0.5, 1, 2]}"), out=tmp_path / "runs", workers=1, progress=Progress(None)
    )
    checks = {check.name: check for check in report.fidelity.checks}
    for threshold in ("0.5", "1", "2"):
        for where in ("", " (held-out users)"):
            large = checks[f"ratio >= {threshold}: calibration in the large{where}"]
            assert large.estimate.value == pytest.approx(1, abs=0.2)
    assert checks["ratio: skill over own distribution"].passed
    assert not any(reason.startswith("ratio") and "not counted" not in reason for reason in report.fidelity.reasons)
