"""Where things are put before they are removed: one rename, and nobody sees them any more; what a killed removal left is told by name.

Each removal has a folder of its own in a trash folder, named after its process, so that another one can tell whether it
still runs (`abandoned`) and finish what it began.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

from hubclient.cache.inside import check_inside
from hubclient.cache.notes import FORGOTTEN
from hubclient.cache.owner import Owner
from hubclient.cache.writing.placing import make_folder

_NAME = re.compile(r"(\d+)\.(\d+)\.([0-9a-f]{16})\.[0-9a-f]{8}")
_RUNNING: set[str] = set()  # folders of this process's own removals
_LONG = 512  # bytes of a path; systems take 1024 and more, and a name has 255
_WINDOWS = os.name == "nt"


class Trash:
    """A removal's folder in the trash folder `root`; it is made when something is put into it."""

    def __init__(self, root: Path, cache: Path) -> None:
        this = Owner.this()
        self.path = root / f"{this.pid}.{this.started}.{_place(this)}.{secrets.token_hex(4)}"
        self._cache = cache
        _RUNNING.add(self.path.name)

    def show(self) -> None:
        """Let writers see that a removal runs: from now on to the end. OSError, DamagedInput."""
        make_folder(self.path, self._cache)

    def take(self, path: Path, *under: str) -> Path:
        """Rename something of the cache into the trash, where its folder is `under`. OSError, DamagedInput."""
        check_inside(path, self._cache)
        folder = self.path.joinpath(*under)
        make_folder(folder, self._cache)
        os.rename(path, folder / path.name)
        return folder / path.name

    def empty(self, gained: Callable[[int], None]) -> None:
        """Remove all that is in it, and the folder. OSError."""
        if os.path.lexists(self.path):
            erase(self.path, gained)

    def close(self) -> None:
        """Say that this process does no more with it: what is left is for the next removal."""
        _RUNNING.discard(self.path.name)


def abandoned(folder: Path) -> bool:
    """Whether the removal that a folder in the trash belongs to has ended; one that cannot be asked has after a day."""
    known = _ended(folder)
    return time.time() - os.lstat(folder).st_mtime > FORGOTTEN if known is None else known


def _ended(folder: Path) -> bool | None:
    """Whether its removal has; None if that cannot be asked."""
    named = _NAME.fullmatch(folder.name)
    this = Owner.this()
    if named and named[3] == _place(this):
        if int(named[1]) == this.pid and int(named[2]) == this.started:
            return folder.name not in _RUNNING
        alive = Owner(this.host, this.space, int(named[1]), int(named[2])).alive
        return None if alive is None else not alive
    return None


def running(root: Path, *, surely: bool = False) -> bool:
    """Whether there is a removal in a trash folder that has not ended; `surely`: one that says so itself when it is asked."""
    names = []
    with suppress(OSError):  # none, or all of it has gone
        names = os.listdir(root)
    for name in names:
        with suppress(OSError):  # this one has gone meanwhile
            if _ended(root / name) is False if surely else not abandoned(root / name):
                return True
    return False


def erase(path: str | Path, gained: Callable[[int], None]) -> None:
    """Remove a file, or a folder and all in it, no link followed; `gained` is told what the disk gains, file by file. OSError."""
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        gained(unlink(path))
        return
    folders = [os.fspath(path)]
    for folder in folders:  # grows while it is gone through: as deep as it may be
        if not os.access(folder, os.W_OK | os.X_OK):
            os.chmod(folder, stat.S_IRWXU)
        with os.scandir(folder) as found:
            for entry in list(found):
                if entry.is_dir(follow_symlinks=False):
                    folders.append(_within_reach(entry.path, folders[0]))
                else:
                    gained(unlink(entry.path))
    for folder in reversed(folders):
        os.rmdir(folder)


def _within_reach(folder: str, top: str) -> str:
    """Where a folder inside `top` is: moved up into that if the paths in it may become longer than the system takes. OSError."""
    if len(os.fsencode(folder)) <= _LONG or os.path.dirname(folder) == top:
        return folder
    os.chmod(folder, stat.S_IRWXU)
    moved = os.path.join(top, f".{secrets.token_hex(8)}")
    os.rename(folder, moved)
    return moved


def unlink(path: str | Path) -> int:
    """Remove a file or link; the bytes that the disk gains, none if the file has other names. OSError."""
    state = os.lstat(path)
    if _WINDOWS and not stat.S_ISLNK(state.st_mode):
        os.chmod(path, stat.S_IWRITE)  # what is read-only cannot be removed there
    os.unlink(path)
    return state.st_size if stat.S_ISREG(state.st_mode) and state.st_nlink <= 1 else 0


def _place(owner: Owner) -> str:
    """The machine and what numbers its processes, as part of a file's name."""
    return blake2b(f"{owner.host}\n{owner.space}".encode(), digest_size=8).hexdigest()
