"""Kernels that read the numbers inside a block, for all families: little-endian, wherever in the block they start."""

from __future__ import annotations

import numpy as np
from numpy import float32 as f32
from numpy import int32 as i32
from numpy import uint8 as u8
from numpy import uint16 as u16
from numpy import uint32 as u32

from hubclient.formats.kernels import Bytes, float_of, kernel


@kernel
def short_at(blocks: Bytes, b: int, at: int) -> u16:
    """The uint16 at byte `at` of block `b`."""
    return u16(u16(blocks[b, at]) | u16(u16(blocks[b, at + 1]) << u16(8)))


@kernel
def word_at(blocks: Bytes, b: int, at: int) -> u32:
    """The uint32 at byte `at` of block `b`."""
    return u32(u32(short_at(blocks, b, at)) | u32(u32(short_at(blocks, b, at + 2)) << u32(16)))


@kernel
def half_at(blocks: Bytes, b: int, at: int) -> f32:
    """The float16 at byte `at` of block `b`, as float32."""
    return u32(float_of(short_at(blocks, b, at))).view(np.float32)


@kernel
def low(byte: u8) -> i32:
    """The lower four bits."""
    return i32(byte & u8(15))


@kernel
def high(byte: u8) -> i32:
    """The upper four bits."""
    return i32(u8(byte) >> u8(4))


@kernel
def field(byte: u8, shift: int, mask: int) -> i32:
    """The bits of `byte` from `shift` on that `mask` selects."""
    return i32(u8(u8(byte) >> u8(shift)) & u8(mask))
