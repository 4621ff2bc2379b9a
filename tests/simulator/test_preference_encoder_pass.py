"""The encoder's own pass: rows count as they weigh, and queries of a joint fit come closer to what answers them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simulator.encoders.text import encode_with, load_encoder
from simulator.encoders.tuning import one_thread
from simulator.log import WORLD_A, Catalogue, InteractionLog, SearchRows, split_users
from simulator.preference import PreferenceSettings, TuningSettings, fine_tune, fitting
from simulator.preference.fitting import standardised
from simulator.preference.problem import Problem, build_problem
from simulator.preference.searching import with_searches
from simulator.preference.settings import SearchSettings
from tests.simulator.tiny_bert import tiny_bert

torch = pytest.importorskip("torch")

WORDS = ("love story", "war battle", "funny animals", "murder detectives", "lost money", "stolen card")
N_ITEMS, N_USERS, ROWS = 12, 60, 8
TUNING = TuningSettings(epochs=25, batch_items=8, learning_rate=5e-3, top_layers=1, warm_up=0.0, weight_decay=0.0)
SETTINGS = PreferenceSettings(dims=(4,), tuning=TUNING, adaptation="top_layers", search=SearchSettings())


@pytest.fixture(scope="module")
def log() -> InteractionLog:
    """Items of two words, each searched for by them in other words' company."""
    rng = np.random.default_rng(2)
    user = np.repeat(np.arange(N_USERS), ROWS)
    item = np.concatenate([rng.choice(N_ITEMS, ROWS, replace=False) for _ in range(N_USERS)])
    catalogue = Catalogue(
        tuple(f"i{k}" for k in range(N_ITEMS)), tuple(f"film {k} {WORDS[k % 6]}" for k in range(N_ITEMS)),
        np.zeros((N_ITEMS, 0), np.float32), (), tuple(f"u{k}" for k in range(N_USERS)),
        np.zeros((N_USERS, 0), np.float32), (),
    )  # fmt: skip
    queries = tuple(f"please my {words}" for words in WORDS)
    answers = SearchRows(queries, np.arange(12) % 6, np.arange(12), np.ones(12))
    return InteractionLog(
        user, item, np.full(len(user), np.nan), (item % 2).astype(np.float32), catalogue, "words",
        propensity=np.where(item < 6, 0.1, 0.5), searches=answers,
    )  # fmt: skip


def in_training(
    log: InteractionLog, folder: Path, problem: Problem, settings: PreferenceSettings = SETTINGS
) -> tuple[Any, Any, Any]:
    """An encoder in training, heads with a search tower, and the items' features."""
    from simulator.preference._encoder_tuning import TextInTraining
    from simulator.preference._two_tower import Heads

    tokenizer, model = load_encoder(str(tiny_bert(folder / "tiny")))
    assert log.searches is not None
    texts, asked = log.catalogue.item_text, log.searches.text
    vectors, queries = (encode_with(tokenizer, model, list(some), 16) for some in (texts, asked))
    text, problem = standardised(vectors), with_searches(problem, log, standardised(queries))
    side = np.zeros((N_ITEMS, 0), np.float32)
    tower = TextInTraining(texts, vectors, text, side, tokenizer, model, "tiny", problem, settings, asked, queries)
    heads = Heads(problem, text.shape[1], 4, 0.1, torch.Generator().manual_seed(1))
    return tower, heads, torch.from_numpy(text)


def test_queries_come_closer_to_the_items_that_answer_them(log: InteractionLog, tmp_path: Path) -> None:
    """Rows weigh nothing here, so what the encoder learns it learns of queries; the search tower is held fixed."""
    from simulator.preference._objectives import SearchObjective

    problem = build_problem(log, split_users(log, np.random.SeedSequence(1)), WORLD_A)
    problem = replace(problem, weight=np.zeros(len(problem.rows), np.float32))
    with one_thread(3):
        tower, heads, features = in_training(log, tmp_path, problem)
        with torch.no_grad():  # one map for both, and scores that differ
            heads.search.of_query.copy_(4 * heads.search.of_features)
            heads.search.of_features.mul_(4)
        objective = SearchObjective(tower.problem.searches, 32, np.random.default_rng(0))
        queries, items = np.arange(6), np.arange(N_ITEMS)

        def search_loss(features: Any) -> float:
            asked = torch.from_numpy(tower.query_features()) @ heads.search.of_query
            score = objective.scores(queries, items, asked, heads.search.items(features, torch.arange(N_ITEMS)))
            return float(objective.loss(queries, items, score).detach())

        losses, rng = [search_loss(features)], np.random.default_rng(5)
        for _ in range(TUNING.epochs):
            features = tower.train_pass(heads, features, rng)
            losses.append(search_loss(features))
    assert losses[-1] < losses[0] - 0.3
    assert tower.queries().shape == (6, 32)
    assert np.linalg.norm(tower.queries(), axis=1) == pytest.approx(1, abs=1e-5)


def test_a_query_with_many_answers_makes_no_step_of_many_texts(
    log: InteractionLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = SearchRows(("any film", "film 1"), np.array([*[0] * 12, 1]), np.array([*range(12), 1]), np.ones(13))
    problem = build_problem(log, split_users(log, np.random.SeedSequence(1)), WORLD_A)
    four = SETTINGS.model_copy(update={"tuning": TUNING.model_copy(update={"batch_items": 4})})
    with one_thread(3):
        tower, heads, features = in_training(replace(log, searches=many), tmp_path, problem, four)
        sizes, step = [], tower.training.step

        def watched(part: Any, *rest: Any) -> Any:
            sizes.append(len(part))
            return step(part, *rest)

        monkeypatch.setattr(tower.training, "step", watched)
        before = tower.queries()
        tower.train_pass(heads, features, np.random.default_rng(5))
    assert max(sizes) <= 8
    assert sizes[0] > 2  # queries come first, with some of their items
    assert np.abs(tower.queries() - before).max() > 1e-4


def test_rows_that_weigh_nothing_teach_the_encoder_nothing(log: InteractionLog, tmp_path: Path) -> None:
    problem = build_problem(log, split_users(log, np.random.SeedSequence(1)), WORLD_A)
    moved = {}
    for weight in (0.0, 1.0):
        some = replace(problem, weight=np.full(len(problem.rows), weight, np.float32))
        with one_thread(3):
            tower, heads, features = in_training(log, tmp_path / str(weight), some)
            tower.problem = replace(tower.problem, searches=None)
            before = tower.vectors()
            tower.train_pass(heads, features, np.random.default_rng(5))
            moved[weight] = float(np.abs(tower.vectors() - before).max())
    assert moved[0.0] < 1e-5 < 1e-3 < moved[1.0]


def test_fine_tuning_weighs_rows_as_the_fit_does(
    log: InteractionLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Problem] = []
    monkeypatch.setattr(fitting, "_tune_encoder", lambda log, a, b, c, problem, *rest: seen.append(problem))
    tiny_bert(tmp_path / "tiny")
    settings = SETTINGS.model_copy(update={"encoder": "tiny", "debias": "ips", "search": None})
    root = np.random.SeedSequence(1)
    fine_tune(log, split_users(log, root), WORLD_A, settings, root, folder=tmp_path)
    weight, item = seen[0].weight, seen[0].histories.item
    assert weight is not None
    assert weight[item < 6].mean() / weight[item >= 6].mean() == pytest.approx(5, rel=1e-4)
