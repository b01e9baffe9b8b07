"""Who writes: a process named so that another one, later or elsewhere, can tell whether it still runs."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any


@dataclass(frozen=True, slots=True)
class Owner:
    """A process: `space` is the machine's boot and the processes that see one another there, `started` its start in clock ticks since then."""

    host: str
    space: str
    pid: int
    started: int

    @classmethod
    def this(cls) -> Owner:
        """The running process."""
        pid = os.getpid()
        return cls(_host(), _space(), pid, _started(pid) or 0)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Owner:
        """From a note that holds its fields; what is missing or strange makes one of whom nothing can be told."""
        pid, started = values.get("pid"), values.get("started")
        numbers = (pid, started) if isinstance(pid, int) and isinstance(started, int) else (0, 0)
        return cls(str(values.get("host")), str(values.get("space") or ""), *numbers)

    @property
    def alive(self) -> bool | None:
        """Whether it runs; None if that cannot be told from here: another machine, container or boot, or no such notion."""
        if not self.space or (self.host, self.space) != (_host(), _space()):
            return None
        return _started(self.pid) == self.started


def _host() -> str:
    return socket.gethostname()


@cache
def _space() -> str:
    """The boot and the process namespace: containers of one machine number their processes each for itself. Linux only."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(pid: int) -> int | None:
    """When a process started (proc(5), field 22 of stat), which tells it from a later one of its number; None if there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None
