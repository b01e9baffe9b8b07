"""Planning without the cyclic garbage collector: it makes hundreds of thousands of lasting objects and no cycles."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """The collector paused, if it was running; a plan of 90,000 tensors takes a fourth less time. Also a decorator."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()
