"""Matrices with scales are read in any pieces, alone and in batches, with blocks that are cut off at their edges."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hubclient.architectures.language.arrays import Concat, Leaf
from hubclient.architectures.language.elementwise import Add, Computed
from hubclient.architectures.language.gathers import Permute, Transpose
from hubclient.architectures.language.scaled import Scaled


def floats(leaf: Leaf, start: int, stop: int) -> np.ndarray[Any, Any]:
    rows: np.ndarray[Any, Any] = leaf.ref.reshape(leaf.rows, leaf.columns)[start:stop]
    return rows


def leaf(*shape: int) -> Leaf:
    values = np.random.default_rng(sum(shape)).standard_normal(shape, np.float32)
    values.flags.writeable = False  # what is read belongs to others as well
    return Leaf(shape, values)


def scaled(shape: tuple[int, ...], block: tuple[int, int]) -> tuple[Scaled, np.ndarray[Any, Any]]:
    """The array, and all that it should hold."""
    *batch, high, wide = shape
    part, scales = leaf(*shape), leaf(*batch, -(-high // block[0]), -(-wide // block[1]))
    factors = scales.ref.repeat(block[0], -2).repeat(block[1], -1)[..., :high, :wide]
    return Scaled(part, scales, block), (part.ref * factors).reshape(-1, wide)


SIZES = st.integers(1, 9)


@given(st.lists(SIZES, min_size=2, max_size=4).map(tuple), st.tuples(SIZES, SIZES), SIZES)
def test_pieces_are_pieces_of_the_whole(shape: tuple[int, ...], block: tuple[int, int], step: int) -> None:
    array, whole = scaled(shape, block)
    assert array.shape == shape
    for size in (step, array.unit, array.rows):
        parts = [array.read(row, min(row + size, array.rows), floats) for row in range(0, array.rows, size)]
        assert np.array_equal(np.concatenate(parts), whole)
    assert array.read(0, 0, floats).shape == (0, shape[-1])


def test_only_the_scales_of_the_rows_are_read() -> None:
    array, _ = scaled((10, 6), (4, 3))
    read: list[tuple[Leaf, int, int]] = []

    def noting(leaf: Leaf, start: int, stop: int) -> np.ndarray[Any, Any]:
        read.append((leaf, start, stop))
        return floats(leaf, start, stop)

    array.read(5, 9, noting)
    assert read == [(array.part, 5, 9), (array.scales, 1, 3)]


def test_it_says_what_it_does() -> None:
    array, whole = scaled((8, 6), (4, 3))
    assert not array.moves_rows and not array.moves_elements and array.keeps_values and array.local and array.unit == 4
    assert list(array.leaves()) == [array.part, array.scales]
    assert array.describe() == "scaled(4x3)"
    assert Permute(array, (2, 4), (1, 0), "swap").describe() == "scaled(4x3) swap"
    assert Concat((array, leaf(2, 6)), (10, 6)).keeps_values and not Computed(array, Add(1.0)).keeps_values
    assert np.array_equal(Transpose(array).read(1, 5, floats), whole.T[1:5])
