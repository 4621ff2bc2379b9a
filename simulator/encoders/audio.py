"""Sounds to vectors: statistics of the log-mel spectrum without any weights, or a pretrained model by name."""

from __future__ import annotations

import io
import wave
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.encoders.media import MEND, STATISTICS, encode_files, model_key, pooled
from simulator.encoders.text import model_folder, pretrained
from simulator.errors import InputError, LogError

F32 = NDArray[np.float32]

RATE = 16_000
"""Samples a second that clips are brought to."""
WINDOW, HOP, BANDS = 1_024, 512, 40
"""Samples of a window and between windows; bands of the mel scale between 30 Hz and half the rate."""
LAGS = 24
"""Lags (of HOP samples: up to 0.8 s) at which the loudness is compared with itself: rhythm."""


def encode_clips(
    files: Sequence[bytes | None],
    encoder: str,
    *,
    folder: Path,
    field: str = "data.modalities.audio",
    names: Sequence[str] = (),
) -> F32:
    """Vectors [n, d] of sounds; a row of NaN where there is none.

    Args:
        files: n contents: .wav, or whatever the optional package soundfile reads (.ogg, .flac, .mp3).
        encoder: `statistics`, or a Hugging Face id or folder with an audio model.
        folder: folder of the scenario.
        field: key of the scenario, for messages.
        names: n names of the files, for messages.

    Raises:
        InputError: there is no such encoder, or soundfile is needed and not installed.
        LogError: a file is no sound.
    """
    if encoder == STATISTICS:
        return encode_files(files, lambda at, file: audio_statistics(_samples(at, file, field, names)), "audio v1")
    path = model_folder(encoder, folder, f"{field}.encoder", (STATISTICS,))
    loaded: list[tuple[Any, Any]] = []

    def encode(at: int, file: bytes) -> F32:
        if not loaded:
            loaded.append(pretrained(path, "AutoFeatureExtractor", field, MEND))
        processor, model = loaded[0]
        return pooled(model, processor(_samples(at, file, field, names), sampling_rate=RATE, return_tensors="pt"))[0]

    return encode_files(files, encode, model_key(path))


def audio_statistics(samples: F32) -> F32:
    """[d] description of a mono clip at RATE samples a second.

    Mean and standard deviation over time of the log energy in each band of the mel scale, mean size of its change from
    window to window, and the autocorrelation of the loudness (rhythm).
    """
    from scipy.signal import ShortTimeFFT, get_window

    if len(samples) < 2 * WINDOW:
        samples = np.pad(samples, (0, 2 * WINDOW - len(samples)))
    spectrum = ShortTimeFFT(get_window("hann", WINDOW), HOP, RATE).spectrogram(samples.astype(np.float64))  # [f, t]
    energy = np.log(mel_bands() @ spectrum + 1e-6)  # [bands, t]
    loudness = energy.mean(axis=0)
    centred = loudness - loudness.mean()
    power = float(centred @ centred) + 1e-9
    lags = range(1, min(LAGS, len(centred) - 1) + 1)
    rhythm = np.zeros(LAGS)
    rhythm[: len(lags)] = [float(centred[:-lag] @ centred[lag:]) / power for lag in lags]
    change = np.abs(np.diff(energy, axis=1)).mean(axis=1)
    return np.concatenate([energy.mean(axis=1), energy.std(axis=1), change, rhythm]).astype(np.float32)


@cache
def mel_bands() -> NDArray[np.float64]:
    """[BANDS, WINDOW / 2 + 1] triangular filters, equally wide on the mel scale (2595 log10(1 + f / 700))."""
    low, high = (2595 * np.log10(1 + f / 700) for f in (30.0, RATE / 2))
    edges = 700 * (10 ** (np.linspace(low, high, BANDS + 2) / 2595) - 1)
    frequency = np.fft.rfftfreq(WINDOW, 1 / RATE)
    up = (frequency - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    down = (edges[2:, None] - frequency) / (edges[2:] - edges[1:-1])[:, None]
    return np.asarray(np.clip(np.minimum(up, down), 0, None))


def _samples(at: int, file: bytes, field: str, names: Sequence[str]) -> F32:
    """Mono samples in [-1, 1] at RATE."""
    name = names[at] if names else f"file {at}"
    try:
        samples, rate = _from_wav(file) if file[:4] == b"RIFF" else _from_soundfile(file, field, name)
    except (wave.Error, EOFError, ValueError, RuntimeError) as error:
        raise LogError(f"{field}: {name} is no sound that can be read ({type(error).__name__}); mend it") from error
    if not len(samples):
        raise LogError(f"{field}: {name} holds no samples; mend it, or leave its cell empty")
    mono = samples.mean(axis=1)
    if rate != RATE:
        from scipy.signal import resample_poly

        shared = int(np.gcd(rate, RATE))
        mono = resample_poly(mono, RATE // shared, rate // shared)
    return mono.astype(np.float32)


def _from_wav(file: bytes) -> tuple[NDArray[np.float64], int]:
    """Samples [t, channels] in [-1, 1] and their rate, of PCM with 8, 16 or 32 bits."""
    with wave.open(io.BytesIO(file)) as sound:
        width, channels, rate = sound.getsampwidth(), sound.getnchannels(), sound.getframerate()
        raw = sound.readframes(sound.getnframes())
    if width not in (1, 2, 4):
        raise ValueError(f"{8 * width} bits")
    kind = {1: np.uint8, 2: np.int16, 4: np.int32}[width]
    values = np.frombuffer(raw, kind).astype(np.float64)
    values = (values - 128) / 128 if width == 1 else values / 2.0 ** (8 * width - 1)
    return values.reshape(-1, channels), rate


def _from_soundfile(file: bytes, field: str, name: str) -> tuple[NDArray[np.float64], int]:
    try:
        import soundfile
    except ImportError as error:
        raise InputError(
            f"{field}: {name} is no .wav, and other sounds need the package soundfile; pip install windtunnel[audio]"
        ) from error
    samples, rate = soundfile.read(io.BytesIO(file), dtype="float64", always_2d=True)
    return samples, int(rate)
