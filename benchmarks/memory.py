"""Peak resident memory of `hubclient convert` over the same command on a 1 MB model, kernels already compiled."""

from __future__ import annotations

from itertools import product
from pathlib import Path

from benchmarks.checkpoints import ensure
from benchmarks.figures import Figure
from benchmarks.runs import fresh, hubclient, measured

BUDGETS = ("512M", "128M")
_MODELS = {"tinyllama": "1.1 B", "wide": "one 4.2 GB tensor", "experts": "256 experts in 160 shards"}
_GGUF = tuple(("gguf", kind) for kind in ("bf16", "f16", "q8_0"))
CASES = {
    "tinyllama": (*_GGUF, ("gguf", "Q4_K_M"), ("mlx", "4bit")),
    "wide": _GGUF,
    "experts": (("gguf", "bf16"), ("gguf", "q8_0"), ("mlx", "4bit")),
}
_TIMES = 3  # the largest of so many runs counts
_MIB = 1 << 20


def measure(bench: Path, rounds: int) -> list[Figure]:  # noqa: ARG001 - a peak is no median
    """One figure per model, type and budget."""
    cases = [(name, *case) for name, found in CASES.items() for case in found]
    return [_figure(*case, budget, bench) for case, budget in product(cases, BUDGETS)]


def _figure(name: str, to: str, kind: str, budget: str, bench: Path) -> Figure:
    small, model = ensure("blocks", bench), ensure(name, bench)
    _peak(small, to, kind, budget, bench)  # compiles
    base = [_peak(small, to, kind, budget, bench) for _ in range(_TIMES)]
    peaks = [_peak(model, to, kind, budget, bench) for _ in range(_TIMES)]
    runs = {"1 MB": [peak / _MIB for peak in base], _MODELS[name]: [peak / _MIB for peak in peaks]}
    over = max(runs[_MODELS[name]]) - min(runs["1 MB"])
    told = f"peak memory over 1 MB model, {_MODELS[name]} to {'MLX ' if to == 'mlx' else ''}{kind} at --max-memory {budget}"
    return Figure(told, over, "MiB", float(budget[:-1]), False, runs, "MiB")


def _peak(model: Path, to: str, kind: str, budget: str, bench: Path) -> int:
    out = fresh(bench / "out" / "memory")
    peak = measured(hubclient("convert", model, out, "--to", to, "--type", kind, "--max-memory", budget)).peak
    fresh(out)
    return peak
