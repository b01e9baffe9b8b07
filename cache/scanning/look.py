"""A look at one repository's folder: see `scan.py`, whose promises are kept here."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from hubclient.cache import notes, sharedstore
from hubclient.cache.digests import Digest
from hubclient.cache.layout import RepoId, RepoPaths, is_commit
from hubclient.cache.model import CachedBlob, CachedFile, CachedRepo, CachedRevision, Leftover
from hubclient.cache.notes import Output, Pin
from hubclient.cache.scanning import stamps
from hubclient.cache.scanning.leftovers import SYSTEM, is_temporary, kind_beside_blobs, kind_beside_files, kind_of, leftover
from hubclient.cache.scanning.links import Resolver, plain, plain_target
from hubclient.cache.scanning.stamps import UNSETTLED, Stamp, stamp
from hubclient.cache.scanning.walking import Reader
from hubclient.cache.trees import read_tree
from hubclient.errors import DamagedInput

_KNOWN = frozenset(["blobs", "snapshots", "refs", "trees", ".no_exist", ".hubclient"])
_NOTES = frozenset(["active", "digests", "outputs", "pins", "trash", "used"])
_REF_LENGTH = 4096  # bytes; a commit's is 40
_TREE_LENGTH = 32 << 20  # bytes, about 100,000 files; how many a longer list has is not counted
_TREE_ENTRY = re.compile(rb'"blob_id"\s*:\s*"')  # a file name cannot hold this, its quotes are escaped
_WINDOWS = os.name == "nt"  # there, what a folder tells of a file lacks the inode


class Look(NamedTuple):
    """A repository, and the state of every folder, ref and other place that it was read from, by path in the cache."""

    repo: CachedRepo
    stamps: dict[str, Stamp]


def look(cache: Path, repo: RepoId) -> Look:
    """One repository, and what must be the same for it to be the same."""
    return _Eye(cache, repo).look()


def blob_of(name: str, state: os.stat_result, shared: str | None = None) -> CachedBlob:
    """A blob by the state of the file that holds its bytes."""
    allocated = state.st_size if _WINDOWS else state.st_blocks * 512  # POSIX counts in these, whatever the disk's blocks
    used, modified = state.st_atime, state.st_mtime_ns
    return CachedBlob(name, state.st_size, allocated, modified, used, state.st_dev, state.st_ino, shared)


def noted_uses(paths: RepoPaths) -> dict[str, float]:
    """When revisions were last used by our notes, which are no links to elsewhere."""
    places = (paths.notes, paths.notes / "used")
    return notes.last_used(paths) if all(os.path.isdir(place) and not os.path.islink(place) for place in places) else {}


class _Eye:
    """What has been seen so far."""

    def __init__(self, cache: Path, repo: RepoId) -> None:
        self._paths = RepoPaths(cache, repo)
        self._cache, self._folder = os.fspath(cache), repo.folder
        self._reader = Reader(self._cache)
        self._own = plain(f"{self._cache}/{self._folder}/blobs/")
        self._blobs: dict[str, CachedBlob] = {}
        self._inodes: dict[tuple[int, int], str] = {}
        self._refs: dict[str, str] = {}
        self._held: set[str] = set()
        self._leftovers: list[Leftover] = []
        self._strange: set[str] = set()  # places of known names that are no folders
        self._lists: dict[str, Mapping[str, object] | None] = {}  # what each commit should have, once that is asked
        self._blind = False  # whether something that may show blobs is of no kind that we know
        self._recent = stamps.began() - stamps.RACY
        self._resolver = Resolver(self._cache, self._folder, self._reader.seen)

    def look(self) -> Look:
        """Everything; blobs first, because files are held against them."""
        present = self._folders(self._folder, _KNOWN)
        if "blobs" in present:
            self._read_blobs()
        if "refs" in present:
            self._read_refs()
        pins, used, outputs = self._read_notes() if ".hubclient" in present else ({}, {}, ())
        commits = self._read_snapshots() if "snapshots" in present else {}
        expected = self._read_trees(commits) if "trees" in present else {}
        revisions = [
            self._revision(commit, commits[commit], used.get(commit, 0.0), pins.get(commit), expected.get(commit))
            for commit in sorted(commits)
        ]
        for name in sorted(self._refs):
            if self._refs[name] not in commits:
                self._reader.warn(f"{self._folder}/refs/{name}", f"names the commit {self._refs[name]}, which is not here")
        blind = self._blind or any(folder.startswith(f"{self._folder}/snapshots") for folder in self._reader.unread)
        held = set(self._blobs) if blind else (self._held | self._unnamed(commits)) & self._blobs.keys()
        gathered = tuple(sorted(self._leftovers)), tuple(sorted(self._reader.warnings)), frozenset(held)
        pin = pins.get(notes.ALL) or self._lost_pin()
        return Look(
            CachedRepo(self._paths, tuple(revisions), self._refs, self._blobs, pin, outputs, *gathered), self._reader.stamps
        )

    def _revision(
        self, commit: str, files: Sequence[CachedFile], noted: float, pin: Pin | None, expected: int | None
    ) -> CachedRevision:
        blobs = [self._blobs[file.blob or f"snapshots/{commit}/{file.name}"] for file in files if not file.fault]
        folder = self._reader.stamps[f"{self._folder}/snapshots/{commit}"][0]
        modified = max([folder, 0, *(blob.modified_ns for blob in blobs)]) / 1e9
        used = max([modified, *(blob.used for blob in blobs)])
        refs = tuple(sorted(name for name, named in self._refs.items() if named == commit))
        return CachedRevision(commit, tuple(files), refs, modified, max(used, noted), pin, expected)

    def _unnamed(self, commits: Mapping[str, Sequence[CachedFile]]) -> set[str]:
        """What lies among the blobs, is called as none is, and nothing shows: it may be anything that somebody put there."""
        shown = {file.blob for files in commits.values() for file in files}
        return {name for name in self._blobs.keys() - shown if "/" not in name and Digest.of_name(name) is None}

    # what is in the repository's folder

    def _read_blobs(self) -> None:
        folder = f"{self._folder}/blobs"
        for entry in self._reader.entries(folder):
            name, kind = entry.name, kind_of(entry)
            left = kind_beside_blobs(name)
            if name in SYSTEM:
                continue
            if left is not None or not self._reader.is_text(folder, name):
                self._left(entry.path, f"{folder}/{name}", left or "unknown")
            elif kind == "file":
                self._file(name, entry)
            elif kind == "link":
                self._stored(name, entry.path)
            else:
                self._unknown(f"{folder}/{name}", entry.path, "is no file")

    def _file(self, name: str, entry: os.DirEntry[str]) -> None:
        """Bytes in a file of the repository's own."""
        try:
            state = os.lstat(entry.path) if _WINDOWS else entry.stat(follow_symlinks=False)
        except OSError:  # gone meanwhile
            return
        blob = self._blobs[name] = blob_of(name, state)
        self._growing(f"{self._folder}/blobs/{name}", state)
        inode = blob.device, blob.inode
        self._inodes[inode] = min(name, self._inodes.get(inode, name))

    def _stored(self, name: str, path: str) -> None:
        """A blob that is a link: into the store for all repositories, or it is none that we know."""
        where = f"{self._folder}/blobs/{name}"
        with suppress(OSError):
            shared = sharedstore.hash_behind(path, os.readlink(path), self._cache)
            if shared is not None:
                place = self._resolver.resolve(where)
                if place.state is not None:
                    self._blobs[name] = blob_of(name, place.state, shared)
                return
            self._unknown(where, path, "is a link to elsewhere than the store for all repositories")

    def _read_refs(self) -> None:
        for name, entry in self._reader.walk(f"{self._folder}/refs"):
            where = f"{self._folder}/refs/{name}"
            if entry.name in SYSTEM or not self._reader.is_text(f"{self._folder}/refs", name):
                continue
            if is_temporary(entry.name):
                self._left(entry.path, where, "temporary")
                continue
            commit = (self._reader.content(where, _REF_LENGTH) or b"").decode("ascii", "replace").strip()
            if is_commit(commit):
                self._refs[name] = commit
            else:
                self._reader.warn(where, "names no commit")
                self._left(entry.path, where, "ref")
        for folder in self._reader.unread:
            if folder.startswith(f"{self._folder}/refs"):
                self._left(f"{self._cache}/{folder}", folder, "ref")

    def _read_trees(self, commits: Mapping[str, object]) -> dict[str, int]:
        """How many files each commit has; whether the lists are sane is for `trees.read_tree` to say."""
        folder, counts = f"{self._folder}/trees", {}
        for entry in self._reader.entries(folder):
            commit, ending = entry.name[:40], entry.name[40:]
            where = f"{folder}/{entry.name}"
            if ending == ".json" and commit in commits and kind_of(entry) == "file":
                data = self._reader.content(where, _TREE_LENGTH)
                if data is not None:
                    counts[commit] = sum(1 for _ in _TREE_ENTRY.finditer(data))
            elif is_temporary(entry.name):
                self._left(entry.path, where, "temporary")
        return counts

    def _read_notes(self) -> tuple[dict[str, Pin], dict[str, float], tuple[Output, ...]]:
        folder = f"{self._folder}/.hubclient"
        present = self._folders(folder, _NOTES, others=False)
        if "trash" in present:
            for entry in self._reader.entries(f"{folder}/trash"):
                self._left(entry.path, f"{folder}/trash/{entry.name}", "trash")
                self._reader.stamps[f"{folder}/trash"] = UNSETTLED  # it is being emptied, and its folders are not stamped
        for name in sorted(present - {"trash"}):
            for entry in self._reader.entries(f"{folder}/{name}"):
                if is_temporary(entry.name):
                    self._left(entry.path, f"{folder}/{name}/{entry.name}", "temporary")
                elif name == "active":
                    self._reader.stamps[f"{folder}/active"] = UNSETTLED  # a writer may die without a trace
        for path in notes.dead(self._paths) if "active" in present else ():
            self._left(os.fspath(path), f"{folder}/active/{path.name}", "writer")
        for name in sorted(present & {"pins", "outputs"}):
            if any(kind_of(entry) != "file" for entry in self._reader.entries(f"{folder}/{name}")):  # reading might never end
                self._reader.warn(f"{folder}/{name}", "holds what is no file; it is left alone")
                self._strange.add(f"{folder}/{name}")
                present -= {name}
        pins = notes.read_pins(self._paths) if "pins" in present else {}
        for name in sorted(pins.keys() - {notes.ALL}):
            if not os.path.isdir(self._paths.snapshot(name)):  # to be pulled, or lost: nothing to keep but the pin itself
                self._left(os.fspath(self._paths.notes / "pins" / name), f"{folder}/pins/{name}", "pin")
        return pins, noted_uses(self._paths), notes.read_outputs(self._paths) if "outputs" in present else ()

    def _lost_pin(self) -> Pin | None:
        """A pin of the whole repository, if there may be pins that cannot be read: none is ever lost."""
        folder = f"{self._folder}/.hubclient"
        lost = self._strange.union(self._reader.unread) & {self._folder, folder, f"{folder}/pins"}
        return Pin("", "", "the folder of pins cannot be read") if lost else None

    def _read_snapshots(self) -> dict[str, list[CachedFile]]:
        folder, commits = f"{self._folder}/snapshots", {}
        for entry in self._reader.entries(folder):
            kind = kind_of(entry)
            if kind == "folder" and is_commit(entry.name):
                commits[entry.name] = self._read_revision(f"{folder}/{entry.name}", entry.name)
            elif entry.name not in SYSTEM:
                fault = "is a link; it is not followed" if kind == "link" else "is no revision; it is left alone"
                self._unknown(f"{folder}/{entry.name}", entry.path, fault)
                if kind == "folder":
                    shown = self._read_revision(f"{folder}/{entry.name}", entry.name)
                    self._held.update(file.blob or f"snapshots/{entry.name}/{file.name}" for file in shown)
                self._blind |= kind == "other"
        return commits

    def _read_revision(self, folder: str, commit: str) -> list[CachedFile]:
        files = []
        blobs, temporary = self._blobs, is_temporary
        for name, entry in self._reader.walk(folder):
            if temporary(entry.name) and kind_of(entry) == "file" and self._is_unlisted(commit, name):
                self._left(entry.path, f"{folder}/{name}", "temporary")
                continue
            up = "../" * (name.count("/") + 2) + "blobs/"
            try:
                target = plain_target(entry.path) if entry.is_symlink() else None
            except OSError:  # gone meanwhile
                continue
            if not self._reader.is_text(folder, name):
                self._hold_name(target or "")
                continue
            if target is None:
                found = self._copied(commit, folder, name, entry)
            elif target.startswith(up) and (blob := blobs.get(target[len(up) :])) is not None:
                found = CachedFile(name, blob.name, blob.size)
            else:
                found = self._led(f"{folder}/{name}", name, target)
            if found is not None:
                files.append(found)
        files.sort()
        return files

    def _is_unlisted(self, commit: str, name: str) -> bool:
        """Whether a file is none of its commit's; False, too, if that cannot be told: files may be called anything."""
        if not is_commit(commit):
            return False
        if commit not in self._lists:
            self._lists[commit] = None
            with suppress(OSError, DamagedInput):
                self._lists[commit] = read_tree(self._paths.tree(commit))
        tree = self._lists[commit]
        return tree is not None and name not in tree

    def _copied(self, commit: str, folder: str, name: str, entry: os.DirEntry[str]) -> CachedFile | None:
        """A file in a snapshot, where links are refused or somebody made a hard one."""
        where = f"{folder}/{name}"
        if kind_of(entry) != "file":
            self._unknown(where, entry.path, "is no file")
            return None
        left = kind_beside_files(entry.path)
        if left:
            self._left(entry.path, where, left)
            return None
        try:
            state = os.lstat(entry.path) if _WINDOWS else entry.stat(follow_symlinks=False)
        except OSError:
            return None
        same = self._inodes.get((state.st_dev, state.st_ino))
        if same is not None:
            return CachedFile(name, same, state.st_size)
        key = f"snapshots/{commit}/{name}"
        self._blobs[key] = blob_of(key, state)
        self._growing(where, state)
        return CachedFile(name, None, state.st_size)

    def _led(self, where: str, name: str, target: str) -> CachedFile:
        """A file that is a link of an unusual kind, or a broken one."""
        if target.startswith(self._own) and (blob := self._blobs.get(target[len(self._own) :])) is not None:
            return CachedFile(name, blob.name, blob.size)
        place = self._resolver.resolve(where)
        key = place.blob or place.path.removeprefix(f"{self._folder}/")
        if place.state is not None and (place.blob or key.startswith("snapshots/")):
            if key not in self._blobs:  # placed since the blobs were read, or in a snapshot
                self._blobs[key] = blob_of(key, place.state)
            return CachedFile(name, key, self._blobs[key].size)
        self._hold_name(target)
        return CachedFile(name, None, 0, place.fault or "outside")

    def _hold_name(self, target: str) -> None:
        """Keep the blob that a link may mean, though it cannot be told."""
        self._held.add(os.path.basename(target))

    # how it is read

    def _folders(self, folder: str, known: frozenset[str], *, others: bool = True) -> frozenset[str]:
        """Which of the `known` folders are there; everything else is unknown here."""
        present = set()
        for entry in self._reader.entries(folder):
            kind, where = kind_of(entry), f"{folder}/{entry.name}"
            if entry.name in known and kind == "folder":
                present.add(entry.name)
                continue
            if entry.name in known:
                self._strange.add(where)
            if entry.name in known or (others and entry.name not in SYSTEM):
                self._unknown(
                    where, entry.path, "is a link; it is not followed" if kind == "link" else "is unknown here; it is left alone"
                )
        return frozenset(present)

    def _growing(self, where: str, state: os.stat_result) -> None:
        """Stamp bytes that were written to just now, and so may have become more since: no folder's time tells that."""
        if state.st_mtime_ns >= self._recent:
            self._reader.stamps[where] = stamp(state)

    def _unknown(self, where: str, path: str, fault: str) -> None:
        self._reader.warn(where, fault)
        self._left(path, where, "unknown")

    def _left(self, path: str, where: str, kind: str) -> None:
        self._leftovers += leftover(path, where, kind)
