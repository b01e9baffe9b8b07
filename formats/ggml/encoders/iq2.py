"""IQ2_XXS, IQ2_XS and IQ2_S: vectors of eight out of a codebook, with a scale per 32 or 16 elements and signs apart.

Blocks have 256 elements. A lane (see `lanes`) is a sub-block, the elements that share a scale: 8 or 16 of them follow each
other in a block. The signs are taken off, vectors and a scale are found for what remains (see `iq2_fit`), and 31 stands
for the largest scale of a block. Where only seven of eight signs are stored, their number is even. Source of the facts:
quantize_row_iq2_xxs_impl, quantize_row_iq2_xs_impl and quantize_row_iq2_s_impl of ggml's ggml-quants.c.
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
from hubclient.formats.ggml.encoders.iq2_fit import Fits, find, fits_like, prepare
from hubclient.formats.ggml.encoders.iq2_search import Book, Desk, book, desk
from hubclient.formats.ggml.encoders.lanes import LANES, importance_to_lanes, lanes_like, nearest, put_half, put_short, to_lanes
from hubclient.formats.ggml.encoders.scales import share_like, share_scale
from hubclient.formats.kernels import Bytes, Floats, Words, kernel

_TINY = f32(1e-15)  # sub-blocks whose largest element is below count as zero
_TINY_S = f32(1e-8)  # the same in IQ2_S


@kernel
def _squares(values: Floats, first: int, per_block: int, times: f32, squares: Floats) -> None:
    """Per lane `times` the mean square of its block; `first` is a lane's number, and `per_block` of them share a block."""
    squares[:] = f32(0.0)
    start = first // per_block
    blocks = min(LANES // per_block, values.shape[0] - start)
    for i in range(256):
        for b in range(blocks):
            value = values[start + b, i]
            squares[b] = f32(squares[b] + f32(value * value))
    for lane in range(LANES - 1, -1, -1):
        squares[lane] = f32(f32(times * squares[min(lane // per_block, blocks - 1)]) / f32(256.0))


@kernel
def _take(values: Floats, importance: Floats, first: int, times: f32, fits: Fits, squares: Floats) -> None:
    """Elements and weights of a group of lanes: the weight is the importance times sqrt(squares + x * x)."""
    rows = fits.x.shape[0]
    parts = values.reshape(-1, rows)
    to_lanes(parts, first, fits.x)
    importance_to_lanes(importance.reshape(-1, rows), first, parts.shape[0], fits.weights)
    _squares(values, first, 256 // rows, times, squares)
    for i in range(rows):
        for lane in range(LANES):
            value = fits.x[i, lane]
            fits.weights[i, lane] = f32(fits.weights[i, lane] * f32(np.sqrt(f32(squares[lane] + f32(value * value)))))


@kernel
def _take_evenly(values: Floats, first: int, fits: Fits, squares: Floats) -> None:
    """Elements of a group of lanes, and their weights without importance."""
    rows = fits.x.shape[0]
    to_lanes(values.reshape(-1, rows), first, fits.x)
    _squares(values, first, 256 // rows, f32(2.0), squares)
    for i in range(rows):
        for lane in range(LANES):
            value = fits.x[i, lane]
            fits.weights[i, lane] = f32(f32(f32(0.25) * squares[lane]) + f32(value * value))


@kernel
def _split_signs(fits: Fits) -> None:
    """Take the signs off, a bit each."""
    fits.signs[:] = u32(0)
    for i in range(fits.x.shape[0]):
        bit = u32(1 << (i % 8))
        for lane in range(LANES):
            value = fits.x[i, lane]
            below = not (value >= f32(0.0))
            fits.signs[i // 8, lane] |= bit if below else u32(0)
            fits.x[i, lane] = f32(-value) if below else value


@kernel
def _even_signs(x: Floats, weights: Floats, signs: Words, which: Words, least: Floats) -> None:
    """Where a group, float32 [8, LANES], has an odd number of minus signs, turn that of the element that matters least."""
    least[:] = f32(np.inf)
    which[:] = u32(0)
    for i in range(8):
        for lane in range(LANES):
            matter = f32(f32(weights[i, lane] * x[i, lane]) * x[i, lane])
            less = matter < least[lane]
            which[lane] = u32(i) if less else which[lane]
            least[lane] = matter if less else least[lane]
    for lane in range(LANES):
        parity = u32(signs[lane] ^ u32(signs[lane] >> u32(4)))
        parity = u32(parity ^ u32(parity >> u32(2)))
        parity = u32(u32(parity ^ u32(parity >> u32(1))) & u32(1))
        signs[lane] = u32(u32(signs[lane] ^ u32(parity << which[lane])) & u32(127))
        which[lane] = which[lane] if parity else u32(8)
    for i in range(8):
        for lane in range(LANES):
            x[i, lane] = f32(-x[i, lane]) if which[lane] == u32(i) else x[i, lane]


@kernel
def _split_even_signs(fits: Fits, which: Words, least: Floats) -> None:
    """Take seven of eight signs off; the eighth makes the number of minus signs even."""
    _split_signs(fits)
    for g in range(fits.signs.shape[0]):
        _even_signs(fits.x[8 * g : 8 * g + 8], fits.weights[8 * g : 8 * g + 8], fits.signs[g], which, least)


@kernel
def _settle(fits: Fits, mask: u32) -> None:
    """Turn the signs where a scale is below zero, so that none is; clear the lanes with nothing in them."""
    for g in range(fits.signs.shape[0]):
        for lane in range(LANES):
            signs = fits.signs[g, lane]
            signs = u32(u32(~signs) & mask) if fits.scales[lane] < f32(0.0) else signs
            something = fits.highest[lane] > f32(0.0)
            fits.signs[g, lane] = signs if something else u32(0)
            fits.places[g, lane] = fits.places[g, lane] if something else 0
    for lane in range(LANES):
        fits.scales[lane] = f32(abs(fits.scales[lane])) if fits.highest[lane] > f32(0.0) else f32(0.0)


@kernel
def _largest(scales: Floats) -> f32:
    """The largest of the scales of a block; 0.0 if none is above."""
    largest = f32(0.0)
    for scale in scales:
        largest = largest if largest > scale else scale
    return largest


@kernel
def _scale_level(scale: f32, largest: f32) -> i32:
    """The four bits that are stored for the scale of a sub-block: (2 * level + 1) / 31 of the largest."""
    factor = f32(f32(1.0) / f32(largest / f32(31.0)))
    return min(i32(15), max(i32(0), nearest(f32(f32(0.5) * f32(f32(factor * scale) - f32(1.0))))))


@kernel
def _put_scales(blocks: Bytes, b: int, at: int, scales: Floats, largest: f32) -> None:
    """Write the scales of sixteen sub-blocks, two per byte from byte `at` on."""
    for i in range(8):
        low, high = _scale_level(scales[2 * i], largest), _scale_level(scales[2 * i + 1], largest)
        blocks[b, at + i] = u8(i32(low | i32(high << i32(4))))


@kernel
def _write_xxs(blocks: Bytes, b: int, fits: Fits, first: int) -> None:
    """Factor float16; per sub-block four places of a byte, then a uint32 of four times seven signs and the scale above."""
    scales = fits.scales[first : first + 8]
    largest = _largest(scales)
    put_half(blocks, b, 0, f32(largest / f32(31.0)))
    for r in range(8):
        word = u32(u32(_scale_level(scales[r], largest)) << u32(28))
        for g in range(4):
            blocks[b, 2 + 8 * r + g] = u8(fits.places[g, first + r])
            word = u32(word | u32(fits.signs[g, first + r] << u32(7 * g)))
        put_short(blocks, b, 6 + 8 * r, u16(word & u32(0xFFFF)))
        put_short(blocks, b, 8 + 8 * r, u16(word >> u32(16)))
    if largest == f32(0.0):
        blocks[b, 2:] = u8(0)


@kernel
def _write_xs(blocks: Bytes, b: int, fits: Fits, first: int) -> None:
    """Factor float16; 32 uint16 of a place (nine bits) and seven signs; 8 bytes of scales."""
    scales = fits.scales[first : first + 16]
    largest = _largest(scales)
    put_half(blocks, b, 0, f32(largest / f32(31.0)))
    for k in range(32):
        signs, place = fits.signs[k % 2, first + k // 2], fits.places[k % 2, first + k // 2]
        put_short(blocks, b, 2 + 2 * k, u16(u32(u32(place) | u32(signs << u32(9)))))
    _put_scales(blocks, b, 66, scales, largest)
    if largest == f32(0.0):
        blocks[b, 2:] = u8(0)


@kernel
def _write_s(blocks: Bytes, b: int, fits: Fits, first: int) -> None:
    """Factor float16; 32 bytes of places, 32 of signs, 8 of the places' upper two bits, 8 of scales."""
    scales = fits.scales[first : first + 16]
    largest = _largest(scales)
    put_half(blocks, b, 0, f32(f32(largest / f32(31.0)) * f32(0.9875)))
    for k in range(32):
        place = i32(fits.places[k % 2, first + k // 2])
        blocks[b, 2 + k] = u8(place & i32(255))
        blocks[b, 34 + k] = u8(fits.signs[k % 2, first + k // 2])
        upper = i32(i32(place >> i32(8)) << i32(2 * (k % 4)))
        blocks[b, 66 + k // 4] = u8(i32(i32(blocks[b, 66 + k // 4]) | upper)) if k % 4 else u8(upper)
    _put_scales(blocks, b, 74, scales, largest)
    if largest == f32(0.0):
        blocks[b, 74:] = u8(0)


@kernel
def _start(fits: Fits, tiny: f32) -> None:
    """The range of IQ2_XS and IQ2_S: the largest element is what the highest level stands for, at first."""
    for lane in range(LANES):
        fits.highest[lane] = fits.highest[lane] if fits.highest[lane] >= tiny else f32(0.0)
        fits.scales[lane] = f32(fits.highest[lane] / f32(5.0))


@kernel
def _iq2_xxs(book: Book, values: Floats, importance: Floats, blocks: Bytes) -> None:
    fits, work, scratch = fits_like(32, 6), share_like(), desk(book, 13)
    row, which, levels = lanes_like(1)[0], np.empty(LANES, np.uint32), np.empty((32, LANES), np.uint8)
    lanes = values.shape[0] * 8
    for first in range(0, lanes, LANES):
        _take(values, importance, first, f32(1.0), fits, row)
        _split_even_signs(fits, which, row)
        prepare(fits)
        share_scale(fits.x, fits.weights, 4, work, levels, fits.scales)  # four levels, though the codebook has three
        for lane in range(LANES):
            reach = f32(fits.scales[lane] * f32(3.0))
            fits.highest[lane] = reach if fits.highest[lane] >= _TINY else f32(0.0)
        count = min(LANES, lanes - first)
        find(book, scratch, fits, count, True)
        _settle(fits, u32(127))
        for lane in range(0, count, 8):
            _write_xxs(blocks, (first + lane) // 8, fits, lane)


@kernel
def _iq2_xs(book: Book, values: Floats, importance: Floats, blocks: Bytes) -> None:
    fits, scratch = fits_like(16, 9), desk(book, 19)
    row, which = lanes_like(1)[0], np.empty(LANES, np.uint32)
    lanes = values.shape[0] * 16
    for first in range(0, lanes, LANES):
        _take(values, importance, first, f32(1.0), fits, row)
        _split_even_signs(fits, which, row)
        prepare(fits)
        _start(fits, _TINY)
        count = min(LANES, lanes - first)
        find(book, scratch, fits, count, False)
        _settle(fits, u32(127))
        for lane in range(0, count, 16):
            _write_xs(blocks, (first + lane) // 16, fits, lane)


@kernel
def _finish_s(book: Book, scratch: Desk, fits: Fits, first: int, blocks: Bytes) -> None:
    """From elements and weights to blocks of IQ2_S."""
    _split_signs(fits)
    prepare(fits)
    _start(fits, _TINY_S)
    count = min(LANES, blocks.shape[0] * 16 - first)
    find(book, scratch, fits, count, False)
    _settle(fits, u32(255))
    for lane in range(0, count, 16):
        _write_s(blocks, (first + lane) // 16, fits, lane)


@kernel
def _iq2_s(book: Book, values: Floats, blocks: Bytes) -> None:
    fits, scratch, row = fits_like(16, 9), desk(book, 19), lanes_like(1)[0]
    for first in range(0, values.shape[0] * 16, LANES):
        _take_evenly(values, first, fits, row)
        _finish_s(book, scratch, fits, first, blocks)


@kernel
def _iq2_s_weighted(book: Book, values: Floats, importance: Floats, blocks: Bytes) -> None:
    fits, scratch, row = fits_like(16, 9), desk(book, 19), lanes_like(1)[0]
    for first in range(0, values.shape[0] * 16, LANES):
        _take(values, importance, first, f32(2.0), fits, row)
        _finish_s(book, scratch, fits, first, blocks)


def iq2_xxs_weighted(values: Floats, importance: Floats, blocks: Bytes) -> None:
    """float32 [n, 256] to uint8 [n, 66]."""
    _iq2_xxs(book("IQ2_XXS"), values, importance, blocks)


def iq2_xs_weighted(values: Floats, importance: Floats, blocks: Bytes) -> None:
    """float32 [n, 256] to uint8 [n, 74]."""
    _iq2_xs(book("IQ2_XS"), values, importance, blocks)


def iq2_s_from_f32(values: Floats, blocks: Bytes) -> None:
    """float32 [n, 256] to uint8 [n, 82]."""
    _iq2_s(book("IQ2_S"), values, blocks)


def iq2_s_weighted(values: Floats, importance: Floats, blocks: Bytes) -> None:
    """float32 [n, 256] to uint8 [n, 82]."""
    _iq2_s_weighted(book("IQ2_S"), values, importance, blocks)


ENCODERS: Mapping[str, Kernel] = MappingProxyType({"IQ2_S": iq2_s_from_f32})
WEIGHTED: Mapping[str, Kernel] = MappingProxyType(
    {"IQ2_XXS": iq2_xxs_weighted, "IQ2_XS": iq2_xs_weighted, "IQ2_S": iq2_s_weighted}
)
