"""ggml's encoders, through ctypes, out of the wheel of xllamacpp, whose extension module exports them."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.peers import GGML, peer

if TYPE_CHECKING:
    from hubclient.formats.model import Encoding

_FLOATS = ctypes.POINTER(ctypes.c_float)


def library(bench: Path) -> ctypes.CDLL:
    """The library, in an environment that is made if it is not there."""
    home = Path(peer(bench, GGML)).parent.parent
    found = ctypes.CDLL(str(next(home.glob("lib/python*/site-packages/xllamacpp/xllamacpp*.so"))))
    size, pointer = ctypes.c_int64, ctypes.c_void_p
    found.ggml_quantize_chunk.argtypes = [ctypes.c_int, _FLOATS, pointer, size, size, size, pointer]
    found.ggml_quantize_chunk.restype = ctypes.c_size_t
    return found


def encode(ggml: ctypes.CDLL, rows: Any, encoding: Encoding, out: Any = None, importance: Any = None) -> Any:
    """What hubclient's `codecs.encode` is to equal: uint8 [n, row_bytes] from float32 [n, columns], both contiguous."""
    import numpy as np

    count, columns = rows.shape
    packed = np.empty((count, encoding.row_bytes(columns)), np.uint8) if out is None else out
    weights = None if importance is None else importance.ctypes.data
    ggml.ggml_quantize_chunk(encoding.ggml, rows.ctypes.data_as(_FLOATS), packed.ctypes.data, 0, count, columns, weights)
    return packed
