"""Importance matrices: how much each column of a weight matters, as llama-imatrix counts it and llama-quantize uses it.

A matrix is a GGUF whose tensors are, for every weight that was measured, `NAME.in_sum2` (sums of squares of what the weight was
multiplied by, a row for each matrix in it: an expert) and `NAME.counts` (how many tokens went into each row). The older form,
`.dat`, is read as well (`imatrix_dat`). Sources: llama.cpp's tools/imatrix, common/imatrix-loader.cpp, tools/quantize.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from hubclient.errors import DamagedInput
from hubclient.formats.encodings import F32
from hubclient.formats.gguf.constants import MAGIC
from hubclient.formats.gguf.reader import Header, read_header
from hubclient.formats.gguf.writer import layout_files
from hubclient.formats.model import FileLayout, OutputSpec, TensorRef, TensorSpec, Value
from hubclient.formats.sourcefile import open_source
from hubclient.ground.names import shown

if TYPE_CHECKING:
    import numpy as np

    Numbers = np.ndarray[Any, Any]

SUMS, COUNTS = ".in_sum2", ".counts"
TYPE, DATASETS, CHUNKS, CHUNK_SIZE = "general.type", "imatrix.datasets", "imatrix.chunk_count", "imatrix.chunk_size"
MAX_NUMBERS = 1 << 27  # in one entry: 1024 experts of 131,072 columns
MAX_COUNT = 1 << 53  # tokens; float64 counts so far
_EMBEDDING = "token_embd.weight"  # looked up, not multiplied: llama-quantize ignores entries that do not fit it
_TEXT = 127  # bytes that llama-quantize keeps of a file's name


@dataclass(frozen=True, slots=True)
class Entry:
    """What one weight was multiplied by: `sums` of squares, float32 (matrices, columns), over `counts` tokens, int64 (matrices,).

    The matrices are a weight's experts. A weight of several matrices that all tokens go through has one row here, in which
    the matrices' columns follow each other, and so has everything in a `.dat`.
    """

    sums: Numbers
    counts: Numbers

    @property
    def values(self) -> Numbers:
        """What llama-quantize weighs errors with: mean squares, float32 (matrices, columns); 1 where no token came by."""
        import numpy as np

        counts = self.counts.astype(np.float32)[:, None]
        return np.where(counts > 0, self.sums / np.maximum(counts, 1), np.float32(1))

    @property
    def used(self) -> int:
        """How many of the matrices any token went through."""
        return int((self.counts > 0).sum())


@dataclass(frozen=True, slots=True)
class ImportanceMatrix:
    """Entries by GGUF tensor name, and what text they come from: its files, and how many chunks of how many tokens.

    `chunk_size` is 0 where the file does not say (`.dat`). `source` is the file, if there is one. Entries of a file are
    read when they are asked for.
    """

    entries: Mapping[str, Entry]
    datasets: tuple[str, ...]
    chunks: int
    chunk_size: int
    source: Path | None = None

    def knows(self, name: str, shape: tuple[int, ...]) -> bool:
        """Whether there is an entry for a tensor of this row-major shape.

        Raises DamagedInput if it is of another size; for the token embedding such a one is ignored.
        """
        if name not in self.entries:
            return False
        size, (matrices, columns) = _size(self.entries, name), _sizes(shape)
        if size != matrices * columns and name != _EMBEDDING:
            raise DamagedInput(_misfit(name, size, matrices, columns), file=self.source, tensor=name)
        return size == matrices * columns

    def weights(self, name: str, shape: tuple[int, ...], first: int = 0, last: int | None = None) -> Numbers | None:
        """Mean squares for the columns of a tensor of this row-major shape, of its matrices [first, last): float32 (matrices,
        columns), None if not known. Nothing else is read. Raises as `knows` does.
        """
        if not self.knows(name, shape):
            return None
        matrices, columns = _sizes(shape)
        start, stop = first * columns, (matrices if last is None else last) * columns
        if isinstance(self.entries, StoredEntries):
            return self.entries.part(name, start, stop).values.reshape(-1, columns)
        return _part(self.entries[name], start, stop).values.reshape(-1, columns)

    def alone(self, name: str) -> ImportanceMatrix:
        """The same without all other entries."""
        entries = self.entries.alone(name) if isinstance(self.entries, StoredEntries) else {name: self.entries[name]}
        return replace(self, entries=entries)


def read_imatrix(path: Path) -> ImportanceMatrix:
    """Read a matrix in either form; all numbers are checked now and read again when they are asked for.

    Raises DamagedInput for what is truncated, contradictory, negative or not finite, and EnvironmentFaults.
    """
    with open_source(path) as (file, _):
        is_gguf = file.read(len(MAGIC)) == MAGIC
    if not is_gguf:
        from hubclient.formats.gguf.imatrix_dat import read_dat

        return read_dat(path)
    header = read_header(path)
    datasets, chunks, chunk_size = _described(header)
    entries = StoredEntries(_pairs(header))
    check_entries(path, entries)
    return ImportanceMatrix(entries, datasets, chunks, chunk_size, path)


def lay_out_imatrix(matrix: ImportanceMatrix, name: str) -> FileLayout:
    """Head and places of a GGUF called `name` with the same bytes as llama-imatrix would write; `imatrix_data` has the rest."""
    metadata = {
        TYPE: Value("str", "imatrix"),
        DATASETS: Value("[str]", list(matrix.datasets)),
        CHUNKS: Value("u32", matrix.chunks),
        CHUNK_SIZE: Value("u32", matrix.chunk_size),
    }
    specs = []
    for tensor in _sorted(matrix.entries):
        rows, columns = matrix.entries[tensor].sums.shape
        specs.append(TensorSpec(tensor + SUMS, (rows, columns) if rows > 1 else (columns,), F32))
        specs.append(TensorSpec(tensor + COUNTS, (rows, 1) if rows > 1 else (1,), F32))
    (layout,) = layout_files(OutputSpec(name, tuple(specs), metadata))
    return layout


def imatrix_data(matrix: ImportanceMatrix) -> Iterator[bytes]:
    """The bytes of each tensor of `lay_out_imatrix`, in that order."""
    for name in _sorted(matrix.entries):
        entry = matrix.entries[name]
        yield entry.sums.astype("<f4").tobytes()
        yield entry.counts.astype("<f4").tobytes()


def check_fits(matrix: ImportanceMatrix, shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, ...]:
    """Hold a matrix against the GGUF tensors of a model (row-major shapes by name).

    Returns the matrices of blocks that it says nothing about, which are quantised without importance. Raises DamagedInput
    if it is another model's: it knows tensors that this model lacks, or of other sizes.
    """
    strange = [name for name in _sorted(matrix.entries) if name not in shapes]
    if strange:
        told = f"{strange[0]}{f' and {len(strange) - 1} more' if len(strange) > 1 else ''}"
        raise DamagedInput(f"is the importance matrix of another model: this one has no {told}", file=matrix.source)
    for name in matrix.entries:
        size, (rows, columns) = _size(matrix.entries, name), _sizes(shapes[name])
        if size != rows * columns and name != _EMBEDDING:
            told = _misfit(name, size, rows, columns)
            raise DamagedInput(f"is the importance matrix of another model: {told}", file=matrix.source, tensor=name)
    unknown = (name for name in shapes if name not in matrix.entries)
    return tuple(name for name in unknown if name.startswith("blk.") and len(shapes[name]) > 1)


def recorded(matrix: ImportanceMatrix, file: str) -> dict[str, Value]:
    """The metadata keys by which llama-quantize says which matrix it used; `file` is its name as the user gave it."""
    keys = {"quantize.imatrix.file": Value("str", _cut(file))}
    if matrix.datasets:
        keys["quantize.imatrix.dataset"] = Value("str", _cut(matrix.datasets[0]))
    keys["quantize.imatrix.entries_count"] = Value("u32", len(matrix.entries))
    if matrix.chunks > 0:
        keys["quantize.imatrix.chunks_count"] = Value("u32", matrix.chunks)
    return keys


class StoredEntry(Protocol):
    """An entry in a file."""

    @property
    def size(self) -> int:
        """How many sums it has."""

    def read(self, start: int, stop: int) -> Entry:
        """The sums [start, stop), which follow each other row by row, and the counts that go with them."""


class StoredEntries(Mapping[str, Entry]):
    """Entries that stay in their file."""

    def __init__(self, places: Mapping[str, StoredEntry]) -> None:
        self._places = places

    def __getitem__(self, name: str) -> Entry:
        return self._places[name].read(0, self._places[name].size)

    def part(self, name: str, start: int, stop: int) -> Entry:
        """As `StoredEntry.read`."""
        return self._places[name].read(start, stop)

    def size(self, name: str) -> int:
        """How many sums an entry has; nothing is read."""
        return self._places[name].size

    def alone(self, name: str) -> StoredEntries:
        """That entry and no other."""
        return StoredEntries({name: self._places[name]})

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def check_entries(path: Path, entries: Mapping[str, Entry]) -> None:
    """Refuse a file without entries, and numbers that no sum of squares is."""
    import numpy as np

    if not entries:
        raise DamagedInput("holds no entries, so there is no importance in it", file=path)
    for name, entry in entries.items():
        fault = ~((entry.sums >= 0) & np.isfinite(entry.sums))
        if fault.any():
            row, column = np.argwhere(fault)[0]
            told = f"the entry {shown(name)} has {entry.sums[row, column]} in column {column}, which is no sum of squares"
            raise DamagedInput(told, file=path, tensor=name)


def read_numbers(path: Path, offset: int, count: int, kind: str) -> Numbers:
    """`count` numbers of a numpy type at `offset`. DamagedInput if the file has become too short."""
    import numpy as np

    with open_source(path) as (file, _):
        file.seek(offset)
        data = file.read(count * np.dtype(kind).itemsize)
    if len(data) < count * np.dtype(kind).itemsize:
        raise DamagedInput("became shorter while it was read", file=path)
    return np.frombuffer(data, kind)


def _described(header: Header) -> tuple[tuple[str, ...], int, int]:
    """Datasets, chunks and chunk size. llama-quantize refuses files that lack one of these keys."""
    path, metadata = header.file.path, header.metadata
    stated = metadata.get(TYPE)
    if stated is not None and stated.value != "imatrix":
        raise DamagedInput(f"is no importance matrix: its {TYPE} is {shown(stated.value)}", file=path)
    for key, kind in ((DATASETS, "[str]"), (CHUNKS, "u32"), (CHUNK_SIZE, "u32")):
        if key not in metadata:
            raise DamagedInput(f"is no whole importance matrix: the key {key} is missing", file=path)
        if metadata[key].type != kind:
            raise DamagedInput(f"{key} is of type {metadata[key].type}, it has to be {kind}", file=path)
    return tuple(metadata[DATASETS].value), int(metadata[CHUNKS].value), int(metadata[CHUNK_SIZE].value)


def _pairs(header: Header) -> dict[str, _Pair]:
    """Sums and counts of each entry, by name; tensors of other kinds are not read by llama-quantize either."""
    path, found = header.file.path, header.tensors
    names = {name.removesuffix(end): None for name in found for end in (SUMS, COUNTS) if name.endswith(end)}
    pairs = {}
    for name in names:
        for end in (SUMS, COUNTS):
            if name + end not in found:
                raise DamagedInput(f"the entry {shown(name)} has no tensor {shown(name + end)}", file=path, tensor=name)
            if found[name + end].encoding != F32:
                told = f"the tensor {shown(name + end)} is stored as {found[name + end].encoding}, it has to be F32"
                raise DamagedInput(told, file=path, tensor=name)
        pairs[name] = _Pair(found[name + SUMS], found[name + COUNTS])
        _check_sizes(path, name, *(ref.nbytes // 4 for ref in pairs[name]))
    return pairs


def _check_sizes(path: Path, name: str, sums: int, counts: int) -> None:
    if not 0 < sums <= MAX_NUMBERS or not counts or sums % counts:
        raise DamagedInput(f"the entry {shown(name)} has {sums} sums and {counts} counts, which do not go together", file=path)


class _Pair(NamedTuple):
    """Where the sums and counts of an entry are."""

    sums: TensorRef
    counts: TensorRef

    @property
    def size(self) -> int:
        return self.sums.nbytes // 4

    def read(self, start: int, stop: int) -> Entry:
        import numpy as np

        columns = self.size // (self.counts.nbytes // 4)
        first, last = start // columns, -(-stop // columns)
        exact = _numbers(self.counts, first, last).astype(np.float64)
        if not ((exact >= 0) & (exact < MAX_COUNT)).all():
            name = self.counts.name
            raise DamagedInput(f"the tensor {shown(name)} holds numbers that count no tokens", file=self.counts.file, tensor=name)
        rounded = np.floor(exact + 0.5).astype(np.int64)  # as lround, for what is not negative
        if last - first == 1:
            return Entry(_numbers(self.sums, start, stop).reshape(1, -1), rounded)
        whole = Entry(_numbers(self.sums, first * columns, last * columns).reshape(-1, columns), rounded)
        return _part(whole, start - first * columns, stop - first * columns)


def _numbers(ref: TensorRef, start: int, stop: int) -> Numbers:
    import numpy as np

    return read_numbers(ref.file, ref.offset + 4 * start, stop - start, ">f4" if ref.big_endian else "<f4").astype(np.float32)


def _part(entry: Entry, start: int, stop: int) -> Entry:
    """The sums [start, stop), which follow each other row by row, in rows that are whole, or else each in a row of its own."""
    import numpy as np

    columns = entry.sums.shape[1]
    if start % columns == 0 == stop % columns:
        rows = slice(start // columns, stop // columns)
        return Entry(entry.sums[rows], entry.counts[rows])
    return Entry(entry.sums.reshape(-1, 1)[start:stop], entry.counts[np.arange(start, stop) // columns])


def _sorted(names: Mapping[str, Any]) -> list[str]:
    """In the order in which llama-imatrix writes them: by bytes."""
    return sorted(names, key=lambda name: name.encode("utf-8", "surrogateescape"))


def _size(entries: Mapping[str, Entry], name: str) -> int:
    """How many sums an entry has."""
    return entries.size(name) if isinstance(entries, StoredEntries) else entries[name].sums.size


def _sizes(shape: tuple[int, ...]) -> tuple[int, int]:
    """Matrices and columns of a tensor: ggml's ne[2] and ne[0]."""
    return (shape[-3] if len(shape) > 2 else 1), (shape[-1] if shape else 1)


def _misfit(name: str, size: int, matrices: int, columns: int) -> str:
    wanted = f"{columns} columns" if matrices == 1 else f"{matrices} experts of {columns} columns"
    return f"its entry {name} has {size} numbers where the tensor has {wanted}"


def _cut(text: str) -> str:
    return text.encode("utf-8", "surrogateescape")[:_TEXT].decode("utf-8", "surrogateescape")
