"""How people name what they mean: `org/name[@revision][:file]`, or `hf://org/name[@revision][/file]`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hubclient.cache.layout import DEFAULT_REVISION, FOLDERS, RepoId
from hubclient.errors import DamagedInput, UsageError
from hubclient.ground.names import safe_relative, shown

URI = "hf://"
_SPECIAL = re.compile(
    r"refs/(?:convert/[\w.-]+|pr/\d+)(?=/|\Z)"
)  # revisions that hold slashes, in huggingface_hub's grammar of URIs


@dataclass(frozen=True, slots=True)
class Asked:
    """A repository, perhaps a revision of it (`given`: a branch, a tag or a commit), perhaps one file."""

    repo: RepoId
    given: str | None = None
    file: str | None = None

    @classmethod
    def parse(cls, text: str) -> Asked:
        """From "org/name", "org/name@revision", "org/name:file", "datasets/org/name@v1.0:data/train.csv"; UsageError.

        Also from huggingface_hub's URIs: "hf://org/name@v1.0/sub/file", "hf://datasets/org/name", "hf://name".
        """
        if text.startswith(URI):
            return cls._of_uri(text)
        left, colon, file = text.partition(":")  # git has no colon in the name of a branch or tag
        name, at, revision = left.partition("@")
        if (at and not revision) or (colon and not file):
            raise UsageError(f"{shown(text)} is not REPO[@REVISION][:FILE]", hint="such as org/name@main:config.json")
        return cls(RepoId.parse(name), checked_revision(revision) if at else None, file or None)

    @classmethod
    def _of_uri(cls, text: str) -> Asked:
        from urllib.parse import unquote

        body, colon, file = text.removeprefix(URI).partition(":")
        if body.startswith("buckets/"):
            raise UsageError(f"{shown(text)}: is in a bucket, which is no repository")
        name, at, rest = body.partition("@")
        if at:
            revision, path = revision_and_file(rest)
        else:
            segments = body.split("/")
            length = 3 if segments[0] in FOLDERS.values() else 2
            revision, name, path = "", "/".join(segments[:length]), "/".join(segments[length:])
        if (at and not revision) or (colon and not file) or (colon and path):
            raise UsageError(f"{shown(text)} is not {URI}REPO[@REVISION][/FILE]", hint=f"such as {URI}org/name@main/config.json")
        return cls(RepoId.parse(name), checked_revision(unquote(revision)) if at else None, file or path.rstrip("/") or None)

    @property
    def revision(self) -> str:
        """The revision; where none is given the one that the Hub shows."""
        return self.given or DEFAULT_REVISION

    def __str__(self) -> str:
        revision = "" if self.revision == DEFAULT_REVISION else f"@{self.revision}"
        return f"{self.repo}{revision}" + (f":{self.file}" if self.file else "")


def revision_and_file(text: str) -> tuple[str, str]:
    """The parts of "revision/file" in an address, either of which may be empty; a revision has slashes only where it is `refs/...`."""
    special = _SPECIAL.match(text)
    if special is not None:
        return special[0], text[special.end() :].lstrip("/")
    revision, _, file = text.partition("/")
    return revision, file


def checked_revision(revision: str) -> str:
    """The name of a branch or tag, or a commit, that is also safe as a path; UsageError."""
    try:
        safe_relative(revision, source="the revision")
    except DamagedInput as error:
        raise UsageError(f"{shown(revision)} cannot be the name of a revision: {error}") from error
    return revision
