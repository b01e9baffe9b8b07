"""Bytes that are on this machine, taken into a repository: to a part of its own, and hashed there before anything shows them."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from hubclient.cache.digests import Digest, digest_file, quietly
from hubclient.cache.layout import RepoPaths
from hubclient.cache.writing.placing import make_folder, storing


class Taken(NamedTuple):
    """A part with the right bytes: to be placed, or removed, by who took it; `linked` if it is another name of the source."""

    part: Path
    linked: bool


def take(source: str, paths: RepoPaths, digest: Digest, *, link: bool = False) -> Taken | None:
    """A file's bytes as a part among a repository's blobs; None if they are others than `digest` says, or have gone.

    With `link` a read-only file is ours by a second name, where that can be; one that might be written to is copied.
    EnvironmentFault, DamagedInput.
    """
    part = paths.blobs / f"{digest.hex}.{secrets.token_hex(4)}.incomplete"
    right = False
    with storing(part):
        make_folder(part.parent, paths.cache)
        try:
            linked = link and _linked(source, part)
            if not linked:
                _copy(source, part)
            right = digest_file(part, digest.algorithm) == digest
        except FileNotFoundError:
            return None
        finally:
            if not right:
                with suppress(OSError):
                    os.unlink(part)
    return Taken(part, linked) if right else None


def _linked(source: str, part: Path) -> bool:
    if os.stat(source).st_mode & 0o222:
        return False
    with suppress(OSError, NotImplementedError):
        os.link(source, part)
        return True
    return False


def _copy(source: str, part: Path) -> None:
    """Copy bytes, without moving any where the file system can share them."""
    import shutil

    with open(source, "rb", buffering=0, opener=quietly) as file, open(part, "xb", buffering=0) as copy:
        if not _shared_extents(file.fileno(), copy.fileno()):
            file.seek(0)
            copy.seek(0)
            shutil.copyfileobj(file, copy, 1 << 20)


def _shared_extents(source: int, target: int) -> bool:
    """Let the kernel copy all; False if it does not, between these file systems or on this system."""
    left = os.fstat(source).st_size
    try:
        while left > 0 and (count := os.copy_file_range(source, target, left)):
            left -= count
    except (OSError, AttributeError):
        return False
    return left <= 0
