"""What a look at the disk finds in a cache: repositories, their revisions, files and blobs, and what others left there.

Made by `scan.py`, kept by the catalog, read by everything else. There are tens of thousands of files and blobs: tuples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from hubclient.cache.layout import RepoId, RepoPaths
from hubclient.cache.notes import Output, Pin


class CachedFile(NamedTuple):
    """A file of a revision. `blob` names the repository's blob that it shows; None if the bytes lie in the snapshot itself."""

    name: str
    blob: str | None
    size: int
    fault: str | None = None  # why it cannot be used: "dangling", "outside", "loop", "folder" (what the link leads to)


class CachedBlob(NamedTuple):
    """Bytes: `name` in `blobs/`, or the path in the repository's folder where a file's bytes lie in its snapshot.

    `shared` is the xet hash of the entry in the store for all repositories that the blob is a link to. `device` and `inode`
    tell hard links to the same bytes.
    """

    name: str
    size: int
    allocated: int  # bytes that it takes on the disk
    modified_ns: int
    used: float  # the system's time of last access, seconds since 1970
    device: int
    inode: int
    shared: str | None = None


class Leftover(NamedTuple):
    """What an unfinished or foreign writer left: `path`, relative to the cache, with slashes.

    `kind`: "incomplete", "ledger", "etag", "lock", "temporary", "trash", "ref" (a branch or tag that cannot be read), "writer"
    (the note of a dead one), "pin" (of a commit that is not here), "list" (of links to an entry of the shared store that is gone), "unknown" (left alone).
    """

    path: str
    kind: str
    size: int
    modified: float


@dataclass(frozen=True, slots=True)
class CachedRevision:
    """A snapshot: `refs` are the branches and tags that name it; `modified` and `used` are seconds since 1970.

    It is modified when bytes are written or shown; used at the latest then, or when anything tells that they were read.
    """

    commit: str
    files: tuple[CachedFile, ...]
    refs: tuple[str, ...]
    modified: float
    used: float
    pin: Pin | None = None
    expected: int | None = None  # files that the Hub's tree lists for the commit, if the tree is here

    @property
    def size(self) -> int:
        """Bytes of its files, each blob once."""
        return sum({file.blob or file.name: file.size for file in self.files}.values())

    def as_json(self) -> dict[str, Any]:
        """As plain data."""
        plain = {"commit": self.commit, "refs": list(self.refs), "size": self.size, "modified": self.modified, "used": self.used}
        listed = {"expected_files": self.expected, "files": [file._asdict() for file in self.files]}
        return {**plain, "pin": self.pin and asdict(self.pin), **listed}

    @property
    def faults(self) -> tuple[CachedFile, ...]:
        """Files that cannot be used."""
        return tuple(file for file in self.files if file.fault)


@dataclass(frozen=True)
class CachedRepo:
    """A repository in the cache. `blobs` by name, those that no revision shows included; `pin` keeps all revisions."""

    paths: RepoPaths
    revisions: tuple[CachedRevision, ...]
    refs: Mapping[str, str]
    blobs: Mapping[str, CachedBlob]
    pin: Pin | None = None
    outputs: tuple[Output, ...] = ()
    leftovers: tuple[Leftover, ...] = ()
    warnings: tuple[str, ...] = ()
    held: frozenset[str] = frozenset()  # blobs that something shows which is no revision's file that could be listed

    @property
    def repo(self) -> RepoId:
        """Which it is."""
        return self.paths.repo

    def as_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "repo": str(self.repo),
            "type": self.repo.type,
            "path": str(self.paths.path),
            "size": self.size,
            "refs": dict(self.refs),
            "pin": self.pin and asdict(self.pin),
            "revisions": [revision.as_json() for revision in self.revisions],
            "outputs": [asdict(output) for output in self.outputs],
            "leftovers": [left._asdict() for left in self.leftovers],
            "warnings": list(self.warnings),
        }

    @cached_property
    def refs_are_known(self) -> bool:
        """Whether all its branches and tags could be read: else nobody can tell that none names a revision."""
        folder = f"{self.repo.folder}/refs"
        return not any(left.kind == "ref" or (left.kind == "unknown" and left.path == folder) for left in self.leftovers)

    @cached_property
    def size(self) -> int:
        """Bytes of its blobs, hard links to the same bytes once; those of the shared store count here too."""
        return sum({(blob.device, blob.inode): blob.size for blob in self.blobs.values()}.values())

    @cached_property
    def shown(self) -> frozenset[str]:
        """Names of blobs that some revision shows, or something else that is not ours to judge."""
        files = ((revision.commit, file) for revision in self.revisions for file in revision.files if not file.fault)
        return self.held.union(file.blob or f"snapshots/{commit}/{file.name}" for commit, file in files)

    @cached_property
    def leaned_on(self) -> frozenset[str]:
        """Commits in whose snapshots the bytes lie that another revision shows, by a link from one snapshot into the other."""
        shown = ((revision.commit, file.blob.split("/")) for revision in self.revisions for file in revision.files if file.blob)
        return frozenset(parts[1] for commit, parts in shown if len(parts) > 1 and parts[1] != commit)

    def bytes_of(self, commit: str, file: CachedFile) -> CachedBlob | None:
        """The bytes behind a file of a revision; None if it has a fault."""
        return None if file.fault else self.blobs.get(file.blob or f"snapshots/{commit}/{file.name}")


@dataclass(frozen=True)
class SharedBlob:
    """An entry of the store for all repositories; `links` are the repositories' blobs that are links to it (validated), None if unknown."""

    xet_hash: str
    path: Path
    size: int
    modified_ns: int
    links: tuple[str, ...] | None


@dataclass(frozen=True)
class CacheContents:
    """A whole cache."""

    path: Path
    repos: tuple[CachedRepo, ...]
    shared: tuple[SharedBlob, ...] = ()
    leftovers: tuple[Leftover, ...] = ()
    warnings: tuple[str, ...] = ()

    @cached_property
    def size(self) -> int:
        """Bytes on the disk: every file once, however many repositories show it."""
        own = {(blob.device, blob.inode): blob.size for repo in self.repos for blob in repo.blobs.values() if blob.shared is None}
        return sum(own.values()) + sum(entry.size for entry in self.shared)
