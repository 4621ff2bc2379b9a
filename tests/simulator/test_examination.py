"""Examination fitted by EM: the parameters of worlds of known truth come back within two standard errors."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from simulator.behaviour.examination import LoggedSlates, Model, examination_table, fit_examination
from simulator.behaviour.own import check_behaviour

DECAY, CONTINUATION, PLACES, ITEMS = 0.8, 0.5, 4, 12


def logged(model: Model, seed: int, n: int = 4_000) -> tuple[LoggedSlates, NDArray[np.float64]]:
    """Slates in random order, read as the model says, and what each item's attraction is."""
    rng = np.random.default_rng(seed)
    attraction = rng.uniform(0.05, 0.6, ITEMS)
    item = np.argsort(rng.random((n, ITEMS)), axis=1)[:, :PLACES]
    table = examination_table(model, DECAY, CONTINUATION, PLACES)
    click, last, reads = np.zeros((n, PLACES), bool), np.zeros(n, np.int64), np.ones(n, bool)
    for k in range(PLACES):
        looks = rng.random(n) < table[k, last]
        if model == "cascade":
            reads &= looks
            looks = reads
        click[:, k] = looks & (rng.random(n) < attraction[item[:, k]])
        if model == "cascade":
            reads = reads & (~click[:, k] | (rng.random(n) < CONTINUATION))
        last = np.where(click[:, k], k + 1, last)
    return LoggedSlates(item, click, rng.integers(0, n // 10, n)), attraction


def truth(model: Model, parameter: str) -> float:
    if model == "cascade":
        return {"decay": DECAY, "continuation": CONTINUATION}[parameter]
    place, *after = (int(word) for word in parameter.split("_") if word.isdigit())
    return float(examination_table(model, DECAY, CONTINUATION, PLACES)[place, after[0] + 1 if after else 0])


@pytest.mark.parametrize("model", ["position", "cascade", "user_browsing"])
def test_examination_of_a_known_world_comes_back_within_two_standard_errors(model: Model) -> None:
    """8 or 12 worlds. A right interval of two standard errors holds 95.4 % of all; fewer than 85 % is below chance."""
    z = []
    for seed in range(8 if model == "cascade" else 12):
        shown, attraction = logged(model, seed)
        fit = fit_examination(shown, model, n_items=ITEMS)
        z += [(value - truth(model, name)) / fit.se[name] for name, value in fit.value.items()]
        assert np.abs(fit.attraction - attraction).max() < 0.15
        assert max(fit.se.values()) < 0.25, "an interval that holds everything says nothing"
    assert np.mean(np.abs(z) < 2) > 0.85
    assert np.std(z) > 0.6, "standard errors twice too large would cover too"


def test_attractions_that_are_known_need_not_be_fitted() -> None:
    """With them the examination of the first place is told too, which clicks alone cannot do."""
    shown, attraction = logged("position", 3)
    fit = fit_examination(shown, "position", n_items=ITEMS, attraction=attraction[shown.item])
    for k in range(PLACES):
        assert abs(fit.value[f"place_{k}"] - DECAY**k) < 3 * fit.se[f"place_{k}"]


def test_a_place_without_a_click_has_no_standard_error() -> None:
    """Its likelihood is highest at 0, where no quadratic form says how sure that is."""
    shown, _ = logged("position", 1, n=400)
    click = shown.click.copy()
    click[:, 2] = False
    fit = fit_examination(LoggedSlates(shown.item, click, shown.user), "position", n_items=ITEMS)
    assert fit.value["place_2"] < 1e-3
    assert fit.se["place_2"] == np.inf
    with pytest.raises(ValueError, match="no click in the log"):
        fit_examination(LoggedSlates(shown.item, click & False, shown.user), "position", n_items=ITEMS)


def test_repeated_users_widen_the_standard_errors() -> None:
    """Each slate ten times by the same user is one slate's evidence: rows as units would claim a third of the error."""
    shown, _ = logged("position", 2, n=600)
    ten = LoggedSlates(np.tile(shown.item, (10, 1)), np.tile(shown.click, (10, 1)), np.tile(np.arange(600), 10))
    alone = LoggedSlates(shown.item, shown.click, np.arange(600))
    se = [fit_examination(one, "position", n_items=ITEMS).se["place_1"] for one in (alone, ten)]
    assert se[1] == pytest.approx(se[0], rel=0.1)


def test_rows_are_put_together_to_slates() -> None:
    shown = LoggedSlates.of_rows(
        np.array([5, 6, 7]), np.array([0, 2, 1]), np.array([1.0, 0.0, 1.0]), np.array([9, 9, 8]), np.array([40, 40, 7])
    )
    assert shown.item.tolist() == [[-1, 7, -1], [5, -1, 6]]
    assert shown.click.tolist() == [[False, True, False], [True, False, False]]
    assert shown.last_click.tolist() == [[0, 0, 2], [0, 1, 1]]
    assert shown.user.tolist() == [8, 9]


def test_the_examples_of_the_page_run() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "behaviour.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    rng = np.random.default_rng(0)
    item, position, user = rng.integers(0, 46, 3_000), rng.integers(0, 3, 3_000), rng.integers(0, 300, 3_000)
    names = {
        "item": item,
        "position": position,
        "user": user,
        "click": (rng.random(3_000) < 0.3 / (1 + position)) * 1.0,
    }
    exec(compile(example, "docs/behaviour.md", "exec"), names)
    fit = names["fit"]
    assert abs(fit.value["place_1"] - 0.5) < 3 * fit.se["place_1"]  # type: ignore[attr-defined]
    (own,) = re.findall(r"```text\n(.*?)```", page, flags=re.DOTALL)
    names = {}
    exec(compile(own, "docs/behaviour.md", "exec"), names)
    check_behaviour(names["Patient"](patience=1))  # type: ignore[operator]
