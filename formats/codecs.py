"""Packing and unpacking the elements of tensors: rows of raw bytes to float32 and back.

    decode(raw, encoding, columns)             raw rows   -> float32 rows
    encode(rows, encoding)                     float32    -> raw rows; types of few bits heed the importance of columns
    transcode(raw, source, target, columns)    raw rows   -> raw rows, as decode then encode would
    transcode_counting(...)                    the same, and how many elements do not come back from it
    byteswap(raw, encoding)                    rows of a big-endian file -> little-endian rows

Rows are two-dimensional: raw ones uint8 [n, row_bytes] in little-endian order, decoded ones float32 [n, columns]. Every
function takes `out` and otherwise allocates nothing but its result (and small scratch), so callers bound the memory by
the tiles they pass. float32 is the meeting point, as in the converters this must equal: a float64 or an integer that
float32 cannot hold is rounded to nearest even.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hubclient.errors import UnsupportedEncoding
from hubclient.formats import ggml, plain, planes
from hubclient.formats.encodings import ENCODINGS
from hubclient.formats.ggml.byteorder import NUMBERS
from hubclient.formats.model import Encoding
from hubclient.formats.plain import Codec, Coder, Raw, Rows

_SCRATCH = 1 << 16  # float32 elements of a transcoding step: 256 KiB, which stays in a core's second-level cache


def can_decode(encoding: Encoding) -> bool:
    """Whether `decode` knows the encoding."""
    return _codec(encoding).decode is not None


def can_encode(encoding: Encoding) -> bool:
    """Whether `encode` knows the encoding; some need importance for it."""
    return _codec(encoding).encode is not None


def needs_importance(encoding: Encoding) -> bool:
    """Whether `encode` refuses to pack this encoding unless it is given the importance of the columns."""
    return encoding.name in ggml.NEEDS_IMPORTANCE


def can_repack(source: Encoding, target: Encoding) -> bool:
    """Whether `transcode` rearranges the bits of one into the other, so that no number changes, whatever it is."""
    return (source.name, target.name) in planes.REPACKED


def decode(raw: Raw, encoding: Encoding, columns: int, out: Rows | None = None) -> Rows:
    """float32 [n, columns] from raw rows uint8 [n, row_bytes]. Raises UnsupportedEncoding."""
    _check_raw(raw, encoding, columns)
    target = _target(out, (len(raw), columns), np.dtype(np.float32))
    _decode_rows(raw, encoding, target)
    return target


def encode(rows: Rows, encoding: Encoding, out: Raw | None = None, importance: Rows | None = None) -> Raw:
    """Raw rows uint8 [n, row_bytes] from float32 [n, columns]. Raises UnsupportedEncoding.

    `importance`, float32 [columns], says how much an error in each column matters (an importance matrix has one such row
    per tensor). Encodings that have no use for it leave it alone; those that demand it cannot do without.
    """
    if rows.dtype != np.float32 or rows.ndim != 2:
        raise ValueError(f"rows to encode are float32 [n, columns], not {rows.dtype} {list(rows.shape)}")
    target = _target(out, (len(rows), encoding.row_bytes(rows.shape[1])), np.dtype(np.uint8))
    _encode_rows(rows, encoding, target, _heeded(importance, encoding, rows.shape[1]))
    return target


def transcode(
    raw: Raw, source: Encoding, target: Encoding, columns: int, out: Raw | None = None, importance: Rows | None = None
) -> Raw:
    """Raw rows of `target` from raw rows of `source`, bit for bit what decode and encode give. Raises UnsupportedEncoding.

    Needs no float32 copy of the rows: the pairs that conversions are made of have kernels, others go in small steps. The
    same encoding on both sides is a copy.
    """
    _check_raw(raw, source, columns)
    result = _target(out, (len(raw), target.row_bytes(columns)), np.dtype(np.uint8))
    weights = None if source == target else _heeded(importance, target, columns)
    if source == target:
        result[...] = raw
    elif repack := _PAIRS.get((source.name, target.name)):
        repack(np.ascontiguousarray(raw), result)
    elif target.name == "F32":
        _decode_rows(raw, source, result.view(np.float32))
    elif source.name == "F32":
        _encode_rows(np.ascontiguousarray(raw).view(np.float32), target, result, weights)
    elif source.planes or target.planes or weights is not None:
        _row_by_row(raw, source, target, columns, result, weights)
    else:
        _in_steps(_flat(raw), source, target, len(raw) * columns, result.reshape(-1))
    return result


def transcode_counting(
    raw: Raw, source: Encoding, target: Encoding, columns: int, importance: Rows | None = None
) -> tuple[Raw, int]:
    """What `transcode` gives, and how many elements of `raw` it would not give back bit for bit; NaN equals NaN.

    Numbers go back to `source` by way of float32, those of blocks to float32 alone.
    """
    _check_raw(raw, source, columns)
    result = np.empty((len(raw), target.row_bytes(columns)), np.uint8)
    if (source.name, target.name) == ("BF16", "F16"):  # what most conversions to float16 are
        return result, plain.f16_from_bf16(np.ascontiguousarray(raw), result)
    changed, step = 0, max(1, _SCRATCH // max(1, columns))
    for start in range(0, len(raw), step):
        values = decode(raw[start : start + step], source, columns)
        made = encode(values, target, result[start : start + step], importance)
        changed += count_unlike(values, decode(made, target, columns), source)
    return result, changed


def count_unlike(before: Rows, after: Rows, source: Encoding) -> int:
    """How many float32, stored as plain `source`, are not what was there before; blocks are not packed for it."""
    from hubclient.formats import kernels

    if not source.blocked and source.name != "F32" and can_encode(source):
        after = decode(encode(after, source), source, after.shape[1])
    return int(kernels.unlike(_flat(before).view(np.uint32), _flat(after).view(np.uint32)))


def byteswap(raw: Raw, encoding: Encoding, out: Raw | None = None) -> Raw:
    """Little-endian rows from the rows of a big-endian file, or the other way round. Raises UnsupportedEncoding.

    ggml swaps the numbers inside a block and leaves its bytes of quants alone (gguf-py's convert-endian).
    """
    if encoding.name == "C64" or (encoding.blocked and encoding.name not in NUMBERS):
        raise UnsupportedEncoding(f"{encoding} from a big-endian file cannot be read here")
    target = _target(out, raw.shape, np.dtype(np.uint8))
    source, swapped = (_flat(rows).reshape(-1, encoding.block_bytes) for rows in (raw, target))
    swapped[...] = source
    for start, width, count in NUMBERS.get(encoding.name, ((0, encoding.block_bytes, 1),)):
        for at in range(start, start + width * count, width):
            swapped[:, at : at + width] = source[:, at : at + width][:, ::-1]
    return target


def _codec(encoding: Encoding) -> Codec:
    return _CODECS.get(encoding.name, _UNKNOWN)


def _decode_rows(raw: Raw, encoding: Encoding, values: Rows) -> None:
    """uint8 [n, row_bytes] to float32 [n, columns]. Codecs of encodings with planes are handed rows, others flat arrays."""
    if encoding.planes:
        _decode_flat(np.ascontiguousarray(raw), encoding, values)
    else:
        _decode_flat(_flat(raw), encoding, values.reshape(-1))


def _encode_rows(values: Rows, encoding: Encoding, raw: Raw, weights: Rows | None) -> None:
    """float32 [n, columns] to uint8 [n, row_bytes]; the weights are from `_heeded`."""
    if weights is not None:
        blocks = (array.reshape(-1, encoding.block) for array in (_flat(values), weights))
        ggml.weighted_encoder(encoding.name)(*blocks, raw.reshape(-1, encoding.block_bytes))
    elif encoding.planes:
        _encode_flat(np.ascontiguousarray(values), encoding, raw)
    else:
        _encode_flat(_flat(values), encoding, raw.reshape(-1))


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


def _row_by_row(raw: Raw, source: Encoding, target: Encoding, columns: int, out: Raw, weights: Rows | None) -> None:
    """Decode and encode whole rows, some at a time: planes begin where the row does, and so does importance."""
    step = max(1, _SCRATCH // max(1, columns))
    scratch = np.empty((min(step, len(raw)), columns), np.float32)
    for start in range(0, len(raw), step):
        part = raw[start : start + step]
        _decode_rows(part, source, scratch[: len(part)])
        _encode_rows(scratch[: len(part)], target, out[start : start + step], weights)


def _heeded(importance: Rows | None, encoding: Encoding, columns: int) -> Rows | None:
    """The importance as kernels want it, if the encoding has a use for it. Raises UnsupportedEncoding if it needs one."""
    if importance is not None and (importance.dtype != np.float32 or importance.shape != (columns,)):
        raise ValueError(f"importance is float32 [{columns}], not {importance.dtype} {list(importance.shape)}")
    if importance is None and needs_importance(encoding):
        raise UnsupportedEncoding(f"{encoding} cannot be encoded without an importance matrix")
    if importance is None or encoding.name not in ggml.USES_IMPORTANCE:
        return None
    return np.require(importance, requirements=("C", "W"))  # a read-only array would have another kernel compiled for it


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


def _q8_0_from_bf16(source: Raw, blocks: Raw) -> None:
    from hubclient.formats.ggml.encoders import q8_0

    q8_0.q8_0_from_bf16(_flat(source).view("<u2").reshape(-1, 32), blocks.reshape(-1, 34))


def _blocks(encoding: Encoding) -> Codec:
    """The codec of a ggml type, whose kernels are looked up when called."""
    shape, size = (-1, encoding.block), (-1, encoding.block_bytes)

    def decode_blocks(blocks: Raw, values: Rows) -> None:
        ggml.decoder(encoding.name)(blocks.reshape(size), values.reshape(shape))

    def encode_blocks(values: Rows, blocks: Raw) -> None:
        ggml.encoder(encoding.name)(values.reshape(shape), blocks.reshape(size))

    return Codec("u1", decode_blocks, encode_blocks if encoding.name in ggml.ENCODED else None)


_CODECS: Mapping[str, Codec] = MappingProxyType(
    {**plain.CODECS, **planes.CODECS} | {name: _blocks(ENCODINGS[name]) for name in ggml.FAMILY}
)
_UNKNOWN = Codec("u1", None, None)

# All pairs with a kernel of their own: most checkpoints are published in bfloat16.
_PAIRS: Mapping[tuple[str, str], Coder] = MappingProxyType(
    {("BF16", "F16"): plain.f16_from_bf16, ("BF16", "Q8_0"): _q8_0_from_bf16, **planes.REPACKED, **planes.PAIRS}
)
