"""Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q8_1: blocks of 32 with one scale, and in the types that end in 1 a minimum or a sum beside it.

Kernels between uint8 [n, block_bytes] and float32 [n, 32]. Elements j and j + 16 share byte j of the quants; their fifth
bits, in Q5_0 and Q5_1, are bits j and j + 16 of one uint32.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy import float32 as f32
from numpy import int32 as i32
from numpy import uint8 as u8
from numpy import uint16 as u16
from numpy import uint32 as u32

from hubclient.formats.ggml import Kernel
from hubclient.formats.ggml.fields import half_at, high, low, word_at
from hubclient.formats.kernels import Bytes, Floats, Halves, half_of, kernel

_BELOW_HALF = f32(0.49999997)  # the float32 just below 0.5
_INFINITY = f32(np.inf)


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


@kernel
def q8_0_scale(magnitude: u32, block: Bytes) -> f32:
    """Write the scale of a Q8_0 block whose largest magnitude has these bits; return the factor for its elements.

    As quantize_row_q8_0_ref: d = amax / 127 and 1 / d in float32, d stored as float16. Where 1 / d is not finite (a
    block of denormals, infinities or NaN) the reference converts infinities to int8, which x86 turns into zeros; so
    does the factor 0.
    """
    scale = f32(u32(magnitude).view(np.float32) / f32(127.0))
    half = half_of(f32(scale).view(np.uint32))
    block[0] = u8(half & u16(0xFF))
    block[1] = u8(half >> u16(8))
    factor = f32(1.0) / scale
    return factor if factor < _INFINITY else f32(0.0)


@kernel
def q8_0_level(value: f32) -> u8:
    """Round half away from zero to int8, as roundf; |value| < 128. Stored as uint8."""
    return u8(i32(value + np.copysign(_BELOW_HALF, value)))


@kernel
def q8_0_from_f32(values: Floats, blocks: Bytes) -> None:
    """float32 [n, 32] to uint8 [n, 34]."""
    bits = values.view(np.uint32)
    for b in range(bits.shape[0]):
        top = u32(0)
        for j in range(32):
            top = max(top, u32(bits[b, j] & u32(0x7FFFFFFF)))
        factor = q8_0_scale(top, blocks[b])
        if top < u32(0x7F800000):
            for j in range(32):
                blocks[b, 2 + j] = q8_0_level(f32(u32(bits[b, j]).view(np.float32) * factor))
        else:
            blocks[b, 2:] = 0


@kernel
def q8_0_from_bf16(source: Halves, blocks: Bytes) -> None:
    """uint16 [n, 32] to uint8 [n, 34], without a float32 array in between."""
    for b in range(source.shape[0]):
        top = u16(0)
        for j in range(32):
            top = max(top, u16(source[b, j] & u16(0x7FFF)))
        factor = q8_0_scale(u32(u32(top) << u32(16)), blocks[b])
        if top < u16(0x7F80):
            for j in range(32):
                value = u32(u32(source[b, j]) << u32(16)).view(np.float32)
                blocks[b, 2 + j] = q8_0_level(f32(value * factor))
        else:
            blocks[b, 2:] = 0


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
ENCODERS: Mapping[str, Kernel] = MappingProxyType({"Q8_0": q8_0_from_f32})
