"""A part of a dataset that exists is whole: a reader that mixes up rows or indices fails where it reads."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.datasets.parts import (
    Impressions,
    Judgements,
    LabelledTexts,
    LoggedRounds,
    MediaFiles,
    Tags,
    Treatments,
)
from simulator.errors import LogError

TWO = np.array([0, 1])
PARTS: dict[str, Any] = {
    "texts": LabelledTexts(("a", "b"), TWO, ("x", "y")),
    "judgements": Judgements(("q", "r"), ("d", "e"), {"title": ("", "t")}, TWO, TWO, TWO, {0: "no", 1: "yes"}),
    "rounds": LoggedRounds(TWO, np.ones(2), np.full(2, 0.5), TWO, np.ones((2, 3)), np.ones((2, 1)), np.ones(2), 2, 2),
    "impressions": Impressions(TWO, np.ones(2), np.array([0, 1, 2]), TWO, TWO > 0, np.array([0, 1, 2]), TWO,
                               ("u", "v"), ("i", "j")),
    "treatments": Treatments(TWO, ("none", "mail"), np.full(2, 0.5), {"age": TWO}, {"visit": np.ones(2)}),
    "tags": Tags(np.array(["u", "v"]), np.array(["i", "j"]), TWO, np.ones(2), ("x", "y")),
    "media": MediaFiles(("i", "j"), ("a.jpg", "b.jpg"), TWO, ("hat", "shoe"), lambda name: b""),
}  # fmt: skip
INDICES = {
    "texts": ("label",), "judgements": ("query", "document"), "rounds": ("action", "position"),
    "impressions": ("user", "item", "history"), "treatments": ("arm",), "tags": ("tag",), "media": ("label",),
}  # fmt: skip
CASES = [(part, name) for part, names in INDICES.items() for name in names]


@pytest.mark.parametrize(("part", "name"), CASES)
@given(wrong=st.integers(-5, 5).filter(lambda index: index not in (0, 1)), at=st.integers(0, 1))
def test_an_index_of_nothing_is_refused_with_its_row(part: str, name: str, wrong: int, at: int) -> None:
    index = TWO.copy()
    index[at] = wrong
    with pytest.raises(LogError, match=rf"{name}\[{at}\]: {wrong} is outside \[0, 2\)"):
        replace(PARTS[part], **{name: index})


@pytest.mark.parametrize(("part", "name"), [case for case in CASES if case != ("impressions", "history")])
def test_columns_of_different_lengths_are_refused_with_their_lengths(part: str, name: str) -> None:
    with pytest.raises(LogError, match=rf"differ in length \(.*{name} 1"):
        replace(PARTS[part], **{name: TWO[:1]})


@pytest.mark.parametrize("pscore", [0.0, -0.5, 1.5, float("nan")])
def test_a_propensity_outside_0_to_1_is_refused(pscore: float) -> None:
    with pytest.raises(LogError, match=r"pscore\[1\]: .* is outside \(0, 1\]"):
        replace(PARTS["rounds"], pscore=np.array([0.5, pscore]))


@pytest.mark.parametrize("part", PARTS)
def test_a_part_is_as_long_as_its_rows(part: str) -> None:
    assert len(PARTS[part]) == 2
