"""Pretraining on a log's own texts: hidden words are guessed, texts liked together come close, `own` needs no other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from simulator.encoders import encode_texts, encoder_for
from simulator.encoders.pretraining import WordHead, liked_together, pretrain
from simulator.encoders.settings import OwnEncoderSettings, PretrainingSettings, TuningSettings
from simulator.encoders.text import encode_with, load_encoder
from simulator.encoders.tuning import TunableEncoder, one_thread
from simulator.errors import InputError
from tests.simulator.tiny_bert import tiny_bert

TEXTS = [f"{a} {b} {k}" for k in range(10) for a, b in (("love", "story"), ("war", "battle"), ("lost", "card"))]
QUICK = PretrainingSettings(epochs=8, batch_items=10, learning_rate=3e-3)
SMALL = OwnEncoderSettings(vocabulary=60, width=32, layers=1, epochs=6, batch_items=10, learning_rate=3e-3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_bert(tmp_path_factory.mktemp("tiny") / "bert"))


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with one_thread(4):
        yield


@pytest.mark.parametrize("layers", [None, 1])
def test_hidden_words_are_guessed_better_from_pass_to_pass(folder: str, layers: int | None) -> None:
    """A word's partner stands beside it: from log(pieces) = 2.8 down to where a guess is mostly right."""
    settings = QUICK.model_copy(update={"layers": layers})
    _, losses = pretrain(
        *load_encoder(folder), "tiny", TEXTS, settings, np.random.default_rng(1), positives=None, max_tokens=16
    )
    assert len(losses) == QUICK.epochs
    assert losses[-1] < losses[0] - 0.3


def test_hidden_tokens_are_the_asked_share_and_never_special(folder: str) -> None:
    tokenizer, model = load_encoder(folder)
    long = [" ".join(["war battle love story"] * 5)] * 20
    encoder = TunableEncoder(long, tokenizer, model, "tiny", "full", TuningSettings(), 1)
    head = WordHead(encoder, tokenizer, PretrainingSettings(masked=0.3))
    shown, _ = head.hide(np.arange(20), np.random.default_rng(0))
    changed = [
        [(a, b) for a, b in zip(now, was, strict=True) if a != b] for now, was in zip(shown, encoder.ids, strict=True)
    ]
    special = set(tokenizer.all_special_ids)
    assert all(b not in special for row in changed for _, b in row)
    masked = sum(a == tokenizer.mask_token_id for row in changed for a, _ in row)
    assert masked == pytest.approx(20 * 6 * 0.8, abs=12)
    assert masked < sum(len(row) for row in changed) <= 20 * 6


def test_texts_that_are_liked_together_come_close(folder: str) -> None:
    """Love stories are liked with wars, which share no word; a lost card with neither."""
    kind = np.arange(len(TEXTS)) % 3

    def positives(part: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        swapped = np.where(kind[part] == 0, 1, np.where(kind[part] == 1, 0, 2))
        return 3 * rng.integers(0, 10, len(part)) + swapped

    def gap(vectors: np.ndarray) -> float:
        love, war, card = (vectors[kind == k].mean(0) for k in range(3))
        return float(love @ war - love @ card)

    tokenizer, model = load_encoder(folder)
    longer = QUICK.model_copy(update={"epochs": 30, "batch_items": 5})
    before = gap(encode_with(tokenizer, model, TEXTS, 16))
    model, losses = pretrain(
        tokenizer, model, "tiny", TEXTS, longer, np.random.default_rng(1), positives=positives, max_tokens=16
    )
    assert gap(encode_with(tokenizer, model, TEXTS, 16)) > before + 0.1
    assert losses[-1] < losses[0]


def test_a_positive_is_drawn_from_what_the_same_users_liked() -> None:
    """Users 0 and 1 liked texts 0 and 1; user 2 liked 2 and disliked 0; text 3 nobody met."""
    draw = liked_together(
        np.array([0, 2, 4, 6]), np.array([0, 1, 0, 1, 2, 0]), np.array([True, True, True, True, True, False]), 4
    )
    for seed in range(5):
        assert draw(np.arange(4), np.random.default_rng(seed)).tolist() == [1, 0, 2, 3]


def test_a_text_liked_with_many_is_drawn_less_for_its_popularity() -> None:
    """Text 1 was liked with 0 as often as text 2 was, but by everybody else too."""
    start, text = [0], []
    for liked in [(0, 1), (0, 2), *[(1, 3)] * 20]:
        text += liked
        start.append(len(text))
    draw = liked_together(np.array(start), np.array(text), np.ones(len(text), bool), 4)
    rng = np.random.default_rng(0)
    found = np.array([draw(np.array([0]), rng)[0] for _ in range(300)])
    assert 1.5 < (found == 2).sum() / (found == 1).sum() < 6


def test_own_is_trained_once_and_is_the_same_from_the_same_seed(tmp_path: Path) -> None:
    root = np.random.SeedSequence(3)
    made = [
        encoder_for("own", TEXTS, tmp_path, cache=tmp_path / where, own=SMALL, root=root) for where in ("a", "b", "a")
    ]
    assert made[0] == made[2]
    vectors = [encode_texts(TEXTS, path, cache=None) for path in made]
    assert np.array_equal(vectors[0], vectors[1])
    other = encoder_for("own", TEXTS, tmp_path, cache=tmp_path, own=SMALL, root=np.random.SeedSequence(4))
    assert not np.array_equal(vectors[0], encode_texts(TEXTS, other, cache=None))
    assert list((tmp_path / "a" / "encoders").iterdir()) == [Path(made[0])]


def test_own_reads_a_language_that_no_other_encoder_was_taught(tmp_path: Path) -> None:
    """Chinese titles of two kinds: those of a kind lie nearer to each other, and no character is unknown."""
    texts = [f"{a}{b}{k}年" for k in range(12) for a, b in (("股票", "大涨"), ("球队", "夺冠"))]
    path = encoder_for("own", texts, tmp_path, cache=tmp_path, own=SMALL)
    tokenizer, _ = load_encoder(path)
    assert not any(tokenizer.unk_token_id in ids for ids in tokenizer(texts)["input_ids"])
    vectors = encode_texts(texts, path, cache=None)
    cosine = vectors @ vectors.T
    same = np.equal.outer(np.arange(24) % 2, np.arange(24) % 2)
    assert cosine[same].mean() > cosine[~same].mean() + 0.01


def test_too_few_texts_to_train_an_encoder_on_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'own' has 3 distinct texts to be trained on, and 20 are the least"):
        encoder_for("own", ["a", "b", "c", "a"], tmp_path, cache=tmp_path)
