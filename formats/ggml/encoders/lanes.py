"""What the encoders share: many blocks side by side ("lanes"), rounding as ggml rounds, and float16 fields of blocks.

A group of LANES blocks is transposed into scratch [block, LANES], so that element i of all of them is one contiguous row.
The innermost loop of an encoder then runs over the lanes of a row: each lane does the reference's operations in the
reference's order, one by one in float32, and LLVM makes vector code of it, which it cannot do with a sum inside one block.
Branches of the reference become selects.

    scratch = lanes_like(block)                   # once per call
    for first in range(0, values.shape[0], LANES):
        to_lanes(values, first, scratch)          # lanes past the end repeat the last block: compute them, write them not
        for i in range(block):
            for lane in range(LANES):
                sums[lane] = f32(sums[lane] + scratch[i, lane])

Faster where a pass over [rows, LANES] keeps sums per lane: flatten the scratch (reshape(-1)), take STRIDE rows at a time,
and hold the sums in variables meanwhile, which saves most of their loads and stores (`place` says how, and why so):

    for base in range(0, rows, STRIDE):
        for lane in range(LANES):
            total = sums[lane]
            for k in range(STRIDE):
                total = f32(total + flat[place(base + k, lane)])
            sums[lane] = total

Lanes may be blocks, super-blocks or sub-blocks: values.reshape(-1, 32) makes blocks of the sub-blocks of a contiguous
array, and rows 32 j to 32 j + 32 of a scratch of super-blocks are their sub-blocks j.
"""

from __future__ import annotations

import numpy as np
from numpy import float32 as f32
from numpy import int32 as i32
from numpy import uint8 as u8
from numpy import uint16 as u16
from numpy import uint32 as u32

from hubclient.formats.kernels import Bytes, Floats, float_of, half_of, kernel

LANES = 64  # blocks side by side: four AVX-512 or eight AVX2 registers, and a sub-block's scratch stays in the first cache
STRIDE = 4  # rows that one pass over the lanes takes together
TILE = 16  # elements of one block that are transposed at a time: a cache line
_ROUNDER = f32(12582912.0)  # 1.5 * 2^23: the last place of numbers this large is one, so the addition itself rounds


@kernel
def nearest(value: f32) -> i32:
    """The integer nearest to `value`, ties to even: ggml's nearest_int, bit for bit.

    True for magnitudes below 2^22. Larger ones wrap as they do in ggml, infinities give -2^22 and NaN gives 0.
    """
    bits = u32(f32(value + _ROUNDER).view(np.uint32))
    return i32(i32(u32(bits & u32(0x007FFFFF))) - i32(0x00400000))


@kernel
def nearest_float(value: f32) -> f32:
    """The same as float32, and cheaper where the level is used as a float next; only for magnitudes below 2^22."""
    return f32(f32(value + _ROUNDER) - _ROUNDER)


@kernel
def lanes_like(rows: int) -> Floats:
    """An uninitialised scratch, float32 [rows, LANES]."""
    return np.empty((rows, LANES), np.float32)


@kernel
def place(row: int, lane: int) -> np.uint64:
    """Where element [row, lane] lies in a flattened scratch.

    Unsigned, since Numba wraps signed indices around, and by a constant stride: otherwise LLVM cannot compare the rows
    that one pass reads and writes, and gives up making vector code of it.
    """
    return np.uint64(np.uint64(np.uint64(row) * np.uint64(LANES)) + np.uint64(lane))


@kernel
def to_lanes(values: Floats, first: int, lanes: Floats) -> None:
    """Blocks `first` to `first` + LANES of float32 [n, block], transposed into float32 [block, LANES].

    Lanes past the last block repeat it. `block` is a multiple of TILE.
    """
    importance_to_lanes(values, first, values.shape[0], lanes)


@kernel
def importance_to_lanes(importance: Floats, first: int, n: int, lanes: Floats) -> None:
    """The importance of blocks `first` to `first` + LANES of n, from float32 [m, block] into float32 [block, LANES].

    Block b has row b % m (m blocks per row of the tensor). Lanes past the last block repeat its importance.
    """
    m = importance.shape[0]
    for start in range(0, lanes.shape[0], TILE):
        for lane in range(LANES):
            b = min(first + lane, n - 1) % m
            for i in range(start, start + TILE):
                lanes[i, lane] = importance[b, i]


@kernel
def sums_of_squares(lanes: Floats, sums: Floats) -> None:
    """Per lane the sum of squares down float32 [rows, LANES], in order, from zero, into float32 [LANES]."""
    sums[:] = f32(0.0)
    for i in range(lanes.shape[0]):
        for lane in range(LANES):
            value = lanes[i, lane]
            sums[lane] = f32(sums[lane] + f32(value * value))


@kernel
def put_short(blocks: Bytes, b: int, at: int, short: u16) -> None:
    """Write a uint16 at byte `at` of block `b`, little-endian."""
    blocks[b, at] = u8(u16(short) & u16(0xFF))
    blocks[b, at + 1] = u8(u16(short) >> u16(8))


@kernel
def put_half(blocks: Bytes, b: int, at: int, value: f32) -> f32:
    """Write `value` as float16 at byte `at` of block `b`; returns what is read back there, as float32."""
    half = half_of(f32(value).view(np.uint32))
    put_short(blocks, b, at, half)
    return u32(float_of(half)).view(np.float32)
