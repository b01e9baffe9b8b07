"""What this process does in a folder that it has no business in: told by the interpreter's own audit events (PEP 578)."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_FOLLOWING = {"open", "os.listdir", "os.scandir", "os.chmod", "os.chown", "os.truncate", "os.chdir", "os.walk"}
_NAMES = {"os.utime", "os.mkdir", "os.rmdir", "os.remove", "os.rename", "os.link", "os.symlink", "shutil.rmtree", "shutil.move"}

_folder = ""
_seen: list[str] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    """Notes events whose paths, links followed as the call would, lie in the folder. Hooks stay; this one rests without a folder."""
    if not _folder or (event not in _FOLLOWING and event not in _NAMES):
        return
    follows = event in _FOLLOWING
    if event == "open" and len(arguments) > 2 and isinstance(arguments[2], int):
        follows = not arguments[2] & getattr(os, "O_NOFOLLOW", 0)
    for path in arguments[:2] if event in ("os.rename", "os.link") else arguments[:1]:
        if isinstance(path, str | bytes | os.PathLike):
            name = os.path.abspath(os.fsdecode(path))
            place = os.path.realpath(name if follows else os.path.dirname(name))
            if place == _folder or place.startswith(_folder + os.sep):
                _seen.append(f"{event} {name}")


sys.addaudithook(_hook)


@contextmanager
def watching(folder: Path) -> Iterator[list[str]]:
    """Collects what is opened, listed, changed, made or removed in a folder."""
    global _folder
    _seen.clear()
    _folder = os.path.realpath(folder)
    try:
        yield _seen
    finally:
        _folder = ""
