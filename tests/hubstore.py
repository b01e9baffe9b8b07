"""Repositories that tests write to: commits, branches and tags in memory, bytes in a folder under their digest."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from hubclient.cache.digests import digest_file, new_hasher
from hubclient.cache.mirror.payloads import pointer
from hubclient.cache.mirror.repositories import BRANCHES, PULLS, TAGS, Commit, Gate, Repository, StoredFile, User
from hubclient.cache.trees import TreeEntry

LARGE = 1 << 20
LARGE_SUFFIXES = (".safetensors", ".gguf", ".bin", ".pt", ".pth", ".onnx", ".h5", ".msgpack", ".npz", ".parquet", ".arrow")
_START = datetime(2026, 1, 1, tzinfo=UTC)

Content = bytes | str | Path
Rule = Callable[[str, int], bool]


def is_large(name: str, size: int) -> bool:
    """The Hub's rule, about: weights by their name, everything else by its size."""
    return size > 0 and (size >= LARGE or name.endswith(LARGE_SUFFIXES))


class Bytes:
    """A folder of files named by their sha256. Paths that are handed in are used where they are."""

    def __init__(self, folder: Path, *, xet: bool = False) -> None:
        self.folder = folder
        self.xet = xet
        self.known: dict[str, Path] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def store(self, content: Content, name: str, large: Rule) -> StoredFile:
        """The file, with what the Hub says of it."""
        if isinstance(content, str):
            content = content.encode()
        sha256, path = self._sha256(content)
        size = path.stat().st_size
        if not large(name, size):
            return StoredFile(TreeEntry(size, digest_file(path, "git-sha1").hex), path)
        return self.large(sha256, size)

    def large(self, sha256: str, size: int) -> StoredFile:
        """A large file whose bytes are here."""
        told = pointer(sha256, size)
        hasher = new_hasher("git-sha1", len(told))
        hasher.update(told)
        xet = hashlib.sha256(b"xet" + bytes.fromhex(sha256)).hexdigest() if self.xet else None
        return StoredFile(TreeEntry(size, hasher.hexdigest(), sha256, xet), self.known[sha256])

    def put(self, content: bytes) -> str:
        """Keep bytes; their sha256."""
        return self._sha256(content)[0]

    def _sha256(self, content: bytes | Path) -> tuple[str, Path]:
        if isinstance(content, bytes):
            sha256 = hashlib.sha256(content).hexdigest()
            path = self.folder / sha256
            if not path.exists():
                temporary = path.with_suffix(f".{secrets.token_hex(4)}")
                temporary.write_bytes(content)
                os.replace(temporary, path)
        else:
            sha256, path = digest_file(content, "sha256").hex, content
        self.known[sha256] = path
        return sha256, path


@dataclass(eq=False)
class HubRepo:
    """A repository to commit to."""

    store: Bytes
    kind: str
    id: str
    private: bool = False
    gated: Gate | None = None
    labels: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    allowed: set[str] = field(default_factory=set)  # users that the gate lets through
    refs: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)
    downloads: int = 0

    def commit(
        self,
        files: Mapping[str, Content | StoredFile | None],
        branch: str = "main",
        *,
        lfs: Rule = is_large,
        title: str = "Update",
        message: str = "",
        author: str = "tester",
        replace_all: bool = False,
    ) -> str:
        """Add or (None) delete files on a branch, which is made if it is new; the commit's id.

        Names are taken as they are: what no file system would have, a repository of these can.
        """
        ref = branch if branch.startswith("refs/") else BRANCHES + branch
        parent = self.refs.get(ref)
        tree = dict(self.commits[parent].files) if parent and not replace_all else {}
        for name, content in files.items():
            if content is None:
                tree.pop(name)
            else:
                tree[name] = content if isinstance(content, StoredFile) else self.store.store(content, name, lfs)
        date = _START + timedelta(minutes=len(self.commits))
        listed = sorted((name, file.entry.etag) for name, file in tree.items())
        id_ = hashlib.sha1(repr((self.kind, self.id, parent, ref, listed, title, len(self.commits))).encode()).hexdigest()
        self.commits[id_] = Commit(id_, tree, date, title, message, (author,), parent)
        self.refs[ref] = id_
        return id_

    def tag(self, name: str, commit: str | None = None) -> None:
        """Name a commit, else the head of main."""
        self.refs[TAGS + name] = commit or self.refs[BRANCHES + "main"]

    def branch(self, name: str, commit: str | None = None) -> None:
        """A branch at a commit, else at the head of main."""
        self.refs[BRANCHES + name] = commit or self.refs[BRANCHES + "main"]

    def open_pull(self, base: str) -> str:
        """A pull request that starts where `base` (a full ref) is; its ref."""
        number = 1 + sum(name.startswith(PULLS) for name in self.refs)
        self.refs[f"{PULLS}{number}"] = self.refs[base]
        return f"{PULLS}{number}"

    def files(self, revision: str = "main") -> dict[str, bytes]:
        """Names and bytes at a revision."""
        commit = self.shown().commit(revision)
        assert commit is not None, revision
        return {name: file.path.read_bytes() for name, file in commit.files.items()}

    def entries(self, revision: str = "main") -> dict[str, TreeEntry]:
        """Names, sizes and digests at a revision."""
        commit = self.shown().commit(revision)
        assert commit is not None, revision
        return {name: file.entry for name, file in commit.files.items()}

    def allow(self, user: str) -> None:
        """Let a user through the gate."""
        self.allowed.add(user)

    def shown(self) -> Repository:
        """As the mirror shows it now."""
        return Repository(
            self.kind,
            self.id,
            dict(self.refs),
            self.commits,
            self.private,
            self.gated,
            self.labels,
            _START,
            self.downloads,
            details=self.details,
        )


class HubStore:
    """The repositories, users and tokens of one hub."""

    def __init__(self, folder: Path, *, xet: bool = False) -> None:
        self.bytes = Bytes(folder, xet=xet)
        self.repos: dict[tuple[str, str], HubRepo] = {}
        self.names: dict[tuple[str, str], str] = {}
        self.tokens: dict[str, User] = {}

    def repo(self, name: str, *, type: str = "model", **fields: Any) -> HubRepo:  # noqa: A002
        """The repository of this name, made if it is new; `fields` of it (private, gated, labels, ...) are set."""
        if "gated" in fields:
            fields["gated"] = "auto" if fields["gated"] is True else fields["gated"] or None
        found = self.repos.setdefault((type, name), HubRepo(self.bytes, type, name))
        for key, value in fields.items():
            setattr(found, key, value)
        return found

    def rename(self, old: str, new: str, type: str = "model") -> HubRepo:  # noqa: A002
        """Give a repository another name; the old one redirects."""
        repo = self.repos.pop((type, old))
        repo.id = new
        self.repos[type, new] = repo
        self.names[type, old] = new
        return repo

    def token(self, user: str, role: str = "read", organisations: Iterable[str] = ()) -> str:
        """A token for a user, in the form that clients accept: "hf_" and 34 letters."""
        token = "hf_" + "".join(secrets.choice("abcdefghijklmnopqrstuvwxyzABCDEFGHIJ") for _ in range(34))
        self.tokens[token] = User(user, role, tuple(organisations))
        return token

    # What the mirror asks (hubclient.cache.mirror.repositories.Repositories)

    def find(self, kind: str, name: str) -> Repository | None:
        repo = self.repos.get((kind, name))
        return repo.shown() if repo else None

    def moved(self, kind: str, name: str) -> str | None:
        return self.names.get((kind, name))

    def every(self, kind: str) -> Iterable[Repository]:
        return [repo.shown() for (of, _), repo in sorted(self.repos.items()) if of == kind]

    def user(self, token: str) -> User | None:
        return self.tokens.get(token)

    def may_see(self, repository: Repository, user: User | None) -> bool:
        return not repository.private or (user is not None and user.owns(repository.id))

    def may_read(self, repository: Repository, user: User | None) -> bool:
        if repository.gated is None or (user is not None and user.owns(repository.id)):
            return True
        return user is not None and user.name in self.repos[repository.kind, repository.id].allowed
