"""Cutting a plan into tiles, and working one off: read rows, transform, encode. Knows no output file and no journal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hubclient.architectures.arrays import Array
from hubclient.fidelity import Check
from hubclient.formats import codecs
from hubclient.model import Inline, encodings_of
from hubclient.plan import OutputPlan, Step
from hubclient.rows import packed

if TYPE_CHECKING:
    import numpy as np

    from hubclient.formats.model import Encoding
    from hubclient.rows import Reader

    Rows = np.ndarray[Any, Any]

_LARGEST = 4 << 20  # source bytes of a tile; larger ones leave the processor's cache and less to resume
_SMALLEST = 64 << 10  # smaller ones would hardly save memory, and take a journal line each
_COPIES = 12  # at most this many times its source bytes live at once: rows, gathered rows, float32 (twice), outputs


@dataclass(frozen=True, slots=True)
class Group:
    """The same array wanted by several outputs: read once, encoded for each. `steps` are (output index, step)."""

    array: Array
    steps: tuple[tuple[int, Step], ...]


@dataclass(frozen=True, slots=True)
class Tile:
    """Rows [start, stop) of a group."""

    group: Group
    start: int
    stop: int


def groups(outputs: Iterable[OutputPlan]) -> list[Group]:
    """Steps of all outputs by what they read, ordered by where that lies in the source."""
    found: dict[tuple[Any, ...], list[tuple[int, Step]]] = {}
    for index, output in enumerate(outputs):
        for step in output.steps:
            key = (step.name, step.array.describe(), *(_place(leaf.ref) for leaf in step.array.leaves()))
            found.setdefault(key, []).append((index, step))
    ordered = sorted(found.items(), key=lambda item: item[0][2:])
    return [Group(steps[0][1].array, tuple(steps)) for _, steps in ordered]


def tiles(group: Group, max_memory: int, jobs: int) -> Iterator[Tile]:
    """Tiles of a group that fit the memory budget, of whole units where that is possible."""
    array = group.array
    if not array.rows or not array.columns:
        return
    budget = max(max_memory // max(1, jobs) // _COPIES, _SMALLEST)
    budget = min(budget, _LARGEST) if array.local else min(budget, 4 * _LARGEST)
    stays_packed = all(step.moves or step.repacks for _, step in group.steps)
    width = _row_bytes(array) if stays_packed else array.columns * 4
    rows = max(1, budget // max(1, width))
    if array.unit < rows:
        rows -= rows % array.unit
    for start in range(0, array.rows, rows):
        yield Tile(group, start, min(start + rows, array.rows))


def work(tile: Tile, steps: Iterable[Step], reader: Reader) -> Iterator[tuple[Step, Rows, int | None]]:
    """For each of these steps (of the tile's group) its bytes, uint8 of shape (rows, row bytes), and how many elements
    would not come back from them; None where that is not counted.
    """
    for step, data in _encoded(tile, steps, reader):
        check = Check(step)
        yield step, data, check.changed(tile.start, tile.stop, data, reader) if check.applies else None


def _encoded(tile: Tile, steps: Iterable[Step], reader: Reader) -> Iterator[tuple[Step, Rows]]:
    array = tile.group.array
    source = common(array)
    native = reader_rows = None
    for step in steps:
        if source is not None:
            native = packed(array.read(tile.start, tile.stop, reader.native)) if native is None else native
            yield step, native if step.encoding == source else codecs.transcode(native, source, step.encoding, array.columns)
        else:
            if reader_rows is None:
                reader_rows = array.read(tile.start, tile.stop, reader.floats)
            yield step, codecs.encode(reader_rows, step.encoding)


def common(array: Array) -> Encoding | None:
    """The one encoding in which the array can be read without decoding; None if it must be read as float32."""
    own = encodings_of(array)
    if len(own) != 1:
        return None
    (encoding,) = own
    if encoding.blocked:
        return encoding if array.moves_rows and len(array.shape) > 1 else None
    return encoding if array.moves_elements else None


def _row_bytes(array: Array) -> int:
    (encoding,) = encodings_of(array)
    return encoding.row_bytes(array.columns)


def _place(ref: Any) -> tuple[str, int]:
    return ("", 0) if isinstance(ref, Inline) else (str(ref.file), ref.offset)
