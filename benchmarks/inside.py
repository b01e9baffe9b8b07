"""What is timed inside a process, after its imports and a warm-up.

    python -m benchmarks.inside convert SOURCE OUT TYPE[,TYPE...] WARMUP_SOURCE
    python -m benchmarks.inside work SOURCE [TYPE] WARMUP_SOURCE
    python -m benchmarks.inside copy SOURCE OUT
    python -m benchmarks.inside plan SOURCE WARMUP_SOURCE
    python -m benchmarks.inside open FILE

Prints JSON with the seconds.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path


def convert(source: str, out: str, kinds: str, warmup: str) -> float:
    """Open, plan and write GGUFs of these types, synced."""
    from hubclient import Checkpoint

    def save(model: str, path: str) -> tuple[Path, ...]:
        return Checkpoint.from_pretrained(model).save_pretrained(path, format="gguf", type=kinds.split(","), force=True)

    for path in save(warmup, out + ".warmup"):
        path.unlink()
    return _seconds(lambda: save(source, out))


def work(source: str, kind: str, warmup: str) -> float:
    """Open, plan, read all tensors and pack them, in an output's tiles by the engine's worker and threads; write nothing.

    Without a type they are only read.
    """
    from concurrent.futures import ThreadPoolExecutor

    from hubclient import Checkpoint
    from hubclient.execute import DEFAULT_MEMORY
    from hubclient.ground.machine import cores
    from hubclient.rows import FilePool, Reader
    from hubclient.tiles import Tile, groups, schedule
    from hubclient.work import work as worked

    def packed(model: str) -> None:
        plan = Checkpoint.from_pretrained(model).plan("benchmark.gguf", format="gguf", type=kind or "bf16")
        jobs = cores() + 1  # as `execute` has them
        tiles = schedule(groups(plan.outputs), DEFAULT_MEMORY, jobs)
        with FilePool() as pool, ThreadPoolExecutor(jobs) as threads:
            reader = Reader(pool)

            def pack(tile: Tile) -> None:
                deque(worked(tile, [step for _, step in tile.group.steps] if kind else [], reader), maxlen=0)

            list(threads.map(pack, tiles))

    packed(warmup)
    return _seconds(lambda: packed(source))


def copy(source: str, out: str) -> float:
    """A plain copy of a file, synced."""

    def copy_and_sync() -> None:
        shutil.copyfile(source, out)
        with open(out, "rb+") as file:
            os.fsync(file.fileno())

    return _seconds(copy_and_sync)


def plan(source: str, warmup: str) -> float:
    """Open, match, lay out, fingerprint, and the plan as JSON text."""
    from hubclient import Checkpoint

    def planned(model: str) -> int:
        return len(json.dumps(Checkpoint.from_pretrained(model).plan("benchmark.gguf", format="gguf", type="bf16").as_json()))

    planned(warmup)
    return _seconds(lambda: planned(source))


def open_(path: str) -> float:
    """Open a GGUF and read tokens at its ends and between."""
    from hubclient import Checkpoint
    from hubclient.formats.gguf import reader  # noqa: F401 - not imported within the time

    def opened() -> None:
        tokens = Checkpoint.from_pretrained(path).opened.metadata["tokenizer.ggml.tokens"].value
        assert len(tokens) and tokens[0] and tokens[len(tokens) // 2] and tokens[-1]

    return _seconds(opened)


FUNCTIONS: dict[str, Callable[..., float]] = {"convert": convert, "work": work, "copy": copy, "plan": plan, "open": open_}


def _seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


if __name__ == "__main__":
    print(json.dumps({"seconds": FUNCTIONS[sys.argv[1]](*sys.argv[2:])}))
