"""Temporary folders that go with the process that made them; what a killed one leaves goes when the next is made."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from hubclient.cache.owner import Owner
from hubclient.errors import DamagedInput, EnvironmentFault
from hubclient.ground.strictjson import parse_object, write_json

PREFIX = "hubclient-"
_NOTE = "owner.json"
_NOTE_LIMIT = 1 << 16  # bytes


def make_temporary() -> Path:
    """A new folder for this user alone, with links followed, that holds a note whose it is. EnvironmentFault."""
    try:
        root = Path(os.path.realpath(tempfile.mkdtemp(prefix=PREFIX)))
        (root / _NOTE).write_bytes(write_json(asdict(Owner.this())))
    except OSError as error:
        raise EnvironmentFault(f"no temporary folder can be made ({error.strerror})", hint="TMPDIR names where") from error
    _sweep(root.parent)
    return root


def nowhere() -> Path:
    """A path in the temporary folder at which nothing is, for what is only thought of."""
    return Path(tempfile.gettempdir(), f"{PREFIX}nowhere")


def _sweep(folder: Path) -> None:
    """Remove this user's folders whose makers are known to have ended."""
    user = os.getuid() if hasattr(os, "getuid") else 0
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in list(entries):
            with suppress(OSError):
                own = entry.name.startswith(PREFIX) and entry.is_dir(follow_symlinks=False)
                if own and entry.stat(follow_symlinks=False).st_uid == user and _is_left(Path(entry.path)):
                    shutil.rmtree(entry.path, ignore_errors=True)


def _is_left(root: Path) -> bool:
    try:
        with (root / _NOTE).open("rb") as file:
            return Owner.of(parse_object(file.read(_NOTE_LIMIT), root / _NOTE)).alive is False
    except (OSError, DamagedInput):
        return False
