"""A look at the disk: every repository, revision, file and blob of a cache, and whatever else others left there.

Nothing raises for odd content, and no link is followed out of the cache: what cannot be understood is told in `warnings`,
and what it may need is held (`CachedRepo.held`), so that nobody takes it away. All writers' habits are known here:
huggingface_hub with links, without (copies and moved files) and with its shared store, llama.cpp, and ourselves.

Tens of thousands of entries: text and `os.scandir`, one state of each blob, one `readlink` of each link.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from operator import attrgetter, itemgetter
from pathlib import Path

from hubclient.cache import sharedstore
from hubclient.cache.layout import LOCKS, SHARED, RepoId
from hubclient.cache.model import CacheContents, CachedRepo, Leftover, SharedBlob
from hubclient.cache.scanning.leftovers import SYSTEM, is_temporary, kind_of, leftover
from hubclient.cache.scanning.look import look
from hubclient.cache.scanning.walking import told

TRASH = ".hubclient-trash"  # in the folder of locks: whole repositories that are being removed
_BESIDE = frozenset(["CACHEDIR.TAG", "version.txt", "version_diffusers_cache.txt"])  # of the cache itself


@dataclass(slots=True)
class Root:
    """What lies in the cache's folder itself."""

    repos: list[RepoId] = field(default_factory=list)
    leftovers: list[Leftover] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def scan_cache(cache: Path) -> CacheContents:
    """Everything in the cache; a folder that is not there is an empty cache, with a warning."""
    root = look_around(cache)
    return contents(cache, root, (scan_repo(cache, repo) for repo in root.repos))


def scan_repo(cache: Path, repo: RepoId) -> CachedRepo:
    """One repository; without a folder it has nothing."""
    return look(cache, repo).repo


def contents(cache: Path, root: Root, repos: Iterable[CachedRepo]) -> CacheContents:
    """The whole of it: repositories that were looked at, and what they share."""
    found = tuple(repos)
    return CacheContents(cache, found, tuple(_shared(cache, found)), tuple(root.leftovers), tuple(root.warnings))


def look_around(cache: Path) -> Root:
    """Which repositories there are, by folder's name, and what else."""
    root = Root()
    try:
        with os.scandir(cache) as found:
            entries = sorted(found, key=attrgetter("name"))
    except OSError as error:
        root.warnings.append(f"{told(str(cache))}: the cache cannot be read ({error.strerror})")
        return root
    for entry in entries:
        _sort_out(cache, entry, root)
    return root


def _sort_out(cache: Path, entry: os.DirEntry[str], root: Root) -> None:
    """Say what an entry of the cache's folder is."""
    name, kind = entry.name, kind_of(entry)
    if name in SYSTEM or name in _BESIDE:
        return
    repo = RepoId.of_folder(name) if kind == "folder" else None
    if repo is not None and repo.folder == name:
        root.repos.append(repo)
    elif name == LOCKS and kind == "folder":
        root.leftovers += _locks(cache)
    elif name == SHARED and kind == "folder":
        if not sharedstore.is_store(cache):
            root.warnings.append(f"{SHARED}: is no store of huggingface_hub's that is known here; it is left alone")
        for xet_hash in sharedstore.widows(cache):
            name = f"{SHARED}/{xet_hash[:2]}/{xet_hash}.refs"
            root.leftovers += leftover(os.path.join(cache, name), name, "list")
    elif kind == "file" and is_temporary(name):
        root.leftovers += leftover(entry.path, name, "temporary")
    else:
        fault = "is a link; it is not followed" if kind == "link" else "is nothing that belongs into a cache; it is left alone"
        root.warnings.append(f"{told(name)}: {fault}")
        root.leftovers += leftover(entry.path, name, "unknown")


def _locks(cache: Path) -> Iterator[Leftover]:
    """Repositories that are being removed; the folders of locks of those that are gone."""
    for where, kind in ((f"{LOCKS}/{TRASH}", "trash"), (LOCKS, "lock")):
        if (cache / where).is_symlink():
            continue
        with suppress(OSError), os.scandir(cache / where) as found:
            for entry in sorted(found, key=attrgetter("name")):
                if kind == "trash" or (RepoId.of_folder(entry.name) and not os.path.lexists(cache / entry.name)):
                    yield from leftover(entry.path, f"{where}/{entry.name}", kind)


def _shared(cache: Path, repos: tuple[CachedRepo, ...]) -> Iterator[SharedBlob]:
    """The store for all repositories; who uses an entry is told by its list and by the links that were found."""
    links: dict[str, set[str]] = {}
    for repo in repos:
        for blob in repo.blobs.values():
            if blob.shared:
                links.setdefault(blob.shared, set()).add(f"{repo.repo.folder}/blobs/{blob.name}")
    with suppress(OSError):
        for xet_hash, state in sorted(sharedstore.entries(cache), key=itemgetter(0)):
            listed = sharedstore.references(cache, xet_hash)
            known = None if listed is None else tuple(sorted(links.get(xet_hash, set()).union(listed)))
            yield SharedBlob(xet_hash, sharedstore.entry_path(cache, xet_hash), state.st_size, state.st_mtime_ns, known)
