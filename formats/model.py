"""The value types that formats hand out and take in.

    Encoding          how the numbers of a tensor are packed: block length, bytes per block, planes
    TensorRef         a tensor in a file: shape, encoding, where its bytes are
    Extent            a stretch of a file: where one plane of a tensor lies
    OpenedCheckpoint  what `Format.open` returns: headers only, no weight byte read
    TensorSpec        a tensor to be written: name, shape, encoding
    OutputSpec        everything a format needs to lay out an output before a byte of it exists
    FileLayout        one output file: leading bytes, where each tensor goes, size

Formats never see a plan or an architecture; the engine never sees a file header.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class Encoding:
    """How numbers are packed along the last axis: `block` elements in `block_bytes` bytes.

    `name` is the name the field uses (safetensors dtype names and ggml type names share one table, see
    `hubclient.formats.encodings`). `ggml` is the ggml type number, `safetensors` the dtype string there, None where
    that format has no such type.

    Some encodings keep the numbers of a block apart on disk: all words of a tensor in one place, all scales in another
    (MLX, GPT-OSS). `planes` then says how many of a block's bytes belong to each. In memory a row of such a tensor is
    one row of `row_bytes` all the same: first the row's bytes of plane 0, then those of plane 1 and so on, so that rows
    move as those of any other encoding do. Empty: one place.
    """

    name: str
    block: int
    block_bytes: int
    ggml: int | None = None
    safetensors: str | None = None
    planes: tuple[int, ...] = ()

    def __hash__(self) -> int:
        return hash(self.name)  # which tells encodings apart, and is asked for with every tensor

    @property
    def blocked(self) -> bool:
        """True if several elements share a block, so single elements cannot be moved."""
        return self.block > 1

    def row_bytes(self, columns: int) -> int:
        """Bytes of a row of `columns` elements; ValueError if no whole number of blocks fits."""
        if columns % self.block:
            raise ValueError(f"a row of {columns} is not a whole number of {self.name} blocks of {self.block}")
        return columns // self.block * self.block_bytes

    def nbytes(self, shape: Sequence[int]) -> int:
        """Bytes of a tensor of `shape` (row-major, last axis fastest; () is a scalar)."""
        columns = shape[-1] if shape else 1
        return self.row_bytes(columns) * math.prod(shape[:-1])

    def plane_row_bytes(self, columns: int) -> tuple[int, ...]:
        """Bytes of a row in each plane; one number for an encoding without planes. ValueError as `row_bytes`."""
        whole = self.row_bytes(columns)
        return tuple(columns // self.block * size for size in self.planes) or (whole,)

    def __str__(self) -> str:
        return self.name


class Value(NamedTuple):
    """A typed metadata value.

    `type` is u8 i8 u16 i16 u32 i32 u64 i64 f32 f64 bool str, or one of them in brackets for an array: "[str]", "[f32]",
    "[[i32]]". `value` is the plain Python value; arrays are sequences (lazy for long ones in opened files).
    """

    type: str
    value: Any


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file that a checkpoint consists of, with what identifies its state: the plan's fingerprint covers it.

    `header_digest` is the sha256 (hex) of the header bytes (of the whole file for small ones such as config.json).
    """

    path: Path
    size: int
    mtime_ns: int
    header_digest: str


class Extent(NamedTuple):
    """A stretch of a file: `nbytes` bytes at the absolute `offset`."""

    file: Path
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class TensorRef:
    """Where a tensor lies: `nbytes` bytes at `offset` (absolute) of `file`; `shape` is row-major (numpy order).

    A tensor whose encoding has planes lies in several places, `planes`, one for each; `file` and `offset` are then those
    of the first, and `nbytes` counts all. `shape` is that of the numbers, not of any plane.
    """

    name: str
    shape: tuple[int, ...]
    encoding: Encoding
    file: Path
    offset: int
    nbytes: int
    big_endian: bool = False
    planes: tuple[Extent, ...] = ()

    @property
    def extents(self) -> tuple[Extent, ...]:
        """Where the bytes are: one stretch, or one for each plane."""
        return self.planes or (Extent(self.file, self.offset, self.nbytes),)


@dataclass(frozen=True, slots=True)
class OpenedCheckpoint:
    """A checkpoint as its format sees it; names and shapes are the format's own.

    `tensors` keeps file order. `metadata` is the container's own key-value data (GGUF keys, safetensors
    `__metadata__`). `sidecars` maps relative names (`config.json`, `tokenizer.model`, `1_Pooling/config.json`) to
    small files beside the weights. `files` lists the weight files, with their state. `companion` is another file that
    belongs to this one: the vision part of a model whose text part is a file of its own.
    """

    format: str
    path: Path
    files: tuple[SourceFile, ...]
    tensors: Mapping[str, TensorRef]
    metadata: Mapping[str, Value] = field(default_factory=lambda: MappingProxyType({}))
    sidecars: Mapping[str, Path] = field(default_factory=lambda: MappingProxyType({}))
    companion: OpenedCheckpoint | None = None

    def with_companion(self, other: OpenedCheckpoint) -> OpenedCheckpoint:
        """The same with another file beside it."""
        return replace(self, companion=other)

    @property
    def all_files(self) -> tuple[SourceFile, ...]:
        """Its files and those of its companion."""
        return (*self.files, *(self.companion.files if self.companion else ()))


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor to be written: its name in the target format, row-major shape, encoding.

    An encoding with planes is one tensor here; the format gives each plane a name of its own.
    """

    name: str
    shape: tuple[int, ...]
    encoding: Encoding

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor's data, without padding."""
        return self.encoding.nbytes(self.shape)


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """What an output shall hold. `name` is the file or folder name (without directories) that names are derived from.

    `sidecars` maps relative file names to complete contents (small: config.json, tokenizer.json ...). `max_shard_size`
    in bytes splits the weights over several files; None lets the format choose: by `parts`, if it can, which has the number of a
    file for each tensor.
    """

    name: str
    tensors: tuple[TensorSpec, ...]
    metadata: Mapping[str, Value] = field(default_factory=lambda: MappingProxyType({}))
    sidecars: Mapping[str, bytes] = field(default_factory=lambda: MappingProxyType({}))
    max_shard_size: int | None = None
    parts: tuple[int, ...] = ()


class Placed(NamedTuple):
    """A tensor's place in an output file: its position in `OutputSpec.tensors`, absolute offset and size in bytes.

    A tensor whose encoding has planes has one place for each, possibly in several files.
    """

    tensor: int
    offset: int
    nbytes: int
    plane: int = 0


@dataclass(frozen=True, slots=True)
class FileLayout:
    """One output file: `head` are its leading bytes, `tensors` what follows, gaps are zero bytes, `size` is all of it.

    `name` is relative to the output (a folder) or is the file's own name (a single file, or one of a split).
    """

    name: str
    head: bytes
    tensors: tuple[Placed, ...]
    size: int


@runtime_checkable
class Format(Protocol):
    """A checkpoint format. Instances are stateless.

    `folder` says whether an output is a folder (safetensors, MLX) or one file or split (GGUF).
    """

    name: str
    folder: bool

    def detect(self, path: Path) -> bool:
        """Whether `path` (a file or a folder) looks like this format; cheap, never raises on odd content.

        EnvironmentFault if that cannot be read, or does not come: it must not be taken for another format.
        """
        ...

    def open(self, path: Path) -> OpenedCheckpoint:
        """Read headers only. Raises DamagedInput, UnsupportedFormat or an EnvironmentFault."""
        ...

    def layout(self, spec: OutputSpec) -> tuple[FileLayout, ...]:
        """All files of an output, with every header byte and offset, before any weight byte is read."""
        ...

    def encoding(self, name: str) -> Encoding:
        """The encoding that `--type name` means in this format (any case); UnsupportedEncoding if it has none."""
        ...
