"""Arrays whose elements are computed: one operation on each, in float32, with the operation that undoes it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from hubclient.architectures.language.arrays import Alike, Array, Concat

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from hubclient.architectures.language.arrays import Leaf, Load

    Rows = np.ndarray[Any, Any]


class Operation(Protocol):
    """What is done to each element; a frozen value. Whether `inverse` brings a number back depends on the number."""

    @property
    def inverse(self) -> Operation:
        """The operation that undoes this one."""
        ...

    @property
    def rounding(self) -> int:
        """By how many units in the last place other programs' results may be off."""
        ...

    def apply(self, values: Rows) -> Rows:
        """float32 from float32."""
        ...


@dataclass(frozen=True, slots=True)
class Add:
    """x + by, rounded to float32."""

    by: float

    @property
    def inverse(self) -> Add:
        """What was added is taken away again."""
        return Add(-self.by)

    @property
    def rounding(self) -> int:
        """None: a sum is rounded in one way."""
        return 0

    def apply(self, values: Rows) -> Rows:
        """The sums."""
        import numpy as np

        return values + np.float32(self.by)

    def __str__(self) -> str:
        return f"{self.by:+g}"


@dataclass(frozen=True, slots=True)
class NegativeExp:
    """-exp(x), rounded to float32 as in `exponential`."""

    @property
    def inverse(self) -> LogNegative:
        """log(-x)."""
        return LogNegative()

    @property
    def rounding(self) -> int:
        """One: mathematical libraries differ in the last bit."""
        return 1

    def apply(self, values: Rows) -> Rows:
        """The negative exponentials."""
        from hubclient.architectures.language.exponential import exponential

        return -exponential(values)

    def __str__(self) -> str:
        return "-exp"


@dataclass(frozen=True, slots=True)
class LogNegative:
    """log(-x), as float64 arithmetic rounds it to float32."""

    @property
    def inverse(self) -> NegativeExp:
        """-exp(x)."""
        return NegativeExp()

    @property
    def rounding(self) -> int:
        """One: mathematical libraries differ in the last bit."""
        return 1

    def apply(self, values: Rows) -> Rows:
        """The logarithms; NaN for what no exponential gives."""
        import numpy as np

        with np.errstate(all="ignore"):
            return np.log(-values.astype(np.float64)).astype(np.float32)

    def __str__(self) -> str:
        return "log(-x)"


@dataclass(frozen=True, slots=True)
class Computed(Alike):
    """`operation` on every element of `part`."""

    part: Array
    operation: Operation

    @property
    def moves_rows(self) -> bool:
        """False: values change."""
        return False

    @property
    def moves_elements(self) -> bool:
        """False: values change."""
        return False

    @property
    def keeps_values(self) -> bool:
        """False: values change."""
        return False

    def runs(self) -> Iterator[tuple[int, Leaf]]:
        """Those of the part."""
        return self.part.runs()

    def read(self, start: int, stop: int, load: Load) -> Rows:
        """Rows [start, stop); `load` must give float32."""
        return self.operation.apply(self.part.read(start, stop, load))

    def _verb(self) -> str:
        return str(self.operation)


def bare(array: Array) -> tuple[Array, tuple[Operation, ...]] | None:
    """The same array before any operation, and the operations in the order in which they are to be undone.

    None if parts of the array went through different ones.
    """
    if isinstance(array, Computed):
        found = bare(array.part)
        return found and (found[0], (array.operation, *found[1]))
    within = [bare(part) for part in array.parts]
    if not within:
        return array, ()
    if any(one is None for one in within) or len({one[1] for one in within if one}) > 1:
        return None
    parts = tuple(one[0] for one in within if one)
    operations = next(one[1] for one in within if one)
    if not operations:
        return array, ()
    field = {"members": parts} if isinstance(array, Concat) else {"part": parts[0]}
    return replace(array, **field), operations  # type: ignore[type-var]


def computed(array: Array, operation: Operation) -> Array:
    """The operation on every element; one that undoes the last takes it away."""
    if isinstance(array, Computed) and array.operation == operation.inverse:
        return array.part
    return Computed(array, operation)
