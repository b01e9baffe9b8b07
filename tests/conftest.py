"""Shared fixtures, and the import path of the test helpers (tests/*.py are imported as plain modules)."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
