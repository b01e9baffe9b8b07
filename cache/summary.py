"""A repository in one line, as `cache ls` shows it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from hubclient.cache.layout import RepoId

if TYPE_CHECKING:
    from hubclient.cache.model import CachedRepo

PARTS = ("incomplete", "ledger")  # kinds of leftovers that are what an unfinished download has so far


@dataclass(frozen=True, slots=True)
class RepoSummary:
    """Sums over a repository: `size` and `incomplete` in bytes, `files` that its revisions show (each blob once).

    `modified` and `used` are seconds since 1970: when its bytes were written, and last read as far as the system and
    our notes tell. `pinned` if the repository or a revision is; `faults` counts files that cannot be used.
    """

    repo: RepoId
    size: int
    files: int
    revisions: int
    refs: tuple[str, ...]
    modified: float
    used: float
    pinned: bool
    faults: int
    incomplete: int

    def as_json(self) -> dict[str, Any]:
        """As plain data."""
        return {**asdict(self), "repo": str(self.repo), "type": self.repo.type, "refs": list(self.refs)}


def summarise(repo: CachedRepo) -> RepoSummary:
    """The sums."""
    revisions = repo.revisions
    times = [blob.modified_ns / 1e9 for blob in repo.blobs.values()], [blob.used for blob in repo.blobs.values()]
    return RepoSummary(
        repo.repo,
        repo.size,
        len(repo.shown & repo.blobs.keys()),
        len(revisions),
        tuple(sorted(repo.refs)),
        max((revision.modified for revision in revisions), default=max(times[0], default=0.0)),
        max((revision.used for revision in revisions), default=max(times[1], default=0.0)),
        repo.pin is not None or any(revision.pin for revision in revisions),
        sum(len(revision.faults) for revision in revisions),
        sum(left.size for left in repo.leftovers if left.kind in PARTS),
    )
