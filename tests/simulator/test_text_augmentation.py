"""Rewording keeps what it must, and every word that may come in is announced."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from simulator.encoders.augmentation import Augmenter, build_augmenter, read_synonyms, synonyms_by_embedding
from simulator.encoders.settings import RobustnessSettings
from simulator.encoders.text import load_encoder
from simulator.errors import InputError
from tests.simulator.tiny_bert import tiny_bert

TEXT = "the quiet war of lost money"


def reworded(text: str, **settings: Any) -> list[str]:
    augmenter = Augmenter(RobustnessSettings(**settings), {"lost": ("stolen", "gone")}, {TEXT: "money that was lost"})
    return [augmenter.reword(text, np.random.default_rng(k)) for k in range(40)]


def test_a_deletion_leaves_words_out_in_order_and_never_all_of_them() -> None:
    for text in reworded(TEXT, augmentation=("deletion",), changed=0.3):
        left = iter(TEXT.split())
        assert len(text.split()) == 4
        assert all(word in left for word in text.split())
    assert set(reworded("war", augmentation=("deletion",))) == {"war"}
    assert {len(text.split()) for text in reworded("lost war", augmentation=("deletion",), changed=0.9)} == {1}


def test_a_swap_changes_the_order_and_no_word() -> None:
    made = reworded(TEXT, augmentation=("swap",))
    assert all(Counter(text.split()) == Counter(TEXT.split()) for text in made)
    assert sum(text != TEXT for text in made) == len(made)


def test_a_synonym_stands_in_for_a_word_that_has_one() -> None:
    assert set(reworded(TEXT, augmentation=("synonym",))) == {
        "the quiet war of stolen money", "the quiet war of gone money",
    }  # fmt: skip
    assert set(reworded("the quiet war", augmentation=("synonym",))) == {"the quiet war"}


def test_a_text_without_blanks_is_taken_by_characters() -> None:
    for text in reworded("股票大涨", augmentation=("swap",)):
        assert sorted(text) == sorted("股票大涨")


def test_a_translation_is_the_one_that_was_made_and_others_stay() -> None:
    assert set(reworded(TEXT, augmentation=("back_translation",), back_translation=("a", "b"))) == {
        "money that was lost"
    }
    assert set(reworded("war", augmentation=("back_translation",), back_translation=("a", "b"))) == {"war"}


def test_every_word_that_may_come_in_is_announced() -> None:
    augmenter = Augmenter(RobustnessSettings(augmentation=("synonym",)), {"lost": ("stolen",)}, {"a": "b c"})
    assert augmenter.words() == ["b c", "stolen"]


def test_a_file_of_synonyms_is_read_and_its_faults_are_named(tmp_path: Path) -> None:
    (tmp_path / "good.tsv").write_text("Lost\tstolen\tgone\n\nwar\tbattle\n", encoding="utf-8")
    assert read_synonyms(tmp_path / "good.tsv", "good.tsv") == {"lost": ("stolen", "gone"), "war": ("battle",)}
    (tmp_path / "bad.tsv").write_text("lost\tstolen\nwar\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"'bad\.tsv' line 2 has no synonym"):
        read_synonyms(tmp_path / "bad.tsv", "bad.tsv")
    with pytest.raises(InputError, match=r"'none\.tsv' cannot be read"):
        read_synonyms(tmp_path / "none.tsv", "none.tsv")


def test_neighbours_in_the_embedding_table_are_synonyms(tmp_path: Path) -> None:
    """The table is made so that war and battle lie together, lost and stolen too."""
    tokenizer, model = load_encoder(str(tiny_bert(tmp_path / "bert")))
    table = np.random.default_rng(0).normal(size=(len(tokenizer), 32)).astype(np.float32)
    for word, other in (("war", "battle"), ("lost", "stolen")):
        a, b = tokenizer.convert_tokens_to_ids([word, other])
        table[b] = table[a] + 0.1
    found = synonyms_by_embedding(["war battle lost", "stolen money card"], tokenizer, table)
    assert found["war"] == ("battle",)
    assert found["stolen"] == ("lost",)
    assert "money" not in found
    built = build_augmenter(RobustnessSettings(augmentation=("synonym",)), [TEXT], tokenizer, model, Path())
    assert built is not None
    assert build_augmenter(RobustnessSettings(), [TEXT], tokenizer, model, Path()) is None


def test_back_translation_goes_through_the_folders_that_the_user_names(tmp_path: Path) -> None:
    """A translation model of random weights: its words mean nothing, but they are its own and always the same."""
    import transformers

    tokenizer, model = load_encoder(str(tiny_bert(tmp_path / "bert")))
    config = transformers.BartConfig(
        vocab_size=len(tokenizer), d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=160, pad_token_id=0,
        bos_token_id=2, eos_token_id=3, decoder_start_token_id=2, forced_eos_token_id=3, init_std=1.0,
    )  # fmt: skip
    transformers.BartForConditionalGeneration(config).save_pretrained(tmp_path / "there")
    tokenizer.save_pretrained(tmp_path / "there")
    settings = RobustnessSettings(augmentation=("back_translation",), back_translation=("there", "there"))
    augmenters = [build_augmenter(settings, [TEXT, "war"], tokenizer, model, tmp_path) for _ in range(2)]
    assert augmenters[0] is not None
    assert augmenters[1] is not None
    assert set(augmenters[0].translated) == {TEXT, "war"}
    assert augmenters[0].translated == augmenters[1].translated
    with pytest.raises(InputError, match="back_translation: 'nowhere' cannot be loaded"):
        build_augmenter(
            settings.model_copy(update={"back_translation": ("nowhere", "there")}), [TEXT], tokenizer, model, tmp_path
        )


def test_back_translation_without_models_says_what_is_missing() -> None:
    with pytest.raises(ValidationError, match=r"give back_translation: \[there, back\]"):
        RobustnessSettings(augmentation=("back_translation",))
