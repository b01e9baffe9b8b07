"""Whether a place is really in the cache: every folder on the way is a folder, and no link that somebody planted.

Whoever may write to a cache may put a link in the place of a folder or file of it, which leads anywhere. What is read, noted
or removed here is looked at first; what a link is in the place of counts as not there.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from hubclient.errors import DamagedInput

_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENXIO}  # links (not followed), folders, sockets


def is_inside(path: Path, cache: Path) -> bool:
    """Whether nothing between the cache and `path` is a link or a file; `path` itself may be anything, or not be there.

    What cannot be looked at is not in the way: the system will say so to whoever tries.
    """
    place = os.fspath(cache)
    for part in path.relative_to(cache).parts[:-1]:
        place = os.path.join(place, part)
        try:
            state = os.lstat(place)
        except OSError:
            return True
        if not stat.S_ISDIR(state.st_mode):
            return False
    return True


def check_inside(path: Path, cache: Path) -> None:
    """DamagedInput unless `is_inside`, for what would be written or removed there."""
    if not is_inside(path, cache):
        raise DamagedInput("is not the folder that the cache has there, but reached by a link", file=path.parent)


def names_inside(folder: Path, cache: Path) -> list[str]:
    """What is in a folder of the cache, sorted; nothing if it is none, is a link, or cannot be read."""
    try:
        return sorted(os.listdir(folder)) if is_inside(folder / "any", cache) else []
    except OSError:
        return []


def read_inside(path: Path, cache: Path, limit: int) -> bytes | None:
    """The first `limit` bytes of a file of the cache; None if it is not there, or a link, or nothing that has bytes. OSError."""
    if not is_inside(path, cache) or path.is_symlink():
        return None
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(limit)
    finally:
        os.close(descriptor)


def text_inside(path: Path, cache: Path) -> str | None:
    """A small file's text without blanks around it, such as a ref's; None as for `read_inside`. OSError."""
    data = read_inside(path, cache, 4096)
    return None if data is None else data.decode("ascii", "replace").strip()
