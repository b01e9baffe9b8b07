"""The 8-bit floats of safetensors, as tables of the 256 float32 values that the bytes stand for.

F8_E4M3 (E4M3FN: no infinities, NaN 0x7F and 0xFF) and F8_E5M2 (the upper byte of a float16) are those of "FP8 Formats for
Deep Learning" (arXiv:2209.05433); F8_E8M0, powers of two with 255 as NaN, is the scale of the OCP microscaling formats;
the FNUZ forms have no negative zero, its byte is their only NaN, and a bias one larger.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BYTES = np.arange(256)


@cache
def table(name: str) -> NDArray[np.float32]:
    """float32 [256], read-only: what each byte of the encoding stands for."""
    values = np.asarray(_TABLES[name](), np.float32)
    values.flags.writeable = False
    return values


def _values(mantissa_bits: int, bias: int) -> NDArray[np.float64]:
    """The finite values of one sign bit, exponent bits and `mantissa_bits`, before exceptions are made."""
    magnitude = _BYTES & 0x7F
    exponent, mantissa = magnitude >> mantissa_bits, magnitude & ((1 << mantissa_bits) - 1)
    normal = exponent > 0
    significand = mantissa + normal * (1 << mantissa_bits)
    values = np.ldexp(significand.astype(np.float64), np.maximum(exponent, 1) - bias - mantissa_bits)
    signed: NDArray[np.float64] = np.where(_BYTES > 127, -values, values)
    return signed


_TABLES: Mapping[str, Callable[[], NDArray[Any]]] = MappingProxyType(
    {
        "F8_E4M3": lambda: np.where(_BYTES & 0x7F == 0x7F, np.nan, _values(3, 7)),
        "F8_E5M2": lambda: (_BYTES.astype(np.uint16) << 8).view(np.float16),
        "F8_E8M0": lambda: np.where(_BYTES == 255, np.nan, np.exp2(_BYTES - 127.0)),
        "F8_E4M3FNUZ": lambda: np.where(_BYTES == 0x80, np.nan, _values(3, 8)),
        "F8_E5M2FNUZ": lambda: np.where(_BYTES == 0x80, np.nan, _values(2, 16)),
    }
)
