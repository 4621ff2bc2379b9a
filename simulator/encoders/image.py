"""Pictures to vectors: statistics of colours and edges without any weights, or a pretrained model by name."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simulator.encoders.media import MEND, STATISTICS, encode_files, model_key, pooled
from simulator.encoders.text import model_folder, pretrained
from simulator.errors import LogError

F32 = NDArray[np.float32]

SIDE = 64
"""Pixels of the square that a picture is reduced to."""
CELLS, ANGLES = 4, 8
"""Cells a side in which edges are counted, and directions (of 180 degrees) that are told apart."""
HUES, SHADES = 8, 4
"""Bins of hue, and of saturation and brightness each."""


def encode_images(
    files: Sequence[bytes | None],
    encoder: str,
    *,
    folder: Path,
    field: str = "data.modalities.image",
    names: Sequence[str] = (),
) -> F32:
    """Vectors [n, d] of pictures; a row of NaN where there is none.

    Args:
        files: n contents, of any format that Pillow opens.
        encoder: `statistics`, or a Hugging Face id or folder with an image model.
        folder: folder of the scenario.
        field: key of the scenario, for messages.
        names: n names of the files, for messages.

    Raises:
        InputError: there is no such encoder.
        LogError: a file is no picture.
    """
    if encoder == STATISTICS:
        return encode_files(files, lambda at, file: image_statistics(_pixels(at, file, field, names)), "image v1")
    path = model_folder(encoder, folder, f"{field}.encoder", (STATISTICS,))
    loaded: list[tuple[object, object]] = []

    def encode(at: int, file: bytes) -> F32:
        if not loaded:
            loaded.append(pretrained(path, "AutoImageProcessor", field, MEND))
        processor, model = loaded[0]
        inputs = processor(images=_opened(at, file, field, names), return_tensors="pt")  # type: ignore[operator]
        return pooled(model, inputs)[0]

    return encode_files(files, encode, model_key(path))


def image_statistics(pixels: NDArray[np.uint8]) -> F32:
    """[d] description of a picture of SIDE x SIDE x 3 values 0 to 255: what colours it has where, and what edges.

    Colours: a histogram of hue weighted by saturation, of saturation and of brightness, in the middle and at the rim.
    Edges: histograms of the gradient's direction in cells, each cell scaled to unit length (HOG without its overlapping
    blocks; Dalal and Triggs, 2005). Each of the two parts has unit length.
    """
    rgb = pixels.astype(np.float64) / 255
    high, low = rgb.max(axis=2), rgb.min(axis=2)
    chroma = high - low
    saturation = np.divide(chroma, high, out=np.zeros_like(high), where=high > 0)
    r, g, b = (rgb[..., k] for k in range(3))
    with np.errstate(divide="ignore", invalid="ignore"):
        hue = np.select(
            [chroma == 0, high == r, high == g],
            [0, ((g - b) / chroma) % 6, (b - r) / chroma + 2],
            (r - g) / chroma + 4,
        )
    quarter = SIDE // 4
    middle = np.zeros((SIDE, SIDE), bool)
    middle[quarter:-quarter, quarter:-quarter] = True
    colours = []
    for part in (middle, ~middle):
        colours += [
            np.bincount((hue[part] / 6 * HUES).astype(np.int64) % HUES, saturation[part], HUES),
            np.bincount(np.minimum((saturation[part] * SHADES).astype(np.int64), SHADES - 1), minlength=SHADES),
            np.bincount(np.minimum((high[part] * SHADES).astype(np.int64), SHADES - 1), minlength=SHADES),
        ]
    grey = rgb.mean(axis=2)
    down, across = np.gradient(grey)
    strength = np.hypot(down, across)
    angle = (np.arctan2(down, across) % np.pi / np.pi * ANGLES).astype(np.int64) % ANGLES
    cell = np.arange(SIDE) * CELLS // SIDE
    place = (cell[:, None] * CELLS + cell[None, :]) * ANGLES + angle
    counted = np.bincount(place.ravel(), strength.ravel(), CELLS * CELLS * ANGLES)
    edges = counted.astype(np.float64).reshape(-1, ANGLES)
    edges = edges / (np.linalg.norm(edges, axis=1, keepdims=True) + 0.1)
    return np.concatenate([_unit(np.sqrt(np.concatenate(colours))), _unit(edges.ravel())]).astype(np.float32)


def _unit(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    return vector / max(float(np.linalg.norm(vector)), 1e-9)


def _opened(at: int, file: bytes, field: str, names: Sequence[str]) -> object:
    from PIL import Image, UnidentifiedImageError

    try:
        return Image.open(io.BytesIO(file)).convert("RGB")
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
        name = names[at] if names else f"file {at}"
        raise LogError(f"{field}: {name} is no picture that Pillow opens ({type(error).__name__}); mend it") from error


def _pixels(at: int, file: bytes, field: str, names: Sequence[str]) -> NDArray[np.uint8]:
    from PIL import Image

    picture = _opened(at, file, field, names)
    assert isinstance(picture, Image.Image)
    return np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BOX), np.uint8)
