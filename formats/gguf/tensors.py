"""The tensor section of a GGUF file: names, shapes, types and places, checked against each other and the file's size."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from hubclient.errors import DamagedInput, UnsupportedEncoding
from hubclient.formats.encodings import BY_GGML
from hubclient.formats.gguf.constants import (
    ALIGNMENT_KEY,
    DEFAULT_ALIGNMENT,
    MAX_ALIGNMENT,
    MAX_DIMS,
    MAX_ELEMENTS,
    MAX_TENSOR_NAME,
    MAX_TENSORS,
    REMOVED_TYPES,
)
from hubclient.formats.gguf.cursor import Cursor
from hubclient.formats.model import Encoding, TensorRef, Value

_SMALLEST_INFO = 8 + 1 + 4 + 4 + 8  # name length, one byte of name, dimension count, type, offset


class _Info(NamedTuple):
    """A tensor as its entry tells it; `offset` counts from the start of the data."""

    name: str
    shape: tuple[int, ...]
    encoding: Encoding
    offset: int
    nbytes: int


def read_tensors(cursor: Cursor, count: int, alignment: int) -> dict[str, TensorRef]:
    """The next `count` entries, placed in the file; leaves the cursor where the data starts."""
    infos = [_read_info(cursor, index) for index in range(count)]
    cursor.at = "the padding before the tensor data"
    if infos:
        cursor.take(-cursor.pos % alignment)
    tensors: dict[str, TensorRef] = {}
    for info in infos:
        if info.name in tensors:
            raise cursor.damaged(f"the tensor {info.name!r} occurs twice", info.name)
        tensors[info.name] = _place(cursor, info, alignment)
    _refuse_overlaps(cursor, tensors.values())
    return tensors


def check_count(cursor: Cursor, count: int) -> None:
    """Refuse a claimed number of tensors that the file cannot hold."""
    if count > MAX_TENSORS or count * _SMALLEST_INFO > cursor.size - cursor.pos:
        raise cursor.damaged(f"the header claims {count} tensors in a file of {cursor.size} bytes")


def alignment_of(metadata: Mapping[str, Value], path: Path | None = None) -> int:
    """The alignment of tensor data that the metadata asks for, 32 if it says nothing. Raises DamagedInput (about `path`)."""
    value = metadata.get(ALIGNMENT_KEY, Value("u32", DEFAULT_ALIGNMENT))
    kind, alignment = value.type, value.value
    if kind != "u32":
        raise DamagedInput(f"{ALIGNMENT_KEY} is of type {kind}, it has to be u32", file=path)
    if not 0 < alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        raise DamagedInput(f"{ALIGNMENT_KEY} is {alignment}; it has to be a power of two up to {MAX_ALIGNMENT}", file=path)
    return int(alignment)


def _read_info(cursor: Cursor, index: int) -> _Info:
    cursor.at = f"tensor entry {index}"
    name = cursor.text(MAX_TENSOR_NAME)
    cursor.at = f"the entry of tensor {name!r}"
    shape = _read_shape(cursor, name)
    encoding = _encoding(cursor, cursor.u32(), name)
    columns = shape[-1] if shape else 1
    if columns % encoding.block:
        raise cursor.damaged(
            f"tensor {name!r} has rows of {columns} elements, no whole number of {encoding} blocks of {encoding.block}", name
        )
    return _Info(name, shape, encoding, cursor.u64(), encoding.nbytes(shape))


def _read_shape(cursor: Cursor, name: str) -> tuple[int, ...]:
    """The row-major shape: the file lists the fastest axis first."""
    rank = cursor.u32()
    if rank > MAX_DIMS:
        raise cursor.damaged(f"tensor {name!r} has {rank} dimensions, more than {MAX_DIMS}", name)
    shape = tuple(reversed([cursor.u64() for _ in range(rank)]))
    if math.prod(max(axis, 1) for axis in shape) > MAX_ELEMENTS:
        raise cursor.damaged(f"tensor {name!r} has the impossible shape {shape}", name)
    return shape


def _encoding(cursor: Cursor, number: int, name: str) -> Encoding:
    if number in BY_GGML:
        return BY_GGML[number]
    if number in REMOVED_TYPES:
        raise UnsupportedEncoding(
            f"{cursor.path}: tensor {name!r} is stored as {REMOVED_TYPES[number]} (ggml type {number}), removed from ggml since",
            hint="convert the original model again, or fetch a newer GGUF of it",
        )
    raise cursor.damaged(f"tensor {name!r} has the ggml type {number}, which does not exist", name)


def _place(cursor: Cursor, info: _Info, alignment: int) -> TensorRef:
    if info.offset % alignment:
        raise cursor.damaged(f"tensor {info.name!r} starts at {info.offset}, no multiple of the alignment {alignment}", info.name)
    start = cursor.pos + info.offset
    if start + info.nbytes > cursor.size:
        raise cursor.damaged(
            f"tensor {info.name!r} ends at byte {start + info.nbytes}, the file already at {cursor.size}", info.name
        )
    return TensorRef(info.name, info.shape, info.encoding, cursor.path, start, info.nbytes, cursor.byteorder == "big")


def _refuse_overlaps(cursor: Cursor, tensors: Iterable[TensorRef]) -> None:
    last: TensorRef | None = None
    for tensor in sorted((t for t in tensors if t.nbytes), key=lambda t: t.offset):
        if last is not None and tensor.offset < last.offset + last.nbytes:
            raise cursor.damaged(f"the tensors {last.name!r} and {tensor.name!r} overlap in the file", tensor.name)
        last = tensor
