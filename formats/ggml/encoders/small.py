"""Q1_0 Q2_0 TQ1_0 TQ2_0 MXFP4 NVFP4: one scale and few levels, no minimum; importance makes no difference.

Kernels from float32 [n, block] to uint8 [n, block_bytes], as ggml's quantize_row_*_ref. Three levels need no rounding:
roundf of a number between -1 and 1 is 1 from 0.5 on and -1 from -0.5 down.
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
from hubclient.formats.ggml.encoders.lanes import put_half
from hubclient.formats.ggml.small import half_e4m3, half_e8m0
from hubclient.formats.kernels import Bytes, Floats, kernel

_INFINITY = f32(np.inf)


@kernel
def q1_0_from_f32(values: Floats, blocks: Bytes) -> None:
    """The scale is the mean magnitude, summed in order; a bit says that an element is not negative (-0.0 is not)."""
    for b in range(values.shape[0]):
        total = f32(0.0)
        for j in range(values.shape[1]):
            total = f32(total + f32(abs(values[b, j])))
        put_half(blocks, b, 0, f32(total / f32(128.0)))
        for i in range(16):
            byte = u32(0)
            for j in range(8):
                byte |= u32(u32(1) << u32(j)) if values[b, 8 * i + j] >= f32(0.0) else u32(0)
            blocks[b, 2 + i] = u8(byte)


@kernel
def top_magnitude(values: Floats, b: int) -> f32:
    """The largest magnitude in block `b`."""
    bits, top = values.view(np.uint32), u32(0)
    for j in range(bits.shape[1]):
        top = max(top, u32(bits[b, j] & u32(0x7FFFFFFF)))
    return u32(top).view(np.float32)


@kernel
def ternary(value: f32, factor: f32) -> i32:
    """0 1 2 for the levels -1 0 1."""
    scaled = f32(f32(value) * f32(factor))
    above, below = i32(1) if scaled >= f32(0.5) else i32(0), i32(1) if scaled <= f32(-0.5) else i32(0)
    return i32(i32(i32(1) + above) - below)


@kernel
def ternary_factor(scale: f32) -> f32:
    """1 / scale, and 0 where that is not finite: lroundf makes 0 of infinities and NaN."""
    factor = f32(f32(1.0) / f32(scale))
    return factor if factor < _INFINITY else f32(0.0)


@kernel
def q2_0_from_f32(values: Floats, blocks: Bytes) -> None:
    """Levels -1 0 1 with offset 1; the level 2, which the type has too, is never used.

    Where 1 / scale is not finite, roundf leaves infinities and NaN, of which the conversion to an integer makes the
    least integer, cut off at the lowest level.
    """
    for b in range(values.shape[0]):
        scale = top_magnitude(values, b)
        put_half(blocks, b, 0, scale)
        factor = ternary_factor(scale)
        least = u32(0xFF) if (scale == f32(0.0)) | (factor > f32(0.0)) else u32(0)
        for i in range(16):
            byte = u32(0)
            for j in range(4):
                byte |= u32(u32(ternary(values[b, 4 * i + j], factor)) << u32(2 * j))
            blocks[b, 2 + i] = u8(byte & least)


@kernel
def packed_trits(values: Floats, blocks: Bytes, b: int, source: int, count: int, digits: int, target: int, factor: f32) -> None:
    """`count` bytes of `digits` elements each, `count` apart: fixed-point fractions whose digits in base 3 are the levels.

    Of five digits there may be fewer; the fraction is rounded up, so that the digits come out again.
    """
    for j in range(count):
        number = u32(0)
        for n in range(5):
            trit = ternary(values[b, source + j + n * count], factor) if n < digits else i32(0)
            number = u32(u32(number * u32(3)) + u32(trit))
        blocks[b, target + j] = u8(u32(u32(u32(number * u32(256)) + u32(242)) // u32(243)))


@kernel
def tq1_0_from_f32(values: Floats, blocks: Bytes) -> None:
    """Levels -1 0 1; where five digits share a byte, they are 32, then 16 elements apart."""
    for b in range(values.shape[0]):
        scale = top_magnitude(values, b)
        put_half(blocks, b, 52, scale)
        factor = ternary_factor(scale)
        packed_trits(values, blocks, b, 0, 32, 5, 0, factor)
        packed_trits(values, blocks, b, 160, 16, 5, 32, factor)
        packed_trits(values, blocks, b, 240, 4, 4, 48, factor)


@kernel
def tq2_0_from_f32(values: Floats, blocks: Bytes) -> None:
    """Levels -1 0 1 with offset 1; elements 32 apart share a byte."""
    for b in range(values.shape[0]):
        scale = top_magnitude(values, b)
        put_half(blocks, b, 64, scale)
        factor = ternary_factor(scale)
        for half in range(2):
            for j in range(32):
                byte = u32(0)
                for n in range(4):
                    byte |= u32(u32(ternary(values[b, 128 * half + 32 * n + j], factor)) << u32(2 * n))
                blocks[b, 32 * half + j] = u8(byte)


@kernel
def e2m1(value: f32, step: f32) -> u32:
    """The four bits of the float of one sign, two exponent and one mantissa bit nearest to value / (2 * step).

    As ggml's best_index: the first of the nearest, each distance rounded to float32, so that beside a number that is
    large against the step everything is as near as zero. The zero has no sign.
    """
    magnitude = f32(abs(f32(value)))
    nearest, code = magnitude, u32(0)
    for candidate in range(1, 8):
        twice = f32(candidate) if candidate < 5 else f32(6.0) if candidate == 5 else f32(8.0) if candidate == 6 else f32(12.0)
        distance = f32(abs(f32(f32(twice * f32(step)) - magnitude)))
        code = u32(candidate) if distance < nearest else code
        nearest = distance if distance < nearest else nearest
    return u32(code | u32(8)) if (value < f32(0.0)) & (code > u32(0)) else code


@kernel
def exponent_of(value: f32) -> i32:
    """floorf(log2f(value)) of a positive number, as computed: just below a power of two, log2f rounds up to it.

    At 2**k (1 - m / 2**24) the logarithm is k - m / (2**24 ln 2), which is rounded to k if it is nearer than half the
    distance to the float below: where |k| has p bits (of k - 1, if k is positive), that is m < 2**(p - 1) ln 2.
    """
    tiny = value < f32(2.0**-126)
    bits = u32(f32(f32(value) * f32(2.0**23) if tiny else f32(value)).view(np.uint32))
    exponent = i32(i32(bits >> u32(23)) - (i32(150) if tiny else i32(127)))
    short = u32(u32(0x00800000) - u32(bits & u32(0x007FFFFF)))
    size, reach = u32(i32(exponent ^ i32(exponent >> i32(31)))), u32(0)
    for p in range(2, 9):
        reach = u32(u32(88) >> u32(8 - p)) if size >= u32(u32(1) << u32(p - 1)) else reach  # 88: 2**7 ln 2
    return i32(exponent + i32(1)) if short <= reach else exponent


@kernel
def mxfp4_from_f32(values: Floats, blocks: Bytes) -> None:
    """Scale E8M0: two below the exponent of the largest magnitude, modulo 256; 0 if all are zero."""
    for b in range(values.shape[0]):
        top = top_magnitude(values, b)
        blocks[b, 0] = u8(i32(exponent_of(top) + i32(125)) & i32(255)) if top > f32(0.0) else u8(0)
        step = half_e8m0(blocks[b, 0])
        for j in range(16):
            low, high = e2m1(values[b, j], step), e2m1(values[b, 16 + j], step)
            blocks[b, 1 + j] = u8(u32(low | u32(high << u32(4))))


@kernel
def e4m3(value: f32) -> u8:
    """The bits of a number that is not negative as E4M3: ggml_fp32_to_ue4m3.

    Halves are rounded up, but seven eighths of the least normal number are not rounded to it, and whatever comes to 256 or
    more is 448, the largest.
    """
    bits = u32(f32(value).view(np.uint32))
    rounded = i32(i32(u32(u32(bits >> u32(19)) + u32(1)) >> u32(1)) - i32((127 - 7) << 3))
    denormal = min(i32(7), i32(f32(f32(min(f32(value), f32(1.0)) * f32(512.0)) + f32(0.5))))
    normal = rounded if rounded < i32(15 << 3) else i32(0x7E)
    return u8(normal) if bits >= u32((127 - 6) << 23) else u8(denormal)


@kernel
def nvfp4_from_f32(values: Floats, blocks: Bytes) -> None:
    """Four scales E4M3, each a sixth of the largest magnitude of its 16 elements."""
    parts = values.reshape(-1, 16)
    for b in range(values.shape[0]):
        for s in range(4):
            part = 4 * b + s
            blocks[b, s] = e4m3(f32(top_magnitude(parts, part) / f32(6.0)))
            step = half_e4m3(blocks[b, s])
            for j in range(8):
                low, high = e2m1(parts[part, j], step), e2m1(parts[part, 8 + j], step)
                blocks[b, 4 + 8 * s + j] = u8(u32(low | u32(high << u32(4))))


ENCODERS: Mapping[str, Kernel] = MappingProxyType(
    {
        "Q1_0": q1_0_from_f32,
        "Q2_0": q2_0_from_f32,
        "TQ1_0": tq1_0_from_f32,
        "TQ2_0": tq2_0_from_f32,
        "MXFP4": mxfp4_from_f32,
        "NVFP4": nvfp4_from_f32,
    }
)
