"""Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q8_1: blocks of 32 with one scale, and in the types that end in 1 a minimum or a sum beside it.

Kernels from uint8 [n, block_bytes] to float32 [n, 32]. Elements j and j + 16 share byte j of the quants; their fifth
bits, in Q5_0 and Q5_1, are bits j and j + 16 of one uint32.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy import float32 as f32
from numpy import int32 as i32
from numpy import uint32 as u32

from hubclient.formats.ggml import Kernel
from hubclient.formats.ggml.fields import half_at, high, low, word_at
from hubclient.formats.kernels import Bytes, Floats, kernel


@kernel
def f32_from_q4_0(blocks: Bytes, values: Floats) -> None:
    """Scale float16, 16 bytes of quants with offset 8."""
    for b in range(blocks.shape[0]):
        scale = half_at(blocks, b, 0)
        for j in range(16):
            values[b, j] = f32(i32(low(blocks[b, 2 + j]) - i32(8))) * scale
            values[b, 16 + j] = f32(i32(high(blocks[b, 2 + j]) - i32(8))) * scale


@kernel
def f32_from_q4_1(blocks: Bytes, values: Floats) -> None:
    """Scale and minimum float16, 16 bytes of quants."""
    for b in range(blocks.shape[0]):
        scale, minimum = half_at(blocks, b, 0), half_at(blocks, b, 2)
        for j in range(16):
            values[b, j] = f32(f32(low(blocks[b, 4 + j])) * scale) + minimum
            values[b, 16 + j] = f32(f32(high(blocks[b, 4 + j])) * scale) + minimum


@kernel
def fifth(bits: u32, j: int) -> i32:
    """Bit j as the fifth bit of a quant: 0 or 16."""
    return i32(u32(u32(u32(bits) >> u32(j)) & u32(1)) << u32(4))


@kernel
def f32_from_q5_0(blocks: Bytes, values: Floats) -> None:
    """Scale float16, 32 fifth bits, 16 bytes of quants with offset 16."""
    for b in range(blocks.shape[0]):
        scale, bits = half_at(blocks, b, 0), word_at(blocks, b, 2)
        for j in range(16):
            first = i32(low(blocks[b, 6 + j]) | fifth(bits, j))
            second = i32(high(blocks[b, 6 + j]) | fifth(bits, 16 + j))
            values[b, j] = f32(i32(first - i32(16))) * scale
            values[b, 16 + j] = f32(i32(second - i32(16))) * scale


@kernel
def f32_from_q5_1(blocks: Bytes, values: Floats) -> None:
    """Scale and minimum float16, 32 fifth bits, 16 bytes of quants."""
    for b in range(blocks.shape[0]):
        scale, minimum, bits = half_at(blocks, b, 0), half_at(blocks, b, 2), word_at(blocks, b, 4)
        for j in range(16):
            first = i32(low(blocks[b, 8 + j]) | fifth(bits, j))
            second = i32(high(blocks[b, 8 + j]) | fifth(bits, 16 + j))
            values[b, j] = f32(f32(first) * scale) + minimum
            values[b, 16 + j] = f32(f32(second) * scale) + minimum


@kernel
def f32_from_q8_0(blocks: Bytes, values: Floats) -> None:
    """Scale float16, 32 int8 quants."""
    for b in range(blocks.shape[0]):
        scale = half_at(blocks, b, 0)
        for j in range(32):
            values[b, j] = f32(np.int8(blocks[b, 2 + j])) * scale


@kernel
def f32_from_q8_1(blocks: Bytes, values: Floats) -> None:
    """Scale float16, scale times sum of the quants float16 (not needed here), 32 int8 quants."""
    for b in range(blocks.shape[0]):
        scale = half_at(blocks, b, 0)
        for j in range(32):
            values[b, j] = f32(np.int8(blocks[b, 4 + j])) * scale


DECODERS: Mapping[str, Kernel] = MappingProxyType(
    {
        "Q4_0": f32_from_q4_0,
        "Q4_1": f32_from_q4_1,
        "Q5_0": f32_from_q5_0,
        "Q5_1": f32_from_q5_1,
        "Q8_0": f32_from_q8_0,
        "Q8_1": f32_from_q8_1,
    }
)
