"""What the mirror shows: repositories, commits and files as values, and the one door (`Repositories`) they come through."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol

from hubclient.cache.trees import TreeEntry

Gate = Literal["auto", "manual"]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
BRANCHES, TAGS, PULLS, CONVERTS = "refs/heads/", "refs/tags/", "refs/pr/", "refs/convert/"
_PREFIX = re.compile(r"[0-9a-f]{7,40}")  # git's shortest short name


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of a commit: what the Hub says of it, and where its bytes are."""

    entry: TreeEntry
    path: Path


@dataclass(frozen=True, eq=False)  # compared by identity, so that what is derived from a large tree can be kept
class Commit:
    """`files` are the whole tree, by their path in the repository; `parent` is the commit before."""

    id: str
    files: Mapping[str, StoredFile]
    date: datetime = EPOCH
    title: str = ""
    message: str = ""
    authors: tuple[str, ...] = ()
    parent: str | None = None


@dataclass(frozen=True, slots=True)
class Repository:
    """`refs` lead from full names ("refs/heads/main", "refs/tags/v1", "refs/pr/1") to keys of `commits`.

    `kind` is "model", "dataset" or "space"; `labels` are what the Hub calls tags; `details` are further fields of the
    answer to a question about it, as the Hub spells them (`pipeline_tag`, `cardData`).
    """

    kind: str
    id: str
    refs: Mapping[str, str]
    commits: Mapping[str, Commit]
    private: bool = False
    gated: Gate | None = None
    labels: tuple[str, ...] = ()
    created: datetime = EPOCH
    downloads: int = 0
    likes: int = 0
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def author(self) -> str | None:
        """The namespace, None for the few old repositories without one."""
        return self.id.rpartition("/")[0] or None

    @property
    def head(self) -> Commit | None:
        """The commit that the default branch is at; None while nothing was ever committed."""
        return self.commit("main")

    def commit(self, revision: str) -> Commit | None:
        """What a branch, a tag, a full name of a ref, a commit or the start of one (if no other starts so) stands for."""
        for name in (BRANCHES + revision, TAGS + revision, revision):
            if name in self.refs:
                return self.commits[self.refs[name]]
        if not _PREFIX.fullmatch(revision):
            return None
        found = [commit for id_, commit in self.commits.items() if id_.startswith(revision)]
        return found[0] if len(found) == 1 else None


@dataclass(frozen=True, slots=True)
class User:
    """Whose token came with a request; `role` is what the token may do: "read" or "write"."""

    name: str
    role: str = "read"
    organisations: tuple[str, ...] = ()

    def owns(self, name: str) -> bool:
        """Whether a repository's id lies in a namespace of this user's."""
        return name.split("/")[0] in (self.name, *self.organisations)


class Repositories(Protocol):
    """A set of repositories and who may look at them. Called on the server's event loop: answers must be quick."""

    def find(self, kind: str, name: str) -> Repository | None:
        """The repository, whoever asks."""

    def moved(self, kind: str, name: str) -> str | None:
        """The present name of a repository that had this name once."""

    def every(self, kind: str) -> Iterable[Repository]:
        """All there are, in the order in which a search lists them."""

    def user(self, token: str) -> User | None:
        """Whose token it is; None if nobody's."""

    def may_see(self, repository: Repository, user: User | None) -> bool:
        """Whether the repository exists as far as this user (None: a stranger) is to know."""

    def may_read(self, repository: Repository, user: User | None) -> bool:
        """Whether its files may be fetched; the answer that a gate gives."""
