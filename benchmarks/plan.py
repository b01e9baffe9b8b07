"""Planning checkpoints of many tensors in 160 shards: opened, matched, laid out, fingerprinted, printed as JSON."""

from __future__ import annotations

import statistics
from pathlib import Path

from benchmarks.checkpoints import ensure
from benchmarks.figures import Figure
from benchmarks.runs import fresh, hubclient, in_turns, inside, measured

SECONDS = 3.0
SECONDS_EXPERTS = 5.0
EXPERTS = {"deepseek": "46,183 tensors of DeepSeek-V3 in bf16", "deepseek-fp8": "91,991 tensors of DeepSeek-V3 in FP8"}
TARGETS = {"GGUF": ("gguf", "bf16"), "MLX 4-bit": ("mlx", "4bit")}


def measure(bench: Path, rounds: int) -> list[Figure]:
    """A dense model as a whole process, and in process after imports; experts to both formats, as whole processes."""
    source, small, out = ensure("deep", bench), ensure("small", bench), fresh(bench / "out" / "plan")
    command = _command(source, out, "gguf", "auto")
    runs = in_turns(rounds, {"process": lambda: measured(command).seconds, "in process": lambda: inside("plan", source, small)})
    what = "plan of 90,003 tensors in 160 shards as JSON"
    dense = [_figure(f"{what}, {name}", seconds, SECONDS, name) for name, seconds in runs.items()]
    return dense + [figure for name in EXPERTS for figure in _experts(name, bench, rounds, out)]


def _experts(name: str, bench: Path, rounds: int, out: Path) -> list[Figure]:
    source = ensure(name, bench)
    commands = {target: _command(source, out, *options) for target, options in TARGETS.items()}
    runs = {target: [measured(command).seconds for _ in range(rounds)] for target, command in commands.items()}
    return [_figure(f"plan of {EXPERTS[name]} to {to}, process", runs[to], SECONDS_EXPERTS, "process") for to in runs]


def _command(source: Path, out: Path, to: str, kind: str) -> list[str]:
    return hubclient("convert", source, out, "--to", to, "--type", kind, "--dry-run", "--json")


def _figure(name: str, seconds: list[float], target: float, run: str) -> Figure:
    return Figure(name, statistics.median(seconds), "s", target, False, {run: seconds})
