"""The condition of `data.positive` against Python's own reading of the same text."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.datasets.conditions import Condition
from simulator.errors import LogError

A, B = np.array([1.0, 2, 3, 4, 5]), np.array([0.0, 1, 0, 1, 1])
WORDS = np.array(["buy", "view", "buy", "", "view"])


def holds(text: str) -> list[bool]:
    return Condition.parse(text).holds({"a": A, "b": B}, {"w": WORDS, "b": B.astype(str)}).tolist()


comparisons = st.builds(
    lambda name, operator, number: f"{name} {operator} {number}",
    st.sampled_from(["a", "b"]),
    st.sampled_from([">", ">=", "<", "<=", "==", "!="]),
    st.integers(-1, 6),
)
conditions = st.recursive(
    comparisons,
    lambda inner: st.one_of(
        st.builds("({} and {})".format, inner, inner),
        st.builds("({} or {})".format, inner, inner),
        st.builds("not ({})".format, inner),
        st.builds("{} or {} and {}".format, inner, inner, inner).map("({})".format),
    ),
    max_leaves=6,
)


@given(text=conditions)
def test_a_condition_holds_where_python_says_it_does(text: str) -> None:
    """Python's `eval` is the slow twin here and nowhere else."""
    twin = [bool(eval(text, {"__builtins__": {}}, {"a": a, "b": b})) for a, b in zip(A, B, strict=True)]
    assert holds(text) == twin


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("rating >= 4".replace("rating", "a"), [0, 0, 0, 1, 1]),
        ("b", [0, 1, 0, 1, 1]),
        ("not b", [1, 0, 1, 0, 0]),
        ("b == true", [0, 1, 0, 1, 1]),
        ("b == false", [1, 0, 1, 0, 0]),
        ("w == 'buy'", [1, 0, 1, 0, 0]),
        ('`w` != "view" and a < 4', [1, 0, 1, 0, 0]),
        ("a>=2 and a<=3.5 or a==5", [0, 1, 1, 0, 1]),
        ("a > -1e0", [1, 1, 1, 1, 1]),
    ],
)
def test_conditions_people_write(text: str, where: list[int]) -> None:
    assert holds(text) == [bool(x) for x in where]


def test_columns_say_which_must_be_numbers() -> None:
    assert Condition.parse("a >= 4 and w == 'buy' or b").columns() == {"a": True, "w": False, "b": False}


@pytest.mark.parametrize(
    "text",
    ["", "a >", "a => 4", "4 <= a", "a >= 4 and", "(a > 1", "a > 1)", "a > b", "w > 'x'", "a = 4", "and", "not",
     "__import__('os').system('true')", "a >= 4; b", "a > true", "lambda: 0", "a[0] > 1", "w == buy"],
)  # fmt: skip
def test_what_is_no_condition_is_refused_and_an_example_given(text: str) -> None:
    with pytest.raises(ValueError, match=r"give e\.g\. 'rating >= 4'"):
        Condition.parse(text)


def test_a_column_alone_must_be_yes_or_no() -> None:
    with pytest.raises(LogError, match="neither yes nor no"):
        holds("a")
    with pytest.raises(LogError, match="neither yes nor no"):
        holds("w")


def test_a_name_with_signs_is_told_of_backquotes() -> None:
    """'bought? == 1' was told that '? == 1' cannot be read, and not how such a column is named."""
    with pytest.raises(
        ValueError, match=r"cannot read '\? == 1'; put a column's name with blanks or signs in backquotes"
    ):
        Condition.parse("bought? == 1")
    assert Condition.parse("`bought?` == 1").columns() == {"bought?": True}
