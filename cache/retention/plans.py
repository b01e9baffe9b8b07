"""What is to go from a cache, and what was removed: values, made by `retention.py` and `removal.py`, shown by the command line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from hubclient.cache.layout import RepoId


class Kept(NamedTuple):
    """Something that stays although it was asked for: what, the end of a sentence that says why, and its bytes."""

    what: str
    why: str
    size: int = 0


@dataclass(frozen=True, slots=True)
class Removal:
    """A revision that goes with its `refs`, or of it only `files`; `why` as the end of a sentence.

    `size` is that of its files (bytes), `frees` what the disk gains by it after the removals before it in the plan.
    """

    repo: RepoId
    commit: str
    why: str
    refs: tuple[str, ...] = ()
    used: float = 0.0
    size: int = 0
    frees: int = 0
    files: tuple[str, ...] = ()

    def __str__(self) -> str:
        named = f"{self.repo}@{self.commit[:12]}"
        return f"{named} {', '.join(self.files)}" if self.files else named


class PlannedBlob(NamedTuple):
    """A blob that goes; `orphan` if no revision shows it now, `frees` what the disk gains by an orphan."""

    repo: RepoId
    name: str
    orphan: bool = False
    frees: int = 0


class Debris(NamedTuple):
    """Something that an unfinished writer left: a path in the cache, its kind (see `model.Leftover`), its bytes."""

    path: str
    kind: str
    size: int
    repo: RepoId | None = None


class StaleRef(NamedTuple):
    """A branch or tag that names a commit which is not here."""

    repo: RepoId
    name: str
    commit: str


class SharedRemoval(NamedTuple):
    """An entry of the store for all repositories that nobody links to, or nobody once the plan is carried out.

    `frees` is set where it is an orphan now; what goes with a revision is counted there.
    """

    xet_hash: str
    size: int
    frees: int = 0


@dataclass(frozen=True, slots=True)
class RemovalPlan:
    """What goes. `size` is what the cache takes on the disk, `freed` what of that goes (bytes); `repos` go as a whole.

    `short_by` is what is missing to the limit that was asked for. Of a `named` plan the user said what goes: then `grace`
    (seconds in which nothing that was touched is) holds only for what the user did not name.
    """

    cache: Path
    removals: tuple[Removal, ...] = ()
    repos: tuple[RepoId, ...] = ()
    blobs: tuple[PlannedBlob, ...] = ()
    refs: tuple[StaleRef, ...] = ()
    shared: tuple[SharedRemoval, ...] = ()
    debris: tuple[Debris, ...] = ()
    kept: tuple[Kept, ...] = ()
    size: int = 0
    freed: int = 0
    short_by: int = 0
    grace: float = 0.0
    named: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether nothing goes."""
        return not (self.removals or self.repos or self.blobs or self.refs or self.shared or self.debris)

    @property
    def remaining(self) -> int:
        """What the cache will take on the disk, in bytes."""
        return self.size - self.freed

    @property
    def concerned(self) -> tuple[RepoId, ...]:
        """The repositories that something goes from, by name."""
        return tuple(sorted({*self.repos, *self._parts()}))

    def _parts(self) -> Iterator[RepoId]:
        yield from (removal.repo for removal in self.removals)
        yield from (blob.repo for blob in self.blobs)
        yield from (ref.repo for ref in self.refs)
        yield from (debris.repo for debris in self.debris if debris.repo)

    def as_json(self) -> dict[str, Any]:
        """The plan as plain data; blobs only as their number and those that no revision shows."""
        return {
            "cache": str(self.cache),
            "size": self.size,
            "freed": self.freed,
            "remaining": self.remaining,
            "short_by": self.short_by,
            "revisions": [_told(removal) for removal in self.removals],
            "repositories": [str(repo) for repo in self.repos],
            "refs": [{"repo": str(ref.repo), "ref": ref.name, "commit": ref.commit} for ref in self.refs],
            "blobs": len(self.blobs),
            "orphans": [{"repo": str(b.repo), "blob": b.name, "frees": b.frees} for b in self.blobs if b.orphan],
            "shared": [entry._asdict() for entry in self.shared],
            "leftovers": [{"path": debris.path, "kind": debris.kind, "size": debris.size} for debris in self.debris],
            "kept": [kept._asdict() for kept in self.kept],
        }


@dataclass(frozen=True, slots=True)
class Removed:
    """What was removed: bytes that the disk gained, revisions, whole repositories, numbers of blobs and leftovers; what stays, and why."""

    freed: int
    removals: tuple[Removal, ...] = ()
    repos: tuple[RepoId, ...] = ()
    blobs: int = 0
    debris: int = 0
    kept: tuple[Kept, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The result as plain data."""
        return {
            "freed": self.freed,
            "revisions": [_told(removal) for removal in self.removals],
            "repositories": [str(repo) for repo in self.repos],
            "blobs": self.blobs,
            "leftovers": self.debris,
            "kept": [kept._asdict() for kept in self.kept],
        }


def _told(removal: Removal) -> dict[str, Any]:
    return {
        "repo": str(removal.repo),
        "commit": removal.commit,
        "refs": list(removal.refs),
        "files": list(removal.files),
        "why": removal.why,
        "used": removal.used,
        "size": removal.size,
        "frees": removal.frees,
    }
