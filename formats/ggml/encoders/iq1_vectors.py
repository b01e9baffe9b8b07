"""Vectors of the codebook of IQ1_S and IQ1_M for eight levels each, with the choices of ggml.

Where the codebook lacks a combination of eight levels, the reference takes the neighbour with the least weighted distance,
sum of w (scale * (level - 1 + delta) - x)^2, adding up the eight terms in order. A term has only three possible values,
and there are 81 ways to add up four terms: so the distance of a neighbour is one number out of a table for its first four
levels, plus one for the last four. That adds up in another order; but terms are not negative, so the sum is off by less
than 18 units of 2^-24, and the neighbour that the reference takes is among those that come within 32 units of the least.
If there are several, they are measured in the reference's order, and the first of the nearest is taken.

Source: iq1_find_best_neighbour2, quantize_row_iq1_s_impl and quantize_row_iq1_m_impl of ggml-quants.c.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy import float32 as f32
from numpy import int32 as i32
from numpy import uint64 as u64
from numpy.typing import NDArray

from hubclient.formats.ggml.encoders.inlining import inlined
from hubclient.formats.ggml.encoders.iq1_splits import DELTA
from hubclient.formats.ggml.encoders.lanes import LANES, lanes_like, place
from hubclient.formats.ggml.encoders.neighbours import neighbours
from hubclient.formats.kernels import Floats, kernel

RUN = 16  # neighbours side by side: one AVX-512 register, two of AVX2
_NOBODY = 81  # the row after a table of sums, l0 + 3 l1 + 9 l2 + 27 l3, makes NaN of a neighbour, which is not near
_TAILS = 82  # where the second table begins
_ROWS = 2 * _TAILS
_CLOSE = f32(1 + 2.0**-19)  # 32 units of 2^-24
_FAR = f32(np.finfo(np.float32).max)


class Book(NamedTuple):
    """The codebook and its lists of neighbours, each filled up to whole runs of RUN.

    place   int16 [6561]: which vector a combination of levels is, or -1 (see `Neighbours`)
    first   int32 [6562]: the neighbours of combination c are runs first[c] to first[c + 1]
    halves  uint8 [2, runs, RUN]: the combinations of their first and their last four levels; _NOBODY fills up
    """

    place: NDArray[np.int16]
    first: NDArray[np.int32]
    halves: NDArray[np.uint8]


@cache
def book() -> Book:
    """The codebook, made at the first call."""
    lists = neighbours("IQ1")
    counts = np.diff(lists.first)
    first = np.zeros(counts.size + 1, np.int32)
    np.cumsum(-(-counts // RUN), out=first[1:])
    at = np.arange(lists.entries.size) + np.repeat(first[:-1] * RUN - lists.first[:-1], counts)
    halves = np.full((2, first[-1] * RUN), _NOBODY, np.uint8)
    halves[:, at] = (lists.levels.reshape(-1, 2, 4) @ (1, 3, 9, 27)).T[:, lists.entries]
    return Book(lists.place, first, halves.reshape(2, -1, RUN))


class Search(NamedTuple):
    """Scratch of a search.

    terms      float32 [24 * LANES]: the terms of eight elements, a row per level
    sums       float32 [_ROWS * LANES]: the tables of sums of the first and of the last four terms, a row per combination
    distances  float32 [longest list * RUN]
    """

    terms: NDArray[np.float32]
    sums: NDArray[np.float32]
    distances: NDArray[np.float32]


@kernel
def search_like(first: Any) -> Search:
    """Scratch that serves the lists which start at the runs `first`."""
    longest = np.max(first[1:] - first[:-1])
    sums = np.full(_ROWS * LANES, np.nan, np.float32)
    return Search(np.empty(24 * LANES, np.float32), sums, np.empty(longest * RUN, np.float32))


@kernel
def _at(run: int, j: int) -> u64:
    """Where the distance of a neighbour lies; unsigned, since Numba wraps signed indices around."""
    return u64(u64(u64(run) * u64(RUN)) + u64(j))


@kernel
def _terms(x: Floats, weights: Floats, scales: Floats, deltas: Floats, terms: Floats) -> None:
    """The terms of all lanes."""
    for i in range(8):
        for level in range(3):
            for lane in range(LANES):
                scaled = f32(scales[lane] * f32(f32(level - 1) + deltas[lane]))
                apart = f32(scaled - x[i, lane])
                terms[place(3 * i + level, lane)] = f32(f32(weights[i, lane] * apart) * apart)


@kernel
def _add_terms(first: int, terms: Floats, table: int, sums: Floats) -> None:
    """Fill in the table from row `table` on with the sums of the terms of four elements from `first` on."""
    for row in range(3):
        for lane in range(LANES):
            sums[place(table + row, lane)] = terms[place(3 * first + row, lane)]
    count = 3
    for i in range(first + 1, first + 4):
        for row in range(table, table + count):
            for lane in range(LANES):
                so_far = sums[place(row, lane)]
                low, middle, high = terms[place(3 * i, lane)], terms[place(3 * i + 1, lane)], terms[place(3 * i + 2, lane)]
                sums[place(row, lane)] = f32(so_far + low)
                sums[place(row + count, lane)] = f32(so_far + middle)
                sums[place(row + 2 * count, lane)] = f32(so_far + high)
        count *= 3


@inlined
def _distances(lane: int, halves: Any, start: int, end: int, sums: Floats, distances: Floats) -> f32:
    """The distances of the neighbours in runs `start` to `end`; returns the least. None is below zero."""
    least = f32(np.inf).view(np.int32)
    for run in range(start, end):
        for j in range(RUN):
            distance = f32(sums[place(halves[0, run, j], lane)] + sums[place(_TAILS + halves[1, run, j], lane)])
            distances[_at(run - start, j)] = distance
            least = min(least, distance.view(np.int32))
    found: f32 = i32(least).view(np.float32)
    return found


@inlined
def _within(limit: f32, runs: int, distances: Floats) -> tuple[i32, i32]:
    """How many neighbours are within the limit, and the sum of their numbers."""
    count, total = i32(0), i32(0)
    for run in range(runs):
        for j in range(RUN):
            near = distances[_at(run, j)] <= limit
            count = i32(count + i32(near))
            total = i32(total + (i32(i32(run * RUN) + i32(j)) if near else i32(0)))
    return count, total


@kernel
def _in_order(lane: int, head: int, tail: int, terms: Floats, sums: Floats) -> f32:
    """The distance as the reference adds it up."""
    distance: f32 = sums[place(head, lane)]
    for i in range(4, 8):
        distance = f32(distance + terms[place(3 * i + tail % 3, lane)])
        tail //= 3
    return distance


@kernel
def _first_nearest(
    lane: int, limit: f32, halves: Any, start: int, end: int, terms: Floats, sums: Floats, distances: Floats
) -> int:
    """The neighbour that the reference takes, of those within the limit; the first one if numbers are too large."""
    least, found = _FAR, 0
    for n in range((end - start) * RUN):
        if distances[n] <= limit:
            run, j = start + n // RUN, n % RUN
            distance = _in_order(lane, int(halves[0, run, j]), int(halves[1, run, j]), terms, sums)
            if distance < least:
                least, found = distance, n
    return found


@kernel
def _replace(places: Any, first: Any, halves: Any, terms: Floats, sums: Floats, distances: Floats, chosen: Any) -> None:
    """Put neighbours in the place of what the codebook lacks, in all lanes."""
    for lane in range(LANES):
        combination = chosen[lane]
        if places[combination] < 0:
            begin, end = first[combination], first[combination + 1]
            limit = f32(_distances(lane, halves, begin, end, sums, distances) * _CLOSE)
            count, found = _within(limit, end - begin, distances)
            if count != 1:
                found = _first_nearest(lane, limit, halves, begin, end, terms, sums, distances)
            run, j = begin + found // RUN, found % RUN
            chosen[lane] = i32(i32(halves[0, run, j]) + i32(i32(81) * i32(halves[1, run, j])))


@inlined
def choose(
    x: Floats, weights: Floats, levels: Any, scales: Floats, deltas: Floats, search: Search, book: Book, chosen: Any, changed: Any
) -> None:
    """Vectors for the eight levels int32 [8, LANES] of every lane.

    x, weights  float32 [8, LANES]
    scales      float32 [LANES]
    deltas      float32 [LANES]: DELTA or -DELTA
    chosen      int32 [LANES]: receives vectors, as combinations
    changed     bool [LANES]: set where the codebook lacks the combination
    """
    chosen[:] = i32(0)
    for i in range(7, -1, -1):
        for lane in range(LANES):
            chosen[lane] = i32(i32(chosen[lane] * i32(3)) + levels[i, lane])
    for lane in range(LANES):
        changed[lane] |= book.place[chosen[lane]] < 0
    _terms(x, weights, scales, deltas, search.terms)
    _add_terms(0, search.terms, 0, search.sums)
    _add_terms(4, search.terms, _TAILS, search.sums)
    _replace(book.place, book.first, book.halves, search.terms, search.sums, search.distances, chosen)


@kernel
def add_vectors(x: Floats, weights: Floats, chosen: Any, deltas: Floats, factors: Floats, sums: Floats) -> None:
    """Add weight * level * value and weight * level^2 of eight values per lane to float32 [2, LANES].

    Levels are those of the vectors, moved by deltas, times factors; all float32 [LANES].
    """
    rest = np.empty(LANES, np.int32)
    for lane in range(LANES):
        rest[lane] = chosen[lane]
    for i in range(8):
        for lane in range(LANES):
            digits = rest[lane]
            rest[lane] = i32(digits // i32(3))
            level = f32(f32(f32(i32(digits - i32(rest[lane] * i32(3)))) - f32(1.0)) + deltas[lane])
            level = f32(level * factors[lane])
            weighted = f32(weights[i, lane] * level)
            sums[0, lane] = f32(sums[0, lane] + f32(weighted * x[i, lane]))
            sums[1, lane] = f32(sums[1, lane] + f32(weighted * level))


@kernel
def vectors_of(
    x: Floats, weights: Floats, levels: Any, scales: Floats, down: Any, search: Search, book: Book, chosen: Any
) -> None:
    """Vectors for the levels int32 [rows, LANES], and the scales that then suit best where they are not the levels.

    scales  float32 [LANES]
    down    bool [rows / 8, LANES]: where levels are moved down
    chosen  int32 [rows / 8, LANES]: receives vectors, as combinations
    """
    groups = levels.shape[0] // 8
    changed, deltas, factors = np.zeros(LANES, np.bool_), lanes_like(groups), np.ones(LANES, np.float32)
    sums = np.zeros((2, LANES), np.float32)
    for g in range(groups):
        rows = slice(8 * g, 8 * g + 8)
        for lane in range(LANES):
            deltas[g, lane] = f32(-DELTA) if down[g, lane] else DELTA
        choose(x[rows], weights[rows], levels[rows], scales, deltas[g], search, book, chosen[g], changed)
        add_vectors(x[rows], weights[rows], chosen[g], deltas[g], factors, sums)
    for lane in range(LANES):
        suits = changed[lane] & (sums[0, lane] > f32(0.0)) & (sums[1, lane] > f32(0.0))
        scales[lane] = f32(sums[0, lane] / sums[1, lane]) if suits else scales[lane]
