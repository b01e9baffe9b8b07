"""Checks of values: transforms give back the bytes they took, and arrays do what they promise the engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubclient.architectures.language.arrays import Array, Leaf
from hubclient.errors import DamagedInput
from hubclient.testing.bench import Subject
from hubclient.testing.faults import refuse, require
from hubclient.testing.folders import numbers
from hubclient.testing.names import matched

if TYPE_CHECKING:
    import numpy as np

    from hubclient.architectures.language.layouts import Bound
    from hubclient.testing.synthetic import Synthetic

    Rows = np.ndarray[Any, Any]

_CLOSE = 1e-5  # of values that are computed and cannot all come back bit for bit


def come_back(subject: Subject, folder: Path) -> None:  # noqa: ARG001
    """Random values through each transform and back are the same bytes; computed ones nearly, skipped rows but for those."""
    import numpy as np

    for model, bound in _bounds(subject):
        transform = bound.rule.transform
        given = tuple(numbers(name, model.shapes[name]) for name in bound.inputs)
        there = _applied(bound, transform.forward, given, model.config)
        exact = all(array.moves_elements for array in there)
        back = _applied(bound, transform.backward, tuple(map(_read, there)), model.config)
        for name, before, array in zip(bound.inputs, given, back, strict=True):
            require(
                array.shape == before.shape,
                f"{name} comes back with the shape {list(array.shape)} instead of {list(before.shape)}",
            )
            after = _read(array)
            if transform.loss:
                continue
            same = after.tobytes() == before.tobytes() if exact else np.allclose(after, before, atol=_CLOSE, rtol=0)
            require(same, f"{name} comes back with other values from {transform}")
        _require_own(bound, given, there)


def keep_their_word(subject: Subject, folder: Path) -> None:  # noqa: ARG001
    """Arrays read in parts are what they are read at once; rows that are said to move move as bytes, elements as elements."""
    import numpy as np

    for model, bound in _bounds(subject):
        given = tuple(numbers(name, model.shapes[name]) for name in bound.inputs)
        for array in _applied(bound, bound.rule.transform.forward, given, model.config):
            whole, told = array.read(0, array.rows, _floats), bound.outputs[0]
            require(array.rows > 0, f"{told} has no rows")
            require(whole.shape == (array.rows, array.columns), f"{told} is read as {list(whole.shape)}")
            for step in (1, 3, max(1, array.unit)):
                parts = [array.read(row, min(row + step, array.rows), _floats) for row in range(0, array.rows, step)]
                require(np.array_equal(np.concatenate(parts), whole), f"{told} read {step} rows at a time is another tensor")
            require(array.read(0, 0, _floats).shape[0] == 0, f"{told}: no rows of it are some")
            if array.moves_elements:
                bits = array.read(0, array.rows, _bits)
                require(np.array_equal(bits, whole.view("u4")), f"{told} says that its elements only move, and computes")
            if array.moves_rows:
                packed = array.read(0, array.rows, _packed)
                same = packed.tobytes() == np.ascontiguousarray(whole).tobytes()
                require(same, f"{told} says that its rows only move, and takes them apart")


def _bounds(subject: Subject) -> Iterator[tuple[Synthetic, Bound]]:
    for model in subject.models:
        for bound in matched(subject, model, model.names_in(subject.space), "hf").bound:
            yield model, bound


def _applied(bound: Bound, step: Any, given: tuple[Rows, ...], config: Mapping[str, Any]) -> tuple[Array, ...]:
    try:
        return tuple(step(tuple(Leaf(values.shape, values) for values in given), config))
    except DamagedInput as error:
        return refuse(f"{', '.join(bound.inputs[:3])}: {error}")


def _require_own(bound: Bound, given: tuple[Rows, ...], there: tuple[Array, ...]) -> None:
    """Nothing is left out on the way unless the transform says so."""
    before, after = sum(values.size for values in given), sum(array.rows * array.columns for array in there)
    require(
        after == before or bool(bound.rule.transform.loss),
        f"{', '.join(bound.inputs[:3])}: of {before} elements {after} come out, and the transform says nothing of a loss",
    )


def _read(array: Array) -> Rows:
    rows: Rows = array.read(0, array.rows, _floats).reshape(array.shape)
    return rows


def _floats(leaf: Leaf, start: int, stop: int) -> Rows:
    rows: Rows = leaf.ref.reshape(leaf.rows, leaf.columns)[start:stop]
    return rows


def _bits(leaf: Leaf, start: int, stop: int) -> Rows:
    return _floats(leaf, start, stop).view("u4")


def _packed(leaf: Leaf, start: int, stop: int) -> Rows:
    return _floats(leaf, start, stop).view("u1")
