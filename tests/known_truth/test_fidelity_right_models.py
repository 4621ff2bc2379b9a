"""A right model passes each fidelity check where the sample can tell, and a wrong one does not (issue: Measures)."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import numpy as np
import pytest

import evaluators
import scenarios
from benchmarks.bench_fidelity import CASES, Case, measure, rows_of_a_right_model
from evaluators.fidelity import (
    DRAWS,
    FlownClicks,
    GradedRows,
    WorldEvidence,
    behaviour_checks,
    check_world,
    checks,
    replayed_sessions,
    world_against_model,
)
from simulator.log import JUDGE
from tests.simulator.small_world import small_parts, small_world

SLOW = ("classifier", "sessions:", "leaving", "ranking agreement, truth")
CHEAP = [c for c in CASES if c.name != "calibration error" and not any(word in c.name for word in SLOW)]
EXACT = {"splits", "world against model", "determinism", "terminal observation", "global random state"}
"""What holds exactly or not at all has no share to measure."""


def names(cases: list[Case] | tuple[Case, ...]) -> list[str]:
    return [case.name for case in cases]


def checks_of_a_world() -> set[str]:
    """Names of all checks that a judge world is put to on a log that has everything, behaviours' own names left out."""
    root, rng = np.random.default_rng(0), np.random.default_rng(1)
    seeds = np.random.SeedSequence(5)
    log, split, _ = small_parts(0, users=120)
    world = small_world(0, users=120, slate_size=3, horizon=3)
    rows = np.flatnonzero(split.late)
    scored = rows_of_a_right_model(rng, 60, 20)
    places = FlownClicks(scored.y, scored.p, scored.user, np.arange(len(scored)) % 3)
    values = GradedRows(rng.random((DRAWS, len(scored))), rng.random(len(scored)), scored.user)
    evidence = WorldEvidence(
        1, scored,
        behaviour=(world_against_model(world, log, rows, np.full(len(rows), 0.5)), *behaviour_checks(world, seeds)),
        sessions=replayed_sessions(log, rows, np.full(len(rows), 0.5), root),
        clicks=places, unbiased=scored, further={"further": scored}, graded={"graded behaviour": values},
    )  # fmt: skip
    made = check_world(evidence, log=log, split=split, fitted_users=split.users(JUDGE), root=seeds)
    return {check.name.removeprefix("further: ") for check in made.checks}


def test_every_check_that_a_judge_world_is_put_to_has_a_case() -> None:
    """The list is what the code makes: a check that is added there and not here fails."""
    covered = {name.split(",")[0] if "classifier" in name else name for name in names(CASES)}
    made = checks_of_a_world()
    assert made - covered == EXACT
    assert {"sessions: clicks", "sessions: gap", "flown clicks by place", "two-sample classifier"} <= made


def calls(*wanted: str) -> set[tuple[str, int, int]]:
    """File, first and last line of every call of these functions in the evaluators and the stages of a run."""
    found = set()
    for package in (evaluators, scenarios):
        for path in Path(str(package.__file__)).parent.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in wanted:
                    found.add((str(path), node.lineno, node.end_lineno or node.lineno))
    return found


def test_wherever_the_code_judges_an_estimate_a_case_measures_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checks made beside those of a world (picks, known values, other logs, the truth) as well."""
    reached: set[tuple[str, int]] = set()
    original = checks.judged

    def recorded(*arguments: object, **options: object) -> checks.Check:
        caller = sys._getframe(1)
        reached.add((caller.f_code.co_filename, caller.f_lineno))
        return original(*arguments, **options)  # type: ignore[arg-type]

    for module in list(sys.modules.values()):
        if getattr(module, "judged", None) is original:
            monkeypatch.setattr(module, "judged", recorded)
    for case in CASES:
        case.right(np.random.default_rng([0, 1]))
    places = calls("judged")
    assert len(places) > 20
    assert [
        f"{Path(file).name}:{first}"
        for file, first, last in sorted(places)
        if not any(file == of and first <= line <= last for of, line in reached)
    ] == []


@pytest.mark.parametrize("case", CHEAP, ids=names(CHEAP))
def test_a_right_model_passes_most_samples_that_can_tell_and_the_wrong_one_none(case: Case) -> None:
    """80 seeds: a check that truly passes .95 falls below .85 for 3 choices of seeds in 10,000."""
    found = measure(case, range(80), range(10))
    assert found.told >= 40
    assert found.passed >= 0.85
    assert found.refused == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=names(CASES))
def test_a_right_model_passes_at_least_93_percent_of_2000_seeds(case: Case) -> None:
    found = measure(case, range(2000), range(200))
    assert found.told >= 1000
    assert found.passed >= 0.93, found.passed
    assert found.refused >= 0.99, found.refused


def test_a_band_half_as_wide_would_refuse_right_models() -> None:
    """Sabotage: the share above is a fact about interval and band, not about the seeds."""
    case = next(case for case in CASES if case.name == "slope")
    limits = [case.right(np.random.default_rng([seed, 1])).estimate for seed in range(80)]
    inside = np.mean([found.low >= 0.9 and found.high <= 1.1 for found in limits])
    assert inside < 0.2
