"""Folders and small files of a cache, read so that nothing blocks, raises or is followed, with a stamp of each."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from hubclient.cache.scanning.leftovers import kind_of
from hubclient.cache.scanning.stamps import ABSENT, UNSETTLED, Stamp, stamp


class Reader:
    """What was read so far: `stamps` by path in the cache, `warnings`, and the folders that are `unread` though they are there."""

    def __init__(self, cache: str) -> None:
        self.stamps: dict[str, Stamp] = {}
        self.warnings: list[str] = []
        self.unread: list[str] = []
        self._cache = cache

    def walk(self, folder: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
        """All that lies in a folder and those inside it, but for folders, with the name from there."""
        inner = [""]
        while inner:
            prefix = inner.pop()
            for entry in self.entries(f"{folder}/{prefix}"[:-1] if prefix else folder):
                name = prefix + entry.name
                if kind_of(entry) != "folder":
                    yield name, entry
                else:
                    inner.append(f"{name}/")

    def entries(self, folder: str) -> list[os.DirEntry[str]]:
        """What is in a folder, which is stamped before; nothing, with a warning, if it cannot be read."""
        path = f"{self._cache}/{folder}"
        try:
            state = os.lstat(path)
            self.stamps[folder] = stamp(state)
            if not stat.S_ISDIR(state.st_mode):
                self.warn(folder, "is no folder")
                return []
            with os.scandir(path) as found:
                return list(found)
        except FileNotFoundError:
            self.stamps[folder] = ABSENT
        except OSError as error:
            self.stamps[folder] = UNSETTLED
            self.unread.append(folder)
            self.warn(folder, f"cannot be read ({error.strerror})")
        return []

    def content(self, where: str, limit: int) -> bytes | None:
        """The bytes of a small file, None if it is none. What blocks, or is a link, is none."""
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        try:
            descriptor = os.open(f"{self._cache}/{where}", flags)
        except OSError:
            self.stamps[where] = UNSETTLED
            return None
        try:
            state = os.fstat(descriptor)
            self.stamps[where] = stamp(state)
            if not stat.S_ISREG(state.st_mode) or state.st_size > limit:
                return None
            return os.read(descriptor, state.st_size)
        except OSError:
            return None
        finally:
            os.close(descriptor)

    def seen(self, where: str, state: os.stat_result | None) -> None:
        """Stamp a place on the way of a link."""
        self.stamps.setdefault(where, ABSENT if state is None else stamp(state))

    def is_text(self, folder: str, name: str) -> bool:
        """Whether a name can be written down; it is told if not."""
        if name.isascii():
            return True
        try:
            name.encode()
        except UnicodeEncodeError:
            self.warn(f"{folder}/{name}", "is not a name in UTF-8; it is left alone")
            return False
        return True

    def warn(self, where: str, fault: str) -> None:
        """Tell a fault of a place in the cache; what is no text in its name is escaped."""
        self.warnings.append(f"{told(where)}: {fault}")


def told(text: str) -> str:
    """A name for a sentence: what is no text is escaped."""
    return text.encode("utf-8", "backslashreplace").decode()
