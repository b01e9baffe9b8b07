"""What outputs ask of the file system: files of full size, rows at their place, digests, and what is really on disk.

Every refusal of the system becomes an EnvironmentFault, a full disk NotEnoughSpace.
"""

from __future__ import annotations

import errno
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hubclient.direct import write_blocks
from hubclient.errors import EnvironmentFault, HubclientError, NotEnoughSpace

_CHUNK = 4 << 20
_BINARY = getattr(os, "O_BINARY", 0)  # Windows


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError while something is written at `path` into an error of ours."""
    try:
        yield
    except HubclientError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            told = f"{path.parent}: the disk is full; what was written stays for the same command to go on from"
            raise NotEnoughSpace(told, path) from error
        raise EnvironmentFault(f"{path}: cannot be written ({error.strerror or error})", path) from error


def create(path: Path, head: bytes, size: int) -> None:
    """A new file of `size` bytes that begins with `head`; the rest is zero, and reserved where the file system can."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as handle:
            handle.write(head)
            _allocate(handle.fileno(), size)


def write_rows(path: Path, data: Any, offset: int, crc: int = 0) -> int:
    """Write a tile's bytes at their place; returns their crc32, or that of what had `crc` followed by them."""
    view = memoryview(data).cast("B")
    with writing(path):
        start, stop = write_blocks(path, view, offset)
        descriptor = os.open(path, os.O_WRONLY | _BINARY)
        try:
            _write(descriptor, view[:start], offset)
            _write(descriptor, view[stop:], offset + stop)
        finally:
            os.close(descriptor)
    return zlib.crc32(view, crc)


def crc32_of(path: Path, offset: int, nbytes: int, crc: int = 0) -> int:
    """The crc32 of a stretch of a file, or of what had `crc` followed by it; -1 if the file is shorter."""
    with writing(path), path.open("rb") as file:
        file.seek(offset)
        while nbytes:
            data = file.read(min(_CHUNK, nbytes))
            if not data:
                return -1
            crc = zlib.crc32(data, crc)
            nbytes -= len(data)
    return crc


def begins_with(path: Path, head: bytes) -> bool:
    """Whether a file's first bytes are these."""
    with writing(path), path.open("rb") as file:
        return file.read(len(head)) == head


def has_size(path: Path, size: int) -> bool:
    """Whether `path` is a file of that many bytes."""
    with writing(path):
        return path.is_file() and path.stat().st_size == size


def allocated(path: Path) -> int:
    """Bytes that the file system has set aside for a file; 0 if there is none."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return 0
    return min(stat.st_size, getattr(stat, "st_blocks", 0) * 512)


def sync(path: Path) -> None:
    """Bring a file to the disk, or a folder's list of names (where the system can)."""
    if path.is_dir() and os.name != "posix":
        return
    with writing(path):
        descriptor = os.open(path, (os.O_RDONLY if path.is_dir() else os.O_RDWR) | _BINARY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _write(descriptor: int, view: memoryview, offset: int) -> None:
    done = 0
    while done < len(view):
        done += os.pwrite(descriptor, view[done:], offset + done)


def _allocate(descriptor: int, size: int) -> None:
    """Reserve the blocks where the file system can, so that a full disk shows now; else only set the size."""
    if hasattr(os, "posix_fallocate") and size:
        try:
            os.posix_fallocate(descriptor, 0, size)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
        else:
            return
    os.ftruncate(descriptor, size)
