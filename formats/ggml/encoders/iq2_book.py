"""The codebooks of the IQ2 types as their encoders search them, and scratch for that. See `iq2_search` for the use."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hubclient.formats.ggml.encoders.neighbours import neighbours

_RUN = 16  # lists are filled up to a multiple: one AVX-512 register of lines, two of AVX2
_NOBODY = 144  # place in a table of sums that makes a line lie above all others
_TABLE = 160  # the sums of four levels: l0 + 4 l1 + 16 l2 + 48 l3, and _NOBODY


class Book(NamedTuple):
    """A codebook and its lists of neighbours, each filled up to a multiple of _RUN.

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


@cache
def book(name: str) -> Book:
    """The codebook IQ2_XXS, IQ2_XS or IQ2_S, made at the first call."""
    lists = neighbours(name)
    counts = np.diff(lists.first)
    first = np.zeros(counts.size + 1, np.int32)
    np.cumsum(-(-counts // _RUN) * _RUN, out=first[1:])
    at = np.arange(lists.entries.size) + np.repeat(first[:-1] - lists.first[:-1], counts)
    entries = np.full(first[-1], -1, np.int16)
    entries[at] = lists.entries
    halves = np.full((2, first[-1]), _NOBODY, np.uint8)
    halves[:, at] = (lists.levels.reshape(-1, 2, 4) @ (1, 4, 16, 48)).T[:, lists.entries]
    odd = lists.levels.astype(np.uint32) * 2 + 1
    words = (odd << np.arange(0, 32, 4, dtype=np.uint32)).sum(1, dtype=np.uint32)
    return Book(lists.place, first, entries, halves[0], halves[1], lists.levels, words)


def desk(book: Book, steps: int) -> Desk:
    """Scratch for a codebook and a number of trials."""
    tables = np.zeros((2, 2, _TABLE), np.float32)
    tables[0, 0, _NOBODY] = 1e30
    lines = np.empty((2, int(np.diff(book.first).max())), np.float32)
    return Desk(tables, lines, np.empty((8, 3), np.float32), np.empty(steps, np.int32))
