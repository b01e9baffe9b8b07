"""Q4_0 Q4_1 Q5_0 Q5_1 with importance: searches for the scale, and the minimum, of blocks of 32.

Kernels from float32 [n, 32] and importance float32 [m, 32], m blocks a row, to uint8 [n, block_bytes], as ggml's
quantize_row_*_impl. An element weighs its importance times the root of the row's mean square and its own square. Blocks
are the lanes.
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
from hubclient.formats.ggml.encoders.lanes import LANES, importance_to_lanes, lanes_like, to_lanes
from hubclient.formats.ggml.encoders.minimum import (
    FACTOR,
    FLOOR,
    MINIMUM,
    SCALE,
    fits_like,
    search,
    search_like,
    trial_level,
)
from hubclient.formats.ggml.encoders.symmetric import STATE, fit_linear, raw_levels
from hubclient.formats.kernels import Bytes, Floats, kernel

_ROWS = 32  # elements of a block


@kernel
def mean_squares(values: Floats, m: int) -> Floats:
    """Of each row of m blocks, float32 [n / m]: summed in order."""
    rows = values.reshape(-1, m * _ROWS)
    means = np.empty(rows.shape[0], np.float32)
    for row in range(rows.shape[0]):
        total = f32(0.0)
        for i in range(rows.shape[1]):
            total = f32(total + f32(rows[row, i] * rows[row, i]))
        means[row] = f32(total / f32(rows.shape[1]))
    return means


@kernel
def load(values: Floats, importance: Floats, first: int, means: Floats, spread: Floats, x: Floats, weights: Floats) -> None:
    """Blocks `first` on and their weights, both float32 [32, LANES]; `spread` is scratch, float32 [LANES]."""
    n, m = values.shape[0], importance.shape[0]
    to_lanes(values, first, x)
    importance_to_lanes(importance, first, n, weights)
    for lane in range(LANES):
        spread[lane] = means[min(first + lane, n - 1) // m]
    for i in range(_ROWS):
        for lane in range(LANES):
            root = f32(np.sqrt(f32(spread[lane] + f32(x[i, lane] * x[i, lane]))))
            weights[i, lane] = f32(weights[i, lane] * root)


@kernel
def put_levels(levels: Bytes, rows: Bytes, at: int) -> None:
    """The lower four bits of levels uint8 [32, LANES]: 16 bytes of which j has elements j and j + 16."""
    for j in range(16):
        for lane in range(LANES):
            rows[at + j, lane] = u8(u8(levels[j, lane] & u8(15)) | u8(levels[16 + j, lane] << u8(4)))


@kernel
def put_fifths(levels: Bytes, rows: Bytes, at: int) -> None:
    """The fifth bits of levels uint8 [32, LANES]: four bytes, from the lowest bit up."""
    for k in range(4):
        rows[at + k] = u8(0)
        for j in range(8):
            for lane in range(LANES):
                rows[at + k, lane] |= u8(u8(levels[8 * k + j, lane] >> u8(4)) << u8(j))


@kernel
def fit_symmetric(values: Floats, importance: Floats, reach: f32, blocks: Bytes) -> None:
    """Q4_0 (reach 8) and Q5_0 (reach 16): levels -reach to reach - 1, stored with offset."""
    x, weights, levels, rows = lanes_like(_ROWS), lanes_like(_ROWS), bytes_like(_ROWS), bytes_like(blocks.shape[1])
    state, scales, inverses = lanes_like(STATE), np.empty(LANES, np.float32), np.empty(LANES, np.float32)
    means, spread = mean_squares(values, importance.shape[0]), np.empty(LANES, np.float32)
    for first in range(0, values.shape[0], LANES):
        load(values, importance, first, means, spread, x, weights)
        fit_linear(x, weights, reach, state, scales, inverses)
        raw_levels(x, inverses, reach, levels)
        put_halves(scales, rows, 0)
        if reach > f32(8.0):
            put_fifths(levels, rows, 2)
        put_levels(levels, rows, blocks.shape[1] - 16)
        write_blocks(rows, first, blocks)


@kernel
def fit_affine(values: Floats, importance: Floats, top: int, blocks: Bytes) -> None:
    """Q4_1 (top 15) and Q5_1 (top 31): levels 0 to top above the minimum."""
    x, weights, levels, rows = lanes_like(_ROWS), lanes_like(_ROWS), bytes_like(_ROWS), bytes_like(blocks.shape[1])
    fits, work, trial = fits_like(1), search_like(), lanes_like(_ROWS)
    means, spread = mean_squares(values, importance.shape[0]), np.empty(LANES, np.float32)
    for first in range(0, values.shape[0], LANES):
        load(values, importance, first, means, spread, x, weights)
        search(x.reshape(-1), weights.reshape(-1), _ROWS, top, -0.9, 0.05, 36, False, True, work, trial.reshape(-1), fits, 0)
        for i in range(_ROWS):
            for lane in range(LANES):
                above = f32(x[i, lane] - fits[FLOOR, 0, lane])
                levels[i, lane] = u8(trial_level(f32(fits[FACTOR, 0, lane] * above), i32(top), True))
        for lane in range(LANES):
            fits[MINIMUM, 0, lane] = f32(-fits[MINIMUM, 0, lane])
        put_halves(fits[SCALE, 0], rows, 0)
        put_halves(fits[MINIMUM, 0], rows, 2)
        if top > 15:
            put_fifths(levels, rows, 4)
        put_levels(levels, rows, blocks.shape[1] - 16)
        write_blocks(rows, first, blocks)


@kernel
def q4_0_from_f32(values: Floats, importance: Floats, blocks: Bytes) -> None:
    """Levels -8 to 7."""
    fit_symmetric(values, importance, f32(8.0), blocks)


@kernel
def q5_0_from_f32(values: Floats, importance: Floats, blocks: Bytes) -> None:
    """Levels -16 to 15."""
    fit_symmetric(values, importance, f32(16.0), blocks)


@kernel
def q4_1_from_f32(values: Floats, importance: Floats, blocks: Bytes) -> None:
    """Levels 0 to 15."""
    fit_affine(values, importance, 15, blocks)


@kernel
def q5_1_from_f32(values: Floats, importance: Floats, blocks: Bytes) -> None:
    """Levels 0 to 31."""
    fit_affine(values, importance, 31, blocks)


WEIGHTED: Mapping[str, Kernel] = MappingProxyType(
    {"Q4_0": q4_0_from_f32, "Q4_1": q4_1_from_f32, "Q5_0": q5_0_from_f32, "Q5_1": q5_1_from_f32}
)
