"""Trying again: how often, and how long to wait in between."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from hubclient.ground.progress import Stage
from hubclient.hub.net.failures import Contradiction, Passing

T = TypeVar("T")
_LONG = 2.0  # seconds


@dataclass(frozen=True, slots=True)
class Patience:
    """`tries` in a row that bring nothing; waits double from `first` to `longest` seconds; a server's own wish counts up to `asked`."""

    tries: int = 5
    first: float = 0.5
    longest: float = 8.0
    asked: float = 320.0  # the Hub counts requests in windows of 300 s
    _stages: list[Stage] = field(default_factory=list, init=False, repr=False, compare=False)

    @contextmanager
    def telling(self, stage: Stage | None) -> Iterator[None]:
        """Tell `stage` of long waits that a server asks for, in whichever thread."""
        if stage is None:
            yield
            return
        self._stages.append(stage)
        try:
            yield
        finally:
            self._stages.remove(stage)

    def pause(self, fault: Passing, failed: int) -> float:
        """Seconds to wait after the `failed`th failure in a row; raises the fault if there have been enough."""
        limit = 2 if isinstance(fault, Contradiction) else self.tries
        if failed >= limit or (fault.after or 0) > self.asked:
            if failed > 1:
                fault.message += f"; tried {failed} times"
            raise fault
        doubled: float = min(self.longest, self.first * 2 ** (failed - 1)) * random.uniform(0.5, 1)  # not all clients at once
        if (fault.after or 0) >= _LONG:
            for stage in [*self._stages]:
                stage(f"the Hub asks to wait {fault.after:.0f} s")
        return max(doubled, (fault.after or 0) * random.uniform(1, 1.1))


def patiently(attempt: Callable[[], T], patience: Patience, stopped: threading.Event | None = None) -> T:
    """The attempt's result; tried again while its faults may pass. `stopped` ends the waiting, with the last fault."""
    failed = 0
    while True:
        try:
            return attempt()
        except Passing as fault:
            failed += 1
            if (stopped or threading.Event()).wait(patience.pause(fault, failed)):
                raise
