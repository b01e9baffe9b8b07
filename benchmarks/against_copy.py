"""Converting bf16 safetensors to a bf16 GGUF, in process, against a plain copy of the weights that ends in fsync."""

from __future__ import annotations

from pathlib import Path

from benchmarks.checkpoints import ensure
from benchmarks.figures import Figure, ratio
from benchmarks.runs import fresh, in_turns, inside, measured

TIMES_A_COPY = 1.5


def measure(bench: Path, rounds: int) -> list[Figure]:
    """The conversion against `shutil.copyfile` and against `cat`."""
    source, small, out = ensure("tinyllama", bench), ensure("small", bench), bench / "out" / "copy.gguf"
    weights = source / "model.safetensors"

    def start() -> Path:
        return fresh(out, weights)

    contestants = {
        "hubclient": lambda: inside("convert", source, start(), "bf16", small),
        "copyfile": lambda: inside("copy", weights, start()),
        "cat": lambda: measured(["sh", "-c", 'cat "$0" > "$1"', str(weights), str(start())], sync=out).seconds,
    }
    runs = in_turns(rounds, contestants)
    out.unlink()
    figure = ratio("convert 1.1 B bf16 to bf16 in process / copy", "hubclient", "copyfile", runs, TIMES_A_COPY, at_least=False)
    return [figure]
