"""The search for scale and minimum of a sub-block, which Q2_K, Q4_K and Q5_K share; with and without importance.

Lanes throughout (see `lanes`). Source: make_qkx2_quants and make_qkx3_quants of ggml-quants.c, which differ in little but
their parameters once the weights are given (ggml 0.25.3; before, the second rounded as the first does).
"""

from __future__ import annotations

import numpy as np
from numpy import float32 as f32
from numpy import int32 as i32

from hubclient.formats.ggml.encoders.lanes import LANES, STRIDE, lanes_like, nearest, place
from hubclient.formats.kernels import Floats, kernel

# Planes of the fits, float32 [FIT, n, LANES]: what the search finds for the n sub-blocks of each lane's block.
SCALE = 0  # scales and minima come first, which the encoders treat alike
MINIMUM = 1  # what is taken away from scale times level: not below zero
FACTOR = 2  # the levels that go with them are those of FACTOR * (x - FLOOR): by `trial_level`
FLOOR = 3
FIT = 4

# Where the rows of the search's scratch start. It is flat and one array: LLVM has little to compare at run time then.
_SCALE, _FACTOR, _FLOOR, _ERROR = (row * LANES for row in range(4))  # the best fit so far
_LOW, _HIGH = 4 * LANES, 5 * LANES  # the lowest value, as improved so far, and the highest
_WEIGHT, _LINEAR = 6 * LANES, 7 * LANES  # sums of weight and of weight * value
_TRIAL, _TRIAL_SCALE, _TRIAL_LOW, _TRIAL_ERROR = (row * LANES for row in range(8, 12))  # factor on trial, what comes of it
_ONE, _TWO, _CROSS = (row * LANES for row in range(12, 15))  # weighted sums over its levels: of l, l * l, l * value
_ROWS = 15

_INFINITY = f32(np.inf)


@kernel
def search_like() -> Floats:
    """The scratch of `search`."""
    rows: Floats = lanes_like(_ROWS)
    return rows.reshape(-1)


@kernel
def fits_like(parts: int) -> Floats:
    """Uninitialised fits of blocks with so many sub-blocks."""
    return np.empty((FIT, parts, LANES), np.float32)


@kernel
def level_of(scaled: f32, top: i32) -> i32:
    """The nearest integer, kept within 0 to top."""
    level = nearest(scaled)
    level = level if level > i32(0) else i32(0)
    return level if level < top else top


@kernel
def trial_level(scaled: f32, top: i32, bounded: bool) -> i32:
    """As `level_of`; or, `bounded`, kept within before it is rounded, which differs for numbers that `nearest` wraps."""
    within = scaled if scaled > f32(0.0) else f32(0.0)
    level: i32 = nearest(within if within < f32(top) else f32(top)) if bounded else level_of(scaled, top)
    return level


@kernel
def survey(x: Floats, weights: Floats, rows: int, work: Floats) -> None:
    """Per lane the lowest value (zero at most), the highest, and the sums of weight and of weight times value."""
    for lane in range(LANES):
        work[_LOW + lane] = work[_HIGH + lane] = x[lane]
        work[_WEIGHT + lane] = weights[lane]
        work[_LINEAR + lane] = f32(weights[lane] * x[lane])
    for i in range(1, rows):
        for lane in range(LANES):
            value, weight = x[place(i, lane)], weights[place(i, lane)]
            low, high = work[_LOW + lane], work[_HIGH + lane]
            work[_LOW + lane] = value if value < low else low
            work[_HIGH + lane] = value if value > high else high
            work[_WEIGHT + lane] = f32(work[_WEIGHT + lane] + weight)
            work[_LINEAR + lane] = f32(work[_LINEAR + lane] + f32(weight * value))
    for lane in range(LANES):
        low = work[_LOW + lane]
        work[_LOW + lane] = f32(0.0) if low > f32(0.0) else low


@kernel
def assign(x: Floats, weights: Floats, rows: int, top: i32, bounded: bool, work: Floats, levels: Floats) -> None:
    """Levels by the factor on trial, and their weighted sums."""
    for lane in range(LANES):
        work[_ONE + lane] = work[_TWO + lane] = work[_CROSS + lane] = f32(0.0)
    for base in range(0, rows, STRIDE):
        for lane in range(LANES):
            factor, low = work[_TRIAL + lane], work[_LOW + lane]
            one, two, cross = work[_ONE + lane], work[_TWO + lane], work[_CROSS + lane]
            for k in range(STRIDE):
                at = place(base + k, lane)
                scaled = f32(factor * f32(x[at] - low))
                level = f32(trial_level(scaled, top, bounded))
                levels[at] = level
                weighted = f32(weights[at] * level)
                one = f32(one + weighted)
                two = f32(two + f32(weighted * level))
                cross = f32(cross + f32(weighted * x[at]))
            work[_ONE + lane] = one
            work[_TWO + lane] = two
            work[_CROSS + lane] = cross


@kernel
def judge(x: Floats, weights: Floats, rows: int, absolute: bool, work: Floats, levels: Floats) -> None:
    """The weighted sum of squared (or absolute) differences that scale and lowest value on trial leave."""
    for lane in range(LANES):
        work[_TRIAL_ERROR + lane] = f32(0.0)
    for base in range(0, rows, STRIDE):
        for lane in range(LANES):
            scale, low = work[_TRIAL_SCALE + lane], work[_TRIAL_LOW + lane]
            error = work[_TRIAL_ERROR + lane]
            for k in range(STRIDE):
                at = place(base + k, lane)
                difference = f32(f32(f32(scale * levels[at]) + low) - x[at])
                cost = abs(difference) if absolute else f32(difference * difference)
                error = f32(error + f32(weights[at] * cost))
            work[_TRIAL_ERROR + lane] = error


@kernel
def solve(work: Floats) -> None:
    """Scale and lowest value (zero at most) on trial: the least squares for the levels on trial, if these determine them."""
    for lane in range(LANES):
        weight, linear = work[_WEIGHT + lane], work[_LINEAR + lane]
        one, two, cross = work[_ONE + lane], work[_TWO + lane], work[_CROSS + lane]
        determinant = f32(f32(weight * two) - f32(one * one))
        scale = f32(f32(f32(weight * cross) - f32(linear * one)) / determinant)
        low = f32(f32(f32(two * linear) - f32(one * cross)) / determinant)
        work[_TRIAL_SCALE + lane] = f32(cross / two) if low > f32(0.0) else scale
        work[_TRIAL_LOW + lane] = f32(0.0) if low > f32(0.0) else low


@kernel
def keep(work: Floats) -> None:
    """Where a determined trial has the least error so far, it becomes the fit, and its lowest value that of later trials."""
    for lane in range(LANES):
        one, low = work[_ONE + lane], work[_LOW + lane]
        determined = f32(f32(work[_WEIGHT + lane] * work[_TWO + lane]) - f32(one * one)) > f32(0.0)
        better = determined & (work[_TRIAL_ERROR + lane] < work[_ERROR + lane])
        work[_ERROR + lane] = work[_TRIAL_ERROR + lane] if better else work[_ERROR + lane]
        work[_SCALE + lane] = work[_TRIAL_SCALE + lane] if better else work[_SCALE + lane]
        work[_FACTOR + lane] = work[_TRIAL + lane] if better else work[_FACTOR + lane]
        work[_FLOOR + lane] = low if better else work[_FLOOR + lane]
        work[_LOW + lane] = work[_TRIAL_LOW + lane] if better else low


@kernel
def open_trial(work: Floats) -> None:
    """The first trial: levels spread from the lowest to the highest value, hence within their bounds however they round."""
    for lane in range(LANES):
        work[_TRIAL_SCALE + lane] = f32(f32(1.0) / work[_TRIAL + lane])
        work[_TRIAL_LOW + lane] = work[_LOW + lane]


@kernel
def open_fit(work: Floats) -> None:
    """The first trial becomes the fit. Lanes without a spread are settled: scale 0, and no error is less than theirs."""
    for lane in range(LANES):
        flat = work[_HIGH + lane] == work[_LOW + lane]
        work[_ERROR + lane] = -_INFINITY if flat else work[_TRIAL_ERROR + lane]
        work[_SCALE + lane] = f32(0.0) if flat else work[_TRIAL_SCALE + lane]
        factor = work[_TRIAL + lane]  # not finite for a spread of denormals, whose levels are all 0 then
        work[_FACTOR + lane] = factor if factor < _INFINITY else f32(0.0)
        work[_FLOOR + lane] = work[_LOW + lane]


@kernel
def spread(levels: f32, work: Floats) -> None:
    """The factor on trial: so many levels between the lowest and the highest value."""
    for lane in range(LANES):
        work[_TRIAL + lane] = f32(levels / f32(work[_HIGH + lane] - work[_LOW + lane]))


@kernel
def search(
    x: Floats,
    weights: Floats,
    rows: int,
    top: int,
    start: float,
    step: float,
    steps: int,
    absolute: bool,
    bounded: bool,
    work: Floats,
    levels: Floats,
    fits: Floats,
    j: int,
) -> None:
    """Scale and minimum of levels 0 to `top` for the sub-block of each lane, into [:, j] of the fits.

    `x`, `weights` and the scratch `levels` are flat float32 [rows * LANES], `work` is from `search_like`. Trials spread
    top + start + step * (0 to steps) levels over the values. One that wins moves the lowest value from which the later
    ones spread theirs. The error is of squares, or of absolute differences. `bounded` says how trials round, which shows
    only where sums lost all their digits: with importance (make_qkx3_quants) they keep within 0 to top first.
    """
    survey(x, weights, rows, work)
    spread(f32(top), work)
    assign(x, weights, rows, i32(top), bounded, work, levels)
    open_trial(work)
    judge(x, weights, rows, absolute, work, levels)
    open_fit(work)
    for trial in range(steps + 1):
        spread(f32(f32(f32(start) + f32(f32(step) * f32(trial))) + f32(top)), work)
        assign(x, weights, rows, i32(top), bounded, work, levels)
        solve(work)
        judge(x, weights, rows, absolute, work, levels)
        keep(work)
    for lane in range(LANES):
        fits[SCALE, j, lane] = work[_SCALE + lane]
        fits[MINIMUM, j, lane] = f32(-work[_LOW + lane])
        fits[FACTOR, j, lane] = work[_FACTOR + lane]
        fits[FLOOR, j, lane] = work[_FLOOR + lane]
