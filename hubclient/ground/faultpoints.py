"""Named places at which a test stops the process dead, to see that nothing is lost and the next run completes.

    HUBCLIENT_FAULTPOINT=pull.placed hubclient pull org/name       # SIGKILL when the point is reached for the first time
    HUBCLIENT_FAULTPOINT=pull.placed:3 hubclient pull org/name     # ... for the third time

Without the variable a point costs one comparison. `POINTS` says what each one is in the middle of; `tests/test_faultpoints.py`
holds it against the source.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

POINTS: Mapping[str, str] = MappingProxyType({
    "pull.link-made": "the temporary link of a snapshot's file is there, its name is not",
    "pull.shared-noted": "the shared store's list names a blob that is not yet a link to it",
    "gc.shared-removed": "an entry of the shared store is gone, its list of links is not",
    "pull.part-created": "an unfinished download has its file and its ledger, no byte of it has come",
    "pull.part-adopted": "a dead process's unfinished download has a new name, its old ledger is still there",
    "pull.range-written": "bytes of a file are written, the ledger does not tell of them",
    "pull.ledger-written": "the ledger tells of the bytes so far, more are to come",
    "pull.hashed": "a file has come whole and its digest is right, it does not have its name yet",
    "pull.placed": "a file has its name in the cache, the ledger of its download is still there",
    "pull.taken": "another repository's bytes have a temporary name here, and are the right ones",
    "pull.tree-written": "the list of a commit's files is kept, none of them is here",
    "pull.linked": "a snapshot shows a file, the next ones are missing",
    "pull.ref-written": "all files are here and the branch names the commit; the pull's own note is still there",
    "lock.written": "the lock file is there, nothing has been said about it",
    "sync.entry-done": "one repository of a lock file is in the cache, the next ones are not",
    "catalog.begun": "a transaction of the catalog has begun, nothing is written",
    "catalog.rows-written": "the catalog's new rows are written, but not committed",
    "catalog.committed": "the catalog's new rows are committed",
    "catalog.rebuilt": "a new catalog lies in the place of one that could not be used",
    "gc.ref-removed": "a branch or tag of a revision is gone, the revision is there",
    "gc.snapshot-trashed": "a revision has vanished into the trash, its blobs are there",
    "gc.file-removed": "a revision does not show a file any more, its blob is there",
    "gc.blob-trashed": "a blob that no revision shows is in the trash, nobody has looked again whether one does by now",
    "gc.blob-removed": "a blob is gone for good, others are in the trash",
    "gc.repo-trashed": "a repository has vanished into the trash as a whole",
    "gc.trash-emptied": "what was in the trash is gone, what was noted of it is not",
    "verify.marked": "what was found intact so far is marked, the verification goes on",
    "repair.copied": "an intact copy of bad bytes lies beside them, under a part's name",
    "repair.shared": "the same, and the entry of the shared store is about to be replaced",
    "repair.placed": "good bytes have taken the place of bad ones, the files that should show them may not yet",
    "repair.shown": "a file shows good bytes, the next ones may not",
    "repair.fetched": "good bytes came from the Hub, the files that should show them may not yet",
})  # fmt: skip


def reach(point: str) -> None:
    """Say that `point` is reached; the process ends here if it was armed."""
    if _armed and point == _armed[0]:
        _armed[1] -= 1
        if not _armed[1]:
            os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))


def _read(text: str) -> list[Any]:
    name, _, count = text.partition(":")
    return [name, int(count or 1)] if name else []


_armed = _read(os.environ.get("HUBCLIENT_FAULTPOINT", ""))
