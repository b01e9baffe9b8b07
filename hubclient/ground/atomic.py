"""A small file replaced in one step: a reader, or a crash, meets the old content or the new one, never half of it."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

_BINARY = getattr(os, "O_BINARY", 0)  # Windows


def replace_file(path: Path, data: bytes, *, mode: int = 0o666, durable: bool = True, through: Path | None = None) -> None:
    """Make `path` hold `data`; its folder must be there. `mode` is narrowed by the umask.

    A `durable` content is on the disk before the name shows it. `through` is a folder of the same file system for what is
    not yet complete, where others would take a file beside `path` for theirs. Raises OSError.
    """
    temporary = (through or path.parent) / temporary_name(path.name)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, mode)
    try:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def temporary_name(name: str) -> str:
    """What is not yet `name`, but will be."""
    return f".{name[:200]}.{secrets.token_hex(4)}.tmp"
