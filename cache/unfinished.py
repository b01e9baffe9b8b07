"""Unfinished downloads, as far as names and ledgers tell: what belongs together, and how much of it has come."""

from __future__ import annotations

import re
from pathlib import Path

from hubclient.cache.inside import read_inside

PART, LEDGER = ".incomplete", ".ledger.incomplete"
_LIMIT = 64 << 20  # bytes of a ledger; that of a file of 10 TB
_SPAN = re.compile(rb"(\d{1,18}) (\d{1,18}) [0-9a-f]{8}")


def download_of(path: str) -> str:
    """What a part of a download and its ledger have in common: the path without their endings."""
    return path.removesuffix(PART).removesuffix(".ledger")


def arrived(cache: Path, path: str, size: int) -> int:
    """Bytes of an unfinished download that have come, of a part at `path` in the cache whose file has `size`.

    The file may have its final size from the start; then a ledger beside it says which ranges are written (`hub/parts.py`).
    """
    try:
        lines = (read_inside(cache / (download_of(path) + LEDGER), cache, _LIMIT) or b"").split(b"\n")[1:]
    except OSError:
        return size
    spans = [match for line in lines if (match := _SPAN.fullmatch(line))]
    return min(size, sum(int(span[2]) - int(span[1]) for span in spans)) if lines else size
