"""From the fits of a block's sub-blocks to what is stored: small integers with one float16 factor, then the levels.

Shared by Q2_K, Q4_K and Q5_K. Lanes throughout (see `lanes`). Source: make_qp_quants of ggml-quants.c and the
loops around it.
"""

from __future__ import annotations

import numpy as np
from numpy import float32 as f32
from numpy import int32 as i32
from numpy import uint8 as u8

from hubclient.formats.ggml.encoders.lanes import LANES, lanes_like, nearest, place
from hubclient.formats.ggml.encoders.minimum import FACTOR, FLOOR, level_of, trial_level
from hubclient.formats.kernels import Bytes, Floats, kernel

_NO_SCALE = f32(1e-15)  # GROUP_MAX_EPS: scales below it count as zero


@kernel
def share_like() -> Floats:
    """The scratch of `share_scale`."""
    rows: Floats = lanes_like(7)
    return rows


@kernel
def short_level(scaled: f32, top: i32) -> i32:
    """The nearest integer, at most top; below zero it stays."""
    level = nearest(scaled)
    return level if level < top else top


@kernel
def square_error(scales: Floats, weights: Floats, top: i32, mask: i32, factor: Floats, errors: Floats) -> None:
    """Per lane the weighted sum of squared differences between the scales and their levels by `factor`."""
    errors[:] = f32(0.0)
    for i in range(scales.shape[0]):
        for lane in range(LANES):
            scale = scales[i, lane]
            level = i32(short_level(f32(factor[lane] * scale), top) & mask)
            difference = f32(scale - f32(f32(f32(1.0) / factor[lane]) * f32(level)))
            error = f32(f32(weights[i, lane] * difference) * difference)
            errors[lane] = f32(errors[lane] + error)


@kernel
def spread_scales(scales: Floats, weights: Floats, top: i32, factor: Floats, work: Floats) -> None:
    """The factor from scales to levels: the best of nine around top / highest scale. The highest goes to work[0]."""
    highest, trial, least, errors = work[0], work[1], work[2], work[3]
    highest[:] = f32(0.0)
    for i in range(scales.shape[0]):
        for lane in range(LANES):
            scale = scales[i, lane]
            highest[lane] = highest[lane] if highest[lane] > scale else scale
    for lane in range(LANES):
        factor[lane] = f32(f32(top) / highest[lane])
    square_error(scales, weights, top, i32(255), factor, least)  # the reference keeps the levels of this one in bytes
    for step in range(-4, 5):
        if step != 0:
            spread = f32(f32(f32(0.1) * f32(step)) + f32(top))
            for lane in range(LANES):
                trial[lane] = f32(spread / highest[lane])
            square_error(scales, weights, top, i32(-1), trial, errors)
            for lane in range(LANES):
                better = errors[lane] < least[lane]
                factor[lane] = trial[lane] if better else factor[lane]
                least[lane] = errors[lane] if better else least[lane]


@kernel
def improve_level(scales: Floats, weights: Floats, top: i32, levels: Bytes, sum_lx: Floats, sum_ll: Floats) -> None:
    """Move the levels of one row of lanes to what the others ask for, where that lowers the error of the whole."""
    for lane in range(LANES):
        scale, weight, level = scales[lane], weights[lane], f32(levels[lane])
        weighted = f32(weight * scale)
        lx = f32(sum_lx[lane] - f32(weighted * level))
        ll = f32(sum_ll[lane] - f32(f32(weight * level) * level))
        wanted = short_level(f32(f32(scale * ll) / lx), top)
        moved = (lx > f32(0.0)) & (ll > f32(0.0)) & (wanted != i32(levels[lane]))
        lx = f32(lx + f32(weighted * f32(wanted)))
        ll = f32(ll + f32(f32(weight * f32(wanted)) * f32(wanted)))
        better = f32(f32(lx * lx) * sum_ll[lane]) > f32(f32(sum_lx[lane] * sum_lx[lane]) * ll)
        moved = moved & better
        levels[lane] = u8(wanted) if moved else levels[lane]
        sum_lx[lane] = lx if moved else sum_lx[lane]
        sum_ll[lane] = ll if moved else sum_ll[lane]


@kernel
def share_scale(scales: Floats, weights: Floats, top: int, work: Floats, levels: Bytes, shared: Floats) -> None:
    """Levels 0 to `top` and one factor for the scales (or minima) of all sub-blocks of a block.

    `scales` and `weights` are float32 [n, LANES], `work` is from `share_like`, `levels` uint8 [n, LANES]; `shared`, float32
    [LANES], times the levels comes nearest to the scales (make_qp_quants). Scales below zero, which a search can return for
    values that nearly coincide, have levels that wrap around as the reference's unsigned bytes do.
    """
    factor, sum_lx, sum_ll = work[4], work[5], work[6]
    spread_scales(scales, weights, i32(top), factor, work)
    sum_lx[:] = f32(0.0)
    sum_ll[:] = f32(0.0)
    for i in range(scales.shape[0]):
        for lane in range(LANES):
            scale, weight = scales[i, lane], weights[i, lane]
            level = short_level(f32(factor[lane] * scale), i32(top))
            levels[i, lane] = u8(level)
            sum_lx[lane] = f32(sum_lx[lane] + f32(f32(weight * scale) * f32(level)))
            sum_ll[lane] = f32(sum_ll[lane] + f32(f32(weight * f32(level)) * f32(level)))
    for _ in range(5):
        for i in range(scales.shape[0]):
            improve_level(scales[i], weights[i], i32(top), levels[i], sum_lx, sum_ll)
    for lane in range(LANES):
        none = work[0, lane] < _NO_SCALE
        shared[lane] = f32(sum_lx[lane] / sum_ll[lane]) if sum_ll[lane] > f32(0.0) else f32(0.0)
        shared[lane] = f32(0.0) if none else shared[lane]
    for i in range(scales.shape[0]):
        for lane in range(LANES):
            levels[i, lane] = u8(0) if work[0, lane] < _NO_SCALE else levels[i, lane]


@kernel
def weigh(x: Floats, importance: Floats, squares: Floats, weights: Floats, totals: Floats) -> None:
    """Weights of a sub-block, importance * sqrt(squares + x * x), flat float32 [rows * LANES]; their sums to `totals`."""
    totals[:] = f32(0.0)
    for i in range(x.size // LANES):
        for lane in range(LANES):
            at = place(i, lane)
            weights[at] = f32(importance[at] * f32(np.sqrt(f32(squares[lane] + f32(x[at] * x[at])))))
            totals[lane] = f32(totals[lane] + weights[at])


@kernel
def quantise(
    x: Floats, rows: int, top: int, bounded: bool, scale: Floats, minimum: Floats, fits: Floats, j: int, levels: Bytes
) -> None:
    """Levels of sub-block j by the scale and minimum that are stored, float32 [LANES]; where the scale is 0, its fit's.

    `x` is flat float32 [rows * LANES], `levels` flat uint8 of the whole block, where the sub-block's part is filled.
    `bounded` is that of the search.
    """
    factor, floor = fits[FACTOR, j], fits[FLOOR, j]
    for i in range(rows):
        for lane in range(LANES):
            value = x[place(i, lane)]
            stored = level_of(f32(f32(value + minimum[lane]) / scale[lane]), i32(top))
            fitted = trial_level(f32(factor[lane] * f32(value - floor[lane])), i32(top), bounded)
            levels[place(j * rows + i, lane)] = u8(stored if scale[lane] != f32(0.0) else fitted)
