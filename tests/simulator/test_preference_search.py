"""Joint search and recommendation: the loss by hand; what queries say of late items helps, and noise does not harm."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from simulator.datasets import DataSettings, load_dataset
from simulator.errors import InputError, LogError
from simulator.log import HELD_OUT, WORLD_A, Catalogue, InteractionLog, SearchRows, split_users
from simulator.preference import PreferenceModel, PreferenceSettings, TextTower, fit_preference
from simulator.preference.problem import Problem, Searches, build_problem
from simulator.preference.searching import with_searches
from simulator.preference.settings import SearchSettings

torch = pytest.importorskip("torch")

N_USERS, N_ITEMS, N_WORDS, N_QUERIES, ROWS = 400, 160, 16, 400, 50
QUICK = PreferenceSettings(members=1, dims=(8,), epochs=30, patience=5, vector_penalty=5)


class WordWorld:
    """Items are three words, of which the title is one; a query is two of them. Users like words; p [U, I] is known.

    Half of the items are there from the start, and others enter all along. Of late ones hardly a row is there to fit:
    their titles say a third of what they are.
    """

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        taste, word = rng.normal(size=(N_USERS, 2)), rng.normal(size=(N_WORDS, 2))
        words = np.stack([rng.choice(N_WORDS, 3, replace=False) for _ in range(N_ITEMS)])
        vector = word[words].sum(1)
        self.p = 1 / (1 + np.exp(-0.67 * taste @ (vector - vector.mean(0)).T))
        enters = np.maximum(np.linspace(-1, 1, N_ITEMS), 0)
        self.late = enters > 0.85
        text = rng.normal(size=(N_WORDS, 16))
        text /= np.linalg.norm(text, axis=1, keepdims=True)
        user = np.repeat(np.arange(N_USERS), ROWS)
        item = np.concatenate([rng.choice(N_ITEMS, ROWS, replace=False) for _ in range(N_USERS)])
        time = rng.uniform(enters[item], 1)
        order = np.lexsort((time, user))
        item, time = item[order], time[order]
        liked = (rng.random(len(user)) < self.p[user, item]).astype(np.float32)
        answered = rng.integers(0, N_ITEMS, N_QUERIES)
        asked = np.stack([rng.choice(words[i], 2, replace=False) for i in answered])
        # Words without an encoder: a text's vector is the mean of its words'.
        self.tower = TextTower(
            text[words[:, 0]].astype(np.float32), "pretrained", queries=text[asked].mean(1).astype(np.float32)
        )
        catalogue = Catalogue(
            tuple(f"i{k}" for k in range(N_ITEMS)), ("title",) * N_ITEMS, np.zeros((N_ITEMS, 0), np.float32), (),
            tuple(f"u{k}" for k in range(N_USERS)), np.zeros((N_USERS, 0), np.float32), (),
        )  # fmt: skip
        names = tuple(f"q{k}" for k in range(N_QUERIES))
        self.log = InteractionLog(
            user, item, time, liked, catalogue, "words",
            searches=SearchRows(names, np.arange(N_QUERIES), answered, np.ones(N_QUERIES)),
        )  # fmt: skip
        self.root = np.random.SeedSequence(seed)
        self.split = split_users(self.log, self.root)

    def shuffled(self) -> InteractionLog:
        """The log with queries that say nothing: each answered by any item."""
        rows = self.log.searches
        assert rows is not None
        return replace(self.log, searches=replace(rows, item=np.random.default_rng(9).permutation(rows.item)))

    def fit(self, log: InteractionLog, search: SearchSettings | None) -> PreferenceModel:
        settings = QUICK.model_copy(update={"search": search})
        return fit_preference(log, self.split, WORLD_A, self.tower, settings, self.root)

    def loss(self, model: PreferenceModel) -> tuple[float, float]:
        """Expected log-loss above the truth's own, over held-out users and late items, and over all others."""
        users = self.split.users(HELD_OUT)
        states = model.user_states(
            self.split.histories(self.log, users), self.log.catalogue.user_features[users]
        )  # fmt: skip
        logit = (states.vector @ model.item_vectors.T + states.bias[:, None] + model.item_bias).astype(np.float64)
        truth = self.p[users]
        each = np.logaddexp(0, logit) - truth * logit + truth * np.log(truth) + (1 - truth) * np.log(1 - truth)
        return float(each[:, self.late].mean()), float(each[:, ~self.late].mean())


@pytest.mark.slow
def test_queries_tell_what_late_items_are_and_do_no_harm_where_they_say_nothing() -> None:
    """Loss above the truth's own over late items, and over the others; means of three worlds."""
    alone, joint, noise = [], [], []
    for seed in range(3):
        world = WordWorld(seed)
        alone.append(world.loss(world.fit(world.log, None)))
        joint.append(world.loss(world.fit(world.log, SearchSettings())))
        noise.append(world.loss(world.fit(world.shuffled(), SearchSettings())))
    late, others = np.mean(joint, axis=0) / np.mean(alone, axis=0)
    assert late < 0.92
    assert others < 1.01
    assert np.max(np.mean(noise, axis=0) / np.mean(alone, axis=0)) < 1.02


def searches() -> Searches:
    """Query 0 is answered by items 0 (grade 3) and 1 (grade 1), item 2 judged not to; query 1 by 1; query 2 by 3."""
    return Searches(
        np.eye(3, dtype=np.float32), np.array([0, 3, 4, 5]), np.array([0, 1, 2, 1, 3]),
        np.array([0.75, 0.25, 0, 1, 1], np.float32),
    )  # fmt: skip


def test_search_loss_of_all_queries_at_once_is_the_softmax_over_what_is_judged_by_hand(
    rng: np.random.Generator,
) -> None:
    from simulator.preference._objectives import SearchObjective

    objective = SearchObjective(searches(), 32, rng)
    queries, items = objective.draw()
    assert sorted(queries) == [0, 1, 2]
    assert list(items) == [0, 1, 2, 3]
    query, item = rng.normal(size=(3, 2)), rng.normal(size=(4, 2))
    score = query @ item.T
    log_share = score - np.log(np.exp(score).sum(1, keepdims=True))
    by_hand = -(0.75 * log_share[0, 0] + 0.25 * log_share[0, 1] + log_share[1, 1] + log_share[2, 3]) / 3
    order = np.array([0, 1, 2])
    found = objective.loss(order, items, objective.scores(order, items, torch.tensor(query), torch.tensor(item)))
    assert float(found) == pytest.approx(by_hand, abs=1e-6)


@pytest.mark.parametrize("most", [None, 2, 1])
def test_an_items_chance_of_being_drawn_is_taken_out(rng: np.random.Generator, most: int | None) -> None:
    """Over many draws of two queries of three, the sampled sums of exp(score) have the mean of the whole sum.

    So have the shares of relevance, where of query 0 two of its three items are drawn, or one with a grade. The whole
    sum is then without item 2, which is judged for no other query.
    """
    from simulator.preference._objectives import SearchObjective

    objective = SearchObjective(searches(), 2, rng, most)
    query, item = rng.normal(size=(3, 2)), rng.normal(size=(4, 2))
    whole = np.exp(query[0] @ item.T)[[0, 1, 3] if most == 1 else slice(None)].sum()
    sums, shares, drawn = [], [], []
    for _ in range(1500):
        queries, items = objective.draw()
        if 0 in queries:
            score = objective.scores(
                queries, items, torch.tensor(query[queries]), torch.tensor(item[items])
            ).numpy()  # fmt: skip
            sums.append(np.exp(score[list(queries).index(0)]).sum())
            shares.append(objective.target[:2] * np.isin([0, 1], items))
            drawn.append(np.isin([0, 1, 2], items).sum())
            loss = objective.loss(queries, items, torch.zeros(2, len(items)))
            assert float(loss) == pytest.approx(np.log(len(items)))  # grades of what was drawn sum to 1
    assert np.mean(sums) == pytest.approx(whole, rel=0.08)
    assert np.std(sums) > 0.1 * whole
    assert np.mean(shares, axis=0) == pytest.approx([0.75, 0.25], abs=0.05)
    assert min(drawn) == (3 if most is None else most)


@pytest.fixture(scope="module")
def small() -> tuple[InteractionLog, Problem]:
    """Users who meet five of six items, and two queries."""
    rng, n = np.random.default_rng(4), 120
    worth = np.array([0.1, 0.2, 0.3, 0.7, 0.8, 0.9])
    user, item = np.repeat(np.arange(n), 5), np.concatenate([rng.permutation(6)[:5] for _ in range(n)])
    catalogue = Catalogue(
        tuple(f"i{k}" for k in range(6)), ("",) * 6, np.zeros((6, 0), np.float32), (),
        tuple(f"u{k}" for k in range(n)), np.zeros((n, 0), np.float32), (),
    )  # fmt: skip
    rows = SearchRows(("red shoes", "blue hat"), np.array([1, 0, 0]), np.array([5, 2, 4]), np.array([2.0, 1.0, 3.0]))
    log = InteractionLog(
        user, item, np.full(len(user), np.nan), (rng.random(len(user)) < worth[item]).astype(np.float32), catalogue,
        "few", searches=rows,
    )  # fmt: skip
    return log, build_problem(log, split_users(log, np.random.SeedSequence(1)), WORLD_A)


def test_grades_of_a_query_become_shares(small: tuple[InteractionLog, Problem]) -> None:
    log, problem = small
    found = with_searches(problem, log, np.eye(2, dtype=np.float32)).searches
    assert found is not None
    assert list(found.start) == [0, 2, 3]
    assert list(found.item) == [2, 4, 5]
    assert found.target == pytest.approx([0.25, 0.75, 1])


def test_without_queries_a_joint_fit_is_refused_in_one_line(small: tuple[InteractionLog, Problem]) -> None:
    log = replace(small[0], searches=None)
    settings = QUICK.model_copy(update={"search": SearchSettings()})
    tower = TextTower(np.zeros((6, 0), np.float32), "ids only")
    with pytest.raises(InputError, match=r"^preference\.search: 'few' has no queries .* data\.queries"):
        fit_preference(
            log, split_users(log, np.random.SeedSequence(1)), WORLD_A, tower, settings, np.random.SeedSequence(1)
        )
    with pytest.raises(ValueError, match="search: has no place in a bias"):
        PreferenceSettings(search=SearchSettings(), architecture="bias")


def written(folder: Path, queries: str) -> DataSettings:
    (folder / "log.csv").write_text("user,item,liked\na,1,1\na,2,0\nb,1,0\nb,2,1\n", encoding="utf-8")
    (folder / "searches.csv").write_text(queries, encoding="utf-8")
    return DataSettings(source="log.csv", positive="liked == 1", queries="searches.csv")


def test_a_file_of_queries_is_read_beside_the_log(tmp_path: Path) -> None:
    settings = written(tmp_path, "query,item,grade\nshoes,2,1\nshoes,2,3\nshoes,1,0\nhat,9,2\ncoat,1,0\n")
    log = load_dataset(settings, tmp_path)
    found: NDArray[np.int64] | SearchRows | None = log.searches
    assert isinstance(found, SearchRows)
    assert found.text == ("shoes",)
    assert [log.catalogue.item_ids[k] for k in found.item] == ["1", "2"]
    assert list(found.grade) == [0, 3]
    assert "1 rows of 'searches.csv' name items that the log lacks" in log.notes
    assert "2 queries of 'searches.csv' that no item answers were left out" in log.notes
    plain = load_dataset(written(tmp_path, "query,item\nshoes,2\n"), tmp_path).searches
    assert plain is not None
    assert list(plain.grade) == [1]


@pytest.mark.parametrize(
    ("queries", "said"),
    [
        ("query,item,grade\nshoes,2,-1\n", r"^data\.queries: line 2 of 'searches\.csv' has the grade -1; give 0"),
        ("query,thing\nshoes,2\n", r"^data\.queries: 'searches\.csv' has no column 'item_id'; map it"),
        ("words,item\nshoes,2\n", r"^data\.queries: 'searches\.csv' has no column 'query'"),
    ],
)
def test_a_file_of_queries_that_cannot_be_used_says_what_to_mend(tmp_path: Path, queries: str, said: str) -> None:
    with pytest.raises(LogError, match=said):
        load_dataset(written(tmp_path, queries), tmp_path)
