"""docs/scenario.md and docs/data.md against the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from scenarios.loading import load_scenario
from scenarios.reference import PAGE, _models, reference, up_to_date
from scenarios.schema import Scenario
from simulator.datasets import DataSettings

DOCS = PAGE.parent


def test_the_reference_is_up_to_date() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert up_to_date(page) == page, "run python -m scenarios.reference"


def test_the_reference_has_every_key_with_a_description() -> None:
    text = reference()

    def check(model: type[BaseModel]) -> None:
        for name, field in model.model_fields.items():
            assert f"| `{name}` |" in text
            inner = list(_models(field.annotation))
            assert field.description or inner, f"{model.__name__}.{name} says nothing"
            for deeper, _ in inner:
                check(deeper)

    check(Scenario)


def test_a_page_without_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="lacks the marks"):
        up_to_date("# The scenario\n")


def examples(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)


def test_the_example_scenario_of_the_page_is_read(tmp_path: Path) -> None:
    (text,) = examples("scenario.md", "yaml")
    path = tmp_path / "example.yaml"
    path.write_text(text)
    assert load_scenario(path).name == "films"


def test_the_examples_of_the_data_page_work(capsys: pytest.CaptureFixture[str]) -> None:
    from simulator.yaml_text import parse_yaml

    first, media = (DataSettings.model_validate(parse_yaml(t, "data.md")["data"]) for t in examples("data.md", "yaml"))
    assert first.policy_inputs == ["country"]
    assert set(media.modalities) == {"year", "cover", "sound", "made"}
    (code,) = examples("data.md", "python")
    exec(compile(code, "docs/data.md", "exec"), {})
    assert capsys.readouterr().out.startswith("100000 943 Toy Story")
