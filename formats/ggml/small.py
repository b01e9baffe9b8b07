"""TQ1_0 TQ2_0 MXFP4 NVFP4 Q1_0 Q2_0: ternary, 4-bit float and one- and two-bit types, without minima.

Kernels from uint8 [n, block_bytes] to float32 [n, block].
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy import float32 as f32
from numpy import int32 as i32
from numpy import uint8 as u8
from numpy import uint32 as u32

from hubclient.formats.ggml import Kernel
from hubclient.formats.ggml.fields import field, half_at, high, low
from hubclient.formats.kernels import Bytes, Floats, kernel


@kernel
def trit(byte: u8, power: int) -> f32:
    """The ternary digit, as -1 0 1, that follows the point in byte * power / 256 (power: of three, to the digit wanted)."""
    rest = u32(u32(u32(byte) * u32(power)) & u32(255))
    return f32(i32(i32(u32(u32(rest * u32(3)) >> u32(8))) - i32(1)))


@kernel
def trits(blocks: Bytes, values: Floats, b: int, source: int, count: int, digits: int, target: int, scale: f32) -> None:
    """Decode `count` bytes from `source` on, `digits` digits of each: first digits first."""
    power = 1
    for n in range(digits):
        for j in range(count):
            values[b, target + n * count + j] = trit(blocks[b, source + j], power) * scale
        power *= 3


@kernel
def f32_from_tq1_0(blocks: Bytes, values: Floats) -> None:
    """48 bytes of five ternary digits (32, then 16, side by side), 4 bytes of four, scale float16."""
    for b in range(blocks.shape[0]):
        scale = half_at(blocks, b, 52)
        trits(blocks, values, b, 0, 32, 5, 0, scale)
        trits(blocks, values, b, 32, 16, 5, 160, scale)
        trits(blocks, values, b, 48, 4, 4, 240, scale)


@kernel
def f32_from_tq2_0(blocks: Bytes, values: Floats) -> None:
    """64 bytes of two-bit quants with offset 1, scale float16. Elements 32 apart share a byte."""
    for b in range(blocks.shape[0]):
        scale = half_at(blocks, b, 64)
        for s in range(8):
            for j in range(32):
                quant = field(blocks[b, s // 4 * 32 + j], s % 4 * 2, 3)
                values[b, s * 32 + j] = f32(i32(quant - i32(1))) * scale


@kernel
def twice_e2m1(nibble: i32) -> f32:
    """Two times a float of one sign, two exponent and one mantissa bit: 0 1 2 3 4 6 8 12 and their negatives.

    The zero has no sign, as in ggml's table of integers (kvalues_fp4).
    """
    magnitude = u32(i32(nibble & i32(7)))
    normal = u32(u32(magnitude << u32(22)) + u32(0x3F800000)).view(np.float32)
    value = normal if magnitude > u32(1) else f32(magnitude)
    return f32(-value) if i32(nibble) > i32(8) else value


@kernel
def half_e8m0(exponent: u8) -> f32:
    """2 ** (exponent - 128): half of what the exponent stands for, to go with twice the elements. 255 is no NaN here."""
    bits = u32(u32(u32(exponent) - u32(1)) << u32(23))
    denormal = u32(u32(0x00200000) << u32(exponent & u8(1)))
    return u32(bits if u8(exponent) > u8(1) else denormal).view(np.float32)


@kernel
def f32_from_mxfp4(blocks: Bytes, values: Floats) -> None:
    """Scale E8M0, 16 bytes of E2M1; elements j and j + 16 share byte j (OCP microscaling formats)."""
    for b in range(blocks.shape[0]):
        scale = half_e8m0(blocks[b, 0])
        for j in range(16):
            values[b, j] = twice_e2m1(low(blocks[b, 1 + j])) * scale
            values[b, 16 + j] = twice_e2m1(high(blocks[b, 1 + j])) * scale


@kernel
def half_e4m3(byte: u8) -> f32:
    """Half of the magnitude of an E4M3 float, to go with twice the elements; the sign bit is left out of account.

    As ggml_ue4m3_to_fp32: 127, the NaN, counts as 0, while 255 is 480 / 2.
    """
    exponent, mantissa = u32(field(byte, 3, 15)), u32(field(byte, 0, 7))
    normal = u32(u32(u32(exponent + u32(119)) << u32(23)) | u32(mantissa << u32(20))).view(np.float32)
    value = normal if exponent > u32(0) else f32(f32(mantissa) * f32(2.0**-10))
    return f32(0.0) if u8(byte) == u8(127) else value


@kernel
def f32_from_nvfp4(blocks: Bytes, values: Floats) -> None:
    """Four scales E4M3 of 16 elements each, 32 bytes of E2M1; within a sixteen, elements j and j + 8 share a byte."""
    for b in range(blocks.shape[0]):
        for s in range(4):
            scale = half_e4m3(blocks[b, s])
            for j in range(8):
                values[b, s * 16 + j] = twice_e2m1(low(blocks[b, 4 + s * 8 + j])) * scale
                values[b, s * 16 + 8 + j] = twice_e2m1(high(blocks[b, 4 + s * 8 + j])) * scale


@kernel
def f32_from_q1_0(blocks: Bytes, values: Floats) -> None:
    """Scale float16, 128 bits, lowest first: minus or plus the scale."""
    for b in range(blocks.shape[0]):
        scale = half_at(blocks, b, 0)
        for i in range(16):
            for j in range(8):
                values[b, i * 8 + j] = scale if field(blocks[b, 2 + i], j, 1) != i32(0) else f32(-scale)


@kernel
def f32_from_q2_0(blocks: Bytes, values: Floats) -> None:
    """Scale float16, 64 two-bit quants with offset 1, lowest first."""
    for b in range(blocks.shape[0]):
        scale = half_at(blocks, b, 0)
        for i in range(16):
            for j in range(4):
                values[b, i * 4 + j] = f32(i32(field(blocks[b, 2 + i], j * 2, 3) - i32(1))) * scale


DECODERS: Mapping[str, Kernel] = MappingProxyType(
    {
        "TQ1_0": f32_from_tq1_0,
        "TQ2_0": f32_from_tq2_0,
        "MXFP4": f32_from_mxfp4,
        "NVFP4": f32_from_nvfp4,
        "Q1_0": f32_from_q1_0,
        "Q2_0": f32_from_q2_0,
    }
)
