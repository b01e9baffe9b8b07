"""Running contestants: in turns, from a warm cache, each in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
_CHILD = str(Path(__file__).with_name("child.py"))
_CHUNK = 8 << 20


class Run(NamedTuple):
    """Wall clock and peak resident memory of a process."""

    seconds: float
    peak: int


def hubclient(*arguments: str | Path) -> list[str]:
    """The command line of hubclient, under the Python that runs this."""
    return [sys.executable, "-m", "hubclient", *map(str, arguments)]


def measured(command: Sequence[str], *, sync: Path | None = None, env: Mapping[str, str] | None = None) -> Run:
    """Run a command to its end (see `child`); CalledProcessError with what it said if it fails."""
    options = ["--sync", str(sync)] if sync else []
    told = _output([sys.executable, "-S", _CHILD, *options, "--", *command], env)
    result = json.loads(told.stdout)
    if result["status"]:
        raise subprocess.CalledProcessError(result["status"], command, told.stdout, told.stderr)
    return Run(result["seconds"], result["peak"])


def inside(*arguments: str | Path) -> float:
    """Seconds that a function of `benchmarks.inside` took in a fresh process, imports and a warm-up not counted."""
    command = [sys.executable, "-m", "benchmarks.inside", *map(str, arguments)]
    told = _output(command, None)
    if told.returncode:
        raise subprocess.CalledProcessError(told.returncode, command, told.stdout, told.stderr)
    return float(json.loads(told.stdout)["seconds"])


def in_turns(rounds: int, contestants: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """What each contestant returns, `rounds` times, taking turns so that a busy spell of the machine meets all alike."""
    results: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, contestant in contestants.items():
            results[name].append(contestant())
    return results


class Contest:
    """Commands that make the same output, as contestants for `in_turns`; `peaks` collects their resident memory in MiB.

    `start` makes every run begin alike and returns the output, which is brought to the disk within the time of those that are
    `synced` (None: all).
    """

    def __init__(
        self, commands: Mapping[str, Sequence[str]], start: Callable[[], Path], synced: Collection[str] | None = None
    ) -> None:
        self.peaks: dict[str, list[float]] = {name: [] for name in commands}
        self.contestants = {name: partial(self._run, name, command) for name, command in commands.items()}
        self._start, self._synced = start, commands if synced is None else synced

    def _run(self, name: str, command: Sequence[str]) -> float:
        out = self._start()
        run = measured(command, sync=out if name in self._synced else None)
        self.peaks[name].append(run.peak / (1 << 20))
        return run.seconds


def fresh(out: Path, *sources: Path) -> Path:
    """Make a run start as every other: nothing at `out`, all of `sources` in the page cache."""
    for stale in (out, out.with_name(out.name + ".partial"), out.with_name(out.name + ".partial.journal")):
        if stale.is_dir():
            shutil.rmtree(stale)
        else:
            stale.unlink(missing_ok=True)
    buffer = bytearray(_CHUNK)
    for source in sources:
        for file in sorted(source.iterdir()) if source.is_dir() else [source]:
            with file.open("rb", buffering=0) as handle:
                while handle.readinto(buffer):
                    pass
    out.parent.mkdir(parents=True, exist_ok=True)
    return out


def _output(command: Sequence[str], env: Mapping[str, str] | None) -> subprocess.CompletedProcess[Any]:
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **(env or {})}, capture_output=True, text=True, check=False)
