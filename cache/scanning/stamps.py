"""What a look at the disk depends on: the state of folders and small files, kept as text that is compared with the disk later.

A folder's time changes with its entries, so equal stamps mean equal names, kinds and links. Two changes within one tick of
the file system's clock leave the same time, however; what changed shortly before it was looked at is therefore never
settled (git calls this racily clean), and looked at again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

Stamp = tuple[int, int, int]  # when it was modified, when changed (nanoseconds), and its inode

ABSENT: Stamp = (-1, -1, -1)
UNSETTLED: Stamp = (0, 0, 0)  # equals no state
RACY = 2_000_000_000  # nanoseconds; the coarsest clock, that of FAT


def stamp(state: os.stat_result) -> Stamp:
    """What is another when a folder's entries are, or a file's content; no program can set the second."""
    return state.st_mtime_ns, state.st_ctime_ns, state.st_ino


def written(stamps: Mapping[str, Stamp], began: int) -> tuple[bytes, str]:
    """Paths and stamps, to keep; `began` is when the look did (`time.time_ns`)."""
    limit = began - RACY
    lines = (f"{a} {b} {c}" if a < limit and b < limit else "0 0 0" for a, b, c in stamps.values())
    return b"\0".join(map(os.fsencode, stamps)), "\n".join(lines)


def hold(cache: bytes, paths: bytes, lines: str) -> bool:
    """Whether the disk is as it was."""
    for path, line in zip(paths.split(b"\0"), lines.split("\n"), strict=True):
        try:
            state = os.lstat(cache + b"/" + path)
        except (FileNotFoundError, NotADirectoryError):
            now = "-1 -1 -1"
        except OSError:
            return False
        else:
            now = f"{state.st_mtime_ns} {state.st_ctime_ns} {state.st_ino}"
        if now != line:
            return False
    return True


def began() -> int:
    """The time, to be taken before a look."""
    return time.time_ns()
