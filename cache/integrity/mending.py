"""Mending what `verify` found, from intact bytes that are on this machine already.

The same bytes may lie in another repository, in a snapshot that holds files instead of links, or in the store for all
repositories. They are hashed where they are, copied to a part of our own, hashed there, and put in place of the bad ones in
one step: until then those stay. Where the shared store's entry is bad the entry is replaced, so that all links to it are
mended. Every step may be the last one; the next call goes on.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from hubclient.cache.digests import Digest, digest_file
from hubclient.cache.integrity.claims import pointer_path
from hubclient.cache.integrity.findings import Finding
from hubclient.cache.layout import RepoId, RepoPaths
from hubclient.cache.model import CacheContents
from hubclient.cache.scanning.scan import scan_cache
from hubclient.cache.sharedstore import bytes_behind, entry_path, link_from_store, replace_entry
from hubclient.cache.trees import TreeEntry, read_tree
from hubclient.cache.writing.copying import take
from hubclient.cache.writing.placing import place_blob, show_file
from hubclient.errors import DamagedInput
from hubclient.ground.faultpoints import reach

LINKS = frozenset(["missing", "outside", "loop", "folder", "swapped"])  # kinds of findings where the link itself is wrong
BYTES = frozenset(["damaged", "size", "unreadable"])  # ... where what it shows is


class Copies:
    """Where else on this machine certain bytes may be. What it knows of the cache it looks up once, when first asked."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self._contents: CacheContents | None = None

    def of(self, finding: Finding, digest: Digest) -> Iterator[str]:
        """Places to look at, the likeliest first."""
        with suppress(OSError):
            for folder in sorted(filter(RepoId.of_folder, os.listdir(self.cache))):
                yield os.path.join(self.cache, folder, "blobs", digest.hex)
        for entry in entries_of(RepoPaths(self.cache, finding.repo), finding):
            if entry.xet_hash and entry.digest == digest:
                yield os.path.join(entry_path(self.cache, entry.xet_hash))
        yield from self._in_snapshots(finding.size)

    def _in_snapshots(self, size: int | None) -> Iterator[str]:
        """Files of that size that are no links."""
        if self._contents is None:
            self._contents = scan_cache(self.cache)
        for repo in self._contents.repos:
            for name, blob in repo.blobs.items():
                if "/" in name and size in (None, blob.size):
                    yield os.path.join(repo.paths.path, name)


def repair_locally(cache: Path, finding: Finding, copies: Copies | None = None) -> bool:
    """Mend what a finding tells of, if intact bytes are on this machine; whether it is mended now.

    `copies` may be shared by many calls. Nothing is changed unless the right bytes are there. EnvironmentFault if the cache
    cannot be written, DamagedInput if a folder of it is a planted link.
    """
    digest, copies = finding.expected, copies or Copies(cache)
    if digest is None or finding.kind not in LINKS | BYTES:
        return False
    paths = RepoPaths(cache, finding.repo)
    if finding.kind in LINKS or finding.blob is None:
        return _blob(paths, finding, digest, copies) and show_again(paths, finding, paths.blob(digest.hex))
    path = paths.path / finding.blob if "/" in finding.blob else paths.blob(finding.blob)
    if "/" in finding.blob:
        if not holds(path, digest, paths.cache) and holds(paths.blob(digest.hex), digest, paths.cache):
            return show_again(paths, finding, paths.blob(digest.hex))
        return holds(path, digest, paths.cache) or _replace(paths, path, finding, digest, copies)
    whole = holds(path, digest, paths.cache)
    mended = _mend_entry(paths, path, finding, digest) if whole else _replace(paths, path, finding, digest, copies)
    return mended and show_again(paths, finding, path)


def _mend_entry(paths: RepoPaths, blob: Path, finding: Finding, digest: Digest) -> bool:
    """The repository has intact bytes of its own by now: let the shared store have them too, whose entry was bad."""
    cache = paths.cache
    if finding.shared is not None and not blob.is_symlink() and not holds(entry_path(cache, finding.shared), digest, cache):
        part = _copied(paths, str(blob), digest)
        if part is not None and not _replaced_entry(paths.cache, finding.shared, part):
            part.unlink()
        link_from_store(blob, finding.shared, paths.cache, digest, blob.stat().st_size)
    return True


def show_again(paths: RepoPaths, finding: Finding, blob: Path) -> bool:
    """Let the files of a finding show a blob, those that are other names of the bad bytes too; files that are gone stay gone."""
    for place in finding.places:
        pointer = Path(pointer_path(paths, place))
        if pointer.exists() and pointer.is_symlink() and finding.kind in BYTES:
            continue  # it shows the blob, whatever its bytes are
        if os.path.lexists(pointer):
            show_file(blob, pointer, paths.cache)
            reach("repair.shown")
    return True


def holds(path: Path | str, digest: Digest, cache: Path) -> bool:
    """Whether a file of the cache is there and holds the right bytes. They are read; a link that leads elsewhere is no such file."""
    try:
        place = bytes_behind(path, cache)
        return place is not None and digest_file(place, digest.algorithm) == digest
    except OSError:
        return False


def entries_of(paths: RepoPaths, finding: Finding) -> Iterator[TreeEntry]:
    """What the kept lists say of a finding's files."""
    for commit in finding.commits:
        with suppress(DamagedInput, OSError):
            tree = read_tree(paths.tree(commit), portable=False) or {}
            yield from (tree[place.file] for place in finding.places if place.commit == commit and place.file in tree)


def _blob(paths: RepoPaths, finding: Finding, digest: Digest, copies: Copies) -> bool:
    """See to it that the repository has the bytes, under their name."""
    blob = paths.blob(digest.hex)
    return holds(blob, digest, paths.cache) or _replace(paths, blob, finding, digest, copies)


def _replace(paths: RepoPaths, path: Path, finding: Finding, digest: Digest, copies: Copies) -> bool:
    """Put intact bytes at `path`, or into the entry of the shared store that it is a link to."""
    seen = {_inode(path), None}
    for source in copies.of(finding, digest):
        inode = _inode(source)
        if inode in seen or not holds(source, digest, paths.cache):
            seen.add(inode)
            continue
        part = _copied(paths, source, digest)
        if part is not None:
            _place(part, path, finding, paths.cache)
            return True
    return False


def _inode(path: Path | str) -> tuple[int, int] | None:
    try:
        state = os.stat(path)
    except OSError:
        return None
    return state.st_dev, state.st_ino


def _copied(paths: RepoPaths, source: str, digest: Digest) -> Path | None:
    """A part of our own with the right bytes; None if the source changed meanwhile."""
    taken = take(source, paths, digest)
    if taken is None:
        return None
    reach("repair.copied")
    return taken.part


def _place(part: Path, path: Path, finding: Finding, cache: Path) -> None:
    if finding.shared is None or finding.kind in LINKS or not _replaced_entry(cache, finding.shared, part):
        place_blob(part, path, cache)
    reach("repair.placed")


def _replaced_entry(cache: Path, xet_hash: str, part: Path) -> bool:
    try:
        return replace_entry(cache, xet_hash, part)
    except PermissionError:  # somebody else's; the repository gets a file of its own
        return False
