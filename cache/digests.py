"""What the Hub calls a file by: the sha256 of its bytes (large files), or the sha1 that git gives them (all others)."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_HEX = {64: "sha256", 40: "git-sha1"}
_NAME = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_CHUNK = 1 << 20  # bytes; larger ones are no faster, and leave the processor's cache


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """`algorithm` is "sha256" or "git-sha1"; `hex` its lower-case digits."""

    algorithm: str
    hex: str

    @classmethod
    def of_name(cls, name: str) -> Digest | None:
        """The digest that a blob's name states (64 hexadecimal digits or 40); None if it states none."""
        return cls(_HEX[len(name)], name) if _NAME.fullmatch(name) else None

    def hasher(self, size: int) -> Any:
        """A hashlib object that is fed the `size` bytes of a file and ends in this digest if they are the right ones."""
        return new_hasher(self.algorithm, size)

    def __str__(self) -> str:
        return f"{self.algorithm} {self.hex}"


def new_hasher(algorithm: str, size: int) -> Any:
    """A hashlib object; git's also counts the size, which therefore must be known (git-hash-object(1))."""
    if algorithm == "sha256":
        return hashlib.sha256()
    hasher = hashlib.sha1(usedforsecurity=False)
    hasher.update(b"blob %d\0" % size)
    return hasher


def digest_file(path: Path | str, algorithm: str, progress: Callable[[int], None] | None = None) -> Digest:
    """The digest of a file's bytes, read once, in bounded memory; `progress` is called with each number of bytes.

    Raises OSError. The interpreter's lock is free while bytes are hashed, so threads use all cores.
    """
    with open(path, "rb", buffering=0, opener=quietly) as file:
        size = os.fstat(file.fileno()).st_size
        hasher = new_hasher(algorithm, size)
        buffer = bytearray(min(_CHUNK, size) or 1)
        view = memoryview(buffer)
        while count := file.readinto(buffer):
            hasher.update(view[:count])
            if progress is not None:
                progress(count)
    return Digest(algorithm, hasher.hexdigest())


def quietly(path: str, flags: int) -> int:
    """An opener that leaves the time of last access as it is where the system lets us: to look is not to use. OSError."""
    try:
        return os.open(path, flags | getattr(os, "O_NOATIME", 0))
    except PermissionError:  # only a file's owner may ask for that
        return os.open(path, flags)
