"""Working off a tile: read its rows, transform, encode. Knows no output file and no journal."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from hubclient.deviation import Deviation, deviation
from hubclient.errors import DamagedInput
from hubclient.formats import codecs
from hubclient.formats.encodings import F32
from hubclient.formats.finite import first_nonfinite, may_overflow
from hubclient.model import common
from hubclient.rows import packed

_STEP = 1 << 16  # numbers looked at at a time

if TYPE_CHECKING:
    import numpy as np

    from hubclient.formats.model import Encoding
    from hubclient.plan import Plan, Step
    from hubclient.rows import Reader
    from hubclient.tiles import Tile

    Rows = np.ndarray[Any, Any]


class Found(NamedTuple):
    """What became of a tile's values: how many elements would not come back (None: not counted), and how far they are off
    (None: not measured).
    """

    changed: int | None = None
    deviation: Deviation | None = None


def work(tile: Tile, steps: Iterable[Step], reader: Reader) -> Iterator[tuple[Step, Rows, Found]]:
    """For each of these steps (of the tile's group) its bytes, uint8 of shape (rows, row bytes), and what became of the values.

    Raises DamagedInput for NaN and infinities that would be quantised, unless the step allows them.
    """
    array, source = tile.group.array, tile.group.source
    if source is None:
        values = array.read(tile.start, tile.stop, reader.floats)
        rows = _Rows(tile, packed(values), F32)
    else:
        rows = _Rows(tile, packed(array.read(tile.start, tile.stop, reader.native)), source)
    for step in steps:
        check = tile.group.check(step)
        if step.quantises:
            yield step, *_quantised(step, rows)
        elif source == step.encoding:
            yield step, rows.raw, Found()
        elif source is None:
            data = codecs.encode(values, step.encoding)
            changed = check.changed(tile.start, tile.stop, values, data, reader) if check.applies else None
            yield step, data, Found(changed)
        elif check.applies:
            data, changed = codecs.transcode_counting(rows.raw, source, step.encoding, array.columns)
            yield step, data, Found(changed)
        else:
            yield step, codecs.transcode(rows.raw, source, step.encoding, array.columns), Found()


def prepare(plan: Plan, stage: Callable[[str], None] | None = None) -> None:
    """Pack a block of each kind that the plan has, so that kernels which were never compiled here are compiled now; `stage` is
    told which.
    """
    import numpy as np

    steps = (step for output in plan.outputs for step in output.steps if step.quantises)
    kinds = {(common(step.array) or F32, step.encoding, step.importance is not None) for step in steps}
    for source, target, weighted in sorted(kinds, key=str):
        if stage:
            stage(f"compiling {target}")
        columns = math.lcm(source.block, target.block)
        importance = np.ones(columns, np.float32) if weighted else None
        row = np.zeros((1, source.row_bytes(columns)), np.uint8)
        codecs.transcode(row, source, target, columns, importance=importance)


@dataclass(frozen=True)
class _Rows:
    """A tile's rows as they are read: raw uint8 [n, row_bytes] of that encoding."""

    tile: Tile
    raw: Rows
    encoding: Encoding

    @cached_property
    def large(self) -> bool:
        """Whether numbers may be too large for blocks (see `may_overflow`); looked at once, however many outputs ask."""
        return may_overflow(self.raw, self.encoding)

    @cached_property
    def nonfinite(self) -> int | None:
        """Where the first NaN or infinity is, counted along the rows; their bits are those of the largest magnitudes."""
        return first_nonfinite(self.raw, self.encoding, self.tile.group.array.columns) if self.large else None


def _quantised(step: Step, rows: _Rows) -> tuple[Rows, Found]:
    rows, replaced = _finite(step, rows)
    columns = rows.tile.group.array.columns
    data = _packed(step, rows)
    if rows.large:
        _refuse_overflow(step, rows.tile, data)
    off = deviation(rows.raw, rows.encoding, data, step.encoding, columns, rows.tile.start) if step.measured else None
    return data, Found(replaced, off)


def _packed(step: Step, rows: _Rows) -> Rows:
    array = rows.tile.group.array
    return pack(rows.raw, rows.encoding, step.encoding, array.columns, (rows.tile.start, array.rows), step.importance)


def pack(raw: Rows, source: Encoding, target: Encoding, columns: int, place: tuple[int, int], importance: Any = None) -> Rows:
    """Raw rows of `target` from raw rows of `source`; `place` is the number of the first, and how many the tensor has: each matrix
    of a stack is packed by its own importance (see `plan.Step`).
    """
    import numpy as np

    if importance is None:
        return codecs.transcode(raw, source, target, columns)
    start, stop = place[0], place[0] + len(raw)
    each = place[1] // importance.matrices  # rows of one matrix
    first = start // each
    values = importance.read(first, -(-stop // each))
    data = np.empty((len(raw), target.row_bytes(columns)), np.uint8)
    for number in range(first, -(-stop // each)):
        part = slice(max(start, number * each) - start, min(stop, (number + 1) * each) - start)
        codecs.transcode(raw[part], source, target, columns, data[part], values[number - first])
    return data


def _finite(step: Step, rows: _Rows) -> tuple[_Rows, int | None]:
    """The rows without NaN and infinities, and how many there were (None: not one was looked for, as there can be none)."""
    tile, columns = rows.tile, rows.tile.group.array.columns
    at = rows.nonfinite
    if at is None:
        return rows, None
    if not step.nonfinite:
        row, column = divmod(at, columns)
        values = codecs.decode(rows.raw[row : row + 1], rows.encoding, columns)
        leaf = next(iter(tile.group.array.leaves()))
        raise DamagedInput(
            f"tensor {step.name}, row {tile.start + row:,}, column {column:,} is {values[0, column]}, which {step.encoding} cannot hold",
            file=getattr(leaf.ref, "file", None),
            tensor=step.name,
            hint="--allow-nonfinite quantises NaN as 0, and infinities as the largest finite number of their row",
        )
    values = codecs.decode(rows.raw, rows.encoding, columns)
    step_rows = max(1, _STEP // max(1, columns))
    replaced = sum(_replace_nonfinite(values[start : start + step_rows]) for start in range(0, len(values), step_rows))
    return replace(rows, raw=packed(values), encoding=F32), replaced


def _refuse_overflow(step: Step, tile: Tile, data: Rows) -> None:
    """DamagedInput if blocks hold no numbers, as those that they are made of are too large for their scales."""
    columns = tile.group.array.columns
    at = first_nonfinite(data, step.encoding, columns)
    if at is not None:
        told = f"tensor {step.name}, row {tile.start + at // columns:,} has numbers too large for the scales of {step.encoding}"
        hint = f"--tensor-type {step.name}=BF16 leaves it in 16 bits"
        raise DamagedInput(told, tensor=step.name, hint=hint)


def _replace_nonfinite(values: Rows) -> int:
    """NaN becomes 0, infinities the largest finite magnitude of their row; how many there were."""
    import numpy as np

    strange = ~np.isfinite(values)
    largest = np.where(strange, 0, np.abs(values)).max(axis=1, keepdims=True)
    values[...] = np.where(np.isnan(values), 0, np.where(strange, np.copysign(largest, values), values))
    return int(strange.sum())
