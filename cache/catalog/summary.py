"""A repository in one line, as `cache ls` shows it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from hubclient.cache.layout import RepoId
from hubclient.cache.unfinished import arrived

if TYPE_CHECKING:
    from hubclient.cache.model import CachedRepo


@dataclass(frozen=True, slots=True)
class RepoSummary:
    """Sums over a repository: `size` in bytes, `files` that its revisions show (each blob once).

    `incomplete` are the bytes that have come of its unfinished `downloads`, which is a number of files.
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
    downloads: int = 0

    def as_json(self) -> dict[str, Any]:
        """As plain data."""
        return {**asdict(self), "repo": str(self.repo), "type": self.repo.type, "refs": list(self.refs)}


def summarise(repo: CachedRepo) -> RepoSummary:
    """The sums."""
    revisions = repo.revisions
    parts = [left for left in repo.leftovers if left.kind == "incomplete"]
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
        sum(arrived(repo.paths.cache, left.path, left.size) for left in parts),
        len(parts),
    )
