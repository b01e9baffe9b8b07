"""The journal beside an unfinished output: which tiles are written, with a crc32 each, and the lock that one writer holds.

    line 1      JSON: fingerprint of the plan, state of each source file
    line 2...   step first-row last-row-plus-one crc32 changed [the numbers of a Deviation]
    last line   "finished": all bytes are synced, what remains is to give the files their names

A tile counts as written only if its bytes still have that crc32 when a run resumes, so neither a torn line nor lost pages
can make a hole. The lock is a courtesy: two writers of one plan would write the same bytes.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from hubclient.deviation import Deviation
from hubclient.disk import writing
from hubclient.errors import OutputBusy

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_FINISHED = b"finished"
_UNLOCKABLE = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # some network file systems have no locks


class Entry(NamedTuple):
    """Rows [start, stop) of a step, the crc32 of their bytes, how many elements would not come back (-1: not counted), and how
    far values are off, if that is measured.
    """

    step: int
    start: int
    stop: int
    crc: int
    changed: int = -1
    deviation: Deviation | None = None


class Recorded(NamedTuple):
    """What a journal says: line 1 (empty for a new or unreadable journal), all whole entries, whether it is finished."""

    described: dict[str, Any]
    entries: list[Entry]
    finished: bool


class Journal:
    """An open, locked journal file. `close` gives up the lock and keeps the file, `remove` deletes it.

    Raises OutputBusy if another run holds the lock, NotEnoughSpace or EnvironmentFault for what the system refuses.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with writing(path):
            self._descriptor = _open_locked(path)
        _HELD.add(self)

    def read(self) -> Recorded:
        """Everything recorded. A line that a killed process left torn is cut off, so that the next one starts afresh."""
        with writing(self.path), os.fdopen(os.dup(self._descriptor), "rb") as file:
            file.seek(0)
            content = file.read()
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                os.ftruncate(self._descriptor, whole)
        head, *lines = content[:whole].split(b"\n")
        try:
            described = json.loads(head) if head else {}
        except ValueError:
            described = {}
        if not isinstance(described, dict):
            described = {}
        return Recorded(described, list(_entries(lines)), _FINISHED in lines)

    def start(self, described: dict[str, Any]) -> None:
        """Begin anew: forget all entries."""
        with writing(self.path):
            os.ftruncate(self._descriptor, 0)
        self._append(json.dumps(described).encode())

    def add(self, entry: Entry) -> None:
        """Note a written tile; one system call, so a killed process leaves whole lines or none."""
        numbers = " ".join(map(repr, entry.deviation or ()))
        self._append(b"%d %d %d %08x %d %s" % (*entry[:5], numbers.encode()))

    def finish(self) -> None:
        """Note that all bytes are on the disk; itself on the disk when this returns."""
        self._append(_FINISHED)
        with writing(self.path):
            os.fsync(self._descriptor)

    def remove(self) -> None:
        """Delete the file, then give up the lock."""
        try:
            with writing(self.path):
                self.path.unlink(missing_ok=True)
        finally:
            self.close()

    def close(self) -> None:
        """Give up the lock."""
        _HELD.discard(self)
        os.close(self._descriptor)

    def _append(self, line: bytes) -> None:
        with writing(self.path):
            os.write(self._descriptor, line + b"\n")


_HELD: weakref.WeakSet[Journal] = weakref.WeakSet()


def _let_go() -> None:
    """In a forked worker: a lock is held until its last descriptor is closed, and workers may outlive a killed parent."""
    for journal in tuple(_HELD):
        journal.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


def _entries(lines: list[bytes]) -> Iterator[Entry]:
    for line in lines:
        with contextlib.suppress(ValueError):
            step, start, stop, crc, changed, *numbers = line.split()
            yield Entry(int(step), int(start), int(stop), int(crc, 16), int(changed), _deviation(numbers))


def _deviation(numbers: list[bytes]) -> Deviation | None:
    if not numbers:
        return None
    squares, source, made, products, worst, row, column = numbers
    return Deviation(float(squares), float(source), float(made), float(products), float(worst), int(row), int(column))


def _open_locked(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        if not _lock(descriptor):
            os.close(descriptor)
            raise OutputBusy(f"{str(path).removesuffix('.partial.journal')}: another process is writing it", path)
        with contextlib.suppress(FileNotFoundError):  # the previous holder may have finished and deleted it meanwhile
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Whether nobody else holds the lock; true as well where there are no locks."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _UNLOCKABLE:
            raise
    return True
