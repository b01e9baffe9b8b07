"""Q2_K Q3_K Q4_K Q5_K Q6_K Q8_K: super-blocks of 256 whose sub-blocks of 16 or 32 have small integer scales.

Kernels from uint8 [n, block_bytes] to float32 [n, 256]. Where quants share a byte, or their high bits do, the sharers lie
32 elements apart: a byte holds the same column of consecutive runs of 32.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy import float32 as f32
from numpy import int8 as i8
from numpy import int32 as i32
from numpy import uint32 as u32

from hubclient.formats.ggml import Kernel
from hubclient.formats.ggml.fields import field, half_at, high, low, word_at
from hubclient.formats.kernels import Bytes, Floats, kernel


@kernel
def f32_from_q2_k(blocks: Bytes, values: Floats) -> None:
    """16 bytes of scale and minimum (four bits each), 64 bytes of quants, float16 factors of scales and of minima."""
    for b in range(blocks.shape[0]):
        factor, floor = half_at(blocks, b, 80), half_at(blocks, b, 82)
        for s in range(16):
            scale = f32(factor * f32(low(blocks[b, s])))
            minimum = f32(floor * f32(high(blocks[b, s])))
            first = 16 + s // 8 * 32 + s % 2 * 16  # where the quants of sub-block s start
            for j in range(16):
                quant = field(blocks[b, first + j], s % 8 // 2 * 2, 3)
                values[b, s * 16 + j] = f32(scale * f32(quant)) - minimum


@kernel
def q3_k_scale(blocks: Bytes, b: int, s: int) -> f32:
    """The scale of sub-block s: four bits of bytes 96 to 103, two bits above them of bytes 104 to 107, offset 32."""
    lower = field(blocks[b, 96 + s % 8], s // 8 * 4, 15)
    upper = field(blocks[b, 104 + s % 4], s // 4 * 2, 3)
    return f32(i32(i32(lower | i32(upper << i32(4))) - i32(32)))


@kernel
def f32_from_q3_k(blocks: Bytes, values: Floats) -> None:
    """32 bytes of third bits, 64 bytes of quants with offset 4, 12 bytes of scales, factor float16."""
    for b in range(blocks.shape[0]):
        factor = half_at(blocks, b, 108)
        for s in range(16):
            scale = f32(factor * q3_k_scale(blocks, b, s))
            first = 32 + s // 8 * 32 + s % 2 * 16
            for j in range(16):
                third = field(blocks[b, s % 2 * 16 + j], s // 2, 1)
                quant = i32(field(blocks[b, first + j], s % 8 // 2 * 2, 3) | i32(third << i32(2)))
                values[b, s * 16 + j] = scale * f32(i32(quant - i32(4)))


@kernel
def scale_and_minimum(blocks: Bytes, b: int, s: int) -> tuple[f32, f32]:
    """Scale and minimum of sub-block s of Q4_K and Q5_K: six bits each, in bytes 4 to 15 (get_scale_min_k4)."""
    if s < 4:
        return f32(field(blocks[b, 4 + s], 0, 63)), f32(field(blocks[b, 8 + s], 0, 63))
    scale = i32(low(blocks[b, 8 + s]) | i32(field(blocks[b, s], 6, 3) << i32(4)))
    minimum = i32(high(blocks[b, 8 + s]) | i32(field(blocks[b, 4 + s], 6, 3) << i32(4)))
    return f32(scale), f32(minimum)


@kernel
def f32_from_q4_k(blocks: Bytes, values: Floats) -> None:
    """Float16 factors of scales and of minima, 12 bytes of both, 128 bytes of quants."""
    for b in range(blocks.shape[0]):
        factor, floor = half_at(blocks, b, 0), half_at(blocks, b, 2)
        for s in range(8):
            scale, minimum = scale_and_minimum(blocks, b, s)
            scale, minimum = f32(factor * scale), f32(floor * minimum)
            for j in range(32):
                quant = field(blocks[b, 16 + s // 2 * 32 + j], s % 2 * 4, 15)
                values[b, s * 32 + j] = f32(scale * f32(quant)) - minimum


@kernel
def f32_from_q5_k(blocks: Bytes, values: Floats) -> None:
    """As Q4_K, with 32 bytes of fifth bits before the quants."""
    for b in range(blocks.shape[0]):
        factor, floor = half_at(blocks, b, 0), half_at(blocks, b, 2)
        for s in range(8):
            scale, minimum = scale_and_minimum(blocks, b, s)
            scale, minimum = f32(factor * scale), f32(floor * minimum)
            for j in range(32):
                fifth = field(blocks[b, 16 + j], s, 1)
                quant = i32(field(blocks[b, 48 + s // 2 * 32 + j], s % 2 * 4, 15) | i32(fifth << i32(4)))
                values[b, s * 32 + j] = f32(scale * f32(quant)) - minimum


@kernel
def f32_from_q6_k(blocks: Bytes, values: Floats) -> None:
    """128 bytes of lower four bits, 64 bytes of upper two bits, 16 int8 scales, factor float16; offset 32."""
    for b in range(blocks.shape[0]):
        factor = half_at(blocks, b, 208)
        for s in range(16):
            scale = f32(factor * f32(i8(blocks[b, 192 + s])))
            lower, upper = s // 8 * 64 + s % 4 * 16, 128 + s // 8 * 32 + s % 2 * 16
            for j in range(16):
                top = field(blocks[b, upper + j], s % 8 // 2 * 2, 3)
                quant = i32(field(blocks[b, lower + j], s % 8 // 4 * 4, 15) | i32(top << i32(4)))
                values[b, s * 16 + j] = scale * f32(i32(quant - i32(32)))


@kernel
def f32_from_q8_k(blocks: Bytes, values: Floats) -> None:
    """Scale float32, 256 int8 quants, sums of 16 quants int16 (not needed here)."""
    for b in range(blocks.shape[0]):
        scale = u32(word_at(blocks, b, 0)).view(np.float32)
        for j in range(256):
            values[b, j] = scale * f32(i8(blocks[b, 4 + j]))


DECODERS: Mapping[str, Kernel] = MappingProxyType(
    {
        "Q2_K": f32_from_q2_k,
        "Q3_K": f32_from_q3_k,
        "Q4_K": f32_from_q4_k,
        "Q5_K": f32_from_q5_k,
        "Q6_K": f32_from_q6_k,
        "Q8_K": f32_from_q8_k,
    }
)
