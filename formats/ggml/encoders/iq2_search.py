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

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy import float32 as f32
from numpy import int32 as i32
from numpy.typing import NDArray

from hubclient.formats.ggml.encoders.neighbours import neighbours
from hubclient.formats.kernels import kernel

RUN = 16  # lists are filled up to a multiple: one AVX-512 register of lines, two of AVX2
_NOBODY = 144  # place in a table of sums that makes a line lie above all others
_TABLE = 160  # the sums of four levels: l0 + 4 l1 + 16 l2 + 48 l3, and _NOBODY
_CLOSE = f32(2.0**-17)  # 128 units in the last place
_FAR = f32(1e30)
_LARGEST = f32(np.finfo(np.float32).max)


class Book(NamedTuple):
    """A codebook and its lists of neighbours, each filled up to a multiple of RUN.

    place    int16 [6561]: which vector a combination of levels is, or -1 (see `Neighbours`)
    first    int32 [6562]: the neighbours of combination c are entries[first[c] : first[c + 1]]
    entries  int16 [sum]: their places in the codebook; -1 fills up
    heads    uint8 [sum]: where a table of sums has their first four levels; _NOBODY fills up
    tails    uint8 [sum]: and their last four
    levels   uint8 [vectors, 8]
    words    uint32 [vectors]: 2 * level + 1 of a vector's elements, four bits each, the first lowest
    """

    place: NDArray[np.int16]
    first: NDArray[np.int32]
    entries: NDArray[np.int16]
    heads: NDArray[np.uint8]
    tails: NDArray[np.uint8]
    levels: NDArray[np.uint8]
    words: NDArray[np.uint32]


class Desk(NamedTuple):
    """Scratch of a search, for the group of eight and the list of neighbours at hand.

    tables  float32 [2, 2, _TABLE]: A and B of the first and the last four levels
    lines   float32 [2, longest list]: A and B of the neighbours
    terms   float32 [8, 3]: what each element adds to the reference's sum at each level
    found   int32 [steps]: numbers in the list, or -1
    """

    tables: NDArray[np.float32]
    lines: NDArray[np.float32]
    terms: NDArray[np.float32]
    found: NDArray[np.int32]


class Group(NamedTuple):
    """Groups of eight elements, one per lane.

    x        float32 [8, lanes]: the elements
    roots    float32 [8, lanes]: w, the square roots of their weights
    weights  float32 [lanes]: sum(w)
    energy   float32 [lanes]: sum(w x^2)
    """

    x: NDArray[np.float32]
    roots: NDArray[np.float32]
    weights: NDArray[np.float32]
    energy: NDArray[np.float32]


class Trials(NamedTuple):
    """Scales to be tried per lane, in descending order, and what is chosen at them.

    factors       float32 [steps, lanes]: 1 / scale
    scales        float32 [steps, lanes]
    combinations  int32 [steps, lanes]: what the group rounds to, as the number of a combination
    chosen        int16 [steps, lanes]: receives places in the codebook
    """

    factors: NDArray[np.float32]
    scales: NDArray[np.float32]
    combinations: NDArray[np.int32]
    chosen: NDArray[np.int16]


@cache
def book(name: str) -> Book:
    """The codebook IQ2_XXS, IQ2_XS or IQ2_S, made at the first call."""
    lists = neighbours(name)
    counts = np.diff(lists.first)
    first = np.zeros(counts.size + 1, np.int32)
    np.cumsum(-(-counts // RUN) * RUN, out=first[1:])
    at = np.arange(lists.entries.size) + np.repeat(first[:-1] - lists.first[:-1], counts)
    entries = np.full(first[-1], -1, np.int16)
    entries[at] = lists.entries
    halves = np.full((2, first[-1]), _NOBODY, np.uint8)
    halves[:, at] = (lists.levels.reshape(-1, 2, 4) @ (1, 4, 16, 48)).T[:, lists.entries]
    odd = lists.levels.astype(np.uint32) * 2 + 1
    words = (odd << np.arange(0, 32, 4, np.uint32)).sum(1, dtype=np.uint32)
    return Book(lists.place, first, entries, halves[0], halves[1], lists.levels, words)


@kernel
def desk(book: Book, steps: int) -> Desk:
    """Scratch for a codebook and a number of trials."""
    longest = 0
    for c in range(book.place.size):
        longest = max(longest, book.first[c + 1] - book.first[c])
    tables = np.zeros((2, 2, _TABLE), np.float32)
    tables[0, 0, _NOBODY] = _FAR
    lines, terms = np.empty((2, longest), np.float32), np.empty((8, 3), np.float32)
    return Desk(tables, lines, terms, np.empty(steps, np.int32))


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
        i, j, k, m = 4 * half, 4 * half + 1, 4 * half + 2, 4 * half + 3
        first, second, third, fourth = roots[i, lane], roots[j, lane], roots[k, lane], roots[m, lane]
        _fill(tables[0, half], first, second, third, fourth, True)
        first, second = f32(first * x[i, lane]), f32(second * x[j, lane])
        third, fourth = f32(third * x[k, lane]), f32(fourth * x[m, lane])
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
def _above(least: i32, factor: f32, weights: f32, energy: f32) -> f32:
    """How high a line may be at r = `factor` for its neighbour to be the reference's choice; infinite if nobody knows.

    `least` is the height of the lowest line, as `_ordered` has it.
    """
    height = i32(least ^ i32(i32(least >> i32(31)) & i32(0x7FFFFFFF))).view(np.float32)
    bound = f32(f32(f32(25.0) * weights) + f32(f32(factor * factor) * energy))
    safe = (factor > f32(2.0**-30)) & (factor < f32(2.0**30)) & (weights > f32(2.0**-40)) & (weights < f32(2.0**40))
    return f32(height + f32(bound * _CLOSE)) if safe & (bound < f32(2.0**60)) else f32(np.inf)


@kernel
def _limit(lines: Any, count: int, factor: f32, weights: f32, energy: f32) -> f32:
    """How high a line may be at r = `factor` for its neighbour to be the reference's choice."""
    steep, least = f32(f32(2.0) * factor), i32(0x7FFFFFFF)
    for n in range(count):
        least = min(least, _ordered(f32(lines[0, n] - f32(steep * lines[1, n]))))
    return _above(least, factor, weights, energy)


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
    limit_one, limit_two = _above(least_one, one, weights, energy), _above(least_two, two, weights, energy)
    found_one, found_two = i32(0), i32(0)  # the sum of their numbers, and above it how many they are
    for n in range(count):
        number = i32(i32(n) | i32(0x10000))
        found_one = i32(found_one + (number if f32(lines[0, n] - f32(steep_one * lines[1, n])) <= limit_one else i32(0)))
        found_two = i32(found_two + (number if f32(lines[0, n] - f32(steep_two * lines[1, n])) <= limit_two else i32(0)))
    found_one = i32(found_one & i32(0xFFFF)) if i32(found_one >> i32(16)) == i32(1) else i32(-1)
    found_two = i32(found_two & i32(0xFFFF)) if i32(found_two >> i32(16)) == i32(1) else i32(-1)
    return found_one, found_two


@kernel
def _settle(
    lines: Any, count: int, factors: Any, lane: int, weights: f32, energy: f32, start: int, end: int, found: Any
) -> None:
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
def _measure(x: Any, roots: Any, lane: int, scale: f32, terms: Any) -> None:
    """What each element adds to the reference's sum at each level."""
    for i in range(8):
        for level in range(3):
            apart = f32(f32(scale * f32(2 * level + 1)) - x[i, lane])
            terms[i, level] = f32(f32(roots[i, lane] * apart) * apart)


@kernel
def _first_nearest(
    terms: Any, lines: Any, factor: f32, limit: f32, entries: Any, start: int, count: int, levels: Any
) -> i32:
    """The neighbour that the reference takes, of those whose lines are not above `limit` or no numbers."""
    steep = f32(f32(2.0) * factor)
    best, found = _LARGEST, i32(0)
    for n in range(count):
        entry = entries[start + n]
        if entry < 0 or f32(lines[0, n] - f32(steep * lines[1, n])) > limit:
            continue
        distance = f32(0.0)
        for i in range(8):
            distance = f32(distance + terms[i, levels[entry, i]])
        if distance < best:
            best, found = distance, i32(n)
    return found


@kernel
def choose(desk: Desk, book: Book, group: Group, trials: Trials, wanted: Any) -> None:
    """Choose vectors at all steps, for the lanes that are above zero in `wanted`.

    Fields are taken out of their tuples here, once: each time costs two atomic operations on a reference count.
    """
    tables, lines, terms, found = desk.tables, desk.lines, desk.terms, desk.found
    place, first, entries, levels, heads, tails = book.place, book.first, book.entries, book.levels, book.heads, book.tails
    x, roots, weights, energies = group.x, group.roots, group.weights, group.energy
    factors, scales, combinations, chosen = trials.factors, trials.scales, trials.combinations, trials.chosen
    steps = factors.shape[0]
    for lane in range(wanted.size):
        laid, end, at = False, 0, steps if not wanted[lane] > 0 else 0
        while at < steps:
            combination = combinations[at, lane]
            inside = place[combination]
            end = at
            while end < steps and combinations[end, lane] == combination:
                chosen[end, lane] = inside
                end += 1
            if inside < 0:
                if not laid:
                    _lay_out(x, roots, lane, tables)
                    laid = True
                weight, energy, start = weights[lane], energies[lane], first[combination]
                count = first[combination + 1] - start
                _draw(heads, tails, start, count, tables, lines)
                _settle(lines, count, factors, lane, weight, energy, at, end - 1, found)
                for step in range(at, end):
                    number = found[step]
                    if number < 0:
                        _measure(x, roots, lane, scales[step, lane], terms)
                        limit = _limit(lines, count, factors[step, lane], weight, energy)
                        number = _first_nearest(terms, lines, factors[step, lane], limit, entries, start, count, levels)
                    chosen[step, lane] = entries[start + number]
            at = end
