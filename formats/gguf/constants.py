"""The numbers of the GGUF container: magic, versions, value types, reserved keys, and the limits we hold files to.

Sources: ggml's docs/gguf.md and gguf.cpp (magic, types, alignment, 64-byte names), llama.cpp's gguf-split (split keys).
The limits on counts and sizes are ours: far above any published model, low enough that no claim in a hostile file can
cost much memory or time.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

MAGIC = b"GGUF"
READABLE_VERSIONS = (2, 3)  # version 1 had 32-bit counts; ggml dropped it in 2023
WRITTEN_VERSION = 3

ARRAY = 9
VALUE_TYPES: Mapping[int, str] = MappingProxyType({
    0: "u8", 1: "i8", 2: "u16", 3: "i16", 4: "u32", 5: "i32", 6: "f32", 7: "bool", 8: "str", 10: "u64", 11: "i64", 12: "f64",
})  # fmt: skip
VALUE_CODES: Mapping[str, int] = MappingProxyType({name: code for code, name in VALUE_TYPES.items()})

# struct and array type codes; both modules agree on these sizes on every platform CPython runs on
NUMBER_CODES: Mapping[str, str] = MappingProxyType({
    "u8": "B", "i8": "b", "u16": "H", "i16": "h", "u32": "I", "i32": "i", "u64": "Q", "i64": "q", "f32": "f", "f64": "d",
    "bool": "B",
})  # fmt: skip

ALIGNMENT_KEY = "general.alignment"
DEFAULT_ALIGNMENT = 32
MAX_ALIGNMENT = 1 << 20  # files use 32; an unbounded claim made other readers allocate gigabytes (ggml#1516)

SPLIT_NO = "split.no"
SPLIT_COUNT = "split.count"
SPLIT_TENSORS = "split.tensors.count"
SPLIT_KEYS = (SPLIT_NO, SPLIT_COUNT, SPLIT_TENSORS)
MAX_SPLITS = 0xFFFF  # split.count is a u16

MAX_KEY = 65535  # docs/gguf.md: "must be at most 2^16-1 bytes long"
MAX_TENSOR_NAME = 63  # GGML_MAX_NAME is 64, with the closing NUL
MAX_DIMS = 4  # GGML_MAX_DIMS
MAX_ELEMENTS = (1 << 63) - 1  # ggml counts elements in an int64

MAX_HEADER = 128 << 20  # the largest published vocabularies need about 20 MB
MAX_KEYS = 1 << 16
MAX_TENSORS = 1 << 18
MAX_STRINGS = 1 << 22  # in one array; the largest vocabularies have 262 thousand tokens and 515 thousand merges
MAX_NESTED = 1 << 16  # arrays inside arrays, in one file
MAX_DEPTH = 4  # of arrays; ggml itself reads none inside another

# ggml numbers whose types were taken out of GGUF files again (the comments in ggml.h)
REMOVED_TYPES: Mapping[int, str] = MappingProxyType({
    4: "Q4_2", 5: "Q4_3", 31: "Q4_0_4_4", 32: "Q4_0_4_8", 33: "Q4_0_8_8", 36: "IQ4_NL_4_4", 37: "IQ4_NL_4_8", 38: "IQ4_NL_8_8",
})  # fmt: skip
