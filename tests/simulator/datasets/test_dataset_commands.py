"""Datasets by name on the command line: whether they are whole, where they are offered, what they are good for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import cli
from simulator.datasets import DATASETS, check_dataset

SCENARIO = "name: tried\ndata: {source: %s}\nsimulator: {slate_size: 5}\nagents: [{name: random, kind: random}]\n"
LOGS = ("ml-latest-small", "coat", "kuairec-sample", "lastfm-2k", "mind-small-sample", "restaurant-consumer")


def needs(name: str) -> None:
    if check_dataset(name).folder is None:
        pytest.skip(f"{name} is in no folder of WINDTUNNEL_DATA")


@pytest.mark.parametrize("name", LOGS)
def test_a_scenario_need_name_no_more_than_the_dataset(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    needs(name)
    (tmp_path / "tried.yaml").write_text(SCENARIO % name)
    assert cli.main(["validate", str(tmp_path / "tried.yaml")]) == 0, capfd.readouterr().err


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("hillstrom", "`windtunnel effect`"),
        ("cranfield", "`task: search`"),
        ("banking77", "`task: support`"),
        ("obd-women", "`windtunnel ope "),
    ],
)
def test_a_scenario_on_what_is_no_log_ends_with_one_line(
    name: str, command: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tried.yaml").write_text(SCENARIO % name)
    assert cli.main(["validate", str(tmp_path / "tried.yaml")]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"data.source: '{name}' holds ")
    assert command in line


def test_fetch_says_where_a_dataset_is_offered_and_what_files_are_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WINDTUNNEL_DATA", str(tmp_path))
    assert cli.main(["data", "fetch", "coat"]) == 0
    said = capfd.readouterr().out
    assert "www.cs.cornell.edu" in said
    assert "train.ascii" in said
    assert "windtunnel data check coat" in said
    assert not list(tmp_path.iterdir())
    assert cli.main(["data", "fetch", "coat", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["folder"] is None
    assert found["files"] == dict(DATASETS["coat"].files)
    assert cli.main(["data", "check", "coat"]) == 2
    assert cli.main(["data", "fetch", "coats"]) == 2


def test_logged_rounds_of_a_dataset_are_named_like_a_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The random policy valued by itself is its click rate."""
    needs("obd-women")
    np.savez(tmp_path / "uniform.npz", pi_e=np.full((10_000, 46), 1 / 46))
    policy = ["--policy", str(tmp_path / "uniform.npz"), "--estimator", "snips", "--json"]
    assert cli.main(["ope", "obd-women/random", *policy]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["n"] == 10_000
    assert found["estimates"]["snips"]["value"] == pytest.approx(0.0046)
    for wrong, mend in (("obd-women", "'obd-women/bts' or 'obd-women/random'"), ("coat/bts", "holds no logged rounds")):
        needs(wrong.split("/")[0])
        assert cli.main(["ope", wrong, *policy]) == 2
        assert mend in capfd.readouterr().err


def test_the_page_on_datasets_lists_them_all_and_its_example_runs(capfd: pytest.CaptureFixture[str]) -> None:
    page = (Path(cli.__file__).parent / "docs" / "datasets.md").read_text(encoding="utf-8")
    named = [line.split("`")[1] for line in page.splitlines() if line.startswith("| `")]
    assert sorted(named) == sorted(DATASETS)
    needs("obd-women")
    exec(page.split("```python\n")[1].split("```")[0], {})
    assert capfd.readouterr().out.startswith("10000 46 0.96")
