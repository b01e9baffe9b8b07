"""Looking for NaN and infinities, which blocks of few bits cannot hold, in rows as they are stored."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hubclient.formats import codecs
from hubclient.formats.encodings import F32
from hubclient.formats.model import Encoding

# Floats whose exponent is all ones: the unsigned integer of an element, the bits of its exponent. F64 is decoded, as float32
# makes infinities of what is too large for it.
_EXPONENTS = {
    "F32": (np.uint32, 0x7F800000),
    "F16": (np.uint16, 0x7C00),
    "BF16": (np.uint16, 0x7F80),
}
# All bits but the sign, and what they are of 32768: scales of numbers below that are finite as float16.
_MAGNITUDES = {
    "F32": (np.uint32, 0x7FFFFFFF, 0x47000000),
    "F16": (np.uint16, 0x7FFF, 0x7800),
    "BF16": (np.uint16, 0x7FFF, 0x4700),
}
_STEP = 1 << 16  # float32 elements decoded at a time


def may_overflow(raw: NDArray[Any], encoding: Encoding) -> bool:
    """Whether raw rows uint8 [n, row_bytes] may hold a number so large that the scale of a block would overflow float16."""
    from hubclient.formats.kernels import largest

    if encoding.name not in _MAGNITUDES:
        return True
    kind, mask, limit = _MAGNITUDES[encoding.name]
    return int(largest(np.ascontiguousarray(raw).reshape(-1).view(kind), kind(mask))) >= limit


def first_nonfinite(raw: NDArray[Any], encoding: Encoding, columns: int) -> int | None:
    """The number, counted along the rows, of the first element of raw rows uint8 [n, row_bytes] that is NaN or infinite; else None."""
    from hubclient.formats.kernels import first_with

    if encoding.name in _EXPONENTS:
        kind, mask = _EXPONENTS[encoding.name]
        at = first_with(np.ascontiguousarray(raw).reshape(-1).view(kind), kind(mask))
        return None if at < 0 else int(at)
    if encoding.name[:1] in "IU" and not encoding.blocked:
        return None
    step = max(1, _STEP // max(1, columns))
    for start in range(0, len(raw), step):
        values = codecs.decode(raw[start : start + step], encoding, columns)
        at = first_nonfinite(values.view(np.uint8), F32, columns)
        if at is not None:
            return start * columns + at
    return None
