"""Named random streams: who draws is part of the seed, so the order of asking changes nothing."""

from __future__ import annotations

import hashlib

import numpy as np


def stream_seed(root: np.random.SeedSequence, *name: str | int) -> np.random.SeedSequence:
    """Seed sequence that depends on the root and the name only, never on who asked first."""
    digest = hashlib.blake2b(repr(name).encode(), digest_size=16).digest()
    words = tuple(int.from_bytes(digest[i : i + 4], "little") for i in range(0, 16, 4))
    return np.random.SeedSequence(root.entropy, spawn_key=(*root.spawn_key, *words))


def stream(root: np.random.SeedSequence, *name: str | int) -> np.random.Generator:
    """Generator named after what it drives, e.g. `stream(root, "train", "linucb", 3)`."""
    return np.random.default_rng(stream_seed(root, *name))


def stream_word(root: np.random.SeedSequence, *name: str | int, bits: int = 64) -> int:
    """One unsigned integer of the named stream: a seed for a kernel or a library that wants a number."""
    return int(stream_seed(root, *name).generate_state(1, np.uint64)[0]) >> (64 - bits)
