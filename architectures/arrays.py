"""Lazy arrays: what a transform yields, readable a few rows at a time.

An array is seen as rows along all axes but the last; a vector of n elements as n rows of one, so that a bias follows the
rows of its matrix. `read(start, stop, load)` gives rows [start, stop) as a numpy array whose first axis counts rows;
`load(leaf, start, stop)` is the engine's, and decides what a row is: packed bytes, native elements or float32. Nodes that
only move rows work for all three. No rows (start equal to stop) are an empty array of the right width and dtype.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Rows = np.ndarray[Any, Any]
    Load = Callable[["Leaf", int, int], Rows]

# Rows this far apart are read in one stretch when a permutation gathers them: one read beats many small ones.
_GAP = 64


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
    def local(self) -> bool:
        """True if a few rows need only a few rows of the parts (false for a transpose)."""
        return all(part.local for part in self.parts)

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


@dataclass(frozen=True, slots=True)
class Concat(Array):
    """Arrays of equal row length one after the other along the first axis."""

    members: tuple[Array, ...]
    shape: tuple[int, ...]

    @property
    def parts(self) -> tuple[Array, ...]:
        """The members."""
        return self.members

    def read(self, start: int, stop: int, load: Load) -> Rows:
        """Rows [start, stop), from whichever members hold them."""
        import numpy as np

        found, base = [], 0
        for part in self.members:
            low, high = max(start - base, 0), min(stop - base, part.rows)
            if low < high:
                found.append(part.read(low, high, load))
            base += part.rows
        if not found:
            return self.members[0].read(0, 0, load)
        return found[0] if len(found) == 1 else np.concatenate(found)

    def _verb(self) -> str:
        return f"concat({len(self.members)})"


@dataclass(frozen=True, slots=True)
class Slice(Array):
    """Rows of `part` from row `first`."""

    part: Array
    first: int
    shape: tuple[int, ...]

    @property
    def parts(self) -> tuple[Array, ...]:
        """The sliced array."""
        return (self.part,)

    def read(self, start: int, stop: int, load: Load) -> Rows:
        """Rows [start, stop) of the slice."""
        return self.part.read(self.first + start, self.first + stop, load)

    def _verb(self) -> str:
        return f"rows {self.first}..{self.first + self.rows}"


@dataclass(frozen=True, slots=True)
class Permute(Array):
    """Rows re-ordered as `rows.reshape(dims).transpose(axes)` would order them."""

    part: Array
    dims: tuple[int, ...]
    axes: tuple[int, ...]
    verb: str = "permute"

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """As before: rows keep their number and length."""
        return self.part.shape

    @property
    def parts(self) -> tuple[Array, ...]:
        """The permuted array."""
        return (self.part,)

    @property
    def unit(self) -> int:
        """Rows that trade places among themselves: everything behind the leading axes that stay."""
        kept = 0
        while kept < len(self.axes) and self.axes[kept] == kept:
            kept += 1
        return math.lcm(math.prod(self.dims[kept:]), self.part.unit)

    def sources(self, start: int, stop: int) -> Rows:
        """The row of `part` behind each of the rows [start, stop); int64."""
        import numpy as np

        strides = [math.prod(self.dims[axis + 1 :]) for axis in range(len(self.dims))]
        rest = np.arange(start, stop, dtype=np.int64)
        result = np.zeros_like(rest)
        for axis in reversed(self.axes):
            rest, index = np.divmod(rest, self.dims[axis])
            result += index * strides[axis]
        return result

    def read(self, start: int, stop: int, load: Load) -> Rows:
        """Rows [start, stop), read in stretches of neighbouring source rows."""
        import numpy as np

        if start == stop:
            return self.part.read(0, 0, load)
        wanted = self.sources(start, stop)
        order = np.argsort(wanted, kind="stable")
        ranked = wanted[order]
        breaks = np.flatnonzero(np.diff(ranked) > _GAP) + 1
        result = None
        for stretch in np.split(order, breaks):
            low, high = int(wanted[stretch[0]]), int(wanted[stretch[-1]]) + 1
            block = self.part.read(low, high, load)
            if result is None:
                result = np.empty((stop - start, *block.shape[1:]), block.dtype)
            result[stretch] = block[wanted[stretch] - low]
        assert result is not None
        return result

    def _verb(self) -> str:
        return self.verb


@dataclass(frozen=True, slots=True)
class Transpose(Array):
    """A matrix with rows and columns exchanged."""

    part: Array

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """(columns, rows) of the part."""
        return self.part.shape[::-1]

    @property
    def parts(self) -> tuple[Array, ...]:
        """The transposed matrix."""
        return (self.part,)

    @property
    def unit(self) -> int:
        """One: rows of the result do not depend on each other."""
        return 1

    @property
    def moves_rows(self) -> bool:
        """False: elements leave their rows."""
        return False

    @property
    def local(self) -> bool:
        """False: a row needs a column, which crosses every row of the part."""
        return False

    def read(self, start: int, stop: int, load: Load) -> Rows:
        """Rows [start, stop): columns of the part, gathered in passes as large as the result itself."""
        import numpy as np

        part = self.part
        result = np.empty((stop - start, part.rows), part.read(0, 0, load).dtype)
        if not result.size:
            return result
        step = max(1, result.size // part.columns)
        for low in range(0, part.rows, step):
            block = part.read(low, min(low + step, part.rows), load)
            result[:, low : low + len(block)] = block[:, start:stop].T
        return result

    def _verb(self) -> str:
        return "transpose"


@dataclass(frozen=True, slots=True)
class Shift(Array):
    """Every element plus `by`, in float32 arithmetic."""

    part: Array
    by: float

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """As before."""
        return self.part.shape

    @property
    def parts(self) -> tuple[Array, ...]:
        """The shifted array."""
        return (self.part,)

    @property
    def moves_rows(self) -> bool:
        """False: values change."""
        return False

    @property
    def moves_elements(self) -> bool:
        """False: values change."""
        return False

    def read(self, start: int, stop: int, load: Load) -> Rows:
        """Rows [start, stop), shifted; `load` must give float32."""
        import numpy as np

        return self.part.read(start, stop, load) + np.float32(self.by)

    def _verb(self) -> str:
        return f"{self.by:+g}"


def row_shape(shape: Sequence[int], rows: int) -> tuple[int, ...]:
    """`shape` with its first axis replaced so that it has `rows` rows in all (2-D or 1-D)."""
    return (rows, *shape[1:])
