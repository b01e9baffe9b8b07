"""Transforms: each undoes itself, equals a few lines of numpy, and reads any rows as if it had read all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubclient.architectures import Transform, concat, each, identity, misread, rope, shift, skip, stack, transpose
from hubclient.architectures.language.arrays import Array, Leaf
from hubclient.errors import DamagedInput

Config = dict[str, Any]
SIZES = st.integers(1, 9)
HEADS = st.integers(1, 5)


# Lazy arrays over numpy arrays in memory


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


def numbered(*shape: int) -> np.ndarray:
    """An array in which every element has a value of its own."""
    return np.arange(int(np.prod(shape)), dtype=np.float32).reshape(shape)


# Transforms with everything that is needed to judge them


@dataclass(frozen=True)
class Case:
    """A transform, a config, inputs that fit them, and what numpy makes of these."""

    transform: Transform
    config: Config
    inputs: tuple[np.ndarray, ...]
    expected: tuple[np.ndarray, ...]


@st.composite
def matrices(draw: st.DrawFn, rows: int | None = None) -> np.ndarray:
    """A matrix, or a vector, with a given or any number of rows."""
    rows = draw(SIZES) if rows is None else rows
    return numbered(rows, draw(SIZES)) if draw(st.booleans()) else numbered(rows)


@st.composite
def roped(draw: st.DrawFn) -> Case:
    heads, half = draw(HEADS), draw(SIZES)
    values = draw(matrices(heads * half * 2))
    expected = values.reshape(heads, 2, half, -1).swapaxes(1, 2).reshape(values.shape)
    return Case(rope("n_heads"), {"n_heads": heads}, (values,), (expected,))


@st.composite
def joined(draw: st.DrawFn) -> Case:
    sizes = draw(st.lists(SIZES, min_size=1, max_size=4))
    tail = draw(st.sampled_from([(), (3,)]))
    inputs = tuple(numbered(size, *tail) + 100 * place for place, size in enumerate(sizes))
    names = [f"rows_{place}" for place in range(len(sizes))]
    return Case(concat(*names), dict(zip(names, sizes, strict=True)), inputs, (np.concatenate(inputs),))


@st.composite
def transposed(draw: st.DrawFn) -> Case:
    values = numbered(draw(SIZES), draw(SIZES))
    return Case(transpose, {}, (values,), (values.T,))


@st.composite
def shifted(draw: st.DrawFn) -> Case:
    values = draw(matrices()) / np.float32(1024)
    return Case(shift(1.0), {}, (values,), (values + 1,))


@st.composite
def moved_and_shifted(draw: st.DrawFn) -> Case:
    one = draw(roped())
    return Case(one.transform >> shift(1.0), one.config, one.inputs, tuple(values + 1 for values in one.expected))


@st.composite
def roped_columns(draw: st.DrawFn) -> Case:
    heads, half, columns = draw(HEADS), draw(SIZES), draw(SIZES)
    values = numbered(columns, heads * half * 2)
    expected = values.T.reshape(heads, 2, half, columns).swapaxes(1, 2).reshape(-1, columns)
    return Case(transpose >> rope("n_heads"), {"n_heads": heads}, (values,), (expected,))


@st.composite
def split_heads(draw: st.DrawFn) -> Case:
    case = draw(joined())
    (fused,) = case.expected
    return Case(~case.transform, case.config, (fused,), case.inputs)


@st.composite
def unchanged(draw: st.DrawFn) -> Case:
    values = draw(matrices())
    return Case(identity, {}, (values,), (values,))


CASES = st.one_of(
    unchanged(), roped(), joined(), transposed(), shifted(), moved_and_shifted(), roped_columns(), split_heads()
)  # fmt: skip


def arrays(inputs: tuple[np.ndarray, ...]) -> tuple[Array, ...]:
    return tuple(map(stored, inputs))


def same(found: tuple[Array, ...], expected: tuple[np.ndarray, ...]) -> bool:
    assert [array.shape for array in found] == [values.shape for values in expected]
    return all(np.array_equal(whole(array), values) for array, values in zip(found, expected, strict=True))


@given(CASES)
def test_forward_is_what_numpy_says(case: Case):
    assert same(case.transform.forward(arrays(case.inputs), case.config), case.expected)


@given(CASES)
def test_backward_undoes_forward(case: Case):
    there = case.transform.forward(arrays(case.inputs), case.config)
    assert same(case.transform.backward(there, case.config), case.inputs)


@given(CASES)
def test_the_inverse_is_a_transform_that_swaps_both_directions(case: Case):
    inverse = ~case.transform
    assert same(inverse.backward(arrays(case.inputs), case.config), case.expected)
    assert same(inverse.forward(arrays(case.expected), case.config), case.inputs)
    there_and_back = case.transform >> ~case.transform
    assert same(there_and_back.forward(arrays(case.inputs), case.config), case.inputs)
    assert ~inverse == case.transform


@given(CASES, st.data())
def test_any_rows_read_alone_are_the_rows_of_the_whole(case: Case, data: st.DataObject):
    for array in case.transform.forward(arrays(case.inputs), case.config):
        every = array.read(0, array.rows, load)
        assert every.shape == (array.rows, array.columns)
        start = data.draw(st.integers(0, array.rows))
        stop = data.draw(st.integers(start, array.rows))
        assert np.array_equal(array.read(start, stop, load), every[start:stop])


@given(CASES, st.integers(1, 4))
def test_tiles_of_whole_units_ask_for_each_source_row_once(case: Case, units: int):
    for array in case.transform.forward(arrays(case.inputs), case.config):
        if not array.local:
            continue
        asked: dict[int, list[int]] = {}

        def counting(leaf: Any, start: int, stop: int, asked: dict[int, list[int]] = asked) -> np.ndarray:
            asked.setdefault(id(leaf), []).extend(range(start, stop))
            return load(leaf, start, stop)

        for start in range(0, array.rows, units * array.unit):
            array.read(start, min(start + units * array.unit, array.rows), counting)
        for rows in asked.values():
            assert len(rows) == len(set(rows))


@given(CASES)
def test_what_moves_rows_also_works_on_packed_rows(case: Case):
    for array, expected in zip(case.transform.forward(arrays(case.inputs), case.config), case.expected, strict=True):
        if array.moves_rows:

            def packed(leaf: Any, start: int, stop: int) -> np.ndarray:
                return load(leaf, start, stop).copy().view(np.uint8)

            rows = array.read(0, array.rows, packed)
            assert rows.tobytes() == np.ascontiguousarray(expected, np.float32).tobytes()


@pytest.mark.parametrize("shape", [(0, 4), (0,), (4, 0)])
def test_tensors_without_elements_pass_through(shape: tuple[int, ...]):
    values = np.zeros(shape, np.float32)
    config = {"heads": 2, "rows": 4, "none": 4}
    transforms: list[Transform] = [identity, shift(1.0), rope("heads")]
    if len(shape) == 2:
        transforms.append(transpose)
    for transform in transforms:
        (there,) = transform.forward((stored(values),), config)
        assert whole(there).size == 0
        assert same(transform.backward((there,), config), (values,))


def test_a_transposed_matrix_is_gathered_in_passes_no_larger_than_the_result():
    largest = []

    def watching(leaf: Any, start: int, stop: int) -> np.ndarray:
        largest.append((stop - start) * leaf.columns)
        return load(leaf, start, stop)

    values = numbered(600, 40)
    (array,) = transpose.forward((stored(values),), {})
    assert np.array_equal(array.read(7, 9, watching), values.T[7:9])
    assert max(largest) <= 2 * 600
    assert sum(largest) == values.size


@pytest.mark.parametrize(
    ("transform", "shapes", "fault"),
    [
        (rope("heads"), [(12, 4)], "4 heads of even size"),
        (rope("heads"), [(2, 8, 4)], "4 heads of even size"),
        (rope("nothing"), [(8, 4)], "nothing is None where a positive integer is needed"),
        (concat("heads", "heads"), [(4, 2), (5, 2)], "4, 5 rows where the config asks for 4, 4"),
        (concat("heads", "heads"), [(4, 2), (4, 3)], "rows where the config asks"),
        (~concat("heads", "heads"), [(9, 2)], "9 rows where the config asks for 4 \\+ 4"),
        (transpose, [(4,)], "where a matrix was expected"),
    ],
)
def test_tensors_that_do_not_fit_the_config_are_damaged_input(transform: Transform, shapes: list[tuple[int, ...]], fault: str):
    with pytest.raises(DamagedInput, match=fault):
        transform.forward(tuple(stored(numbered(*shape)) for shape in shapes), {"heads": 4})


@pytest.mark.parametrize("transform", [skip("n"), misread("readers add one"), identity >> skip("n"), each(skip("n"), identity)])
def test_an_inverse_says_the_same_losses(transform: Transform):
    assert transform.loss and (~transform).loss == transform.loss
    assert (identity >> ~transform).loss == transform.loss


def test_an_inverse_of_a_stack_is_known_to_be_one():
    assert (~stack("e", "n")).spread == ("e", "n")
    assert (~(stack("e", "n") >> transpose)).spread == ("e", "n")


def test_the_plan_can_describe_what_happens_to_a_tensor():
    array: Callable[..., Array] = lambda transform: transform.forward((stored(numbered(8, 4)),), {"heads": 2})[0]  # noqa: E731
    assert array(identity).describe() == ""
    assert array(rope("heads")).describe() == "rope"
    assert array(transpose >> shift(1.0)).describe() == "transpose +1"
    assert array(~shift(1.0)).describe() == "-1"
