"""Caches for tests, laid out as each of the programs that share them would: plain file operations, nothing of hubclient's writers."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub.utils import _shared_blobs

from hubclient.cache.layout import RepoId, RepoPaths

MAIN, OTHER = "a" * 40, "b" * 40
LARGE = 200  # bytes from which a file is a large one, known by its sha256


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def etag(data: bytes) -> str:
    return sha256(data) if len(data) >= LARGE else git_sha1(data)


def xet(data: bytes) -> str:
    return hashlib.sha256(b"xet" + data).hexdigest()


def entry(data: bytes) -> dict[str, object]:
    """What a tree says of a file."""
    if len(data) < LARGE:
        return {"size": len(data), "blob_id": git_sha1(data)}
    return {
        "size": 130,
        "blob_id": git_sha1(b"pointer"),
        "lfs_sha256": sha256(data),
        "lfs_size": len(data),
        "xet_hash": xet(data),
    }


def make(
    cache: Path,
    files: Mapping[str, bytes],
    name: str = "org/name",
    *,
    style: str = "symlink",
    commit: str = MAIN,
    tree: bool = True,
    ref: str | None = "main",
) -> RepoPaths:
    """A repository with a snapshot.

    `style`: "symlink" (huggingface_hub, llama.cpp, hubclient), "hardlink", "copy" (beside the blob), "moved" (instead of it),
    "llama" (moved, with the side file that llama.cpp leaves), "shared" (the blob is a link into the store for all repositories).
    """
    paths = RepoPaths(cache, RepoId(name))
    for file, data in files.items():
        blob, pointer = paths.blob(etag(data)), paths.snapshot(commit) / file
        blob.parent.mkdir(parents=True, exist_ok=True)
        pointer.parent.mkdir(parents=True, exist_ok=True)
        if not blob.exists():
            blob.write_bytes(data)
            if style == "shared" and len(data) >= LARGE:
                _publish(blob, data, cache)
        _show(blob, pointer, style)
    if tree:
        path = paths.tree(commit)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"format_version": 1, "files": {file: entry(data) for file, data in files.items()}}))
    if ref:
        paths.refs.mkdir(parents=True, exist_ok=True)
        (paths.refs / ref).write_text(commit)
    return paths


def _show(blob: Path, pointer: Path, style: str) -> None:
    if style in ("symlink", "shared"):
        pointer.symlink_to(os.path.relpath(blob, pointer.parent))
    elif style == "hardlink":
        os.link(blob, pointer)
    elif style == "copy":
        pointer.write_bytes(blob.read_bytes())
    else:
        if style == "llama":
            blob.with_name(f"{blob.name}.etag").write_text('"some-other-name"')
        os.rename(blob, pointer)


def _publish(blob: Path, data: bytes, cache: Path) -> None:
    """Move a blob into the store, or link to what is there, as huggingface_hub does."""
    published = _shared_blobs.publish_blob_to_shared_store(
        blob_path=str(blob), xet_hash=xet(data), cache_dir=cache, expected_size=len(data)
    )
    assert published


def spoil(path: Path, data: bytes) -> None:
    """Give a file other bytes in place, however it is protected."""
    path = path.resolve()
    mode = path.stat().st_mode
    path.chmod(0o644)
    path.write_bytes(data)
    path.chmod(mode)


def state(cache: Path) -> dict[str, object]:
    """Everything in a cache but hubclient's notes: links by what they say, files by bytes and time."""
    found: dict[str, object] = {}
    for folder, names, files in os.walk(cache):
        for name in [*names, *files]:
            path = os.path.join(folder, name)
            if ".hubclient" not in path:
                lstat = os.lstat(path)
                linked = os.readlink(path) if os.path.islink(path) else None
                plain = Path(path).read_bytes() if os.path.isfile(path) and linked is None else None
                found[os.path.relpath(path, cache)] = (
                    lstat.st_mode,
                    linked,
                    plain,
                    lstat.st_mtime_ns if plain is not None else 0,
                )
    return found
