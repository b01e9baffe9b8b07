"""Reading rows of stored tensors: a bounded pool of open files, native elements or float32, any number of threads."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from hubclient.errors import EnvironmentFault, SourceChanged
from hubclient.formats import codecs
from hubclient.formats.elsewhere import elsewhere
from hubclient.model import Inline

if TYPE_CHECKING:
    import numpy as np

    from hubclient.architectures.language.arrays import Leaf
    from hubclient.formats.model import Encoding, TensorRef

    Rows = np.ndarray[Any, Any]

_OPEN_FILES = 64  # well under the usual limit of 256 (macOS) or 1024 descriptors


class FilePool:
    """Open files by path, at most `limit` at a time; a context manager that closes them."""

    def __init__(self, limit: int = _OPEN_FILES) -> None:
        self._limit = limit
        self._files: OrderedDict[Path, int] = OrderedDict()
        self._users: dict[Path, int] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> FilePool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._lock:
            for descriptor in self._files.values():
                os.close(descriptor)
            self._files.clear()

    def read_into(self, path: Path, buffer: memoryview, offset: int) -> None:
        """Fill `buffer` from `offset`; SourceChanged if the file has become too short, UsageError if it is not here."""
        if (absent := elsewhere(path)) is not None:
            buffer[:] = absent.values(offset, len(buffer))
            return
        descriptor = self._borrow(path)
        try:
            done = 0
            while done < len(buffer):
                count = os.preadv(descriptor, [buffer[done:]], offset + done)
                if count == 0:
                    raise SourceChanged(f"{path}: became shorter while it was read", path)
                done += count
        except OSError as error:
            if isinstance(error, SourceChanged):
                raise
            raise EnvironmentFault(f"{path}: cannot be read ({error.strerror})", path) from error
        finally:
            self._give_back(path)

    def _borrow(self, path: Path) -> int:
        with self._lock:
            if path not in self._files:
                self._make_room()
                try:
                    self._files[path] = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
                except OSError as error:
                    raise EnvironmentFault(f"{path}: cannot be opened ({error.strerror})", path) from error
            self._files.move_to_end(path)
            self._users[path] = self._users.get(path, 0) + 1
            return self._files[path]

    def _give_back(self, path: Path) -> None:
        with self._lock:
            self._users[path] -= 1

    def _make_room(self) -> None:
        for path in [path for path in self._files if not self._users.get(path)]:
            if len(self._files) < self._limit:
                return
            os.close(self._files.pop(path))


class Reader:
    """Rows of leaves. `native` gives unsigned integers of the element's size, or packed bytes where elements share blocks;
    `floats` gives float32.
    """

    def __init__(self, pool: FilePool) -> None:
        self._pool = pool

    def native(self, leaf: Leaf, start: int, stop: int) -> Rows:
        """Rows [start, stop): shape (rows, columns) of uint8/16/32/64, or (rows, row bytes) of uint8 for blocked encodings."""
        return _elements(self._rows(leaf.ref, leaf.columns, start, stop), leaf.ref.encoding)

    def floats(self, leaf: Leaf, start: int, stop: int) -> Rows:
        """Rows [start, stop) as float32 of shape (rows, columns)."""
        encoding = leaf.ref.encoding
        if encoding.blocked and len(leaf.shape) < 2:  # blocks run along the only axis: each is read as a row
            first, last = start // encoding.block, -(-stop // encoding.block)
            raw = self._rows(leaf.ref, encoding.block, first, last)
            values = codecs.decode(raw, encoding, encoding.block).reshape(-1, 1)
            return values[start - first * encoding.block : stop - first * encoding.block]
        return decode(self.native(leaf, start, stop), encoding, leaf.columns)

    def _rows(self, ref: TensorRef | Inline, columns: int, start: int, stop: int) -> Rows:
        """Rows [start, stop) of so many columns as uint8 (rows, row bytes): those of the planes side by side."""
        import numpy as np

        size = ref.encoding.row_bytes(columns)
        if isinstance(ref, Inline):
            return np.frombuffer(ref.data, np.uint8, (stop - start) * size, start * size).reshape(-1, size)
        if not ref.planes:
            raw = self._stretch(ref.file, ref.offset + start * size, stop - start, size)
            return codecs.byteswap(raw, ref.encoding) if ref.big_endian else raw
        rows, at = np.empty((stop - start, size), np.uint8), 0
        for plane, width in zip(ref.planes, ref.encoding.plane_row_bytes(columns), strict=True):
            rows[:, at : at + width] = self._stretch(plane.file, plane.offset + start * width, stop - start, width)
            at += width
        return rows

    def _stretch(self, file: Path, offset: int, count: int, size: int) -> Rows:
        import numpy as np

        raw = np.empty(count * size, np.uint8)
        self._pool.read_into(file, memoryview(raw.data), offset)
        return raw.reshape(count, size)


def decode(native: Rows, encoding: Encoding, columns: int) -> Rows:
    """Native rows (see `Reader.native`) as float32."""
    return codecs.decode(packed(native), encoding, columns)


def packed(native: Rows) -> Rows:
    """Native rows as the bytes they have in a file: uint8 of shape (rows, row bytes)."""
    import numpy as np

    return np.ascontiguousarray(native).view(np.uint8).reshape(len(native), native.shape[1] * native.itemsize)


def _elements(raw: Rows, encoding: Encoding) -> Rows:
    return raw if encoding.blocked else raw.view(f"u{encoding.block_bytes}")
