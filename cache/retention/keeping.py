"""What keeps something in a cache from being removed: pins, running pulls, and the grace after its last use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from hubclient.cache.layout import RepoId
from hubclient.cache.model import CacheContents, CachedRepo, CachedRevision, SharedBlob
from hubclient.cache.retention.holdings import Holdings, Name
from hubclient.cache.retention.plans import Kept
from hubclient.ground.words import counted

GRACE = 3600.0  # seconds in which nothing that was touched is taken for abandoned


@dataclass(frozen=True, slots=True)
class Writing:
    """What running pulls write in a repository: their `commits`, and the `blobs` they need (None: they may need any)."""

    commits: frozenset[str] = frozenset()
    blobs: frozenset[str] | None = frozenset()

    def needs(self, blob: str) -> bool:
        """Whether a blob may be about to be shown."""
        return bool(self.commits) and (self.blobs is None or blob in self.blobs)

    def needs_left(self, name: str, kind: str) -> bool:
        """Whether a leftover of that name and kind may be none."""
        return bool(self.commits) if kind == "temporary" else self.needs(name.partition(".")[0])


NOTHING = Writing()
Live = Mapping[RepoId, Writing]


def shield(repo: CachedRepo, revision: CachedRevision, writing: Writing, now: float, grace: float) -> str | None:
    """What keeps a revision from being removed, as the end of a sentence; None if nothing does."""
    if pin := repo.pin or revision.pin:
        told = f"is pinned{' with its repository' if repo.pin else ''}"
        return told + (f" by {pin.by}" if pin.by else "") + (f": {pin.why}" if pin.why else "")
    if revision.commit in writing.commits:
        return "is being pulled right now"
    if revision.commit in repo.leaned_on:
        return "holds bytes that another revision shows"
    touched = max(revision.used, revision.modified)
    return f"was used {ago(now - touched)}" if now - touched < grace else None


def ago(seconds: float) -> str:
    """A time that has passed, for a sentence."""
    for unit, length in (("day", 86_400), ("hour", 3600), ("minute", 60), ("second", 1)):
        if seconds >= length:
            return f"{counted(int(seconds // length), unit)} ago"
    return "just now"


class Choice(NamedTuple):
    """A revision that a rule takes, and why; of a file that was named only `files`."""

    repo: CachedRepo
    revision: CachedRevision
    why: str = ""
    files: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[RepoId, str]:
        """What tells it from others."""
        return (self.repo.repo, self.revision.commit)

    @property
    def name(self) -> str:
        """What to call it."""
        return f"{self.repo.repo}@{self.revision.commit[:12]}"

    def kept(self, why: str) -> Kept:
        """That it stays, and why."""
        return Kept(self.name, why, self.revision.size)

    def of_files(self, names: tuple[str, ...]) -> Choice:
        """The same for these files only; all there are are the revision."""
        return self._replace(files=names if len(names) < len(self.revision.files) else ())

    def joined(self, other: Choice | None) -> Choice:
        """Both as one."""
        if other is None or not self.files:
            return self
        return self.of_files(tuple(sorted({*self.files, *other.files}))) if other.files else other

    def release(self, holdings: Holdings) -> int:
        """Take it out; the bytes that the disk gains."""
        return holdings.release(self.repo, self.revision, self.files or None)


@dataclass(frozen=True)
class View:
    """A cache at a time: what pulls, pins and the grace keep there. `blobs` are those that stay, and why."""

    contents: CacheContents
    now: float
    grace: float
    live: Live
    named: bool = False
    blobs: dict[Name, str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "blobs", dict(self._keeping()))

    def _keeping(self) -> Iterator[tuple[Name, str]]:
        for repo in self.contents.repos:
            writing = self.writing(repo)
            for blob in repo.blobs.values():
                modified = blob.modified_ns / 1e9
                if "/" in blob.name:  # lies in a snapshot, and goes with it
                    continue
                if blob.name in repo.held:
                    yield (repo.repo, blob.name), "is shown by something that is left alone"
                elif writing.needs(blob.name):
                    yield (repo.repo, blob.name), "may be needed by a running pull"
                elif self.is_fresh(modified):
                    yield (repo.repo, blob.name), self.written(modified)

    def is_fresh(self, moment: float) -> bool:
        """Whether that is within the grace."""
        return self.now - moment < self.grace

    def written(self, moment: float) -> str:
        """When it was, as the end of a sentence."""
        return f"was written {ago(self.now - moment)}"

    def writing(self, repo: CachedRepo) -> Writing:
        """What running pulls write in a repository."""
        return self.live.get(repo.repo, NOTHING)

    def shield(self, choice: Choice) -> str | None:
        """What keeps a revision; None if nothing does."""
        return shield(choice.repo, choice.revision, self.writing(choice.repo), self.now, self.grace)

    def holdings(self) -> Holdings:
        """Who holds what, before anything is taken."""
        return Holdings(self.contents, self.blobs, {entry.xet_hash for entry in self.contents.shared if self.may_go(entry)})

    def may_go(self, entry: SharedBlob) -> bool:
        """Whether an entry of the shared store may go once nobody links to it."""
        return entry.links is not None and not self.is_fresh(entry.modified_ns / 1e9)
