"""Locks that huggingface_hub takes too: a courtesy where a blob is downloaded, a must where the store for all repositories is changed."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from hubclient.cache.writing.placing import make_folder
from hubclient.errors import DamagedInput

if TYPE_CHECKING:
    from filelock import BaseFileLock

STORE_PATIENCE = 5.0  # seconds; an entry's lock is held for a moment only, unless its holder was stopped


@contextmanager
def courtesy_lock(path: Path, *, wait: bool = True, waiting: Callable[[], None] | None = None) -> Iterator[bool]:
    """Hold the lock at <cache>/.locks/<repository>/<lock> that all writers of a blob take, so that nothing is fetched twice.

    Yields True; or False, without `wait`, if somebody else holds it. Where locks do not work or cannot be written it is
    True as well: nothing may rest on a lock. `waiting` is called about every second while we wait, and may raise.
    """
    if not _has_place(path, path.parents[2]):
        yield True
        return
    from filelock import FileLock

    lock = FileLock(path, mode=0o664)
    held = _taken(lock, wait, waiting)
    try:
        yield held
    finally:
        with suppress(OSError):
            lock.release()


@contextmanager
def store_lock(path: Path) -> Iterator[bool]:
    """Hold the lock of an entry of the shared store: whether it is held. False where locks do not work, or after `STORE_PATIENCE` seconds.

    Taken as huggingface_hub 2.4 does (`_shared_blob_lock`): by a file beside it where the file system has no locks.
    """
    lock = _surely_taken(path)
    try:
        yield lock is not None
    finally:
        if lock is not None:
            with suppress(OSError):
                lock.release()


def _has_place(path: Path, cache: Path) -> bool:
    try:
        make_folder(path.parent, cache)
    except (OSError, DamagedInput):
        return False
    return not path.is_symlink()


def _taken(lock: BaseFileLock, wait: bool, waiting: Callable[[], None] | None) -> bool:
    from filelock import Timeout

    while True:
        try:
            lock.acquire(timeout=1 if wait else 0)
        except Timeout:
            if not wait:
                return False
        except (OSError, NotImplementedError):
            return True
        else:
            return True
        if waiting is not None:
            waiting()


def _surely_taken(path: Path) -> BaseFileLock | None:
    from filelock import FileLock, SoftFileLock

    lock: BaseFileLock = FileLock(path, mode=0o666)
    try:
        _make_for_everybody(path)
        try:
            lock.acquire(timeout=STORE_PATIENCE)
        except NotImplementedError:
            lock = SoftFileLock(f"{path}.soft", mode=0o666)
            lock.acquire(timeout=STORE_PATIENCE)
    except (OSError, NotImplementedError):  # a timeout is an OSError
        return None
    return lock


def _make_for_everybody(path: Path) -> None:
    """The lock's file, which all users of a shared cache may lock, whatever the umask; no link that somebody planted. OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0), 0o666)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{path} is no file")
        with suppress(OSError):
            os.chmod(descriptor, 0o666)
    finally:
        os.close(descriptor)
