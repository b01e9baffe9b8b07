"""Bytes that are in this cache already: in the store that repositories share, or as another repository's blob."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

from hubclient.cache.layout import RepoId, RepoPaths
from hubclient.cache.sharedstore import link_from_store
from hubclient.cache.trees import TreeEntry
from hubclient.cache.writing.copying import take
from hubclient.cache.writing.placing import place_blob
from hubclient.ground.environment import switched_on
from hubclient.ground.faultpoints import reach


def take_from_here(paths: RepoPaths, entry: TreeEntry) -> Literal["linked", "copied"] | None:
    """Make the blob from bytes in this cache, which are hashed before; None if it has none that are right. DamagedInput."""
    blob = paths.blob(entry.etag)
    unshared = switched_on("HF_HUB_DISABLE_SHARED_BLOBS")
    if entry.xet_hash and not unshared and link_from_store(blob, entry.xet_hash, paths.cache, entry.digest, entry.size):
        return "linked"
    for other in _same_name(paths, entry):
        with suppress(OSError):
            how = _take(other, paths, entry)
            if how is not None:
                return how
    return None


def _same_name(paths: RepoPaths, entry: TreeEntry) -> Iterator[str]:
    """Other repositories' blobs of this digest and size: files of their own, in folders that are no links."""
    if entry.lfs_sha256 is None:
        return  # small files
    with suppress(OSError), os.scandir(paths.cache) as folders:
        for folder in folders:
            if (
                folder.name == paths.repo.folder
                or RepoId.of_folder(folder.name) is None
                or not folder.is_dir(follow_symlinks=False)
            ):
                continue
            with suppress(OSError):
                state = os.lstat(f"{folder.path}/blobs/{entry.etag}")
                if stat.S_ISREG(state.st_mode) and state.st_size == entry.size and not Path(folder.path, "blobs").is_symlink():
                    yield f"{folder.path}/blobs/{entry.etag}"


def _take(other: str, paths: RepoPaths, entry: TreeEntry) -> Literal["linked", "copied"] | None:
    """Make the blob from another repository's, whose own it stays; None if its bytes are others. EnvironmentFault, DamagedInput."""
    taken, blob = take(other, paths, entry.digest, link=True), paths.blob(entry.etag)
    if taken is None:
        return None
    try:
        reach("pull.taken")
        if taken.linked:
            taken.part.replace(blob)  # as it is: its mode is that of the other name, too
        else:
            place_blob(taken.part, blob, paths.cache)
    finally:
        with suppress(OSError):
            taken.part.unlink()
    return "linked" if taken.linked else "copied"
