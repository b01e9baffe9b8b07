"""Q4_0 Q4_1 Q5_0 Q5_1: blocks of 32 with one scale, and in the types that end in 1 a minimum beside it.

Kernels from float32 [n, 32] to uint8 [n, block_bytes], as ggml's quantize_row_*_ref. A group of blocks goes through three
loops: extremes, scales, levels. A block's extremes are found on the bits of its numbers, as integers: the largest integer
may be looked for in any order, so that becomes vector code, while the largest float may not. Of equal extremes the
reference keeps the first, which shows in the sign of a scale and of a zero. With importance: see `legacy_weighted`.
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
from hubclient.formats.ggml.encoders import legacy_weighted
from hubclient.formats.ggml.encoders.lanes import LANES, put_half, put_short
from hubclient.formats.kernels import Bytes, Floats, Words, kernel

_INFINITY = f32(np.inf)
_MAGNITUDE = u32(0x7FFFFFFF)


@kernel
def put_word(blocks: Bytes, b: int, at: int, word: u32) -> None:
    """Write a uint32 at byte `at` of block `b`."""
    put_short(blocks, b, at, u16(word))
    put_short(blocks, b, at + 2, u16(u32(word) >> u32(16)))


@kernel
def fifth_bits(first: i32, second: i32, j: int) -> u32:
    """The fifth bits of levels j and j + 16, where Q5_0 and Q5_1 have them."""
    low = u32(u32(u32(first) >> u32(4)) << u32(j))
    return u32(low | u32(u32(u32(second) >> u32(4)) << u32(16 + j)))


@kernel
def inverse(scale: f32) -> f32:
    """1 / scale; 0 for 0."""
    return f32(f32(1.0) / f32(scale)) if f32(scale) != f32(0.0) else f32(0.0)


# Symmetric: Q4_0 Q5_0


@kernel
def first_of(bits: Words, b: int, magnitude: u32) -> f32:
    """The first number of block `b` that has this magnitude."""
    for j in range(bits.shape[1]):
        if u32(bits[b, j] & _MAGNITUDE) == magnitude:
            return u32(bits[b, j]).view(np.float32)
    return f32(0.0)


@kernel
def largest(bits: Words, first: int, found: Floats) -> None:
    """Of blocks `first` on the number of the largest magnitude, the first of equals; 0.0 if all are zero."""
    for lane in range(min(LANES, bits.shape[0] - first)):
        positive, negative = i32(0), u32(0)
        for j in range(bits.shape[1]):
            positive = max(positive, i32(bits[first + lane, j]))  # positive numbers are ordered as signed integers
            negative = max(negative, bits[first + lane, j])  # and negative ones, by magnitude, as unsigned ones
        above = u32(positive)
        below = u32(negative & _MAGNITUDE) if negative > _MAGNITUDE else u32(0)
        found[lane] = u32(above if above > below else negative).view(np.float32)
        if above == below:
            found[lane] = first_of(bits, first + lane, above) if above else f32(0.0)


@kernel
def symmetric(reach: f32, blocks: Bytes, first: int, factors: Floats, offsets: Floats) -> None:
    """Write the scales of blocks `first` on, of which `factors` holds the number that becomes level -reach.

    What turns numbers into levels, which are value * factor + offset cut off, is put into `factors` and `offsets`. Where
    1 / scale is not finite the reference converts infinities and NaN to int8, which x86 turns into zeros; so does
    0.0 * value + 0.0.
    """
    for lane in range(min(LANES, blocks.shape[0] - first)):
        scale = f32(factors[lane] / f32(-reach))
        factor = inverse(scale)
        finite = f32(abs(factor)) < _INFINITY
        factors[lane] = factor if finite else f32(0.0)
        offsets[lane] = f32(reach + f32(0.5)) if finite else f32(0.0)
        put_half(blocks, first + lane, 0, scale)


@kernel
def q4_0_from_f32(values: Floats, blocks: Bytes) -> None:
    """Levels -8 to 7, stored with offset 8."""
    factors, offsets = np.empty(LANES, np.float32), np.empty(LANES, np.float32)
    for first in range(0, values.shape[0], LANES):
        largest(values.view(np.uint32), first, factors)
        symmetric(f32(8.0), blocks, first, factors, offsets)
        for lane in range(min(LANES, values.shape[0] - first)):
            b, factor, offset = first + lane, factors[lane], offsets[lane]
            for j in range(16):
                low = min(i32(15), i32(f32(f32(values[b, j] * factor) + offset)))
                high = min(i32(15), i32(f32(f32(values[b, 16 + j] * factor) + offset)))
                blocks[b, 2 + j] = u8(i32(low | i32(high << i32(4))))


@kernel
def q5_0_from_f32(values: Floats, blocks: Bytes) -> None:
    """Levels -16 to 15, stored with offset 16."""
    factors, offsets = np.empty(LANES, np.float32), np.empty(LANES, np.float32)
    for first in range(0, values.shape[0], LANES):
        largest(values.view(np.uint32), first, factors)
        symmetric(f32(16.0), blocks, first, factors, offsets)
        for lane in range(min(LANES, values.shape[0] - first)):
            b, factor, offset, fifths = first + lane, factors[lane], offsets[lane], u32(0)
            for j in range(16):
                low = min(i32(31), i32(f32(f32(values[b, j] * factor) + offset)))
                high = min(i32(31), i32(f32(f32(values[b, 16 + j] * factor) + offset)))
                blocks[b, 6 + j] = u8(i32(i32(low & i32(15)) | i32(i32(high & i32(15)) << i32(4))))
                fifths |= fifth_bits(low, high, j)
            put_word(blocks, b, 2, fifths)


# With a minimum: Q4_1 Q5_1


@kernel
def ordered(bits: u32) -> i32:
    """An integer that orders floats as their values are ordered, -0.0 before 0.0; its own inverse."""
    return i32(u32(bits) ^ u32(u32(i32(i32(bits) >> i32(31))) >> u32(1)))


@kernel
def extremes(bits: Words, first: int, least: Floats, most: Floats) -> None:
    """The least and the largest number of blocks `first` on; of zeros that are the least, the first."""
    for lane in range(min(LANES, bits.shape[0] - first)):
        low, high = i32(0x7FFFFFFF), i32(-0x80000000)
        for j in range(bits.shape[1]):
            low = min(low, ordered(bits[first + lane, j]))
            high = max(high, ordered(bits[first + lane, j]))
        least[lane] = u32(ordered(u32(low))).view(np.float32)
        most[lane] = u32(ordered(u32(high))).view(np.float32)
        if least[lane] == f32(0.0):
            least[lane] = first_of(bits, first + lane, u32(0))


@kernel
def affine(top: f32, blocks: Bytes, first: int, least: Floats, most: Floats) -> None:
    """Write scales and minima of blocks `first` on, whose largest number becomes level `top`; factors replace `most`.

    Levels are (value - minimum) * factor + 0.5, cut off. Where 1 / scale is not finite the reference converts infinities
    and NaN, which x86 turns into zeros; so does the factor 0.
    """
    for lane in range(min(LANES, blocks.shape[0] - first)):
        scale = f32(f32(most[lane] - least[lane]) / top)
        factor = inverse(scale)
        most[lane] = factor if factor < _INFINITY else f32(0.0)
        put_half(blocks, first + lane, 0, scale)
        put_half(blocks, first + lane, 2, least[lane])


@kernel
def level(value: f32, least: f32, factor: f32, top: i32) -> i32:
    """0 to `top`; 0 for the NaN that an infinite difference makes of the factor 0."""
    scaled = f32(f32(f32(value - least) * factor) + f32(0.5))
    return min(top, i32(scaled if scaled > f32(0.0) else f32(0.0)))


@kernel
def q4_1_from_f32(values: Floats, blocks: Bytes) -> None:
    """Levels 0 to 15 above the minimum."""
    least, factors = np.empty(LANES, np.float32), np.empty(LANES, np.float32)
    for first in range(0, values.shape[0], LANES):
        extremes(values.view(np.uint32), first, least, factors)
        affine(f32(15.0), blocks, first, least, factors)
        for lane in range(min(LANES, values.shape[0] - first)):
            b, minimum, factor = first + lane, least[lane], factors[lane]
            for j in range(16):
                low, high = level(values[b, j], minimum, factor, i32(15)), level(values[b, 16 + j], minimum, factor, i32(15))
                blocks[b, 4 + j] = u8(i32(low | i32(high << i32(4))))


@kernel
def q5_1_from_f32(values: Floats, blocks: Bytes) -> None:
    """Levels 0 to 31 above the minimum."""
    least, factors = np.empty(LANES, np.float32), np.empty(LANES, np.float32)
    for first in range(0, values.shape[0], LANES):
        extremes(values.view(np.uint32), first, least, factors)
        affine(f32(31.0), blocks, first, least, factors)
        for lane in range(min(LANES, values.shape[0] - first)):
            b, minimum, factor, fifths = first + lane, least[lane], factors[lane], u32(0)
            for j in range(16):
                low, high = level(values[b, j], minimum, factor, i32(31)), level(values[b, 16 + j], minimum, factor, i32(31))
                blocks[b, 8 + j] = u8(i32(i32(low & i32(15)) | i32(i32(high & i32(15)) << i32(4))))
                fifths |= fifth_bits(low, high, j)
            put_word(blocks, b, 4, fifths)


ENCODERS: Mapping[str, Kernel] = MappingProxyType(
    {
        "Q4_0": q4_0_from_f32,
        "Q4_1": q4_1_from_f32,
        "Q5_0": q5_0_from_f32,
        "Q5_1": q5_1_from_f32,
    }
)
WEIGHTED: Mapping[str, Kernel] = legacy_weighted.WEIGHTED
