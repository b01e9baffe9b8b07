"""Arrays that re-order rows, and those that exchange rows and columns."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hubclient.architectures.language.arrays import Alike, Array, Single

if TYPE_CHECKING:
    import numpy as np

    from hubclient.architectures.language.arrays import Load

    Rows = np.ndarray[Any, Any]

# Rows this far apart are read in one stretch when they are gathered: one read beats several, and reads this much too much.
_GAP = 4


class Gather(Alike):
    """Base of arrays whose rows are the part's in another order. `sources` says which."""

    __slots__ = ()

    def sources(self, start: int, stop: int) -> Rows:
        """The row of `part` behind each of the rows [start, stop); int64."""
        raise NotImplementedError

    def read(self, start: int, stop: int, load: Load) -> Rows:
        """Rows [start, stop), read in stretches of neighbouring source rows, none of which is larger than the result."""
        import numpy as np

        none = self.part.read(0, 0, load)
        result = np.empty((stop - start, *none.shape[1:]), none.dtype)
        wanted = self.sources(start, stop)
        order = np.argsort(wanted, kind="stable")
        for stretch in np.split(order, _breaks(wanted[order], stop - start)) if len(order) else ():
            low, high = int(wanted[stretch[0]]), int(wanted[stretch[-1]]) + 1
            result[stretch] = self.part.read(low, high, load)[wanted[stretch] - low]
        return result


def _breaks(ranked: Rows, longest: int) -> Rows:
    """Where rows in ascending order are cut into stretches of at most `longest` rows with small gaps."""
    import numpy as np

    pieces = (ranked - ranked[0]) // longest
    return np.flatnonzero((np.diff(ranked) > _GAP) | (np.diff(pieces) > 0)) + 1


@dataclass(frozen=True, slots=True)
class Permute(Gather):
    """Rows re-ordered as `rows.reshape(dims).transpose(axes)` would order them."""

    part: Array
    dims: tuple[int, ...]
    axes: tuple[int, ...]
    verb: str = "permute"

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

    def _verb(self) -> str:
        return self.verb


@dataclass(frozen=True, slots=True)
class Ungroup(Gather):
    """Rows in `groups` groups of `sizes` each, sorted by kind: of every group the first kind, then of every group the second.

    With `back` the other way round: rows sorted by kind put into groups again.
    """

    part: Array
    groups: int
    sizes: tuple[int, ...]
    back: bool = False

    @property
    def unit(self) -> int:
        """The part's; stretches of one kind within a group are read on their own."""
        return self.part.unit

    def sources(self, start: int, stop: int) -> Rows:
        """The row of `part` behind each of the rows [start, stop); int64."""
        import numpy as np

        rows, sizes = np.arange(start, stop, dtype=np.int64), np.array(self.sizes, np.int64)
        within = np.cumsum(sizes) - sizes  # where a kind begins in its group
        if self.back:
            group, place = np.divmod(rows, int(sizes.sum()))
            kind = np.searchsorted(within, place, "right") - 1
            grouped: Rows = within[kind] * self.groups + group * sizes[kind] + place - within[kind]
            return grouped
        kind = np.searchsorted(within * self.groups, rows, "right") - 1
        group, place = np.divmod(rows - within[kind] * self.groups, sizes[kind])
        sorted_: Rows = group * int(sizes.sum()) + within[kind] + place
        return sorted_

    def _verb(self) -> str:
        return f"{'group' if self.back else 'ungroup'}({self.groups} x {'+'.join(map(str, self.sizes))})"


@dataclass(frozen=True, slots=True)
class Transpose(Single):
    """The last two axes exchanged; further axes are a batch of matrices."""

    part: Array

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """(..., columns, rows) of the part."""
        *batch, rows, columns = self.part.shape
        return (*batch, columns, rows)

    @property
    def unit(self) -> int:
        """The rows of one matrix in a batch of them; of a single one no row depends on another."""
        return self.shape[-2] if len(self.shape) > 2 else 1

    @property
    def moves_rows(self) -> bool:
        """False: elements leave their rows."""
        return False

    @property
    def local(self) -> bool:
        """False: a row needs a column, which crosses every row of its matrix."""
        return False

    def read(self, start: int, stop: int, load: Load) -> Rows:
        """Rows [start, stop), matrix by matrix."""
        import numpy as np

        high, wide = self.shape[-2:]
        result = np.empty((stop - start, wide), self.part.read(0, 0, load).dtype)
        row = start
        while row < stop and result.size:
            matrix, first = divmod(row, high)
            last = min(high, first + stop - row)
            self._fill(result[row - start : row - start + last - first], matrix * wide, first, last, load)
            row += last - first
        return result

    def _fill(self, result: Rows, base: int, first: int, last: int, load: Load) -> None:
        """Columns [first, last) of the matrix at row `base`, gathered in passes as large as the result itself."""
        wide = result.shape[1]
        step = max(1, result.size // max(1, self.part.columns))
        for low in range(0, wide, step):
            block = self.part.read(base + low, base + min(low + step, wide), load)
            result[:, low : low + len(block)] = block[:, first:last].T

    def _verb(self) -> str:
        return "transpose"
