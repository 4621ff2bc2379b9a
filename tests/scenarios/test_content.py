"""The encoder that agents, the preference model and its explanations know items by is one and the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from scenarios.checking import prepare_scenario
from scenarios.stages.setting import open_setting
from scenarios.stages.worlds import load
from simulator.log import WORLD_A
from simulator.preference import fine_tune, fit_preference
from simulator.progress import Progress

SCENARIO = """
name: asked
data: {source: log.csv, items: items.csv, queries: queries.csv, positive: liked == 1, item_text: [title]}
preference: {encoder: own, adaptation: frozen, members: 1, dims: [2], epochs: 1, max_tokens: 8, search: {},
             own: {vocabulary: 64, width: 16, layers: 1, epochs: 1}}
simulator: {slate_size: 3}
agents: [{name: random, kind: random}]
evaluate: {baseline: random}
"""
KINDS = ("spade", "rake", "hoe", "novel", "poem", "essay")


def test_an_encoder_made_for_the_texts_is_made_once_for_items_and_queries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("captum")
    monkeypatch.setenv("WINDTUNNEL_CACHE", str(tmp_path / "cache"))
    rows = [f"u{u},i{(u * 7 + k) % 24},{int((u + k) % 2)}" for u in range(40) for k in range(8)]
    (tmp_path / "log.csv").write_text("\n".join(["user_id,item_id,liked", *rows]) + "\n", encoding="utf-8")
    items = [f"i{k},{KINDS[k % 6]} number {k}" for k in range(24)]
    (tmp_path / "items.csv").write_text("\n".join(["item_id,title", *items]) + "\n", encoding="utf-8")
    asked = [f"good {KINDS[k % 6]} please,i{k}" for k in range(24)]
    (tmp_path / "queries.csv").write_text("\n".join(["query,item_id", *asked]) + "\n", encoding="utf-8")
    (tmp_path / "asked.yaml").write_text(SCENARIO, encoding="utf-8")
    from simulator.preference.explaining import examples

    prepared = prepare_scenario(tmp_path / "asked.yaml")
    settings, vectors = prepared.scenario.preference, tmp_path / "cache" / "vectors"
    with open_setting(prepared.scenario, prepared.folder, Progress(None), workers=1) as setting:
        data = load(setting)
        tower = fine_tune(data.log, data.split, WORLD_A, settings, setting.root, cache=vectors)
        assert tower.queries.shape[0] == 6
        assert data.log.catalogue.content == pytest.approx(tower.vectors)
        model = fit_preference(data.log, data.split, WORLD_A, tower, settings, setting.root, rehearsed=False)
        assert "words: " in examples(
            model, data.log, data.split, WORLD_A, tower, settings, setting.root, cache=vectors
        )[0]  # fmt: skip
    assert len(list((vectors / "encoders").iterdir())) == 1
