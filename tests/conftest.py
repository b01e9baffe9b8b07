"""Shared fixtures, and the import path of the test helpers (tests/*.py are imported as plain modules)."""

from __future__ import annotations

import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent

sys.path.insert(0, str(TESTS))
sys.path.append(str(TESTS.parent))  # the benchmarks, which are installed nowhere
