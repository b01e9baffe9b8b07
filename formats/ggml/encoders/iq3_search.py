"""Scales and vectors of IQ3_XXS and IQ3_S: 32 values become eight vectors of four out of a codebook, and one scale.

The reference tries scales step by step. With each it rounds four values to levels, and where the codebook lacks that
combination it takes the neighbour whose weighted distance is least; the scale that explains most of the squares is kept.
From one step to the next most combinations stay the same, and then two searches of one list differ in nothing but the
scale. So the lanes here are the steps: one pass over a list serves WINDOW steps, each with the reference's operations in
the reference's order, beginning with the first step that has the combination. What it finds for steps that have another
one is overwritten by the pass that begins there.

All that a search works on lies in one flat array, the work, in rows at constant distances: LLVM can tell that they do not
overlap. Whatever runs often is a `part`, since each call that is left costs a dozen atomic operations on the counts of
references to its arrays. Source: iq3_find_best_neighbour, quantize_row_iq3_xxs_impl and quantize_row_iq3_s_impl of
ggml-quants.c.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy import float32 as f32
from numpy import int32 as i32
from numpy import uint32 as u32
from numpy import uint64 as u64
from numpy.typing import NDArray

from hubclient.formats.ggml.encoders.lanes import nearest
from hubclient.formats.ggml.encoders.neighbours import Neighbours, neighbours
from hubclient.formats.ggml.encoders.parts import part
from hubclient.formats.kernels import Floats, kernel

STEPS = 32  # lanes: IQ3_XXS has 31 steps, IQ3_S 19
WINDOW = 16  # steps that one pass over a list serves; with 8 LLVM unrolls the loop over them instead of making vectors
_ROW = STEPS + WINDOW  # a window may begin at the last step
_INVERSE, _SCALE, _CROSS, _POWER, _COMBINATION, _FOUND, _DISTANCE = (row * _ROW for row in range(1, 8))
VALUES = 8 * _ROW  # where the 256 values lie, without their signs,
WEIGHTS = VALUES + 256  # and their weights,
_ROOTS = WEIGHTS + 256  # and the square roots of the weights
WORK = _ROOTS + 256
_BATCH = 4  # vectors of a list that are measured together
_BATCH_SIZE = 20  # floats of a batch: the combinations of four vectors, then the vectors


class Book(NamedTuple):
    """A codebook of vectors of four, with a list of vectors for each combination of levels.

    place  int16 [4096]: the place of a combination in the codebook, or -1
    first  int64 [4097]: the list of c lies in lists[first[c] : first[c + 1]]
    lists  float32: batches of four combinations and four times four odd numbers 2 * level + 1. They hold the neighbours
           in their order, or for a combination of the codebook itself; the last vector fills up
    """

    place: NDArray[np.int16]
    first: NDArray[np.int64]
    lists: NDArray[np.float32]


@cache
def book(name: str) -> Book:
    """The codebook IQ3_XXS or IQ3_S, made at the first call."""
    near = neighbours(name)
    counts = np.where(near.place >= 0, 1, np.diff(near.first))
    batches = -(-counts // _BATCH)
    first = np.zeros(counts.size + 1, np.int64)
    np.cumsum(batches, out=first[1:])
    member = np.arange(first[-1] * _BATCH) - np.repeat(first[:-1] * _BATCH, batches * _BATCH)
    places = _listed(near, np.repeat(np.arange(counts.size), batches * _BATCH), member, counts)
    numbers = (near.levels @ 8 ** np.arange(4)).astype(np.float32)
    odd = 2 * near.levels.astype(np.float32) + 1
    lists = np.concatenate([numbers[places].reshape(-1, _BATCH), odd[places].reshape(-1, 4 * _BATCH)], axis=1)
    return Book(near.place, first * _BATCH_SIZE, lists.reshape(-1))


def _listed(near: Neighbours, combination: NDArray[Any], member: NDArray[Any], counts: NDArray[Any]) -> NDArray[Any]:
    """Places of vectors in the codebook: members of the lists of combinations, the last one for those past the end."""
    own = near.place[combination]
    at = near.first[combination] + np.minimum(member, counts[combination] - 1)
    return np.where(own >= 0, own, near.entries[np.minimum(at, near.entries.size - 1)])


@kernel
def _at(row: int, lane: int) -> u64:
    """Where a lane of a row lies in the work; unsigned, since Numba wraps signed indices around."""
    return u64(u64(row) + u64(lane))


@kernel
def _four(array: Floats, i: int) -> tuple[f32, f32, f32, f32]:
    """Four numbers from i on."""
    return array[u64(i)], array[u64(i) + u64(1)], array[u64(i) + u64(2)], array[u64(i) + u64(3)]


@kernel
def _level(inverse: f32, value: f32) -> i32:
    """The level nearest to a value: level l stands for 2 l + 1 times the scale."""
    level = nearest(f32(f32(0.5) * f32(f32(inverse * value) - f32(1.0))))
    return max(i32(0), min(i32(7), level))


@kernel
def _combination(inverse: f32, x: tuple[f32, f32, f32, f32]) -> i32:
    """The number of the combination of levels of four values."""
    low = i32(_level(inverse, x[0]) + i32(_level(inverse, x[1]) << i32(3)))
    return i32(low + i32(i32(_level(inverse, x[2]) << i32(6)) + i32(_level(inverse, x[3]) << i32(9))))


@kernel
def _odd(combination: i32) -> tuple[f32, f32, f32, f32]:
    """What multiplies the scale in a vector, 2 * level + 1."""
    first = f32(i32(i32(i32(combination << i32(1)) & i32(14)) | i32(1)))
    second = f32(i32(i32(i32(combination >> i32(2)) & i32(14)) | i32(1)))
    third = f32(i32(i32(i32(combination >> i32(5)) & i32(14)) | i32(1)))
    return first, second, third, f32(i32(i32(i32(combination >> i32(8)) & i32(14)) | i32(1)))


@kernel
def _square(scale: f32, odd: f32, value: f32, root: f32) -> f32:
    """What one element adds to the distance."""
    apart = f32(f32(scale * odd) - value)
    return f32(f32(root * apart) * apart)


@kernel
def _distance(scale: f32, odd: Any, x: Any, roots: Any) -> f32:
    """The weighted distance of four values from a vector."""
    distance = f32(_square(scale, odd[0], x[0], roots[0]) + _square(scale, odd[1], x[1], roots[1]))
    distance = f32(distance + _square(scale, odd[2], x[2], roots[2]))
    return f32(distance + _square(scale, odd[3], x[3], roots[3]))


@kernel
def _nearest(scale: f32, x: Any, roots: Any, names: Any, a: Any, b: Any, c: Any, d: Any) -> tuple[f32, f32]:
    """The distance and the combination of the nearest of four vectors, the first of equals."""
    least, found = _distance(scale, a, x, roots), names[0]
    distance = _distance(scale, b, x, roots)
    found = names[1] if distance < least else found
    least = distance if distance < least else least
    distance = _distance(scale, c, x, roots)
    found = names[2] if distance < least else found
    least = distance if distance < least else least
    distance = _distance(scale, d, x, roots)
    found = names[3] if distance < least else found
    return distance if distance < least else least, found


@kernel
def _add_cross(cross: f32, odd: Any, x: Any, weights: Any) -> f32:
    """Add weight * value * odd of four values, one by one."""
    cross = f32(f32(cross + f32(f32(weights[0] * x[0]) * odd[0])) + f32(f32(weights[1] * x[1]) * odd[1]))
    return f32(f32(cross + f32(f32(weights[2] * x[2]) * odd[2])) + f32(f32(weights[3] * x[3]) * odd[3]))


@kernel
def _add_power(power: f32, odd: Any, weights: Any) -> f32:
    """Add weight * odd * odd of four values, one by one."""
    power = f32(f32(power + f32(f32(weights[0] * odd[0]) * odd[0])) + f32(f32(weights[1] * odd[1]) * odd[1]))
    return f32(f32(power + f32(f32(weights[2] * odd[2]) * odd[2])) + f32(f32(weights[3] * odd[3]) * odd[3]))


@part
def _batch(lists: Floats, at: int) -> Any:
    """A batch of a list: four combinations, and four vectors."""
    names, a, b = _four(lists, at), _four(lists, at + 4), _four(lists, at + 8)
    c, d = _four(lists, at + 12), _four(lists, at + 16)
    return names, a, b, c, d


@part
def _round(x: Any, steps: int, work: Floats) -> u32:
    """The row of combinations of four values; returns the bits of the steps at which another one begins.

    The step before is rounded once more, since LLVM makes no vectors of a loop that only compares.
    """
    changes = u32(0)
    for lane in range(STEPS):
        combination = _combination(work[_at(_INVERSE, lane)], x)
        other = combination != _combination(work[_at(_INVERSE - 1, lane)], x)
        changes = u32(changes | (u32(u32(1) << u32(lane)) if other else u32(0)))
        work[_at(_COMBINATION, lane)] = f32(combination)
    return u32(u32(changes | u32(1)) & u32(u32(0xFFFFFFFF) >> u32(STEPS - steps)))


@kernel
def _lowest(bits: u32) -> int:
    """The place of the lowest bit, from the exponent of that power of two; STEPS if there is none."""
    power = f32(u32(bits & u32(u32(0) - bits)))
    return int(u32(power.view(np.uint32)) >> u32(23)) - 127 if bits else STEPS


@part
def _search_window(begin: int, at: int, end: int, x: Any, roots: Any, lists: Floats, work: Floats) -> None:
    """For WINDOW steps from `begin` on, the nearest vector in the list from `at` to `end`, the first of equals."""
    names, a, b, c, d = _batch(lists, at)
    for lane in range(WINDOW):
        distance, name = _nearest(work[_at(_SCALE, begin + lane)], x, roots, names, a, b, c, d)
        work[_at(_DISTANCE, begin + lane)] = distance
        work[_at(_FOUND, begin + lane)] = name
    for more in range(at + _BATCH_SIZE, end, _BATCH_SIZE):
        names, a, b, c, d = _batch(lists, more)
        for lane in range(WINDOW):
            distance, name = _nearest(work[_at(_SCALE, begin + lane)], x, roots, names, a, b, c, d)
            least, found = work[_at(_DISTANCE, begin + lane)], work[_at(_FOUND, begin + lane)]
            work[_at(_DISTANCE, begin + lane)] = distance if distance < least else least
            work[_at(_FOUND, begin + lane)] = name if distance < least else found


@part
def _search_steps(i: int, steps: int, first: Any, lists: Floats, work: Floats) -> None:
    """The row of what is found with every step for the four values from i on."""
    x, roots = _four(work, VALUES + i), _four(work, _ROOTS + i)
    changes = _round(x, steps, work)
    while changes:
        start = _lowest(changes)
        changes = u32(changes & u32(changes - u32(1)))
        end = min(_lowest(changes), steps)
        combination = u32(work[_at(_COMBINATION, start)])
        for begin in range(start, end, WINDOW):
            _search_window(begin, first[combination], first[combination + u32(1)], x, roots, lists, work)


@part
def _add_four(i: int, work: Floats, k: int, found: Any) -> None:
    """Add what the four values from i on give to the sums of every step; keep the vectors in row k of int16 [8, STEPS]."""
    x, weights = _four(work, VALUES + i), _four(work, WEIGHTS + i)
    for lane in range(STEPS):
        combination = i32(work[_at(_FOUND, lane)])
        cross, power = work[_at(_CROSS, lane)], work[_at(_POWER, lane)]
        odd = _odd(combination)
        work[_at(_CROSS, lane)] = _add_cross(cross, odd, x, weights)
        work[_at(_POWER, lane)] = _add_power(power, odd, weights)
        found[k, lane] = np.int16(combination)


@part
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


@part
def _best_step(steps: int, work: Floats) -> int:
    """The step that explains most; -1 if none explains anything."""
    best, chosen = f32(0.0), -1
    for step in range(steps):
        cross, power = work[_at(_CROSS, step)], work[_at(_POWER, step)]
        if power > f32(0.0) and f32(cross * cross) > f32(best * power):
            best, chosen = f32(f32(cross / power) * cross), step
    return chosen


@part
def _search_again(r: int, scale: f32, kept: int, first: Any, lists: Floats, work: Floats, chosen: Any) -> f32:
    """Vectors of run r at the scale found, but for those in the bits of `kept`; returns the scale that then suits best."""
    inverse, cross, power = f32(f32(1.0) / scale), f32(0.0), f32(0.0)
    for k in range(8):
        i = 32 * r + 4 * k
        x, roots, weights = _four(work, VALUES + i), _four(work, _ROOTS + i), _four(work, WEIGHTS + i)
        if not kept & (1 << k):
            combination = _combination(inverse, x)
            least = f32(np.inf)
            for at in range(first[combination], first[combination + 1], _BATCH_SIZE):
                names, a, b, c, d = _batch(lists, at)
                distance, name = _nearest(scale, x, roots, names, a, b, c, d)
                chosen[r, k] = np.int16(name) if distance < least else chosen[r, k]
                least = min(distance, least)
        odd = _odd(i32(chosen[r, k]))
        cross = _add_cross(cross, odd, x, weights)
        power = _add_power(power, odd, weights)
    return f32(cross / power) if power > f32(0.0) else scale


@part
def _take_best(r: int, step: int, place: Any, work: Floats, found: Any, chosen: Any) -> int:
    """Take the vectors of a step; returns the bits of those that were combinations of the codebook."""
    kept = 0
    for k in range(8):
        chosen[r, k] = found[k, step]
        combination = _combination(work[_at(_INVERSE, step)], _four(work, VALUES + 32 * r + 4 * k))
        kept |= int(place[combination] >= 0) << k
    return kept


@part
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
