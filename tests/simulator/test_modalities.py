"""Numbers, pictures, sounds and vectors of items: read by name, encoded, NaN where there is none, refused in one line.

Sabotaged once, each seen red: missing rows as zeros, bands in hertz instead of mel, edges without direction.
"""

from __future__ import annotations

import io
import wave
from pathlib import Path

import numpy as np
import pytest

from simulator.datasets import DataSettings, load_dataset
from simulator.encoders.audio import RATE, audio_statistics, encode_clips, mel_bands
from simulator.encoders.image import SIDE, encode_images, image_statistics
from simulator.errors import InputError, LogError
from simulator.log import Catalogue


def png(pixels: np.ndarray) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


def wav(samples: np.ndarray, rate: int = RATE) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(rate)
        sound.writeframes((samples * 32_000).astype(np.int16).tobytes())
    return out.getvalue()


def tone(hertz: float, rate: int = RATE, seconds: float = 1.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)


def plain(*colour: int) -> np.ndarray:
    return np.broadcast_to(np.array(colour), (40, 30, 3)).copy()


def striped(*, across: bool) -> np.ndarray:
    wave_of = np.where(np.arange(SIDE) // 4 % 2, 255, 0)
    stripes = np.broadcast_to(wave_of, (SIDE, SIDE))
    return np.repeat((stripes.T if across else stripes)[..., None], 3, axis=2)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Three items, the third without picture, clip, year and vector; the vectors stand in another order."""
    (tmp_path / "log.csv").write_text("user,item,click\n" + "".join(f"u{u},i{u % 3},{u % 2}\n" for u in range(12)))
    (tmp_path / "items.csv").write_text(
        "item,year,poster,clip\ni0,1980,red.png,low.wav\ni1,1995,blue.png,high.wav\ni2,,,\n"
    )
    posters = tmp_path / "posters"
    posters.mkdir()
    (posters / "red.png").write_bytes(png(plain(200, 10, 10)))
    (posters / "blue.png").write_bytes(png(plain(10, 10, 200)))
    (tmp_path / "low.wav").write_bytes(wav(tone(200)))
    (tmp_path / "high.wav").write_bytes(wav(tone(3_000)))
    np.savez(tmp_path / "made.npz", item_id=["i1", "i0", "gone"], vectors=[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    return tmp_path


def read(shop: Path, **modalities: object) -> Catalogue:
    settings = DataSettings.model_validate(
        {"source": "log.csv", "items": "items.csv", "positive": "click == 1", "modalities": modalities}
    )
    return load_dataset(settings, shop).catalogue


def test_each_kind_is_read_for_the_item_it_belongs_to_and_is_nan_for_an_item_that_has_none(shop: Path) -> None:
    found = read(
        shop,
        year={"kind": "number"},
        cover={"kind": "image", "column": "poster", "files": "posters"},
        sound={"kind": "audio", "column": "clip"},
        made={"kind": "vectors", "files": "made.npz"},
    )
    assert found.item_ids == ("i0", "i1", "i2")
    assert found.modalities["year"][:2, 0].tolist() == [1980, 1995]
    assert found.modalities["made"][:2].tolist() == [[3.0, 4.0], [1.0, 2.0]]
    assert np.allclose(
        found.modalities["cover"][0], encode_images([png(plain(200, 10, 10))], "statistics", folder=shop)
    )
    assert np.allclose(found.modalities["sound"][1], encode_clips([wav(tone(3_000))], "statistics", folder=shop))
    for vectors in found.modalities.values():
        assert np.isfinite(vectors[:2]).all()
        assert np.isnan(vectors[2]).all()


@pytest.mark.parametrize(
    ("modality", "said"),
    [
        ({"kind": "number", "column": "yeer"}, "has no column 'yeer'; did you mean 'year'?"),
        ({"kind": "number", "column": "poster"}, "column 'poster' has 'red.png' for item 'i0', which is no number"),
        ({"kind": "image", "column": "poster"}, "the file 'red.png' of item 'i0' cannot be read (FileNotFoundError)"),
        ({"kind": "image", "column": "clip"}, "'low.wav' is no picture that Pillow opens"),
        ({"kind": "image"}, "missing; the data brings no files of its own"),
        ({"kind": "audio", "column": "clip", "encoder": "./nowhere"}, "neither a known name nor a folder"),
        ({"kind": "vectors", "files": "items.csv"}, "give a .npz with arrays item_id [m] and vectors [m, d]"),
        ({"kind": "vectors"}, "the data has no vectors of that name"),
    ],
)
def test_what_cannot_be_read_is_one_line_that_names_the_key(shop: Path, modality: dict[str, str], said: str) -> None:
    with pytest.raises((LogError, InputError)) as refused:
        read(shop, it=modality)
    assert "data.modalities.it" in str(refused.value)
    assert said in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("modalities", "said"),
    [
        ({"text": {"kind": "number"}}, "what the catalogue has of itself"),
        ({"a": {"kind": "number", "files": "x"}}, "has no files"),
        ({"a": {"kind": "vectors", "column": "x"}}, "leave column out"),
        ({"a": {"kind": "image", "files": "x"}}, "say which column names the files"),
        ({"a": {"kind": "number", "encoder": "x"}}, "nothing to encode"),
    ],
)
def test_fields_that_do_not_fit_a_kind_are_refused(modalities: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        DataSettings.model_validate({"source": "a.csv", "positive": "click == 1", "modalities": modalities})


def test_other_files_are_encoded_anew_and_equal_files_give_equal_vectors(tmp_path: Path) -> None:
    red, blue = png(plain(200, 10, 10)), png(plain(10, 10, 200))
    first = encode_images([red, None, red], "statistics", folder=tmp_path)
    second = encode_images([blue, None, red], "statistics", folder=tmp_path)
    assert np.array_equal(first[0], first[2])
    assert np.array_equal(second[2], first[0])
    assert not np.allclose(second[0], first[0])


def test_picture_statistics_tell_colours_and_directions_apart_and_forget_size_alone() -> None:
    def likeness(a: np.ndarray, b: np.ndarray) -> float:
        one, two = (image_statistics(np.resize(x, (SIDE, SIDE, 3)).astype(np.uint8)) for x in (a, b))
        return float(one @ two / np.linalg.norm(one) / np.linalg.norm(two))

    red, dark_red, green = (
        np.broadcast_to(np.array(c), (SIDE, SIDE, 3)) for c in ((220, 20, 20), (200, 30, 30), (20, 220, 20))
    )
    assert likeness(red, dark_red) > likeness(red, green) + 0.2
    lying, standing = striped(across=True), striped(across=False)
    assert likeness(lying, np.roll(lying, 1, axis=0)) > likeness(lying, standing) + 0.3


def test_sound_statistics_put_a_tone_into_its_band_of_the_mel_scale_whatever_the_rate(tmp_path: Path) -> None:
    centres = np.fft.rfftfreq(1_024, 1 / RATE)[mel_bands().argmax(axis=1)]
    for hertz in (300.0, 2_000.0):
        energy = audio_statistics(tone(hertz).astype(np.float32))[:40]
        assert abs(np.log(centres[energy.argmax()] / hertz)) < 0.15
        slow = encode_clips([wav(tone(hertz, 8_000), 8_000)], "statistics", folder=tmp_path)[0, :40]
        assert slow.argmax() == energy.argmax()
    # Equal steps of the mel scale are wider in hertz further up.
    width = np.diff(centres)
    assert width[-5:].mean() > 4 * width[:5].mean()


def test_a_beat_shows_at_its_own_lag() -> None:
    noise = np.random.default_rng(0).standard_normal(4 * RATE)
    beat = np.sin(2 * np.pi * 4 * np.arange(4 * RATE) / RATE) > 0.8  # four a second: every 7.8 hops
    rhythm = audio_statistics((noise * (0.05 + beat)).astype(np.float32))[-24:]
    assert rhythm[7] > rhythm[3] + 0.5


def test_a_pretrained_model_by_its_folder_gives_unit_vectors(tmp_path: Path) -> None:
    import torch
    import transformers

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = transformers.ViTConfig(
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            image_size=16,
            patch_size=8,
        )
        transformers.ViTModel(config).save_pretrained(tmp_path / "vit")
        transformers.ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(tmp_path / "vit")
        heard = transformers.Wav2Vec2Config(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, conv_dim=(8,),
            conv_stride=(160,), conv_kernel=(400,), num_feat_extract_layers=1, num_conv_pos_embeddings=4,
            num_conv_pos_embedding_groups=2,
        )  # fmt: skip
        transformers.Wav2Vec2Model(heard).save_pretrained(tmp_path / "wav")
        transformers.Wav2Vec2FeatureExtractor().save_pretrained(tmp_path / "wav")
    seen = encode_images([png(plain(200, 10, 10)), None, png(plain(10, 10, 200))], "vit", folder=tmp_path)
    sounds = encode_clips([wav(tone(200)), None, wav(tone(3_000))], "./wav", folder=tmp_path)
    for vectors in (seen, sounds):
        assert vectors.shape == (3, 16)
        assert np.allclose(np.linalg.norm(vectors[[0, 2]], axis=1), 1, atol=1e-5)
        assert np.isnan(vectors[1]).all()
        assert not np.allclose(vectors[0], vectors[2], atol=1e-4)
