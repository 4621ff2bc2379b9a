"""What a kind of agent needs is held against the log before anything is trained."""

from __future__ import annotations

from pathlib import Path

import pytest

import pipeline
from agents.kinds import KINDS
from agents.needs import NEEDS
from scenarios.checking import check_scenario
from simulator.errors import ScenarioError
from simulator.progress import Progress

SCENARIO = """
name: bare
data: {source: log.csv, positive: liked == 1%s}
simulator: {slate_size: 3}
agents:
  - {name: random, kind: random}
  - {name: q, kind: bert_q}
  - {name: texts, kind: content}
  - {name: groups, kind: segment_popularity}
  - {name: late, kind: "rerank:recent"}
  - {name: shown, kind: logged}
  - {name: apart, kind: mmr}
  - {name: fused, kind: multimodal}
  - {name: ids, kind: multimodal, params: {modalities: [id]}}
  - {name: factors, kind: "recbole:DeepFM"}
  - {name: calibrated, kind: "rerank:popularity", params: {constraint: calibration}}
  - {name: reading, kind: cql, params: {encoder: minilm}}
evaluate: {baseline: random}
"""
ALL = """, item_text: [title], item_categories: [genre], items: items.csv, users: users.csv, policy_inputs: [age],
       columns: {time: at, propensity: chance}"""


def write(folder: Path, held: str) -> Path:
    rows = [f"u{u},i{(u * 7 + k) % 24},{int((u + k) % 3 > 0)},{u * 9 + k},0.1" for u in range(40) for k in range(8)]
    (folder / "log.csv").write_text("\n".join(["user_id,item_id,liked,at,chance", *rows]) + "\n", encoding="utf-8")
    items = [f"i{k},number {k},{'ab'[k % 2]}" for k in range(24)]
    (folder / "items.csv").write_text("\n".join(["item_id,title,genre", *items]) + "\n", encoding="utf-8")
    users = [f"u{u},{20 + u}" for u in range(40)]
    (folder / "users.csv").write_text("\n".join(["user_id,age", *users]) + "\n", encoding="utf-8")
    (folder / "bare.yaml").write_text(SCENARIO % held, encoding="utf-8")
    return folder / "bare.yaml"


def test_agents_that_the_log_cannot_serve_are_refused_in_one_line_each_by_validate_and_run(tmp_path: Path) -> None:
    scenario = write(tmp_path, "")
    expected = [
        "agents[1].kind: 'bert_q' needs item text; the items have no text; name data.item_text",
        "agents[2].kind: 'content' needs item text or categories; the items have neither; name data.item_text or",
        "agents[3].kind: 'segment_popularity' needs user features; the log's users have none that tells them apart",
        "agents[4].kind: 'recent' needs times; the log has no times; use popularity",
        "agents[5].kind: 'logged' needs a log of exposure; users chose what to rate",
        "agents[6].kind: 'mmr' needs item text or categories; ",
        "agents[7].kind: 'multimodal' needs text, categories or data.modalities; the items have nothing to fuse",
        "agents[9].kind: 'recbole:DeepFM' needs item categories; the log's catalogue has none; name",
        "agents[10].kind: 'rerank:popularity' needs item categories; ",
        "agents[11].kind: 'cql' needs item text; the items have no text; name data.item_text",
    ]
    for found in (check_scenario(scenario), refused(scenario, tmp_path)):
        assert len(found) == len(expected)
        for line, start in zip(found, expected, strict=True):
            assert line.startswith(start)


def test_rules_and_modalities_that_name_what_is_not_there_are_refused_before_anything_trains(tmp_path: Path) -> None:
    text = SCENARIO.replace(
        "  - {name: late",
        """  - {name: kept, kind: rules, params: {rules: [{never: {genre: a}}, {never: {category: a}},
      {only: {category: b}, when: {size: "< 3"}}]}}
  - {name: seen, kind: mmr, params: {agent: multimodal, params: {modalities: [id, image]}}}
  - {name: late""",
    )
    write(tmp_path, ALL)
    (tmp_path / "bare.yaml").write_text(text % ALL, encoding="utf-8")
    expected = [
        "agents[4].params.rules[0].never.genre: is nothing known of items; known: id, category",
        "agents[4].params.rules[2].when.size: is not among data.policy_inputs; agents see age",
        "agents[5].params.modalities: the items have no 'image'; there are id, text, category",
    ]
    for found in (check_scenario(tmp_path / "bare.yaml"), refused(tmp_path / "bare.yaml", tmp_path)):
        assert len(found) == len(expected), found
        for line, start in zip(found, expected, strict=True):
            assert line.startswith(start)


def refused(scenario: Path, folder: Path) -> tuple[str, ...]:
    with pytest.raises(ScenarioError) as caught:
        pipeline.run(scenario, out=folder / "runs", workers=1, progress=Progress(None))
    return tuple(str(caught.value).splitlines())


def test_a_log_that_holds_it_all_serves_them_all(tmp_path: Path) -> None:
    assert check_scenario(write(tmp_path, ALL)) == []


def test_a_need_that_a_list_of_agents_tells_can_be_held_against_a_log() -> None:
    assert {kind.needs for kind in KINDS.values()} - {""} <= set(NEEDS)
