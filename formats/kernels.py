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
from numpy import uint16 as u16
from numpy import uint32 as u32
from numpy.typing import NDArray

from hubclient.formats.kernelcache import KernelCache

Bytes: TypeAlias = NDArray[np.uint8]
Halves: TypeAlias = NDArray[np.uint16]
Words: TypeAlias = NDArray[np.uint32]
Floats: TypeAlias = NDArray[np.float32]


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile at the first call, and keep what was compiled (see `kernelcache`). Division follows IEEE."""
    compiled = njit(nogil=True, error_model="numpy")(function)
    compiled._cache = KernelCache(function)  # what njit(cache=True) does, in a folder of our choice
    return compiled  # type: ignore[no-any-return]


@kernel
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


@kernel
def float_of(half: u16) -> u32:
    """The bits of the float32 equal to a float16."""
    magnitude = u32(u32(half & u16(0x7FFF)) << u32(13))
    denormal = u32(f32(u32(magnitude + u32(0x38800000)).view(np.float32) - f32(2.0**-14)).view(np.uint32))
    result = u32(magnitude + u32(0x38000000)) if magnitude >= u32(0x400 << 13) else denormal
    result = u32(magnitude + u32(0x70000000)) if magnitude >= u32(0x7C00 << 13) else result  # infinity and NaN
    return u32(result | u32(u32(half & u16(0x8000)) << u32(16)))


@kernel
def f16_from_f32(bits: Words, halves: Halves) -> None:
    """uint32 [n] to uint16 [n]."""
    for i in range(bits.size):
        halves[i] = half_of(bits[i])


@kernel
def f16_from_bf16(source: Halves, halves: Halves) -> u32:
    """uint16 [n] to uint16 [n], without a float32 array in between; returns how many numbers change (NaN equals NaN).

    All eight digits of a bfloat16 have a place in a normal float16. Below, adding 0.5 rounds (see `half_of`): what comes
    back when it is taken away again was not rounded. Above, nothing but infinity is the same.
    """
    changed = u32(0)
    for i in range(source.size):
        bits = u32(u32(source[i]) << u32(16))
        halves[i] = half_of(bits)
        magnitude = u32(bits & u32(0x7FFFFFFF))
        value = u32(magnitude).view(np.float32)
        rounded = (magnitude < u32(0x38800000)) & (f32(f32(value + f32(0.5)) - f32(0.5)) != value)
        huge = (magnitude >= u32(0x47800000)) & (magnitude < u32(0x7F800000))
        changed = u32(changed + (u32(1) if rounded | huge else u32(0)))
    return changed


@kernel
def unlike(one: Words, two: Words) -> u32:
    """How many float32 (their bits) differ from those in the same places; NaN equals NaN."""
    count = u32(0)
    for i in range(one.size):
        both = (u32(one[i] & u32(0x7FFFFFFF)) > u32(0x7F800000)) & (u32(two[i] & u32(0x7FFFFFFF)) > u32(0x7F800000))
        count = u32(count + (u32(0) if (one[i] == two[i]) | both else u32(1)))
    return count


@kernel
def first_with(numbers: Any, mask: Any) -> int:
    """The place of the first of unsigned integers [n] whose bits of `mask` are all set; -1 if there is none."""
    for start in range(0, numbers.size, 4096):
        stop = min(start + 4096, numbers.size)
        found = False
        for i in range(start, stop):
            found |= (numbers[i] & mask) == mask
        if found:
            for i in range(start, stop):
                if (numbers[i] & mask) == mask:
                    return i
    return -1


@kernel
def largest(numbers: Any, mask: Any) -> Any:
    """The largest of unsigned integers [n], of which only the bits of `mask` count; 0 of none."""
    found = mask & ~mask
    for i in range(numbers.size):
        found = max(found, numbers[i] & mask)
    return found


@kernel
def deviations(before: Floats, after: Floats, block: int, sums: NDArray[np.float64]) -> tuple[float, int]:
    """Adds to `sums` [4] those of squared differences, of squares before and after, of products; blocks divide the float32 [n].

    Returns the largest mean squared difference of a block, and which one that is. What is no number is infinitely far off.
    """
    worst, where = -1.0, 0
    for b in range(before.size // block):
        squares = 0.0
        for i in range(b * block, (b + 1) * block):
            one, two = np.float64(before[i]), np.float64(after[i])
            squares += (one - two) * (one - two)
            sums[1] += one * one
            sums[2] += two * two
            sums[3] += one * two
        if squares != squares:
            squares = np.inf
        sums[0] += squares
        if squares / block > worst:
            worst, where = squares / block, b
    return worst, where


@kernel
def f32_from_f16(halves: Halves, bits: Words) -> None:
    """uint16 [n] to uint32 [n]."""
    for i in range(halves.size):
        bits[i] = float_of(halves[i])


@kernel
def f32_from_bf16(source: Halves, bits: Words) -> None:
    """uint16 [n] to uint32 [n]."""
    for i in range(source.size):
        bits[i] = u32(u32(source[i]) << u32(16))


@kernel
def f32_by_table(source: Bytes, table: Floats, values: Floats) -> None:
    """uint8 [n] to float32 [n]: the entries of float32 [256] that the bytes name."""
    for i in range(source.size):
        values[i] = table[source[i]]


@kernel
def bf16_from_f32(bits: Words, target: Halves) -> None:
    """uint32 [n] to uint16 [n]: to nearest, ties to even; NaN becomes quiet (ggml_compute_fp32_to_bf16)."""
    for i in range(bits.size):
        value = u32(bits[i])
        nan = u32(u32(value >> u32(16)) | u32(0x40))
        rounded = u32(u32(value + u32(0x7FFF) + u32(u32(value >> u32(16)) & u32(1))) >> u32(16))
        target[i] = u16(nan if u32(value & u32(0x7FFFFFFF)) > u32(0x7F800000) else rounded)
