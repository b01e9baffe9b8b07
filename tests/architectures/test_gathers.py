"""Gathered rows: whatever the order, little more is read than is wanted, and no stretch is larger than the result."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubclient.architectures.language.arrays import Leaf
from hubclient.architectures.language.gathers import Permute, Ungroup

MOST = 4  # times as much as is wanted may be read


class Reading:
    """`load` over an array in memory that keeps how many rows each read asked for."""

    def __init__(self) -> None:
        self.stretches: list[int] = []

    def __call__(self, leaf: Leaf, start: int, stop: int) -> np.ndarray:
        self.stretches.append(stop - start)
        rows: np.ndarray = leaf.ref[start:stop]
        return rows


def numbered(rows: int) -> Leaf:
    return Leaf((rows, 2), np.arange(rows * 2, dtype=np.float32).reshape(rows, 2))


@pytest.mark.parametrize("sizes", [(1, 63), (63, 1), (1, 1), (1, 3), (2, 5, 64)])
@pytest.mark.parametrize("back", [False, True])
def test_a_tile_reads_a_small_multiple_of_its_rows_in_stretches_no_larger_than_itself(sizes: tuple[int, ...], back: bool):
    groups = 40
    array = Ungroup(numbered(groups * sum(sizes)), groups, sizes, back)
    whole = array.read(0, array.rows, Reading())
    for start in range(0, array.rows, 16):
        stop, reading = min(start + 16, array.rows), Reading()
        assert np.array_equal(array.read(start, stop, reading), whole[start:stop])
        assert sum(reading.stretches) <= MOST * (stop - start)
        assert max(reading.stretches) <= stop - start


def test_every_other_row_is_not_read_one_by_one():
    array, reading = Ungroup(numbered(2048), 1024, (1, 1)), Reading()
    array.read(0, 512, reading)
    assert len([stretch for stretch in reading.stretches if stretch]) <= 3


def test_a_whole_unit_is_read_in_one_piece():
    array, reading = Permute(numbered(1024), (8, 2, 64), (0, 2, 1)), Reading()
    array.read(array.unit, 2 * array.unit, reading)
    assert [stretch for stretch in reading.stretches if stretch] == [array.unit]


@given(st.permutations([4, 3, 5]), st.permutations([0, 1, 2]), st.data())
def test_rows_in_any_order_are_the_rows(dims: list[int], axes: list[int], data: st.DataObject):
    array = Permute(numbered(60), tuple(dims), tuple(axes))
    whole = np.arange(120, dtype=np.float32).reshape(*dims, 2).transpose(*axes, 3).reshape(60, 2)
    start = data.draw(st.integers(0, 60))
    stop = data.draw(st.integers(start, 60))
    assert np.array_equal(array.read(start, stop, Reading()), whole[start:stop])
