"""The encoder `own`: a BERT trained from nothing on the log's own texts, with word pieces learned from them.

For languages and jargon that no encoder at hand knows. It knows what the texts tell and nothing else: where a
pretrained encoder reads the language, that one is better.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from simulator.encoders.e5 import write_folder
from simulator.encoders.settings import OwnEncoderSettings, PretrainingSettings
from simulator.errors import InputError
from simulator.streams import stream, stream_word

FORMAT = "1"
"""Number of this module's way of making the encoder; part of the folder's key."""
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LEAST_TEXTS = 20
MAX_TOKENS = 128


def own_folder(texts: Sequence[str], settings: OwnEncoderSettings, root: np.random.SeedSequence, place: Path) -> Path:
    """Folder of the encoder of these texts, trained once for each set of texts, settings and seed.

    Args:
        texts: distinct texts.
        settings: its size, and how it is trained.
        root: root of the streams that draw its weights, batches and masks.
        place: where such folders are kept.

    Raises:
        InputError: there are too few texts to learn a vocabulary from.
    """
    if len(texts) < LEAST_TEXTS:
        raise InputError(
            f"preference.encoder: 'own' has {len(texts)} distinct texts to be trained on, and {LEAST_TEXTS} are the "
            "least; use encoder: minilm, or architecture: matrix_factorisation"
        )
    hasher = hashlib.sha256(f"{FORMAT} {settings.model_dump_json()} {stream_word(root, 'own encoder')}".encode())
    for text in texts:
        hasher.update(hashlib.sha256(text.encode()).digest())
    folder = place / f"own-{hasher.hexdigest()[:24]}"
    if not (folder / "config.json").is_file():
        write_folder(folder, lambda part: _train(texts, settings, root, part))
    return folder


def learn_pieces(texts: Sequence[str], size: int) -> Any:
    """A tokenizer whose word pieces are learned from the texts; Chinese characters stand alone, accents stay."""
    import tokenizers
    import transformers
    from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

    normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=False)
    words = pre_tokenizers.BertPreTokenizer()
    # The trainer numbers the letters inside words in the order of a hash table, and settles ties by number: given as
    # special tokens they have numbers of their own, so that equal texts give equal pieces.
    inside = {
        letter for text in texts for word, _ in words.pre_tokenize_str(normalizer.normalize_str(text))
        for letter in word[1:]
    }  # fmt: skip
    learning = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    learning.normalizer, learning.pre_tokenizer = normalizer, words
    fixed = [*SPECIAL, *(f"##{letter}" for letter in sorted(inside))]
    learning.train_from_iterator(
        texts, trainers.WordPieceTrainer(vocab_size=size, special_tokens=fixed, show_progress=False)
    )
    tokenizer = tokenizers.Tokenizer(models.WordPiece(learning.get_vocab(), unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.decoder = normalizer, words, decoders.WordPiece()
    first, last = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", first), ("[SEP]", last)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_max_length=512,
    )  # fmt: skip


def _train(texts: Sequence[str], settings: OwnEncoderSettings, root: np.random.SeedSequence, folder: Path) -> None:
    import transformers
    from transformers.utils import logging

    from simulator.encoders.pretraining import pretrain
    from simulator.encoders.tuning import one_thread

    tokenizer = learn_pieces(texts, settings.vocabulary)
    config = transformers.BertConfig(
        vocab_size=len(tokenizer), hidden_size=settings.width, num_hidden_layers=settings.layers,
        num_attention_heads=max(1, settings.width // 32), intermediate_size=4 * settings.width,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    how = PretrainingSettings(
        epochs=settings.epochs, batch_items=settings.batch_items, learning_rate=settings.learning_rate
    )
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with one_thread(stream_word(root, "own encoder", "torch", bits=62)):
            model = transformers.BertModel(config, add_pooling_layer=False)
            trained, _ = pretrain(
                tokenizer, model, "own", texts, how, stream(root, "own encoder"), positives=None, max_tokens=MAX_TOKENS
            )
        trained.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    finally:
        if shown:
            logging.enable_progress_bar()
