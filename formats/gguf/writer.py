"""Laying out GGUF v3 files, little-endian: every header byte and offset before a byte of weights is read."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Mapping, Sequence

from hubclient.errors import Unsupported, UnsupportedEncoding, UsageError
from hubclient.formats.gguf.constants import (
    DEFAULT_ALIGNMENT,
    MAGIC,
    MAX_DIMS,
    MAX_TENSOR_NAME,
    SPLIT_KEYS,
    WRITTEN_VERSION,
)
from hubclient.formats.gguf.pack import pack_metadata, pack_name
from hubclient.formats.gguf.split import group_by_part, group_by_size, part_name, split_metadata
from hubclient.formats.gguf.tensors import alignment_of
from hubclient.formats.model import FileLayout, OutputSpec, Placed, TensorSpec, Value


def layout_files(spec: OutputSpec) -> tuple[FileLayout, ...]:
    """One file called `spec.name`, or the parts of a split: as `spec.parts` has them, or if the tensors exceed
    `spec.max_shard_size`.

    Tensors lie in the given order, each padded to the alignment (general.alignment, else 32). The split.* keys of the
    metadata are not taken over: which parts there are is decided here. The first part has all other metadata, the
    others only their split keys, so they are aligned to 32. Raises DamagedInput for values that do not fit their type,
    Unsupported or UnsupportedEncoding for tensors that GGUF cannot hold.
    """
    metadata = {key: value for key, value in spec.metadata.items() if key not in SPLIT_KEYS}
    alignment = alignment_of(metadata)
    _check_tensors(spec.tensors)
    by_size = spec.max_shard_size is not None or not spec.parts
    groups = group_by_size(spec.tensors, spec.max_shard_size) if by_size else group_by_part(spec.parts)
    if len(groups) == 1:
        return (_file(spec.name, spec.tensors, groups[0], metadata, alignment),)
    stem, count = spec.name.removesuffix(".gguf"), len(groups)
    files = []
    for number, group in enumerate(groups):
        keys = (metadata if number == 0 else {}) | split_metadata(number, count, len(spec.tensors))
        padding = alignment if number == 0 else DEFAULT_ALIGNMENT
        files.append(_file(part_name(stem, number, count), spec.tensors, group, keys, padding))
    return tuple(files)


def _file(
    name: str, tensors: Sequence[TensorSpec], group: Sequence[int], metadata: Mapping[str, Value], alignment: int
) -> FileLayout:
    places, offset = [], 0  # of each tensor: its index, offset in the data, size
    for index in group:
        places.append((index, offset, size := tensors[index].nbytes))
        offset += _padded(size, alignment)
    entries = b"".join([_entry(tensors[index], at) for index, at, _ in places])
    head = MAGIC + struct.pack("<IQQ", WRITTEN_VERSION, len(group), len(metadata)) + pack_metadata(metadata) + entries
    head += bytes(-len(head) % alignment)
    placed = tuple([Placed(index, len(head) + at, size) for index, at, size in places])
    return FileLayout(name, head, placed, len(head) + offset)


def _entry(tensor: TensorSpec, offset: int) -> bytes:
    """Name, dimensions with the fastest first, ggml type, offset in the data."""
    shape = tensor.shape
    described = struct.pack(f"<I{len(shape)}QIQ", len(shape), *reversed(shape), tensor.encoding.ggml, offset)
    return pack_name(tensor.name, MAX_TENSOR_NAME) + described


def _padded(size: int, alignment: int) -> int:
    return size + -size % alignment


def _check_tensors(tensors: Sequence[TensorSpec]) -> None:
    for tensor in tensors:
        _check_tensor(tensor)
    name, times = max(Counter(tensor.name for tensor in tensors).items(), key=lambda item: item[1], default=("", 1))
    if times > 1:
        raise UsageError(f"the output would have {times} tensors called {name!r}")


def _check_tensor(tensor: TensorSpec) -> None:
    if len(tensor.shape) > MAX_DIMS:
        raise Unsupported(f"GGUF holds tensors of up to {MAX_DIMS} dimensions; {tensor.name!r} has the shape {tensor.shape}")
    encoding = tensor.encoding
    if encoding.ggml is None:
        raise UnsupportedEncoding(f"GGUF has no type for {encoding}, in which the tensor {tensor.name!r} would be stored")
    columns = tensor.shape[-1] if tensor.shape else 1
    if columns % encoding.block:
        raise UnsupportedEncoding(
            f"the tensor {tensor.name!r} has rows of {columns} elements, no whole number of {encoding} blocks of {encoding.block}"
        )
