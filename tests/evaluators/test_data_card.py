"""The data card: its counts are the log's, its evidence of selection covers, and it claims no more than is logged."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluators.data_card import DataCard, data_card, difference_of_rates
from evaluators.page import render_page
from evaluators.report import DataCardModel
from evaluators.report_text import summary, to_text
from simulator.datasets import DataSettings, check_dataset, load_dataset
from simulator.log import Catalogue, InteractionLog, RandomRows
from simulator.streams import stream
from tests.evaluators.example_report import example_report

ROOT = np.random.SeedSequence(20261125)


def log_of(user: Any, item: Any, primary: Any, **more: Any) -> InteractionLog:
    """A log of these rows, sorted by user, without times unless they are given."""
    user, item, primary = (np.asarray(column) for column in (user, item, primary))
    n_users, n_items = int(user.max()) + 1, int(item.max()) + 1
    catalogue = Catalogue(
        item_ids=tuple(map(str, range(n_items))),
        item_text=tuple("text" if at % 2 else "" for at in range(n_items)),
        item_categories=np.zeros((n_items, 0), np.float32),
        category_names=(),
        user_ids=tuple(map(str, range(n_users))),
        user_features=np.zeros((n_users, 0), np.float32),
        user_feature_names=(),
    )
    more.setdefault("time", np.full(len(user), np.nan))
    return InteractionLog(user=user, item=item, primary=primary.astype(np.float32), catalogue=catalogue, source="made",
                          **more)  # fmt: skip


def made(rng: np.random.Generator, *, choosing: float, n_users: int = 80, n_items: int = 100) -> InteractionLog:
    """Users who differ in how much they like; each pair has a row more often the better the item, by `choosing`."""
    quality, taste = rng.normal(size=n_items), rng.normal(size=n_users)
    seen = rng.random((n_users, n_items)) < 1 / (1 + np.exp(1.5 - choosing * quality))
    seen[np.arange(n_users), rng.integers(0, n_items, n_users)] = True
    user, item = np.nonzero(seen)
    liked = rng.random(len(user)) < 1 / (1 + np.exp(-(quality[item] + taste[user])))
    return log_of(user, item, liked)


def answers(card: DataCard) -> dict[str, str]:
    return {question.about: question.answer for question in card.questions}


# ------------------------------------------------------------------------------------------------- counts


def test_counts_of_a_small_log_are_those_of_its_rows() -> None:
    user = np.repeat(np.arange(30), 2)
    log = log_of(user, np.tile([0, 1, 2, 1], 15), np.tile([1, 0], 30), notes=("a note",), limits=("a limit",))
    catalogue = replace(log.catalogue, item_ids=("0", "1", "2", "3"), item_text=("", "x", "", "y"),
                        item_categories=np.zeros((4, 0), np.float32),
                        user_attributes={"side": np.array(["l"] * 25 + [""] * 5)})  # fmt: skip
    card = data_card(replace(log, catalogue=catalogue))
    assert (card.rows, card.users, card.items, card.unseen_items) == (60, 30, 3, 1)
    assert card.density == pytest.approx(60 / 90)
    assert (card.rows_per_item.least, card.rows_per_item.most) == (15, 30)
    assert card.with_text == pytest.approx(0.5)
    assert card.base_rate.value == pytest.approx(0.5)
    assert [(one.group, one.users, one.rows) for one in card.groups] == [("unknown", 5, 10), ("l", 25, 50)]
    assert card.groups[0].base_rate.withheld is not None  # 5 users
    assert (card.notes, card.limits) == (("a note",), ("a limit",))


def test_many_groups_are_the_largest_by_name_and_the_others_together() -> None:
    user = np.arange(200)
    log = log_of(user, user % 3, user % 2)
    side = np.array([f"g{min(at // 5, 30)}" for at in user])  # g30 has 50 users, the 30 others 5 each
    card = data_card(replace(log, catalogue=replace(log.catalogue, user_attributes={"side": side})))
    assert len(card.groups) == 21
    assert sum(one.users for one in card.groups) == sum(one.rows for one in card.groups) == 200
    assert {one.group: one.users for one in card.groups}["g30"] == 50
    assert (card.groups[-1].group, card.groups[-1].users) == ("11 smaller groups", 55)


def test_times_are_days_where_they_can_be_and_bursts_are_counted() -> None:
    user, item = np.repeat(np.arange(2), 4), np.tile(np.arange(4), 2)
    time = np.tile([0.0, 0.0, 30.0, 90_000.0], 2)
    days = data_card(log_of(user, item, item % 2, time=time + 1.6e9)).times
    assert days is not None
    assert (days.first, days.last) == ("2020-09-13", "2020-09-14")
    assert days.zero_gaps == pytest.approx(1 / 3)
    assert days.within_a_minute == pytest.approx(2 / 3)
    assert days.gaps.most == 89_970
    steps = data_card(log_of(user, item, item % 2, time=time)).times
    assert steps is not None
    assert steps.first == ""
    assert data_card(log_of(user, item, item % 2)).times is None


# ------------------------------------------------------------------------------------------------- missing at random?


def test_a_log_of_random_items_shows_selection_as_seldom_as_its_interval_claims() -> None:
    """5 % of 400 right intervals leave out 0, 4 sd more are 37. With users alone as clusters it is 122 for items."""
    selections = [dict(data_card(made(stream(ROOT, "random", seed), choosing=0.0)).selection) for seed in range(400)]
    for name in ("popular against rare items", "active against other users"):
        made_of = [one[name] for one in selections if one[name].value is not None]
        assert len(made_of) > 390
        left_out = sum(not (one.low <= 0 <= one.high) for one in made_of)
        assert left_out <= 37, name


def test_a_log_of_chosen_items_shows_it() -> None:
    logs = [made(stream(ROOT, "chosen", seed), choosing=1.0, n_items=300) for seed in range(50)]
    found = [dict(data_card(log).selection)["popular against rare items"] for log in logs]
    assert np.mean([one.low > 0 for one in found]) > 0.95


def test_the_difference_of_two_rates_covers_the_truth_where_users_differ() -> None:
    """Each user answers 10 rows of either part with a taste of their own; the second part is liked less by 0.1."""
    covered = []
    for seed in range(1_000):
        rng = stream(ROOT, "difference", seed)
        taste = rng.uniform(0.2, 0.9, 40)
        user = np.repeat(np.arange(40), 20)
        first = np.tile(np.arange(20) < 10, 40) & (rng.random(800) < np.repeat(rng.uniform(0.2, 1, 40), 20))
        second = np.tile(np.arange(20) >= 10, 40)
        liked = (rng.random(800) < taste[user] - 0.1 * second).astype(float)
        found = difference_of_rates(liked, user, first, second, method="made")
        assert found.low is not None
        assert found.high is not None
        covered.append(found.low <= 0.1 <= found.high)
    assert abs(np.mean(covered) - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 1_000)


def test_too_few_users_decide_nothing() -> None:
    liked, user = np.tile([1.0, 0.0], 19), np.repeat(np.arange(19), 2)
    part = np.tile([True, False], 19)
    assert difference_of_rates(liked, user, part, ~part, method="made").withheld is not None
    assert difference_of_rates(liked, user, part, part & False, method="made").withheld is not None


def test_coats_that_people_chose_are_liked_more_than_random_ones() -> None:
    if check_dataset("coat").folder is None:
        pytest.skip("coat is in no folder of WINDTUNNEL_DATA")
    card = data_card(load_dataset(DataSettings(source="coat"), Path()))
    chosen = dict(card.selection)["chosen against random items"]
    assert chosen.value == pytest.approx(0.2751 - 0.1853, abs=1e-3)
    assert chosen.low is not None
    assert chosen.low > 0.05
    assert chosen.n == 290
    assert card.random_rows == 4_640
    sizes = {one.group: one.users for one in card.groups if one.attribute == "gender"}
    assert sizes == {"men": 162, "women": 128}


# ------------------------------------------------------------------------------------------------- what is identified


def questions_of(**more: Any) -> dict[str, str]:
    user, item = np.repeat(np.arange(20), 5), np.tile(np.arange(5), 20)
    return answers(data_card(log_of(user, item, item % 2, **more)))


def test_ratings_without_times_identify_nothing_but_liking_what_was_chosen() -> None:
    found = questions_of(exposure="self-selected")
    assert found.pop("liking, given that an item was consumed") == "in part"
    assert set(found.values()) == {"no"}


@pytest.mark.parametrize(
    ("more", "about", "answer"),
    [
        ({"position": np.tile(np.arange(5), 20), "self_selected": False}, "examination by position", "yes"),
        ({"position": np.tile(np.arange(5), 20), "exposure": "unlogged policy"}, "examination by position", "in part"),
        ({"position": np.zeros(100, np.int64), "self_selected": False}, "examination by position", "no"),
        ({"impression": np.repeat(np.arange(20), 5)}, "what was offered", "yes"),
        ({"session": np.repeat(np.arange(20), 5)}, "leaving and returning", "in part"),
        ({"time": np.arange(100.0) * 3_600}, "leaving and returning", "in part"),
        ({"time": np.zeros(100)}, "leaving and returning", "no"),
        ({"time": np.arange(100.0) * 3_600}, "order, drift and satiation", "in part"),
        ({"time": np.zeros(100)}, "order, drift and satiation", "in part"),
        ({"propensity": np.full(100, 0.2), "self_selected": False},
         "value of another policy from the log's own rows", "yes"),
        ({"propensity": np.full(100, 0.2), "exposure": "self-selected"},
         "value of another policy from the log's own rows", "in part"),
        ({"exposure": "uniformly random", "self_selected": False}, "liking of any item", "yes"),
        ({"propensity": np.full(100, 0.2), "self_selected": False}, "liking of any item", "in part"),
        ({"random": RandomRows(np.arange(20), np.arange(20) % 5, (np.arange(20) % 2).astype(np.float32))},
         "liking of any item", "yes"),
    ],
)  # fmt: skip
def test_what_is_logged_decides_what_is_identified(more: dict[str, Any], about: str, answer: str) -> None:
    more = {"self_selected": True, **more}
    assert questions_of(**more)[about] == answer


# ------------------------------------------------------------------------------------------------- in the report


@pytest.mark.parametrize("time", [np.zeros(0), np.arange(100.0) * 3_600, np.zeros(100)])
def test_no_log_identifies_drift_or_satiation_for_nothing_fits_them(time: np.ndarray) -> None:
    user, item = np.repeat(np.arange(10), 10), np.tile(np.arange(10), 10)
    questions = data_card(log_of(user, item, item % 2, **({"time": time} if len(time) else {}))).questions
    (found,) = [one for one in questions if one.about == "order, drift and satiation"]
    assert found.answer == ("in part" if len(time) else "no")
    assert "drift, satiation and boredom are never fitted" in found.why


def test_the_card_is_json_the_report_takes_it_and_the_page_and_the_text_show_it() -> None:
    log = made(stream(ROOT, "report"), choosing=1.0)
    groups = np.where(np.arange(log.catalogue.n_users) % 2, "<b>a", "b")
    log = replace(log, catalogue=replace(log.catalogue, user_attributes={"side": groups}), limits=("no <i>times</i>",))
    content = data_card(log).to_json()
    held = DataCardModel.model_validate(json.loads(json.dumps(content)))
    assert held.model_dump(mode="json")["questions"] == content["questions"]
    report = example_report()
    report = report.model_copy(update={"data": report.data.model_copy(update={"holds": held})})
    page = render_page(report)
    assert "What the log can tell" in page
    assert "No impressions are logged, no sessions, no positions, no propensities." in page
    spread = content["rows_per_user"] | {"least": 0.0125, "most": 0.5}
    more = {"impressions": 1200, "sessions": 340, "positions": 4, "propensity": spread, "random_rows": 56}
    shown = DataCardModel.model_validate(json.loads(json.dumps(content | more)))
    told = render_page(report.model_copy(update={"data": report.data.model_copy(update={"holds": shown})}))
    for words in (
        "1,200 impressions are logged, 340 sessions, positions from 1 to 5",
        "propensities from 0.0125 to 0.5",
        "56 rows are of items drawn uniformly at random",
    ):
        assert words in told
    assert "popular against rare items" in page
    assert "side: &lt;b&gt;a" in page
    assert "no &lt;i&gt;times&lt;/i&gt;" in page
    alone = to_text(summary(report.model_copy(update={"agents": []})), 100)
    assert "not identified: liking of any item, what was offered" in " ".join(alone.split())
