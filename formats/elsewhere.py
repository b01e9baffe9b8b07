"""Files whose bytes lie elsewhere: an empty placeholder stands where each would be, and what is read of it is fetched.

A checkpoint on the Hub is opened so, by its headers alone. Whoever reads a source (`sourcefile.open_source`, the engine's
`FilePool`) asks here first; for everybody else a placeholder is an empty file, so that nothing can take it for weights.
"""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from hubclient.errors import UsageError


class Elsewhere(Protocol):
    """A file that is not here; `told` is what to call it."""

    @property
    def told(self) -> str:
        """Its name for people."""
        ...

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        ...

    def read(self, offset: int, count: int) -> bytes:
        """So many bytes of the header, or of a small file; `offset + count` is at most `size`."""
        ...

    def values(self, offset: int, count: int) -> bytes:
        """So many bytes of a tensor that planning looks at. UsageError for more than that."""
        ...


_FILES: dict[Path, Elsewhere] = {}


def put_up(path: Path, file: Elsewhere) -> None:
    """Make a placeholder for `file` at `path`, whose folder is there and whose links are followed."""
    path.touch()
    _FILES[path] = file


def take_down(path: Path) -> None:
    """Forget the placeholder at `path`; the empty file is its maker's to remove."""
    _FILES.pop(path, None)


def elsewhere(path: Path) -> Elsewhere | None:
    """The file that the placeholder at `path` stands for; None if what is there is the file itself."""
    return _FILES.get(path) if _FILES else None


def refuse_values(path: Path) -> None:
    """UsageError if the weights in the file at `path` are not here."""
    file = elsewhere(path)
    if file is not None:
        raise not_here(file.told)


def not_here(told: str) -> UsageError:
    """What to say to whoever wants weights of which only headers were fetched."""
    return UsageError(f"{told}: only its headers were fetched, its weights are not here", hint="with_weights() fetches them")


def opened(file: Elsewhere) -> tuple[BinaryIO, os.stat_result]:
    """The file as if it were here, opened for reading, and its state; its time is always the same."""
    state = os.stat_result((stat.S_IFREG | 0o444, 0, 0, 1, 0, 0, file.size, 0, 0, 0), {"st_mtime_ns": 0})
    return cast("BinaryIO", _View(file)), state


class _View(io.RawIOBase):
    """Each read is answered in full, as far as the file goes."""

    def __init__(self, file: Elsewhere) -> None:
        self._file, self._at = file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._file.size}[whence]
        self._at = start + offset
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        count = max(0, min(len(buffer), self._file.size - self._at))
        data = self._file.read(self._at, count) if count else b""
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
