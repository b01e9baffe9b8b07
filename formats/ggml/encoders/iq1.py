"""IQ1_S and IQ1_M: blocks of 256, vectors of eight levels -1, 0 and 1 that are moved by an eighth, scales of three bits.

float32 [n, 256] to uint8 [n, 50] or [n, 56] as `hubclient.formats.ggml.iquants` reads them. LANES blocks are encoded side
by side: `iq1_splits` makes levels of the 32 or 16 values that share a scale, and
`iq1_vectors` finds vectors for them. Source: quantize_row_iq1_s_impl and quantize_row_iq1_m_impl of ggml-quants.c.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy import float32 as f32
from numpy import int32 as i32
from numpy import uint8 as u8
from numpy import uint16 as u16
from numpy import uint32 as u32

from hubclient.formats.ggml import Kernel
from hubclient.formats.ggml.encoders.inlining import inlined
from hubclient.formats.ggml.encoders.iq1_fit import (
    Desk,
    Fit,
    desk_like,
    factors_of,
    fit_like,
    plain_weights,
    scale_bits,
    take_part,
    weigh,
)
from hubclient.formats.ggml.encoders.iq1_sort import sort
from hubclient.formats.ggml.encoders.iq1_splits import DELTA, SUMS_16, SUMS_32, split_16, split_32
from hubclient.formats.ggml.encoders.iq1_vectors import Book, add_vectors, book
from hubclient.formats.ggml.encoders.lanes import LANES, importance_to_lanes, lanes_like, put_half, put_short, to_lanes
from hubclient.formats.kernels import Bytes, Floats, half_of, kernel

_LEAST_S, _LEAST_M = f32(1e-12), f32(1e-7)  # parts without a value of this size are all zero: GROUP_MAX_EPS_IQ1_S and _M


@inlined
def _fit_s(x: Floats, weights: Floats, desk: Desk, book: Book, fit: Fit) -> None:
    """Scales and vectors of IQ1_S for float32 [256, LANES]."""
    for part in range(8):
        own = slice(32 * part, 32 * part + 32)
        sort(x[own], desk.keys)
        split_32(x[own], weights[own], desk.keys, desk.sums, desk.state)
        take_part(part, x[own], weights[own], _LEAST_S, desk, book, fit)


@inlined
def _fit_m(x: Floats, weights: Floats, desk: Desk, book: Book, fit: Fit) -> None:
    """Scales and vectors of IQ1_M for float32 [256, LANES]."""
    for part in range(16):
        own = slice(16 * part, 16 * part + 16)
        sort(x[own], desk.keys)
        split_16(x[own], weights[own], desk.keys, desk.sums, desk.state)
        take_part(part, x[own], weights[own], _LEAST_M, desk, book, fit)


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
                word |= u32(u32(scale_bits(fit.scales[part, lane], factors[lane])) << u32(12))
                word |= u32(u32(fit.down[4 * part, lane]) << u32(15))
            put_short(blocks, b, 34 + 2 * part, u16(word))


@kernel
def _iq1_s(values: Floats, importance: Floats, book: Book, blocks: Bytes) -> None:
    x, weights, factors, fit = lanes_like(256), lanes_like(256), np.empty(LANES, np.float32), fit_like(8)
    desk = desk_like(32, SUMS_32, book)
    for first in range(0, values.shape[0], LANES):
        to_lanes(values, first, x)
        importance_to_lanes(importance, first, values.shape[0], weights)
        weigh(x, factors, weights)
        _fit_s(x, weights, desk, book, fit)
        factors_of(fit.scales, factors)
        _write_s(fit, factors, book.place, first, blocks)


@kernel
def _refit(x: Floats, weights: Floats, fit: Fit, levels: Any, factors: Floats) -> None:
    """Bits of the scales of IQ1_M, int32 [16, LANES], and with these the factors that suit all vectors best."""
    sums, odd, deltas = lanes_like(2), np.empty(LANES, np.float32), np.empty(LANES, np.float32)
    sums[:] = f32(0.0)
    for part in range(16):
        for lane in range(LANES):
            levels[part, lane] = scale_bits(fit.scales[part, lane], factors[lane])
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
    factors_of(fit.scales, factors)
    for lane in range(LANES):
        zero[lane] = factors[lane] == f32(0.0)
    _refit(x, weights, fit, levels, factors)
    _write_m(fit, levels, zero, factors, book.place, first, blocks)


@kernel
def _plain_iq1_m(values: Floats, book: Book, blocks: Bytes) -> None:
    x, weights, fit = lanes_like(256), lanes_like(256), fit_like(16)
    desk = desk_like(16, SUMS_16, book)
    for first in range(0, values.shape[0], LANES):
        to_lanes(values, first, x)
        plain_weights(x, weights)
        _fit_m(x, weights, desk, book, fit)
        _finish_m(x, weights, first, book, fit, blocks)


@kernel
def _weighted_iq1_m(values: Floats, importance: Floats, book: Book, blocks: Bytes) -> None:
    x, weights, squares, fit = lanes_like(256), lanes_like(256), np.empty(LANES, np.float32), fit_like(16)
    desk = desk_like(16, SUMS_16, book)
    for first in range(0, values.shape[0], LANES):
        to_lanes(values, first, x)
        importance_to_lanes(importance, first, values.shape[0], weights)
        weigh(x, squares, weights)
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
