"""The scale of a sub-block and its vectors of eight: what IQ2_XXS, IQ2_XS and IQ2_S do once the signs are off.

Several scales are tried. At each, the elements are rounded to the levels 1 3 5, a vector of the codebook is chosen for
each group of eight (see `iq2_search`), and the scale that fits these vectors best is computed. The best of all is kept,
vectors are chosen anew at that scale, and the scale is fitted to them once more. Lanes are sub-blocks (see `lanes`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy import float32 as f32
from numpy import int32 as i32
from numpy import uint32 as u32
from numpy.typing import NDArray

from hubclient.formats.ggml.encoders.iq2_book import Book, Desk
from hubclient.formats.ggml.encoders.iq2_search import Group, Trials, choose
from hubclient.formats.ggml.encoders.lanes import LANES, nearest, place
from hubclient.formats.kernels import Floats, Words, kernel


class Parts(NamedTuple):
    """Sub-blocks in lanes, a number of times LANES of them: what is known of them and what is found.

    x        float32 [times, groups, 8 * LANES]: the elements without their signs; a group is eight rows, flat (see `place`)
    weights  float32 [times, groups, 8 * LANES]
    signs    uint32 [times, groups, LANES]: eight bits per vector; this module does not touch them
    highest  float32 [times, LANES]: what level 5 stands for at the middle step; zero or less where nothing is to be done
    scales   float32 [times, LANES]: holds the scale to be used if none fits; receives the scale, perhaps below zero
    places   int16 [times, groups, LANES]: receives places in the codebook
    """

    x: Floats
    weights: Floats
    signs: Words
    highest: Floats
    scales: Floats
    places: NDArray[np.int16]


class Bench(NamedTuple):
    """Scratch.

    products      float32 [groups, 8 * LANES]: weights * x
    roots         float32 [groups, 8 * LANES]; totals, energy float32 [groups, LANES]: see `Group`
    factors       float32 [steps, LANES], and trials the same: see `Trials`
    combinations  int32 [groups, steps, LANES]
    chosen        int16 [groups, steps, LANES]
    sums          float32 [3, LANES]: sum(w x q), sum(w q q), and the best match so far
    marks         int32 [4, LANES]: the best step or -1; 1 where something is to be done; 1 where vectors of the group at
                  hand are to be chosen anew; 1 where any are
    packed        uint32 [LANES]: levels of vectors
    """

    products: Floats
    roots: Floats
    totals: Floats
    energy: Floats
    factors: Floats
    trials: Floats
    combinations: NDArray[np.int32]
    chosen: NDArray[np.int16]
    sums: Floats
    marks: NDArray[np.int32]
    packed: Words


def parts(times: int, groups: int) -> Parts:
    """Room for `times` times LANES sub-blocks of so many groups of eight elements."""
    full, lanes, vectors = (times, groups, 8 * LANES), (times, LANES), (times, groups, LANES)
    return Parts(
        np.empty(full, np.float32),
        np.empty(full, np.float32),
        np.empty(vectors, np.uint32),
        np.empty(lanes, np.float32),
        np.empty(lanes, np.float32),
        np.empty(vectors, np.int16),
    )


def bench(groups: int, steps: int) -> Bench:
    """Scratch for sub-blocks of so many groups of eight elements."""
    full, lanes, trials = (groups, 8 * LANES), (groups, LANES), (groups, steps, LANES)
    return Bench(
        np.empty(full, np.float32),
        np.empty(full, np.float32),
        np.empty(lanes, np.float32),
        np.empty(lanes, np.float32),
        np.empty((steps, LANES), np.float32),
        np.empty((steps, LANES), np.float32),
        np.empty(trials, np.int32),
        np.zeros(trials, np.int16),  # places are looked up even in lanes where none was chosen
        np.empty((3, LANES), np.float32),
        np.empty((4, LANES), np.int32),
        np.empty(LANES, np.uint32),
    )


@kernel
def _prepare(x: Floats, weights: Floats, products: Floats, roots: Floats, totals: Floats, energy: Floats) -> None:
    """What serves all steps, for a group of eight rows: see `Bench`."""
    for lane in range(LANES):
        total, squares = f32(0.0), f32(0.0)
        for i in range(8):
            at = place(i, lane)
            value, weight = x[at], weights[at]
            root = f32(np.sqrt(weight))
            products[at], roots[at] = f32(weight * value), root
            total = f32(total + root)
            squares = f32(squares + f32(f32(root * value) * value))
        totals[lane], energy[lane] = total, squares


@kernel
def _start(highest: Floats, lanes: int, factors: Floats, trials: Floats, sums: Floats, marks: Any) -> None:
    """Levels per element at each step, 5 and a number of tenths less or more over `highest`, and their inverse."""
    steps = factors.shape[0]
    for step in range(steps):
        fives = f32(f32(5.0) + f32(f32(step - steps // 2) * f32(0.1)))
        for lane in range(LANES):
            factor = f32(fives / highest[lane])
            factors[step, lane], trials[step, lane] = factor, f32(f32(1.0) / factor)
    for lane in range(LANES):
        sums[0, lane], sums[1, lane], sums[2, lane] = f32(0.0), f32(0.0), f32(0.0)
        marks[0, lane], marks[3, lane] = i32(-1), i32(0)
        marks[1, lane] = i32(lane < lanes and highest[lane] > f32(0.0))


@kernel
def _round(x: Floats, factors: Floats, combinations: Any) -> None:
    """What a group of eight rows rounds to at each step, as the number of a combination (see `neighbours`)."""
    for step in range(factors.shape[0]):
        for lane in range(LANES):
            combination, factor = i32(0), factors[step, lane]
            for i in range(8):
                level = nearest(f32(f32(0.5) * f32(f32(factor * x[place(7 - i, lane)]) - f32(1.0))))
                level = min(i32(2), max(i32(0), level))
                combination = i32(i32(combination * i32(3)) + level)
            combinations[step, lane] = combination


@kernel
def _add(weights: Floats, products: Floats, packed: Words, sums: Floats) -> None:
    """Add sum(w x q) and sum(w q q) of a group of eight rows."""
    for lane in range(LANES):
        xq, qq, word = sums[0, lane], sums[1, lane], packed[lane]
        for i in range(8):
            q, at = f32(i32(u32(u32(word >> u32(4 * i)) & u32(15)))), place(i, lane)
            xq = f32(xq + f32(products[at] * q))
            qq = f32(qq + f32(f32(weights[at] * q) * q))
        sums[0, lane], sums[1, lane] = xq, qq


@kernel
def _keep_best(sums: Floats, step: int, scales: Floats, marks: Any) -> None:
    """Where the vectors of a step match better than all before, keep their scale and remember the step."""
    for lane in range(LANES):
        xq, qq, best = sums[0, lane], sums[1, lane], sums[2, lane]
        better = (qq > f32(0.0)) & (f32(xq * xq) > f32(best * qq))
        scale = f32(xq / qq) if better else scales[lane]
        scales[lane] = scale
        sums[2, lane] = f32(scale * xq) if better else best
        marks[0, lane] = i32(step) if better else marks[0, lane]
        sums[0, lane], sums[1, lane] = f32(0.0), f32(0.0)


@kernel
def _take_best(inside: Any, combinations: Any, chosen: Any, scales: Floats, always: bool, marks: Any, places: Any) -> None:
    """The vectors of the best step, for a group; mark what is to be chosen anew.

    That is what lay outside the codebook (`inside` is where combinations lie in it), or with `always` all, unless the
    scale is below zero.
    """
    for lane in range(LANES):
        step = marks[0, lane]
        places[lane] = chosen[step, lane] if step >= 0 else 0
        outside = step >= 0 and inside[combinations[step, lane]] < 0
        marks[2, lane] = i32(marks[1, lane] > 0 and scales[lane] > f32(0.0) and (always or outside))
        marks[3, lane] |= marks[2, lane]


@kernel
def _invert(scales: Floats, factors: Floats, trials: Floats) -> None:
    """Make the scales found the first trial."""
    for lane in range(LANES):
        factors[0, lane], trials[0, lane] = f32(f32(1.0) / scales[lane]), scales[lane]


@kernel
def _refit(sums: Floats, marks: Any, scales: Floats) -> None:
    """Fit the scale once more where vectors were chosen anew."""
    for lane in range(LANES):
        xq, qq = sums[0, lane], sums[1, lane]
        scales[lane] = f32(xq / qq) if (marks[3, lane] > i32(0)) & (qq > f32(0.0)) else scales[lane]


@kernel
def _pack(words: Words, places: Any, packed: Words) -> None:
    """Look up the levels of vectors."""
    for lane in range(LANES):
        packed[lane] = words[places[lane]]


@kernel
def find(book: Book, desk: Desk, bench: Bench, parts: Parts, lanes: int, always: bool) -> None:
    """Find scales and vectors of the first `lanes` sub-blocks.

    Vectors are chosen anew at the scale found, but for those that are what the elements round to; with `always` all.
    """
    products, roots, totals, energy = bench.products, bench.roots, bench.totals, bench.energy
    factors, trials, combinations, chosen = bench.factors, bench.trials, bench.combinations, bench.chosen
    sums, marks, packed, words = bench.sums, bench.marks, bench.packed, book.words
    groups, steps = totals.shape[0], factors.shape[0]
    for t in range((lanes + LANES - 1) // LANES):
        x, weights, scales, places = parts.x[t], parts.weights[t], parts.scales[t], parts.places[t]
        _start(parts.highest[t], lanes - t * LANES, factors, trials, sums, marks)
        for g in range(groups):
            _prepare(x[g], weights[g], products[g], roots[g], totals[g], energy[g])
            _round(x[g], factors, combinations[g])
            group = Group(x[g], roots[g], totals[g], energy[g])
            choose(desk, book, group, Trials(factors, trials, combinations[g], chosen[g]), marks[1])
        for step in range(steps):
            for g in range(groups):
                _pack(words, chosen[g, step], packed)
                _add(weights[g], products[g], packed, sums)
            _keep_best(sums, step, scales, marks)
        _invert(scales, factors, trials)
        for g in range(groups):
            _take_best(book.place, combinations[g], chosen[g], scales, always, marks, places[g])
            _round(x[g], factors[:1], combinations[g])
            group = Group(x[g], roots[g], totals[g], energy[g])
            choose(desk, book, group, Trials(factors[:1], trials[:1], combinations[g], places[g : g + 1]), marks[2])
            _pack(words, places[g], packed)
            _add(weights[g], products[g], packed, sums)
        _refit(sums, marks, scales)
