"""How those who write into a repository and those who remove from it keep out of each other's way, without a lock.

A writer notes its commit and then looks whether a removal runs; a removal shows itself (by its folder in the trash) and then
looks for notes. Whatever the timing, one of them sees the other: a removal leaves alone what a writer that it sees may need;
a writer waits for the end of a removal that may not have seen it, and only then looks what is here.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from hubclient.cache.layout import RepoPaths
from hubclient.cache.notes import active
from hubclient.cache.retention.trash import running

PATIENCE = 60.0  # seconds to wait for a removal; one that takes longer was stopped, and looks again before it goes on
DOUBT = 5.0  # seconds to wait for one that cannot be asked, and was perhaps killed hours ago
_PAUSE = 0.02


@contextmanager
def writer(paths: RepoPaths, commit: str, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """While the block runs nobody collects the revision, nor blobs that its list names. EnvironmentFault, DamagedInput.

    `waiting` is called while a removal is waited for.
    """
    began, root = time.monotonic(), paths.notes / "trash"
    with ExitStack() as stack:
        while True:
            note = stack.enter_context(active(paths, commit))
            while (waited := time.monotonic() - began) < PATIENCE and running(root, surely=waited >= DOUBT):
                if waiting is not None:
                    waiting()
                time.sleep(_PAUSE)
            if os.path.lexists(note):  # else it has gone, with the whole repository
                break
        yield
