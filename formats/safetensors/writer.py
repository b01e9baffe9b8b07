"""Laying out an output: every byte of every header, and every offset, before a weight is read."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from hubclient.errors import UnsupportedEncoding, UsageError
from hubclient.formats.encodings import BY_SAFETENSORS
from hubclient.formats.model import FileLayout, OutputSpec, Placed, TensorSpec
from hubclient.formats.safetensors.header import HEADER_LIMIT, METADATA, stored_bytes
from hubclient.formats.safetensors.planes import Split, Stored, split
from hubclient.formats.safetensors.reader import INDEX, SINGLE
from hubclient.ground.names import safe_relative, shown
from hubclient.ground.strictjson import write_json

MAX_SHARD_SIZE = 5_000_000_000  # save_pretrained's default through Transformers 4

_ALIGNMENT = 4096  # of the first tensor: of a page, so that rows can be mapped, and written past the page cache, as they lie


class _Part(NamedTuple):
    """What a header knows as a tensor: one of ours, or one plane of it. `width` is what it is aligned to."""

    tensor: int
    plane: int
    stored: Stored
    nbytes: int
    width: int


def layout(spec: OutputSpec, *, split: Split = split, by_name: bool = False) -> tuple[FileLayout, ...]:
    """The weight files, the index if there are several, and the sidecars; no weight file if there are no tensors.

    Tensors are cut into shards in the order given, and inside a shard put by descending element size, so each is
    aligned; equal sizes stay in that order too, or `by_name` come by their names. `split` names the planes of a tensor
    whose encoding has some: a tensor of its own each in the header, all in one shard. `__metadata__` holds `format: pt`
    (which Transformers asks for) and the strings of `spec.metadata`, which may say another format. Raises UsageError or
    UnsupportedEncoding for what this format cannot hold.
    """
    parts = [_parts(index, tensor, split) for index, tensor in enumerate(spec.tensors)]
    _check_names(parts)
    sizes = [sum(part.nbytes for part in own) for own in parts]
    shards = list(_shards(sizes, spec.max_shard_size if spec.max_shard_size is not None else MAX_SHARD_SIZE))
    names = [_shard_name(number, len(shards)) for number in range(1, len(shards) + 1)]
    files: list[FileLayout] = []
    places: dict[str, str] = {}
    for name, shard in zip(names, shards, strict=True):
        ordered = _in_order([part for index in shard for part in parts[index]], by_name)
        files.append(_weight_file(name, spec, ordered))
        places.update({part.stored.name: name for part in ordered})
    if len(files) > 1:
        files.append(_whole(INDEX, _index(places, sum(sizes))))
    taken = {file.name for file in files}
    for name, data in spec.sidecars.items():
        files.append(_whole(str(safe_relative(name, source=spec.name, taken=taken)), data))
    return tuple(files)


def _parts(index: int, tensor: TensorSpec, split: Split) -> tuple[_Part, ...]:
    encoding = tensor.encoding
    try:
        if encoding.planes:
            encoding.nbytes(tensor.shape)  # whole blocks, before anybody counts them
            return tuple(_part(index, plane, Stored(*stored)) for plane, stored in enumerate(split(tensor)))
        if encoding.safetensors is not None:
            return (_part(index, 0, Stored(tensor.name, encoding.safetensors, tensor.shape)),)
    except ValueError as error:
        raise UsageError(f"tensor {shown(tensor.name)} {error}") from error
    raise UnsupportedEncoding(f"safetensors has no type for {encoding}, which tensor {shown(tensor.name)} is to have")


def _part(index: int, plane: int, stored: Stored) -> _Part:
    encoding = BY_SAFETENSORS[stored.dtype]
    width = 1 if encoding.blocked else encoding.block_bytes  # types that share bytes need no alignment
    return _Part(index, plane, stored, stored_bytes(encoding, stored.shape), width)


def _check_names(parts: Iterable[Sequence[_Part]]) -> None:
    seen: set[str] = set()
    for name in (part.stored.name for own in parts for part in own):
        if name in ("", METADATA) or name in seen:
            raise UsageError(f"an output tensor cannot be called {shown(name)}: the name is taken or reserved")
        seen.add(name)


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


def _in_order(parts: Iterable[_Part], by_name: bool) -> list[_Part]:
    return sorted(parts, key=lambda part: (-part.width, part.stored.name if by_name else ""))


def _weight_file(name: str, spec: OutputSpec, parts: Sequence[_Part]) -> FileLayout:
    head = _head(name, spec, parts)
    placed: list[Placed] = []
    end = len(head)
    for part in parts:
        placed.append(Placed(part.tensor, end, part.nbytes, part.plane))
        end += part.nbytes
    return FileLayout(name, head, tuple(placed), end)


def _head(name: str, spec: OutputSpec, parts: Iterable[_Part]) -> bytes:
    entries: dict[str, object] = {METADATA: _metadata(spec)}
    begin = 0
    for part in parts:
        end = begin + part.nbytes
        entries[part.stored.name] = {"dtype": part.stored.dtype, "shape": part.stored.shape, "data_offsets": (begin, end)}
        begin = end
    try:
        text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{name}: a tensor's name or the metadata is not Unicode text: {error.reason}") from error
    text += b" " * (-(8 + len(text)) % _ALIGNMENT)
    if len(text) > HEADER_LIMIT:
        raise UsageError(f"{name}: its header would take {len(text):,} bytes; safetensors allows {HEADER_LIMIT:,}")
    return struct.pack("<Q", len(text)) + text


def _metadata(spec: OutputSpec) -> dict[str, str]:
    return {"format": "pt"} | {key: value.value for key, value in spec.metadata.items() if value.type == "str"}


def _index(places: Mapping[str, str], total: int) -> bytes:
    return write_json({"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))})


def _whole(name: str, data: bytes) -> FileLayout:
    return FileLayout(name, data, (), len(data))
