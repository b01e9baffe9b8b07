"""ggml's own C functions, through ctypes, from the extension module of xllamacpp: an oracle that needs no compiler."""

from __future__ import annotations

import ctypes
from ctypes import CDLL, POINTER, Structure, c_bool, c_char_p, c_float, c_int, c_int64, c_size_t, c_void_p
from functools import cache
from importlib.util import find_spec
from pathlib import Path


class _InitParams(Structure):
    _fields_ = (("no_alloc", c_bool), ("context", c_void_p))


@cache
def ggml() -> CDLL:
    """The library. Skips the calling test where it is not installed."""
    import pytest

    spec = find_spec("xllamacpp")
    found = list(Path(spec.origin).parent.glob("xllamacpp*.so")) if spec and spec.origin else []
    if not found:
        pytest.skip("xllamacpp is not installed")
    library = CDLL(str(found[0]))
    library.gguf_init_from_file.restype = c_void_p
    library.gguf_init_from_file.argtypes = [c_char_p, _InitParams]
    library.gguf_free.argtypes = [c_void_p]
    library.gguf_get_meta_size.restype = c_size_t
    library.gguf_get_meta_size.argtypes = [c_void_p]
    library.gguf_get_meta_data.argtypes = [c_void_p, c_void_p]
    library.ggml_row_size.restype = c_size_t
    library.ggml_row_size.argtypes = [c_int, c_int64]
    library.ggml_quantize_chunk.restype = c_size_t
    library.ggml_quantize_chunk.argtypes = [c_int, POINTER(c_float), c_void_p, c_int64, c_int64, c_int64, c_void_p]
    library.dequantize_row_q8_0.argtypes = [c_void_p, POINTER(c_float), c_int64]
    return library


def header_as_ggml_writes_it(path: Path) -> bytes | None:
    """Read the file's header with ggml and let ggml write it again; None if ggml refuses the file."""
    library = ggml()
    context = library.gguf_init_from_file(str(path).encode(), _InitParams(True, None))
    if not context:
        return None
    try:
        buffer = ctypes.create_string_buffer(library.gguf_get_meta_size(context))
        library.gguf_get_meta_data(context, buffer)
        return buffer.raw
    finally:
        library.gguf_free(context)


def row_size(kind: int, columns: int) -> int:
    """Bytes of a row of that ggml type."""
    return int(ggml().ggml_row_size(kind, columns))
