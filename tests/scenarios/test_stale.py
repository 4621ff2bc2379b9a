"""What a stored result depends on is in its key: a changed file beside the scenario is never served stale."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from scenarios.checking import prepare_scenario
from scenarios.stages.setting import open_setting
from scenarios.stages.training import keys_of
from scenarios.stages.worlds import _Fitting, load, load_saved, read_log
from simulator.cache import digest_of
from simulator.log import JUDGE, WORLD_A, Catalogue
from simulator.preference import Member, PreferenceModel, TextTower
from simulator.preference.continual import file_name, save
from simulator.progress import Progress

SCENARIO = """
name: stale
data: {source: log.csv, positive: liked == 1}
preference: {members: 1, dims: [2]%s}
simulator: {slate_size: 3}
agents: [{name: random, kind: random}]
evaluate: {baseline: random}
"""


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """Keys of the tasks that fine-tune and fit, with these settings of the preference model."""
    monkeypatch.setenv("WINDTUNNEL_CACHE", str(tmp_path / "cache"))
    rows = [f"u{u},i{(u * 7 + k) % 24},{int((u + k) % 2)}" for u in range(40) for k in range(8)]
    (tmp_path / "log.csv").write_text("\n".join(["user_id,item_id,liked", *rows]) + "\n", encoding="utf-8")

    def of(settings: str) -> list[str]:
        (tmp_path / "stale.yaml").write_text(SCENARIO % settings, encoding="utf-8")
        prepared = prepare_scenario(tmp_path / "stale.yaml")
        with open_setting(prepared.scenario, prepared.folder, Progress(None), workers=1) as setting:
            fitting = _Fitting(setting, read_log(setting), load_saved(setting))
            tower = TextTower(np.zeros((24, 0), np.float32), "ids only")
            return [fitting.tune(WORLD_A).key, fitting.fit("A", WORLD_A, tower, "two_tower").key]

    return of


def saved(folder: Path, worth: float) -> None:
    """Models of both roles that have seen the same rows, whatever their weights."""
    ids = tuple(f"i{k}" for k in range(24))
    catalogue = Catalogue(ids, ("",) * 24, np.zeros((24, 0), np.float32), (), (), np.zeros((0, 0), np.float32), ())
    member = Member(
        np.full((24, 2), worth, np.float32), np.zeros(24, np.float32), np.zeros(0, np.float32),
        np.ones(3, np.float32), 2, None,
    )  # fmt: skip
    nobody = np.zeros(0, np.int64)
    model = PreferenceModel.assemble(
        "two_tower", (member,), slope=1.0, intercept=0.0, fitted_users=nobody, tuning_users=nobody,
        seen=np.arange(5, dtype=np.uint64), measures={},
    )  # fmt: skip
    for role in (WORLD_A, JUDGE):
        save(model, catalogue, folder / file_name(role))


def test_a_saved_model_with_other_weights_is_gone_on_from_anew(
    tmp_path: Path, keys: Callable[[str], list[str]]
) -> None:
    found = []
    for worth in (0.5, 0.5, 0.6):
        saved(tmp_path / "before", worth)
        found.append(keys(", update: {model: before}"))
    assert found[0] == found[1]
    assert not set(found[1]) & set(found[2])


def test_weights_of_an_encoder_and_synonyms_of_ones_own_are_known(
    tmp_path: Path, keys: Callable[[str], list[str]]
) -> None:
    folder, words = tmp_path / "bert", tmp_path / "words.tsv"
    folder.mkdir()
    (folder / "config.json").write_text("{}", encoding="utf-8")
    found = []
    for weights, synonym in (("a", "film"), ("a", "film"), ("b", "film"), ("a", "picture")):
        (folder / "model.safetensors").write_text(weights, encoding="utf-8")
        words.write_text(f"movie\t{synonym}\n", encoding="utf-8")
        found.append(keys(", encoder: bert, robustness: {augmentation: [synonym], synonyms: words.tsv}"))
    assert found[0] == found[1]
    assert len({key for of in found[1:] for key in of}) == 6


def test_content_vectors_that_agents_read_are_known(tmp_path: Path, keys: Callable[[str], list[str]]) -> None:
    """By an architecture that reads no text the worlds are the same whatever the encoder; what agents see is not."""
    keys("")
    prepared = prepare_scenario(tmp_path / "stale.yaml")
    worlds: Any = SimpleNamespace(a=SimpleNamespace(digest="a"), validation=None)
    with open_setting(prepared.scenario, prepared.folder, Progress(None), workers=1) as setting:
        data = load(setting)
    assert data.content == digest_of(data.log.catalogue.content)
    other = replace(data, content=digest_of(np.ones((24, 2), np.float32)))
    found = [keys_of(one, worlds, prepared.specs)["random"] for one in (data, data, other)]
    assert found[0] == found[1] != found[2]
