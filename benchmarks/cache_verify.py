"""Verifying a cache against plain sha256 in as many threads, against huggingface_hub's own hashing, and in how much memory.

`hf cache verify` asks the Hub for the list of files first; what is timed of it is the rest, which is one thread's work.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.figures import Figure, ratio
from benchmarks.runs import in_turns, measured
from hubclient.cache.digests import new_hasher
from hubclient.cache.integrity.verify import verify
from hubclient.cache.layout import RepoId, RepoPaths
from hubclient.ground.machine import cores

OVER_SHA256, MIB_OVER_PYTHON = 1.1, 40
_MIB = 1 << 20
_SIZES = (256, 256, 192, 128, 64, 64, 32, 32)  # MiB of the large files: a gigabyte
_SMALL, _LENGTH = 2000, 3000  # files, bytes of each
_COMMIT = "a" * 40
_VERIFY = "import sys; from pathlib import Path; from hubclient.cache.integrity.verify import verify; assert verify(Path(sys.argv[1])).ok"


def measure(bench: Path, rounds: int) -> list[Figure]:
    """Time over plain hashing for large files; time for small ones; resident memory."""
    os.environ["HUBCLIENT_CATALOG"] = str(bench / "catalog")
    large, small = _cache(bench, "large", [size * _MIB for size in _SIZES]), _cache(bench, "small", [_LENGTH] * _SMALL)
    figures = [_large(large, rounds), _theirs(large, rounds), _small(small, rounds), _memory(large)]
    for cache in (large, small):
        shutil.rmtree(cache)
    return figures


def _large(cache: Path, rounds: int) -> Figure:
    blobs = _blobs(cache)
    total = sum(blob.stat().st_size for blob in blobs)
    runs = in_turns(
        rounds, {"hubclient": lambda: _seconds(lambda: _verify(cache)), "sha256": lambda: _seconds(lambda: _hash(blobs))}
    )
    name = f"verify {total / 1e9:.1f} GB on {cores()} cores / sha256 in {cores()} threads"
    return ratio(name, "hubclient", "sha256", runs, OVER_SHA256, at_least=False)


def _theirs(cache: Path, rounds: int) -> Figure:
    from huggingface_hub.utils._verification import collect_local_files, compute_file_hash

    def theirs() -> None:
        for path in collect_local_files(_paths(cache).snapshot(_COMMIT)).values():
            compute_file_hash(path, "sha256")

    runs = in_turns(min(rounds, 3), {"hubclient": lambda: _seconds(lambda: _verify(cache)), "hf": lambda: _seconds(theirs)})
    return ratio("verify / what hf cache verify hashes", "hubclient", "hf", runs, 1.0, at_least=False)


def _small(cache: Path, rounds: int) -> Figure:
    runs = in_turns(rounds, {"hubclient": lambda: 1e6 * _seconds(lambda: _verify(cache)) / _SMALL})
    value = sorted(runs["hubclient"])[len(runs["hubclient"]) // 2]
    return Figure(f"verify {_SMALL} small files", value, "µs per file", runs=runs, runs_unit="µs")


def _memory(cache: Path) -> Figure:
    peaks = {
        "verify": [measured([sys.executable, "-c", _VERIFY, str(cache)]).peak / _MIB],
        "Python": [measured([sys.executable, "-c", "pass"]).peak / _MIB],
    }
    over = max(peaks["verify"]) - min(peaks["Python"])
    return Figure("peak memory of verify over bare Python", over, "MiB", MIB_OVER_PYTHON, runs=peaks, runs_unit="MiB")


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _verify(cache: Path) -> None:
    found = verify(cache)
    assert found.ok and found.checked == len(_blobs(cache)), found.findings


def _hash(blobs: list[Path]) -> None:
    """What there is to reach: the largest first, a thread for each core, nothing else."""
    blobs = sorted(blobs, key=lambda blob: -blob.stat().st_size)
    with ThreadPoolExecutor(cores()) as pool:
        for blob, digest in zip(blobs, pool.map(_sha256, blobs), strict=True):
            assert digest == blob.name


def _sha256(path: Path) -> str:
    hasher, buffer = new_hasher("sha256", 0), bytearray(_MIB)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            hasher.update(memoryview(buffer)[:count])
    return str(hasher.hexdigest())


def _cache(bench: Path, name: str, sizes: list[int]) -> Path:
    """A cache with one repository of files of these sizes, in the page cache."""
    cache = bench / f"verify-{name}"
    paths = _paths(cache)
    if not paths.snapshot(_COMMIT).is_dir():
        shutil.rmtree(cache, ignore_errors=True)
        paths.blobs.mkdir(parents=True)
        names = [_write(paths.blobs, size) for size in sizes]
        snapshot = paths.snapshot(_COMMIT)
        snapshot.mkdir(parents=True)
        for number, blob in enumerate(names):
            (snapshot / f"{number}.bin").symlink_to(f"../../blobs/{blob}")
    for path in _blobs(cache):
        _sha256(path)
    return cache


def _write(folder: Path, size: int) -> str:
    part, hasher, block = folder / "part", hashlib.sha256(), os.urandom(min(size, _MIB))
    with part.open("wb") as file:
        for number in range(max(1, size // len(block))):
            data = number.to_bytes(8, "little") + block[8:]
            hasher.update(data)
            file.write(data)
    part.rename(folder / hasher.hexdigest())
    return hasher.hexdigest()


def _paths(cache: Path) -> RepoPaths:
    return RepoPaths(cache, RepoId("bench/mark"))


def _blobs(cache: Path) -> list[Path]:
    return list(_paths(cache).blobs.iterdir())
