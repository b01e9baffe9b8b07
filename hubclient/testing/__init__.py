"""The conformance kit: what every architecture must pass, ours and anybody's. A client of the public API.

    from hubclient.testing import ArchitectureSuite
    from my_package import ARCHITECTURES

    class TestMine(ArchitectureSuite):
        architectures = ARCHITECTURES

makes small random models up from the declarations and proves: names and values go to every format and back, what is missing
or too much is named, config pairs keep the config, modules hold every tensor, look-alikes are told apart, wrong input is
refused. `cases` and `run_all` do the same without pytest.
"""

from __future__ import annotations

from hubclient.testing.bench import Bench, Subject
from hubclient.testing.checks import CHECKS, Case, Check, Outcome, cases, run_all, run_installed
from hubclient.testing.faults import Fault
from hubclient.testing.folders import byte_level, unigram, word_pieces
from hubclient.testing.published import Published
from hubclient.testing.suite import ArchitectureSuite
from hubclient.testing.synthetic import Synthetic, synthetics, write_example

__all__ = [
    "CHECKS",
    "ArchitectureSuite",
    "Bench",
    "Case",
    "Check",
    "Fault",
    "Outcome",
    "Published",
    "Subject",
    "Synthetic",
    "byte_level",
    "cases",
    "run_all",
    "run_installed",
    "synthetics",
    "unigram",
    "word_pieces",
    "write_example",
]
