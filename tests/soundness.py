"""Is a cache on the disk whole? Looked at with nothing of hubclient's, so that its own mistakes show.

Others may write while we look: what has gone meanwhile is no fault, and a link is looked at again before it counts as one
that leads to nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

_TEMPORARY = (".incomplete", ".tmp", ".shared", ".new", ".old")
_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_LOOKS = 3

Seen = set[tuple[str, int, int, int]]  # blobs that were right: path, inode, size, time


def digest_of(data: bytes, name: str) -> str:
    """The bytes' digest in the kind that a blob's name is of."""
    if len(name) == 40:
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    return hashlib.sha256(data).hexdigest()


def faults(cache: Path, seen: Seen | None = None) -> list[str]:
    """What no moment may show: wrong bytes under a final name, links to nothing, refs to nothing, lists that cannot be read.

    Bytes in `seen` are not read again.
    """
    seen = set() if seen is None else seen
    return [
        fault
        for repo in sorted(cache.glob("*--*"))
        for fault in (*_blobs(repo, seen), *_files(repo), *_refs(repo), *_lists(repo))
    ]


def incomplete(cache: Path) -> list[str]:
    """Files that a branch or tag promises, by the kept list of its commit, and that its snapshot does not show."""
    return [
        str(repo / "snapshots" / commit / name)
        for repo in sorted(cache.glob("*--*"))
        for commit in {_text(ref) for ref in _refs_of(repo)}
        for name in _tree(repo, commit)
        if not (repo / "snapshots" / commit / name).is_file()
    ]


def _blobs(repo: Path, seen: Seen) -> Iterator[str]:
    """Blobs whose bytes are not what their names say, and links to the shared store that its list does not tell of."""
    for blob in _inside(repo / "blobs", deep=False):
        if not _DIGEST.fullmatch(blob.name):
            continue
        with suppress(FileNotFoundError):
            if blob.is_symlink() and _dangles(blob):
                yield f"{blob}: leads to nothing"
            elif blob.is_symlink():
                listed = blob.resolve().with_name(f"{blob.resolve().name}.refs")
                if f"{repo.name}/blobs/{blob.name}" not in listed.read_text().splitlines() and blob.is_symlink():
                    yield f"{blob}: is a link to the shared store that {listed.name} does not list"
            state = blob.stat()
            key = (str(blob), state.st_ino, state.st_size, state.st_mtime_ns)
            if key not in seen:
                if digest_of(_read(blob), blob.name) != blob.name:
                    yield f"{blob}: other bytes than its name says"
                else:
                    seen.add(key)


def _files(repo: Path) -> Iterator[str]:
    """Links to nothing, and files of other bytes than the list of their commit says."""
    for snapshot in _inside(repo / "snapshots", deep=False):
        tree = _tree(repo, snapshot.name)
        for entry in _inside(snapshot):
            if entry.name.endswith(_TEMPORARY):
                continue
            if entry.is_symlink() and _dangles(entry):
                yield f"{entry}: leads to nothing"
            told = tree.get(entry.relative_to(snapshot).as_posix(), {})
            with suppress(FileNotFoundError, IsADirectoryError):
                expected = told.get("lfs_sha256") or told.get("blob_id")
                if expected and entry.is_symlink():
                    if os.path.basename(os.readlink(entry)) != expected:
                        yield f"{entry}: is a link to {os.readlink(entry)}, and is listed as {expected}"
                elif expected and digest_of(_read(entry), expected) != expected:
                    yield f"{entry}: other bytes than are listed"


def _dangles(link: Path) -> bool:
    """Whether it does, the same link, every time that we look."""
    before = None
    for _ in range(_LOOKS):
        try:
            inode = os.lstat(link).st_ino
        except OSError:
            return False
        if os.path.exists(link) or before not in (None, inode):
            return False
        before = inode
    return os.path.islink(link)


def _refs(repo: Path) -> Iterator[str]:
    for ref in _refs_of(repo):
        commit = _text(ref)
        if not commit and ref.exists() and not _text(ref):
            yield f"{ref}: is empty"
        elif commit and not (repo / "snapshots" / commit).is_dir() and _text(ref) == commit:
            yield f"{ref}: names a snapshot that is not here"


def _lists(repo: Path) -> Iterator[str]:
    for tree in _inside(repo / "trees"):
        if tree.name.endswith(_TEMPORARY):
            continue
        try:
            json.loads(_text(tree))
        except ValueError:
            if tree.exists():
                yield f"{tree}: cannot be read"


def _refs_of(repo: Path) -> list[Path]:
    return [path for path in _inside(repo / "refs") if path.is_file() and not path.name.endswith(_TEMPORARY)]


def _tree(repo: Path, commit: str) -> dict[str, dict[str, Any]]:
    try:
        files: dict[str, dict[str, Any]] = json.loads(_text(repo / "trees" / f"{commit}.json") or "{}").get("files", {})
    except ValueError:
        return {}
    return files


def _inside(folder: Path, *, deep: bool = True) -> list[Path]:
    """What is in a folder; of what goes meanwhile nothing, or not all."""
    found = []
    for place, folders, names in os.walk(folder):
        found += [Path(place, name) for name in (*folders, *names)]
        if not deep:
            break
    return sorted(found)


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (FileNotFoundError, NotADirectoryError):
        return ""


def _read(path: Path) -> bytes:
    """A file's bytes. When it was last read says who is collected first, so looking must not change that."""
    with os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NOATIME", 0)), "rb") as file:
        return file.read()


def snapshot_bytes(cache: Path, repo: str, commit: str) -> dict[str, bytes]:
    """The files that a snapshot shows."""
    folder = cache / f"models--{repo.replace('/', '--')}" / "snapshots" / commit
    return {
        str(path.relative_to(folder)): _read(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(".tmp")
    }


def contents(cache: Path) -> dict[str, str]:
    """What everybody can see of a cache: refs and what they say, files of snapshots, blobs and lists and their digests."""
    return {
        str(path.relative_to(cache)): _shown(path)
        for folder in ("*--*/refs", "*--*/snapshots", "*--*/blobs", "*--*/trees", "blobs")
        for path in cache.glob(f"{folder}/**/*")
        if (path.is_symlink() or not path.is_dir()) and not path.name.endswith((*_TEMPORARY, ".lock"))
    }


def _shown(path: Path) -> str:
    try:
        data = _read(path)
    except FileNotFoundError:
        return "nothing"
    if path.name.endswith(".refs"):
        return "\n".join(sorted(set(data.decode().splitlines())))
    return hashlib.sha256(data).hexdigest()


def torn(before: dict[str, str], now: dict[str, str], after: dict[str, str]) -> list[str]:
    """What is neither as it was before a command nor as it is after it, and snapshots of which only some files have gone."""
    found = [path for path in {*before, *now, *after} if now.get(path) not in (before.get(path), after.get(path))]
    gone = {_snapshot(path) for path in before} - {_snapshot(path) for path in after} - {None}
    for snapshot in gone:
        files = {path for path in before if _snapshot(path) == snapshot}
        if files.intersection(now) not in (set(), files):
            found.append(f"{snapshot}: half of it")
    return sorted(found)


def _snapshot(path: str) -> str | None:
    parts = path.split("/")
    return "/".join(parts[:3]) if parts[1:2] == ["snapshots"] else None


def still_to_come(cache: Path, blobs: dict[str, int]) -> int:
    """Bytes of `blobs` (paths in the cache, and sizes) that are not here, nor told of by the ledgers of unfinished downloads."""
    return sum(_lacking(cache / path, size) for path, size in blobs.items())


def _lacking(blob: Path, size: int) -> int:
    with suppress(FileNotFoundError):
        if digest_of(_read(blob), blob.name) == blob.name:
            return 0
    spans: list[list[int]] = []
    for ledger in blob.parent.glob(f"{blob.name}.*.ledger.incomplete"):
        part = ledger.with_name(ledger.name.replace(".ledger.", "."))
        if part.is_file() and part.stat().st_size == size:
            spans += [[int(place) for place in line.split()[:2]] for line in ledger.read_text().split("\n")[1:-1]]
    here = reached = 0
    for start, stop in sorted(spans):
        here += max(0, stop - max(start, reached))
        reached = max(reached, stop)
    return size - here


def bytes_on_disk(cache: Path) -> int:
    """What the cache's files take, hard links once, links nothing."""
    seen = {}
    for folder, _, names in os.walk(cache):
        for name in names:
            state = os.lstat(os.path.join(folder, name))
            if not os.path.islink(os.path.join(folder, name)):
                seen[state.st_dev, state.st_ino] = state.st_size
    return sum(seen.values())


def leftovers(cache: Path) -> list[str]:
    """What unfinished runs left: parts, ledgers, temporary names, trash, notes of writers."""
    return sorted(
        str(path.relative_to(cache))
        for path in cache.rglob("*")
        if path.name.endswith((".incomplete", ".tmp", ".shared")) or path.parent.name in ("trash", "active", ".hubclient-trash")
    )
