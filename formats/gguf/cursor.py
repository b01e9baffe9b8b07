"""Reading forward through the head of a GGUF file: bytes are fetched as they are needed, and every claim is checked first.

Nothing is memory-mapped: a file that shrinks under a map kills the process, a short read is an error with a sentence.
"""

from __future__ import annotations

import struct
from array import array
from pathlib import Path
from struct import Struct
from typing import BinaryIO

from hubclient.errors import DamagedInput
from hubclient.formats.gguf.constants import MAX_HEADER, MAX_STRINGS
from hubclient.formats.gguf.values import StringArray

_FIRST_READ = 256 << 10
_LENGTH = Struct("<Q")


class Cursor:
    """A position in the first bytes of an open file of `size` bytes; `at` says in words what is being read, for errors."""

    def __init__(self, file: BinaryIO, path: Path, size: int) -> None:
        self.path = path
        self.size = size
        self.pos = 0
        self.at = "the header"
        self.data = bytearray()
        self._file = file
        self.use_order("little")

    def use_order(self, byteorder: str) -> None:
        """Read numbers in "little" or "big" order from here on."""
        self.byteorder = byteorder
        mark = "<" if byteorder == "little" else ">"
        self._structs = {code: Struct(mark + code) for code in "BbHhIiQqfd"}

    def damaged(self, fault: str, tensor: str | None = None) -> DamagedInput:
        """The error to raise for a fault at this position."""
        return DamagedInput(fault, file=self.path, tensor=tensor, offset=self.pos)

    def reserve(self, count: int) -> int:
        """Make sure that `count` bytes follow the position, and return where they end."""
        end = self.pos + count
        if end > self.size:
            raise self.damaged(
                f"the file ends inside {self.at}: {count} bytes are needed at offset {self.pos}, {self.size - self.pos} are left"
            )
        if end > MAX_HEADER:
            raise self.damaged(f"{self.at} would make the header larger than {MAX_HEADER >> 20} MiB, which no real model needs")
        if end > len(self.data):
            self._fetch(min(self.size, max(end, 2 * len(self.data), _FIRST_READ)))
        return end

    def _fetch(self, end: int) -> None:
        while len(self.data) < end:
            chunk = self._file.read(end - len(self.data))
            if not chunk:
                raise self.damaged(f"the file shrank to {len(self.data)} bytes while it was read")
            self.data += chunk

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        end = self.reserve(count)
        taken = bytes(self.data[self.pos : end])
        self.pos = end
        return taken

    def width(self, code: str) -> int:
        """Bytes of a number, `code` as in `struct`."""
        return self._structs[code].size

    def number(self, code: str) -> int | float:
        """The next number, `code` as in `struct`."""
        layout = self._structs[code]
        end = self.reserve(layout.size)
        value: int | float = layout.unpack_from(self.data, self.pos)[0]
        self.pos = end
        return value

    def u32(self) -> int:
        """The next 32-bit count or type."""
        return int(self.number("I"))

    def u64(self) -> int:
        """The next 64-bit count, length or offset."""
        return int(self.number("Q"))

    def text(self, limit: int) -> str:
        """The next string that has to be UTF-8 of 1 to `limit` bytes: a key or the name of a tensor."""
        length = self.u64()
        if not 0 < length <= limit:
            raise self.damaged(f"{self.at} has a name of {length} bytes; 1 to {limit} are allowed")
        try:
            text = self.take(length).decode("utf-8")
        except UnicodeDecodeError:
            raise self.damaged(f"{self.at} has a name that is not UTF-8") from None
        if "\0" in text:
            raise self.damaged(f"{self.at} has a name with a NUL byte inside")
        return text

    def strings(self, count: int) -> StringArray:
        """The next `count` length-prefixed strings."""
        if count > MAX_STRINGS:
            raise self.damaged(f"{self.at} claims {count} strings; more than {MAX_STRINGS} are beyond any real vocabulary")
        start = self.pos
        self.reserve(8 * count)  # each has at least its length
        ends = self._string_ends(count)
        body = bytes(self.data[start : self.pos])
        return StringArray(body if self.byteorder == "little" else _with_little_lengths(body, ends), ends)

    def _string_ends(self, count: int) -> array[int]:
        """Where each of `count` strings ends, from the position on, which moves past them all."""
        start = pos = self.pos
        ends: list[int] = []
        append, length_at = ends.append, self._structs["Q"].unpack_from
        while len(ends) < count:
            data = self.data
            try:
                for _ in range(count - len(ends)):
                    pos += length_at(data, pos)[0] + 8
                    append(pos - start)
            except (struct.error, OverflowError):  # `data` ends before `pos`: fetch more, or refuse a false length
                self._reach(start, ends, 8)
        self._reach(start, ends, 0)
        self.pos = pos
        return array("Q", ends)

    def _reach(self, start: int, ends: list[int], more: int) -> None:
        """Make sure that the last string found and `more` bytes after it are there."""
        self.pos = start + (ends[-2] if len(ends) > 1 else 0)
        self.reserve(start + (ends[-1] if ends else 0) - self.pos + more)


def _with_little_lengths(body: bytes, ends: array[int]) -> bytes:
    """A body of strings with big-endian lengths, with the lengths turned round."""
    turned = bytearray(body)
    start = 0
    for end in ends:
        _LENGTH.pack_into(turned, start, end - start - 8)
        start = end
    return bytes(turned)
