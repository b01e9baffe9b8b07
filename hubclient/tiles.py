"""Cutting a plan into tiles: rows of one array, which several outputs may want (`work` works them off)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hubclient.architectures.language.arrays import Array
from hubclient.fidelity import Check
from hubclient.model import Inline, common
from hubclient.plan import OutputPlan, Step

if TYPE_CHECKING:
    from hubclient.formats.model import Encoding

_LARGEST = 4 << 20  # source bytes of a tile; larger ones leave the processor's cache and less to resume
_SMALLEST = 64 << 10  # smaller ones would hardly save memory, and take a journal line each
_COPIES = 12  # at most this many times the widest row of a tile live at once: rows, gathered rows, float32 (twice), outputs


@dataclass(frozen=True)
class Group:
    """The same array wanted by several outputs: read once, encoded for each. `steps` are (output index, step)."""

    array: Array
    steps: tuple[tuple[int, Step], ...]

    @cached_property
    def source(self) -> Encoding | None:
        """The one encoding in which the array is read (see `common`)."""
        return common(self.array)

    @cached_property
    def unit(self) -> int:
        """Rows that tiles should not cut apart."""
        return self.array.unit

    @cached_property
    def checks(self) -> tuple[Check, ...]:
        """How each step's values are compared with what they come from."""
        return tuple(Check(step) for _, step in self.steps)

    def check(self, step: Step) -> Check:
        """That of one of the steps."""
        return next(check for (_, own), check in zip(self.steps, self.checks, strict=True) if own is step)


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


def schedule(groups: Sequence[Group], max_memory: int, jobs: int) -> Iterator[Tile]:
    """All tiles, in the order in which their rows lie in the source: parts that are stacked (experts) may lie between those
    of other stacks, and everybody reads forwards.
    """
    heights = [_height(group, max_memory, jobs) for group in groups]
    found = []
    for number, group in enumerate(groups):
        found += [(place, number, start, stop) for place, start, stop in _stretches(group.array, heights[number])]
    for _, number, start, stop in sorted(found):
        yield from _cut(groups[number], start, stop, heights[number])


def tiles(group: Group, max_memory: int, jobs: int) -> Iterator[Tile]:
    """Tiles of a group that fit the memory budget, of whole units where that is possible."""
    return schedule([group], max_memory, jobs)


def _height(group: Group, max_memory: int, jobs: int) -> int:
    """Rows of a tile at most."""
    array = group.array
    budget = max(max_memory // max(1, jobs) // _COPIES, _SMALLEST)
    budget = min(budget, _LARGEST) if array.local else min(budget, 4 * _LARGEST)
    rows = max(1, budget // max(1, _width(group)))
    return rows - rows % group.unit if group.unit < rows else rows


def _width(group: Group) -> int:
    """Bytes of a row where it takes most: read, decoded unless that is done in small steps, or written."""
    columns = group.array.columns
    read = columns * 4 if group.source is None else group.source.row_bytes(columns)
    return max(read, *(step.encoding.row_bytes(columns) for _, step in group.steps))


def _stretches(array: Array, height: int) -> Iterator[tuple[tuple[str, int], int, int]]:
    """Rows whose bytes lie together: their place, and from where to where; short ones are put to their neighbours."""
    start = stop = 0
    place = ("", 0)
    for rows, leaf in array.runs() if array.columns else ():
        if start < stop and stop - start + rows > height:
            yield place, start, stop
            start = stop
        if start == stop:
            place = _place(leaf.ref)
        stop += rows
    if start < stop:
        yield place, start, stop


def _cut(group: Group, start: int, stop: int, height: int) -> Iterator[Tile]:
    """Tiles of about equal height."""
    count = -(-(stop - start) // height)
    equal = -(-(stop - start) // count)
    if (unit := group.unit) < height:
        equal += -equal % unit
    for first in range(start, stop, equal):
        yield Tile(group, first, min(first + equal, stop))


def _place(ref: Any) -> tuple[str, int]:
    return ("", 0) if isinstance(ref, Inline) else (str(ref.file), ref.offset)
