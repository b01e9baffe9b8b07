"""What is no content: unfinished downloads, side files, temporary names of every program that writes into the cache."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from typing import Literal

from hubclient.cache.model import Leftover
from hubclient.cache.unfinished import LEDGER, PART

SYSTEM = frozenset([".DS_Store", "Thumbs.db", "desktop.ini"])  # what file managers leave; huggingface_hub passes over them
Kind = Literal["folder", "file", "link", "other"]

# huggingface_hub: `.<blob>.<8 hex>.shared|new|old`, `tmp_<uuid>`, `<ref>.<8 hex>.tmp`, mkstemp's `tmp<8>.tmp`; ours: `.<name>.<8 hex>.tmp`
_TEMPORARY = re.compile(
    r"\..+\.[0-9a-f]{8}\.(?:tmp|shared|new|old)|.+\.[0-9a-f]{8}\.tmp|tmp_[0-9a-f-]{36}|tmp\w{8}\.tmp", re.DOTALL
)
_WINDOWS = os.name == "nt"
_MOUNT_POINT = 0xA0000003  # stat.IO_REPARSE_TAG_MOUNT_POINT, which only Python for Windows has
_ENDINGS = {
    LEDGER: "ledger",
    PART: "incomplete",
    ".downloadInProgress": "incomplete",  # llama.cpp
    ".etag": "etag",  # llama.cpp: what the server called the file beside it
    ".lock": "lock",  # huggingface_hub before 0.17
}


def is_temporary(name: str) -> bool:
    """Whether it is the name of what will be renamed at once, if its writer lives."""
    return (name[0] == "." or name[:3] == "tmp" or name[-4:] == ".tmp") and _TEMPORARY.fullmatch(name) is not None


def kind_beside_blobs(name: str) -> str | None:
    """The kind of leftover that a name in `blobs/` tells; None for a blob's."""
    if "." not in name and not name.startswith("tmp"):
        return None
    told = next((kind for ending, kind in _ENDINGS.items() if name.endswith(ending)), None)
    return told or ("temporary" if is_temporary(name) else None)


def kind_beside_files(path: str) -> str | None:
    """The kind of leftover that a file in a snapshot is, which llama.cpp puts there where links are refused; None for content."""
    if path.endswith(".downloadInProgress"):
        return "incomplete"
    return "etag" if path.endswith(".etag") and os.path.lexists(path.removesuffix(".etag")) else None


def kind_of(entry: os.DirEntry[str]) -> Kind:
    """What an entry of a folder is, itself, no link followed."""
    try:
        if entry.is_symlink() or (_WINDOWS and _is_junction(entry)):
            return "link"
        if entry.is_dir(follow_symlinks=False):
            return "folder"
        return "file" if entry.is_file(follow_symlinks=False) else "other"
    except OSError:
        return "other"


def _is_junction(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder that leads elsewhere; os.path.isjunction is there from Python 3.12 on."""
    return getattr(entry.stat(follow_symlinks=False), "st_reparse_tag", 0) == _MOUNT_POINT


def leftover(path: str, name: str, kind: str) -> Iterator[Leftover]:
    """A leftover at `path`, called `name`; nothing if it has gone meanwhile, or has a name that is no text."""
    try:
        state = os.lstat(path)
        name.encode()
    except (OSError, UnicodeEncodeError):
        return
    size = _weight(path) if kind == "trash" and stat.S_ISDIR(state.st_mode) else _bytes(state)
    yield Leftover(name, kind, size, state.st_mtime)


def _weight(folder: str) -> int:
    """Bytes of the files in a folder and those inside it."""
    size = 0
    for inner, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                size += _bytes(os.lstat(os.path.join(inner, name)))
    return size


def _bytes(state: os.stat_result) -> int:
    return state.st_size if stat.S_ISREG(state.st_mode) else 0
