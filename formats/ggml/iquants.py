"""IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ3_XXS IQ3_S IQ4_NL IQ4_XS: indices into codebooks, with scales and signs apart.

Kernels from uint8 [n, block_bytes] to float32 [n, 256] ([n, 32] for IQ4_NL). Blocks are runs of 32 elements: four
groups of eight, each with its index (IQ3: two) and its eight signs.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy import float32 as f32
from numpy import int32 as i32
from numpy import uint16 as u16
from numpy import uint32 as u32
from numpy.typing import NDArray

from hubclient.formats.ggml import Kernel
from hubclient.formats.ggml.fields import field, half_at, high, low, short_at, word_at
from hubclient.formats.ggml.grids import IQ1, IQ2_S, IQ2_XS, IQ2_XXS, IQ3_S, IQ3_XXS, IQ4
from hubclient.formats.kernels import Bytes, Floats, float_of, kernel


@kernel
def even_signs(seven: u32) -> u32:
    """Eight sign bits of seven: the eighth makes the number of minus signs even (ksigns_iq2xs)."""
    signs = u32(u32(seven) & u32(127))
    parity = u32(signs ^ u32(signs >> u32(4)))
    parity = u32(parity ^ u32(parity >> u32(2)))
    parity = u32(u32(parity ^ u32(parity >> u32(1))) & u32(1))
    return u32(signs | u32(parity << u32(7)))


@kernel
def signed(value: f32, signs: u32, j: int) -> f32:
    """The value with its sign turned where bit j of `signs` is set."""
    turn = u32(u32(u32(signs) << u32(31 - j)) & u32(0x80000000))
    return u32(f32(value).view(np.uint32) ^ turn).view(np.float32)


@kernel
def eight(values: Floats, b: int, at: int, scale: f32, grid: NDArray[np.int8], index: int, signs: u32) -> None:
    """Write elements `at` to `at` + 7: a vector of eight, scaled and signed."""
    for j in range(8):
        values[b, at + j] = signed(f32(scale * f32(grid[index, j])), signs, j)


@kernel
def four_and_four(
    values: Floats, b: int, at: int, scale: f32, grid: NDArray[np.int8], first: int, second: int, signs: u32
) -> None:
    """Write elements `at` to `at` + 7: two vectors of four, scaled and signed."""
    for j in range(4):
        values[b, at + j] = signed(f32(scale * f32(grid[first, j])), signs, j)
        values[b, at + 4 + j] = signed(f32(scale * f32(grid[second, j])), signs, j + 4)


@kernel
def f32_from_iq2_xxs(blocks: Bytes, values: Floats) -> None:
    """Factor float16; per run: four indices of a byte, then a uint32 of four times seven signs and a scale above them."""
    for b in range(blocks.shape[0]):
        factor = half_at(blocks, b, 0)
        for r in range(8):
            word = word_at(blocks, b, 2 + r * 8 + 4)
            scale = f32(f32(factor * f32(f32(0.5) + f32(u32(word >> u32(28))))) * f32(0.25))
            for g in range(4):
                signs = even_signs(u32(word >> u32(7 * g)))
                eight(values, b, r * 32 + g * 8, scale, IQ2_XXS, blocks[b, 2 + r * 8 + g], signs)


@kernel
def quarter_scale(factor: f32, quant: i32) -> f32:
    """The scale of IQ2_XS and IQ2_S that four bits stand for."""
    return f32(f32(factor * f32(f32(0.5) + f32(quant))) * f32(0.25))


@kernel
def f32_from_iq2_xs(blocks: Bytes, values: Floats) -> None:
    """Factor float16; 32 uint16 of an index (nine bits) and seven signs; 8 bytes of scales, four bits per 16 elements."""
    for b in range(blocks.shape[0]):
        factor = half_at(blocks, b, 0)
        for g in range(32):
            scale = quarter_scale(factor, field(blocks[b, 66 + g // 4], g % 4 // 2 * 4, 15))
            code = short_at(blocks, b, 2 + g * 2)
            eight(values, b, g * 8, scale, IQ2_XS, u16(code & u16(511)), even_signs(u32(u16(code) >> u16(9))))


@kernel
def f32_from_iq2_s(blocks: Bytes, values: Floats) -> None:
    """Factor float16; 32 bytes of lower index bits, 32 of signs, 8 of upper index bits, 8 of scales as in IQ2_XS."""
    for b in range(blocks.shape[0]):
        factor = half_at(blocks, b, 0)
        for g in range(32):
            scale = quarter_scale(factor, field(blocks[b, 74 + g // 4], g % 4 // 2 * 4, 15))
            upper = field(blocks[b, 66 + g // 4], g % 4 * 2, 3)
            index = u16(i32(blocks[b, 2 + g]) | i32(upper << i32(8)))
            eight(values, b, g * 8, scale, IQ2_S, index, u32(blocks[b, 34 + g]))


@kernel
def f32_from_iq3_xxs(blocks: Bytes, values: Floats) -> None:
    """Factor float16; 64 bytes of indices; per run a uint32 as in IQ2_XXS."""
    for b in range(blocks.shape[0]):
        factor = half_at(blocks, b, 0)
        for r in range(8):
            word = word_at(blocks, b, 66 + r * 4)
            scale = f32(f32(factor * f32(f32(0.5) + f32(u32(word >> u32(28))))) * f32(0.5))
            for g in range(4):
                first, second = blocks[b, 2 + r * 8 + g * 2], blocks[b, 3 + r * 8 + g * 2]
                signs = even_signs(u32(word >> u32(7 * g)))
                four_and_four(values, b, r * 32 + g * 8, scale, IQ3_XXS, first, second, signs)


@kernel
def f32_from_iq3_s(blocks: Bytes, values: Floats) -> None:
    """Factor float16; 64 bytes of lower index bits, 8 of upper ones, 32 of signs, 4 of scales, four bits per run."""
    for b in range(blocks.shape[0]):
        factor = half_at(blocks, b, 0)
        for g in range(32):
            scale = f32(factor * f32(i32(i32(1) + i32(i32(2) * field(blocks[b, 106 + g // 8], g % 8 // 4 * 4, 15)))))
            upper = blocks[b, 66 + g // 4]
            first = u16(i32(blocks[b, 2 + g * 2]) | i32(field(upper, g % 4 * 2, 1) << i32(8)))
            second = u16(i32(blocks[b, 3 + g * 2]) | i32(field(upper, g % 4 * 2 + 1, 1) << i32(8)))
            four_and_four(values, b, g * 8, scale, IQ3_S, first, second, u32(blocks[b, 74 + g]))


@kernel
def shifted_eight(values: Floats, b: int, at: int, scale: f32, index: int, down: i32) -> None:
    """Write elements `at` to `at` + 7 of IQ1: a vector, moved by an eighth (downwards if `down`), scaled."""
    delta = f32(-0.125) if down != i32(0) else f32(0.125)
    for j in range(8):
        values[b, at + j] = scale * f32(f32(IQ1[index, j]) + delta)


@kernel
def odd_scale(factor: f32, quant: u16) -> f32:
    """The scale of IQ1 that three bits stand for: an odd multiple of the factor."""
    return f32(factor * f32(i32(i32(2) * i32(u16(u16(quant) & u16(7)))) + i32(1)))


@kernel
def f32_from_iq1_s(blocks: Bytes, values: Floats) -> None:
    """Factor float16; 32 bytes of lower index bits; per run a uint16: four times three upper bits, scale, direction."""
    for b in range(blocks.shape[0]):
        factor = half_at(blocks, b, 0)
        for r in range(8):
            word = short_at(blocks, b, 34 + r * 2)
            scale = odd_scale(factor, u16(u16(word) >> u16(12)))
            for g in range(4):
                upper = u16(u16(u16(u16(word) >> u16(3 * g)) & u16(7)) << u16(8))
                index = u16(u16(blocks[b, 2 + r * 4 + g]) | upper)
                shifted_eight(values, b, r * 32 + g * 8, scale, index, i32(u16(u16(word) >> u16(15))))


@kernel
def iq1_m_factor(blocks: Bytes, b: int) -> f32:
    """The factor of an IQ1_M block: a float16 cut into the top four bits of its four uint16 of scales."""
    bits = u16(0)
    for k in range(4):
        bits = u16(bits | u16(u16(short_at(blocks, b, 48 + 2 * k) >> u16(12)) << u16(4 * k)))
    return u32(float_of(bits)).view(np.float32)


@kernel
def f32_from_iq1_m(blocks: Bytes, values: Floats) -> None:
    """32 bytes of lower index bits; 16 of upper ones and directions, four bits per group; 8 of scales and factor."""
    for b in range(blocks.shape[0]):
        factor = iq1_m_factor(blocks, b)
        for g in range(32):
            scale = odd_scale(factor, u16(short_at(blocks, b, 48 + g // 8 * 2) >> u16(g % 8 // 2 * 3)))
            upper = field(blocks[b, 32 + g // 2], g % 2 * 4, 15)
            index = u16(i32(blocks[b, g]) | i32(i32(upper & i32(7)) << i32(8)))
            shifted_eight(values, b, g * 8, scale, index, i32(upper & i32(8)))


@kernel
def f32_from_iq4_nl(blocks: Bytes, values: Floats) -> None:
    """Scale float16, 16 bytes of indices; elements j and j + 16 share byte j."""
    for b in range(blocks.shape[0]):
        scale = half_at(blocks, b, 0)
        for j in range(16):
            values[b, j] = scale * f32(IQ4[low(blocks[b, 2 + j])])
            values[b, 16 + j] = scale * f32(IQ4[high(blocks[b, 2 + j])])


@kernel
def f32_from_iq4_xs(blocks: Bytes, values: Floats) -> None:
    """Factor float16; scales of runs: upper two bits in a uint16, lower four in 4 bytes, offset 32; 128 bytes of indices."""
    for b in range(blocks.shape[0]):
        factor, upper = half_at(blocks, b, 0), short_at(blocks, b, 2)
        for r in range(8):
            top = i32(u16(u16(upper >> u16(2 * r)) & u16(3)))
            quant = i32(field(blocks[b, 4 + r // 2], r % 2 * 4, 15) | i32(top << i32(4)))
            scale = f32(factor * f32(i32(quant - i32(32))))
            for j in range(16):
                values[b, r * 32 + j] = scale * f32(IQ4[low(blocks[b, 8 + r * 16 + j])])
                values[b, r * 32 + 16 + j] = scale * f32(IQ4[high(blocks[b, 8 + r * 16 + j])])


DECODERS: Mapping[str, Kernel] = MappingProxyType(
    {
        "IQ1_S": f32_from_iq1_s,
        "IQ1_M": f32_from_iq1_m,
        "IQ2_XXS": f32_from_iq2_xxs,
        "IQ2_XS": f32_from_iq2_xs,
        "IQ2_S": f32_from_iq2_s,
        "IQ3_XXS": f32_from_iq3_xxs,
        "IQ3_S": f32_from_iq3_s,
        "IQ4_NL": f32_from_iq4_nl,
        "IQ4_XS": f32_from_iq4_xs,
    }
)
