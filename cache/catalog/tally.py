"""What takes the room in a cache: counted over its contents, nothing is read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hubclient.cache.catalog.catalog import Mark
from hubclient.cache.catalog.summary import RepoSummary, summarise
from hubclient.cache.digests import Digest
from hubclient.cache.model import CacheContents, CachedBlob, CachedRepo
from hubclient.cache.retention.policy import plan_prune
from hubclient.cache.unfinished import download_of

_FEW = 5  # of the largest and of the longest unused repositories
_LONGEST = 16  # letters of an ending that tells a format
_Key = tuple[str, str]  # a repository's folder, and a key of its blobs


@dataclass(frozen=True, slots=True)
class Share:
    """How many there are, and how many bytes they have."""

    count: int = 0
    size: int = 0

    @classmethod
    def of(cls, sizes: Iterable[int]) -> Share:
        """The sum of some sizes."""
        found = list(sizes)
        return cls(len(found), sum(found))


@dataclass(frozen=True, slots=True)
class Stats:
    """What takes the room. Sizes are bytes; hard links and links into the shared store count once.

    `size` is all of it. `files` are names in revisions. `types` counts repositories by type, `formats` blobs by the ending of the name that shows them
    ("other" without one, "unshown" for what no revision shows). `duplicates` are further copies of the same blob in other
    repositories, which one copy would do for. `reclaimable` is what `prune` would free now, `unreferenced` revisions
    that no branch or tag names. `verified` blobs were found intact and have not changed since.
    """

    path: Path
    size: int
    repositories: int
    revisions: int
    files: int
    blobs: Share
    shared: Share
    types: dict[str, Share]
    formats: dict[str, Share]
    duplicates: Share
    verified: Share
    incomplete: Share
    unreferenced: Share
    pinned: int
    faults: int
    reclaimable: int
    largest: tuple[RepoSummary, ...]
    oldest: tuple[RepoSummary, ...]

    def as_json(self) -> dict[str, Any]:
        """As plain data."""
        plain = {key: value for key, value in asdict(self).items() if key not in ("largest", "oldest")}
        return plain | {
            "path": str(self.path),
            "largest": [{"repo": str(row.repo), "size": row.size} for row in self.largest],
            "oldest": [{"repo": str(row.repo), "used": row.used} for row in self.oldest],
        }


def tally(contents: CacheContents, verified: Iterable[Mark], now: float) -> Stats:
    """Count; `now` is seconds since 1970."""
    repos = contents.repos
    rows = [summarise(repo) for repo in repos]
    revisions = [revision for repo in repos for revision in repo.revisions]
    marks = _holding(contents, verified)
    return Stats(
        path=contents.path,
        size=contents.size,
        repositories=len(repos),
        revisions=len(revisions),
        files=sum(len(revision.files) for revision in revisions),
        blobs=Share.of(_once((blob, None) for repo in repos for blob in repo.blobs.values())[None]),
        shared=Share.of(entry.size for entry in contents.shared),
        types=_by_type(repos),
        formats=_by_format(repos),
        duplicates=_duplicates(repos, marks),
        verified=Share.of(_once((blob, None) for _, _, blob in _blobs(repos, marks))[None]),
        incomplete=_unfinished(repos),
        unreferenced=Share.of(revision.size for revision in revisions if not revision.refs),
        pinned=sum(row.pinned for row in rows),
        faults=sum(row.faults for row in rows),
        reclaimable=plan_prune(contents, now=now).freed,
        largest=tuple(sorted(rows, key=lambda row: (-row.size, str(row.repo)))[:_FEW]),
        oldest=tuple(sorted(rows, key=lambda row: (row.used, str(row.repo)))[:_FEW]),
    )


def _holding(contents: CacheContents, verified: Iterable[Mark]) -> dict[_Key, str]:
    """The digests of blobs that were verified as they are now."""
    blobs = {
        (repo.repo.folder, blob.name): (blob.size, blob.modified_ns, blob.inode)
        for repo in contents.repos
        for blob in repo.blobs.values()
    }
    return {mark[:2]: mark.digest for mark in verified if mark.ok and blobs.get(mark[:2]) == mark[2:5]}


def _blobs(repos: Iterable[CachedRepo], chosen: Iterable[_Key]) -> Iterator[tuple[str, str, CachedBlob]]:
    by_folder = {repo.repo.folder: repo.blobs for repo in repos}
    return ((folder, name, by_folder[folder][name]) for folder, name in chosen)


def _once(blobs: Iterable[tuple[CachedBlob, Hashable]]) -> dict[Any, list[int]]:
    """Sizes by what each blob counts for; a file's bytes count once for each."""
    files: dict[Hashable, dict[tuple[int, int], int]] = defaultdict(dict)
    for blob, kind in blobs:
        files[kind][blob.device, blob.inode] = blob.size
    return defaultdict(list, {kind: list(sizes.values()) for kind, sizes in files.items()})


def _by_type(repos: Iterable[CachedRepo]) -> dict[str, Share]:
    sizes: dict[str, list[int]] = defaultdict(list)
    for repo in repos:
        sizes[repo.repo.type].append(repo.size)
    return {kind: Share.of(sizes[kind]) for kind in sorted(sizes)}


def _by_format(repos: Iterable[CachedRepo]) -> dict[str, Share]:
    counted: list[tuple[CachedBlob, Hashable]] = []
    for repo in repos:
        names = {
            file.blob or f"snapshots/{revision.commit}/{file.name}": file.name
            for revision in reversed(repo.revisions)
            for file in reversed(revision.files)
        }
        counted += ((blob, _format(names.get(name))) for name, blob in repo.blobs.items())
    shares = {kind: Share.of(sizes) for kind, sizes in _once(counted).items()}
    return dict(sorted(shares.items(), key=lambda pair: (-pair[1].size, pair[0])))


def _format(name: str | None) -> str:
    if name is None:
        return "unshown"
    ending = name.rpartition("/")[2].rpartition(".")[2].lower()
    return ending if "." in name and ending.isalnum() and len(ending) <= _LONGEST else "other"


def _unfinished(repos: Iterable[CachedRepo]) -> Share:
    """Downloads, a part with its ledger being one."""
    sizes: dict[str, int] = defaultdict(int)
    for repo in repos:
        for left in repo.leftovers:
            if left.kind in ("incomplete", "ledger"):
                sizes[download_of(left.path)] += left.size
    return Share.of(sizes.values())


def _duplicates(repos: Iterable[CachedRepo], marks: dict[_Key, str]) -> Share:
    copies: dict[str, dict[tuple[int, int], int]] = defaultdict(dict)
    for repo in repos:
        for blob in repo.blobs.values():
            digest = blob.name if Digest.of_name(blob.name) else marks.get((repo.repo.folder, blob.name))
            if digest is not None:
                copies[digest][blob.device, blob.inode] = blob.size
    return Share.of(size for sizes in copies.values() for size in list(sizes.values())[1:])
