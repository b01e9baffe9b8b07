"""Packing and unpacking the elements of tensors: rows of raw bytes to float32 and back.

    decode(raw, encoding, columns)             raw rows   -> float32 rows
    encode(rows, encoding)                     float32    -> raw rows
    transcode(raw, source, target, columns)    raw rows   -> raw rows, as decode then encode would
    byteswap(raw, encoding)                    rows of a big-endian file -> little-endian rows

Rows are two-dimensional: raw ones uint8 [n, row_bytes] in little-endian order, decoded ones float32 [n, columns]. Every
function takes `out` and otherwise allocates nothing but its result (and small scratch), so callers bound the memory by
the tiles they pass. float32 is the meeting point, as in the converters this must equal: a float64 or an integer that
float32 cannot hold is rounded to nearest even.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hubclient.errors import UnsupportedEncoding
from hubclient.formats.model import Encoding

Raw: TypeAlias = NDArray[np.uint8]
Rows: TypeAlias = NDArray[np.float32]
_Coder: TypeAlias = Callable[[Any, Any], None]  # reads flat contiguous arrays, fills flat contiguous arrays

_SCRATCH = 1 << 16  # float32 elements of a transcoding step: 256 KiB, which stays in a core's second-level cache


class Codec(NamedTuple):
    """How an encoding is read and written, as functions of (flat source, flat target); None: not possible here.

    `unit` is the numpy dtype under which raw bytes are handed over; on the other side is float32.
    """

    unit: str
    decode: _Coder | None
    encode: _Coder | None


def can_decode(encoding: Encoding) -> bool:
    """Whether `decode` knows the encoding."""
    return _codec(encoding).decode is not None


def can_encode(encoding: Encoding) -> bool:
    """Whether `encode` knows the encoding."""
    return _codec(encoding).encode is not None


def decode(raw: Raw, encoding: Encoding, columns: int, out: Rows | None = None) -> Rows:
    """float32 [n, columns] from raw rows uint8 [n, row_bytes]. Raises UnsupportedEncoding."""
    _check_raw(raw, encoding, columns)
    target = _target(out, (len(raw), columns), np.dtype(np.float32))
    _decode_flat(_flat(raw), encoding, target.reshape(-1))
    return target


def encode(rows: Rows, encoding: Encoding, out: Raw | None = None) -> Raw:
    """Raw rows uint8 [n, row_bytes] from float32 [n, columns]. Raises UnsupportedEncoding."""
    if rows.dtype != np.float32 or rows.ndim != 2:
        raise ValueError(f"rows to encode are float32 [n, columns], not {rows.dtype} {list(rows.shape)}")
    target = _target(out, (len(rows), encoding.row_bytes(rows.shape[1])), np.dtype(np.uint8))
    _encode_flat(_flat(rows), encoding, target.reshape(-1))
    return target


def transcode(raw: Raw, source: Encoding, target: Encoding, columns: int, out: Raw | None = None) -> Raw:
    """Raw rows of `target` from raw rows of `source`, bit for bit what decode and encode give. Raises UnsupportedEncoding.

    Needs no float32 copy of the rows: the pairs that conversions are made of have kernels, others go in small steps. The
    same encoding on both sides is a copy.
    """
    _check_raw(raw, source, columns)
    result = _target(out, (len(raw), target.row_bytes(columns)), np.dtype(np.uint8))
    if source == target:
        result[...] = raw
    elif source.name == "BF16" and target.name in _FROM_BF16:
        _FROM_BF16[target.name](_flat(raw).view("<u2"), result.reshape(-1).view(_codec(target).unit))
    elif target.name == "F32":
        _decode_flat(_flat(raw), source, result.reshape(-1).view(np.float32))
    elif source.name == "F32":
        _encode_flat(_flat(raw).view(np.float32), target, result.reshape(-1))
    else:
        _in_steps(_flat(raw), source, target, len(raw) * columns, result.reshape(-1))
    return result


def byteswap(raw: Raw, encoding: Encoding, out: Raw | None = None) -> Raw:
    """Little-endian rows from the rows of a big-endian file, or the other way round. Raises UnsupportedEncoding.

    ggml swaps the numbers inside a block and leaves its bytes of quants alone (gguf-py's convert-endian).
    """
    target = _target(out, raw.shape, np.dtype(np.uint8))
    if encoding.name == "Q8_0":
        target[...] = raw
        scales = target.reshape(-1, encoding.block_bytes)[:, :2]
        scales[...] = scales[:, ::-1].copy()
    elif encoding.blocked or encoding.name == "C64":
        raise UnsupportedEncoding(f"{encoding} from a big-endian file cannot be read here")
    else:
        width = encoding.block_bytes
        target.reshape(-1, width)[...] = _flat(raw).reshape(-1, width)[:, ::-1]
    return target


def _codec(encoding: Encoding) -> Codec:
    return _CODECS.get(encoding.name, _UNKNOWN)


def _decode_flat(raw: Raw, encoding: Encoding, values: Rows) -> None:
    codec = _codec(encoding)
    if codec.decode is None:
        raise UnsupportedEncoding(f"{encoding} cannot be decoded here")
    codec.decode(raw.view(codec.unit), values)


def _encode_flat(values: Rows, encoding: Encoding, raw: Raw) -> None:
    codec = _codec(encoding)
    if codec.encode is None:
        raise UnsupportedEncoding(f"{encoding} cannot be encoded here")
    codec.encode(values, raw.view(codec.unit))


def _in_steps(raw: Raw, source: Encoding, target: Encoding, count: int, out: Raw) -> None:
    """Decode and encode `count` elements, some at a time, through a scratch that stays in the cache.

    Rows are whole blocks in both encodings, and blocks divide the step, so it does not matter where rows end.
    """
    scratch = np.empty(min(_SCRATCH, count), np.float32)
    for start in range(0, count, _SCRATCH):
        end = min(start + _SCRATCH, count)
        values = scratch[: end - start]
        _decode_flat(raw[source.row_bytes(start) : source.row_bytes(end)], source, values)
        _encode_flat(values, target, out[target.row_bytes(start) : target.row_bytes(end)])


def _check_raw(raw: Raw, encoding: Encoding, columns: int) -> None:
    expected = encoding.row_bytes(columns)
    if raw.dtype != np.uint8 or raw.ndim != 2 or raw.shape[1] != expected:
        raise ValueError(f"raw rows of {columns} {encoding} are uint8 [n, {expected}], not {raw.dtype} {list(raw.shape)}")


def _target(out: NDArray[Any] | None, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    if out is None:
        return np.empty(shape, dtype)
    if out.shape != shape or out.dtype != dtype or not out.flags.c_contiguous:
        raise ValueError(f"out has to be a contiguous {dtype} {list(shape)}, not {out.dtype} {list(out.shape)}")
    return out


def _flat(array: NDArray[Any]) -> NDArray[Any]:
    """The array as a flat, contiguous one; a view wherever possible."""
    return np.ascontiguousarray(array).reshape(-1)


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


def _decode_q8_0(blocks: Raw, values: Rows) -> None:
    from hubclient.formats import kernels

    kernels.f32_from_q8_0(blocks.reshape(-1, 34), values.reshape(-1, 32))


def _encode_q8_0(values: Rows, blocks: Raw) -> None:
    from hubclient.formats import kernels

    kernels.q8_0_from_f32(values.view(np.uint32).reshape(-1, 32), blocks.reshape(-1, 34))


def _f16_from_bf16(source: NDArray[np.uint16], halves: NDArray[np.uint16]) -> None:
    from hubclient.formats import kernels

    kernels.f16_from_bf16(source, halves)


def _q8_0_from_bf16(source: NDArray[np.uint16], blocks: Raw) -> None:
    from hubclient.formats import kernels

    kernels.q8_0_from_bf16(source.reshape(-1, 32), blocks.reshape(-1, 34))


_INTEGERS = {"I8": "i1", "I16": "<i2", "I32": "<i4", "I64": "<i8", "U8": "u1", "U16": "<u2", "U32": "<u4", "U64": "<u8"}

_CODECS: Mapping[str, Codec] = MappingProxyType(
    {
        "F64": Codec("<f8", _assign, _assign),
        "F32": Codec("<f4", _assign, _assign),
        "F16": Codec("<u2", _decode_f16, _encode_f16),
        "BF16": Codec("<u2", _decode_bf16, _encode_bf16),
        "Q8_0": Codec("u1", _decode_q8_0, _encode_q8_0),
    }
    | {name: Codec(unit, _assign, None) for name, unit in _INTEGERS.items()}
)
_UNKNOWN = Codec("u1", None, None)

# pairs with a kernel of their own: most checkpoints are published in bfloat16
_FROM_BF16: Mapping[str, _Coder] = MappingProxyType({"F16": _f16_from_bf16, "Q8_0": _q8_0_from_bf16})
