"""How many connections a pull may use, shared by all of its files."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from hubclient.errors import EnvironmentFault


class Stopped(EnvironmentFault):
    """The transfer was stopped from elsewhere; what had arrived is kept."""


class Connections:
    """`total` connections for all files together, up to `each` for one large file."""

    def __init__(self, total: int = 8, each: int = 4) -> None:
        self.each = each
        self.stopped = threading.Event()
        self._free = threading.BoundedSemaphore(total)

    @contextmanager
    def one(self) -> Iterator[None]:
        """Hold a connection; waits for one. Stopped."""
        while not self._free.acquire(timeout=0.2):
            self.check()
        try:
            self.check()
            yield
        finally:
            self._free.release()

    def spare(self) -> bool:
        """Take a connection if one is free; it is given back with `give_back`."""
        return self._free.acquire(blocking=False)

    def give_back(self) -> None:
        """Give back what `spare` took."""
        self._free.release()

    def stop(self) -> None:
        """Let all transfers end soon, with Stopped."""
        self.stopped.set()

    def check(self) -> None:
        """Raises Stopped after `stop`."""
        if self.stopped.is_set():
            raise Stopped("the download was stopped; what had arrived is kept")
