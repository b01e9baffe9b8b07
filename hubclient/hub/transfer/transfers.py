"""The transfers of one pull, side by side: in which order, how they are counted, and what becomes of the others when one fails."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hubclient.cache.present import present_of
from hubclient.cache.trees import TreeEntry
from hubclient.cache.writing.placing import show_file
from hubclient.errors import DamagedInput, SourceMissing
from hubclient.ground.faultpoints import reach
from hubclient.ground.progress import Progress, Stage
from hubclient.hub.pullplan import PullPlan
from hubclient.hub.transfer.crew import Job, run_all

if TYPE_CHECKING:
    from hubclient.hub.net.session import Session

_SMALL = 1 << 20  # bytes


class Transfers:
    """The transfers of one pull: what came so far, and how to stop them."""

    def __init__(self, session: Session, plan: PullPlan, workers: int, progress: Progress | None, stage: Stage | None) -> None:
        from hubclient.hub.net.connections import Connections

        self._session, self._plan, self._workers, self._stage = session, plan, workers, stage
        self._connections = Connections(workers)
        self._tally = Tally(plan.transfer + plan.kept, plan.kept, progress)
        # Again, now that nobody collects it: what was here when the plan was made may have gone since.
        present = present_of(plan.paths, plan.resolved.commit, plan.entries)
        self._damaged = frozenset(plan.present.damaged)
        self._unshown = tuple(name for name in present.unshown if name not in self._damaged)
        self._wanted = (*present.missing, *plan.present.damaged)
        self._came: set[str] = set()
        self.downloaded = 0

    @property
    def fetched(self) -> tuple[str, ...]:
        """Names of files that came over the network."""
        return tuple(name for name in self._plan.names if name in self._came)

    def show_what_is_here(self) -> None:
        """Files whose bytes are here under their digest, from another revision."""
        for name in self._unshown:
            self._show(self._plan.paths.blob(self._plan.entries[name].etag), name)

    def fetch_the_rest(self) -> None:
        """Everything else; each content once, however many files have it."""
        names: dict[str, list[str]] = {}
        for name in self._wanted:
            names.setdefault(self._plan.entries[name].etag, []).append(name)
        entries = {etag: self._plan.entries[same[0]] for etag, same in names.items()}
        jobs: list[Job] = [partial(self._fetch, names[etag], entries[etag]) for etag in in_order(entries)]
        with self._session.patience.telling(self._stage):
            faults = run_all(jobs, self._workers, self._connections.stop, _concerns_one_file)
        if faults:
            raise _first(faults)

    def _fetch(self, names: Sequence[str], entry: TreeEntry) -> None:
        from hubclient.hub.transfer.fetch import fetch

        plan, told = self._plan, partial(self._waiting, names[0])
        done = fetch(
            self._session,
            plan.paths,
            plan.resolved.commit,
            names[0],
            entry,
            again=names[0] in self._damaged,
            connections=self._connections,
            progress=self._tally,
            waiting=told,
        )
        for name in names:
            self._show(done.path, name)
        with self._tally.lock:
            self.downloaded += done.received
            self._came.update(names if done.how == "fetched" else ())

    def _waiting(self, name: str) -> None:
        self._connections.check()
        if self._stage is not None:
            self._stage(f"waiting for another process that downloads {name}")

    def _show(self, blob: Path, name: str) -> None:
        plan = self._plan
        self._connections.check()
        show_file(blob, plan.paths.pointer(plan.resolved.commit, name), plan.cache)
        reach("pull.linked")


class Tally:
    """Adds up what transfers tell: of `size` bytes, those that came over the network, and those that will.

    What was here after all (a copy in another repository, what a stopped run left) is taken off those that are to come.
    """

    def __init__(self, size: int, kept: int, progress: Progress | None) -> None:
        self.lock = threading.Lock()
        self._size, self._kept, self._progress = size, kept, progress
        self._came = self._here = 0

    def __call__(self, count: int, /, *, fetched: bool) -> None:
        """Bytes of a file have become available."""
        with self.lock:
            if fetched:
                self._came += count
            else:
                self._here += count
            if self._progress is not None:
                total = self._size - max(self._here, self._kept)
                self._progress(self._came, max(total, self._came))


def in_order(entries: Mapping[str, TreeEntry]) -> list[str]:
    """The largest first, which takes longest; then all that is small, so that what is there is soon of use; then the rest."""
    by_size = sorted(entries, key=lambda etag: (-entries[etag].size, etag))
    small = [etag for etag in by_size[1:] if entries[etag].size < _SMALL]
    return [*by_size[:1], *reversed(small), *(etag for etag in by_size[1:] if entries[etag].size >= _SMALL)]


def _concerns_one_file(fault: Exception) -> bool:
    """Whether the other files may well arrive: this one is not there, or is not what the Hub says it is."""
    return isinstance(fault, DamagedInput | SourceMissing)


def _first(faults: Sequence[Exception]) -> Exception:
    """The fault to raise; the others are in its hint."""
    first = faults[0]
    if len(faults) > 1 and isinstance(first, DamagedInput | SourceMissing):
        first.hint = f"and {len(faults) - 1} more files: {'; '.join(map(str, faults[1:4]))}"
    return first
