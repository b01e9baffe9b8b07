"""Converting 1.1 billion parameters to GGUF: `hubclient convert` against llama.cpp's converter, as whole processes.

Five rounds in turns, source in the page cache, previous output deleted before each run, kernels already compiled. Both
times end when the output is on the disk.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.checkpoints import ensure
from benchmarks.figures import Figure, ratio
from benchmarks.llama_cpp import LlamaCpp
from benchmarks.runs import Contest, fresh, hubclient, in_turns, measured

TIMES_FASTER = 4.0
TYPES = ("bf16", "f16", "q8_0")


def measure(bench: Path, rounds: int) -> list[Figure]:
    """One figure per type."""
    return [_type(kind, bench, rounds, LlamaCpp(bench)) for kind in TYPES]


def _type(kind: str, bench: Path, rounds: int, peer: LlamaCpp) -> Figure:
    source, small, out = ensure("tinyllama", bench), ensure("small", bench), bench / "out" / f"{kind}.gguf"
    contest = Contest(
        {
            "llama.cpp": peer.convert(source, out, kind),
            "hubclient": hubclient("convert", source, out, "--to", "gguf", "--type", kind),
        },
        lambda: fresh(out, source),
    )
    measured(hubclient("convert", small, fresh(out, small), "--to", "gguf", "--type", kind))
    runs = in_turns(rounds, contest.contestants)
    out.unlink()
    return ratio(f"convert 1.1 B to {kind}, llama.cpp / hubclient", "llama.cpp", "hubclient", runs, TIMES_FASTER, at_least=True)
