"""Ranges of a file's bytes: which are there, which are asked for, which an answer brings."""

from __future__ import annotations

import re
from collections.abc import Iterable

Range = tuple[int, int]  # [start, stop)

_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.ASCII | re.IGNORECASE)


class Ranges:
    """A set of bytes that mostly grows at the ends of what it has; adding a neighbour takes constant time."""

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        self._stops: dict[int, int] = {}
        self._starts: dict[int, int] = {}
        self.total = 0
        last = -1
        for start, stop in sorted(ranges):
            if stop > max(start, last):
                self.add(max(start, last), stop)
                last = stop

    def add(self, start: int, stop: int) -> None:
        """Add bytes, none of which is there yet."""
        self.total += stop - start
        before = self._starts.pop(start, start)
        after = self._stops.pop(stop, stop)
        self._stops[before] = after
        self._starts[after] = before

    @property
    def prefix(self) -> int:
        """How many bytes are there from the file's beginning on."""
        return self._stops.get(0, 0)

    def holes(self, start: int, stop: int) -> list[Range]:
        """What is missing in [start, stop), in order."""
        found = []
        for has_start, has_stop in sorted(self._stops.items()):
            if has_stop > start and has_start < stop:
                if has_start > start:
                    found.append((start, has_start))
                start = has_stop
        return [*found, (start, stop)] if start < stop else found


def segments(holes: Iterable[Range], length: int) -> list[Range]:
    """The holes cut to pieces of `length` bytes, the last of each a little longer rather than tiny."""
    cut = []
    for start, stop in holes:
        while stop - start > length + length // 4:
            cut.append((start, start + length))
            start += length
        cut.append((start, stop))
    return cut


def parse_content_range(text: str) -> tuple[int, int, int | None] | None:
    """(start, stop, size of the whole or None) of a Content-Range header (RFC 9110, 14.4); None if it is none."""
    match = _CONTENT_RANGE.fullmatch(text.strip())
    if match is None:
        return None
    return int(match[1]), int(match[2]) + 1, None if match[3] == "*" else int(match[3])
