"""llama.cpp's own image encoder (mtmd), through ctypes, from the extension module of xllamacpp."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import CDLL, POINTER, Structure, byref, c_bool, c_char, c_char_p, c_float, c_int, c_int32, c_size_t, c_void_p
from functools import cache
from pathlib import Path

import numpy as np
from libllama import library


class _Params(Structure):
    """mtmd_context_params of mtmd.h; what follows the last field is room for fields to come."""

    _fields_ = (
        ("use_gpu", c_bool), ("device", c_void_p), ("print_timings", c_bool), ("n_threads", c_int),
        ("image_marker", c_char_p), ("media_marker", c_char_p), ("flash_attn_type", c_int), ("warmup", c_bool),
        ("image_min_tokens", c_int), ("image_max_tokens", c_int), ("cb_eval", c_void_p), ("cb_eval_user_data", c_void_p),
        ("batch_max_tokens", c_int32), ("progress_callback", c_void_p), ("progress_user_data", c_void_p),
        ("reserve", c_char * 64),
    )  # fmt: skip


class _Text(Structure):
    """mtmd_input_text."""

    _fields_ = (("text", c_char_p), ("text_len", c_size_t), ("add_special", c_bool), ("parse_special", c_bool))


_IMAGE = 1  # MTMD_INPUT_CHUNK_TYPE_IMAGE
_M_PERTURB, _TO_ZERO = -6, 0xFF  # of glibc's mallopt: new memory holds the complement of the second
_LOG = ctypes.CFUNCTYPE(None, c_int, c_char_p, c_void_p)


@_LOG
def _silent(_level: int, _text: bytes, _data: int) -> None:
    """Says nothing."""


@cache
def _library() -> CDLL:
    """The library. Skips the calling test where it lacks mtmd, or has its parameters laid out in another way."""
    import pytest

    found = library()
    if not hasattr(found, "mtmd_encode_chunk"):
        pytest.skip("this llama.cpp has no mtmd")
    returned = {
        c_void_p: ("init_from_file", "bitmap_init", "input_chunks_init", "input_chunks_get"),
        c_size_t: ("input_chunks_size", "input_chunk_get_n_tokens"),
        c_char_p: ("default_marker",),
        POINTER(c_float): ("get_output_embd",),
        _Params: ("context_params_default",),
    }
    for kind, names in returned.items():
        for name in names:
            getattr(found, f"mtmd_{name}").restype = kind
    for name in ("get_type", "get_n_tokens"):
        getattr(found, f"mtmd_input_chunk_{name}").argtypes = [c_void_p]
    for name in ("free", "bitmap_free", "input_chunks_free", "input_chunks_size", "get_output_embd"):
        getattr(found, f"mtmd_{name}").argtypes = [c_void_p]
    found.mtmd_init_from_file.argtypes = [c_char_p, c_void_p, _Params]
    found.mtmd_bitmap_init.argtypes = [c_int32, c_int32, c_char_p]
    found.mtmd_input_chunks_get.argtypes = [c_void_p, c_size_t]
    found.mtmd_tokenize.argtypes = [c_void_p, c_void_p, POINTER(_Text), POINTER(c_void_p), c_size_t]
    found.mtmd_encode_chunk.argtypes = [c_void_p, c_void_p]
    found.llama_model_n_embd.argtypes = [c_void_p]
    for name in ("mtmd_log_set", "mtmd_helper_log_set"):
        getattr(found, name)(_silent, None)
    params = found.mtmd_context_params_default()
    if (params.n_threads, params.media_marker, params.image_min_tokens, params.batch_max_tokens) != (4, b"<__media__>", -1, 1024):
        pytest.skip("this llama.cpp lays its parameters out in another way")
    return found


def image_vectors(text: Path, projector: Path, pixels: np.ndarray) -> np.ndarray:
    """What llama.cpp feeds the text part of a model for an image: (vectors, hidden size), float32.

    `pixels` is (height, width, 3), uint8. AssertionError if llama.cpp refuses one of the files.
    """
    found = _library()
    model = found.llama_model_load_from_file(str(text).encode(), found.llama_model_default_params())
    assert model, f"llama.cpp refuses {text}"
    params = found.mtmd_context_params_default()
    params.use_gpu, params.warmup, params.print_timings, params.image_min_tokens = False, False, False, 1
    with _cleared_memory():
        context = found.mtmd_init_from_file(str(projector).encode(), model, params)
    try:
        assert context, f"llama.cpp refuses {projector}"
        with _cleared_memory():
            return _encoded(found, context, pixels, found.llama_model_n_embd(model))
    finally:
        if context:
            found.mtmd_free(context)
        found.llama_model_free(model)


@contextmanager
def _cleared_memory() -> Iterator[None]:
    """New memory is zero here: llama.cpp makes the rows of [IMG_BREAK] from memory it never wrote, times zero, which is NaN now
    and then (graphs of pixtral, `ggml_scale(tok, 0.0)`)."""
    tune = getattr(CDLL(None), "mallopt", None)  # glibc alone has it
    if tune:
        tune(_M_PERTURB, _TO_ZERO)
    try:
        yield
    finally:
        if tune:
            tune(_M_PERTURB, 0)


def _encoded(found: CDLL, context: int, pixels: np.ndarray, width: int) -> np.ndarray:
    bitmap = found.mtmd_bitmap_init(pixels.shape[1], pixels.shape[0], pixels.astype(np.uint8).tobytes())
    marker, chunks = found.mtmd_default_marker(), found.mtmd_input_chunks_init()
    prompt = _Text(marker, len(marker), False, True)
    try:
        assert found.mtmd_tokenize(context, chunks, byref(prompt), (c_void_p * 1)(bitmap), 1) == 0
        every = [found.mtmd_input_chunks_get(chunks, index) for index in range(found.mtmd_input_chunks_size(chunks))]
        (image,) = [chunk for chunk in every if found.mtmd_input_chunk_get_type(chunk) == _IMAGE]
        assert found.mtmd_encode_chunk(context, image) == 0
        count = found.mtmd_input_chunk_get_n_tokens(image)
        values = np.ctypeslib.as_array(found.mtmd_get_output_embd(context), (count * width,))
        return values.reshape(count, width).copy()
    finally:
        found.mtmd_input_chunks_free(chunks)
        found.mtmd_bitmap_free(bitmap)
