"""Where the numbers of several bytes lie inside ggml's blocks: they swap their bytes from one byte order to the other.

From the structs of ggml-common.h and, for numbers that those declare as bytes or as halves of themselves, from how the
decoders of ggml-quants.c load them: a file of the other byte order is one whose swapped blocks ggml, on a machine of that
order, loads as the same numbers. gguf-py's convert-endian agrees on the types it knows. Codebooks are no part of a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeAlias

Run: TypeAlias = tuple[int, int, int]  # numbers side by side: first byte, bytes of each, how many

_NUMBERS: dict[str, tuple[Run, ...]] = {
    "Q4_0": ((0, 2, 1),), "Q4_1": ((0, 2, 2),), "Q8_0": ((0, 2, 1),), "Q8_1": ((0, 2, 2),),
    "Q5_0": ((0, 2, 1), (2, 4, 1)), "Q5_1": ((0, 2, 2), (4, 4, 1)),  # fifth bits: bytes loaded as one uint32
    "Q2_K": ((80, 2, 2),), "Q3_K": ((108, 2, 1),), "Q4_K": ((0, 2, 2),), "Q5_K": ((0, 2, 2),), "Q6_K": ((208, 2, 1),),
    "Q8_K": ((0, 4, 1), (260, 2, 16)),
    # indices of IQ2_XXS are loaded as bytes; what follows them in every run of eight bytes, as one uint32
    "IQ2_XXS": ((0, 2, 1), *((at, 4, 1) for at in range(6, 66, 8))),
    "IQ2_XS": ((0, 2, 33),), "IQ2_S": ((0, 2, 1),),
    "IQ3_XXS": ((0, 2, 1), (66, 4, 8)), "IQ3_S": ((0, 2, 1),),  # IQ3_XXS: signs and scales, uint32
    "IQ1_S": ((0, 2, 1), (34, 2, 8)), "IQ1_M": ((48, 2, 4),), "IQ4_NL": ((0, 2, 1),), "IQ4_XS": ((0, 2, 2),),
    "TQ1_0": ((52, 2, 1),), "TQ2_0": ((64, 2, 1),), "MXFP4": (), "NVFP4": (), "Q1_0": ((0, 2, 1),), "Q2_0": ((0, 2, 1),),
}  # fmt: skip
NUMBERS: Mapping[str, tuple[Run, ...]] = MappingProxyType(_NUMBERS)
