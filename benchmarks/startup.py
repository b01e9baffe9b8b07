"""Start-up: `hubclient --help` over an empty Python, and the heavy libraries that it imports, which are to be none."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.figures import Figure
from benchmarks.runs import ROOT, hubclient, in_turns, measured

MILLISECONDS = 150.0
HEAVY = frozenset(
    ["numpy", "numba", "torch", "rich", "tokenizers", "httpx", "requests", "urllib3", "aiohttp", "http.client", "huggingface_hub"]
)

_MODULES = """
import contextlib, io, json, sys
sys.argv = ["hubclient", "--help"]
from hubclient.cli import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    main()
print(json.dumps(sorted(sys.modules)))
"""


def measure(bench: Path, rounds: int) -> list[Figure]:  # noqa: ARG001 - needs no files
    """Time over bare Python, and the number of heavy modules."""
    help_, bare = hubclient("--help"), [sys.executable, "-c", "pass"]
    measured(help_)
    contestants = {"help": lambda: 1000 * measured(help_).seconds, "bare Python": lambda: 1000 * measured(bare).seconds}
    times = in_turns(3 * rounds, contestants)
    over = statistics.median(times["help"]) - statistics.median(times["bare Python"])
    heavy = imported()
    return [
        Figure("hubclient --help over bare Python", over, "ms", MILLISECONDS, False, times, "ms"),
        Figure(f"heavy modules imported by --help{': ' + ', '.join(heavy) if heavy else ''}", len(heavy), "modules", 0),
    ]


def imported() -> list[str]:
    """The heavy libraries in `sys.modules` after --help."""
    told = subprocess.run([sys.executable, "-c", _MODULES], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return sorted(HEAVY & set(json.loads(told)))
