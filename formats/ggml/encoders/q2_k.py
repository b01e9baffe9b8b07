"""Q2_K: super-blocks of 256 in sub-blocks of 16, levels 0 to 3, scales and minima of four bits.

float32 [n, 256] to uint8 [n, 84] as `hubclient.formats.ggml.kquants` reads them: 16 bytes of scale and minimum, 64 bytes
of quants, float16 factors of both. Source: quantize_row_q2_K_ref and quantize_row_q2_K_impl of ggml-quants.c.
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
from hubclient.formats.ggml.encoders.lanes import LANES, importance_to_lanes, lanes_like, nearest, sums_of_squares, to_lanes
from hubclient.formats.ggml.encoders.minimum import fits_like, search, search_like
from hubclient.formats.ggml.encoders.scales import quantise, share_like, share_scale, weigh
from hubclient.formats.ggml.fields import high, low
from hubclient.formats.kernels import Bytes, Floats, kernel

_ROWS = 16  # elements of a sub-block
_PARTS = 16  # sub-blocks of a block


@kernel
def part_of(x: Floats, j: int) -> Floats:
    """Sub-block j of float32 [256, LANES], flat."""
    return x[j * _ROWS : (j + 1) * _ROWS].reshape(-1)


@kernel
def plain_weights(x: Floats, weights: Floats) -> None:
    """Weights of a sub-block without importance: the magnitudes."""
    for i in range(x.size):
        weights[i] = abs(x[i])


@kernel
def round_scales(scales: Floats, shift: int, factor: Floats, rows: Bytes) -> None:
    """Integers to 15 for the scales (or minima), float32 [16, LANES], added to the first rows `shift` bits higher.

    They are not bounded: a scale below zero, as values that nearly coincide can have, sets bits of the minimum too.
    """
    factor[:] = f32(0.0)
    for j in range(_PARTS):
        for lane in range(LANES):
            factor[lane] = scales[j, lane] if scales[j, lane] > factor[lane] else factor[lane]
    for j in range(_PARTS):
        for lane in range(LANES):
            level = nearest(f32(f32(f32(15.0) / factor[lane]) * scales[j, lane]))
            level = level if factor[lane] > f32(0.0) else i32(0)
            rows[j, lane] = u8(rows[j, lane] | u8(i32(level << i32(shift))))
    for lane in range(LANES):
        factor[lane] = f32(factor[lane] / f32(15.0))


@kernel
def fill_rows(x: Floats, bounded: bool, fits: Floats, factors: Floats, levels: Bytes, rows: Bytes) -> None:
    """The rest of the blocks, given the rows of scales and minima, and their factors, float32 [2, LANES]."""
    for plane in range(2):
        put_halves(factors[plane], rows, 80 + 2 * plane)
    scale, minimum = np.empty(LANES, np.float32), np.empty(LANES, np.float32)
    for j in range(_PARTS):
        for lane in range(LANES):
            scale[lane] = f32(factors[0, lane] * f32(low(rows[j, lane])))
            minimum[lane] = f32(factors[1, lane] * f32(high(rows[j, lane])))
        quantise(part_of(x, j), _ROWS, 3, bounded, scale, minimum, fits, j, levels.reshape(-1))
    for half in range(2):
        join_bits(levels, half * 128, 0, 2, rows, 16 + half * 32)


@kernel
def q2_k_from_f32(values: Floats, blocks: Bytes) -> None:
    """Weights are the magnitudes, errors the absolute differences."""
    x, weights, scratch, work = lanes_like(256), lanes_like(_ROWS).reshape(-1), lanes_like(_ROWS).reshape(-1), search_like()
    fits, factors, levels, rows = fits_like(_PARTS), lanes_like(2), bytes_like(256), bytes_like(84)
    for first in range(0, values.shape[0], LANES):
        to_lanes(values, first, x)
        for j in range(_PARTS):
            part = part_of(x, j)
            plain_weights(part, weights)
            search(part, weights, _ROWS, 3, -0.5, 0.1, 15, True, False, work, scratch, fits, j)
        rows[:_PARTS] = u8(0)
        for plane in range(2):
            round_scales(fits[plane], plane * 4, factors[plane], rows)
        fill_rows(x, False, fits, factors, levels, rows)
        write_blocks(rows, first, blocks)


@kernel
def share_scales(fits: Floats, totals: Floats, work: Floats, levels: Bytes, factors: Floats, rows: Bytes) -> None:
    """The rows of scales and minima by importance, and their factors."""
    for plane in range(2):
        share_scale(fits[plane], totals, 15, work, levels[plane * _PARTS : (plane + 1) * _PARTS], factors[plane])
    for j in range(_PARTS):
        for lane in range(LANES):
            rows[j, lane] = u8(levels[j, lane] | u8(levels[_PARTS + j, lane] << u8(4)))


@kernel
def weighted_q2_k_from_f32(values: Floats, importance: Floats, blocks: Bytes) -> None:
    """Weights by importance, errors of squares; importance is float32 [m, 256], that of the blocks of one row."""
    x, wanted = lanes_like(256), lanes_like(256)
    weights, scratch = lanes_like(_ROWS).reshape(-1), lanes_like(_ROWS).reshape(-1)
    squares, totals, shares, work = np.empty(LANES, np.float32), lanes_like(_PARTS), share_like(), search_like()
    fits, factors, levels, rows = fits_like(_PARTS), lanes_like(2), bytes_like(256), bytes_like(84)
    for first in range(0, values.shape[0], LANES):
        to_lanes(values, first, x)
        importance_to_lanes(importance, first, values.shape[0], wanted)
        sums_of_squares(x, squares)
        for lane in range(LANES):
            squares[lane] = f32(squares[lane] / f32(256.0))
        for j in range(_PARTS):
            part = part_of(x, j)
            weigh(part, part_of(wanted, j), squares, weights, totals[j])
            search(part, weights, _ROWS, 3, -0.9, 0.05, 36, False, True, work, scratch, fits, j)
        share_scales(fits, totals, shares, levels, factors, rows)
        fill_rows(x, True, fits, factors, levels, rows)
        write_blocks(rows, first, blocks)


ENCODERS: Mapping[str, Kernel] = MappingProxyType({"Q2_K": q2_k_from_f32})
WEIGHTED: Mapping[str, Kernel] = MappingProxyType({"Q2_K": weighted_q2_k_from_f32})
