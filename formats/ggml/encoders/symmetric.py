"""Searches for the scale of levels that lie around zero, many blocks side by side.

A block here is what shares one scale: 16 or 32 values. `x` and `weights` are float32 [values of a block, LANES] (see
`lanes`), results are float32 [LANES]. A search tries inverse scales, rounds the values to levels with each of them and
keeps the scale of least weighted square error: with sums over a block of weight * value * level (`cross`) and of
weight * level^2 (`power`), the best scale for these levels is cross / power, and it lowers the error by cross^2 / power.

Levels reach from -top to top - 1 and are kept as float32, where they cost no conversions; handed out they are counted from
0. What a loop over lanes may or may not change it reads first: a read that only happens sometimes hinders vector code.
Source: make_qx_quants and make_q3_quants of ggml-quants.c.
"""

from __future__ import annotations

import numpy as np
from numpy import float32 as f32
from numpy import int32 as i32
from numpy import uint8 as u8

from hubclient.formats.ggml.encoders.lanes import LANES, nearest, nearest_float
from hubclient.formats.kernels import Bytes, Floats, kernel

STATE = 5  # rows of the scratch float32 [STATE, LANES] that the searches work in
EXTREME, INVERSE, CROSS, POWER, GAIN = range(STATE)
LEAST = f32(1e-15)  # blocks without a value of this size are all zero: GROUP_MAX_EPS
_NONE = f32(np.nan)


@kernel
def squares(x: Floats, weights: Floats) -> None:
    """The weights where there is no importance: large values matter more."""
    for i in range(x.shape[0]):
        for lane in range(LANES):
            weights[i, lane] = f32(x[i, lane] * x[i, lane])


@kernel
def find_extremes(x: Floats, extremes: Floats) -> None:
    """Per lane the value of largest magnitude, with its sign: the first of equals, never NaN."""
    extremes[:] = f32(0.0)
    for i in range(x.shape[0]):
        for lane in range(LANES):
            value, extreme = x[i, lane], extremes[lane]
            extremes[lane] = value if abs(value) > abs(extreme) else extreme


@kernel
def level_of(scaled: f32, top: f32) -> f32:
    """The level nearest to a value over its scale. NaN, which infinite values cause, gives 0."""
    level = nearest_float(scaled)
    level = level if level == level else f32(0.0)
    level = level if level > -top else -top
    return level if level < f32(top - f32(1.0)) else f32(top - f32(1.0))


@kernel
def sum_linear(x: Floats, weights: Floats, top: f32, reach: f32, state: Floats) -> None:
    """CROSS and POWER of the levels for which the extreme, unrounded, becomes `reach`."""
    for lane in range(LANES):
        state[INVERSE, lane] = f32(reach / state[EXTREME, lane])
        state[CROSS, lane] = f32(0.0)
        state[POWER, lane] = f32(0.0)
    for i in range(x.shape[0]):
        for lane in range(LANES):
            value, weight, cross, power = x[i, lane], weights[i, lane], state[CROSS, lane], state[POWER, lane]
            level = level_of(f32(state[INVERSE, lane] * value), top)
            state[CROSS, lane] = f32(cross + f32(f32(weight * value) * level))
            state[POWER, lane] = f32(power + f32(f32(weight * level) * level))


@kernel
def improve(state: Floats, scales: Floats, inverses: Floats) -> None:
    """Take the scale that CROSS and POWER speak for, and INVERSE, where that lowers the error by more than GAIN."""
    for lane in range(LANES):
        cross, power, gain = state[CROSS, lane], state[POWER, lane], state[GAIN, lane]
        inverse, old_scale, old_inverse = state[INVERSE, lane], scales[lane], inverses[lane]
        scale = f32(cross / power)
        better = (power > f32(0.0)) & (f32(cross * cross) > f32(gain * power))
        scales[lane] = scale if better else old_scale
        inverses[lane] = inverse if better else old_inverse
        state[GAIN, lane] = f32(scale * cross) if better else gain


@kernel
def fit_linear(x: Floats, weights: Floats, top: f32, state: Floats, scales: Floats, inverses: Floats) -> None:
    """Scales, and the inverses whose levels they fit (see `raw_level`; NaN for blocks that are all zero).

    One over the inverse is not the scale: levels are chosen with the one, and the other is fitted to them.
    """
    find_extremes(x, state[EXTREME])
    sum_linear(x, weights, top, f32(-top), state)
    for lane in range(LANES):
        cross, power = state[CROSS, lane], state[POWER, lane]
        scales[lane] = f32(cross / power) if power != f32(0.0) else f32(0.0)
        inverses[lane] = state[INVERSE, lane]
        state[GAIN, lane] = f32(scales[lane] * cross)
    for step in range(-9, 10):
        if step != 0:
            sum_linear(x, weights, top, f32(-f32(top + f32(f32(0.1) * f32(step)))), state)
            improve(state, scales, inverses)
    for lane in range(LANES):
        zero, scale, inverse = abs(state[EXTREME, lane]) < LEAST, scales[lane], inverses[lane]
        scales[lane] = f32(0.0) if zero else scale
        inverses[lane] = _NONE if zero else inverse


@kernel
def raw_level(value: f32, inverse: f32, top: f32) -> f32:
    """The level of a value, counted from 0, for an inverse of `fit_linear`. Blocks that are all zero have the lowest."""
    return f32(level_of(f32(inverse * value), top) + top) if inverse == inverse else f32(0.0)


@kernel
def raw_levels(x: Floats, inverses: Floats, top: f32, levels: Bytes) -> None:
    """The levels that `fit_linear` found, counted from 0, into uint8 [values of a block, LANES]."""
    for i in range(x.shape[0]):
        for lane in range(LANES):
            levels[i, lane] = u8(i32(raw_level(x[i, lane], inverses[lane], top)))


@kernel
def start_settling(x: Floats, top: f32, state: Floats, levels: Floats) -> None:
    """The levels that put the extreme on -top, and CROSS and POWER of them."""
    find_extremes(x, state[EXTREME])
    for lane in range(LANES):
        state[INVERSE, lane] = f32(-top / state[EXTREME, lane])
        state[CROSS, lane] = f32(0.0)
        state[POWER, lane] = f32(0.0)
    for i in range(x.shape[0]):
        for lane in range(LANES):
            value, cross, power = x[i, lane], state[CROSS, lane], state[POWER, lane]
            level, weight = level_of(f32(state[INVERSE, lane] * value), top), f32(value * value)
            state[CROSS, lane] = f32(cross + f32(f32(weight * value) * level))
            state[POWER, lane] = f32(power + f32(f32(weight * level) * level))
            levels[i, lane] = level


@kernel
def settle_once(x: Floats, top: f32, state: Floats, levels: Floats) -> i32:
    """Give each value in turn the level that suits the others best; returns how many levels changed."""
    changed = i32(0)
    lowest, highest = i32(-top), i32(top - f32(1.0))
    for i in range(x.shape[0]):
        for lane in range(LANES):
            value, old, cross, power = x[i, lane], levels[i, lane], state[CROSS, lane], state[POWER, lane]
            weight = f32(value * value)
            weighted = f32(weight * value)
            others, others_power = f32(cross - f32(weighted * old)), f32(power - f32(f32(weight * old) * old))
            level = nearest(f32(f32(value * others_power) / others))  # in integers: what is too large wraps as in ggml
            new = f32(min(max(level, lowest), highest))
            new_cross, new_power = f32(others + f32(weighted * new)), f32(others_power + f32(f32(weight * new) * new))
            gained = f32(f32(new_cross * new_cross) * power) > f32(f32(cross * cross) * new_power)
            better = (others > f32(0.0)) & (new != old) & (new_power > f32(0.0)) & gained
            levels[i, lane] = new if better else old
            state[CROSS, lane] = new_cross if better else cross
            state[POWER, lane] = new_power if better else power
            changed = i32(changed + i32(better))  # a sum: LLVM takes no other reduction here
    return changed


@kernel
def settle(x: Floats, top: f32, state: Floats, signed: Floats, scales: Floats, levels: Bytes) -> None:
    """Scales and the levels, counted from 0: the search of Q3_K without importance.

    Lanes that no longer change stay as they are however often they are tried, so all go on until the last is settled.
    `signed` is scratch: float32 [values of a block, LANES].
    """
    start_settling(x, top, state, signed)
    for _ in range(5):
        if settle_once(x, top, state, signed) == i32(0):
            break
    for i in range(x.shape[0]):
        for lane in range(LANES):
            zero, level = abs(state[EXTREME, lane]) < LEAST, u8(i32(f32(signed[i, lane] + top)))
            levels[i, lane] = u8(0) if zero else level
    for lane in range(LANES):
        cross, power = state[CROSS, lane], state[POWER, lane]
        fitted = (power > f32(0.0)) & (abs(state[EXTREME, lane]) >= LEAST)
        scales[lane] = f32(cross / power) if fitted else f32(0.0)
