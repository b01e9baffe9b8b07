"""Scales and vectors of IQ3_XXS and IQ3_S: 32 values become eight vectors of four out of a codebook, and one scale.

The reference tries scales step by step. With each it rounds four values to levels, and where the codebook lacks that
combination it takes the neighbour whose weighted distance is least; the scale that explains most of the squares is kept.
From one step to the next most combinations stay the same, and then two searches of one list differ in nothing but the
scale. So the lanes here are the steps: one pass over a list serves WINDOW steps, each with the reference's operations in
the reference's order, beginning with the first step that has the combination. What it finds for steps that have another
one is overwritten by the pass that begins there.

All that a search works on lies in one flat array, the work, in rows at constant distances: LLVM can tell that they do not
overlap. Whatever runs often is a `inlined`, since each call that is left costs a dozen atomic operations on the counts of
references to its arrays. Source: iq3_find_best_neighbour, quantize_row_iq3_xxs_impl and quantize_row_iq3_s_impl of
ggml-quants.c.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy import float32 as f32
from numpy import int32 as i32
from numpy import uint32 as u32
from numpy import uint64 as u64

from hubclient.formats.ggml.encoders.inlining import inlined
from hubclient.formats.ggml.encoders.iq3_vectors import (
    BATCH,
    Book,
    add_cross,
    add_power,
    batch_of,
    combination_of,
    four,
    nearest_of,
    odd_numbers,
)
from hubclient.formats.kernels import Floats, kernel

STEPS = 32  # lanes: IQ3_XXS has 31 steps, IQ3_S 19
WINDOW = 16  # steps that one pass over a list serves; with 8 LLVM unrolls the loop over them instead of making vectors
_ROW = STEPS + WINDOW  # a window may begin at the last step
_INVERSE, _SCALE, _CROSS, _POWER, _COMBINATION, _FOUND, _DISTANCE = (row * _ROW for row in range(1, 8))
VALUES = 8 * _ROW  # where the 256 values lie, without their signs,
WEIGHTS = VALUES + 256  # and their weights,
_ROOTS = WEIGHTS + 256  # and the square roots of the weights
WORK = _ROOTS + 256


@kernel
def _at(row: int, lane: int) -> u64:
    """Where a lane of a row lies in the work; unsigned, since Numba wraps signed indices around."""
    return u64(u64(row) + u64(lane))


@inlined
def _round(x: Any, steps: int, work: Floats) -> u32:
    """The row of combinations of four values; returns the bits of the steps at which another one begins.

    The step before is rounded once more, since LLVM makes no vectors of a loop that only compares.
    """
    changes = u32(0)
    for lane in range(STEPS):
        combination = combination_of(work[_at(_INVERSE, lane)], x)
        other = combination != combination_of(work[_at(_INVERSE - 1, lane)], x)
        changes = u32(changes | (u32(u32(1) << u32(lane)) if other else u32(0)))
        work[_at(_COMBINATION, lane)] = f32(combination)
    return u32(u32(changes | u32(1)) & u32(u32(0xFFFFFFFF) >> u32(STEPS - steps)))


@kernel
def _lowest(bits: u32) -> int:
    """The place of the lowest bit, from the exponent of that power of two; STEPS if there is none."""
    power = f32(u32(bits & u32(u32(0) - bits)))
    return int(u32(power.view(np.uint32)) >> u32(23)) - 127 if bits else STEPS


@inlined
def _search_window(begin: int, at: int, end: int, x: Any, roots: Any, lists: Floats, work: Floats) -> None:
    """For WINDOW steps from `begin` on, the nearest vector in the list from `at` to `end`, the first of equals."""
    names, a, b, c, d = batch_of(lists, at)
    for lane in range(WINDOW):
        distance, name = nearest_of(work[_at(_SCALE, begin + lane)], x, roots, names, a, b, c, d)
        work[_at(_DISTANCE, begin + lane)] = distance
        work[_at(_FOUND, begin + lane)] = name
    for more in range(at + BATCH, end, BATCH):
        names, a, b, c, d = batch_of(lists, more)
        for lane in range(WINDOW):
            distance, name = nearest_of(work[_at(_SCALE, begin + lane)], x, roots, names, a, b, c, d)
            least, found = work[_at(_DISTANCE, begin + lane)], work[_at(_FOUND, begin + lane)]
            work[_at(_DISTANCE, begin + lane)] = distance if distance < least else least
            work[_at(_FOUND, begin + lane)] = name if distance < least else found


@inlined
def _search_steps(i: int, steps: int, first: Any, lists: Floats, work: Floats) -> None:
    """The row of what is found with every step for the four values from i on."""
    x, roots = four(work, VALUES + i), four(work, _ROOTS + i)
    changes = _round(x, steps, work)
    while changes:
        start = _lowest(changes)
        changes = u32(changes & u32(changes - u32(1)))
        end = min(_lowest(changes), steps)
        combination = u32(work[_at(_COMBINATION, start)])
        for begin in range(start, end, WINDOW):
            _search_window(begin, first[combination], first[combination + u32(1)], x, roots, lists, work)


@inlined
def _add_four(i: int, work: Floats, k: int, found: Any) -> None:
    """Add what the four values from i on give to the sums of every step; keep the vectors in row k of int16 [8, STEPS]."""
    x, weights = four(work, VALUES + i), four(work, WEIGHTS + i)
    for lane in range(STEPS):
        combination = i32(work[_at(_FOUND, lane)])
        cross, power = work[_at(_CROSS, lane)], work[_at(_POWER, lane)]
        odd = odd_numbers(combination)
        work[_at(_CROSS, lane)] = add_cross(cross, odd, x, weights)
        work[_at(_POWER, lane)] = add_power(power, odd, weights)
        found[k, lane] = np.int16(combination)


@inlined
def _try_steps(r: int, steps: int, largest: f32, first: Any, lists: Floats, work: Floats, found: Any) -> None:
    """Vectors of run r with all steps, and the sums that tell how well each step fits."""
    for lane in range(STEPS):
        inverse = f32(f32(f32(15.0) + f32(f32(i32(i32(lane) - i32(steps // 2))) * f32(0.2))) / largest)
        work[_at(_INVERSE, lane)] = inverse
        work[_at(_SCALE, lane)] = f32(f32(1.0) / inverse)
        work[_at(_CROSS, lane)] = f32(0.0)
        work[_at(_POWER, lane)] = f32(0.0)
    for k in range(8):
        _search_steps(32 * r + 4 * k, steps, first, lists, work)
        _add_four(32 * r + 4 * k, work, k, found)


@inlined
def _best_step(steps: int, work: Floats) -> int:
    """The step that explains most; -1 if none explains anything."""
    best, chosen = f32(0.0), -1
    for step in range(steps):
        cross, power = work[_at(_CROSS, step)], work[_at(_POWER, step)]
        if power > f32(0.0) and f32(cross * cross) > f32(best * power):
            best, chosen = f32(f32(cross / power) * cross), step
    return chosen


@inlined
def _search_again(r: int, scale: f32, kept: int, first: Any, lists: Floats, work: Floats, chosen: Any) -> f32:
    """Vectors of run r at the scale found, but for those in the bits of `kept`; returns the scale that then suits best."""
    inverse, cross, power = f32(f32(1.0) / scale), f32(0.0), f32(0.0)
    for k in range(8):
        i = 32 * r + 4 * k
        x, roots, weights = four(work, VALUES + i), four(work, _ROOTS + i), four(work, WEIGHTS + i)
        if not kept & (1 << k):
            combination = combination_of(inverse, x)
            least = f32(np.inf)
            for at in range(first[combination], first[combination + 1], BATCH):
                names, a, b, c, d = batch_of(lists, at)
                distance, name = nearest_of(scale, x, roots, names, a, b, c, d)
                chosen[r, k] = np.int16(name) if distance < least else chosen[r, k]
                least = min(distance, least)
        odd = odd_numbers(i32(chosen[r, k]))
        cross = add_cross(cross, odd, x, weights)
        power = add_power(power, odd, weights)
    return f32(cross / power) if power > f32(0.0) else scale


@inlined
def _take_best(r: int, step: int, place: Any, work: Floats, found: Any, chosen: Any) -> int:
    """Take the vectors of a step; returns the bits of those that were combinations of the codebook."""
    kept = 0
    for k in range(8):
        chosen[r, k] = found[k, step]
        combination = combination_of(work[_at(_INVERSE, step)], four(work, VALUES + 32 * r + 4 * k))
        kept |= int(place[combination] >= 0) << k
    return kept


@inlined
def _search_run(r: int, steps: int, keeps: bool, largest: f32, book: Any, work: Floats, found: Any, chosen: Any) -> f32:
    """The scale of run r, and its vectors."""
    place, first, lists = book
    _try_steps(r, steps, largest, first, lists, work, found)
    step, scale, kept = _best_step(steps, work), f32(largest / f32(15.0)), 255 if keeps else 0
    if step >= 0:
        scale = f32(work[_at(_CROSS, step)] / work[_at(_POWER, step)])
        kept = _take_best(r, step, place, work, found, chosen)
    if kept != 255 and scale > f32(0.0):
        scale = _search_again(r, scale, kept if keeps else 0, first, lists, work, chosen)
    return scale


@kernel
def search(steps: int, keeps: bool, least: f32, book: Book, work: Floats, found: Any, scales: Floats, chosen: Any) -> None:
    """Scales and vectors of the eight runs of a block.

    steps   how many scales are tried: an odd number
    keeps   when some vectors were no combinations of the codebook and are searched again, the others stay as they are
    least   runs without a value of this size are all zero
    work    float32 [WORK] with values and weights, and finite numbers everywhere else
    found   scratch: int16 [8, STEPS]
    scales  float32 [8]: receives the scales, which may be below zero; 0 for runs that are all zero
    chosen  int16 [8, 8]: receives vectors, as combinations; -1 for runs that are all zero
    """
    for i in range(256):
        work[_ROOTS + i] = f32(np.sqrt(work[WEIGHTS + i]))
    for r in range(8):
        largest = work[VALUES + 32 * r]
        for i in range(32 * r, 32 * r + 32):
            largest = largest if largest > work[VALUES + i] else work[VALUES + i]
        zero = largest < least
        chosen[r, :] = np.int16(-1 if zero else 0)
        scales[r] = f32(0.0)
        if not zero:
            scales[r] = _search_run(r, steps, keeps, largest, book, work, found, chosen)
