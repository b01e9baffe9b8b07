"""Laying out an output: every byte of every header, and every offset, before a weight is read."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence

from hubclient.errors import UnsupportedEncoding, UsageError
from hubclient.formats.jsonfile import write_json
from hubclient.formats.model import FileLayout, OutputSpec, Placed, TensorSpec
from hubclient.formats.names import safe_relative, shown
from hubclient.formats.safetensors.header import HEADER_LIMIT, METADATA, stored_bytes
from hubclient.formats.safetensors.reader import INDEX, SINGLE

MAX_SHARD_SIZE = 5_000_000_000  # save_pretrained's default through Transformers 4

_ALIGNMENT = 8  # of the first tensor; the widest element has 8 bytes


def layout(spec: OutputSpec) -> tuple[FileLayout, ...]:
    """The weight files, the index if there are several, and the sidecars; no weight file if there are no tensors.

    Tensors are cut into shards in the order given, and inside a shard put by descending element size, so each is
    aligned. `__metadata__` holds `format: pt` (which Transformers asks for) and the strings of `spec.metadata`, which
    may say another format. Raises UsageError or UnsupportedEncoding for what this format cannot hold.
    """
    sizes = [_size(tensor) for tensor in spec.tensors]
    _check_names(spec)
    shards = list(_shards(sizes, spec.max_shard_size if spec.max_shard_size is not None else MAX_SHARD_SIZE))
    names = [_shard_name(number, len(shards)) for number in range(1, len(shards) + 1)]
    files = [_weight_file(name, spec, shard, sizes) for name, shard in zip(names, shards, strict=True)]
    if len(files) > 1:
        files.append(_whole(INDEX, _index(spec, files, sum(sizes))))
    taken = {file.name for file in files}
    for name, data in spec.sidecars.items():
        files.append(_whole(str(safe_relative(name, source=spec.name, taken=taken)), data))
    return tuple(files)


def _size(tensor: TensorSpec) -> int:
    if tensor.encoding.safetensors is None:
        raise UnsupportedEncoding(f"safetensors has no type for {tensor.encoding}, which tensor {shown(tensor.name)} is to have")
    try:
        return stored_bytes(tensor.encoding, tensor.shape)
    except ValueError as error:
        raise UsageError(f"tensor {shown(tensor.name)} {error}") from error


def _check_names(spec: OutputSpec) -> None:
    seen: set[str] = set()
    for tensor in spec.tensors:
        if tensor.name in ("", METADATA) or tensor.name in seen:
            raise UsageError(f"an output tensor cannot be called {shown(tensor.name)}: the name is taken or reserved")
        seen.add(tensor.name)


def _shards(sizes: Sequence[int], limit: int) -> Iterator[list[int]]:
    """Indices of neighbours that fit `limit` bytes together; a larger tensor stays alone."""
    if limit <= 0:
        raise UsageError(f"a shard size of {limit} bytes holds nothing")
    shard: list[int] = []
    total = 0
    for index, size in enumerate(sizes):
        if shard and total + size > limit:
            yield shard
            shard, total = [], 0
        shard.append(index)
        total += size
    if shard:
        yield shard


def _shard_name(number: int, total: int) -> str:
    return SINGLE if total == 1 else f"model-{number:05d}-of-{total:05d}.safetensors"


def _weight_file(name: str, spec: OutputSpec, shard: Sequence[int], sizes: Sequence[int]) -> FileLayout:
    ordered = sorted(shard, key=lambda index: -_element_bytes(spec.tensors[index]))
    relative: list[Placed] = []
    end = 0
    for index in ordered:
        relative.append(Placed(index, end, sizes[index]))
        end += sizes[index]
    head = _head(name, spec, relative)
    placed = tuple(place._replace(offset=len(head) + place.offset) for place in relative)
    return FileLayout(name, head, placed, len(head) + end)


def _element_bytes(tensor: TensorSpec) -> int:
    """What a tensor is aligned to; types that share bytes need no alignment."""
    return 1 if tensor.encoding.blocked else tensor.encoding.block_bytes


def _head(name: str, spec: OutputSpec, places: Sequence[Placed]) -> bytes:
    entries: dict[str, object] = {METADATA: _metadata(spec)}
    for index, begin, nbytes in places:
        tensor = spec.tensors[index]
        offsets = (begin, begin + nbytes)
        entries[tensor.name] = {"dtype": tensor.encoding.safetensors, "shape": tensor.shape, "data_offsets": offsets}
    try:
        text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{name}: a tensor's name or the metadata is not Unicode text: {error.reason}") from error
    text += b" " * (-len(text) % _ALIGNMENT)
    if len(text) > HEADER_LIMIT:
        raise UsageError(f"{name}: its header would take {len(text):,} bytes; safetensors allows {HEADER_LIMIT:,}")
    return struct.pack("<Q", len(text)) + text


def _metadata(spec: OutputSpec) -> dict[str, str]:
    return {"format": "pt"} | {key: value.value for key, value in spec.metadata.items() if value.type == "str"}


def _index(spec: OutputSpec, files: Sequence[FileLayout], total: int) -> bytes:
    places = {spec.tensors[place.tensor].name: file.name for file in files for place in file.tensors}
    return write_json({"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))})


def _whole(name: str, data: bytes) -> FileLayout:
    return FileLayout(name, data, (), len(data))
