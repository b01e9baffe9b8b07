"""Shared fixtures, and the import path of the test helpers (tests/*.py are imported as plain modules)."""

from __future__ import annotations

import os
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent

# Processes that tests start here find the package: tests/hubclient, beside the helpers, would be taken for it.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(TESTS.parent), os.environ.get("PYTHONPATH")]))

sys.path.insert(0, str(TESTS))
sys.path.append(str(TESTS.parent))  # the benchmarks, which are installed nowhere
