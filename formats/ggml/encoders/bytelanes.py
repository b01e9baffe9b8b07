"""Bytes of blocks as lanes: encoders put them together in uint8 [block_bytes, LANES], and then write whole blocks."""

from __future__ import annotations

import numpy as np
from numpy import float32 as f32
from numpy import uint8 as u8
from numpy import uint16 as u16
from numpy import uint32 as u32

from hubclient.formats.ggml.encoders.lanes import LANES
from hubclient.formats.kernels import Bytes, Floats, float_of, half_of, kernel


@kernel
def bytes_like(rows: int) -> Bytes:
    """An uninitialised scratch, uint8 [rows, LANES]."""
    return np.empty((rows, LANES), np.uint8)


@kernel
def put_halves(values: Floats, rows: Bytes, at: int) -> None:
    """Write float32 [LANES] as float16 into rows `at` and `at` + 1, and put what is read back there into `values`."""
    for lane in range(LANES):
        half = half_of(f32(values[lane]).view(np.uint32))
        rows[at, lane] = u8(u16(half) & u16(0xFF))
        rows[at + 1, lane] = u8(u16(half) >> u16(8))
        values[lane] = u32(float_of(half)).view(np.float32)


@kernel
def join_bits(levels: Bytes, first: int, shift: int, width: int, rows: Bytes, at: int) -> None:
    """Bits `shift` to `shift` + `width` of levels that lie 32 apart make one byte; 32 bytes from row `at` on.

    The byte in row `at` + i has, from its lowest bits up, those of levels `first` + i, `first` + 32 + i and so on.
    """
    mask = u8((1 << width) - 1)
    for i in range(32):
        for lane in range(LANES):
            rows[at + i, lane] = u8(u8(levels[first + i, lane] >> u8(shift)) & mask)
        for part in range(1, 8 // width):
            for lane in range(LANES):
                bits = u8(u8(levels[first + 32 * part + i, lane] >> u8(shift)) & mask)
                rows[at + i, lane] = u8(rows[at + i, lane] | u8(bits << u8(part * width)))


@kernel
def write_blocks(rows: Bytes, first: int, blocks: Bytes) -> None:
    """Transpose uint8 [block_bytes, LANES] into the blocks from `first` on, without the lanes past the last block."""
    for lane in range(min(LANES, blocks.shape[0] - first)):
        for i in range(rows.shape[0]):
            blocks[first + lane, i] = rows[i, lane]
