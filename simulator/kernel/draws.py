"""Random numbers by hash, and the functions of one number: the same bits on any processor and libm."""

from __future__ import annotations

import numpy as np
from numba import njit

from simulator._compiled import PLAIN

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_M1 = np.uint64(0xBF58476D1CE4E5B9)
_M2 = np.uint64(0x94D049BB133111EB)
_LOW24 = np.uint64(0xFFFFFF)
_ULP24 = np.float32(2.0**-24)
_LOG2_E, _LN2_HIGH, _LN2_LOW = np.float32(1.44269504), np.float32(0.693359375), np.float32(-2.12194440e-4)
_E0, _E1, _E2 = np.float32(1.9875691500e-4), np.float32(1.3981999507e-3), np.float32(8.3334519073e-3)
_E3, _E4, _E5 = np.float32(4.1665795894e-2), np.float32(1.6666665459e-1), np.float32(5.0000001201e-1)
_FAR = np.float32(80.0)
_MAGIC = np.float32(1.5 * 2**23)  # adding it rounds to an integer, which then stands in the lowest bits
_MANTISSA = np.int32(23)
_BITS_OF_ONE = np.int32(0x3F800000)
_LN2 = np.float32(0.69314718)
_16, _27, _30, _31, _40 = (np.uint64(n) for n in (16, 27, 30, 31, 40))
_ZERO, _HALF, _ONE = np.float32(0.0), np.float32(0.5), np.float32(1.0)


@njit(cache=True, inline="always")
def mix64(x: np.uint64) -> np.uint64:
    """SplitMix64's finaliser (Steele, Lea and Flood, 2014): a bijection, each output bit depends on all input bits."""
    x = (x ^ (x >> _30)) * _M1
    x = (x ^ (x >> _27)) * _M2
    return x ^ (x >> _31)


@njit(cache=True, inline="always")
def fold(key: np.uint64, word: np.uint64) -> np.uint64:
    """Key of one more coordinate (user, session, step)."""
    return mix64((key ^ word) + GOLDEN)


@njit(cache=True, inline="always")
def high_uniform(bits: np.uint64) -> np.float32:
    """Uniform on [0, 1) from the highest 24 bits."""
    return np.float32(np.int32(bits >> _40)) * _ULP24


@njit(cache=True, inline="always")
def low_uniform(bits: np.uint64) -> np.float32:
    """Uniform on [0, 1) from bits 16 to 39: independent of `high_uniform` of the same bits."""
    return np.float32(np.int32((bits >> _16) & _LOW24)) * _ULP24


@njit(inline="always", **PLAIN)
def sigma(z: np.float32) -> np.float32:
    """1 / (1 + exp(-z)) within 2e-7 of the value, by Cephes' polynomial: vectorises, and is the same on any libm."""
    x = -z
    x = x if x > -_FAR else -_FAR
    x = x if x < _FAR else _FAR
    rounded = x * _LOG2_E + _MAGIC
    n = rounded - _MAGIC
    r = x - n * _LN2_HIGH - n * _LN2_LOW
    y = ((((_E0 * r + _E1) * r + _E2) * r + _E3) * r + _E4) * r + _E5
    power = np.int32(np.int32(np.float32(rounded).view(np.int32) << _MANTISSA) + _BITS_OF_ONE).view(np.float32)
    return _ONE / (_ONE + (y * r * r + r + _ONE) * power)


@njit(**PLAIN)
def exp32(x: np.float32) -> np.float32:
    """exp(x) for |x| <= 80 by Cephes' polynomial, as in `sigma`."""
    x = x if x > -_FAR else -_FAR
    x = x if x < _FAR else _FAR
    rounded = x * _LOG2_E + _MAGIC
    n = rounded - _MAGIC
    r = x - n * _LN2_HIGH - n * _LN2_LOW
    y = ((((_E0 * r + _E1) * r + _E2) * r + _E3) * r + _E4) * r + _E5
    power = np.int32(np.int32(np.float32(rounded).view(np.int32) << _MANTISSA) + _BITS_OF_ONE).view(np.float32)
    return (y * r * r + r + _ONE) * power


@njit(**PLAIN)
def log32(x: np.float32) -> np.float32:
    """log(x) for x >= 1 within 1e-6, by the series of atanh: no libm, so the same everywhere."""
    exponent = _ZERO
    while x > np.float32(1.41421356):
        x *= _HALF
        exponent += _ONE
    s = (x - _ONE) / (x + _ONE)
    t = s * s
    series = _ONE + t * (np.float32(1 / 3) + t * (np.float32(1 / 5) + t * (np.float32(1 / 7) + t * np.float32(1 / 9))))
    return np.float32(2.0) * s * series + exponent * _LN2
