"""What the encoders of IQ1_S and IQ1_M share: weights, and a scale and vectors for each part of LANES blocks.

A part is what shares a scale: 32 values of IQ1_S, 16 of IQ1_M. All arrays have LANES columns (see `lanes`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy import float32 as f32
from numpy import int32 as i32
from numpy.typing import NDArray

from hubclient.formats.ggml.encoders.iq1_splits import SCALE, SPLIT, STATE, levels_of
from hubclient.formats.ggml.encoders.iq1_vectors import Book, Search, search_like, vectors_of
from hubclient.formats.ggml.encoders.lanes import LANES, lanes_like, nearest, sums_of_squares
from hubclient.formats.kernels import Floats, kernel


class Fit(NamedTuple):
    """What LANES blocks become.

    scales  float32 [parts, LANES]
    down    bool [32, LANES]: whether the levels of a vector are moved down
    chosen  int32 [32, LANES]: vectors, as combinations of levels
    """

    scales: NDArray[np.float32]
    down: NDArray[np.bool_]
    chosen: NDArray[np.int32]


class Desk(NamedTuple):
    """Scratch: what a part is worked on with, all [.., LANES] but that of the search for vectors."""

    keys: NDArray[np.int64]
    levels: NDArray[np.int32]
    state: NDArray[np.float32]
    sums: NDArray[np.float32]
    search: Search


@kernel
def fit_like(parts: int) -> Fit:
    """What blocks with so many parts become."""
    return Fit(np.empty((parts, LANES), np.float32), np.empty((32, LANES), np.bool_), np.empty((32, LANES), np.int32))


@kernel
def plain_weights(x: Floats, weights: Floats) -> None:
    """Weights without importance: the squares."""
    for i in range(256):
        for lane in range(LANES):
            weights[i, lane] = f32(x[i, lane] * x[i, lane])


@kernel
def weigh(x: Floats, sums: Floats, weights: Floats) -> None:
    """Make weights of importance, float32 [256, LANES]."""
    sums_of_squares(x, sums)
    for lane in range(LANES):
        sums[lane] = f32(f32(f32(2.0) * sums[lane]) / f32(256.0))
    for i in range(256):
        for lane in range(LANES):
            root = f32(np.sqrt(f32(sums[lane] + f32(x[i, lane] * x[i, lane]))))
            weights[i, lane] = f32(weights[i, lane] * root)


@kernel
def _drop_zeros(x: Floats, least: f32, state: Floats) -> None:
    """Forget the splits of parts without a value of size `least`, and of those that have none."""
    largest = np.zeros(LANES, np.float32)
    for i in range(x.shape[0]):
        for lane in range(LANES):
            largest[lane] = max(largest[lane], f32(abs(x[i, lane])))
    for lane in range(LANES):
        if largest[lane] < least or state[SPLIT, lane] < f32(0.0):
            state[SPLIT, lane] = f32(-1.0)
            state[SCALE, lane] = f32(0.0)


@kernel
def desk_like(rows: int, sums: int, book: Book) -> Desk:
    """Scratch for parts of so many values and so many rows of sums."""
    return Desk(
        np.empty((rows, LANES), np.int64),
        np.empty((rows, LANES), np.int32),
        lanes_like(STATE),
        lanes_like(sums),
        search_like(book.first),
    )


@kernel
def take_part(part: int, x: Floats, weights: Floats, least: f32, desk: Desk, book: Book, fit: Fit) -> None:
    """Scale and vectors of a part whose split is found; x and weights are float32 [rows, LANES]."""
    groups = x.shape[0] // 8
    _drop_zeros(x, least, desk.state)
    levels_of(x, desk.keys, desk.state, desk.levels)
    for g in range(groups):
        half = 2 if g < groups // 2 else 1
        for lane in range(LANES):
            split = i32(desk.state[SPLIT, lane])
            fit.down[part * groups + g, lane] = (split >= 0) & (i32(split & i32(half)) != 0)
    mine = slice(part * groups, (part + 1) * groups)
    scales = fit.scales[part]
    for lane in range(LANES):
        scales[lane] = desk.state[SCALE, lane]
    vectors_of(x, weights, desk.levels, scales, fit.down[mine], desk.search, book, fit.chosen[mine])


@kernel
def scale_bits(scale: f32, factor: f32) -> i32:
    """Three bits for the scale of a part: they stand for 2 * bits + 1 times the factor of the block."""
    inverse = f32(f32(1.0) / factor)
    return max(i32(0), min(i32(7), nearest(f32(f32(0.5) * f32(f32(inverse * scale) - f32(1.0))))))


@kernel
def factors_of(scales: Floats, factors: Floats) -> None:
    """A 15th of the largest scale of every lane."""
    factors[:] = f32(0.0)
    for part in range(scales.shape[0]):
        for lane in range(LANES):
            factors[lane] = max(factors[lane], scales[part, lane])
    for lane in range(LANES):
        factors[lane] = f32(factors[lane] / f32(15.0))
