"""Lazy arrays: what a transform yields, readable a few rows at a time. Here the plain ones, which keep rows in their order.

An array is seen as rows along all axes but the last; a vector of n elements as n rows of one, so that a bias follows the
rows of its matrix. `read(start, stop, load)` gives rows [start, stop) as a numpy array whose first axis counts rows;
`load(leaf, start, stop)` is the engine's, and decides what a row is: packed bytes, native elements or float32. Nodes that
only move rows work for all three. No rows (start equal to stop) are an empty array of the right width and dtype.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Rows = np.ndarray[Any, Any]
    Load = Callable[["Leaf", int, int], Rows]


class Array:
    """Base of all nodes. `shape` is row-major."""

    __slots__ = ()
    shape: tuple[int, ...]

    @property
    def rows(self) -> int:
        """Number of rows: the product of all axes but the last; the length of a vector; 1 for a scalar."""
        return math.prod(self.shape) if len(self.shape) < 2 else math.prod(self.shape[:-1])

    @property
    def columns(self) -> int:
        """Elements of a row."""
        return self.shape[-1] if len(self.shape) > 1 else 1

    @property
    def parts(self) -> tuple[Array, ...]:
        """The arrays that this one is made of."""
        return ()

    @property
    def unit(self) -> int:
        """Rows that should be read together: tiles of whole units read nothing twice."""
        return max((part.unit for part in self.parts), default=1)

    @property
    def moves_rows(self) -> bool:
        """True if whole rows move and none changes, so that packed rows may move without being decoded."""
        return all(part.moves_rows for part in self.parts)

    @property
    def moves_elements(self) -> bool:
        """True if no element changes its value, so that native elements may move without being decoded."""
        return all(part.moves_elements for part in self.parts)

    @property
    def keeps_values(self) -> bool:
        """True if every element is a number that the source stands for, be it moved or unpacked: none is computed from it."""
        return all(part.keeps_values for part in self.parts)

    @property
    def local(self) -> bool:
        """True if a few rows need only a few rows of the parts (false for a transpose)."""
        return all(part.local for part in self.parts)

    def runs(self) -> Iterator[tuple[int, Leaf]]:
        """Its rows in stretches that lie apart: how many, and the stored tensor where they begin."""
        yield self.rows, next(self.leaves())

    def leaves(self) -> Iterator[Leaf]:
        """The stored tensors that this array is made of, in order."""
        for part in self.parts:
            yield from part.leaves()

    def read(self, start: int, stop: int, load: Load) -> Rows:
        """Rows [start, stop)."""
        raise NotImplementedError

    def describe(self) -> str:
        """A short text for the printed plan; empty for a plain copy."""
        inner = [text for part in self.parts if (text := part.describe())]
        return " ".join([*dict.fromkeys(inner), self._verb()]).strip()

    def _verb(self) -> str:
        return ""


@dataclass(frozen=True, slots=True)
class Leaf(Array):
    """A stored tensor; `ref` is whatever the engine's `load` understands."""

    shape: tuple[int, ...]
    ref: Any

    def leaves(self) -> Iterator[Leaf]:
        """Itself."""
        yield self

    def describe(self) -> str:
        """Nothing: it is what it is."""
        return ""

    def read(self, start: int, stop: int, load: Load) -> Rows:
        """Rows [start, stop), as `load` gives them."""
        return load(self, start, stop)


class Single(Array):
    """Base of nodes that are made of one array."""

    __slots__ = ()
    part: Array

    @property
    def parts(self) -> tuple[Array, ...]:
        """The array that it is made of."""
        return (self.part,)


class Alike(Single):
    """Base of nodes that have the shape of the array that they are made of."""

    __slots__ = ()

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """As before."""
        return self.part.shape


@dataclass(frozen=True, slots=True)
class Concat(Array):
    """Arrays of equal row length one after the other along the first axis."""

    members: tuple[Array, ...]
    shape: tuple[int, ...]
    _starts: tuple[int, ...] = field(init=False, repr=False, compare=False)  # the first row of each member

    def __post_init__(self) -> None:
        rows = (part.rows for part in self.members[:-1])
        object.__setattr__(self, "_starts", tuple(accumulate(rows, initial=0)))

    @property
    def parts(self) -> tuple[Array, ...]:
        """The members."""
        return self.members

    def runs(self) -> Iterator[tuple[int, Leaf]]:
        """Those of the members."""
        for part in self.members:
            yield from part.runs()

    def read(self, start: int, stop: int, load: Load) -> Rows:
        """Rows [start, stop), from whichever members hold them."""
        import numpy as np

        found = []
        for at in range(bisect_right(self._starts, start) - 1, len(self.members)):
            part, base = self.members[at], self._starts[at]
            if base >= stop:
                break
            low, high = max(start - base, 0), min(stop - base, part.rows)
            if low < high:
                found.append(part.read(low, high, load))
        if not found:
            return self.members[0].read(0, 0, load)
        return found[0] if len(found) == 1 else np.concatenate(found)

    def _verb(self) -> str:
        return f"concat({len(self.members)})"


@dataclass(frozen=True, slots=True)
class Slice(Single):
    """Rows of `part` from row `first`."""

    part: Array
    first: int
    shape: tuple[int, ...]

    def read(self, start: int, stop: int, load: Load) -> Rows:
        """Rows [start, stop) of the slice."""
        return self.part.read(self.first + start, self.first + stop, load)

    def _verb(self) -> str:
        return f"rows {self.first}..{self.first + self.rows}"


@dataclass(frozen=True, slots=True)
class Reshape(Single):
    """The same elements in the same order under another shape. Packed rows move only if rows keep their length."""

    part: Array
    shape: tuple[int, ...]

    @property
    def unit(self) -> int:
        """The part's, in rows of this shape."""
        return max(1, self.part.unit * self.part.columns // max(1, self.columns))

    @property
    def moves_rows(self) -> bool:
        """Whether rows are as long as before, and move in the part."""
        return self.part.columns == self.columns and self.part.moves_rows

    def runs(self) -> Iterator[tuple[int, Leaf]]:
        """Those of the part, if they are whole rows here as well."""
        old, new = self.part.columns, max(1, self.columns)
        runs = list(self.part.runs())
        if any(count * old % new for count, _ in runs):
            runs, new = [(self.rows, runs[0][1])], old
        yield from ((count * old // new, leaf) for count, leaf in runs)

    def read(self, start: int, stop: int, load: Load) -> Rows:
        """Rows [start, stop), cut out of the part's rows that cover them."""
        old, new = self.part.columns, self.columns
        if old == new or start == stop:
            rows = self.part.read(start, stop, load)
            return rows if old == new else rows.reshape(-1)[:0].reshape(0, new)
        first, last = start * new // old, -(-stop * new // old)
        flat = self.part.read(first, last, load).reshape(-1)
        return flat[start * new - first * old : stop * new - first * old].reshape(stop - start, new)

    def _verb(self) -> str:
        return f"reshape({'x'.join(map(str, self.shape))})"


@dataclass(frozen=True, slots=True)
class Padded(Single):
    """Rows of zeros before those of `part`: what stands for rows that a format leaves out."""

    part: Array
    before: int

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """The part's, with more rows."""
        return (self.part.shape[0] + self.before, *self.part.shape[1:])

    def read(self, start: int, stop: int, load: Load) -> Rows:
        """Rows [start, stop); zero bits are zeros in every encoding there is."""
        import numpy as np

        extra = self.before * math.prod(self.part.shape[1:-1])
        rows = self.part.read(max(0, start - extra), max(0, stop - extra), load)
        zeros = np.zeros((max(0, min(stop, extra) - start), *rows.shape[1:]), rows.dtype)
        return np.concatenate((zeros, rows)) if len(zeros) else rows

    def _verb(self) -> str:
        return f"{self.before} rows of zeros before"


def reshaped(array: Array, shape: Sequence[int]) -> Array:
    """`array` under another shape of as many elements; a shape that it had before is given back."""
    part = array.part if isinstance(array, Reshape) else array
    return part if part.shape == tuple(shape) else Reshape(part, tuple(shape))


def joined(arrays: Sequence[Array]) -> Array:
    """Arrays of equal row length along the first axis; neighbouring slices of one array that are all of it are that array."""
    first = arrays[0]
    if len(arrays) == 1:
        return first
    if isinstance(first, Slice) and first.first == 0 and _are_all_of(first.part, arrays):
        return first.part
    return Concat(tuple(arrays), row_shape(first.shape, sum(array.shape[0] for array in arrays)))


def cut(array: Array, sizes: Sequence[int]) -> tuple[Array, ...]:
    """The inverse of `joined`: arrays of so many entries of the first axis each."""
    if len(sizes) == 1:
        return (array,)
    if isinstance(array, Concat) and [part.shape[0] for part in array.members] == list(sizes):
        return array.members
    per_entry = math.prod(array.shape[1:-1])
    result, first = [], 0
    for size in sizes:
        result.append(Slice(array, first * per_entry, row_shape(array.shape, size)))
        first += size
    return tuple(result)


def row_shape(shape: Sequence[int], rows: int) -> tuple[int, ...]:
    """`shape` with another length of its first axis."""
    return (rows, *shape[1:])


def _are_all_of(part: Array, arrays: Sequence[Array]) -> bool:
    row = 0
    for array in arrays:
        if not (isinstance(array, Slice) and array.part is part and array.first == row):
            return False
        row += array.rows
    return row == part.rows
