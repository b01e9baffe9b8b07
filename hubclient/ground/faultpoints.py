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
