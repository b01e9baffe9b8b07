"""Bytes that are on this machine already: the blob itself, the store that repositories share, another repository's blob."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

from hubclient.cache.digests import digest_file
from hubclient.cache.layout import RepoId, RepoPaths
from hubclient.cache.placing import make_folder, place_blob
from hubclient.cache.sharedstore import hash_behind, link_from_store
from hubclient.cache.trees import TreeEntry
from hubclient.ground.faultpoints import reach

_TRUE = {"1", "ON", "YES", "TRUE"}  # as huggingface_hub reads its variables


def is_here(blob: Path, entry: TreeEntry, cache: Path) -> bool:
    """Whether the blob is there with its full size, as a file or as a link into the shared store. Its bytes are not looked at."""
    try:
        state = os.lstat(blob)
        if stat.S_ISLNK(state.st_mode):
            if hash_behind(str(blob), str(blob.readlink()), str(cache)) is None:
                return False  # somebody else's link
            state = blob.stat()
    except OSError:
        return False
    return stat.S_ISREG(state.st_mode) and state.st_size == entry.size


def take_from_here(paths: RepoPaths, entry: TreeEntry) -> Literal["linked", "copied"] | None:
    """Make the blob from bytes in this cache, which are hashed before; None if it has none that are right. DamagedInput."""
    blob = paths.blob(entry.etag)
    unshared = os.environ.get("HF_HUB_DISABLE_SHARED_BLOBS", "").upper() in _TRUE
    if entry.xet_hash and not unshared and link_from_store(blob, entry.xet_hash, paths.cache, entry.digest, entry.size):
        return "linked"
    for other in _same_name(paths, entry):
        with suppress(OSError):
            return _take(other, blob, entry, paths.cache)
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


def _take(other: str, blob: Path, entry: TreeEntry, cache: Path) -> Literal["linked", "copied"] | None:
    """A read-only file becomes ours by a second name; one that might be written to is copied. OSError."""
    make_folder(blob.parent, cache)
    temporary = blob.with_name(f"{blob.name}.{secrets.token_hex(4)}.incomplete")
    try:
        how = _link_or_copy(other, temporary)
        if digest_file(temporary, entry.digest.algorithm) != entry.digest:
            return None
        reach("pull.taken")
        if how == "linked":
            temporary.replace(blob)
        else:
            place_blob(temporary, blob, cache)
        return how
    finally:
        with suppress(OSError):
            temporary.unlink()


def _link_or_copy(other: str, temporary: Path) -> Literal["linked", "copied"]:
    if not Path(other).stat().st_mode & 0o222:
        with suppress(OSError, NotImplementedError):
            os.link(other, temporary)
            return "linked"
    shutil.copyfile(other, temporary)
    return "copied"
