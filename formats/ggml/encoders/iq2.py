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
from hubclient.formats.ggml.encoders.iq2_book import book, desk
from hubclient.formats.ggml.encoders.iq2_fit import Parts, bench, find, parts
from hubclient.formats.ggml.encoders.iq2_take import take_all, take_all_xxs
from hubclient.formats.ggml.encoders.lanes import LANES, nearest, put_half, put_short
from hubclient.formats.kernels import Bytes, Floats, kernel

_STEP = 64  # blocks at a time: 16384 elements, whose scratch stays in the second-level cache


@kernel
def _settle(parts: Parts, t: int, mask: u32) -> None:
    """Turn the signs where a scale is below zero, so that none is; clear the lanes with nothing in them."""
    highest, scales = parts.highest[t], parts.scales[t]
    for g in range(parts.signs.shape[1]):
        signs, places = parts.signs[t, g], parts.places[t, g]
        for lane in range(LANES):
            bits = u32(u32(~signs[lane]) & mask) if scales[lane] < f32(0.0) else signs[lane]
            signs[lane] = bits if highest[lane] > f32(0.0) else u32(0)
            places[lane] = places[lane] if highest[lane] > f32(0.0) else 0
    for lane in range(LANES):
        scales[lane] = f32(abs(scales[lane])) if highest[lane] > f32(0.0) else f32(0.0)


@kernel
def _largest(scales: Floats, lane: int, count: int) -> f32:
    """The largest of the scales of a block; 0.0 if none is above."""
    largest = f32(0.0)
    for i in range(lane, lane + count):
        largest = largest if largest > scales[i] else scales[i]
    return largest


@kernel
def _scale_level(scale: f32, largest: f32) -> i32:
    """The four bits that are stored for the scale of a sub-block: (2 * level + 1) / 31 of the largest."""
    factor = f32(f32(1.0) / f32(largest / f32(31.0)))
    return min(i32(15), max(i32(0), nearest(f32(f32(0.5) * f32(f32(factor * scale) - f32(1.0))))))


@kernel
def _put_scales(blocks: Bytes, b: int, at: int, scales: Floats, lane: int, largest: f32) -> None:
    """Write the scales of sixteen sub-blocks, two per byte from byte `at` on."""
    for i in range(8):
        low, high = _scale_level(scales[lane + 2 * i], largest), _scale_level(scales[lane + 2 * i + 1], largest)
        blocks[b, at + i] = u8(i32(low | i32(high << i32(4))))


@kernel
def _write_xxs(parts: Parts, t: int, lane: int, blocks: Bytes, b: int) -> None:
    """Factor float16; per sub-block four places of a byte, then a uint32 of four times seven signs and the scale above."""
    scales, signs, places = parts.scales[t], parts.signs[t], parts.places[t]
    largest = _largest(scales, lane, 8)
    put_half(blocks, b, 0, f32(largest / f32(31.0)))
    for r in range(8):
        word = u32(u32(_scale_level(scales[lane + r], largest)) << u32(28))
        for g in range(4):
            blocks[b, 2 + 8 * r + g] = u8(places[g, lane + r])
            word = u32(word | u32(signs[g, lane + r] << u32(7 * g)))
        put_short(blocks, b, 6 + 8 * r, u16(word & u32(0xFFFF)))
        put_short(blocks, b, 8 + 8 * r, u16(word >> u32(16)))
    if largest == f32(0.0):
        for i in range(2, 66):
            blocks[b, i] = u8(0)


@kernel
def _write_xs(parts: Parts, t: int, lane: int, blocks: Bytes, b: int) -> None:
    """Factor float16; 32 uint16 of a place (nine bits) and seven signs; 8 bytes of scales."""
    scales, signs, places = parts.scales[t], parts.signs[t], parts.places[t]
    largest = _largest(scales, lane, 16)
    put_half(blocks, b, 0, f32(largest / f32(31.0)))
    for k in range(32):
        sign = u32(signs[k % 2, lane + k // 2] << u32(9))
        put_short(blocks, b, 2 + 2 * k, u16(u32(u32(places[k % 2, lane + k // 2]) | sign)))
    _put_scales(blocks, b, 66, scales, lane, largest)
    if largest == f32(0.0):
        for i in range(2, 74):
            blocks[b, i] = u8(0)


@kernel
def _write_s(parts: Parts, t: int, lane: int, blocks: Bytes, b: int) -> None:
    """Factor float16; 32 bytes of places, 32 of signs, 8 of the places' upper two bits, 8 of scales."""
    scales, signs, places = parts.scales[t], parts.signs[t], parts.places[t]
    largest = _largest(scales, lane, 16)
    put_half(blocks, b, 0, f32(f32(largest / f32(31.0)) * f32(0.9875)))
    upper = i32(0)
    for k in range(32):
        place = i32(places[k % 2, lane + k // 2])
        blocks[b, 2 + k], blocks[b, 34 + k] = u8(place & i32(255)), u8(signs[k % 2, lane + k // 2])
        upper = i32(i32(upper >> i32(2)) | i32(i32(place >> i32(8)) << i32(6)))
        if k % 4 == 3:
            blocks[b, 66 + k // 4] = u8(upper)
    _put_scales(blocks, b, 74, scales, lane, largest)
    if largest == f32(0.0):
        for i in range(74, 82):
            blocks[b, i] = u8(0)


@kernel
def _write_all_xxs(parts: Parts, lanes: int, blocks: Bytes, first: int) -> None:
    """Write the blocks of `lanes` sub-blocks, from block `first` on."""
    for lane in range(0, lanes, 8):
        if lane % LANES == 0:
            _settle(parts, lane // LANES, u32(127))
        _write_xxs(parts, lane // LANES, lane % LANES, blocks, first + lane // 8)


@kernel
def _write_all(parts: Parts, lanes: int, blocks: Bytes, first: int) -> None:
    """The same for IQ2_XS and IQ2_S, told apart by the size of the blocks."""
    even = blocks.shape[1] == 74
    for lane in range(0, lanes, 16):
        if lane % LANES == 0:
            _settle(parts, lane // LANES, u32(127) if even else u32(255))
        if even:
            _write_xs(parts, lane // LANES, lane % LANES, blocks, first + lane // 16)
        else:
            _write_s(parts, lane // LANES, lane % LANES, blocks, first + lane // 16)


def weighted_iq2_xxs_from_f32(values: Floats, importance: Floats, blocks: Bytes) -> None:
    """float32 [n, 256] with importance [m, 256] to uint8 [n, 66]."""
    codebook, room, scratch = book("IQ2_XXS"), parts(8, 4), bench(4, 13)
    search, work, levels = desk(codebook, 13), np.empty((7, LANES), np.float32), np.empty((32, LANES), np.uint8)
    for first in range(0, len(values), _STEP):
        lanes = 8 * min(_STEP, len(values) - first)
        take_all_xxs(values, importance, first * 8, lanes, work, levels, room)
        find(codebook, search, scratch, room, lanes, True)
        _write_all_xxs(room, lanes, blocks, first)


def _encode(name: str, values: Floats, importance: Floats, times: float, tiny: float, blocks: Bytes) -> None:
    """Blocks with sixteen scales; for `times` and `tiny` see `take_all`."""
    codebook, room, scratch = book(name), parts(16, 2), bench(2, 19)
    search = desk(codebook, 19)
    for first in range(0, len(values), _STEP):
        lanes = 16 * min(_STEP, len(values) - first)
        take_all(values, importance, first * 16, lanes, f32(times), name == "IQ2_XS", f32(tiny), room)
        find(codebook, search, scratch, room, lanes, False)
        _write_all(room, lanes, blocks, first)


def weighted_iq2_xs_from_f32(values: Floats, importance: Floats, blocks: Bytes) -> None:
    """float32 [n, 256] with importance [m, 256] to uint8 [n, 74]."""
    _encode("IQ2_XS", values, importance, 1.0, 1e-15, blocks)


def weighted_iq2_s_from_f32(values: Floats, importance: Floats, blocks: Bytes) -> None:
    """float32 [n, 256] with importance [m, 256] to uint8 [n, 82]."""
    _encode("IQ2_S", values, importance, 2.0, 1e-8, blocks)


def iq2_s_from_f32(values: Floats, blocks: Bytes) -> None:
    """float32 [n, 256] to uint8 [n, 82]."""
    weighted_iq2_s_from_f32(values, np.empty((0, 256), np.float32), blocks)


ENCODERS: Mapping[str, Kernel] = MappingProxyType({"IQ2_S": iq2_s_from_f32})
WEIGHTED: Mapping[str, Kernel] = MappingProxyType(
    {"IQ2_XXS": weighted_iq2_xxs_from_f32, "IQ2_XS": weighted_iq2_xs_from_f32, "IQ2_S": weighted_iq2_s_from_f32}
)
