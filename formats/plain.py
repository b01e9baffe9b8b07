"""Codecs of plain numbers: one element after another, without blocks or planes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Raw: TypeAlias = NDArray[np.uint8]
Rows: TypeAlias = NDArray[np.float32]
Coder: TypeAlias = Callable[[Any, Any], object]  # reads a contiguous array, fills a contiguous array


class Codec(NamedTuple):
    """How an encoding is read and written, as functions of (source, target); None: not possible here.

    `unit` is the numpy dtype under which raw bytes are handed over; on the other side is float32. Arrays are flat, but for
    encodings with planes, whose rows have to be known: uint8 [n, row_bytes] and float32 [n, columns].
    """

    unit: str
    decode: Coder | None
    encode: Coder | None


def _assign(source: NDArray[Any], target: NDArray[Any]) -> None:
    """Conversion by numpy: to nearest even; what is too large becomes infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        target[...] = source


def _decode_f16(halves: NDArray[np.uint16], values: Rows) -> None:
    from hubclient.formats import kernels

    kernels.f32_from_f16(halves, values.view(np.uint32))


def _encode_f16(values: Rows, halves: NDArray[np.uint16]) -> None:
    from hubclient.formats import kernels

    kernels.f16_from_f32(values.view(np.uint32), halves)


def _decode_bf16(source: NDArray[np.uint16], values: Rows) -> None:
    from hubclient.formats import kernels

    kernels.f32_from_bf16(source, values.view(np.uint32))


def _encode_bf16(values: Rows, target: NDArray[np.uint16]) -> None:
    from hubclient.formats import kernels

    kernels.bf16_from_f32(values.view(np.uint32), target)


def f16_from_bf16(source: Raw, halves: Raw) -> int:
    """uint8 rows to uint8 rows; returns how many numbers change."""
    from hubclient.formats import kernels

    return int(kernels.f16_from_bf16(source.reshape(-1).view("<u2"), halves.reshape(-1).view("<u2")))


def _float8(name: str) -> Codec:
    """The codec of an 8-bit float."""

    def decode_float8(raw: Raw, values: Rows) -> None:
        from hubclient.formats import float8, kernels

        kernels.f32_by_table(raw, float8.table(name), values)

    return Codec("u1", decode_float8, None)


_INTEGERS = {"I8": "i1", "I16": "<i2", "I32": "<i4", "I64": "<i8", "U8": "u1", "U16": "<u2", "U32": "<u4", "U64": "<u8"}
_FLOATS8 = ("F8_E4M3", "F8_E4M3FNUZ", "F8_E5M2", "F8_E5M2FNUZ", "F8_E8M0")

CODECS: Mapping[str, Codec] = MappingProxyType(
    {
        "F64": Codec("<f8", _assign, _assign),
        "F32": Codec("<f4", _assign, _assign),
        "F16": Codec("<u2", _decode_f16, _encode_f16),
        "BF16": Codec("<u2", _decode_bf16, _encode_bf16),
        "BOOL": Codec("u1", _assign, None),
    }
    | {name: Codec(unit, _assign, None) for name, unit in _INTEGERS.items()}
    | {name: _float8(name) for name in _FLOATS8}
)
