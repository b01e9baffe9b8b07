"""Quantising 1.1 billion parameters: safetensors to Q4_K_M in one step, and three types in one read.

One step: `hubclient convert` against llama.cpp's converter (to a bf16 GGUF) and then llama-quantize, which run as one command;
in turns, source in the page cache, previous output and intermediate file deleted before each run, kernels already compiled.
Both times end when the output is on the disk; the intermediate file need not get there. llama-quantize has as many threads as
hubclient has cores. Untimed, each run's tensors are compared: all have to equal llama-quantize's, byte for byte.

One read: the time of a run that makes three outputs, from opening the source until all are on the disk, over the sum of their
encode times plus one read. One read is a run that opens the source, plans, and reads all tensors, in the tiles and threads of the
engine. The encode time of a type is what a run takes that packs the tensors besides, by the engine's worker, less one read
(see `benchmarks.inside.work`). Neither writes: making files, writing, checksums, the journal and syncing have to fit
into what the figure allows beyond 1. Each run is a process of its own, whose imports and a warm-up are not counted.
"""

from __future__ import annotations

import hashlib
import shlex
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.checkpoints import ensure
from benchmarks.figures import Figure, ratio
from benchmarks.llama_cpp import LlamaCpp
from benchmarks.runs import Contest, fresh, hubclient, in_turns, inside, measured

TIMES_FASTER = 6.0
TIMES_ENCODING = 1.15
_ONE = "Q4_K_M"
_THREE = ("Q4_K_M", "Q6_K", "Q8_0")
_STEP = 8 << 20


def measure(bench: Path, rounds: int) -> list[Figure]:
    """The first figures are left out, and that is said, where llama-quantize cannot be built."""
    try:
        figures = _one_step(bench, rounds)
    except FileNotFoundError as error:
        print(f"{error}; llama-quantize is not measured", file=sys.stderr)
        figures = []
    return [*figures, _one_read(bench, rounds)]


def _one_step(bench: Path, rounds: int) -> list[Figure]:
    """Speed, and tensors that differ."""
    from hubclient.ground.machine import cores

    source, small = ensure("tinyllama", bench), ensure("blocks", bench)
    plain, out, peer = bench / "out" / "plain.gguf", bench / "out" / "quantised.gguf", LlamaCpp(bench)
    two_steps = peer.convert(source, plain, "bf16"), peer.quantize(plain, out, _ONE, cores())

    def start() -> Path:
        fresh(plain)
        return fresh(out, source)

    contest = Contest(
        {
            "llama.cpp": ["sh", "-c", " && ".join(map(shlex.join, two_steps))],
            "hubclient": hubclient("convert", source, out, "--to", "gguf", "--type", _ONE),
        },
        start,
    )
    made: dict[str, dict[str, str]] = {}

    def compared(name: str, run: Callable[[], float]) -> float:
        seconds = run()
        made[name] = digests(out)
        return seconds

    measured(hubclient("convert", small, fresh(out, small), "--to", "gguf", "--type", _ONE))
    runs = in_turns(rounds, {name: partial(compared, name, run) for name, run in contest.contestants.items()})
    fresh(plain)
    fresh(out)
    what = f"1.1 B of safetensors to {_ONE}"
    two = "convert_hf_to_gguf + llama-quantize"
    unlike = len(dict(made["llama.cpp"].items() ^ made["hubclient"].items()))
    return [
        ratio(f"{what}, {two} / hubclient", "llama.cpp", "hubclient", runs, TIMES_FASTER, at_least=True),
        Figure(f"{what}, tensors unlike llama-quantize's", unlike, f"of {len(made['llama.cpp'])}", 0),
    ]


def digests(path: Path) -> dict[str, str]:
    """A digest of each tensor of a GGUF: of its type, shape and bytes."""
    from hubclient.formats.gguf import FORMAT

    found = {}
    with path.open("rb") as file:
        for name, ref in FORMAT.open(path).tensors.items():
            digest = hashlib.blake2b(f"{ref.encoding} {ref.shape}".encode())
            file.seek(ref.offset)
            for start in range(0, ref.nbytes, _STEP):
                digest.update(file.read(min(_STEP, ref.nbytes - start)))
            found[name] = digest.hexdigest()
    return found


def _one_read(bench: Path, rounds: int) -> Figure:
    source, small, out = ensure("tinyllama", bench), ensure("blocks", bench), bench / "out" / "three-{type}.gguf"
    outputs = [out.with_name(out.name.format(type=kind)) for kind in _THREE]

    def three() -> float:
        for path in outputs:
            fresh(path, source)
        return inside("convert", source, out, ",".join(_THREE), small)

    def work(kind: str) -> float:
        fresh(out, source)
        return inside("work", source, kind, small)

    contestants: dict[str, Callable[[], float]] = {"in one run": three, "read": partial(work, "")}
    contestants |= {kind: partial(work, kind) for kind in _THREE}
    runs = in_turns(rounds, contestants)
    for path in outputs:
        fresh(path)
    read, *encoded = (statistics.median(runs[name]) for name in ("read", *_THREE))
    value = statistics.median(runs["in one run"]) / (sum(seconds - read for seconds in encoded) + read)
    told = f"1.1 B to {', '.join(_THREE)} in one run / their encode times and one read"
    return Figure(told, value, "x", TIMES_ENCODING, False, runs)
