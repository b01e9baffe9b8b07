"""IQ3_XXS and IQ3_S: blocks of 256 in runs of 32, each with a scale of four bits, eight vectors of four, and signs.

float32 [n, 256] to uint8 [n, 98] or [n, 110] as `hubclient.formats.ggml.iquants` reads them; `iq3_search` finds scales and
vectors. Source: quantize_row_iq3_xxs_impl and quantize_row_iq3_s_impl of ggml-quants.c.
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
from hubclient.formats.ggml.encoders.iq3_search import STEPS, VALUES, WEIGHTS, WORK, search
from hubclient.formats.ggml.encoders.iq3_vectors import Book, book
from hubclient.formats.ggml.encoders.lanes import nearest, put_half, put_short
from hubclient.formats.kernels import Bytes, Floats, kernel

_LEAST = f32(1e-8)  # runs of IQ3_XXS without a value of this size are all zero: GROUP_MAX_EPS_IQ3_XXS
_LEAST_S = f32(1e-45)  # the smallest number: only zeros are below


class Desk(NamedTuple):
    """What a block is worked on with: the arguments of `search`, and the signs, uint32 [32], eight bits each."""

    work: NDArray[np.float32]
    found: NDArray[np.int16]
    scales: NDArray[np.float32]
    chosen: NDArray[np.int16]
    signs: NDArray[np.uint32]


def desk() -> Desk:
    """A desk for one call."""
    scales, chosen, signs = np.empty(8, np.float32), np.empty((8, 8), np.int16), np.empty(32, np.uint32)
    return Desk(np.ones(WORK, np.float32), np.empty((8, STEPS), np.int16), scales, chosen, signs)


@kernel
def _plain_weights(values: Floats, b: int, work: Floats) -> None:
    """Weights of a block without importance: the squares."""
    for i in range(256):
        work[WEIGHTS + i] = f32(values[b, i] * values[b, i])


@kernel
def _weights_by(importance: Floats, values: Floats, b: int, work: Floats) -> None:
    """Weights of a block by importance, which is float32 [m, 256] for the m blocks of a row."""
    total = f32(0.0)
    for i in range(256):
        total = f32(total + f32(values[b, i] * values[b, i]))
    spread = f32(f32(f32(2.0) * total) / f32(256.0))
    row = b % importance.shape[0]
    for i in range(256):
        root = f32(np.sqrt(f32(spread + f32(values[b, i] * values[b, i]))))
        work[WEIGHTS + i] = f32(importance[row, i] * root)


@kernel
def _take_signs(values: Floats, b: int, work: Floats, signs: Any) -> None:
    """The values without their signs, and 32 times eight sign bits; -0.0 counts as positive."""
    for i in range(256):
        value = values[b, i]
        work[VALUES + i] = value if value >= f32(0.0) else f32(-value)
    for g in range(32):
        bits = u32(0)
        for i in range(8):
            bits |= u32(u32(not values[b, 8 * g + i] >= f32(0.0)) << u32(i))
        signs[g] = bits


@kernel
def _make_even(work: Floats, signs: Any) -> None:
    """Where eight have an odd number of minus signs, turn the sign of the one that counts least, and the value with it."""
    for g in range(32):
        parity = u32(signs[g] ^ u32(signs[g] >> u32(4)))
        parity = u32(parity ^ u32(parity >> u32(2)))
        if u32(u32(parity ^ u32(parity >> u32(1))) & u32(1)):
            least, chosen = f32(np.inf), 0
            for i in range(8):
                value = work[VALUES + 8 * g + i]
                counts = f32(f32(work[WEIGHTS + 8 * g + i] * value) * value)
                chosen = i if counts < least else chosen
                least = counts if counts < least else least
            work[VALUES + 8 * g + chosen] = f32(-work[VALUES + 8 * g + chosen])
            signs[g] ^= u32(u32(1) << u32(chosen))


@kernel
def _settle(scales: Floats, signs: Any) -> f32:
    """Make scales positive by turning all signs of their runs; returns the largest scale."""
    most = f32(0.0)
    for r in range(8):
        if scales[r] < f32(0.0):
            scales[r] = f32(-scales[r])
            for g in range(4 * r, 4 * r + 4):
                signs[g] ^= u32(255)
        most = most if most > scales[r] else scales[r]
    return most


@kernel
def _scale_bits(scale: f32, inverse: f32) -> u32:
    """Four bits for the scale of a run: they stand for 2 * bits + 1 times the factor of the block."""
    return u32(max(i32(0), min(i32(15), nearest(f32(f32(0.5) * f32(f32(inverse * scale) - f32(1.0)))))))


@kernel
def _write_xxs(blocks: Bytes, b: int, place: Any, scales: Floats, signs: Any, chosen: Any) -> None:
    """Factor float16; 64 bytes of places in the codebook; per run a uint32 of four times seven signs and a scale."""
    blocks[b, :] = u8(0)
    most = _settle(scales, signs)
    if not most > f32(0.0):
        return
    factor = f32(most / f32(31.0))
    put_half(blocks, b, 0, f32(factor * f32(1.0125)))
    for r in range(8):
        word = u32(_scale_bits(scales[r], f32(f32(1.0) / factor)) << u32(28))
        if chosen[r, 0] >= 0:
            for g in range(4):
                word |= u32(u32(signs[4 * r + g] & u32(127)) << u32(7 * g))
            for k in range(8):
                blocks[b, 2 + 8 * r + k] = u8(place[chosen[r, k]])
        put_short(blocks, b, 66 + 4 * r, u16(word))
        put_short(blocks, b, 68 + 4 * r, u16(word >> u32(16)))


@kernel
def _write_s(blocks: Bytes, b: int, place: Any, scales: Floats, signs: Any, chosen: Any) -> None:
    """Factor float16; 64 bytes of lower bits of places, 8 of upper ones, 32 of signs, 4 of scales.

    The reference does not move on in the lower bits and the signs when a run is all zero, so those of later runs come
    too early and the block is decoded wrongly; upper bits and scales are where they should be. It is repeated here.
    """
    blocks[b, :] = u8(0)
    most = _settle(scales, signs)
    slot = 0
    for r in range(8):
        if chosen[r, 0] >= 0:
            for g in range(4):
                blocks[b, 74 + 4 * slot + g] = u8(signs[4 * r + g])
            for k in range(8):
                vector = u32(place[chosen[r, k]])
                blocks[b, 2 + 8 * slot + k] = u8(vector & u32(255))
                blocks[b, 66 + r] |= u8(u32(u32(vector >> u32(8)) & u32(1)) << u32(k))
            slot += 1
    if not most > f32(0.0):
        return
    factor = f32(most / f32(31.0))
    put_half(blocks, b, 0, f32(factor * f32(1.033)))
    inverse = f32(f32(1.0) / factor)
    for r in range(0, 8, 2):
        upper = u32(_scale_bits(scales[r + 1], inverse) << u32(4))
        blocks[b, 106 + r // 2] = u8(_scale_bits(scales[r], inverse) | upper)


@kernel
def _encode_xxs(values: Floats, b: int, book: Book, work: Floats, desk: Desk, blocks: Bytes) -> None:
    """A block whose weights are in the work."""
    _take_signs(values, b, work, desk.signs)
    _make_even(work, desk.signs)
    search(31, True, _LEAST, book, work, desk.found, desk.scales, desk.chosen)
    _write_xxs(blocks, b, book.place, desk.scales, desk.signs, desk.chosen)


@kernel
def _encode_s(values: Floats, b: int, book: Book, work: Floats, desk: Desk, blocks: Bytes) -> None:
    """A block whose weights are in the work."""
    _take_signs(values, b, work, desk.signs)
    search(19, False, _LEAST_S, book, work, desk.found, desk.scales, desk.chosen)
    _write_s(blocks, b, book.place, desk.scales, desk.signs, desk.chosen)


@kernel
def _plain_xxs(values: Floats, book: Book, desk: Desk, blocks: Bytes) -> None:
    for b in range(values.shape[0]):
        _plain_weights(values, b, desk.work)
        _encode_xxs(values, b, book, desk.work, desk, blocks)


@kernel
def _weighted_xxs(values: Floats, importance: Floats, book: Book, desk: Desk, blocks: Bytes) -> None:
    for b in range(values.shape[0]):
        _weights_by(importance, values, b, desk.work)
        _encode_xxs(values, b, book, desk.work, desk, blocks)


@kernel
def _plain_s(values: Floats, book: Book, desk: Desk, blocks: Bytes) -> None:
    for b in range(values.shape[0]):
        _plain_weights(values, b, desk.work)
        _encode_s(values, b, book, desk.work, desk, blocks)


@kernel
def _weighted_s(values: Floats, importance: Floats, book: Book, desk: Desk, blocks: Bytes) -> None:
    for b in range(values.shape[0]):
        _weights_by(importance, values, b, desk.work)
        _encode_s(values, b, book, desk.work, desk, blocks)


def iq3_xxs_from_f32(values: Floats, blocks: Bytes) -> None:
    """Without importance."""
    _plain_xxs(values, book("IQ3_XXS"), desk(), blocks)


def iq3_s_from_f32(values: Floats, blocks: Bytes) -> None:
    """Without importance."""
    _plain_s(values, book("IQ3_S"), desk(), blocks)


def weighted_iq3_xxs_from_f32(values: Floats, importance: Floats, blocks: Bytes) -> None:
    """With importance float32 [m, 256], that of the blocks of one row."""
    _weighted_xxs(values, importance, book("IQ3_XXS"), desk(), blocks)


def weighted_iq3_s_from_f32(values: Floats, importance: Floats, blocks: Bytes) -> None:
    """With importance float32 [m, 256], that of the blocks of one row."""
    _weighted_s(values, importance, book("IQ3_S"), desk(), blocks)


ENCODERS: Mapping[str, Kernel] = MappingProxyType({"IQ3_XXS": iq3_xxs_from_f32, "IQ3_S": iq3_s_from_f32})
WEIGHTED: Mapping[str, Kernel] = MappingProxyType({"IQ3_XXS": weighted_iq3_xxs_from_f32, "IQ3_S": weighted_iq3_s_from_f32})
