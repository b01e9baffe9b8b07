"""Where the full reference data is, if this machine has it: `../shared`, or the folder named by HUBCLIENT_REFERENCE."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "tests" / "data"


def _find() -> Path | None:
    named = os.environ.get("HUBCLIENT_REFERENCE")
    folder = Path(named) if named else ROOT.parent / "shared"
    return folder if (folder / "golden").is_dir() else None


REFERENCE = _find()
