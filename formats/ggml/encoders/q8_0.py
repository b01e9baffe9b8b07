"""Q8_0: blocks of 32 with one scale, levels -127 to 127. Importance makes no difference.

Kernels to uint8 [n, 34] from float32 [n, 32], as quantize_row_q8_0_ref, and from bfloat16, which most checkpoints are
published in. A block's largest magnitude is found on the bits of its numbers, see `legacy`.
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
from hubclient.formats.ggml.encoders.lanes import put_half
from hubclient.formats.kernels import Bytes, Floats, Halves, kernel

_BELOW_HALF = f32(0.49999997)  # the float32 just below 0.5
_INFINITY = f32(np.inf)
_MAGNITUDE = u32(0x7FFFFFFF)


@kernel
def q8_0_scale(magnitude: u32, blocks: Bytes, b: int) -> f32:
    """Write the scale of a Q8_0 block whose largest magnitude has these bits; return the factor for its elements.

    As quantize_row_q8_0_ref: d = amax / 127 and 1 / d in float32, d stored as float16. Where 1 / d is not finite (a
    block of denormals, infinities or NaN) the reference converts infinities to int8, which x86 turns into zeros; so
    does the factor 0.
    """
    scale = f32(u32(magnitude).view(np.float32) / f32(127.0))
    put_half(blocks, b, 0, scale)
    factor = f32(1.0) / scale
    return factor if factor < _INFINITY else f32(0.0)


@kernel
def q8_0_level(value: f32) -> u8:
    """Round half away from zero to int8, as roundf; |value| < 128. Stored as uint8."""
    return u8(i32(value + np.copysign(_BELOW_HALF, value)))


@kernel
def q8_0_from_f32(values: Floats, blocks: Bytes) -> None:
    """float32 [n, 32] to uint8 [n, 34]."""
    bits = values.view(np.uint32)
    for b in range(bits.shape[0]):
        top = u32(0)
        for j in range(bits.shape[1]):
            top = max(top, u32(bits[b, j] & _MAGNITUDE))
        factor = q8_0_scale(top, blocks, b)
        if top < u32(0x7F800000):
            for j in range(32):
                blocks[b, 2 + j] = q8_0_level(f32(u32(bits[b, j]).view(np.float32) * factor))
        else:
            blocks[b, 2:] = 0


@kernel
def q8_0_from_bf16(source: Halves, blocks: Bytes) -> None:
    """uint16 [n, 32] to uint8 [n, 34], without a float32 array in between."""
    for b in range(source.shape[0]):
        top = u16(0)
        for j in range(source.shape[1]):
            top = max(top, u16(source[b, j] & u16(0x7FFF)))
        factor = q8_0_scale(u32(u32(top) << u32(16)), blocks, b)
        if top < u16(0x7F80):
            for j in range(32):
                value = u32(u32(source[b, j]) << u32(16)).view(np.float32)
                blocks[b, 2 + j] = q8_0_level(f32(value * factor))
        else:
            blocks[b, 2:] = 0


ENCODERS: Mapping[str, Kernel] = MappingProxyType({"Q8_0": q8_0_from_f32})
