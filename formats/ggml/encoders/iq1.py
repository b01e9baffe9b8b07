"""IQ1_S and IQ1_M: blocks of 256, vectors of eight levels -1, 0 and 1 that are moved by an eighth, scales of three bits.

float32 [n, 256] to uint8 [n, 50] or [n, 56] as `hubclient.formats.ggml.iquants` reads them. LANES blocks are encoded side
by side: `iq1_splits` makes levels of the 32 or 16 values that share a scale (a part, of which a block has 8 or 16), and
`iq1_vectors` finds vectors for them. Source: quantize_row_iq1_s_impl and quantize_row_iq1_m_impl of ggml-quants.c.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy import float32 as f32
from numpy import int32 as i32
from numpy import uint8 as u8
from numpy import uint16 as u16
from numpy import uint32 as u32
from numpy.typing import NDArray

from hubclient.formats.ggml import Kernel
from hubclient.formats.ggml.encoders.iq1_splits import (
    DELTA,
    SCALE,
    SPLIT,
    STATE,
    SUMS_16,
    SUMS_32,
    levels_of,
    sort,
    split_16,
    split_32,
)
from hubclient.formats.ggml.encoders.iq1_vectors import Book, Search, add_vectors, book, search_like, vectors_of
from hubclient.formats.ggml.encoders.lanes import (
    LANES,
    importance_to_lanes,
    lanes_like,
    nearest,
    put_half,
    put_short,
    sums_of_squares,
    to_lanes,
)
from hubclient.formats.kernels import Bytes, Floats, half_of, kernel

_LEAST_S, _LEAST_M = f32(1e-12), f32(1e-7)  # parts without a value of this size are all zero: GROUP_MAX_EPS_IQ1_S and _M


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
def _fit_like(parts: int) -> Fit:
    return Fit(np.empty((parts, LANES), np.float32), np.empty((32, LANES), np.bool_), np.empty((32, LANES), np.int32))


@kernel
def _squares(x: Floats, weights: Floats) -> None:
    """Weights without importance."""
    for i in range(256):
        for lane in range(LANES):
            weights[i, lane] = f32(x[i, lane] * x[i, lane])


@kernel
def _weigh(x: Floats, sums: Floats, weights: Floats) -> None:
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
def _desk(rows: int, sums: int, book: Book) -> Desk:
    return Desk(
        np.empty((rows, LANES), np.int64),
        np.empty((rows, LANES), np.int32),
        lanes_like(STATE),
        lanes_like(sums),
        search_like(book.first),
    )


@kernel
def _take_part(part: int, x: Floats, weights: Floats, least: f32, desk: Desk, book: Book, fit: Fit) -> None:
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
def _fit_s(x: Floats, weights: Floats, desk: Desk, book: Book, fit: Fit) -> None:
    """Scales and vectors of IQ1_S for float32 [256, LANES]."""
    for part in range(8):
        own = slice(32 * part, 32 * part + 32)
        sort(x[own], desk.keys)
        split_32(x[own], weights[own], desk.keys, desk.sums, desk.state)
        _take_part(part, x[own], weights[own], _LEAST_S, desk, book, fit)


@kernel
def _fit_m(x: Floats, weights: Floats, desk: Desk, book: Book, fit: Fit) -> None:
    """Scales and vectors of IQ1_M for float32 [256, LANES]."""
    for part in range(16):
        own = slice(16 * part, 16 * part + 16)
        sort(x[own], desk.keys)
        split_16(x[own], weights[own], desk.keys, desk.sums, desk.state)
        _take_part(part, x[own], weights[own], _LEAST_M, desk, book, fit)


@kernel
def _scale_bits(scale: f32, factor: f32) -> i32:
    """Three bits for the scale of a part: they stand for 2 * bits + 1 times the factor of the block."""
    inverse = f32(f32(1.0) / factor)
    return max(i32(0), min(i32(7), nearest(f32(f32(0.5) * f32(f32(inverse * scale) - f32(1.0))))))


@kernel
def _factors(scales: Floats, factors: Floats) -> None:
    """A 15th of the largest scale of every lane."""
    factors[:] = f32(0.0)
    for part in range(scales.shape[0]):
        for lane in range(LANES):
            factors[lane] = max(factors[lane], scales[part, lane])
    for lane in range(LANES):
        factors[lane] = f32(factors[lane] / f32(15.0))


@kernel
def _write_s(fit: Fit, factors: Floats, place: Any, first: int, blocks: Bytes) -> None:
    """Factor float16; 32 bytes of lower bits of places; per part a uint16: four times three upper bits, scale, direction."""
    for lane in range(min(LANES, blocks.shape[0] - first)):
        b = first + lane
        put_half(blocks, b, 0, f32(factors[lane] * f32(1.125)))
        for part in range(8):
            word = u32(0)
            for g in range(4):
                vector = u32(place[fit.chosen[4 * part + g, lane]])
                blocks[b, 2 + 4 * part + g] = u8(vector & u32(255))
                word |= u32(u32(vector >> u32(8)) << u32(3 * g))
            if factors[lane] != f32(0.0):
                word |= u32(u32(_scale_bits(fit.scales[part, lane], factors[lane])) << u32(12))
                word |= u32(u32(fit.down[4 * part, lane]) << u32(15))
            put_short(blocks, b, 34 + 2 * part, u16(word))


@kernel
def _iq1_s(values: Floats, importance: Floats, book: Book, blocks: Bytes) -> None:
    x, weights, factors, fit = lanes_like(256), lanes_like(256), np.empty(LANES, np.float32), _fit_like(8)
    desk = _desk(32, SUMS_32, book)
    for first in range(0, values.shape[0], LANES):
        to_lanes(values, first, x)
        importance_to_lanes(importance, first, values.shape[0], weights)
        _weigh(x, factors, weights)
        _fit_s(x, weights, desk, book, fit)
        _factors(fit.scales, factors)
        _write_s(fit, factors, book.place, first, blocks)


@kernel
def _refit(x: Floats, weights: Floats, fit: Fit, levels: Any, factors: Floats) -> None:
    """Bits of the scales of IQ1_M, int32 [16, LANES], and with these the factors that suit all vectors best."""
    sums, odd, deltas = lanes_like(2), np.empty(LANES, np.float32), np.empty(LANES, np.float32)
    sums[:] = f32(0.0)
    for part in range(16):
        for lane in range(LANES):
            levels[part, lane] = _scale_bits(fit.scales[part, lane], factors[lane])
            odd[lane] = f32(i32(i32(levels[part, lane] * i32(2)) + i32(1)))
        for g in range(2 * part, 2 * part + 2):
            for lane in range(LANES):
                deltas[lane] = f32(-DELTA) if fit.down[g, lane] else DELTA
            rows = slice(8 * g, 8 * g + 8)
            add_vectors(x[rows], weights[rows], fit.chosen[g], deltas, odd, sums)
    for lane in range(LANES):
        suits = (sums[1, lane] > f32(0.0)) & (factors[lane] != f32(0.0))
        factors[lane] = f32(sums[0, lane] / sums[1, lane]) if suits else factors[lane]


@kernel
def _write_m(fit: Fit, levels: Any, zero: Any, factors: Floats, place: Any, first: int, blocks: Bytes) -> None:
    """32 bytes of lower bits of places; 16 of upper ones and directions; four uint16 of four scales and of the factor."""
    for lane in range(min(LANES, blocks.shape[0] - first)):
        b = first + lane
        for g in range(32):
            vector = u32(place[fit.chosen[g, lane]])
            down = u32(0) if zero[lane] else u32(u32(fit.down[g, lane]) << u32(3))
            blocks[b, g] = u8(vector & u32(255))
            upper = u32(u32(vector >> u32(8)) | down)
            blocks[b, 32 + g // 2] = u8(upper) if g % 2 == 0 else u8(u32(blocks[b, 32 + g // 2]) | u32(upper << u32(4)))
        half = u32(0) if zero[lane] else u32(half_of(f32(factors[lane] * f32(1.1125)).view(np.uint32)))
        for k in range(4):
            word = u32(u32(u32(half >> u32(4 * k)) & u32(15)) << u32(12))
            for j in range(4):
                level = u32(0) if zero[lane] else u32(levels[4 * k + j, lane])
                word |= u32(level << u32(3 * j))
            put_short(blocks, b, 48 + 2 * k, u16(word))


@kernel
def _finish_m(x: Floats, weights: Floats, first: int, book: Book, fit: Fit, blocks: Bytes) -> None:
    """Scales, factors and bytes of a group of blocks."""
    factors, zero, levels = np.empty(LANES, np.float32), np.empty(LANES, np.bool_), np.empty((16, LANES), np.int32)
    _factors(fit.scales, factors)
    for lane in range(LANES):
        zero[lane] = factors[lane] == f32(0.0)
    _refit(x, weights, fit, levels, factors)
    _write_m(fit, levels, zero, factors, book.place, first, blocks)


@kernel
def _plain_iq1_m(values: Floats, book: Book, blocks: Bytes) -> None:
    x, weights, fit = lanes_like(256), lanes_like(256), _fit_like(16)
    desk = _desk(16, SUMS_16, book)
    for first in range(0, values.shape[0], LANES):
        to_lanes(values, first, x)
        _squares(x, weights)
        _fit_m(x, weights, desk, book, fit)
        _finish_m(x, weights, first, book, fit, blocks)


@kernel
def _weighted_iq1_m(values: Floats, importance: Floats, book: Book, blocks: Bytes) -> None:
    x, weights, squares, fit = lanes_like(256), lanes_like(256), np.empty(LANES, np.float32), _fit_like(16)
    desk = _desk(16, SUMS_16, book)
    for first in range(0, values.shape[0], LANES):
        to_lanes(values, first, x)
        importance_to_lanes(importance, first, values.shape[0], weights)
        _weigh(x, squares, weights)
        _fit_m(x, weights, desk, book, fit)
        _finish_m(x, weights, first, book, fit, blocks)


def weighted_iq1_s_from_f32(values: Floats, importance: Floats, blocks: Bytes) -> None:
    """With importance float32 [m, 256], that of the blocks of one row."""
    _iq1_s(values, importance, book(), blocks)


def iq1_m_from_f32(values: Floats, blocks: Bytes) -> None:
    """Without importance."""
    _plain_iq1_m(values, book(), blocks)


def weighted_iq1_m_from_f32(values: Floats, importance: Floats, blocks: Bytes) -> None:
    """With importance float32 [m, 256], that of the blocks of one row."""
    _weighted_iq1_m(values, importance, book(), blocks)


ENCODERS: Mapping[str, Kernel] = MappingProxyType({"IQ1_M": iq1_m_from_f32})
WEIGHTED: Mapping[str, Kernel] = MappingProxyType({"IQ1_S": weighted_iq1_s_from_f32, "IQ1_M": weighted_iq1_m_from_f32})
