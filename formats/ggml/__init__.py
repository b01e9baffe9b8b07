"""ggml's block types: kernels that decode and encode their blocks, by family, and where the numbers in a block lie.

    grids      the codebooks of the IQ types, as constants
    fields     kernels that read numbers out of blocks, which the families share
    legacy     Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q8_1
    kquants    Q2_K Q3_K Q4_K Q5_K Q6_K Q8_K
    iquants    IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ3_XXS IQ3_S IQ4_NL IQ4_XS
    small      TQ1_0 TQ2_0 MXFP4 NVFP4 Q1_0 Q2_0
    byteorder  which bytes of a block swap places in a file of the other byte order

The families import Numba, so a family is imported when one of its types is first needed, and each kernel compiled at its
first call. A family has a table of its kernels each way: DECODERS and, once it has any, ENCODERS; a decoder is named
f32_from_<type>, an encoder <type>_from_f32. Sources of the layouts and of the arithmetic: ggml's ggml-common.h (block_*
structs) and ggml-quants.c (dequantize_row_*, quantize_row_*_ref), whose float32 operations the kernels repeat one by one,
hence the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from types import MappingProxyType
from typing import Any, TypeAlias

Kernel: TypeAlias = Callable[[Any, Any], None]  # reads the first array, fills the second

_FAMILIES = {
    "legacy": ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q8_1"),
    "kquants": ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q8_K"),
    "iquants": ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_NL", "IQ4_XS"),
    "small": ("TQ1_0", "TQ2_0", "MXFP4", "NVFP4", "Q1_0", "Q2_0"),
}
FAMILY: Mapping[str, str] = MappingProxyType({name: family for family, names in _FAMILIES.items() for name in names})

# Types with an encoder, so that what can be encoded is known without importing Numba.
ENCODED = frozenset({"Q8_0"})


@cache
def decoder(name: str) -> Kernel:
    """The kernel from blocks uint8 [n, block_bytes] to float32 [n, block]."""
    return _kernels(name, "DECODERS")[name]


@cache
def encoder(name: str) -> Kernel:
    """The kernel from float32 [n, block] to blocks uint8 [n, block_bytes], for the types in ENCODED."""
    return _kernels(name, "ENCODERS")[name]


def _kernels(name: str, table: str) -> Mapping[str, Kernel]:
    kernels: Mapping[str, Kernel] = getattr(import_module(f"{__name__}.{FAMILY[name]}"), table)
    return kernels
