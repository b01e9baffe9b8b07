"""Sorting the values of LANES blocks side by side, as IQ1_S and IQ1_M need them.

The sort is stable, as glibc's qsort is for so few elements: the order of equal values with unequal weights decides bytes.
Values are sorted as integers with their places in the lowest bits, by a network: the same comparisons whatever the values.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy import float32 as f32
from numpy import int32 as i32
from numpy import int64 as i64
from numpy.typing import NDArray

from hubclient.formats.ggml.encoders.lanes import LANES
from hubclient.formats.kernels import Floats, kernel

NO_KEY = i64(2**62)  # above all keys


def _network(size: int) -> NDArray[np.int64]:
    """Batcher's odd-even merge sort of a power of two: which places are compared, int64 [comparisons, 2]."""
    pairs: list[tuple[int, int]] = []
    span = 1
    while span < size:
        step = span
        while step:
            starts = range(step % span, size - step, 2 * step)
            places = [i for start in starts for i in range(start, min(start + step, size - step))]
            pairs += [(i, i + step) for i in places if i // (2 * span) == (i + step) // (2 * span)]
            step //= 2
        span *= 2
    return np.array(pairs, np.int64)


_SORT_16, _SORT_32 = _network(16), _network(32)


@kernel
def key_of(value: f32, i: int) -> i64:
    """An integer that orders values as they are, equal ones by their places (below 64)."""
    bits = f32(value + f32(0.0)).view(np.int32)  # -0.0 equals 0.0
    return i64(i64(i64(i32(bits ^ i32(i32(bits >> i32(31)) & i32(0x7FFFFFFF)))) << i64(6)) | i64(i))


@kernel
def sort(x: Floats, keys: Any) -> None:
    """The keys of the values in ascending order, int64 [rows, LANES]."""
    for i in range(x.shape[0]):
        for lane in range(LANES):
            keys[i, lane] = key_of(x[i, lane], i)
    network = _SORT_16 if x.shape[0] == 16 else _SORT_32
    for pair in range(network.shape[0]):
        above, below = keys[network[pair, 0]], keys[network[pair, 1]]
        for lane in range(LANES):
            one, two = above[lane], below[lane]
            above[lane] = min(one, two)
            below[lane] = max(one, two)
