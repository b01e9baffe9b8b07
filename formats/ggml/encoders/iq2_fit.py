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

from hubclient.formats.ggml.encoders.iq2_search import Book, Desk, Group, Trials, choose
from hubclient.formats.ggml.encoders.lanes import LANES, nearest, place
from hubclient.formats.kernels import Floats, Words, kernel


class Fits(NamedTuple):
    """Sub-blocks in lanes. First what is given:

    x        float32 [rows, LANES]: the elements without their signs
    weights  float32 [rows, LANES]
    highest  float32 [LANES]: what level 5 stands for at the middle step; zero or less where there is nothing to do
    signs    uint32 [rows / 8, LANES], which this module does not touch

    What is found:

    scales   float32 [LANES]: holds the scale to be used if none fits; receives the scale, perhaps below zero
    places   int16 [rows / 8, LANES]: places in the codebook

    Then scratch:

    products  float32 [rows, LANES]: weights * x
    roots     float32 [rows, LANES]; totals, energy float32 [rows / 8, LANES]: see `Group`
    factors, trials        float32 [steps, LANES]; anew float32 [2, LANES]
    combinations, chosen   int32, int16 [rows / 8, steps, LANES]
    winner                 int32 [LANES]: the best step, or -1
    again                  int32 [rows / 8, LANES]: 1 where vectors are chosen anew
    best, sums, packed     [LANES], [2, LANES], [LANES]
    """

    x: Floats
    weights: Floats
    highest: Floats
    signs: Words
    scales: Floats
    places: NDArray[np.int16]
    products: Floats
    roots: Floats
    totals: Floats
    energy: Floats
    factors: Floats
    trials: Floats
    combinations: NDArray[np.int32]
    chosen: NDArray[np.int16]
    winner: NDArray[np.int32]
    again: NDArray[np.int32]
    best: Floats
    sums: Floats
    packed: Words


@kernel
def fits_like(rows: int, reach: int) -> Fits:
    """Scratch for sub-blocks of `rows` elements and 2 * `reach` + 1 trials."""
    groups, steps = rows // 8, 2 * reach + 1
    return Fits(
        np.empty((rows, LANES), np.float32),
        np.empty((rows, LANES), np.float32),
        np.empty(LANES, np.float32),
        np.empty((groups, LANES), np.uint32),
        np.empty(LANES, np.float32),
        np.zeros((groups, LANES), np.int16),
        np.empty((rows, LANES), np.float32),
        np.empty((rows, LANES), np.float32),
        np.empty((groups, LANES), np.float32),
        np.empty((groups, LANES), np.float32),
        np.empty((steps, LANES), np.float32),
        np.empty((steps, LANES), np.float32),
        np.empty((groups, steps, LANES), np.int32),
        np.zeros((groups, steps, LANES), np.int16),
        np.empty(LANES, np.int32),
        np.empty((groups, LANES), np.int32),
        np.empty(LANES, np.float32),
        np.empty((2, LANES), np.float32),
        np.empty(LANES, np.uint32),
    )


@kernel
def prepare(fits: Fits) -> None:
    """From `x` and `weights`: fill in the scratch that serves all steps; `highest` receives the largest element."""
    highest = fits.highest
    highest[:] = fits.x[0]
    fits.totals[:] = f32(0.0)
    fits.energy[:] = f32(0.0)
    for i in range(fits.x.shape[0]):
        total, energy = fits.totals[i // 8], fits.energy[i // 8]
        for lane in range(LANES):
            value, weight = fits.x[i, lane], fits.weights[i, lane]
            root = f32(np.sqrt(weight))
            highest[lane] = highest[lane] if highest[lane] > value else value
            fits.products[i, lane] = f32(weight * value)
            fits.roots[i, lane] = root
            total[lane] = f32(total[lane] + root)
            energy[lane] = f32(energy[lane] + f32(f32(root * value) * value))


@kernel
def _round(x: Floats, factors: Floats, combinations: Any) -> None:
    """What groups of eight, flat float32 [8 * LANES], round to, as the number of a combination (see `neighbours`)."""
    for lane in range(LANES):
        combination, factor = i32(0), factors[lane]
        for i in range(8):
            level = nearest(f32(f32(0.5) * f32(f32(factor * x[place(7 - i, lane)]) - f32(1.0))))
            level = min(i32(2), max(i32(0), level))
            combination = i32(i32(combination * i32(3)) + level)
        combinations[lane] = combination


@kernel
def _add(weights: Floats, products: Floats, packed: Words, sums: Floats) -> None:
    """Add sum(w x q) and sum(w q q) of groups, flat float32 [8 * LANES], to float32 [2, LANES]."""
    for lane in range(LANES):
        xq, qq = sums[0, lane], sums[1, lane]
        word = packed[lane]
        for i in range(8):
            q = f32(i32(u32(u32(word >> u32(4 * i)) & u32(15))))
            at = place(i, lane)
            xq = f32(xq + f32(products[at] * q))
            qq = f32(qq + f32(f32(weights[at] * q) * q))
        sums[0, lane], sums[1, lane] = xq, qq


@kernel
def _fit(weights: Floats, products: Floats, words: Words, chosen: Any, packed: Words, sums: Floats) -> None:
    """Per lane the sums over a sub-block, for the vectors int16 [rows / 8, LANES]."""
    sums[:] = f32(0.0)
    for g in range(chosen.shape[0]):
        for lane in range(LANES):
            packed[lane] = words[chosen[g, lane]]
        _add(weights[8 * g : 8 * g + 8].reshape(-1), products[8 * g : 8 * g + 8].reshape(-1), packed, sums)


@kernel
def _try_all(book: Book, desk: Desk, fits: Fits, lanes: int) -> None:
    """Choose vectors at all steps: 5 and up to `reach` tenths less and more over `highest` are levels per element."""
    steps = fits.factors.shape[0]
    for step in range(steps):
        for lane in range(LANES):
            tenths = f32(f32(step - steps // 2) * f32(0.1))
            fits.factors[step, lane] = f32(f32(f32(5.0) + tenths) / fits.highest[lane])
            fits.trials[step, lane] = f32(f32(1.0) / fits.factors[step, lane])
    for g in range(fits.places.shape[0]):
        rows = slice(8 * g, 8 * g + 8)
        for step in range(steps):
            _round(fits.x[rows].reshape(-1), fits.factors[step], fits.combinations[g, step])
        group = Group(fits.x[rows], fits.roots[rows], fits.totals[g], fits.energy[g])
        trials = Trials(fits.factors, fits.trials, fits.combinations[g], fits.chosen[g])
        choose(desk, book, group, trials, fits.highest[:lanes])


@kernel
def _keep_best(book: Book, fits: Fits) -> None:
    """Per lane the first step whose vectors fit best, and their scale."""
    weights, products, words, chosen, packed = fits.weights, fits.products, book.words, fits.chosen, fits.packed
    sums, scales, best, winner = fits.sums, fits.scales, fits.best, fits.winner
    best[:] = f32(0.0)
    winner[:] = i32(-1)
    for step in range(fits.factors.shape[0]):
        _fit(weights, products, words, chosen[:, step], packed, sums)
        for lane in range(LANES):
            xq, qq = sums[0, lane], sums[1, lane]
            better = (qq > f32(0.0)) & (f32(xq * xq) > f32(best[lane] * qq))
            scale = f32(xq / qq) if better else scales[lane]
            scales[lane] = scale
            best[lane] = f32(scale * xq) if better else best[lane]
            winner[lane] = i32(step) if better else winner[lane]


@kernel
def _place_best(book: Book, fits: Fits, g: int, always: bool) -> None:
    """The vectors of the best step, for group g; mark in `again` what is to be chosen anew.

    That is what lay outside the codebook, or with `always` all, unless the scale is below zero.
    """
    for lane in range(LANES):
        step = fits.winner[lane]
        fits.places[g, lane] = fits.chosen[g, step, lane] if step >= 0 else 0
        outside = step >= 0 and book.place[fits.combinations[g, step, lane]] < 0
        some = fits.highest[lane] > f32(0.0) and fits.scales[lane] > f32(0.0)
        fits.again[g, lane] = i32(some and (always or outside))


@kernel
def _try_again(book: Book, desk: Desk, fits: Fits, lanes: int, always: bool) -> None:
    """Take the vectors of the best step or choose anew at its scale."""
    factors, scales = fits.factors[:1], fits.trials[:1]
    for lane in range(LANES):
        scales[0, lane] = fits.scales[lane]
        factors[0, lane] = f32(f32(1.0) / fits.scales[lane])
    for g in range(fits.places.shape[0]):
        _place_best(book, fits, g, always)
        rows = slice(8 * g, 8 * g + 8)
        _round(fits.x[rows].reshape(-1), factors[0], fits.combinations[g, 0])
        group = Group(fits.x[rows], fits.roots[rows], fits.totals[g], fits.energy[g])
        trials = Trials(factors, scales, fits.combinations[g, :1], fits.places[g : g + 1])
        choose(desk, book, group, trials, fits.again[g, :lanes])


@kernel
def find(book: Book, desk: Desk, fits: Fits, lanes: int, always: bool) -> None:
    """Find scales and vectors for the first `lanes` lanes; `always` chooses all vectors anew at the scale found.

    Without it, those that are what the elements round to stay.
    """
    _try_all(book, desk, fits, lanes)
    _keep_best(book, fits)
    _try_again(book, desk, fits, lanes, always)
    _fit(fits.weights, fits.products, book.words, fits.places, fits.packed, fits.sums)
    for lane in range(LANES):
        again = i32(0)
        for g in range(fits.again.shape[0]):
            again |= fits.again[g, lane]
        refit = (again != i32(0)) & (fits.sums[1, lane] > f32(0.0))
        fits.scales[lane] = f32(fits.sums[0, lane] / fits.sums[1, lane]) if refit else fits.scales[lane]
