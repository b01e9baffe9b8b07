"""The hot loops of MLX's affine quantisation: Numba kernels, without the GIL and without fast-math.

The arithmetic is that of MLX on the CPU (mlx/backend/cpu/quantized.cpp and, for the way back, the graph that
`affine_dequantize` in mlx/ops.cpp builds), operation by operation, hence the same bits. What a loop leaves to a scratch
row is what lets LLVM turn it into vector code: numbers first, levels (one byte each) second, packed words last.

Planes (words, scales, biases) are flat arrays. Where row `r` of a plane starts is said by its place (pitch, first): at
`r * pitch + first`, so an array of its own and a part of longer rows are the same to a kernel. Words are uint32. Scales,
biases and rows are of one kind: F16 and BF16 travel as uint16, F32 as uint32.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy import float32 as f32
from numpy import int32 as i32
from numpy import uint8 as u8
from numpy import uint16 as u16
from numpy import uint32 as u32
from numpy import uint64 as u64
from numpy.typing import NDArray

from hubclient.formats.kernels import Bytes, Words, float_of, half_of, kernel

Numbers: TypeAlias = NDArray[np.uint16] | NDArray[np.uint32]
Planes: TypeAlias = tuple[Words, Numbers, Numbers]
Places: TypeAlias = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]

F32, F16, BF16 = 0, 1, 2

_SMALLEST = f32(1e-7)  # the reference's floor under a scale
_SHIFTER = f32(8388608.0)  # 2^23: adding it rounds to an integer, ties to even, and leaves that in the low bits
_LARGEST = i32(0x7F7FFFFF)  # the largest finite float32, as ordered by `_ordered`


@kernel
def _ordered(bits: u32) -> i32:
    """An int32 that sorts as the float32 does; its own inverse (up to the type)."""
    value = i32(bits)
    return i32(value ^ i32(i32(value >> i32(31)) & i32(0x7FFFFFFF)))


@kernel
def _fit(low: f32, high: f32, levels: f32) -> tuple[f32, f32]:
    """Scale and bias of a group whose numbers lie between `low` and `high`: one end is met exactly, and zero too."""
    scale = f32(f32(high - low) / levels)
    scale = _SMALLEST if scale < _SMALLEST else scale
    below = abs(low) > abs(high)
    edge = low if below else high
    scale = scale if below else f32(-scale)
    steps = f32(np.rint(f32(edge / scale)))
    if steps != f32(0.0):
        return f32(edge / steps), edge
    return scale, f32(0.0)


@kernel
def _extremes(bits: Words) -> tuple[f32, f32]:
    """Least and greatest of numbers that may be NaN, as std::min and std::max see them, who pass over NaN."""
    low, high = f32(np.inf), f32(-np.inf)
    for j in range(bits.size):
        value = u32(bits[j]).view(np.float32)
        if value < low:
            low = value
        if value > high:
            high = value
    return low, high


@kernel
def _levels(bits: Words, width: int, levels: Bytes, scales: Words, biases: Words) -> None:
    """float32 [columns] to a level each, and a scale and a bias (float32) for each group."""
    group = bits.size // scales.size
    top = f32((1 << width) - 1)
    for g in range(scales.size):
        part = bits[g * group : (g + 1) * group]
        out = levels[g * group : (g + 1) * group]
        first, last = i32(0x7FFFFFFF), i32(-0x80000000)
        for j in range(group):
            order = _ordered(part[j])
            first = min(first, order)
            last = max(last, order)
        if last > _LARGEST or first < i32(~_LARGEST):
            low, high = _extremes(part)
        else:
            low = u32(_ordered(u32(first))).view(np.float32)
            high = u32(_ordered(u32(last))).view(np.float32)
        scale, bias = _fit(low, high, top)
        for j in range(group):
            place = f32(f32(u32(part[j]).view(np.float32) - bias) / scale)
            place = place if place > f32(0.0) else f32(0.0)
            place = place if place < top else top
            out[j] = u8(f32(place + _SHIFTER).view(np.uint32))
        scales[g] = f32(scale).view(np.uint32)
        biases[g] = f32(bias).view(np.uint32)


@kernel
def _pack(levels: Bytes, width: int, words: Words) -> None:
    """Levels to the bit stream, lowest bits first: eight of them are `width` bytes."""
    eights = levels.view(np.uint64)
    one, two, four = u64(8 - width), u64(16 - 2 * width), u64(32 - 4 * width)
    even, odd = u64(0x00FF00FF00FF00FF), u64(0xFF00FF00FF00FF00)
    low, high = u64(0x0000FFFF0000FFFF), u64(0xFFFF0000FFFF0000)
    left, right = u64(0x00000000FFFFFFFF), u64(0xFFFFFFFF00000000)
    if width == 4:
        for i in range(eights.size):
            x = eights[i]
            x = (x | (x >> u64(4))) & even
            x = (x | (x >> u64(8))) & low
            words[i] = u32(x | (x >> u64(16)))
    elif width == 8:
        words.view(np.uint8)[:] = levels
    else:
        stream = words.view(np.uint8)
        for i in range(eights.size):
            x = eights[i]
            x = (x & even) | ((x & odd) >> one)
            x = (x & low) | ((x & high) >> two)
            x = (x & left) | ((x & right) >> four)
            for k in range(width):
                stream[i * width + k] = u8(x >> u64(8 * k))


@kernel
def _unpack(words: Words, width: int, levels: Bytes) -> None:
    """The reverse of `_pack`."""
    eights = levels.view(np.uint64)
    one, two, four = u64(8 - width), u64(16 - 2 * width), u64(32 - 4 * width)
    ones, twos, fours = u64((1 << width) - 1), u64((1 << 2 * width) - 1), u64((1 << 4 * width) - 1)
    even = u64(ones * u64(0x0001000100010001))
    low = u64(twos * u64(0x0000000100000001))
    if width == 8:
        levels[:] = words.view(np.uint8)
    else:
        stream = words.view(np.uint8)
        for i in range(eights.size):
            x = u64(0)
            for k in range(width):
                x |= u64(stream[i * width + k]) << u64(8 * k)
            x = (x & fours) | ((x & ~fours) << four)
            x = (x & low) | ((x & ~low) << two)
            x = (x & even) | ((x & ~even) << one)
            eights[i] = x


@kernel
def _f16_of(bits: u32) -> u16:
    """As `half_of`; NaN is 0x7D00 and keeps its sign, as in mlx/types/fp16.h."""
    nan = u16(u16(0x7D00) | u16(u32(bits >> u32(16)) & u32(0x8000)))
    return nan if u32(bits & u32(0x7FFFFFFF)) > u32(0x7F800000) else u16(half_of(bits))


@kernel
def _bf16_of(bits: u32) -> u16:
    """To nearest, ties to even; NaN is 0x7FC0, as in mlx/types/bf16.h."""
    rounded = u32(u32(bits + u32(0x7FFF) + u32(u32(bits >> u32(16)) & u32(1))) >> u32(16))
    return u16(u32(0x7FC0) if u32(bits & u32(0x7FFFFFFF)) > u32(0x7F800000) else rounded)


@kernel
def _widen(numbers: Numbers, kind: int, bits: Words) -> None:
    """Numbers of a kind to float32."""
    if kind == F32:
        for j in range(bits.size):
            bits[j] = u32(numbers[j])
    elif kind == F16:
        for j in range(bits.size):
            bits[j] = float_of(u16(numbers[j]))
    else:
        for j in range(bits.size):
            bits[j] = u32(u32(numbers[j]) << u32(16))


@kernel
def _narrow(bits: Words, kind: int, numbers: Numbers) -> None:
    """float32 to numbers of a kind."""
    if kind == F32:
        for j in range(bits.size):
            numbers[j] = bits[j]
    elif kind == F16:
        for j in range(bits.size):
            numbers[j] = _f16_of(bits[j])
    else:
        for j in range(bits.size):
            numbers[j] = _bf16_of(bits[j])


@kernel
def quantise(rows: Numbers, kind: int, width: int, group: int, planes: Planes, places: Places) -> None:
    """Rows [n, columns] to planes, in groups of `group` columns, `width` bits each."""
    words, scales, biases = planes
    columns, count = rows.shape[1], rows.shape[1] // group
    bits, levels = np.empty(columns, np.uint32), np.empty(columns, np.uint8)
    scale, bias = np.empty(count, np.uint32), np.empty(count, np.uint32)
    for r in range(rows.shape[0]):
        w, s, b = r * places[0][0] + places[0][1], r * places[1][0] + places[1][1], r * places[2][0] + places[2][1]
        _widen(rows[r], kind, bits)
        _levels(bits, width, levels, scale, bias)
        _narrow(scale, kind, scales[s : s + count])
        _narrow(bias, kind, biases[b : b + count])
        _pack(levels, width, words[w : w + columns * width // 32])


@kernel
def _numbers(levels: Bytes, kind: int, scales: Words, biases: Words, numbers: Numbers) -> None:
    """A row of levels to numbers: times the scale of its group, rounded to the kind, plus the bias, rounded to the kind."""
    group = levels.size // scales.size
    for g in range(scales.size):
        scale, bias = u32(scales[g]).view(np.float32), u32(biases[g]).view(np.float32)
        level, out = levels[g * group : (g + 1) * group], numbers[g * group : (g + 1) * group]
        if kind == F32:
            for j in range(group):
                out[j] = f32(f32(f32(level[j]) * scale) + bias).view(np.uint32)
        elif kind == F16:
            for j in range(group):
                product = u32(float_of(_f16_of(f32(f32(level[j]) * scale).view(np.uint32)))).view(np.float32)
                out[j] = _f16_of(f32(product + bias).view(np.uint32))
        else:
            for j in range(group):
                product = u32(u32(_bf16_of(f32(f32(level[j]) * scale).view(np.uint32))) << u32(16)).view(np.float32)
                out[j] = _bf16_of(f32(product + bias).view(np.uint32))


@kernel
def dequantise(planes: Planes, places: Places, kind: int, width: int, group: int, rows: Numbers, target: int) -> None:
    """Planes to rows [n, columns]. The arithmetic is that of `target`, the kind of the rows: that of the planes, or F32."""
    words, scales, biases = planes
    columns, count = rows.shape[1], rows.shape[1] // group
    levels = np.empty(columns, np.uint8)
    scale, bias = np.empty(count, np.uint32), np.empty(count, np.uint32)
    for r in range(rows.shape[0]):
        w, s, b = r * places[0][0] + places[0][1], r * places[1][0] + places[1][1], r * places[2][0] + places[2][1]
        _unpack(words[w : w + columns * width // 32], width, levels)
        _widen(scales[s : s + count], kind, scale)
        _widen(biases[b : b + count], kind, bias)
        _numbers(levels, target, scale, bias, rows[r])
