"""Who writes: a process named so that another one, later or elsewhere, can tell whether it still runs."""

from __future__ import annotations

import os
import socket
import sys
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
        """Whether it runs; None if that cannot be told from here: another machine, container or boot, no such notion, hidden."""
        if not self.space or (self.host, self.space) != (_host(), _space()):
            return None
        started = _started(self.pid)
        return _answers(self) if started is None else started == self.started


def _host() -> str:
    return socket.gethostname()


@cache
def _space() -> str:
    """The boot, as far as the system names it, and on Linux the process namespace: containers of one machine number their
    processes each for itself. Empty where there is no telling.
    """
    if os.name != "posix":
        return ""
    if sys.platform != "linux":
        return f"{sys.platform} {_boot_session()}"
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _boot_session() -> str:
    """What macOS calls this boot; nothing where it is not called anything."""
    import ctypes

    text, size = ctypes.create_string_buffer(64), ctypes.c_size_t(64)
    try:
        failed = ctypes.CDLL(None).sysctlbyname(b"kern.bootsessionuuid", text, ctypes.byref(size), None, ctypes.c_size_t(0))
    except (OSError, AttributeError):
        return ""
    return "" if failed else text.value.decode("ascii", "replace")


def _started(pid: int) -> int | None:
    """When a process started (proc(5), field 22 of stat), which tells it from a later one of its number; None if none is shown."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None


def _answers(owner: Owner) -> bool | None:
    """Whether there is a process of that number: not all are shown (proc(5), hidepid), and not every system shows any.

    None for one that is there, and may be a later one of that number.
    """
    if owner.pid <= 0:  # numbers that mean groups of processes
        return False
    try:
        os.kill(owner.pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return None
    return None if owner.started else True
