"""Encoders of IQ4_NL and IQ4_XS: sub-blocks of 32 whose levels are sixteen numbers that lie closer around zero.

A sub-block's scale is searched as in `symmetric`, whose vocabulary this module speaks; IQ4_NL is one sub-block with its
float16 scale, IQ4_XS eight in a super-block with scales of six bits. The kernels fill uint8 [n, block_bytes] from float32
[n, block]; those of WEIGHTED also take the importance, float32 [m, block] for the m blocks of a row. Blocks are the lanes.
Source: quantize_row_iq4_nl_impl of ggml-quants.c.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy import float32 as f32
from numpy import int32 as i32
from numpy import uint8 as u8

from hubclient.formats.ggml import Kernel
from hubclient.formats.ggml.encoders.bytelanes import bytes_like, put_halves, write_blocks
from hubclient.formats.ggml.encoders.lanes import LANES, importance_to_lanes, lanes_like, nearest, sums_of_squares, to_lanes
from hubclient.formats.ggml.encoders.scales import weigh
from hubclient.formats.ggml.encoders.symmetric import (
    CROSS,
    EXTREME,
    GAIN,
    INVERSE,
    LEAST,
    POWER,
    STATE,
    find_extremes,
    improve,
    squares,
)
from hubclient.formats.ggml.grids import IQ4
from hubclient.formats.kernels import Bytes, Floats, kernel

SUB = 32  # values of a sub-block
_TRIALS = 7  # the search tries reaches up to this far from the lowest level
_NL_BYTES, _XS_BYTES = 18, 136
_LEVELS = IQ4.astype(np.float32)
_HALFWAY = (_LEVELS[1:] + _LEVELS[:-1]) / f32(2.0)  # exact, as is the reference's comparison of distances around them


@kernel
def level_of(scaled: f32) -> f32:
    """The level nearest to a value over its scale, the upper of two equally near, the highest for NaN."""
    level = f32(_LEVELS[0])
    for k in range(15):
        level = level if scaled < _HALFWAY[k] else f32(_LEVELS[k + 1])
    return level


@kernel
def index_of(scaled: f32) -> u8:
    """The place of that level among the sixteen."""
    index = u8(0)
    for k in range(15):
        index = index if scaled < _HALFWAY[k] else u8(k + 1)
    return index


@kernel
def inverse_of(scale: f32) -> f32:
    """One over the scale, 0 for 0."""
    return f32(f32(1.0) / scale) if scale != f32(0.0) else f32(0.0)


@kernel
def sum_levels(x: Floats, weights: Floats, state: Floats) -> None:
    """CROSS and POWER of the levels that INVERSE gives."""
    for lane in range(LANES):
        state[CROSS, lane] = f32(0.0)
        state[POWER, lane] = f32(0.0)
    for i in range(SUB):
        for lane in range(LANES):
            value, cross, power = x[i, lane], state[CROSS, lane], state[POWER, lane]
            level = level_of(f32(state[INVERSE, lane] * value))
            weighted = f32(weights[i, lane] * level)
            state[CROSS, lane] = f32(cross + f32(weighted * value))
            state[POWER, lane] = f32(power + f32(weighted * level))


@kernel
def fit_levels(x: Floats, weights: Floats, state: Floats, scales: Floats, inverses: Floats) -> None:
    """Scales float32 [LANES] for float32 [32, LANES]; 0 for sub-blocks that are all zero. `inverses` is scratch.

    First the extreme becomes 127, by way of its rounded scale, then each of -134 to -120.
    """
    find_extremes(x, state[EXTREME])
    for lane in range(LANES):
        state[INVERSE, lane] = f32(f32(1.0) / f32(state[EXTREME, lane] / -_LEVELS[0]))
    sum_levels(x, weights, state)
    for lane in range(LANES):
        cross, power = state[CROSS, lane], state[POWER, lane]
        scales[lane] = f32(cross / power) if power > f32(0.0) else f32(0.0)
        state[GAIN, lane] = f32(scales[lane] * cross)
    for trial in range(-_TRIALS, _TRIALS + 1):
        for lane in range(LANES):
            state[INVERSE, lane] = f32(f32(f32(trial) + _LEVELS[0]) / state[EXTREME, lane])
        sum_levels(x, weights, state)
        improve(state, scales, inverses)
    for lane in range(LANES):
        scale = scales[lane]
        scales[lane] = scale if abs(state[EXTREME, lane]) >= LEAST else f32(0.0)


@kernel
def doubled_mean_squares(x: Floats, sigmas: Floats) -> None:
    """Per lane of float32 [block, LANES]."""
    sums_of_squares(x, sigmas)
    for lane in range(LANES):
        sigmas[lane] = f32(sigmas[lane] * f32(f32(2.0) / f32(x.shape[0])))


@kernel
def pack_levels(x: Floats, inverses: Floats, rows: Bytes, at: int) -> None:
    """16 bytes of indices from row `at` on; the values 16 apart share a byte."""
    for i in range(16):
        for lane in range(LANES):
            lower, upper = index_of(f32(inverses[lane] * x[i, lane])), index_of(f32(inverses[lane] * x[i + 16, lane]))
            rows[at + i, lane] = u8(lower | u8(upper << u8(4)))


@kernel
def pack_iq4_nl(x: Floats, scales: Floats, inverses: Floats, rows: Bytes) -> None:
    """Float16 scale, 16 bytes of indices; the indices go by the scale before it is rounded."""
    for lane in range(LANES):
        inverses[lane] = inverse_of(scales[lane])
    put_halves(scales, rows, 0)
    pack_levels(x, inverses, rows, 2)


@kernel
def pack_iq4_xs(x: Floats, scales: Floats, factors: Floats, inverses: Floats, rows: Bytes) -> None:
    """Float16 factor, two bytes with two upper bits and four with four lower bits of the codes of eight scales, indices.

    The largest scale gets code -32. Codes and indices go by the factor before it is rounded.
    """
    find_extremes(scales, factors)
    for i in range(2, 8):
        for lane in range(LANES):
            rows[i, lane] = u8(0)
    for lane in range(LANES):
        factors[lane] = f32(-factors[lane] / f32(32.0))
    for s in range(8):
        for lane in range(LANES):
            code = nearest(f32(inverse_of(factors[lane]) * scales[s, lane]))
            code = min(max(code, i32(-32)), i32(31))
            inverses[lane] = inverse_of(f32(factors[lane] * f32(code)))
            code = i32(code + i32(32))
            rows[2 + s // 4, lane] |= u8(i32(code >> i32(4)) << i32(s % 4 * 2))
            rows[4 + s // 2, lane] |= u8(i32(code & i32(15)) << i32(s % 2 * 4))
        pack_levels(x[s * SUB : s * SUB + SUB], inverses, rows, 8 + 16 * s)
    put_halves(factors, rows, 0)


@kernel
def iq4_nl_from_f32(values: Floats, blocks: Bytes) -> None:
    """Squares as weights."""
    x, weights, state, rows = lanes_like(SUB), lanes_like(SUB), lanes_like(STATE), bytes_like(_NL_BYTES)
    scales, inverses = lanes_like(1)[0], lanes_like(1)[0]
    for first in range(0, values.shape[0], LANES):
        to_lanes(values, first, x)
        squares(x, weights)
        fit_levels(x, weights, state, scales, inverses)
        pack_iq4_nl(x, scales, inverses, rows)
        write_blocks(rows, first, blocks)


@kernel
def weighted_iq4_nl_from_f32(values: Floats, importance: Floats, blocks: Bytes) -> None:
    """Weights from the importance."""
    x, weights, state, rows = lanes_like(SUB), lanes_like(SUB), lanes_like(STATE), bytes_like(_NL_BYTES)
    scales, inverses, imp = lanes_like(1)[0], lanes_like(1)[0], lanes_like(SUB)
    sigmas, totals = lanes_like(1)[0], lanes_like(1)[0]  # nobody asks for the sums of the weights
    for first in range(0, values.shape[0], LANES):
        to_lanes(values, first, x)
        importance_to_lanes(importance, first, values.shape[0], imp)
        doubled_mean_squares(x, sigmas)
        weigh(x.reshape(-1), imp.reshape(-1), sigmas, weights.reshape(-1), totals)
        fit_levels(x, weights, state, scales, inverses)
        pack_iq4_nl(x, scales, inverses, rows)
        write_blocks(rows, first, blocks)


@kernel
def iq4_xs_from_f32(values: Floats, blocks: Bytes) -> None:
    """Squares as weights."""
    x, weights, state, rows = lanes_like(8 * SUB), lanes_like(SUB), lanes_like(STATE), bytes_like(_XS_BYTES)
    scales, factors, inverses = lanes_like(8), lanes_like(1)[0], lanes_like(1)[0]
    for first in range(0, values.shape[0], LANES):
        to_lanes(values, first, x)
        for s in range(8):
            part = x[s * SUB : s * SUB + SUB]
            squares(part, weights)
            fit_levels(part, weights, state, scales[s], inverses)
        pack_iq4_xs(x, scales, factors, inverses, rows)
        write_blocks(rows, first, blocks)


@kernel
def weighted_iq4_xs_from_f32(values: Floats, importance: Floats, blocks: Bytes) -> None:
    """Weights from the importance."""
    x, weights, state, rows = lanes_like(8 * SUB), lanes_like(SUB), lanes_like(STATE), bytes_like(_XS_BYTES)
    scales, factors, inverses = lanes_like(8), lanes_like(1)[0], lanes_like(1)[0]
    sigmas, totals, imp = lanes_like(1)[0], lanes_like(1)[0], lanes_like(8 * SUB)
    for first in range(0, values.shape[0], LANES):
        to_lanes(values, first, x)
        importance_to_lanes(importance, first, values.shape[0], imp)
        doubled_mean_squares(x, sigmas)
        for s in range(8):
            part = slice(s * SUB, s * SUB + SUB)
            weigh(x[part].reshape(-1), imp[part].reshape(-1), sigmas, weights.reshape(-1), totals)
            fit_levels(x[part], weights, state, scales[s], inverses)
        pack_iq4_xs(x, scales, factors, inverses, rows)
        write_blocks(rows, first, blocks)


ENCODERS: Mapping[str, Kernel] = MappingProxyType({"IQ4_NL": iq4_nl_from_f32, "IQ4_XS": iq4_xs_from_f32})
WEIGHTED: Mapping[str, Kernel] = MappingProxyType({"IQ4_NL": weighted_iq4_nl_from_f32, "IQ4_XS": weighted_iq4_xs_from_f32})
