"""Measure, and print one table: `python -m benchmarks [NAME...]`; without names, everything but encode_identity.

Checkpoints, the peers' environments and outputs go to `.bench` (13 GB while running, 8 GB after). For meaningful numbers
nothing else should be running.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks import (
    against_copy,
    cache_ls,
    cache_verify,
    convert,
    encode,
    encode_identity,
    machine,
    memory,
    mlx,
    open_vocabulary,
    plan,
    pull,
    quantise,
    quantised,
    startup,
)
from benchmarks.figures import Figure, markdown
from benchmarks.runs import ROOT
from hubclient.formats.ggml import ENCODED

BENCHMARKS: dict[str, Callable[[Path, int], list[Figure]]] = {
    "convert": convert.measure,
    "mlx": mlx.measure,
    "quantise": quantise.measure,
    "quantised": quantised.measure,
    "against_copy": against_copy.measure,
    "memory": memory.measure,
    "open_vocabulary": open_vocabulary.measure,
    "plan": plan.measure,
    "startup": startup.measure,
    "cache_ls": cache_ls.measure,
    "cache_verify": cache_verify.measure,
    "pull": pull.measure,
}
ENCODERS = ("encode", "encode_identity")  # those that take types
MARKS = ("<!-- figures -->\n", "<!-- end of figures -->\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 if every figure meets its target, else 1."""
    options = _options(arguments)
    bench = options.bench.resolve()
    bench.mkdir(parents=True, exist_ok=True)
    before, figures = machine.load(), []
    measures = _measures(options)
    for name in options.names or [*BENCHMARKS, "encode"]:
        print(f"{name} ...", file=sys.stderr)
        figures += measures[name](bench, options.rounds)
    told = f"{machine.describe()}; load average {before} at the start, {machine.load()} at the end."
    if options.json:
        content = {"machine": told, "rounds": options.rounds, "figures": [figure.as_json() for figure in figures]}
        options.json.write_text(json.dumps(content, indent=2) + "\n")
    table = f"{markdown(figures)}\n\n{told}\n"
    if options.page:
        options.page.write_text(with_table(options.page.read_text(), table))
    print(table, end="")
    return 0 if all(figure.passed is not False for figure in figures) else 1


def _measures(options: argparse.Namespace) -> Mapping[str, Callable[[Path, int], list[Figure]]]:
    """All benchmarks, as functions of a folder and a number of rounds."""
    types, blocks, seed = options.types, options.blocks, options.seed
    return BENCHMARKS | {
        "encode": lambda bench, rounds: encode.measure(bench, rounds, types),
        "encode_identity": lambda bench, _: encode_identity.measure(bench, types, blocks, seed),
    }


def with_table(page: str, table: str) -> str:
    """The page with what is between its marks replaced."""
    before, _, rest = page.partition(MARKS[0])
    _, found, after = rest.partition(MARKS[1])
    if not found:
        raise ValueError(f"the page has no place for figures between {MARKS[0].strip()} and {MARKS[1].strip()}")
    return f"{before}{MARKS[0]}\n{table}\n{MARKS[1]}{after}"


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    known = (*BENCHMARKS, *ENCODERS)
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__, formatter_class=raw)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(known))
    parser.add_argument("--rounds", type=int, default=5, help="runs of each contestant (default 5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures, with every single run, as JSON")
    parser.add_argument("--page", type=Path, metavar="FILE", help="put the table into this page (docs/benchmarks.md)")
    parser.add_argument("--bench", type=Path, default=ROOT / ".bench", metavar="DIR", help="where to work (default .bench)")
    parser.add_argument("--types", nargs="+", default=(), metavar="TYPE", help="for encode and encode_identity (default all)")
    parser.add_argument("--blocks", type=int, default=1_000_000, help="of each type, for encode_identity (default 1000000)")
    parser.add_argument("--seed", type=int, help="repeats an encode_identity that told its seed")
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.names) - set(known)):
        parser.error(f"there is no benchmark {', '.join(unknown)}")
    if unknown := sorted(set(options.types) - ENCODED):
        parser.error(f"there is no encoder of {', '.join(unknown)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
