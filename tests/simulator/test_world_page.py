"""docs/world.md: its examples run, and its defaults are the code's."""

from __future__ import annotations

import re
from pathlib import Path

from simulator.behaviour import SimulatorSettings
from tests.simulator.small_world import small_world

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "world.md").read_text(encoding="utf-8")


def test_the_examples_of_the_page_run() -> None:
    examples = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    assert len(examples) == 2
    world = small_world(users=40)
    for code in examples:
        names = {"world": world}
        exec(compile(code, "docs/world.md", "exec"), names)
        assert names["world"] is world


def test_the_defaults_on_the_page_are_the_codes() -> None:
    settings = SimulatorSettings()
    for part in ("examination", "satiation", "drift", "leave"):
        rows = [line for line in PAGE.splitlines() if line.startswith(f"| {part} |") and "fitted" not in line]
        said = re.findall(r"`(\w+)`[^,|(]*\((-?[\d.]+)\)", rows[0])
        assert said
        for name, value in said:
            assert float(getattr(getattr(settings, part), name)) == float(value), (part, name)
