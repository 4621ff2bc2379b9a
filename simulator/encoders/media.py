"""What encoders of pictures and of sounds share: each distinct file once, kept by content, and models' vectors."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.cache import default_cache_folder, write_atomically
from simulator.encoders.text import encoder_digest

F32 = NDArray[np.float32]
STATISTICS = "statistics"
"""Name of the encoder that needs no weights."""
MEND = "name a folder that transformers' AutoModel reads, with its preprocessor_config.json"
"""What to do where a folder cannot be loaded."""


def encode_files(files: Sequence[bytes | None], encode: Callable[[int, bytes], F32], key: str) -> F32:
    """Vectors [n, d] of files, a row of NaN where there is none; kept in the cache by the files' content.

    Args:
        files: n contents.
        encode: vector [d] of a file, given its number and content.
        key: what else decides the vectors: the encoder and its version.
    """
    digests = [None if file is None else hashlib.sha256(file).hexdigest() for file in files]
    distinct: dict[str, int] = {}
    for at, digest in enumerate(digests):
        if digest is not None:
            distinct.setdefault(digest, at)
    hasher = hashlib.sha256(key.encode())
    order = sorted(distinct)
    for digest in order:
        hasher.update(digest.encode())
    path = default_cache_folder() / "vectors" / f"files-{hasher.hexdigest()[:40]}.npy"
    try:
        vectors: F32 = np.load(path, allow_pickle=False)
        whole = vectors.ndim == 2 and len(vectors) == len(order) and vectors.dtype == np.float32
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        whole = False  # not there, or a damaged file: encode again and replace it
    if not whole:
        found = {digest: encode(at, files[at] or b"") for digest, at in distinct.items()}
        vectors = np.stack([found[digest] for digest in order])
        buffer = io.BytesIO()
        np.save(buffer, vectors.astype(np.float32))
        write_atomically(path, lambda part: _write(part, buffer.getvalue()))
    row = {digest: at for at, digest in enumerate(order)}
    out = np.full((len(files), vectors.shape[1]), np.nan, np.float32)
    for at, digest in enumerate(digests):
        if digest is not None:
            out[at] = vectors[row[digest]]
    return out


def pooled(model: Any, inputs: Any) -> F32:
    """Unit-length vectors [n, d]: the model's image or audio features, its pooled output, or the mean of its tokens."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the same bits whatever the number of workers
    try:
        with torch.inference_mode():
            for name in ("get_image_features", "get_audio_features"):
                if hasattr(model, name):
                    found = getattr(model, name)(**inputs)
                    found = getattr(found, "pooler_output", found)
                    break
            else:
                result = model(**inputs)
                found = getattr(result, "pooler_output", None)
                if found is None:
                    hidden = result.last_hidden_state
                    found = hidden.flatten(2).mean(2) if hidden.ndim == 4 else hidden.mean(1)
            found = torch.nn.functional.normalize(found.flatten(1), dim=1)
            return np.asarray(found.numpy(), np.float32)
    finally:
        torch.set_num_threads(threads)


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def model_key(path: str) -> str:
    """What decides the vectors of a pretrained model, for the cache."""
    return f"model {encoder_digest(path)}"
