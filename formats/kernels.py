"""The hot loops of the codecs: Numba kernels over flat arrays, without the GIL and without fast-math.

Importing this module imports Numba (about a second), so only `codecs` does, when a kernel is needed; each kernel is
compiled at its first call and kept on disk. Arrays are contiguous and aligned; 16-bit floats travel as uint16, the
bits of float32 as uint32. Every operation is wrapped in its type: Numba would widen uint32 arithmetic to 64 bits, and
loops of 32-bit operations are what LLVM turns into vector code.

The rounding of NaN, infinities and denormals is spelled out in integers and ordinary float32 arithmetic, hence the same
on every machine, whatever its conversion instructions do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numba import njit
from numpy import float32 as f32
from numpy import int32 as i32
from numpy import uint8 as u8
from numpy import uint16 as u16
from numpy import uint32 as u32
from numpy.typing import NDArray

Bytes: TypeAlias = NDArray[np.uint8]
Halves: TypeAlias = NDArray[np.uint16]
Words: TypeAlias = NDArray[np.uint32]
Floats: TypeAlias = NDArray[np.float32]

_BELOW_HALF = f32(0.49999997)  # the float32 just below 0.5
_INFINITY = f32(np.inf)


def _kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile at the first call. Division follows IEEE; the compiled code is cached where some folder can be written."""
    try:
        return njit(nogil=True, cache=True, error_model="numpy")(function)  # type: ignore[no-any-return]
    except RuntimeError:  # Numba found no place for its cache: read-only installation and home
        return njit(nogil=True, error_model="numpy")(function)  # type: ignore[no-any-return]


@_kernel
def half_of(bits: u32) -> u16:
    """The float16 nearest to a float32, ties to even (bits to bits); NaN keeps its leading payload, as numpy does it."""
    magnitude = u32(bits & u32(0x7FFFFFFF))
    odd = u32(u32(magnitude >> u32(13)) & u32(1))
    normal = u32(u32(magnitude + u32(0xC8000FFF) + odd) >> u32(13))  # rebias by 112, round half to even
    # adding 0.5 aligns the last float16 place with the last float32 place, so the addition itself rounds denormals
    denormal = u32(f32(u32(magnitude).view(np.float32) + f32(0.5)).view(np.uint32) - u32(0x3F000000))
    nan = u32(u32(0x7C00) | u32(u32(magnitude >> u32(13)) & u32(0x3FF)))
    nan = nan if nan != u32(0x7C00) else u32(0x7C01)
    huge = nan if magnitude > u32(0x7F800000) else u32(0x7C00)
    result = normal if magnitude >= u32(0x38800000) else denormal  # 2^-14, the smallest normal float16
    result = huge if magnitude >= u32(0x47800000) else result  # 2^16
    return u16(result | u32(u32(bits >> u32(16)) & u32(0x8000)))


@_kernel
def float_of(half: u16) -> u32:
    """The bits of the float32 equal to a float16."""
    magnitude = u32(u32(half & u16(0x7FFF)) << u32(13))
    denormal = u32(f32(u32(magnitude + u32(0x38800000)).view(np.float32) - f32(2.0**-14)).view(np.uint32))
    result = u32(magnitude + u32(0x38000000)) if magnitude >= u32(0x400 << 13) else denormal
    result = u32(magnitude + u32(0x70000000)) if magnitude >= u32(0x7C00 << 13) else result  # infinity and NaN
    return u32(result | u32(u32(half & u16(0x8000)) << u32(16)))


@_kernel
def f16_from_f32(bits: Words, halves: Halves) -> None:
    """uint32 [n] to uint16 [n]."""
    for i in range(bits.size):
        halves[i] = half_of(bits[i])


@_kernel
def f16_from_bf16(source: Halves, halves: Halves) -> None:
    """uint16 [n] to uint16 [n], without a float32 array in between."""
    for i in range(source.size):
        halves[i] = half_of(u32(u32(source[i]) << u32(16)))


@_kernel
def f32_from_f16(halves: Halves, bits: Words) -> None:
    """uint16 [n] to uint32 [n]."""
    for i in range(halves.size):
        bits[i] = float_of(halves[i])


@_kernel
def f32_from_bf16(source: Halves, bits: Words) -> None:
    """uint16 [n] to uint32 [n]."""
    for i in range(source.size):
        bits[i] = u32(u32(source[i]) << u32(16))


@_kernel
def bf16_from_f32(bits: Words, target: Halves) -> None:
    """uint32 [n] to uint16 [n]: to nearest, ties to even; NaN becomes quiet (ggml_compute_fp32_to_bf16)."""
    for i in range(bits.size):
        value = u32(bits[i])
        nan = u32(u32(value >> u32(16)) | u32(0x40))
        rounded = u32(u32(value + u32(0x7FFF) + u32(u32(value >> u32(16)) & u32(1))) >> u32(16))
        target[i] = u16(nan if u32(value & u32(0x7FFFFFFF)) > u32(0x7F800000) else rounded)


@_kernel
def q8_0_scale(magnitude: u32, block: Bytes) -> f32:
    """Write the scale of a Q8_0 block whose largest magnitude has these bits; return the factor for its elements.

    As quantize_row_q8_0_ref: d = amax / 127 and 1 / d in float32, d stored as float16. Where 1 / d is not finite (a
    block of denormals, infinities or NaN) the reference converts infinities to int8, which x86 turns into zeros; so
    does the factor 0.
    """
    scale = f32(u32(magnitude).view(np.float32) / f32(127.0))
    half = half_of(f32(scale).view(np.uint32))
    block[0] = u8(half & u16(0xFF))
    block[1] = u8(half >> u16(8))
    factor = f32(1.0) / scale
    return factor if factor < _INFINITY else f32(0.0)


@_kernel
def q8_0_level(value: f32) -> u8:
    """Round half away from zero to int8, as roundf; |value| < 128. Stored as uint8."""
    return u8(i32(value + np.copysign(_BELOW_HALF, value)))


@_kernel
def q8_0_from_f32(bits: Words, blocks: Bytes) -> None:
    """uint32 [n, 32] to uint8 [n, 34]."""
    for b in range(bits.shape[0]):
        top = u32(0)
        for j in range(32):
            top = max(top, u32(bits[b, j] & u32(0x7FFFFFFF)))
        factor = q8_0_scale(top, blocks[b])
        if top < u32(0x7F800000):
            for j in range(32):
                blocks[b, 2 + j] = q8_0_level(f32(u32(bits[b, j]).view(np.float32) * factor))
        else:
            blocks[b, 2:] = 0


@_kernel
def q8_0_from_bf16(source: Halves, blocks: Bytes) -> None:
    """uint16 [n, 32] to uint8 [n, 34], without a float32 array in between."""
    for b in range(source.shape[0]):
        top = u16(0)
        for j in range(32):
            top = max(top, u16(source[b, j] & u16(0x7FFF)))
        factor = q8_0_scale(u32(u32(top) << u32(16)), blocks[b])
        if top < u16(0x7F80):
            for j in range(32):
                value = u32(u32(source[b, j]) << u32(16)).view(np.float32)
                blocks[b, 2 + j] = q8_0_level(f32(value * factor))
        else:
            blocks[b, 2:] = 0


@_kernel
def f32_from_q8_0(blocks: Bytes, values: Floats) -> None:
    """uint8 [n, 34] to float32 [n, 32]."""
    for b in range(blocks.shape[0]):
        half = u16(u16(blocks[b, 0]) | u16(u16(blocks[b, 1]) << u16(8)))
        scale = u32(float_of(half)).view(np.float32)
        for j in range(32):
            values[b, j] = f32(np.int8(blocks[b, 2 + j])) * scale
