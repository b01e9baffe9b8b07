"""The journal beside an unfinished output: which tiles are written, with a crc32 each, and the lock that one writer holds.

    line 1      JSON: fingerprint of the plan, state of the sources
    line 2...   step first-row last-row-plus-one crc32

A tile counts as written only if its bytes still have that crc32 when a run resumes, so neither a torn line nor lost pages
can make a hole. The lock is a courtesy: two writers of one plan would write the same bytes.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from hubclient.errors import OutputBusy

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


class Entry(NamedTuple):
    """Rows [start, stop) of a step, and the crc32 of their bytes."""

    step: int
    start: int
    stop: int
    crc: int


class Journal:
    """An open, locked journal file. `close` gives up the lock and keeps the file, `remove` deletes it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = _open_locked(path)

    def read(self) -> tuple[dict[str, str], list[Entry]]:
        """The first line (empty for a new or unreadable journal) and all whole entries."""
        with os.fdopen(os.dup(self._descriptor), "rb") as file:
            file.seek(0)
            head, *lines = file.read().split(b"\n")
        try:
            described = json.loads(head) if head else {}
        except ValueError:
            described = {}
        return (described if isinstance(described, dict) else {}), list(_entries(lines[:-1]))

    def start(self, described: dict[str, str]) -> None:
        """Begin anew: forget all entries."""
        os.ftruncate(self._descriptor, 0)
        os.write(self._descriptor, json.dumps(described).encode() + b"\n")

    def add(self, entry: Entry) -> None:
        """Note a written tile; one system call, so a killed process leaves whole lines or none."""
        os.write(self._descriptor, b"%d %d %d %08x\n" % entry)

    def remove(self) -> None:
        """Delete the file, then give up the lock."""
        self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Give up the lock."""
        os.close(self._descriptor)


def _entries(lines: list[bytes]) -> Iterator[Entry]:
    for line in lines:
        with contextlib.suppress(ValueError):
            step, start, stop, crc = line.split()
            yield Entry(int(step), int(start), int(stop), int(crc, 16))


def _open_locked(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            if fcntl is not None:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise OutputBusy(f"{path.name.removesuffix('.partial.journal')}: another process is writing it", path) from None
        with contextlib.suppress(FileNotFoundError):  # the previous holder may have finished and deleted it meanwhile
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        os.close(descriptor)
