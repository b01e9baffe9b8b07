"""How far quantised values lie from those they were made of: sums that add up over a tensor's tiles."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from hubclient.formats import codecs

if TYPE_CHECKING:
    import numpy as np

    from hubclient.formats.model import Encoding

    Rows = np.ndarray[Any, Any]

_STEP = 1 << 16  # float32 elements decoded at a time, twice


class Deviation(NamedTuple):
    """Sums over some rows of a tensor: squared differences, squares of the source and of what was made, their products; and the
    block with the largest mean squared difference, which begins at element `column` of row `row`.
    """

    squares: float = 0.0
    source: float = 0.0
    made: float = 0.0
    products: float = 0.0
    worst: float = -1.0
    row: int = 0
    column: int = 0

    def joined(self, other: Deviation) -> Deviation:
        """Over the rows of both."""
        worst = max(self, other, key=lambda one: (one.worst, -one.row, -one.column))
        return Deviation(
            self.squares + other.squares, self.source + other.source, self.made + other.made, self.products + other.products,
            worst.worst, worst.row, worst.column,
        )  # fmt: skip

    def rmse(self, elements: int) -> float:
        """The root of the mean squared difference."""
        return math.sqrt(self.squares / elements) if elements else 0.0

    @property
    def cosine(self) -> float:
        """Of the angle between source and what was made, as vectors; 1 if both are zero."""
        length = math.sqrt(self.source) * math.sqrt(self.made)
        return self.products / length if length else float(self.source == self.made)

    @property
    def worst_rmse(self) -> float:
        """That of the block where it is largest."""
        return math.sqrt(max(self.worst, 0.0))


def deviation(source: Rows, encoding: Encoding, made: Rows, target: Encoding, columns: int, first: int) -> Deviation:
    """Between raw rows uint8 [n, row_bytes] of `encoding` and those of the quantised `target`; `first` is the number of the first row."""
    import numpy as np

    from hubclient.formats.kernels import deviations

    total, step = Deviation(), max(1, _STEP // max(1, columns))
    for start in range(0, len(source), step):
        before = codecs.decode(source[start : start + step], encoding, columns)
        after = codecs.decode(made[start : start + step], target, columns)
        sums = np.zeros(4)
        worst, block = deviations(before.reshape(-1), after.reshape(-1), target.block, sums)
        row, column = divmod(int(block) * target.block, columns)
        squares, squared, made_squared, products = map(float, sums)
        found = Deviation(squares, squared, made_squared, products, float(worst), first + start + row, column)
        total = total.joined(found)
    return total
