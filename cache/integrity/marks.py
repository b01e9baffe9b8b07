"""How far a verification came: what was found intact is noted in the catalog, so that a killed run is gone on with.

Only for bytes that have not changed since (size, time, inode) and that are still to be held against the same digest; and
only until the run is finished.
"""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType
from typing import Self

from hubclient.cache.catalog.catalog import Catalog, Mark
from hubclient.cache.digests import Digest
from hubclient.cache.integrity.claims import Subject
from hubclient.cache.integrity.reading import Outcome
from hubclient.cache.model import CachedBlob
from hubclient.ground.faultpoints import reach

EVERY_SECONDS = 1.0  # what a kill can cost is at most so much work
EVERY_BYTES = 256 << 20


class Marks:
    """The marks of one run, for what `selection` says; those of an interrupted run of the same, unless `again`."""

    def __init__(self, cache: Path, selection: str, *, again: bool) -> None:
        self._catalog = Catalog.open(cache)
        self._run = self._catalog.start_run(selection, again=again)
        self._held = {(mark.repo, mark.blob): mark for mark in self._catalog.verified(self._run)}
        self._waiting: list[Mark] = []
        self._bytes, self._saved = 0, time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self._save()
        finally:
            self._catalog.close()

    def holds(self, subject: Subject) -> bool:
        """Whether the run has found these bytes intact, and they are the same still."""
        mark = self._held.get((subject.paths.repo.folder, subject.blob.name))
        return mark is not None and _stamp(subject.blob) == mark[2:5] and subject.claims.keys() <= {Digest.of_name(mark.digest)}

    def add(self, outcome: Outcome, *, intact: bool) -> None:
        """Note what was found intact."""
        self._bytes += outcome.read
        if intact and outcome.state is not None and outcome.digests:
            state, name = outcome.state, outcome.subject.blob.name
            digest = next(iter(outcome.subject.claims), None) or outcome.digests["sha256"]
            values = (state.st_size, state.st_mtime_ns, state.st_ino)
            self._waiting.append(Mark(outcome.subject.paths.repo.folder, name, *values, digest.hex))
        if self._bytes >= EVERY_BYTES or time.monotonic() - self._saved >= EVERY_SECONDS:
            self._save()

    def finish(self) -> None:
        """The run is through: the next one begins anew."""
        self._waiting = []
        self._catalog.finish_run(self._run)

    def _save(self) -> None:
        if self._waiting:
            self._catalog.record_verified(self._run, self._waiting)
            reach("verify.marked")
        self._waiting, self._bytes, self._saved = [], 0, time.monotonic()


def _stamp(blob: CachedBlob) -> tuple[int, int, int]:
    return blob.size, blob.modified_ns, blob.inode
