"""Planning a checkpoint of 90,003 tensors in 160 shards: opened, matched, laid out, fingerprinted, printed as JSON."""

from __future__ import annotations

import statistics
from pathlib import Path

from benchmarks.checkpoints import ensure
from benchmarks.figures import Figure
from benchmarks.runs import fresh, hubclient, in_turns, inside, measured

SECONDS = 3.0


def measure(bench: Path, rounds: int) -> list[Figure]:
    """As a whole process, and in process after imports."""
    source, small, out = ensure("deep", bench), ensure("small", bench), fresh(bench / "out" / "plan.gguf")
    command = hubclient("convert", source, out, "--to", "gguf", "--dry-run", "--json")
    runs = in_turns(rounds, {"process": lambda: measured(command).seconds, "in process": lambda: inside("plan", source, small)})
    what = "plan of 90,003 tensors in 160 shards as JSON"
    return [Figure(f"{what}, {name}", statistics.median(runs[name]), "s", SECONDS, False, {name: runs[name]}) for name in runs]
