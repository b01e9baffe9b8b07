"""Where a combination of levels lies in a codebook, or which vectors of the codebook are nearest to it.

The encoders of the IQ types round a few elements to levels; where the codebook lacks that combination they choose among
its neighbours: the vectors at the smallest squared distances, counted in levels. How many different distances are
taken differs per codebook. Of equal distances the vector of the lower index comes first, and the encoders keep the first
of equals, so the order of a list decides bytes. Source of the facts: iq2xs_init_impl and iq3xs_init_impl of ggml's
ggml-quants.c.
"""

from __future__ import annotations

from collections.abc import Mapping
from threading import Lock
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy import int32 as i32
from numpy.typing import NDArray

from hubclient.formats.ggml import grids
from hubclient.formats.kernels import kernel


class Neighbours(NamedTuple):
    """A codebook of vectors of `length` elements over n levels (8 over 3, or 4 over 8), as the encoders search it.

    A combination of levels is the number sum(level[k] * n ** k), with levels from 0 to n - 1: 6561 or 4096 combinations.
    Kernels take this tuple as an argument (Numba knows named tuples), or its fields one by one.

    place    int16 [combinations]: which vector of the codebook a combination is, or -1
    first    int32 [combinations + 1]: the neighbours of c are entries[first[c] : first[c + 1]]; none where place[c] >= 0
    entries  int16 [sum]: places in the codebook, by distance from the combination, equal distances by place
    levels   uint8 [vectors, length]: the levels of each vector; ggml's arithmetic takes 2 * level + 1 for the IQ2 and IQ3
             types, level - 1 for IQ1
    """

    place: NDArray[np.int16]
    first: NDArray[np.int32]
    entries: NDArray[np.int16]
    levels: NDArray[np.uint8]


# Per codebook: its vectors, the number of levels, and at how many different distances neighbours are taken.
_BOOKS: Mapping[str, tuple[NDArray[np.int8], int, int]] = MappingProxyType(
    {
        "IQ1": (grids.IQ1, 3, 3),  # of IQ1_S and IQ1_M
        "IQ2_XXS": (grids.IQ2_XXS, 3, 2),
        "IQ2_XS": (grids.IQ2_XS, 3, 2),
        "IQ2_S": (grids.IQ2_S, 3, 1),
        "IQ3_XXS": (grids.IQ3_XXS, 8, 2),
        "IQ3_S": (grids.IQ3_S, 8, 3),
    }
)
_built: dict[str, Neighbours] = {}
_building = Lock()


def neighbours(book: str) -> Neighbours:
    """The neighbours in one of the codebooks IQ1 IQ2_XXS IQ2_XS IQ2_S IQ3_XXS IQ3_S, built at the first call."""
    with _building:
        if book not in _built:
            _built[book] = _build(*_BOOKS[book])
        return _built[book]


def _build(vectors: NDArray[np.int8], n: int, shells: int) -> Neighbours:
    length = vectors.shape[1]
    levels = np.unique(vectors, return_inverse=True)[1].reshape(vectors.shape)
    place = np.full(n**length, -1, np.int16)
    place[levels @ n ** np.arange(length)] = np.arange(len(vectors))
    columns = np.ascontiguousarray(levels.T, np.int16)
    limits = np.zeros(place.size, np.int16)
    first = np.zeros(place.size + 1, np.int32)
    _measure(place, columns, n, shells, limits, first[1:])
    np.cumsum(first, out=first)
    entries = np.empty(first[-1], np.int16)
    _list(place, columns, n, limits, first, entries)
    return Neighbours(place, first, entries, np.ascontiguousarray(levels, np.uint8))


@kernel
def _distances(combination: int, columns: Any, n: int, distances: Any) -> None:
    """Squared distances of a combination from all vectors, int16 [vectors]; `columns` are int16 [length, vectors]."""
    distances[:] = np.int16(0)
    for k in range(columns.shape[0]):
        level = np.int16(combination // n**k % n)
        for j in range(distances.size):
            apart = np.int16(columns[k, j] - level)
            distances[j] = np.int16(distances[j] + np.int16(apart * apart))


@kernel
def _next_shell(distances: Any, below: int) -> np.int16:
    """The smallest distance above `below`."""
    found = np.int16(32767)
    for j in range(distances.size):
        distance = distances[j] if distances[j] > np.int16(below) else np.int16(32767)
        found = min(found, distance)
    return found


@kernel
def _measure(place: Any, columns: Any, n: int, shells: int, limits: Any, counts: Any) -> None:
    """Per combination outside the codebook, the largest distance of its neighbours and how many they are."""
    distances = np.empty(columns.shape[1], np.int16)
    for c in range(place.size):
        if place[c] >= 0:
            continue
        _distances(c, columns, n, distances)
        limit = 0
        for _ in range(shells):
            limit = _next_shell(distances, limit)
        limits[c] = limit
        count = i32(0)
        for j in range(distances.size):
            count = i32(count + i32(distances[j] <= np.int16(limit)))
        counts[c] = count


@kernel
def _list(place: Any, columns: Any, n: int, limits: Any, first: Any, entries: Any) -> None:
    """Fill in the neighbours, shell by shell."""
    distances = np.empty(columns.shape[1], np.int16)
    near = np.empty(columns.shape[1] + 1, np.int16)
    for c in range(place.size):
        if place[c] >= 0:
            continue
        _distances(c, columns, n, distances)
        count = 0
        for j in range(distances.size):
            near[count] = j
            count += distances[j] <= limits[c]
        at, shell = first[c], 0
        while at < first[c + 1]:
            shell = _next_shell(distances, shell)
            for k in range(count):
                if distances[near[k]] == shell:
                    entries[at] = near[k]
                    at += 1
