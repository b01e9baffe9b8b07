"""The older form of importance matrices, `.dat`: entries one after the other, then how many chunks there were and of what file.

All numbers are 32 bits, little-endian. An entry is the length of its name, the name, the number of calls (chunks), the number of
values, and the values: mean squares times the number of calls. What follows the entries may be missing. Experts' values follow
each other, and nothing says how many experts there are. Source: `common_imatrix_load_legacy` in llama.cpp's common/imatrix-loader.cpp.
"""

from __future__ import annotations

import os
from pathlib import Path
from struct import Struct
from typing import BinaryIO, NamedTuple

from hubclient.errors import DamagedInput
from hubclient.formats.gguf.constants import MAX_TENSOR_NAME, MAX_TENSORS
from hubclient.formats.gguf.imatrix import MAX_NUMBERS, Entry, ImportanceMatrix, StoredEntries, check_entries, read_numbers
from hubclient.formats.sourcefile import open_source
from hubclient.ground.names import shown

_NUMBER = Struct("<i")
_MAX_DATASET = 1 << 16  # bytes of a file's name


class _Place(NamedTuple):
    """Where an entry's values are, and by how many calls they are to be divided."""

    path: Path
    offset: int
    size: int
    calls: int

    def read(self, start: int, stop: int) -> Entry:
        """The values [start, stop) as one row: sums, and the calls for their count."""
        import numpy as np

        values = read_numbers(self.path, self.offset + 4 * start, stop - start, "<f4").astype(np.float32)
        return Entry(values.reshape(1, -1), np.array([max(self.calls, 1)]))  # without calls, values are what they are


def read_dat(path: Path) -> ImportanceMatrix:
    """Read a matrix in this form; as `read_imatrix`."""
    with open_source(path) as (file, state):
        cursor = _Cursor(file, path, state.st_size)
        count = cursor.number("the number of entries")
        if not 0 < count <= MAX_TENSORS:
            told = f"neither a GGUF nor a .dat begins so (a .dat of {count} entries)"
            raise DamagedInput(f"is no importance matrix: {told}", file=path)
        places = dict(cursor.entry(index, count) for index in range(count))
        if len(places) < count:
            raise DamagedInput(f"has {count} entries of {len(places)} names; each may have one", file=path)
        chunks = cursor.number("the number of chunks") if cursor.left else 0
        dataset = cursor.text("the name of the text", _MAX_DATASET) if cursor.left else ""
    entries = StoredEntries(places)
    check_entries(path, entries)
    return ImportanceMatrix(entries, (dataset,) if dataset else (), max(chunks, 0), 0, path)


class _Cursor:
    """Reads forward, and says what is being read where the file ends too early."""

    def __init__(self, file: BinaryIO, path: Path, size: int) -> None:
        self._file, self._path, self._size = file, path, size

    @property
    def left(self) -> int:
        """Bytes that follow."""
        return self._size - self._file.tell()

    def number(self, what: str) -> int:
        """The next number."""
        return int(_NUMBER.unpack(self._take(4, what))[0])

    def text(self, what: str, limit: int) -> str:
        """The next length and as many bytes."""
        length = self.number(what)
        if not 0 <= length <= limit:
            raise DamagedInput(f"{what} has {length} bytes; up to {limit} are allowed", file=self._path)
        return self._take(length, what).decode("utf-8", "surrogateescape")

    def entry(self, index: int, total: int) -> tuple[str, _Place]:
        """The next entry's name and place; its values are passed over."""
        what = f"entry {index + 1} of {total}"
        name = self.text(f"the name of {what}", MAX_TENSOR_NAME)
        calls, count = self.number(what), self.number(what)
        if not 0 < count <= MAX_NUMBERS:
            raise DamagedInput(f"the entry {shown(name)} claims {count} values; 1 to {MAX_NUMBERS} are possible", file=self._path)
        place = _Place(self._path, self._file.tell(), count, calls)
        self._need(4 * count, f"the values of {shown(name)}")
        self._file.seek(4 * count, os.SEEK_CUR)
        return name, place

    def _take(self, count: int, what: str) -> bytes:
        self._need(count, what)
        data = self._file.read(count)
        if len(data) < count:
            raise DamagedInput("became shorter while it was read", file=self._path)
        return data

    def _need(self, count: int, what: str) -> None:
        if count > self.left:
            raise DamagedInput(f"the file ends inside {what}: {count} bytes are needed, {self.left} are left", file=self._path)
