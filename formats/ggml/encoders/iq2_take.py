"""What IQ2_XXS, IQ2_XS and IQ2_S start with: elements in lanes, their weights, and their signs taken off.

The weight of an element is its importance times sqrt(mean square of the block + its square); IQ2_S takes twice that mean
and, without importance, a quarter of it plus the square. A lane (see `lanes`) is a sub-block, so 8 or 16 share a block.
"""

from __future__ import annotations

import numpy as np
from numpy import float32 as f32
from numpy import uint32 as u32

from hubclient.formats.ggml.encoders.iq2_fit import Parts
from hubclient.formats.ggml.encoders.lanes import LANES, importance_to_lanes, place, to_lanes
from hubclient.formats.ggml.encoders.scales import share_scale
from hubclient.formats.kernels import Bytes, Floats, Words, kernel


@kernel
def _squares(values: Floats, first: int, per_block: int, times: f32, squares: Floats) -> None:
    """Per lane `times` the mean square of its block; `first` is a lane's number, and `per_block` of them share a block."""
    start, last = first // per_block, values.shape[0] - 1
    for lane in range(LANES):
        squares[lane] = f32(0.0)
    for i in range(256):
        for b in range(LANES // per_block):
            value = values[min(start + b, last), i]
            squares[b] = f32(squares[b] + f32(value * value))
    for lane in range(LANES - 1, -1, -1):
        squares[lane] = f32(f32(times * squares[lane // per_block]) / f32(256.0))


@kernel
def _weigh(x: Floats, squares: Floats, weights: Floats) -> None:
    """From importance, flat float32 [rows * LANES], to weights: importance * sqrt(squares + x * x)."""
    for i in range(x.size // LANES):
        for lane in range(LANES):
            at = place(i, lane)
            weights[at] = f32(weights[at] * f32(np.sqrt(f32(squares[lane] + f32(x[at] * x[at])))))


@kernel
def _weigh_evenly(x: Floats, squares: Floats, weights: Floats) -> None:
    """The weights of IQ2_S without importance, flat float32 [rows * LANES]."""
    for i in range(x.size // LANES):
        for lane in range(LANES):
            at = place(i, lane)
            weights[at] = f32(f32(f32(0.25) * squares[lane]) + f32(x[at] * x[at]))


@kernel
def _split_signs(x: Floats, signs: Words) -> None:
    """Take the signs off a group, flat float32 [8 * LANES]; they go to uint32 [LANES], a bit each."""
    for lane in range(LANES):
        bits = u32(0)
        for i in range(8):
            value = x[place(i, lane)]
            below = not (value >= f32(0.0))
            bits = u32(bits | u32(1 << i)) if below else bits
            x[place(i, lane)] = f32(-value) if below else value
        signs[lane] = bits


@kernel
def _even_signs(x: Floats, weights: Floats, signs: Words) -> None:
    """Where a group has an odd number of minus signs, turn that of the element that matters least; keep seven bits."""
    for lane in range(LANES):
        least, which = f32(np.inf), u32(0)
        for i in range(8):
            value = x[place(i, lane)]
            matter = f32(f32(weights[place(i, lane)] * value) * value)
            which = u32(i) if matter < least else which
            least = matter if matter < least else least
        bits = signs[lane]
        parity = u32(bits ^ u32(bits >> u32(4)))
        parity = u32(parity ^ u32(parity >> u32(2)))
        parity = u32(u32(parity ^ u32(parity >> u32(1))) & u32(1))
        signs[lane] = u32(u32(bits ^ u32(parity << which)) & u32(127))
        which = which if parity else u32(8)
        for i in range(8):
            value = x[place(i, lane)]
            x[place(i, lane)] = f32(-value) if which == u32(i) else value


@kernel
def _highest(x: Floats, tiny: f32, highest: Floats, scales: Floats) -> None:
    """The largest element per lane of flat float32 [rows * LANES], 0.0 if it is below `tiny`, and a fifth of it."""
    for lane in range(LANES):
        largest = x[place(0, lane)]
        for i in range(1, x.size // LANES):
            largest = largest if largest > x[place(i, lane)] else x[place(i, lane)]
        largest = largest if largest >= tiny else f32(0.0)
        highest[lane], scales[lane] = largest, f32(largest / f32(5.0))


@kernel
def _take(values: Floats, importance: Floats, first: int, t: int, times: f32, even: bool, parts: Parts) -> None:
    """Elements, signs and weights of LANES sub-blocks from number `first` on.

    `times` the mean square of a block enters the weights; no importance, float32 [0, 256], only for IQ2_S; `even` is for
    blocks that store seven of eight signs.
    """
    x, weights, scales = parts.x[t], parts.weights[t], parts.scales[t]
    groups = x.shape[0]
    subs = values.reshape(-1, 8 * groups)
    to_lanes(subs, first, x.reshape(-1, LANES))
    _squares(values, first, 32 // groups, times, scales)
    if importance.shape[0] > 0:
        importance_to_lanes(importance.reshape(-1, 8 * groups), first, subs.shape[0], weights.reshape(-1, LANES))
        _weigh(x.reshape(-1), scales, weights.reshape(-1))
    else:
        _weigh_evenly(x.reshape(-1), scales, weights.reshape(-1))
    for g in range(groups):
        _split_signs(x[g], parts.signs[t, g])
        if even:
            _even_signs(x[g], weights[g], parts.signs[t, g])


@kernel
def take_all(values: Floats, importance: Floats, first: int, lanes: int, times: f32, even: bool, tiny: f32, parts: Parts) -> None:
    """Fill in `lanes` sub-blocks from number `first` on; level 5 stands for the largest element at first.

    Sub-blocks whose largest element is below `tiny` count as zero. For `times` and `even` see `_take`.
    """
    for t in range((lanes + LANES - 1) // LANES):
        _take(values, importance, first + t * LANES, t, times, even, parts)
        _highest(parts.x[t].reshape(-1), tiny, parts.highest[t], parts.scales[t])


@kernel
def take_all_xxs(values: Floats, importance: Floats, first: int, lanes: int, work: Floats, levels: Bytes, parts: Parts) -> None:
    """The same for IQ2_XXS, where level 3 stands for a third of what the levels 0 to 4 would, fitted freely."""
    for t in range((lanes + LANES - 1) // LANES):
        _take(values, importance, first + t * LANES, t, f32(1.0), True, parts)
        highest, scales = parts.highest[t], parts.scales[t]
        share_scale(parts.x[t].reshape(-1, LANES), parts.weights[t].reshape(-1, LANES), 4, work, levels, scales)
        for lane in range(LANES):
            highest[lane] = f32(scales[lane] * f32(3.0))
