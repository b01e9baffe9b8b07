"""Running conversions in tests: in this process tile by tile, in a forked child that kills itself, as a command of its own."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reference import ROOT

# What changes a file system, as far as the engine uses it; each call is a point at which a run may be killed.
CHANGES = ("pwrite", "write", "fsync", "replace", "rename", "unlink", "rmdir", "mkdir", "ftruncate", "posix_fallocate")

# A command that stops before its n-th tile until there is a file called "go", so that a test finds it in the middle.
_GATED = """
import itertools, os, signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs, and so their children, ignore it
put, count = os.pwrite, itertools.count(1)
def pwrite(*arguments):
    if next(count) >= {number}:
        while not os.path.exists("go"):
            time.sleep(0.01)
    return put(*arguments)
os.pwrite = pwrite
from hubclient.cli import main
main()
"""


class Here(Executor):
    """Runs each job when it is submitted, so that things happen in one order."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


def contents(path: Path) -> dict[str, bytes]:
    """A file's or a folder's files and their bytes; empty if there is nothing."""
    if not path.is_dir():
        return {"": path.read_bytes()} if path.exists() else {}
    return {str(item.relative_to(path)): item.read_bytes() for item in sorted(path.rglob("*")) if item.is_file()}


def leftovers(folder: Path) -> list[str]:
    """What unfinished runs left in a folder."""
    return sorted(item.name for item in folder.iterdir() if ".partial" in item.name)


def killed(action: Callable[[], object], before: int) -> bool:
    """Do it in a forked child that is killed before its n-th change of the file system; whether it came to that."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            _kill_before(before)
            action()
            status = 0
        finally:
            os._exit(status)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def _kill_before(number: int) -> None:
    count = itertools.count(1)
    for name in CHANGES:
        if hasattr(os, name):
            setattr(os, name, _counted(getattr(os, name), count, number))


def _counted(real: Callable[..., Any], count: Iterator[int], number: int) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        if next(count) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)

    return call


@contextmanager
def counting_reads() -> Iterator[list[int]]:
    """Collects how many bytes of weights each read takes."""
    real: Any = os.preadv
    sizes: list[int] = []

    def preadv(descriptor: int, buffers: Any, offset: int, flags: int = 0, /) -> int:
        sizes.append(real(descriptor, buffers, offset, flags))
        return sizes[-1]

    os.preadv = preadv
    try:
        yield sizes
    finally:
        os.preadv = real


def environment(**more: str) -> dict[str, str]:
    """An environment in which a child finds hubclient and sees no terminal's width."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **more}


def command(*arguments: str | Path, cwd: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """`hubclient` with these arguments in a process of its own."""
    line = [sys.executable, "-m", "hubclient", *map(str, arguments)]
    return subprocess.run(line, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=120, check=False, **options)


@contextmanager
def stopped(*arguments: str | Path, cwd: Path, before: int) -> Iterator[subprocess.Popen[str]]:
    """The same, running until it has written all tiles before the n-th; a file "go" in its folder lets it go on."""
    line = [sys.executable, "-c", _GATED.format(number=before), *map(str, arguments)]
    process = subprocess.Popen(line, cwd=cwd, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Until it holds, while the process runs."""
    for _ in range(6000):
        if condition():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    raise TimeoutError


Failing = Callable[..., tuple[int, str]]  # the fixture `failing`


def refused(failing: Failing, source: Path, code: int, *needles: str, to: str = "gguf", only: str | None = None) -> None:
    """Converting ends with that code and one sentence that holds the needles, and leaves nothing behind."""
    out = source.parent / "out"
    out.mkdir()
    found, err = failing("convert", source, out / "result", "--to", to, *(["--only", only] if only else []))
    first, *hint = err.splitlines()
    assert found == code, err
    assert first.startswith("hubclient: ") and len(first) < 1000 and len(hint) <= 1 and "fault of ours" not in err
    for needle in needles:
        assert needle in first, f"{needle!r} is not in {first!r}"
    assert list(out.iterdir()) == []
