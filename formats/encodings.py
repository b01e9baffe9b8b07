"""Encodings: how numbers are packed, and the functions that pack and unpack them.

One table holds every type by name: the plain dtypes of safetensors and the types of ggml. Names and sizes are known for
all; what can be unpacked and packed is looked up in `hubclient.formats.codecs`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from hubclient.formats.model import Encoding

# name, elements per block, bytes per block, ggml type number, safetensors dtype
_PLAIN = (
    ("F64", 1, 8, 28, "F64"), ("F32", 1, 4, 0, "F32"), ("F16", 1, 2, 1, "F16"), ("BF16", 1, 2, 30, "BF16"),
    ("I64", 1, 8, 27, "I64"), ("I32", 1, 4, 26, "I32"), ("I16", 1, 2, 25, "I16"), ("I8", 1, 1, 24, "I8"),
    ("U64", 1, 8, None, "U64"), ("U32", 1, 4, None, "U32"), ("U16", 1, 2, None, "U16"), ("U8", 1, 1, None, "U8"),
    ("BOOL", 1, 1, None, "BOOL"), ("C64", 1, 8, None, "C64"),
    ("F8_E4M3", 1, 1, None, "F8_E4M3"), ("F8_E5M2", 1, 1, None, "F8_E5M2"), ("F8_E8M0", 1, 1, None, "F8_E8M0"),
    ("F8_E4M3FNUZ", 1, 1, None, "F8_E4M3FNUZ"), ("F8_E5M2FNUZ", 1, 1, None, "F8_E5M2FNUZ"),
    ("F4", 2, 1, None, "F4"), ("F6_E2M3", 4, 3, None, "F6_E2M3"), ("F6_E3M2", 4, 3, None, "F6_E3M2"),
)  # fmt: skip

# Block layouts: ggml's ggml-common.h (block_* structs).
_GGML = (
    ("Q4_0", 32, 18, 2), ("Q4_1", 32, 20, 3), ("Q5_0", 32, 22, 6), ("Q5_1", 32, 24, 7), ("Q8_0", 32, 34, 8),
    ("Q8_1", 32, 36, 9), ("Q2_K", 256, 84, 10), ("Q3_K", 256, 110, 11), ("Q4_K", 256, 144, 12), ("Q5_K", 256, 176, 13),
    ("Q6_K", 256, 210, 14), ("Q8_K", 256, 292, 15), ("IQ2_XXS", 256, 66, 16), ("IQ2_XS", 256, 74, 17),
    ("IQ3_XXS", 256, 98, 18), ("IQ1_S", 256, 50, 19), ("IQ4_NL", 32, 18, 20), ("IQ3_S", 256, 110, 21),
    ("IQ2_S", 256, 82, 22), ("IQ4_XS", 256, 136, 23), ("IQ1_M", 256, 56, 29), ("TQ1_0", 256, 54, 34),
    ("TQ2_0", 256, 66, 35), ("MXFP4", 32, 17, 39), ("NVFP4", 64, 36, 40), ("Q1_0", 128, 18, 41), ("Q2_0", 64, 18, 42),
)  # fmt: skip

AFFINE_BITS, AFFINE_GROUPS = (2, 3, 4, 5, 6, 8), (32, 64, 128)


def _affine(bits: int, group: int, dtype: str, size: int) -> Encoding:
    words = group * bits // 8
    return Encoding(f"AFFINE{bits}_G{group}_{dtype}", group, words + 2 * size, planes=(words, size, size))


# MLX's affine quantisation (mlx.core.quantize): per group of a row packed words, then scales, then biases in the model's
# dtype. The microscaling types in the layout of MLX and GPT-OSS: sixteen bytes of nibbles in order, one exponent.
_PLANAR = (
    *(_affine(bits, group, dtype, size) for bits in AFFINE_BITS for group in AFFINE_GROUPS
      for dtype, size in (("F32", 4), ("F16", 2), ("BF16", 2))),
    Encoding("MXFP4_PLANES", 32, 17, planes=(16, 1)),
    Encoding("NVFP4_PLANES", 16, 9, planes=(8, 1)),
    Encoding("MXFP8_PLANES", 32, 33, planes=(32, 1)),
)  # fmt: skip

ENCODINGS: Mapping[str, Encoding] = MappingProxyType(
    {name: Encoding(name, block, size, ggml, st) for name, block, size, ggml, st in _PLAIN}
    | {name: Encoding(name, block, size, ggml) for name, block, size, ggml in _GGML}
    | {encoding.name: encoding for encoding in _PLANAR}
)
BY_GGML: Mapping[int, Encoding] = MappingProxyType({e.ggml: e for e in ENCODINGS.values() if e.ggml is not None})
BY_SAFETENSORS: Mapping[str, Encoding] = MappingProxyType({e.safetensors: e for e in ENCODINGS.values() if e.safetensors})


def affine(bits: int, group: int, dtype: Encoding) -> Encoding:
    """MLX's affine encoding with scales and biases of `dtype` (F32, F16 or BF16); KeyError if there is none such."""
    return ENCODINGS[f"AFFINE{bits}_G{group}_{dtype.name}"]


def in_safetensors(names: Iterable[str]) -> Encoding | None:
    """The first of these encodings that safetensors has a dtype or planes for, None if it has for none; KeyError for unknown ones."""
    known = [ENCODINGS[name] for name in names]
    return next((encoding for encoding in known if encoding.planes or encoding.safetensors), None)


F32, F16, BF16, Q8_0 = (ENCODINGS[name] for name in ("F32", "F16", "BF16", "Q8_0"))
