"""Q4_K and Q5_K: super-blocks of 256 in sub-blocks of 32, levels 0 to 15 or 31, scales and minima of six bits.

float32 [n, 256] to uint8 [n, 144] or [n, 176] as `hubclient.formats.ggml.kquants` reads them: float16 factors of scales
and minima, 12 bytes of both, in Q5_K 32 bytes of fifth bits, 128 bytes of quants. Sources: quantize_row_q4_K_ref,
quantize_row_q4_K_impl and their twins for q5_K in ggml-quants.c.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy import float32 as f32
from numpy import int32 as i32
from numpy import uint8 as u8

from hubclient.formats.ggml import Kernel
from hubclient.formats.ggml.encoders.bytelanes import bytes_like, join_bits, put_halves, write_blocks
from hubclient.formats.ggml.encoders.lanes import (
    LANES,
    importance_to_lanes,
    lanes_like,
    nearest,
    place,
    sums_of_squares,
    to_lanes,
)
from hubclient.formats.ggml.encoders.minimum import fits_like, search, search_like
from hubclient.formats.ggml.encoders.scales import quantise, share_like, share_scale, weigh
from hubclient.formats.ggml.fields import field, high, low
from hubclient.formats.kernels import Bytes, Floats, kernel

_ROWS = 32  # elements of a sub-block
_PARTS = 8  # sub-blocks of a block


@kernel
def part_of(x: Floats, j: int) -> Floats:
    """Sub-block j of float32 [256, LANES], flat."""
    return x[j * _ROWS : (j + 1) * _ROWS].reshape(-1)


@kernel
def plain_weights(x: Floats, j: int, squares: Floats, weights: Floats) -> None:
    """Weights of sub-block j without importance: its root mean square plus the magnitudes."""
    sums_of_squares(x[j * _ROWS : (j + 1) * _ROWS], squares)
    for lane in range(LANES):
        squares[lane] = f32(np.sqrt(f32(squares[lane] / f32(_ROWS))))
    for i in range(_ROWS):
        for lane in range(LANES):
            weights[place(i, lane)] = f32(squares[lane] + abs(x[j * _ROWS + i, lane]))


@kernel
def round_scales(scales: Floats, factor: Floats, levels: Bytes) -> None:
    """Integers to 63 for the scales (or minima), float32 [8, LANES], into uint8 [8, LANES]. What is below zero wraps."""
    factor[:] = f32(0.0)
    for j in range(_PARTS):
        for lane in range(LANES):
            factor[lane] = scales[j, lane] if scales[j, lane] > factor[lane] else factor[lane]
    for j in range(_PARTS):
        for lane in range(LANES):
            inverse = f32(f32(63.0) / factor[lane]) if factor[lane] > f32(0.0) else f32(0.0)
            levels[j, lane] = min(u8(63), u8(nearest(f32(inverse * scales[j, lane]))))
    for lane in range(LANES):
        factor[lane] = f32(factor[lane] / f32(63.0))


@kernel
def put_scales(scales: Bytes, minima: Bytes, rows: Bytes) -> None:
    """Scales and minima, uint8 [8, LANES] each, into rows 4 to 15: the upper bits of the last four above the first four.

    Levels above 63 (from scales below zero) are not cut: they set bits of their neighbours, as in the reference.
    """
    for j in range(4):
        for lane in range(LANES):
            last, end = scales[4 + j, lane], minima[4 + j, lane]
            rows[4 + j, lane] = u8(scales[j, lane] | u8(u8(last >> u8(4)) << u8(6)))
            rows[8 + j, lane] = u8(minima[j, lane] | u8(u8(end >> u8(4)) << u8(6)))
            rows[12 + j, lane] = u8(u8(last & u8(15)) | u8(end << u8(4)))


@kernel
def stored_scales(rows: Bytes, j: int, factors: Floats, scale: Floats, minimum: Floats) -> None:
    """Scale and minimum of sub-block j as a decoder finds them."""
    for lane in range(LANES):
        first, second = field(rows[4 + j % 4, lane], 0, 63), field(rows[8 + j % 4, lane], 0, 63)
        if j >= 4:
            first = i32(low(rows[8 + j, lane]) | i32(field(rows[j, lane], 6, 3) << i32(4)))
            second = i32(high(rows[8 + j, lane]) | i32(field(rows[4 + j, lane], 6, 3) << i32(4)))
        scale[lane] = f32(factors[0, lane] * f32(first))
        minimum[lane] = f32(factors[1, lane] * f32(second))


@kernel
def fill_rows(x: Floats, bits: int, bounded: bool, fits: Floats, factors: Floats, levels: Bytes, rows: Bytes) -> None:
    """All but rows 4 to 15 of the blocks, given these and the factors, float32 [2, LANES]."""
    for plane in range(2):
        put_halves(factors[plane], rows, 2 * plane)
    scale, minimum = np.empty(LANES, np.float32), np.empty(LANES, np.float32)
    for j in range(_PARTS):
        stored_scales(rows, j, factors, scale, minimum)
        quantise(part_of(x, j), _ROWS, (1 << bits) - 1, bounded, scale, minimum, fits, j, levels.reshape(-1))
    if bits == 5:
        join_bits(levels, 0, 4, 1, rows, 16)
    for pair in range(4):
        join_bits(levels, pair * 64, 0, 4, rows, rows.shape[0] - 128 + pair * 32)


@kernel
def encode(values: Floats, bits: int, start: float, steps: int, blocks: Bytes) -> None:
    """Blocks with so many bits per element, without importance; `start` and `steps` are those of the search."""
    x, weights, scratch, work = lanes_like(256), lanes_like(_ROWS).reshape(-1), lanes_like(_ROWS).reshape(-1), search_like()
    squares, fits, factors = np.empty(LANES, np.float32), fits_like(_PARTS), lanes_like(2)
    scales, levels, rows = bytes_like(2 * _PARTS), bytes_like(256), bytes_like(blocks.shape[1])
    for first in range(0, values.shape[0], LANES):
        to_lanes(values, first, x)
        for j in range(_PARTS):
            plain_weights(x, j, squares, weights)
            search(part_of(x, j), weights, _ROWS, (1 << bits) - 1, start, 0.1, steps, False, False, work, scratch, fits, j)
        for plane in range(2):
            round_scales(fits[plane], factors[plane], scales[plane * _PARTS : (plane + 1) * _PARTS])
        put_scales(scales[:_PARTS], scales[_PARTS:], rows)
        fill_rows(x, bits, False, fits, factors, levels, rows)
        write_blocks(rows, first, blocks)


@kernel
def share_scales(fits: Floats, totals: Floats, most: int, work: Floats, levels: Bytes, factors: Floats, rows: Bytes) -> None:
    """The rows of scales and minima by importance, no level above `most`, and their factors."""
    for plane in range(2):
        share_scale(fits[plane], totals, 63, work, levels[plane * _PARTS : (plane + 1) * _PARTS], factors[plane])
    for j in range(2 * _PARTS):
        for lane in range(LANES):
            levels[j, lane] = min(u8(most), levels[j, lane])
    put_scales(levels[:_PARTS], levels[_PARTS:], rows)


@kernel
def encode_weighted(values: Floats, importance: Floats, bits: int, most: int, blocks: Bytes) -> None:
    """Blocks with so many bits per element; importance is float32 [m, 256], that of the blocks of one row."""
    x, wanted, squares = lanes_like(256), lanes_like(256), np.empty(LANES, np.float32)
    weights, scratch, work = lanes_like(_ROWS).reshape(-1), lanes_like(_ROWS).reshape(-1), search_like()
    totals, shares, fits, factors = lanes_like(_PARTS), share_like(), fits_like(_PARTS), lanes_like(2)
    scales, levels, rows = bytes_like(2 * _PARTS), bytes_like(256), bytes_like(blocks.shape[1])
    for first in range(0, values.shape[0], LANES):
        to_lanes(values, first, x)
        importance_to_lanes(importance, first, values.shape[0], wanted)
        sums_of_squares(x, squares)
        for lane in range(LANES):
            squares[lane] = f32(f32(f32(2.0) * squares[lane]) / f32(256.0))
        for j in range(_PARTS):
            part = part_of(x, j)
            weigh(part, part_of(wanted, j), squares, weights, totals[j])
            search(part, weights, _ROWS, (1 << bits) - 1, -0.9, 0.05, 36, False, True, work, scratch, fits, j)
        share_scales(fits, totals, most, shares, scales, factors, rows)
        fill_rows(x, bits, True, fits, factors, levels, rows)
        write_blocks(rows, first, blocks)


def q4_k_from_f32(values: Floats, blocks: Bytes) -> None:
    """float32 [n, 256] to uint8 [n, 144]."""
    encode(values, 4, -1.0, 20, blocks)


def q5_k_from_f32(values: Floats, blocks: Bytes) -> None:
    """float32 [n, 256] to uint8 [n, 176]."""
    encode(values, 5, -0.5, 15, blocks)


def weighted_q4_k_from_f32(values: Floats, importance: Floats, blocks: Bytes) -> None:
    """The reference does not bound scales and minima here; it does in Q5_K."""
    encode_weighted(values, importance, 4, 255, blocks)


def weighted_q5_k_from_f32(values: Floats, importance: Floats, blocks: Bytes) -> None:
    """float32 [n, 256] and [m, 256] to uint8 [n, 176]."""
    encode_weighted(values, importance, 5, 63, blocks)


ENCODERS: Mapping[str, Kernel] = MappingProxyType({"Q4_K": q4_k_from_f32, "Q5_K": q5_k_from_f32})
WEIGHTED: Mapping[str, Kernel] = MappingProxyType({"Q4_K": weighted_q4_k_from_f32, "Q5_K": weighted_q5_k_from_f32})
