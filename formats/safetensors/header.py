"""The header of a safetensors file: where every tensor lies, checked before anything is believed.

Layout (https://huggingface.co/docs/safetensors): a u64 length, that many bytes of JSON that begin with `{` and may be
padded with spaces, then the tensors' bytes. The tensors cover those without hole or overlap, so nothing else can hide
in the file.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, NoReturn

from hubclient.errors import DamagedInput, SourceMissing
from hubclient.formats.encodings import BY_SAFETENSORS
from hubclient.formats.model import Encoding, SourceFile, TensorRef
from hubclient.formats.sourcefile import open_source, source_file
from hubclient.ground.names import shown
from hubclient.ground.strictjson import parse_object

HEADER_LIMIT = 100_000_000  # MAX_HEADER_SIZE of the safetensors library
METADATA = "__metadata__"

_LENGTH = struct.Struct("<Q")
_FIELDS = frozenset(("dtype", "shape", "data_offsets"))
_INT = frozenset((int,))
_MAX_DIMENSIONS = 64  # numpy's and PyTorch's limit
_MAX_SIZE = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Header:
    """One file: its state, its tensors by offset, its `__metadata__`."""

    source: SourceFile
    tensors: Mapping[str, TensorRef]
    metadata: Mapping[str, str]


def read_header(path: Path) -> Header:
    """The checked header of the safetensors file at `path`; DamagedInput names the tensor at fault."""
    text, state = _text(path)
    entries = parse_object(text, path, part="the header ", start=_LENGTH.size)
    metadata = _metadata(entries.pop(METADATA, {}), path)
    start = _LENGTH.size + len(text)
    references = (_reference(name, entry, path, start) for name, entry in entries.items())
    return Header(source_file(path, state, text), _in_order(references, path, start, state.st_size), metadata)


def peek_header(path: Path) -> Mapping[str, Any]:
    """What the header says, unchecked, to tell formats apart that share this one; empty if it says nothing, or is not there.

    EnvironmentFault if it cannot be read, or does not come: what it would say is then not known.
    """
    try:
        entries = json.loads(_text(path)[0])
    except (ValueError, RecursionError, SourceMissing):  # DamagedInput is a ValueError
        return {}
    return entries if isinstance(entries, dict) else {}


def _text(path: Path) -> tuple[bytes, os.stat_result]:
    """The bytes of the header and the state of the file."""
    with open_source(path) as (file, state):
        length = _length(file.read(_LENGTH.size + 1), state.st_size, path)
        file.seek(_LENGTH.size)
        text = file.read(length)
    if len(text) != length:
        raise DamagedInput("ended inside its header while it was read", file=path)
    return text, state


def has_header(path: Path) -> bool:
    """Whether the first bytes could begin a safetensors file; never raises on odd content. EnvironmentFault."""
    try:
        with open_source(path) as (file, state):
            _length(file.read(_LENGTH.size + 1), state.st_size, path)
    except DamagedInput:
        return False
    return True


def stored_bytes(encoding: Encoding, shape: Sequence[int]) -> int:
    """Bytes of a tensor; ValueError if they are no whole number, or more than a file can hold.

    Types narrower than a byte are packed over the whole tensor, not row by row, as the safetensors library counts.
    """
    if math.prod(filter(None, shape)) * encoding.block_bytes > _MAX_SIZE:
        raise ValueError(f"has the shape {shown(list(shape))}, larger than any file")
    blocks, rest = divmod(math.prod(shape), encoding.block)
    if rest:
        raise ValueError(f"has the shape {shown(list(shape))}, which is no whole number of bytes of {encoding}")
    return blocks * encoding.block_bytes


def _length(prefix: bytes, size: int, path: Path) -> int:
    """The header's length, believed only if the file is that long and a header begins there."""
    if len(prefix) < _LENGTH.size:
        raise DamagedInput(f"is {size} bytes, too short for a safetensors file", file=path)
    (length,) = _LENGTH.unpack_from(prefix)
    if length > HEADER_LIMIT:
        raise DamagedInput(f"claims a header of {length:,} bytes, more than the {HEADER_LIMIT:,} allowed", file=path, offset=0)
    if length < len("{}"):
        raise DamagedInput(f"claims a header of {length} bytes, too short for one", file=path, offset=0)
    if length > size - _LENGTH.size:
        raise DamagedInput(f"is cut off: its header takes {length:,} bytes, the file has {size:,}", file=path, offset=0)
    if prefix[_LENGTH.size :] != b"{":
        raise DamagedInput("has a header that does not begin with '{'", file=path, offset=_LENGTH.size)
    return int(length)


def _metadata(value: Any, path: Path) -> dict[str, str]:
    if type(value) is not dict or not all(type(text) is str for text in value.values()):
        raise DamagedInput(f"has a {METADATA} that is not a map of strings to strings", file=path)
    return value


def _reference(name: str, entry: Any, path: Path, start: int) -> TensorRef:
    if not name:
        _refuse(path, name, "has an empty name")
    if type(entry) is not dict or entry.keys() != _FIELDS:
        _refuse(path, name, f"is described by {shown(entry)}; exactly dtype, shape and data_offsets were expected")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    encoding = BY_SAFETENSORS.get(dtype) if type(dtype) is str else None
    if encoding is None:
        _refuse(path, name, f"has the dtype {shown(dtype)}, which safetensors does not define")
    if not _are_sizes(shape):
        _refuse(path, name, f"has the shape {shown(shape)}; a list of sizes was expected")
    begin, end = offsets if type(offsets) is list and len(offsets) == 2 else (None, None)
    if type(begin) is not int or type(end) is not int or not 0 <= begin <= end <= _MAX_SIZE:
        _refuse(path, name, f"has the data_offsets {shown(offsets)}; a begin and an end were expected")
    try:
        nbytes = stored_bytes(encoding, shape)
    except ValueError as error:
        _refuse(path, name, str(error))
    if end - begin != nbytes:
        _refuse(path, name, f"takes {end - begin} bytes, but its shape {shown(shape)} of {dtype} needs {nbytes}")
    return TensorRef(name, tuple(shape), encoding, path, start + begin, nbytes)


def _are_sizes(value: Any) -> bool:
    if type(value) is not list or len(value) > _MAX_DIMENSIONS or not _INT.issuperset(map(type, value)):
        return False  # True is no size
    return not value or (min(value) >= 0 and max(value) <= _MAX_SIZE)


def _in_order(references: Iterable[TensorRef], path: Path, start: int, size: int) -> dict[str, TensorRef]:
    """The tensors by offset, if they cover the file from `start` to `size` exactly."""
    tensors: dict[str, TensorRef] = {}
    for reference in sorted(references, key=attrgetter("offset", "nbytes")):
        if reference.offset != start:
            fault = "overlaps the one before it" if reference.offset < start else "leaves bytes before it unused"
            _refuse(path, reference.name, f"begins at byte {reference.offset}, not {start}: it {fault}")
        tensors[reference.name] = reference
        start += reference.nbytes
    if start > size:
        raise DamagedInput(f"is cut off: its tensors end at byte {start:,}, the file has {size:,}", file=path, offset=size)
    if start < size:
        raise DamagedInput(f"has {size - start:,} bytes after its last tensor", file=path, offset=start)
    return tensors


def _refuse(path: Path, name: str, fault: str) -> NoReturn:
    raise DamagedInput(f"tensor {shown(name)} {fault}", file=path, tensor=name)
