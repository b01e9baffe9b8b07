"""What `verify` finds, and what it returns: values with one sentence each, and as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from hubclient.cache.digests import Digest
from hubclient.cache.layout import RepoId
from hubclient.ground.names import shown

# What is wrong, as the end of a sentence about the file; `told` fills in what is known.
FAULTS: Mapping[str, str] = MappingProxyType(
    {
        "damaged": "holds other bytes than it should: {found} instead of {expected}",
        "size": "has {found_size:,} bytes instead of {size:,}",
        "missing": "is shown by a snapshot, but its bytes are not here",
        "outside": "is a link that leads out of the repository's folder",
        "loop": "is a link that leads to itself",
        "folder": "is a link to a folder",
        "swapped": "shows other bytes than the commit has: {found} instead of {expected}",
        "unreadable": "cannot be read: {detail}",
        "ref": "names the commit {detail}, which is not here",
        "tree": "cannot be used: {detail}",
    }
)
# What is told, and is no failure.
REMARKS: Mapping[str, str] = MappingProxyType(
    {
        "unknown": "has nothing to be held against{detail}: {found}",
        "partial": "is not all here: {detail} never downloaded",
        "begun": "names the commit {detail}, and nothing of the repository is here, as after a download that was refused",
        "unlisted": "is no file of the commit",
    }
)


class Place(NamedTuple):
    """A file of a revision."""

    commit: str
    file: str


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be: `kind` is a key of FAULTS or REMARKS.

    `blob` is the name in `blobs/`, or the path in the repository's folder of what lies elsewhere; `places` are the files
    that show it. `expected` and `found` are digests, `size` and `found_size` bytes, where they are known. `shared` is the
    xet hash of the entry in the store for all repositories that the blob is a link to.
    """

    kind: str
    repo: RepoId
    blob: str | None = None
    places: tuple[Place, ...] = ()
    expected: Digest | None = None
    found: Digest | None = None
    size: int | None = None
    found_size: int | None = None
    shared: str | None = None
    detail: str = ""

    @property
    def is_failure(self) -> bool:
        """Whether something is wrong, and not only worth telling."""
        return self.kind in FAULTS

    @property
    def commits(self) -> tuple[str, ...]:
        """The revisions concerned."""
        return tuple(dict.fromkeys(place.commit for place in self.places))

    @property
    def files(self) -> tuple[str, ...]:
        """The names of the files concerned, each once."""
        return tuple(dict.fromkeys(place.file for place in self.places))

    @property
    def name(self) -> str:
        """What to call it: the repository and its file, or the blob's name where no file shows it."""
        files = self.files
        if self.kind == "partial" or not files:
            return f"{self.repo}@{self.commits[0][:12]}" if self.commits and not self.blob else f"{self.repo} {shown(self.blob)}"
        return f"{self.repo}@{self.commits[0][:12]} {shown(files[0])}{f' and {len(files) - 1} more' if len(files) > 1 else ''}"

    def __str__(self) -> str:
        told = {**FAULTS, **REMARKS}[self.kind]
        values = {name: getattr(self, name) for name in ("found", "expected", "size", "found_size", "detail")}
        return f"{self.name} {told.format(**values)}"

    def as_json(self) -> dict[str, Any]:
        """The finding as plain data, without what is not known."""
        known = {
            "kind": self.kind,
            "failure": self.is_failure,
            "repo": str(self.repo),
            "commits": list(self.commits),
            "files": list(self.files),
            "blob": self.blob,
            "expected": self.expected and str(self.expected),
            "found": self.found and str(self.found),
            "size": self.size,
            "found_size": self.found_size,
            "shared": self.shared,
            "detail": self.detail or None,
            "told": str(self),
        }
        return {name: value for name, value in known.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Verification:
    """`checked` blobs and copies were held against what they should be, `bytes` of them read now; `skipped` of them had been
    found intact by the interrupted run that this one went on from.
    """

    findings: tuple[Finding, ...]
    repos: int
    checked: int
    bytes: int
    skipped: int = 0

    @property
    def failures(self) -> tuple[Finding, ...]:
        """The findings that say that something is wrong."""
        return tuple(finding for finding in self.findings if finding.is_failure)

    @property
    def ok(self) -> bool:
        """Whether everything that was looked at is as it should be."""
        return not self.failures

    def as_json(self) -> dict[str, Any]:
        """The result as plain data."""
        numbers = {name: getattr(self, name) for name in ("ok", "repos", "checked", "bytes", "skipped")}
        return {**numbers, "findings": [finding.as_json() for finding in self.findings]}


def together(found: Sequence[Verification]) -> Verification:
    """Several verifications as one."""
    findings = tuple(finding for one in found for finding in one.findings)
    repos, checked, read, skipped = (
        sum(getattr(one, name) for one in found) for name in ("repos", "checked", "bytes", "skipped")
    )
    return Verification(findings, repos, checked, read, skipped)
