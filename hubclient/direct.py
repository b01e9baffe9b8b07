"""Writing past the page cache, where the system can.

An output is larger than what anybody reads next, often than the memory. In the page cache it takes an allocation and a copy
per page, drives out files that are in use, and waits there to be written at the end all the same. Measured on a virtual
machine that has to fetch free memory back from its host: 2.2 GB in 4 s by way of the cache, in 1 s past it.
"""

from __future__ import annotations

import errno
import mmap
import os
import threading
from pathlib import Path

_BLOCK = max(4096, mmap.PAGESIZE)  # offsets, lengths and addresses are multiples of it; the blocks of disks are no larger
_STAGE = 4 << 20
_LEAST = 1 << 17  # less than this is not worth a wait for the disk
_FLAG = getattr(os, "O_DIRECT", None)  # Linux and other Unix systems, but not macOS
_UNABLE = (errno.EINVAL, errno.EOPNOTSUPP)  # file systems that cannot, or ask for larger blocks


class _Stage(threading.local):
    """Memory at a block's boundary, one for each thread: rows begin where the file's layout has them begin."""

    def __init__(self) -> None:
        self.memory = memoryview(mmap.mmap(-1, _STAGE))


_stage = _Stage()


def write_blocks(path: Path, view: memoryview, offset: int) -> tuple[int, int]:
    """Write the whole blocks of `view`, which belongs at `offset` of the file at `path`; returns where in it they begin and end.

    What is before and after them, or all if this returns (0, 0), is left to be written by way of the page cache. Such
    pieces share no page with the blocks, so that the two ways do not meet.
    """
    start = -offset % _BLOCK
    stop = start + (len(view) - start) // _BLOCK * _BLOCK
    if _FLAG is None or stop - start < _LEAST:
        return 0, 0
    try:
        descriptor = os.open(path, os.O_WRONLY | _FLAG)
    except OSError as error:
        if error.errno not in _UNABLE:
            raise
        return 0, 0
    try:
        return start, _write(descriptor, view, start, stop, offset)
    finally:
        os.close(descriptor)


def _write(descriptor: int, view: memoryview, start: int, stop: int, offset: int) -> int:
    """Write view[start:stop], as far as possible; returns how far that was."""
    while start < stop:
        part = view[start : min(start + _STAGE, stop)]
        _stage.memory[: len(part)] = part
        try:
            start += os.pwrite(descriptor, _stage.memory[: len(part)], offset + start)
        except OSError as error:
            if error.errno not in _UNABLE:
                raise
            break
    return start
