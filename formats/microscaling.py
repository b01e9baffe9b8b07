"""Microscaling types in planes: decoding them, and MXFP4 from ggml's order of bytes to that of GPT-OSS and MLX and back.

A row is `[all elements][all scales]`: elements of E2M1, two to a byte, the first in the low nibble, or of E4M3; a scale for
each block, E8M0 or (NVFP4) E4M3. Values are those of mlx.core.dequantize in float32: element times scale, where the E8M0
scale 255, which ggml takes for 2^128 and OCP for NaN, is infinite.

Importing this module imports Numba, so only `codecs` does, when it is needed.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy import uint8 as u8
from numpy.typing import NDArray

from hubclient.formats import float8
from hubclient.formats.kernels import Bytes, Floats, kernel

_MAGNITUDES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # of E2M1; the other eight codes are their negatives


class _Layout(NamedTuple):
    """Elements in a block, and what the codes of elements (16 or 256) and scales (256) stand for, as float32."""

    block: int
    elements: NDArray[np.float32]
    scales: NDArray[np.float32]


def decode(name: str, rows: NDArray[np.uint8], values: NDArray[np.float32]) -> None:
    """uint8 [n, row_bytes] of MXFP4_PLANES, NVFP4_PLANES or MXFP8_PLANES to float32 [n, columns]."""
    layout = _layout(name)
    read = f32_from_nibbles if layout.elements.size == 16 else f32_from_bytes
    read(rows, layout.elements, layout.scales, layout.block, values)


@cache
def _layout(name: str) -> _Layout:
    nibbles = np.array([sign * value for sign in (1, -1) for value in _MAGNITUDES], np.float32)
    with np.errstate(over="ignore"):
        powers = np.exp2(np.arange(256) - 127.0).astype(np.float32)
    e4m3 = float8.table("F8_E4M3")
    layouts = {"MXFP4_PLANES": (32, nibbles, powers), "NVFP4_PLANES": (16, nibbles, e4m3), "MXFP8_PLANES": (32, e4m3, powers)}
    return _Layout(*layouts[name])


@kernel
def f32_from_nibbles(rows: Bytes, elements: Floats, scales: Floats, block: int, values: Floats) -> None:
    """uint8 [n, row_bytes] to float32 [n, columns], through tables of 16 elements and 256 scales."""
    size, half = values.shape[1] // 2, block // 2
    for r in range(rows.shape[0]):
        for b in range(size // half):
            scale = scales[rows[r, size + b]]
            for j in range(half):
                byte = rows[r, b * half + j]
                values[r, b * block + 2 * j] = elements[byte & u8(15)] * scale
                values[r, b * block + 2 * j + 1] = elements[byte >> u8(4)] * scale


@kernel
def f32_from_bytes(rows: Bytes, elements: Floats, scales: Floats, block: int, values: Floats) -> None:
    """The same for elements of a byte each, through a table of 256."""
    size = values.shape[1]
    for r in range(rows.shape[0]):
        for b in range(size // block):
            scale = scales[rows[r, size + b]]
            for j in range(b * block, (b + 1) * block):
                values[r, j] = elements[rows[r, j]] * scale


@kernel
def mxfp4_planes_from_blocks(blocks: Bytes, planes: Bytes) -> None:
    """uint8 [n, row_bytes] of MXFP4, blocks of a scale and 16 bytes whose nibbles are 16 elements apart, to MXFP4_PLANES."""
    count = blocks.shape[1] // 17
    for r in range(blocks.shape[0]):
        for b in range(count):
            source, target = blocks[r, b * 17 : (b + 1) * 17], planes[r, b * 16 : (b + 1) * 16]
            planes[r, count * 16 + b] = source[0]
            for j in range(8):
                first, second = source[1 + 2 * j], source[2 + 2 * j]
                target[j] = u8(first & u8(15)) | u8(second << u8(4))
                target[8 + j] = u8(first >> u8(4)) | u8(second & u8(0xF0))


@kernel
def mxfp4_blocks_from_planes(planes: Bytes, blocks: Bytes) -> None:
    """uint8 [n, row_bytes] of MXFP4_PLANES to MXFP4: the inverse, for all bytes."""
    count = planes.shape[1] // 17
    for r in range(planes.shape[0]):
        for b in range(count):
            source, target = planes[r, b * 16 : (b + 1) * 16], blocks[r, b * 17 : (b + 1) * 17]
            target[0] = planes[r, count * 16 + b]
            for j in range(8):
                low, high = source[j], source[8 + j]
                target[1 + 2 * j] = u8(low & u8(15)) | u8(high << u8(4))
                target[2 + 2 * j] = u8(low >> u8(4)) | u8(high & u8(0xF0))
