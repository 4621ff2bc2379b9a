"""Runs on logs whose truth is known: no agent learns of it, and who handles a world's difficulty wins in it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

import simulator.known_worlds
from evaluators.report import Report
from simulator.known_worlds import KnownWorld, known_world

WORLDS = Path(__file__).resolve().parents[2] / "scenarios" / "worlds"

SCENARIO = """
name: truth
seed: 3
data: {source: world:selection_bias}
preference: {architecture: matrix_factorisation, adaptation: frozen, members: 1, refit_members: 1, dims: [2], max_tokens: 16}
simulator:
  slate_size: 6
  horizon: 4
  shown_again: true
  examination: {decay: 1.0, sweep: [], fit: false}
  satiation: {strength: 0.0, sweep: []}
  drift: {rate: 0.0, sweep: []}
  leave: {base_rate: 0.02, satisfaction: 0.0, repetition: 0.0, sweep: [], base_rate_sweep: [], repetition_sweep: [], fit: false}
agents:
  - {name: random, kind: random}
  - {name: popularity, kind: popularity}
  - {name: debiased, kind: debiased}
  - {name: oracle, kind: oracle}
  - {name: online, kind: linucb, params: {online: true}, train: {seeds: 2, steps: 200}}
evaluate: {baseline: popularity, users: 60, worlds: 2, metrics: [reward, click_rate]}
"""  # noqa: E501


def run(scenario: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Report:
    """Run a scenario in this process with a cache of its own."""
    import pipeline
    from simulator.progress import Progress

    monkeypatch.setenv("WINDTUNNEL_CACHE", str(folder / "cache"))
    return pipeline.run(scenario, out=folder / "runs", progress=Progress(None), **{"workers": 1, **options})


def of_the_judge_worlds(report: Report) -> dict[str, Any]:
    """The report less what the truth is held against."""
    document = report.without_seconds()
    del document["truth"]
    fidelity = document["fidelity"]
    fidelity["checks"] = [check for check in fidelity["checks"] if "truth" not in check["name"]]
    for name in ("trusted", "reasons", "ranking_agreement"):
        fidelity.pop(name, None)
    return document


@pytest.mark.slow
def test_another_truth_changes_what_agents_truly_earn_and_nothing_that_they_learned_or_were_judged_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Poison: every item's quality turned round in the true world, the log left as it is. And more workers."""
    scenario = tmp_path / "truth.yaml"
    scenario.write_text(SCENARIO, encoding="utf-8")
    report = run(scenario, tmp_path / "a", monkeypatch)
    assert run(scenario, tmp_path / "b", monkeypatch, workers=2).without_seconds() == report.without_seconds()

    def turned(name: str) -> KnownWorld:
        known = known_world(name)
        return replace(known, world=replace(known.world, item_bias=-known.world.item_bias))

    monkeypatch.setattr(simulator.known_worlds, "known_world", turned)
    poisoned = run(scenario, tmp_path / "c", monkeypatch)
    assert of_the_judge_worlds(poisoned) == of_the_judge_worlds(report)
    assert report.truth is not None
    assert poisoned.truth is not None
    for one, other in zip(report.truth.values, poisoned.truth.values, strict=True):
        assert one.simulated == other.simulated
        assert one.true.value != other.true.value
    # An agent that learns in its flight does so anew in each: what it met in the one world is not known in the other.
    assert {one.agent for one in report.truth.values} == {"random", "popularity", "debiased", "oracle", "online"}


def true_difference(report: Report, agent: str, baseline: str) -> tuple[float, float]:
    """Limits of an agent's true reward less a baseline's."""
    assert report.truth is not None
    [found] = [
        one.true for one in report.truth.differences
        if (one.metric, one.agent, one.baseline) == ("reward", agent, baseline)
    ]  # fmt: skip
    assert found.low is not None
    assert found.high is not None
    return found.low, found.high


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "agents", "wins"),
    [
        ("selection_bias", ("popularity", "debiased", "naive"), (("debiased", "naive"), ("debiased", "popularity"))),
        ("feedback_loop", ("popularity", "debiased"), (("debiased", "popularity"),)),
        ("cold_start", ("popularity", "linucb", "online"), (("linucb", "popularity"), ("online", "popularity"))),
    ],
)
def test_who_handles_a_difficulty_wins_in_the_true_world(
    name: str,
    agents: tuple[str, ...],
    wins: tuple[tuple[str, str], ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Interval of the paired difference above 0, whatever the worlds that were fitted on the log say."""
    document = yaml.safe_load((WORLDS / f"{name}.yaml").read_text(encoding="utf-8"))
    document["agents"] = [one for one in document["agents"] if one["name"] in agents]
    document["preference"]["architecture"] = "matrix_factorisation"
    document["evaluate"] |= {"worlds": 2, "metrics": ["reward"], "baseline": sorted({baseline for _, baseline in wins})}
    scenario = tmp_path / "one.yaml"
    scenario.write_text(yaml.safe_dump(document), encoding="utf-8")
    report = run(scenario, tmp_path, monkeypatch)
    for agent, baseline in wins:
        assert true_difference(report, agent, baseline)[0] > 0, (agent, baseline)
