"""Whether values come back: what was encoded is decoded, undone and compared with the source, while it is at hand.

Whether a number survives rounding or arithmetic depends on the number, so nothing is assumed from the kind of transform:
of every tensor that is rounded or computed the elements that would not come back are counted. Quantised tensors are said
to be that, and are not counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubclient.architectures.language.elementwise import bare
from hubclient.formats import codecs
from hubclient.formats.encodings import ENCODINGS, F32
from hubclient.model import encodings_of

if TYPE_CHECKING:
    import numpy as np

    from hubclient.architectures.language.arrays import Array
    from hubclient.architectures.language.elementwise import Operation
    from hubclient.deviation import Deviation
    from hubclient.formats.model import Encoding
    from hubclient.plan import Step
    from hubclient.rows import Reader

    Rows = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Kept:
    """What became of a tensor's values: "exact", "rounded", "computed" (and not coming back) or "quantised".

    `changed` of its `elements` would not come back bit for bit; None if that is not counted. Of a quantised tensor it counts the
    NaN and infinities that were replaced, and `deviation` says how far values are off, if that was measured.
    """

    fidelity: str
    changed: int | None
    elements: int
    deviation: Deviation | None = None

    def as_json(self) -> dict[str, Any]:
        """The same as plain data."""
        told = {"fidelity": self.fidelity, "changed": self.changed, "elements": self.elements}
        if self.fidelity == "quantised":
            told = {"fidelity": self.fidelity, "replaced": self.changed or 0, "elements": self.elements}
        return told


@dataclass(frozen=True)
class Outcome:
    """What a conversion wrote: the paths, and per output what became of each tensor."""

    paths: tuple[Path, ...]
    tensors: tuple[Mapping[str, Kept], ...]

    def counts(self, output: int) -> dict[str, int]:
        """Tensors of an output by fidelity."""
        result: dict[str, int] = {}
        for kept in self.tensors[output].values():
            result[kept.fidelity] = result.get(kept.fidelity, 0) + 1
        return result


def kept(step: Step, changed: int | None, deviation: Deviation | None = None) -> Kept:
    """The verdict on a tensor of which `changed` elements would not come back (None: not counted)."""
    planned, elements = step.fidelity, step.array.rows * step.array.columns
    if step.quantises:
        return Kept(planned, changed, elements, deviation)
    if planned in ("exact", "quantised"):
        return Kept(planned, 0 if planned == "exact" else None, elements)
    return Kept("exact" if changed == 0 else planned, changed, elements)


class Check:
    """Counts what would not come back, for one step. `applies` is false where nothing is to be counted."""

    def __init__(self, step: Step) -> None:
        self._step = step

    @cached_property
    def applies(self) -> bool:
        """Whether values may change here, and one way of undoing that holds for all of the tensor."""
        return self._step.fidelity in ("rounded", "computed") and self._way is not None

    @cached_property
    def _way(self) -> tuple[Array, tuple[Operation, ...], Encoding] | None:
        own = encodings_of(self._step.array)
        found = bare(self._step.array)
        if found is None or ENCODINGS["F64"] in own:  # float32 cannot tell float64 apart
            return None
        if not found[0].moves_elements:
            return (*found, F32)  # unpacked from numbers and scales
        return (*found, own.pop()) if len(own) == 1 else None

    def changed(self, start: int, stop: int, values: Rows, data: Rows, reader: Reader) -> int:
        """Elements of the rows [start, stop), float32 `values` that became `data`, that do not come back as they were stored."""
        assert self._way is not None
        array, operations, source = self._way
        again = codecs.decode(data, self._step.encoding, array.columns)
        for operation in operations:
            again = operation.inverse.apply(again)
        before = array.read(start, stop, reader.floats) if operations else values
        return codecs.count_unlike(before, again, source)
