"""Lazy arrays over numpy arrays in memory, and the reading of them in any number of pieces."""

from __future__ import annotations

from typing import Any

import numpy as np

from hubclient.architectures.arrays import Array, Leaf


def stored(values: np.ndarray) -> Leaf:
    """A leaf that `load` finds in memory."""
    return Leaf(values.shape, values)


def load(leaf: Leaf, start: int, stop: int) -> np.ndarray:
    """The engine's part: rows of a leaf, one row per element of a vector."""
    rows: np.ndarray = leaf.ref.reshape(leaf.rows, leaf.columns)
    return rows[start:stop]


def whole(array: Array) -> np.ndarray:
    """All rows, in the array's own shape."""
    values: np.ndarray = array.read(0, array.rows, load).reshape(array.shape)
    return values


def numbered(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    """An array in which every element has a value of its own."""
    return np.arange(int(np.prod(shape)), dtype=dtype).reshape(shape)
