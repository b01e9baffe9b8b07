"""ggml's block types: kernels that decode and encode their blocks, by family, and where the numbers in a block lie.

    grids      the codebooks of the IQ types, as constants
    fields     kernels that read numbers out of blocks, which the families share
    legacy     Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q8_1
    kquants    Q2_K Q3_K Q4_K Q5_K Q6_K Q8_K
    iquants    IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ3_XXS IQ3_S IQ4_NL IQ4_XS
    small      TQ1_0 TQ2_0 MXFP4 NVFP4 Q1_0 Q2_0
    encoders/  the way back, which is a search and much longer: families of its own, below
    byteorder  which bytes of a block swap places in a file of the other byte order

The families import Numba, so a family is imported when one of its types is first needed, and each kernel compiled at its
first call. Those that decode have a table of their kernels, DECODERS; those that encode have ENCODERS and WEIGHTED, whose
kernels are told how much each column matters. Sources of the layouts and of the arithmetic: ggml's ggml-common.h (block_*
structs) and ggml-quants.c (dequantize_row_*, quantize_*), whose float32 operations the kernels repeat one by one, hence
the same bits. Where what they do depends on the machine, the reference is x86-64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from types import MappingProxyType
from typing import TypeAlias

Kernel: TypeAlias = Callable[..., None]  # reads the arrays before the last, fills the last

_DECODERS = {
    "legacy": ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q8_1"),
    "kquants": ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q8_K"),
    "iquants": ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_NL", "IQ4_XS"),
    "small": ("TQ1_0", "TQ2_0", "MXFP4", "NVFP4", "Q1_0", "Q2_0"),
}
_ENCODERS = {
    "legacy": ("Q4_0", "Q4_1", "Q5_0", "Q5_1"),
    "q8_0": ("Q8_0",),
    "small": ("TQ1_0", "TQ2_0", "MXFP4", "NVFP4", "Q1_0", "Q2_0"),
    "q2_k": ("Q2_K",),
    "q36_k": ("Q3_K", "Q6_K"),
    "q45_k": ("Q4_K", "Q5_K"),
    "iq1": ("IQ1_S", "IQ1_M"),
    "iq2": ("IQ2_XXS", "IQ2_XS", "IQ2_S"),
    "iq3": ("IQ3_XXS", "IQ3_S"),
    "iq4": ("IQ4_NL", "IQ4_XS"),
}


def _by_name(families: Mapping[str, tuple[str, ...]]) -> Mapping[str, str]:
    return MappingProxyType({name: family for family, names in families.items() for name in names})


FAMILY: Mapping[str, str] = _by_name(_DECODERS)  # of the decoder
ENCODER_FAMILY: Mapping[str, str] = _by_name(_ENCODERS)

# What can be encoded, and how, is known without importing Numba.
ENCODED = frozenset(ENCODER_FAMILY)
# Types that ggml encodes only where it is told how much each column matters.
NEEDS_IMPORTANCE = frozenset({"IQ2_XXS", "IQ2_XS", "IQ1_S"})
# Types that are encoded differently where it is told; to the others it makes no difference.
USES_IMPORTANCE = ENCODED - {"Q8_0", "TQ1_0", "TQ2_0", "MXFP4", "NVFP4", "Q1_0", "Q2_0"}


@cache
def decoder(name: str) -> Kernel:
    """The kernel from blocks uint8 [n, block_bytes] to float32 [n, block]."""
    return _kernels(FAMILY[name], "DECODERS")[name]


@cache
def encoder(name: str) -> Kernel:
    """The kernel from float32 [n, block] to blocks uint8 [n, block_bytes], for ENCODED without NEEDS_IMPORTANCE."""
    return _kernels(f"encoders.{ENCODER_FAMILY[name]}", "ENCODERS")[name]


@cache
def weighted_encoder(name: str) -> Kernel:
    """The kernel from float32 [n, block] and importance float32 [m, block] to blocks, for the types in USES_IMPORTANCE.

    m is the blocks of a row, so block b has the importance of b % m. Whole rows are handed over: some types look at how
    large the numbers of a row are.
    """
    return _kernels(f"encoders.{ENCODER_FAMILY[name]}", "WEIGHTED")[name]


def _kernels(family: str, table: str) -> Mapping[str, Kernel]:
    kernels: Mapping[str, Kernel] = getattr(import_module(f"{__name__}.{family}"), table)
    return kernels
