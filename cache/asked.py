"""How people name what they mean: `org/name[@revision][:file]`."""

from __future__ import annotations

from dataclasses import dataclass

from hubclient.cache.layout import DEFAULT_REVISION, RepoId
from hubclient.errors import DamagedInput, UsageError
from hubclient.ground.names import safe_relative, shown


@dataclass(frozen=True, slots=True)
class Asked:
    """A repository, perhaps a revision of it (`given`: a branch, a tag or a commit), perhaps one file."""

    repo: RepoId
    given: str | None = None
    file: str | None = None

    @classmethod
    def parse(cls, text: str) -> Asked:
        """From "org/name", "org/name@revision", "org/name:file", "datasets/org/name@v1.0:data/train.csv"; UsageError."""
        left, colon, file = text.partition(":")  # git has no colon in the name of a branch or tag
        name, at, revision = left.partition("@")
        if (at and not revision) or (colon and not file):
            raise UsageError(f"{shown(text)} is not REPO[@REVISION][:FILE]", hint="such as org/name@main:config.json")
        return cls(RepoId.parse(name), checked_revision(revision) if at else None, file or None)

    @property
    def revision(self) -> str:
        """The revision; where none is given the one that the Hub shows."""
        return self.given or DEFAULT_REVISION

    def __str__(self) -> str:
        revision = "" if self.revision == DEFAULT_REVISION else f"@{self.revision}"
        return f"{self.repo}{revision}" + (f":{self.file}" if self.file else "")


def checked_revision(revision: str) -> str:
    """The name of a branch or tag, or a commit, that is also safe as a path; UsageError."""
    try:
        safe_relative(revision, source="the revision")
    except DamagedInput as error:
        raise UsageError(f"{shown(revision)} cannot be the name of a revision: {error}") from error
    return revision
