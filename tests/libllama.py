"""llama.cpp's own tokenizer, through ctypes, from the extension module of xllamacpp."""

from __future__ import annotations

import ctypes
from ctypes import CDLL, POINTER, Structure, c_bool, c_char, c_char_p, c_float, c_int, c_int32, c_void_p
from functools import cache
from pathlib import Path

from libggml import ggml


class _ModelParams(Structure):
    """llama_model_params of llama.h; what follows the last field is room for fields to come."""

    _fields_ = (
        ("devices", c_void_p), ("tensor_buft_overrides", c_void_p), ("n_gpu_layers", c_int32), ("split_mode", c_int),
        ("load_mode", c_int), ("lazy_mode", c_int), ("main_gpu", c_int32), ("tensor_split", POINTER(c_float)),
        ("progress_callback", c_void_p), ("progress_user_data", c_void_p), ("kv_overrides", c_void_p),
        ("vocab_only", c_bool), ("check_tensors", c_bool), ("use_extra_bufts", c_bool), ("no_host", c_bool),
        ("no_alloc", c_bool), ("load_mtp", c_bool), ("reserve", c_char * 64),
    )  # fmt: skip


_LOG = ctypes.CFUNCTYPE(None, c_int, c_char_p, c_void_p)


@_LOG
def _silent(_level: int, _text: bytes, _data: int) -> None:
    """Says nothing."""


@cache
def library() -> CDLL:
    """The library. Skips the calling test where it is missing or its parameters are laid out in another way."""
    import pytest

    found: CDLL = ggml()
    found.llama_model_default_params.restype = _ModelParams
    found.llama_model_load_from_file.restype = c_void_p
    found.llama_model_load_from_file.argtypes = [c_char_p, _ModelParams]
    found.llama_model_get_vocab.restype = c_void_p
    found.llama_model_get_vocab.argtypes = [c_void_p]
    found.llama_model_free.argtypes = [c_void_p]
    found.llama_tokenize.argtypes = [c_void_p, c_char_p, c_int32, POINTER(c_int32), c_int32, c_bool, c_bool]
    found.llama_log_set(_silent, None)
    params = found.llama_model_default_params()
    if (params.n_gpu_layers, params.vocab_only, params.use_extra_bufts, params.no_alloc) != (-1, False, True, False):
        pytest.skip("this llama.cpp lays its parameters out in another way")
    return found


class Vocabulary:
    """The vocabulary of a GGUF, as llama.cpp loads it."""

    def __init__(self, path: Path) -> None:
        found = library()
        params = found.llama_model_default_params()
        params.vocab_only = True
        self._model = found.llama_model_load_from_file(str(path).encode(), params)
        assert self._model, f"llama.cpp refuses {path}"
        self._vocab = found.llama_model_get_vocab(self._model)

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """The ids of a text; `special` adds what the model begins and ends texts with."""
        data = text.encode()
        room = (c_int32 * (len(data) + 16))()
        count = library().llama_tokenize(self._vocab, data, len(data), room, len(room), special, True)
        return list(room[:count])

    def __del__(self) -> None:
        if getattr(self, "_model", None):
            library().llama_model_free(self._model)
