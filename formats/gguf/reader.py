"""Opening GGUF files: versions 2 and 3, either byte order, one file or all parts of a split; headers only.

Layout (ggml's docs/gguf.md): magic, version, number of tensors, number of metadata pairs; the pairs; one entry per
tensor (name, dimensions, type, offset); padding up to the alignment; the data of the tensors.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from hubclient.formats.gguf.constants import MAGIC, READABLE_VERSIONS
from hubclient.formats.gguf.cursor import Cursor
from hubclient.formats.gguf.metadata import read_metadata
from hubclient.formats.gguf.split import join_parts, part_paths
from hubclient.formats.gguf.tensors import alignment_of, check_count, read_tensors
from hubclient.formats.model import OpenedCheckpoint, SourceFile, TensorRef, Value
from hubclient.formats.sourcefile import open_source, source_file


@dataclass(frozen=True, slots=True)
class Header:
    """What the head of one GGUF file says; `tensors` in file order."""

    file: SourceFile
    metadata: dict[str, Value]
    tensors: dict[str, TensorRef]


def open_checkpoint(path: Path) -> OpenedCheckpoint:
    """Open a GGUF file, or all parts of the split that it is one of; see `Format.open`.

    Arrays in the metadata are `PackedArray`s. The split.* keys are left out: they describe files, not the model.
    """
    opened = read_header(path)
    parts = [opened if part == path else read_header(part) for part in part_paths(opened)]
    metadata, tensors = join_parts(parts)
    return OpenedCheckpoint(
        format="gguf",
        path=path,
        files=tuple(part.file for part in parts),
        tensors=MappingProxyType(tensors),
        metadata=MappingProxyType(metadata),
    )


def read_header(path: Path) -> Header:
    """The checked head of one file. Raises DamagedInput, UnsupportedEncoding or an EnvironmentFault."""
    with open_source(path) as (file, state):
        cursor = Cursor(file, path, state.st_size)
        _read_start(cursor)
        tensor_count, pair_count = cursor.u64(), cursor.u64()
        check_count(cursor, tensor_count)
        metadata = read_metadata(cursor, pair_count)
        tensors = read_tensors(cursor, tensor_count, alignment_of(metadata, path))
    return Header(source_file(path, state, bytes(cursor.data[: cursor.pos])), metadata, tensors)


def _read_start(cursor: Cursor) -> None:
    """Check magic and version, and recognise the byte order: the version is a small number in the right one."""
    magic = cursor.take(4)
    if magic != MAGIC:
        raise cursor.damaged(f"this is no GGUF file: it begins with {magic!r} instead of {MAGIC!r}")
    field = cursor.take(4)
    little, big = int.from_bytes(field, "little"), int.from_bytes(field, "big")
    if big in READABLE_VERSIONS:
        cursor.use_order("big")
    elif little not in READABLE_VERSIONS:
        version = big if little & 0xFFFF == 0 else little  # as ggml tells the orders apart
        raise cursor.damaged(f"GGUF version {version} cannot be read; versions 2 and 3 can")
