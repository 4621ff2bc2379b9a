"""`evaluate.other_logs`: the world must place what another logged policy earned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import pipeline
from scenarios.checking import check_scenario
from simulator.datasets import DataSettings, check_dataset, load_dataset
from simulator.progress import Progress

SCENARIO = """
name: shop
seed: 3
data: {source: own.csv, columns: {user: user, item: item, time: time}, positive: click == 1}
preference: {architecture: bias, members: 1, refit_members: 1, dims: [4], factors: 4, examples: 0}
simulator: {slate_size: 3, horizon: 4}
agents: [{name: random, kind: random}, {name: popularity, kind: popularity}]
evaluate: {baseline: popularity, worlds: 2, metrics: [reward], other_logs: [%s]}
"""
QUALITY = np.random.default_rng(2).normal(0, 1, 30)


def write_log(path: Path, *, taste: float, lift: float = 0.0, item: str = "i", first: int = 0) -> None:
    """A policy that shows good items the more often, the greater `taste`; clicks by quality alone, plus `lift`."""
    rng, lines = np.random.default_rng(4), ["user,item,time,click"]
    chance = np.exp(taste * QUALITY) / np.exp(taste * QUALITY).sum()
    for user in range(first, first + 250):
        for step, k in enumerate(rng.choice(30, 14, p=chance, replace=False)):
            clicked = rng.random() < 1 / (1 + np.exp(-(QUALITY[k] + lift)))
            lines.append(f"u{user},{item}{k},{1000 * step},{int(clicked)}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def scenario(folder: Path, other: str) -> Path:
    write_log(folder / "own.csv", taste=0)
    (folder / "shop.yaml").write_text(SCENARIO % other, encoding="utf-8")
    return folder / "shop.yaml"


@pytest.mark.slow
@pytest.mark.parametrize(("lift", "verdict"), [(0.0, "pass"), (-1.5, "fail")])
def test_a_policy_that_shows_better_items_is_placed_and_one_whose_users_changed_is_not(
    tmp_path: Path, lift: float, verdict: str
) -> None:
    """The other policy earns a quarter more; a world that took its own policy's rate for it would fail."""
    write_log(tmp_path / "other.csv", taste=1.0, lift=lift, first=200)  # most of its users are strangers
    report = pipeline.fidelity(
        scenario(tmp_path, "other.csv"), out=tmp_path / "runs", workers=1, progress=Progress(None)
    )
    checks = {check.name: check for check in report.fidelity.checks}
    found = checks["other policy's value: other.csv"]
    assert found.verdict == verdict
    assert "20% of the rows are of users whom that log knows" in found.estimate.method
    if verdict == "pass":
        assert found.estimate.value == pytest.approx(1, abs=0.05)
        assert "1 pair of policies, needs 6" in checks["order of logged policies: other.csv"].reason
    else:
        assert any(reason.startswith("other policy's value: other.csv") for reason in report.fidelity.reasons)


def test_a_log_that_is_not_there_or_of_other_items_is_one_line(tmp_path: Path) -> None:
    mistakes = check_scenario(scenario(tmp_path, "nowhere.csv"))
    assert len(mistakes) == 1
    assert mistakes[0].startswith("evaluate.other_logs[0]: ")
    assert "nowhere.csv' is not there" in mistakes[0]
    write_log(tmp_path / "strange.csv", taste=0, item="strange")
    [mistake] = check_scenario(scenario(tmp_path, "strange.csv"))
    assert mistake.startswith("evaluate.other_logs[0]: 0% of the rows of 'strange.csv' are of items of 'own.csv'")


def test_the_rounds_of_an_open_bandit_policy_are_a_log_of_users_who_look_alike() -> None:
    if check_dataset("obd-women").folder is None:
        pytest.skip("obd-women is in no folder of WINDTUNNEL_DATA")
    random, bts = (load_dataset(DataSettings(source=f"obd-women/{name}"), Path()) for name in ("random", "bts"))
    assert (len(random), len(bts)) == (10_000, 10_000)
    assert random.primary.sum() == bts.primary.sum() == 46
    assert random.catalogue.n_users == 205
    assert len(np.intersect1d(random.catalogue.user_ids, bts.catalogue.user_ids)) > 150
    assert set(bts.catalogue.item_ids) <= set(random.catalogue.item_ids)
    assert random.propensity is not None
    assert np.allclose(random.propensity, 1 / 46)
    assert bts.propensity is not None
    assert np.ptp(bts.propensity) > 0.5
    assert random.position is not None
    assert sorted(np.unique(random.position)) == [0, 1, 2]
