"""Commands in processes that are killed: forked from one that has imported everything, so that a kill costs milliseconds.

    with Warm(environ) as warm:                       # a process of its own, without threads: a fork of it is as good as new
        done = warm.run("pull", "org/name", environ={"HF_HUB_CACHE": str(cache)}, point="pull.placed:2")
        assert done.killed

`python tests/killing.py` is that process: a line of JSON for each command, and one for each answer.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parent.parent
_IMPORTED = (
    *(f"hubclient.cli.{name}" for name in ("cache", "lock", "pull", "sync")),
    *(f"hubclient.hub.{name}" for name in ("client", "locking", "repair", "source.preflight")),
    *(f"hubclient.hub.transfer.{name}" for name in ("fetch", "large", "nearby", "parts")),
    *(f"hubclient.cache.{name}" for name in ("catalog.listing", "catalog.rows", "integrity.marks", "integrity.verify", "store")),
    *(f"hubclient.cache.retention.{name}" for name in ("policy", "removal")),
    "asyncio",
    "ctypes",
    "filelock",
    "huggingface_hub.hf_api",
)


@dataclass(frozen=True, slots=True)
class Done:
    """What became of a command: its exit status (negative: the signal that ended it), what it said, how long it ran in seconds."""

    status: int
    out: str
    seconds: float

    @property
    def killed(self) -> bool:
        """Whether it was."""
        return self.status == -signal.SIGKILL


class Warm:
    """The process that is forked. Commands see `environ`, and of the surroundings nothing that is Hugging Face's."""

    def __init__(self, environ: Mapping[str, str], folder: Path, preamble: str = "") -> None:
        self._folder, self._count, self._lock = folder, 0, threading.Lock()
        paths = [str(ROOT), str(ROOT / "tests")]
        own = {
            name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING", "HUBCLIENT_", "TRANSF"))
        }
        start = f"{preamble}\nimport killing; killing.serve()"
        self._process = subprocess.Popen(
            [sys.executable, "-c", start],
            env={**own, "PYTHONPATH": os.pathsep.join(paths), **environ},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def run(self, *arguments: str | Path, **how: Any) -> Done:
        """`hubclient` with these arguments; see `start`."""
        return self.wait(self.start(*arguments, **how))

    def start(
        self,
        *arguments: str | Path,
        environ: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        point: str = "",
        after: float | None = None,
        tweaks: Mapping[str, Any] | None = None,
        call: str = "",
    ) -> Running:
        """Begin a command, or `call` ("module:function" of the tests, given the arguments).

        It is killed at the fault `point`, or `after` seconds, with all the processes that it has started. `tweaks` are values
        of modules' names that are other ones in it ("hubclient.hub.transfer.large.STEP": 1 << 18).
        """
        with self._lock:
            self._count += 1
            said = self._folder / f"said-{self._count}"
        said.touch()
        told = {
            "arguments": [str(argument) for argument in arguments],
            "environ": dict(environ or {}),
            "cwd": str(cwd or self._folder),
            "point": point,
            "tweaks": dict(tweaks or {}),
            "call": call,
            "said": str(said),
            "after": after,
        }
        return Running(int(self._ask(told)["pid"]), said)

    def wait(self, running: Running) -> Done:
        """Until it has ended."""
        status, seconds = self._ask({"wait": running.pid})["ended"]
        out = running.said.read_text(errors="replace")
        running.said.unlink()
        return Done(status, out, seconds)

    def _ask(self, told: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        with self._lock:
            self._process.stdin.write(json.dumps(told) + "\n")
            self._process.stdin.flush()
            answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


@dataclass(frozen=True, slots=True)
class Running:
    """A command that has begun, and the file of what it says."""

    pid: int
    said: Path


def serve() -> None:
    """Fork for each line of stdin, until it is closed."""
    from hubclient.plugins import get_host

    for name in _IMPORTED:
        importlib.import_module(name)
    for name in ("cache", "lock", "pull", "sync"):
        get_host().command(name)
    assert threading.active_count() == 1
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    began: dict[int, float] = {}
    ends: dict[int, float] = {}
    while line := sys.stdin.readline():
        told = json.loads(line)
        if "wait" in told:
            pid = told["wait"]
            answer: dict[str, Any] = {"ended": _ended(pid, began.pop(pid), ends.pop(pid, None))}
        else:
            told["parent"] = os.getpid()
            pid = os.fork()
            if pid == 0:
                _become(told)
            with suppress(OSError):  # the child does it, too: whoever comes first
                os.setpgid(pid, pid)
            began[pid] = time.monotonic()
            if told["after"] is not None:
                ends[pid] = began[pid] + told["after"]
            answer = {"pid": pid}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _ended(pid: int, began: float, end: float | None) -> tuple[int, float]:
    """How a child ends, killed at the time `end` if there is one; and how long it ran."""
    descriptor = os.pidfd_open(pid)
    try:
        left = None if end is None else max(0.0, end - time.monotonic())
        if not select.select([descriptor], [], [], left)[0]:
            os.killpg(pid, signal.SIGKILL)
    finally:
        os.close(descriptor)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return status, time.monotonic() - began


def _become(told: dict[str, Any]) -> None:
    """The command itself; does not return."""
    status = 1
    try:
        os.setpgid(0, 0)
        _end_with(told["parent"])
        descriptor = os.open(told["said"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(descriptor, stream)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ.update(told["environ"])
        os.chdir(told["cwd"])
        _tweak(told)
        status = _carry_out(told)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _end_with(parent: int) -> None:
    """Be killed when the process that forked this one ends, so that no test that is broken off leaves any behind (Linux)."""
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)


def _tweak(told: dict[str, Any]) -> None:
    from hubclient.ground import faultpoints

    faultpoints._armed[:] = faultpoints._read(told["point"])
    for name, value in told["tweaks"].items():
        module, _, field = name.rpartition(".")
        assert hasattr(importlib.import_module(module), field), name
        setattr(importlib.import_module(module), field, value)


def _carry_out(told: dict[str, Any]) -> int:
    if told["call"]:
        module, _, function = told["call"].partition(":")
        getattr(importlib.import_module(module), function)(*told["arguments"])
        return 0
    from hubclient.cli import main

    sys.argv = ["hubclient", *told["arguments"]]
    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    return 0


def filling_up(at: str, size: str, *arguments: str) -> None:
    """A command for which no file may be larger than `size` once it has reached the fault point `at`: the disk is full."""
    from hubclient.ground import faultpoints

    real = faultpoints.reach

    def reach(point: str) -> None:
        if point == at:
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(size), resource.RLIM_INFINITY))

    for module in [*sys.modules.values()]:
        if getattr(module, "reach", None) is real:
            module.reach = reach  # type: ignore[attr-defined]
    told = {"call": "", "arguments": arguments}
    sys.stdout.flush()
    os._exit(_carry_out(told))
