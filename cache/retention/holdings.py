"""Who holds which bytes of a cache: what the disk really gains when revisions go, however many of them show the same bytes.

A file of a revision shows a blob; a blob goes when no file shows it; its bytes go when all their names have gone: hard
links in any repository, or the links into the store for all repositories, whose entries go only when every link that their
list tells of does. Pure bookkeeping over `CacheContents`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Hashable, Iterator

from hubclient.cache.layout import RepoId
from hubclient.cache.model import CacheContents, CachedBlob, CachedFile, CachedRepo, CachedRevision

Name = tuple[RepoId, str]  # a blob of a repository, or a path in a snapshot where the bytes lie there


class Holdings:
    """The bytes of a cache while revisions are taken out, and put back. `kept` are blobs that stay, shown or not.

    `entries` are the hashes of the shared store that may go at all.
    """

    def __init__(self, contents: CacheContents, kept: Container[Name] = (), entries: Container[str] = ()) -> None:
        self.gone: set[Name] = set()  # blobs that nobody shows, orphans too once they are taken
        self._kept = kept
        self._keys: dict[Name, Hashable] = {}
        self._sizes: dict[Hashable, int] = {}
        self._names: Counter[Hashable] = Counter()
        self._shows: Counter[Name] = Counter()
        self._count_shared(contents, entries)
        for repo in contents.repos:
            self._count(repo)
        self.size = sum(self._sizes.values())
        self._idle = {entry.xet_hash: entry.size for entry in contents.shared if self.lets_go(entry.xet_hash)}

    def _count_shared(self, contents: CacheContents, entries: Container[str]) -> None:
        folders = {repo.repo.folder: repo for repo in contents.repos}
        for entry in contents.shared:
            key = ("shared", entry.xet_hash)
            self._sizes[key] = entry.size
            self._names[key] += entry.xet_hash not in entries
            for folder, _, name in (link.partition("/blobs/") for link in entry.links or ()):
                blob = folders[folder].blobs.get(name) if folder in folders else None
                self._names[key] += blob is None or blob.shared != entry.xet_hash  # a link that nobody knows stays

    def _count(self, repo: CachedRepo) -> None:
        for blob in repo.blobs.values():
            key = self._keys[repo.repo, blob.name] = _key(repo, blob)
            self._sizes.setdefault(key, blob.size if blob.shared is None else 0)
            self._names[key] += 1
        for revision in repo.revisions:
            self._shows.update(_shown(repo, revision, file) for file in revision.files)

    def orphans(self, repo: CachedRepo) -> Iterator[str]:
        """Blobs that no file shows now, by name."""
        yield from sorted(name for name in repo.blobs if not self._shows[repo.repo, name] and (repo.repo, name) not in self.gone)

    def release(self, repo: CachedRepo, revision: CachedRevision, files: Container[str] | None = None) -> int:
        """Take a revision out, or some of its files; the bytes that the disk gains."""
        freed = 0
        for file in revision.files:
            if files is None or file.name in files:
                name = _shown(repo, revision, file)
                self._shows[name] -= 1
                freed += 0 if self._shows[name] else self.take(name)
        return freed

    def restore(self, repo: CachedRepo, revision: CachedRevision) -> int:
        """Put a revision back that was taken out; the bytes that the disk loses."""
        lost = 0
        for file in revision.files:
            name = _shown(repo, revision, file)
            lost += 0 if self._shows[name] else self._give(name)
            self._shows[name] += 1
        return lost

    def take(self, name: Name) -> int:
        """Take a blob out that nobody shows; the bytes that the disk gains."""
        if name not in self._keys or name in self.gone or name in self._kept:
            return 0
        self.gone.add(name)
        return self._change(self._keys[name], -1)

    def _give(self, name: Name) -> int:
        if name not in self.gone:
            return 0
        self.gone.remove(name)
        return self._change(self._keys[name], 1)

    def _change(self, key: Hashable, by: int) -> int:
        before = self._names[key]
        self._names[key] += by
        changed = self._sizes[key] if not (before and self._names[key]) else 0
        self.size += by * changed
        return changed

    def lets_go(self, xet_hash: str) -> bool:
        """Whether nothing holds an entry of the shared store any more."""
        return not self._names["shared", xet_hash]

    def take_idle(self) -> dict[str, int]:
        """Take out the entries of the shared store that nobody linked to from the start; their bytes by hash."""
        idle, self._idle = self._idle, {}
        self.size -= sum(idle.values())
        return idle


def _shown(repo: CachedRepo, revision: CachedRevision, file: CachedFile) -> Name:
    return repo.repo, file.blob or f"snapshots/{revision.commit}/{file.name}"


def _key(repo: CachedRepo, blob: CachedBlob) -> Hashable:
    """What the disk keeps the bytes by; where it numbers no files, each name is its own."""
    if blob.shared is not None:
        return ("shared", blob.shared)
    return (blob.device, blob.inode) if blob.inode else (repo.repo, blob.name)
