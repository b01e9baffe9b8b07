"""How the values of IQ1_S and IQ1_M are split in three: what becomes level 0, 1 and 2, that is -1, 0 and 1 times a scale.

Both types move all levels by an eighth up or down. The reference sorts the values that share a scale, and for every pair of
places where the sorted values may be cut, and both directions (IQ1_M: of either half), computes the best scale for that
split and how much it explains. The best split is kept, in the order of trying, since rounding makes splits nearly equal.

Lanes are blocks (see `lanes`), all arrays have LANES columns: `x` and `weights` are float32 [rows, LANES] of the 32 or 16
values that share a scale, `keys` sorts them (see `iq1_sort`), and `sums` are what the sorted values add up to. Source:
quantize_row_iq1_s_impl and quantize_row_iq1_m_impl of ggml-quants.c.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy import float32 as f32
from numpy import int32 as i32

from hubclient.formats.ggml.encoders.iq1_sort import NO_KEY, key_of
from hubclient.formats.ggml.encoders.lanes import LANES, STRIDE, lanes_like, place
from hubclient.formats.kernels import Floats, kernel

DELTA = f32(0.125)  # how far levels are moved
STATE = 3  # rows of what is known of the best split
GAIN, SCALE, SPLIT = range(STATE)  # cross^2 / power, the scale, and 4 * (64 * first cut + second cut) + direction
_UP = f32(DELTA * DELTA - (1 + DELTA) * (1 + DELTA))  # what the sums of weights up to the second cut are multiplied with
_DOWN = f32(DELTA * DELTA - (1 - DELTA) * (1 - DELTA))
_W = 33 + STRIDE  # where the sums of weights of 32 values begin; NaN past their end, so that no split there explains anything
SUMS_32 = 2 * _W
_TOGETHER = 2  # splits that one pass tries in IQ1_M, where with STRIDE of them LLVM no longer makes vectors
_HALF = 17 + _TOGETHER  # likewise for halves of 16 values: rows of sums of values, then of weights, each per half
SUMS_16 = 4 * _HALF
_BASES = 12  # rows of what only depends on the first cut, or on none


@kernel
def _better(gain: f32, scale: f32, split: f32, cross: f32, power: f32, tried: f32) -> tuple[f32, f32, f32]:
    """The state after one more split was tried."""
    better = (power > f32(0.0)) & (f32(cross * cross) > f32(gain * power))
    fitted = f32(cross / power)
    gain = f32(fitted * cross) if better else gain
    return gain, fitted if better else scale, tried if better else split


@kernel
def _start(state: Floats) -> None:
    """The state before the first split."""
    for lane in range(LANES):
        state[GAIN, lane] = f32(-np.finfo(np.float32).max)
        state[SCALE, lane] = f32(0.0)
        state[SPLIT, lane] = f32(-1.0)


@kernel
def _add_up(x: Floats, weights: Floats, keys: Any, sums: Floats) -> None:
    """Sums of weight * value and of weight over the first i sorted values: rows i and _W + i."""
    for lane in range(LANES):
        sums[0, lane] = f32(0.0)
        sums[_W, lane] = f32(0.0)
    for i in range(32):
        for lane in range(LANES):
            at = keys[i, lane] & 63
            weight = weights[at, lane]
            sums[i + 1, lane] = f32(sums[i, lane] + f32(weight * x[at, lane]))
            sums[_W + i + 1, lane] = f32(sums[_W + i, lane] + weight)
    sums[33:_W] = f32(np.nan)
    sums[_W + 33 :] = f32(np.nan)


@kernel
def _cross(low: f32, middle: f32, high: f32, delta: f32) -> f32:
    """Sum of weight * value * level of a split."""
    total = f32(f32(low * f32(delta - f32(1.0))) + f32(middle * delta))
    return f32(total + f32(high * f32(delta + f32(1.0))))


@kernel
def _power(low: f32, middle: f32, high: f32, delta: f32) -> f32:
    """Sum of weight * level^2 of a split."""
    below, above = f32(delta - f32(1.0)), f32(delta + f32(1.0))
    total = f32(f32(f32(low * below) * below) + f32(f32(middle * delta) * delta))
    return f32(total + f32(f32(high * above) * above))


@kernel
def _try_splits(first: int, second: int, sums: Floats, state: Floats) -> None:
    """Try the splits at `first` and at STRIDE places from `second` on, up and down; both arguments flat."""
    for lane in range(LANES):
        low, weight_low = sums[place(first, lane)], sums[place(_W + first, lane)]
        total, weight_total = sums[place(32, lane)], sums[place(_W + 32, lane)]
        gain, scale, split = state[place(GAIN, lane)], state[place(SCALE, lane)], state[place(SPLIT, lane)]
        for k in range(STRIDE):
            until, weight_until = sums[place(second + k, lane)], sums[place(_W + second + k, lane)]
            middle, weight_middle = f32(until - low), f32(weight_until - weight_low)
            high, weight_high = f32(total - until), f32(weight_total - weight_until)
            tried = f32(4 * (64 * first + second + k))
            cross, power = _cross(low, middle, high, DELTA), _power(weight_low, weight_middle, weight_high, DELTA)
            gain, scale, split = _better(gain, scale, split, cross, power, tried)
            cross, power = _cross(low, middle, high, -DELTA), _power(weight_low, weight_middle, weight_high, -DELTA)
            gain, scale, split = _better(gain, scale, split, cross, power, f32(tried + f32(3.0)))
        state[place(GAIN, lane)] = gain
        state[place(SCALE, lane)] = scale
        state[place(SPLIT, lane)] = split


@kernel
def split_32(x: Floats, weights: Floats, keys: Any, sums: Floats, state: Floats) -> None:
    """The best split of 32 values: IQ1_S. `sums` is scratch: float32 [SUMS_32, LANES]."""
    _start(state)
    _add_up(x, weights, keys, sums)
    for first in range(33):
        for second in range(first, 33, STRIDE):
            _try_splits(first, second, sums.reshape(-1), state.reshape(-1))


@kernel
def _add_up_halves(x: Floats, weights: Floats, keys: Any, sums: Floats) -> None:
    """As `_add_up`, apart for the values of each half: sums of values at half * _HALF, of weights 2 * _HALF below."""
    sums[:] = f32(np.nan)
    for row in range(0, SUMS_16, _HALF):
        for lane in range(LANES):
            sums[row, lane] = f32(0.0)
    for half in range(2):
        values, powers = sums[half * _HALF : half * _HALF + 17], sums[(2 + half) * _HALF : (2 + half) * _HALF + 17]
        for i in range(16):
            for lane in range(LANES):
                at = keys[i, lane] & 15
                weight, mine = weights[at, lane], (at >> 3) == half
                value, power = values[i, lane], powers[i, lane]
                values[i + 1, lane] = f32(value + f32(weight * x[at, lane])) if mine else value
                powers[i + 1, lane] = f32(power + weight) if mine else power


@kernel
def _bases(first: int, half: int, sums: Floats, bases: Floats) -> None:
    """What does not depend on the second cut, for a half moved up and down: rows 6 * half on of float32 [12, LANES].

    With levels l - 1 + delta the sum of weight * value * level is total * (1 + delta) minus the sums up to both cuts, and
    that of weight * level^2 is total * (1 + delta)^2 plus the sums up to the cuts times the differences of the squares.
    """
    values, powers = sums[half * _HALF : (half + 1) * _HALF], sums[(2 + half) * _HALF : (3 + half) * _HALF]
    for down in range(2):
        delta = f32(-DELTA) if down else DELTA
        high, low = f32(f32(1.0) + delta), f32(delta - f32(1.0))
        factor = f32(f32(low * low) - f32(delta * delta))
        for lane in range(LANES):
            bases[3 * (2 * half + down), lane] = f32(values[16, lane] * high)
            power = f32(f32(powers[16, lane] * high) * high)
            bases[3 * (2 * half + down) + 1, lane] = f32(power + f32(powers[first, lane] * factor))
            bases[3 * (2 * half + down) + 2, lane] = values[first, lane]


@kernel
def _both(sums: Floats, bases: Floats, half: int, row: int, lane: int) -> tuple[f32, f32, f32, f32]:
    """Cross and power of a half with the second cut at `row`: moved up, moved down."""
    cut = f32(bases[place(6 * half + 2, lane)] + sums[place(half * _HALF + row, lane)])
    weight = sums[place((2 + half) * _HALF + row, lane)]
    up = f32(bases[place(6 * half + 1, lane)] + f32(weight * _UP))
    down = f32(bases[place(6 * half + 4, lane)] + f32(weight * _DOWN))
    return f32(bases[place(6 * half, lane)] - cut), up, f32(bases[place(6 * half + 3, lane)] - cut), down


@kernel
def _try_halves(first: int, second: int, sums: Floats, bases: Floats, state: Floats) -> None:
    """Try the splits at `first` and at _TOGETHER places from `second` on, each half up and down; sums, bases, state flat."""
    for lane in range(LANES):
        gain, scale, split = state[place(GAIN, lane)], state[place(SCALE, lane)], state[place(SPLIT, lane)]
        for k in range(_TOGETHER):
            tried = f32(4 * (64 * first + second + k))
            up, power_up, down, power_down = _both(sums, bases, 0, second + k, lane)
            up_2, power_up_2, down_2, power_down_2 = _both(sums, bases, 1, second + k, lane)
            cross, power = f32(up + up_2), f32(power_up + power_up_2)
            gain, scale, split = _better(gain, scale, split, cross, power, tried)
            cross, power = f32(up + down_2), f32(power_up + power_down_2)
            gain, scale, split = _better(gain, scale, split, cross, power, f32(tried + f32(1.0)))
            cross, power = f32(down + up_2), f32(power_down + power_up_2)
            gain, scale, split = _better(gain, scale, split, cross, power, f32(tried + f32(2.0)))
            cross, power = f32(down + down_2), f32(power_down + power_down_2)
            gain, scale, split = _better(gain, scale, split, cross, power, f32(tried + f32(3.0)))
        state[place(GAIN, lane)] = gain
        state[place(SCALE, lane)] = scale
        state[place(SPLIT, lane)] = split


@kernel
def split_16(x: Floats, weights: Floats, keys: Any, sums: Floats, state: Floats) -> None:
    """The best split of 16 values, whose halves are moved apart: IQ1_M. `sums` is scratch: float32 [SUMS_16, LANES]."""
    bases = lanes_like(_BASES)
    _start(state)
    _add_up_halves(x, weights, keys, sums)
    for first in range(17):
        _bases(first, 0, sums, bases)
        _bases(first, 1, sums, bases)
        for second in range(first, 17, _TOGETHER):
            _try_halves(first, second, sums.reshape(-1), bases.reshape(-1), state.reshape(-1))


@kernel
def levels_of(x: Floats, keys: Any, state: Floats, levels: Any) -> None:
    """The levels 0, 1 and 2 of a split, int32 [rows, LANES]; all scales become positive, by turning levels and directions.

    Lanes without a split have level 0 everywhere, like the first vector of the codebook, and scale 0.
    """
    rows = x.shape[0]
    cuts = np.empty((2, LANES), np.int64)
    for lane in range(LANES):
        split = max(int(state[SPLIT, lane]), 0)
        first, second = split >> 8, (split >> 2) & 63
        cuts[0, lane] = keys[first, lane] if first < rows else NO_KEY
        cuts[1, lane] = keys[second, lane] if second < rows else NO_KEY
    for i in range(rows):
        for lane in range(LANES):
            key = key_of(x[i, lane], i)
            level = i32(i32(key >= cuts[0, lane]) + i32(key >= cuts[1, lane]))
            level = i32(i32(2) - level) if state[SCALE, lane] < f32(0.0) else level
            levels[i, lane] = level if state[SPLIT, lane] >= f32(0.0) else i32(0)
    for lane in range(LANES):
        turned = state[SCALE, lane] < f32(0.0)
        direction = i32(state[SPLIT, lane])
        state[SPLIT, lane] = f32(i32(direction ^ i32(3))) if turned else f32(direction)
        state[SCALE, lane] = f32(-state[SCALE, lane]) if turned else state[SCALE, lane]
