"""Measure, and print one table: `python -m benchmarks [NAME...] [--json FILE]`; without names, everything.

Checkpoints, the peer's environment and outputs go to `.bench` (15 GB while running, 4 GB after). For meaningful numbers
nothing else should be running.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import against_copy, convert, machine, memory, open_vocabulary, plan, startup
from benchmarks.figures import Figure, markdown
from benchmarks.runs import ROOT

BENCHMARKS: dict[str, Callable[[Path, int], list[Figure]]] = {
    "convert": convert.measure,
    "against_copy": against_copy.measure,
    "memory": memory.measure,
    "open_vocabulary": open_vocabulary.measure,
    "plan": plan.measure,
    "startup": startup.measure,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 if every figure meets its target, else 1."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__, formatter_class=raw)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--rounds", type=int, default=5, help="runs of each contestant (default 5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures, with every single run, as JSON")
    parser.add_argument("--bench", type=Path, default=ROOT / ".bench", metavar="DIR", help="where to work (default .bench)")
    options = parser.parse_args(arguments)
    names = options.names or list(BENCHMARKS)
    if unknown := sorted(set(names) - set(BENCHMARKS)):
        parser.error(f"there is no benchmark {', '.join(unknown)}")
    options.bench.mkdir(parents=True, exist_ok=True)
    before, figures = machine.load(), []
    for name in names:
        print(f"{name} ...", file=sys.stderr)
        figures += BENCHMARKS[name](options.bench.resolve(), options.rounds)
    told = f"{machine.describe()}; {before} at the start, {machine.load()} at the end."
    if options.json:
        content = {"machine": told, "rounds": options.rounds, "figures": [figure.as_json() for figure in figures]}
        options.json.write_text(json.dumps(content, indent=2) + "\n")
    print(f"{markdown(figures)}\n\n{told}")
    return 0 if all(figure.passed is not False for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
