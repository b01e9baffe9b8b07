"""What a pull leaves that brought nothing: nothing, so that no list of what is here shows a repository without a file."""

from __future__ import annotations

import os
from contextlib import suppress

from hubclient.cache import notes
from hubclient.cache.inside import is_inside, names_inside
from hubclient.cache.layout import RepoPaths
from hubclient.cache.retention.lastlook import remove_empty_folders, remove_empty_repository
from hubclient.cache.retention.trash import Trash
from hubclient.errors import DamagedInput


def forsake(paths: RepoPaths, commit: str) -> None:
    """Remove a commit's list of files, what was noted of it and the repository's empty folders, if there is no file of any commit.

    Not while another program writes there; one that begins meanwhile waits, see `gate.py`. Nothing is raised.
    """
    trash = Trash(paths.notes / "trash", paths.cache)
    try:
        with suppress(OSError, DamagedInput):
            trash.show()
            if notes.live(paths) or any(names_inside(folder, paths.cache) for folder in (paths.blobs, paths.snapshots)):
                return
            notes.forget_revision(paths, commit)
            if is_inside(paths.tree(commit), paths.cache):
                paths.tree(commit).unlink(missing_ok=True)
            remove_empty_folders(paths, fresh=False)
    finally:
        with suppress(OSError):
            if is_inside(trash.path, paths.cache):
                os.rmdir(trash.path)
        trash.close()
    remove_empty_repository(paths, fresh=False)
