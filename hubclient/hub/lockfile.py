"""The lock file: which commit of which repository, and the digest of each file, so that another machine gets the same bytes.

    {"lockfile_version": 1,
     "repositories": [{"repo": "org/name", "type": "model", "revision": "main", "commit": "<40 hex>",
                       "include": ["*.json"], "exclude": [], "for": "gguf",         (only what was asked for)
                       "files": {"config.json": {"size": 519, "git-sha1": "<40 hex>"},
                                 "model.safetensors": {"size": 2048, "sha256": "<64 hex>"}}}]}

Sorted and without a time, so that the same state gives the same file; it does not say which endpoint, so that a mirror
serves as well. What is read may come from anybody: names, digests, sizes and their number are checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hubclient.cache.asked import Asked, checked_revision
from hubclient.cache.digests import Digest, new_hasher
from hubclient.cache.layout import FOLDERS, RepoId, is_commit
from hubclient.cache.trees import TreeEntry, checked_entry
from hubclient.disk import writing
from hubclient.errors import DamagedInput, EnvironmentFault, SourceMissing, UnsupportedFormat, UsageError
from hubclient.ground.atomic import replace_file
from hubclient.ground.faultpoints import reach
from hubclient.ground.names import shown
from hubclient.ground.strictjson import parse_object, write_json

DEFAULT_NAME = "hubclient.lock"
_VERSION = 1
_LIMIT = 256 << 20  # bytes
_TEXTS = ("repo", "type", "revision", "commit")
_LISTS = ("include", "exclude")


@dataclass(frozen=True, slots=True)
class LockEntry:
    """A commit of a repository and its chosen files; `revision` and how they were chosen is kept to do it again."""

    asked: Asked
    commit: str
    files: Mapping[str, TreeEntry]
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    target: str | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        """What no two entries of a file share, and their order."""
        return self.asked.repo.type, self.asked.repo.name, self.asked.revision

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.files.values())

    def as_json(self) -> dict[str, Any]:
        """As it lies in the file."""
        repo = self.asked.repo
        told: dict[str, Any] = {"repo": repo.name, "type": repo.type, "revision": self.asked.revision, "commit": self.commit}
        lists = {"include": list(self.include), "exclude": list(self.exclude), "for": self.target}
        files = {name: _told(self.files[name]) for name in sorted(self.files)}
        return told | {key: value for key, value in lists.items() if value} | {"files": files}


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock file's content, in its order."""

    entries: tuple[LockEntry, ...] = field(default=())

    def with_entries(self, more: tuple[LockEntry, ...]) -> Lock:
        """The same with entries added, or replaced where repository and revision are the same."""
        entries = {entry.key: entry for entry in (*self.entries, *more)}
        return Lock(tuple(entries[key] for key in sorted(entries)))

    def as_json(self) -> dict[str, Any]:
        """The file as a JSON object."""
        return {"lockfile_version": _VERSION, "repositories": [entry.as_json() for entry in self.entries]}


def read_lock(path: Path) -> Lock:
    """A lock file. SourceMissing if there is none, DamagedInput if it is broken, UnsupportedFormat if it is too new.

    EnvironmentFault if it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(_LIMIT + 1)
    except FileNotFoundError as error:
        raise SourceMissing(f"{path}: there is no such lock file", path, hint="`hubclient lock org/name` makes one") from error
    except OSError as error:
        raise EnvironmentFault(f"{path}: cannot be read ({error.strerror or error})", path) from error
    if len(data) > _LIMIT:
        raise DamagedInput(f"is larger than {_LIMIT:,} bytes", file=path)
    content = parse_object(data, path)
    version, rows = content.get("lockfile_version"), content.get("repositories")
    if type(version) is int and version > _VERSION:
        told = f"{path}: is a lock file of version {shown(version)}, and this hubclient reads version {_VERSION}"
        raise UnsupportedFormat(told, hint="a newer hubclient reads it")
    if version != _VERSION or not isinstance(rows, list) or content.keys() != {"lockfile_version", "repositories"}:
        raise DamagedInput('is no lock file: it has not just a "lockfile_version" and a list of "repositories"', file=path)
    entries = [_entry(row, f"entry {index + 1}", path) for index, row in enumerate(rows)]
    if len({entry.key for entry in entries}) != len(entries):
        raise DamagedInput("lists a repository twice at one revision", file=path)
    return Lock(tuple(sorted(entries, key=lambda entry: entry.key)))


def write_lock(path: Path, lock: Lock) -> None:
    """Put a lock file in place of whatever is there, in one step; the same content is not written again. EnvironmentFault."""
    data = write_json(lock.as_json())
    with writing(path):
        if not path.is_file() or path.read_bytes() != data:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, data)
    reach("lock.written")


def _entry(row: Any, where: str, path: Path) -> LockEntry:
    if not isinstance(row, dict) or not row.keys() <= {*_TEXTS, *_LISTS, "for", "files"}:
        raise DamagedInput(f"{where} is no object of the known keys", file=path)
    name, kind, revision, commit = texts = [row.get(key) for key in _TEXTS]
    if not all(isinstance(text, str) for text in texts):
        raise DamagedInput(f"{where} lacks one of {', '.join(_TEXTS)}", file=path)
    repo = RepoId(str(name), str(kind))
    if kind not in FOLDERS or not repo.is_valid or not is_commit(str(commit)):
        raise DamagedInput(f"{where} names no repository and commit: {shown(name)}, {shown(kind)}, {shown(commit)}", file=path)
    try:
        asked = Asked(repo, checked_revision(str(revision)))
    except UsageError as error:
        raise DamagedInput(f"{where}: {error}", file=path) from error
    include, exclude = (_patterns(row.get(key, []), f"{where}: {key}", path) for key in _LISTS)
    target, files = row.get("for"), row.get("files")
    if not isinstance(files, dict) or not (target is None or (isinstance(target, str) and target.isidentifier())):
        raise DamagedInput(f'{where} has no object of "files", or a "for" that is no name', file=path)
    taken: set[str] = set()
    entries = {file: checked_entry(file, _read_file(file, told, path), str(path), taken) for file, told in files.items()}
    return LockEntry(asked, str(commit), entries, include, exclude, target)


def _patterns(value: Any, where: str, path: Path) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(text, str) and text for text in value):
        raise DamagedInput(f"{where} is no list of patterns", file=path)
    return tuple(value)


def _read_file(name: str, told: Any, path: Path) -> TreeEntry:
    size = told.get("size") if isinstance(told, dict) else None
    found = [(key, value) for key, value in told.items() if key != "size"] if isinstance(told, dict) else []
    digest = Digest.of_name(found[0][1]) if len(found) == 1 and isinstance(found[0][1], str) else None
    if digest is None or digest.algorithm != found[0][0] or type(size) is not int or not 0 <= size < 1 << 62:
        raise DamagedInput(f'{shown(name)} has not just a "size" and a "sha256" or "git-sha1"', file=path)
    return (
        TreeEntry(size, digest.hex) if digest.algorithm == "git-sha1" else TreeEntry(size, pointer_id(digest, size), digest.hex)
    )


def pointer_id(digest: Digest, size: int) -> str:
    """Git's sha1 of the pointer that it keeps in place of a large file (git-lfs, docs/spec.md)."""
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n" % (digest.hex.encode(), size)
    hasher = new_hasher("git-sha1", len(pointer))
    hasher.update(pointer)
    return str(hasher.hexdigest())


def _told(entry: TreeEntry) -> dict[str, Any]:
    return {"size": entry.size, entry.digest.algorithm: entry.digest.hex}
