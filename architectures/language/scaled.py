"""Matrices that are stored as numbers and scales: every block of a matrix has one factor for all that is in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hubclient.architectures.language.arrays import Alike, Array, Leaf

if TYPE_CHECKING:
    import numpy as np

    from hubclient.architectures.language.arrays import Load

    Rows = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Scaled(Alike):
    """`part` times the scale of the block that an element lies in, rounded once to float32.

    `part` is a matrix or a batch of them, (..., rows, columns); `block` is (rows, columns) of a block, and `scales` has
    one number for each, (..., ceil(rows / block rows), ceil(columns / block columns)): blocks at the lower and right edges
    may be cut off.
    """

    part: Array
    scales: Array
    block: tuple[int, int]

    @property
    def parts(self) -> tuple[Array, ...]:
        """The matrix and its scales."""
        return (self.part, self.scales)

    @property
    def unit(self) -> int:
        """Rows that share their scales; those of a matrix where its last block is cut off."""
        high, tall = self.shape[-2], self.block[0]
        return max(self.part.unit, min(high, tall) if high % tall == 0 or len(self.shape) == 2 else high)

    @property
    def moves_rows(self) -> bool:
        """False: numbers are unpacked."""
        return False

    @property
    def moves_elements(self) -> bool:
        """False: a number and its scale make one number."""
        return False

    def leaves(self) -> Iterator[Leaf]:
        """The matrix's, then the scales'."""
        yield from self.part.leaves()
        yield from self.scales.leaves()

    def read(self, start: int, stop: int, load: Load) -> Rows:
        """Rows [start, stop); `load` must give float32. Reads the scales of these rows alone."""
        import numpy as np

        values: Rows = self.part.read(start, stop, load)
        if start == stop:
            return values
        blocks = self._scale_rows(np.arange(start, stop))
        scales = self.scales.read(int(blocks[0]), int(blocks[-1]) + 1, load)
        result: Rows = np.empty_like(values)
        firsts = np.flatnonzero(np.diff(blocks, prepend=-1))
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            if scales.shape[1] == 1:
                np.multiply(values, scales[blocks - blocks[0]], out=result)
                return result
            for first, last, factors in zip(firsts, [*firsts[1:], len(blocks)], scales, strict=True):
                np.multiply(values[first:last], np.repeat(factors, self.block[1])[: self.columns], out=result[first:last])
        return result

    def describe(self) -> str:
        """The matrix's text, and the size of a block."""
        return f"{self.part.describe()} {self._verb()}".strip()

    def _scale_rows(self, rows: Rows) -> Rows:
        """The row of `scales` for each of these rows, which follow each other."""
        high, tall = self.shape[-2], self.block[0]
        found: Rows = rows // high * -(-high // tall) + rows % high // tall
        return found

    def _verb(self) -> str:
        return f"scaled({'x'.join(map(str, self.block))})"
