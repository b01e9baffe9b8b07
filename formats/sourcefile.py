"""Opening source files: regular files only (links to them are fine), with faults as one sentence each."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from hubclient.errors import DamagedInput, EnvironmentFault, HubclientError, SourceMissing
from hubclient.formats.elsewhere import elsewhere, opened
from hubclient.formats.model import SourceFile


@contextmanager
def open_source(path: Path) -> Iterator[tuple[BinaryIO, os.stat_result]]:
    """`path` opened for reading, with the state of the very file that was opened.

    Raises SourceMissing, DamagedInput (a folder, a device, a pipe), or EnvironmentFault for what the system refuses;
    an OSError inside the block becomes an EnvironmentFault too.
    """
    require_regular(path)  # before opening: to open a pipe is to wait for its writer
    if (absent := elsewhere(path)) is not None:
        yield opened(absent)
        return
    with _plainly(path, "read"), path.open("rb") as file:
        state = os.fstat(file.fileno())
        _check_regular(path, state)
        yield file, state


def require_regular(path: Path) -> None:
    """Raises unless `path` is, or links to, a regular file."""
    with _plainly(path, "read"):
        _check_regular(path, path.stat())


def read_source(path: Path, limit: int) -> tuple[bytes, os.stat_result]:
    """The whole of a small file and its state; DamagedInput if it is larger than `limit` bytes, before reading it."""
    with open_source(path) as (file, state):
        if state.st_size > limit:
            raise DamagedInput(f"is {state.st_size:,} bytes, more than the {limit:,} that such a file may have", file=path)
        data = file.read(min(limit, state.st_size) + 1)  # a read reserves what it is asked for
    if len(data) > limit:
        raise DamagedInput(f"grew past {limit:,} bytes while it was read", file=path)
    return data, state


def source_file(path: Path, state: os.stat_result, header: bytes) -> SourceFile:
    """What identifies the file: its size, time, and the digest of `header` (of everything, for a small file)."""
    return SourceFile(path, state.st_size, state.st_mtime_ns, hashlib.sha256(header).hexdigest())


def is_folder(path: Path) -> bool:
    """Whether `path` is a folder; an EnvironmentFault if the system does not let us know."""
    with _plainly(path, "read"):
        return path.is_dir()


def is_file(path: Path) -> bool:
    """Whether `path` is, or links to, a regular file; an EnvironmentFault if the system does not let us know."""
    with _plainly(path, "read"):
        return path.is_file()


def listing(folder: Path) -> list[str]:
    """The names in `folder`, sorted; SourceMissing or EnvironmentFault if it cannot be listed."""
    with _plainly(folder, "listed"):
        return sorted(os.listdir(folder))


@contextmanager
def _plainly(path: Path, verb: str) -> Iterator[None]:
    """The system's refusals as errors of ours."""
    try:
        yield
    except HubclientError:
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _missing(path) from error
    except OSError as error:
        raise EnvironmentFault(f"{path}: cannot be {verb}: {error.strerror or error}", path) from error


def _check_regular(path: Path, state: os.stat_result) -> None:
    if not stat.S_ISREG(state.st_mode):
        kind = "a folder" if stat.S_ISDIR(state.st_mode) else "a device, pipe or socket"
        raise DamagedInput(f"is {kind} where a file was expected", file=path)


def _missing(path: Path) -> SourceMissing:
    if path.is_symlink():
        return SourceMissing(f"{path}: is a link to {path.readlink()}, which does not exist", path)
    return SourceMissing(f"{path}: does not exist", path)
