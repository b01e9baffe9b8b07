"""Encoders of Q3_K and Q6_K: super-blocks of 256, 16 sub-blocks of 16 whose levels lie around zero.

Both search a scale for each sub-block, quantise the scales, and choose the levels anew for what became of the scales; where
that is zero the levels of the search stay. Kernels fill uint8 [n, block_bytes] from float32 [n, 256]; those of WEIGHTED
also take the importance, float32 [m, 256] for the m super-blocks of a row. Super-blocks are the lanes (see `lanes`); levels
are counted from 0. Source: quantize_row_q3_K_ref, quantize_row_q3_K_impl and their likes for q6_K in ggml-quants.c.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from numpy import float32 as f32
from numpy import int8 as i8
from numpy import int32 as i32
from numpy import uint8 as u8

from hubclient.formats.ggml import Kernel
from hubclient.formats.ggml.encoders.bytelanes import bytes_like, join_bits, put_halves, write_blocks
from hubclient.formats.ggml.encoders.lanes import LANES, importance_to_lanes, lanes_like, nearest, sums_of_squares, to_lanes
from hubclient.formats.ggml.encoders.scales import weigh
from hubclient.formats.ggml.encoders.symmetric import (
    LEAST,
    STATE,
    find_extremes,
    fit_linear,
    raw_level,
    raw_levels,
    settle,
    squares,
)
from hubclient.formats.kernels import Bytes, Floats, kernel

SUB = 16  # values of a sub-block, and sub-blocks of a super-block
BLOCK = SUB * SUB
_Q3_TOP, _Q6_TOP = f32(4.0), f32(32.0)  # levels reach from -top to top - 1
_Q3_SCALE_TOP = f32(32.0)
_Q3_BYTES, _Q6_BYTES = 110, 210


@kernel
def choose_levels(x: Floats, factors: Floats, codes: Floats, top: f32, levels: Bytes) -> None:
    """Uint8 [256, LANES]: the levels nearest to the values over factor * code, where that is not zero."""
    lowest, highest = i32(-top), i32(top - f32(1.0))
    for i in range(BLOCK):
        for lane in range(LANES):
            scale = f32(factors[lane] * codes[i // SUB, lane])
            level = i32(min(max(nearest(f32(x[i, lane] / scale)), lowest), highest) - lowest)
            found = levels[i, lane]
            levels[i, lane] = u8(level) if scale != f32(0.0) else found


@kernel
def code_by_largest(scales: Floats, factors: Floats, codes: Floats) -> None:
    """Codes -32 to 31 of the scales in units of factors, so that the largest gets -32; where all are zero, all get it."""
    find_extremes(scales, factors)
    for s in range(SUB):
        for lane in range(LANES):
            code = nearest(f32(f32(f32(-32.0) / factors[lane]) * scales[s, lane]))
            code = min(max(i32(i8(code)), i32(-32)), i32(31))  # infinities lose their upper bits first
            codes[s, lane] = f32(code) if factors[lane] != f32(0.0) else f32(-32.0)
    for lane in range(LANES):
        inverse = f32(f32(-32.0) / factors[lane])
        factors[lane] = f32(f32(1.0) / inverse) if factors[lane] != f32(0.0) else f32(0.0)


@kernel
def raw_codes(scales: Floats, inverses: Floats, codes: Floats) -> None:
    """Codes -32 to 31 that the search found for the scales."""
    for s in range(SUB):
        for lane in range(LANES):
            codes[s, lane] = f32(raw_level(scales[s, lane], inverses[lane], _Q3_SCALE_TOP) - _Q3_SCALE_TOP)


@kernel
def pack_q3_k(levels: Bytes, codes: Floats, rows: Bytes) -> None:
    """32 bytes of third bits, 64 of the two lower bits, 12 of scales: four lower bits of two, then two upper bits of four."""
    join_bits(levels, 0, 2, 1, rows, 0)
    join_bits(levels, 0, 0, 2, rows, 32)
    join_bits(levels, 128, 0, 2, rows, 64)
    for s in range(8):
        for lane in range(LANES):
            one, two = i32(codes[s, lane]) + i32(32), i32(codes[s + 8, lane]) + i32(32)
            rows[96 + s, lane] = u8(i32(one & i32(15)) | i32(i32(two & i32(15)) << i32(4)))
    for s in range(16):
        for lane in range(LANES):
            upper, others = i32(i32(i32(codes[s, lane]) + i32(32)) >> i32(4)), rows[104 + s % 4, lane]
            rows[104 + s % 4, lane] = u8(u8(upper << i32(s // 4 * 2)) | (others if s >= 4 else u8(0)))


@kernel
def finish_q3_k(x: Floats, factors: Floats, codes: Floats, levels: Bytes, rows: Bytes, first: int, blocks: Bytes) -> None:
    """What follows the scales, with importance and without."""
    put_halves(factors, rows, 108)
    choose_levels(x, factors, codes, _Q3_TOP, levels)
    pack_q3_k(levels, codes, rows)
    write_blocks(rows, first, blocks)


@kernel
def q3_k_from_f32(values: Floats, blocks: Bytes) -> None:
    """Values settle one by one; scales by the largest. Without any scale the codes are -32, as bytes 0."""
    x, state, signed = lanes_like(BLOCK), lanes_like(STATE), lanes_like(SUB)
    scales, codes, factors = lanes_like(SUB), lanes_like(SUB), lanes_like(1)[0]
    levels, rows = bytes_like(BLOCK), bytes_like(_Q3_BYTES)
    for first in range(0, values.shape[0], LANES):
        to_lanes(values, first, x)
        for s in range(SUB):
            part = slice(s * SUB, s * SUB + SUB)
            settle(x[part], _Q3_TOP, state, signed, scales[s], levels[part])
        code_by_largest(scales, factors, codes)
        finish_q3_k(x, factors, codes, levels, rows, first, blocks)


@kernel
def weighted_q3_k_from_f32(values: Floats, importance: Floats, blocks: Bytes) -> None:
    """The linear search, for the sub-blocks and then, weighted by the sums of their weights, for the scales."""
    x, imp, state, weights = lanes_like(BLOCK), lanes_like(BLOCK), lanes_like(STATE), lanes_like(SUB)
    scales, codes, totals = lanes_like(SUB), lanes_like(SUB), lanes_like(SUB)
    factors, inverses, sigmas = lanes_like(1)[0], lanes_like(1)[0], lanes_like(1)[0]
    levels, rows = bytes_like(BLOCK), bytes_like(_Q3_BYTES)
    for first in range(0, values.shape[0], LANES):
        to_lanes(values, first, x)
        importance_to_lanes(importance, first, values.shape[0], imp)
        sums_of_squares(x, sigmas)
        for lane in range(LANES):
            sigmas[lane] = f32(f32(f32(2.0) * sigmas[lane]) / f32(BLOCK))
        for s in range(SUB):
            part = slice(s * SUB, s * SUB + SUB)
            weigh(x[part].reshape(-1), imp[part].reshape(-1), sigmas, weights.reshape(-1), totals[s])
            fit_linear(x[part], weights, _Q3_TOP, state, scales[s], inverses)
            raw_levels(x[part], inverses, _Q3_TOP, levels[part])
        fit_linear(scales, totals, _Q3_SCALE_TOP, state, factors, inverses)
        raw_codes(scales, inverses, codes)
        finish_q3_k(x, factors, codes, levels, rows, first, blocks)


@kernel
def code_q6_k(scales: Floats, factors: Floats, codes: Floats, rows: Bytes) -> None:
    """Codes -128 to 127 of the scales in units of factors. In: `factors` are the largest scales, which get code -128.

    Where the largest is next to nothing, all codes and the factor are 0.
    """
    for s in range(SUB):
        for lane in range(LANES):
            code = min(nearest(f32(f32(f32(-128.0) / factors[lane]) * scales[s, lane])), i32(127))
            code = i32(0) if abs(factors[lane]) < LEAST else code
            codes[s, lane] = f32(code)
            rows[192 + s, lane] = u8(i8(code))
    for lane in range(LANES):
        inverse = f32(f32(-128.0) / factors[lane])
        factors[lane] = f32(0.0) if abs(factors[lane]) < LEAST else f32(f32(1.0) / inverse)
    put_halves(factors, rows, 208)


@kernel
def pack_q6_k(levels: Bytes, rows: Bytes) -> None:
    """128 bytes of four lower bits of levels that lie 64 apart, 64 bytes of two upper bits of levels that lie 32 apart."""
    for i in range(128):
        second = i + 64 + i // 64 * 64
        for lane in range(LANES):
            lower = u8(levels[second - 64, lane] & u8(15))
            rows[i, lane] = u8(lower | u8(levels[second, lane] << u8(4)))
    join_bits(levels, 0, 4, 2, rows, 128)
    join_bits(levels, 128, 4, 2, rows, 160)


@kernel
def finish_q6_k(
    x: Floats, scales: Floats, factors: Floats, codes: Floats, levels: Bytes, rows: Bytes, first: int, blocks: Bytes
) -> None:
    """What follows the search, with importance and without. A super-block without a scale is zero, levels and all."""
    find_extremes(scales, factors)
    for i in range(BLOCK):
        for lane in range(LANES):
            level = levels[i, lane]
            levels[i, lane] = u8(0) if abs(factors[lane]) < LEAST else level
    code_q6_k(scales, factors, codes, rows)
    choose_levels(x, factors, codes, _Q6_TOP, levels)
    pack_q6_k(levels, rows)
    write_blocks(rows, first, blocks)


@kernel
def q6_k_from_f32(values: Floats, blocks: Bytes) -> None:
    """The linear search for the sub-blocks, squares as weights; scales by the largest."""
    x, state, weights, inverses = lanes_like(BLOCK), lanes_like(STATE), lanes_like(SUB), lanes_like(1)[0]
    scales, codes, factors = lanes_like(SUB), lanes_like(SUB), lanes_like(1)[0]
    levels, rows = bytes_like(BLOCK), bytes_like(_Q6_BYTES)
    for first in range(0, values.shape[0], LANES):
        to_lanes(values, first, x)
        for s in range(SUB):
            part = slice(s * SUB, s * SUB + SUB)
            squares(x[part], weights)
            fit_linear(x[part], weights, _Q6_TOP, state, scales[s], inverses)
            raw_levels(x[part], inverses, _Q6_TOP, levels[part])
        finish_q6_k(x, scales, factors, codes, levels, rows, first, blocks)


@kernel
def weighted_q6_k_from_f32(values: Floats, importance: Floats, blocks: Bytes) -> None:
    """The same with the bare importance as weights."""
    x, imp, state, inverses = lanes_like(BLOCK), lanes_like(BLOCK), lanes_like(STATE), lanes_like(1)[0]
    scales, codes, factors = lanes_like(SUB), lanes_like(SUB), lanes_like(1)[0]
    levels, rows = bytes_like(BLOCK), bytes_like(_Q6_BYTES)
    for first in range(0, values.shape[0], LANES):
        to_lanes(values, first, x)
        importance_to_lanes(importance, first, values.shape[0], imp)
        for s in range(SUB):
            part = slice(s * SUB, s * SUB + SUB)
            fit_linear(x[part], imp[part], _Q6_TOP, state, scales[s], inverses)
            raw_levels(x[part], inverses, _Q6_TOP, levels[part])
        finish_q6_k(x, scales, factors, codes, levels, rows, first, blocks)


ENCODERS: Mapping[str, Kernel] = MappingProxyType({"Q3_K": q3_k_from_f32, "Q6_K": q6_k_from_f32})
WEIGHTED: Mapping[str, Kernel] = MappingProxyType({"Q3_K": weighted_q3_k_from_f32, "Q6_K": weighted_q6_k_from_f32})
