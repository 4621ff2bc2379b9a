"""A BERT of two layers, 32 wide, with random weights and a word vocabulary of its own: trains in milliseconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

WORDS = ("a", "the", "of", "and", "for", "film", "quiet", "love", "story", "war", "battle", "funny", "animals",
         "children", "murder", "detectives", "money", "card", "lost", "stolen", "transfer", "account", "rate",
         "exchange", "please", "my", "is", "how")  # fmt: skip
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *"0123456789", *(f"##{d}" for d in range(10))]


def tiny_bert(folder: Path, kind: str = "bert", spread: float = 0.3) -> Path:
    """The folder, with an encoder and its tokenizer in it."""
    import transformers

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = transformers.BertTokenizerFast(vocab={piece: k for k, piece in enumerate(PIECES)})  # type: ignore[attr-defined]
    config: Any
    if kind == "distilbert":
        config = transformers.DistilBertConfig(
            vocab_size=len(PIECES), dim=32, n_layers=2, n_heads=2, hidden_dim=64, max_position_embeddings=80
        )
    else:
        kinds = {"bert": transformers.BertConfig, "mpnet": transformers.MPNetConfig}
        config = kinds[kind](
            vocab_size=len(PIECES), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
            max_position_embeddings=80, initializer_range=spread,
        )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        transformers.AutoModel.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
