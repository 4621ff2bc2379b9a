"""Rewording of training texts: synonyms, words left out, words swapped, and a translation there and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.encoders.settings import RobustnessSettings
from simulator.errors import InputError

NEIGHBOURS = 3
"""Synonyms taken of a word from the embedding table."""
NEAR = 0.4
"""Least cosine at which a neighbour in the embedding table counts as a synonym."""
WITHOUT_BLANKS = "\u0e00"
"""Scripts from here on (Thai, Chinese, Japanese) put no blanks between words."""
TRANSLATED_TOKENS = 128
TRANSLATED_BATCH = 16


class Augmenter:
    """Rewords texts (the first three ways: Wei and Zou, 2019).

    Languages written without blanks are taken character by character.

    Args:
        settings: which ways, and how much of a text changes.
        synonyms: words and what may stand for each.
        translated: texts and their translations there and back.
    """

    def __init__(
        self,
        settings: RobustnessSettings,
        synonyms: Mapping[str, Sequence[str]] | None = None,
        translated: Mapping[str, str] | None = None,
    ) -> None:
        self.settings = settings
        self.synonyms, self.translated = dict(synonyms or {}), dict(translated or {})

    def words(self) -> list[str]:
        """Every text and word that rewording may bring in."""
        return sorted({*(word for several in self.synonyms.values() for word in several), *self.translated.values()})

    def reword(self, text: str, rng: np.random.Generator) -> str:
        """The text in other words, by one of the ways; unchanged where that way has nothing to say."""
        way = self.settings.augmentation[int(rng.integers(len(self.settings.augmentation)))]
        if way == "back_translation":
            return self.translated.get(text, text)
        spelt = " " not in text.strip() and any(letter >= WITHOUT_BLANKS for letter in text)
        gap, words = ("", list(text)) if spelt else (" ", text.split())
        count = max(1, round(self.settings.changed * len(words)))
        if way == "synonym":
            return gap.join(self._by_synonyms(words, count, rng))
        if len(words) < 2:
            return text
        if way == "deletion":
            gone = set(rng.choice(len(words), min(count, len(words) - 1), replace=False).tolist())
            return gap.join(word for k, word in enumerate(words) if k not in gone)
        for _ in range(count):
            a, b = rng.choice(len(words), 2, replace=False)
            words[a], words[b] = words[b], words[a]
        return gap.join(words)

    def _by_synonyms(self, words: list[str], count: int, rng: np.random.Generator) -> list[str]:
        known = [k for k, word in enumerate(words) if word.lower() in self.synonyms]
        if not known:
            return words
        out = list(words)
        for k in rng.choice(known, min(count, len(known)), replace=False):
            several = self.synonyms[words[k].lower()]
            out[k] = several[int(rng.integers(len(several)))]
        return out


def build_augmenter(
    settings: RobustnessSettings, texts: Sequence[str], tokenizer: Any, model: Any, folder: Path
) -> Augmenter | None:
    """What rewords these texts as the settings say; None where they say nothing.

    Args:
        settings: the scenario's `preference.robustness`.
        texts: the training texts.
        tokenizer: the encoder's tokenizer.
        model: the encoder, whose embedding table gives synonyms where no file does.
        folder: folder of the scenario, for relative paths.

    Raises:
        InputError: the file of synonyms or a translation model cannot be read.
    """
    if not settings.augmentation:
        return None
    synonyms: Mapping[str, Sequence[str]] = {}
    if "synonym" in settings.augmentation:
        synonyms = (
            synonyms_by_embedding(texts, tokenizer, model.get_input_embeddings().weight.detach().numpy())
            if settings.synonyms is None
            else read_synonyms(folder / Path(settings.synonyms).expanduser(), settings.synonyms)
        )
    translated: Mapping[str, str] = {}
    if "back_translation" in settings.augmentation and settings.back_translation is not None:
        there, back = ((folder / Path(name).expanduser(), name) for name in settings.back_translation)
        translated = dict(zip(texts, translate(translate(texts, *there), *back), strict=True))
    return Augmenter(settings, synonyms, translated)


def read_synonyms(path: Path, name: str) -> dict[str, tuple[str, ...]]:
    """Words in lower case and their synonyms, from a tab-separated file.

    Raises:
        InputError: there is no such file, or a line has no synonym.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"preference.robustness.synonyms: '{name}' cannot be read ({type(error).__name__}); name a UTF-8 file"
        ) from error
    table = {}
    for number, line in enumerate(lines, 1):
        word, *several = [part.strip() for part in line.split("\t")]
        several = [other for other in several if other]
        if not word and not several:
            continue
        if not word or not several:
            raise InputError(
                f"preference.robustness.synonyms: '{name}' line {number} has no synonym; write a word, a tab, its "
                "synonyms, tabs between them"
            )
        table[word.lower()] = tuple(several)
    return table


def synonyms_by_embedding(
    texts: Sequence[str], tokenizer: Any, table: NDArray[np.float32]
) -> dict[str, tuple[str, ...]]:
    """Words of the texts that are one piece of the encoder, and the nearest such words in its embedding table.

    Args:
        texts: the training texts.
        tokenizer: the encoder's tokenizer.
        table: [pieces, p] its word embeddings.
    """
    words = sorted({word.lower() for text in texts for word in text.split() if word.isalpha() and len(word) > 2})
    pieces = [ids[1] if len(ids) == 3 else -1 for ids in (tokenizer(words)["input_ids"] if words else [])]
    kept = [(word, piece) for word, piece in zip(words, pieces, strict=True) if piece >= 0]
    if len(kept) < 2:
        return {}
    vectors = table[[piece for _, piece in kept]]
    vectors = vectors - vectors.mean(0)
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(min=1e-12)
    found = {}
    for low in range(0, len(kept), 1024):
        near = vectors[low : low + 1024] @ vectors.T
        near[np.arange(len(near)), np.arange(low, low + len(near))] = -1.0
        nearest = np.argsort(-near, axis=1)[:, :NEIGHBOURS]
        for row, several in enumerate(nearest):
            close = tuple(kept[k][0] for k in several if near[row, k] >= NEAR)
            if close:
                found[kept[low + row][0]] = close
    return found


def translate(texts: Sequence[str], path: Path, name: str) -> list[str]:
    """Texts through a translation model in a folder, greedily.

    Raises:
        InputError: transformers cannot read the folder as such a model.
    """
    import torch
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(path), local_files_only=True)
        model = AutoModelForSeq2SeqLM.from_pretrained(str(path), local_files_only=True).eval()
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        first = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise InputError(
            f"preference.robustness.back_translation: '{name}' cannot be loaded ({first[:120]}); name a folder that "
            "AutoModelForSeq2SeqLM and AutoTokenizer read"
        ) from error
    out: list[str] = []
    with torch.inference_mode():
        for low in range(0, len(texts), TRANSLATED_BATCH):
            batch = tokenizer(
                list(texts[low : low + TRANSLATED_BATCH]),
                padding=True, truncation=True, max_length=TRANSLATED_TOKENS, return_tensors="pt",
            )  # fmt: skip
            made = model.generate(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"],
                max_new_tokens=TRANSLATED_TOKENS, num_beams=1, do_sample=False,
            )  # fmt: skip
            out += tokenizer.batch_decode(made, skip_special_tokens=True)
    return out
