"""`windtunnel explain`: any user and item of a scenario, by the model that a run fitted, in text and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import cli
import pipeline
from scenarios.checking import prepare_scenario
from scenarios.stages.setting import open_setting
from scenarios.stages.worlds import fit_worlds, load
from simulator.log import HELD_OUT
from simulator.preference.explaining import Explanations
from simulator.progress import Progress
from tests.simulator.tiny_bert import tiny_bert

pytest.importorskip("captum")

SCENARIO = """
name: genres
seed: 2
data: {source: log.csv, positive: liked, items: items.csv, item_text: [title]}
preference:
  {encoder: tiny, adaptation: full, members: 1, refit_members: 1, dims: [2], epochs: 1, examples: 1,
   tuning: {epochs: 1, learning_rate: 3.0e-3, batch_items: 8}}
simulator: {slate_size: 3, horizon: 4}
agents: [{name: random, kind: random}, {name: popularity, kind: popularity}]
evaluate: {worlds: 1}
"""


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of films of two genres that their titles name, and an encoder of two layers that is fine-tuned on it."""
    folder = tmp_path_factory.mktemp("explain")
    tiny_bert(folder / "tiny")
    rng = np.random.default_rng(3)
    rows = ["user,item,time,liked"]
    for user in range(60):
        for time, item in enumerate(rng.choice(24, 16, replace=False)):
            rows.append(f"u{user},i{item},{time},{int(rng.random() < (0.9 if item % 2 == user % 2 else 0.1))}")
    (folder / "log.csv").write_text("\n".join(rows) + "\n")
    title = ("A quiet, love story", "War: battle money!")
    items = [f'i{k},"{title[k % 2]} {k // 2 % 10}"' for k in range(24)]
    (folder / "items.csv").write_text("\n".join(["item,title", *items, "i24,"]) + "\n")
    (folder / "genres.yaml").write_text(SCENARIO)
    return folder / "genres.yaml"


@pytest.fixture(scope="module")
def cache(scenario: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache of a run that has fitted the scenario's worlds."""
    folder = tmp_path_factory.mktemp("cache of a run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WINDTUNNEL_CACHE", str(folder))
        prepared = prepare_scenario(scenario)
        with open_setting(prepared.scenario, prepared.folder, Progress(None), workers=1) as setting:
            data = load(setting)
            worlds = fit_worlds(setting, data)
            assert worlds.tower_judge.chosen == "fine-tuned"
    return folder


@pytest.fixture(scope="module")
def found(scenario: Path, cache: Path) -> Explanations:
    """Three users with three items each; nothing is fitted again."""
    before = set(cache.rglob("*"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WINDTUNNEL_CACHE", str(cache))
        told = pipeline.explain(
            scenario, users=["u0", "u1", "u0", "u17"], items=["i3", "i24", "i0"], workers=1, progress=Progress(None)
        )
    assert set(cache.rglob("*")) == before
    return told


def test_any_pair_is_explained_by_what_a_run_fitted(found: Explanations) -> None:
    """Every user with every item, once; both lists sum to their differences of logits."""
    assert [(one.user, one.item) for one in found.pairs] == [
        (user, item) for user in ("u0", "u1", "u17") for item in ("i3", "i24", "i0")
    ]
    for one in found.pairs:
        assert len(one.history_item) in (8, 12, 13)  # rows before the late ones
        assert one.history.sum() == pytest.approx(one.logit - one.without_history, abs=1e-4)
    for one in found.pairs[::3]:
        assert one.words == ("War", "battle", "money", "1")
        assert one.word is not None
        assert one.without_words is not None
        assert one.word.sum() == pytest.approx(one.logit - one.without_words, abs=5e-3)
    assert found.pairs[1].word is None  # an item without text


def test_the_text_names_both_parts_and_the_document_holds_them_whole(found: Explanations) -> None:
    document, text = found.to_json(), found.as_text(most=2)
    json.dumps(document, allow_nan=False)
    assert (document["name"], document["world"], len(document["pairs"])) == ("genres", "judge world 1", 9)
    one, pair = document["pairs"][0], found.pairs[0]
    assert one["probability"] == pytest.approx(1 / (1 + np.exp(-pair.logit)))
    assert [row["item"] for row in one["history"]] == list(pair.history_item)
    assert [row["word"] for row in one["words"]] == ["War", "battle", "money", "1"]
    assert sum(row["added"] for row in one["history"]) == pytest.approx(one["logit"] - one["without_history"], abs=1e-4)
    told = {(row["user"], row["item"]): row["in_history"] for row in document["pairs"]}
    assert {told[one.user, one.item] == (one.item in one.history_item) for one in found.pairs} == {True}
    assert text.splitlines()[2].startswith("user u0, 'War: battle money! 1' (i3)")
    assert f"  history of {len(pair.history_item)}: {pair.history.sum():+.2f} to {pair.without_history:+.2f}" in text
    assert f"  {len(pair.history_item) - 2} more" in text
    assert "liked 'A quiet, love story" in text
    assert "  words: play no part in this score" in text


def test_the_command_prints_it_and_names_all_ids_that_are_none(
    scenario: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WINDTUNNEL_CACHE", str(cache))
    asked = ["explain", str(scenario), "--user", "u3", "--item", "i5", "--workers", "1"]
    assert cli.main([*asked, "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["pairs"][0]["item"] == "i5"
    assert cli.main(asked) == 0
    assert capfd.readouterr().out.startswith("genres: what moved the log-odds of liking an item, by judge world 1;")
    assert cli.main([*asked, "--user", "u333", "--item", "42"]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "--user: 'u333' is not among the 60 users of 'log.csv'; did you mean 'u33'?",
        "--item: '42' is not among the 25 items of 'log.csv'; the first is 'i0'",
    ]
    assert cli.main(["explain", str(scenario), "--item", "i5"]) == 2
    assert "--user" in capfd.readouterr().err


def test_a_model_without_text_is_explained_by_the_history_alone(scenario: Path) -> None:
    """Matrix factorisation, and a user whom no model was fitted on."""
    overrides = ["preference.architecture=matrix_factorisation"]
    prepared = prepare_scenario(scenario, overrides=overrides)
    with open_setting(prepared.scenario, prepared.folder, Progress(None), workers=1) as setting:
        data = load(setting)
    stranger = data.log.catalogue.user_ids[data.split.users(HELD_OUT)[0]]
    found = pipeline.explain(
        scenario, users=[stranger], items=["i5"], workers=1, overrides=overrides, progress=Progress(None)
    )
    [one] = found.pairs
    assert one.history.sum() == pytest.approx(one.logit - one.without_history, abs=1e-4)
    assert np.abs(one.history).max() > 0
    assert one.word is None
