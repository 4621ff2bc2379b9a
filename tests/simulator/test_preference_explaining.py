"""Attributions are whole: they sum to the difference of the scores, and a row that says nothing gets nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from simulator.encoders import encode_texts, resolve_encoder
from simulator.encoders.settings import PretrainingSettings, RobustnessSettings
from simulator.encoders.text import load_encoder, mean_pool
from simulator.log import WORLD_A, Catalogue, Histories, InteractionLog, SearchRows, split_users
from simulator.preference import (
    Member,
    PreferenceModel,
    PreferenceSettings,
    TuningSettings,
    fine_tune,
    fit_preference,
)
from simulator.preference.explaining import TextScore, WordEncoder, examples, explain, kept_encoder, words_of
from simulator.preference.model import ItemMap
from simulator.preference.searching import queries_of
from simulator.preference.settings import SearchSettings
from tests.simulator.tiny_bert import tiny_bert

pytest.importorskip("captum")

N_ITEMS, WIDTH, DIM = 8, 384, 3
TEXTS = ("A quiet, love-story!", "", *(f"film {k}: murder and detectives" for k in range(N_ITEMS - 2)))


def catalogue(features: int) -> Catalogue:
    return Catalogue(
        tuple(f"i{k}" for k in range(N_ITEMS)), TEXTS, np.zeros((N_ITEMS, 0), np.float32), (), ("u0",),
        np.ones((1, features), np.float32), tuple(f"f{k}" for k in range(features)),
    )  # fmt: skip


def model(rng: np.random.Generator, vectors: np.ndarray | None = None) -> PreferenceModel:
    """Two members of random weights; item 7 has a vector of nothing."""

    def one() -> Member:
        item_map = ItemMap(rng.normal(size=(WIDTH, DIM)).astype(np.float32), np.ones(WIDTH, np.float32), 0.0, 0.0)
        item_vectors = rng.normal(size=(N_ITEMS, DIM)).astype(np.float32)
        item_vectors[7] = 0
        precision = np.array([1e9, 1, 1, 1], np.float32)  # so that nothing but taste speaks
        return Member(
            item_vectors, rng.normal(size=N_ITEMS).astype(np.float32), np.ones(1, np.float32), precision, 2, item_map
        )

    nobody = np.zeros(0, np.int64)
    return PreferenceModel.assemble(
        "two_tower", (one(), one()), slope=0.8, intercept=0.1, fitted_users=nobody, tuning_users=nobody,
        seen=np.zeros(0, np.uint64), measures={},
    )  # fmt: skip


def test_what_the_history_added_sums_to_the_score_without_it(rng: np.random.Generator) -> None:
    past = Histories(np.array([0, 6]), np.array([0, 2, 3, 7, 4, 5]), np.array([1, 0, 1, 1, 0, 1], np.float32))
    found = explain(model(rng), catalogue(1), past, 0, 6)
    assert found.history.sum() == pytest.approx(found.logit - found.without_history, abs=1e-4)
    assert np.abs(found.history).max() > 0.05
    assert found.history[3] == pytest.approx(0, abs=1e-6)  # item 7 tells nothing of a taste
    assert found.word is None


def test_a_row_added_alone_moves_the_score_by_what_it_is_said_to(rng: np.random.Generator) -> None:
    some, items = model(rng), catalogue(1)
    one = Histories(np.array([0, 1]), np.array([2]), np.ones(1, np.float32))
    found = explain(some, items, one, 0, 3)
    nothing = Histories(np.array([0, 0]), np.zeros(0, np.int64), np.zeros(0, np.float32))
    bare = explain(some, items, nothing, 0, 3)
    assert len(bare.history) == 0
    assert bare.logit == bare.without_history
    assert found.history[0] == pytest.approx(found.logit - bare.logit, abs=1e-5)


def test_words_sum_to_the_score_without_them_and_are_named_in_the_text(rng: np.random.Generator) -> None:
    encoder = resolve_encoder("minilm", Path())
    vectors = encode_texts(TEXTS, encoder, cache=None)
    tokenizer, loaded = load_encoder(encoder)

    def last_hidden(tokens: torch.Tensor, mask: torch.Tensor) -> Any:
        return loaded(input_ids=tokens, attention_mask=mask).last_hidden_state

    text = TextScore(WordEncoder(tokenizer, loaded.get_input_embeddings(), last_hidden), vectors, 1.0, 64)
    past = Histories(np.array([0, 2]), np.array([2, 3]), np.array([1, 0], np.float32))
    some = model(rng)
    found = explain(some, catalogue(1), past, 0, 0, text=text)
    assert found.words == ("A", "quiet", "love", "story")
    assert found.word is not None
    assert found.without_words is not None
    assert found.word.sum() == pytest.approx(found.logit - found.without_words, abs=2e-3)
    assert abs(found.logit - found.without_words) > 0.05
    told = found.as_text({"i0": "'A quiet, love-story!'"}, most=2)
    assert told.startswith("user u0, 'A quiet, love-story!': probability 0.")
    assert "history (" in told
    assert "words: " in told
    assert explain(some, catalogue(1), past, 0, 1, text=text).word is None  # an item without text


@pytest.mark.parametrize(
    ("text", "pieces", "words"),
    [
        (
            "Murder, he wrote; a film",  # as BERT cuts it, with marks at the ends
            [(None, 0, 0), (0, 0, 4), (0, 4, 6), (1, 6, 7), (2, 8, 10), (3, 11, 16), (4, 16, 17), (5, 18, 19),
             (6, 20, 24), (None, 0, 0)],
            ("Murder", "he", "wrote", "a", "film"),
        ),
        (
            "quiet loves, x",  # as e5's tokenizer does: "query:" stands before the text, a blank before each word
            [(None, 0, 0), (0, 0, 1), (0, 0, 1), (1, 0, 5), (2, 5, 6), (2, 6, 10), (2, 10, 11), (2, 11, 12),
             (3, 12, 14)],
            ("quiet", "loves", "x"),
        ),
        (
            "我爱你\uff0c love",  # one word to e5's tokenizer, and a blank that stands where the first character does
            [(0, 0, 1), (1, 0, 1), (1, 0, 1), (1, 1, 3), (1, 3, 4), (2, 4, 5), (2, 5, 9)],
            ("我", "爱你", "love"),
        ),
        ("?!", [(None, 0, 0), (0, 0, 1), (1, 1, 2), (None, 0, 0)], ("?!",)),
    ],
)  # fmt: skip
def test_words_are_the_text_s_own_without_punctuation_and_marks(
    text: str, pieces: list[tuple[int | None, int, int]], words: tuple[str, ...]
) -> None:
    found, of = words_of(text, [piece[1:] for piece in pieces], [piece[0] for piece in pieces])
    assert found == words
    of_a_word = [text[low:high] for (_, low, high), one in zip(pieces, of, strict=True) if one >= 0]
    assert set("".join(words)) <= set("".join(of_a_word))
    assert not {",", "\uff0c", ";"} & set("".join(of_a_word))


@pytest.mark.parametrize(
    "changed",
    [
        {"adaptation": "top_layers"},
        {"adaptation": "lora"},
        {"adaptation": "full", "robustness": RobustnessSettings(augmentation=("deletion", "synonym"))},
        {"adaptation": "adapter", "pretraining": "masked_language"},
        {"adaptation": "full", "search": SearchSettings()},
    ],
    ids=lambda changed: (
        "-".join(str(value) for value in changed.values() if isinstance(value, str)) + "-search" * ("search" in changed)
    ),
)
def test_the_encoder_that_was_kept_is_put_together_again(changed: dict[str, Any], tmp_path: Path) -> None:
    """Its vectors of the texts are the tower's own, which the published encoder's are not; words sum to the score."""
    tiny_bert(tmp_path / "tiny")
    log = genre_log()
    split, root = split_users(log, np.random.SeedSequence(2)), np.random.SeedSequence(2)
    tuning = TuningSettings(epochs=1, learning_rate=3e-3, top_layers=1, batch_items=8)
    settings = PreferenceSettings(
        encoder="tiny", members=1, dims=(2,), epochs=1, tuning=tuning, domain=PretrainingSettings(epochs=1), **changed
    )
    tower = fine_tune(log, split, WORLD_A, settings, root, folder=tmp_path)
    assert tower.chosen == "fine-tuned"
    texts = log.catalogue.item_text
    made = str(tmp_path / "tiny")
    encoder = kept_encoder(tower, texts, made, settings, tmp_path, queries=queries_of(log, settings))
    encoded = encoder.tokenizer(list(texts), padding=True, return_tensors="pt")
    with torch.no_grad():
        ids, mask = encoded["input_ids"], encoded["attention_mask"]
        vectors = mean_pool(encoder.last_hidden(ids, mask), mask).numpy()
    assert vectors == pytest.approx(tower.vectors, abs=2e-6)
    assert np.abs(encode_texts(texts, made, cache=None) - tower.vectors).max() > 2e-5
    model = fit_preference(log, split, WORLD_A, tower, settings, root)
    user = int(split.users(WORLD_A)[0])
    found = explain(
        model, log.catalogue, split.histories(log, np.array([user])), user, 0,
        text=TextScore(encoder, tower.vectors, 1.0, settings.max_tokens),
    )  # fmt: skip
    assert found.word is not None
    assert found.without_words is not None
    assert found.word.sum() == pytest.approx(found.logit - found.without_words, abs=5e-3)
    assert "words: " in examples(model, log, split, WORLD_A, tower, settings, root, folder=tmp_path)[0]


def genre_log() -> InteractionLog:
    """Films of two genres that their texts name; every user likes one of the two."""
    rng = np.random.default_rng(3)
    n_users, n_items, rows = 60, 24, 16
    texts = tuple(("quiet love story ", "war battle money ")[k % 2] + str(k // 2 % 10) for k in range(n_items))
    items = Catalogue(
        tuple(f"i{k}" for k in range(n_items)), texts, np.zeros((n_items, 0), np.float32), (),
        tuple(f"u{k}" for k in range(n_users)), np.zeros((n_users, 0), np.float32), (),
    )  # fmt: skip
    item = np.concatenate([rng.choice(n_items, rows, replace=False) for _ in range(n_users)])
    user = np.repeat(np.arange(n_users), rows)
    liked = (rng.random(len(user)) < np.where(item % 2 == user % 2, 0.9, 0.1)).astype(np.float32)
    # Asked for in words that no film's text has: the word pieces that training met are more than the films'.
    asked = SearchRows(("funny animals", "stolen card"), np.arange(n_items) % 2, np.arange(n_items), np.ones(n_items))
    time = np.tile(np.arange(rows, dtype=float), n_users)
    return InteractionLog(user, item, time, liked, items, "genres", searches=asked)
