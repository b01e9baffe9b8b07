"""Mending a cache: from intact bytes on this machine where there are any, and from the Hub only what is still bad then.

Bad bytes stay in their place until good ones replace them in one step. What the Hub no longer has stays as it is, and is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubclient.cache.integrity.findings import Finding, Place
from hubclient.cache.integrity.mending import Copies, repair_locally
from hubclient.cache.integrity.reading import Progress
from hubclient.cache.integrity.verify import verify
from hubclient.cache.layout import RepoId, RepoPaths
from hubclient.cache.trees import TreeEntry, checked_entry, read_tree, write_tree
from hubclient.cache.writing.gate import writer
from hubclient.cache.writing.placing import make_folder, storing
from hubclient.errors import AccessDenied, DamagedInput, NetworkFault, Offline, SourceMissing
from hubclient.ground.faultpoints import reach
from hubclient.ground.names import shown
from hubclient.hub.net.session import Session

if TYPE_CHECKING:
    from hubclient.hub.net.connections import Connections

_FAULTS = (
    AccessDenied,
    DamagedInput,
    NetworkFault,
    SourceMissing,
)  # of one finding; after others nothing else could be done either


@dataclass(frozen=True, slots=True)
class Left:
    """A finding that is not mended, why, and what to do."""

    finding: Finding
    why: str
    hint: str | None = None

    def __str__(self) -> str:
        return f"{self.finding}; not mended: {self.why}"

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return {**self.finding.as_json(), "why": self.why, **({"hint": self.hint} if self.hint else {})}


@dataclass(frozen=True, slots=True)
class Repaired:
    """Findings by what became of them: mended from this machine, fetched, left. `received` bytes came over the network."""

    mended: tuple[Finding, ...] = ()
    fetched: tuple[Finding, ...] = ()
    left: tuple[Left, ...] = ()
    received: int = 0

    @property
    def ok(self) -> bool:
        """Whether nothing is left."""
        return not self.left

    def as_json(self) -> dict[str, Any]:
        """The result as plain data."""
        return {
            "ok": self.ok,
            "received": self.received,
            "mended": [finding.as_json() for finding in self.mended],
            "fetched": [finding.as_json() for finding in self.fetched],
            "left": [left.as_json() for left in self.left],
        }


def repair(
    session: Session,
    cache: Path,
    repos: Sequence[RepoId] | None = None,
    revision: str | None = None,
    *,
    findings: Sequence[Finding] | None = None,
    jobs: int | None = None,
    progress: Progress | None = None,
    stage: Callable[[str], None] | None = None,
) -> Repaired:
    """Mend what `verify` finds in the same selection, or the `findings` it has given.

    Offline nothing is asked of the Hub. `progress` is told bytes, of what `stage` says. May be killed, and called again.
    Raises EnvironmentFault if the cache cannot be written; what the Hub refuses, or has no more, is `left`.
    """
    if findings is None:
        _say(stage, "verifying")
        findings = verify(cache, repos, revision, jobs=jobs, progress=progress).findings
    bad = [finding for finding in findings if finding.is_failure]
    copies = Copies(cache)
    mended: list[Finding] = []
    rest: list[Finding] = []
    left: list[Left] = []
    _say(stage, "looking for intact copies")
    for finding in bad:
        try:
            (mended if repair_locally(cache, finding, copies) else rest).append(finding)
        except DamagedInput as error:  # a folder of the repository is a link
            left.append(Left(finding, str(error), error.hint))
    _say(stage, "fetching")
    run = _Fetching(session, cache, copies, progress)
    for finding in sorted(rest, key=lambda finding: not finding.places):  # what no file shows may be fetched for one that should
        run.mend(finding)
    return Repaired((*mended, *run.mended), tuple(run.fetched), (*left, *run.left), run.received)


class _Fetching:
    """What the Hub is asked for, one finding after the other."""

    def __init__(self, session: Session, cache: Path, copies: Copies, progress: Progress | None) -> None:
        self._session, self._cache, self._copies, self._progress = session, cache, copies, progress
        self._connections: Connections | None = None
        self._trees: dict[tuple[RepoId, str], dict[str, TreeEntry]] = {}
        self._wanted = 0  # bytes of what has been begun
        self._done = 0
        self.mended: list[Finding] = []
        self.fetched: list[Finding] = []
        self.left: list[Left] = []
        self.received = 0
        self._down: NetworkFault | None = None

    def mend(self, finding: Finding) -> None:
        """Fetch what a finding lacks; it is `left` if that cannot be."""
        hopeless = _hopeless(finding)
        if hopeless is not None and repair_locally(self._cache, finding, self._copies):
            self.mended.append(finding)
        elif hopeless is not None:
            self.left.append(hopeless)
        elif self._session.offline:
            self.left.append(_offline(finding))
        elif self._down is not None:
            self.left.append(Left(finding, str(self._down), self._down.hint))
        else:
            self._try(finding)

    def _try(self, finding: Finding) -> None:
        try:
            if finding.kind == "tree":
                self._tree(RepoPaths(self._cache, finding.repo), _commit_of(finding), anew=True)
            else:
                self._fetch(finding)
        except _FAULTS as error:
            if isinstance(error, NetworkFault) and not isinstance(error, Offline):
                self._down = error
            self.left.append(Left(finding, str(error), error.hint))
        else:
            self.fetched.append(finding)

    def _fetch(self, finding: Finding) -> None:
        """Every content that the finding's files should have, then the files."""
        paths = RepoPaths(self._cache, finding.repo)
        for entry, places in self._entries(paths, finding):
            part = replace(finding, places=tuple(places), expected=entry.digest, size=entry.size)
            with writer(paths, places[0].commit):
                if not repair_locally(self._cache, part, self._copies):  # an earlier finding may have brought it
                    self._blob(paths, places[0], entry)
                    reach("repair.fetched")
                    if not repair_locally(self._cache, part, self._copies):
                        raise DamagedInput("is still not what it should be", file=paths.blob(entry.etag))

    def _blob(self, paths: RepoPaths, place: Place, entry: TreeEntry) -> None:
        from hubclient.hub.net.connections import Connections
        from hubclient.hub.transfer.fetch import fetch

        self._connections = self._connections or Connections()
        self._wanted += entry.size
        got = fetch(
            self._session, paths, place.commit, place.file, entry, again=True, connections=self._connections, progress=self._count
        )
        self.received += got.received

    def _entries(self, paths: RepoPaths, finding: Finding) -> Iterator[tuple[TreeEntry, list[Place]]]:
        """What the commits say of the finding's files; usually all the same. SourceMissing if a commit has no such file, DamagedInput for a name that not every system takes."""
        found: dict[TreeEntry, list[Place]] = {}
        for place in finding.places:
            entry = self._tree(paths, place.commit).get(place.file)
            if entry is None:
                told = f"{finding.repo}@{place.commit[:12]} has no file {shown(place.file)}"
                raise SourceMissing(told, hint="somebody put it there; it may be removed")
            found.setdefault(checked_entry(place.file, entry, str(paths.tree(place.commit))), []).append(place)
        yield from found.items()

    def _tree(self, paths: RepoPaths, commit: str, *, anew: bool = False) -> dict[str, TreeEntry]:
        """The list of a commit's files: kept, or asked of the Hub, and then kept."""
        key = (paths.repo, commit)
        if key not in self._trees:
            kept = None if anew else _kept(paths, commit)
            self._trees[key] = kept if kept is not None else self._ask(paths, commit)
        return self._trees[key]

    def _ask(self, paths: RepoPaths, commit: str) -> dict[str, TreeEntry]:
        from hubclient.hub.resolve import listed

        entries, path = listed(self._session, paths.repo, commit), paths.tree(commit)
        with storing(path):
            make_folder(path.parent, paths.cache)
            write_tree(path, entries)
        return entries

    def _count(self, count: int, /, *, fetched: bool) -> None:
        del fetched
        self._done += count
        if self._progress is not None:
            self._progress(self._done, max(self._wanted, self._done))


def _hopeless(finding: Finding) -> Left | None:
    """What no bytes of the Hub's can mend."""
    if finding.kind == "ref":
        name = (finding.blob or "").removeprefix("refs/")
        return Left(
            finding, "the snapshot was never pulled, or has been removed", f"`hubclient pull {finding.repo}@{name}` fetches it"
        )
    if finding.kind != "tree" and not finding.places:
        return Left(
            finding, "no revision shows it, so that nobody can tell which file it is", "`hubclient cache prune` removes it"
        )
    return None


def _offline(finding: Finding) -> Left:
    names = ", ".join(finding.files) or finding.blob or ""
    why = f"no intact copy of {names} is on this machine, and offline was asked for"
    return Left(finding, why, f"`hubclient cache repair {finding.repo}` fetches it, when online")


def _commit_of(finding: Finding) -> str:
    """The commit whose list is broken."""
    return (finding.blob or "").removeprefix("trees/").removesuffix(".json")


def _kept(paths: RepoPaths, commit: str) -> dict[str, TreeEntry] | None:
    """The list that is here, if it can be used; a broken one is a finding of its own, and is replaced.

    Of its names, those that are fetched are checked then.
    """
    try:
        return read_tree(paths.tree(commit), portable=False)
    except (DamagedInput, OSError):
        return None


def _say(stage: Callable[[str], None] | None, text: str) -> None:
    if stage is not None:
        stage(text)
