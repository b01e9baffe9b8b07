"""What llama-imatrix counts, by llama.cpp itself: its tool is in no wheel, but the library calls back for every product.

Follows `compute_imatrix` and `collect_imatrix` of llama.cpp's tools/imatrix: batches of 2048 tokens, as many sequences in each as fit.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from ctypes import (
    POINTER,
    Structure,
    c_bool,
    c_char,
    c_char_p,
    c_float,
    c_int,
    c_int8,
    c_int32,
    c_int64,
    c_size_t,
    c_uint32,
    c_void_p,
)
from pathlib import Path
from typing import Any

import numpy as np
from libllama import library

_BATCH = 2048


class _ContextParams(Structure):
    """llama_context_params of llama.h; what follows the last field is room for fields to come."""

    _fields_ = (
        ("n_ctx", c_uint32), ("n_batch", c_uint32), ("n_ubatch", c_uint32), ("n_seq_max", c_uint32), ("n_rs_seq", c_uint32),
        ("n_outputs_max", c_uint32), ("n_outputs_max_per_seq", c_uint32), ("n_threads", c_int32), ("n_threads_batch", c_int32),
        ("ctx_type", c_int), ("rope_scaling_type", c_int), ("pooling_type", c_int), ("attention_type", c_int),
        ("flash_attn_type", c_int), ("rope_freq_base", c_float), ("rope_freq_scale", c_float), ("yarn_ext_factor", c_float),
        ("yarn_attn_factor", c_float), ("yarn_beta_fast", c_float), ("yarn_beta_slow", c_float), ("yarn_orig_ctx", c_uint32),
        ("defrag_thold", c_float), ("cb_eval", c_void_p), ("cb_eval_user_data", c_void_p), ("type_k", c_int), ("type_v", c_int),
        ("abort_callback", c_void_p), ("abort_callback_data", c_void_p), ("more", c_void_p), ("embeddings", c_bool), ("offload_kqv", c_bool),
        ("no_perf", c_bool), ("op_offload", c_bool), ("swa_full", c_bool), ("kv_unified", c_bool), ("samplers", c_void_p),
        ("n_samplers", c_size_t), ("ctx_other", c_void_p), ("reserve", c_char * 64),
    )  # fmt: skip


class _Batch(Structure):
    _fields_ = (
        ("n_tokens", c_int32), ("token", POINTER(c_int32)), ("embd", c_void_p), ("pos", POINTER(c_int32)),
        ("n_seq_id", POINTER(c_int32)), ("seq_id", POINTER(POINTER(c_int32))), ("logits", POINTER(c_int8)),
    )  # fmt: skip


class _Tensor(Structure):
    pass


_Tensor._fields_ = (  # type: ignore[assignment]
    ("type", c_int), ("buffer", c_void_p), ("ne", c_int64 * 4), ("nb", c_size_t * 4), ("op", c_int), ("op_params", c_int32 * 16),
    ("flags", c_int32), ("src", POINTER(_Tensor) * 10), ("view_src", c_void_p), ("view_offs", c_size_t), ("data", c_void_p),
    ("name", c_char * 64),
)  # fmt: skip
_CALLBACK = ctypes.CFUNCTYPE(c_bool, POINTER(_Tensor), c_bool, c_void_p)


class Collector:
    """Sums and counts by tensor name: float64 (matrices, columns) and int64 (counted,)."""

    def __init__(self, *, output: bool = False) -> None:
        self.sums: dict[str, Any] = {}
        self.counts: dict[str, Any] = {}
        self._output = output

    def __call__(self, pointer: Any, ask: bool, _data: Any) -> bool:
        tensor = pointer.contents
        kind = library().ggml_op_name(tensor.op)
        if kind not in (b"MUL_MAT", b"MUL_MAT_ID"):
            return False
        name = tensor.src[0].contents.name.decode()
        if kind == b"MUL_MAT":
            wanted = name.startswith("blk.") or (self._output and name == "output.weight")
            if not wanted or tensor.src[1].contents.ne[1] < 16:
                return False
        if not ask:
            (self._dense if kind == b"MUL_MAT" else self._routed)(name, tensor)
        return True

    def _dense(self, name: str, tensor: Any) -> None:
        weight, given = tensor.src[0].contents, _array(tensor.src[1].contents, np.float32)
        matrices = weight.ne[2]
        squares = (given.astype(np.float64) ** 2).sum(2)  # (i3, i2, columns)
        own = squares.reshape(-1, matrices, given.shape[-1]).sum(0)
        self.sums[name] = self.sums.get(name, 0) + own
        self.counts[name] = self.counts.get(name, 0) + np.array([given.size // given.shape[-1] // matrices])

    def _routed(self, name: str, tensor: Any) -> None:
        weight, given, ids = (
            tensor.src[0].contents,
            _array(tensor.src[1].contents, np.float32)[0],
            _array(tensor.src[2].contents, np.int32),
        )
        chosen = ids[0, 0]  # (tokens, used)
        sums = self.sums.setdefault(name, np.zeros((weight.ne[2], given.shape[-1])))
        counts = self.counts.setdefault(name, np.zeros(weight.ne[2], np.int64))
        for slot in range(chosen.shape[1]):
            rows = given[:, slot % given.shape[1]].astype(np.float64) ** 2
            np.add.at(sums, chosen[:, slot], rows)
            np.add.at(counts, chosen[:, slot], 1)


def collect(path: Path, chunks: Sequence[Sequence[int]], *, output: bool = False) -> Collector:
    """What llama-imatrix counts while the model in a GGUF reads these chunks of equal length."""
    found = _library()
    context_length = len(chunks[0])
    sequences = max(1, _BATCH // context_length)
    collector = Collector(output=output)
    callback = _CALLBACK(collector)
    model = found.llama_model_load_from_file(os.fsencode(path), found.llama_model_default_params())
    assert model, f"llama.cpp refuses {path}"
    params = found.llama_context_default_params()
    params.n_ctx, params.n_seq_max = sequences * context_length, sequences
    params.n_batch = min(_BATCH, params.n_ctx)
    params.n_threads = params.n_threads_batch = 2
    params.cb_eval = ctypes.cast(callback, c_void_p)
    context = found.llama_init_from_model(model, params)
    assert context
    for at in range(0, len(chunks), sequences):
        found.llama_memory_clear(found.llama_get_memory(context), True)
        _decode(context, chunks[at : at + sequences])
    found.llama_free(context)
    found.llama_model_free(model)
    return collector


def _decode(context: int, chunks: Sequence[Sequence[int]]) -> None:
    tokens = [token for chunk in chunks for token in chunk]
    places = [place for chunk in chunks for place in range(len(chunk))]
    owners = [(c_int32 * 1)(number) for number, chunk in enumerate(chunks) for _ in chunk]
    count = len(tokens)
    pointers = (POINTER(c_int32) * count)(*[ctypes.cast(owner, POINTER(c_int32)) for owner in owners])
    batch = _Batch(
        count, (c_int32 * count)(*tokens), None, (c_int32 * count)(*places), (c_int32 * count)(*[1] * count), pointers,
        (c_int8 * count)(*[1] * count),
    )  # fmt: skip
    assert library().llama_decode(context, batch) == 0


def _library() -> Any:
    import pytest

    found = library()
    found.llama_context_default_params.restype = _ContextParams
    found.llama_init_from_model.restype = c_void_p
    found.llama_init_from_model.argtypes = [c_void_p, _ContextParams]
    found.llama_get_memory.restype = c_void_p
    found.llama_get_memory.argtypes = [c_void_p]
    found.llama_memory_clear.argtypes = [c_void_p, c_bool]
    found.llama_decode.argtypes = [c_void_p, _Batch]
    found.llama_free.argtypes = [c_void_p]
    found.ggml_op_name.restype = c_char_p
    found.ggml_op_name.argtypes = [c_int]
    params = found.llama_context_default_params()
    if (params.n_ctx, params.n_batch, params.n_ubatch, params.type_k, params.type_v, params.op_offload) != (
        512,
        2048,
        512,
        1,
        1,
        True,
    ):
        pytest.skip("this llama.cpp lays its parameters out in another way")
    return found


def _array(tensor: Any, kind: Any) -> Any:
    """A view of a tensor's numbers, slowest axis first."""
    shape, strides = tuple(reversed(tensor.ne)), tuple(reversed(tensor.nb))
    size = sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True)) + np.dtype(kind).itemsize
    raw = np.ctypeslib.as_array(ctypes.cast(tensor.data, POINTER(ctypes.c_uint8)), (size,))
    return np.lib.stride_tricks.as_strided(raw[: np.dtype(kind).itemsize].view(kind), shape, strides)
