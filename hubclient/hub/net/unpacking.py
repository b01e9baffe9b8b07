"""Bodies that come compressed, unpacked in pieces of bounded size, however much a few bytes of them may hold."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

CODINGS = {"gzip", "x-gzip", "deflate"}  # that `unpacked` knows
_PIECE = 1 << 20  # bytes


def coding_of(header: str) -> str:
    """What a Content-Encoding says; nothing for none."""
    coding = header.strip().lower()
    return "" if coding == "identity" else coding


def unpacked(packed: Iterable[bytes]) -> Iterator[bytes]:
    """What gzip or zlib packed, as it comes. zlib.error."""
    unpack = zlib.decompressobj(wbits=47)  # either of them
    for piece in packed:
        while piece:
            yield unpack.decompress(piece, _PIECE)
            piece = unpack.unconsumed_tail
    yield unpack.flush()
