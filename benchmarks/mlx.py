"""Converting 1.1 billion parameters to MLX: `hubclient convert` against `mlx_lm.convert`, as whole processes.

In turns, source in the page cache, previous output deleted before each run, kernels already compiled. Both times end when the
output is on the disk. How much memory each had resident is told beside.
"""

from __future__ import annotations

import statistics
from pathlib import Path

from benchmarks.checkpoints import ensure
from benchmarks.figures import Figure, ratio
from benchmarks.peers import MLX, peer
from benchmarks.runs import Contest, fresh, hubclient, in_turns, measured

TIMES_FASTER = 3.0
TYPES = {"4bit": "4-bit", "auto": "bf16"}


def measure(bench: Path, rounds: int) -> list[Figure]:
    """Speed and memory for each type; a target for the speed of packing."""
    return [figure for kind in TYPES for figure in _type(kind, bench, rounds, peer(bench, MLX))]


def _type(kind: str, bench: Path, rounds: int, python: str) -> list[Figure]:
    source, small, out = ensure("tinyllama", bench), ensure("small", bench), bench / "out" / f"mlx-{kind}"
    packed = ["-q"] if kind == "4bit" else []
    contest = Contest(
        {
            "mlx-lm": [python, "-m", "mlx_lm", "convert", "--hf-path", str(source), "--mlx-path", str(out), *packed],
            "hubclient": hubclient("convert", source, out, "--to", "mlx", "--type", kind),
        },
        lambda: fresh(out, source),
    )
    measured(hubclient("convert", small, fresh(out, small), "--to", "mlx", "--type", kind))
    runs = in_turns(rounds, contest.contestants)
    fresh(out)
    what = f"1.1 B to MLX {TYPES[kind]}"
    target = TIMES_FASTER if kind == "4bit" else None
    return [
        ratio(f"convert {what}, mlx-lm / hubclient", "mlx-lm", "hubclient", runs, target, at_least=True),
        Figure(f"peak memory, {what}", statistics.median(contest.peaks["hubclient"]), "MiB", None, False, contest.peaks, "MiB"),
    ]
