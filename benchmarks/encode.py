"""Encoders of ggml's block types against ggml's own, in one thread each, with and without importance.

The rows are normal; kernels are compiled and tables set up before the clock starts. The clock is that of the thread, which
stands still while other processes have the core: on a busy machine wall time would favour whoever needs less than a time
slice. A ratio is that of the fastest runs, since what else the machine does can only slow one down.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import ggml
from benchmarks.figures import Figure
from benchmarks.runs import in_turns

_SLOW = ("IQ1", "IQ2", "IQ3")  # searches through codebooks
_COLUMNS = 4096
_MOMENT = 0.05  # seconds


def measure(bench: Path, rounds: int, types: Sequence[str] = ()) -> list[Figure]:
    """Two figures per type, or one where importance is needed or makes no difference; every type, if none are named."""
    library = ggml.library(bench)
    return [_figure(library, name, weighted, rounds) for name, weighted in cases(types)]


def cases(types: Iterable[str] = ()) -> Iterator[tuple[str, bool]]:
    """Types, and whether with importance."""
    from hubclient.formats.ggml import ENCODED, NEEDS_IMPORTANCE, USES_IMPORTANCE

    for name in types or sorted(ENCODED):
        if name not in NEEDS_IMPORTANCE:
            yield name, False
        if name in USES_IMPORTANCE:
            yield name, True


def target(name: str, weighted: bool) -> float:
    """How many times as fast as ggml an encoder is to be."""
    if name.startswith(_SLOW):
        return 1.0
    if weighted:
        return 3.0
    return {"Q3_K": 1.5}.get(name, 5.0 if name.endswith("_K") or name.startswith("IQ4") else 0.9)


def title(name: str, weighted: bool) -> str:
    """A case in words."""
    return f"{name} with importance" if weighted else name


def _figure(library: Any, name: str, weighted: bool, rounds: int) -> Figure:
    import numpy as np

    from hubclient.formats import codecs
    from hubclient.formats.encodings import ENCODINGS

    encoding, random = ENCODINGS[name], np.random.default_rng(0)
    rows = random.standard_normal((64 if name.startswith(_SLOW) else 256, _COLUMNS), np.float32)
    importance = random.random(_COLUMNS, np.float32) if weighted else None
    print(f"{title(name, weighted)} ...", file=sys.stderr)
    theirs, ours = (np.empty((len(rows), encoding.row_bytes(_COLUMNS)), np.uint8) for _ in range(2))
    contestants = {
        "ggml": partial(ggml.encode, library, rows, encoding, theirs, importance),
        "hubclient": partial(codecs.encode, rows, encoding, ours, importance),
    }
    for run in contestants.values():
        run()
    if not np.array_equal(ours, theirs):
        print(f"{title(name, weighted)}: the bytes differ", file=sys.stderr)
    speeds = in_turns(rounds, {who: partial(_speed, run, rows.size) for who, run in contestants.items()})
    value = max(speeds["hubclient"]) / max(speeds["ggml"])
    what = f"encode {title(name, weighted)}, hubclient / ggml"
    return Figure(what, value, "x", target(name, weighted), True, speeds, "M weights/s")


def _speed(run: Callable[[], object], weights: int) -> float:
    """Million weights in a second of the thread's own time, over as many runs as fill a moment."""
    start, runs = time.thread_time(), 0
    while (spent := time.thread_time() - start) < _MOMENT:
        run()
        runs += 1
    return weights * runs / spent / 1e6
