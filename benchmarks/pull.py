"""Pulling from a hub on this machine: `hubclient pull` against huggingface_hub's `snapshot_download`, as whole processes.

One file of 1.5 GB, and 1000 files of 4 KB. The hub runs in a process of its own, its large files come from a second origin;
caches are empty and in memory where the system offers that (/dev/shm), so that neither side waits for a disk. hubclient
hashes what comes, snapshot_download does not. Peak resident memory is that of the whole process.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from benchmarks.figures import Figure, ratio
from benchmarks.runs import ROOT, hubclient, in_turns, measured

NO_SLOWER = 1.0
MOST = 200.0  # MiB resident
LARGE = 1_500_000_000
SMALL = 1000, 4096
_THEIRS = "import sys; from huggingface_hub import snapshot_download; snapshot_download(sys.argv[1], token=False)"
_MEMORY = Path("/dev/shm")
_MIB = 1 << 20


def measure(bench: Path, rounds: int) -> list[Figure]:
    """Two ratios of time, and our peak memory for each."""
    sys.path.append(str(ROOT / "tests"))
    from hubserver import HubProcess

    root = _repositories(bench / "hub")
    with HubProcess(root) as hub, tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else bench) as folder:
        pulls = (("one file of 1.5 GB", "org/large"), (f"{SMALL[0]} files of {SMALL[1] >> 10} KB", "org/small"))
        return [figure for told, repo in pulls for figure in _figures(told, repo, hub.endpoint, Path(folder), rounds)]


def _figures(told: str, repo: str, endpoint: str, folder: Path, rounds: int) -> list[Figure]:
    peaks: dict[str, list[float]] = {"snapshot_download": [], "hubclient": []}
    commands = {"snapshot_download": [sys.executable, "-c", _THEIRS, repo], "hubclient": hubclient("pull", repo)}
    contestants: dict[str, Callable[[], float]] = {
        name: partial(_run, command, endpoint, folder, peaks[name]) for name, command in commands.items()
    }
    runs = in_turns(rounds, contestants)
    over, under = "hubclient", "snapshot_download"
    peak = statistics.median(peaks[over])
    return [
        ratio(f"pull {told}, hubclient / snapshot_download", over, under, runs, NO_SLOWER, at_least=False),
        Figure(f"peak memory of pulling {told}", peak, "MiB", MOST, False, peaks, "MiB"),
    ]


def _run(command: Sequence[str], endpoint: str, folder: Path, peaks: list[float]) -> float:
    run = measured(command, env=_environment(endpoint, folder))
    shutil.rmtree(folder / "cache")
    peaks.append(run.peak / _MIB)
    return run.seconds


def _environment(endpoint: str, folder: Path) -> Mapping[str, str]:
    quiet = dict.fromkeys(("HF_HUB_DISABLE_XET", "HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_PROGRESS_BARS"), "1")
    return {"HF_ENDPOINT": endpoint, "HF_HOME": str(folder / "home"), "HF_HUB_CACHE": str(folder / "cache"), **quiet}


def _repositories(root: Path) -> Path:
    """Two repositories, `models/org/large` and `models/org/small`, of bytes by chance."""
    large, small = root / "models/org/large/model.safetensors", root / "models/org/small"
    if not large.exists():
        large.parent.mkdir(parents=True, exist_ok=True)
        with large.with_suffix(".tmp").open("wb") as file:
            for _ in range(0, LARGE, 10_000_000):
                file.write(os.urandom(10_000_000))
        large.with_suffix(".tmp").rename(large)
    small.mkdir(parents=True, exist_ok=True)
    for number in range(SMALL[0]):
        path = small / f"file-{number:04}.json"
        if not path.exists():
            path.write_bytes(os.urandom(SMALL[1]))
    return root
