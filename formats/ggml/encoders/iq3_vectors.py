"""The codebooks of IQ3_XXS and IQ3_S as their encoders search them, and the arithmetic on four values at a time.

A combination of four levels from 0 to 7 is a number (see `neighbours`); level l stands for 2 l + 1 times the scale, an odd
number. Values, weights, their square roots ("roots") and vectors are handed around as four float32 each.
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
from hubclient.formats.ggml.encoders.lanes import nearest
from hubclient.formats.ggml.encoders.neighbours import Neighbours, neighbours
from hubclient.formats.kernels import Floats, kernel

_TOGETHER = 4  # vectors of a list that are measured together
BATCH = 20  # floats that these take: four combinations, then four vectors


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
    batches = -(-counts // _TOGETHER)
    first = np.zeros(counts.size + 1, np.int64)
    np.cumsum(batches, out=first[1:])
    member = np.arange(first[-1] * _TOGETHER) - np.repeat(first[:-1] * _TOGETHER, batches * _TOGETHER)
    places = _listed(near, np.repeat(np.arange(counts.size), batches * _TOGETHER), member, counts)
    numbers = (near.levels @ 8 ** np.arange(4)).astype(np.float32)
    odd = 2 * near.levels.astype(np.float32) + 1
    lists = np.concatenate([numbers[places].reshape(-1, _TOGETHER), odd[places].reshape(-1, 4 * _TOGETHER)], axis=1)
    return Book(near.place, first * BATCH, lists.reshape(-1))


def _listed(near: Neighbours, combination: NDArray[Any], member: NDArray[Any], counts: NDArray[Any]) -> NDArray[Any]:
    """Places of vectors in the codebook: members of the lists of combinations, the last one for those past the end."""
    own = near.place[combination]
    at = near.first[combination] + np.minimum(member, counts[combination] - 1)
    found: NDArray[Any] = np.where(own >= 0, own, near.entries[np.minimum(at, near.entries.size - 1)])
    return found


@kernel
def four(array: Floats, i: int) -> tuple[f32, f32, f32, f32]:
    """Four numbers from i on."""
    return array[u64(i)], array[u64(i) + u64(1)], array[u64(i) + u64(2)], array[u64(i) + u64(3)]


@kernel
def _level(inverse: f32, value: f32) -> i32:
    """The level nearest to a value: level l stands for 2 l + 1 times the scale."""
    level = nearest(f32(f32(0.5) * f32(f32(inverse * value) - f32(1.0))))
    return max(i32(0), min(i32(7), level))


@kernel
def combination_of(inverse: f32, x: tuple[f32, f32, f32, f32]) -> i32:
    """The number of the combination of levels of four values."""
    low = i32(_level(inverse, x[0]) + i32(_level(inverse, x[1]) << i32(3)))
    return i32(low + i32(i32(_level(inverse, x[2]) << i32(6)) + i32(_level(inverse, x[3]) << i32(9))))


@kernel
def odd_numbers(combination: i32) -> tuple[f32, f32, f32, f32]:
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
def nearest_of(scale: f32, x: Any, roots: Any, names: Any, a: Any, b: Any, c: Any, d: Any) -> tuple[f32, f32]:
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
def add_cross(cross: f32, odd: Any, x: Any, weights: Any) -> f32:
    """Add weight * value * odd of four values, one by one."""
    cross = f32(f32(cross + f32(f32(weights[0] * x[0]) * odd[0])) + f32(f32(weights[1] * x[1]) * odd[1]))
    return f32(f32(cross + f32(f32(weights[2] * x[2]) * odd[2])) + f32(f32(weights[3] * x[3]) * odd[3]))


@kernel
def add_power(power: f32, odd: Any, weights: Any) -> f32:
    """Add weight * odd * odd of four values, one by one."""
    power = f32(f32(power + f32(f32(weights[0] * odd[0]) * odd[0])) + f32(f32(weights[1] * odd[1]) * odd[1]))
    return f32(f32(power + f32(f32(weights[2] * odd[2]) * odd[2])) + f32(f32(weights[3] * odd[3]) * odd[3]))


@inlined
def batch_of(lists: Floats, at: int) -> Any:
    """A batch of a list: four combinations, and four vectors."""
    names, a, b = four(lists, at), four(lists, at + 4), four(lists, at + 8)
    c, d = four(lists, at + 12), four(lists, at + 16)
    return names, a, b, c, d
