"""The search for the vectors of an IQ2 codebook that stand for eight elements each, with the choices of ggml.

At scale s the reference takes, of the neighbours of the rounded levels, the first with the least sum of w (s q - x)^2,
with q from 1 3 5 and w the square root of the weight. It does so anew for each scale it tries. Divided by s^2 and
without the term that all share, that is A - 2 B / s with A = sum(w q^2) and B = sum(w x q): one straight line per
neighbour over r = 1 / s. Hence two short cuts, neither of which changes a choice:

* A and B of a vector are two numbers from tables of its first and its last four levels, and serve all scales at which
  the elements round to the same levels.
* The distance between two lines changes evenly, so a neighbour that is best at two scales is best in between.

Both hold for sums without rounding errors. With E = 25 sum(w) + r^2 sum(w x^2), which no sum here exceeds, and u = 2^-24,
the reference's own errors come to less than 52 u E between two neighbours and those of the lines to less than 28 u E. A
neighbour that wins by 128 u E is therefore the reference's choice, at the scale or, since E is convex in r, between two
scales. All that come closer are measured with the reference's own operations, in its order; so are all neighbours where
numbers are so large or small that overflow or denormals could spoil the bounds.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy import float32 as f32
from numpy import int32 as i32
from numpy.typing import NDArray

from hubclient.formats.ggml.encoders.iq2_book import Book, Desk
from hubclient.formats.ggml.encoders.lanes import LANES, place
from hubclient.formats.kernels import kernel

_CLOSE = f32(2.0**-17)  # 128 units in the last place
_LARGEST = f32(np.finfo(np.float32).max)


class Group(NamedTuple):
    """Groups of eight elements, one per lane.

    x        float32 [8 * LANES]: the elements, eight rows of lanes (see `place` of `lanes`)
    roots    float32 [8 * LANES]: w, the square roots of their weights
    weights  float32 [LANES]: sum(w)
    energy   float32 [LANES]: sum(w x^2)
    """

    x: NDArray[np.float32]
    roots: NDArray[np.float32]
    weights: NDArray[np.float32]
    energy: NDArray[np.float32]


class Trials(NamedTuple):
    """Scales to be tried per lane, in descending order, and what is chosen at them.

    factors       float32 [steps, LANES]: 1 / scale
    scales        float32 [steps, LANES]
    combinations  int32 [steps or more, LANES]: what the group rounds to, as the number of a combination
    chosen        int16 [steps, LANES]: receives places in the codebook
    """

    factors: NDArray[np.float32]
    scales: NDArray[np.float32]
    combinations: NDArray[np.int32]
    chosen: NDArray[np.int16]


@kernel
def _fill(table: Any, first: f32, second: f32, third: f32, fourth: f32, square: bool) -> None:
    """Fill in a table: sums of four numbers, each times 1 3 5 or, with `square`, 1 9 25."""
    middle, top = f32(9.0) if square else f32(3.0), f32(25.0) if square else f32(5.0)
    third_middle, third_top = f32(third * middle), f32(third * top)
    fourth_middle, fourth_top = f32(fourth * middle), f32(fourth * top)
    for j in range(16):
        low, high = f32(i32(i32(j & 3) * i32(2)) + i32(1)), f32(i32(i32(j >> 2) * i32(2)) + i32(1))
        two = f32(f32(first * (f32(low * low) if square else low)) + f32(second * (f32(high * high) if square else high)))
        three = f32(two + third)
        table[j], table[48 + j], table[96 + j] = f32(three + fourth), f32(three + fourth_middle), f32(three + fourth_top)
        three = f32(two + third_middle)
        table[16 + j], table[64 + j], table[112 + j] = f32(three + fourth), f32(three + fourth_middle), f32(three + fourth_top)
        three = f32(two + third_top)
        table[32 + j], table[80 + j], table[128 + j] = f32(three + fourth), f32(three + fourth_middle), f32(three + fourth_top)


@kernel
def _lay_out(x: Any, roots: Any, lane: int, tables: Any) -> None:
    """Fill in the tables for the group of a lane."""
    for half in range(2):
        i, j, k, m = place(4 * half, lane), place(4 * half + 1, lane), place(4 * half + 2, lane), place(4 * half + 3, lane)
        _fill(tables[0, half], roots[i], roots[j], roots[k], roots[m], True)
        first, second, third, fourth = f32(roots[i] * x[i]), f32(roots[j] * x[j]), f32(roots[k] * x[k]), f32(roots[m] * x[m])
        _fill(tables[1, half], first, second, third, fourth, False)


@kernel
def _draw(heads: Any, tails: Any, start: int, count: int, tables: Any, lines: Any) -> None:
    """Compute the lines of a list."""
    for n in range(count):
        head, tail = heads[start + n], tails[start + n]
        lines[0, n] = f32(tables[0, 0, head] + tables[0, 1, tail])
        lines[1, n] = f32(tables[1, 0, head] + tables[1, 1, tail])


@kernel
def _ordered(value: f32) -> i32:
    """An integer that orders floats as their values are ordered: LLVM makes vector code of a search for the least."""
    bits = f32(value).view(np.int32)
    return i32(bits ^ i32(i32(bits >> i32(31)) & i32(0x7FFFFFFF)))


@kernel
def _limit(least: i32, factor: f32, weights: f32, energy: f32) -> f32:
    """How high a line may be at r = `factor` for its neighbour to be the reference's choice; NaN if nobody knows.

    `least` is the height of the lowest line, as `_ordered` has it.
    """
    height = i32(least ^ i32(i32(least >> i32(31)) & i32(0x7FFFFFFF))).view(np.float32)
    bound = f32(f32(f32(25.0) * weights) + f32(f32(factor * factor) * energy))
    safe = (factor > f32(2.0**-30)) & (factor < f32(2.0**30)) & (weights > f32(2.0**-40)) & (weights < f32(2.0**40))
    return f32(height + f32(bound * _CLOSE)) if safe & (bound < f32(2.0**60)) else f32(np.nan)


@kernel
def _only(lines: Any, count: int, one: f32, two: f32, weights: f32, energy: f32) -> tuple[i32, i32]:
    """At r = `one` and r = `two`, the number in the list of the one neighbour that may be the reference's choice, or -1.

    Both at once, since each waits for results most of the time.
    """
    steep_one, steep_two = f32(f32(2.0) * one), f32(f32(2.0) * two)
    least_one, least_two = i32(0x7FFFFFFF), i32(0x7FFFFFFF)
    for n in range(count):
        least_one = min(least_one, _ordered(f32(lines[0, n] - f32(steep_one * lines[1, n]))))
        least_two = min(least_two, _ordered(f32(lines[0, n] - f32(steep_two * lines[1, n]))))
    limit_one, limit_two = _limit(least_one, one, weights, energy), _limit(least_two, two, weights, energy)
    found_one, found_two = i32(0), i32(0)  # the sum of their numbers, and above it how many they are
    for n in range(count):
        number = i32(i32(n) | i32(0x10000))
        found_one = i32(found_one + (number if f32(lines[0, n] - f32(steep_one * lines[1, n])) <= limit_one else i32(0)))
        found_two = i32(found_two + (number if f32(lines[0, n] - f32(steep_two * lines[1, n])) <= limit_two else i32(0)))
    found_one = i32(found_one & i32(0xFFFF)) if i32(found_one >> i32(16)) == i32(1) else i32(-1)
    found_two = i32(found_two & i32(0xFFFF)) if i32(found_two >> i32(16)) == i32(1) else i32(-1)
    return found_one, found_two


@kernel
def _settle(lines: Any, count: int, factors: Any, lane: int, weights: f32, energy: f32, start: int, end: int, found: Any) -> None:
    """Fill in `found` from step `start` to `end`: halve the way until both ends have the same neighbour."""
    one, two = _only(lines, count, factors[start, lane], factors[end, lane], weights, energy)
    for step in range(start, end):
        found[step] = one if one == two else i32(-2)
    found[start], found[end] = one, two
    if one == two:
        return
    while start < end:
        step = end
        while True:
            if found[step] == i32(-2):
                found[step], _ = _only(lines, count, factors[step, lane], factors[step, lane], weights, energy)
            if step == start + 1 or (found[step] == found[start] and found[step] >= i32(0)):
                break
            step = (start + step) // 2
        for between in range(start + 1, step):
            found[between] = found[start]
        start = step


@kernel
def _measured(x: Any, roots: Any, lane: int, scale: f32, terms: Any, entries: Any, start: int, count: int, levels: Any) -> i32:
    """The neighbour that the reference takes, as its number in the list, by the reference's own operations."""
    for i in range(8):
        for level in range(3):
            apart = f32(f32(scale * f32(2 * level + 1)) - x[place(i, lane)])
            terms[i, level] = f32(f32(roots[place(i, lane)] * apart) * apart)
    best, found = _LARGEST, i32(0)
    for n in range(count):
        entry = entries[start + n]
        if entry < 0:
            break
        distance = f32(0.0)
        for i in range(8):
            distance = f32(distance + terms[i, levels[entry, i]])
        if distance < best:
            best, found = distance, i32(n)
    return found


@kernel
def choose(desk: Desk, book: Book, group: Group, trials: Trials, wanted: NDArray[np.int32]) -> None:
    """Choose vectors at all steps, for the lanes that are above zero in int32 [LANES].

    Fields are taken out of their tuples here, once: each time costs two atomic operations on a reference count.
    """
    tables, lines, terms, found = desk.tables, desk.lines, desk.terms, desk.found
    inside, first, entries, levels, heads, tails = book.place, book.first, book.entries, book.levels, book.heads, book.tails
    x, roots, weights, energies = group.x, group.roots, group.weights, group.energy
    factors, scales, combinations, chosen = trials.factors, trials.scales, trials.combinations, trials.chosen
    steps = factors.shape[0]
    for lane in range(LANES):
        laid = False
        at = 0 if wanted[lane] > 0 else steps
        while at < steps:
            combination, end = combinations[at, lane], at
            vector = inside[combination]
            while end < steps and combinations[end, lane] == combination:
                chosen[end, lane] = vector
                end += 1
            if vector < 0:
                if not laid:
                    _lay_out(x, roots, lane, tables)
                    laid = True
                start = first[combination]
                count = first[combination + 1] - start
                _draw(heads, tails, start, count, tables, lines)
                _settle(lines, count, factors, lane, weights[lane], energies[lane], at, end - 1, found)
                for step in range(at, end):
                    number = found[step]
                    if number < 0:
                        number = _measured(x, roots, lane, scales[step, lane], terms, entries, start, count, levels)
                    chosen[step, lane] = entries[start + number]
            at = end
